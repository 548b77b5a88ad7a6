"""The discussion: what a decomposed network costs in time and memory, and what is lost as subsets grow."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn

from modlib import library, masking, metrics
from modlib.data import Dataset
from modlib.modules import Modules
from modlib.recipes import ours
from modlib.study import figures, tables
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.records import Record
from modlib.study.reproduce import Layout
from modlib.study.step_times import InUse, OwnEpochs
from modlib.study.trials import Trial, recipe_label
from modlib.zoo import training


@dataclass(frozen=True)
class Settings:
    """The two decompositions that are looked at, by recipe ours: without and with vote loss."""

    dataset: str
    model: str
    parent_epochs: int
    k: float
    epochs: int
    batch_size: int
    alpha: float
    vote: float
    vote_alpha: float
    seed: int

    def trials(self) -> dict[str, Trial]:
        """Return both as trials, by the name of their recipe."""
        trials = {}
        for vote, alpha in ((0.0, self.alpha), (self.vote, self.vote_alpha)):
            recipe = ours(k=self.k, alpha=alpha, vote=vote, epochs=self.epochs, batch_size=self.batch_size)
            trial = Trial(self.dataset, self.model, "ours", recipe, self.seed, self.parent_epochs)
            trials[recipe_label("ours", vote)] = trial
        return trials


def experiments(
    *,
    dataset: str,
    model: str,
    parent_epochs: int,
    k: float,
    epochs: int,
    batch_size: int,
    alpha: float,
    vote: float,
    vote_alpha: float,
    seed: int,
    module_counts: Sequence[int],
    timed_epochs: int,
    repeats: int,
    images_timed: int,
    **_: Any,
) -> list[Experiment]:
    """Return the trials whose modules the page reads, or trains, with these parameters, and what it times."""
    settings = Settings(dataset, model, parent_epochs, k, epochs, batch_size, alpha, vote, vote_alpha, seed)
    timed = own_epochs(settings, module_counts, timed_epochs), in_use(settings, module_counts, images_timed, repeats)
    return [*(trial.experiment for trial in settings.trials().values()), *(one.experiment for one in timed)]


def own_epochs(settings: Settings, counts: Sequence[int], epochs: int) -> OwnEpochs:
    """Return what is timed of training: without vote loss."""
    return OwnEpochs(settings.trials()["ours"], counts, epochs)


def in_use(settings: Settings, counts: Sequence[int], images: int, repeats: int) -> InUse:
    """Return what is timed of recomposed networks: the same decomposition's."""
    return InUse(settings.trials()["ours"], counts, images, repeats)


@dataclass(frozen=True)
class Passes:
    """The fastest of some passes over the same images, in milliseconds: the parent's, and by the number of modules.

    `recomposing`: all modules, once.
    """

    parent: float
    of_modules: Mapping[int, float]
    recomposing: float

    @classmethod
    def of(cls, record: Record) -> Passes:
        """Return those of a record of `InUse`."""
        single = {row["what"]: row["ms"] for row in record.rows if row["what"] != "modules"}
        of_modules = {row["modules"]: row["ms"] for row in record.rows if row["what"] == "modules"}
        return cls(single["parent"], of_modules, single["recomposing"])


def draw_times(seconds: Mapping[int, float], passes: Passes) -> Figure:
    """Draw seconds per epoch and milliseconds per pass over the number of modules."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.9))
    for ax, taken, label in (
        (left, seconds, "seconds per epoch"),
        (right, passes.of_modules, "milliseconds per pass"),
    ):
        last = max(taken)
        ax.plot([0, last], [0, taken[last]], ls="--", lw=1, color=figures.COLOURS["paper"], label="proportional")
        ax.plot(list(taken), list(taken.values()), marker="o", color=figures.COLOURS["ours"], label="measured")
        ax.set(xlabel="modules", ylabel=label, xlim=(0, None), ylim=(0, None), xticks=list(taken))
    right.axhline(passes.parent, color=figures.COLOURS["parent"], lw=1, label="the parent")
    right.legend(frameon=False)
    return figure


def times(seconds: Mapping[int, float], passes: Passes, of_what: str) -> Markdown:
    """Return the table of times by the number of modules; `of_what`: what was timed, for its caption."""
    rows = [
        {
            "modules": n,
            "seconds per epoch": f"{taken:.3f}",
            "of them per module": f"{taken / n:.3f}",
            "milliseconds per pass": f"{passes.of_modules[n]:.2f}",
            "passes of the parent": f"{passes.of_modules[n] / passes.parent:.1f}",
        }
        for n, taken in seconds.items()
    ]
    return tables.table(pd.DataFrame(rows), f"Time by the number of modules: {of_what}.", "tab-time")


@dataclass(frozen=True)
class Sizes:
    """What a decomposition weighs: the parent's maskable `edges`, and bytes of the parent, all masks and graftings."""

    edges: int
    parent: int
    masks: int
    grafting: int

    @classmethod
    def of(cls, modules: Modules) -> Sizes:
        """Return what modules and their parent weigh."""
        return cls(
            edges=sum(masking.sizes(masking.maskable_parameters(modules.parent)).values()),
            parent=sum(p.numel() * p.element_size() for p in modules.parent.parameters()),
            masks=sum(library.pack(mask).numel() for mask in modules.masks.masks.values()),
            grafting=4 * (modules.grafting_weight.numel() + modules.grafting_bias.numel()),
        )

    def to_ship(self, share: float, number: int, of: int) -> float:
        """Return the bytes of `number` of `of` modules, in the union of which is a share of the edges.

        The union's weights in float32, a bit for every edge to say which, one for each of the union and module; biases,
        and the grafting layers of these modules.
        """
        bits = share * self.edges * 32 + self.edges + share * self.edges * number
        biases = self.parent - 4 * self.edges
        return bits / 8 + biases + self.grafting * number / of


def bytes_to_ship(decompositions: Mapping[str, Modules], sizes: Sizes) -> Markdown:
    """Return the table of what recomposed networks weigh, by decomposition and number of classes."""
    rows = []
    for label, made in decompositions.items():
        every = len(made.classes)
        for n in (n for n in (2, 5, every) if n <= every):
            asked = combinations(made.classes[:8] if n < 8 else made.classes, n)
            share = statistics.mean(made.remaining(subset) for subset in asked)
            weighs = sizes.to_ship(share, n, every)
            rows.append(
                {
                    "decomposition": label,
                    "classes": n,
                    "remaining parameters (%)": f"{100 * share:.2f}",
                    "bytes to ship": f"{weighs:,.0f}",
                    "of the parent's": tables.percent(weighs / sizes.parent, 1),
                }
            )
    caption = (
        "Size of a recomposed network: weights of the union in float32, a map of where they lie, the masks within the "
        "union, grafting layers and biases. Means over subsets of the first eight classes; all classes in the last row "
        "of each."
    )
    return tables.table(pd.DataFrame(rows).drop_duplicates(), caption, "tab-bytes")


def growth(decompositions: Mapping[str, Modules], parent: nn.Module, data: Dataset, seed: int) -> pd.DataFrame:
    """Return a row for every number of classes and who is asked, the parent among them, on test images.

    `accuracy`, and share of the weights `kept`: means over subsets, all of that size or some that `seed` draws.
    """
    images, labels = data.split("test")
    answers = {label: made.log_odds(data.inputs(images)) for label, made in decompositions.items()}
    answers["parent"] = training.logits(parent, data, "test")[0]
    classes, rows = range(data.num_classes), []
    for n, asked in _subsets(data.num_classes, seed):
        for label, log_odds in answers.items():
            right = [metrics.recomposed_accuracy(log_odds, labels, classes, subset) for subset in asked]
            made = decompositions.get(label)
            kept = statistics.mean(made.remaining(subset) for subset in asked) if made else 1.0
            row = {"classes": n, "subsets": len(asked), "who": label, "accuracy": statistics.mean(right), "kept": kept}
            rows.append(row)
    return pd.DataFrame(rows)


def _subsets(num_classes: int, seed: int, most: int = 252) -> Iterator[tuple[int, list[Sequence[int]]]]:
    """Yield every size of a subset from two, and the subsets of that size: all, or `most` of them drawn."""
    choice = torch.Generator().manual_seed(seed)
    for n in range(2, num_classes + 1):
        if num_classes <= 12:
            every = list(combinations(range(num_classes), n))
            yield n, [every[i] for i in torch.randperm(len(every), generator=choice)[:most].tolist()]
        else:
            yield n, [torch.randperm(num_classes, generator=choice)[:n].tolist() for _ in range(most)]


def draw_growth(grown: pd.DataFrame, k: float) -> Figure:
    """Draw the rows of `growth` over the number of classes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.3))
    for label, group in grown.groupby("who", sort=False):
        style = {"marker": "o", "markersize": 3, "color": figures.COLOURS[str(label)]}
        left.plot(group["classes"], 100 * group["accuracy"], label=label, **style)
        if label != "parent":
            right.plot(group["classes"], 100 * group["kept"], **style)
    right.axhline(100 * k, ls=":", color="black", lw=1)
    left.set(xlabel="classes in the subset", ylabel="accuracy (%)")
    right.set(xlabel="classes in the subset", ylabel="remaining parameters (%)", ylim=(0, None))
    figure.legend(frameon=False, ncols=3, loc="outside upper center")
    return figure


def growth_table(grown: pd.DataFrame) -> Markdown:
    """Return the rows of `growth` as a table: a line for every number of classes."""
    lines = []
    for (n, many), group in tables.groups(grown, ["classes", "subsets"]):
        asked = group.to_dict("records")
        line = {"classes": n, "subsets": many} | {f"{one['who']} (%)": f"{100 * one['accuracy']:.2f}" for one in asked}
        kept = {f"remaining, {one['who']} (%)": f"{100 * one['kept']:.2f}" for one in asked if one["who"] != "parent"}
        lines.append(line | kept)
    caption = (
        "Accuracy on test images and remaining parameters of recomposed networks, means over subsets (n = 1 seed)."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-growth")


def answer(
    settings: Settings, seconds: Mapping[int, float], passes: Passes, sizes: Sizes, grown: pd.DataFrame
) -> Markdown:
    """Return the answer in sentences: what the decompositions cost, and how they fare against the parent."""
    few, many = min(seconds), max(seconds)
    wide = grown.pivot(index="classes", columns="who", values="accuracy")
    said = []
    for name in (name for name in grown["who"].unique() if name != "parent"):
        gap = 100 * (wide[name] - wide["parent"])
        said.append(
            f"recipe *{name}* {gap.iloc[0]:+.2f} for two classes and {gap.iloc[-1]:+.2f} for all {gap.index[-1]}"
        )
    return Markdown(
        f"**Answer** ({of_network(settings.dataset, settings.model)}, n = 1 seed). Recomposing takes "
        f"**{passes.recomposing:.0f} ms** and no training. A prediction by {many} modules then takes as long as "
        f"**{passes.of_modules[many] / passes.parent:.1f} passes** of the parent. An epoch of training takes "
        f"{seconds[many] / seconds[few]:.1f} times as long with {many} modules as with {few}. All masks together have "
        f"{tables.percent(sizes.masks / sizes.parent, 0)} of the parent's bytes. In points against the parent: "
        f"{'; '.join(said)}."
    )


def rests_on() -> Markdown:
    """Return on how many trials, and of which sizes, the published Table 1 rests."""
    folder = Layout.here().root / "book" / "results"
    if not (folder / "table1.csv").exists():
        return Markdown("The page on [the paper's Table 1](table1.ipynb) has no published run here.")
    rows = pd.read_csv(folder / "table1.csv")
    runs = json.loads((folder / "table1.json").read_text())["runs"]
    columns: dict[str, list[str]] = {}
    for (dataset, model), column in tables.groups(rows, ["dataset", "model"]):
        sizes = "; ".join(
            f"{recipe}: {part['seed'].nunique()} seeds, {part['epoch'].max()} epochs"
            for recipe, part in column.groupby("recipe")
        )
        columns.setdefault(sizes, []).append(of_network(dataset, model))
    listed = ". ".join(f"{', '.join(names)} ({sizes})" for sizes, names in columns.items())
    devices = "; ".join(sorted({run["device"] for run in runs}))
    return Markdown(
        f"The page on [the paper's Table 1](table1.ipynb) rests on {len(runs)} decompositions, computed on: {devices}. "
        f"{listed}."
    )
