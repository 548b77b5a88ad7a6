"""Torch-Pruning's own pruner with fine-tuning on labelled images of the subset: what a user of that library would do.

Its importances and its pruner are the library's (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning"). The
last layer is cut to the subset first; channels go a few at a time until the budget is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from modlib import checks, extras
from modlib.data import Data
from modlib.deploy import cost, slicing
from modlib.parent import arguments, frozen_copy
from modlib.study.records import Store
from modlib.study.ways.fitting import Labelled, example_of, fit_labels, logits_at
from modlib.study.ways.interface import Made

IMPORTANCES = {"taylor": "GroupTaylorImportance", "magnitude": "GroupMagnitudeImportance"}
CUTS = 30
"""Cuts, of equal numbers of channels, from the whole network to almost nothing."""
LEFT = 0.05
"""What is left of the channels after the last of these cuts."""
BATCHES = 2
"""Batches of labelled images whose gradients Taylor's importance reads before each cut."""


@dataclass(frozen=True)
class PrunedAndTuned:
    """Pruned to `keep` of the multiply-adds in `rounds`, with `steps` of fine-tuning at `rate` in all of them together.

    `importance`: one of `IMPORTANCES`. `everywhere`: whether every layer loses the same share of its channels; else
    those go that matter least in the whole network.
    """

    keep: float
    steps: int
    rate: float
    importance: str = "taylor"
    rounds: int = 1
    everywhere: bool = False
    precision: str = "float32"

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return ()

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> None:
        """Return nothing: it starts anew for every subset."""
        checks.choice("importance", self.importance, IMPORTANCES)
        checks.whole("rounds", self.rounds, 1)

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: None) -> Made:
        """See `Way.make`."""
        example, ours = example_of(data, parent), Labelled.of(data, subset)
        whole = cost(parent, example)["multiply_adds"]
        network, last = restricted_copy(parent, example, subset)
        pruner = self._pruner(network, last, example)
        for i in range(self.rounds):
            limit = whole * self.keep ** ((i + 1) / self.rounds)
            while cost(network, example)["multiply_adds"] > limit:
                if pruner.current_step == CUTS:
                    raise ValueError("keep: so little that not one network is small enough; ask for more")
                self._with_gradients(network, ours, seed, pruner.current_step)
                pruner.step()
            fit_labels(
                network,
                ours,
                steps=self.steps // self.rounds,
                rate=self.rate,
                seed=seed,
                purpose=f"tuning {i}",
                precision=self.precision,
            )
        return Made(network, len(ours.rows))

    def _pruner(self, network: nn.Module, last: nn.Module, example: Any) -> Any:
        tp = extras.require("torch_pruning", "this way")
        importance = getattr(tp.importance, IMPORTANCES[self.importance])()
        by_position, by_name = arguments(example)
        network.requires_grad_(True)
        return tp.pruner.BasePruner(
            network,
            by_name or by_position,
            importance,
            global_pruning=not self.everywhere,
            pruning_ratio=1 - LEFT,
            iterative_steps=CUTS,
            ignored_layers=[last],
        )

    def _with_gradients(self, network: nn.Module, images: Labelled, seed: int, step: int) -> None:
        network.eval().requires_grad_(True).zero_grad()
        if self.importance == "taylor":
            some = next(network.parameters())
            for inputs, targets in images.batches(BATCHES, seed, f"importance {step}", some):
                nn.functional.cross_entropy(logits_at(network, inputs, self.precision), targets).backward()


def restricted_copy(parent: nn.Module, example: Any, subset: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """Return a copy of a parent whose last layer gives the logits of a subset alone, in its order, and that layer."""
    whole = frozen_copy(parent)
    name = slicing.anatomy(whole, example).last
    network = slicing.restricted(whole, example, {}, name, subset)
    return network, network.get_submodule(name)
