"""`modlib ship`: a trained network in, a small one for some of its classes out, in a file that runs without modlib.

It stands above `decomposers` and `deploy`, and needs the extra `deploy` alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from modlib import checks, extras
from modlib import data as data_of
from modlib.data import Data, Dataset, Scaling
from modlib.decomposers.channels import COSTS, ChannelSaliency, restricted_accuracy
from modlib.deploy import export, measure
from modlib.deploy.exporting import outputs, target_of
from modlib.deploy.programs import read_program
from modlib.parent import frozen
from modlib.seeds import generator

DESCRIPTION = """
Write a small, fast network for some classes of a trained one, to a file that runs where modlib is not installed: the
channels that these classes need are cut out and repaired in closed form. The weights in the file are not the parent's.
The file is run at once and compared; parent and network are measured side by side.
"""
EXAMPLE = "example: modlib ship zoo:net --data pets.npz --classes cat,dog --within 0.5 --out pair.onnx"
CHANGED = "the weights are not the parent's: channels were cut out, and the rest solved anew"
HELD_OUT = 0.2
"""Share of the rows of a `.npz` that choosing and the accuracy are on, drawn by the seed."""


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of `modlib ship`."""
    own = _Parser(prog="modlib ship", description=DESCRIPTION, epilog=EXAMPLE)
    own.add_argument(
        "parent", metavar="PARENT", help="a .pt2 file of torch.export, or module:function that returns an nn.Module"
    )
    own.add_argument(
        "--data", required=True, metavar="DATA",
        help="a .npz with x (uint8 images [n, H, W, C] or [n, C, H, W], which are divided by 255; or numbers as the "
        "network takes them), y (labels [n], numbers or texts) and, if you like, names, in the order of the network's "
        "outputs; a fifth of its rows is held out. Or "
        "module:function that returns data (see modlib.data), or one and the names of its classes",
    )  # fmt: skip
    own.add_argument("--classes", required=True, help="names or numbers, with commas between them")
    budget = own.add_mutually_exclusive_group(required=True)
    budget.add_argument("--keep", type=float, help="share of the parent's cost that is left at most, in (0, 1]")
    budget.add_argument(
        "--within", type=float, metavar="POINTS",
        help="the smallest network that loses at most so many points of accuracy on held-out images",
    )  # fmt: skip
    own.add_argument("--of", default="multiply_adds", choices=COSTS, help="what the cost is (default: multiply_adds)")
    own.add_argument("--images", type=int, help="training images of the classes that the repair sees")
    own.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    own.add_argument("--out", required=True, metavar="FILE", help="what is written: .onnx or .pt2")
    return own


@dataclass(frozen=True)
class Order:
    """What is asked for, checked; `settings` are those of `Channels.recompose`."""

    parent: nn.Module
    data: Data
    names: tuple[str, ...] | None
    subset: tuple[int, ...]
    settings: dict[str, Any]
    seed: int
    out: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 where something is refused, with one line that says what."""
    asked = parser().parse_args(arguments)
    try:
        ship(ordered(asked))
    except (ValueError, TypeError, OSError, ImportError) as error:
        hint = ""
        if asked.parent.endswith(".pt2") and "channels" in str(error):
            hint = "; in a .pt2 some layers are operators, hand over the network itself: module:function"
        print(f"modlib ship: {' '.join(str(error).split())}{hint}", file=sys.stderr)
        return 2
    return 0


def ordered(asked: argparse.Namespace) -> Order:
    """Return what is asked for; raise before any work for what cannot be."""
    settings = {n: v for n in ("keep", "within", "of", "images") if (v := getattr(asked, n)) is not None}
    if "keep" in settings:
        checks.share("--keep", asked.keep)
    else:
        checks.number("--within", asked.within, 0.0, 100.0)
    if asked.images is not None:
        checks.whole("--images", asked.images, 4)
    checks.whole("--seed", asked.seed, 0)
    out = target_of(asked.out, "--out")
    extras.require("torch_pruning", "cutting channels")
    parent = _parent(asked.parent)
    data, names = _data(asked.data, parent, asked.seed)
    if "within" in settings and not len(data.held_out_labels):
        raise ValueError(f"--within: chooses on held-out images, and data set {data.name!r} has none")
    subset = _classes(asked.classes, data.num_classes, names)
    if missing := sorted(set(subset) - set(data.present)):
        raise ValueError(f"--classes: data set {data.name!r} has no training images of {missing}")
    return Order(parent, data, names, subset, settings, asked.seed, out)


def ship(order: Order) -> None:
    """Make the network, write it, and print what it costs and how well it does beside its parent."""
    data, subset = order.data, order.subset
    channels = ChannelSaliency().decompose(order.parent, data, seed=order.seed, classes=subset, device="cpu")
    small = channels.recompose(subset, data=data, **order.settings)
    example = data.part("train").batch(torch.arange(min(8, len(data.train_labels)))).inputs
    names = None if order.names is None else [order.names[c] for c in subset]
    written = export(
        small, order.out, example, classes=subset, names=names, note=f"{prepared(data)}; {CHANGED}", parent=order.parent
    )  # fmt: skip
    print(accuracies(order.parent, small, data, subset, chosen="within" in order.settings))
    print(f"\n{measure({'small': small}, order.parent, example)}\n")
    print(
        f"{written.path}: {written.bytes / 1000:,.1f} kB; run, and at most {written.difference:.1g} of the output's "
        f"scale from the network; outputs are {json.dumps(names or list(subset), ensure_ascii=False)}"
    )


def accuracies(parent: nn.Module, small: nn.Module, data: Data, subset: Sequence[int], chosen: bool = False) -> str:
    """Return in a line the accuracy of both on the subset's images: test ones, else held-out, else training ones.

    `chosen`: whether the held-out images have chosen the network's size, which flatters it there.
    """
    wanted = torch.tensor(subset)
    for split in ("test", "held_out", "train"):
        rows = torch.isin(getattr(data, f"{split}_labels"), wanted).nonzero()[:, 0]
        if len(rows):
            break
    first = 100 * restricted_accuracy(parent, data, subset, split, subset)
    second = 100 * restricted_accuracy(small, data, subset, split)
    held_out = "held-out (they chose its size)" if chosen else "held-out"
    which = {"held_out": held_out, "test": "test", "train": "training (there are no others)"}[split]
    of_one = "; one class alone: always right, this says nothing" if len(subset) == 1 else ""
    return (
        f"accuracy on {len(rows):,} {which} images of the classes: parent restricted to them {first:.2f}%, "
        f"small network {second:.2f}% ({second - first:+.2f} points){of_one}"
    )


def prepared(data: Data) -> str:
    """Return in words how the inputs of a data set are made."""
    how = data.preprocess if isinstance(data, Dataset) else None
    if isinstance(how, Scaling):
        mean, std = list(how.mean), list(how.std)
        return f"float32 [B, C, H, W]: pixel / 255, then (x - mean) / std by channel; mean {mean}, std {std}"
    if how is None:
        return f"as in the data {data.name!r}"
    return f"as {getattr(how, '__qualname__', None) or repr(how)} makes them"


def _called(spec: str, what: str) -> Any:
    """Return what the function in "module:function" returns; the current directory is searched, too."""
    module, _, name = spec.partition(":")
    if not module or not name:
        raise ValueError(f"{what}: must be module:function or a file, got {spec!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found()
    except Exception as error:  # it is the user's code: it may raise anything
        raise ValueError(f"{what}: {spec} fails: {type(error).__name__}: {error}") from error


def _parent(spec: str) -> nn.Module:
    found = read_program(spec, "PARENT") if spec.endswith(".pt2") else _called(spec, "PARENT")
    if not isinstance(found, nn.Module):
        raise TypeError(f"PARENT: {spec} must give an nn.Module, got {type(found).__name__}")
    return frozen(found.cpu())


def _data(spec: str, parent: nn.Module, seed: int) -> tuple[Data, tuple[str, ...] | None]:
    """Return the data set and the names of its classes, if there are any."""
    if spec.endswith(".npz"):
        return _of_file(spec, parent, seed)
    found = _called(spec, "--data")
    data, names = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(data, Data):
        raise TypeError(f"--data: {spec} must return data of modlib.data, got {type(data).__name__}")
    return data.to("cpu"), _names(data.class_names if names is None else names, data.num_classes)


def _names(names: Any, count: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    found = tuple(str(name) for name in names)
    if len(found) != count or len(set(found)) != count:
        raise ValueError(f"--data: names must be different, one for each of {count} classes, got {list(found)}")
    return found


def _of_file(path: str, parent: nn.Module, seed: int) -> tuple[Data, tuple[str, ...] | None]:
    """Return the data set in a `.npz`; rows are shuffled, a share of them is held out."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"--data: there is no file {path!r}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "names") if name in file.files}
    except Exception as error:  # zip, NumPy's own kinds
        raise ValueError(f"--data: {path!r} cannot be read: {error}") from error
    if not {"x", "y"} <= arrays.keys():
        raise ValueError(f"--data: {path!r} must hold x and y, got {sorted(arrays)}")
    try:
        data = _of_arrays(**arrays, name=Path(path).stem, seed=seed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--data: {path!r}: {error}") from error
    if data.class_names is None:  # numbers of outputs: not all need be in the file
        data = replace(data, num_classes=max(data.num_classes, _width(parent, data)))
    return data, _names(data.class_names, data.num_classes)


def _of_arrays(x: np.ndarray, y: np.ndarray, *, name: str, seed: int, names: np.ndarray | None = None) -> Any:
    """Return arrays as data, see `modlib.data.images` and `.tensors`; a share of the rows, drawn, is held out."""
    if x.ndim < 2 or y.shape != (len(x),) or len(x) < 2:
        raise ValueError(f"x must be [n, ...] and y n labels, got {x.shape} and {y.shape}")
    rows = torch.randperm(len(x), generator=generator(seed, "held out")).numpy()
    settings: dict[str, Any] = {"held_out": int(HELD_OUT * len(x)), "empty": True, "name": name}
    if names is not None:
        settings["classes"] = names.tolist()
    elif np.issubdtype(y.dtype, np.integer):
        settings["num_classes"] = max(2, int(y.max()) + 1)
    make: Any = data_of.images if x.dtype == np.uint8 else data_of.tensors
    return make(x[rows], y[rows], **settings)


def _width(parent: nn.Module, data: Data) -> int:
    """Return how many logits the parent gives for two images; 0 where it fails, which is said later, and better."""
    try:
        return outputs(parent, data.part("train").batch(torch.arange(2)).inputs)[0].shape[1]
    except Exception:  # the user's code: it may raise anything
        return 0


def _classes(listed: str, count: int, names: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the numbers of the classes that are listed, by name or number."""
    numbers = {str(c): c for c in range(count)} | {name: c for c, name in enumerate(names or ())}
    asked = [one.strip() for one in listed.split(",")]
    unknown = [one for one in asked if one not in numbers]
    if unknown:
        known = ", ".join(names) if names else f"0 to {count - 1}, and they have no names"
        raise ValueError(f"--classes: there is no {', '.join(map(repr, unknown))}; there are {known}")
    return tuple(checks.subset([numbers[one] for one in asked], range(count), "--classes"))
