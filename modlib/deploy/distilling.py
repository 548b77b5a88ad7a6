"""Distillation without labels: a small network is trained for a minute to say what its parent says of some classes.

Training, if cheap and free of labels: not a part of the closed form (`modlib.deploy.repair`), and never mixed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import kl_div

from modlib.parent import called, each_tensor, in_parts, number_of_rows, rows_of
from modlib.precision import undisturbed
from modlib.seeds import generator

BATCH = 64


@undisturbed()
def distil(
    small: nn.Module,
    parent: nn.Module,
    inputs: Any,
    subset: Sequence[int],
    *,
    steps: int,
    seed: int,
    rate: float = 1e-3,
    mirrored: bool = False,
) -> nn.Module:
    """Train all weights of `small` in place towards the parent's softmax over `subset`, and return it in eval mode.

    `inputs`: images as the parent takes them; `mirrored`: every other step sees them from right to left, where images
    [B, C, H, W] mean the same so. AdamW from `rate` down to nothing along a cosine; Hinton, Vinyals and Dean 2015 at
    temperature 1. Dropout stays off.
    """
    views: list[Callable[[Any], Any]] = [lambda x: x, lambda x: each_tensor(x, lambda v: v.flip(-1))][: 1 + mirrored]
    with torch.no_grad():
        wanted = [
            torch.cat([called(parent, view(part))[:, list(subset)].log_softmax(1) for part in in_parts(inputs, BATCH)])
            for view in views
        ]
    optimiser = torch.optim.AdamW(small.requires_grad_(True).parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    train_statistics_alone(small)
    rows, draw = number_of_rows(inputs), generator(seed, "distillation")
    for step in range(steps):
        taken, which = torch.randint(rows, (min(BATCH, rows),), generator=draw), step % len(views)
        given = views[which](rows_of(inputs, taken))
        loss = kl_div(called(small, given).log_softmax(1), wanted[which][taken], reduction="batchmean", log_target=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return small.eval().requires_grad_(False)


def train_statistics_alone(network: nn.Module) -> None:
    """Put normalisations in training mode, and nothing else: dropout stays off."""
    network.eval()
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()
