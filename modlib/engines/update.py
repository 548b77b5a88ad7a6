"""What happens to the scores of one layer once the gradient of its masked weights is there.

With M the mask, W the weights and G = dL/d(W ⊙ M), every step of Nesterov SGD is::

    g = G ⊙ W  +  stemming gradient          straight through the mask; Eq. 1 in closed form
    g = g + weight decay · S
    b = momentum · b + g
    S = S − rate · (g + momentum · b)
    W ⊙ M for the next step, M the new top k

`PlainUpdate` writes this with torch, on any device. `CompiledUpdate` does it in one pass over memory
(`modlib.engines.compiled`), on a CPU, where passes over memory are what a step consists of, and where Numba is
installed.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from modlib import masking, stemming
from modlib.engines.selection import exact_mask, is_compiled_for, no_thresholds
from modlib.recipes import Recipe


class Update(Protocol):
    """The scores [R, C, out, in] of one layer of a population, their masked weights, and how they take a step."""

    scores: Tensor
    masked: Tensor
    """W ⊙ M, of the shape of the scores."""

    def step(self, gradient: Tensor, average: Tensor | None, factor: Tensor, rate: float | Tensor) -> None:
        """Take a step: `gradient` of `masked` (may be written over), stemming towards `average` [R, 1, out, in]
        with `factor` [R, 1, 1, 1], at a learning rate; see `nesterov_step`."""

    def mask(self) -> Tensor:
        """Return the mask h(S), bool, of the shape of the scores."""

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on: scores and momentum."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


def make_update(scores: Tensor, weight: Tensor, keep: Tensor, recipe: Recipe) -> Update:
    """Return the update of one layer; `scores` [R, C, out, in], `weight` [R, 1, out, in], `keep` [R · C]."""
    return (CompiledUpdate if is_compiled_for(scores) else PlainUpdate)(scores, weight, keep, recipe)


def nesterov_step(values: Tensor, gradient: Tensor, momentum: Tensor, rate: float | Tensor, recipe: Recipe) -> None:
    """Take a step of Nesterov SGD with weight decay in place; writes over `gradient` and `momentum`.

    `rate`: a number, or a tensor on the device, which a recorded step reads anew whenever it is replayed.
    """
    gradient.add_(values, alpha=recipe.weight_decay)
    momentum.mul_(recipe.momentum).add_(gradient)
    gradient.add_(momentum, alpha=recipe.momentum)
    if isinstance(rate, Tensor):
        values.addcmul_(gradient, rate, value=-1.0)
    else:
        values.sub_(gradient, alpha=rate)


class PlainUpdate:
    """The definition, in torch; see the module's docstring."""

    def __init__(self, scores: Tensor, weight: Tensor, keep: Tensor, recipe: Recipe) -> None:
        self.scores, self.weight, self.keep, self.recipe = scores, weight, keep, recipe
        self.momentum = torch.zeros_like(scores)
        self.masked = torch.empty_like(scores)
        self._write_masked()

    def mask(self) -> Tensor:
        ranked = masking.ranked(self.scores, self.recipe.scores)
        return exact_mask(ranked.flatten(2).flatten(0, 1), self.keep).view_as(self.scores)

    @torch.no_grad()
    def _write_masked(self) -> None:
        torch.mul(self.weight, self.mask(), out=self.masked)

    @torch.no_grad()
    def step(self, gradient: Tensor, average: Tensor | None, factor: Tensor, rate: float | Tensor) -> None:
        recipe = self.recipe
        gradient.mul_(self.weight)
        if average is not None:
            stemming.add_gradient(gradient, masking.ranked(self.scores, recipe.scores), average, factor, recipe.p)
        if recipe.scores == "absolute":
            gradient.mul_(self.scores.sign())
        nesterov_step(self.scores, gradient, self.momentum, rate, recipe)
        self._write_masked()

    def state(self) -> dict[str, Any]:
        return {"scores": self.scores, "momentum": self.momentum}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        self.scores.copy_(state["scores"])
        self.momentum.copy_(state["momentum"])
        self._write_masked()


class CompiledUpdate(PlainUpdate):
    """The same in one pass over memory; the masks are exact, sums may differ in the last bit."""

    def __init__(self, scores: Tensor, weight: Tensor, keep: Tensor, recipe: Recipe) -> None:
        super().__init__(scores.contiguous(), weight.contiguous(), keep, recipe)
        self.thresholds = no_thresholds(len(keep), scores.dtype)
        number = self.thresholds.dtype.type
        self.inertia, self.decay = number(recipe.momentum), number(recipe.weight_decay)
        # views of the tensors' memory, made once
        self.own = [_rows(t) for t in (self.scores, self.momentum, self.weight, self.masked)]

    def step(self, gradient: Tensor, average: Tensor | None, factor: Tensor, rate: float | Tensor) -> None:
        from modlib.engines import compiled  # with Numba, which takes a second to load

        scores, momentum, weight, masked = self.own
        pull = weight if average is None else _rows(average)
        each_way = factor.flatten() * (0.0 if average is None else 1.0 if self.recipe.p == 1 else 2.0)
        rates = (self.thresholds.dtype.type(rate), self.inertia, self.decay)
        reading = (self.recipe.p, self.recipe.scores == "absolute")
        selection = (self.keep.numpy(), self.thresholds, masked)
        compiled.step(scores, momentum, _rows(gradient), weight, pull, each_way.numpy(), rates, *reading, *selection)


def _rows(values: Tensor) -> np.ndarray:
    """Return [R, C, out, in] as an array [R · C, out · in] over the same memory."""
    return values.view(-1, values.shape[2] * values.shape[3]).numpy()
