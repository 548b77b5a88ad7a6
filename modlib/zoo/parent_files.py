"""Parents on disk, small enough to be carried: safetensors, convolutional ones in half precision and in parts.

A parent that is kept in half precision is rounded to it when it is made, not when it is written: what is decomposed,
what is measured and what is read again are the same numbers.

The header has `format` ("modlib parent"), `version` ("2") and `sha256`, see `modlib.checksums`; that of files written
before is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from modlib import library

FORMAT = "modlib parent"

PART = 8 << 20
"""Largest size of a file in bytes, but for a tensor that is larger by itself."""


@torch.no_grad()
def round_to_half(parent: nn.Module) -> nn.Module:
    """Round every floating-point parameter and buffer of `parent` to the nearest float16, in place, and return it.

    What has values beyond 65,504, which float16 does not hold, stays as it is.
    """
    for values in parent.state_dict().values():
        rounded = values.half()
        if values.is_floating_point() and bool(torch.isfinite(rounded).all()):
            values.copy_(rounded)
    return parent


def save(parent: nn.Module, path: Path, limit: int = PART) -> None:
    """Write the state of `parent` to `path`, or to `<stem>-1of3<suffix>` and so on, each file whole or not at all.

    What half precision holds exactly is written in it.
    """
    state = {name: _smallest(v.detach().cpu()).contiguous() for name, v in parent.state_dict().items()}
    parts = list(_parts(state, limit))
    for i, tensors in enumerate(parts):
        target = path if len(parts) == 1 else path.with_name(f"{path.stem}-{i + 1}of{len(parts)}{path.suffix}")
        library.whole_or_not(target, tensors, {"format": FORMAT})


def _smallest(values: Tensor) -> Tensor:
    """Return `values` in float16 where that loses nothing."""
    half = values.half() if values.is_floating_point() else values
    return half if torch.equal(half.to(values.dtype), values) else values


def load(parent: nn.Module, path: Path) -> bool:
    """Load the state that `save` wrote to `path` into `parent`; return whether it is there, with all of its parts.

    Raises ValueError where a file of it is damaged, or of another format.
    """
    files = [path] if path.exists() else _complete(path)
    state = {name: values for file in files for name, values in _read(file).items()}
    if state:
        parent.load_state_dict(state)
    return bool(state)


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file."""
    tensors, header = library.unpacked(path)
    if header:
        library.check_format(path, header, FORMAT)
    return tensors


def _parts(tensors: dict[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in groups of at most `limit` bytes, in their order."""
    group: dict[str, Tensor] = {}
    for name, values in tensors.items():
        if group and sum(v.nbytes for v in group.values()) + values.nbytes > limit:
            yield group
            group = {}
        group[name] = values
    yield group


def _complete(path: Path) -> list[Path]:
    """Return the files of a parent in parts, or none where one is missing."""
    pattern = re.compile(re.escape(path.stem) + r"-\d+of(\d+)" + re.escape(path.suffix))
    found = [file for file in path.parent.glob(f"{path.stem}-*{path.suffix}") if pattern.fullmatch(file.name)]
    counts = {int(match[1]) for file in found if (match := pattern.fullmatch(file.name))}
    return found if counts == {len(found)} else []
