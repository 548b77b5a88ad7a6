"""Which channels some classes need: what a few channels explain of what all of them say about the classes.

Over images of the classes S and all places, a [C] are the values of a unit's channels as they pass on, and g [C] the
gradient of the parent's log-odds within S: of the class of S that it takes an image for, against the others of S (of a
single class: against all others). No labels are needed.

Cutting all channels but J, and letting the layers behind make up for it linearly (`modlib.deploy.repair`), leaves of
the covariance S = Cov[a] what J does not explain::

    R(J) = S − S[:, J] S[J, J]⁻¹ S[J, :]

and to first order it changes the log-odds by a variance of tr(G R(J)), G = E[g gᵀ], where errors at different places
are independent. J is chosen greedily, one channel after another (column subset selection: Farahat, Ghodsi and Kamel
2011), with G + diag(G) in place of G: the diagonal is what errors cost that channels do not have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from modlib.deploy.slicing import NORMALISATIONS, Anatomy, Unit, channel_axis
from modlib.parent import called


@dataclass(frozen=True)
class Moments:
    """Sums over images and places of one unit's C channels; those of several layers or images add up.

    `rows`: images times places. `values` [C]: Σ a. `products` [C, C]: Σ a aᵀ. `gradients` [C, C]: Σ g gᵀ. `taylor` [C]:
    over images the sum of abs(Σ a · g), places summed: the classical saliency (Molchanov et al. 2017). All float32.
    """

    rows: int
    values: Tensor
    products: Tensor
    gradients: Tensor
    taylor: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Ranking:
    """Channels in the order in which they are kept (int64 [C]), and the share explained by so many (float64 [C])."""

    order: Tensor
    explained: Tensor

    def needed(self, share: float) -> int:
        """Return how many channels explain a share in (0, 1]; all of them for 1."""
        return len(self.order) if share >= 1 else int((self.explained < share).sum()) + 1


def by_variance(moments: Moments) -> Ranking:
    """Rank channels by what each adds to what those before it explain, see above."""
    mean = moments.values.double() / moments.rows
    left = moments.products.double() / moments.rows - mean[:, None] * mean
    cost = moments.gradients.double() / moments.rows
    cost += torch.diag(cost.diagonal())
    weighed = cost @ left
    whole, silent = float(weighed.diagonal().sum()), 1e-12 * float(left.diagonal().mean())
    waiting = torch.ones(len(mean), dtype=torch.bool)
    order: list[int] = []
    gains: list[float] = []
    while bool(waiting.any()):
        variance = left.diagonal()
        gain = (left * weighed).sum(0) / variance.clamp(min=silent)
        gain[~waiting | (variance <= silent)] = -1.0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        order.append(best)
        gains.append(float(gain[best]))
        waiting[best] = False
        step = left[:, best] / variance[best].sqrt()
        weighed -= (cost @ step)[:, None] * step
        left = left - step[:, None] * step
    rest = waiting.nonzero()[:, 0].tolist()  # they add nothing
    shares = torch.tensor(gains + [0.0] * len(rest), dtype=torch.float64).cumsum(0) / max(whole, 1e-300)
    return Ranking(torch.tensor(order + rest), shares)


def by_size(saliency: Tensor) -> Ranking:
    """Rank channels by their own saliency [C], whatever the others say; the share is of the sum of saliencies."""
    ordered = saliency.double().sort(descending=True, stable=True)
    return Ranking(ordered.indices, ordered.values.cumsum(0) / ordered.values.sum().clamp(min=1e-300))


def magnitudes(network: nn.Module, unit: Unit) -> Tensor:
    """Return the sum of the absolute weights that give each channel of a unit: float32 [C] (Li et al. 2017)."""
    layers: list[Any] = [network.get_submodule(name) for name in unit.layers]
    return torch.stack([layer.weight.detach().flatten(1).abs().sum(1) for layer in layers]).sum(0).float().cpu()


def scales(network: nn.Module, unit: Unit) -> Tensor:
    """Return the absolute scale of the normalisations behind each channel: float32 [C] (Liu et al. 2017).

    Of a unit that no normalisation with a scale stands behind, its `magnitudes`.
    """
    norms: list[Any] = [network.get_submodule(name) for name in unit.read_at]
    found = [norm.weight.detach().abs() for norm in norms if isinstance(norm, NORMALISATIONS) and norm.affine]
    return torch.stack(found).sum(0).float().cpu() if found else magnitudes(network, unit)


def log_odds(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Return the log-odds of the likeliest of some classes against the others of these: [B, N] -> [B], see above."""
    if len(classes) == 1:
        others = [i for i in range(logits.shape[1]) if i != classes[0]]
        return logits[:, classes[0]] - logits[:, others].logsumexp(1)
    within = logits[:, list(classes)]
    best = within.argmax(1, keepdim=True)
    return within.gather(1, best)[:, 0] - within.scatter(1, best, -torch.inf).logsumexp(1)


def measure(network: nn.Module, anatomy: Anatomy, batches: Iterable[Any], classes: Sequence[int]) -> dict[str, Moments]:
    """Return the moments of every unit, by root, over images of `classes`; of several layers of a unit the sums."""
    return _summed(network, anatomy, batches, classes, _moments)


def taylor(network: nn.Module, anatomy: Anatomy, batches: Iterable[Any], classes: Sequence[int]) -> dict[str, Tensor]:
    """Return `Moments.taylor` of every unit alone, as `measure` does: the other sums take most of its time."""
    return _summed(network, anatomy, batches, classes, _taylor)


M = TypeVar("M", Moments, Tensor)


def _summed(
    network: nn.Module,
    anatomy: Anatomy,
    batches: Iterable[Any],
    classes: Sequence[int],
    of: Callable[[Tensor, int], M],
) -> dict[str, M]:
    """Return the sums of what `of` finds in the outputs of each unit and their gradients, by the unit's root.

    `of`: an output, with its gradient, and which axis of it the channels are -> what is summed.
    """
    read: dict[str, Tensor] = {}

    def listen(name: str, layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        read[name] = output if output.requires_grad else output.requires_grad_()
        read[name].retain_grad()
        return output.clone()  # what follows may work in place

    layers = {name: network.get_submodule(name) for unit in anatomy.units for name in unit.read_at}
    found: dict[str, M] = {}
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(listen, name)))
        for batch in batches:
            read.clear()
            with torch.enable_grad():
                log_odds(called(network, batch), classes).sum().backward()
            for unit in anatomy.units:
                first, *others = (of(read[name], channel_axis(layers[name])) for name in unit.read_at)
                here = reduce(add, others, first)
                found[unit.root] = found[unit.root] + here if unit.root in found else here
    return found


def _moments(output: Tensor, axis: int) -> Moments:
    """Return the moments of one layer's output; `axis`: of its channels."""
    values, gradients = _passed_on(output, axis)
    a, g = (v.transpose(0, 1).flatten(1).float() for v in (values, gradients))
    return Moments(a.shape[1], a.sum(1).cpu(), (a @ a.T).cpu(), (g @ g.T).cpu(), _taylor(output, axis))


def _taylor(output: Tensor, axis: int) -> Tensor:
    values, gradients = _passed_on(output, axis)
    return (values * gradients).sum(2).abs().sum(0).float().cpu()


def _passed_on(output: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return values and gradients [B, C, places] of an output; values are what a ReLU would pass on."""
    assert output.grad is not None
    values, gradients = (_by_channel(v, axis) for v in (output.detach(), output.grad))
    return torch.where((values > 0) | (gradients != 0), values, 0.0), gradients


def _by_channel(values: Tensor, axis: int) -> Tensor:
    """Return [B, C, places]."""
    moved = values.movedim(axis, 1)
    return moved.reshape(*moved.shape[:2], -1)
