"""Table 3: the training parameters of the parents, and what the printed ones would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import nn

from modlib.data import Dataset
from modlib.study import figures, printed, tables
from modlib.study.names import of_network
from modlib.study.records import Rows, mean_and_spread, percent_of_n
from modlib.zoo import parents, training

PRINTED = {
    "others": {
        "learning rate": "0.01",
        "its schedule": "none",
        "weight decay": "5 × 10⁻¹",
        "momentum (Nesterov)": "0.9",
        "batch size": "64",
        "epochs": "100",
    },
    "cifar100": {
        "learning rate": "0.1",
        "its schedule": "multi step LR decay 0.02 (epoch at 60, 120, 160)",
        "weight decay": "5 × 10⁻¹",
        "momentum (Nesterov)": "0.9",
        "batch size": "256",
        "epochs": "200",
    },
}
"""What the paper's Table 3 prints, by data set."""
PRINTED_FACTOR = 0.02
"""What it prints as the decay of CIFAR-100's rate."""


def _used(settings: training.Parameters) -> dict[str, str]:
    """Return the parameters of a training under the names of Table 3."""
    steps = ", ".join(str(epoch) for epoch in settings.milestones)
    return {
        "learning rate": f"{settings.lr:g}",
        "its schedule": f"times {settings.factor:g} after epochs {steps}" if steps else "none",
        "weight decay": f"{settings.weight_decay:g}",
        "momentum (Nesterov)": f"{settings.momentum:g}",
        "batch size": f"{settings.batch_size}",
        "epochs": f"{settings.epochs}",
    }


def parameters() -> Markdown:
    """Return the table of the parameters as printed, and as used here."""
    ours = {name: _used(settings) for name, settings in training.TABLE_3.items()}
    rows = [
        {
            "parameter": name,
            "printed: MNIST, F-MNIST, CIFAR-10": PRINTED["others"][name],
            "here": ours["others"][name],
            "printed: CIFAR-100": PRINTED["cifar100"][name],
            "here ": ours["cifar100"][name],
        }
        for name in PRINTED["others"]
    ]
    caption = "Training parameters of the parents: Table 3 as printed, and as used here."
    return tables.table(pd.DataFrame(rows), caption, "tab-table3")


@dataclass(frozen=True)
class Settings:
    """The parents that are trained: one for every weight decay and seed."""

    dataset: str
    model: str
    weight_decays: Sequence[float]
    epochs: int
    seeds: Sequence[int]


def train(settings: Settings, data: Dataset) -> pd.DataFrame:
    """Return a row for every parent and epoch: `accuracy` on held-out images, `norm` of the weights (1 at first)."""
    each = [_train(settings, decay, seed, data) for decay in settings.weight_decays for seed in settings.seeds]
    return pd.DataFrame([row for rows in each for row in rows])


def _train(settings: Settings, decay: float, seed: int, data: Dataset) -> Rows:
    parent = parents.make(settings.model, data, seed)
    start, rows = _norm(parent), []

    def look(epoch: int, parent: nn.Module) -> None:
        accuracy = training.accuracy(parent, data, "held_out")
        rows.append({"decay": decay, "seed": seed, "epoch": epoch, "accuracy": accuracy, "norm": _norm(parent) / start})

    recipe = training.table_3(settings.dataset, weight_decay=decay)
    training.train(parent, data, seed=seed, epochs=settings.epochs, parameters=recipe, callback=look)
    return rows


def _norm(parent: nn.Module) -> float:
    """Return the Euclidean norm of all weights, biases aside."""
    squares = (float(p.detach().square().sum()) for n, p in parent.named_parameters() if n.endswith("weight"))
    return math.sqrt(sum(squares))


def chance(data: Dataset) -> float:
    """Return the accuracy on held-out images of always answering the most frequent class."""
    _, labels = data.split("held_out")
    return float(torch.bincount(labels).max()) / len(labels)


def draw_training(settings: Settings, curve: pd.DataFrame, guessing: float) -> Figure:
    """Draw the rows of `train` over the epochs, one curve for each decay; `guessing`: of `chance`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.4))
    shown = curve.assign(percent=100 * curve["accuracy"])
    style = {"x": "epoch", "hue": "decay", "palette": figures.palette(settings.weight_decays), "errorbar": "sd"}
    for ax, quantity in ((left, "percent"), (right, "norm")):
        sns.lineplot(shown, y=quantity, ax=ax, legend=ax is left, **style)
    left.axhline(100 * guessing, ls=":", color="black", lw=1)
    left.set(ylabel="held-out accuracy (%)", ylim=(0, 102))
    right.set(ylabel="norm of the weights", yscale="log")
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    right.yaxis.set_minor_formatter("{x:g}")
    handles, _ = left.get_legend_handles_labels()
    names = [f"{decay:g}" for decay in settings.weight_decays]
    left.get_legend().remove()
    figure.legend(handles, names, title="weight decay", frameon=False, ncols=len(names), loc="outside upper center")
    return figure


def steps_to_half(decay: float, parameters: training.Parameters) -> float:
    """Return the steps until half of a weight is gone that only the decay moves, by SGD with Nesterov momentum."""
    if not decay:
        return math.inf
    weight, velocity, steps = 1.0, 0.0, 0
    while weight > 0.5:
        gradient = decay * weight
        velocity = parameters.momentum * velocity + gradient
        weight -= parameters.lr * (gradient + parameters.momentum * velocity)
        steps += 1
    return steps


def last_epoch(settings: Settings, curve: pd.DataFrame) -> Markdown:
    """Return the table of the parents after their last epoch."""
    recipe = training.table_3(settings.dataset)
    rows = [
        {
            "weight decay": f"{decay:g}",
            "held-out accuracy (%)": mean_and_spread(group["accuracy"]),
            "norm of the weights (start = 1)": mean_and_spread(group["norm"], 1, 4),
            "n": len(group),
            "steps to half a weight": steps_to_half(float(decay), recipe),
        }
        for decay, group in tables.groups(curve[curve["epoch"] == settings.epochs], "decay")
    ]
    caption = "Parents after the last epoch, by weight decay: mean ± standard deviation over n seeds."
    return tables.table(pd.DataFrame(rows), caption, "tab-weight-decay")


def schedules() -> dict[str, list[float]]:
    """Return CIFAR-100's rate in every epoch, by torch's scheduler, for both readings of the printed factor."""
    recipe = training.TABLE_3["cifar100"]
    return {f"times {factor:g}": _rates(recipe, factor) for factor in (recipe.factor, PRINTED_FACTOR)}


def _rates(recipe: training.Parameters, factor: float) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(recipe.milestones), factor)
    rates = []
    for _ in range(recipe.epochs):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return rates


def draw_schedules(rates: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the rates of `schedules` over the epochs."""
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.6))
    for (label, values), colour, style in zip(rates.items(), ("ours", "paper"), ("-", "--"), strict=True):
        epochs = range(1, len(values) + 1)
        ax.step(epochs, values, where="post", color=figures.COLOURS[colour], ls=style, label=label)
    ax.axhline(PRINTED_FACTOR, color="black", lw=0.8, ls=":")
    ax.text(training.TABLE_3["cifar100"].epochs, 0.024, f"{PRINTED_FACTOR:g}", ha="right", fontsize=8)
    ax.set(xlabel="epoch", ylabel="learning rate", yscale="log")
    ax.legend(frameon=False, loc="lower left")
    return figure


def answer(settings: Settings, curve: pd.DataFrame, guessing: float) -> Markdown:
    """Return the answer in sentences: what the largest decay does, beside the smallest."""
    small, large = min(settings.weight_decays), max(settings.weight_decays)
    last = curve[curve["epoch"] == settings.epochs]
    with_small, with_large = (last[last["decay"] == decay]["accuracy"] for decay in (small, large))
    norm = last[last["decay"] == large]["norm"].mean()
    return Markdown(
        f"**Answer** ({of_network(settings.dataset, settings.model)}, held-out images, {settings.epochs} epochs). With "
        f"weight decay {large:g} the parents are right on **{percent_of_n(with_large)}**, with {small:g} on "
        f"**{percent_of_n(with_small)}**; guessing gives {tables.percent(guessing, 1)}. Under the large decay the "
        f"weights shrink to {norm:.2g} times their first "
        f"norm.{_beside_paper(settings, large, 100 * float(with_large.mean()))}"
    )


def _beside_paper(settings: Settings, decay: float, percent: float) -> str:
    """Return a sentence on a parent's accuracy beside the paper's modules, where it has some of such a parent."""
    column = printed.table1_column(settings.dataset, settings.model)
    column = column[column["method"] == printed.STEMMING]
    if column.empty:
        return ""
    theirs = column["accuracy_percent"].item()
    return (
        f" The paper prints {theirs:.2f}% for its modules of such a parent, {theirs - percent:+.1f} points against "
        f"what our parent with decay {decay:g} gets itself."
    )
