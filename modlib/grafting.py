"""Grafting layers (paper, section "Grafting Layer"): N logits of the masked parent -> "another class", "this class".

Every module has one small linear layer of its own behind the parent's last layer, trained with a low rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

INITS = ("random", "own_logit")


def initial_grafting(
    classes: Sequence[int], num_logits: int, init: str, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return weight [C, 2, N] and bias [C, 2] of the grafting layers of the modules of `classes`.

    Row 0 is "another class", row 1 "this class". `random`: uniform in ±1/sqrt(N), torch's default for a linear layer.
    `own_logit` (ours): the layer starts by reading the parent, +1 on logit c for "this class" and +1/(N-1) on each of
    the others for "another"; bias 0.
    """
    if init == "random":
        bound = 1.0 / math.sqrt(num_logits)
        weight = torch.empty(len(classes), 2, num_logits, dtype=dtype).uniform_(-bound, bound, generator=generator)
        bias = torch.empty(len(classes), 2, dtype=dtype).uniform_(-bound, bound, generator=generator)
        return weight, bias
    own = torch.nn.functional.one_hot(torch.tensor(list(classes)), num_logits).to(dtype)
    weight = torch.stack([(1 - own) / (num_logits - 1), own], dim=1)
    return weight, torch.zeros(len(classes), 2, dtype=dtype)


def graft(logits: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the grafted logits [..., 2] of one module: `logits` [..., N], `weight` [2, N], `bias` [2]."""
    return torch.nn.functional.linear(logits, weight, bias)


def log_odds(grafted: Tensor) -> Tensor:
    """Return d = logit of "this class" minus logit of "another", [...], of `grafted` [..., 2].

    The module's confidence, the softmax of its two logits, is sigmoid(d): the order of the confidences is that of d.
    """
    return grafted[..., 1] - grafted[..., 0]
