"""Readings of the paper's formulas: all combinations of what its text leaves open, beside what it prints of FC1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from modlib.study import figures, printed, records, tables
from modlib.study.columns import named
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.records import Record, Store
from modlib.study.trials import Trial, chosen_epochs, last_epochs, module_rows, published_trials, run_trials
from modlib.zoo import datasets

WORDS = {
    "standard": "normalised pixels",
    "unit": "pixels / 255",
    "total": "Eq. 1 over all scores",
    "layer": "Eq. 1 by layer",
    "positive": "S ranked",
    "absolute": "magnitude of S ranked",
}
MARKS = {"positive": "o", "absolute": "D"}
"""Marks of what is ranked."""


@dataclass(frozen=True)
class Reading:
    """Input scaling, reading of Eq. 1's average, and what is ranked."""

    scaling: str
    reduction: str
    scores: str

    @property
    def words(self) -> str:
        """How tables call it."""
        return ", ".join(WORDS[part] for part in (self.scaling, self.reduction, self.scores))

    def trials(self, model: str, seeds: Sequence[int], epochs: int, parent_epochs: int, dataset: str) -> list[Trial]:
        """Return its trials with and without stemming."""
        return published_trials(
            dataset, [model], [0.1], [1.0, 0.0], seeds,
            epochs=epochs, parent_epochs=parent_epochs, scaling=self.scaling,
            reduction=self.reduction, scores=self.scores,
        )  # fmt: skip


READINGS = [Reading(*parts) for parts in product(("standard", "unit"), ("total", "layer"), ("positive", "absolute"))]


@dataclass(frozen=True)
class Paper:
    """What the paper prints of MNIST FC1.

    `remaining`: parameters of pairs by alpha, mean, best and worst; `jaccard` and `vote` (per cent): of its Table 1;
    `modules`: the mean over modules of the best test accuracy without stemming (its Table 5).
    """

    remaining: dict[float, tuple[float, float, float]]
    jaccard: float
    vote: float
    modules: float

    @classmethod
    def printed(cls) -> Paper:
        """Read the paper's Tables 1, 2 and 5."""
        table2 = printed.numbers("table2").query("initial_score_sharing").set_index("stemming_loss")
        names = ["remaining_parameters_mean", "best", "worst"]
        (table1,) = printed.table1_column("mnist", "fc1").query("method == @printed.STEMMING").to_dict("records")
        table5 = printed.numbers("table5").query("model == 'fc1' and alpha == 0 and module == 'avg'")
        return cls(
            {1.0: tuple(table2.loc[True, names]), 0.0: tuple(table2.loc[False, names])},
            table1["jaccard_index"],
            table1["accuracy_percent"],
            float(table5["accuracy_percent"].iloc[0]),
        )

    def distance(self, alpha: float, remaining: float) -> float:
        """Return how far a mean is from the printed one, in halves of the printed range from best to worst."""
        mean, best, worst = self.remaining[alpha]
        return abs(remaining - mean) / ((worst - best) / 2)


@dataclass(frozen=True)
class Elsewhere:
    """A reading on another network, with stemming, beside the paper's Table 1."""

    dataset: str
    model: str
    scaling: str
    reduction: str
    scores: str
    epochs: int
    parent_epochs: int

    @property
    def reading(self) -> Reading:
        """The reading."""
        return Reading(self.scaling, self.reduction, self.scores)

    def trials(self, seeds: Sequence[int]) -> list[Trial]:
        """Return its trials."""
        made = self.reading.trials(self.model, seeds, self.epochs, self.parent_epochs, self.dataset)
        return [trial for trial in made if trial.recipe.alpha == 1.0]


@dataclass(frozen=True)
class Found:
    """What every reading's trials gave, beside what the paper prints."""

    paper: Paper
    done: dict[Reading, list[Record]]
    elsewhere: list[tuple[Elsewhere, list[Record]]]

    def of(self, reading: Reading, alpha: float) -> pd.DataFrame:
        """Return the last epoch of each trial of a reading, on test images."""
        rows = last_epochs(records.frame(self.done[reading]))
        return rows[rows["alpha"] == alpha]

    def maxima(self, reading: Reading) -> float:
        """Return the mean over modules and trials of the best test accuracy without stemming, in per cent."""
        best = chosen_epochs(module_rows(self.done[reading]))
        return 100 * float(best[best["alpha"] == 0]["maximum"].mean())

    def distances(self, reading: Reading) -> dict[float, float]:
        """Return the distance of the remaining parameters from the printed ones, by alpha."""
        means = {alpha: float(self.of(reading, alpha)["remaining_parameters"].mean()) for alpha in self.paper.remaining}
        return {alpha: self.paper.distance(alpha, mean) for alpha, mean in means.items()}

    @property
    def nearest(self) -> list[Reading]:
        """The readings, nearest first: by the larger of both distances."""
        return sorted(self.done, key=lambda reading: max(self.distances(reading).values()))


def run(
    store: Store,
    *,
    dataset: str,
    model: str,
    seeds: Sequence[int],
    epochs: int,
    parent_epochs: int,
    elsewhere: Sequence[Mapping[str, Any]],
) -> Found:
    """Return what all eight readings gave, and what some gave on other networks."""
    further = named("elsewhere", elsewhere, Elsewhere)

    def ran(reading: Reading, on: str, trials: list[Trial]) -> list[Record]:
        data = datasets.load(on, scaling=reading.scaling)
        return run_trials(trials, data, store, device="cpu", population=len(seeds), keep_modules=False)

    done = {r: ran(r, dataset, r.trials(model, seeds, epochs, parent_epochs, dataset)) for r in READINGS}
    return Found(Paper.printed(), done, [(e, ran(e.reading, e.dataset, e.trials(seeds))) for e in further])


def experiments(
    *,
    dataset: str,
    model: str,
    seeds: Sequence[int],
    epochs: int,
    parent_epochs: int,
    elsewhere: Sequence[Mapping[str, Any]],
    **_: Any,
) -> list[Experiment]:
    """Return the experiments that the page reads, from its parameters."""
    trials = [t for r in READINGS for t in r.trials(model, seeds, epochs, parent_epochs, dataset)]
    trials += [t for e in named("elsewhere", elsewhere, Elsewhere) for t in e.trials(seeds)]
    return [trial.experiment for trial in trials]


def answer(found: Found) -> Markdown:
    """Return which reading is nearest, and what speaks against it."""
    first, second, *_ = found.nearest
    with_, without = (found.of(first, alpha) for alpha in (1.0, 0.0))
    paper = found.paper
    vote = 100 * with_["accuracy"].mean()
    ours = [f"{100 * part['remaining_parameters'].mean():.1f}%" for part in (with_, without)]
    its = {alpha: f"{100 * mean:.1f}%" for alpha, (mean, *_) in paper.remaining.items()}
    return Markdown(
        f"**Answer.** Of {len(found.done)} readings, *{first.words}* is nearest to the paper's Table 2: two "
        f"modules keep {ours[0]} of the weights with stemming and {ours[1]} without (the paper: {its[1.0]} and "
        f"{its[0.0]}; n = {len(with_)} trials each). Its Jaccard index is {with_['jaccard_index'].mean():.2f} (the "
        f"paper's Table 1: {paper.jaccard:.2f}). *{second.words}* is next.\n\n**Caveat.** With that reading the vote "
        f"is right on {vote:.2f}% of the test images, where the paper prints {paper.vote}%."
    )


def distances_table(found: Found) -> Markdown:
    """Return every reading beside what the paper prints, nearest first."""
    paper = found.paper
    shown = []
    for reading in found.nearest:
        parts, distances = {a: found.of(reading, a) for a in paper.remaining}, found.distances(reading)
        shown.append(
            {
                "reading": reading.words,
                **{f"pairs, α = {a:g} (%)": _with_range(parts[a]) for a in parts},
                "distance": " / ".join(f"{distances[a]:.1f}" for a in parts),
                "Jaccard index": f"{parts[1.0]['jaccard_index'].mean():.3f}",
                "vote (%)": f"{100 * parts[1.0]['accuracy'].mean():.2f}",
                "single modules (%)": f"{found.maxima(reading):.2f}",
            }
        )
    own = {f"pairs, α = {a:g} (%)": _three(*values) for a, values in paper.remaining.items()}
    shown.append(
        {"reading": "**the paper**", **own, "distance": "", "Jaccard index": f"{paper.jaccard:.2f}",
         "vote (%)": f"{paper.vote}", "single modules (%)": f"{paper.modules}"}
    )  # fmt: skip
    caption = (
        "Each reading beside the paper, the nearest first. Pairs: remaining parameters, mean and range. Distance from "
        "the paper's mean, α = 1 / α = 0: 1 is half the paper's range from best to worst."
    )
    return tables.table(pd.DataFrame(shown), caption, "tab-readings")


def _with_range(rows: pd.DataFrame) -> str:
    best, worst = rows["remaining_parameters_best"].min(), rows["remaining_parameters_worst"].max()
    return _three(rows["remaining_parameters"].mean(), best, worst)


def _three(mean: float, best: float, worst: float) -> str:
    """Return a mean and its range in per cent."""
    return f"{100 * mean:.1f} [{100 * best:.1f}, {100 * worst:.1f}]"


def draw(found: Found) -> Figure:
    """Draw remaining parameters with stemming over those without, a point a reading, and the paper's."""
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.2))
    colours = figures.palette(list({reading.reduction: None for reading in found.done}))
    for reading in found.done:
        x, y = (100 * found.of(reading, alpha)["remaining_parameters"] for alpha in (0.0, 1.0))
        colour, marker = colours[reading.reduction], MARKS[reading.scores]
        face = colour if reading.scaling == "standard" else "white"
        ax.errorbar(x.mean(), y.mean(), y.std(), x.std(), marker, color=colour, mfc=face, ms=7, elinewidth=1)
    (x0, *_), (y0, *_) = found.paper.remaining[0.0], found.paper.remaining[1.0]
    ax.plot(100 * x0, 100 * y0, "kx", markersize=10, label="the paper")
    for reduction, colour in colours.items():
        ax.plot([], [], lw=4, color=colour, label=WORDS[reduction])
    for scores, marker in MARKS.items():
        ax.plot([], [], marker, color="0.4", label=WORDS[scores])
    for scaling, face in {"standard": "0.4", "unit": "white"}.items():
        ax.plot([], [], "s", color="0.4", mfc=face, label=WORDS[scaling])
    ax.set(xlabel="remaining parameters of pairs without stemming (%)", ylabel="with stemming (%)")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def elsewhere_table(found: Found) -> Markdown:
    """Return what readings gave on other networks, beside the paper's Table 1."""
    shown = []
    for entry, done in found.elsewhere:
        last = last_epochs(records.frame(done))
        paper = printed.table1_column(entry.dataset, entry.model).query("method == @printed.STEMMING")
        shown.append(
            {
                "network": of_network(entry.dataset, entry.model),
                "reading": entry.reading.words,
                "Jaccard index": records.mean_and_spread(last["jaccard_index"], 1.0),
                "paper's": "-" if paper.empty else f"{paper['jaccard_index'].iloc[0]:.2f}",
                "vote (%)": records.mean_and_spread(last["accuracy"]),
                "paper's vote (%)": "-" if paper.empty else f"{paper['accuracy_percent'].iloc[0]:.2f}",
                "n": str(len(last)),
            }
        )
    return tables.table(pd.DataFrame(shown), "On other networks, α = 1, last epoch, test images.", "tab-elsewhere")
