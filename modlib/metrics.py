"""Metrics (paper, section "Evaluation"). Jaccard index and remaining parameters are methods of `modlib.MaskSet`.

All of them start from log-odds [images, modules], computed once (`Modules.log_odds`), so that every subset of the
classes costs only an argmax. Accuracies are shares in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from modlib import checks
from modlib.masking import MaskSet
from modlib.seeds import generator


def recomposed_accuracy(
    log_odds: Tensor, labels: Tensor, classes: Sequence[int], subset: Iterable[int] | None = None
) -> float:
    """Return the accuracy of the vote of the modules of `subset` on the images of its classes.

    `log_odds` [n, C] and `classes` of its columns; `labels` [n]. Only images whose label is in `subset` count.
    """
    asked = checks.subset(classes if subset is None else subset, classes)
    chosen = torch.tensor(asked, device=labels.device)
    inside = torch.isin(labels, chosen)
    if not bool(inside.any()):
        raise ValueError(f"labels: no image of the classes {asked}")
    columns = [list(classes).index(c) for c in asked]
    votes = chosen[log_odds[inside][:, columns].argmax(1)]
    return float((votes == labels[inside]).double().mean())


def accuracy_of_pairs(log_odds: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Return the accuracy of the vote of every two modules on their classes: float64 [C, C], NaN on the diagonal."""
    table = torch.full((len(classes), len(classes)), torch.nan, dtype=torch.float64, device="cpu")
    for i, a in enumerate(classes):
        for j, b in enumerate(classes[:i]):
            table[i, j] = table[j, i] = recomposed_accuracy(log_odds, labels, classes, (a, b))
    return table


SUBSET_SIZES = (*range(2, 11), 20, 30, 50, 100)
"""Numbers of classes for which `subset_curve` recomposes; and all classes, however many."""


def subset_curve(
    log_odds: Tensor, logits: Tensor, labels: Tensor, masks: MaskSet, seed: int, count: int = 50
) -> list[dict[str, float]]:
    """Return accuracy and size of recomposed networks by the number of classes, means over subsets of one size.

    `log_odds` [n, C] of the modules, `logits` [n, N] of the parent, `labels` [n]. Each row: `classes`, `subsets` (at
    most `count`, drawn by `seed`), `accuracy` of the vote, `parent_accuracy` of the parent restricted to the subset,
    `union`, the share of the maskable weights. Only images of the subset's classes count.
    """
    classes = masks.classes
    log_odds, logits = log_odds.to(labels.device), logits.to(labels.device)
    sizes = sorted({k for k in SUBSET_SIZES if k < len(classes)} | {len(classes)} - {1})
    rows = []
    for size in sizes:
        chosen = _subsets(classes, size, count, seed)
        rows.append(
            {
                "classes": size,
                "subsets": len(chosen),
                "accuracy": fmean(recomposed_accuracy(log_odds, labels, classes, s) for s in chosen),
                "parent_accuracy": fmean(
                    recomposed_accuracy(logits, labels, range(logits.shape[1]), s) for s in chosen
                ),
                "union": fmean(masks.remaining(s) for s in chosen),
            }
        )
    return rows


def _subsets(classes: Sequence[int], size: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Return all subsets of one size, or `count` different ones drawn by `seed` where there are more."""
    if comb(len(classes), size) <= count:
        return list(combinations(classes, size))
    draw, chosen = generator(seed, "subsets", size), dict[tuple[int, ...], None]()
    while len(chosen) < count:
        order = torch.randperm(len(classes), generator=draw, device="cpu")[:size].sort().values
        chosen[tuple(classes[i] for i in order.tolist())] = None
    return list(chosen)


def module_accuracies(log_odds: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Return each module's accuracy as a binary classifier on all images (paper, Table 5): float64 [C].

    A module says "this class" where its confidence is above one half, that is, its log-odds above 0.
    """
    own = labels[:, None] == torch.tensor(list(classes), device=labels.device)
    return ((log_odds > 0) == own).double().mean(0)


def balanced_indices(labels: Tensor, j: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the images of class `j` and as many drawn, without repetition, from all the others (Table 6's set)."""
    positives = (labels == j).nonzero()[:, 0]
    others = (labels != j).nonzero()[:, 0].cpu()
    if not len(positives):
        raise ValueError(f"labels: no image of class {j}")
    if len(positives) > len(others):
        raise ValueError(f"labels: class {j} has {len(positives)} images, more than the {len(others)} of all others")
    drawn = torch.randperm(len(others), generator=generator(seed, "balanced", j), device="cpu")[: len(positives)]
    return positives, others[drawn].to(labels.device)


def balanced_accuracies(log_odds: Tensor, labels: Tensor, classes: Sequence[int], seed: int) -> Tensor:
    """Return Table 6: entry (i, j) is how well module i's yes or no answers "is it class j?", float64 [C, C].

    Asked on all images of class j and an equal number drawn from the others (uniform over images, not over classes).
    A perfect module i scores 0.5 · 0 + 0.5 · 8/9 = 0.444 off the diagonal where classes are equally frequent.
    """
    table = torch.empty(len(classes), len(classes), dtype=torch.float64, device="cpu")
    for column, j in enumerate(classes):
        positives, negatives = balanced_indices(labels, j, seed)
        right = torch.cat([log_odds[positives] > 0, log_odds[negatives] <= 0])
        table[:, column] = right.double().mean(0).cpu()
    return table


def calibrate(log_odds: Tensor, labels: Tensor, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return a scale and a shift [C] for every module's log-odds that minimise the loss of the vote on some images.

    Temperature and bias of each module (Platt scaling), fitted together: −log softmax(scale · d + shift)[y]. For
    images that are not test images. Raises ValueError unless all `labels` [n] are among `classes`.
    """
    position = {c: i for i, c in enumerate(classes)}
    checks.subset(labels.unique().tolist(), classes, "labels")
    target = torch.tensor([position[label] for label in labels.tolist()], device=log_odds.device)
    odds = log_odds.double()
    scale = torch.ones_like(odds[0], requires_grad=True)
    shift = torch.zeros_like(odds[0], requires_grad=True)
    optimiser = torch.optim.LBFGS([scale, shift], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(odds * scale + shift, target)
        value.backward()
        return value

    optimiser.step(loss)
    return scale.detach().to(log_odds.dtype), shift.detach().to(log_odds.dtype)


def perfect_balanced_accuracies(counts: Sequence[int]) -> Tensor:
    """Return Table 6 of perfect modules, on average over the draw of negatives: float64 [C, C].

    `counts`: images of every class. Module i is wrong on all of class j, and on its own images among the negatives.
    """
    images = torch.as_tensor(counts, dtype=torch.float64)
    return (0.5 * (1 - images[:, None] / (images.sum() - images[None, :]))).fill_diagonal_(1.0)


def off_diagonal(table: Tensor) -> Tensor:
    """Return the entries of a square table off its diagonal, row by row: [C, C - 1]."""
    return table[~torch.eye(len(table), dtype=torch.bool)].view(len(table), -1)


def remaining_from_jaccard(k: float, jaccard: float) -> float:
    """Return the remaining parameters of a pair whose masks both keep a share `k`: 2k / (1 + Jaccard index)."""
    return 2 * k / (1 + jaccard)


def value_index(weights: Tensor) -> float:
    """Return Pan and Rajan's index, mean over pairs of modules: u / (2n - u), of `weights` [C modules, n], in [0, 1].

    u counts the distinct *values* that two modules have in common, 0 among them and once; n counts weights, zeros
    included. It is not the Jaccard index of their edges: two equal modules that keep a share p of distinct weights
    score about p / (2 - p). The three older methods of the paper's Table 1 are printed with it (Pan and Rajan 2020).
    """
    checks.tensor("weights", weights)
    if weights.ndim != 2 or len(weights) < 2:
        raise ValueError(f"weights: must be [2 or more modules, weights], got {tuple(weights.shape)}")
    n = weights.shape[1]
    values = [np.unique(row) for row in weights.detach().cpu().numpy()]
    shared = [len(np.intersect1d(a, b, assume_unique=True)) for a, b in combinations(values, 2)]
    return float(np.mean([u / (2 * n - u) for u in shared]))
