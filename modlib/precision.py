"""Precisions of forward and backward passes: float32, or bfloat16 where a device computes in it natively."""

from __future__ import annotations

import torch

PRECISIONS = ("float32", "bfloat16")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a pass at one of `PRECISIONS`; weights, scores, masks and gradients stay as they are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
