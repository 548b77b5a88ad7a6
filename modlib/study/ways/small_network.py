"""A small network trained for the subset: from scratch on labels, or distilled from the restricted parent.

It is the parent's own architecture at narrower layers, all of the same share, within the same budget as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modlib.data import Data
from modlib.decomposers.channels import Channels, ChannelSaliency
from modlib.deploy.distilling import distil
from modlib.parent import brought
from modlib.seeds import generator
from modlib.study.records import Store
from modlib.study.small_networks import WIDTHS
from modlib.study.ways.fitting import Labelled, fit_labels
from modlib.study.ways.interface import Made


@dataclass(frozen=True)
class SmallNetwork:
    """The parent's architecture within `keep` of its multiply-adds, trained anew.

    `steps` at `rate`: see `modlib.study.ways.fitting.fit` and `modlib.deploy.distilling`. `images`: unlabelled, for
    distilling. `mirrored`: whether they are seen from right to left as well. `precision`: of training on labels.
    """

    keep: float
    steps: int
    rate: float
    distilled: bool = False
    images: int = 4000
    mirrored: bool = False
    precision: str = "float32"

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return ("widths",)

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> Channels:
        """Return what can be made narrower."""
        return ChannelSaliency().decompose(parent, data, seed=seed, device="cpu")

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: Channels) -> Made:
        """See `Way.make`."""
        small = prepared.recompose(
            subset, data=data, keep=self.keep, images=4, repair=None, rule="uniform", ranking="l1", multiple=WIDTHS
        )
        _anew(small, seed)
        ours = Labelled.of(data, subset)
        if not self.distilled:
            fit_labels(
                small,
                ours,
                steps=self.steps,
                rate=self.rate,
                seed=seed,
                purpose="small network",
                precision=self.precision,
            )
            return Made(small, len(ours.rows))
        drawn = torch.randperm(len(ours.rows), generator=generator(seed, "ways", "distilled images"))[: self.images]
        given = brought(ours.source.batch(ours.rows[drawn]).inputs, next(small.parameters()))
        distil(small, parent, given, subset, steps=self.steps, seed=seed, rate=self.rate, mirrored=self.mirrored)
        return Made(small)


def _anew(network: nn.Module, seed: int) -> None:
    """Give a network the weights that an untrained one has, drawn by a seed; convolutions start as the zoo's do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator(seed, "ways", "untrained"))))
        part: Any
        for part in network.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
