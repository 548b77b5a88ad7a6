"""Evaluation: the book's quantities for one decomposition, and the identities that the paper's tables must obey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from modlib import metrics
from modlib.data import Dataset
from modlib.masking import MaskSet, mean_over_pairs
from modlib.modules import Modules
from modlib.study import example, figures, tables
from modlib.study.experiment import Experiment
from modlib.study.names import of_data
from modlib.study.printed import numbers
from modlib.zoo import training

PRINTED_K = 0.10
"""The share of the edges that a module keeps in the paper's Tables 1 and 2."""
EXACT = 1e-12


def experiments(**parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes: its one trial."""
    return [example.trial(**parameters).experiment]


def metrics_table(modules: Modules, log_odds: Tensor, balanced: Tensor, value_index: float, data: Dataset) -> Markdown:
    """Return the book's quantities for one decomposition; `log_odds` [n, C] of the test images, `balanced` [C, C]."""
    labels, classes, masks = data.test_labels, modules.classes, modules.masks
    own = metrics.module_accuracies(log_odds, labels, classes)
    pairs = mean_over_pairs(metrics.accuracy_of_pairs(log_odds, labels, classes))
    every = metrics.recomposed_accuracy(log_odds, labels, classes)
    own_class, others = balanced.diagonal().mean(), metrics.off_diagonal(balanced).mean()
    parent = training.accuracy(modules.parent, data)
    union, everyone = "edges in the union / the parent's", "mean of modules"
    rows = [
        ("Jaccard index", "edges both keep / edges either keeps", "mean of pairs", f"{masks.mean_jaccard():.3f}"),
        ("Pan and Rajan's index", "shared values u / (2n - u)", "mean of pairs", f"{value_index:.3f}"),
        ("remaining parameters", union, "mean of pairs", f"{100 * mean_over_pairs(masks.remaining_of_pairs()):.2f}%"),
        ("", "", "all classes", f"{100 * modules.remaining():.2f}%"),
        ("accuracy of a module", '"this class" or "another", all images', everyone, f"{100 * own.mean():.2f}%"),
        ("balanced accuracy", "as many of the class as of others", "own class", f"{100 * own_class:.2f}%"),
        ("", "Table 6", "other classes", f"{100 * others:.2f}%"),
        ("accuracy of the vote", "highest confidence wins", "pairs", f"{100 * pairs:.2f}%"),
        ("", "", "all classes", f"{100 * every:.2f}%"),
        ("accuracy of the parent", "largest logit wins", "all classes", f"{100 * parent:.2f}%"),
    ]
    return tables.table(
        pd.DataFrame(rows, columns=["quantity", "what it is", "of", "value"]),
        "The quantities of the book, for one decomposition, on test images (n = 1 seed).",
        "tab-metrics",
    )


def draw_identity(masks: MaskSet, k: float, table1: pd.DataFrame, table2: pd.DataFrame) -> Figure:
    """Draw remaining parameters against the Jaccard index: the identity, all pairs of `masks`, and what is printed.

    `table1`, `table2`: the paper's, both with `jaccard_index`, `table1` with `remaining_parameters`, too.
    """
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.2))
    grid = np.linspace(0, 1, 101)
    for value in sorted({k, PRINTED_K}):
        ax.plot(grid, 200 * value / (1 + grid), color="black", lw=1, label=f"2k / (1 + J), k = {value:.0%}")
    at = list(combinations(range(len(masks.classes)), 2))
    x, y = ([float(matrix[pair]) for pair in at] for matrix in (masks.jaccard(), masks.remaining_of_pairs()))
    ax.scatter(x, 100 * np.array(y), s=14, color=figures.COLOURS["ours"], label="pairs measured here", zorder=3)
    for table, column, marker, size, colour, label in (
        (table2, "remaining_parameters_mean", "x", 50, "paper", "paper, Table 2"),
        (table1, "remaining_parameters", "+", 60, "published", "paper, Table 1"),
    ):
        style: dict[str, Any] = {"marker": marker, "color": figures.COLOURS[colour], "label": label}
        ax.scatter(table["jaccard_index"], 100 * table[column], s=size, zorder=3, **style)
    ax.scatter(
        k / (2 - k), 100 * (1 - (1 - k) ** 2), marker="*", s=80, color="black", label="independent masks", zorder=3
    )
    ax.set(xlabel="Jaccard index J of the pair", ylabel="remaining parameters (%)", xlim=(0, 1))
    ax.legend(frameon=False)
    return figure


@dataclass(frozen=True, eq=False)
class Levels:
    """Accuracies of modules on the balanced sets of the other classes, means over these, in [0, 1]: [C] each.

    `equal` and `expected` of perfect modules: classes equally frequent, or as frequent as `counts`, the test images of
    every class. `balanced` [C, C]: measured, see `modlib.metrics.balanced_accuracies`.
    """

    dataset: str
    k: float
    classes: Sequence[int]
    counts: Tensor
    equal: Tensor
    expected: Tensor
    balanced: Tensor

    @cached_property
    def measured(self) -> Tensor:
        """The levels of the modules measured here."""
        return metrics.off_diagonal(self.balanced).mean(1)

    @cached_property
    def printed(self) -> dict[int, Tensor]:
        """The levels of the paper's Table 6, by k in per cent; MNIST's ten classes."""
        levels = {}
        for percent, group in numbers("table6").groupby("k_percent"):
            table = group.pivot(index="module", columns="class", values="accuracy_percent").to_numpy() / 100
            levels[int(str(percent))] = metrics.off_diagonal(torch.tensor(table)).mean(1)
        return levels

    def draw(self) -> Figure:
        """Draw the levels by module."""
        figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.4))
        position = np.arange(len(self.classes))
        ax.axhline(100 * float(self.equal[0]), color="black", lw=1, ls=":", label="perfect, equal frequencies")
        perfect = f"perfect, frequencies of {of_data(self.dataset)}"
        ax.step(position, 100 * self.expected, where="mid", color="black", lw=1, label=perfect)
        if len(self.classes) == 10:
            for (percent, levels), marker in zip(self.printed.items(), ("v", "s", "^"), strict=True):
                grey, label = figures.COLOURS["paper"], f"paper, MNIST, k = {percent}%"
                ax.scatter(position, 100 * levels, marker=marker, s=24, color=grey, label=label, zorder=3)
        label = f"measured, {of_data(self.dataset)}, k = {self.k:.0%}"
        ax.scatter(position, 100 * self.measured, s=26, color=figures.COLOURS["ours"], label=label, zorder=4)
        ax.set(xlabel="module", ylabel="accuracy on other classes (%)", xticks=position, xticklabels=self.classes)
        figure.legend(frameon=False, ncols=3, fontsize=8, loc="outside upper center")
        return figure

    def table(self) -> Markdown:
        """Return the levels by module, and the accuracy on the own class's set."""
        rows = [
            {
                "module": c,
                "test images": int(self.counts[i]),
                "perfect": f"{100 * self.expected[i]:.2f}",
                "measured": f"{100 * self.measured[i]:.2f}",
                "own class": f"{100 * self.balanced[i, i]:.2f}",
            }
            | {f"paper, k = {percent}%": f"{100 * v[i]:.2f}" for percent, v in self.printed.items() if i < 10}
            for i, c in enumerate(self.classes)
        ]
        return tables.table(
            pd.DataFrame(rows),
            "Accuracy (%) of each module on the balanced sets of the other classes, mean over these: perfect with "
            f"the frequencies of {of_data(self.dataset)}, measured, and printed (MNIST); and measured on its own "
            "class's set.",
            "tab-table6-levels",
        )


def possible(percent: float, images: int) -> bool:
    """Return whether a number with two decimals can be a share of `images`, in per cent."""
    near = percent / 100 * images
    return any(abs(round(100 * n / images, 2) - percent) < 1e-9 for n in (math.floor(near), math.ceil(near)))


def grain(counts: Tensor) -> dict[int, tuple[int, float]]:
    """Return how many entries of Table 6 can be a mean over one trial or five, and how many would by chance.

    `counts`: MNIST's test images of every class. By chance: numbers with two decimals, taken at random.
    """
    table, found = numbers("table6"), {}
    for trials in (1, 5):
        sizes = [2 * trials * int(counts[c]) for c in table["class"]]
        hits = sum(possible(p, n) for p, n in zip(table["accuracy_percent"], sizes, strict=True))
        found[trials] = (hits, sum(min(1.0, n / 10_000) for n in sizes))
    return found


def answer(modules: Modules, error: float, agree: bool) -> Markdown:
    """Say whether the identity holds, to an `error`, and what follows for the paper; `agree`: do Tables 1 and 2."""
    pairs = math.comb(len(modules.classes), 2)
    holds = "exactly" if error < EXACT else f"up to {error:.1g}"
    return Markdown(
        "**Answer.** By four quantities, and two of them are one: a pair with the Jaccard index J has the remaining "
        f"parameters 2k / (1 + J), {holds} for all {pairs} pairs here (n = 1 seed). The index of the paper's Table 1 "
        f'lies {"within" if agree else "outside"} the range of its Table 2 (MNIST FC1). But its "RPs close to 0.5" '
        f"can't be: at k = {PRINTED_K:.0%} a pair has {PRINTED_K:.0%} to {2 * PRINTED_K:.0%}."
    )


def about_the_identity(table1: pd.Series, table2: pd.Series) -> Markdown:
    """Say what masks need at the paper's k, and what the identity makes of the MNIST FC1 rows of its Tables 1 and 2."""
    both, either = PRINTED_K**2, 1 - (1 - PRINTED_K) ** 2
    low, mean, high = (100 * table2[name] for name in ("best", "remaining_parameters_mean", "worst"))
    agree = low <= 100 * table1["remaining_parameters"] <= high
    return Markdown(
        f"At k = {PRINTED_K:.0%} two equal masks need {PRINTED_K:.0%} and two independent ones {either:.0%} "
        f"(J = {both / either:.3f}). Ten independent masks need {1 - (1 - PRINTED_K) ** 10:.0%}.\n\n"
        f"For MNIST FC1 the paper's Table 1 prints J = {table1['jaccard_index']:.2f}, which makes "
        f"{100 * table1['remaining_parameters']:.1f}%. Its Table 2 prints a mean of {mean:.1f}% for the same network, "
        f"which makes J = {table2['jaccard_index']:.2f}, and pairs from {low:.1f}% to {high:.1f}%. So its Table 1 "
        f"lies {'within' if agree else 'outside'} the range of Table 2. The means are not quite those of one run: a "
        f"mean index of {table1['jaccard_index']:.2f} needs at least {100 * table1['remaining_parameters']:.1f}% on "
        f"average, because 2k / (1 + J) is convex. The tables may be of another α or epoch."
    )


def _follows(levels: Levels) -> float:
    """Return the correlation of Table 6's levels at k = 10% with those of perfect modules."""
    return float(np.corrcoef(levels.expected, levels.printed[10])[0, 1])


def about_table_6(levels: Levels) -> Markdown:
    """Return what tells how Table 6 was made: for MNIST only, whose class counts it needs."""
    farthest = 100 * float((levels.measured - levels.expected).abs().max())
    said = f"The modules measured here lie within {farthest:.1f} points of perfect ones."
    if levels.dataset == "mnist":
        found, follows = grain(levels.counts), _follows(levels)
        (hits, chance), (of_five, by_chance), entries = found[1], found[5], len(numbers("table6"))
        drawn = "uniformly over all images" if follows > 0.5 else "in another way"
        of_one = "is not" if hits < (chance + entries) / 2 else "may be"
        said += (
            f" The paper's numbers rise and fall with those of perfect modules (correlation {follows:.2f} over the "
            f"ten modules at k = 10%). This suggests that its images of other classes are drawn {drawn}.\n\nThe "
            f"table {of_one} of one trial. In one trial every entry would be a share of twice a class's images, which "
            f"takes few values. Only {hits} of the {entries} entries can be such a share, about as many as of random "
            f"numbers ({chance:.0f}). As means over five trials {of_five} are possible (of random numbers "
            f"{by_chance:.0f})."
        )
    return Markdown(said)
