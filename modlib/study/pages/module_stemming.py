"""Module stemming: what modules start from, how hard the loss pulls them, and what the runs of the page came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from modlib import masking, stemming
from modlib.data import Dataset
from modlib.engines import start
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.recipes import Recipe, Run
from modlib.seeds import generator
from modlib.study import figures, tables
from modlib.study.trials import measure

FREE, STEMMED = "no stemming", "module stemming"
"""The two runs that are compared, by the names of their colours."""
AVERAGE = "B, average"
Measured = Mapping[str, Any]
"""What `modlib.study.trials.measure` returns."""
KEPT_BY = {"both": figures.COLOURS["published"], "one": figures.COLOURS["ours"], "none": "0.75"}
DRAWN = 1000
"""Edges of a kind that a figure shows at most."""


def starting_masks(parent: nn.Module, k: float, seed: int, classes: Sequence[int], *, shared: bool) -> MaskSet:
    """Return the masks that the modules start from: of one draw of scores, or of one draw each."""
    run = Run(parent, Recipe(k=k, alpha=0.0, epochs=1, share_init=shared), seed)
    weights = dict(masking.maskable_parameters(parent))
    keep = run.recipe.kept_edges(weights)
    drawn = [start.starting_scores(run, weights, c) for c in classes]
    return MaskSet(
        {
            name: masking.top_k_mask(torch.stack([scores[name].flatten() for scores in drawn]), keep[name]).view(
                -1, *weight.shape
            )
            for name, weight in weights.items()
        },
        tuple(classes),
    )


def initial_sentence(apart: MaskSet) -> Markdown:
    """Say what masks of one draw each have in common."""
    pair = masking.mean_over_pairs(apart.remaining_of_pairs())
    return Markdown(
        f"Drawn one by one, the {len(apart.classes)} initial masks of this parent have a mean Jaccard index of "
        f"{apart.mean_jaccard():.4f}, and a pair of them keeps {tables.percent(pair)} of the weights."
    )


def factors_table(recipe: Recipe, weights: Mapping[str, Tensor], images: int) -> Markdown:
    """Return Eq. 1's factor by reading and layer, and how far it can pull a score in an epoch of so many images."""
    steps = -(-images // recipe.batch_size)
    one_deviation = replace(recipe, alpha=1.0, reduction="scale_free")
    unit = start.stemming_factors(one_deviation, weights, steps)
    rows = []
    for reading in stemming.REDUCTIONS:
        factor = start.stemming_factors(replace(recipe, reduction=reading), weights, steps)
        rows += [
            {
                "reading": f"`{reading}`",
                "layer": name,
                "scores": weight.numel(),
                "factor": f"{factor[name]:.3g}",
                "reach in an epoch": f"{factor[name] / unit[name]:.3g} σ",
            }
            for name, weight in weights.items()
        ]
    return tables.table(
        pd.DataFrame(rows),
        f"Three readings of Eq. 1's factor for this parent, α = {recipe.alpha:g}, and how far the pull can move a "
        f"score in an epoch of {steps:,} steps (p = 1), in initial standard deviations of its layer.",
        "tab-factors",
    )


@dataclass
class History:
    """What is measured of runs after every epoch, on held-out images, from the masks that they share at the start."""

    data: Dataset
    initial: MaskSet
    rows: list[dict[str, Any]] = field(default_factory=list)
    first_epoch: list[Mapping[str, Tensor]] = field(default_factory=list)
    """The masks of each run after its first epoch."""

    def watch(self, run: str) -> Callable[[int, Modules], None]:
        """Return the callback that measures a run of this name."""
        sharing = {"jaccard_index": self.initial.mean_jaccard(), "remaining_parameters": self.initial.remaining()}
        self.rows.append({"run": run, "epoch": 0} | sharing)

        def after_epoch(epoch: int, modules: Modules) -> None:
            self.rows.append({"run": run, "epoch": epoch} | measure(modules, self.data, "held_out"))
            if epoch == 1:
                self.first_epoch.append(modules.masks.masks)

        return after_epoch


def draw_epochs(history: History, share: float) -> Figure:
    """Draw sharing and accuracy over the epochs; `share`: of the edges that a module keeps."""
    curve = pd.DataFrame(history.rows)
    epochs = curve["epoch"].max()
    shown = {
        "jaccard_index": ("Jaccard index", 1),
        "remaining_parameters": ("weights that a pair keeps (%)", 100),
        "accuracy": ("accuracy of the vote (%)", 100),
    }
    figure, axes = plt.subplots(1, 3, figsize=(figures.WIDTH, 2.9))
    for ax, (column, (label, scale)) in zip(axes, shown.items(), strict=True):
        for run, part in curve.dropna(subset=[column]).groupby("run", sort=False):
            colour = figures.COLOURS[str(run)]
            ax.plot(part["epoch"], scale * part[column], marker="o", markersize=3, label=run, color=colour)
        ax.set(xlabel="epoch", ylabel=label, xlim=(-0.03 * epochs, 1.03 * epochs))
        ax.xaxis.set_major_locator(plt.MaxNLocator(5, integer=True))
    axes[0].set_ylim(0, 1.03)
    for line in (share, 2 * share):
        axes[1].axhline(100 * line, color="0.5", linestyle="--", linewidth=1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def with_and_without(stemmed: Measured, free: Measured, data: Dataset, recipe: Recipe, share: float) -> Markdown:
    """Say what stemming changes, and whether a pair without it is close to twice the share that a module keeps."""
    direction = "more" if stemmed["jaccard_index"] > free["jaccard_index"] else "no more"
    close = free["remaining_parameters"] > 0.95 * 2 * share
    count = len(data.held_out_labels)
    return Markdown(
        f"**With and without.** On {data.name}, after {recipe.epochs} epochs (n = 1 seed), modules trained with "
        f"stemming (α = {recipe.alpha:g}) have {direction} in common than those without: the Jaccard index is "
        f"{stemmed['jaccard_index']:.2f} against {free['jaccard_index']:.2f}. "
        f"A pair keeps {tables.percent(stemmed['remaining_parameters'])} of the weights "
        f"against {tables.percent(free['remaining_parameters'])}, all modules together "
        f"{tables.percent(stemmed['remaining_parameters_all'])} against "
        f"{tables.percent(free['remaining_parameters_all'])}. "
        f"The accuracy of the vote differs by {_change(stemmed, free, 'accuracy')} (one standard error of an "
        f"accuracy on {count:,} held-out images: {100 * _noise(count, stemmed):.2f}). The paper says that without "
        f"stemming a pair is close to twice k, here {tables.percent(2 * share, 0)}: in this run (our rates, batches of "
        f"{recipe.batch_size}), from a shared start, it {'is' if close else 'is not'}; "
        "the paper's own recipe is judged by [Figure 3](figure3.ipynb)."
    )


def _noise(count: int, *measured: Measured) -> float:
    """One standard error of an accuracy on `count` images, or of a difference of two, taken as independent."""
    shares = [row["accuracy"] for row in measured]
    return sum(share * (1 - share) / count for share in shares) ** 0.5


def _change(new: Measured, old: Measured, quantity: str) -> str:
    return f"{100 * (new[quantity] - old[quantity]):+.2f} points"


def draw_scores(runs: Mapping[str, Modules], seed: int) -> Figure:
    """Draw the first two modules' scores of the first layer's edges against each other, some of them, by run."""
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.7), sharex=True, sharey=True)
    for ax, (run, modules) in zip(axes, runs.items(), strict=True):
        _scatter(ax, modules, seed)
        a, b = modules.classes[:2]
        ax.set(title=run, xlabel=f"score in module {a}", ylabel=f"score in module {b}")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="kept by", loc="outside right center", frameon=False, markerscale=2)
    return figure


def _scatter(ax: Axes, modules: Modules, seed: int) -> None:
    """Draw edges that either module keeps, at most `DRAWN`, and as many that neither does."""
    assert modules.scores is not None  # of a decomposition just made
    first = next(iter(modules.scores))
    scores, masks = (of[first][:2].flatten(1) for of in (modules.scores, modules.masks.masks))
    kept = masks.sum(0)
    drawn = torch.randperm(len(kept), generator=generator(seed, "drawn"))
    some_kept = drawn[kept[drawn] > 0][:DRAWN]
    chosen = torch.cat([drawn[kept[drawn] == 0][: len(some_kept)], some_kept])
    by = np.array(["none", "one", "both"])[kept[chosen]]
    x, y = scores[:, chosen]
    sns.scatterplot(x=x, y=y, hue=by, palette=KEPT_BY, hue_order=list(KEPT_BY), s=7, linewidth=0, ax=ax)
    for draw, values, mask in zip((ax.axvline, ax.axhline), scores, masks, strict=True):
        draw(float(values[mask].min()), color="0.4", linestyle="--", linewidth=0.8)
    ax.legend().remove()  # one legend serves both panels


def decompositions_table(measured: Mapping[str, Measured], caption: str, name: str) -> Markdown:
    """Return the sharing and the accuracies of some decompositions, one row each."""
    rows = [
        {
            "decomposition": decomposition,
            "Jaccard index": f"{row['jaccard_index']:.3f}",
            "remaining, pairs": tables.percent(row["remaining_parameters"]),
            "remaining, all": tables.percent(row["remaining_parameters_all"]),
            "accuracy, all": tables.percent(row["accuracy"]),
            "accuracy, pairs": tables.percent(row["pair_accuracy"]),
            "accuracy, modules": tables.percent(row["module_accuracy"]),
        }
        for decomposition, row in measured.items()
    ]
    return tables.table(pd.DataFrame(rows), caption, name)


def a_or_b(measured: Mapping[str, Measured], data: Dataset) -> Markdown:
    """Say how method A from each base class compares with method B, and judge the paper's statement of it."""
    average, count = measured[AVERAGE], len(data.held_out_labels)
    bases = [row for name, row in measured.items() if name != AVERAGE]
    reached = sum(row["accuracy"] >= average["accuracy"] for row in bases)
    smaller = sum(row["remaining_parameters"] <= average["remaining_parameters"] for row in bases)
    best = max(bases, key=lambda row: row["accuracy"])
    spread = best["accuracy"] - min(row["accuracy"] for row in bases)
    error = _noise(count, best, average)
    clear = abs(best["accuracy"] - average["accuracy"]) > 2 * error
    verdict = "is **neither confirmed nor contradicted in this run**."
    if clear:
        verdict = "is **contradicted in this run**." if reached else "**holds in this run**."
    return Markdown(
        f"**A or B.** Base classes tried on {data.name}: {len(bases)} (n = 1 seed); those that reach B's accuracy: "
        f"{reached}; those that need no more parameters for a pair than B: {smaller}. The best base is "
        f"{_change(best, average, 'accuracy')} from B, {'more' if clear else 'not more'} than two standard errors of a "
        f"difference ({100 * error:.2f} each); the highest and the lowest base lie {100 * spread:.2f} points apart. "
        f"The paper's statement that A is not as accurate as B {verdict}"
    )


def of_the_vote(voted: Measured, plain: Measured, data: Dataset) -> Markdown:
    """Say what the vote loss changes."""
    error = _noise(len(data.held_out_labels), voted, plain)
    sure = abs(voted["accuracy"] - plain["accuracy"]) > 2 * error
    return Markdown(
        f"**The vote loss.** In this run on {data.name} (n = 1 seed) the vote of all modules changes by "
        f"{_change(voted, plain, 'accuracy')}, {'more' if sure else 'not more'} than two standard errors "
        f"({100 * error:.2f} each), the accuracy of single modules by {_change(voted, plain, 'module_accuracy')}, the "
        f"remaining parameters of a pair by {_change(voted, plain, 'remaining_parameters')} of the weights."
    )
