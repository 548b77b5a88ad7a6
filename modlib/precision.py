"""Forward and backward passes: their precision, how images lie in memory, and how many go at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from modlib import checks

PRECISIONS = ("float32", "bfloat16")
"""float32, or bfloat16 where a device computes in it natively."""

AT_ONCE = 10_000
"""Inputs that a network takes at once at most, and without convolutions at most `NUMBERS_AT_ONCE` numbers."""
NUMBERS_AT_ONCE = 8_000_000
PIXELS_AT_ONCE = 2**17
"""Pixels that a convolutional network takes at once: 128 images of 32 × 32, half a gigabyte in WRN-28-10."""


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a pass at one of `PRECISIONS`; weights, scores, masks and gradients stay as they are."""
    checks.choice("precision", precision, PRECISIONS)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def unrounded(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast is off; where it is off already, one that costs nothing."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within it, gradients are on, and nothing counts of inference mode, autocast and default device around it."""
    accelerator = torch.accelerator.current_accelerator()
    with ExitStack() as contexts:
        contexts.enter_context(torch.inference_mode(False))
        contexts.enter_context(torch.enable_grad())
        for kind in ("cpu",) if accelerator is None else ("cpu", accelerator.type):
            # no cache: an autocast within would take its weights of the first step from it until this one ends
            contexts.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        if torch.get_default_device().type != "cpu":  # where it is, a context would only cost time
            contexts.enter_context(torch.device("cpu"))
        yield


def convolutional(model: nn.Module) -> bool:
    """Say whether a network has convolutions."""
    return any(isinstance(part, _ConvNd) for part in model.modules())


def at_once(model: nn.Module, shape: torch.Size, pixels: int) -> int:
    """Return how many inputs of `shape` (without the batch), of so many `pixels`, a network classifies at once."""
    if convolutional(model):
        return max(1, min(AT_ONCE, PIXELS_AT_ONCE // max(1, pixels)))
    return max(1, min(AT_ONCE, NUMBERS_AT_ONCE // max(1, shape.numel())))


ROWS = 256
"""Rows of dicts and tuples that a network classifies at once."""


def rows_at_once(model: nn.Module, inputs: Any) -> int:
    """Return how many of `inputs` [B, ...] a network classifies at once, see `at_once`; of dicts and tuples `ROWS`."""
    if not isinstance(inputs, Tensor):
        return ROWS
    pixels = inputs.shape[2:].numel() if inputs.ndim > 3 else inputs.shape[1:].numel()
    return at_once(model, inputs.shape[1:], pixels)


def laid_out(model: nn.Module, inputs: Any, precision: str) -> Any:
    """Return `inputs` as they lie fastest: images of a convolutional network in bfloat16 with the channels last."""
    if precision == "bfloat16" and isinstance(inputs, Tensor) and inputs.ndim == 4 and convolutional(model):
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs
