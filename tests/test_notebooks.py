"""Notebooks: sources, published pages and references agree; references are replayed with nbval."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

import nbformat
import pytest

from modlib.study.pages import index, scoreboard, table1
from modlib.study.reproduce import Layout, check_parameters, read_source
from modlib.study.reproduce import parse_values as parse
from modlib.study.trials import table1_settings, table1_trials

LAYOUT = Layout.here()
STEMS = sorted(LAYOUT.stems())
IMAGES = {"image/png", "image/svg+xml"}
ALWAYS = {
    "training_mask": "a page of the method: masks from scores, and little else",
    "grafting_layer": "a page of the method that trains modules by hand",
    "module_stemming": "a page of the method that reads what co-training left behind, epoch by epoch",
    "recomposing": "a page of the method that recomposes modules, and asks their votes",
    "table1": "trials and records of the paper's own table, with its baselines",
    "controls": "comparisons: modules beside every other decomposer and control",
    "architectures": "convolutional parents of the zoo and torchvision's families, the modulewise engine, bfloat16",
    "scoreboard": "claims: verdicts over the records of other pages",
}
"""The notebooks that every run of the tests replays, with what only they touch; .ci/run replays the others too."""


def page(folder: str, stem: str) -> nbformat.NotebookNode:
    return nbformat.read(LAYOUT.root / folder / f"{stem}.ipynb", as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[str]:
    """The code of a notebook, without what papermill injects."""
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    return [c.source for c in cells if "injected-parameters" not in c.metadata.get("tags", [])]


def test_every_source_is_in_the_contents_and_every_entry_has_a_source() -> None:
    assert sorted(p.stem for p in (LAYOUT.root / "notebooks").glob("*.py")) == STEMS
    params = {p.stem for p in (LAYOUT.root / "notebooks" / "params").glob("*.yml")}
    assert params <= set(STEMS)
    assert ALWAYS.keys() <= set(STEMS)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("folder", ["book/executed", "tests/reference"])
def test_pages_and_references_hold_the_code_of_their_source(stem: str, folder: str) -> None:
    stored = page(folder, stem)
    assert code(stored) == code(read_source(LAYOUT.source(stem))), f"run modlib reproduce {stem} again"


@pytest.mark.parametrize("stem", STEMS)
def test_published_page_is_whole(stem: str) -> None:
    stored = page("book/executed", stem)
    for cell in stored.cells:
        if cell.cell_type == "code":
            assert cell.execution_count is not None, cell.source[:60]
            assert not [o for o in cell.outputs if o.output_type == "error"], cell.source[:60]
    text = (LAYOUT.root / "book" / "executed" / f"{stem}.ipynb").read_text()
    assert str(LAYOUT.root) not in text


@pytest.mark.parametrize("stem", STEMS)
def test_every_figure_has_a_caption_a_name_and_an_alt_text(stem: str) -> None:
    for cell in page("book/executed", stem).cells:
        if cell.cell_type == "code" and any(IMAGES & o.get("data", {}).keys() for o in cell.outputs):
            about = cell.metadata.get("mystnb", {})
            assert about.get("figure", {}).get("caption"), cell.source[:60]
            assert about.get("figure", {}).get("name"), cell.source[:60]
            assert about.get("image", {}).get("alt"), cell.source[:60]


@pytest.mark.parametrize("stem", STEMS)
def test_parameters_are_typed_explained_and_published_ones_fit(stem: str) -> None:
    notebook = read_source(LAYOUT.source(stem))
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    lines = cells[0].source.splitlines()
    for statement in ast.parse(cells[0].source).body:
        written = lines[statement.lineno - 1 : statement.end_lineno]
        assert isinstance(statement, ast.AnnAssign), f"no type: {written[0]}"
        assert any("  # " in line for line in written), f"no comment: {written[0]}"
    check_parameters(LAYOUT.source(stem), LAYOUT.published_parameters(stem))


def test_home_page_and_scoreboard_read_the_trials_of_table_1() -> None:
    of_run = {"quick": {}, "published": LAYOUT.published_parameters("table1")}
    for run, published in of_run.items():
        own = LAYOUT.default_parameters("table1") | published
        column = table1_trials(own["datasets"][0], own["models"][0], own["seeds"], **table1_settings(own))
        expected = [trial.experiment.key for trial in column]
        assert set(expected) <= {experiment.key for experiment in table1.experiments(**own)}
        for stem, module in (("index", index), ("scoreboard", scoreboard)):
            given = LAYOUT.default_parameters(stem) | ({} if run == "quick" else LAYOUT.published_parameters(stem))
            assert given.keys() == {"table1", "results"}, "the trials' parameters are stated once, by Table 1"
            assert [experiment.key for experiment in module.experiments(**given)] == expected


@pytest.mark.parametrize(
    "stem", [pytest.param(s, marks=() if s in ALWAYS else pytest.mark.other_notebooks) for s in STEMS]
)
def test_reference_replays(stem: str) -> None:
    reference = LAYOUT.root / "tests" / "reference" / f"{stem}.ipynb"
    checked = [c for c in page("tests/reference", stem).cells if "nbval-check-output" in c.metadata.get("tags", [])]
    assert any(c.outputs for c in checked), "no cell of this notebook is checked"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--nbval-lax",
            "--noconftest",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            str(reference),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=LAYOUT.root,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_an_unknown_parameter_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"parameter 'alhpa': table1 has none of that name; it has \['datasets'"):
        check_parameters(LAYOUT.source("table1"), {"alhpa": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [("k", "ten"), ("seeds", 3), ("seeds", [0.5]), ("datasets", "mnist"), ("k", True), ("published_epochs", 2.5)],
)
def test_an_ill_typed_parameter_is_refused(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"parameter '{name}' must be"):
        check_parameters(LAYOUT.source("table1"), {name: value})


def test_values_on_the_command_line_are_yaml() -> None:
    assert parse([("alphas", "[0.5, 1]"), ("name", "mnist"), ("k", "0.1")]) == {
        "alphas": [0.5, 1],
        "name": "mnist",
        "k": 0.1,
    }
    with pytest.raises(ValueError, match="parameter 'k'"):
        parse([("k", "[1")])


def test_published_results_have_provenance() -> None:
    trials = list((LAYOUT.root / "book" / "results" / "trials").glob("*.json"))
    assert trials
    for path in trials:
        record = json.loads(path.read_text())
        assert {"device", "versions", "commit", "seconds", "data_sha256"} <= set(record["provenance"]), path.name
        assert record["provenance"]["commit"].rstrip("+"), path.name
        assert record["rows"], path.name
