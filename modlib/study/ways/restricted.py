"""The parent with its logits cut to the subset: what everyone has, at no cost, and at the parent's size and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib.data import Data
from modlib.parent import called, frozen_copy
from modlib.study.ways.interface import Made, StartsAnew


class Restricted(nn.Module):
    """A network, and of its logits those of some classes: inputs [B, ...] -> [B, K]."""

    classes: Tensor

    def __init__(self, network: nn.Module, subset: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("classes", torch.tensor(list(subset)))

    def forward(self, inputs: Any) -> Tensor:
        logits: Tensor = called(self.network, inputs)
        return logits[:, self.classes]


@dataclass(frozen=True)
class RestrictedParent(StartsAnew):
    """The whole parent, its logits picked."""

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: None) -> Made:
        """See `Way.make`."""
        return Made(Restricted(frozen_copy(parent), subset))
