"""A recomposed network as a plain one: masks multiplied in, and no class of this package in its pickle.

A chain of linear layers becomes `nn.Sequential` of torch's layers: one network for all modules where its blocks on the
diagonal hold no more than `FILLED` times the weights of the networks of single masks, dense; else those, one after
another. Any other parent becomes a `torch.fx.GraphModule` that calls the parent's own class once for each mask. The
network gives confidences [B, K], in the order of its buffer `classes`; inputs are of its own type and device.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Sequence
from operator import attrgetter, getitem, itemgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from modlib.parent import picking, without_picking
from modlib.passes import Passes
from modlib.stacking import Chain, Stacked, dense_layer

FILLED = 2
"""One product of blocks on the diagonal, zeros and all, is faster than several small ones up to about this factor."""


@torch.no_grad()
def baked(voters: Stacked | Passes, classes: Tensor) -> nn.Module:
    """Return a plain network of the modules of `classes`, see `modlib.Recomposed.baked`."""
    network = _of_chains(voters) if isinstance(voters, Stacked) else _of_passes(voters)
    network.register_buffer("classes", classes.clone())
    network.eval()
    network.requires_grad_(False)
    return network


def _of_chains(stacked: Stacked) -> nn.Module:
    chains = stacked.chains()
    if stacked.weights() <= FILLED * sum(weight.numel() for chain in chains for weight, _ in chain):
        return nn.Sequential(*_layers(stacked.one_chain(), stacked.flatten), nn.Sigmoid())
    networks = [nn.Sequential(*_layers(chain, stacked.flatten)) for chain in chains]
    return _graph(networks, None, None, list(itertools.chain(*stacked.columns)))


def _of_passes(passes: Passes) -> nn.Module:
    pick = picking(passes.networks[0])
    networks = [_plain(without_picking(network)) for network in copy.deepcopy(list(passes.networks))]
    grafts, order = [], []
    for p in range(len(networks)):
        own = [m for m, q in enumerate(passes.pass_of) if p == q]
        weight, bias = passes.grafting_weight[own], passes.grafting_bias[own]
        grafts.append(dense_layer(weight[:, 1] - weight[:, 0], bias[:, 1] - bias[:, 0]))
        order += own
    return _graph(networks, grafts, pick, order)


def _layers(chain: Chain, flatten: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()] if flatten else []
    for weight, bias in chain:
        layers += [dense_layer(weight, bias), nn.ReLU()]
    return layers[:-1]


def _graph(
    networks: Sequence[nn.Module],
    grafts: Sequence[nn.Module] | None,
    pick: Callable[[Any], Tensor] | None,
    order: Sequence[int],
) -> fx.GraphModule:
    """Return networks, each followed by `pick` and its graft, as one: the columns of their outputs are `order`."""
    root, graph = nn.Module(), fx.Graph()
    root.networks = nn.ModuleList(networks)
    root.grafts = nn.ModuleList(grafts or [])
    (first, *others), outputs = [graph.placeholder(*given) for given in _arguments(networks[0])], []
    for p in range(len(networks)):
        logits = graph.call_module(f"networks.{p}", (first,), {str(node.target): node for node in others})
        logits = logits if pick is None else graph.call_function(*_as_call(pick, logits))
        outputs.append(logits if grafts is None else graph.call_module(f"grafts.{p}", (logits,)))
    joined = graph.call_function(torch.cat, (outputs, 1))
    if list(order) != sorted(order):
        root.register_buffer("order", torch.tensor(order).argsort())
        joined = graph.call_function(torch.index_select, (joined, 1, graph.create_node("get_attr", "order")))
    graph.output(graph.call_function(torch.sigmoid, (joined,)))
    return fx.GraphModule(root, graph, "Baked")


def _arguments(network: nn.Module) -> list[tuple[str, None, Any]]:
    """Return names, types and defaults of what a network takes; of a single input, whatever its name, "inputs"."""
    given = inspect.signature(network.forward).parameters.values()
    named = [one for one in given if one.kind is one.POSITIONAL_OR_KEYWORD]
    if len(named) < 2:
        return [("inputs", None, inspect.Signature.empty)]
    return [(one.name, None, one.default) for one in named]


def _as_call(pick: Callable[[Any], Tensor], output: fx.Node) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the function, and its arguments, that picks the logits: those of `operator` are no functions by name."""
    if isinstance(pick, attrgetter | itemgetter):
        names: Any = pick.__reduce__()[1]
        if len(names) == 1 and not (isinstance(pick, attrgetter) and "." in names[0]):
            return (getattr if isinstance(pick, attrgetter) else getitem), (output, names[0])
    return _named(pick), (output,)


def _named(pick: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """Return `pick`, or raise ValueError where no one finds it by its name when the network is loaded."""
    name = getattr(pick, "__qualname__", "")
    if not name.isidentifier():
        raise ValueError(
            f"logits: {pick!r} must be a function with a name in a module, by which it is found when loaded"
        )
    return pick


def _plain(network: nn.Module) -> nn.Module:
    """Return `network` with blocks of this package's parents replaced by the graph of what they do."""
    if type(network).__module__.partition(".")[0] == __package__:
        return fx.symbolic_trace(network)
    done: dict[int, nn.Module] = {}
    for name, part in network._modules.items():
        if part is not None:
            network._modules[name] = done.setdefault(id(part), _plain(part))
    return network
