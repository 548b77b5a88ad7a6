"""Repair in closed form: a network whose channels were cut learns, layer by layer, to give what its parent gave.

For a layer with weights W, X its inputs in the cut network and T what the parent's layer gives for the kept channels,
both of the same images at the same places and centred (n rows, X [n, in], T [n, out])::

    dWᵀ = (Xᵀ X + λ · mean(diag Xᵀ X) · I)⁻¹ Xᵀ (T − X Wᵀ)          ridge regression of what is missing

and the bias follows from the means. It is done while the images pass through the cut network, once: a layer is repaired
just before it is called, so that it sees inputs that are repaired, and a normalisation takes the statistics of what
reaches it. Scale and shift stay the parent's. No labels, no gradient; nothing is drawn but places. The weights that
come out are not the parent's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modlib.parent import called, in_parts, number_of_rows
from modlib.seeds import generator

PLACES = 16
"""Places (output pixels) of an image that the regression of a convolution sees, drawn for each layer and image."""
ROWS = 4096
"""Rows of a regression that are made at once; what is made of an image's patches is many times the image."""


@dataclass(frozen=True)
class Targets:
    """What a parent's layers give for some images at drawn places: name -> [rows, out], all channels.

    `inputs`: the images as the parent takes them. One parent and set of images serves cut networks of any width.
    """

    inputs: Any
    outputs: Mapping[str, Tensor]
    seed: int


@torch.no_grad()
def targets(parent: nn.Module, inputs: Any, seed: int = 0, batch: int = 64) -> Targets:
    """Return what a repair aims at. `batch`: images that the parent passes at once.

    Layers that are called more than once, and grouped convolutions, are left out: they keep their weights.
    """
    found: dict[str, list[Tensor]] = {}
    calls: Counter[str] = Counter()
    passed = 0  # images, before this batch

    def listen(name: str, layer: nn.Module, _: Any, output: Tensor) -> None:
        calls[name] += 1
        found.setdefault(name, []).append(_outputs(output, name, seed, passed))

    with _hooked(parent, lambda name: partial(listen, name), "register_forward_hook", _is_repaired):
        for part in in_parts(inputs, batch):
            called(parent, part)
            passed += number_of_rows(part)
    passes = -(-passed // batch)
    once = {name: torch.cat(parts) for name, parts in found.items() if calls[name] == passes}
    return Targets(inputs, once, seed)


@torch.no_grad()
def repair(small: nn.Module, aims: Targets, kept: Mapping[str, Tensor], ridge: float = 1e-3) -> nn.Module:
    """Repair `small`, a cut copy of the parent of `aims`, in place, and return it.

    `kept`: for every layer with weights that was cut the outputs that are left, int64, by name; others keep all.
    `ridge`: λ above. All images pass at once: memory for their largest feature map in the cut network is needed.
    """

    def solve(name: str, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        if name in aims.outputs:
            wanted = aims.outputs[name]
            _solve(layer, given[0], wanted[:, kept[name]] if name in kept else wanted, name, aims.seed, ridge)

    def normalise(name: str, norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        _take_statistics(norm, given[0])

    small.eval()
    with (
        _hooked(small, lambda name: partial(solve, name), "register_forward_pre_hook", _is_repaired),
        _hooked(small, lambda name: partial(normalise, name), "register_forward_pre_hook", _is_normalisation),
    ):
        called(small, aims.inputs)
    return small


def _is_repaired(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _is_normalisation(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None


@contextmanager
def _hooked(network: nn.Module, hook: Any, kind: str, where: Any) -> Iterator[None]:
    """Within it, `hook(name)` is called at every part of a network that `where` accepts."""
    handles = [getattr(part, kind)(hook(name)) for name, part in network.named_modules() if where(part)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _places(name: str, seed: int, first: int, count: int, area: int) -> Tensor:
    """Return places of `count` images from number `first` on: int64 [count, up to PLACES], of each image the same."""
    drawn = torch.randint(area, (first + count, min(PLACES, area)), generator=generator(seed, "places", name))
    return drawn[first:]


def _at(values: Tensor, name: str, seed: int, first: int) -> Tensor:
    """Return [B, C, area] at drawn places, as [B · places, C]."""
    places = _places(name, seed, first, len(values), values.shape[2]).to(values.device)
    at = places[:, None].expand(-1, values.shape[1], -1)
    return values.gather(2, at).transpose(1, 2).reshape(-1, values.shape[1])


def _outputs(values: Tensor, name: str, seed: int, first: int) -> Tensor:
    """Return [B, C, H, W] at places as [B · places, C]; [B, ..., C] of a linear layer as [rows, C]."""
    if values.ndim == 4:
        return _at(values.flatten(2), name, seed, first)
    return values.reshape(-1, values.shape[-1]).clone()  # what follows may work in place


def _inputs(layer: Any, given: Tensor, name: str, seed: int) -> Iterator[Tensor]:
    """Yield what a layer reads at its places, some rows at a time: [rows, in]; of images patches."""
    padding: Any = (0, 0)
    if not isinstance(layer, nn.Conv2d):
        yield from given.reshape(-1, given.shape[-1]).split(ROWS)
        return
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        mode = layer.padding_mode.replace("zeros", "constant")
        given = nn.functional.pad(given, layer._reversed_padding_repeated_twice, mode)
    else:
        padding = layer.padding
    step = max(1, ROWS // PLACES)
    for i, part in enumerate(given.split(step)):
        columns = nn.functional.unfold(part, layer.kernel_size, layer.dilation, padding, layer.stride)
        yield _at(columns, name, seed, i * step)


def _solve(layer: Any, given: Tensor, wanted: Tensor, name: str, seed: int, ridge: float) -> None:
    """Set the weights of a layer so that it gives `wanted` [n, out] for its inputs, near to what they were."""
    weight = layer.weight.flatten(1)
    x = torch.cat(list(_inputs(layer, given, name, seed)))
    mean_x, mean_t = x.mean(0), wanted.mean(0)
    x = x - mean_x
    gram = (x.T @ x).double()
    gram.diagonal().add_(ridge * gram.diagonal().mean().clamp(min=1e-30))
    missing = (x.T @ (wanted - mean_t - x @ weight.T)).double()
    weight = weight + torch.linalg.solve(gram, missing).T.to(weight)
    layer.weight.copy_(weight.view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.copy_(mean_t - weight @ mean_x)


def _take_statistics(norm: Any, given: Tensor) -> None:
    """Set the running statistics of a normalisation to those of what reaches it: [B, C, ...]."""
    others = [d for d in range(given.ndim) if d != 1]
    norm.running_mean.copy_(given.mean(others))
    norm.running_var.copy_(given.var(others))
