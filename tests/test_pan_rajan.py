"""Pan and Rajan's rules on networks small enough to work out by hand."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from modlib import metrics, recipes
from modlib.decomposers import pan_rajan
from modlib.decomposers.pan_rajan import RuleModules
from modlib.study import methods
from modlib.study.methods import Subject, compare
from modlib.study.records import Store
from modlib.study.trials import Trial, run_trials, trial_modules
from modlib.zoo.stored import stored_parent

T = torch.tensor


def layer(weight, bias):
    return T(weight, dtype=torch.float32), T(bias, dtype=torch.float32)


def same(module, expected):
    for (weight, bias), (wanted, wanted_bias) in zip(module, expected, strict=True):
        torch.testing.assert_close(weight, T(wanted, dtype=torch.float32))
        torch.testing.assert_close(bias, T(wanted_bias, dtype=torch.float32))


NET = [
    layer([[1, -2], [3, 4]], [0.5, 0.6]),
    layer([[1, 2], [-3, 4]], [0.7, 0.8]),
    layer([[1, 2], [3, 4]], [0.1, 0.2]),
]
# three positives, one a row: neuron 0 of layer 1 sleeps on the first, neuron 1 of layer 2 on the last
ACTIVE = [T([[0, 1], [1, 1], [1, 1]]).bool(), T([[1, 1], [1, 1], [1, 0]]).bool()]


def test_activity_is_of_the_linear_chain():
    """1 -> -1 -> 1: with a ReLU between the layers, the second would see 0 and stay at its bias of -0.5."""
    net = [layer([[-1]], [0]), layer([[-1]], [-0.5]), layer([[1, 2]], [0, 0])]
    assert [a.tolist() for a in pan_rajan.activity(net, T([[1.0]]))] == [[[False]], [[True]]]


def test_concern_identification():
    """Layer 1 keeps 4, the one positive weight into neuron 1; layer 2 keeps 1: neuron 0 before it sleeps only first."""
    expected = [
        ([[0, 0], [0, 4]], [0.5, 0.6]),
        ([[1, 0], [0, 0]], [0.7, 0]),
        ([[1, 2], [3, 4]], [0.1, 0.2]),
    ]
    same(pan_rajan.identify_concern(NET, ACTIVE), expected)
    later = [ACTIVE[0].roll(1, 0), ACTIVE[1]]  # neuron 0 of layer 1 sleeps on the second: its row of layer 2 goes
    assert pan_rajan.identify_concern(NET, later)[1][0].tolist() == [[0, 0], [0, 0]]


def test_tangling_identification_puts_whole_columns_back():
    concern = pan_rajan.identify_concern(NET, ACTIVE)
    negatives = [T([[0, 0], [1, 0]]).bool(), T([[0, 1], [0, 1]]).bool()]
    expected = [
        ([[1, 0], [3, 4]], [0.5, 0.6]),
        ([[1, 2], [0, 4]], [0.7, 0.8]),
        ([[1, 2], [3, 4]], [0.1, 0.2]),
    ]
    same(pan_rajan.put_back(concern, NET, negatives), expected)


HIDDEN = ([[1, 3, 5], [-1, 2, 7]], [0.1, 0.2, 0.3])
OUT = [[0.5, 0.01, 0.2], [0.3, -0.02, 0.4], [0.6, 0.9, 0.3]]


def test_merging_and_channeling():
    """Class 1: neurons 0 and 1 are weak; the mean of 0.01 and -0.02 goes to output 0, then half of everything."""
    module = pan_rajan.merge([layer(*HIDDEN), layer(OUT, [0.3, 0.4, 0.5])], 1)
    merged = ([[2, 0, 5], [0.5, 0, 7]], [0.1, 0.2, 0.3])
    same(module, [merged, ([[-0.0025, 0.01, 0], [0, -0.02, 0], [0.45, 0.9, 0]], [0.8 / 3, 0.4, 0])])


def test_merging_for_the_first_class_and_for_a_late_one():
    """Class 0: "another" is output 1, its bias a true mean. Class 2: the mean is taken of zeros."""
    columns = T(OUT)[:, [1, 0, 2]].tolist()  # the weak column first
    module = pan_rajan.merge([layer(*HIDDEN), layer(columns, [0.3, 0.4, 0.5])], 0)
    same(module[1:], [([[0.01, -0.0025, 0], [-0.02, 0, 0], [0.9, 0.45, 0]], [0.3, 0.45, 0])])
    columns = T(OUT)[:, [0, 2, 1]].tolist()
    module = pan_rajan.merge([layer(*HIDDEN), layer(columns, [0.3, 0.4, 0.5])], 2)
    same(module[1:], [([[0, 0, 0.01], [0, 0, -0.02], [0.45, 0, 0.9]], [0.7 / 3, 0, 0.5])])


def test_one_weak_neuron_is_not_merged_and_the_module_given_stays():
    strong = [[0.5, 0.01, 0.2], [0.3, -0.05, 0.4], [0.6, 0.9, 0.3]]
    given = [layer(*HIDDEN), layer(strong, [0, 0, 0])]
    module = pan_rajan.merge(given, 1)
    same(module, [HIDDEN, ([[0, 0.01, 0], [0.35, -0.05, 0], [0.45, 0.9, 0]], [0, 0, 0])])
    same(given, [HIDDEN, (strong, [0, 0, 0])])


# a = x0 - x1/20, b = x1, c = x0 - x1; the outputs read a and b
TOY = [layer([[1, 0, 1], [-0.05, 1, -1]], [-0.1, -0.2, -0.3]), layer([[1, 0], [0, 1], [0, 0]], [0, 0])]
IMAGES = T([[9, 0], [0, 9], [8, 0], [1, 9], [0, 9]], dtype=torch.uint8)
LABELS = T([0, 1, 0, 1, 0])  # the last is no positive of class 0: the network takes it for a 1


def as_floats(images):
    return images.float()


def test_the_modules_of_a_toy_network():
    """Class 0 activates a and c. One negative, (0, 9), brings b back; the second, (1, 9), also the -0.05 of a."""
    module, other = pan_rajan.decompose(TOY, IMAGES, LABELS, "TI-I", as_floats)
    same(module, [([[1, 0, 1], [0, 1, 0]], [-0.1, -0.2, -0.3]), TOY_OUT])
    # class 1: b on both positives, a on the last; the first negative, (9, 0), brings a and c back
    same(other, [([[1, 0, 1], [-0.05, 1, -1]], [-0.1, -0.2, -0.3]), TOY_OUT])
    module, _ = pan_rajan.decompose(TOY, IMAGES, LABELS, "TI-SNE", as_floats)
    same(module, [([[1, 0, 1], [-0.05, 1, 0]], [-0.1, -0.2, -0.3]), TOY_OUT])
    module, _ = pan_rajan.decompose(TOY, IMAGES, LABELS, "CM-RIE", as_floats)
    # b and c are weak for class 0 (both 0): merged into b, whose weight to output 1 goes
    same(module, [([[1, 0.5, 0], [-0.05, 0.5, 0]], [-0.1, -0.2, -0.3]), ([[1, 0], [0, 0], [0, 0]], [0, 0])])
    same(TOY[1:], [TOY_OUT])


TOY_OUT = ([[1, 0], [0, 1], [0, 0]], [0, 0])


def test_the_control_cuts_what_no_image_activates():
    asleep = [layer([[1, 0, 1], [-0.05, 1, -1]], [-0.1, -0.2, -30]), TOY[1]]
    modules = pan_rajan.without_idle_neurons(asleep, IMAGES, as_floats)
    assert len(modules) == 2
    same(modules[1], [([[1, 0, 0], [-0.05, 1, 0]], [-0.1, -0.2, 0]), TOY_OUT])
    masks = pan_rajan.mask_set(modules)
    assert masks.mean_jaccard() == 1
    assert masks.remaining() == (3 + 2) / (6 + 6)  # TOY has zeros of its own


def test_probabilities_have_a_relu_and_no_other():
    net = [layer([[1, -1]], [0, 0]), layer([[1, 0], [0, 1]], [0, -3])]
    odds = pan_rajan.probabilities(net, T([[2.0], [-2.0]])).log()
    torch.testing.assert_close(odds[:, 0] - odds[:, 1], T([5.0, 1.0]))


def test_the_vote():
    """Three images: one module votes; two do, and the surer one wins; none does, and the least unsure one wins."""
    each = torch.zeros(3, 3, 3)  # module, image, class
    each[:, 0] = T([[0.4, 0.5, 0.1], [0.3, 0.2, 0.5], [0.3, 0.3, 0.4]])
    each[:, 1] = T([[0.6, 0.4, 0.0], [0.2, 0.7, 0.1], [0.5, 0.0, 0.5]])
    each[:, 2] = T([[0.2, 0.8, 0.0], [0.6, 0.3, 0.1], [0.8, 0.0, 0.2]])
    assert pan_rajan.vote(each).tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match=r"each: must be \[N modules, B, N classes\], got \(2, 3, 3\)"):
        pan_rajan.vote(each[:2])


def test_a_voter_wins_over_a_surer_module_that_does_not_vote():
    each = T([[[0.45, 0.55, 0.0]], [[0.5, 0.4, 0.1]], [[0.35, 0.25, 0.4]]])  # 0: 0.45, no vote; 2: 0.4, votes
    assert pan_rajan.vote(each).tolist() == [2]


def test_accuracy_of_copies_is_the_networks():
    x = as_floats(IMAGES)
    predicted = RuleModules((TOY, TOY), (0, 1)).recompose([0, 1]).predict(x)
    assert int((predicted == torch.as_tensor(LABELS)).sum()) == 4


def test_value_index():
    """Shared values: {0, 1} of 4 weights, 2 / 6; {0}, 1 / 7, twice. Zero counts once, and so does a repeated value."""
    weights = T([[1.0, 2, 0, 0], [1.0, 3, 0, 1], [0.0, -1, -2, 0]])
    assert metrics.value_index(weights[:2]) == pytest.approx(1 / 3)
    assert metrics.value_index(weights) == pytest.approx((1 / 3 + 1 / 7 + 1 / 7) / 3)


def test_value_index_of_copies_is_not_1():
    row = torch.arange(100.0)  # 0 and 99 distinct values
    assert metrics.value_index(torch.stack([row, row])) == 1
    row[51:] = 0  # 50 of 100 kept: u = 51
    assert metrics.value_index(torch.stack([row, row])) == 51 / 149
    with pytest.raises(ValueError, match="weights: must be"):
        metrics.value_index(row[None])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "TI"}, ValueError, r"method must be one of \['CM-RIE', 'TI-I', 'TI-SNE'\], got 'TI'"),
        ({"images": IMAGES.float()}, TypeError, "images must be uint8, got torch.float32"),
        ({"labels": LABELS[:3]}, ValueError, r"labels must be \[5\], one for each image, got \(3,\)"),
        ({"labels": LABELS + 1}, ValueError, "labels must be in 0 to 1, got 1 to 2"),
        ({"labels": LABELS.float()}, TypeError, "labels must be whole numbers"),
        ({"layers": TOY[1:]}, ValueError, "layers: two or more are needed"),
        ({"layers": "fc1"}, TypeError, "layers: must be a list"),
        ({"layers": [TOY[0], TOY[0]]}, ValueError, r"layers\[1\]: must be a weight \[3, out\] and a bias \[out\], got"),
        ({"layers": [TOY[0], (TOY[1][0].int(), TOY[1][1])]}, TypeError, r"layers\[1\]: must be floating-point"),
        ({"layers": [TOY[0], (TOY[1][0] / 0, TOY[1][1])]}, ValueError, r"layers\[1\]: 6 of 6 values are NaN"),
        ({"images": IMAGES.repeat(1, 2)}, ValueError, r"preprocess: must give \[5, 2\] inputs, got \(5, 4\)"),
        ({"labels": T([0, 1, 1, 1, 1])}, ValueError, "images: 1 of class 0 have a probability above 0.9"),
    ],
)
def test_bad_input(changes, error, message):
    given = {"layers": TOY, "images": IMAGES, "labels": LABELS, "method": "TI-I", "preprocess": as_floats}
    with pytest.raises(error, match=message):
        pan_rajan.decompose(**given | changes)


def test_layers_of_a_parent(parent, inputs):
    layers = pan_rajan.layers_of(parent)
    assert [tuple(w.shape) for w, _ in layers] == [(16, 6), (6, 3)]
    torch.testing.assert_close(pan_rajan.probabilities(layers, inputs), parent(inputs).softmax(1))
    with pytest.raises(ValueError, match="parent: must be linear layers"):
        pan_rajan.layers_of(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)))


def write_keras(path, layers):
    """A file as Keras 2.2 writes it: an input layer without weights, then dense ones."""
    names = ["Input", *(f"H{i}" for i in range(len(layers)))]
    with h5py.File(path, "w") as file:
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = np.array([n.encode() for n in names])
        top.create_group("Input").attrs["weight_names"] = np.array([], dtype="S1")
        for name, (weight, bias) in zip(names[1:], layers, strict=True):
            group = top.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()])
            group[f"{name}/kernel:0"], group[f"{name}/bias:0"] = weight.numpy(), bias.numpy()


def test_a_stored_parent(tmp_path):
    write_keras(tmp_path / "mnist_fc1.h5", TOY)
    parent = stored_parent(tmp_path, "mnist", "fc1")
    assert not parent.training
    for (weight, bias), (stored, stored_bias) in zip(pan_rajan.layers_of(parent), TOY, strict=True):
        assert torch.equal(weight, stored)
        assert torch.equal(bias, stored_bias)
    with pytest.raises(FileNotFoundError, match=r"folder: no file .*mnist_fc2\.h5"):
        stored_parent(tmp_path, "mnist", "fc2")
    (tmp_path / "mnist_fc1.h5").rename(tmp_path / "mnist_fc2.h5")
    with pytest.raises(ValueError, match="has 2 layers, fc2 has 3"):
        stored_parent(tmp_path, "mnist", "fc2")
    (tmp_path / "mnist_fc2.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match="is not a Keras model in HDF5"):
        stored_parent(tmp_path, "mnist", "fc2")


@pytest.fixture(scope="module")
def stored(tmp_path_factory, data):
    """A folder with a network for the toy images: hidden neuron c sees the row of class c; inputs are scaled twice."""
    weight = torch.zeros(16, 4)
    for c in range(3):
        weight[4 * c : 4 * c + 4, c] = 255.0 * 255 / 4
    weight[:, 3], bias = 255.0, torch.tensor([0.0, 0, 0, -16])  # the last is idle, if inputs are scaled twice
    folder = tmp_path_factory.mktemp("stored")
    write_keras(folder / "toy_fc1.h5", [(weight, bias), (torch.eye(4)[:, :3].contiguous(), torch.zeros(3))])
    return folder


SUBJECT = Subject("toy", "fc1", "stored", 0, 50)


def test_records_of_a_stored_parent_are_read_without_its_folder(stored, data, tmp_path):
    recipe = recipes.ours(k=0.5, epochs=1, batch_size=30)
    store = Store.at(tmp_path)
    assert compare(SUBJECT, [("ours", recipe)], data, store) == []
    records = compare(SUBJECT, [("ours", recipe)], data, store, stored)
    assert compare(SUBJECT, [("ours", recipe)], data, store) == records
    assert compare(SUBJECT, [("ours", replace(recipe, epochs=2))], data, store) == records[:-1]
    rows = [record.rows[0] for record in records]
    assert [row["method"] for row in rows] == ["TI-I", "TI-SNE", "CM-RIE", "no idle neurons", "module stemming"]
    assert {row["parent"] for row in rows} == {"stored"}
    control = rows[3]
    assert control["accuracy"] == control["parent_accuracy"] == 1
    assert control["density"] == control["remaining_parameters_all"] == pytest.approx((12 + 3) / (64 + 12), abs=1e-6)
    assert rows[4]["k"] == 0.5
    assert rows[4]["density"] == 0.5
    assert list(tmp_path.glob("modules/toy-fc1-stored-ours-*"))


def test_records_of_other_data_are_refused(stored, data, tmp_path):
    store = Store.at(tmp_path)
    compare(SUBJECT, [], data, store, stored)
    with pytest.raises(ValueError, match="was made on other data of this name"):
        compare(SUBJECT, [], replace(data, test_labels=data.test_labels.roll(1)), store)
    with pytest.raises(ValueError, match=r"subject\.parent must be one of"):
        compare(replace(SUBJECT, parent="theirs"), [], data, store)


def test_an_own_parent_takes_its_own_inputs(data, tmp_path):
    records = compare(Subject("toy", "fc1", "own", 0, 300), [], data, Store.at(tmp_path))
    assert [record.rows[0]["parent_accuracy"] for record in records] == [1] * 4
    assert list(tmp_path.glob("parents/toy-fc1-seed0-*"))


def test_what_stemming_modules_weigh(modules):
    weights = methods.stemming_weights(modules)
    assert weights.shape == (3, 16 * 6 + 6 * 3)
    found = methods.sharing(modules.masks, weights)
    assert found["density"] == pytest.approx((29 + 5) / 114)  # k = 0.3 of 96 and of 18
    assert found["jaccard_index"] == modules.masks.mean_jaccard()
    assert found["value_index"] < found["jaccard_index"]


def test_a_trial_on_a_stored_parent_needs_it_and_has_a_key_of_its_own(data):
    recipe = recipes.ours(k=0.5, epochs=1)
    own, theirs = (Trial("toy", "fc1", "ours", recipe, 0, 50, parent) for parent in ("own", "stored"))
    assert "parent" not in own.parameters  # keys of the trials before there were others
    assert theirs.parameters["parent"] == "stored"
    assert own.name != theirs.name
    with pytest.raises(ValueError, match="parent: trial toy-fc1-stored-ours"):
        trial_modules(theirs, data, Store.at(None))
    with pytest.raises(ValueError, match="trials: own parents only"):
        run_trials([theirs], data, Store.at(None))
