"""Figure 3: remaining parameters and accuracies of two-class networks, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modlib.study import figures, tables
from modlib.study.claims import Claim
from modlib.study.experiment import Experiment
from modlib.study.names import of_data, of_model
from modlib.study.published import Grid, count_of, trials_of
from modlib.study.records import interval, mean_and_spread, signed
from modlib.study.trials import last_epochs

SETTING = ["model", "k", "alpha"]
"""The columns that tell the settings of the figure apart."""
QUANTITIES = {
    "remaining_parameters": ("remaining\nparameters (%)", 100),
    "pair_accuracy": ("accuracy of\npairs (%)", 100),
    "module_accuracy": ("accuracy of\nmodules (%)", 100),
}
"""What is drawn over the epochs, from above: label and scale."""
ACCURACIES = {"pair_accuracy": "pairs", "accuracy": "all classes", "module_accuracy": "single modules"}
"""The accuracies that are compared with the remaining parameters, as the page names them."""
ANY = "α, k or both"
KINDS: Mapping[str, Sequence[str]] = {"α only": ["k"], "k only": ["alpha"], ANY: []}
"""Kinds of comparison by what the settings differ in, each with what they have in common beside the parent."""


def experiments(
    *,
    dataset: str,
    models: Sequence[str],
    ks: Sequence[float],
    alphas: Sequence[float],
    seeds: Sequence[int],
    further: Sequence[Mapping[str, Any]],
    parent_epochs: int,
    epochs: int,
    **_: Any,
) -> list[Experiment]:
    """Return what the page reads or computes with these parameters."""
    return Grid(dataset, models, ks, alphas, seeds, epochs, parent_epochs, further=further).experiments()


@dataclass(frozen=True, eq=False)
class Curves:
    """What the trials of a grid measured: `rows` has one row per trial, epoch and split."""

    grid: Grid
    rows: pd.DataFrame

    @cached_property
    def test(self) -> pd.DataFrame:
        """The rows of test images."""
        return self.rows[self.rows["split"] == "test"]

    @cached_property
    def last(self) -> pd.DataFrame:
        """Those of the last epoch."""
        return last_epochs(self.rows)

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means over the trials of a setting, in the last epoch."""
        quantities = ["remaining_parameters", "pair_accuracy", "module_accuracy", "accuracy"]
        return self.last.groupby(SETTING)[quantities].mean()

    @property
    def count(self) -> int | str:
        """How many trials a setting has."""
        return count_of([len(part) for _, part in self.last.groupby(SETTING)])

    def lie_between_k_and_2k(self) -> bool:
        """Return whether the remaining parameters of pairs do, as they must but for what rounding does to k."""
        last = self.last
        return bool(last["remaining_parameters"].between(0.98 * last["k"], 2.04 * last["k"]).all())

    def start_alike(self) -> bool:
        """Return whether trials that differ in α alone agree in the first epoch, which has no stemming loss."""
        first = self.test[self.test["epoch"] == 1].groupby(["model", "k", "seed"])["remaining_parameters"]
        return bool((first.nunique() == 1).all())

    @cached_property
    def trade(self) -> dict[tuple[str, str], tuple[int, int]]:
        """By accuracy and kind of comparison, how often more parameters go with less accuracy, of how many times."""
        return {
            (quantity, kind): _comparisons(self.means, quantity, same)
            for quantity in ACCURACIES
            for kind, same in KINDS.items()
        }

    @cached_property
    def clear(self) -> dict[tuple[str, str], tuple[int, int]]:
        """The same, of clear comparisons alone."""
        return {
            (quantity, kind): _clear_comparisons(self.last, quantity, same)
            for quantity in ACCURACIES
            for kind, same in KINDS.items()
        }

    @property
    def verdict(self) -> str:
        """On the sentence about parameters and accuracy: of votes of two and of all modules, where both agree."""
        found = {judged(*self.trade[quantity, ANY]) for quantity in ("pair_accuracy", "accuracy")}
        return found.pop() if len(found) == 1 else "neither"


def _compared(settings: Iterable[tuple[Any, ...]], same: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Yield every two settings, see `SETTING`, that agree in the parent and in `same`."""
    common = [SETTING.index(name) for name in ["model", *same]]
    return ((a, b) for a, b in combinations(settings, 2) if all(a[i] == b[i] for i in common))


def _comparisons(means: pd.DataFrame, quantity: str, same: Sequence[str]) -> tuple[int, int]:
    """Return how often more parameters go with less accuracy, of how many pairs of settings that agree in `same`."""
    less = total = 0
    for a, b in _compared(means.index, same):
        difference = means.loc[a] - means.loc[b]
        change = difference["remaining_parameters"] * difference[quantity]
        less += bool(change < 0)
        total += bool(change != 0)
    return less, total


def _clear_comparisons(last: pd.DataFrame, quantity: str, same: Sequence[str]) -> tuple[int, int]:
    """Return the same of pairs whose accuracies clearly differ: seed by seed, the 95% interval leaves zero out."""
    by_seed = last.pivot(index="seed", columns=SETTING, values=["remaining_parameters", quantity])
    parameters, accuracy = by_seed["remaining_parameters"], by_seed[quantity]
    less = total = 0
    for a, b in _compared(accuracy.columns, same):
        change = (accuracy[a] - accuracy[b]).dropna()
        low, high = interval(change)
        if low > 0 or high < 0:
            less += bool(change.mean() * (parameters[a] - parameters[b]).mean() < 0)
            total += 1
    return less, total


def judged(less: int, total: int) -> str:
    """Return whether "more parameters, less accuracy" holds: in more than two thirds of all comparisons."""
    if not total:
        return "open"
    return "holds" if less > 2 / 3 * total else "reversed" if less < total / 3 else "neither"


def last_epoch(curves: Curves) -> Markdown:
    """Return the table of all settings after their last epoch."""
    lines = [
        {
            "parent": of_model(model),
            "k": f"{k:.0%}",
            "α": f"{alpha:g}",
            "remaining parameters of pairs (%)": mean_and_spread(part["remaining_parameters"]),
            "Jaccard index": mean_and_spread(part["jaccard_index"], 1, 3),
            "accuracy of pairs (%)": mean_and_spread(part["pair_accuracy"]),
            "of modules (%)": mean_and_spread(part["module_accuracy"]),
            "of all classes (%)": mean_and_spread(part["accuracy"]),
            "own parent (%)": mean_and_spread(part["parent_accuracy"]),
            "n": len(part),
        }
        for (model, k, alpha), part in tables.groups(curves.last, SETTING)
    ]
    caption = (
        f"The last epoch ({curves.grid.epochs}) of the figure: {of_data(curves.grid.dataset)}, recipe published, test "
        "images. Accuracies of votes: mean over pairs, and all classes. Mean ± standard deviation over n trials."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-figure3")


def without_stemming(curves: Curves) -> list[dict[str, Any]]:
    """Return a row for each parent and k with a trial at α = 0: how close pairs come to twice the size of a module."""
    last, most = curves.last, max(curves.grid.alphas)
    rows = []
    for (model, k), part in tables.groups(last[last["alpha"] == 0], ["model", "k"]):
        ratio = part["remaining_parameters"] / k
        stemmed = last[(last["model"] == model) & (last["k"] == k) & (last["alpha"] == most)]
        rows.append(
            {
                "parent": of_model(model),
                "k": f"{k:.0%}",
                "α = 0 (%)": mean_and_spread(part["remaining_parameters"]),
                "multiple of k": mean_and_spread(ratio, 1, 2),
                "independent masks (%)": f"{100 * (2 * k - k * k):.2f}",
                f"α = {most:g} (%)": mean_and_spread(stemmed["remaining_parameters"]),
                "close to 2k": "holds" if ratio.mean() > 1.9 else "partly" if ratio.mean() > 1.5 else "does not hold",
                "n": len(part),
            }
        )
    return rows


def apart(curves: Curves) -> Markdown:
    """Return the table of two-class networks without stemming."""
    return tables.table(
        pd.DataFrame(without_stemming(curves) or [{"parent": "no trial has α = 0"}]),
        "Remaining parameters of two-class networks without stemming, beside twice the size of a module.",
        "tab-figure3-apart",
    )


def trade_off(curves: Curves) -> Markdown:
    """Return the table of comparisons of settings: do more parameters go with less accuracy?"""
    lines = [
        {
            "accuracy of": ACCURACIES[quantity],
            "settings differ in": kind,
            "more parameters, less accuracy": f"{less} of {total}",
            "of the clear ones": "{} of {}".format(*curves.clear[quantity, kind]),
            "the sentence": judged(less, total),
        }
        for (quantity, kind), (less, total) in curves.trade.items()
    ]
    caption = (
        f"Comparisons of settings, means over n = {trials_of(curves.count)} each, test images, epoch "
        f"{curves.grid.epochs}. Clear: the 95% interval of the difference in accuracy, seed by seed, leaves out zero."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-figure3-trade")


def draw_epochs(curves: Curves, models: Sequence[str]) -> Figure:
    """Draw the quantities over the epochs: a row of panels for each parent and quantity, a column for each k."""
    ks = curves.grid.ks
    height = len(QUANTITIES) * len(models)
    figure, axes = plt.subplots(height, len(ks), figsize=(figures.WIDTH, 1.9 * height), sharex=True, squeeze=False)
    for row, (model, quantity) in zip(axes, product(models, QUANTITIES), strict=True):
        for ax, k in zip(row, ks, strict=True):
            _draw_panel(ax, curves, model, k, quantity, legend=ax is axes[0, -1])
            ax.set_ylabel(QUANTITIES[quantity][0] if ax is row[0] else "")
        if quantity in ACCURACIES:
            _limit(row, curves, model, quantity)
    handles, labels = axes[0, -1].get_legend_handles_labels()
    axes[0, -1].get_legend().remove()
    names = [f"α = {float(alpha):g}" for alpha in labels]
    figure.legend(handles, names, frameon=False, fontsize=7, ncols=7, loc="outside upper center")
    return figure


def _draw_panel(ax: Axes, curves: Curves, model: str, k: float, quantity: str, legend: bool) -> None:
    part = curves.test[(curves.test["model"] == model) & (curves.test["k"] == k)]
    part = part.assign(shown=QUANTITIES[quantity][1] * part[quantity], α=part["alpha"])
    palette = figures.of_alphas(curves.grid.alphas)
    sns.lineplot(part, x="epoch", y="shown", hue="α", style="α", palette=palette, errorbar="sd", ax=ax, legend=legend)
    ax.tick_params(labelsize=7)
    if quantity == "remaining_parameters":
        ax.axhline(100 * k, ls=":", color="black", lw=1)
        ax.set_title(f"{of_model(model)}, k = {k:.0%}")


def _limit(row: Sequence[Axes], curves: Curves, model: str, quantity: str) -> None:
    """Give the accuracies of a row one scale for all k."""
    late = curves.test["epoch"] > curves.grid.epochs / 5  # in the first fifth some are at chance: they may lie below it
    shown = QUANTITIES[quantity][1] * curves.test[(curves.test["model"] == model) & late][quantity]
    for ax in row:
        ax.set_ylim(float(shown.quantile(0.02)) - 0.1, float(shown.max()) + 0.1)


def draw_trade_off(curves: Curves, models: Sequence[str]) -> Figure:
    """Draw accuracy against remaining parameters in the end, a row for a parent: votes of two modules, and of all."""
    figure, axes = plt.subplots(len(models), 2, figsize=(figures.WIDTH, 0.5 + 2.5 * len(models)), squeeze=False)
    palette = figures.of_alphas(curves.grid.alphas)
    markers = dict(zip(curves.grid.ks, "osD^vPX", strict=False))
    for (i, model), (j, quantity) in product(enumerate(models), enumerate(("pair_accuracy", "accuracy"))):
        for k in curves.grid.ks:
            line = curves.means.xs((model, k)).sort_index(ascending=False)
            x, y = 100 * line["remaining_parameters"], 100 * line[quantity]
            axes[i, j].plot(x, y, color=figures.COLOURS["paper"], lw=1, zorder=1)
            part = curves.last[(curves.last["model"] == model) & (curves.last["k"] == k)]
            x, y = 100 * part["remaining_parameters"], 100 * part[quantity]
            axes[i, j].scatter(x, y, c=[palette[a] for a in part["alpha"]], marker=markers[k], s=30, zorder=2)
        axes[i, j].set(ylabel=f"{of_model(model)}: accuracy of\n{ACCURACIES[quantity]} (%)")
    for ax in axes[-1]:
        ax.set(xlabel="remaining parameters of pairs (%)")
    for k, marker in markers.items():
        ax.scatter([], [], color="black", marker=marker, s=30, label=f"k = {k:.0%}")
    for alpha in sorted(curves.grid.alphas):
        ax.plot([], [], color=palette[alpha], label=f"α = {alpha:g}")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=7, ncols=7, loc="outside upper center")
    return figure


def answer(curves: Curves) -> Markdown:
    """Return what the trials say of both sentences of the paper."""
    grid = curves.grid
    pairs, all_classes = (
        "{} of {} ({} of {} clear ones)".format(*curves.trade[quantity, ANY], *curves.clear[quantity, ANY])
        for quantity in ("pair_accuracy", "accuracy")
    )
    return Markdown(
        f"**Answer.** {_about_multiples(curves)}{_about_weights(curves)}The paper says that accuracy decreased as the "
        f"remaining parameters increased; that is **{curves.verdict}**. Of two settings the one with more parameters "
        f"is the less accurate in {pairs} comparisons of pairs, and in {all_classes} of all classes "
        f"({of_data(grid.dataset)}, {len(grid.models)} parent{'s' if len(grid.models) > 1 else ''}, {grid.epochs} "
        f"epochs, n = {trials_of(curves.count)} a setting)."
    )


def _about_multiples(curves: Curves) -> str:
    """Say how much two modules need without and with stemming; nothing where no trial is without."""
    worst = without_stemming(curves)
    if not worst:
        return ""
    most = max(curves.grid.alphas)
    multiples = curves.means["remaining_parameters"] / curves.means.index.get_level_values("k")
    low, high = (multiples.groupby("alpha").agg(bound) for bound in ("min", "max"))
    return (
        f"Without stemming two modules need together {low[0.0]:.2f} to {high[0.0]:.2f} times the share k of one; with "
        f"α = {most:g} they need {low[most]:.2f} to {high[most]:.2f} times. "
    )


def _about_weights(curves: Curves) -> str:
    """Say what each weight of the stemming loss changes of the accuracy; nothing where no trial is without."""
    by_weight = curves.means.groupby("alpha")[["pair_accuracy", "accuracy"]].mean()
    weights = [alpha for alpha in by_weight.index if alpha]
    if 0 not in by_weight.index or not weights:
        return ""
    change = 100 * (by_weight - by_weight.loc[0])
    pairs, all_classes = (", ".join(signed([change.loc[a, of]]) for a in weights) for of in change.columns)
    return (
        f"Against α = 0, α = {', '.join(f'{a:g}' for a in weights)} changes the accuracy of pairs by {pairs} points, "
        f"of all classes by {all_classes}. "
    )


def claim(curves: Curves) -> Claim:
    """Return the paper's claim about parameters and accuracy, judged where the paper's network is among the parents."""
    pairs, all_classes = (curves.trade[quantity, ANY] for quantity in ("pair_accuracy", "accuracy"))
    verdict = curves.verdict if curves.verdict in ("holds", "open") else "does not hold"
    return Claim(
        "The accuracy of the model decreased as the remaining parameters increased",
        "Evaluation of Composability, Figure 3",
        "no number",
        f"of two settings the one with more parameters is the less accurate in {pairs[0]} of {pairs[1]} comparisons of "
        f"pairs, and in {all_classes[0]} of {all_classes[1]} of all classes",
        verdict if curves.grid.has_papers_network else "open",
        curves.count,
    )
