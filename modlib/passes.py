"""Modules as networks of their own: the parent with a mask multiplied in, called once for every different mask.

That takes the memory of the parent's masked weights for each pass, and nothing else: a prediction is as many calls of
the parent as there are masks. What leads a chain of layers and is the same in all passes is computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from modlib import grafting
from modlib.library import Parts
from modlib.parent import called, frozen_copy, functional_call
from modlib.precision import unrounded
from modlib.stacking import unrolled


class Decomposed(Parts, Protocol):
    """What a network is recomposed from, see `modlib.Modules`."""

    @property
    def classes(self) -> tuple[int, ...]: ...
    def select(self, subset: Iterable[int]) -> Decomposed: ...


class Passes(nn.Module):
    """Networks that are called one after another: inputs [B, ...] -> log-odds [B, K].

    Attributes:
        networks: the parent with a mask multiplied in, one for every different mask.
        pass_of: which of them serves each module.
        shared: so many of their leading layers are the same in all, and called in the first alone.
    """

    grafting_weight: Tensor
    grafting_bias: Tensor
    shared: int

    def __init__(self, chosen: Decomposed) -> None:
        super().__init__()
        self.networks = nn.ModuleList(masked_parents(chosen))
        self.pass_of = distinct_passes(chosen)
        self._written = any(map(_may_write, self.networks[0].modules()))
        self._like = next(iter(chosen.masks.masks))
        self.register_buffer("grafting_weight", chosen.grafting_weight.clone())
        self.register_buffer("grafting_bias", chosen.grafting_bias.clone())
        _find_shared(self)
        self.register_load_state_dict_post_hook(_find_shared)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the inputs."""
        return self.networks[0].get_parameter(self._like)

    def forward(self, inputs: Any) -> Tensor:
        if not isinstance(inputs, Tensor):  # by name or position, to the network as a whole
            call = (
                partial(functional_call, replaced={}, inputs=inputs)
                if self._written
                else partial(called, inputs=inputs)
            )
            logits = [call(network) for network in self.networks]
            return torch.stack([self._grafted(logits[p], m) for m, p in enumerate(self.pass_of)], dim=1)
        chains = [unrolled(network) for network in self.networks]
        inputs = self._called(chains[0][: self.shared], inputs)
        logits = []
        for chain in chains:
            own = inputs.clone() if self.shared else inputs  # a layer may write to what it is handed
            logits.append(self._called(chain[self.shared :], own))
        return torch.stack([self._grafted(logits[p], m) for m, p in enumerate(self.pass_of)], dim=1)

    def _called(self, layers: Sequence[nn.Module], hidden: Tensor) -> Tensor:
        for layer in layers:  # buffers that a layer of the user's may write to are handed over as copies
            hidden = functional_call(layer, {}, hidden) if self._written else layer(hidden)
        return hidden

    def _grafted(self, logits: Tensor, m: int) -> Tensor:
        """Return the log-odds [B] of module m: at full precision under autocast, too: rounded, they would tie."""
        weight, bias = self.grafting_weight[m], self.grafting_bias[m]
        with unrounded(logits.device):
            return grafting.log_odds(grafting.graft(logits.to(weight.dtype), weight, bias))


def _find_shared(passes: Passes, *_: object) -> None:
    """Count the leading layers that are the same in all networks; also after other values were loaded."""
    levels = list(zip(*map(unrolled, passes.networks), strict=True))
    passes.shared = next((i for i, level in enumerate(levels) if not all(map(_same, level, level[1:]))), len(levels))


def _same(a: nn.Module, b: nn.Module) -> bool:
    own, other = ([*layer.parameters(), *layer.buffers()] for layer in (a, b))
    return all(torch.equal(v, w) for v, w in zip(own, other, strict=True))


def _may_write(layer: nn.Module) -> bool:
    """Say whether a layer may write to a buffer in eval mode: torch's and torchvision's own do not."""
    known = type(layer).__module__.partition(".")[0] in ("torch", "torchvision")
    return not known and any(True for _ in layer.buffers(recurse=False))


@torch.no_grad()
def masked_parents(modules: Decomposed) -> list[nn.Module]:
    """Return a copy of the parent for every different mask, with that mask and its statistics in it."""
    passes, parent = distinct_passes(modules), frozen_copy(modules.parent)
    masked = {id(parent.get_parameter(name)) for name in modules.masks.masks}
    whole = [p for p in parent.parameters() if id(p) not in masked]
    made = []
    for first in (passes.index(p) for p in range(max(passes) + 1)):
        network = copy.deepcopy(parent, {id(p): p for p in whole})  # what is not masked is held once
        for name, mask in modules.masks.masks.items():
            weight = network.get_parameter(name)
            weight.mul_(mask[first].to(weight.device))
        for name, values in modules.statistics.items():
            network.get_buffer(name).copy_(values[first])
        made.append(network)
    return made


def distinct_passes(modules: Decomposed) -> list[int]:
    """Return the pass that serves each module, from 0: modules with the same mask and statistics share one."""
    layers = [*modules.masks.masks.values(), *modules.statistics.values()]
    firsts: list[int] = []
    found = []
    for m in range(len(modules.classes)):
        same = (p for p, first in enumerate(firsts) if all(torch.equal(v[m], v[first]) for v in layers))
        found.append(next(same, len(firsts)))
        if found[-1] == len(firsts):
            firsts.append(m)
    return found
