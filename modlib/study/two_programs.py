"""Two programs that take the same training steps: edge-popup's obvious way, and all modules in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modlib import recipes
from modlib.cotraining import epoch_order
from modlib.data import Dataset
from modlib.engines import make_engine

Steps = Callable[[int], None]
"""Takes so many training steps with all modules."""


class SortedMask(torch.autograd.Function):
    """h(S) by a full sort; the gradient goes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, keep: int) -> Tensor:
        """Return the mask of the `keep` largest scores."""
        mask = torch.zeros_like(scores)
        _, order = scores.flatten().sort()
        mask.view(-1)[order[-keep:]] = 1.0
        return mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the mask's gradient as that of the scores."""
        return gradients[0], None


class PlainModule(nn.Module):
    """One supermask over a frozen fully connected parent, with its grafting layer."""

    def __init__(self, parent: nn.Module, c: int, k: float) -> None:
        super().__init__()
        self.c, self.layers = c, [layer for layer in parent.children() if isinstance(layer, nn.Linear)]
        self.scores = nn.ParameterList([nn.Parameter(torch.rand_like(layer.weight)) for layer in self.layers])
        self.keep = [max(1, int(k * layer.weight.numel() + 0.5)) for layer in self.layers]
        self.graft = nn.Linear(self.layers[-1].out_features, 2)
        groups: list[dict[str, Any]] = [{"params": list(self.scores)}, {"params": self.graft.parameters(), "lr": 0.01}]
        self.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the two logits: another class, this class."""
        hidden = inputs.flatten(1)
        for i, (layer, scores, keep) in enumerate(zip(self.layers, self.scores, self.keep, strict=True)):
            hidden = hidden.relu() if i else hidden
            mask = SortedMask.apply(scores, keep)
            hidden = nn.functional.linear(hidden, layer.weight * mask, layer.bias)
        return self.graft(hidden)

    def step(self, inputs: Tensor, labels: Tensor, average: Sequence[Tensor], alpha: float) -> None:
        """Take one step on a batch; `average`: of all modules' scores, layer by layer."""
        loss = nn.functional.cross_entropy(self(inputs), (labels == self.c).long())
        total = sum(scores.numel() for scores in self.scores)
        for scores, mean in zip(self.scores, average, strict=True):
            loss = loss + alpha / total * (scores - mean).abs().sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


def obvious_way(
    parent: nn.Module, classes: Sequence[int], batch: int, *, data: Dataset, k: float, device: str
) -> Steps:
    """Return a function that takes `n` steps with every module, one module after another."""
    net = parent.to(device).requires_grad_(False)
    modules = [PlainModule(net, c, k).to(device) for c in classes]
    average = [torch.stack([m.scores[i].detach() for m in modules]).mean(0) for i in range(len(modules[0].scores))]
    pixels, labels = data.train_images.to(device), data.train_labels.to(device)

    def run(n: int) -> None:
        for part in epoch_order(len(labels), 0, 0)[: n * batch].to(device).split(batch):
            inputs = data.inputs(pixels[part])
            for module in modules:
                module.step(inputs, labels[part], average, 1.0)

    return run


def ours(
    parents: Sequence[nn.Module], classes: Sequence[int], batch: int, *, data: Dataset, k: float, device: str
) -> Steps:
    """Return a function that takes `n` steps with every module of every parent, all in one pass."""
    recipe = recipes.published(k=k, alpha=1.0, batch_size=batch)
    runs = [recipes.Run(parent, recipe, seed) for seed, parent in enumerate(parents)]
    engine = make_engine("vectorised", runs, tuple(classes), data, torch.device(device))
    average = {name: scores.mean(1, keepdim=True) for name, scores in engine.ranked().items()}

    def run(n: int) -> None:
        orders = torch.stack([epoch_order(len(data.train_labels), run.seed, 0)[: n * batch] for run in runs])
        engine.train_epoch(orders, 0, average)

    return run


def source() -> str:
    """Return the code of the obvious way: a mask, a module, and the loop over modules."""
    return "\n\n".join(inspect.getsource(part) for part in (SortedMask, PlainModule, obvious_way))
