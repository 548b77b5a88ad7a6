"""Table 6: every module asked about every class, and what a new linear layer reads from its edges."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor, nn

from modlib import metrics
from modlib.data import Dataset
from modlib.masking import top_k_mask
from modlib.modules import Modules
from modlib.passes import masked_parents
from modlib.seeds import generator
from modlib.study import figures, printed, tables
from modlib.study.claims import Claim
from modlib.study.experiment import Experiment
from modlib.study.names import of_data, of_network
from modlib.study.published import Grid, count_of, trials_of
from modlib.study.records import Record, interval, mean_and_spread, signed
from modlib.study.trials import SETTINGS, Trial

EQUAL = 4 / 9
"""What a perfect module has off the diagonal where ten classes are equally frequent."""


def grid(
    *,
    dataset: str,
    model: str,
    ks: Sequence[float],
    alpha: float,
    seeds: Sequence[int],
    further: Sequence[Mapping[str, Any]],
    parent_epochs: int,
    epochs: int,
    **_: Any,
) -> Grid:
    """Return the trials of the page: every k."""
    return Grid(dataset, [model], ks, [alpha], seeds, epochs, parent_epochs, further=further)


def experiments(**parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes with these parameters."""
    return grid(**parameters).experiments()


def ask(trials: Sequence[Trial], done: Sequence[Record], decomposed: Sequence[Modules], data: Dataset) -> list[Record]:
    """Return the records of trials with a row for every module and class: the accuracy on the balanced set of both."""
    images, labels = data.split("test")
    inputs = data.inputs(images)
    asked = []
    for trial, record, modules in zip(trials, done, decomposed, strict=True):
        about = {name: record.rows[0][name] for name in [*SETTINGS, "seed"]}
        table = metrics.balanced_accuracies(modules.log_odds(inputs), labels, modules.classes, trial.seed)
        rows = [
            about | {"module": i, "class": j, "balanced_accuracy": float(table[a, b])}
            for a, i in enumerate(modules.classes)
            for b, j in enumerate(modules.classes)
        ]
        asked.append(Record(record.parameters, record.provenance, rows))
    return asked


def _square(rows: pd.DataFrame, value: str) -> Tensor:
    """Return the mean over trials of a table of modules by classes."""
    return torch.tensor(rows.pivot_table(index="module", columns="class", values=value).to_numpy())


@dataclass(frozen=True, eq=False)
class Answers:
    """What the modules of a grid answer: `rows` of `ask`."""

    grid: Grid
    rows: pd.DataFrame
    data: Dataset

    @property
    def classes(self) -> range:
        """All classes."""
        return range(self.data.num_classes)

    @cached_property
    def measured(self) -> dict[float, Tensor]:
        """Accuracies of modules (rows) about classes (columns) by k, means over trials."""
        return {k: _square(self.rows[self.rows["k"] == k], "balanced_accuracy") for k in self.grid.ks}

    @cached_property
    def printed(self) -> dict[float, Tensor]:
        """The paper's, where it has this k."""
        paper = printed.numbers("table6")
        there = {k: paper[paper["k_percent"] == round(100 * k)] for k in self.grid.ks}
        return {k: _square(rows, "accuracy_percent") / 100 for k, rows in there.items() if len(rows)}

    @cached_property
    def perfect(self) -> Tensor:
        """What modules without an error would have, with the frequencies of these test images."""
        counts = torch.bincount(self.data.split("test")[1])[list(self.classes)]
        return metrics.perfect_balanced_accuracies(counts.tolist())

    @cached_property
    def numbers(self) -> dict[float, int]:
        """How many trials there are, by k."""
        return {k: self.rows[self.rows["k"] == k]["seed"].nunique() for k in self.grid.ks}

    @property
    def count(self) -> int | str:
        """How many trials a k has."""
        return count_of(self.numbers.values())

    @property
    def are_of_one_class(self) -> bool:
        """Whether modules are right on most of their own class's set, and on less than half of every other."""
        return all(
            bool((table.diagonal() > 0.75).all()) and bool((metrics.off_diagonal(table) < 0.5).all())
            for table in self.measured.values()
        )

    def off_diagonal(self) -> str:
        """Return what the modules have off the diagonal in per cent: the smallest and the largest mean of a k."""
        means = [f"{100 * float(metrics.off_diagonal(table).mean()):.2f}" for table in self.measured.values()]
        return min(means) if len(set(means)) == 1 else f"{min(means)} to {max(means)}"

    def own_class(self) -> str:
        """Return what the modules have on their own class, in the same way."""
        means = [f"{100 * float(table.diagonal().mean()):.2f}" for table in self.measured.values()]
        return min(means) if len(set(means)) == 1 else f"{min(means)} to {max(means)}"


def about_printed(answers: Answers) -> str:
    """Return a line on perfect modules, and one on each table that the paper prints."""
    equal = metrics.perfect_balanced_accuracies([1] * 10)
    lines = [f"perfect modules, classes equally frequent: {100 * float(equal[0, 1]):.1f}% off the diagonal"]
    for k, table in answers.printed.items():
        own, others = 100 * table.diagonal(), 100 * metrics.off_diagonal(table)
        lines.append(
            f"paper, k = {k:.0%}: own class {float(own.mean()):.2f}%, others {float(others.mean()):.2f}%, "
            f"{float(others.min()):.2f} to {float(others.max()):.2f}%"
        )
    return "\n".join(lines)


def draw(tables: Mapping[float, Tensor], source: str) -> Figure:
    """Draw tables of modules by classes as heat maps, one for each k; `source`: whose they are, for the titles."""
    count = len(tables)
    figure, axes = plt.subplots(1, count, figsize=(figures.WIDTH, 2.8), squeeze=False, sharey=True)
    style = {"annot_kws": {"size": 8 if count > 2 else 9}, "vmin": 40, "vmax": 100}
    for ax, (k, table) in zip(axes[0], tables.items(), strict=True):
        figures.matrix(100 * table, range(len(table)), ax, f"{source}, k = {k:.0%}", ".0f", **style)
        ax.tick_params(labelsize=7)
        ax.set_xlabel("asked about class")
    axes[0, 0].set_ylabel("module")
    return figure


def _span(values: Tensor) -> str:
    return f"{100 * float(values.mean()):.2f} ({100 * float(values.min()):.2f} to {100 * float(values.max()):.2f})"


def _summed_up(k: str, source: str, own: str, others: Tensor) -> dict[str, str]:
    away = f"{100 * float(others.mean() - EQUAL):+.2f}"
    named = {"k": k, "from": source, "own class": own}
    return named | {"other classes": _span(others), "points from 44.4": away}


def summary(answers: Answers) -> Markdown:
    """Return the table of own and of other classes: here, in the paper, and of perfect modules."""
    dataset, lines = answers.grid.dataset, []
    for k in answers.grid.ks:
        sources = {f"here, {of_data(dataset)}, n = {answers.numbers[k]}": answers.measured[k]}
        sources |= {"paper, MNIST": answers.printed[k]} if k in answers.printed else {}
        for source, table in sources.items():
            lines.append(_summed_up(f"{k:.0%}", source, _span(table.diagonal()), metrics.off_diagonal(table)))
    perfect = f"perfect modules, frequencies of {of_data(dataset)}"
    lines.append(_summed_up("", perfect, "100.00", metrics.off_diagonal(answers.perfect)))
    caption = (
        "Accuracy (%) on the balanced sets: mean (lowest to highest) over the modules' own classes, and over all pairs "
        "of a module and another class."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table6-summary")


def every_entry(answers: Answers) -> Markdown:
    """Return the table of every module about every class."""
    grid, classes = answers.grid, answers.classes
    lines = [
        {"k": f"{k:.0%}", "module": i}
        | {f"class {j}": f"{100 * float(answers.measured[k][i, j]):.2f}" for j in classes}
        for k in grid.ks
        for i in classes
    ]
    numbers = ", ".join(f"{n} at k = {k:.0%}" for k, n in answers.numbers.items())
    caption = (
        f"Accuracy (%) of each module on the balanced set of each class, {of_network(grid.dataset, grid.models[0])}, "
        f"recipe published, α = {grid.alphas[0]:g}, {grid.epochs} epochs, mean over n trials: {numbers}."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table6")


class Reader:
    """Fits a new linear layer to what a network puts out on training images, and asks it about test images."""

    def __init__(self, data: Dataset) -> None:
        self.num_classes = data.num_classes
        (fit_images, self.fit_labels), (images, self.labels) = data.split("train"), data.split("test")
        self.fit_inputs, self.inputs = data.inputs(fit_images), data.inputs(images)

    def told_apart(self, network: nn.Module, c: int) -> float:
        """Return how often the layer names the class of an image that is not of class `c`; least squares."""
        targets = nn.functional.one_hot(self.fit_labels, self.num_classes).double()
        layer = torch.linalg.lstsq(_outputs(network, self.fit_inputs), targets).solution
        named = _outputs(network, self.inputs) @ layer
        named[:, c] = -torch.inf
        others = self.labels != c
        return float((named.argmax(1) == self.labels)[others].double().mean())


@torch.no_grad()
def _outputs(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a linear layer reads: the network's outputs [n, N] and a constant."""
    found = torch.cat([network(part) for part in inputs.split(10_000)])
    return torch.cat([found, torch.ones(len(found), 1)], dim=1).double()


@torch.no_grad()
def random_part(modules: Modules, c: int, seed: int) -> nn.Module:
    """Return the parent with as many edges of each layer as a module has, drawn at random."""
    network = copy.deepcopy(modules.parent)
    for name, mask in modules.masks.masks.items():
        drawn = torch.rand(mask[0].numel(), generator=generator(seed, "random edges", name, c))
        network.get_parameter(name).mul_(top_k_mask(drawn, int(mask[0].sum())).view(mask[0].shape))
    return network


def read_out(trials: Sequence[Trial], decomposed: Sequence[Modules], data: Dataset) -> pd.DataFrame:
    """Return how often a new layer tells apart the other classes: on a module, on random edges, on the whole parent."""
    reader = Reader(data)
    return pd.DataFrame(
        [
            {
                "k": trial.recipe.k,
                "seed": trial.seed,
                "module": c,
                "told_apart": reader.told_apart(masked_parents(modules.select([c]))[0], c),
                "at_random": reader.told_apart(random_part(modules, c, trial.seed), c),
                "by_parent": reader.told_apart(modules.parent, c),
            }
            for trial, modules in zip(trials, decomposed, strict=True)
            for c in modules.classes
        ]
    )


def told_apart(readout: pd.DataFrame, num_classes: int) -> Markdown:
    """Return the table of what a new layer reads, of `read_out`."""
    lines = [
        {
            "k": f"{k:.0%}",
            "modules (%)": mean_and_spread(part["told_apart"]),
            "random edges (%)": mean_and_spread(part["at_random"]),
            "difference (points)": signed(100 * (part["told_apart"] - part["at_random"])),
            "whole parent (%)": mean_and_spread(part["by_parent"]),
            "guessing (%)": f"{100 / (num_classes - 1):.2f}",
            "n": len(part),
        }
        for k, part in readout.groupby("k", sort=False)
    ]
    caption = (
        "Test images of the other classes told apart by a new linear layer on a module's outputs. Mean ± standard "
        "deviation over n modules (all classes, all trials)."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-table6-readout")


@dataclass(frozen=True, eq=False)
class Verdict:
    """On "only the function of its own class", in two parts: what modules answer, and what their edges hold."""

    answers: bool
    intervals: Mapping[float, tuple[float, float]]
    """Of what a new layer tells apart more often than on random edges, by k: 95%, over modules."""

    @classmethod
    def of(cls, answers: Answers, readout: pd.DataFrame) -> Verdict:
        """Return the verdict on some modules."""
        more = readout["told_apart"] - readout["at_random"]
        parts = {k: interval(more[readout["k"] == k]) for k in readout["k"].unique()}
        return cls(answers.are_of_one_class, parts)

    @property
    def more_at(self) -> list[float]:
        """The k at which edges hold more of the other classes than random ones."""
        return [k for k, (low, _) in self.intervals.items() if low > 0]

    @property
    def told(self) -> str:
        """The intervals in words."""
        spans = {k: f"{100 * low:+.1f} to {100 * high:+.1f} points" for k, (low, high) in self.intervals.items()}
        return ", ".join(f"{span} at k = {k:.0%}" for k, span in spans.items())

    def __str__(self) -> str:
        edges = not self.more_at
        return "holds" if self.answers and edges else "partly" if self.answers or edges else "does not hold"


def answer(answers: Answers, readout: pd.DataFrame) -> Markdown:
    """Return what the modules answer, what their edges hold, and the verdict on the paper's sentence."""
    verdict = Verdict.of(answers, readout)
    expected = 100 * float(metrics.off_diagonal(answers.perfect).mean())
    by_k = 100 * readout.groupby("k", sort=False)[["told_apart", "at_random"]].mean()
    named, guessed = by_k["told_apart"], 100 / (answers.data.num_classes - 1)
    more = [f"k = {k:.0%} ({by_k['told_apart'][k]:.1f} against {by_k['at_random'][k]:.1f}%)" for k in verdict.more_at]
    if len(more) == len(by_k):
        edges = f"Random edges name fewer: {', '.join(more)}"
    else:
        edges = f"Random edges name as many, or more{', except at ' if more else ''}{', '.join(more)}"
    said = {"partly": "holds in part"}.get(str(verdict), str(verdict))
    return Markdown(
        f"**Answer.** Asked about its own class, a module is right on {answers.own_class()}% of a balanced set; asked "
        f"about another class, on {answers.off_diagonal()}%, where a perfect module is right on {expected:.2f}% "
        f"(n = {trials_of(answers.count)} for each k). So the answers {'are' if verdict.answers else 'are not'} those "
        f"of one class. A new linear layer on its outputs names {named.min():.0f} to {named.max():.0f}% "
        f"of the other classes' images, guessing {guessed:.0f}% (n = {len(readout)} modules). {edges}. "
        f'That a module "holds only" its own class **{said}**.'
    )


def claim(answers: Answers, readout: pd.DataFrame) -> Claim:
    """Return the paper's claim about modules and their own class, judged where the trials are of its network."""
    verdict = Verdict.of(answers, readout)
    return Claim(
        "Each module holds only the classification function of its own class",
        "Table 6",
        "44.8% off the diagonal",
        f"by their answers: {answers.off_diagonal()}% off the diagonal. How much better their edges tell other "
        f"classes apart than random edges, 95%: {verdict.told}; below zero speaks for the claim",
        str(verdict) if answers.grid.has_papers_network else "open",
        answers.count,
    )
