"""Readings of the published recipe: one setting changed at a time, beside the numbers that the paper prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from modlib import metrics, recipes
from modlib.data import Dataset
from modlib.study import figures, printed, tables
from modlib.study.columns import Column, Load, held_out_and_test, named, votes
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Store, mean_and_spread
from modlib.study.trials import Trial, last_epochs, run_variants, variants
from modlib.zoo.datasets import load as load_images

READINGS: dict[str, list[dict[str, Any]]] = {
    "as published": [{"alpha": 1.0}, {"alpha": 0.0}],
    "weight decay 0.5 on the scores": [{"alpha": 1.0, "weight_decay": 0.5}],
    "Eq. 1 by layer": [{"alpha": 1.0, "reduction": "layer"}],
    "ranked by absolute value": [{"alpha": 1.0, "scores": "absolute"}],
    "balanced loss": [{"alpha": 1.0, "balanced": True}, {"alpha": 0.0, "balanced": True}],
    "annealed rates": [{"alpha": 1.0, "schedule": "cosine"}],
}
"""Settings of recipe published that each reading changes."""
CHANGES = {f"{name}, α = {change['alpha']:g}": change for name, some in READINGS.items() for change in some}
"""The same by the name of a row: the reading and its stemming."""
DEFAULT = {True: "as published, α = 1", False: "as published, α = 0"}
"""The recipe as published, with and without stemming."""
TABLE2_EPOCH = 25
"""The epoch of the paper's Table 2."""


@dataclass(frozen=True)
class Further:
    """Further trials: a reading, its stemming, and their seeds."""

    reading: str
    alpha: float
    seeds: list[int]

    @property
    def row(self) -> str:
        """The name of the row that they belong to; ValueError where there is none."""
        name = f"{self.reading}, α = {self.alpha:g}"
        if name not in CHANGES:
            raise ValueError(f"further: there is no reading {name!r}; there are {list(CHANGES)}")
        return name


@dataclass(frozen=True)
class Paper:
    """What the paper prints of a network in Tables 1 and 2; None, NaN or nothing where it does not."""

    accuracy: float | None
    """Table 1's, in per cent."""
    jaccard: float
    remaining: dict[bool, float]
    """Table 2's mean remaining parameters of pairs, with and without stemming."""
    pairs: tuple[float, float]
    """Smallest and largest of Table 2's pairs, with stemming."""


def paper(column: Column, k: float) -> Paper:
    """Return what the paper prints of a network; of Table 2 only where it is about it: MNIST, FC1, k = 10%."""
    table1 = (
        printed.numbers("table1").query("method == 'module stemming'").set_index(["dataset", "model"]).to_dict("index")
    )
    table2 = printed.numbers("table2").query("initial_score_sharing").set_index("stemming_loss").to_dict("index")
    own = table1.get((column.dataset, column.model))
    is_table2 = (column.dataset, column.model, k) == ("mnist", "fc1", 0.10)
    remaining = {bool(stems): float(row["remaining_parameters_mean"]) for stems, row in table2.items()}
    ends = [float(table2[True][end]) for end in ("best", "worst")]
    return Paper(
        accuracy=None if own is None else float(own["accuracy_percent"]),
        jaccard=float("nan") if own is None else float(own["jaccard_index"]),
        remaining=remaining if is_table2 else {},
        pairs=(min(ends), max(ends)),
    )


@dataclass(frozen=True)
class Found:
    """What came out on one network under each reading, beside what the paper prints."""

    column: Column
    k: float
    epochs: int
    tolerance: float
    paper: Paper
    data: Dataset
    store: Store
    trials: dict[str, list[Trial]]
    done: list[Record]
    rows: pd.DataFrame

    @cached_property
    def last(self) -> pd.DataFrame:
        """The last epoch of every trial on test images."""
        return last_epochs(self.rows, by=["variant"])

    def of(self, row: str) -> pd.DataFrame:
        """Return the last epochs of one row's trials."""
        return self.last[self.last["variant"] == row]

    def target(self, row: str) -> float | None:
        """Return the remaining parameters that the paper prints for a row, None where it prints none."""
        return self.paper.remaining.get(CHANGES[row]["alpha"] > 0)

    def agrees(self, row: str) -> bool | None:
        """Return whether a row's remaining parameters are the printed ones; None where nothing is printed or ran."""
        part, target = self.of(row), self.target(row)
        if part.empty or target is None:
            return None
        alike = part if len(part) > 1 else self.of(DEFAULT[CHANGES[row]["alpha"] > 0])  # one trial has no spread
        spread = alike["remaining_parameters"].std() if len(alike) > 1 else 0.0
        return bool(abs(part["remaining_parameters"].mean() - target) <= max(self.tolerance, 2 * spread))

    @cached_property
    def votes(self) -> dict[str, pd.DataFrame]:
        """Accuracy of the vote as published, `plain` and `calibrated`, and its `gain`: one row for each trial."""
        return {
            row: votes((held_out_and_test(trial, self.data, self.store) for trial in self.trials[row]), self.data)
            for row in DEFAULT.values()
        }


def trials(
    *,
    dataset: str,
    model: str,
    seeds: Sequence[int],
    further: Sequence[Mapping[str, Any]],
    k: float,
    parent_epochs: int,
    epochs: int,
    **_: Any,
) -> dict[str, list[Trial]]:
    """Return the trials of every reading, by the name of its row; parameters as the page has them."""
    base = Trial(dataset, model, "published", recipes.published(k=k, epochs=epochs), seeds[0], parent_epochs)
    seeds_of = {row: list(seeds) for row in CHANGES}
    for more in named("further", further, Further):
        seeds_of[more.row] += more.seeds
    return {row: variants(base, {row: change}, seeds_of[row])[row] for row, change in CHANGES.items()}


def experiments(**parameters: Any) -> list[Experiment]:
    """Return every experiment of the page; `parameters`: see `trials`."""
    return [trial.experiment for part in trials(**parameters).values() for trial in part]


def run(store: Store, load: Load = load_images, *, tolerance: float, **parameters: Any) -> Found:
    """Return what came out; `tolerance`: of remaining parameters that agree, a fraction; `parameters`: see `trials`."""
    column, k = Column(parameters["dataset"], parameters["model"]), parameters["k"]
    data, asked = load(column.dataset), trials(**parameters)
    done, rows = run_variants(asked, data, store)
    return Found(column, k, parameters["epochs"], tolerance, paper(column, k), data, store, asked, done, rows)


def readings(found: Found) -> Markdown:
    """Return the table of all readings, with what the paper prints and whether it agrees."""
    note = ""
    if found.paper.accuracy is not None:
        note = (
            f" The paper's Table 1 prints {found.paper.accuracy:.2f}% at a Jaccard index of {found.paper.jaccard:.2f}."
        )
    caption = (
        f"Readings of the published recipe, {found.column.name}, epoch {found.epochs}, "
        f"test images; mean ± standard deviation over n trials.{note} Agreement: within "
        f"{100 * found.tolerance:.1f} points of Table 2, or two standard deviations (of a single trial: those of "
        "the recipe as published)."
    )
    board = pd.DataFrame([_line(found, row) for row in CHANGES]).fillna("")
    return tables.table(board, caption, "tab-sensitivity")


def _line(found: Found, row: str) -> dict[str, Any]:
    part, target = found.of(row), found.target(row)
    if part.empty:
        return {"reading": row, "verdict": "diverged"}
    return {
        "reading": row,
        "remaining parameters of pairs (%)": mean_and_spread(part["remaining_parameters"]),
        "the paper, Table 2 (%)": "" if target is None else f"{100 * target:.1f}",
        "Jaccard index": mean_and_spread(part["jaccard_index"], 1, 3),
        "accuracy of the vote (%)": mean_and_spread(part["accuracy"]),
        "n": len(part),
        "verdict": {None: "no number to compare", True: "agrees", False: "does not agree"}[found.agrees(row)],
    }


def draw_readings(found: Found) -> Figure:
    """Draw remaining parameters, epoch by epoch, under each reading: left without stemming, right with it."""
    test = found.rows[found.rows["split"] == "test"]
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.4), sharey=True)
    colours = figures.palette(list(READINGS))
    for ax, stems in zip(axes, (False, True), strict=True):
        for row, change in CHANGES.items():
            if (change["alpha"] > 0) == stems:
                curve = test[test["variant"] == row].groupby("epoch")["remaining_parameters"].mean()
                reading = row.rsplit(",", 1)[0]
                ax.plot(curve.index, curve, color=colours[reading], label=reading)
        if stems in found.paper.remaining:
            ax.scatter([TABLE2_EPOCH], [found.paper.remaining[stems]], marker="x", s=60, color="black", zorder=3)
        for level in (found.k, 2 * found.k):
            ax.axhline(level, ls=":", color="black", lw=1)
        ax.set(title=f"α = {1 if stems else 0}", xlabel="epoch")
    axes[0].set_ylabel("remaining parameters of pairs")
    handles, labels = axes[1].get_legend_handles_labels()  # with stemming every reading has a curve
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=3, loc="outside upper center")
    return figure


def calibration(found: Found) -> Markdown:
    """Return the table of the vote, plain and calibrated, of the recipe as published."""
    lines = [
        {
            "reading": row,
            "plain vote (%)": mean_and_spread(rows["plain"]),
            "calibrated vote (%)": mean_and_spread(rows["calibrated"]),
            "difference (points)": mean_and_spread(rows["gain"]),
            "n": len(rows),
        }
        for row, rows in found.votes.items()
    ]
    caption = "The vote of all modules, plain and calibrated on held-out images."
    return tables.table(pd.DataFrame(lines), caption, "tab-sensitivity-calibration")


def answer(found: Found) -> Markdown:
    """Return the answer in sentences: which readings give the paper's numbers, and whether calibration would."""
    text = "The paper prints no Table 2 for this network: the rows compare readings with each other."
    if found.paper.remaining:
        text = f"{_agreeing(found)} {_closest(found)}"
    gains = " and ".join(f"{100 * rows['gain'].mean():+.2f}" for rows in found.votes.values())
    return Markdown(f"**Answer.** {text} Calibrating the vote changes its accuracy by {gains} points (α = 1 and 0).")


def _agreeing(found: Found) -> str:
    judged = [row for row in CHANGES if found.agrees(row) is not None]
    alike = [f"{row} (n = {len(found.of(row))})" for row in judged if found.agrees(row)]
    listed = f": {'; '.join(alike)}" if alike else ""
    return (
        f"**{len(alike) or 'None'} of {len(judged)}** settings {'give' if alike else 'gives'} the remaining parameters "
        f"of the paper's Table 2{listed}."
    )


def _closest(found: Found) -> str:
    means = found.last.groupby("variant")[["remaining_parameters", "jaccard_index", "accuracy"]].mean()
    stemmed = means.loc[[row for row in means.index if CHANGES[str(row)]["alpha"] > 0]]
    closest = str((stemmed["remaining_parameters"] - found.paper.remaining[True]).abs().idxmin())
    near_index = str((stemmed["jaccard_index"] - found.paper.jaccard).abs().idxmin())
    one, other = found.of(closest), found.of(near_index)
    return (
        f"With stemming, *{closest}* comes closest: {_percent(one['remaining_parameters'])} (n = {len(one)}) against "
        f"the paper's {100 * found.paper.remaining[True]:.1f}%. The Jaccard index of its Table 1 is "
        f"{found.paper.jaccard:.2f}, and *{near_index}* comes closest: {mean_and_spread(other['jaccard_index'], 1, 3)} "
        f"(n = {len(other)})."
    )


def _percent(shares: pd.Series) -> str:
    return f"{mean_and_spread(shares)}%"


def tables_of_the_paper(found: Found) -> Markdown:
    """Return in words whether the means of the paper's Tables 1 and 2 go together."""
    if not found.paper.remaining:
        return Markdown("The paper's Table 2 has no numbers of this network.")
    k, remaining, jaccard = found.k, found.paper.remaining[True], found.paper.jaccard
    low, high = found.paper.pairs
    return Markdown(
        f"The paper's own means are not quite those of one run. At k = {k:.0%} the [identity](evaluation.ipynb) of "
        f"both quantities turns {remaining:.1%} (its Table 2) into an index of {2 * k / remaining - 1:.2f}, and "
        f"{jaccard:.2f} (its Table 1) into {metrics.remaining_from_jaccard(k, jaccard):.1%}. Table 2 prints pairs of "
        f"{low:.1%} to {high:.1%}."
    )
