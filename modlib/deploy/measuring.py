"""What a network costs: parameters, multiply-adds, bytes, milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modlib.parent import called, each_tensor


@torch.no_grad()
def cost(network: nn.Module, example: Any) -> dict[str, int]:
    """Return the number of parameters, and of multiply-adds for one image, the first of `example`."""
    one = each_tensor(example, lambda values: values[:1])
    with FlopCounterMode(display=False) as counter:
        called(network.eval(), one)
    return {
        "parameters": sum(values.numel() for values in network.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
    }
