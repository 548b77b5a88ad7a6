"""The explorer: what its script computes is what the library computes, and its data are what the store holds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from modlib import metrics
from modlib.study import comparison, explorer
from modlib.study.records import Store
from modlib.study.reproduce import Layout
from modlib.study.trials import split_log_odds
from modlib.zoo import datasets

BOOK = Layout.here().root / "book"
STATIC = BOOK / "_static"
STORE = Store.at(BOOK / "results")
CHOICES = explorer.shown()
SUBSETS = [(4,), (1, 7), (0, 2, 3), (1, 3, 5, 7, 9), tuple(range(10))]
REAL = (datasets.default_root() / "mnist.npz").exists()

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
needs_mnist = pytest.mark.skipif(not REAL, reason="real MNIST is not in MODLIB_DATA or ~/.cache/modlib")

RUN = """
globalThis.window = globalThis;
require(process.argv[1]);
const explorer = require(process.argv[2]);
const data = window.MODLIB_EXPLORER;
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
const layers = explorer.readLayers(data);
const said = (modules, pixels) => explorer.logOdds(layers, modules, explorer.normalised(pixels, data));
const found = data.modules.map((stored) => {
  const modules = explorer.readModules(stored, layers);
  const examples = explorer.EXAMPLES.map((strokes) => said(modules, explorer.asMnist(strokes)));
  return {
    odds: asked.images.map((pixels) => said(modules, pixels)),
    remaining: asked.subsets.map((subset) => explorer.remaining(layers, modules, subset)),
    bytes: asked.subsets.map((subset) => explorer.recomposedBytes(layers, modules, subset)),
    counted: asked.subsets.map((subset) => explorer.counted(data, modules, subset)),
    jaccard: explorer.jaccard(modules),
    heat: data.images.map((_, c) => Array.from(explorer.heat(layers, modules, c))),
    examples: examples.map((odds) => explorer.winner(odds, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])),
  };
});
const logits = asked.images.map((p) => explorer.parentLogits(layers, explorer.normalised(p, data)));
const drawn = asked.strokes.map((strokes) => Array.from(explorer.asMnist(strokes)));
console.log(JSON.stringify({ found, logits, drawn, bytes: explorer.parentBytes(layers) }));
"""
LINE = [[[10, 10], [10, 90]]]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """100 images as MNIST's, uint8: its first test images where they are at hand, else random ones."""
    if REAL:
        return datasets.load("mnist").test_images[:100]
    return torch.randint(256, (100, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def page(images: torch.Tensor) -> dict[str, Any]:
    """What the page's functions return."""
    asked = {
        "images": images.flatten(1).tolist(),
        "subsets": SUBSETS,
        "strokes": [[], LINE, [[[5, 5]]], [[[x / 2 - 7, y / 2 + 3] for x, y in LINE[0]]]],
    }
    scripts = [str(STATIC / name) for name in (explorer.SCRIPT, "explorer.js")]
    done = subprocess.run(["node", "-e", RUN, *scripts], input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("i", range(len(CHOICES)), ids=[choice.name for choice in CHOICES])
def test_the_script_computes_what_the_library_recomposes(i: int, page: dict[str, Any], images: torch.Tensor) -> None:
    modules, found = CHOICES[i].stored(STORE), page["found"][i]
    inputs = datasets.Scaling(*datasets.STATISTICS["mnist"])(images)
    odds = torch.tensor(found["odds"])
    torch.testing.assert_close(odds, modules.recompose(range(10)).log_odds(inputs), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(page["logits"]), modules.parent(inputs), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(found["jaccard"]).double(), modules.masks.jaccard(), atol=1e-6, rtol=0)
    edges = next(iter(modules.masks.masks.values())).sum(1)
    assert found["heat"] == edges.tolist()
    for subset, share, size in zip(SUBSETS, found["remaining"], found["bytes"], strict=True):
        assert share == pytest.approx(modules.remaining(subset), abs=1e-12)
        assert size == comparison.cost(modules.select(subset))["bytes"]
    assert page["bytes"] == comparison.cost(modules.parent)["bytes"]


@needs_node
def test_drawings_are_placed_as_mnists_and_the_examples_are_read(page: dict[str, Any]) -> None:
    empty, line, dot, smaller = (torch.tensor(pixels).view(28, 28) for pixels in page["drawn"])
    assert int(empty.sum()) == 0
    rows, columns = line.sum(1).nonzero()[:, 0], line.sum(0).nonzero()[:, 0]
    assert len(rows) in (20, 21, 22)
    assert rows.float().mean() == columns.float().mean() == 13.5
    assert int(dot.max()) > 250
    assert torch.equal(line, smaller), "where and how large one draws decides nothing"
    for found in page["found"]:
        assert found["examples"] == list(range(10))


@needs_node
def test_counts_are_looked_up_at_their_subset(page: dict[str, Any]) -> None:
    for choice, found in zip(CHOICES, page["found"], strict=True):
        row = choice.counted(STORE, None).rows[0]
        for subset, seen in zip(SUBSETS, found["counted"], strict=True):
            at = explorer.every_subset(10).index(subset)
            assert seen["images"] == sum(row["images"][c] for c in subset)
            assert (seen["right"], seen["parentRight"]) == (row["right"][at], row["parent_right"][at])


@needs_mnist
def test_counts_are_those_of_the_test_images() -> None:
    data = datasets.load("mnist")
    modules, row = CHOICES[0].stored(STORE), CHOICES[0].counted(STORE, None).rows[0]
    odds, labels = split_log_odds(modules, data, "test", None, "float32")
    for subset in SUBSETS:
        images = int(torch.isin(labels, torch.tensor(subset)).sum())
        right = images * metrics.recomposed_accuracy(odds, labels, range(10), subset)
        assert row["right"][explorer.every_subset(10).index(subset)] == pytest.approx(right, abs=2), "but for rounding"


def test_the_data_are_made_of_what_the_store_holds(tmp_path: Path) -> None:
    explorer.write_all(STORE, None, tmp_path)
    again = "run python -m modlib.study.explorer"
    assert (tmp_path / explorer.SCRIPT).read_text() == (STATIC / explorer.SCRIPT).read_text(), again
    assert (tmp_path / explorer.FIGURE).stat().st_size > 10_000


def test_the_page_says_what_was_counted_and_loads_little_and_nothing_from_elsewhere() -> None:
    text = (BOOK / "explorer.md").read_text()
    assert explorer.answer(STORE, None) in " ".join(text.split())
    names = re.findall(r'(?:href|src)="\.\./_static/([^"]+)"', text)
    assert {explorer.SCRIPT, explorer.FIGURE, "explorer.js", "explorer.css"} == set(names)
    loaded = [name for name in names if name != explorer.FIGURE]  # which is for those who have scripts off
    assert sum((STATIC / name).stat().st_size for name in loaded) <= 500_000
    for name in loaded:
        own = (STATIC / name).read_text()
        assert not re.search(r"http|fetch\(|XMLHttp|import\s|url\(", own), name
    script = (STATIC / "explorer.js").read_text()
    for part in re.findall(r'root\("([^"]+)"\)', script):
        assert f'id="explorer-{part}"' in text, part


def test_subsets_are_numbered_by_their_bits() -> None:
    assert explorer.every_subset(3) == [(0,), (1,), (0, 1), (2,), (0, 2), (1, 2), (0, 1, 2)]


def test_what_is_not_stored_is_said(tmp_path: Path) -> None:
    empty = Store.at(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no modules of mnist-fc1-ours"):
        CHOICES[0].stored(empty)
    with pytest.raises(ValueError, match=r"data: .* is not in the store"):
        CHOICES[0].counted(empty, None)
    folder = tmp_path / "modules"
    folder.mkdir()
    name = f"{CHOICES[0].trial.experiment.name}.safetensors"
    shutil.copy(BOOK / "results" / "modules" / name, folder)
    with pytest.raises(FileNotFoundError, match="has no parent of mnist-fc1-ours"):
        CHOICES[0].stored(empty)
