"""Table 5: how accurate single modules are, and what choosing their epoch on test images adds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modlib.study import figures, printed, tables
from modlib.study.experiment import Experiment
from modlib.study.names import of_data, of_model
from modlib.study.published import Grid
from modlib.study.records import Record, mean_and_spread
from modlib.study.trials import chosen_epochs, module_rows

CHOICES = {"maximum": "maximum on test", "by_held_out": "chosen on held-out images", "last": "last epoch"}
"""How the epoch of a module is chosen, see `modlib.study.trials.chosen_epochs`."""
PAPERS_EPOCHS = 50
"""The epochs that the paper's maxima are taken over."""


def grid(
    *,
    dataset: str,
    models: Sequence[str],
    k: float,
    alphas: Sequence[float],
    seeds: Sequence[int],
    further: Sequence[Mapping[str, Any]],
    parent_epochs: int,
    epochs: int,
    **_: Any,
) -> Grid:
    """Return the trials of the page: every parent and α."""
    return Grid(dataset, models, [k], alphas, seeds, epochs, parent_epochs, further=further)


def experiments(**parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes with these parameters."""
    return grid(**parameters).experiments()


@dataclass(frozen=True, eq=False)
class Accuracies:
    """What single modules of the trials of a grid reach in every epoch."""

    grid: Grid
    done: Sequence[Record]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row per trial, epoch, split and module."""
        return module_rows(self.done)

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """One row per trial and module: its accuracy on test images by each choice of the epoch."""
        return chosen_epochs(self.rows)

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over the modules of a network, by model, alpha and seed; a column for each choice."""
        return self.chosen.groupby(["model", "alpha", "seed"], sort=False)[list(CHOICES)].mean()

    @cached_property
    def worth(self) -> pd.DataFrame:
        """`chosen`, with what the maximum on test adds to the choice on held-out images, module by module."""
        return self.chosen.assign(over_held_out=self.chosen["maximum"] - self.chosen["by_held_out"])

    @property
    def is_comparable(self) -> bool:
        """Whether data and k are those of the paper's Table 5."""
        return self.grid.dataset == "mnist" and self.grid.ks == [0.10]

    @cached_property
    def printed(self) -> pd.Series:
        """The paper's accuracies (%) by model, alpha and module (or "avg"); none where nothing compares with them."""
        paper = printed.numbers("table5").set_index(["model", "alpha", "module"])["accuracy_percent"]
        return paper if self.is_comparable else paper.iloc[:0]

    def theirs(self, model: str, alpha: float, module: str) -> str:
        """Return the paper's number, or nothing where it has none."""
        which = (model, alpha, module)
        return f"{self.printed[which]:.2f}" if which in self.printed.index else ""

    def maximum_is_highest(self) -> bool:
        """Return whether the maximum on test is nowhere below another choice, as it must not be."""
        return bool((self.chosen["maximum"] >= self.chosen[["by_held_out", "last"]].max(axis=1)).all())


def ten_modules(found: Accuracies) -> Markdown:
    """Return the table of maxima on test of every module, beside the paper's."""
    modules = sorted(found.chosen["module"].unique())
    names = [*map(str, modules), "mean", "n trials"]
    columns: dict[str, list[str]] = {"module": names}
    for (model, alpha), part in tables.groups(found.chosen, ["model", "alpha"]):
        means = part.groupby("seed")["maximum"].mean()
        values = [part[part["module"] == module]["maximum"] for module in modules]
        theirs = [found.theirs(model, alpha, name) for name in (*names[:-2], "avg")]
        column = [
            mean_and_spread(ours) + (f" ({its})" if its else "")
            for ours, its in zip([*values, means], theirs, strict=True)
        ]
        columns[f"{of_model(model)}, α = {alpha:g}"] = [*column, str(len(means))]
    caption = (
        f"Maximum over {found.grid.epochs} epochs of each module's accuracy (%) on all test images of "
        f"{of_data(found.grid.dataset)}, k = {found.grid.ks[0]:.0%}: mean ± standard deviation over trials. In "
        f"brackets the paper's Table 5, whose maximum is over {PAPERS_EPOCHS} epochs."
    )
    return tables.table(pd.DataFrame(columns), caption, "tab-table5")


def selection(found: Accuracies) -> Markdown:
    """Return the table of the choices of the epoch, and what choosing on test adds."""
    lines = []
    for (model, alpha), part in tables.groups(found.means, ["model", "alpha"]):
        gained = found.worth[(found.worth["model"] == model) & (found.worth["alpha"] == alpha)]
        lines.append(
            {"parent": of_model(model), "α": f"{alpha:g}"}
            | {name: mean_and_spread(part[choice]) for choice, name in CHOICES.items()}
            | {
                "paper": found.theirs(model, alpha, "avg"),
                "worth": mean_and_spread(gained["over_held_out"]),
                "n": len(part),
            }
        )
    caption = (
        "Accuracy (%) of single modules on test images, by the choice of the epoch: mean over ten modules, ± standard "
        "deviation over n trials. Worth: points that the maximum on test adds to the choice on held-out images, ± "
        "standard deviation over modules. The paper's number is a maximum."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table5-selection")


def draw(found: Accuracies) -> Figure:
    """Draw the accuracies by the choice of the epoch and α, a panel for each parent."""
    models = found.grid.models
    shown = found.means.rename(columns=CHOICES).melt(ignore_index=False, var_name="epoch", value_name="accuracy")
    shown = shown.reset_index()
    shown["accuracy"] *= 100
    shown["α"] = [f"{alpha:g}" for alpha in shown["alpha"]]
    figure, axes = plt.subplots(1, len(models), figsize=(figures.WIDTH, 3.2), sharey=True, squeeze=False)
    for ax, model in zip(axes[0], models, strict=True):
        _draw_parent(ax, found, model, shown[shown["model"] == model], legend=ax is axes[0, -1])
    handles, labels = axes[0, -1].get_legend_handles_labels()
    axes[0, -1].get_legend().remove()
    figure.legend(handles, labels, frameon=False, fontsize=7, ncols=4, loc="outside upper center")
    return figure


def _draw_parent(ax: Axes, found: Accuracies, model: str, part: pd.DataFrame, legend: bool) -> None:
    alphas = found.grid.alphas
    sns.pointplot(
        part, x="α", y="accuracy", hue="epoch", errorbar="sd", ax=ax, legend=legend,
        # the order is said: otherwise each panel has that of its rows, and crosses stand at other α than they belong to
        order=[f"{alpha:g}" for alpha in alphas],
        linestyle="none", dodge=0.3, markersize=5, err_kws={"linewidth": 1.5},
    )  # fmt: skip
    if found.is_comparable:
        marks = [float(found.printed.get((model, alpha, "avg"), math.nan)) for alpha in alphas]
        ax.scatter(range(len(alphas)), marks, marker="x", s=40, color="black", zorder=5, label="paper")
    ax.set(title=of_model(model), ylabel="accuracy of modules (%)")


def best_alpha(found: Accuracies) -> Markdown:
    """Return the table of how many modules are most accurate at each α, by the choice of the epoch."""
    of_modules = found.chosen.groupby(["model", "module", "alpha"], sort=False)[list(CHOICES)].mean().reset_index()
    lines = [_most_accurate(name, of_modules, choice, found.grid.alphas) for choice, name in CHOICES.items()]
    if found.is_comparable:
        paper = printed.numbers("table5")
        known = paper[(paper["module"] != "avg") & paper["model"].isin(found.grid.models)]
        lines.append(_most_accurate("paper, maximum on test", known, "accuracy_percent", found.grid.alphas))
    return tables.table(pd.DataFrame(lines), "How many modules are most accurate at each α.", "tab-table5-alpha")


def _most_accurate(name: str, rows: pd.DataFrame, column: str, alphas: Sequence[float]) -> dict[str, str]:
    wide = rows.pivot(index=["model", "module"], columns="alpha", values=column)
    best = wide.eq(wide.max(axis=1), axis=0)  # ties count for all
    counts = {a: f"{int(best[a].sum())} of {len(wide)}" if a in best else "" for a in sorted(alphas)}
    return {"epoch": name} | {f"α = {a:g}": count for a, count in counts.items()}


def answer(found: Accuracies) -> Markdown:
    """Return how accurate the modules are, and what choosing the epoch on test is worth."""
    grid, means, gain = found.grid, found.means, found.worth["over_held_out"]
    return Markdown(
        f"**Answer.** A module is right on {mean_and_spread(means['by_held_out'])}% of the test images of "
        f"{of_data(grid.dataset)} if its epoch is chosen on held-out images. Chosen on the test images themselves, as "
        f"in the paper, it is right on {mean_and_spread(means['maximum'])}% (means of ten modules, n = {len(means)} "
        f"decompositions). So that choice adds {mean_and_spread(gain)} points on average, and flatters "
        f"{int((gain > 0).sum())} of {len(gain)} modules.{_beside_paper(found)}"
    )


def _beside_paper(found: Accuracies) -> str:
    gaps = pd.Series(
        [
            100 * part["maximum"].mean() - found.printed[model, alpha, "avg"]
            for (model, alpha), part in tables.groups(found.means, ["model", "alpha"])
            if (model, alpha, "avg") in found.printed.index
        ],
        dtype=float,
    )
    if gaps.empty:
        return ""
    epochs = found.grid.epochs
    fewer = "" if epochs == PAPERS_EPOCHS else f", after {epochs} epochs instead of {PAPERS_EPOCHS}"
    side = "above" if gaps.mean() > 0 else "below"
    return f" Our maxima are on average {abs(gaps.mean()):.2f} points {side} the paper's{fewer}."


def between_alphas(found: Accuracies) -> Markdown:
    """Return how far the values of α are apart, by the choice on held-out images."""
    by_alpha = found.means.groupby(["model", "alpha"], sort=False)["by_held_out"].mean().groupby("model", sort=False)
    between = 100 * (by_alpha.max() - by_alpha.min()).mean()
    gain = 100 * found.worth["over_held_out"].mean()
    return Markdown(
        f"Chosen on held-out images, the best and the worst α of a parent are {between:.2f} points apart on the mean. "
        f"The choice of the epoch on test alone is worth {gain:.2f}."
    )
