"""How the ways that need training train: labelled images of the subset, AdamW, a cosine; and their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib import augmentation
from modlib.data import Data
from modlib.deploy.distilling import train_statistics_alone
from modlib.parent import brought, called
from modlib.precision import autocast, laid_out, undisturbed
from modlib.seeds import generator
from modlib.sources import Source

BATCH = 64


@dataclass(frozen=True)
class Labelled:
    """Training images of a subset with labels: the positions of their classes in it.

    `rows`: their numbers in `source`. `augment`: one of `modlib.augmentation.POLICIES`.
    """

    source: Source
    rows: Tensor
    positions: Tensor
    augment: str

    @classmethod
    def of(cls, data: Data, subset: Sequence[int]) -> Labelled:
        """Return all training images of a subset, augmented as parents of the zoo are."""
        labels = data.train_labels
        rows = torch.isin(labels, torch.tensor(list(subset))).nonzero()[:, 0]
        positions = torch.full((data.num_classes,), -1)
        positions[list(subset)] = torch.arange(len(subset))
        return cls(data.part("train"), rows, positions, augmentation.OURS.get(data.name, "none"))

    def batches(self, steps: int, seed: int, purpose: str, like: Tensor) -> Iterator[tuple[Any, Tensor]]:
        """Yield inputs and targets [B] of so many batches, drawn by seed and purpose."""
        draw = generator(seed, "ways", purpose)
        for _ in range(steps):
            taken = self.rows[torch.randint(len(self.rows), (min(BATCH, len(self.rows)),), generator=draw)]
            batch = self.source.batch(taken, self.augment, draw)
            yield brought(batch.inputs, like), self.positions[batch.labels]


Loss = Callable[[Any, Tensor], Tensor]
"""Inputs and targets of a batch -> what is made small."""


@undisturbed()
def fit(
    loss: Loss,
    parameters: Sequence[nn.Parameter],
    images: Labelled,
    *,
    steps: int,
    rate: float,
    seed: int,
    purpose: str,
) -> None:
    """Make a loss small over so many batches: AdamW from `rate` down to nothing along a cosine."""
    optimiser = torch.optim.AdamW(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for inputs, targets in images.batches(steps, seed, purpose, parameters[0]):
        value = loss(inputs, targets)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()


def logits_at(network: nn.Module, inputs: Any, precision: str) -> Tensor:
    """Return a network's logits in float32, of a pass at one of `modlib.precision.PRECISIONS`."""
    some = next(network.parameters())
    with autocast(some.device, precision):
        logits: Tensor = called(network, laid_out(network, inputs, precision))
    return logits.to(some.dtype)


def fit_labels(
    network: nn.Module,
    images: Labelled,
    *,
    steps: int,
    rate: float,
    seed: int,
    purpose: str,
    precision: str = "float32",
) -> nn.Module:
    """Train all of a network, logits [B, K], on labels, in place, and return it. Dropout stays off: it is small."""
    train_statistics_alone(network.requires_grad_(True))

    def loss(inputs: Any, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits_at(network, inputs, precision), targets)

    fit(loss, list(network.parameters()), images, steps=steps, rate=rate, seed=seed, purpose=purpose)
    return network.eval().requires_grad_(False)


def example_of(data: Data, network: nn.Module, count: int = 2) -> Any:
    """Return a few training inputs, as a network takes them."""
    return brought(data.part("train").batch(torch.arange(count)).inputs, next(network.parameters()))
