"""One short run of every kind of experiment, computed anew, gives the record that was stored: its name and its rows.

The records in `golden/` are of scikit-learn's digits, at the size of a quick page. Names hold up the keys, rows what is
computed. Seconds and milliseconds are not compared; digits are where a processor rounds as that of the records did.
To make them anew: `GOLDEN=new python -m pytest tests/test_golden.py -n 0`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import conv2d

from modlib import recipes
from modlib.study import compared_ways, comparison, methods, one_pass, panels, single_class, six_parents
from modlib.study.explorer import Shown
from modlib.study.pages import architectures, cost, deep_networks
from modlib.study.panels import Panel
from modlib.study.records import Store
from modlib.study.reproduce import Layout
from modlib.study.small_networks import SmallNetwork, Subject, measured
from modlib.study.step_times import Passes
from modlib.study.trials import Trial, run_trials
from modlib.study.two_parents import TwoParents
from modlib.study.unknowns import Unknowns
from modlib.zoo import datasets

GOLDEN = Path(__file__).with_name("golden")
ROUNDING = GOLDEN / "rounding.txt"
MEASURED_TIMES = ("seconds", "ms", "_s")
RECIPE = recipes.ours(k=0.1, alpha=4.0, epochs=3, vote=0.9, batch_size=32)
QUICK = Layout.here().default_parameters


def trial(store: Store) -> None:
    recipe = recipes.ours(k=0.1, alpha=4.0, epochs=2, vote=0.9)
    run_trials([Trial("digits", "fc1", "ours", recipe, 0, 50)], datasets.load("digits"), store, device="cpu")


def rules_of_others(store: Store) -> None:
    methods.compare(methods.Subject("digits", "fc1", "own", 0, 50), [], datasets.load("digits"), store)


def controls(store: Store) -> None:
    setup = comparison.Setup(datasets.load("digits"), store, "fc1", 20, RECIPE, ((0, 1), (3, 8), (4, 9)))
    for name, rate in (("shared mask", 0.1), ("random mask + grafting", 0.1), ("small network from scratch", 0.01)):
        comparison.run(name, setup, {"lr": rate}, 0)
    single_class.single_class(setup, 0, replace(RECIPE, alpha=1.0, vote=0.0))


def panel(store: Store) -> None:
    shown, data = Panel.of(QUICK("figure4")["panels"][0]), datasets.load("digits")
    panels.shared_mask(shown, 0, data, store, "cpu")
    panels.before_training(shown, data, store, device="cpu")


def probes(store: Store) -> None:
    parameters = {name: value for name, value in QUICK("deep_networks").items() if name != "results"}
    deep_networks.Bench.prepared(deep_networks.Settings(**parameters), store).before()


def engines_compared(store: Store) -> None:
    for experiment in cost.engine_trials(**QUICK("cost")):
        cost.decomposed(experiment, datasets.load("digits"), store)


def times(store: Store) -> None:
    Passes("wrn16_2", 8, 2, (1, 2), 0.1, 1).run(store)


def any_architecture(store: Store) -> None:
    parameters = QUICK("architectures") | {"device": "cpu"}
    settings = architectures.Settings(**{f.name: parameters[f.name] for f in fields(architectures.Settings)})
    architectures.ways([architectures.Subject("vgg16_quarter", "book", "float32")], settings, store)


def small_networks(store: Store) -> None:
    asked = SmallNetwork(Subject("fc1", 3, "published"), (1, 7), {"keep": 0.5, "images": 100})
    measured([asked], datasets.load("digits"), store)


def unknown_images(store: Store) -> None:
    recipe = recipes.ours(k=0.1, alpha=4.0, epochs=2, vote=0.9)
    Unknowns(Trial("digits", "fc1", "ours", recipe, 0, 50), "", (2, 10), 3, 100).run(datasets.load("digits"), store)


def two_halves(store: Store) -> None:
    recipe = recipes.ours(k=0.1, alpha=1.0, epochs=2)
    TwoParents("digits", "fc1", 5, recipe, 0, 600, (0.0, 0.1)).run(datasets.load("digits"), store)


def recommended(store: Store) -> None:
    for kind in ("mlp", "cnn_bn"):
        asked = six_parents.Asked(
            kind, {"epochs": 2, "images_per_epoch": 320}, 0, ("held_out", "test"), 100, "digits", 3
        )
        asked.run(six_parents.load(kind, "digits"), store)


def unions_in_one_pass(store: Store) -> None:
    setup = comparison.Setup(datasets.load("digits"), store, "fc1", 20, RECIPE, ())
    one_pass.trained(setup, 0.5, 0)
    one_pass.shared(setup, {"1.weight": 0.2, "3.weight": 0.5}, 0)


def ways_compared(store: Store) -> None:
    subject = Subject("fc1", 3, "published")
    settings = {
        "channels": {"keep": 0.5, "ranking": "l1", "images": 100},
        "seam": {"alpha": 1.0, "steps": 5, "rate": 0.3},
    }
    asked = [compared_ways.Asked(subject, way, chosen, (1, 7)) for way, chosen in settings.items()]
    compared_ways.measured(asked, datasets.load("digits"), store)


def subsets_explored(store: Store) -> None:
    data, recipe = datasets.load("digits"), recipes.ours(k=0.1, alpha=4.0, epochs=1, vote=0.9)
    short = Trial("digits", "fc1", "ours", recipe, 0, 50)
    run_trials([short], data, store)
    Shown("short", short).counted(store, data)


RUNS: dict[str, Callable[[Store], None]] = {
    "trials": trial,
    "baselines": rules_of_others,
    "controls": controls,
    "panels": panel,
    "deep_networks": probes,
    "engines": engines_compared,
    "timings": times,
    "architectures": any_architecture,
    "small_networks": small_networks,
    "unknowns": unknown_images,
    "two_parents": two_halves,
    "recommended": recommended,
    "ways": ways_compared,
    "explorer": subsets_explored,
    "one_pass": unions_in_one_pass,
}
"""By the folder of their records."""


COUNTED = ("right", "parent_right")
"""Counts of images, which a training that goes its own way changes."""


def rounding() -> str:
    """Return a name of how this processor, and this torch, round: of what some products and convolutions come to."""
    made = torch.Generator().manual_seed(0)
    images, kernels, table = (torch.randn(s, generator=made) for s in ((8, 16, 9, 9), (24, 16, 3, 3), (65, 1000)))
    results = [conv2d(images, kernels, padding=1), table @ table.T, table.sum(1), table.exp().mean(1)]
    return hashlib.sha256(b"".join(r.numpy().tobytes() for r in results)).hexdigest()


def same(found: Any, stored: Any, name: str = "", digits: bool = True) -> bool:
    """Say whether two parts of a record agree, but for times: to five digits, or but for what is trained."""
    if any(name.endswith(unit) for unit in MEASURED_TIMES) or (not digits and name == "parent_hash"):
        return True
    if isinstance(stored, dict):
        return found.keys() == stored.keys() and all(same(found[key], stored[key], key, digits) for key in stored)
    if isinstance(stored, list):
        return len(found) == len(stored) and all(same(a, b, name, digits) for a, b in zip(found, stored, strict=True))
    if isinstance(stored, float):
        return isinstance(found, float) and (not digits or math.isclose(found, stored, rel_tol=1e-5, abs_tol=1e-5))
    if not digits and name in COUNTED:
        return isinstance(found, int)
    return bool(found == stored)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results that all kinds share: parents are trained once."""
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("kind", RUNS)
def test_a_short_run_gives_the_record_that_was_stored(kind: str, results: Path) -> None:
    RUNS[kind](Store.at(results))
    if os.environ.get("GOLDEN") == "new":
        stored_here = GOLDEN / kind
        names = {path.name for path in stored_here.glob("*.json")}
        for path in (results / kind).glob("*.json"):
            if not names or path.name in names:
                stored_here.mkdir(exist_ok=True)
                shutil.copy(path, stored_here)
        ROUNDING.write_text(rounding() + "\n")
    made = {path.name: json.loads(path.read_text()) for path in (results / kind).glob("*.json")}
    stored = {path.name: json.loads(path.read_text()) for path in (GOLDEN / kind).glob("*.json")}
    assert stored.keys() <= made.keys(), "the name of a record is its key"
    for name, record in stored.items():
        assert made[name]["parameters"] == record["parameters"], name
        # sums run in another order on another kind of processor, and a training goes its own way from there
        here = rounding() == ROUNDING.read_text().strip()
        assert same(made[name]["rows"], record["rows"], digits=here), name


def test_every_kind_that_the_book_keeps_has_a_golden_record() -> None:
    kept = {path.parent.name for path in Path(Layout.here().root / "book" / "results").glob("*/*.json")} - {"claims"}
    assert kept == RUNS.keys() == {path.name for path in GOLDEN.iterdir() if path.is_dir()}


def test_what_differs_is_seen() -> None:
    assert same([{"a": 0.5, "seconds": 1.0}], [{"a": 0.5000001, "seconds": 2.0}])
    for other in ([{"a": 0.501, "seconds": 1.0}], [{"b": 0.5, "seconds": 1.0}], [], [{"a": 0.5}]):
        assert not same(other, [{"a": 0.5, "seconds": 1.0}])
    assert same([{"a": 0.9, "b": 1}], [{"a": 0.5, "b": 1}], digits=False)
    assert not same([{"a": 0.5, "b": 2}], [{"a": 0.5, "b": 1}], digits=False)
