"""Engines: how the modules of a population take their training steps. Algorithm 1 itself is `modlib.cotraining`.

`sequential`   one module after another, any `nn.Module`; the reference
`vectorised`   all modules of fully connected parents in one pass
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modlib import checks, masking
from modlib.datasets import Dataset
from modlib.engines.sequential import SequentialEngine
from modlib.engines.vectorised import VectorisedEngine, fully_connected_layers
from modlib.modules import Modules
from modlib.recipes import Run

ENGINES = ("auto", "sequential", "vectorised")


class Engine(Protocol):
    """What Algorithm 1 asks of an engine of R runs with C modules each."""

    def train_epoch(self, orders: Tensor, epoch: int, average: dict[str, Tensor] | None) -> None:
        """Train all modules on the images in `orders` [R, images], pulled to `average` (None: no stemming)."""

    def ranked(self) -> dict[str, Tensor]:
        """Return what is ranked, by layer: [R, C, *weight shape]."""

    def modules(self) -> list[Modules]:
        """Return the modules of every run as they are now."""

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


def make_engine(
    name: str, runs: Sequence[Run], classes: tuple[int, ...], data: Dataset, device: torch.device
) -> Engine:
    """Return the engine `name` for `runs`; "auto" takes the vectorised one where it can.

    Raises ValueError where the vectorised engine is asked for and a parent is not fully connected.
    """
    checks.choice("engine", name, ENGINES)
    fits = all(
        run.policy is masking.linear_and_convolutional_weights and fully_connected_layers(run.parent) is not None
        for run in runs
    )
    if name == "vectorised" and not fits:
        raise ValueError(
            "engine: 'vectorised' needs a fully connected parent (a Sequential of Flatten, Linear, ReLU, Dropout and "
            "Identity) and the default policy; use 'sequential' or 'auto'"
        )
    if name == "sequential" or not fits:
        return SequentialEngine(runs, classes, data, device)
    return VectorisedEngine(runs, classes, data, device)
