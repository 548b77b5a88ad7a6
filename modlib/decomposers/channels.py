"""Channels: networks for some classes that are smaller and faster than the parent, without training. Ours.

For a subset of the classes the channels are kept that explain most of what the parent says about them
(`modlib.deploy.saliency`), cut out physically (`modlib.deploy.slicing`) and repaired in closed form against the parent
(`modlib.deploy.repair`), all of it from unlabelled images of the subset. What comes out is a plain network with one
logit for each class of the subset. Its weights are *not* the parent's, unlike those of the paper's modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, masking
from modlib.cotraining import resolve_device
from modlib.data import Data
from modlib.deploy import measuring, saliency, slicing
from modlib.deploy import repair as repairing
from modlib.deploy.distilling import distil
from modlib.deploy.saliency import Ranking
from modlib.labels import numbered
from modlib.parent import brought, called, frozen_copy, in_parts, rows_of
from modlib.parent_checks import check_parent
from modlib.seeds import generator

COSTS = ("multiply_adds", "parameters")
MULTIPLE = 16
"""Widths of wide layers are multiples of this: processors with AVX-512 work on so many float32 channels at once."""
WIDE = 64
"""Channels of a wide layer. Multiples in narrower ones are `OF_NARROW` at most: each step is a large share of them."""
OF_NARROW = 8
LEAST = 32
"""Channels that stay of a layer, but no more than a quarter of it; fewer where a budget leaves no other way."""
KEEPS = (1.0, 0.8, 0.65, 0.5, 0.35, 0.25, 0.18, 0.12, 0.09, 0.06, 0.04, 0.03, 0.02, 0.01)
"""Shares of the parent's cost that are tried for `within`."""
BATCH = 64
RANKINGS = ("variance", "taylor", "gamma", "l1")
"""What channels explain together, measured on images of the subset; the mean of the classes' own saliencies; and two
that know no classes: the scale of the normalisation behind a channel, and the sum of a channel's absolute weights."""


def explained(ranking: Ranking, strength: float) -> int:
    """As many channels as explain a share of the same height in every layer: few where few say all there is."""
    return ranking.needed(1 - 10 ** (-6 * strength)) if strength < 1 else len(ranking.order)


def uniform(ranking: Ranking, strength: float) -> int:
    """The same share of every layer's channels."""
    return round(strength * len(ranking.order))


Rule = Callable[[Ranking, float], int]
RULES: dict[str, Rule] = {"explained": explained, "uniform": uniform}


class TooLittle(ValueError):
    """Raised where the narrowest network is not within a budget."""


@dataclass(frozen=True)
class ChannelSaliency:
    """Decomposes by channels; `images`: of each class, from which `Channels.saliency` is taken."""

    images: int = 250

    def decompose(
        self,
        parent: nn.Module,
        data: Data,
        *,
        seed: int,
        classes: Iterable[int | str] | None = None,
        device: str | torch.device = "auto",
    ) -> Channels:
        """See `modlib.decomposers.Decomposer`. Nothing is trained, and but the graph nothing is read yet.

        `classes`: by number or name; default, those with training images.
        """
        checks.whole("images", self.images, 1)
        check_parent(parent, data, masking.default_policy)
        asked = data.present if classes is None else numbered(classes, data.class_names)
        chosen = tuple(checks.subset(asked, range(data.num_classes)))
        network = frozen_copy(parent).to(resolve_device(device))
        example = _images(data, chosen, 2, seed, network)
        anatomy = slicing.anatomy(network, example)
        if not anatomy.units:
            raise ValueError(f"parent: no channels can be cut: {dict(anatomy.uncut)}")
        if not slicing.gives_logits(network, example, anatomy.last, data.num_classes):
            raise ValueError(
                f"parent: layer {anatomy.last!r} is called last, but its outputs are not the logits one for one: it "
                "can't be cut to some classes; nothing may stand behind it"
            )
        return Channels(network, chosen, anatomy, example, seed, self.images, data)


@dataclass(frozen=True, repr=False, eq=False)
class Channels:
    """A frozen parent, what can be cut out of it, and each channel's saliency for each class.

    No `Decomposition`: there is no part for a class, so nothing votes, and nothing was trained that could be saved.
    What `recompose` returns is a plain network: `torch.save` or `modlib.deploy.export` keep it, and
    `modlib.deploy.measure` reports on it.

    `example`: two inputs, with which the graph is traced. `images`: of each class of `data`, see `saliency`.
    """

    parent: nn.Module
    classes: tuple[int, ...]
    anatomy: slicing.Anatomy
    example: Any
    seed: int
    images: int
    data: Data

    @cached_property
    def saliency(self) -> Mapping[str, Tensor]:
        """Unit -> float32 [C, channels], relative to the unit's mean: `modlib.deploy.saliency.taylor`, each class
        against all others. Taken when it is first asked for: seconds to a minute; ranking "taylor" alone needs it.
        """
        each = [
            saliency.taylor(self.parent, self.anatomy, in_parts(self._some_of(c), BATCH), [c]) for c in self.classes
        ]
        return {u.root: torch.stack([_relative(m[u.root]) for m in each]) for u in self.anatomy.units}

    def _some_of(self, c: int) -> Any:
        return _images(self.data, [c], self.images, self.seed, self.parent)

    def __repr__(self) -> str:
        channels = sum(unit.channels for unit in self.anatomy.units)
        uncut = "".join(f"; not cut: {name}, {why}" for name, why in self.anatomy.uncut.items())
        return f"Channels of {len(self.classes)} classes: {channels} in {len(self.anatomy.units)} units{uncut}"

    def recompose(
        self,
        subset: Iterable[int | str],
        *,
        data: Data,
        keep: float | None = None,
        within: float | None = None,
        of: str = "multiply_adds",
        images: int = 2000,
        ridge: float = 1e-3,
        distilled: int = 0,
        rate: float = 1e-3,
        mirrored: bool = False,
        repair: str | None = "nonlinear",
        rule: str = "explained",
        ranking: str = "variance",
        multiple: int = MULTIPLE,
        order: Mapping[str, Tensor] | None = None,
        known: Iterable[int] | None = None,
        near: float | None = None,
    ) -> nn.Module:
        """Return a plain network for `subset`: inputs [B, ...] -> logits [B, len(subset)], in that order.

        Classes by number, or by name where `data` has names.

        Of `keep` and `within` one is given. `keep`: the share of the parent's cost that may be left, in (0, 1]; `of`
        "multiply_adds" (for one image) or "parameters"; the last layer, which is cut to the subset, counts. `within`:
        points (1/100) of accuracy on the held-out images of the subset that may be lost against the parent restricted
        to it; the smallest of the budgets `KEEPS` that a search by halves finds is taken, each of them as it comes out
        in the end: distilled, where that is asked for.

        `images`: training images of the subset, without their labels, that the repair sees; of a quarter of them it is
        measured which channels are needed. `ridge`: see `modlib.deploy.repair`. `distilled`: steps of label-free
        training afterwards at `rate`, see `modlib.deploy.distilling`, on twice as many images; `mirrored` ones are
        part of it where that changes no class. `multiple`: widths are multiples of it, of `OF_NARROW` at most in layers
        of less than `WIDE` channels.

        For comparisons: `repair`, one of `modlib.deploy.repair.KINDS`, or None for no repair at all; `rule`, how a
        budget is shared out among the layers, one of `RULES`; `ranking`, in which order channels are kept, one of
        `RANKINGS`; `order`, which channels of each unit are kept first (int64 [channels] by the unit's root), at widths
        that `ranking` gives; `known`, the classes that are known while channels are chosen and repaired: default, the
        subset; `near`: images that the parent is less sure of count more in the repair, see `nearness` (it gains
        nothing).
        """
        chosen = checks.subset(numbered(subset, data.class_names), self.classes)
        _check(keep, within, of, rule, ranking)
        if repair is not None:
            checks.choice("repair", repair, repairing.KINDS)
        checks.whole("images", images, 4)
        checks.whole("distilled", distilled, 0)
        checks.whole("multiple", multiple, 1)
        checks.positive("rate", rate)
        checks.positive("ridge", ridge)
        if len(chosen) == 1 and (within is not None or distilled):
            raise ValueError("subset: one class alone is always right, and has nothing to be distilled; give keep")
        if near is not None:
            checks.number("near", near, 0.1, 100.0)  # less than that, and few images are left
        seen = chosen if known is None else checks.subset(known, self.classes)
        inputs = _images(data, seen, images, self.seed, self.parent)
        ranked = self._ranked(inputs, images // 4, seen, ranking)
        if order is not None:
            ranked = {root: saliency.Ranking(order[root], r.explained) for root, r in ranked.items()}
        weights = None if near is None else nearness(self.parent, inputs, seen, near)
        aims = None if repair is None else repairing.targets(self.parent, inputs, self.seed, weights=weights)
        given = _images(data, seen, 2 * images, self.seed, self.parent) if distilled else None

        def made(share: float) -> nn.Module:
            small, kept = self._cut(chosen, ranked, share, of, RULES[rule], multiple)
            if aims is not None and repair is not None:
                repairing.repair(small, aims, kept, ridge, repair)
            if given is not None:
                distil(small, self.parent, given, chosen, steps=distilled, seed=self.seed, rate=rate, mirrored=mirrored)
            return small

        return made(keep) if keep is not None else self._smallest(made, chosen, data, within or 0.0)

    def _ranked(self, inputs: Any, count: int, classes: Sequence[int], ranking: str) -> dict[str, Ranking]:
        if ranking == "taylor":
            rows = [self.classes.index(c) for c in classes]
            return {root: saliency.by_size(values[rows].mean(0)) for root, values in self.saliency.items()}
        if ranking in ("gamma", "l1"):
            sizes = saliency.scales if ranking == "gamma" else saliency.magnitudes
            return {unit.root: saliency.by_size(sizes(self.parent, unit)) for unit in self.anatomy.units}
        some = in_parts(rows_of(inputs, slice(count)), BATCH)
        moments = saliency.measure(self.parent, self.anatomy, some, classes)
        return {root: saliency.by_variance(found) for root, found in moments.items()}

    def _cut(
        self, subset: Sequence[int], ranked: Mapping[str, Ranking], keep: float, of: str, rule: Rule, multiple: int
    ) -> tuple[nn.Module, dict[str, Tensor]]:
        """Return the largest cut network within a budget, and the outputs kept of each layer that was cut."""
        example = self.example
        whole = measuring.cost(self.parent, example)[of]

        def made(strength: float, least: int) -> tuple[nn.Module, dict[str, Tensor]]:
            kept = {
                unit.root: unit.first(r.order, _width(rule(r, strength), unit.channels, multiple, least))
                for unit in self.anatomy.units
                for r in [ranked[unit.root]]
            }
            small = slicing.restricted(self.parent, example, kept, self.anatomy.last, subset)
            return repairing.with_biases(small), kept  # biases are part of the budget

        ways = (partial(made, least=least) for least in (LEAST, 1))
        fits = (_within(way, lambda net: measuring.cost(net, example)[of] <= keep * whole) for way in ways)
        found = next((small for small in fits if small is not None), None)
        if found is None:
            narrowest = measuring.cost(made(0.0, 1)[0], example)[of] / whole
            raise TooLittle(f"keep: so little that not one network is small enough; the narrowest has {narrowest:.1%}")
        small, kept = found
        by_layer = {layer: kept[unit.root] for unit in self.anatomy.units for layer in unit.layers}
        return small, {**by_layer, self.anatomy.last: torch.tensor(subset)}

    def _smallest(
        self, made: Callable[[float], nn.Module], subset: Sequence[int], data: Data, within: float
    ) -> nn.Module:
        """Return the smallest network that loses at most `within` points on held-out images, by halving `KEEPS`."""
        allowed = restricted_accuracy(self.parent, data, subset, "held_out", subset) - within / 100
        good: nn.Module | None = None
        low, high = 0, len(KEEPS)
        while low < high:
            middle = (low + high) // 2
            try:
                tried = made(KEEPS[middle])
            except TooLittle:
                high = middle
                continue
            if restricted_accuracy(tried, data, subset, "held_out") >= allowed:
                good, low = tried, middle + 1
            else:
                high = middle
        if good is None:
            raise ValueError(f"within: no network of {KEEPS[0]:.0%} of the cost or less loses {within} points or less")
        return good


def restricted_accuracy(
    network: nn.Module, data: Data, subset: Sequence[int], split: str, picked: Sequence[int] | None = None
) -> float:
    """Return the share of a split's images of `subset` that a network tells right among these classes, in [0, 1].

    `network`: gives one logit for each class of `subset`, in that order; or for all classes, `picked` are then taken.
    """
    rows = rows_of_classes(data, subset, split)
    logits = logits_of(network, data, split, rows)
    return told_right(logits if picked is None else logits[:, list(picked)], data.part(split).labels[rows], subset)


def rows_of_classes(data: Data, subset: Sequence[int], split: str) -> Tensor:
    """Return which rows of a split show one of some classes, int64; ValueError where none does."""
    labels = data.part(split).labels
    mine = torch.isin(labels, torch.tensor(list(subset), device=labels.device))
    if not bool(mine.any()):
        raise ValueError(f"subset: there are no {split} images of {list(subset)}")
    return mine.nonzero()[:, 0]


@torch.no_grad()
def logits_of(network: nn.Module, data: Data, split: str, rows: Tensor) -> Tensor:
    """Return a network's outputs for rows of a split, on the CPU."""
    return torch.cat([called(network, _as_inputs(data, split, part, network)).cpu() for part in rows.split(BATCH)])


def told_right(logits: Tensor, labels: Tensor, subset: Sequence[int]) -> float:
    """Return the share of labels [B] that are the class of `subset` with the largest of logits [B, K], in [0, 1]."""
    return float((torch.tensor(list(subset))[logits.argmax(1)] == labels.cpu()).double().mean())


@torch.no_grad()
def nearness(parent: nn.Module, inputs: Any, classes: Sequence[int], near: float) -> Tensor:
    """Return weights [n] of images: the larger, the less sure a parent is which of some classes they show.

    sigmoid(-d / (near · median of d)), d the log-odds within the classes, see `modlib.deploy.saliency.log_odds`: half
    where it can't decide, near 0 far from the border between the classes. A subset's mistakes are made at the border.
    """
    odds = torch.cat([saliency.log_odds(called(parent, part), classes) for part in in_parts(inputs, BATCH)])
    return torch.sigmoid(-odds / (near * odds.median().abs().clamp(min=1e-6)))


def _check(keep: float | None, within: float | None, of: str, rule: str, ranking: str) -> None:
    if (keep is None) == (within is None):
        raise ValueError(f"keep, within: give one of both, got {keep!r} and {within!r}")
    if keep is not None:
        checks.share("keep", keep)
    if within is not None:
        checks.number("within", within, 0.0, 100.0)
    checks.choice("of", of, COSTS)
    checks.choice("rule", rule, RULES)
    checks.choice("ranking", ranking, RANKINGS)


def _relative(saliency: Tensor) -> Tensor:
    return saliency / saliency.mean().clamp(min=1e-30)


def _width(count: int, channels: int, multiple: int, least: int = LEAST) -> int:
    """Return a width near `count`: a multiple of `multiple`, or the least that stays, which `LEAST` tells.

    In layers too narrow for that, `count`; and all channels where all are asked for.
    """
    step = multiple if channels >= WIDE else min(multiple, OF_NARROW)
    if channels < 2 * step or count >= channels:
        return max(1, min(count, channels))
    least = max(step, min(least, channels // 4) // step * step)
    return min(channels // step * step, max(least, round(count / step) * step))


def _within(
    made: Callable[[float], tuple[nn.Module, dict[str, Tensor]]], fits: Callable[[nn.Module], bool], steps: int = 14
) -> tuple[nn.Module, dict[str, Tensor]] | None:
    """Return the largest network that fits, by bisection of the strength in (0, 1]; None where none does."""
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
    return best


def _images(data: Data, classes: Sequence[int], count: int, seed: int, network: nn.Module) -> Any:
    """Return up to `count` training images of some classes, drawn by `seed`, as a network takes them."""
    labels = data.train_labels
    if missing := sorted(set(classes) - set(data.present)):
        raise ValueError(f"classes: there are no training images of {missing}")
    rows = torch.isin(labels, torch.tensor(list(classes), device=labels.device)).nonzero()[:, 0]
    drawn = torch.randperm(len(rows), generator=generator(seed, "images"))[:count]
    return _as_inputs(data, "train", rows[drawn.to(rows.device)], network)


def _as_inputs(data: Data, split: str, rows: Tensor, network: nn.Module) -> Any:
    """Return rows of a split where a network is, in its precision."""
    some = next(network.parameters())
    inputs = data.part(split).batch(rows).inputs
    return brought(inputs, some)
