"""The pull of Eq. 1 at the size of the paper's networks: how far it moves a score, and what it works against.

With p = 1 the pull on a score has one strength, the factor of `modlib.stemming.factors`, whatever its distance. What it
can do in an epoch follows from that, the rate, the momentum and the steps, without training anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn

from modlib import masking, stemming
from modlib.modules import Modules
from modlib.study import figures, names, tables
from modlib.zoo import parents

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True)
class Setting:
    """What a network is decomposed on, and how: its data, their official training images and classes.

    `lr`, `batch`: rate and batch size of the decomposition (Table 4).
    """

    data: str
    images: int
    classes: int = 10
    lr: float = 0.1
    batch: int = 32

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.images // self.batch)

    @property
    def moves(self) -> float:
        """How far a constant gradient of 1 moves a score in an epoch."""
        return self.lr / (1 - MOMENTUM) * self.steps


SETTINGS = {
    "fc1": Setting("MNIST", 60_000),
    "vgg16_quarter": Setting("CIFAR-10", 50_000),
    "vgg16": Setting("CIFAR-10", 50_000),
    "resnet50": Setting("SVHN", 73_257),
    "wrn28_10": Setting("CIFAR-100", 50_000, classes=100, lr=0.01, batch=512),
}
"""Those of the paper's smallest network, of its three large ones, and of VGG16 at a quarter of the width."""


def untrained() -> dict[str, nn.Module]:
    """Return the networks of `SETTINGS`, untrained; only their shapes matter."""
    made: dict[str, nn.Module] = {}
    for which, setting in SETTINGS.items():
        if which in parents.FC:
            made[which] = parents.fc(parents.FC[which], 784)
        else:
            made[which] = parents.CONVOLUTIONAL[which](num_classes=setting.classes)
    return made


@dataclass(frozen=True)
class Strength:
    """Eq. 1 at α = 1, in one of its readings, in one network of `SETTINGS`.

    `layers`: a row a layer. `size`: its scores; `sigma`: their initial standard deviation; `factor`: of Eq. 1; `reach`:
    how far that moves a score in an epoch at most, in `sigma`; `equal`: the α at which it is as strong as weight decay
    is on a score of one `sigma`.
    """

    network: str
    reading: str
    layers: pd.DataFrame

    @property
    def setting(self) -> Setting:
        """How the network is decomposed."""
        return SETTINGS[self.network]

    @property
    def n(self) -> int:
        """The scores of the network."""
        return int(self.layers["size"].sum())

    def mean(self, quantity: str) -> float:
        """Return the mean of a column over all scores: every layer counts as often as it has some."""
        return float(np.average(self.layers[quantity], weights=self.layers["size"]))

    @property
    def decay(self) -> float:
        """Weight decay leaves exp(-decay) of a score in an epoch."""
        return WEIGHT_DECAY * self.setting.moves

    @property
    def until(self) -> float:
        """The epochs in which decay alone shrinks a score of one sigma to where α = 1 holds it."""
        return math.log(max(self.mean("equal"), 1.0)) / self.decay


Strengths = Mapping[tuple[str, str], Strength]
"""By network and reading."""


def strengths(networks: Mapping[str, nn.Module]) -> dict[tuple[str, str], Strength]:
    """Return the strength of Eq. 1 in each of the `networks` of `SETTINGS`, by each reading."""
    found = {}
    for which, network in networks.items():
        weights, own = masking.maskable_parameters(network), SETTINGS[which]
        sigma = stemming.factors(1.0, weights, "scale_free")  # of a reach of 1: the initial standard deviations
        for reading in stemming.REDUCTIONS:
            factor = stemming.factors(1.0, weights, reading, steps_per_epoch=own.steps, lr=own.lr, momentum=MOMENTUM)
            layers = pd.DataFrame({"size": masking.sizes(weights), "sigma": sigma, "factor": factor})
            reach, equal = (
                layers["factor"] * own.moves / layers["sigma"],
                WEIGHT_DECAY * layers["sigma"] / layers["factor"],
            )
            found[which, reading] = Strength(which, reading, layers.assign(reach=reach, equal=equal))
    return found


def median_apart(modules: Modules) -> float:
    """Return the median distance of a score from its mean over the modules, in initial standard deviations."""
    if modules.scores is None:
        raise ValueError("modules: have no scores; only those of a decomposition just made in one process do")
    sigma = stemming.factors(1.0, masking.maskable_parameters(modules.parent), "scale_free")
    apart = [((scores - scores.mean(0)) / sigma[name]).flatten() for name, scores in modules.scores.items()]
    return float(torch.cat(apart).abs().median())


def span(values: pd.Series, digits: int = 2) -> str:
    """Return the smallest and the largest of some values in words; one number where they read the same."""
    low, high = f"{values.min():.{digits}g}", f"{values.max():.{digits}g}"
    return low if low == high else f"{low} to {high}"


def reach_table(found: Strengths) -> Markdown:
    """Return how far Eq. 1 can move a score."""
    shown = [
        {
            "network": f"{one.setting.data} {names.of_model(which)}",
            "scores n": f"{one.n:,}",
            "reading": f"`{reading}`",
            "factor": span(one.layers["factor"]),
            "moves in an epoch by (σ), by layer": span(one.layers["reach"]),
            "mean over scores": f"{one.mean('reach'):.2g}",
            "FC1 / this": f"{found['fc1', reading].mean('reach') / one.mean('reach'):,.0f}",
        }
        for (which, reading), one in found.items()
    ]
    return tables.table(
        pd.DataFrame(shown),
        "The stemming loss at α = 1 in the paper's networks and in our reduced one: factor in front of one score, "
        "and how far it can move a score in an epoch (p = 1).",
        "tab-deep-reach",
    )


READINGS = {
    "total": figures.COLOURS["published"],
    "layer": figures.COLOURS["TI-I"],
    "scale_free": figures.COLOURS["ours"],
}
"""The readings of Eq. 1 and their colours."""


def draw_reach(found: Strengths) -> Figure:
    """Draw how far Eq. 1 can move a score against the number of scores: the span over layers, and the mean."""
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.4))
    for shift, (reading, colour) in zip((-1, 0, 1), READINGS.items(), strict=True):
        for which in SETTINGS:
            one = found[which, reading]
            x, reach = one.n * 1.12**shift, one.layers["reach"]  # beside each other
            ax.plot([x, x], [reach.min(), reach.max()], color=colour, linewidth=2, alpha=0.6)
            label = reading if which == "fc1" else None
            ax.plot(x, one.mean("reach"), "o", color=colour, markersize=5, label=label)
    for i, which in enumerate(SETTINGS):
        height = 1.01 if i % 2 == 0 else 1.06  # names that do not touch
        ax.text(
            found[which, "total"].n,
            height,
            names.of_model(which),
            transform=ax.get_xaxis_transform(),
            ha="center",
            fontsize=8,
        )
    ax.axhline(1, color="0.4", linestyle="--", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="maskable weights", ylabel="moves in an epoch by (σ)")
    ax.legend(frameon=False, title="reading of Eq. 1")
    return figure


def decay_table(found: Strengths) -> Markdown:
    """Return the pull of Eq. 1 beside weight decay."""
    shown = [
        {
            "network": f"{one.setting.data} {names.of_model(which)}",
            "steps of an epoch": f"{one.setting.steps:,}",
            "reading": f"`{reading}`",
            "decay of a score of one σ": f"{WEIGHT_DECAY * one.mean('sigma'):.1e}",
            "pull at α = 1": f"{one.mean('factor'):.1e}",
            "α where they are equal": _rounded(one.mean("equal")),
            "decay leaves after an epoch": tables.percent(math.exp(-one.decay), 0),
            "epochs until α = 1 is stronger": _rounded(one.until),
        }
        for (which, reading), one in found.items()
    ]
    return tables.table(
        pd.DataFrame(shown),
        f"The pull of Eq. 1 against weight decay (λ = {WEIGHT_DECAY:g}), means over scores. Last column: how long "
        "decay alone would take to shrink a score of one σ to where α = 1 holds it.",
        "tab-deep-decay",
    )


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
