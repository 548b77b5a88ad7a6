"""A decomposed network on disk: one safetensors file, without the parent, readable without this package.

Tensors (`<layer>` is the parameter's name in the parent, e.g. `1.weight`)::

    mask/<layer>        uint8 [C, ceil(n / 8)]: row c is the mask of module c, its n edges flattened in C order and
                        packed eight to a byte, the first edge in the highest bit (numpy.packbits); spare bits are 0
    grafting/weight     float [C, 2, N]: row 0 "another class", row 1 "this class"
    grafting/bias       float [C, 2]
    statistics/<buffer> [C, *shape]: running statistics of batch normalisation, each module's own

Metadata (strings): `format` ("modlib"), `version` ("2"), `classes` (JSON list), `shapes` (JSON: layer -> weight
shape), `parent` (see `parent_hash`), `metadata` (JSON: recipe, seed and what was recorded), `sha256` (of all of this,
see `modlib.checksums`). Version "1" is the same without `sha256`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from modlib import checksums
from modlib.masking import MaskSet
from modlib.parent import copied, former_hash, frozen, parent_hash, picked, unwrapped, with_logits

VERSION, UNCHECKED = "2", "1"
"""The version of files that are written, of every format, and the one before, which has no checksum."""
FIELDS = ("format", "version", "classes", "shapes", "parent", "metadata")
"""What the header of a file holds, beside its checksum."""
TEXTS = ("format", "version", "parent")
"""Those of them that are not JSON."""


def pack(mask: Tensor) -> Tensor:
    """Return bool [C, ...] as uint8 [C, ceil(n / 8)], the first edge in the highest bit."""
    return torch.from_numpy(np.packbits(mask.flatten(1).cpu().numpy(), axis=1))


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the bool masks `[C, *shape]` of `pack`."""
    n = math.prod(shape)
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=n).astype(bool)).unflatten(1, shape)


class Parts(Protocol):
    """What is written of modules, see `modlib.Modules`."""

    @property
    def parent(self) -> nn.Module: ...
    @property
    def masks(self) -> MaskSet: ...
    @property
    def grafting_weight(self) -> Tensor: ...
    @property
    def grafting_bias(self) -> Tensor: ...
    @property
    def statistics(self) -> Mapping[str, Tensor]: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


def save(modules: Parts, path: str | Path) -> None:
    """Write `modules` to `path`, whole or not at all."""
    tensors = {f"mask/{name}": pack(mask) for name, mask in modules.masks.masks.items()}
    tensors["grafting/weight"] = modules.grafting_weight.detach().cpu().contiguous()
    tensors["grafting/bias"] = modules.grafting_bias.detach().cpu().contiguous()
    tensors |= {f"statistics/{name}": values.cpu().contiguous() for name, values in modules.statistics.items()}
    metadata = {
        "format": "modlib",
        "classes": json.dumps(modules.masks.classes),
        "shapes": json.dumps({name: list(mask.shape[1:]) for name, mask in modules.masks.masks.items()}),
        "parent": parent_hash(modules.parent),
        "metadata": json.dumps(dict(modules.metadata)),
    }
    whole_or_not(Path(path), tensors, metadata)


def whole_or_not(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file with version and checksum; where that fails, what was there before is left as it was."""
    metadata = metadata | {"version": VERSION}
    metadata |= {checksums.FIELD: checksums.of_content(tensors, metadata)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, part, metadata)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | Path, parent: nn.Module, logits: Callable[[Any], Tensor] | None = None) -> dict[str, Any]:
    """Return the parts of the modules written to `path`, by the names that `modlib.Modules` has for them.

    Arguments and errors as in `modlib.load`.
    """
    path = Path(path)
    if not isinstance(parent, nn.Module):
        raise TypeError(f"parent must be an nn.Module, got {type(parent).__name__}")
    tensors, header = opened(path, "modlib")
    classes, shapes, recorded = parsed(path, header, FIELDS)
    parent = unwrapped(parent)
    if header["parent"] != parent_hash(parent) and header["parent"] != former_hash(parent):
        raise ValueError(
            f"parent: {path} belongs to a parent with hash {header['parent'][:12]}…, "
            f"this one has {parent_hash(parent)[:12]}…; modules fit the parent they were taken from only"
        )
    if recorded.get("logits") == "picked" and logits is None and not picked(parent):
        raise ValueError(f"logits: the modules in {path} were made with logits=, hand the same function over")
    _check_tensors(path, tensors, classes, shapes, parent)
    device = next(parent.parameters()).device
    tensors = {name: values if name.startswith("mask/") else values.to(device) for name, values in tensors.items()}
    return {
        "parent": frozen(copied(parent) if logits is None else with_logits(parent, logits)),
        "masks": MaskSet({name: unpack(tensors[f"mask/{name}"], shape) for name, shape in shapes.items()}, classes),
        "grafting_weight": tensors["grafting/weight"],
        "grafting_bias": tensors["grafting/bias"],
        "statistics": {n.removeprefix("statistics/"): t for n, t in tensors.items() if n.startswith("statistics/")},
        "metadata": recorded,
    }


def parsed(
    path: Path, header: Mapping[str, str], fields: Sequence[str]
) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return classes, shapes and metadata of a header; raise ValueError for a field that is missing or of no use."""
    missing = [name for name in fields if name not in header]
    if missing:
        raise ValueError(f"path: {path} has no {', '.join(missing)} in its header")
    values = {}
    for name in (name for name in fields if name not in TEXTS):
        try:
            values[name] = json.loads(header[name])
        except json.JSONDecodeError as error:
            raise ValueError(f"path: {path} has {name} in its header that are not JSON: {error}") from error
    classes, shapes, recorded = values["classes"], values["shapes"], values["metadata"]
    if not (_wholes(classes) and len(set(classes)) == len(classes)):
        raise ValueError(f"path: {path} has classes {classes!r} in its header; they must be distinct whole numbers")
    if not (isinstance(shapes, dict) and shapes and all(map(_wholes, shapes.values()))):
        raise ValueError(f"path: {path} has shapes {shapes!r} in its header; they must be layer -> weight shape")
    if not isinstance(recorded, dict):
        raise ValueError(f"path: {path} has metadata {recorded!r} in its header; they must be an object")
    return tuple(classes), {name: tuple(shape) for name, shape in shapes.items()}, recorded


def _wholes(values: Any) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(type(v) is int and v >= 0 for v in values)


def _check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    classes: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    parent: nn.Module,
) -> None:
    """Raise ValueError unless the file has just the tensors that its header and the parent ask for, in their shapes."""
    weights = dict(parent.named_parameters(remove_duplicate=False))
    buffers = dict(parent.named_buffers(remove_duplicate=False))
    for name, shape in shapes.items():
        if name not in weights or weights[name].shape != shape:
            raise ValueError(f"path: {path} has masks of {name!r} {list(shape)}, the parent has no such weight")
    count = len(classes)
    graftings = tensors.get("grafting/weight", torch.empty(0, 0, 0))
    wanted: dict[str, tuple[int, ...]] = {f"mask/{n}": (count, -(-math.prod(s) // 8)) for n, s in shapes.items()}
    wanted |= {"grafting/weight": (count, 2, *graftings.shape[2:3]), "grafting/bias": (count, 2)}
    own = [name.removeprefix("statistics/") for name in tensors if name.startswith("statistics/")]
    wanted |= {f"statistics/{name}": (count, *buffers[name].shape) for name in own if name in buffers}
    check_shapes(path, tensors, wanted, "parent")
    if any(tensors[f"mask/{name}"].dtype != torch.uint8 for name in shapes):
        raise ValueError(f"path: {path} has masks that are not uint8")


def check_shapes(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], asking: str) -> None:
    """Raise ValueError unless the tensors are those that the header and `asking` want, in their shapes."""
    found = {name: tuple(values.shape) for name, values in tensors.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        asked = f"{list(wanted[wrong[0]])}" if wrong[0] in wanted else "none"
        there = f"{list(found[wrong[0]])}" if wrong[0] in found else "none"
        raise ValueError(f"path: {path} has {wrong[0]} {there} where its header and the {asking} ask for {asked}")


def opened(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the header of a file of format `kind`.

    Raises FileNotFoundError where there is none, ValueError where it is damaged, or of another format or version.
    """
    if not path.exists():
        raise FileNotFoundError(f"path: no file {path}")
    tensors, header = unpacked(path)
    check_format(path, header, kind)
    return tensors, header


def check_format(path: Path, header: Mapping[str, str], kind: str) -> None:
    """Raise ValueError unless a header is of format `kind`, in a version that is read."""
    if header.get("format") != kind or header.get("version") not in (VERSION, UNCHECKED):
        raise ValueError(
            f"path: {path} has format {header.get('format')!r} version {header.get('version')!r}; "
            f"this package reads {kind!r} versions {UNCHECKED!r} and {VERSION!r}"
        )


def unpacked(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the header of a safetensors file; raise ValueError where it is damaged."""
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in list(stored.keys())}
            header = stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"path: {path} is damaged or not a safetensors file: {error}") from error
    # of any version: where damage made a 1 of it, the checksum is still there; where that lost its name, the version is
    written = header.get(checksums.FIELD)
    if written is None and header.get("version") == VERSION:
        raise ValueError(f"path: {path} is damaged: its header has no {checksums.FIELD}, its checksum")
    if written is not None and written != checksums.of_content(tensors, header):
        raise ValueError(f"path: {path} is damaged: its content does not match its checksum")
    return tensors, header
