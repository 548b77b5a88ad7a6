"""Sources: one part of a data set, as training and measuring see it: batches of rows by numbers, which are stable.

The table of the vote and the passes of one module after another mean the same image by the same number. What an image
is, and how an input is made of it, is known here alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from modlib import augmentation
from modlib.checksums import in_bytes
from modlib.parent import each_tensor, flat, number_of_rows, rows_of

Preprocess = Callable[[Tensor], Tensor]
"""uint8 images [B, ...] -> the float inputs of a network [B, ...]."""
Augment = Callable[[Any], Any]
"""One input, as the parent takes it but without its batch dimension -> the same, changed at random."""
NO_CLASS = -1
"""The label of images of no class, see `Joined`."""
HASHED = 64
"""Rows of a source that is read lazily that stand for all in its hash."""


@dataclass(frozen=True)
class Batch:
    """Some rows of a source: their numbers (int64 [B]), inputs as the parent takes them, and labels (int64 [B])."""

    rows: Tensor
    inputs: Any
    labels: Tensor


class Source(Protocol):
    """One part of a data set: n rows with labels, and batches of them."""

    @property
    def labels(self) -> Tensor:
        """The class of every row: int64 [n]."""

    @property
    def augmented(self) -> bool:
        """Whether it changes training images at random by a function of its own."""

    def batch(self, rows: Tensor, augment: str = "none", draw: torch.Generator | None = None) -> Batch:
        """Return the rows of these numbers (int64 [B]), in training augmented with the draws of `draw`.

        By the source's own function, where it has one, and by `augment` (see `modlib.augmentation`), which takes uint8
        images alone. Inputs and labels are where the source is. Inputs are a tensor, or whatever
        `modlib.parent.functional_call` hands to a parent; what is not floating-point in them reaches it as it is.
        """

    def to(self, device: str | torch.device) -> Source:
        """Return the source with all that it holds on `device`."""

    def take(self, rows: Tensor) -> Source:
        """Return the source of these rows alone, numbered anew."""

    def update(self, digest: Any) -> None:
        """Add what it holds to a hash."""


@dataclass(frozen=True, eq=False)
class Images:
    """A source of uint8 images [n, H, W] or [n, H, W, C] with labels int64 [n]."""

    images: Tensor
    labels: Tensor
    preprocess: Preprocess
    augment: Augment | None = None

    @property
    def augmented(self) -> bool:
        """See `Source.augmented`."""
        return self.augment is not None

    def batch(self, rows: Tensor, augment: str = "none", draw: torch.Generator | None = None) -> Batch:
        """See `Source.batch`."""
        images = self.images[rows]
        if draw is not None:
            images = augmentation.augment(images, augment, draw)
        return Batch(rows, _changed(self.preprocess(images), self.augment, draw), self.labels[rows])

    def to(self, device: str | torch.device) -> Images:
        """See `Source.to`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def take(self, rows: Tensor) -> Images:
        """See `Source.take`."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def update(self, digest: Any) -> None:
        """See `Source.update`."""
        _hash(digest, self.images, self.labels)


@dataclass(frozen=True, eq=False)
class Tensors:
    """A source of tensors [n, ...], alone or in a dict or tuple, with labels int64 [n]: what the parent takes."""

    inputs: Any
    labels: Tensor
    augment: Augment | None = None

    @property
    def augmented(self) -> bool:
        """See `Source.augmented`."""
        return self.augment is not None

    def batch(self, rows: Tensor, augment: str = "none", draw: torch.Generator | None = None) -> Batch:
        """See `Source.batch`."""
        _refuse(augment)
        return Batch(rows, _changed(rows_of(self.inputs, rows), self.augment, draw), self.labels[rows])

    def to(self, device: str | torch.device) -> Tensors:
        """See `Source.to`."""
        return replace(self, inputs=each_tensor(self.inputs, lambda v: v.to(device)), labels=self.labels.to(device))

    def take(self, rows: Tensor) -> Tensors:
        """See `Source.take`."""
        return replace(self, inputs=rows_of(self.inputs, rows), labels=self.labels[rows])

    def update(self, digest: Any) -> None:
        """See `Source.update`."""
        _hash(digest, *flat(self.inputs), self.labels)


@dataclass(frozen=True, eq=False)
class Rows:
    """A source that reads the items of a map-style dataset when they are asked for; labels int64 [n] are known.

    `numbers` [n]: which items. `unpack`: an item -> (input, label). `collate`: a list of inputs -> inputs. `workers`:
    threads that read the items of a batch.
    """

    items: Any
    numbers: Tensor
    labels: Tensor
    unpack: Callable[[Any], tuple[Any, Any]]
    collate: Callable[[list[Any]], Any] = default_collate
    augment: Augment | None = None
    workers: int = 0
    device: str | torch.device = "cpu"

    @property
    def augmented(self) -> bool:
        """See `Source.augmented`."""
        return self.augment is not None

    def batch(self, rows: Tensor, augment: str = "none", draw: torch.Generator | None = None) -> Batch:
        """See `Source.batch`."""
        _refuse(augment)
        numbers = self.numbers[rows.to(self.numbers.device)].tolist()
        inputs = self._collated(self._read(numbers), numbers)
        _check_finite(inputs, numbers)
        inputs = each_tensor(inputs, lambda v: v.to(self.device))
        return Batch(rows, _changed(inputs, self.augment, draw), self.labels[rows])

    def _collated(self, read: list[Any], numbers: Sequence[int]) -> Any:
        """Return inputs that have been read as those of a batch; raise ValueError where that cannot be."""
        try:
            inputs = self.collate(read)
            counts = [len(part) for part in flat(inputs)]
        except Exception as error:  # it is the user's code: it may raise anything
            raise ValueError(
                f"data: items {_shown(numbers)} cannot be put into one batch, do their shapes change? {error}"
            ) from error
        if not counts or set(counts) != {len(numbers)}:
            raise ValueError(f"data: {len(numbers)} items were read, collate= has made {counts} rows of them")
        return inputs

    def _read(self, numbers: Sequence[int]) -> list[Any]:
        def read(number: int) -> Any:
            try:
                return self.unpack(self.items[number])[0]
            except Exception as error:  # it is the user's code: it may raise anything
                raise ValueError(f"data: item {number} of {len(self.items)} cannot be read: {error!r}") from error

        if not self.workers:
            return [read(number) for number in numbers]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(read, numbers))

    def to(self, device: str | torch.device) -> Rows:
        """See `Source.to`."""
        return replace(self, labels=self.labels.to(device), device=device)

    def take(self, rows: Tensor) -> Rows:
        """See `Source.take`."""
        return replace(self, numbers=self.numbers[rows.to(self.numbers.device)], labels=self.labels[rows])

    def update(self, digest: Any) -> None:
        """See `Source.update`; of the inputs `HASHED`, evenly spread: reading all of them may take hours."""
        some = torch.linspace(0, len(self.labels) - 1, min(HASHED, len(self.labels))).long()
        inputs = self.batch(some.to(self.labels.device)).inputs
        _hash(digest, self.numbers, self.labels, *flat(inputs))


@dataclass(frozen=True, eq=False)
class Joined:
    """Two sources as one: the rows of the first, then those of the second, whose inputs are alike."""

    first: Source
    second: Source

    @property
    def labels(self) -> Tensor:
        """See `Source.labels`."""
        return torch.cat([self.first.labels, self.second.labels])

    @property
    def augmented(self) -> bool:
        """See `Source.augmented`."""
        return self.first.augmented or self.second.augmented

    def batch(self, rows: Tensor, augment: str = "none", draw: torch.Generator | None = None) -> Batch:
        """See `Source.batch`."""
        before = len(self.first.labels)
        own = rows < before
        if bool(own.all()):
            return self.first.batch(rows, augment, draw)
        if not bool(own.any()):
            return replace(self.second.batch(rows - before, augment, draw), rows=rows)
        one, other = self.first.batch(rows[own], augment, draw), self.second.batch(rows[~own] - before, augment, draw)
        back = torch.cat([own.nonzero()[:, 0], (~own).nonzero()[:, 0]]).argsort()
        others = iter(flat(other.inputs))
        inputs = each_tensor(one.inputs, lambda v: torch.cat([v, next(others)])[back.to(v.device)])
        return Batch(rows, inputs, torch.cat([one.labels, other.labels])[back])

    def to(self, device: str | torch.device) -> Joined:
        """See `Source.to`."""
        return Joined(self.first.to(device), self.second.to(device))

    def take(self, rows: Tensor) -> Source:
        """See `Source.take`; the rows of the first come first."""
        before = len(self.first.labels)
        own = rows < before
        return Joined(self.first.take(rows[own]), self.second.take(rows[~own] - before))

    def update(self, digest: Any) -> None:
        """See `Source.update`."""
        self.first.update(digest)
        self.second.update(digest)


def batches(source: Source, rows: Tensor, size: int) -> Iterator[Batch]:
    """Yield the rows of these numbers (int64 [n]), so many at once."""
    for some in rows.split(size):
        yield source.batch(some)


def _check_finite(inputs: Any, numbers: Sequence[int]) -> None:
    """Raise ValueError, with the number of the first such item, where inputs that were read hold NaN or infinity."""
    for values in flat(inputs):
        if values.is_floating_point() and not bool(torch.isfinite(values.sum())):  # a sum of finite values may overflow
            bad = (~torch.isfinite(values.flatten(1) if values.ndim > 1 else values[:, None]).all(1)).nonzero()[:, 0]
            if len(bad):
                raise ValueError(f"data: item {numbers[int(bad[0])]} has NaN or infinity in it; inputs must be finite")


def _shown(numbers: Sequence[int], most: int = 6) -> str:
    return f"[{', '.join(map(str, numbers[:most]))}{', ...' if len(numbers) > most else ''}]"


def _refuse(augment: str) -> None:
    if augment != "none":
        raise ValueError(
            f"augment: {augment!r} changes uint8 images; data of this kind take a function, augment= there"
        )


def _changed(inputs: Any, augment: Augment | None, draw: torch.Generator | None) -> Any:
    """Return inputs, in training (where there are draws) each changed by `augment`, if there is one."""
    if augment is None or draw is None:
        return inputs
    seed = int(torch.randint(2**62, (1,), generator=draw, device=draw.device))
    with _seeded(seed):
        changed = [augment(rows_of(inputs, torch.tensor(i))) for i in range(number_of_rows(inputs))]
    shapes = sorted({str([tuple(np.shape(part)) for part in _parts_of(one)]) for one in changed})
    if len(shapes) > 1:
        raise ValueError(f"augment: must return one shape for all inputs, got {', '.join(shapes[:4])}")
    try:
        return default_collate(changed)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"augment: what it returns, {type(changed[0]).__name__}, makes no batch: {error}") from error


def _parts_of(one: Any) -> list[Any]:
    """Return the tensors in what a function has made of one input; or this itself, where there is none."""
    return list(flat(one)) or [one]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within it, torch's own draws follow `seed`; afterwards they go on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _hash(digest: Any, *tensors: Tensor) -> None:
    for values in tensors:
        digest.update(f"{values.dtype} {tuple(values.shape)}".encode())
        digest.update(in_bytes(values).data)


def sha256(sources: Sequence[Source | None]) -> str:
    """Return the SHA-256 over all that some sources hold."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(b"part")
        if source is not None:
            source.update(digest)
    return digest.hexdigest()
