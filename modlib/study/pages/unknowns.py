"""None of these: images of no asked class, told by the vote of modules and by their parent's softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure

from modlib.recipes import ours
from modlib.study import figures, records, tables
from modlib.study.columns import named
from modlib.study.experiment import Experiment
from modlib.study.names import of_data, of_network
from modlib.study.records import Record, Store
from modlib.study.trials import Trial
from modlib.study.unknowns import SCORES, Unknowns
from modlib.zoo import datasets

OTHERS = ("the parent's softmax over the asked classes", "its softmax over all classes")
"""The scores other than the vote, in a sentence."""
SHORT = ("vote", "softmax over the asked classes", "over all")
"""All scores, in a list."""


@dataclass(frozen=True)
class Network:
    """A decomposition by recipe ours: its parent, what `modlib.recipes.ours` changes, its trials.

    `other`: a data set of images of the same shape, or "". `images`: of each part. `measured_images`: see `Trial`; 0
    for all.
    """

    dataset: str
    model: str
    parent_epochs: int
    parent_recipe: str
    recipe: dict[str, Any]
    seeds: list[int]
    other: str
    images: int
    measured_images: int = 0

    def asked(self, sizes: Sequence[int], count: int) -> list[Unknowns]:
        """Return what is asked of its trials."""
        recipe = ours(**self.recipe)
        trials = [
            Trial(
                self.dataset, self.model, "ours", recipe, seed, self.parent_epochs,
                parent_recipe=self.parent_recipe, measured_images=self.measured_images or None,
            )
            for seed in self.seeds
        ]  # fmt: skip
        return [Unknowns(trial, self.other, tuple(sizes), count, self.images) for trial in trials]


def asked(networks: Sequence[Mapping[str, Any]], sizes: Sequence[int], count: int) -> list[Unknowns]:
    """Return what is asked of every network and trial."""
    return [one for network in named("networks", networks, Network) for one in network.asked(sizes, count)]


def experiments(
    *, networks: Sequence[Mapping[str, Any]], sizes: Sequence[int], count: int, **_: Any
) -> list[Experiment]:
    """Return the experiments that the page reads, from its parameters."""
    return [one.experiment for one in asked(networks, sizes, count)]


def run(networks: Sequence[Mapping[str, Any]], sizes: Sequence[int], count: int, store: Store) -> list[Record]:
    """Return the records of all networks and trials."""
    loaded = {n["dataset"]: datasets.load(n["dataset"]) for n in networks}
    return [one.run(loaded[one.trial.dataset], store) for one in asked(networks, sizes, count)]


def answer(done: Sequence[Record]) -> Markdown:
    """Return how often the vote is better than each softmax, and how each does on images of other classes."""
    every = records.frame(done)
    rows = every[every["unknown"] == "other classes"]
    if rows.empty:
        return Markdown("**Answer.** All classes were asked for: there are no others among which the vote could err.")
    means = rows.groupby(["dataset", "model", "classes", "score"], sort=False)["auroc"].mean().unstack()
    vote, *others = SCORES
    wins = [
        f"better than {name} in {int((means[vote] > means[score]).sum())} of {len(means)} cases"
        for score, name in zip(others, OTHERS, strict=True)
    ]
    said = []
    for (dataset, model), part in tables.groups(rows, ["dataset", "model"], sort=False):
        mine = means.loc[dataset, model]
        cells = [
            f"{name} {' and '.join(f'{value:.3f}' for value in mine[score])}"
            for score, name in zip(SCORES, SHORT, strict=True)
        ]
        sizes = " and ".join(str(k) for k in mine.index)
        n = f"n = {part['subsets'].max()} subsets of each size, {part['seed'].nunique()} trials"
        said.append(f"- **{of_network(dataset, model)}**, {sizes} classes ({n}): {', '.join(cells)}.")
    return Markdown(
        f"**Answer.** The vote is {', and '.join(wins)}. AUROC between images of the asked classes and of others "
        "(1: always apart; test images, means over subsets and trials):\n\n" + "\n".join(said) + _never_seen(every)
    )


def _never_seen(rows: pd.DataFrame) -> str:
    """Say how many images that nobody has seen are rejected by a network of all classes."""
    said = []
    for (dataset, model), part in tables.groups(rows, ["dataset", "model"], sort=False):
        every = part[(part["classes"] == part["classes"].max()) & (part["unknown"] != "other classes")]
        shares = every.groupby(["unknown", "score"], sort=False)["rejected"].mean().unstack()
        vote, *_, full = SCORES
        cells: list[str] = []
        for kind, row in shares.iterrows():
            whose = "" if cells else "the parent's softmax: "
            name = "noise" if kind == "noise" else of_data(str(kind))
            cells.append(f"{100 * row[vote]:.0f}% of {name} ({whose}{100 * row[full]:.0f}%)")
        count, network = int(every["classes"].max()), of_network(dataset, model)
        n = f"n = {every['seed'].nunique()} trials"
        said.append(f"{count} modules of {network} reject {' and '.join(cells)} ({n})")
    return f"\n\nImages that nobody has seen pass too often: {'; '.join(said)}."


def draw(done: Sequence[Record]) -> Figure:
    """Draw the AUROC by number of classes, a row for each network and a column for each kind of unknown image."""
    rows = records.frame(done)
    kinds = rows["unknown"].where(rows["unknown"].isin(["other classes", "noise"]), "another data set")
    called = [of_network(dataset, model) for dataset, model in zip(rows["dataset"], rows["model"], strict=True)]
    rows = rows.assign(kind=kinds, network=called)
    networks, columns = rows["network"].unique(), rows["kind"].unique()
    shape = (len(networks), len(columns))
    figure, axes = plt.subplots(
        *shape, figsize=(figures.WIDTH, 0.65 + 0.72 * len(networks)), sharex=True, sharey=True, squeeze=False
    )
    for (i, network), (j, kind) in product(enumerate(networks), enumerate(columns)):
        part = rows[(rows["network"] == network) & (rows["kind"] == kind)]
        sns.lineplot(
            part, x="classes", y="auroc", hue="score", style="score", markers=True, errorbar=None, ax=axes[i, j],
            palette=figures.palette(SCORES), legend=(i, j) == (0, 0),
        )  # fmt: skip
        axes[i, j].set(title=kind if i == 0 else "", xlabel="classes that are known")
        axes[i, j].set_ylabel(network.replace(" ", "\n", 1), fontsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].get_legend().remove()
    figure.legend(handles, labels, loc="outside upper center", ncol=3, frameon=False)
    figure.supylabel("AUROC")
    return figure


def table(done: Sequence[Record]) -> Markdown:
    """Return AUROC, and the share of unknown images rejected, for every network, size and kind of image."""
    rows = records.frame(done)
    shown = []
    for (dataset, model, classes, unknown), part in tables.groups(
        rows, ["dataset", "model", "classes", "unknown"], sort=False
    ):
        line = {"network": of_network(dataset, model), "classes": str(classes), "unknown": unknown}
        for score, own in part.groupby("score", sort=False):
            line[str(score)] = f"{own['auroc'].mean():.3f}, {100 * own['rejected'].mean():.0f}%"
        shown.append(line)
    caption = "AUROC, and share of unknown images rejected where 95% of the asked classes' held-out images are kept."
    return tables.table(pd.DataFrame(shown), caption, "tab-unknowns")
