"""Supermasks: one for the whole subset, and the paper's own way, a mask for each class, co-trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from modlib import masking
from modlib.data import Data
from modlib.decomposers import ModuleStemming, SharedMask
from modlib.modules import Modules
from modlib.recipes import ours
from modlib.recomposing import Recomposed
from modlib.study.records import Store
from modlib.study.trials import Trial, run_trials, trial_modules
from modlib.study.ways.interface import Made, StartsAnew


class LogOdds(nn.Module):
    """A recomposed network that gives log-odds: inputs [B, ...] -> [B, K], the largest of which wins the vote."""

    def __init__(self, recomposed: Recomposed) -> None:
        super().__init__()
        self.recomposed = recomposed

    def forward(self, inputs: Any) -> Tensor:
        return self.recomposed.log_odds(inputs)


@dataclass(frozen=True)
class OneMask(StartsAnew):
    """One supermask, trained for the subset's classes together; its scores start from the weights' magnitudes.

    `k`: the share of weights kept, of the output layer `output`; where `allocation` is "lamp" of all of them together.
    `epochs` of `images_per_epoch`; `lr`, `precision`: see `modlib.recipes`.
    """

    k: float
    epochs: int
    images_per_epoch: int
    lr: float = 0.1
    output: float = 0.5
    allocation: str = "uniform"
    precision: str = "float32"

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: None) -> Made:
        """See `Way.make`."""
        names = list(masking.maskable_parameters(parent))
        by_layer = {name: self.output if name == names[-1] else self.k for name in names}
        recipe = ours(
            k=self.k if self.allocation == "lamp" else by_layer,
            alpha=0.0,
            vote=0.9,
            init="magnitude",
            epochs=self.epochs,
            images_per_epoch=self.images_per_epoch,
            lr=self.lr,
            allocation=self.allocation,
            precision=self.precision,
        )
        modules = SharedMask(recipe).decompose(parent, data, seed=seed, classes=subset, device="cpu")
        return _made(modules, subset, len(data.only(subset).train_labels))


@dataclass(frozen=True)
class Stemmed:
    """Modules of all classes by module stemming; a subset is their vote, one pass of the parent for each class.

    `recipe`: settings of recipe ours. The other fields name the trial whose modules the store may hold, see
    `modlib.study.trials.Trial`; without them they are trained here. A trial is timed when it is trained.
    """

    recipe: Mapping[str, Any] = field(hash=False)
    model: str = ""
    parent_epochs: int = 0
    parent_recipe: str = "ours"
    measured_images: int = 0

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return tuple(sorted(self.recipe.items()))

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> tuple[Modules, float]:
        """Return the modules of all classes, and the seconds that their training took at another time."""
        recipe = ours(**self.recipe)
        if not self.model or store.folder is None:
            return ModuleStemming(recipe).decompose(parent, data, seed=seed, device="cpu"), 0.0
        trial = Trial(
            data.name, self.model, "ours", recipe, seed, self.parent_epochs,
            parent_recipe=self.parent_recipe, measured_images=self.measured_images or None,
        )  # fmt: skip
        (record,) = run_trials([trial], data, store, device="cpu")  # type: ignore[arg-type]
        return trial_modules(trial, data, store, device="cpu"), float(record.provenance["seconds"])  # type: ignore[arg-type]

    def make(
        self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: tuple[Modules, float]
    ) -> Made:
        """See `Way.make`."""
        modules, seconds = prepared
        made = _made(modules, subset, len(data.train_labels))
        return Made(made.network, made.labelled_images, made.kept_weights, seconds)


def _made(modules: Modules, subset: Sequence[int], images: int) -> Made:
    recomposed = modules.recompose(subset)
    return Made(LogOdds(recomposed), images, recomposed.remaining)
