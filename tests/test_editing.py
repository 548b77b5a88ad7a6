"""Modules exchanged, left out and added, and what is known of the run that made each."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

import modlib
from modlib.masking import MaskSet


@pytest.fixture
def older(conv_parent, decompose):
    return decompose(conv_parent, share_init=False)


@pytest.fixture
def newer(conv_parent, decompose):
    """Modules of classes 2 and 1 over an equal parent, by another seed."""
    return decompose(copy.deepcopy(conv_parent), share_init=False, seed=5, classes=[2, 1])


def seeds(modules):
    return {c: run["seed"] for c, run in modules.provenance.items()}


def test_replace_takes_one_module_and_leaves_the_others(older, newer, same, inputs):
    edited = older.replace(1, newer)
    assert edited.classes == (0, 1, 2)
    assert edited.parent is older.parent
    assert same(edited.select([1]), newer.select([1]))
    assert same(edited.select([0, 2]), older.select([0, 2]))
    assert not same(edited.select([1]), older.select([1]))
    odds = edited.log_odds(inputs)
    torch.testing.assert_close(odds[:, 1], newer.log_odds(inputs)[:, 1])
    torch.testing.assert_close(odds[:, [0, 2]], older.log_odds(inputs)[:, [0, 2]])
    torch.testing.assert_close(edited.recompose([2, 1]).log_odds(inputs), odds[:, [2, 1]])


def test_the_only_module_is_replaced_too(older, newer, same):
    edited = older.select([1]).replace(1, newer)
    assert same(edited, newer.select([1]))
    assert edited.parent is older.parent


def test_without_and_add_are_each_others_inverse(older, same):
    assert older.without([1]).classes == (0, 2)
    assert older.without([]).classes == (0, 1, 2)
    assert same(older.without([1]).add(older.select([1])), older.select([0, 2, 1]))


def test_add_appends_modules_of_another_run(older, newer, same):
    edited = older.without([1, 2]).add(newer)
    assert edited.classes == (0, 2, 1)
    assert same(edited.select([2, 1]), newer)
    assert same(edited.select([0]), older.select([0]))


def test_what_is_refused(older, newer, conv_parent, decompose):
    for call, kind, match in (
        (lambda: older.add(newer), ValueError, r"other: there are modules for \[2, 1\] here .*replace\(c, other\)"),
        (lambda: older.replace(7, newer), ValueError, r"c: no module for class 7; there are modules for \[0, 1, 2\]"),
        (lambda: older.replace(0, newer), ValueError, r"newer: no module for class 0; there are modules for \[1, 2\]"),
        (lambda: older.replace(True, newer), TypeError, "c must be a whole number, got True"),
        (lambda: older.replace(1, newer.masks), TypeError, "newer must be modlib.Modules, got MaskSet"),
        (lambda: older.add({}), TypeError, "other must be modlib.Modules, got dict"),
        (lambda: older.without([0, 1, 2]), ValueError, r"classes: \[0, 1, 2\] are all there are; .* must stay"),
        (lambda: older.without([4]), ValueError, "classes: no module for class 4"),
        (lambda: older.without(1), TypeError, "classes: must be a list of classes, got 1"),
    ):
        with pytest.raises(kind, match=match):
            call()
    moved = copy.deepcopy(conv_parent)
    with torch.no_grad():
        moved[8].bias[0] += 1
    with pytest.raises(ValueError, match="newer: its modules are of another parent"):
        older.replace(1, decompose(moved, classes=[1]))
    frozen = decompose(conv_parent, norm="frozen", classes=[1])
    with pytest.raises(ValueError, match="newer: only one of both has statistics of its own"):
        older.replace(1, frozen)
    some = MaskSet({"8.weight": newer.masks.masks["8.weight"]}, newer.classes)
    with pytest.raises(ValueError, match=r"newer: its modules mask the layers \['8.weight'\], the ones here \['0.w"):
        older.replace(1, replace(newer, masks=some))


def test_every_module_keeps_what_was_recorded_of_its_run(older, newer, conv_parent, tmp_path):
    edited = older.replace(1, newer)
    assert seeds(edited) == {0: 0, 1: 5, 2: 0}
    assert edited.provenance[1] == newer.metadata
    assert edited.provenance[0] == older.metadata
    assert edited.metadata["recipe"] == older.metadata["recipe"], "what all runs agree in is said once for all"
    assert "seed" not in edited.metadata
    edited.save(tmp_path / "m")
    read = modlib.load(tmp_path / "m", conv_parent)
    assert list(read.provenance.items()) == list(edited.provenance.items())
    assert seeds(read.select([2, 1])) == {2: 0, 1: 5}
    assert seeds(read.replace(2, newer).replace(0, older)) == {0: 0, 1: 5, 2: 5}
    assert seeds(older.without([2]).add(edited.select([2]))) == {0: 0, 1: 0, 2: 0}


def test_modules_of_one_run_are_recorded_as_ever(older, newer, decompose, conv_parent, tmp_path):
    """Nothing new is in their files, also when they came apart and together again."""
    plain = older.metadata
    assert older.provenance == dict.fromkeys((0, 1, 2), plain)
    edited = older.replace(1, newer)
    for modules in (older, older.select([2, 0]), older.without([1]).add(older.select([1])), edited.without([1])):
        assert modules.metadata == plain
    assert edited.select([1]).metadata == newer.metadata
    assert "by_class" not in decompose(conv_parent, method="base", base_class=1).metadata
    edited.without([1]).save(tmp_path / "m")
    with safe_open(tmp_path / "m", framework="pt") as stored:
        assert json.loads(stored.metadata()["metadata"]) == plain


def test_how_logits_are_found_is_a_fact_of_the_parent_that_stays(decompose):
    class Net(nn.Linear):
        def forward(self, inputs):
            return {"out": super().forward(inputs.flatten(1))}

    net = Net(16, 3).double()
    plain = nn.Linear(16, 3).double()
    plain.load_state_dict(net.state_dict())
    picked = decompose(net, epochs=1, logits=lambda output: output["out"])
    flat = decompose(nn.Sequential(nn.Flatten(), plain), epochs=1, seed=5)
    masks = MaskSet({"weight": flat.masks.masks["1.weight"]}, flat.classes)
    other = replace(flat, parent=plain, masks=masks, scores=None)
    assert "logits" not in other.metadata
    assert picked.replace(1, other).metadata["logits"] == "picked"
    assert "logits" not in other.replace(1, picked).metadata
    assert "logits" not in other.select([1]).replace(1, picked).metadata


def rows_of_four(labels):
    """Images 4 x 4 whose bright row is their class, and a linear parent that reads the first three of these."""
    labels = torch.as_tensor(labels)
    images = torch.randint(0, 100, (len(labels), 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[torch.arange(len(labels)), labels] += 150
    parent = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, bias=False))
    weight = torch.eye(4)[:, :, None].expand(4, 4, 4).flatten(1).clone()
    weight[3] = (
        torch.randn(16, generator=torch.Generator().manual_seed(1)) / 4
    )  # a spare output that nobody has trained
    parent[1].weight.data = weight
    return images, labels, parent


LATER = {"k": 1.0, "alpha": 1.0, "epochs": 40, "batch_size": 10, "seed": 0, "device": "cpu"}


def test_a_class_of_a_spare_output_is_added_later():
    """First there are no images of it; then it is trained alone, on images of all, and votes with the others."""
    x, y, parent = rows_of_four(torch.arange(120) % 4)
    early = modlib.data.images(x[y < 3], y[y < 3], num_classes=4, empty=True)
    with pytest.warns(UserWarning, match=r"classes \[3\] have no training images"):
        modules = modlib.cotrain(parent, early, **LATER)
    late = modlib.data.images(x, y, test=(x, y))
    whole = modules.add(modlib.cotrain(parent, late, classes=[3], **LATER))
    assert whole.classes == (0, 1, 2, 3)
    assert whole.report(late).accuracy > 0.95
    again = modlib.cotrain(parent, late, classes=[0], **LATER)  # which now knows images of class 3 as another's
    assert whole.replace(0, again).report(late).accuracy > 0.95


def test_a_class_beyond_the_outputs_is_a_clear_no():
    x, y, parent = rows_of_four(torch.arange(40) % 4)
    data = modlib.data.images(x, y)
    with pytest.raises(
        ValueError, match=r"classes: class 4 is beyond the parent's 4 outputs, 0 to 3, .* spare output for it"
    ):
        modlib.cotrain(parent, data, classes=[1, 4], **LATER)
    parent[1] = nn.Linear(16, 3)
    with pytest.raises(
        ValueError, match=r"\[batch, 4 classes\], got \(2, 3\) .*; a class can come later where the parent"
    ):
        modlib.cotrain(parent, data, **LATER)


def test_names_choose_modules_wherever_numbers_do(modules, tmp_path):
    named = replace(modules, metadata={**modules.metadata, "class_names": ["cat", "dog", "cow"]})
    assert named.select(["cow", "cat"]).classes == (2, 0)
    named.save_subset(["cow", "cat"], tmp_path / "two.safetensors")
    assert "cat, dog, cow" in repr(named)
    with pytest.raises(ValueError, match="classes: there is no 'hen'"):
        named.select(["hen"])
