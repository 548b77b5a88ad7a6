"""What every way to a subset's network promises, so that all of them are measured alike.

A way first prepares what serves every subset (nothing, for those that start anew each time), then builds a network for
one subset. Both are timed: the first subset costs both, each further one the second alone. Seconds are the processor's
own: what else a machine does at the time doesn't count, and with one thread they are those of an idle core.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from modlib import checks
from modlib.data import Data
from modlib.study.records import Store


@dataclass(frozen=True)
class Made:
    """A network for a subset: inputs [B, ...] -> logits [B, K], and how many labelled images of training it took.

    `kept_weights`: the share of the parent's weights that it holds, in [0, 1]; None where that is what can be counted
    in the network: weights that are not 0. `seconds_before`: of training that was done, and timed, at another time.
    """

    network: nn.Module
    labelled_images: int = 0
    kept_weights: float | None = None
    seconds_before: float = 0.0


class Way(Protocol):
    """A way to a subset's network; a frozen dataclass whose fields are its settings."""

    @property
    def shared(self) -> tuple[Any, ...]:
        """What `prepare` depends on beside parent, data and seed: ways that agree in it share what it returns."""

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> Any:
        """Return what serves every subset. `store`: where trained modules may lie."""

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: Any) -> Made:
        """Return a network for a subset. The parent stays as it is."""


class StartsAnew:
    """What a way has that prepares nothing: it starts anew for every subset."""

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return ()

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> None:
        """Return nothing."""


@dataclass(frozen=True)
class Prepared:
    """What a way has prepared, and the seconds that it took."""

    value: Any
    seconds: float


@dataclass(frozen=True)
class Built:
    """A network for a subset, inputs [B, ...] -> logits [B, K], and what it took.

    `first_seconds`, `further_seconds`: until the first subset's network is there, and each further one's.
    `labelled_images`: of training, whose labels were used. `kept_weights`: weights that are not 0, as a share of the
    parent's; normalisations and biases don't count.
    """

    network: nn.Module
    first_seconds: float
    further_seconds: float
    labelled_images: int
    kept_weights: float


def prepare(way: Way, parent: nn.Module, data: Data, seed: int, store: Store) -> Prepared:
    """Return what serves every subset of a way, timed."""
    before = time.process_time()
    return Prepared(way.prepare(parent, data, seed, store), time.process_time() - before)


def build(
    way: Way, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: Prepared | None = None
) -> Built:
    """Return a network for `subset` by a way, and what it took. `prepared`: see `prepare`; default: done here.

    Raises ValueError for fewer than two classes: these networks choose among their classes.
    """
    chosen = checks.subset(subset, range(data.num_classes), "subset")
    if len(chosen) < 2:
        raise ValueError(f"subset: {chosen}; these ways give networks that choose among two classes at least")
    before = prepare(way, parent, data, seed, Store(None)) if prepared is None else prepared
    began = time.process_time()
    made = way.make(parent, data, chosen, seed, before.value)
    further = time.process_time() - began
    kept = made.kept_weights
    network = made.network.eval().requires_grad_(False)
    if kept is None:
        kept = _not_zero(network) / _not_zero(parent)
    return Built(network, before.seconds + made.seconds_before + further, further, made.labelled_images, kept)


def _not_zero(network: nn.Module) -> int:
    """Return the number of weights that are not 0, of layers: normalisations and biases have one dimension."""
    return sum(int(torch.count_nonzero(values)) for values in network.parameters() if values.ndim > 1)
