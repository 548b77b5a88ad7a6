"""A parent trained to be modular by its activations, then cut by how often channels are active, after MODA.

Ngo et al. 2024, "DNN Modularization via Activation-Driven Training" (arXiv 2411.01074): beside the cross-entropy,
activations of two images of one class are to be alike (affinity), those of two classes unlike (dispersion), and few
(compactness); a class's module is what its images activate often enough.

It trains its parent: what is cut is not the network that the others start from. Written anew from the paper.
Simplified: training goes on from the trained parent instead of starting anew, for far fewer steps; a convolution's
activations are the means of its channels; how often is often enough is found by the budget, alike in all layers, and
channels that any class of the subset needs are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib.data import Data
from modlib.deploy import cost, slicing
from modlib.parent import called, copied
from modlib.study.records import Store
from modlib.study.ways.fitting import BATCH, Labelled, example_of, fit, logits_at
from modlib.study.ways.interface import Made
from modlib.study.ways.torch_pruning import restricted_copy
from modlib.study.ways.units import passing

TIES = 1e-3
"""What strength counts beside being active."""


@dataclass(frozen=True)
class Modular:
    """A parent of MODA's, and how often its channels are active: unit -> [C, channels], shares of images and places."""

    parent: nn.Module
    active: Mapping[str, Tensor]
    labelled_images: int


@dataclass(frozen=True)
class ActivationDriven:
    """`affinity`, `dispersion`, `compactness`: weights of the three losses; `steps` at `rate` for the parent.

    `keep`: the share of multiply-adds; `images`: of each class, on which it is counted what is active.
    """

    keep: float
    steps: int
    rate: float
    affinity: float = 1.0
    dispersion: float = 1.0
    compactness: float = 0.3
    images: int = 250
    precision: str = "float32"

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return tuple(value for name, value in vars(self).items() if name != "keep")

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> Modular:
        """Return a parent of its own, and what is active in it."""
        network = copied(parent).requires_grad_(True).train()
        anatomy, images = slicing.anatomy(copied(parent), example_of(data, parent)), Labelled.of(data, data.present)
        targets_of = torch.tensor(data.present)

        def loss(inputs: Any, targets: Tensor) -> Tensor:
            with _activations(network, anatomy) as read:
                logits = logits_at(network, inputs, self.precision)
            modular = [self._modular(_by_image(values), targets) for values in read.values()]
            return nn.functional.cross_entropy(logits, targets_of[targets]) + torch.stack(modular).mean()

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of dropout
            fit(loss, list(network.parameters()), images, steps=self.steps, rate=self.rate, seed=seed, purpose="moda")
        network.eval().requires_grad_(False)
        return Modular(network, self._active(network, anatomy, data), len(images.rows))

    def _modular(self, values: Tensor, targets: Tensor) -> Tensor:
        """Return the three losses of one unit's activations [B, channels] together."""
        unit = nn.functional.normalize(values, dim=1, eps=1e-6)
        alike, same = unit @ unit.T, targets[:, None] == targets
        pairs = same & ~torch.eye(len(targets), dtype=torch.bool)
        near = (1 - alike)[pairs].sum() / pairs.sum().clamp(min=1)
        far = alike[~same].sum() / (~same).sum().clamp(min=1)
        return self.affinity * near + self.dispersion * far + self.compactness * values.mean()

    @torch.no_grad()
    def _active(self, network: nn.Module, anatomy: slicing.Anatomy, data: Data) -> dict[str, Tensor]:
        some = next(network.parameters())
        found: dict[str, list[Tensor]] = {unit.root: [] for unit in anatomy.units}
        for c in range(data.num_classes):
            sums = {root: torch.zeros(()) for root in found}
            rows = (data.train_labels == c).nonzero()[: self.images, 0]
            for part in rows.split(BATCH):
                with _activations(network, anatomy) as read:
                    called(network, data.part("train").batch(part).inputs.to(some))
                for root, values in read.items():
                    strength = values / (1 + values)  # between channels that are active alike, the stronger one
                    sums[root] = sums[root] + _by_image((values > 0) + TIES * strength).sum(0)
            for root, total in sums.items():
                found[root].append(total / max(1, len(rows)))
        return {root: torch.stack([v.expand(found[root][-1].shape) for v in each]) for root, each in found.items()}

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: Modular) -> Made:
        """See `Way.make`."""
        example = example_of(data, parent)
        whole = cost(parent, example)["multiply_adds"]
        network, _ = restricted_copy(prepared.parent, example, subset)
        often = {root: values[list(subset)].amax(0) for root, values in prepared.active.items()}
        low, high = 0.0, 1.0 + TIES
        small = _cut(network, example, often, high)
        for _ in range(16):
            middle = (low + high) / 2
            tried = _cut(network, example, often, middle)
            if cost(tried, example)["multiply_adds"] <= self.keep * whole:
                high, small = middle, tried
            else:
                low = middle
        if cost(small, example)["multiply_adds"] > self.keep * whole:
            raise ValueError("keep: so little that not one network is small enough; ask for more")
        return Made(small, prepared.labelled_images)


def _cut(network: nn.Module, example: Any, often: Mapping[str, Tensor], least: float) -> nn.Module:
    """Return a copy of a network with the channels that are active at least so often, and the most active of each."""
    kept = {root: ((v >= least) | (v == v.max())).nonzero()[:, 0] for root, v in often.items()}
    return slicing.cut(network, example, kept)


@contextmanager
def _activations(network: nn.Module, anatomy: slicing.Anatomy) -> Iterator[dict[str, Tensor]]:
    """Within it, a call of a network leaves each unit's activations behind: [B, channels, ...], after ReLU."""
    read: dict[str, Tensor] = {}

    def listen(root: str, output: Tensor, axis: int) -> Tensor:
        read[root] = output.relu().movedim(axis, 1)
        return output.clone()  # what follows may work in place

    with passing(network, anatomy, listen, every=False):
        yield read


def _by_image(values: Tensor) -> Tensor:
    """Return the means over places of [B, channels, ...]: [B, channels]."""
    return values.float().reshape(*values.shape[:2], -1).mean(2)
