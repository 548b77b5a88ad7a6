"""A mask of whole filters for every class, trained together, after GradSplitter.

Qi et al. 2022, "Patching Weak Convolutional Neural Network Models through Modularization and Composition" (ASE): every
class gets a mask of filters, by the sign of real numbers from 1, and a head that reads the masked network's logits.
First the heads are trained, then heads and masks, on the cross-entropy of the heads' answers plus α times the share of
filters that stay. Weights stay as they are.

Written anew from the paper. Simplified: heads are linear, and their answers go into the softmax without a sigmoid; the
phases don't alternate; far fewer steps; hidden units of linear layers have masks, too. A subset is the union of its
masks in one network that is cut physically, read by the subset's heads; or, as theirs, a network for each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib import masking
from modlib.data import Data
from modlib.deploy import slicing
from modlib.parent import each_tensor, frozen_copy
from modlib.study.records import Store
from modlib.study.ways.fitting import Labelled, example_of, fit, logits_at
from modlib.study.ways.heads import Headed, SideBySide, head_of
from modlib.study.ways.interface import Made
from modlib.study.ways.units import masked, passing


@dataclass(frozen=True)
class Split:
    """A parent's filters by class: unit -> bool [C, channels]; and the heads of all classes."""

    kept: Mapping[str, Tensor]
    head: nn.Linear
    labelled_images: int


@dataclass(frozen=True)
class SplitFilters:
    """`alpha` times the share of filters that stay is added to the loss; `union`: one network for a subset, else K.

    `head_steps`, `steps`: of the two phases, at `rate`.
    """

    alpha: float
    steps: int
    rate: float
    head_steps: int = 50
    union: bool = True
    precision: str = "float32"

    @property
    def shared(self) -> tuple[Any, ...]:
        """See `Way.shared`."""
        return self.alpha, self.steps, self.rate, self.head_steps, self.precision

    def prepare(self, parent: nn.Module, data: Data, seed: int, store: Store) -> Split:
        """Return the filters and the head of every class."""
        network, every = frozen_copy(parent), range(data.num_classes)
        anatomy, images = slicing.anatomy(network, example_of(data, parent)), Labelled.of(data, every)
        numbers = {u.root: nn.Parameter(torch.ones(data.num_classes, u.channels)) for u in anatomy.units}
        filters = sum(values.numel() for values in numbers.values())
        head = head_of(every, data.num_classes)

        def answers(logits: Tensor) -> Tensor:  # [B, C, N]: of class c's network, read by class c's head
            return (logits * head.weight).sum(2) + head.bias

        def of_whole(inputs: Any, targets: Tensor) -> Tensor:
            logits = logits_at(network, inputs, self.precision).detach()
            return nn.functional.cross_entropy(answers(logits[:, None].expand(-1, data.num_classes, -1)), targets)

        def of_masked(inputs: Any, targets: Tensor) -> Tensor:
            repeated = each_tensor(inputs, lambda v: v.repeat_interleave(data.num_classes, 0))
            logits = logits_at(network, repeated, self.precision).view(len(targets), data.num_classes, -1)
            share = torch.stack([_mask(values).sum() for values in numbers.values()]).sum() / filters
            return nn.functional.cross_entropy(answers(logits), targets) + self.alpha * share

        def of_classes(root: str, output: Tensor, axis: int) -> Tensor:  # rows go through the classes, image by image
            mask = _mask(numbers[root])
            return masked(output, mask.repeat(len(output) // len(mask), 1), axis)

        own = list(head.parameters())
        fit(of_whole, own, images, steps=self.head_steps, rate=self.rate, seed=seed, purpose="heads")
        both = [*own, *numbers.values()]
        with passing(network, anatomy, of_classes):
            fit(of_masked, both, images, steps=self.steps, rate=self.rate, seed=seed, purpose="split")
        return Split({root: values.detach() > 0 for root, values in numbers.items()}, head, len(images.rows))

    def make(self, parent: nn.Module, data: Data, subset: Sequence[int], seed: int, prepared: Split) -> Made:
        """See `Way.make`."""
        groups = [list(subset)] if self.union else [[c] for c in subset]
        networks = [self._of(parent, data, group, prepared) for group in groups]
        return Made(networks[0] if self.union else SideBySide(networks), prepared.labelled_images)

    def _of(self, parent: nn.Module, data: Data, classes: list[int], prepared: Split) -> nn.Module:
        """Return one network with the filters of some classes, and their heads."""
        union = {root: kept[classes].any(0) for root, kept in prepared.kept.items()}
        some = {root: kept if bool(kept.any()) else torch.arange(len(kept)) == 0 for root, kept in union.items()}
        small = slicing.cut(
            frozen_copy(parent), example_of(data, parent), {root: kept.nonzero()[:, 0] for root, kept in some.items()}
        )
        head = head_of(classes, data.num_classes)
        with torch.no_grad():
            head.weight.copy_(prepared.head.weight[classes])
            head.bias.copy_(prepared.head.bias[classes])
        return Headed(small, head)


def _mask(numbers: Tensor) -> Tensor:
    return masking.straight_through(numbers > 0, numbers)
