"""Recomposed networks that answer "none of these": -1."""

import copy
import io
import math
import pickle

import pytest
import torch

import modlib
from modlib import precision
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.recomposing import Recomposed


@pytest.fixture
def net():
    """Its log-odds are the numbers of its inputs [B, 2] themselves, of classes 4 and 9."""
    parent = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    parent.weight.copy_(torch.eye(2))
    masks = MaskSet({"weight": torch.ones(2, 2, 2).bool()}, (4, 9))
    graft = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    return Modules(parent, masks, graft, torch.zeros(2, 2)).recompose([4, 9])


X = torch.tensor([[0.0, -1.0], [-3.0, -2.0], [1.0, 2.0], [400.0, 0.0], [0.0, 401.0]])


def test_reject_by_hand(net):
    assert net.predict(X).tolist() == [4, 9, 9, 4, 9]
    for off in (None, False):
        assert net.predict(X, reject=off).tolist() == [4, 9, 9, 4, 9]
    for t, expected in ((0.1, [4, 9, 9, 4, 9]), (0.5, [4, -1, 9, 4, 9]), (0.51, [-1, -1, 9, 4, 9])):
        found = net.predict(X, reject=t)
        assert found.dtype == torch.int64
        assert found.tolist() == expected
        assert torch.equal(found < 0, net(X).amax(1) < t), "what is rejected is what no confidence reaches"
    assert net.predict(X, reject=1 - 1e-9).tolist() == [-1, -1, -1, 4, 9]


@pytest.mark.parametrize("reject", [0, 1, 0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_number_that_is_no_confidence_is_refused(net, reject):
    with pytest.raises(ValueError, match=r"reject must be a confidence in \(0, 1\), True or False, got"):
        net.predict(X, reject=reject)


def test_what_else_is_refused(net, data, modules):
    with pytest.raises(TypeError, match="reject must be a number, got 'yes'"):
        net.predict(X, reject="yes")
    with pytest.raises(ValueError, match=r"reject: True needs a threshold; take the network that calibrated\(data\)"):
        net.predict(X, reject=True)
    for keep in (0, 1.5):
        with pytest.raises(ValueError, match=r"keep must be in \(0, 1\]"):
            net.calibrated(X, keep=keep)
    with pytest.raises(TypeError, match="data must be one of modlib's, got list"):
        net.calibrated([1, 2])
    with pytest.raises(ValueError, match=r"data: no image of the classes \[4, 9\] in its part 'held_out'"):
        net.calibrated(data)
    with pytest.raises(ValueError, match="split must be one of"):
        net.calibrated(data, split="validation")
    none = modlib.data.from_arrays(data.train_images, data.train_labels, name="bare")
    with pytest.raises(ValueError, match="split: data set 'bare' has no held_out images"):
        modules.recompose([0]).calibrated(none)


def test_the_threshold_is_the_largest_that_keeps_so_many(net):
    values = torch.randperm(100, generator=torch.Generator().manual_seed(0)) - 50.0
    inputs = torch.stack([values, values - 1], 1)
    for keep, least in ((1.0, -50.0), (0.95, -45.0), (0.55, -5.0), (0.551, -6.0), (0.001, 49.0)):
        tuned = net.calibrated(inputs, keep=keep)
        assert tuned.threshold == least
        kept = tuned.predict(inputs, reject=True) >= 0
        assert int(kept.sum()) == 50 - least == max(1, math.ceil(keep * 100 - 1e-9))
        assert torch.equal(tuned.predict(inputs), net.predict(inputs)), "without reject= nothing changes"


def test_a_threshold_does_not_saturate_as_confidences_do(net):
    tuned = net.calibrated(torch.tensor([[400.5, 0.0]]))
    assert tuned.predict(X, reject=True).tolist() == [-1, -1, -1, -1, 9]
    assert tuned(X)[3:].amax(1).tolist() == [1.0, 1.0]


def test_calibrated_is_a_copy(net):
    tuned = net.calibrated(X)
    assert net.threshold is None
    state = tuned.state_dict()
    assert state.keys() == net.state_dict().keys(), "files of state stay as they are"
    assert all(values.data_ptr() != state[name].data_ptr() for name, values in net.state_dict().items())
    net.load_state_dict(state)


def test_the_threshold_survives_copies_and_pickles_and_old_pickles_have_none(net):
    tuned, file = net.calibrated(X, keep=0.5), io.BytesIO()
    torch.save(tuned, file)
    file.seek(0)
    for twin in (copy.deepcopy(tuned), pickle.loads(pickle.dumps(tuned)), torch.load(file, weights_only=False)):
        assert twin.threshold == tuned.threshold == 2.0
        assert twin.predict(X, reject=True).tolist() == tuned.predict(X, reject=True).tolist() == [-1, -1, 9, 4, 9]
    assert "threshold" not in vars(net), "as a network pickled before there were thresholds"
    assert pickle.loads(pickle.dumps(net)).threshold is None


@pytest.mark.parametrize("at_once", [10_000, 3])
@pytest.mark.parametrize("split", ["held_out", "test"])
def test_of_a_data_set_the_images_of_its_own_classes_count(split, at_once, modules, data, monkeypatch):
    monkeypatch.setattr(precision, "AT_ONCE", at_once)
    images, labels = data.split(split)
    net = modules.recompose([2, 0])
    own = data.inputs(images[labels != 1])
    for keep in (0.5, 0.95):
        expected = net.calibrated(own, keep=keep)
        found = net.calibrated(data, split, keep)
        assert found.threshold == pytest.approx(expected.threshold, abs=1e-9)
        assert found.threshold != net.calibrated(data.inputs(images), keep=keep).threshold
    assert net.calibrated(data).threshold == net.calibrated(data, "held_out", 0.95).threshold


def test_so_many_at_once(modules, data, monkeypatch):
    """A part is not called through the network as a whole."""
    seen, called = [], Recomposed.log_odds
    monkeypatch.setattr(Recomposed, "log_odds", lambda net, inputs: seen.append(len(inputs)) or called(net, inputs))
    monkeypatch.setattr(precision, "AT_ONCE", 3)
    net = modules.recompose([2, 0])
    net.calibrated(data)
    net.calibrated(data.inputs(data.test_images[:7]))
    assert seen == [3, 3, 2, 3, 3, 1]


def test_images_of_other_classes_are_rejected(decompose, data):
    """The toy's classes are told apart by a bright row: a network of two classes refuses the third's images."""
    parent = modlib.zoo.parents.fc(1, 16, 12, 3, seed=1)
    modlib.zoo.training.train(parent, data, epochs=40, seed=0)
    net = decompose(parent, k=0.6, epochs=40).recompose([0, 2]).calibrated(data, keep=0.9)
    found = net.predict(data.inputs(data.test_images), reject=True)
    own = data.test_labels != 1
    kept = (found >= 0).double()
    assert kept[own].mean() >= 0.75
    assert kept[~own].mean() <= 0.25
