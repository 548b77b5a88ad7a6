"""Grids of trials, and the tables that pages make of their records."""

import math

import pandas as pd
import pytest
import torch

from modlib import recipes
from modlib.study import records, trials
from modlib.study.records import Record
from modlib.study.trials import Trial, published_trials, table1_trials
from modlib.zoo import training

TABLE1 = {
    "k": 0.1,
    "parent_epochs": 100,
    "published_epochs": 25,
    "published_alphas": [0.0, 1.0],
    "ours_epochs": 12,
    "vote": 0.9,
    "vote_alpha": 4.0,
}
SETTING = {
    "dataset": "toy",
    "model": "fc1",
    "recipe": "published",
    "vote": 0.0,
    "k": 0.1,
    "alpha": 0.5,
    "share_init": True,
    "seed": 0,
}


def row(epoch, split, accuracies=(), **changes):
    return SETTING | {"epoch": epoch, "split": split, "module_accuracies": list(accuracies)} | changes


def test_a_grid_of_trials_seed_by_seed():
    trials = published_trials(
        "toy", ["fc1", "fc2"], [0.1], [0, 1], [3, 4], epochs=2, parent_epochs=7, share_inits=[True, False]
    )
    assert len(trials) == len(set(trials)) == 16
    assert [t.seed for t in trials] == [3] * 8 + [4] * 8
    assert [t.model for t in trials[:8]] == ["fc1"] * 4 + ["fc2"] * 4
    assert [(t.recipe.alpha, t.recipe.share_init) for t in trials[:4]] == [(0, True), (0, False), (1, True), (1, False)]
    first = recipes.Recipe(k=0.1, alpha=0.0, epochs=2, batch_size=32)
    assert trials[0] == Trial("toy", "fc1", "published", first, seed=3, parent_epochs=7)


def test_pages_share_the_records_of_table_1():
    """Equal trials, and equal keys: JSON tells 1 from 1.0."""
    column = [t for t in table1_trials("mnist", "fc1", [0, 1], **TABLE1) if t.recipe_name == "published"]
    grid = published_trials("mnist", ["fc1"], [0.1], [0, 1], [0, 1], epochs=25, parent_epochs=100)
    assert column == grid
    assert [records.key(t.parameters) for t in column] == [records.key(t.parameters) for t in grid]
    # the names of files that the book has
    assert [records.key(t.parameters) for t in grid] == ["5ac13ef3", "f27d33d8", "63ce64bd", "637b0696"]


def test_the_trials_of_a_column_of_table_1():
    trials = table1_trials("mnist", "fc2", [5], **TABLE1)
    assert [(t.recipe_name, t.recipe.alpha, t.recipe.vote, t.recipe.epochs) for t in trials] == [
        ("published", 0.0, 0.0, 25),
        ("published", 1.0, 0.0, 25),
        ("ours", 4.0, 0.9, 12),
    ]
    assert {(t.dataset, t.model, t.seed, t.parent_epochs) for t in trials} == {("mnist", "fc2", 5, 100)}


@pytest.mark.parametrize("name", ["models", "ks", "alphas", "seeds", "share_inits"])
def test_an_empty_list_is_refused_by_name(name):
    lists = {"models": ["fc1"], "ks": [0.1], "alphas": [1.0], "seeds": [0], "share_inits": [True]}
    with pytest.raises(ValueError, match=f"^{name}: empty"):
        published_trials("toy", **lists | {name: []}, epochs=1, parent_epochs=1)


def test_settings_out_of_a_notebooks_variables():
    assert trials.table1_settings(TABLE1 | {"seeds": [0], "dataset": "mnist", "plt": None}) == TABLE1
    with pytest.raises(ValueError, match=r"variables: \['vote'\] are missing"):
        trials.table1_settings({name: value for name, value in TABLE1.items() if name != "vote"})


def test_the_last_epoch_of_every_trial():
    rows = [row(e, s) for e in (1, 2) for s in ("held_out", "test")]
    rows += [row(e, "test", recipe="ours", vote=0.9) for e in (1, 2, 3)]
    rows += [row(1, "test", seed=1), row(1, "test", share_init=False)]
    rows.append(SETTING | {"seed": 2, "failed": "diverged"})
    last = trials.last_epochs(trials.labelled(pd.DataFrame(rows)))
    assert list(zip(last["label"], last["seed"], last["share_init"], last["epoch"], strict=True)) == [
        ("published", 0, True, 2),
        ("ours, with vote loss", 0, True, 3),
        ("published", 1, True, 1),
        ("published", 0, False, 1),
    ]
    assert set(last["split"]) == {"test"}
    assert list(trials.last_epochs(pd.DataFrame(rows), "held_out")["epoch"]) == [2]


def test_the_last_epoch_of_variants_that_share_their_settings():
    rows = [row(e, "test", variant=v) for v, epochs in (("short", 1), ("long", 3)) for e in range(1, epochs + 1)]
    table = pd.DataFrame(rows)
    last = trials.last_epochs(table, by=["variant"])
    assert list(zip(last["variant"], last["epoch"], strict=True)) == [("short", 1), ("long", 3)]
    assert list(trials.last_epochs(table)["variant"]) == ["long"]  # by settings they are one trial


def modules_measured():
    """Two modules, three epochs. On test the first is best in epoch 1, on held-out images in 2 and, as good, in 3."""
    held_out, test = ((0.1, 0.9), (0.7, 0.8), (0.7, 0.8)), ((0.6, 0.5), (0.4, 0.2), (0.3, 0.1))
    rows = [row(e, s, values[e - 1]) for e in (3, 1, 2) for s, values in (("held_out", held_out), ("test", test))]
    failed = SETTING | {"seed": 1, "failed": "diverged"}
    return [Record({}, {}, rows), Record({}, {}, [row(1, s, (0.5,), seed=9) for s in ("held_out", "test")])], failed


def test_rows_of_single_modules():
    done, failed = modules_measured()
    rows = trials.module_rows([*done, Record({}, {}, [failed | {"epoch": None, "split": None}])])
    assert len(rows) == 2 * 3 * 2 + 2
    second = rows[(rows["module"] == 1) & (rows["split"] == "test") & (rows["epoch"] == 2)]
    assert second["accuracy"].tolist() == [0.2]


def test_three_choices_of_the_epoch_by_hand():
    chosen = trials.chosen_epochs(trials.module_rows(modules_measured()[0])).set_index(["seed", "module"])
    assert chosen.loc[0, 0][["maximum", "by_held_out", "last"]].tolist() == [0.6, 0.4, 0.3]
    assert chosen.loc[0, 1][["maximum", "by_held_out", "last"]].tolist() == [0.5, 0.5, 0.1]
    assert chosen.loc[9, 0][["maximum", "by_held_out", "last"]].tolist() == [0.5, 0.5, 0.5]
    assert len(chosen) == 3


def test_students_interval_by_hand():
    low, high = records.interval([1.0, 3.0])  # mean 2, standard error 1, t(1 degree of freedom, 97.5%) = 12.706
    assert (low, high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    low, high = records.interval([1.0, 2.0, 3.0, 4.0, 5.0], level=0.90)  # standard error sqrt(2.5 / 5), t(4, 95%)
    assert (low, high) == pytest.approx((3 - 2.1318 * 0.5**0.5, 3 + 2.1318 * 0.5**0.5), abs=1e-4)
    assert records.interval([0.3]) == (-math.inf, math.inf)


def test_variants_change_one_thing_for_every_seed():
    base = Trial("toy", "fc1", "ours", recipes.ours(alpha=4.0), seed=7, parent_epochs=9)
    made = trials.variants(base, {"base": {}, "short": {"epochs": 2}, "young": {"parent_epochs": 1}}, [0, 1])
    assert made["base"] == [Trial("toy", "fc1", "ours", base.recipe, seed, 9) for seed in (0, 1)]
    assert [t.recipe for t in made["short"]] == [recipes.ours(alpha=4.0, epochs=2)] * 2
    assert [(t.seed, t.parent_epochs, t.recipe) for t in made["young"]] == [(0, 1, base.recipe), (1, 1, base.recipe)]
    with pytest.raises(ValueError, match=r"changes\['typo'\]: unknown settings \['alhpa'\]"):
        trials.variants(base, {"typo": {"alhpa": 1.0}}, [0])


def test_variants_are_run_and_named(data, tmp_path):
    recipe = recipes.ours(k=0.5, epochs=1)
    base = Trial("toy", "fc1", "ours", recipe, seed=0, parent_epochs=1)
    both = trials.variants(base, {"one": {}, "two": {"k": {"default": 0.5, "3.weight": 0.1}}}, [0])
    done, rows = trials.run_variants(both, data, records.Store.at(tmp_path))
    assert len(done) == 2
    assert list(rows["variant"]) == ["one", "one", "two", "two"]  # held-out and test
    assert list(rows["k"]) == [0.5] * 4
    assert list(rows["k_by_layer"].fillna("")) == ["", "", '{"3.weight": 0.1}', '{"3.weight": 0.1}']


def test_differences_are_paired_by_seed():
    rows = pd.DataFrame({"variant": ["a", "b", "b", "a"], "seed": [1, 1, 2, 2], "accuracy": [0.5, 0.75, 0.25, 1.0]})
    found = trials.differences(rows, "a", "accuracy")
    assert found["b"].to_dict() == {1: 0.25, 2: -0.75}
    assert found["a"].to_dict() == {1: 0.0, 2: 0.0}


def test_a_trial_of_method_a_is_recorded(data, tmp_path):
    """It writes no checkpoint, in a store either."""
    recipe = recipes.ours(k=0.3, epochs=1, method="base", base_class=1)
    (record,) = trials.run_trials([Trial("toy", "fc1", "ours", recipe, 0, 1)], data, records.Store.at(tmp_path))
    assert [line["split"] for line in record.rows] == ["held_out", "test"]
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_a_checkpoint_beside_a_parent_that_is_written_is_removed(data, tmp_path, monkeypatch):
    """As a run leaves it that is stopped between writing the one and removing the other."""
    store = records.Store.at(tmp_path)
    trained = trials.trained_parent(data, "fc1", 0, 1, store)
    (parent,) = (tmp_path / "parents").iterdir()
    left = tmp_path / "checkpoints" / f"parent-{parent.stem}.pt"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    monkeypatch.setattr(training, "train", None)
    again = trials.trained_parent(data, "fc1", 0, 1, records.Store.at(store.folder))
    torch.testing.assert_close(again.state_dict(), trained.state_dict())
    assert not left.exists()
