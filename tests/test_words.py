"""Habits of writing that make a reader read twice, where they can be found by a pattern."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from modlib.study.reproduce import Layout

ROOT = Layout.here().root
BANNED = {
    r"(?-i:\bnan\b)": "a number that there is not",
    r"\b(is|are) told\b(?! apart)": "say who does what",
    r"\bbehind [-−+]\d": "points against the parent, + is better",
    r"[-−]0\.0+ ± 0\.0+\b": "a change of nothing is said in words",
    r"\b(utili[sz]e|leverage|in order to|note that|it should be noted)\b": "use a plain word, or none",
    r"\b(furthermore|moreover|subsequently|prior to|due to the fact|such that|interestingly)\b": "one idea a sentence",
    r"\btold (to choose|the (two|same) classes)\b": "say restricted to the same classes",
    r"\breach(es)? (of|in an epoch)\b": "say how far something moves",
    r"\bin (either|both|all|every|each|\d+) columns?\b": "name the data set and the parent",
    r"\b(MNIST|CIFAR-\d+|FC[1-4]|VGG16|ResNet50)'?s? columns?\b": "name the data set and the parent",
    r"\b(ahead|behind) in (all|none|\d)": "say for how many classes, pairs or networks it is more accurate",
    r"\bwith \d+(\.\d+)?% of (its|the parent's) weights\b": "say remaining parameters",
    r"\bweights (in use|held)\b|\bunion of all\b(?! classes)|\bweights of all\b": "say remaining parameters",
}


def found(text: str) -> list[str]:
    return [f"{hit.group()!r}: {why}" for pattern, why in BANNED.items() for hit in re.finditer(pattern, text, re.I)]


def words(path: Path) -> str:
    if path.suffix == ".md":
        return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    notebook = jupytext.read(path) if path.suffix == ".py" else nbformat.read(path, as_version=4)
    said = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for output in (o for cell in notebook.cells for o in cell.get("outputs", ())):
        said.append(output.get("data", {}).get("text/markdown", ""))
    return "\n".join(said)


PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md")), *sorted((ROOT / "notebooks").glob("*.py"))]
PAGES += [page for folder in ("book/executed", "tests/reference") for page in sorted((ROOT / folder).glob("*.ipynb"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_banned_habit(path: Path) -> None:
    assert found(words(path)) == []


def test_the_patterns_find_what_they_are_for() -> None:
    assert len(found("A module is told its class. It is behind -0.22, by -0.0000 ± 0.0000; note that.")) == 4
    assert len(found("Moreover, the parent told the two classes is ahead in 3 pairs, with 11.04% of its weights.")) == 4
    assert len(found("In both columns, and in MNIST's column, the reach of the pull is far.")) == 3
    assert found("A vote is right on nan% (n = 0).")
    assert found("The module knows its class: -0.22 ± 0.01 points against the parent.") == []
