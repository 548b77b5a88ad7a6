"""Two parents: one classifier over modules of two networks that share no class, and what background images bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from modlib.study.two_parents import TwoParents
from modlib.zoo import datasets

VOTES = ("two parents", "two parents, calibrated")
WORDS = {
    "first parent, own half": "first parent, on its own half",
    "second parent, own half": "second parent, on its own half",
    "two parents, softmax": "both parents, the larger softmax (no modules)",
    "two parents": "modules of both, log-odds as they are",
    "two parents, calibrated": "modules of both, log-odds calibrated",
    "one parent itself": "one parent for all classes, itself",
    "one parent": "modules of one parent for all classes",
}
"""How tables call the networks of a record."""


@dataclass(frozen=True)
class Halves:
    """A data set halved: `images` of it, whatever `modlib.recipes.ours` changes, and a trial for each seed."""

    dataset: str
    model: str
    parent_epochs: int
    recipe: dict[str, Any]
    seeds: list[int]
    images: int


def asked(halves: Sequence[Mapping[str, Any]], shares: Sequence[float]) -> list[TwoParents]:
    """Return what is asked: every data set, every trial."""
    return [
        TwoParents(h.dataset, h.model, h.parent_epochs, ours(**h.recipe), seed, h.images, tuple(map(float, shares)))
        for h in named("halves", halves, Halves)
        for seed in h.seeds
    ]


def experiments(*, halves: Sequence[Mapping[str, Any]], shares: Sequence[float], **_: Any) -> list[Experiment]:
    """Return the experiments that the page reads, from its parameters."""
    return [one.experiment for one in asked(halves, shares)]


def run(halves: Sequence[Mapping[str, Any]], shares: Sequence[float], store: Store) -> list[Record]:
    """Return the records of all trials."""
    loaded = {h["dataset"]: datasets.load(h["dataset"]) for h in halves}
    return [one.run(loaded[one.dataset], store) for one in asked(halves, shares)]


def share_in_words(share: Any) -> str:
    """Return how a share of the other half's images is called; nothing where there is no such share."""
    if pd.isna(share):
        return ""
    return "none" if share == 0 else "all" if share == 1 else f"{100 * share:g}%"


def _test(done: Sequence[Record]) -> pd.DataFrame:
    return records.frame(done).query("split == 'test'")


def answer(done: Sequence[Record]) -> Markdown:
    """Return, for each data set, the accuracy by share of background images, beside one parent for all."""
    said = []
    for (dataset, model), part in tables.groups(_test(done), ["dataset", "model"], sort=False):
        means = part.groupby(["network", "background"], dropna=False)["accuracy"].mean() * 100
        plain, fitted = (means[name] for name in VOTES)
        steps = ", ".join(f"{plain[s]:.1f}% with {share_in_words(s)}" for s in plain.index)
        after = ", ".join(f"{value:.1f}" for value in fitted)
        what = f"{part['images'].max():,} images, n = {part['seed'].nunique()} trials"
        one, softmax = (means[name].iloc[0] for name in ("one parent", "two parents, softmax"))
        said.append(
            f"- **{of_network(dataset, model)}** ({what}): {steps} of the other half's images as background; if "
            f"calibrated on held-out images, {after}%. Beside that: modules of one parent for all classes {one:.1f}%, "
            f"the larger softmax of the two parents {softmax:.1f}%."
        )
    return Markdown(
        "**Answer.** Accuracy of the vote over all classes on test images, mean over trials:\n\n" + "\n".join(said)
    )


def draw(done: Sequence[Record]) -> Figure:
    """Draw the accuracy by share of background images, a point for each trial; lines for what has none."""
    rows = _test(done)
    names = list(rows["dataset"].unique())
    figure, axes = plt.subplots(1, len(names), figsize=(figures.WIDTH, 3.4), sharey=True, squeeze=False)
    colours = figures.palette([*VOTES, "one parent", "two parents, softmax"])
    for ax, name in zip(axes[0], names, strict=True):
        part = rows[rows["dataset"] == name]
        voted = part[part["network"].isin(VOTES)]
        voted = voted.assign(share=voted["background"].map(share_in_words), accuracy=100 * voted["accuracy"])
        sns.stripplot(voted, x="share", y="accuracy", hue="network", palette=colours, jitter=False, dodge=True, ax=ax)
        for network in ("one parent", "two parents, softmax"):
            mean = 100 * part.loc[part["network"] == network, "accuracy"].mean()
            ax.axhline(mean, color=colours[network], linestyle="--", linewidth=1)
            ax.annotate(
                WORDS[network], (0.01, mean), xycoords=("axes fraction", "data"), ha="left", va="bottom", size=8
            )
        ax.legend(title=None, loc="lower right", labels=["log-odds as they are", "calibrated"], frameon=True)
        ax.set(
            title=of_data(name), xlabel="the other half's images shown as background", ylabel="accuracy of the vote (%)"
        )
    return figure


def table(done: Sequence[Record]) -> Markdown:
    """Return accuracy, and how often the class is of the right half, for every network: mean and standard deviation."""
    shown = []
    keys = ["dataset", "model", "network", "background"]
    for (dataset, model, network, share), part in _test(done).groupby(keys, sort=False, dropna=False):
        right = part["right_half"].mean()
        shown.append(
            {
                "data, parents": of_network(str(dataset), str(model)),
                "network": WORDS[str(network)],
                "background": share_in_words(share),
                "accuracy (%)": records.mean_and_spread(part["accuracy"], digits=1),
                "right half (%)": "" if pd.isna(right) else f"{100 * right:.1f}",
            }
        )
    trials = _test(done)["seed"].nunique()
    caption = (
        f"Test images (mean ± standard deviation, n = {trials} trials): accuracy, and the share of images whose "
        "class is looked for in the right half."
    )
    return tables.table(pd.DataFrame(shown), caption, "tab-two-parents")
