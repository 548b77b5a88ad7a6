"""The engine for fully connected parents: all modules of all runs take a step in one pass.

Layer by layer, every module's masked weights lie side by side, [runs R, modules C, out, in], and activations lie
[R, C, out, batch]. The modules of a run see the same batch, so the first layer, the largest, is one matrix product
for all of them. What autograd would do for the scores is written out, because it is a few passes over memory:
dL/dS = dL/d(W ⊙ M) ⊙ W, plus the stemming gradient in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modlib import masking, objective, stemming
from modlib.datasets import Dataset
from modlib.engines import start
from modlib.engines.selection import TopK
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.recipes import Run

IDLE = (nn.Flatten, nn.Dropout, nn.Identity)
"""Layers of a fully connected parent that do nothing in eval mode once the input is flat."""


def fully_connected_layers(parent: nn.Module) -> list[tuple[str, nn.Linear]] | None:
    """Return the named linear layers of a parent that is Linear (ReLU, Linear)*, each called once, else None."""
    layers: list[tuple[str, nn.Linear]] = []
    previous_is_linear = False
    for name, layer in _in_order(parent):
        if type(layer) in IDLE:
            continue
        if type(layer) is nn.Linear and not previous_is_linear:
            layers.append((name, layer))
        elif not (type(layer) is nn.ReLU and previous_is_linear):
            return None
        previous_is_linear = type(layer) is nn.Linear
    distinct = len({id(layer.weight) for _, layer in layers}) == len(layers)
    return layers if len(layers) > 0 and previous_is_linear and distinct else None


def _in_order(part: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of nested Sequentials in the order of their calls, one that is called twice twice."""
    if type(part) is not nn.Sequential:
        yield name, part
        return
    for child, module in part._modules.items():  # named_children() would leave repeated parts out
        assert module is not None
        yield from _in_order(module, f"{name}.{child}" if name else child)


class VectorisedEngine:
    """See the module's docstring; the interface is `modlib.engines.Engine`."""

    def __init__(self, runs: Sequence[Run], classes: tuple[int, ...], data: Dataset, device: torch.device) -> None:
        self.runs, self.classes, self.data, self.device = runs, classes, data, device
        self.recipe = runs[0].recipe
        self.images = data.train_images.to(device)
        self.labels = data.train_labels.to(device)
        self.parents = [start.frozen_copy(run.parent, device) for run in runs]
        layers = [fully_connected_layers(parent) or [] for parent in self.parents]
        self.names = [f"{name}.weight" for name, _ in layers[0]]
        self.weights = [torch.stack([run[i][1].weight for run in layers])[:, None] for i in range(len(self.names))]
        self.biases = [_biases([run[i][1] for run in layers]) for i in range(len(self.names))]
        self.dtype = self.weights[0].dtype
        self.class_tensor = torch.tensor(classes, device=device)
        self.frequency = objective.class_frequency(self.labels, data.num_classes).to(self.dtype)
        self._start()

    def _start(self) -> None:
        r, c = len(self.runs), len(self.classes)
        by_name = [dict(zip(self.names, (w[i, 0] for w in self.weights), strict=True)) for i in range(r)]
        initial = [
            [start.starting_scores(run, by_name[i], cl) for cl in self.classes] for i, run in enumerate(self.runs)
        ]
        self.scores = [
            nn.Parameter(torch.stack([torch.stack([s[name] for s in row]) for row in initial]).to(self.device))
            for name in self.names
        ]
        n = self.weights[-1].shape[2]
        grafts = [start.starting_grafting(run, cl, n, self.dtype) for run in self.runs for cl in self.classes]
        self.grafting = [
            nn.Parameter(torch.stack([g[j] for g in grafts]).unflatten(0, (r, c)).to(self.device)) for j in (0, 1)
        ]
        sizes = {name: w[0, 0].numel() for name, w in zip(self.names, self.weights, strict=True)}
        keep = [masking.keep_counts(run.recipe.k, sizes) for run in self.runs]
        self.top = [TopK(torch.tensor([row[name] for row in keep for _ in self.classes])) for name in self.names]
        self.masked = [torch.empty_like(s, requires_grad=True) for s in self.scores]
        self.buffers = [torch.empty_like(s) for s in self.scores]
        self.optimiser = start.make_optimiser(self.recipe, self.scores, self.grafting, fused=True)

    def train_epoch(self, orders: Tensor, epoch: int, average: dict[str, Tensor] | None) -> None:
        batches = orders.to(self.device).split(self.recipe.batch_size, dim=1)
        factors = [
            start.stemming_factors(run.recipe, self._weights_of(i), len(batches)) for i, run in enumerate(self.runs)
        ]
        factor = [
            torch.tensor([f[name] for f in factors], dtype=self.dtype, device=self.device)[:, None, None, None]
            for name in self.names
        ]
        steps = len(batches) * self.recipe.epochs
        for step, batch in enumerate(batches):
            start.set_rates(self.optimiser, self.recipe.rate_factor(epoch * len(batches) + step, steps))
            self._step(batch, average, factor)

    def _weights_of(self, r: int) -> dict[str, Tensor]:
        return {name: w[r, 0] for name, w in zip(self.names, self.weights, strict=True)}

    def _step(self, batch: Tensor, average: dict[str, Tensor] | None, factor: list[Tensor]) -> None:
        flat = batch.reshape(-1)
        inputs = self.data.inputs(self.images[flat]).to(self.dtype).flatten(1).unflatten(0, batch.shape)
        labels = self.labels[flat].view(batch.shape)
        with torch.no_grad():
            for masked, weight, mask in zip(self.masked, self.weights, self._masks(), strict=True):
                torch.mul(weight, mask, out=masked)
        loss = self._objective(self._log_odds(inputs.transpose(1, 2)), labels)
        gradients = torch.autograd.grad(loss, [*self.masked, *self.grafting])
        with torch.no_grad():
            self._score_gradients(gradients[: len(self.masked)], average, factor)
            for graft, gradient in zip(self.grafting, gradients[len(self.masked) :], strict=True):
                graft.grad = gradient
        self.optimiser.step()

    def _masks(self) -> list[Tensor]:
        """Return h(S) of every layer, [R, C, out, in], 0 or 1 in the dtype of the scores."""
        ranked = [masking.ranked(s.detach(), self.recipe.scores) for s in self.scores]
        return [top(s.flatten(2).flatten(0, 1)).view_as(s) for top, s in zip(self.top, ranked, strict=True)]

    def _log_odds(self, inputs: Tensor) -> Tensor:
        """Return log-odds [R, C, B] of `inputs` [R, features, B] under `self.masked`."""
        r, c = len(self.runs), len(self.classes)
        hidden = self.masked[0].flatten(1, 2) @ inputs
        hidden = hidden.unflatten(1, (c, -1)) + self.biases[0]
        for masked, bias in zip(self.masked[1:], self.biases[1:], strict=True):
            hidden = masked @ hidden.relu() + bias
        weight, bias = self.grafting
        # log-odds are linear in the logits: the difference of the two rows is one vector for each module
        difference = (weight[:, :, 1] - weight[:, :, 0])[:, :, None]
        return (difference @ hidden).view(r, c, -1) + (bias[:, :, 1] - bias[:, :, 0])[:, :, None]

    def _objective(self, log_odds: Tensor, labels: Tensor) -> Tensor:
        """Return the sum over the runs of the objective; the gradients of the runs do not mix."""
        total = log_odds.new_zeros(())
        for r in range(len(self.runs)):
            weights = None
            if self.recipe.balanced:
                weights = objective.balancing_weights(labels[r], self.class_tensor, self.frequency)
            total = total + objective.objective(log_odds[r], labels[r], self.class_tensor, self.recipe.vote, weights)
        return total

    def _score_gradients(
        self, gradients: Sequence[Tensor], average: dict[str, Tensor] | None, factor: list[Tensor]
    ) -> None:
        for i, (scores, weight) in enumerate(zip(self.scores, self.weights, strict=True)):
            gradient = gradients[i].mul_(weight)
            if average is not None:
                ranked = masking.ranked(scores, self.recipe.scores)
                pull = average[self.names[i]]
                stemming.add_gradient(gradient, ranked, pull, factor[i], self.recipe.p, out=self.buffers[i])
            if self.recipe.scores == "absolute":
                gradient.mul_(scores.sign())
            scores.grad = gradient

    def ranked(self) -> dict[str, Tensor]:
        return {
            name: masking.ranked(s.detach(), self.recipe.scores)
            for name, s in zip(self.names, self.scores, strict=True)
        }

    def modules(self) -> list[Modules]:
        masks = [m.bool() for m in self._masks()]
        return [
            Modules(
                parent=self.parents[r],
                masks=MaskSet({name: m[r].clone() for name, m in zip(self.names, masks, strict=True)}, self.classes),
                grafting_weight=self.grafting[0][r].detach().clone(),
                grafting_bias=self.grafting[1][r].detach().clone(),
                statistics={},
                scores={name: s[r].detach().clone() for name, s in zip(self.names, self.scores, strict=True)},
            )
            for r in range(len(self.runs))
        ]

    def state(self) -> dict[str, Any]:
        return {
            "scores": [s.detach() for s in self.scores],
            "grafting": [g.detach() for g in self.grafting],
            "optimiser": self.optimiser.state_dict(),
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.scores, state["scores"], strict=True):
            mine.copy_(saved)
        for mine, saved in zip(self.grafting, state["grafting"], strict=True):
            mine.copy_(saved)
        self.optimiser.load_state_dict(state["optimiser"])


def _biases(layers: list[nn.Linear]) -> Tensor:
    """Return the biases of one layer of every run, [R, 1, out, 1]; 0 where a layer has none."""
    rows: list[Tensor] = [
        torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias for layer in layers
    ]
    return torch.stack(rows)[:, None, :, None]
