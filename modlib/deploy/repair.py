"""Repair in closed form: a network whose channels were cut learns, layer by layer, to give what its parent gave.

For a layer with weights W, X its inputs in the cut network and T what the parent's layer gives for the kept channels,
both of the same images at the same places and centred (n rows, X [n, in], T [n, out])::

    dWᵀ = (Xᵀ X + λ · mean(diag Xᵀ X) · I)⁻¹ Xᵀ (T − X Wᵀ)          ridge regression of what is missing

and the bias follows from the means. Layers go in the order of the network, so each sees inputs that are repaired.
Scale and shift of normalisations stay the parent's; their statistics are taken anew. No labels, no gradient, nothing is
drawn but places. The weights that come out are not the parent's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modlib.parent import arguments
from modlib.seeds import generator

PLACES = 16
"""Places (output pixels) of an image that the regression of a convolution sees, drawn for each layer and image."""


class _Reached(Exception):
    """Raised to leave a forward pass where everything asked for has been seen."""


@torch.no_grad()
def repair(
    small: nn.Module,
    parent: nn.Module,
    batches: Sequence[Any],
    kept: Mapping[str, Tensor],
    ridge: float = 1e-2,
    seed: int = 0,
) -> nn.Module:
    """Repair `small`, a cut copy of `parent`, in place, and return it.

    `batches`: inputs of the images that are repaired on. `kept`: for every layer with weights that was cut the outputs
    that are left, int64, by name; others keep all. `ridge`: λ above. Grouped convolutions keep their weights; layers
    that are called more than once too.
    """
    order = _called_once(small, batches[0])
    places = {name: _places(name, seed) for name in order}
    wanted = _outputs(parent, batches, order, kept, places)
    normalised = _normalisation_behind(small, batches[0], order)
    for name in order:
        layer = small.get_submodule(name)
        inputs = _inputs(small, batches, name, places[name])
        _solve(layer, inputs, wanted[name], ridge)
        if name in normalised:
            _take_statistics(small.get_submodule(normalised[name]), layer, inputs)
    _statistics_anew(small, batches)
    return small


def _places(name: str, seed: int) -> Any:
    """Return a function (batch, height, width, which batch) -> places [batch, PLACES], drawn by layer and batch."""

    def draw(count: int, area: int, batch: int) -> Tensor:
        return torch.randint(area, (count, min(PLACES, area)), generator=generator(seed, "places", name, batch))

    return draw


def _is_repaired(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _called_once(network: nn.Module, inputs: Any) -> list[str]:
    """Return the layers that are repaired, in the order of their calls."""
    called: list[str] = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, part in network.named_modules()
        if _is_repaired(part)
    ]
    try:
        _call(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in called if called.count(name) == 1]


def _call(network: nn.Module, inputs: Any) -> Any:
    by_position, by_name = arguments(inputs)
    return network(*by_position, **by_name)


def _outputs(
    parent: nn.Module,
    batches: Sequence[Any],
    order: Sequence[str],
    kept: Mapping[str, Tensor],
    places: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return what the parent's layers give for the channels that are kept, at the places: [rows, out] by layer."""
    found: dict[str, list[Tensor]] = {name: [] for name in order}

    def listen(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
            rows = _rows(output, places[name], len(found[name]))
            found[name].append(rows[:, kept[name].to(rows.device)] if name in kept else rows)

        return hook

    hooks = [parent.get_submodule(name).register_forward_hook(listen(name)) for name in order]
    try:
        for batch in batches:
            _call(parent, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def _rows(values: Tensor, places: Any, batch: int) -> Tensor:
    """Return [B, C, H, W] at drawn places as [B · places, C]; [B, ..., C] of a linear layer as [rows, C]."""
    if values.ndim != 4:
        return values.reshape(-1, values.shape[-1])
    flat = values.flatten(2)
    at = places(len(flat), flat.shape[2], batch).to(flat.device)
    return flat.gather(2, at[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2).reshape(-1, flat.shape[1])


def _inputs(small: nn.Module, batches: Sequence[Any], name: str, places: Any) -> Tensor:
    """Return what a layer of the cut network reads, at the same places: [rows, in · kernel], patches of images."""
    found: list[Tensor] = []

    def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(_patches(layer, given[0], places, len(found)))
        raise _Reached

    handle = small.get_submodule(name).register_forward_pre_hook(hook)
    try:
        for batch in batches:
            try:
                _call(small, batch)
            except _Reached:
                continue
    finally:
        handle.remove()
    return torch.cat(found)


def _patches(layer: nn.Module, given: Tensor, places: Any, batch: int) -> Tensor:
    if not isinstance(layer, nn.Conv2d):
        return given.reshape(-1, given.shape[-1])
    padded = given
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        padded = nn.functional.pad(
            given, layer._reversed_padding_repeated_twice, layer.padding_mode.replace("zeros", "constant")
        )
    padding = 0 if padded is not given else layer.padding
    columns = nn.functional.unfold(padded, layer.kernel_size, layer.dilation, padding, layer.stride)  # type: ignore[arg-type]
    at = places(len(columns), columns.shape[2], batch).to(columns.device)
    return columns.gather(2, at[:, None].expand(-1, columns.shape[1], -1)).transpose(1, 2).flatten(0, 1)


def _solve(layer: Any, inputs: Tensor, wanted: Tensor, ridge: float) -> None:
    """Set the weights of a layer so that it gives `wanted` [n, out] for `inputs` [n, in], near to what they were."""
    weight = layer.weight.flatten(1).double()
    x, t = inputs.double(), wanted.double()
    mean_x, mean_t = x.mean(0), t.mean(0)
    x = x - mean_x
    gram = x.T @ x
    gram.diagonal().add_(ridge * gram.diagonal().mean().clamp(min=1e-30))
    change = torch.linalg.solve(gram, x.T @ (t - mean_t - x @ weight.T)).T
    weight = weight + change
    layer.weight.copy_(weight.view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.copy_(mean_t - weight @ mean_x)


def _normalisation_behind(network: nn.Module, inputs: Any, order: Sequence[str]) -> dict[str, str]:
    """Return the batch normalisation that reads a layer's output itself, by the layer's name."""
    outputs: dict[int, str] = {}
    held: list[Any] = []
    found: dict[str, str] = {}

    def gave(name: str) -> Any:
        def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
            held.append(output)  # so that its id is not given to another
            outputs[id(output)] = name

        return hook

    def read(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
            if id(given[0]) in outputs:
                found[outputs[id(given[0])]] = name

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(gave(name)) for name in order]
    norms = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks += [module.register_forward_pre_hook(read(name)) for name, module in norms]
    try:
        _call(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _take_statistics(norm: Any, layer: Any, inputs: Tensor) -> None:
    """Set the running statistics of a normalisation to those of what its repaired layer gives at the places."""
    if norm.running_mean is None:
        return
    given = inputs @ layer.weight.flatten(1).T
    if layer.bias is not None:
        given = given + layer.bias
    norm.running_mean.copy_(given.mean(0))
    norm.running_var.copy_(given.var(0))


def _statistics_anew(network: nn.Module, batches: Sequence[Any]) -> None:
    """Take the statistics of all batch normalisations anew, over the batches; dropout stays off."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = {norm: norm.momentum for norm in norms}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in batches:
        _call(network, batch)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
        norm.eval()
