"""Keys: every record's name follows from its parameters, and other inputs give other parents and trials."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modlib.data import Scaling
from modlib.study import pages, records, trials
from modlib.study.records import Store
from modlib.study.reproduce import Layout
from modlib.study.trials import Trial, published_trials, run_trials, trained_parent
from modlib.zoo import datasets

RESULTS = Path(__file__).parents[1] / "book" / "results"
RECORDS = sorted(p for p in RESULTS.glob("*/*.json") if p.parent.name != "claims")


def test_every_records_name_follows_from_its_parameters():
    assert len(RECORDS) >= 771
    wrong = [p.name for p in RECORDS if not p.stem.endswith(records.key(json.loads(p.read_text())["parameters"]))]
    assert wrong == []


def pages_with_records() -> dict[str, Any]:
    """The modules of pages that name the experiments which they read, by the page's stem."""
    names = sorted(path.stem for path in Path(pages.__path__[0]).glob("*.py") if path.stem != "__init__")
    found = {name: importlib.import_module(f"modlib.study.pages.{name}") for name in names}
    return {name: module for name, module in found.items() if hasattr(module, "experiments")}


PAGES = pages_with_records()


@pytest.mark.parametrize("stem", PAGES)
def test_what_a_published_page_reads_is_in_the_store(stem):
    layout = Layout.here()
    parameters = layout.default_parameters(stem) | layout.published_parameters(stem) | {"results": str(RESULTS)}
    asked = PAGES[stem].experiments(**parameters)
    assert asked
    assert [e.name for e in asked if not e.is_done(Store.at(RESULTS))] == []


def test_every_page_that_exports_results_names_its_experiments():
    exporting = {path.stem for path in RESULTS.glob("*.json")} - {"single_class"}  # a second table of `controls`
    assert exporting <= PAGES.keys()


@pytest.fixture(scope="module")
def pixels(data):
    """The toy data under the name of a data set that is normalised."""
    return replace(data, name="digits")


def test_the_scaling_of_inputs_is_told_from_what_is_done():
    standard, unit = (datasets.load("digits", scaling=scaling) for scaling in datasets.SCALINGS)
    assert (datasets.scaling_of(standard), datasets.scaling_of(unit)) == ("standard", "unit")
    assert float(unit.inputs(unit.train_images).max()) == 1.0
    assert datasets.identity(standard) == {"dataset": "digits"}
    assert datasets.identity(unit) == {"dataset": "digits", "scaling": "unit"}
    assert datasets.scaling_of(replace(unit, preprocess=standard.preprocess)) == "standard"
    assert datasets.scaling_of(replace(unit, preprocess=Scaling((0.5,), (1.0,)))) == "mean (0.5,) std (1.0,)"
    assert datasets.scaling_of(replace(unit, preprocess=datasets.default_root)) == "default_root"
    with pytest.raises(ValueError, match=r"preprocess: .* has no name"):
        datasets.scaling_of(replace(unit, preprocess=lambda images: images / 255))
    with pytest.raises(ValueError, match="scaling must be one of"):
        datasets.load("digits", scaling="none")


def test_scaling_enters_the_keys_where_it_is_not_the_standard_one():
    standard, unit = (
        published_trials("mnist", ["fc1"], [0.1], [0.0], [0], epochs=25, parent_epochs=100, **more)[0]
        for more in ({}, {"scaling": "unit"})
    )
    assert "scaling" not in standard.parameters
    assert unit.parameters == standard.parameters | {"scaling": "unit"}
    assert unit.name == "mnist-unit-fc1-published-alpha0-vote0-seed0"
    assert Trial(**vars(unit) | {"scaling": "standard"}) == standard


def test_parents_on_other_inputs_are_others(data, pixels, tmp_path):
    standard = replace(pixels, preprocess=Scaling(*datasets.STATISTICS["digits"]))
    assert (datasets.scaling_of(standard), datasets.scaling_of(pixels)) == ("standard", "unit")
    store = Store.at(tmp_path)
    for part in (standard, pixels):
        trained_parent(part, "fc1", 0, 1, store)
    names = sorted(path.name for path in (tmp_path / "parents").iterdir())
    assert len(names) == 2
    assert names[1].startswith("digits-unit-fc1-seed0-")


def test_a_trial_on_other_inputs_is_refused(pixels, tmp_path):
    (trial,) = published_trials("digits", ["fc1"], [0.1], [0.0], [0], epochs=1, parent_epochs=1)
    with pytest.raises(ValueError, match=r"data: trial .* is of \{'dataset': 'digits'\}, the data are .*'unit'"):
        run_trials([trial], pixels, Store.at(tmp_path))
    with pytest.raises(ValueError, match="data: trial"):
        trials.trial_modules(trial, pixels, Store.at(tmp_path))
    (record,) = run_trials([replace(trial, scaling="unit")], pixels, Store.at(tmp_path), keep_modules=False)
    assert record.rows[0]["scaling"] == "unit"
    assert not (tmp_path / "modules").exists()
