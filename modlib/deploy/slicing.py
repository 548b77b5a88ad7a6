"""Channels cut out of a network physically: what depends on each other is found by Torch-Pruning's dependency graph.

A *unit* is what can only be cut as one: the output channels of a layer with all that they are tied to (normalisation,
the inputs of the layers behind, every layer that adds to the same residual stream).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib import extras
from modlib.parent import arguments, called, each_tensor, evaluating
from modlib.seeds import generator

NORMALISATIONS = nn.modules.batchnorm._BatchNorm
OTHERS = (nn.Conv1d, nn.Conv3d, nn.modules.conv._ConvTransposeNd, nn.RNNBase, nn.Bilinear)
"""Layers with weights whose outputs stay."""


@dataclass(frozen=True)
class Unit:
    """Channels that are cut together: how many, the layers that give them, in order, and where each is read.

    `layers`: names of the convolutions and linear layers whose outputs they are; `read_at`: for each of these, the name
    of the normalisation right behind it, else of the layer itself: its output, before any ReLU, is the channels' value.
    `normalised`: the normalisations of these channels, wherever they stand. `root`: the layer that the cut starts from.
    `groups`: of a grouped convolution among what is tied: in each group the same places have to stay.
    """

    root: str
    channels: int
    layers: tuple[str, ...]
    read_at: tuple[str, ...]
    normalised: tuple[str, ...]
    groups: int = 1

    def first(self, order: Tensor, count: int) -> Tensor:
        """Return the first `count` channels in an order (int64 [channels]), ascending; see `groups`."""
        size = self.channels // self.groups
        places = list(dict.fromkeys((order % size).tolist()))[: max(1, count // self.groups)]
        return torch.tensor(sorted(g * size + place for g in range(self.groups) for place in places))


@dataclass(frozen=True)
class Anatomy:
    """What can be cut out of a network, and what cannot: names of layers, by why. `last`: the layer of the logits."""

    units: tuple[Unit, ...]
    uncut: Mapping[str, str]
    last: str


def anatomy(network: nn.Module, example: Any) -> Anatomy:
    """Return the units of a network, in the order of its layers; `example`: inputs of one image or more.

    The layers that give the logits keep their outputs. Of what a grouped convolution reads or gives, the same places of
    each group can go. Of what is left, a unit is taken if a cut network computes what
    `silenced` does, tried in float64: channels that a layer normalisation reads can't be cut, nor what is split or
    shuffled by place. Raises ValueError where the graph cannot be traced.
    """
    graph = _graph(network, example)
    names = {module: name for name, module in network.named_modules()}
    last = _last_layer(network, example)
    units: list[Unit] = []
    seen: set[str] = set()
    uncut: dict[str, str] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, OTHERS):
            uncut[name] = f"a {type(layer).__name__} is not cut"
        if not isinstance(layer, (nn.Conv2d, nn.Linear)) or name in seen:
            continue
        if name == last:
            uncut[name] = "gives the logits"
            continue
        if layer not in graph.module2node:
            uncut[name] = "not in the traced graph"
            continue
        grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1
        if grouped:
            continue  # cut with what it is tied to
        members, normalised, groups = _members(graph, layer, names)
        if last in members:
            uncut[name] = "tied to the logits"
            continue
        if len(groups) > 1:
            uncut[name] = "tied to convolutions of unequal groups"
            continue
        seen |= set(members)
        if any(_width(network.get_submodule(member)) != _width(layer) for member in members):
            uncut[name] = "tied to a layer of another width"
            continue
        read_at = tuple(_behind(graph, network.get_submodule(member), names) or member for member in members)
        units.append(Unit(name, _width(layer), members, read_at, normalised, *groups))
    exact = _exact(network, example, units)
    uncut |= {u.root: "a cut changes what stays" for u in units if u not in exact}
    return Anatomy(tuple(exact), uncut, last)


def _exact(network: nn.Module, example: Any, units: Sequence[Unit]) -> list[Unit]:
    """Return the units of which some channels can be cut together, and the rest of the network gives what it gave.

    All at once, where that holds; else one half after the other is added to those before. It is tried with weights that
    are moved at random: those of a fresh network may be 0, and hide what hangs on them.
    """
    draw = generator(0, "exact")
    precise, inputs = _moved(network, draw), each_tensor(example, _double)
    half = random_half(units, draw)

    @torch.no_grad()
    def equal(some: Sequence[Unit]) -> bool:
        kept = {unit.root: half[unit.root] for unit in some}
        try:
            found = called(cut(precise, inputs, kept), inputs)
        except Exception:  # shapes that no longer fit: anything may be raised
            return False
        wanted = called(silenced(precise, inputs, kept), inputs)
        return _alike(found, wanted)

    taken: list[Unit] = []

    def add(some: Sequence[Unit]) -> None:
        if equal([*taken, *some]):
            taken.extend(some)
        elif len(some) > 1:
            add(some[: len(some) // 2])
            add(some[len(some) // 2 :])

    add(units)
    return taken


def random_half(units: Sequence[Unit], draw: torch.Generator) -> dict[str, Tensor]:
    """Return half of the channels of every unit, drawn: root -> int64, ascending, as `cut` takes them."""
    return {u.root: u.first(torch.randperm(u.channels, generator=draw), -(-u.channels // 2)) for u in units}


@torch.no_grad()
def _moved(network: nn.Module, draw: torch.Generator) -> nn.Module:
    """Return a copy in float64, every parameter moved by about its own standard deviation."""
    moved = copy.deepcopy(network).double().eval()
    for values in moved.parameters():
        noise = torch.randn(values.shape, dtype=values.dtype, generator=draw).to(values.device)
        values.add_(noise, alpha=max(float(values.std(correction=0)), 0.01))
    return moved


def _alike(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-6, atol=1e-6 * _size(wanted))


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def _size(values: Tensor) -> float:
    return float(values.abs().max())


def cut(network: nn.Module, example: Any, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of `network` with some channels alone; `kept`: unit's root -> which, int64, ascending.

    Everything that is left has the parent's numbers. What is cut was multiplied into nothing else: with a scale and a
    shift of 0 for the cut channels the network as it was gives the same.
    """
    small = copy.deepcopy(network).eval()
    graph = _graph(small, example)
    for root, indices in kept.items():
        layer = small.get_submodule(root)
        gone = sorted(set(range(_width(layer))) - set(indices.tolist()))
        if not gone:
            continue
        if len(gone) == _width(layer):
            raise ValueError(f"kept[{root!r}]: empty; a layer needs one channel at least")
        graph.get_pruning_group(layer, _out_pruner(layer), idxs=gone).prune()
    return small.requires_grad_(False)


def silenced(network: nn.Module, example: Any, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of `network` of its full size in which the channels that `cut` removes are 0 for any input.

    The definition that `cut` is tested against: weights and bias of the layer are 0, and scale *and shift* of the
    normalisation behind it, without which a cut channel would go on as a constant.
    """
    whole = copy.deepcopy(network).eval()
    tp = extras.require("torch_pruning", "cutting channels")
    graph = _graph(whole, example)
    giving = (*_giving(tp), tp.prune_batchnorm_out_channels)
    for root, indices in kept.items():
        layer = whole.get_submodule(root)
        gone = sorted(set(range(_width(layer))) - set(indices.tolist()))
        for dependency, at in graph.get_pruning_group(layer, _out_pruner(layer), idxs=gone) if gone else ():
            part = dependency.target.module
            if dependency.handler in giving:
                for values in (part.weight, part.bias):
                    if values is not None:
                        values.data[at] = 0.0
    return whole.requires_grad_(False)


def _graph(network: nn.Module, example: Any) -> Any:
    tp = extras.require("torch_pruning", "cutting channels")
    by_position, by_name = arguments(example)
    asked = {parameter: parameter.requires_grad for parameter in network.parameters()}
    network.requires_grad_(True)  # the graph is read off what autograd has recorded
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of guesses about bare parameters: `_exact` tries what comes of them
            return tp.DependencyGraph().build_dependency(network, by_name or by_position)
    except Exception as error:  # tracing runs the user's code: it may raise anything
        raise ValueError(f"network: its graph cannot be traced for cutting channels: {error!r}") from error
    finally:
        for parameter, before in asked.items():
            parameter.requires_grad_(before)


def _width(layer: nn.Module) -> int:
    return int(layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features)  # type: ignore[arg-type]


def _giving(tp: Any) -> tuple[Any, ...]:
    """What Torch-Pruning calls to cut the outputs of a layer with weights."""
    return tp.prune_conv_out_channels, tp.prune_linear_out_channels, tp.prune_depthwise_conv_out_channels


def _is_grouped(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.out_channels


def _out_pruner(layer: nn.Module) -> Any:
    tp = extras.require("torch_pruning", "cutting channels")
    return tp.prune_conv_out_channels if isinstance(layer, nn.Conv2d) else tp.prune_linear_out_channels


def _members(
    graph: Any, layer: nn.Module, names: Mapping[nn.Module, str]
) -> tuple[tuple[str, ...], tuple[str, ...], set[int]]:
    """Return the layers whose outputs are cut with those of `layer`, their normalisations, in order, and the groups."""
    tp = extras.require("torch_pruning", "cutting channels")
    giving = _giving(tp)
    group = graph.get_pruning_group(layer, _out_pruner(layer), idxs=[0])
    parts = [dep.target.module for dep, _ in group]
    given = {dep.target.module for dep, _ in group if dep.handler in giving}
    normalised = {part for part in parts if isinstance(part, NORMALISATIONS)}
    groups = {part.groups for part in parts if _is_grouped(part)}
    return (
        tuple(n for m, n in names.items() if m in given),
        tuple(n for m, n in names.items() if m in normalised),
        groups,
    )


def _behind(graph: Any, layer: nn.Module, names: Mapping[nn.Module, str]) -> str | None:
    """Return the normalisation that reads the outputs of `layer` directly."""
    for node in graph.module2node[layer].outputs:
        if isinstance(node.module, NORMALISATIONS):
            return names[node.module]
    return None


def _last_layer(network: nn.Module, example: Any) -> str:
    """Return the convolution or linear layer that is called last; see `gives_logits`."""
    order: list[str] = []
    with ExitStack() as hooks:
        for name, part in network.named_modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                hooks.enter_context(part.register_forward_hook(lambda *_, name=name: order.append(name)))
        with evaluating(network), torch.no_grad():
            called(network, example)
    if not order:
        raise ValueError("network: calls no convolution and no linear layer; nothing can be cut")
    return order[-1]


def channel_axis(layer: nn.Module) -> int:
    """Return which axis of a layer's output its channels are: of linear layers the last, else that after the batch."""
    return -1 if isinstance(layer, nn.Linear) else 1


def restricted(
    network: nn.Module, example: Any, kept: Mapping[str, Tensor], last: str, subset: Sequence[int]
) -> nn.Module:
    """Return `cut(network, example, kept)` with the logits of `subset` alone, in its order.

    `last`: the layer whose outputs are the logits, see `gives_logits`.
    """
    in_order = sorted(subset)
    small = cut(network, example, {**kept, last: torch.tensor(in_order)})
    layer: Any = small.get_submodule(last)
    rows = [in_order.index(c) for c in subset]  # a cut leaves them in their old order
    for values in (layer.weight, layer.bias):
        if values is not None:
            values.data = values.data[rows]
    return small


def gives_logits(network: nn.Module, example: Any, last: str, count: int) -> bool:
    """Return whether the outputs of a layer are the `count` logits, one for one: two are taken alone, in float64."""
    precise, inputs = _moved(network, generator(0, "exact")), each_tensor(example, _double)
    some = [count - 1, 0]
    try:
        found = called(restricted(precise, inputs, {}, last, some), inputs)
    except Exception:  # shapes that no longer fit: anything may be raised
        return False
    with torch.no_grad():
        wanted = called(precise, inputs)
    if wanted.ndim != 2 or wanted.shape[1] != count:
        return False
    return _alike(found, wanted[:, some])
