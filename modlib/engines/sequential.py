"""The reference engine: all modules take every step together, on any `nn.Module`, written as the paper reads.

Autograd does everything: the straight-through gradient, the stemming loss, the grafting layer. The parent is called
through `torch.func.functional_call` with masked weights; it is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modlib import grafting, masking, objective, stemming
from modlib.data import Data
from modlib.engines import start
from modlib.engines.selection import TopK
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.parent import functional_call
from modlib.precision import autocast
from modlib.recipes import Run
from modlib.sources import Batch


class _Module:
    """The state of one module of one run: scores, grafting layer, statistics, optimiser."""

    def __init__(
        self, run: Run, c: int, parent: nn.Module, weights: Mapping[str, Tensor], num_logits: int, device: torch.device
    ) -> None:
        dtype = next(iter(weights.values())).dtype
        initial = start.starting_scores(run, weights, c)
        self.scores = {name: nn.Parameter(values.to(device)) for name, values in initial.items()}
        weight, bias = start.starting_grafting(run, c, num_logits, dtype)
        self.grafting = [nn.Parameter(weight.to(device)), nn.Parameter(bias.to(device))]
        keep = run.recipe.kept_edges(weights)
        self.top = {name: TopK(torch.tensor([count])) for name, count in keep.items()}
        self.statistics = start.starting_statistics(run, parent)
        self.optimiser = start.make_optimiser(run.recipe, list(self.scores.values()), self.grafting)

    def masks(self, reading: str) -> dict[str, Tensor]:
        """Return h(S) by layer: 0 or 1 in the dtype of the scores."""
        return {
            name: self.top[name](masking.ranked(s.detach(), reading).view(1, -1)).view_as(s)
            for name, s in self.scores.items()
        }


class SequentialEngine(start.Started):
    """See the module's docstring; the interface is `modlib.engines.Engine`."""

    def __init__(self, runs: Sequence[Run], classes: tuple[int, ...], data: Data, device: torch.device) -> None:
        super().__init__(runs, classes, data, device)
        self.members = [
            [_Module(run, c, parent, weights, data.num_classes, device) for c in classes]
            for run, parent, weights in zip(runs, self.parents, self.weights_of, strict=True)
        ]

    @property
    def passes(self) -> int:
        return len(self.runs)

    def train_epoch(self, orders: Tensor, epoch: int, average: dict[str, Tensor] | None) -> None:
        for r in range(len(self.runs)):
            pull = None if average is None else {name: values[r, 0] for name, values in average.items()}
            batches = self.batches(orders[r])
            draw = self.augmentation(r, epoch)
            with start.statistics_of_the_batch(self.parents[r], self.recipe.norm):
                for step, batch in enumerate(batches):
                    rows = batch.to(self.device)
                    rate = self.recipe.rate_factor_at(epoch, step, len(batches))
                    self._step(r, self.batch(rows, draw), rate, len(batches), pull)

    def _step(self, r: int, batch: Batch, rate: float, per_epoch: int, average: dict[str, Tensor] | None) -> None:
        inputs, labels = batch.inputs, batch.labels
        factor = start.stemming_factors(self.runs[r].recipe, self.weights_of[r], per_epoch)
        weights = self.balancing_weights(labels)
        others = None
        if self.recipe.vote > 0:
            with torch.no_grad():
                others = torch.stack([self._log_odds(r, m, inputs, update=False) for m in self.members[r]])
        for i, module in enumerate(self.members[r]):
            start.set_rates(module.optimiser, rate)
            module.optimiser.zero_grad()
            mine = self._log_odds(r, module, inputs, update=True)
            loss = self._loss(i, mine, others, labels, weights)
            if average is not None:
                ranked = {name: masking.ranked(s, self.recipe.scores) for name, s in module.scores.items()}
                loss = loss + stemming.stemming_loss(ranked, average, factor, self.recipe.p)
            loss.backward()
            start.fill_gradients(module.scores.values())
            module.optimiser.step()

    def _loss(self, i: int, mine: Tensor, others: Tensor | None, labels: Tensor, weights: Tensor | None) -> Tensor:
        """The part of the objective that module i's gradient sees: its own CE, and the vote with the others held."""
        w = None if weights is None else weights[i : i + 1]
        if others is None:
            return objective.objective(mine[None], labels, self.class_tensor[i : i + 1], 0.0, w)
        together = others.clone()
        together[i] = mine
        own = objective.objective(mine[None], labels, self.class_tensor[i : i + 1], 0.0, w)
        return (1 - self.recipe.vote) * own + self.recipe.vote * objective.objective(
            together, labels, self.class_tensor, 1.0
        )

    def _log_odds(self, r: int, module: _Module, inputs: Any, update: bool) -> Tensor:
        """Return the log-odds [B] of one module; `update` says whether its running statistics follow the batch."""
        values = {name: masking.ranked(s, self.recipe.scores) for name, s in module.scores.items()}
        masks = module.masks(self.recipe.scores)
        masked = {
            name: weight * masking.straight_through(masks[name], values[name])
            for name, weight in self.weights_of[r].items()
        }
        own = module.statistics if update else {name: s.clone() for name, s in module.statistics.items()}
        with autocast(self.device, self.recipe.precision):
            logits = functional_call(self.parents[r], {**masked, **own}, inputs)
        return grafting.log_odds(grafting.graft(logits.to(self.dtype), *module.grafting))

    def ranked(self) -> dict[str, Tensor]:
        return {
            name: torch.stack(
                [
                    torch.stack([masking.ranked(m.scores[name].detach(), self.recipe.scores) for m in members])
                    for members in self.members
                ]
            )
            for name in self.weights_of[0]
        }

    def modules(self) -> list[Modules]:
        return [self._modules(r) for r in range(len(self.runs))]

    def _modules(self, r: int) -> Modules:
        members = self.members[r]
        masks = [m.masks(self.recipe.scores) for m in members]
        return Modules(
            parent=self.parents[r],
            masks=MaskSet({n: torch.stack([m[n] for m in masks]).bool() for n in self.weights_of[r]}, self.classes),
            grafting_weight=torch.stack([m.grafting[0].detach().clone() for m in members]),
            grafting_bias=torch.stack([m.grafting[1].detach().clone() for m in members]),
            statistics={
                name: torch.stack([m.statistics[name].clone() for m in members]) for name in members[0].statistics
            },
            scores={n: torch.stack([m.scores[n].detach().clone() for m in members]) for n in self.weights_of[r]},
        )

    def state(self) -> dict[str, Any]:
        return {
            "members": [
                [
                    {
                        "scores": {n: s.detach() for n, s in m.scores.items()},
                        "grafting": [g.detach() for g in m.grafting],
                        "statistics": m.statistics,
                        "optimiser": m.optimiser.state_dict(),
                    }
                    for m in members
                ]
                for members in self.members
            ]
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        for members, saved_members in zip(self.members, state["members"], strict=True):
            for module, saved in zip(members, saved_members, strict=True):
                for name, scores in module.scores.items():
                    scores.copy_(saved["scores"][name])
                for graft, values in zip(module.grafting, saved["grafting"], strict=True):
                    graft.copy_(values)
                for name, values in module.statistics.items():
                    values.copy_(saved["statistics"][name])
                module.optimiser.load_state_dict(saved["optimiser"])
