"""Trained channel masks: the paper's method with whole channels for edges, then our cut and repair.

Every class c has a score for each channel, S_c; its mask keeps the best `share` of every unit, h(S_c), and is trained
with the gradient that passes straight through (paper, section 3.1), on the parent's frozen weights. The loss is the
paper's: the cross-entropy of "class c or another", and α times the distance to the scores' average over the classes
(Eq. 1). A subset keeps the channels with the highest mean score over its classes.

It answers whether masks that are *trained* find better channels than what few images explain (`KeptChannels`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib import masking
from modlib.data import Data
from modlib.decomposers.channels import Channels, ChannelSaliency
from modlib.deploy.saliency import log_odds
from modlib.precision import undisturbed
from modlib.study.records import Store
from modlib.study.small_networks import WIDTHS
from modlib.study.ways.fitting import Labelled, logits_at
from modlib.study.ways.interface import Made
from modlib.study.ways.units import masked, passing


@dataclass(frozen=True)
class Scored:
    """A parent's channels, and the scores that were trained: unit -> float32 [C, channels]."""

    channels: Channels
    scores: Mapping[str, Tensor]
    labelled_images: int


@dataclass(frozen=True)
class TrainedChannels:
    """`steps` of AdamW at `rate` for each class, by turns; `share`: of a unit's channels that a class's mask keeps.

    `alpha`: of the stemming loss, a mean over all scores. Scores start from the ranks of the classical saliency, in
    [0, 1]. `keep`, `images`: see `Channels.recompose`.
    """

    keep: float
    steps: int
    rate: float
    share: float = 0.5
    alpha: float = 1.0
    images: int = 2000
    precision: str = "float32"

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return self.steps, self.rate, self.share, self.alpha, self.precision

    @undisturbed()
    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> Scored:
        """Return scores of all channels for all classes."""
        channels = ChannelSaliency().decompose(parent, data, seed=seed, device="cpu")
        network, classes = channels.parent, channels.classes
        scores = {root: nn.Parameter(_ranks(values)) for root, values in channels.saliency.items()}
        optimiser = torch.optim.AdamW(scores.values(), lr=self.rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps * len(classes))
        batches = [self._batches(data, c, seed, next(network.parameters())) for c in classes]
        row = 0

        def of_class(root: str, output: Tensor, axis: int) -> Tensor:
            return masked(output, self._mask(scores[root][row]), axis)

        with passing(network, channels.anatomy, of_class):
            for _ in range(self.steps):
                for row, drawn in enumerate(batches):
                    inputs, mine = next(drawn)
                    odds = log_odds(logits_at(network, inputs, self.precision), [classes[row]])
                    loss = nn.functional.binary_cross_entropy_with_logits(odds, mine)
                    apart = torch.cat([(s[row] - s.detach().mean(0)).abs() for s in scores.values()]).mean()
                    optimiser.zero_grad()
                    (loss + self.alpha * apart).backward()
                    optimiser.step()
                    schedule.step()
        return Scored(channels, {root: s.detach() for root, s in scores.items()}, len(data.train_labels))

    def _mask(self, scores: Tensor) -> Tensor:
        keep = max(1, round(self.share * len(scores)))
        return masking.straight_through(masking.top_k_mask(scores.detach(), keep).to(scores), scores)

    def _batches(self, data: Data, c: int, seed: int, like: Tensor) -> Any:
        """Yield images of class c and as many of the others, and which are of class c: 1.0 or 0.0."""
        others = [i for i in range(data.num_classes) if i != c]
        drawn = (
            Labelled.of(data, classes).batches(self.steps, seed, f"trained channels {c} {i}", like)
            for i, classes in enumerate(([c], others))
        )
        for (mine, _), (rest, _) in zip(*drawn, strict=True):
            yield torch.cat([mine, rest]), torch.tensor([1.0] * len(mine) + [0.0] * len(rest))

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: Scored) -> Made:
        """See `Way.make`."""
        best_first = {
            root: scores[list(subset)].mean(0).argsort(descending=True, stable=True)
            for root, scores in prepared.scores.items()
        }
        small = prepared.channels.recompose(
            subset, data=data, keep=self.keep, images=self.images, order=best_first, multiple=WIDTHS
        )
        return Made(small, prepared.labelled_images)


def _ranks(values: Tensor) -> Tensor:
    """Return the rank of every channel among those of its unit, per class, from 0 (the least) to 1: [C, channels]."""
    return values.argsort(1).argsort(1).float() / max(1, values.shape[1] - 1)
