"""Whether a parent and data go together: counts, the parent's accuracy by class, and what looks wrong, in words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib import masking
from modlib.data import SPLITS, Data, check_data, measured_part
from modlib.modules import Modules
from modlib.parent import brought, called, flat, frozen_copy, with_logits
from modlib.parent_checks import check_ids, check_parent, taken
from modlib.precision import undisturbed
from modlib.seeds import generator
from modlib.tabular import as_html


class CheckWarning(UserWarning):
    """What looks wrong with a parent and data, or with what came out of them; see `check`."""


IMAGES = 1000
"""Images that the parent is asked about."""
BATCH = 100
BEHIND = 0.05
"""How far the vote may be behind the parent, beyond chance, before it is said."""
PASSES = 2000
"""Images that all modules together pass to find that out, if that are not fewer than `LEAST` each."""
LEAST = 50
FEW = 20
"""Training images of a class below which a module learns little."""
STRONG = 10.0
"""The largest class over the smallest one, from which on an imbalance is called strong."""
REMEDY = 'balanced="auto"'
"""What is said to help against it."""
LARGE = 30.0
"""Inputs of images (three dimensions or more) that reach further look like pixels that nobody has scaled."""
FAR = 5.0
"""Standard deviations of a channel between what the first normalisation sees and what it saw in training."""


@dataclass(frozen=True)
class Examined:
    """What `check` found.

    `counts`: images of every class, by split. `recalls`: of the parent, by class, in [0, 1]; NaN where none was asked
    about. `accuracy`: on all `asked` images of `split`. `outputs`: the least and the largest logit. `masked`: the share
    of the parameters that modules mask. `lines`: what looks wrong, a line each.
    """

    class_names: tuple[str, ...] | None
    counts: dict[str, tuple[int, ...]]
    split: str
    asked: int
    accuracy: float
    recalls: tuple[float, ...]
    outputs: tuple[float, float]
    masked: float
    lines: tuple[str, ...]

    def __str__(self) -> str:
        cells = [list(HEADERS), *self._cells()]
        widths = [max(len(row[i]) for row in cells) for i in range(len(HEADERS))]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*table, self._summary(), *(f"! {line}" for line in self.lines)])

    def _repr_html_(self) -> str:
        return as_html(HEADERS, self._cells(), (self._summary(), *self.lines))

    def _cells(self) -> Iterator[list[str]]:
        for c, recall in enumerate(self.recalls):
            name = str(c) if self.class_names is None else f"{c} {self.class_names[c]}"
            yield [name, *(str(self.counts[s][c]) for s in SPLITS), "-" if recall != recall else f"{recall:.1%}"]

    def _summary(self) -> str:
        low, high = self.outputs
        return (
            f"parent: {self.accuracy:.1%} of {self.asked} {self.split} images; logits {low:.3g} to {high:.3g}; "
            f"{self.masked:.1%} of its parameters are masked"
        )


HEADERS = ("class", "train", "held out", "test", "parent's recall")


@undisturbed()
@torch.no_grad()
def check(
    parent: nn.Module,
    data: Data,
    *,
    policy: masking.Policy = masking.default_policy,
    logits: Callable[[Any], Tensor] | None = None,
) -> Examined:
    """Return what a decomposition of `parent` on `data` starts from, and what looks wrong.

    The parent is asked about up to `IMAGES` test images, else held-out, else training images. Arguments and errors as
    in `cotrain`, which checks the same and warns of every line. Nothing is changed, and nothing trained.
    """
    check_data(data)
    network = parent if logits is None else with_logits(parent, logits)
    check_parent(network, data, policy)
    split = measured_part(data)
    copy = frozen_copy(network)
    check_ids(copy, data)
    outputs, labels, unusual = _asked(copy, data, split)
    everything = sum(p.numel() for p in copy.parameters())
    masked = sum(w.numel() for w in masking.maskable_parameters(copy, policy).values()) / everything
    counts = {s: _counts(getattr(data, f"{s}_labels"), data.num_classes) for s in SPLITS}
    confusion = _confusion(outputs, labels, data.num_classes)
    lines = [
        *_about_classes(counts["train"], data.class_names, data.background is not None),
        *_about_outputs(outputs),
        *_about_accuracy(confusion),
        *unusual,
    ]
    if split != "train" and not lines:
        lines = _about_training(confusion, _confusion(*_asked(copy, data, "train")[:2], data.num_classes), split)
    return Examined(
        data.class_names,
        counts,
        split,
        len(labels),
        float(confusion.trace() / confusion.sum()),
        tuple((confusion.diagonal() / confusion.sum(1)).tolist()),
        (float(outputs.min()), float(outputs.max())),
        masked,
        tuple(lines),
    )


def images_by_class(data: Data, classes: Sequence[int] | None = None) -> list[int]:
    """Return the numbers of training images of some classes (default: all), of those that there are."""
    counts = _counts(data.train_labels, data.num_classes)
    return [n for c, n in enumerate(counts) if classes is None or c in classes]


def imbalance(counts: Sequence[int]) -> float:
    """Return how many times the images of the rarest class the most frequent one has; classes without do not count."""
    some = [n for n in counts if n]
    return max(some) / min(some) if some else 1.0


def uneven(data: Data, classes: Sequence[int] | None = None) -> bool:
    """Return whether the imbalance of some classes (default: all) is strong: losses are to be balanced."""
    return imbalance(images_by_class(data, classes)) >= STRONG


def warn(parent: nn.Module, data: Data, policy: masking.Policy, balanced: bool, stacklevel: int) -> None:
    """Warn of every line of `check`, but of an imbalance where losses are balanced."""
    for line in check(parent, data, policy=policy).lines:
        if balanced and REMEDY in line:
            continue
        warnings.warn(f"check: {line}", CheckWarning, stacklevel=stacklevel + 1)


@undisturbed()
@torch.no_grad()
def warn_if_behind(modules: Modules, data: Data, stacklevel: int) -> None:
    """Warn where the vote of all modules is far behind their parent, on a few held-out, else training images."""
    split = "held_out" if len(data.held_out_labels) else "train"
    source, classes = data.part(split), torch.tensor(modules.classes)
    mine = torch.isin(source.labels.cpu(), classes).nonzero()[:, 0]
    count = max(LEAST, PASSES // len(classes))  # every module passes all of them
    rows = mine[torch.randperm(len(mine), generator=generator(0, "behind"))[:count]].to(source.labels.device)
    if not len(rows) or len(classes) < 2:
        return
    like = modules.parent.get_parameter(next(iter(modules.masks.masks)))
    inputs = brought(source.batch(rows).inputs, like)
    logits = called(frozen_copy(modules.parent), inputs)[:, classes.to(like.device)]
    found = [values.argmax(1).cpu() for values in (logits, modules.log_odds(inputs))]
    parent, vote = (float((classes[f] == source.labels[rows].cpu()).double().mean()) for f in found)
    if parent - vote > BEHIND + 2 * (parent * (1 - parent) / len(rows)) ** 0.5:
        warnings.warn(
            f"check: the vote is right on {vote:.1%} of {len(rows)} {split} images, the parent on {parent:.1%}; try "
            f"{_remedies(modules.metadata.get('recipe', {}))}",
            CheckWarning,
            stacklevel=stacklevel + 2,  # the decorators are frames, too
        )


def more(recipe: Mapping[str, Any]) -> str:
    """Return calls of `cotrain` that keep more edges or take more steps than a recipe, in words."""
    k = recipe.get("k")
    larger = min(1.0, 2 * k) if isinstance(k, float | int) else 0.5
    return f"more edges, as with recipe=modlib.recommended(parent, data, k={larger:g}), or more time, minutes="


def _remedies(recipe: Mapping[str, Any]) -> str:
    """Return what may bring a vote closer to the parent, in words, that `recipe` does not have yet."""
    better = {"init": "magnitude", "grafting_init": "own_logit"}
    missing = [f"{name}={value!r}" for name, value in better.items() if recipe.get(name) != value]
    if recipe.get("vote", 0.0) == 0.0:
        missing.append("vote=0.9")
    settings = (
        f"the recommended settings (no k, alpha and epochs), or of them {', '.join(missing)}; " if missing else ""
    )
    return f"{settings}{more(recipe)}"


def _counts(labels: Tensor, num_classes: int) -> tuple[int, ...]:
    return tuple(torch.bincount(labels.cpu(), minlength=num_classes).tolist())


def _asked(network: nn.Module, data: Data, split: str) -> tuple[Tensor, Tensor, list[str]]:
    """Return logits [n, N], labels [n], and what the first normalisation finds unusual."""
    source, some = data.part(split), next(network.parameters())
    drawn = torch.randperm(len(source.labels), generator=generator(0, "check"))[:IMAGES].to(source.labels.device)
    seen: list[tuple[Tensor, Tensor]] = []
    norm = next((m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)), None)

    def listen(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        others = [d for d in range(given[0].ndim) if d != 1]
        seen.append((given[0].mean(others), given[0].square().mean(others)))

    found, largest = [], 0.0
    with nullcontext() if norm is None or norm.running_mean is None else norm.register_forward_pre_hook(listen):
        for rows in drawn.split(BATCH):
            inputs = brought(source.batch(rows).inputs, some)
            images = [v for v in flat(inputs) if v.is_floating_point() and v.ndim > 2]
            largest = max([largest, *(float(v.abs().max()) for v in images)])
            found.append(taken(network, inputs).float().cpu())
    unusual = _about_inputs(norm, seen) if norm is not None and seen else []
    if largest > LARGE and not unusual:
        unusual = [f"inputs: reach {largest:.0f}, as pixels that nobody scaled; is this the parent's preprocessing?"]
    return torch.cat(found), source.labels[drawn].cpu(), unusual


def _about_inputs(norm: Any, seen: Sequence[tuple[Tensor, Tensor]]) -> list[str]:
    mean, square = (torch.stack(values).mean(0) for values in zip(*seen, strict=True))
    deviation = (norm.running_var + norm.eps).sqrt()
    off = float(((mean - norm.running_mean).abs() / deviation).median())
    spread = float(((square - mean.square()).clamp(min=0).sqrt() / deviation).median())
    if off <= FAR and 1 / FAR <= spread <= FAR:
        return []
    return [
        f"inputs: the first batch normalisation sees channels {off:.1f} standard deviations off, and {spread:.2g} "
        "times as wide, as in the parent's training; is the preprocessing the parent's own?"
    ]


def _about_classes(counts: Sequence[int], names: Sequence[str] | None, background: bool) -> list[str]:
    def called_(classes: Sequence[int]) -> str:
        shown = ", ".join(str(c) if names is None else names[c] for c in classes[:6])
        return shown + (f" and {len(classes) - 6} more" if len(classes) > 6 else "")

    there = [c for c, n in enumerate(counts) if n]
    lines = []
    if len(there) == 1 and not background:
        lines.append(f"data: all training images are of class {called_(there)}: a module needs images of others, too")
    empty, few = ([c for c, n in enumerate(counts) if low <= n < high] for low, high in ((0, 1), (1, FEW)))
    if empty:
        lines.append(f"data: no training images of {called_(empty)}")
    if few:
        lines.append(f"data: fewer than {FEW} training images of {called_(few)}")
    if imbalance(counts) >= STRONG:
        lines.append(
            f"data: the largest class has {imbalance(counts):.0f} times the images of the smallest; "
            f"{REMEDY} in cotrain lets both sides of a module weigh the same"
        )
    return lines


def _about_outputs(outputs: Tensor) -> list[str]:
    sums = outputs.sum(1)
    if bool((outputs >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        return ["parent: its outputs sum to one, as after a softmax; hand over the network without it, or logits="]
    return []


def _confusion(outputs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how many images of a class (row) get an output (column): float64 [N, N]."""
    confusion = torch.zeros(classes, classes, dtype=torch.float64)
    ones = torch.ones(len(labels), dtype=torch.float64)
    return confusion.index_put_((labels, outputs.argmax(1)), ones, accumulate=True)


def _about_training(others: Tensor, training: Tensor, split: str) -> list[str]:
    """Return a line where the parent, right on a part, is near chance on the training images."""
    if not _about_accuracy(training):
        return []
    right, there = (float(c.trace() / c.sum()) for c in (training, others))
    return [
        f"labels: the parent is right on {right:.1%} of training images, {there:.1%} of {split}; are these shuffled?"
    ]


def _about_accuracy(confusion: Tensor) -> list[str]:
    """Return a line where the parent does little better than chance, and one where classes are in another order."""
    asked, lines = float(confusion.sum()), []
    right, chance = float(confusion.trace()) / asked, float(confusion.sum(1).max()) / asked
    error = (chance * (1 - chance) / asked) ** 0.5
    if chance < 1 and right <= chance + max(3 * error, 0.1 * (1 - chance)):
        lines.append(f"parent: near chance, {right:.1%} right where the most frequent class alone gives {chance:.1%}")
    best = confusion.argmax(1)
    moved = {c: int(best[c]) for c in (confusion.sum(1) > 0).nonzero()[:, 0].tolist()}
    hits = float(sum(confusion[c, to] for c, to in moved.items())) / asked
    if len(set(moved.values())) == len(moved) and hits > right + 0.1:
        count = len(confusion)
        steps = {(to - c + count // 2) % count - count // 2 for c, to in moved.items()}
        how = f"shifted by {steps.pop()}" if len(steps) == 1 else "in another order"
        pairs = ", ".join(f"{c} is its output {to}" for c, to in moved.items() if c != to)
        lines.append(f"labels: look {how} ({pairs}): {hits:.1%} would be right; pass classes= in the parent's order")
    return lines
