"""The channels of a network as it runs: they are looked at, or masked, where a cut would take them out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

from modlib.deploy.slicing import Anatomy, channel_axis

Change = Callable[[str, Tensor, int], Tensor]
"""A unit's root, what one of its layers puts out, and which axis the channels are -> what goes on in its place."""


def passing(network: nn.Module, anatomy: Anatomy, change: Change, *, every: bool = True) -> ExitStack:
    """Return a context in which the outputs of all units pass through `change`; or of each one's first layer alone.

    Outputs are those before any ReLU, see `modlib.deploy.slicing.Unit.read_at`.
    """

    def changed(root: str, layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        return change(root, output, channel_axis(layer))

    hooks = ExitStack()
    for unit in anatomy.units:
        for name in unit.read_at if every else unit.read_at[:1]:
            hooks.enter_context(network.get_submodule(name).register_forward_hook(partial(changed, unit.root)))
    return hooks


def masked(output: Tensor, mask: Tensor, axis: int) -> Tensor:
    """Return a layer's output times a mask of its channels, which are its `axis`.

    `mask`: [channels], or [B, channels] with one for each row.
    """
    by_row = mask.expand(len(output), -1)
    wide = by_row.view(*by_row.shape, *[1] * (output.ndim - 2))  # [B, channels, 1, ...]
    return output * wide.movedim(1, axis)
