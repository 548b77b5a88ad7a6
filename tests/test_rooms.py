"""The structure: rooms with one direction, no circle, a light core, and notebooks that stay outside private names."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "modlib"
FLOORS = {
    "": 0,
    "engines": 1,
    "facade": 2,
    "deploy": 3,
    "decomposers": 4,
    "zoo": 5,
    "study": 6,
    "entry": 7,
}
"""Who may import whom: a file imports from its own floor or below."""
MOVED = ("datasets", "parents", "training")
"""Old names of what lies in `zoo` now; they import it when they are asked for something."""
FACADE = ("cotraining", "recommending", "shared_mask", "parent_checks", "examination", "__init__", "moved", *MOVED)
"""Flat files that stand above the engines: where Algorithm 1 meets them, the names that users see, and old ones."""
ENTRY = ("__main__", "ship")
"""What the command line runs: nothing imports it. `ship` needs decomposers and deploy, and is no part of the study."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(name: str) -> str:
    """The room that a module lies in, by its full name."""
    parts = name.split(".")[1:]
    if len(parts) > 1 or (parts and parts[0] in FLOORS):
        return parts[0]
    if parts and parts[0] in ENTRY:
        return "entry"
    return "facade" if not parts or parts[0] in FACADE else ""


def imported(name: str) -> Iterator[tuple[str, str]]:
    """What a module imports of this package: module, and the name taken from it (or "")."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "modlib")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "modlib":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full, "") if full in MODULES else (node.module, alias.name)


ARROWS = {name: sorted({target for target, _ in imported(name) if target in MODULES}) for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_no_import_runs_upwards(name: str) -> None:
    own = room(name)
    for target in ARROWS[name]:
        there = room(target)
        assert FLOORS[there] <= FLOORS[own], f"{name} imports {target}, which lies above it"


def test_there_is_no_circle() -> None:
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle of imports: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in ARROWS[name]:
                follow(target, (*path, name))
            done.add(name)

    for name in MODULES:
        follow(name, ())


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_takes_public_names_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    aliases = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            of_package = (getattr(node, "module", None) or node.names[0].name).split(".")[0] == "modlib"
            for alias in node.names if of_package else []:
                assert not any(part.startswith("_") for part in alias.name.split(".")), alias.name
                aliases.add(alias.asname or alias.name.split(".")[0])
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            assert not node.attr.startswith("_"), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_notebook_takes_of_a_module_is_there(path: Path) -> None:
    """Most notebooks are not replayed by default: a name that has moved must not wait for that."""
    tree, modules = ast.parse(path.read_text()), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "modlib":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in MODULES:
                    modules[alias.asname or alias.name] = importlib.import_module(full)
                else:
                    assert hasattr(importlib.import_module(node.module), alias.name), full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


def in_a_fresh_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:check", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = ("torchvision", "pandas", "sklearn", "scipy", "matplotlib", "seaborn", "numba", "papermill", "yaml", "h5py")
BLOCKED = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] in {blocked} else found(name, *rest)
)
"""


def test_importing_the_package_is_light() -> None:
    shown = in_a_fresh_process(
        f"import modlib, sys; print([m for m in {HEAVY} if m in sys.modules], 'torch' in sys.modules)"
    )
    assert shown.strip() == "[] True"


USE = """
import torch, modlib
from modlib.zoo import parents, training
images = torch.randint(0, 255, (60, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
labels = torch.arange(60) % 3
images[torch.arange(60), labels] = 255
data = modlib.data.from_arrays(images, labels, held_out=12)
parent = training.train(parents.fc(1, 16, 6, 3), data, seed=0, epochs=1)
for engine in ("vectorised", "modulewise", "sequential"):
    modules = modlib.cotrain(parent, data, k=0.3, alpha=1.0, epochs=1, seed=0, engine=engine)
pair = modules.recompose([0, 2]).calibrated(data)
assert len(str(modules.report(data, "held_out")).splitlines()) > 5
print(sorted(set(pair.predict(data.inputs(images)).tolist()) | {0, 2}), type(modules).__name__)
"""


def test_without_any_extra_a_network_is_decomposed() -> None:
    assert in_a_fresh_process(BLOCKED.format(blocked=HEAVY) + USE).strip() == "[0, 2] Modules"


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("modlib.zoo.datasets.load('digits')", "zoo"),
        ("modlib.zoo.parents.vgg16()", "zoo"),
        ("modlib.zoo.parents.resnet50()", "zoo"),
        ("from modlib.augmentation import augment; import torch; "
         "augment(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), 'randaugment', torch.Generator())", "zoo"),
        ("import modlib.study", "book"),
        ("from modlib.__main__ import main; main(['book'])", "book"),
        ("from modlib.__main__ import main; main(['--help'])", "book"),
    ],
)  # fmt: skip
def test_without_an_extra_what_needs_it_says_so_in_a_line(code: str, extra: str) -> None:
    attempt = f"import modlib\ntry:\n    {code}\nexcept ImportError as error:\n    print(error)\n"
    shown = in_a_fresh_process(BLOCKED.format(blocked=HEAVY) + attempt)
    assert f"pip install 'modlib[{extra}]'" in shown
    assert len(shown.splitlines()) == 1


def test_what_has_moved_goes_on_working_and_says_where_it_is() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import modlib; print(modlib.datasets.from_arrays, modlib.parents.fc, "
         "modlib.training.train); from modlib.datasets import load"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    for name in MOVED:
        assert f"modlib.{name} is now modlib.zoo.{name}" in shown.stderr
