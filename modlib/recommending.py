"""The recommended recipe: settings chosen by what the network is, and by how long a decomposition may take.

How each constant was chosen, on held-out images of small parents of eight kinds, is on the page "Settings that work".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, examination, masking
from modlib.data import Data, check_data
from modlib.engines import make_engine
from modlib.engines.sharding import Shard
from modlib.engines.start import NORMALISATIONS, epoch_order, resolve_device
from modlib.engines.vectorised import fully_connected_layers
from modlib.parent import unwrapped, with_logits
from modlib.precision import undisturbed
from modlib.recipes import Recipe, Run

SMALL, KEPT = 5000, 0.4
"""Fully connected networks of fewer maskable weights than `SMALL` keep the share `KEPT`: a tenth is a few edges."""
VERSION = 1
"""Raised when the same network and data get other settings."""
EPOCHS = 10
"""Epochs that the steps are shared out among: the first is without stemming, and each looks at the others anew."""
STEPS = 200
"""Steps of a module where no time is given."""
STEPS_NORMALISED = 400
"""The same with batch normalisation, whose statistics have to follow the masks."""
STEPS_FULLY_CONNECTED = 3000
"""The same where all modules take a step at once, which costs little."""
BATCH = 64
TIMED = 3
"""Steps that are timed, after as many that are not."""


def recommended(
    parent: nn.Module,
    data: Data,
    *,
    minutes: float | None = None,
    policy: masking.Policy = masking.default_policy,
    logits: Callable[[Any], Tensor] | None = None,
    device: str | torch.device = "auto",
    **changes: Any,
) -> Recipe:
    """Return settings for any network, with `changes`: what `modlib.cotrain` takes where it is given none.

    Scores start in the order of the weights' magnitude, grafting layers from the parent's own logits, and the vote is
    trained. By what the network is: fully connected parents (linear layers and ReLU, nothing else) keep a tenth of the
    edges of every layer, small ones (see `SMALL`) four tenths, pulled together by stemming. Others keep
    four tenths of all edges, shared out by the weights (`allocation="lamp"`); their masks hardly part, and nothing
    pulls them. With layers that keep running statistics,
    such as batch normalisation, steps are smaller, and twice as many. Losses are balanced where the most frequent class
    has ten times or more the images of the rarest.

    `minutes`: how long it may take on `device`, by the time of a few steps; default, a fixed number of steps, and the
    same recipe on every machine. `policy`, `logits`: as in `cotrain`. Raises ValueError for `minutes` that are not
    above 0, and for `changes` that are no settings of a `Recipe` or out of their range.
    """
    check_data(data)
    known = {f.name for f in fields(Recipe)}
    if not changes.keys() <= known:
        raise ValueError(f"settings: unknown {sorted(changes.keys() - known)}; there are {sorted(known)}")
    if minutes is not None:
        checks.positive("minutes", minutes)
    network = unwrapped(parent if logits is None else with_logits(parent, logits))
    masking.maskable_parameters(network, policy)
    plain, steps = _chosen(network)
    recipe = replace(plain, **{"balanced": examination.uneven(data)} | changes)
    if minutes is not None:
        steps = max(1, int(60 * minutes / _seconds_of_a_step(network, data, recipe, policy, device)))
    return replace(recipe, **_shared_out(steps, len(data.training().labels), recipe.batch_size) | changes)


def _chosen(network: nn.Module) -> tuple[Recipe, int]:
    """Return settings for a network, and how many steps; `epochs` follow from these and the data."""
    common = Recipe(
        k=0.1,
        alpha=4.0,
        epochs=EPOCHS,
        vote=0.9,
        init="magnitude",
        batch_size=BATCH,
        lr=0.03,
        schedule="cosine",
        grafting_init="own_logit",
    )
    layers = fully_connected_layers(network)
    if layers is not None:
        small = sum(layer.weight.numel() for _, layer in layers) < SMALL
        return (replace(common, k=KEPT) if small else common), STEPS_FULLY_CONNECTED
    other = replace(common, k=KEPT, alpha=0.0, allocation="lamp")
    if any(isinstance(layer, NORMALISATIONS) for layer in network.modules()):
        return replace(other, lr=0.01), STEPS_NORMALISED
    return other, STEPS


def _shared_out(steps: int, images: int, batch: int) -> dict[str, int | None]:
    """Return epochs and images of an epoch for so many steps: `EPOCHS`, or more where there are too few images."""
    wanted = math.ceil(steps / EPOCHS) * batch
    if wanted < images:
        return {"epochs": min(EPOCHS, steps), "images_per_epoch": wanted}
    return {"epochs": math.ceil(steps / math.ceil(images / batch)), "images_per_epoch": None}


@undisturbed()
def _seconds_of_a_step(
    network: nn.Module, data: Data, recipe: Recipe, policy: masking.Policy, device: str | torch.device
) -> float:
    """Return the seconds that a step of all modules takes; of several processes, what the first has found."""
    short = replace(recipe, shared_epochs=0, images_per_epoch=None)
    engine = make_engine("auto", [Run(network, short, 0, policy=policy)], data.present, data, resolve_device(device))
    order = epoch_order(len(data.training().labels), 0, 0)[None, : TIMED * recipe.batch_size]
    taken = 0.0
    for epoch in range(2):  # the first one warms up
        start = time.perf_counter()
        engine.train_epoch(order, epoch, None)
        engine.average()
        taken = time.perf_counter() - start
    return float(Shard.here().gather(taken)[0]) * recipe.batch_size / order.shape[1]
