"""Table 2: what shared initial scores and the stemming loss each contribute."""

from __future__ import annotations

from collections.abc import Sequence
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
from modlib.study.claims import Claim
from modlib.study.experiment import Experiment
from modlib.study.published import Grid
from modlib.study.records import interval, mean_and_spread
from modlib.study.trials import last_epochs

PAPERS_EPOCH = 25
"""The epoch that the paper's Table 2 is of."""
PARAMETERS = "remaining_parameters"
NAMES = {PARAMETERS: "remaining parameters", "accuracy": "accuracy of the vote"}
"""The quantities that sharing may change."""
STARTS = {True: "shared", False: "independent"}
"""Initial scores, by whether the modules share them."""


def grid(
    *,
    dataset: str,
    model: str,
    k: float,
    alphas: Sequence[float],
    seeds: Sequence[int],
    parent_epochs: int,
    epochs: int,
    **_: Any,
) -> Grid:
    """Return the trials of the page: every α with shared and with independent scores."""
    return Grid(dataset, [model], [k], alphas, seeds, epochs, parent_epochs, share_inits=[True, False])


def experiments(**parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes with these parameters."""
    return grid(**parameters).experiments()


@dataclass(frozen=True, eq=False)
class Ablation:
    """What the trials of a grid measured: `rows` has one row per trial, epoch and split."""

    grid: Grid
    rows: pd.DataFrame

    @property
    def k(self) -> float:
        """The share of the edges that every module keeps."""
        return self.grid.ks[0]

    @property
    def is_papers(self) -> bool:
        """Whether it is the setting that the paper's Table 2 is of, at any epoch."""
        return self.grid.has_papers_network and self.k == 0.10

    @property
    def is_papers_epoch(self) -> bool:
        """Whether it ends at the paper's epoch, too."""
        return self.is_papers and self.grid.epochs == PAPERS_EPOCH

    @cached_property
    def test(self) -> pd.DataFrame:
        """The rows of test images."""
        return self.rows[self.rows["split"] == "test"]

    @cached_property
    def last(self) -> pd.DataFrame:
        """Those of the last epoch."""
        return last_epochs(self.rows)

    def lie_between_k_and_2k(self) -> bool:
        """Return whether the remaining parameters of all pairs do, as they must but for what rounding does to k."""
        best, worst = self.last["remaining_parameters_best"], self.last["remaining_parameters_worst"]
        return bool((best.ge(self.k * 0.98) & worst.le(2 * self.k * 1.02)).all())

    def start_alike(self) -> bool:
        """Return whether trials that differ in α alone agree in the first epoch, which has no stemming loss."""
        first = self.test[self.test["epoch"] == 1].groupby(["seed", "share_init"])[PARAMETERS]
        return bool((first.nunique() == 1).all())

    def _paired(self, quantity: str, setting: str, one: object, other: object) -> pd.DataFrame:
        """Return a quantity at `one` value of a setting minus at the `other`, one column for each trial."""
        index = [name for name in ("alpha", "share_init", "epoch", "seed") if name != setting]
        wide = self.test.pivot(index=index, columns=setting, values=quantity)
        return (wide[one] - wide[other]).unstack("seed")

    @cached_property
    def stemming(self) -> pd.Series:
        """What the largest α, instead of the smallest, changes of the parameters at the last epoch, by trial."""
        changed = self._paired(PARAMETERS, "alpha", max(self.grid.alphas), min(self.grid.alphas))
        return changed.T[True, self.grid.epochs].dropna()

    @cached_property
    def sharing(self) -> dict[str, pd.DataFrame]:
        """Shared minus independent scores by quantity: a row for each α and epoch, a column for each trial."""
        return {quantity: self._paired(quantity, "share_init", True, False) for quantity in NAMES}

    def changes(self, quantity: str, alpha: float, epoch: int) -> pd.Series:
        """Return what sharing changes in every trial."""
        return self.sharing[quantity].T[alpha, epoch].dropna()

    @cached_property
    def margins(self) -> dict[str, float]:
        """How large an effect may be and still count as none: a tenth of stemming's, and half a point."""
        return {PARAMETERS: abs(self.stemming.mean()) / 10, "accuracy": 0.005}

    def effect(self, quantity: str, alpha: float) -> str:
        """Return "negligible", "lowers", "raises" or "open": where the interval of sharing's effect lies in the end."""
        low, high = interval(self.changes(quantity, alpha, self.grid.epochs))
        margin = self.margins[quantity]
        if -margin < low and high < margin:
            return "negligible"
        return "lowers" if high < -margin else "raises" if low > margin else "open"

    @cached_property
    def effects(self) -> dict[tuple[str, float], str]:
        """The effects of sharing at the last epoch, by quantity and α."""
        return {(quantity, alpha): self.effect(quantity, alpha) for quantity in NAMES for alpha in self.grid.alphas}

    @property
    def verdict(self) -> str:
        """On the sentence that sharing has no significant effect."""
        found = set(self.effects.values())
        return "holds" if found == {"negligible"} else "does not hold" if found & {"lowers", "raises"} else "open"


def _printed(ablation: Ablation, sharing: bool, alpha: float) -> list[str]:
    """Return the paper's mean, best and worst of a setting; it has those of α = 0 and 1."""
    if not ablation.is_papers or alpha not in (0, 1):
        return ["", "", ""]
    paper = printed.numbers("table2")
    column = paper[(paper["initial_score_sharing"] == sharing) & (paper["stemming_loss"] == (alpha > 0))].iloc[0]
    return [f"{100 * value:.1f}" for value in column[["remaining_parameters_mean", "best", "worst"]]]


def four_settings(ablation: Ablation) -> Markdown:
    """Return the table of all settings' remaining parameters at the last epoch, beside the paper's."""
    lines = []
    for (alpha, sharing), trials in tables.groups(ablation.last, ["alpha", "share_init"]):
        mean, best, worst = _printed(ablation, sharing, alpha)
        smallest, largest = trials["remaining_parameters_best"].min(), trials["remaining_parameters_worst"].max()
        lines.append(
            {
                "initial scores": STARTS[sharing],
                "α": f"{alpha:g}",
                "mean of pairs (%)": mean_and_spread(trials[PARAMETERS]),
                "paper": mean,
                "smallest to largest (%)": f"{100 * smallest:.1f} to {100 * largest:.1f}",
                "paper ": f"{best} to {worst}" if mean else "",
            }
        )
    caption = (
        f"Remaining parameters of two-class networks after {ablation.grid.epochs} epochs, beside the paper's Table 2: "
        f"mean ± standard deviation over n = {len(ablation.grid.seeds)} trials; smallest and largest of all pairs."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table2")


def accuracies(ablation: Ablation) -> Markdown:
    """Return the table of all settings' Jaccard indices and accuracies at the last epoch."""
    lines = [
        {
            "initial scores": STARTS[sharing],
            "α": f"{alpha:g}",
            "Jaccard index": mean_and_spread(trials["jaccard_index"], 1, 3),
            "accuracy of pairs (%)": mean_and_spread(trials["pair_accuracy"]),
            "accuracy of all classes (%)": mean_and_spread(trials["accuracy"]),
        }
        for (alpha, sharing), trials in tables.groups(ablation.last, ["alpha", "share_init"])
    ]
    caption = f"The same trials: how much masks overlap, and the accuracy of the vote (n = {len(ablation.grid.seeds)})."
    return tables.table(pd.DataFrame(lines), caption, "tab-table2-accuracy")


def draw(ablation: Ablation) -> Figure:
    """Draw the four settings over the epochs, and beside them what sharing changes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.2))
    colours = {a: figures.COLOURS["no stemming" if a == 0 else "module stemming"] for a in ablation.grid.alphas}
    _draw_settings(left, ablation, colours)
    _draw_sharing(right, ablation, colours)
    return figure


def _draw_settings(ax: Axes, ablation: Ablation, colours: dict[float, str]) -> None:
    starts = ablation.test["share_init"].map(STARTS)
    shown = ablation.test.assign(α=ablation.test["alpha"], **{"initial scores": starts})
    shown[PARAMETERS] *= 100
    style = {"x": "epoch", "y": PARAMETERS, "hue": "α", "style": "initial scores", "palette": colours}
    sns.lineplot(shown, errorbar="sd", ax=ax, style_order=list(STARTS.values()), **style)
    ax.axhline(100 * ablation.k, ls=":", color="black", lw=1)
    if ablation.is_papers:
        means = 100 * printed.numbers("table2")["remaining_parameters_mean"]
        ax.scatter([PAPERS_EPOCH] * len(means), means, marker="x", s=40, color="black", zorder=3, label="paper")
    ax.set(ylabel="remaining parameters of pairs (%)")
    ax.legend(frameon=False, fontsize=7, title_fontsize=7)


def _draw_sharing(ax: Axes, ablation: Ablation, colours: dict[float, str]) -> None:
    sharing = 100 * ablation.sharing[PARAMETERS]
    for alpha, changes in tables.groups(sharing.droplevel("alpha"), sharing.index.get_level_values("alpha")):
        ax.plot(changes.index, changes.mean(axis=1), color=colours[alpha], label=f"α = {alpha:g}")
        if len(ablation.grid.seeds) > 1:
            low, high = zip(*(interval(row.dropna()) for _, row in changes.iterrows()), strict=True)
            ax.fill_between(changes.index, low, high, color=colours[alpha], alpha=0.2, lw=0)
    for side in (-1, 1):
        ax.axhline(side * 100 * ablation.margins[PARAMETERS], ls="--", color="black", lw=1)
    least = float(sharing.mean(axis=1).min())
    ax.set(
        xlabel="epoch",
        ylabel="shared minus independent (points)",
        ylim=(1.3 * min(least, -0.1), max(-0.3 * least, 0.1)),
    )
    ax.legend(frameon=False, loc="lower right")


def sharing_by_epoch(ablation: Ablation) -> Markdown:
    """Return the table of what sharing changes, at a few epochs."""
    epochs = ablation.grid.epochs
    quantities = {PARAMETERS: "remaining parameters", "accuracy": "accuracy"}
    lines = []
    for alpha in sorted(ablation.grid.alphas):
        for epoch in dict.fromkeys(e for e in (1, 2, 3, 5, 10, epochs) if e <= epochs):
            line: dict[str, Any] = {"α": f"{alpha:g}", "epoch": epoch}
            for quantity, name in quantities.items():
                values = ablation.changes(quantity, alpha, epoch)
                low, high = (100 * bound for bound in interval(values))
                between = f" [{low:+.2f}, {high:+.2f}]" if len(values) > 1 else ""
                line[f"{name} (points)"] = f"{100 * values.mean():+.2f}{between}"
            lines.append(line)
    caption = (
        f"Shared minus independent initial scores, within each of n = {len(ablation.grid.seeds)} trials: mean and its "
        "95% interval. Accuracy is that of the vote of all classes."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table2-sharing")


def verdicts(ablation: Ablation) -> Markdown:
    """Return the table of sharing's effects at the last epoch, each beside its margin."""
    lines = [
        {
            "quantity": NAMES[quantity],
            "α": f"{alpha:g}",
            "margin (points)": f"{100 * ablation.margins[quantity]:.2f}",
            "effect of sharing": effect,
        }
        for (quantity, alpha), effect in ablation.effects.items()
    ]
    caption = (
        f'"Initial score sharing has not produced a significant effect", epoch {ablation.grid.epochs}, '
        f"n = {len(ablation.grid.seeds)}: {ablation.verdict}."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table2-verdict")


def answer(ablation: Ablation) -> Markdown:
    """Return what stemming and sharing change, and the verdict on the paper's sentence."""
    grid, effects = ablation.grid, list(ablation.effects.values())
    alphas = sorted(grid.alphas)
    low, high = alphas[0], alphas[-1]
    shared = ablation.last[ablation.last["share_init"]].groupby("alpha")[PARAMETERS].mean()
    ends = " and ".join(f"{_points(ablation, alpha, grid.epochs)} at α = {alpha:g}" for alpha in alphas)
    negligible, undecided = effects.count("negligible"), effects.count("open")
    return Markdown(
        f"**Answer.** The stemming loss takes the remaining parameters of two-class networks from "
        f"{tables.percent(shared[low], 1)} to {tables.percent(shared[high], 1)} "
        f"({mean_and_spread(ablation.stemming)} points, n = {len(ablation.stemming)}). "
        f"Shared initial scores change them by {_points(ablation, low, 1)} points after one epoch, but after "
        f"{grid.epochs} epochs only by {ends}. The paper says that sharing has no significant effect; that is "
        f"**{ablation.verdict}**: in {negligible} of {len(effects)} comparisons the effect lies within our margin, "
        f"{undecided} {'is' if undecided == 1 else 'are'} undecided."
    )


def _points(ablation: Ablation, alpha: float, epoch: int) -> str:
    """Return what sharing changes of the remaining parameters, in points."""
    return mean_and_spread(ablation.changes(PARAMETERS, alpha, epoch))


def claim(ablation: Ablation) -> Claim:
    """Return the paper's claim about sharing, judged where the trials are of its network, data and epoch."""
    epochs = ablation.grid.epochs
    changes = ", ".join(
        f"{_points(ablation, alpha, epochs)} points at α = {alpha:g}" for alpha in sorted(ablation.grid.alphas)
    )
    undecided = [_undecided(ablation, *which) for which, effect in ablation.effects.items() if effect == "open"]
    return Claim(
        "Initial score sharing has no significant effect",
        "Ablation Study, Table 2",
        "0.175 and 0.173; 0.122 and 0.122",
        f"sharing changes the remaining parameters by {changes} (epoch {epochs}); "
        f"undecided: {', '.join(undecided) or 'nothing'}",
        ablation.verdict if ablation.is_papers_epoch else "open",
        len(ablation.grid.seeds),
    )


def _undecided(ablation: Ablation, quantity: str, alpha: float) -> str:
    low, high = (100 * bound for bound in interval(ablation.changes(quantity, alpha, ablation.grid.epochs)))
    return f"{NAMES[quantity]} at α = {alpha:g} ({low:+.2f} to {high:+.2f} points, 95%)"
