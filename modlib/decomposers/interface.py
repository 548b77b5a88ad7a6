"""What every way to take a classifier apart has in common: one call, and one kind of result."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from modlib.data import Data


class Decomposition(Protocol):
    """One part for every class, and networks for any subset of them without training. `modlib.Modules` is one."""

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each part, in order."""

    def recompose(self, subset: Iterable[int]) -> nn.Module:
        """Return a network for the classes of `subset`: inputs [B, ...] -> a number for each, [B, len(subset)].

        The largest wins the vote; its `predict` returns the class that does, int64 [B].
        """

    def log_odds(self, inputs: Tensor) -> Tensor:
        """Return how sure each part is of its class against all others, log p / (1 - p): [B, C]."""

    def remaining(self, subset: Iterable[int] | None = None) -> float:
        """Return the share of the parent's maskable weights that `subset` (default: all) needs, in [0, 1]."""

    def save(self, path: str | Path) -> None:
        """Write it to one file, without the parent."""


class Decomposer(Protocol):
    """A way to take a trained classifier apart; its settings are those it is made with."""

    def decompose(
        self,
        parent: nn.Module,
        data: Data,
        *,
        seed: int,
        classes: Iterable[int] | None = None,
        device: str | torch.device = "auto",
    ) -> Decomposition:
        """Return the parts of `parent`, one for each of `classes` (default: all); the parent stays as it is.

        `data`: its training images are used. `device`: "auto" (a GPU where there is one) or a torch device. Raises
        ValueError or TypeError, before any work, for what cannot be.
        """
