"""Engines: how the modules of a population take their training steps. Algorithm 1 itself is `modlib.cotraining`.

`vectorised`   all modules of fully connected parents in one pass
`modulewise`   one module after another in every epoch, any `nn.Module`; for large networks, and for many processes
`graphed`      the same on a GPU, each step recorded once and replayed
`sequential`   all modules together in every step, any `nn.Module`; the reference
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modlib import checks, masking
from modlib.data import Data
from modlib.engines.graphed import GraphedEngine
from modlib.engines.modulewise import ModulewiseEngine
from modlib.engines.sequential import SequentialEngine
from modlib.engines.sharding import Shard
from modlib.engines.vectorised import VectorisedEngine, fully_connected_layers
from modlib.modules import Modules
from modlib.recipes import Run

ENGINES = ("auto", "vectorised", "modulewise", "graphed", "sequential")


class Engine(Protocol):
    """What Algorithm 1 asks of an engine of R runs with C modules each."""

    def announce(self, what: str, epochs: int) -> None:
        """Say to stderr, after the first steps, how long so many epochs of `what` take, where that is over a minute."""

    def train_epoch(self, orders: Tensor, epoch: int, average: dict[str, Tensor] | None) -> None:
        """Train all modules on the images in `orders` [R, images], pulled to `average` (None: no stemming)."""

    def average(self) -> dict[str, Tensor]:
        """Return S_avg, the mean over modules of what is ranked, by layer: `[R, 1, *weight shape]`."""

    def ranked(self) -> dict[str, Tensor]:
        """Return what is ranked, by layer: `[R, C, *weight shape]`."""

    def modules(self) -> list[Modules]:
        """Return the modules of every run as they are now."""

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


def make_engine(name: str, runs: Sequence[Run], classes: tuple[int, ...], data: Data, device: torch.device) -> Engine:
    """Return the engine `name` for `runs`, see `engine_class`."""
    return engine_class(name, runs, classes, data, device)(runs, classes, data, device)


def check_engine(name: str, device: torch.device) -> None:
    """Raise ValueError for an engine that there is not, or not on this device."""
    checks.choice("engine", name, ENGINES)
    if name == "graphed" and device.type != "cuda":
        raise ValueError(f"engine: 'graphed' records CUDA graphs, the device is {device}; use 'modulewise'")


def engine_class(
    name: str, runs: Sequence[Run], classes: tuple[int, ...], data: Data, device: torch.device
) -> Callable[..., Engine]:
    """Return the engine `name` means for `runs`; "auto": the vectorised one where it can, else `modulewise`.

    Raises ValueError as `check_engine` does, where the vectorised engine is asked for and does not fit, and where there
    are several processes for an engine that knows one, for "auto" where one process would train otherwise, or more than
    modules.
    """
    check_engine(name, device)
    processes = Shard.here().size
    if processes > 1 and name not in ("auto", "modulewise"):
        raise ValueError(f"engine: {name!r} runs in one process, there are {processes}; use 'modulewise' or 'auto'")
    if processes > len(classes):
        raise ValueError(f"classes: {len(classes)} modules for {processes} processes; each needs one at least")
    fits = all(_is_vectorisable(run) for run in runs) and not data.part("train").augmented
    if name == "vectorised" and not fits:
        raise ValueError(
            "engine: 'vectorised' needs a fully connected parent (a Sequential of Flatten, Linear, ReLU, Dropout and "
            "Identity) without hooks, the default policy, no augmentation and float32; use 'modulewise' or 'auto'"
        )
    if processes > 1 and name == "auto" and fits and runs[0].recipe.vote > 0:
        raise ValueError(
            "engine: with a vote loss 'auto' is 'vectorised' in one process, and several would give other modules; "
            "ask for 'modulewise'"
        )
    if name == "sequential":
        return SequentialEngine
    if name == "graphed":
        return GraphedEngine
    return ModulewiseEngine if name == "modulewise" or not fits or processes > 1 else VectorisedEngine


def _is_vectorisable(run: Run) -> bool:
    plain = run.policy is masking.default_policy and run.recipe.augment == "none" and run.recipe.precision == "float32"
    return plain and fully_connected_layers(run.parent) is not None
