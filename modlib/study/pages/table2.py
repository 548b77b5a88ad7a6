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
        """Return "none", "lowers", "raises" or "open": where the interval of sharing's effect lies in the end."""
        low, high = interval(self.changes(quantity, alpha, self.grid.epochs))
        margin = self.margins[quantity]
        if -margin < low and high < margin:
            return "none"
        return "lowers" if high < -margin else "raises" if low > margin else "open"

    @cached_property
    def effects(self) -> dict[tuple[str, float], str]:
        """The effects of sharing at the last epoch, by quantity and α."""
        return {(quantity, alpha): self.effect(quantity, alpha) for quantity in NAMES for alpha in self.grid.alphas}

    @property
    def verdict(self) -> str:
        """On the sentence that sharing has no significant effect."""
        found = set(self.effects.values())
        return "holds" if found == {"none"} else "does not hold" if found & {"lowers", "raises"} else "open"

    def settled(self, alpha: float) -> int | None:
        """Return the epoch from which on sharing's mean effect on the parameters stays within the margin, or None."""
        outside = self.sharing[PARAMETERS].mean(axis=1).abs().xs(alpha) >= self.margins[PARAMETERS]
        late = int(outside[outside].index.max()) if outside.any() else 0
        return late + 1 if late < self.grid.epochs else None


def _printed(ablation: Ablation, sharing: bool, alpha: float) -> list[str]:
    """Return the paper's mean, best and worst of a setting; it has those of α = 0 and 1."""
    if not ablation.is_papers or alpha not in (0, 1):
        return ["", "", ""]
    paper = printed.numbers("table2")
    column = paper[(paper["initial_score_sharing"] == sharing) & (paper["stemming_loss"] == (alpha > 0))].iloc[0]
    return [f"{value:.3f}" for value in column[["remaining_parameters_mean", "best", "worst"]]]


def four_settings(ablation: Ablation) -> Markdown:
    """Return the table of all settings at the last epoch, beside the paper's."""
    lines = []
    for (alpha, sharing), trials in tables.groups(ablation.last, ["alpha", "share_init"]):
        mean, best, worst = _printed(ablation, sharing, alpha)
        lines.append(
            {
                "initial scores": STARTS[sharing],
                "α": f"{alpha:g}",
                "remaining parameters": mean_and_spread(trials[PARAMETERS], 1, 4),
                "paper": mean,
                "best": f"{trials['remaining_parameters_best'].min():.4f}",
                "paper, best": best,
                "worst": f"{trials['remaining_parameters_worst'].max():.4f}",
                "paper, worst": worst,
                "Jaccard index": mean_and_spread(trials["jaccard_index"], 1, 3),
                "accuracy of pairs (%)": mean_and_spread(trials["pair_accuracy"]),
                "of all classes (%)": mean_and_spread(trials["accuracy"]),
                "n": len(trials),
            }
        )
    grid = ablation.grid
    caption = (
        f"{grid.dataset} {grid.models[0].upper()}, recipe published, k = {ablation.k:.0%}, after {grid.epochs} epochs: "
        "remaining parameters of two-class networks (share of the parent's maskable weights) beside the paper's "
        f"Table 2 (its MNIST FC1, epoch {PAPERS_EPOCH}), Jaccard index of the masks, and accuracy of the vote on test "
        "images. Mean ± standard deviation over n trials."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table2")


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
    style = {"x": "epoch", "y": PARAMETERS, "hue": "α", "style": "initial scores", "palette": colours}
    sns.lineplot(shown, errorbar="sd", ax=ax, style_order=list(STARTS.values()), **style)
    ax.axhline(ablation.k, ls=":", color="black", lw=1)
    if ablation.is_papers:
        means = printed.numbers("table2")["remaining_parameters_mean"]
        ax.scatter([PAPERS_EPOCH] * len(means), means, marker="x", s=40, color="black", zorder=3, label="paper")
    ax.set(ylabel="remaining parameters of pairs")
    ax.legend(frameon=False, fontsize=7, title_fontsize=7)


def _draw_sharing(ax: Axes, ablation: Ablation, colours: dict[float, str]) -> None:
    sharing = ablation.sharing[PARAMETERS]
    for alpha, changes in tables.groups(sharing.droplevel("alpha"), sharing.index.get_level_values("alpha")):
        ax.plot(changes.index, changes.mean(axis=1), color=colours[alpha], label=f"α = {alpha:g}")
        if len(ablation.grid.seeds) > 1:
            low, high = zip(*(interval(row.dropna()) for _, row in changes.iterrows()), strict=True)
            ax.fill_between(changes.index, low, high, color=colours[alpha], alpha=0.2, lw=0)
    for side in (-1, 1):
        ax.axhline(side * ablation.margins[PARAMETERS], ls="--", color="black", lw=1)
    least = float(sharing.mean(axis=1).min())
    ax.set(xlabel="epoch", ylabel="shared minus independent", ylim=(1.3 * min(least, -1e-3), max(-0.3 * least, 1e-3)))
    ax.legend(frameon=False, loc="lower right")


def sharing_by_epoch(ablation: Ablation) -> Markdown:
    """Return the table of what sharing changes, at a few epochs."""
    epochs = ablation.grid.epochs
    quantities = {PARAMETERS: ("remaining parameters", 1, 4), "accuracy": ("accuracy (points)", 100, 2)}
    lines = []
    for alpha in sorted(ablation.grid.alphas):
        for epoch in dict.fromkeys(e for e in (1, 2, 3, 5, 10, epochs) if e <= epochs):
            line: dict[str, Any] = {"α": f"{alpha:g}", "epoch": epoch}
            for quantity, (name, scale, digits) in quantities.items():
                values = ablation.changes(quantity, alpha, epoch)
                low, high = (scale * bound for bound in interval(values))
                between = f"{low:+.{digits}f} to {high:+.{digits}f}" if len(values) > 1 else "one trial"
                line |= {name: mean_and_spread(values, scale, digits), f"{name}: 95% interval": between}
            lines.append(line | {"n": len(values)})
    caption = (
        "Shared minus independent initial scores, within each trial: remaining parameters of two-class networks, and "
        "accuracy of the vote of all classes on test images. Mean ± standard deviation over n trials. The epochs "
        "between are in the figure."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table2-sharing")


def verdicts(ablation: Ablation) -> Markdown:
    """Return the table of sharing's effects at the last epoch, each beside its margin."""
    epochs, margins = ablation.grid.epochs, ablation.margins
    lines = [
        {
            "quantity": NAMES[quantity],
            "α": f"{alpha:g}",
            "margin": f"{margins[quantity]:.4f}" if quantity != "accuracy" else f"{100 * margins[quantity]:.1f} points",
            f"effect of sharing at epoch {epochs}": answer,
            "n": len(ablation.changes(quantity, alpha, epochs)),
        }
        for (quantity, alpha), answer in ablation.effects.items()
    ]
    caption = f'"Initial score sharing has not produced a significant effect": {ablation.verdict}.'
    return tables.table(pd.DataFrame(lines), caption, "tab-table2-verdict")


def what_came_out(ablation: Ablation) -> Markdown:
    """Return what stemming and sharing change, and the verdict on the paper's sentence."""
    grid, stemming = ablation.grid, ablation.stemming
    text = (
        f"**What came out.** On {grid.dataset} with {grid.models[0].upper()} at k = {ablation.k:.0%}, stemming "
        f"(α = {max(grid.alphas):g} instead of {min(grid.alphas):g}, shared scores) changes the remaining parameters "
        f"of two-class networks by {mean_and_spread(stemming, 1, 4)} (n = {len(stemming)}) after {grid.epochs} epochs. "
    )
    text += "".join(_about_sharing(ablation, alpha) for alpha in sorted(grid.alphas))
    return Markdown(text + "\n\n" + _about_verdict(ablation))


def _about_sharing(ablation: Ablation, alpha: float) -> str:
    epochs = ablation.grid.epochs
    change, start = (ablation.changes(PARAMETERS, alpha, epoch) for epoch in (epochs, 1))
    points, settled = ablation.changes("accuracy", alpha, epochs), ablation.settled(alpha)
    return (
        f"Sharing initial scores changes them, at α = {alpha:g}, by {mean_and_spread(start, 1, 4)} (n = {len(start)}) "
        f"in epoch 1 and by {mean_and_spread(change, 1, 4)} (n = {len(change)}) in epoch {epochs}, and the accuracy of "
        f"the vote by {mean_and_spread(points)} points then; on the mean its effect on the parameters is below a tenth "
        f"of stemming's {f'from epoch {settled} on' if settled else 'in no epoch up to the last'}. "
    )


def _about_verdict(ablation: Ablation) -> str:
    grid, effects = ablation.grid, list(ablation.effects.values())
    text = f"That initial score sharing has no significant effect at epoch {grid.epochs}: **{ablation.verdict}**"
    if not ablation.is_papers_epoch:
        text += ", for these runs, which are not of the network, data and epoch that the paper's sentence is about"
    if ablation.verdict == "open":
        text += f" ({effects.count('open')} of {len(effects)} comparisons undecided)"
    text += "."
    if ablation.is_papers_epoch:
        ours = ablation.last.groupby(["alpha", "share_init"])[PARAMETERS].mean()
        settings = [(alpha, sharing) for alpha in grid.alphas if alpha in (0, 1) for sharing in (True, False)]
        gaps = [abs(ours[alpha, sharing] - float(_printed(ablation, sharing, alpha)[0])) for alpha, sharing in settings]
        text += f" Our means lie at most {max(gaps):.4f} from those that the paper prints."
    return text


def claim(ablation: Ablation) -> Claim:
    """Return the paper's claim about sharing, judged where the trials are of its network, data and epoch."""
    epochs = ablation.grid.epochs
    changes = "; ".join(
        f"α = {alpha:g}: {mean_and_spread(ablation.changes(PARAMETERS, alpha, epochs), 1, 4)}"
        for alpha in sorted(ablation.grid.alphas)
    )
    undecided = [_undecided(ablation, *which) for which, answer in ablation.effects.items() if answer == "open"]
    return Claim(
        "Initial score sharing has no significant effect",
        "Ablation Study, Table 2",
        "0.175 and 0.173; 0.122 and 0.122",
        f"shared minus independent at epoch {epochs}, remaining parameters: {changes}; "
        f"undecided: {', '.join(undecided) or 'nothing'}",
        ablation.verdict if ablation.is_papers_epoch else "open",
        len(ablation.grid.seeds),
    )


def _undecided(ablation: Ablation, quantity: str, alpha: float) -> str:
    low, high = interval(ablation.changes(quantity, alpha, ablation.grid.epochs))
    scale, unit = (100, " points") if quantity == "accuracy" else (1, "")
    return f"{NAMES[quantity]} at α = {alpha:g} ({scale * low:+.4g} to {scale * high:+.4g}{unit}, 95%)"
