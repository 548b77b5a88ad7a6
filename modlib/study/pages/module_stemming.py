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
from modlib.study.names import of_data, of_network
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


def where(data: Dataset) -> str:
    """Return what the numbers of the page were measured on, for a caption."""
    return f"{of_data(data.name)}, {len(data.held_out_labels):,} held-out images (n = 1 seed)"


def answer(stemmed: Measured, free: Measured, data: Dataset, recipe: Recipe, model: str) -> Markdown:
    """Say what the two means are, and what the stemming loss changed."""
    changes = "raises" if stemmed["jaccard_index"] > free["jaccard_index"] else "does not raise"
    percent, error = tables.percent, _noise(len(data.held_out_labels), stemmed, free)
    return Markdown(
        "**Answer.** All modules start from the same scores, and a stemming loss pulls their scores towards a common "
        f"average. On {of_network(data.name, model)} (α = {recipe.alpha:g}, {recipe.epochs} epochs, n = 1 seed) the "
        f"loss {changes} the Jaccard index from {free['jaccard_index']:.2f} to {stemmed['jaccard_index']:.2f}, and "
        f"takes the remaining parameters of a pair from {percent(free['remaining_parameters'])} to "
        f"{percent(stemmed['remaining_parameters'])}. The vote of all modules has {_change(stemmed, free, 'accuracy')} "
        f"against modules without it (one standard error: {100 * error:.2f})."
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
                "scores": f"{weight.numel():,}",
                "factor": f"{factor[name]:.3g}",
                "in an epoch": f"{factor[name] / unit[name]:.3g} σ",
            }
            for name, weight in weights.items()
        ]
    return tables.table(
        pd.DataFrame(rows),
        f"The factor in Eq. 1 for this parent by three readings, α = {recipe.alpha:g}. Last: how far it can move a "
        f"score in an epoch of {steps:,} steps (p = 1), in standard deviations σ of the layer's initial scores.",
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
    """Draw remaining parameters and accuracy over the epochs; `share`: of the edges that a module keeps."""
    curve = pd.DataFrame(history.rows)
    epochs = curve["epoch"].max()
    shown = {
        "remaining_parameters": "remaining parameters, pairs (%)",
        "accuracy": "accuracy of the vote (%)",
    }
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.1))
    for ax, (column, label) in zip(axes, shown.items(), strict=True):
        for run, part in curve.dropna(subset=[column]).groupby("run", sort=False):
            colour = figures.COLOURS[str(run)]
            ax.plot(part["epoch"], 100 * part[column], marker="o", markersize=3, label=run, color=colour)
        ax.set(xlabel="epoch", ylabel=label, xlim=(-0.03 * epochs, 1.03 * epochs))
        ax.xaxis.set_major_locator(plt.MaxNLocator(5, integer=True))
    for line in (share, 2 * share):
        axes[0].axhline(100 * line, color="0.5", linestyle="--", linewidth=1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def of_all_classes(stemmed: Measured, free: Measured, share: float) -> Markdown:
    """Say how large all modules are together, and a pair without stemming beside twice the `share` of one."""
    close = free["remaining_parameters"] > 0.95 * 2 * share
    return Markdown(
        f"All modules together have {tables.percent(stemmed['remaining_parameters_all'])} remaining parameters with "
        f"stemming, and {tables.percent(free['remaining_parameters_all'])} without. The paper says that a pair without "
        f"stemming needs close to twice $k$, here {tables.percent(2 * share, 0)}. In this run, by "
        f"our recipe, it {'does' if close else 'does not'}. The page on [the paper's Figure 3](figure3.ipynb) "
        "looks at its own recipe."
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
            "remaining parameters, pairs": tables.percent(row["remaining_parameters"]),
            "remaining parameters, all": tables.percent(row["remaining_parameters_all"]),
            "accuracy, all": tables.percent(row["accuracy"]),
            "accuracy, pairs": tables.percent(row["pair_accuracy"]),
            "accuracy, modules": tables.percent(row["module_accuracy"]),
        }
        for decomposition, row in measured.items()
    ]
    return tables.table(pd.DataFrame(rows), caption, name)


def a_or_b(measured: Mapping[str, Measured], data: Dataset) -> Markdown:
    """Say how method A from each base class compares with method B, and judge the paper's statement of it."""
    average = measured[AVERAGE]
    bases = [row for name, row in measured.items() if name != AVERAGE]
    ahead = sum(row["accuracy"] > average["accuracy"] for row in bases)
    smaller = sum(row["remaining_parameters"] < average["remaining_parameters"] for row in bases)
    best = max(bases, key=lambda row: row["accuracy"])
    error = _noise(len(data.held_out_labels), best, average)
    verdict = "neither confirms nor contradicts"
    if abs(best["accuracy"] - average["accuracy"]) > 2 * error:
        verdict = "contradicts" if ahead else "agrees with"
    return Markdown(
        f"Method A is more accurate than B with {ahead} of {len(bases)} base classes, and pairs are smaller with "
        f"{smaller}. The best base has {_change(best, average, 'accuracy')} against B; one standard "
        f"error of such a difference is {100 * error:.2f}. So this run **{verdict}** the paper's statement. "
        "[Preliminaries](preliminaries.ipynb) looks at it again, by the paper's recipe."
    )


def of_the_vote(voted: Measured, plain: Measured, data: Dataset) -> Markdown:
    """Say what the vote loss changes."""
    error = _noise(len(data.held_out_labels), voted, plain)
    sure = abs(voted["accuracy"] - plain["accuracy"]) > 2 * error
    return Markdown(
        f"With the vote loss the vote has {_change(voted, plain, 'accuracy')} against modules without it, "
        f"{'more' if sure else 'not more'} than two standard errors (one is {100 * error:.2f}). Single modules have "
        f"{_change(voted, plain, 'module_accuracy')}: their own yes or no weighs less in the loss. "
        "[Our recipe](ours.ipynb) looks at the vote loss over several seeds."
    )
