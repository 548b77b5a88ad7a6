"""Ways to a subset's network: logits of the subset, the parent untouched, budgets held, costs told."""

from __future__ import annotations

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import nn

from modlib.decomposers.channels import ChannelSaliency, restricted_accuracy
from modlib.deploy import cost
from modlib.study.compared_ways import Asked, Timing, measured
from modlib.study.pages import which_way
from modlib.study.records import Store
from modlib.study.small_networks import Subject
from modlib.study.ways import WAYS, build, prepare
from modlib.study.ways.fitting import Labelled, example_of, fit_labels
from modlib.zoo import datasets

RECIPE = {"k": 0.5, "alpha": 0.0, "epochs": 1, "vote": 0.9, "init": "magnitude", "images_per_epoch": 128}
SETTINGS = {
    "restricted parent": {},
    "channels": {"keep": 0.5, "images": 100},
    "trained channels": {"keep": 0.5, "steps": 2, "rate": 0.1, "images": 100},
    "torch-pruning": {"keep": 0.5, "steps": 8, "rate": 1e-3, "rounds": 2},
    "small network": {"keep": 0.5, "steps": 8, "rate": 1e-3},
    "seam": {"alpha": 1.0, "steps": 8, "rate": 0.3},
    "gradsplitter": {"alpha": 1.0, "steps": 8, "head_steps": 2, "rate": 0.3},
    "moda": {"keep": 0.5, "steps": 8, "rate": 1e-3, "images": 20},
    "one mask": {"k": 0.5, "epochs": 1, "images_per_epoch": 128},
    "module stemming": {"recipe": RECIPE},
}
CASES = [
    *SETTINGS.items(),
    *(("channels", SETTINGS["channels"] | {"ranking": r, "repair": "statistics"}) for r in ("gamma", "l1")),
    ("channels", SETTINGS["channels"] | {"class_blind": True}),
    ("channels", SETTINGS["channels"] | {"tuned": 8}),
    ("torch-pruning", SETTINGS["torch-pruning"] | {"importance": "magnitude"}),
    ("small network", SETTINGS["small network"] | {"distilled": True, "images": 100}),
    ("gradsplitter", SETTINGS["gradsplitter"] | {"union": False}),
]
SUBSET = [7, 1, 3]


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def parent(digits):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        layers += [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10))
    images = Labelled.of(digits, range(10))
    return fit_labels(network, images, steps=60, rate=1e-2, seed=0, purpose="toy parent")


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_way_gives_the_logits_of_a_subset_and_leaves_the_parent_as_it_was(name, settings, parent, digits):
    before = copy.deepcopy(parent.state_dict())
    built = build(WAYS[name](**settings), parent, digits, SUBSET, 0)
    example = example_of(digits, parent, 5)
    logits = built.network(example)
    assert logits.shape == (5, len(SUBSET))
    assert torch.isfinite(logits).all()
    after = parent.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.requires_grad == q for p, q in zip(parent.parameters(), [False] * 99, strict=False))
    if "keep" in settings:
        assert cost(built.network, example)["multiply_adds"] <= 0.5 * cost(parent, example)["multiply_adds"]
    assert 0 < built.kept_weights <= (1.01 if settings.get("union", True) else len(SUBSET))
    assert built.first_seconds >= built.further_seconds > 0
    labels_used = {"trained channels", "torch-pruning", "seam", "gradsplitter", "moda", "one mask", "module stemming"}
    scratch = (name == "small network" and not settings.get("distilled")) or "tuned" in settings
    assert (built.labelled_images > 0) == (name in labels_used or scratch)
    assert restricted_accuracy(built.network, digits, SUBSET, "test") > 0.2


def test_the_restricted_parent_gives_its_own_logits_in_the_order_of_the_subset(parent, digits):
    built = build(WAYS["restricted parent"](), parent, digits, SUBSET, 0)
    example = example_of(digits, parent, 5)
    assert torch.equal(built.network(example), parent(example)[:, SUBSET])
    assert built.kept_weights == 1.0


def test_masks_leave_weights_as_they_were_or_zero(parent, digits):
    built = build(WAYS["seam"](alpha=1000.0, steps=8, rate=0.5), parent, digits, SUBSET, 0)
    ours, theirs = built.network.network, parent
    kept = total = 0
    for name, weight in theirs.named_parameters():
        masked = ours.get_parameter(name)
        assert torch.equal(masked, weight * (masked != 0))
        if weight.ndim > 1:
            kept, total = kept + int((masked != 0).sum()), total + weight.numel()
    assert kept < total


def test_split_filters_of_a_union_are_those_of_its_classes(parent, digits):
    way = WAYS["gradsplitter"](**SETTINGS["gradsplitter"])
    prepared = prepare(way, parent, digits, 0, Store(None))
    kept = prepared.value.kept["0"]
    assert kept.shape == (10, 16)
    built = build(way, parent, digits, SUBSET, 0, prepared)
    assert built.network.network[0].out_channels == max(1, int(kept[SUBSET].any(0).sum()))


def test_trained_channels_learn_per_class_and_stemming_holds_their_scores_together(parent, digits):
    def apart(alpha):
        way = WAYS["trained channels"](keep=0.5, steps=12, rate=0.1, alpha=alpha)
        scores = prepare(way, parent, digits, 0, Store(None)).value.scores["4"]
        assert scores.shape == (10, 32)
        return float((scores - scores.mean(0)).abs().mean())

    assert apart(1000.0) < 0.5 * apart(0.0)


def test_an_order_of_channels_decides_which_are_kept(parent, digits):
    channels = ChannelSaliency().decompose(parent, digits, seed=0, device="cpu")
    last_first = {u.root: torch.arange(u.channels - 1, -1, -1) for u in channels.anatomy.units}
    settings = {"data": digits, "keep": 0.5, "images": 40, "repair": None}
    small = channels.recompose([3, 5], **settings, order=last_first)
    kept = small[0].out_channels
    assert kept < 16
    assert torch.equal(small[0].weight, parent[0].weight[16 - kept :])
    assert kept == channels.recompose([3, 5], **settings)[0].out_channels


@pytest.mark.parametrize("name", WAYS)
def test_a_single_class_is_refused(name, parent, digits):
    with pytest.raises(ValueError, match="subset: \\[3\\]; these ways give networks that choose"):
        build(WAYS[name](**SETTINGS[name]), parent, digits, [3], 0)


@pytest.mark.parametrize("name", ["channels", "torch-pruning", "moda"])
def test_a_budget_that_nothing_fits_is_refused(name, parent, digits):
    with pytest.raises(ValueError, match="keep: so little"):
        build(WAYS[name](**SETTINGS[name] | {"keep": 1e-5}), parent, digits, SUBSET, 0)


def test_unknown_ways_and_settings_are_refused():
    subject = Subject("fc1", 3, "published")
    with pytest.raises(ValueError, match="way must be one of"):
        Asked(subject, "magic", {}, (0, 1))
    with pytest.raises(ValueError, match=r"settings: \['alpha'\] are none of channels"):
        Asked(subject, "channels", {"keep": 0.5, "alpha": 1.0}, (0, 1))


def test_a_record_holds_what_was_measured_and_is_read_again(tmp_path, digits, monkeypatch):
    store, subject = Store.at(tmp_path), Subject("fc1", 3, "published")
    asked = [Asked(subject, "restricted parent", {}, (1, 7)), Asked(subject, "channels", SETTINGS["channels"], (1, 7))]
    (whole, cut) = measured(asked, digits, store)
    for row in whole.rows:
        assert (row["accuracy"], row["parameters"], row["multiply_adds"]) == (row["parent_accuracy"], 1.0, 1.0)
    assert [row["split"] for row in cut.rows] == ["held_out", "test"]
    assert cut.rows[0]["multiply_adds"] <= 0.5
    monkeypatch.setattr("modlib.study.compared_ways._rows", lambda *_: pytest.fail("computed again"))
    assert [r.rows for r in measured(asked, digits, store)] == [whole.rows, cut.rows]
    timed = Timing({"parent's logits": asked[0], "channels": asked[1]}, 2).run(digits, store)
    assert {(row["network"], row["batch"]) for row in timed.rows} >= {("channels", 1), ("channels", 64)}


def made_page(gaps):
    """A page of two plans with one size each, on two pairs, theirs with labels and ours without."""
    common = {"dataset": "toy", "model": "toy", "classes": 2, "first": True, "size": 0, "draw": 0, "parameters": 0.2}
    sizes = {"theirs": (0.2, 100, 50.0), "ours": (0.25, 0, 5.0)}
    rows = [
        common
        | {"plan": name, "subset": subset, "split": split, "gap": gap, "multiply_adds": size, "kept_weights": size}
        | {"labelled_images": labels, "first_seconds": seconds + 1, "further_seconds": seconds}
        for name, (size, labels, seconds) in sizes.items()
        for subset, gap in zip(((0, 1), (0, 2)), gaps[name], strict=True)
        for split in ("held_out", "test")
    ]
    plans = [which_way.Plan(name, "channels", {}, [{}], ours=name == "ours") for name in sizes]
    empty = pd.DataFrame()
    return which_way.Page(plans, pd.DataFrame(rows), empty, empty, empty, [], [])


def test_an_answer_names_the_best_way_and_the_lightest():
    page = made_page({"theirs": (-0.2, -0.3), "ours": (-0.4, -0.6)})
    said = which_way.answer(page, [0.22, 0.25]).data
    assert "within 22% and 25%" in said
    assert "pairs (n = 2): **theirs**, -0.25 ± 0.05 and -0.25 ± 0.05" in said
    assert "Within 1 point: pairs **theirs**, 20.0% of weights, 0.2 times" in said
    assert "pairs (n = 2): none, -" in which_way.answer(page, [0.1]).data


@pytest.mark.parametrize(("theirs", "better"), [(-0.2, "theirs"), (-0.9, "ours")])
def test_a_table_shows_the_better_of_ours_and_of_others_in_bold(theirs, better):
    page = made_page({"theirs": (theirs, theirs - 0.1), "ours": (-0.4, -0.6)})
    lines = [line for line in which_way.best_table(page, [0.1, 0.25]).data.splitlines() if line.startswith("| pairs")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][1:] == ["10%", "none", "none"]
    assert cells[1][2].strip("*") == "ours -0.50 ± 0.10 (no labels)"
    assert cells[1][3].strip("*").endswith("(labels)")
    assert [cell.startswith("**") for cell in cells[1][2:]] == [better == "ours", better == "theirs"]


def test_a_decision_follows_its_rules():
    decided = which_way.decision_table(made_page({"theirs": (-0.2, -0.3), "ours": (-0.4, -0.6)}), [0.25]).data
    lines = {line.split("|")[1].strip(): line for line in decided.splitlines() if line.startswith("|")}
    needs = ("one subset", "the same (25%), without", "many subsets", "small file", "speed:")
    cells = [next(line for need, line in lines.items() if need.startswith(w)).split("|")[2] for w in needs]
    assert [cell.split(":")[0].strip() for cell in cells] == ["theirs", "ours", "ours", "theirs", "none"]
    none = which_way.decision_table(made_page({"theirs": (-2.0, -2.0), "ours": (-3.0, -3.0)}), [0.25]).data
    assert "none" in next(line for line in none.splitlines() if "small file" in line)


def test_a_subset_counts_once_however_many_draws_it_has():
    page = made_page({"theirs": (-1.0, -2.0), "ours": (-0.4, -0.6)})
    again = page.rows[(page.rows["plan"] == "theirs") & (page.rows["subset"] == (0, 1))]
    drawn = replace(page, rows=pd.concat([page.rows, again.assign(gap=-4.0, draw=1, first_seconds=500)]))
    row = drawn.means(2).set_index("plan").loc["theirs"]
    assert (row["gap"], row["n"], row["draws"]) == (-2.25, 2, 2)  # the mean of (-1 - 4) / 2 and -2
    assert row["first_seconds"] == 51, "further draws are computed beside other work"
    assert row["spread"] == pytest.approx(4.5**0.5)
    assert "| 2 (± 2.12) " in which_way.table(drawn, 2).data


def test_sizes_of_a_parent_take_the_place_of_a_way_s_own_and_drop_further_draws():
    plan = which_way.Plan("a", "channels", {}, [{"keep": 0.25}, {"keep": 0.5}], draws=[0, 1])
    parent = which_way.Parent("digits", "fc1", 3, "published", [[2, 1], [10, 1]])
    assert [len(s) for s in parent.subsets_of(plan, 10, 0)] == [2, 10]
    assert [len(s) for s in parent.subsets_of(plan, 10, 1)] == [2]
    assert parent.runs(plan) == [(0, 0, {"keep": 0.25}), (0, 1, {"keep": 0.5}), (1, 0, {"keep": 0.25})]
    assert replace(parent, sizes={"a": [{"keep": 0.12}]}).runs(plan) == [(0, 0, {"keep": 0.12})]
    assert replace(parent, sizes={"b": [{"keep": 0.12}]}).runs(plan) == []


def test_parents_name_ways_that_there_are():
    way = {"name": "whole", "way": "restricted parent", "settings": {}, "sizes": [{}]}
    parent = {"dataset": "digits", "model": "fc1", "parent_epochs": 3, "parent_recipe": "published", "counts": [[2, 1]]}
    with pytest.raises(ValueError, match=r"parents: \['half'\] are none of the ways \['whole'\]"):
        which_way.experiments(ways=[way], parents=[parent | {"sizes": {"half": [{}]}}], small=[], repeats=0, results="")
