"""Table 4: the parameters of a decomposition, and what the printed weight decay does to scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from modlib.data import Dataset
from modlib.modules import Modules
from modlib.recipes import RECIPES, Recipe
from modlib.study import figures, tables
from modlib.study.names import of_network
from modlib.study.records import Rows
from modlib.study.trials import measure

PRINTED = {
    "k": "10% (Tables 1, 2, 5); 5, 10, 20% (Table 6)",
    "alpha": "1 (Table 2); 0, 0.05, 0.1 (Table 5)",
    "epochs": "25 (Table 2); 50 (Table 5)",
    "init": "Kaiming normal",
    "batch_size": "32; 512 (WideResNet)",
    "lr": "0.1; 0.01 (WideResNet)",
    "grafting_lr": '"low"',
    "momentum": "0.9 (Nesterov)",
    "weight_decay": "5 × 10⁻¹",
    "p": "1, after trying 2",
    "scores": "positive, from a signed draw",
    "method": "average, after trying a base class",
    "share_init": "yes; Table 2 without",
    "allocation": "the same share of every layer",
    "shared_epochs": "none: they are ours",
    "vote": "none: it is ours",
}
"""What the paper prints on the settings of a recipe, in Table 4 and in its text."""


def parameters() -> Markdown:
    """Return the table of all settings: the paper's, and the two recipes as they are by default."""
    made = {name: make() for name, make in RECIPES.items()}
    rows = [
        {"parameter": f"`{f.name}`", "the paper": PRINTED.get(f.name, "not said")}
        | {name: _value(recipe, f.name) for name, recipe in made.items()}
        for f in fields(Recipe)
        if f.name != "base_class"
    ]
    differ = sum(row["published"] != row["ours"] for row in rows)
    caption = (
        "Parameters of a decomposition: what the paper prints (Table 4 and text), and the two recipes as they are by "
        f"default; they differ in {differ}. What each parameter means: the documentation of modlib.cotrain."
    )
    return tables.table(pd.DataFrame(rows), caption, "tab-table4")


def _value(recipe: Recipe, name: str) -> str:
    if name == "grafting_lr":
        return f"{recipe.grafting_rate:g}"
    value = getattr(recipe, name)
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value}"


def draw_rates(steps: int = 200) -> Figure:
    """Draw both recipes' rates over a decomposition of so many steps: of the scores, and of the grafting layers."""
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.9))
    done = [100 * step / steps for step in range(steps + 1)]
    for name, make in RECIPES.items():
        recipe = make()
        factor = [recipe.rate_factor(step, steps) for step in range(steps + 1)]
        ax.plot(done, [recipe.lr * f for f in factor], color=figures.COLOURS[name], label=f"{name}: scores")
        grafting = [recipe.grafting_rate * f for f in factor]
        ax.plot(done, grafting, color=figures.COLOURS[name], ls="--", label=f"{name}: grafting layers")
    ax.set(xlabel="part of the decomposition done (%)", ylabel="learning rate")
    figure.legend(frameon=False, ncols=4, fontsize=8, loc="outside upper center")
    return figure


def influence(decay: float, steps: int = 5000) -> list[float]:
    """Return by how much a gradient of 1 in step 0 still lowers a score, step by step, at recipe published's rate."""
    base = RECIPES["published"]()
    score, velocity, trace = 0.0, 0.0, []
    for step in range(steps):
        gradient = (1.0 if step == 0 else 0.0) + decay * score
        velocity = base.momentum * velocity + gradient
        score -= base.lr * (gradient + base.momentum * velocity)
        trace.append(-score)
    return trace


def steps_to_half(influence: Sequence[float]) -> int | None:
    """Return the first step after the peak at which less than half of it is left; None where it stays."""
    top = max(range(len(influence)), key=lambda step: influence[step])
    return next((step for step in range(top, len(influence)) if influence[step] < influence[top] / 2), None)


def draw_memory(influences: Mapping[float, Sequence[float]]) -> Figure:
    """Draw how a gradient's influence on a score fades over the steps, by weight decay."""
    palette = figures.palette(list(influences))
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.6))
    for decay, trace in influences.items():
        ax.plot(range(1, len(trace) + 1), trace, color=palette[decay], label=f"{decay:g}")
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xlabel="steps after the gradient", ylabel="influence on the score", xscale="log")
    ax.legend(title="weight decay", frameon=False)
    return figure


class Look:
    """Measures a decomposition after every epoch, on held-out images: a callback of `modlib.cotrain`.

    `rows`: what `modlib.study.trials.measure` returns, and of the first layer the `size` of its scores (root mean
    square) and the share of its kept edges that `changed` since the epoch before.
    """

    def __init__(self, data: Dataset) -> None:
        self.rows: Rows = []
        self._data = data
        self._before: Tensor | None = None

    def __call__(self, epoch: int, modules: Modules) -> None:
        if modules.scores is None:
            raise ValueError("modules: have no scores; only those of a decomposition in this process do")
        first, mask = next(iter(modules.masks.masks.items()))
        changed = float("nan") if self._before is None else float((mask & ~self._before).sum() / mask.sum())
        row = measure(modules, self._data, "held_out")
        row |= {"size": float(modules.scores[first].square().mean().sqrt()), "changed": changed}
        self.rows.append({"epoch": epoch} | row)
        self._before = mask.clone()


def curves(looks: Mapping[float, Look]) -> pd.DataFrame:
    """Return the rows of decompositions by their weight decay, as one table."""
    return pd.DataFrame([{"decay": decay} | row for decay, look in looks.items() for row in look.rows])


def draw_decompositions(curve: pd.DataFrame, parents_accuracy: float) -> Figure:
    """Draw the rows of `curves` over the epochs, one curve for each weight decay."""
    palette = figures.palette(list(curve["decay"].unique()))
    figure, axes = plt.subplots(2, 2, figsize=(figures.WIDTH, 4.0), sharex=True)
    quantities = [
        ("accuracy", 100, "accuracy of the vote (%)"),
        ("jaccard_index", 1, "Jaccard index"),
        ("size", 1, "size of the scores"),
        ("changed", 100, "edges exchanged (%)"),
    ]
    for ax, (quantity, scale, label) in zip(axes.flat, quantities, strict=True):
        for decay, colour in palette.items():
            group = curve[curve["decay"] == decay]
            y = scale * group[quantity]
            ax.plot(group["epoch"], y, marker="o", markersize=3, color=colour, label=f"{decay:g}")
        ax.set_ylabel(label)
    axes[0, 0].axhline(100 * parents_accuracy, color=figures.COLOURS["parent"], lw=1, ls=":")
    axes[1, 0].set(yscale="log", xlabel="epoch")
    axes[1, 1].set(xlabel="epoch", ylim=(0, 105))
    axes[0, 1].set_ylim(0, 1.02)
    axes[1, 0].xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, title="weight decay", frameon=False, ncols=len(labels), loc="outside upper center")
    return figure


def last_epoch(curve: pd.DataFrame) -> Markdown:
    """Return the table of the decompositions after their last epoch."""
    last = curve[curve["epoch"] == curve["epoch"].max()]
    rows = [
        {
            "weight decay": f"{row['decay']:g}",
            "accuracy of the vote (%)": f"{100 * row['accuracy']:.2f}",
            "accuracy of a module (%)": f"{100 * row['module_accuracy']:.2f}",
            "Jaccard index": f"{row['jaccard_index']:.3f}",
            "remaining parameters, pairs (%)": f"{100 * row['remaining_parameters']:.2f}",
            "size of the scores": f"{row['size']:.2g}",
            "edges exchanged in the last epoch (%)": f"{100 * row['changed']:.1f}",
        }
        for row in last.to_dict("records")
    ]
    caption = "Decompositions after their last epoch, by weight decay of the scores, on held-out images (n = 1 seed)."
    return tables.table(pd.DataFrame(rows), caption, "tab-score-decay")


def answer(dataset: str, model: str, k: float, alpha: float, curve: pd.DataFrame, parents_accuracy: float) -> Markdown:
    """Return the answer in sentences: what the largest weight decay does to votes and masks, beside the smallest."""
    epochs, percent = curve["epoch"].max(), tables.percent
    last = curve[curve["epoch"] == epochs].sort_values("decay").to_dict("records")
    small, large = last[0], last[-1]
    of_large, of_small = (percent(row["accuracy"], 1) for row in (large, small))
    still, least = (percent(row["changed"], 0) for row in (large, small))
    return Markdown(
        f"**Answer** ({of_network(dataset, model)}, held-out images, k = {percent(k, 0)}, α = {alpha:g}, {epochs} "
        f"epochs, n = 1 seed). With weight decay {large['decay']:g} the vote is right on **{of_large}**, with "
        f"{small['decay']:g} on **{of_small}** (the parent: {percent(parents_accuracy, 1)}). The Jaccard index is "
        f"{large['jaccard_index']:.3f} against {small['jaccard_index']:.3f}. In the last epoch {still} of the edges "
        f"kept in the first layer still change, against {least}: a large decay makes scores forget what they learnt."
    )
