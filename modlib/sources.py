"""Parts of a data set as measuring reads them: every row once, in batches that a network takes at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from modlib import checks
from modlib.data import Batch, Source


class Parted(Protocol):
    """A data set as measuring sees it, see `modlib.data.Dataset`; it may have `class_names` too, a tuple."""

    def part(self, name: str) -> Source: ...


def part_of(data: Parted, split: str) -> Source:
    """Return a part of a data set. Raises TypeError where it is none, and ValueError where the part is empty."""
    if not callable(getattr(data, "part", None)):
        raise TypeError(f"data must be a data set, with part(name), see modlib.data; got {type(data).__name__}")
    return data.part(split)


def batches(source: Source, rows: Tensor, size: int) -> Iterator[Batch]:
    """Yield the rows of these numbers (int64 [n]), so many at once; TypeError where inputs are no tensor."""
    for some in rows.split(size):
        batch = source.batch(some)
        checks.tensor("inputs", batch.inputs)
        yield batch
