"""Recipes: everything that decides a decomposition but the parent, the data and the seed (paper, Table 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from modlib import augmentation, checks, grafting, masking, stemming
from modlib.parent import unwrapped
from modlib.precision import PRECISIONS

METHODS = ("average", "base")
NORMS = ("batch", "frozen")
SCHEDULES = ("constant", "cosine")

FREE: dict[str, Any] = {"k": 1.0, "alpha": 0.0, "share_init": True}
"""The settings that may differ between the runs of one population, at a common value."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a decomposition but the parent, the data and the seed. Checked when it is made."""

    k: float | Mapping[str, float]
    alpha: float
    epochs: int
    vote: float = 0.0
    init: str = "kaiming"
    norm: str = "batch"
    batch_size: int = 128
    lr: float = 0.1
    grafting_lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    p: int = 1
    reduction: str = "total"
    scores: str = "positive"
    method: str = "average"
    base_class: int | None = None
    share_init: bool = True
    schedule: str = "constant"
    balanced: bool = False
    grafting_init: str = "random"
    images_per_epoch: int | None = None
    augment: str = "none"
    precision: str = "float32"
    allocation: str = "uniform"
    shared_epochs: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _plain(getattr(self, f.name)))
        for name, share in self.k.items() if isinstance(self.k, Mapping) else [("", self.k)]:
            checks.share(f"k[{name!r}]" if name else "k", share)
        checks.number("alpha", self.alpha, 0.0)
        checks.number("vote", self.vote, 0.0, 1.0)
        checks.whole("epochs", self.epochs, 1)
        checks.whole("batch_size", self.batch_size, 1)
        checks.positive("lr", self.lr)
        if self.grafting_lr is not None:
            checks.number("grafting_lr", self.grafting_lr, 0.0)
        checks.number("momentum", self.momentum, 0.0, 0.999999)
        checks.number("weight_decay", self.weight_decay, 0.0)
        if isinstance(self.p, bool) or self.p not in (1, 2):
            raise ValueError(f"p must be 1 or 2, got {self.p!r}")
        checks.flag("share_init", self.share_init)
        checks.flag("balanced", self.balanced)
        checks.choice("init", self.init, masking.INITS)
        checks.choice("norm", self.norm, NORMS)
        checks.choice("reduction", self.reduction, stemming.REDUCTIONS)
        checks.choice("scores", self.scores, masking.SCORES)
        checks.choice("method", self.method, METHODS)
        checks.choice("schedule", self.schedule, SCHEDULES)
        checks.choice("grafting_init", self.grafting_init, grafting.INITS)
        checks.choice("augment", self.augment, augmentation.POLICIES)
        checks.choice("precision", self.precision, PRECISIONS)
        checks.choice("allocation", self.allocation, masking.ALLOCATIONS)
        if self.allocation == "lamp" and isinstance(self.k, Mapping):
            raise ValueError(
                "k: shares by layer go with allocation='uniform'; 'lamp' finds them itself, give one share"
            )
        checks.whole("shared_epochs", self.shared_epochs, 0)
        if self.shared_epochs and (self.method != "average" or not self.share_init):
            raise ValueError(
                "shared_epochs: modules that go on from one mask need method='average' and share_init=True, "
                f"got method={self.method!r}, share_init={self.share_init}"
            )
        if self.images_per_epoch is not None:
            checks.whole("images_per_epoch", self.images_per_epoch, 1)
        if self.method == "base" and self.vote > 0:
            raise ValueError(
                f"vote must be 0 with method='base', got {self.vote}: the base module trains alone, without a vote"
            )
        if (self.method == "base") != (self.base_class is not None):
            raise ValueError(
                f"base_class: method={self.method!r} with base_class={self.base_class!r}; "
                "method='base' needs one, method='average' takes none"
            )

    @property
    def grafting_rate(self) -> float:
        """The rate of the grafting layers; the paper says "low", our default is a tenth of the scores' rate."""
        return self.lr / 10 if self.grafting_lr is None else self.grafting_lr

    def kept_edges(self, weights: Mapping[str, Tensor]) -> dict[str, int]:
        """Return how many edges of every layer a module keeps, see `modlib.masking.kept_edges`."""
        return masking.kept_edges(self.k, weights, self.allocation)

    def rate_factor(self, step: int, steps: int) -> float:
        """Return the factor on both rates in step `step` (from 0) of `steps`."""
        return 1.0 if self.schedule == "constant" else 0.5 * (1.0 + math.cos(math.pi * step / steps))

    def rate_factor_at(self, epoch: int, step: int, steps: int) -> float:
        """Return the factor in step `step` of the `steps` of an epoch; shared epochs, which come first, are below 0."""
        before = self.shared_epochs
        return self.rate_factor((before + epoch) * steps + step, (before + self.epochs) * steps)


def _plain(value: Any) -> Any:
    """Return a number of NumPy as Python's, and a mapping as a dict: a seed is the same in both, and can be saved."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def published(**changes: Any) -> Recipe:
    """Return the paper's recipe (Table 4; what the paper leaves open: the page on deviations) with `changes`."""
    return replace(Recipe(k=0.10, alpha=1.0, epochs=50, batch_size=32), **changes)


def ours(**changes: Any) -> Recipe:
    """Return our recipe: annealed rates, larger batches, grafting layers that start from the parent's own logit."""
    base = Recipe(k=0.10, alpha=1.0, epochs=12, batch_size=128, schedule="cosine", grafting_init="own_logit")
    return replace(base, **changes)


RECIPES: dict[str, Callable[..., Recipe]] = {"published": published, "ours": ours}


@dataclass(frozen=True)
class Start:
    """What all modules of a run start from instead of what is drawn, in host memory; see `modlib.shared_mask`.

    `scores`: layer name -> the weight's shape. `grafting`: class -> weight [2, N] and bias [2]. `statistics`: running
    ones, by buffer name.
    """

    scores: Mapping[str, Tensor]
    grafting: Mapping[int, tuple[Tensor, Tensor]]
    statistics: Mapping[str, Tensor]


@dataclass(frozen=True)
class Run:
    """One decomposition of a population: a trained parent, a recipe, a seed, the classes (default: all).

    `parent`: where it is wrapped, by `torch.compile` for one, the network in it is held, see `modlib.parent.unwrapped`.
    `start`: what the modules start from, where that is not what recipe and seed say.
    """

    parent: nn.Module
    recipe: Recipe
    seed: int
    classes: tuple[int, ...] | None = None
    policy: masking.Policy = masking.default_policy
    start: Start | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parent", unwrapped(self.parent))
        object.__setattr__(self, "seed", _plain(self.seed))
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(map(_plain, checks.listed(self.classes, "classes"))))
