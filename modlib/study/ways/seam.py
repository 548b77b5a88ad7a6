"""A mask of weights searched for by gradient for one subset, after SeaM.

Qi et al. 2023, "Reusing Deep Neural Network Models through Model Re-engineering" (ICSE): every weight of the trained
network gets a real number, from 1, that decides by its sign whether the weight stays; a new head reads the logits; the
cross-entropy plus α times the share of weights that stay is made small. The weights keep their values.

Written anew from the paper. Simplified: far fewer steps; the gradient passes the sign as it is; kernels of zeros are
not taken out of the network, so that its size in memory and its speed stay the parent's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from modlib import masking
from modlib.data import Data
from modlib.deploy.distilling import train_statistics_alone
from modlib.parent import frozen_copy
from modlib.study.ways.fitting import Labelled, fit, logits_at
from modlib.study.ways.heads import Headed, head_of
from modlib.study.ways.interface import Made, StartsAnew


class SignedMask(nn.Module):
    """Multiplies a weight by 1 where its number is above 0, else by 0; gradients pass to the number."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.ones_like(weight))

    @property
    def mask(self) -> Tensor:
        """Zeros and ones in the shape of the weight."""
        return masking.straight_through(self.numbers > 0, self.numbers)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


@dataclass(frozen=True)
class SearchedMask(StartsAnew):
    """`alpha` times the share of weights that stay is added to the loss; `steps` at `rate`, of masks and head alike."""

    alpha: float
    steps: int
    rate: float
    precision: str = "float32"

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: None) -> Made:
        """See `Way.make`."""
        network, ours = frozen_copy(parent), Labelled.of(data, subset)
        layers = [name.rsplit(".", 1) for name in masking.maskable_parameters(network)]
        masks = [_masked(network.get_submodule(layer), weight) for layer, weight in layers]
        whole = Headed(network, head_of(subset, data.num_classes))
        weights = sum(mask.numbers.numel() for mask in masks)
        train_statistics_alone(network)

        def loss(inputs: Any, targets: Tensor) -> Tensor:
            logits = logits_at(whole, inputs, self.precision)
            kept = torch.stack([mask.mask.sum() for mask in masks]).sum() / weights
            return nn.functional.cross_entropy(logits, targets) + self.alpha * kept

        trained = [*(mask.numbers for mask in masks), *whole.head.requires_grad_(True).parameters()]
        fit(loss, trained, ours, steps=self.steps, rate=self.rate, seed=seed, purpose="seam")
        for layer, weight in layers:
            parametrize.remove_parametrizations(network.get_submodule(layer), weight)
        return Made(whole.eval(), len(ours.rows))


def _masked(layer: nn.Module, weight: str) -> SignedMask:
    mask = SignedMask(getattr(layer, weight).detach())
    parametrize.register_parametrization(layer, weight, mask)
    return mask
