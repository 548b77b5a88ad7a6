"""Whole channels cut out, chosen by this rule or that, and repaired without labels: ours, and what it is made of.

With `ranking` "gamma" (the scale of the normalisation behind a channel: Liu et al. 2017, "Learning Efficient
Convolutional Networks through Network Slimming", without its training) or "l1" (the sum of a filter's absolute weights:
Li et al. 2017, "Pruning Filters for Efficient ConvNets") and `repair` "statistics" it is what a user would write first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from modlib.data import Data
from modlib.decomposers.channels import Channels, ChannelSaliency
from modlib.study.records import Store
from modlib.study.small_networks import WIDTHS
from modlib.study.ways.fitting import Labelled, fit_labels
from modlib.study.ways.interface import Made


@dataclass(frozen=True)
class KeptChannels:
    """Channels of a subset by `Channels.recompose`, whose arguments the fields are.

    `class_blind`: channels are chosen, and what is left repaired, on images of all classes. `tuned`: steps of training
    afterwards on the labels of the subset, at `rate`: with them it is no longer free of labels.
    """

    keep: float
    ranking: str = "variance"
    repair: str = "nonlinear"
    rule: str = "explained"
    class_blind: bool = False
    images: int = 2000
    distilled: int = 0
    mirrored: bool = False
    tuned: int = 0
    rate: float = 1e-3
    precision: str = "float32"

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return ("channels",)

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> Channels:
        """Return the parent's channels: what can be cut, and saliencies of all classes."""
        return ChannelSaliency().decompose(parent, data, seed=seed, device="cpu")

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: Channels) -> Made:
        """See `Way.make`."""
        small = prepared.recompose(
            subset,
            data=data,
            keep=self.keep,
            images=self.images,
            distilled=self.distilled,
            rate=self.rate,
            mirrored=self.mirrored,
            repair=self.repair,
            rule=self.rule,
            ranking=self.ranking,
            multiple=WIDTHS,
            known=range(data.num_classes) if self.class_blind else None,
        )
        if not self.tuned:
            return Made(small)
        ours = Labelled.of(data, subset)
        fit_labels(
            small,
            ours,
            steps=self.tuned,
            rate=self.rate,
            seed=seed,
            purpose="tuned channels",
            precision=self.precision,
        )
        return Made(small, len(ours.rows))
