"""The frontier: settings tried for small unions, the control of the same size, and every subset of the chosen ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modlib import metrics, recipes
from modlib.data import Dataset
from modlib.modules import Modules
from modlib.study import comparison, figures, records, tables
from modlib.study.columns import Column, Listing, Load, last_layer, listing, named, stand_in
from modlib.study.experiment import Experiment
from modlib.study.pages import frontier_one_pass
from modlib.study.pages.frontier_one_pass import Hybrid
from modlib.study.records import Record, Store, against_parent, mean_and_spread
from modlib.study.trials import SPLITS, Trial, last_epochs, run_variants, trained_parent, trial_modules
from modlib.zoo import training
from modlib.zoo.datasets import load as load_images

CONTROL = "shared mask, as large as the union"
"""Its masks start from magnitudes, as the trials' do, and keep as much of every layer as the union."""


@dataclass(frozen=True)
class Goals(Column):
    """A network, and the share of the weights that the union of all classes, and of two (mean over pairs), may hold."""

    all_classes: float
    pairs: float


@dataclass(frozen=True)
class Setting(Column):
    """A setting to try on a network: shares kept, stemming, epochs, and the rate of the scores where it is not 0.1."""

    hidden: float
    output: float
    alpha: float
    epochs: int
    rate: float | None = None

    @property
    def key(self) -> str:
        """What tells it from the other settings."""
        rate = [] if self.rate is None else [f"{self.rate:g}"]
        return " ".join([self.name, *(f"{v:g}" for v in (self.hidden, self.output, self.alpha, self.epochs)), *rate])

    @property
    def words(self) -> str:
        """The setting in the words of the table."""
        rate = "" if self.rate is None else f", rate {self.rate:g}"
        return f"{self.hidden:.1%} / {self.output:.0%}, α = {self.alpha:g}, {self.epochs} epochs{rate}"


@dataclass(frozen=True)
class Plan:
    """What the page asks for, from its parameters."""

    goals: list[Goals]
    settings: list[Setting]
    seeds: Sequence[int]
    finalists: int
    rates: Sequence[float]
    shares: Sequence[float]
    parent_epochs: int
    vote: float
    init: str
    hybrids: list[Hybrid]
    hybrid_union: float

    @classmethod
    def of(
        cls,
        *,
        columns: Sequence[Mapping[str, Any]],
        settings: Sequence[Mapping[str, Any]],
        seeds: Sequence[int],
        finalists: int,
        rates: Sequence[float],
        shares: Sequence[float],
        parent_epochs: int,
        vote: float,
        init: str,
        hybrids: Sequence[Mapping[str, Any]],
        hybrid_union: float,
        **_: Any,
    ) -> Plan:
        """Return the plan of the page's parameters."""
        goals, asked = named("columns", columns, Goals), named("settings", settings, Setting)
        united = named("hybrids", hybrids, Hybrid)
        return cls(goals, asked, seeds, finalists, rates, shares, parent_epochs, vote, init, united, hybrid_union)

    def settings_of(self, column: Column) -> list[Setting]:
        """Return the settings of a network; raise ValueError where there is none."""
        found = [setting for setting in self.settings if setting.name == column.name]
        if not found:
            raise ValueError(f"settings: none is of {column.name}, which is among the columns")
        return found

    def trials(self, some: Sequence[Setting], seeds: Sequence[int]) -> dict[str, list[Trial]]:
        """Return the trials of some settings with some seeds, by the key of the setting."""
        return {setting.key: [self.trial(setting, seed) for seed in seeds] for setting in some}

    def trial(self, setting: Setting, seed: int) -> Trial:
        """Return the trial of one setting and seed."""
        shares = {"default": setting.hidden, last_layer(setting.model): setting.output}
        own = {"k": shares, "alpha": setting.alpha, "epochs": setting.epochs}
        recipe = recipes.ours(**own, vote=self.vote, init=self.init)
        recipe = recipe if setting.rate is None else replace(recipe, lr=setting.rate)
        return Trial(setting.dataset, setting.model, "ours", recipe, seed, self.parent_epochs)

    def ranked(self, some: Sequence[Setting], rows: pd.DataFrame, most: float) -> list[Setting]:
        """Return some settings by accuracy on held-out images, the best first.

        Of those whose union holds at most a share `most` of the weights; of all, where none is as small.
        """
        by_key = {setting.key: setting for setting in some}
        measured = rows[(rows["split"] == "held_out") & rows["variant"].isin(list(by_key))]
        means = measured.groupby("variant").mean(numeric_only=True)
        small = means["remaining_parameters_all"] <= most
        best = (means[small] if small.any() else means).sort_values("accuracy", ascending=False)
        return [by_key[str(key)] for key in best.index]


@dataclass(frozen=True)
class Search:
    """What was found for one network: its trials, the setting chosen, and the control of the same size."""

    goals: Goals
    data: Dataset
    done: list[Record]
    last: pd.DataFrame
    """The last epoch of every trial, on both splits; `variant`: the key of the setting."""
    settings: dict[str, Setting]
    chosen: Setting
    trials: list[Trial]
    """Of the chosen setting."""
    controls: list[Record]
    shared: pd.DataFrame
    """The control with the chosen rate, test images."""
    strong: pd.DataFrame
    """One mask of several shares of all weights, each with its best rate, test images; see `comparison.STRONG`."""

    @property
    def name(self) -> str:
        """How tables and figures call the network."""
        return self.goals.name

    @property
    def test(self) -> pd.DataFrame:
        """The last epoch of every trial, on test images."""
        return self.last[self.last["split"] == "test"]


def run(store: Store, load: Load = load_images, **parameters: Any) -> list[Search]:
    """Return what was found for every network; parameters as the page has them."""
    plan = Plan.of(**parameters)
    return [_search(plan, goals, load(goals.dataset), store) for goals in plan.goals]


def experiments(*, results: str = "", **parameters: Any) -> list[Experiment]:
    """Return every experiment of the page, as far as it can be told: what is run next depends on what came out.

    The first seed's trials choose the finalists, these the setting of the controls. `parameters`: see `run`.
    """
    plan, asked = Plan.of(**parameters), listing(results)
    found = []
    for goals in plan.goals:
        some, data = plan.settings_of(goals), stand_in(goals.dataset)
        first = _experiments(plan.trials(some, plan.seeds[:1]))
        found += first
        if not all(one.is_done(asked) for one in first):
            continue
        _, rows = _last(plan.trials(some, plan.seeds[:1]), data, asked)
        others = _experiments(plan.trials(_finalists(plan, goals, rows), plan.seeds[1:]))
        found += others
        if all(one.is_done(asked) for one in others):
            asked.asked.clear()
            one = _search(plan, goals, data, asked)
            controls = [e for e in asked.asked if e.kind == "controls"]
            found += controls
            if all(e.is_done(asked) for e in controls):
                found += _listed_in_one_pass(plan, one, asked)
    return found


def in_one_pass(found: Sequence[Search], store: Store, **parameters: Any) -> list[frontier_one_pass.Found]:
    """Return what one pass can do, of every network for which a hybrid is asked; parameters as the page has them."""
    asked = (_asked_in_one_pass(Plan.of(**parameters), one, store) for one in found)
    return [frontier_one_pass.run(one) for one in asked if one.hybrids]


def _asked_in_one_pass(plan: Plan, one: Search, store: Store) -> frontier_one_pass.Asked:
    setup = comparison.Setup(one.data, store, one.chosen.model, plan.parent_epochs, one.trials[0].recipe, ())
    hybrids = [hybrid for hybrid in plan.hybrids if hybrid.name == one.name]
    rate = float(one.shared["lr"].iloc[0])
    return frontier_one_pass.Asked(one.name, setup, hybrids, plan.hybrid_union, rate, plan.seeds)


def _listed_in_one_pass(plan: Plan, one: Search, store: Listing) -> list[Experiment]:
    asked = _asked_in_one_pass(plan, one, store)
    return frontier_one_pass.listed(asked, store) if asked.hybrids else []


def _experiments(trials: Mapping[str, Sequence[Trial]]) -> list[Experiment]:
    return [trial.experiment for part in trials.values() for trial in part]


def _last(trials: Mapping[str, Sequence[Trial]], data: Dataset, store: Store) -> tuple[list[Record], pd.DataFrame]:
    """Return the records of trials, and the last epoch of each on both splits."""
    done, rows = run_variants(trials, data, store)
    return done, pd.concat([last_epochs(rows, split, by=["variant"]) for split in SPLITS])


def _finalists(plan: Plan, goals: Goals, rows: pd.DataFrame) -> list[Setting]:
    return plan.ranked(plan.settings_of(goals), rows, goals.all_classes)[: plan.finalists]


def _search(plan: Plan, goals: Goals, data: Dataset, store: Store) -> Search:
    """Try every setting with the first seed and the finalists with the others; choose; run the control as large."""
    some = plan.settings_of(goals)
    done, rows = _last(plan.trials(some, plan.seeds[:1]), data, store)
    finalists = _finalists(plan, goals, rows)
    if plan.seeds[1:]:
        others, more = _last(plan.trials(finalists, plan.seeds[1:]), data, store)
        done, rows = done + others, pd.concat([rows, more])
    chosen = plan.ranked(finalists, rows, goals.all_classes)[0]
    trials = [plan.trial(chosen, seed) for seed in plan.seeds]
    setup = comparison.Setup(data, store, chosen.model, plan.parent_epochs, trials[0].recipe, ())
    controls, shared = _tuned(plan, CONTROL, setup)
    settings = {setting.key: setting for setting in some}
    parts = []
    for share in plan.shares:
        own = replace(setup, recipe=replace(trials[0].recipe, k=share))
        others, rows_of_share = _tuned(plan, comparison.STRONG, own)
        controls += others
        parts.append(rows_of_share)
    strong = pd.concat(parts) if parts else shared[:0]
    return Search(goals, data, done, rows, settings, chosen, trials, controls, shared, strong)


def _tuned(plan: Plan, control: str, setup: comparison.Setup) -> tuple[list[Record], pd.DataFrame]:
    """Run a control with every rate and the first seed, with the best rate also with the others.

    Return all records, and the rows of the best rate on test images.
    """
    tried = [comparison.run(control, setup, {"lr": rate}, plan.seeds[0]) for rate in plan.rates]
    best = comparison.best_of([record.rows for record in tried])
    rest = [comparison.run(control, setup, {"lr": plan.rates[best]}, seed) for seed in plan.seeds[1:]]
    rows = records.frame([tried[best], *rest])
    return [*tried, *rest], rows[rows["split"] == "test"]


def near(behind: float) -> str:
    """Return the goal for the accuracy of all classes, in words; `behind`: a fraction."""
    return f"within {100 * behind:.1f} points of the parent"


def settings_tried(found: Sequence[Search], behind: float) -> Markdown:
    """Return the table of all settings and the controls on test images; `behind`: the goal's, a fraction."""
    lines = []
    for one in found:
        for key, rows in one.test.groupby("variant", sort=False):
            setting = one.settings[str(key)]
            name = f"**{setting.words}**" if setting == one.chosen else setting.words
            lines.append(_line(one.goals, name, rows, behind))
        rate = one.shared["lr"].iloc[0]
        lines.append(_line(one.goals, f"*control: one shared mask of that union, rate {rate:g}*", one.shared, behind))
        for _, rows in one.strong.groupby("k", sort=False):
            rate = rows["lr"].iloc[0]
            lines.append(
                _line(one.goals, f"*control: one mask, half of the output layer, rate {rate:g}*", rows, behind)
            )
    asked = "; ".join(
        f"{one.name}: all classes in {one.goals.all_classes:.0%} of the weights {near(behind)}, pairs in "
        f"{one.goals.pairs:.0%}"
        for one in found
    )
    caption = (
        "Settings tried, test images, mean ± standard deviation over n trials. Bold: chosen on held-out images, the "
        "most accurate of those whose union is small enough. The control's masks are equal, so that pairs hold as "
        f"much as all. Goals: {asked}."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-frontier")


def _line(goals: Goals, name: str, rows: pd.DataFrame, behind: float) -> dict[str, Any]:
    """Return one row of the table: of module stemming, or of the control."""
    union, pairs, gap = rows["remaining_parameters_all"], rows["remaining_parameters"], against_parent(rows)
    met = {
        "all": union.mean() <= goals.all_classes and gap.mean() >= -100 * behind,
        "pairs": pairs.mean() <= goals.pairs,
    }
    return {
        "network": goals.name,
        "setting": name,
        "all classes (%)": mean_and_spread(rows["accuracy"]),
        "against the parent (points)": _signed(gap),
        "remaining, all (%)": mean_and_spread(union),
        "pairs (%)": mean_and_spread(rows["pair_accuracy"]),
        "remaining, pairs (%)": mean_and_spread(pairs),
        "goals met": ", ".join(name for name, is_met in met.items() if is_met) or "none",
        "n": len(rows),
    }


def every_subset(found: Sequence[Search], store: Store) -> pd.DataFrame:
    """Return one row for each network, trial of its chosen setting, and subset of two or more classes.

    Its size, the union's share of the weights, and the accuracy of the modules and of the restricted parent.
    """
    parts = []
    for one in found:
        for trial in one.trials:
            parent = trained_parent(one.data, trial.model, trial.seed, trial.parent_epochs, store)
            logits, _ = training.logits(parent, one.data, "test")
            rows = subsets(trial_modules(trial, one.data, store), one.data, logits)
            parts.append(rows.assign(column=one.name, seed=trial.seed))
    return pd.concat(parts, ignore_index=True)


def subsets(modules: Modules, data: Dataset, logits: torch.Tensor) -> pd.DataFrame:
    """Return one row for each subset of two or more classes, of modules and the parent's `logits` [n, N] on test."""
    images, labels = data.split("test")
    odds = modules.log_odds(data.inputs(images))
    masks = torch.cat([mask.flatten(1) for mask in modules.masks.masks.values()], 1)
    every = (s for size in range(2, len(modules.classes) + 1) for s in combinations(modules.classes, size))
    return pd.DataFrame(
        [
            {
                "classes": len(subset),
                "union": float(masks[list(subset)].any(0).float().mean()),
                "modules": metrics.recomposed_accuracy(odds, labels, modules.classes, subset),
                "restricted parent": metrics.recomposed_accuracy(logits, labels, modules.classes, subset),
            }
            for subset in every
        ]
    )


def draw(found: Sequence[Search], of_subsets: pd.DataFrame, behind: float) -> Figure:
    """Draw accuracy against the union of all, left; against the number of classes in a subset, right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.6))
    for one, colour in zip(found, figures.NETWORKS, strict=False):
        _draw_settings(left, one, colour)
        curves = (
            of_subsets[of_subsets["column"] == one.name].groupby("classes")[["modules", "restricted parent"]].mean()
        )
        right.plot(curves.index, 100 * curves["modules"], color=colour, label=f"{one.name}, modules")
        right.plot(curves.index, 100 * curves["restricted parent"], color=colour, ls="--", label="restricted parent")
    left.axhline(0, color="black", lw=1)
    left.axhline(-100 * behind, color="black", lw=1, ls=":")
    left.set(xlabel="remaining parameters of all modules (%)", ylabel="points against the parent")
    right.set(xlabel="classes in the subset", ylabel="accuracy (%)")
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8)
    return figure


def _draw_settings(ax: Axes, one: Search, colour: str) -> None:
    masks = pd.concat([one.shared, one.strong])
    for rows, marker, label in ((one.test, "o", one.name), (masks, "x", "one shared mask")):
        x, y = 100 * rows["remaining_parameters_all"], against_parent(rows)
        ax.scatter(x, y, s=22, color=colour, marker=marker, label=label)
    ax.axvline(100 * one.goals.all_classes, color=colour, lw=1, ls=":")


def subsets_by_size(of_subsets: pd.DataFrame) -> Markdown:
    """Return the table of all subsets of the chosen settings, by network and number of classes."""
    lines = []
    for (column, size), part in of_subsets.groupby(["column", "classes"], sort=False):
        n, union, modules = part["seed"].nunique(), 100 * part["union"], 100 * part["modules"]
        lines.append(
            {
                "network": column,
                "classes": size,
                "subsets": len(part) // n,
                "union (%)": f"{union.mean():.2f}",
                "smallest to largest": f"{union.min():.2f} to {union.max():.2f}",
                "modules (%)": f"{modules.mean():.2f}",
                "worst subset": f"{modules.min():.2f}",
                "restricted parent (%)": f"{100 * part['restricted parent'].mean():.2f}",
                "modules as accurate": f"{(part['modules'] >= part['restricted parent']).mean():.0%}",
            }
        )
    trials = of_subsets.groupby("column")["seed"].nunique().max()
    caption = (
        f"All subsets of the chosen setting: means over subsets of one size and over n = {trials} trials, test images. "
        "Last: share of subsets in which the modules are at least as accurate as the restricted parent."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-frontier-subsets")


def answer(found: Sequence[Search], behind: float) -> Markdown:
    """Return the answer in sentences, an item for each network; `behind`: the goal's, a fraction."""
    said = "\n".join(_said(one, behind) for one in found)
    return Markdown(f"**Answer** (settings chosen on held-out images, measured on test images).\n\n{said}")


def _said(one: Search, behind: float) -> str:
    rows = one.test[one.test["variant"] == one.chosen.key]
    gap, goals = against_parent(rows), one.goals
    union, pairs = rows["remaining_parameters_all"].mean(), rows["remaining_parameters"].mean()
    met = union <= goals.all_classes and gap.mean() >= -100 * behind
    lead = 100 * (rows.set_index("seed")["accuracy"] - one.shared.set_index("seed")["accuracy"])
    low, high = records.interval(lead)
    goal = f"{goals.all_classes:.0%} and {goals.pairs:.0%}, {near(behind)}:"
    verdict = {2: "**met**", 1: "**half met**", 0: "**missed**"}[int(met) + int(pairs <= goals.pairs)]
    return (
        f"- **{one.name}** (n = {len(rows)}): all classes need **{union:.2%}** of the weights, two {pairs:.2%}, at "
        f"{_signed(gap)} points against the parent. Goal: {goal} {verdict}. One shared mask of that size "
        f"needs one pass, not {one.data.num_classes} joined ones; the modules are at {_signed(lead)} points against "
        f"it (95% interval {low:+.2f} to {high:+.2f})."
    )


def _signed(points: pd.Series) -> str:
    """Return mean ± standard deviation of points, with their sign."""
    return f"{'+' if points.mean() >= 0 else ''}{mean_and_spread(points, 1)}"
