"""Channels: a decomposition without training, into networks that are smaller and faster. Ours, not the paper's.

For every class and channel a saliency says how much the channel says about the class. For a subset of the classes the
channels with the largest mean saliency are kept, cut out physically (`modlib.deploy.slicing`) and repaired in closed
form against the parent (`modlib.deploy.repair`). What comes out is a plain network with one logit for each class of the
subset. Its weights are *not* the parent's, unlike those of the paper's modules. A first part: `Channels` recomposes,
and has no votes, file or report of its own yet; no result of it is in the book.

Saliency of channel j for class c, over images of c and as many others::

    mean of |Σ over places of a_j · dBCE_c / da_j| / the layer's mean

with a_j the channel's value and BCE_c the cross-entropy of "class c or not" under the parent's log-odds of c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from modlib import checks, masking
from modlib.cotraining import resolve_device
from modlib.data import Dataset
from modlib.deploy import measuring, slicing
from modlib.deploy.repair import repair
from modlib.parent import arguments, each_tensor, frozen_copy
from modlib.parent_checks import check_parent
from modlib.seeds import generator

COSTS = ("multiply_adds", "parameters")
MULTIPLE = 8
"""Widths are multiples of this, where a layer is wide enough: processors work on so many channels at once."""


@dataclass(frozen=True)
class ChannelSaliency:
    """Decomposes by channel saliencies, from `images` images of each class and as many others."""

    images: int = 250

    def decompose(
        self,
        parent: nn.Module,
        data: Dataset,
        *,
        seed: int,
        classes: Iterable[int] | None = None,
        device: str | torch.device = "auto",
    ) -> Channels:
        """See `modlib.decomposers.Decomposer`. Nothing is trained: seconds for all classes of a small network."""
        checks.whole("images", self.images, 1)
        check_parent(parent, data, masking.default_policy)
        where, known = resolve_device(device), range(data.num_classes)
        chosen = tuple(checks.subset(known if classes is None else classes, known))
        network = frozen_copy(parent).to(where)
        example = _rows(data, torch.arange(min(2, len(data.train_labels))), network)
        anatomy = slicing.anatomy(network, example)
        if not anatomy.units:
            raise ValueError(f"parent: no channels can be cut: {dict(anatomy.uncut)}")
        saliency = {unit.root: torch.empty(len(chosen), unit.channels) for unit in anatomy.units}
        for i, c in enumerate(chosen):
            rows = _of_class_and_others(data.train_labels, c, self.images, seed)
            for root, values in _saliency(
                network, anatomy, _batches(data, rows, network), data.train_labels[rows], c
            ).items():
                saliency[root][i] = values
        return Channels(network, chosen, anatomy, saliency, seed)


@dataclass(frozen=True)
class Channels:
    """The saliency of every channel for every class over one frozen parent: unit -> float32 [C, channels]."""

    parent: nn.Module
    classes: tuple[int, ...]
    anatomy: slicing.Anatomy
    saliency: Mapping[str, Tensor]
    seed: int

    def of_subset(self, subset: Iterable[int]) -> dict[str, Tensor]:
        """Return the saliency for a subset: the mean over its classes of each one's, by unit [channels]."""
        rows = [self.classes.index(c) for c in checks.subset(subset, self.classes)]
        return {root: (s / s.mean(1, keepdim=True).clamp(min=1e-30))[rows].mean(0) for root, s in self.saliency.items()}

    def recompose(
        self,
        subset: Iterable[int],
        *,
        data: Dataset,
        keep: float = 0.25,
        of: str = "multiply_adds",
        images: int = 500,
        ridge: float = 1e-2,
        rule: str = "coverage",
    ) -> nn.Module:
        """Return a plain network for `subset`: inputs [B, ...] -> logits [B, len(subset)], in that order.

        `keep`: the share of the parent's cost that is left at most, in (0, 1], `of` "multiply_adds" (for one image) or
        "parameters"; the last layer, which is cut to the subset, counts. `images`: training images of the subset that
        the repair sees, without their labels; 0 is no repair. `ridge`: see `modlib.deploy.repair`. `rule`: how a budget
        is shared out among the layers, one of `RULES`.
        """
        chosen = checks.subset(subset, self.classes)
        checks.share("keep", keep)
        checks.choice("of", of, COSTS)
        checks.choice("rule", rule, RULES)
        example = _rows(data, torch.arange(min(2, len(data.train_labels))), self.parent)
        saliency = self.of_subset(chosen)
        last, limit = self._last(), keep * measuring.cost(self.parent, example)[of]

        def made(strength: float) -> tuple[nn.Module, dict[str, Tensor]]:
            kept = {root: _largest(s, RULES[rule](s, strength)) for root, s in saliency.items()}
            small = slicing.cut(self.parent, example, {**kept, last: torch.tensor(sorted(chosen))})
            _reorder(small.get_submodule(last), [sorted(chosen).index(c) for c in chosen])
            return small, {**kept, last: torch.tensor(chosen)}

        small, kept = _within(made, lambda net: measuring.cost(net, example)[of] <= limit)
        if images:
            rows = _drawn(data.only(chosen).train_labels, images, self.seed)
            batches = _batches(data.only(chosen), rows, self.parent)
            repair(small, self.parent, batches, self._outputs_kept(kept, last), ridge, self.seed)
        return small

    def _last(self) -> str:
        """The layer that gives the logits."""
        return next(name for name, why in self.anatomy.uncut.items() if why == "gives the logits")

    def _outputs_kept(self, kept: Mapping[str, Tensor], last: str) -> dict[str, Tensor]:
        by_layer = {layer: kept[unit.root] for unit in self.anatomy.units for layer in unit.layers}
        return {**by_layer, last: kept[last]}


def _reorder(layer: Any, rows: list[int]) -> None:
    """Put the outputs of a layer, which a cut leaves in their old order, in the order of `rows`."""
    for values in (layer.weight, layer.bias):
        if values is not None:
            values.data = values.data[rows]


def uniform(saliency: Tensor, share: float) -> int:
    """The same share of every layer's channels."""
    return round(share * len(saliency))


def coverage(saliency: Tensor, share: float) -> int:
    """As many of a layer's channels as hold this share of its saliency: few where few channels say most."""
    held = saliency.sort(descending=True).values.cumsum(0)
    return int((held < share * held[-1]).sum()) + 1


RULES: dict[str, Callable[[Tensor, float], int]] = {"coverage": coverage, "uniform": uniform}


def _largest(saliency: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` largest, ascending; of a multiple of `MULTIPLE` where there are as many."""
    total = len(saliency)
    rounded = max(MULTIPLE, round(count / MULTIPLE) * MULTIPLE) if total >= 2 * MULTIPLE else max(1, count)
    return saliency.topk(min(total, rounded)).indices.sort().values


def _within(
    made: Callable[[float], tuple[nn.Module, dict[str, Tensor]]], fits: Callable[[nn.Module], bool], steps: int = 10
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the largest network that fits, by bisection of the strength in (0, 1]."""
    whole = made(1.0)
    if fits(whole[0]):
        return whole
    low, high, best = 0.0, 1.0, None
    for _ in range(steps):
        middle = (low + high) / 2
        tried = made(middle)
        if fits(tried[0]):
            low, best = middle, tried
        else:
            high = middle
    if best is None:
        raise ValueError("keep: so little that not one channel a layer is left; ask for more")
    return best


def _saliency(
    network: nn.Module, anatomy: slicing.Anatomy, batches: list[Any], labels: Tensor, c: int
) -> dict[str, Tensor]:
    """Return the saliency of every unit's channels for class `c`, summed over the layers of a unit: [channels]."""
    read: dict[str, Tensor] = {}

    def listen(name: str, layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        read[name] = output if output.requires_grad else output.requires_grad_()
        read[name].retain_grad()
        return output.clone()  # what follows may work in place

    places = {name for unit in anatomy.units for name in unit.read_at}
    hooks = [network.get_submodule(name).register_forward_hook(partial(listen, name)) for name in places]
    total = {unit.root: torch.zeros(unit.channels) for unit in anatomy.units}
    try:
        for batch, own in zip(batches, labels.split(BATCH), strict=True):
            read.clear()
            by_position, by_name = arguments(batch)
            with torch.enable_grad():
                logits = network(*by_position, **by_name)
                odds = logits[:, c] - logits[:, torch.arange(logits.shape[1]) != c].logsumexp(1)
                mine = (own == c).to(odds)
                binary_cross_entropy_with_logits(odds, mine, reduction="sum").backward()
            for unit in anatomy.units:
                for name in unit.read_at:
                    gradient = read[name].grad
                    assert gradient is not None
                    total[unit.root] += _of_channels(read[name].detach() * gradient)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _of_channels(products: Tensor) -> Tensor:
    """Return the sum over images of |the sum over places|, by channel: [B, C, H, W], [B, ..., C] or [B, C] -> [C]."""
    if products.ndim == 4:
        return products.sum((2, 3)).abs().sum(0).cpu()
    return products.flatten(1, -2).sum(1).abs().sum(0).cpu() if products.ndim > 2 else products.abs().sum(0).cpu()


BATCH = 64


def _batches(data: Dataset, rows: Tensor, network: nn.Module) -> list[Any]:
    return [_rows(data, part, network) for part in rows.split(BATCH)]


def _rows(data: Dataset, rows: Tensor, network: nn.Module) -> Any:
    """Return training rows as a network takes them."""
    some = next(network.parameters())
    inputs = data.part("train").batch(rows).inputs
    return each_tensor(inputs, lambda v: v.to(some.device, some.dtype if v.is_floating_point() else None))


def _drawn(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return up to `count` row numbers, drawn by `seed`."""
    return torch.randperm(len(labels), generator=generator(seed, "repair"))[:count]


def _of_class_and_others(labels: Tensor, c: int, count: int, seed: int) -> Tensor:
    """Return up to `count` rows of class `c` and as many of others, drawn by `seed`, in an order that mixes them."""
    mine, others = (labels == c).nonzero()[:, 0], (labels != c).nonzero()[:, 0]
    draw = generator(seed, "saliency", c)
    taken = [part[torch.randperm(len(part), generator=draw)[: min(count, len(mine))]] for part in (mine, others)]
    rows = torch.cat(taken)
    return rows[torch.randperm(len(rows), generator=draw)]
