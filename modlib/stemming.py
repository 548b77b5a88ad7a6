"""Module stemming (paper, section "Module Stemming", Eq. 1): modules are pulled to use the same edges.

Two means. Initial score sharing: all modules start from the same scores. Stemming loss: with S* the scores of the
previous epoch and S_avg their mean over the modules::

    alpha / (L · M · N) · Σ_l Σ_m Σ_n |S_{c,l,m,n} − S_avg,{l,m,n}|^p

Eq. 1 writes L·M·N for layers of equal size, and N for two things, so the factor in front of one score's
`|S − S_avg|^p` in layer l (n_l scores there, n in all, L layers) has three readings, see `factors`.
Average and penalty act on what is ranked (`modlib.masking.ranked`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

REDUCTIONS = ("total", "layer", "scale_free")


def average_scores(ranked: Tensor) -> Tensor:
    """Return S_avg, the mean over modules: `ranked` is [R runs, C modules, ...], the mean [R, 1, ...].

    Where all modules have the same score it is that score, exactly: a mean that rounds would pull all of them with full
    strength (p = 1), in a direction that only the rounding decides.
    """
    first = ranked[:, :1]
    return first + (ranked - first).mean(1, keepdim=True)


def factors(
    alpha: float,
    weights: Mapping[str, Tensor],
    reduction: str,
    *,
    steps_per_epoch: int = 1,
    lr: float = 1.0,
    momentum: float = 0.0,
) -> dict[str, float]:
    """Return, by layer, the factor in front of one score's `|S − S_avg|^p`::

        total        alpha / n
        layer        alpha / (L · n_l)
        scale_free   alpha · std_l / (steps_per_epoch · lr / (1 − momentum))

    `scale_free` is ours: with alpha = 1 and p = 1 a score can move by one initial standard deviation std_l in an epoch,
    whatever the size of network and batch.
    """
    total = sum(weight.numel() for weight in weights.values())
    if reduction == "total":
        return dict.fromkeys(weights, alpha / total)
    if reduction == "layer":
        return {name: alpha / (len(weights) * weight.numel()) for name, weight in weights.items()}
    reach = steps_per_epoch * lr / (1.0 - momentum)
    return {name: alpha * _initial_std(weight) / reach for name, weight in weights.items()}


def _initial_std(weight: Tensor) -> float:
    fan_in = torch.nn.init._calculate_correct_fan(weight if weight.ndim > 1 else weight[None], "fan_in")
    return math.sqrt(2.0 / fan_in)


def stemming_loss(
    ranked: Mapping[str, Tensor], average: Mapping[str, Tensor], factor: Mapping[str, float], p: int
) -> Tensor:
    """Return the stemming loss of one module, a scalar: `Σ_l factor_l · Σ |S − S_avg|^p`."""
    terms = [factor[name] * (ranked[name] - average[name]).abs().pow(p).sum() for name in ranked]
    return torch.stack(terms).sum()


def add_gradient(gradient: Tensor, ranked: Tensor, average: Tensor, factor: Tensor, p: int) -> None:
    """Add the gradient of the stemming loss with respect to what is ranked, in place.

    Closed form: factor · sign(S − S_avg) for p = 1 (0 where they are equal), factor · 2 · (S − S_avg) for p = 2.
    """
    difference = ranked - average
    gradient.addcmul_(difference.sign() if p == 1 else 2.0 * difference, factor)
