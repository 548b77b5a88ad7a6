"""Training of parents (paper, Table 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from modlib import checks
from modlib.datasets import Dataset
from modlib.seeds import generator


@dataclass(frozen=True)
class Parameters:
    """Parameters of Nesterov SGD; `milestones`: epochs after which the rate is multiplied by `factor`."""

    lr: float = 0.01
    weight_decay: float = 5e-4
    momentum: float = 0.9
    batch_size: int = 64
    epochs: int = 100
    milestones: tuple[int, ...] = ()
    factor: float = 0.2

    def __post_init__(self) -> None:
        checks.positive("lr", self.lr)
        checks.number("weight_decay", self.weight_decay, 0.0)
        checks.number("momentum", self.momentum, 0.0, 0.999999)
        checks.whole("batch_size", self.batch_size, 1)
        checks.whole("epochs", self.epochs, 1)


# Table 3 prints the weight decay as 5 x 10^-1, and for CIFAR-100 "0.02": see the page on deviations
TABLE_3 = {
    "others": Parameters(),
    "cifar100": Parameters(lr=0.1, batch_size=256, epochs=200, milestones=(60, 120, 160)),
}


def table_3(data_name: str, **changes: Any) -> Parameters:
    """Return the parameters that Table 3 gives for a data set, with `changes`."""
    return replace(TABLE_3.get(data_name, TABLE_3["others"]), **changes)


def train(
    model: nn.Module,
    data: Dataset,
    *,
    seed: int,
    epochs: int | None = None,
    parameters: Parameters | None = None,
    callback: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train `model` in place on the training images with cross-entropy and return it, in eval mode.

    `parameters`: default, Table 3's for `data`. `epochs`: overrides theirs. `callback`: called after
    every epoch with its number (from 1) and the model. Deterministic given `seed` on one CPU.
    """
    settings = parameters or table_3(data.name)
    if epochs is not None:
        checks.whole("epochs", epochs, 1)
        settings = replace(settings, epochs=epochs)
    device = next(model.parameters()).device
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(settings.milestones), settings.factor)
    model.train()
    for epoch in tqdm(range(settings.epochs), "parent", unit="epoch", disable=None):
        order = torch.randperm(len(labels), generator=generator(seed, "parent order", epoch)).to(device)
        for batch in order.split(settings.batch_size):
            loss = nn.functional.cross_entropy(model(data.inputs(images[batch])), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
        if callback is not None:
            callback(epoch + 1, model)
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module, data: Dataset, split: str, batch_size: int = 10_000) -> tuple[Tensor, Tensor]:
    """Return the logits [n, N] of a parent on a split, and the labels [n]."""
    device = next(model.parameters()).device
    images, labels = data.split(split)
    parts = [model(data.inputs(part.to(device))) for part in images.split(batch_size)]
    return torch.cat(parts), labels.to(device)


def accuracy(model: nn.Module, data: Dataset, split: str = "test") -> float:
    """Return the share of a split's images that a parent classifies right, in [0, 1]."""
    predicted, labels = logits(model, data, split)
    return float((predicted.argmax(1) == labels).double().mean())
