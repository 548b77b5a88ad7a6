"""The home page: six findings, out of the records and the claims of the pages behind them, and the main result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown

from modlib.study import cards, claims, figures, printed, records, tables, verdicts
from modlib.study.cards import OURS, Card
from modlib.study.claims import Claim
from modlib.study.experiment import Experiment
from modlib.study.grids import FirstColumn
from modlib.study.pages import small_networks
from modlib.study.records import Record, Store, against_parent
from modlib.study.reproduce import Layout
from modlib.study.trials import labelled, last_epochs
from modlib.study.verdicts import OPEN

NOT_YET = "not run yet"
CONVOLUTIONAL = ["dataset", "model", "recipe", "k", "alpha", "vote", "allocation", "shared_epochs"]
"""The columns that tell the trials of Figure 4 apart, beside their seeds."""


def experiments(table1: str, **_: Any) -> list[Experiment]:
    """Return the trials that the page reads or computes; `table1`: which run of Table 1."""
    return FirstColumn.of(table1).experiments()


@dataclass(frozen=True)
class Evidence:
    """The first column of Table 1, its records; what other pages have judged, by page; found of small networks; and
    the trials of Figure 4, where they have been run.
    """

    column: FirstColumn
    done: list[Record]
    gathered: Mapping[str, Sequence[Claim]]
    small: small_networks.Page | None
    convolutional: pd.DataFrame | None

    @cached_property
    def last(self) -> pd.DataFrame:
        """All trials after their last epoch, test images."""
        return last_epochs(labelled(records.frame(self.done)))

    @cached_property
    def stemmed(self) -> pd.DataFrame:
        """Those with stemming."""
        return self.last[self.last["alpha"] > 0]

    def published(self, stemming: bool) -> pd.DataFrame:
        """Return those of recipe published, with or without stemming."""
        plain = self.last[self.last["recipe"] == "published"]
        return plain[(plain["alpha"] > 0) == stemming]

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

    def claim(self, page: str, words: str) -> Claim | None:
        """Return the claim of a page that has some words in it, or None where the page has not been run."""
        return next((c for c in self.gathered.get(page, ()) if words in c.claim), None)


def read(table1: str, store: Store) -> Evidence:
    """Read the first column of a run of Table 1 and what other pages left; compute the trials that are not there."""
    column = FirstColumn.of(table1)
    gathered = claims.gather(store, Layout.here().stems())
    file = None if store.folder is None else store.folder / "figure4.csv"
    table = pd.read_csv(file) if file is not None and file.exists() else None
    return Evidence(column, column.run(store), gathered, small_networks.kept(table1, store), table)


def six_cards(evidence: Evidence) -> Markdown:
    """Return what came out, in six cards."""
    makers = (_recomposing, _unions, _overlap, _own_class, _convolutional, _small)
    return cards.grid([make(evidence) for make in makers])


def _where(evidence: Evidence) -> str:
    return evidence.column.name


def _recomposing(evidence: Evidence) -> Card:
    apart, stemmed = evidence.published(stemming=False), evidence.published(stemming=True)
    gaps = [float(against_parent(rows).mean()) for rows in (apart, stemmed)]
    return Card(
        "Recomposed networks are accurate",
        verdicts.graded(min(gaps), -1, -5),
        f"recomposed without training, all modules together are right on {records.percent_of_n(stemmed['accuracy'])}, "
        f"{gaps[1]:+.2f} points against the parents, {gaps[0]:+.2f} without stemming ({_where(evidence)}).",
        "table1",
    )


def _unions(evidence: Evidence) -> Card:
    apart, stemmed = (evidence.published(stemming) for stemming in (False, True))
    least, most = stemmed["remaining_parameters"].max(), apart["remaining_parameters"].min()
    shares = (tables.percent(trials["remaining_parameters"].mean(), 1) for trials in (apart, stemmed))
    return Card(
        "Stemming makes unions smaller",
        verdicts.yes(bool(least < most)),
        f"a pair needs {' of the edges without, '.join(shares)} with it ({_where(evidence)}, n = {len(stemmed)}).",
        "table2",
    )


def _overlap(evidence: Evidence) -> Card:
    claim = evidence.claim("baselines", "higher Jaccard index")
    if claim is not None:  # of its two indices the one of edges
        claim = replace(claim, here=f"{claim.here.split(' by ')[0]}, on the same parents, but keeps most weights")
    return _judged("Modules overlap more than older ones", claim, "baselines")


def _own_class(evidence: Evidence) -> Card:
    claim = evidence.claim("controls", "outperforms the parent at its own class")
    if claim is not None:  # one of several ways to ask the parent: they differ little
        number = claim.here.split(";")[0].rpartition("p > 1/2 ")[2]
        claim = replace(claim, here=f"{number} points at its own class, all test images")
    return _judged("A module beats its parent at a class", claim, "controls")


def _convolutional(evidence: Evidence) -> Card:
    title, found = "Does it work for convolutional networks?", evidence.gathered.get("figure4", ())
    if not found or evidence.convolutional is None:
        return Card(title, OPEN, NOT_YET, "figure4")
    rows = evidence.convolutional.fillna({"allocation": "uniform", "shared_epochs": 0})
    last = last_epochs(rows, by=CONVOLUTIONAL)
    last = last[last["k"] == 0.1]
    written = last[(last["vote"] == 0) & (last["alpha"] == 0) & (last["allocation"] == "uniform")]
    written = written.drop_duplicates(["model", "seed"])  # what was tried with other rates stands below
    lost = 100 * (written["parent_accuracy"] - written["accuracy"]).groupby(written["model"]).mean()
    better = last[(last["vote"] > 0) & (last["shared_epochs"] > 0)]
    small, better = (rows[rows["model"] == "vgg16_quarter"] for rows in (written, better))
    if small.empty or better.empty:
        return Card(title, OPEN, NOT_YET, "figure4")
    own, parents, ours = (
        records.mean_and_spread(values, digits=1)
        for values in (small["accuracy"], better["parent_accuracy"], better["accuracy"])
    )
    text = (
        f"small runs with equal shares of all layers lose {lost.min():.0f} to {lost.max():.0f} points. A quarter of "
        f"VGG16: {own}%, parents {parents}%; our way, with modules that hardly differ, {ours}% (n = {len(better)})."
    )
    return Card(title, verdicts.of_rows(pd.Series([c.verdict for c in found])), text, "figure4")


def _judged(title: str, claim: Claim | None, page: str) -> Card:
    if claim is None:
        return Card(title, OPEN, NOT_YET, page)
    return Card(title, claim.verdict, f"{claim.here} (n = {claim.n}).", page)


def _small(evidence: Evidence) -> Card:
    title = "A few classes in a small, fast network"
    if evidence.small is None:
        return Card(title, OURS, NOT_YET, "small_networks")
    found = evidence.small.mains[0]
    of, plan = found.split(), found.plan
    fast = small_networks.in_each_runtime(evidence.small, plan.name)
    speed = f", {fast} for one image" if fast else ""
    return Card(
        title,
        OURS,
        f"{plan.classes} classes of {plan.parent}: {tables.percent(of['parameters'].mean(), 1)} of its "
        f"parameters{speed}, {small_networks.gap(of['gap'])} points (n = {len(of)} subsets). Not the paper's method.",
        "small_networks",
    )


def draw(evidence: Evidence) -> None:
    """Draw accuracies of the vote and Jaccard indices, a row for each recipe, one point a trial."""
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 1.2), sharey=True)
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
    gap = against_parent(best).mean()
    beside = [
        f" (the paper: {accuracy:.2f}% at {index:.2f})"
        for accuracy, index in zip(evidence.paper["accuracy_percent"], evidence.paper["jaccard_index"], strict=True)
    ]
    return Markdown(
        f"**On {column.name}, {tables.percent(settings.k, 0)} of the edges for each "
        f"module:** the paper's recipe as we read it (*published*, α = {max(settings.published_alphas):g}) gives "
        f"{records.percent_of_n(plain['accuracy'])} at a Jaccard index of {plain['jaccard_index'].mean():.2f}"
        f"{''.join(beside)}; ours, with a loss for the vote (α = {settings.vote_alpha:g}), "
        f"{records.percent_of_n(best['accuracy'])} at {best['jaccard_index'].mean():.2f}, "
        f"{abs(gap):.2f} points {'behind' if gap < 0 else 'ahead of'} the parents' "
        f"{records.mean_and_spread(evidence.parents)}%. [The page of the paper's Table 1](table1.ipynb) has all "
        "networks."
    )


def summary(evidence: Evidence) -> str:
    """Return which trials the page rests on."""
    return f"{len(evidence.done)} trials of {evidence.column.name} {evidence.labels}"
