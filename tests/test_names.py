"""What readers see in place of the names of files and records."""

from __future__ import annotations

import re

import nbformat
import pytest

from modlib.study import grids, names
from modlib.study.columns import Column
from modlib.study.panels import FULL
from modlib.study.reproduce import Layout
from modlib.zoo import datasets, parents

LAYOUT = Layout.here()
METHOD_PAGES = {
    "introduction", "training_mask", "grafting_layer", "module_stemming", "preliminaries", "recomposing", "evaluation",
    "experimental_setup",
}  # fmt: skip
OTHER = [name for name, said in names.DATASETS.items() if name != said]
RAW = re.compile(rf"\b({'|'.join(OTHER)}) ({'|'.join(parents.NAMES)}|FC[1-4])\b")


def test_every_data_set_and_every_parent_has_a_name() -> None:
    assert set(names.DATASETS) == set(datasets.NAMES)
    assert set(names.MODELS) == set(parents.NAMES)
    assert len(set(names.MODELS.values())) == len(names.MODELS)


def test_a_network_is_called_by_both() -> None:
    assert names.of_network("mnist", "fc1") == Column("mnist", "fc1").name == "MNIST FC1"
    assert names.of_network("svhn_10k", "resnet50_quarter") == "SVHN-10k ResNet50 ¼"
    assert names.of_network("mine", "lstm") == "mine lstm"
    (column,) = grids.columns("further", [{"dataset": "fashion_mnist", "model": "fc4", "alpha": 8}])
    assert str(column) == "F-MNIST FC4 (α = 8)"
    assert {panel.title for panel in FULL.values()} == {"CIFAR-10 VGG16", "SVHN ResNet50", "CIFAR-100 WRN-28-10"}


@pytest.mark.parametrize("stem", sorted({*LAYOUT.stems()} - METHOD_PAGES))
def test_no_page_shows_the_name_of_a_file(stem: str) -> None:
    notebook = nbformat.read(LAYOUT.root / "book" / "executed" / f"{stem}.ipynb", as_version=4)
    said = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    said += [o.get("data", {}).get("text/markdown", "") for c in notebook.cells for o in c.get("outputs", ())]
    assert [hit.group() for text in said for hit in RAW.finditer(re.sub(r"`[^`]*`", "", text))] == []
