"""The grafting layer: single-class classifiers with and without it, and how their right answers differ in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from modlib.data import Dataset
from modlib.modules import Modules
from modlib.study import example, figures, tables
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.single_class import masked_logits
from modlib.study.trials import Trial
from modlib.zoo import training

PARENT, MODULE, RANDOM = "parent", "module", "module, random start"
BARE, CONTROL = "masked, no grafting layer", "parent with grafting layer"
"""The classifiers that are asked."""
COLOURS = {BARE: "paper", PARENT: "parent", MODULE: "ours", CONTROL: "published"}
"""Those that are drawn, and the names of their colours."""
PAIRS = ((MODULE, PARENT), (RANDOM, PARENT), (MODULE, BARE), (CONTROL, PARENT))
"""What is compared with what."""
MINE, OF_CONTROL = (MODULE, PARENT), (CONTROL, PARENT)


def trials(**parameters: Any) -> list[Trial]:
    """Return the decompositions of the page: each of the two starts, and the control, whose masks keep every edge."""
    changes: list[dict[str, Any]] = [{}, {"grafting_init": "random"}, {"k": 1.0, "alpha": 0.0}]
    return [example.trial(**parameters | change) for change in changes]


def experiments(**parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes."""
    return [trial.experiment for trial in trials(**parameters)]


def log_odds_weights(modules: Modules) -> Tensor:
    """Return the weight of each of the parent's logits in each module's log-odds, row 1 minus row 0: [C, N]."""
    return modules.grafting_weight[:, 1] - modules.grafting_weight[:, 0]


def draw_weights(starts: Mapping[str, Modules]) -> Figure:
    """Draw what the grafting layers learn, by how they started."""
    weights = {name: log_odds_weights(modules) for name, modules in starts.items()}
    largest = max(float(of_start.abs().max()) for of_start in weights.values())
    scale = {"cmap": "vlag", "vmin": -largest, "vmax": largest}
    figure, axes = plt.subplots(1, len(starts), figsize=(figures.WIDTH, 3.7), sharey=True)
    for ax, (name, modules) in zip(axes, starts.items(), strict=True):
        figures.matrix(weights[name], modules.classes, ax, f"start: {name}", fmt=".1f", **scale)
        ax.set(xlabel="logit of the parent", ylabel="module" if ax is axes[0] else "")
    return figure


@dataclass(frozen=True)
class Difference:
    """A mean difference and its standard error, in points."""

    points: float
    error: float

    @property
    def verdict(self) -> str:
        """One is called a difference from two standard errors on."""
        if abs(self.points) <= 2 * self.error:
            return "no difference"
        return "better" if self.points > 0 else "worse"

    def __str__(self) -> str:
        return f"{self.points:+.2f} ± {self.error:.2f}"


@dataclass(frozen=True)
class Answers:
    """What each classifier says to "is it class c?" on one split, bool [B, C] by name, and whether it is so."""

    split: str
    said: Mapping[str, Tensor]
    truth: Tensor

    @classmethod
    def of(cls, modules: Modules, random: Modules, control: Modules, data: Dataset, split: str) -> Answers:
        """Ask the parent, the masked parent without grafting layer, and the three decompositions."""
        images, labels = data.split(split)
        inputs = data.inputs(images)
        classes = torch.tensor(modules.classes)
        bare = torch.stack(masked_logits(modules, inputs), dim=1)  # of each module's masked parent, [B, C, N]
        said = {
            PARENT: training.logits(modules.parent, data, split)[0].argmax(1)[:, None] == classes,
            BARE: bare.argmax(2) == classes,
            MODULE: modules.log_odds(inputs) > 0,
            RANDOM: random.log_odds(inputs) > 0,
            CONTROL: control.log_odds(inputs) > 0,
        }
        return cls(split, said, labels[:, None] == classes)

    @property
    def name(self) -> str:
        """The split's name, for a table."""
        return self.split.replace("_", "-")

    def right(self, name: str) -> Tensor:
        """Return whether a classifier is right: bool [B, C]."""
        return self.said[name] == self.truth

    def compared(self, name: str, other: str) -> Difference:
        """Return the mean difference in right answers between two classifiers over the images, which are paired."""
        difference = self.right(name).double().mean(1) - self.right(other).double().mean(1)
        error = float(difference.std() / len(difference) ** 0.5)
        return Difference(100 * float(difference.mean()), 100 * error)

    def errors(self) -> list[dict[str, Any]]:
        """Return the rows of the table of single-class classification, means over the classes."""
        rows = []
        for name, yes in self.said.items():
            missed = float((~yes & self.truth).sum(0).div(self.truth.sum(0)).mean())
            claimed = float((yes & ~self.truth).sum(0).div((~self.truth).sum(0)).mean())
            shares = {
                "all images right": float(self.right(name).double().mean()),
                "missed": missed,
                "claimed": claimed,
                "balanced": 1 - (missed + claimed) / 2,
            }
            shown = {quantity: tables.percent(share) for quantity, share in shares.items()}
            rows.append({"classifier": name} | shown)
        return rows


def errors_table(answers: Answers) -> Markdown:
    """Return how often each classifier is right, misses and claims."""
    return tables.table(
        pd.DataFrame(answers.errors()),
        f"Single-class classification, mean over the {answers.truth.shape[1]} classes, {len(answers.truth):,} "
        f"{answers.name} images (n = 1 seed). Missed: of the images of the class. Claimed: of the images of others. "
        "Balanced: accuracy where both kinds count the same.",
        "tab-single-class",
    )


def draw_errors(answers: Answers) -> Figure:
    """Draw the errors of single-class classification: means over the classes, and by class."""
    errors = pd.DataFrame(
        {"class": c, "classifier": name, "error": 100 * float((~answers.right(name))[:, c].double().mean())}
        for name in COLOURS
        for c in range(answers.truth.shape[1])
    )
    colours = {name: figures.COLOURS[colour] for name, colour in COLOURS.items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.4), width_ratios=[1, 4])
    means = errors.groupby("classifier", sort=False)["error"].mean()
    left.bar(range(len(means)), means, color=list(colours.values()))
    left.set(ylabel="error (% of all images)", xlabel="mean", xticks=[])
    del colours[BARE]  # its errors are many: by class, the others' dots would lie on one line
    _draw_by_class(right, errors[errors["classifier"] != BARE], colours)
    right.set(ylabel="", ylim=(-0.02 * errors["error"].max(), None))
    handles = [
        plt.Line2D([], [], marker="s", linestyle="", color=figures.COLOURS[colour], markersize=7)
        for colour in COLOURS.values()
    ]
    figure.legend(handles, list(COLOURS), loc="outside upper center", ncols=2, frameon=False)
    return figure


def _draw_by_class(ax: Axes, errors: pd.DataFrame, colours: Mapping[str, str]) -> None:
    sns.stripplot(
        errors,
        x="class",
        y="error",
        hue="classifier",
        hue_order=list(colours),
        palette=list(colours.values()),
        dodge=True,
        jitter=False,
        size=6,
        ax=ax,
        legend=False,
    )


def differences_table(*splits: Answers) -> Markdown:
    """Return the paired differences and what they are called, by split."""
    rows = []
    for name, other in PAIRS:
        row = {"classifier": name, "against": other}
        for answers in splits:
            difference = answers.compared(name, other)
            row[answers.name] = f"{difference}: {difference.verdict}"
        rows.append(row)
    return tables.table(
        pd.DataFrame(rows),
        "Right answers, in points against another classifier (+ is better), ± one standard error over the images (n = "
        "1 seed).",
        "tab-paired",
    )


def answer(trial: Trial, test: Answers, held_out: Answers) -> Markdown:
    """Judge the paper's claim that a module outperforms its parent; `trial`: that of the module."""
    here, there, alone = (of.compared(*pair) for of, pair in ((test, MINE), (held_out, MINE), (test, OF_CONTROL)))
    said = {"better": "Yes, in this run", "worse": "Not in this run", "no difference": "This run does not settle it"}
    settled = here.verdict if here.verdict == there.verdict else "no difference"
    mine, parents = (test.right(name).sum(0) for name in MINE)
    assert isinstance(trial.recipe.k, float)  # a page's parameter, one for all layers
    return Markdown(
        f"**Answer.** {said[settled]} ({of_network(trial.dataset, trial.model)}, n = 1 seed, {len(test.truth):,} test "
        f"images). With {tables.percent(trial.recipe.k, 0)} of the edges a module has {here} points against its "
        f"parent; it is more accurate for {int((mine > parents).sum())} of {len(mine)} classes. A grafting layer on "
        f"the whole parent, without any mask, has {alone} points."
    )
