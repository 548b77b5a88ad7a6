"""Recomposing (paper, section "Recomposing"): a network for any subset of the classes, without training.

The deployed network holds the union of the masks of the subset's modules: weights that no module keeps are zero. To
predict, it applies each module's mask and grafting layer in turn; the module with the highest confidence, the softmax
of "this class" against "another", wins the vote. Modules with the same mask share one pass of the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from modlib import checks, grafting
from modlib.library import Parts
from modlib.parent import frozen_copy, functional_call


class Decomposed(Parts, Protocol):
    """What a network is recomposed from, see `modlib.Modules`."""

    @property
    def classes(self) -> tuple[int, ...]: ...
    def select(self, subset: Iterable[int]) -> Decomposed: ...


class Recomposed(nn.Module):
    """A classifier of the classes `subset`: inputs [B, ...] -> confidence of each, [B, len(subset)], in that order.

    A plain module: it can be moved, saved, put in eval mode. Inputs of any floating-point type, on any device, are
    brought to its own. Weights outside the union are zero in it; the masks, the
    grafting layers and each module's own statistics are buffers. Nothing in it is trained.
    Raises ValueError for an empty subset, a repeated class, or a class without a module.
    """

    classes: Tensor

    def __init__(self, modules: Decomposed, subset: Iterable[int]) -> None:
        super().__init__()
        chosen = modules.select(subset)
        self.network = frozen_copy(chosen.parent)
        self.remaining = modules.masks.remaining(chosen.classes)
        """Share of the parent's maskable weights in the union, in [0, 1]."""
        device = next(self.network.parameters()).device
        self.register_buffer("classes", torch.tensor(chosen.classes, device=device))
        self._pass_of = distinct_passes(chosen)
        first = [self._pass_of.index(p) for p in range(self.passes)]
        self._layers = list(chosen.masks.masks)
        for i, (name, union) in enumerate(chosen.masks.union().items()):
            self.network.get_parameter(name).mul_(union.to(device))
            self.register_buffer(f"mask_{i}", chosen.masks.masks[name][first].to(device))
        self._statistics = list(chosen.statistics)
        for i, values in enumerate(chosen.statistics.values()):
            self.register_buffer(f"statistic_{i}", values[first].clone())
        self.register_buffer("grafting_weight", chosen.grafting_weight.clone())
        self.register_buffer("grafting_bias", chosen.grafting_bias.clone())

    @property
    def passes(self) -> int:
        """How many times a prediction calls the network: once for every different mask among its modules."""
        return max(self._pass_of) + 1

    def log_odds(self, inputs: Tensor) -> Tensor:
        """Return each module's log-odds d, the logit of "this class" minus that of "another": [B, len(subset)]."""
        weights = {name: self.network.get_parameter(name) for name in self._layers}
        if not torch.compiler.is_compiling():  # a check of values cannot be exported
            self._check(inputs)
        inputs = inputs.to(weights[self._layers[0]])
        logits = []
        for p in range(self.passes):
            own = {name: weights[name] * self.get_buffer(f"mask_{i}")[p] for i, name in enumerate(self._layers)}
            own |= {name: self.get_buffer(f"statistic_{i}")[p] for i, name in enumerate(self._statistics)}
            logits.append(self._logits(own, inputs))
        return torch.stack([self._grafted(logits[p], m) for m, p in enumerate(self._pass_of)], dim=1)

    def _grafted(self, logits: Tensor, m: int) -> Tensor:
        """Return the log-odds [B] of module m: at full precision under autocast, too: rounded, they would tie."""
        weight, bias = self.get_buffer("grafting_weight")[m], self.get_buffer("grafting_bias")[m]
        with torch.autocast(logits.device.type, enabled=False):
            return grafting.log_odds(grafting.graft(logits.to(weight.dtype), weight, bias))

    def _logits(self, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
        try:
            return functional_call(self.network, parameters, inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not inputs.is_contiguous():  # a network that views its feature maps takes no channels-last images
                return self._logits(parameters, inputs.contiguous())
            raise ValueError(f"inputs: the network fails on shape {tuple(inputs.shape)}: {error}") from error

    def train(self, mode: bool = True) -> Recomposed:
        """Set the mode; the network within stays in eval mode, because nothing in it is trained."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the confidence of each module, sigmoid(d): [B, len(subset)]."""
        return self.log_odds(inputs).sigmoid()

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Return the class that wins the vote, one of the asked ones: int64 [B].

        The vote takes log-odds, whose order is that of the confidences but which do not saturate at 1.
        """
        return self.classes[self.log_odds(inputs).argmax(1)]

    @staticmethod
    def _check(inputs: Tensor) -> None:
        checks.tensor("inputs", inputs)
        if not inputs.is_floating_point():
            raise TypeError(f"inputs must be floating-point numbers, got {inputs.dtype}; see Dataset.inputs")
        if inputs.ndim < 2 or inputs.shape[0] == 0:
            raise ValueError(f"inputs must be a batch [B, ...] of at least one, got shape {tuple(inputs.shape)}")
        checks.finite("inputs", inputs)


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
