"""Heads: linear layers that read a network's logits and give those of a subset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modlib.parent import called


class Headed(nn.Module):
    """A network and a head: inputs [B, ...] -> logits [B, K]."""

    def __init__(self, network: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, inputs: Any) -> Tensor:
        logits: Tensor = self.head(called(self.network, inputs))
        return logits


class SideBySide(nn.Module):
    """A network for each class, with one logit each: inputs [B, ...] -> logits [B, K]. K passes."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Any) -> Tensor:
        return torch.cat([called(network, inputs) for network in self.networks], dim=1)


def head_of(subset: Sequence[int], num_classes: int) -> nn.Linear:
    """Return a head that starts by picking the subset's own logits."""
    head = nn.Linear(num_classes, len(subset))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[torch.arange(len(subset)), torch.tensor(list(subset))] = 1.0
    return head
