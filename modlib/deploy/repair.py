"""Repair in closed form: a network whose channels were cut learns, layer by layer, to give what its parent gave.

For a layer with weights W, X its inputs in the cut network and T what the parent's layer gives for the kept channels,
both of the same images at the same places and centred (n rows, X [n, in], T [n, out])::

    dWᵀ = (Xᵀ X + λ · mean(diag Xᵀ X) · I)⁻¹ Xᵀ (T − X Wᵀ)          ridge regression of what is missing

and the bias follows from the means. It is done while the images pass through the cut network, once: a layer is repaired
just before it is called, so that it sees inputs that are repaired. Normalisations stay the parent's, statistics
included: what reaches them is meant to be what reached them there. Every output is a regression of its own: a linear
repair through two layers, which weighs outputs by what the next layer makes of them, would change nothing but what λ
does.

Where a ReLU follows, errors below its threshold cost nothing ("nonlinear"; Zhang, Zou, He and Sun 2016, section 3.3).
With r = relu(T − τ), τ the threshold at the layer's output, normalisation included, two steps take turns, μ rising::

    Z = argmin (r − relu(Z))² + μ (Z − (Y − τ))²                      value by value, Y = X Wᵀ + b, in closed form
    W, b = the regression above with τ + Z in place of T

No labels, no gradient; nothing is drawn but places. The weights that come out are not the parent's. With weights of the
images every sum over rows above, the means included, counts a row as often as its image weighs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks
from modlib.deploy.following import relu_follows
from modlib.parent import called, in_parts, number_of_rows, rows_of
from modlib.seeds import generator

PLACES = 16
"""Places (output pixels) of an image that the regression of a convolution sees, drawn for each layer and image."""
ROWS = 4096
"""Rows of a regression that are made at once; what is made of an image's patches is many times the image."""
PENALTIES = (0.01, 0.03, 0.1, 0.3)
"""μ of each turn: chosen on held-out images of five pairs of CIFAR-10 (VGG16), where twice the turns bring no more."""
KINDS = ("nonlinear", "linear", "scaled", "recalibrated", "statistics")
"""Ways to repair. The last three are for comparisons: a scale and a shift of every output alone; "linear" with
normalisations that take the statistics of what reaches them; and these statistics alone."""


@dataclass(frozen=True)
class Threshold:
    """Where a ReLU begins to pass a layer's outputs: above `at` [out] where `sign` [out] is 1, below it where -1."""

    at: Tensor
    sign: Tensor

    def __getitem__(self, kept: Tensor) -> Threshold:
        return Threshold(self.at[kept], self.sign[kept])


@dataclass(frozen=True)
class Targets:
    """What a parent's layers give for some images at drawn places: name -> [rows, out], all channels.

    `inputs`: the images as the parent takes them. `thresholds`: of the layers that a ReLU follows. `weights` [images]:
    how much each image counts; None: all alike. One parent and set of images serves cut networks of any width.
    """

    inputs: Any
    outputs: Mapping[str, Tensor]
    thresholds: Mapping[str, Threshold]
    seed: int
    weights: Tensor | None = None

    def row_weights(self, rows: int) -> Tensor | None:
        """Return the weights of a layer's rows, so many for each image, of mean 1."""
        if self.weights is None:
            return None
        return (self.weights / self.weights.mean()).repeat_interleave(rows // len(self.weights))


@torch.no_grad()
def targets(parent: nn.Module, inputs: Any, seed: int = 0, batch: int = 64, weights: Tensor | None = None) -> Targets:
    """Return what a repair aims at. `batch`: images that the parent passes at once; `weights`: of the images.

    Layers that are called more than once, and grouped convolutions, are left out: they keep their weights.
    """
    found: dict[str, list[Tensor]] = {}
    calls: Counter[str] = Counter()
    passed = 0  # images, before this batch

    def listen(name: str, layer: nn.Module, _: Any, output: Tensor) -> None:
        calls[name] += 1
        found.setdefault(name, []).append(_outputs(layer, output, name, seed, passed))

    with _hooked(parent, lambda name: partial(listen, name), "register_forward_hook", _is_repaired):
        for part in in_parts(inputs, batch):
            called(parent, part)
            passed += number_of_rows(part)
    passes = -(-passed // batch)
    once = {name: torch.cat(parts) for name, parts in found.items() if calls[name] == passes}
    return Targets(inputs, once, _thresholds(parent, rows_of(inputs, slice(2))), seed, weights)


@torch.no_grad()
def repair(
    small: nn.Module, aims: Targets, kept: Mapping[str, Tensor], ridge: float = 1e-3, kind: str = "nonlinear"
) -> nn.Module:
    """Repair `small`, a cut copy of the parent of `aims`, in place, and return it.

    `kept`: for every layer with weights that was cut the outputs that are left, int64, by name; others keep all.
    `ridge`: λ above. `kind`: one of `KINDS`. Layers get a bias where they have none, see `with_biases`.
    All images pass at once: memory for their largest feature map in the cut network is needed.
    """
    checks.choice("kind", kind, KINDS)

    def solve(name: str, layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        if name in aims.outputs:
            wanted, threshold = aims.outputs[name], aims.thresholds.get(name) if kind == "nonlinear" else None
            if name in kept:
                wanted, threshold = wanted[:, kept[name]], threshold and threshold[kept[name]]
            x, weights = _rows(layer, given[0], name, aims.seed), aims.row_weights(len(wanted))
            if kind == "scaled":
                _scale(layer, x, wanted, weights)
            else:
                _solve(layer, x, wanted, threshold, ridge, weights)

    def normalise(name: str, norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        _take_statistics(norm, given[0])

    if kind != "statistics":
        with_biases(small)
    small.eval()
    hook = "register_forward_pre_hook"
    with (
        _hooked(small, lambda name: partial(solve, name), hook, _is_repaired if kind != "statistics" else _nothing),
        _hooked(
            small,
            lambda name: partial(normalise, name),
            hook,
            _is_normalisation if kind in ("recalibrated", "statistics") else _nothing,
        ),
    ):
        called(small, aims.inputs)
    return small


def with_biases(network: nn.Module) -> nn.Module:
    """Give the layers of a network that can be repaired a bias of 0 where they have none, in place; return it."""
    for layer in network.modules():
        if _is_repaired(layer) and layer.bias is None:
            width = len(layer.weight)
            layer.bias = nn.Parameter(layer.weight.new_zeros(width), requires_grad=False)
    return network


def _nothing(layer: nn.Module) -> bool:
    return False


def _is_repaired(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _is_normalisation(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None


def _hooked(network: nn.Module, hook: Any, kind: str, where: Any) -> ExitStack:
    """Return a context in which `hook(name)` is called at every part of a network that `where` accepts."""
    hooks = ExitStack()
    for name, part in network.named_modules():
        if where(part):
            hooks.enter_context(getattr(part, kind)(hook(name)))
    return hooks


def _places(name: str, seed: int, first: int, count: int, area: int) -> Tensor:
    """Return places of `count` images from number `first` on: int64 [count, up to PLACES], of each image the same."""
    drawn = torch.randint(area, (first + count, min(PLACES, area)), generator=generator(seed, "places", name))
    return drawn[first:]


def _at(values: Tensor, name: str, seed: int, first: int) -> Tensor:
    """Return [B, C, area] at drawn places, as [B · places, C]."""
    places = _places(name, seed, first, len(values), values.shape[2]).to(values.device)
    at = places[:, None].expand(-1, values.shape[1], -1)
    return values.gather(2, at).transpose(1, 2).reshape(-1, values.shape[1])


def _outputs(layer: nn.Module, values: Tensor, name: str, seed: int, first: int) -> Tensor:
    """Return [B, C, H, W] at places as [B · places, C]; [B, ..., C] of a linear layer as [rows, C]."""
    if isinstance(layer, nn.Conv2d):
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


def _rows(layer: Any, given: Tensor, name: str, seed: int) -> Tensor:
    return torch.cat(list(_inputs(layer, given, name, seed)))


def _solve(
    layer: Any, x: Tensor, wanted: Tensor, threshold: Threshold | None, ridge: float, weights: Tensor | None
) -> None:
    """Set the weights of a layer so that it gives `wanted` [n, out] for inputs x [n, in], near to what they were.

    `weights` [n]: of the rows.
    """

    def weighed(values: Tensor) -> Tensor:
        return values if weights is None else values * weights[:, None]

    weight = layer.weight.flatten(1)
    mean_x = weighed(x).mean(0)
    x = x - mean_x
    left = weighed(x).T
    gram = (left @ x).double()
    gram.diagonal().add_(ridge * gram.diagonal().mean().clamp(min=1e-30))
    factor, before = torch.linalg.cholesky(gram), x @ weight.T

    def fit(aim: Tensor) -> tuple[Tensor, Tensor]:
        mean = weighed(aim).mean(0)
        missing = (left @ (aim - mean - before)).double()
        return weight + torch.cholesky_solve(missing, factor).T.to(weight), mean

    found, mean = fit(wanted)
    if threshold is not None:
        passed = ((wanted - threshold.at) * threshold.sign).relu()
        for penalty in PENALTIES:
            given = (x @ found.T + mean - threshold.at) * threshold.sign
            found, mean = fit(threshold.at + threshold.sign * _between(passed, given, penalty))
    layer.weight.copy_(found.view_as(layer.weight))
    layer.bias.copy_(mean - found @ mean_x)


def _scale(layer: Any, x: Tensor, wanted: Tensor, weights: Tensor | None) -> None:
    """Scale and shift each output of a layer so that it is nearest to `wanted` [n, out]; x, `weights`: as `_solve`."""
    given = x @ layer.weight.flatten(1).T
    of_row = torch.ones(len(x), 1).to(x) if weights is None else weights[:, None]
    mean_given, mean_wanted = (of_row * given).mean(0), (of_row * wanted).mean(0)
    centred = given - mean_given
    variance, covariance = (of_row * centred**2).mean(0), (of_row * centred * (wanted - mean_wanted)).mean(0)
    scale = torch.where(variance > 0, covariance / variance, torch.zeros_like(variance))
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.copy_(mean_wanted - scale * mean_given)


def _between(passed: Tensor, given: Tensor, penalty: float) -> Tensor:
    """Return argmin over z of (passed - relu(z))² + penalty · (z - given)², value by value."""
    below, above = given.clamp(max=0), ((penalty * given + passed) / (penalty + 1)).relu()
    cost_below = passed**2 + penalty * (below - given) ** 2
    cost_above = (passed - above) ** 2 + penalty * (above - given) ** 2
    return torch.where(cost_below < cost_above, below, above)


def _take_statistics(norm: Any, given: Tensor) -> None:
    """Set the running statistics of a normalisation to those of what reaches it: [B, C, ...]."""
    others = [d for d in range(given.ndim) if d != 1]
    norm.running_mean.copy_(given.mean(others))
    norm.running_var.copy_(given.var(others))


def _thresholds(parent: nn.Module, example: Any) -> dict[str, Threshold]:
    """Return the thresholds of the layers that a ReLU follows, directly or behind a normalisation, and nothing else."""
    found = {}
    for name, norm in relu_follows(parent, example).items():
        layer: Any = parent.get_submodule(name)
        zero = layer.weight.new_zeros(len(layer.weight))
        at, scale = zero, zero + 1
        if norm is not None:
            of: Any = parent.get_submodule(norm)
            deviation = (of.running_var + of.eps).sqrt()
            scale, shift = (zero + 1, zero) if of.weight is None else (of.weight, of.bias)
            safe = torch.where(scale == 0, torch.ones_like(scale), scale)
            at = of.running_mean - shift * deviation / safe
        if bool((scale != 0).all()):
            found[name] = Threshold(at, scale.sign())
    return found
