"""The home page: the main result, out of the first column of Table 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown

from modlib.study import figures, printed, records, tables
from modlib.study.experiment import Experiment
from modlib.study.grids import FirstColumn
from modlib.study.records import Record, Store
from modlib.study.trials import labelled, last_epochs


def experiments(table1: str, **_: Any) -> list[Experiment]:
    """Return the trials that the page reads or computes; `table1`: which run of Table 1."""
    return FirstColumn.of(table1).experiments()


@dataclass(frozen=True)
class Evidence:
    """The first column of Table 1, and its records."""

    column: FirstColumn
    done: list[Record]

    @cached_property
    def last(self) -> pd.DataFrame:
        """All trials after their last epoch, test images."""
        return last_epochs(labelled(records.frame(self.done)))

    @cached_property
    def stemmed(self) -> pd.DataFrame:
        """Those with stemming."""
        return self.last[self.last["alpha"] > 0]

    @cached_property
    def parents(self) -> pd.Series:
        """The accuracies of the parents."""
        return self.last.drop_duplicates("seed")["parent_accuracy"]

    @cached_property
    def paper(self) -> pd.DataFrame:
        """The paper's row of module stemming in this column, or none."""
        column = printed.table1_column(self.column.dataset, self.column.model)
        return column[column["method"] == printed.STEMMING]

    @property
    def labels(self) -> list[str]:
        """The recipes that have stemming, in the order of the trials."""
        return list(dict.fromkeys(self.stemmed["label"]))


def read(table1: str, store: Store) -> Evidence:
    """Read the first column of a run of Table 1; compute the trials that are not there."""
    column = FirstColumn.of(table1)
    return Evidence(column, column.run(store))


def draw(evidence: Evidence) -> None:
    """Draw accuracies of the vote and Jaccard indices, a row for each recipe, one point a trial."""
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.3), sharey=True)
    labels = evidence.labels
    for y, label in enumerate(labels):
        trials = evidence.stemmed[evidence.stemmed["label"] == label]
        for ax, values in ((left, 100 * trials["accuracy"]), (right, trials["jaccard_index"])):
            ax.scatter(values, [y] * len(trials), color=figures.COLOURS[label], s=26, alpha=0.8)
    for ax, values in ((left, evidence.paper["accuracy_percent"]), (right, evidence.paper["jaccard_index"])):
        ax.scatter(values, [0] * len(values), marker="x", s=60, color="black")
    left.axvline(100 * evidence.parents.mean(), color="black", lw=1)
    left.set(xlabel="accuracy of the vote (%)", yticks=range(len(labels)), yticklabels=labels)
    left.set_ylim(-0.6, len(labels) - 0.4)
    right.set(xlabel="Jaccard index")
    plt.show()


def main_result(evidence: Evidence) -> Markdown:
    """Say what the published recipe and ours with vote loss reach."""
    column, settings = evidence.column, evidence.column.settings
    best = evidence.stemmed[evidence.stemmed["vote"] > 0]
    plain = evidence.stemmed[evidence.stemmed["recipe"] == "published"]
    gap = 100 * (best["parent_accuracy"].mean() - best["accuracy"].mean())
    beside = [
        f" (the paper: {accuracy:.2f} % at {index:.2f})"
        for accuracy, index in zip(evidence.paper["accuracy_percent"], evidence.paper["jaccard_index"], strict=True)
    ]
    return Markdown(
        f"**On {column.dataset}, {column.model.upper()}, {tables.percent(settings.k, 0)} of the edges for each "
        f"module:** the published recipe (α = {max(settings.published_alphas):g}) gives "
        f"{records.percent_of_n(plain['accuracy'])} at a Jaccard index of {plain['jaccard_index'].mean():.2f}"
        f"{''.join(beside)}; ours, with a loss for the vote (α = {settings.vote_alpha:g}), "
        f"{records.percent_of_n(best['accuracy'])} at {best['jaccard_index'].mean():.2f}, "
        f"{abs(gap):.2f} points {'behind' if gap > 0 else 'ahead of'} the parents' "
        f"{records.mean_and_spread(evidence.parents)} %. The numbers are computed; [Table 1](table1.ipynb) has them "
        "all."
    )


def summary(evidence: Evidence) -> str:
    """Return which trials the page rests on."""
    return f"{len(evidence.done)} trials of {evidence.column.dataset} {evidence.column.model} {evidence.labels}"
