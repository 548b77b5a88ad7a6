"""Networks over modules of different parents: whose class wins, on which scale, by which name; what is refused."""

import copy
import io

import pytest
import torch
from torch import nn

import modlib
from modlib.masking import MaskSet
from modlib.modules import Modules


def made(classes, names=None, factor=1.0):
    """Modules whose log-odds of their classes, in order, are `factor` times the numbers of their inputs."""
    n = len(classes)
    parent = nn.Linear(n, n, bias=False).requires_grad_(False)
    parent.weight.copy_(factor * torch.eye(n))
    graft = torch.stack([torch.zeros(n, n), torch.eye(n)], 1)
    masks = MaskSet({"weight": torch.ones(n, n, n).bool()}, classes)
    return Modules(parent, masks, graft, torch.zeros(n, 2), metadata={"class_names": names} if names else {})


X = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 4.0, 2.0], [-1.0, -2.0, -3.0, -4.0]])
LEFT, RIGHT = (lambda x: x[:, :2]), (lambda x: x[:, 2:])
BOTH = {"inputs": [LEFT, RIGHT]}


def test_the_largest_log_odds_win_whatever_part_they_are_of():
    merged = modlib.merge(made((4, 9)), made((0, 1), factor=10.0), classes=[[4, 9], [0, 1]], **BOTH)
    assert torch.equal(merged.log_odds(X), X * torch.tensor([1.0, 1.0, 10.0, 10.0]))
    assert torch.equal(merged(X), merged.log_odds(X).sigmoid())
    assert merged.predict(X).tolist() == [0, 1, 0, 4]
    assert merged.predict(X, reject=0.5).tolist() == [0, 1, 0, -1]
    assert (merged.passes, merged.classes.tolist(), merged.training) == (2, [4, 9, 0, 1], False)
    with pytest.raises(ValueError, match="names: the data had no names"):
        merged.predict(X, names=True)


@pytest.mark.parametrize(
    ("names", "classes", "numbers", "expected"),
    [
        ((("a", "b"), ("c", "d")), None, [0, 1, 2, 3], ["a", "d", "c", "a"]),
        ((("a", "b", "c", "d"),) * 2, None, [0, 1, 2, 3], ["a", "d", "c", "a"]),
        ((None, None), [["x", "y"], ["z", "w"]], [0, 1, 2, 3], ["x", "w", "z", "x"]),
        ((None, None), [[5, 6], [8, 7]], [5, 6, 8, 7], [5, 7, 8, 5]),
    ],
    ids=["by name", "one list of names", "names given", "numbers given"],
)
def test_classes_keep_their_meaning_or_get_a_new_one(names, classes, numbers, expected):
    second = (2, 3) if names[0] is not None and names[0] == names[1] else (0, 1)
    merged = modlib.merge(made((0, 1), names[0]), made(second, names[1]), classes=classes, **BOTH)
    assert merged.classes.tolist() == numbers
    assert merged.predict(X, names=isinstance(expected[0], str)) == expected or merged.predict(X).tolist() == expected


def labelled(names=None, count=40):
    """Inputs of four classes, the right number 2 above the others; all are held out, too."""
    labels = torch.arange(count) % 4
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0)) + 2 * nn.functional.one_hot(labels, 4)
    options = {"empty": True} | ({"classes": list(names)} if names else {"num_classes": 4})
    return modlib.data.tensors(x, labels.tolist(), held_out=(x, labels.tolist()), **options)


def test_calibrated_votes_are_on_one_scale():
    data = labelled()
    x, y = data.part("held_out").batch(torch.arange(40)).inputs, data.held_out_labels
    merged = modlib.merge(made((0, 1)), made((2, 3), factor=10.0), classes=[[0, 1], [2, 3]], **BOTH)
    assert 0.2 < float((merged.predict(x) == y).float().mean()) < 0.8
    found = merged.calibrated(data, keep=0.9)
    assert float((found.predict(x) == y).float().mean()) > 0.8
    assert torch.equal(merged.scale, torch.ones(4)), "a copy is calibrated"
    scale, shift = modlib.metrics.calibrate(merged.log_odds(x), y, [0, 1, 2, 3])
    torch.testing.assert_close(found.log_odds(x), merged.log_odds(x) * scale + shift)
    assert int((found.predict(x, reject=True) >= 0).sum()) == 36
    again = found.calibrated(data)  # what is calibrated already stays what it is, to rounding
    torch.testing.assert_close(again(x).argmax(1), found(x).argmax(1))
    memory = io.BytesIO()
    torch.save(found.state_dict(), memory)
    memory.seek(0)
    fresh = copy.deepcopy(merged)
    fresh.load_state_dict(torch.load(memory))
    assert torch.equal(fresh.predict(x), found.predict(x))


def test_what_cannot_be_calibrated_is_refused():
    merged = modlib.merge(made((0, 1), ("a", "b")), made((0, 1), ("c", "d")), **BOTH)
    merged.calibrated(labelled("abcd"))
    merged.calibrated(labelled())
    with pytest.raises(ValueError, match=r"data: class 2 is 'c' here, its classes are .*number both alike"):
        merged.calibrated(labelled("abdc"))
    with pytest.raises(
        ValueError, match=r"data: no image of the classes \[3\] in its part 'held_out'; each needs some"
    ):
        merged.calibrated(labelled(count=3))
    with pytest.raises(ValueError, match="has no test images"):
        merged.calibrated(labelled(), split="test")
    with pytest.raises(ValueError, match="reject: True needs a threshold"):
        merged.predict(X, reject=True)


@pytest.mark.parametrize(
    ("parts", "options", "error", "said"),
    [
        ([], {}, ValueError, "parts: 0 given; two decompositions at least"),
        ([made((0, 1))], {}, ValueError, "parts: 1 given"),
        ([made((0, 1)), 3], {}, TypeError, "parts: number 1 must be modlib.Modules, got int"),
        ([made((0, 1)), made((1, 2))], {}, ValueError, r"classes: \[1\] are in two parts; leave them out of one"),
        ([made((0, 1), "ab"), made((0, 1), "bc")], {}, ValueError, r"classes: \['b'\] are in two parts"),
        ([made((0, 1), "ab"), made((2, 3))], {}, ValueError, "classes: some parts have names for their classes"),
        ([made((0, 1)), made((2, 3))], {"classes": [[0, 1], [2]]}, ValueError, r"\[2, 2\] in all; got \[2, 1\]"),
        ([made((0, 1)), made((2, 3))], {"classes": [[0, 1], [1, 2]]}, ValueError, r"classes: \[1\] are in two parts"),
        ([made((0, 1)), made((2, 3))], {"classes": [[0, 1], ["a", "b"]]}, TypeError, "numbers or names, not both"),
        ([made((0, 1)), made((2, 3))], {"inputs": [None]}, ValueError, "inputs must be a function or None for each"),
    ],
)
def test_what_cannot_be_merged_is_refused(parts, options, error, said):
    with pytest.raises(error, match=said):
        modlib.merge(*parts, **options)


def test_modules_of_two_trained_parents(data, decompose):
    """Of different architectures, each with modules of two of three classes."""
    nets = [modlib.zoo.parents.fc(1, 16, 6, 3, seed=1), nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())]
    a, b = (decompose(net, share_init=False) for net in nets)
    with pytest.warns(UserWarning, match=r"classes: the parts have no names, .*, which classes= would say"):
        merged = modlib.merge(a.select([0, 1]), b.select([2]))
    x = data.inputs(data.test_images)
    expected = torch.cat([a.select([0, 1]).log_odds(x), b.select([2]).log_odds(x)], 1)
    torch.testing.assert_close(merged.train().log_odds(x), expected)
    assert set(merged.calibrated(data).predict(x).tolist()) <= {0, 1, 2}
