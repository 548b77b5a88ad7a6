"""Tables 1 and 2 are what the stored masks and parents say: derived again with NumPy alone."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
import rederive

RESULTS = Path(__file__).parents[1] / "book" / "results"


@pytest.fixture(scope="module")
def data() -> Path:
    folder = Path(os.environ.get("MODLIB_DATA", "."))
    if not (folder / "mnist.npz").exists():
        pytest.skip("needs the real MNIST: set MODLIB_DATA")
    return folder


def test_nothing_but_numpy_is_imported() -> None:
    tree = ast.parse(Path(rederive.__file__).read_text(encoding="utf-8"))
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    assert names == {"hashlib", "json", "struct", "sys", "itertools", "pathlib", "numpy"}


def test_records_are_what_masks_and_parents_give(data: Path) -> None:
    every = list(rederive.compared(RESULTS, data))
    assert len(every) >= 20  # four settings, five trials each
    assert [name for name, found, recorded in every if not rederive.agree(found, recorded)] == []


def test_another_mask_does_not_pass(data: Path) -> None:
    name, record, file = next(rederive.trials(RESULTS))
    modules, metadata = rederive.read(file)
    parents = (rederive.read(path)[0] for path in (RESULTS / "parents").glob("mnist-fc1-seed*.safetensors"))
    parent = next(p for p in parents if rederive.hash_of(p) == metadata["parent"])
    packed = modules["mask/1.weight"].copy()
    packed[0, :40] ^= np.uint8(255)  # edges of module 0's first hidden unit
    with np.load(data / "mnist.npz") as arrays:
        images, labels = arrays["test_images"][:200], arrays["test_labels"][:200]
    own, other = (
        rederive.derived(kept, parent, images, labels) for kept in (modules, modules | {"mask/1.weight": packed})
    )
    assert own["jaccard_index"] == pytest.approx(record["rows"][-1]["jaccard_index"], abs=2e-6), name
    assert abs(own["jaccard_index"] - other["jaccard_index"]) > 1e-4
