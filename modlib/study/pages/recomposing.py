"""Recomposing: networks for pairs and for subsets of growing size, and what they take in time."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from modlib import metrics
from modlib.modules import Modules
from modlib.seeds import generator
from modlib.study import example, figures, tables
from modlib.study.experiment import Experiment
from modlib.study.names import of_data, of_network
from modlib.study.timing import median_ms

QUANTITIES = ["remaining", "modules", "parent"]
"""The columns of `Subsets.grown` that are shares in [0, 1]: of weights kept, and accuracies."""


def experiments(**parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes: its one trial."""
    return [example.trial(**parameters).experiment]


@dataclass(frozen=True, eq=False)
class Subsets:
    """What networks recomposed for subsets come to, beside the parent restricted to the same classes.

    `log_odds` [n, C] of the modules, `logits` [n, N] of the parent, `labels` [n]; `data`: the name of the data set.
    """

    data: str
    modules: Modules
    log_odds: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each module."""
        return self.modules.classes

    def of(self, asked: Sequence[int]) -> dict[str, float]:
        """Return the size of one subset's network, and both accuracies, in [0, 1]."""
        return {
            "remaining": self.modules.remaining(asked),
            "modules": metrics.recomposed_accuracy(self.log_odds, self.labels, self.classes, asked),
            "parent": metrics.recomposed_accuracy(self.logits, self.labels, self.classes, asked),
        }

    def pairs(self) -> pd.DataFrame:
        """Return size and accuracies of every pair, one row each; `pair`: its classes, for a sentence."""
        every = itertools.combinations(self.classes, 2)
        return pd.DataFrame([{"pair": f"{a}, {b}"} | self.of((a, b)) for a, b in every])

    def grown(self, count: int, seed: int) -> pd.DataFrame:
        """Return the same for at most `count` drawn subsets of every number of `classes`."""
        draw, rows = generator(seed, "subsets"), []
        for size in range(1, len(self.classes) + 1):
            every = list(itertools.combinations(self.classes, size))
            for i in torch.randperm(len(every), generator=draw)[:count].tolist():
                rows.append({"classes": size, "subset": every[i]} | self.of(every[i]))
        return pd.DataFrame(rows)

    def draw_pairs(self) -> Figure:
        """Draw accuracy and size of every pair, in percent."""
        accuracy = metrics.accuracy_of_pairs(self.log_odds, self.labels, self.classes)
        remaining = self.modules.masks.remaining_of_pairs().fill_diagonal_(torch.nan)
        figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.8), sharey=True)
        small: dict[str, Any] = {"fmt": ".1f"}
        figures.matrix(100 * accuracy, self.classes, left, "accuracy (%)", **small)
        figures.matrix(100 * remaining, self.classes, right, "remaining parameters (%)", cmap="flare", **small)
        left.set(xlabel="class", ylabel="class")
        right.set_xlabel("class")
        for ax in (left, right):
            ax.grid(False)
        return figure


def pairs_table(pairs: pd.DataFrame, data: str) -> Markdown:
    """Return mean, lowest and highest value over the pairs, with the pair that has it."""
    shown = {
        "accuracy of the vote": "modules",
        "accuracy of the restricted parent": "parent",
        "remaining parameters": "remaining",
    }
    rows = []
    for what, column in shown.items():
        row = {"": what, "mean": tables.percent(pairs[column].mean())}
        for word, at in (("lowest", pairs[column].argmin()), ("highest", pairs[column].argmax())):
            row[word] = f"{tables.percent(pairs[column].iloc[at])} ({pairs['pair'].iloc[at]})"
        rows.append(row)
    return tables.table(
        pd.DataFrame(rows),
        f"The {len(pairs)} pairs of {of_data(data)}, test images (n = 1 seed), with the pair that has the lowest and "
        "the highest value (the first, where several share it).",
        "tab-pairs",
    )


def files_table(modules: Modules, dataset: str, model: str) -> Markdown:
    """Return the bytes of the files that a subset needs without the parent, beside those of the parent's weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.safetensors"
        save_file(modules.parent.state_dict(), path)
        sizes = {"the parent, float32": path.stat().st_size}
        for count in sorted({1, 2, len(modules.classes) // 2, len(modules.classes)}):
            modules.save_subset(modules.classes[:count], path)
            sizes[f"modules of {count} class{'es' if count > 1 else ''}"] = path.stat().st_size
    parent = sizes["the parent, float32"]
    rows = [
        {"file": name, "kB": f"{size / 1000:,.1f}", "of the parent's": tables.percent(size / parent, 1)}
        for name, size in sizes.items()
    ]
    return tables.table(
        pd.DataFrame(rows),
        f"Files of `save_subset` ({of_network(dataset, model)}): the weights in the union of the masks, and which "
        "module has which of them. They need no parent. Of each number of classes the first ones.",
        "tab-recomposing-files",
    )


def independent(k: float, count: int) -> float:
    """Return the share of the weights in the union of `count` independent masks that keep a share `k` each."""
    return 1 - (1 - k) ** count


def draw_grown(grown: pd.DataFrame, k: float) -> Figure:
    """Draw size and accuracy over the number of classes, with the sizes that frame the result."""
    percent = grown.assign(**{column: 100 * grown[column] for column in QUANTITIES})
    sizes = pd.Series(range(1, int(grown["classes"].max()) + 1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.1))
    _draw_means(left, percent, "remaining", "vote", "ours")
    left.plot(sizes, 100 * (1 - (1 - k) ** sizes), "--", color="0.4", linewidth=1, label="independent masks")
    left.plot(sizes, (100 * k * sizes).clip(upper=100), ":", color="0.4", linewidth=1.3, label="nothing in common")
    left.set(ylabel="remaining parameters (%)", ylim=(0, 102))
    for column, label, colour in (("modules", "vote", "ours"), ("parent", "restricted parent", "parent")):
        _draw_means(right, percent, column, label, colour)
    right.set(ylabel="accuracy (%)")
    for ax in (left, right):
        ax.set(xlabel="classes K")
        ax.xaxis.set_major_locator(plt.MaxNLocator(10, integer=True))
        ax.legend(frameon=False)
    return figure


def _draw_means(ax: Axes, table: pd.DataFrame, column: str, label: str, colour: str) -> None:
    """Draw the mean over the subsets of a size, and a band from the smallest to the largest."""
    span = {"errorbar": ("pi", 100), "marker": "o", "markersize": 4}
    sns.lineplot(table, x="classes", y=column, color=figures.COLOURS[colour], label=label, ax=ax, **span)


def grown_table(grown: pd.DataFrame, k: float, data: str) -> Markdown:
    """Return the means over the subsets by number of classes, beside the size of independent masks."""
    counts, means = grown.groupby("classes").size(), _means(grown)
    rows = [
        {
            "classes K": size,
            "subsets": int(counts[size]),
            "remaining parameters": tables.percent(means["remaining"][size]),
            "independent masks": tables.percent(independent(k, size)),
            "accuracy of the vote": tables.percent(means["modules"][size]),
            "restricted parent": tables.percent(means["parent"][size]),
        }
        for size in range(1, len(means) + 1)
    ]
    return tables.table(
        pd.DataFrame(rows),
        f"Recomposed networks by number of classes, means over the subsets; {of_data(data)}, test images (n = 1 seed).",
        "tab-growing",
    )


def _means(grown: pd.DataFrame) -> pd.DataFrame:
    return grown.groupby("classes")[QUANTITIES].mean()


@dataclass(frozen=True)
class Times:
    """Median milliseconds of `repeats` runs: to recompose, and to predict a batch, by number of classes."""

    batch: int
    repeats: int
    recompose: Mapping[int, float]
    predict: Mapping[int, float]
    parent: float

    @classmethod
    @torch.no_grad()
    def of(cls, modules: Modules, inputs: Tensor, repeats: int) -> Times:
        """Return what networks for 1, 2, 5 and all classes take; `inputs`: the batch that is predicted."""
        subsets = {size: modules.classes[:size] for size in sorted({1, 2, 5, len(modules.classes)})}
        built = {size: modules.recompose(asked) for size, asked in subsets.items()}
        return cls(
            len(inputs),
            repeats,
            {size: median_ms(partial(modules.recompose, asked), repeats) for size, asked in subsets.items()},
            {size: median_ms(partial(network.predict, inputs), repeats) for size, network in built.items()},
            median_ms(lambda: modules.parent(inputs).argmax(1), repeats),
        )

    def table(self) -> Markdown:
        """Return the times by number of classes, the parent's last."""
        rows = [
            {"classes": size, "recompose (ms)": f"{ms:.2f}", "predict (ms)": f"{self.predict[size]:.2f}"}
            for size, ms in self.recompose.items()
        ]
        of_parent = {"classes": "the parent", "recompose (ms)": "", "predict (ms)": f"{self.parent:.2f}"}
        return tables.table(
            pd.DataFrame([*rows, of_parent]),
            f"Time to recompose, and to predict a batch of {self.batch} images; median of {self.repeats} runs.",
            "tab-times",
        )


def answer(pairs: pd.DataFrame, grown: pd.DataFrame, times: Times, data: str, model: str) -> Markdown:
    """Say how large pairs and the network of all classes are, how they vote, and how long recomposing took."""
    percent, means = tables.percent, pairs[QUANTITIES].mean()
    whole, count = _means(grown).iloc[-1], int(grown["classes"].max())
    of_pairs, of_all = (100 * (row["modules"] - row["parent"]) for row in (means, whole))
    return Markdown(
        "**Answer.** Unite the masks of the asked classes over the parent, and let each module vote with its own mask. "
        f"On {of_network(data, model)} (n = 1 seed) a pair has {percent(means['remaining'])} remaining parameters and "
        f"{of_pairs:+.2f} points against the parent restricted to the same classes (mean of {len(pairs)} pairs). All "
        f"{count} classes have {percent(whole['remaining'])} and {of_all:+.2f}. Recomposing took at most "
        f"{max(times.recompose.values()):.0f} ms in this run."
    )


def of_files(bytes_of: Mapping[str, int]) -> Markdown:
    """Say how large the files of the "modules" and of the "parent" are."""
    sizes = {name: f"{count / 1024:.0f} KiB" for name, count in bytes_of.items()}
    return Markdown(
        f"The file of the modules has {sizes['modules']}. It works beside that of the parent, which has "
        f"{sizes['parent']}."
    )
