"""The engine for fully connected parents: all modules of all runs take a step in one pass.

Layer by layer, every module's masked weights lie side by side, [runs R, modules C, out, in], and activations lie
[R, C, out, batch]. The modules of a run see the same batch, so the first layer, the largest, is one matrix product
for all of them. The gradients are written out, because at this size calling autograd costs more than they do; what
follows from them for the scores is `modlib.engines.update`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modlib import masking, objective
from modlib.data import Data
from modlib.engines import start
from modlib.engines.update import Update, make_update, nesterov_step
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.recipes import Run

IDLE = (nn.Flatten, nn.Dropout, nn.Identity)
"""Layers of a fully connected parent that do nothing in eval mode once the input is flat."""


def fully_connected_layers(parent: nn.Module) -> list[tuple[str, nn.Linear]] | None:
    """Return the named linear layers of a parent that is Linear (ReLU, Linear)*, each called once, else None."""
    if any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in parent.modules()):
        return None  # what a hook, or a forward of one's own, does is not seen from the layers
    layers: list[tuple[str, nn.Linear]] = []
    previous_is_linear = False
    for name, layer in _in_order(parent):
        if type(layer) in IDLE and not (type(layer) is nn.Flatten and layers):  # flat is the input, not what follows
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


class VectorisedEngine(start.Started):
    """See the module's docstring; the interface is `modlib.engines.Engine`."""

    def __init__(self, runs: Sequence[Run], classes: tuple[int, ...], data: Data, device: torch.device) -> None:
        super().__init__(runs, classes, data, device)
        layers = [fully_connected_layers(parent) or [] for parent in self.parents]
        self.names = [f"{name}.weight" if name else "weight" for name, _ in layers[0]]
        self.weights = [torch.stack([run[i][1].weight for run in layers])[:, None] for i in range(len(self.names))]
        self.biases = [_biases([run[i][1] for run in layers]) for i in range(len(self.names))]
        self._start()

    def _start(self) -> None:
        r, c = len(self.runs), len(self.classes)
        initial = [
            [start.starting_scores(run, weights, cl) for cl in self.classes]
            for run, weights in zip(self.runs, self.weights_of, strict=True)
        ]
        scores = [
            torch.stack([torch.stack([s[name] for s in row]) for row in initial]).to(self.device) for name in self.names
        ]
        keep = [run.recipe.kept_edges(weights) for run, weights in zip(self.runs, self.weights_of, strict=True)]
        self.updates: list[Update] = [
            make_update(s, w, torch.tensor([row[name] for row in keep for _ in self.classes]), self.recipe)
            for name, s, w in zip(self.names, scores, self.weights, strict=True)
        ]
        n = self.weights[-1].shape[2]
        grafts = [start.starting_grafting(run, cl, n, self.dtype) for run in self.runs for cl in self.classes]
        together = torch.stack([torch.cat([weight, bias[:, None]], 1) for weight, bias in grafts])
        # [R, C, 2, N + 1]: weights, and the bias in the last column
        self.grafting = together.unflatten(0, (r, c)).to(self.device)
        self.grafting_momentum = torch.zeros_like(self.grafting)
        shape = (r, c * self.weights[0].shape[2], self.weights[0].shape[3])
        self.first_gradient = torch.empty(shape, dtype=self.dtype, device=self.device)

    def train_epoch(self, orders: Tensor, epoch: int, average: dict[str, Tensor] | None) -> None:
        batches = orders.to(self.device).split(self.recipe.batch_size, dim=1)
        factors = [
            start.stemming_factors(run.recipe, weights, len(batches))
            for run, weights in zip(self.runs, self.weights_of, strict=True)
        ]
        factor = [
            torch.tensor([f[name] for f in factors], dtype=self.dtype, device=self.device)[:, None, None, None]
            for name in self.names
        ]
        for step, batch in enumerate(batches):
            self._step(batch, average, factor, self.recipe.rate_factor_at(epoch, step, len(batches)))

    @torch.no_grad()
    def _step(self, batch: Tensor, average: dict[str, Tensor] | None, factor: list[Tensor], rate: float) -> None:
        rows = self.batch(batch.reshape(-1))  # of all runs together
        inputs = rows.inputs.flatten(1).unflatten(0, batch.shape)
        labels = rows.labels.view(batch.shape)
        log_odds, activations = self._forward(inputs)
        weights = self.balancing_weights(labels)
        of_log_odds = objective.gradient(log_odds, labels, self.class_tensor, self.recipe.vote, weights)
        gradients, of_grafting = self._backward(inputs, activations, of_log_odds)
        for name, update, gradient, f in zip(self.names, self.updates, gradients, factor, strict=True):
            update.step(gradient, None if average is None else average[name], f, rate * self.recipe.lr)
        grafting_rate = rate * self.recipe.grafting_rate
        nesterov_step(self.grafting, of_grafting, self.grafting_momentum, grafting_rate, self.recipe)

    def _forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return log-odds [R, C, B] of `inputs` [R, B, features], and what every layer gives, [R, C, out, B].

        Hidden layers give their activations, the last one its logits.
        """
        first, *others = (update.masked for update in self.updates)
        product = first.flatten(1, 2) @ inputs.transpose(1, 2)
        given = [product.unflatten(1, first.shape[1:3]).add_(self.biases[0])]
        for masked, bias in zip(others, self.biases[1:], strict=True):
            given.append((masked @ given[-1].relu_()).add_(bias))
        difference = self._difference()
        return (difference[..., :-1] @ given[-1] + difference[..., -1:]).squeeze(2), given

    def _difference(self) -> Tensor:
        """Return row "this class" minus row "another", [R, C, 1, N + 1]: log-odds are linear in the logits."""
        return (self.grafting[:, :, 1] - self.grafting[:, :, 0])[:, :, None]

    def _backward(self, inputs: Tensor, given: list[Tensor], of_log_odds: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return dL/d(W ⊙ M) of every layer and dL/d(grafting layers), from dL/d(log-odds) [R, C, B]."""
        of_log_odds = of_log_odds[:, :, None]
        bias = of_log_odds.sum(-1, keepdim=True)
        of_difference = torch.cat([of_log_odds @ given[-1].transpose(2, 3), bias], -1)
        delta = self._difference()[..., :-1].transpose(2, 3) * of_log_odds  # dL/d(what the layer gives), [R, C, out, B]
        gradients = []
        for update, below in zip(self.updates[:0:-1], given[-2::-1], strict=True):
            gradients.append(delta @ below.transpose(2, 3))
            delta = (update.masked.transpose(2, 3) @ delta).mul_(below > 0)
        # the first layer is most of the work: one product, into the same memory in every step
        torch.bmm(delta.flatten(1, 2), inputs, out=self.first_gradient)
        gradients.append(self.first_gradient.view_as(self.updates[0].masked))
        return gradients[::-1], torch.cat([-of_difference, of_difference], 2)

    def ranked(self) -> dict[str, Tensor]:
        return {
            name: masking.ranked(update.scores, self.recipe.scores)
            for name, update in zip(self.names, self.updates, strict=True)
        }

    def modules(self) -> list[Modules]:
        masks = {name: update.mask() for name, update in zip(self.names, self.updates, strict=True)}
        return [
            Modules(
                parent=self.parents[r],
                masks=MaskSet({name: mask[r] for name, mask in masks.items()}, self.classes),
                grafting_weight=self.grafting[r, :, :, :-1].clone(),
                grafting_bias=self.grafting[r, :, :, -1].clone(),
                statistics={},
                scores={n: u.scores[r].clone() for n, u in zip(self.names, self.updates, strict=True)},
            )
            for r in range(len(self.runs))
        ]

    def state(self) -> dict[str, Any]:
        return {
            "layers": [update.state() for update in self.updates],
            "grafting": self.grafting,
            "grafting_momentum": self.grafting_momentum,
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        for update, saved in zip(self.updates, state["layers"], strict=True):
            update.load_state(saved)
        self.grafting.copy_(state["grafting"])
        self.grafting_momentum.copy_(state["grafting_momentum"])


def _biases(layers: list[nn.Linear]) -> Tensor:
    """Return the biases of one layer of every run, [R, 1, out, 1]; 0 where a layer has none."""
    rows: list[Tensor] = [
        torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias for layer in layers
    ]
    return torch.stack(rows)[:, None, :, None]
