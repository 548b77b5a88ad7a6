"""Unions in one pass on toys: their gradient, the objective by hand, what is answered, and the page's section."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import modlib
from modlib import masking, recipes
from modlib.study import comparison, one_pass
from modlib.study.columns import Listing
from modlib.study.pages import frontier_one_pass as page
from modlib.study.records import Record, Store

RECIPE = recipes.ours(k=0.3, alpha=2.0, vote=0.9, epochs=3, batch_size=16)


def test_the_gradient_of_the_union_is_that_of_one_minus_the_product():
    draw = torch.Generator().manual_seed(0)
    masks = (torch.rand(4, 5, 6, generator=draw) < 0.4).double()
    scores, other = (torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(1)).double() for _ in range(2))
    upstream = torch.randn(5, 6, generator=draw).double()
    for values, made in (
        (scores.requires_grad_(), one_pass.union(masks, scores)),
        (other.requires_grad_(), 1 - (1 - masking.straight_through(masks, other)).prod(0)),
    ):
        assert torch.equal(made.detach(), masks.any(0).double())
        (made * upstream).sum().backward()
        assert values.grad is not None
    torch.testing.assert_close(scores.grad, other.grad)
    kept_by = masks.sum(0)
    assert (scores.grad[:, kept_by > 1] == 0).all()  # two keep it: each alone changes nothing
    assert scores.grad[:, kept_by == 0].abs().min() > 0


def test_the_one_pass_loss_by_hand():
    log_odds = torch.tensor([[2.0, -1.0], [0.5, 0.0], [-1.0, 1.0]])
    subset, labels = torch.tensor([1, 4, 7]), torch.tensor([1, 7])
    votes = cross_entropy(log_odds.T, torch.tensor([0, 2]))
    own = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    each = sum(binary_cross_entropy_with_logits(log_odds[c], own[c]) for c in range(3))
    torch.testing.assert_close(one_pass.one_pass_loss(log_odds, labels, subset, 10, 0.9), 9 * votes + 0.1 * each)


def test_steps_draw_subsets_of_all_sizes_and_as_many_images_of_each_member():
    labels = torch.arange(900) % 5
    made = one_pass.steps(labels, 5, RECIPE, 0, 1)
    assert len(made) == 57
    assert {len(step.subset) for step in made} == {2, 3, 4, 5}
    assert set(torch.cat([step.rows for step in made]).tolist()) == set(range(900))
    for step in made:
        counts = torch.bincount(labels[step.rows_of_subset], minlength=5)
        assert counts.nonzero()[:, 0].tolist() == step.subset.tolist()
        assert counts[step.subset].unique().tolist() == [-(-16 // len(step.subset))]
    again, other = (one_pass.steps(labels, 5, RECIPE, 0, epoch) for epoch in (1, 2))
    assert all(torch.equal(a.rows_of_subset, b.rows_of_subset) for a, b in zip(made, again, strict=True))
    assert not all(torch.equal(a.rows, b.rows) for a, b in zip(made, other, strict=True))


def test_without_weight_on_one_pass_it_is_module_stemming(data, parent):
    """That of the vectorised engine, with stemming from the second epoch on."""
    recipe = replace(RECIPE, alpha=0.1, share_init=False)
    ours = one_pass.train(parent, data, recipe, 0, 0.0)
    theirs = modlib.cotrain(parent, data, recipe=recipe, seed=0, engine="vectorised", device="cpu")
    without = one_pass.train(parent, data, replace(recipe, alpha=0.0), 0, 0.0)
    for name, scores in ours.scores.items():
        torch.testing.assert_close(scores, theirs.scores[name])
        assert torch.equal(ours.masks.masks[name], theirs.masks.masks[name])
        assert (scores - without.scores[name]).abs().max() > 1e-4
    torch.testing.assert_close(ours.grafting_weight, theirs.grafting_weight)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_training_is_a_function_of_the_seed(data, parent, same, weight):
    before = copy.deepcopy(parent.state_dict())
    first, again, other = (one_pass.train(parent, data, RECIPE, seed, weight) for seed in (0, 0, 1))
    assert torch.equal(first.grafting_weight, again.grafting_weight)
    assert all(torch.equal(mask, again.masks.masks[name]) for name, mask in first.masks.masks.items())
    assert not torch.equal(first.grafting_weight, other.grafting_weight)
    torch.testing.assert_close(parent.state_dict(), before, rtol=0, atol=0)
    kept = {name: mask.flatten(1).sum(1).unique().tolist() for name, mask in first.masks.masks.items()}
    assert kept == {"1.weight": [29], "3.weight": [5]}


def test_a_parent_with_normalisation_is_refused(data, conv_parent):
    with pytest.raises(ValueError, match="parent: has normalisation layers"):
        one_pass.train(conv_parent, data, RECIPE, 0, 0.5)


@torch.no_grad()
def test_one_pass_is_the_parent_with_the_union_of_the_masks(modules, inputs):
    united = copy.deepcopy(modules.parent)
    for name, mask in modules.masks.masks.items():
        united.get_parameter(name).mul_(mask[0] | mask[2])
    logits = united(inputs)
    for column, c in enumerate((2, 0)):
        grafted = logits @ modules.grafting_weight[c].T + modules.grafting_bias[c]
        odds = one_pass.log_odds(modules, (2, 0), inputs)[:, column]
        torch.testing.assert_close(odds, grafted[:, 1] - grafted[:, 0])
    alone = one_pass.log_odds(modules, (1,), inputs)[:, 0]
    torch.testing.assert_close(alone, modules.log_odds(inputs)[:, 1])


def asked(data, store, seeds=(0, 1)):
    setup = comparison.Setup(data, store, "fc1", 1, replace(RECIPE, epochs=1), ())
    settings = {"dataset": "toy", "model": "fc1", "hidden": 0.3, "output": 0.5, "alpha": 1.0, "epochs": 1}
    hybrids = [page.Hybrid(**settings, one_pass=weight) for weight in (0.5, 1.0)]
    return page.Asked("toy", setup, hybrids, 0.9, 0.1, seeds)


def test_the_section_runs_keeps_its_records_and_lists_them(data, tmp_path):
    empty = Listing(tmp_path)
    assert len(page.listed(asked(data, empty), empty)) == 2  # what is next depends on the first seed's
    store = Store.at(tmp_path)
    found = page.run(asked(data, store))
    kept = {path.stem for path in (tmp_path / "one_pass").glob("*.json")}
    full = Listing(tmp_path)
    assert {one.name for one in page.listed(asked(data, full), full)} == kept
    assert len(found.records) == 2 + 1 + 2 + 2 * 3
    rows = found.hybrid[0].rows
    assert [(row["split"], row["classes"], row["subsets"]) for row in rows] == [
        ("held_out", 2, 3),
        ("held_out", 3, 1),
        ("test", 2, 3),
        ("test", 3, 1),
    ]
    (mask, *_) = found.shared[10]
    assert mask.rows[-1]["one_pass"] == mask.rows[-1]["k_passes"]
    assert mask.rows[-1]["union"] == pytest.approx(rows[-1]["union"], abs=0.01)
    assert [line.count("|") for line in page.table([found]).data.split("\n") if line.startswith("| toy")] == [8] * 5
    assert page.tried([found]).data.count("**") == 2
    assert "**" in page.answer([found]).data


def record(split, one, parent=0.9, union=0.05):
    rows = [{"split": s, "classes": 2, "one_pass": 0.0, "parent_accuracy": 1.0, "union": 1.0} for s in page.SPLITS]
    row = {"split": split, "classes": 2, "one_pass": one, "k_passes": one, "parent_accuracy": parent, "union": union}
    return Record({}, {}, [row if r["split"] == split else r for r in rows])


def test_the_setting_is_chosen_on_held_out_images_among_the_small_ones(data):
    tried = [record("held_out", 0.8), record("held_out", 0.85), record("held_out", 0.9, union=0.95)]
    assert asked(data, Store(None)).best(tried) == 1
    assert asked(data, Store(None)).best([record("held_out", 0.9, union=0.95)]) == 0  # none is as small
    on_test = [record("test", 0.8), record("test", 0.9)]
    assert asked(data, Store(None)).best(on_test) == 0


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ((0.90, 0.91), "beats one shared mask of its size in 3 of 3 cases"),
        ((0.70, 0.71), "pays nowhere here.** In none of the 3 cases is it better than one shared mask of its size, "
         "and in 3 it is worse"),
        ((0.70, 0.90), "pays nowhere here.** In none of the 3 cases is it better than one shared mask of its size, "
         "and in 0 it is worse"),
        ((0.90,), "This run has one trial"),
    ],
)  # fmt: skip
def test_the_verdict_is_by_the_interval(data, accuracies, said):
    seeds = tuple(range(len(accuracies)))
    of = asked(data, Store(None), seeds)
    hybrid, masks = [record("test", one) for one in accuracies], [record("test", 0.8)] * len(seeds)
    found = page.Found(of, [], of.hybrids[0], hybrid, masks, dict.fromkeys(one_pass.SIZES, masks))
    assert said in page.answer([found]).data
