"""Parents that return more than their logits: a tuple, a dict, an object with auxiliary outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class _Picked:
    """A forward hook that replaces a network's output by the logits in it."""

    pick: Callable[[Any], Tensor]

    def __call__(self, network: nn.Module, inputs: Any, output: Any) -> Tensor:
        return self.pick(output)


def with_logits(parent: nn.Module, pick: Callable[[Any], Tensor]) -> nn.Module:
    """Return a copy of `parent` whose output is `pick(output)`, the logits [B, N]; its parameters keep their names."""
    if not callable(pick):
        raise TypeError(f"logits must be a function of what the parent returns, got {pick!r}")
    network = copy.deepcopy(parent)
    network.register_forward_hook(_Picked(pick))
    return network
