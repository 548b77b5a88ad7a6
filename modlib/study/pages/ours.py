"""Which lever of recipe ours does what: one change at a time, single modules, and a calibrated vote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from modlib import checks, metrics, recipes
from modlib.data import Dataset
from modlib.study import columns as shared
from modlib.study import figures, tables
from modlib.study.columns import Load, held_out_and_test, last_layer, named, votes
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Store, against_parent, frame, interval, mean_and_spread, signed
from modlib.study.trials import Trial, differences, last_epochs, run_trials, run_variants, variants
from modlib.zoo.datasets import load as load_images

BASE, WITHOUT = "ours, with vote loss", "without vote loss (and a quarter of α)"
"""The recipe that the others change, and the one whose single modules and vote are shown beside it."""


@dataclass(frozen=True)
class Column(shared.Column):
    """A network of the page, the stemming of our recipe on it, and the number of trials of each change."""

    alpha: float
    trials: int

    def __post_init__(self) -> None:
        checks.whole("trials", self.trials, 1)


@dataclass(frozen=True)
class Levers:
    """What came out on one network: its trials by the name of the change, and the last epoch of each.

    `grid`: the trials of all v and alpha, after their last epoch, on held-out images.
    """

    column: Column
    data: Dataset
    store: Store
    trials: dict[str, list[Trial]]
    done: list[Record]
    last: pd.DataFrame
    grid: pd.DataFrame

    @property
    def name(self) -> str:
        """How tables and figures call the network."""
        return self.column.name

    @property
    def names(self) -> list[str]:
        """The changes, the base first; without those that failed in every trial."""
        return list(dict.fromkeys(self.last["variant"]))

    def of(self, change: str) -> pd.DataFrame:
        """Return the last epoch of a change's trials on test images."""
        return self.last[self.last["variant"] == change].sort_values("seed")

    def change(self, quantity: str) -> pd.DataFrame:
        """Return, by change and seed, a quantity minus that of the base under the same seed."""
        return differences(self.last, BASE, quantity)

    @cached_property
    def answers(self) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """The log-odds of each trial's modules on held-out and test images, with and without vote loss."""
        return {
            change: [held_out_and_test(trial, self.data, self.store) for trial in self.trials[change]]
            for change in (BASE, WITHOUT)
        }

    @cached_property
    def single(self) -> dict[str, pd.DataFrame]:
        """Accuracy of single modules, with and without vote loss: one row for each trial, a mean over its modules.

        `all`: all test images; `own`, `other`: balanced sets of the module's own class, and of the others.
        """
        found, classes = {}, tuple(range(self.data.num_classes))
        for change, answers in self.answers.items():
            rows = []
            for trial, (_, test) in zip(self.trials[change], answers, strict=True):
                table = metrics.balanced_accuracies(test, self.data.test_labels, classes, trial.seed)
                own, other = float(table.diagonal().mean()), float(metrics.off_diagonal(table).mean())
                rows.append({"own": own, "other": other})
            found[change] = pd.DataFrame(rows).assign(all=self.of(change)["module_accuracy"].to_numpy())
        return found

    @cached_property
    def votes(self) -> dict[str, pd.DataFrame]:
        """Accuracy of the vote, `plain` and `calibrated`, and its `gain`: one row for each trial."""
        return {change: votes(answers, self.data) for change, answers in self.answers.items()}


def trials_of(
    column: Column,
    *,
    k: float,
    parent_epochs: int,
    short_parent_epochs: int,
    epochs: int,
    vote: float,
    output_k: float,
    **_: Any,
) -> dict[str, list[Trial]]:
    """Return the trials of our recipe with vote loss, and of one change at a time, by the name of the change."""
    recipe = recipes.ours(k=k, alpha=column.alpha, vote=vote, epochs=epochs)
    changes: dict[str, dict[str, Any]] = {
        BASE: {},
        WITHOUT: {"vote": 0.0, "alpha": column.alpha / 4},
        "without stemming": {"alpha": 0.0},
        "constant rates": {"schedule": "constant"},
        "random grafting layers": {"grafting_init": "random"},
        "initial scores by magnitude": {"init": "magnitude"},
        "half the epochs": {"epochs": epochs // 2},
        "twice the epochs": {"epochs": 2 * epochs},
        f"output layer at {output_k:.0%}": {"k": {"default": k, last_layer(column.model): output_k}},
        f"parents of {short_parent_epochs} epochs": {"parent_epochs": short_parent_epochs},
    }
    base = Trial(column.dataset, column.model, "ours", recipe, 0, parent_epochs)
    return variants(base, changes, range(column.trials))


def grid_of(
    column: Column,
    *,
    votes: Sequence[float],
    alphas: Sequence[float],
    grid_trials: int,
    k: float,
    parent_epochs: int,
    epochs: int,
    **_: Any,
) -> list[Trial]:
    """Return the trials of our recipe under every combination of v and alpha."""
    settings = [
        recipes.ours(k=k, alpha=float(alpha), vote=float(vote), epochs=epochs) for vote in votes for alpha in alphas
    ]
    return [
        Trial(column.dataset, column.model, "ours", recipe, seed, parent_epochs)
        for seed in range(grid_trials)
        for recipe in settings
    ]


def run(
    store: Store, load: Load = load_images, *, columns: Sequence[Mapping[str, Any]], **settings: Any
) -> list[Levers]:
    """Return what came out on every network; `settings`: see `trials_of` and `grid_of`."""
    found = []
    for column in named("columns", columns, Column):
        data, trials = load(column.dataset), trials_of(column, **settings)
        done, rows = run_variants(trials, data, store)
        grid = run_trials(grid_of(column, **settings), data, store, keep_modules=False)
        held_out = last_epochs(frame(grid), "held_out")
        found.append(Levers(column, data, store, trials, done + grid, last_epochs(rows, by=["variant"]), held_out))
    return found


def experiments(*, columns: Sequence[Mapping[str, Any]], **settings: Any) -> list[Experiment]:
    """Return every experiment of the page; parameters as the page has them."""
    found: list[Trial] = []
    for column in named("columns", columns, Column):
        found += [trial for part in trials_of(column, **settings).values() for trial in part]
        found += grid_of(column, **settings)
    return [trial.experiment for trial in found]


def one_at_a_time(found: Sequence[Levers], epochs: int) -> Markdown:
    """Return the table of all changes, paired with the base; `epochs`: of the base."""
    lines = []
    for one in found:
        change = one.change("accuracy")
        for name in one.names:
            rows = one.of(name)
            gap = against_parent(rows)
            lines.append(
                {
                    "network": one.name,
                    "what": name,
                    "accuracy of the vote (%)": mean_and_spread(rows["accuracy"]),
                    "against the base (points)": "" if name == BASE else signed(100 * change[name].dropna()),
                    "against the parent (points)": f"{gap.mean():+.2f}",
                    "Jaccard index": mean_and_spread(rows["jaccard_index"], 1, 3),
                    "pairs (%)": mean_and_spread(rows["pair_accuracy"]),
                    "n": len(rows),
                }
            )
    caption = (
        f"Recipe ours with vote loss (α = {', '.join(str(one.column.alpha) for one in found)}; {epochs} epochs) and "
        "one change at a time: last epoch, test images, mean ± standard deviation over n trials."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-ours")


def draw_changes(found: Sequence[Levers]) -> Figure:
    """Draw the change of accuracy and of the Jaccard index, a row for each change, one point a trial."""
    changes = found[0].names[1:]
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 0.2 * (len(changes) + 1) + 0.8), sharey=True)
    shown = (("accuracy", 100, "accuracy, change (points)"), ("jaccard_index", 1, "Jaccard index, change"))
    for ax, (quantity, scale, label) in zip(axes, shown, strict=True):
        for i, one in enumerate(found):
            change = scale * one.change(quantity)
            for y, name in enumerate(changes):
                at, colour = [y + 0.22 * i] * len(change), figures.NETWORKS[i % len(figures.NETWORKS)]
                ax.scatter(change[name], at, color=colour, s=16, alpha=0.8, label=one.name if y == 0 else None)
        ax.axvline(0, color="black", lw=1)
        ax.set(xlabel=label, yticks=range(len(changes)), yticklabels=changes)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside upper center")
    return figure


def grid_table(found: Sequence[Levers]) -> Markdown:
    """Return the table of v and alpha: held-out accuracy and Jaccard index, means over trials."""
    lines = []
    for one in found:
        for vote, rows in tables.groups(one.grid, "vote"):
            line = {"network": one.name, "v": f"{vote:g}"}
            for alpha, trials in tables.groups(rows, "alpha"):
                index = trials["jaccard_index"].mean()
                line[f"α = {alpha:g}"] = f"{100 * trials['accuracy'].mean():.2f} (J {index:.2f})"
            lines.append(line)
    caption = (
        "Our recipe under every v (weight of the vote loss) and α: accuracy of the vote on *held-out* images (%), and "
        f"the Jaccard index of the masks; means over n = {found[0].grid['seed'].nunique()} trials."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-ours-grid")


def grid_said(found: Sequence[Levers], vote: float) -> Markdown:
    """Return how far the recipe's own setting is from the best of the grid, on every network."""
    said = []
    for one in found:
        settings = one.grid.groupby(["vote", "alpha"], as_index=False)["accuracy"].agg(["mean", "std"])
        best = settings.sort_values("mean").iloc[-1]
        own = settings[settings["vote"] == vote]["mean"].max()
        said.append(
            f"On {one.name} the most accurate of {len(settings)} settings is v = {best['vote']:g}, "
            f"α = {best['alpha']:g} ({100 * best['mean']:.2f}%); v = {vote:g} gives {100 * own:.2f}% at its best α."
        )
        if settings["std"].notna().any():
            spread = 100 * settings["std"].mean()
            said.append(f"Trials of one setting differ by a standard deviation of {spread:.2f} points.")
    return Markdown(" ".join(said))


def single_modules(found: Sequence[Levers]) -> Markdown:
    """Return the table of single modules, with and without vote loss."""
    lines = [
        {
            "network": one.name,
            "what": change,
            "all test images (Table 5, %)": mean_and_spread(rows["all"]),
            "own class, balanced (Table 6, %)": mean_and_spread(rows["own"]),
            "other classes, balanced (%)": mean_and_spread(rows["other"]),
            "n": len(rows),
        }
        for one in found
        for change, rows in one.single.items()
    ]
    caption = "Single modules, means over the modules of a trial, test images."
    return tables.table(pd.DataFrame(lines), caption, "tab-ours-single")


def calibration(found: Sequence[Levers]) -> Markdown:
    """Return the table of the vote before and after calibration, with and without vote loss."""
    lines = [
        {
            "network": one.name,
            "what": change,
            "vote (%)": mean_and_spread(rows["plain"]),
            "calibrated vote (%)": mean_and_spread(rows["calibrated"]),
            "difference (points)": mean_and_spread(rows["gain"]),
            "n": len(rows),
        }
        for one in found
        for change, rows in one.votes.items()
    ]
    caption = "The vote of all modules before and after calibration on held-out images."
    return tables.table(pd.DataFrame(lines), caption, "tab-ours-calibration")


def answer(found: Sequence[Levers]) -> Markdown:
    """Return the answer in sentences: the changes that are clear on each network, and what the vote loss costs."""
    said = "\n".join(_said(one) for one in found)
    lost = 100 * pd.concat([one.single[WITHOUT]["all"] - one.single[BASE]["all"] for one in found])
    own = " and ".join(
        f"{100 * (one.single[WITHOUT]['own'] - one.single[BASE]['own']).mean():.1f} ({one.name})" for one in found
    )
    gains = 100 * pd.concat([rows["gain"] for one in found for rows in one.votes.values()])
    return Markdown(
        "**Answer.** Changing one thing changes the accuracy of the vote by so many points on test images (means; only "
        f"where the 95% interval of paired trials leaves out zero):\n\n{said}\n\nThe vote loss costs "
        f"a module alone {mean_and_spread(lost, 1)} points on all images (n = {len(lost)}), where most answers are no; "
        f"on the balanced set of its own class {own}. Calibrating the vote changes its accuracy "
        f"by {gains.mean():+.2f} points."
    )


def _said(one: Levers) -> str:
    change = 100 * one.change("accuracy").drop(columns=BASE)
    mean = change.mean()
    intervals = {name: interval(change[name].dropna()) for name in change}
    clear = mean[[low > 0 or high < 0 for low, high in intervals.values()]].sort_values()
    listed = ", ".join(f"{name} **{value:+.2f}**" for name, value in clear.items()) or "none is clear"
    unchanged = mean_and_spread(one.of(BASE)["accuracy"])
    return (
        f"- **{one.name}** (α = {one.column.alpha:g}, n = {len(change)}; unchanged {unchanged}%): {listed}; "
        f"{len(mean) - len(clear)} unclear."
    )
