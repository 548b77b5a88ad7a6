"""Controls: module stemming against the obvious, trial by trial; what each costs in use; single classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from scipy import stats

from modlib import recipes
from modlib.recipes import Recipe
from modlib.study import figures, records, tables
from modlib.study.claims import Claim
from modlib.study.columns import Column, Load, listing, named, stand_in
from modlib.study.comparison import METHODS, Setup, compare, time_in_use
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.records import Record, Store, mean_and_spread, percent_of_n, signed
from modlib.study.single_class import single_class
from modlib.zoo.datasets import load as load_images

BASE = "module stemming"
ALONE = f"{BASE}, without vote loss"
RESTRICTED = "parent, restricted"
SMALL, SMALL_PAIR = "small network from scratch", "small network for the pair"
OTHERS = [method for method in METHODS if method != BASE]
WHOLE = [method for method, how in METHODS.items() if not how.for_pairs]
"""Methods that are made once for all classes."""
ACCURACIES = {"accuracy": "all classes", "pair_accuracy": "all pairs", "chosen_pairs_accuracy": "chosen pairs"}
EVERY_MASK, ONE_MASK = "a mask for every class", "one mask"
KINDS = {BASE: EVERY_MASK, ALONE: EVERY_MASK, RESTRICTED: "parent", "new head": "parent", SMALL: "small network"}
"""What computes the answers of a method, as it is timed; else one mask."""
PARENTS = ("parent, p > 1/2", "parent, largest logit", "parent, threshold fitted")
DENSE = "dense parent + grafting layer"
"""Readings of the parent as a single-class classifier, and its twin of the module without a mask."""


@dataclass(frozen=True)
class Other(Column):
    """A further network, and its trials."""

    seeds: list[int]


@dataclass(frozen=True)
class Compared:
    """Every method over the parents of one network."""

    setup: Setup
    seeds: Sequence[int]
    compared: list[Record]

    @property
    def name(self) -> str:
        """How tables call the network."""
        return of_network(self.setup.data.name, self.setup.model)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every run on both splits; `tuned_on`: the accuracy that chooses, of the pairs where it is made for them."""
        rows = records.frame(self.compared)
        return rows.assign(tuned_on=rows["accuracy"].fillna(rows["chosen_pairs_accuracy"]))

    @cached_property
    def tried(self) -> pd.DataFrame:
        """The settings tried with the first seed, on held-out images."""
        return self.rows[(self.rows["split"] == "held_out") & (self.rows["seed"] == self.seeds[0])]

    @cached_property
    def best(self) -> pd.DataFrame:
        """The chosen setting of every method: `method`, `alpha`, `lr`."""
        at = self.tried.groupby("method", sort=False)["tuned_on"].idxmax()
        best = self.tried.loc[at, ["method", "alpha", "lr"]]
        best.loc[best["method"] == BASE, "alpha"] = self.setup.recipe.alpha
        return best

    @cached_property
    def test(self) -> pd.DataFrame:
        """Test images, the chosen settings: one row for each method and seed."""
        return self.rows[self.rows["split"] == "test"].merge(self.best, on=["method", "alpha", "lr"])

    def paired(self, column: str) -> pd.DataFrame:
        """Return each method minus module stemming, in points: one row for each seed."""
        table = self.test.pivot(index="seed", columns="method", values=column)
        return 100 * table.sub(table[BASE], axis=0)

    def of(self, method: str, column: str) -> str:
        """Return a method's share in `column`, for a sentence."""
        return percent_of_n(self.test[self.test["method"] == method][column])


@dataclass(frozen=True)
class Runs(Compared):
    """What the page measured: every method, the single classes and the times in use of one network; other networks."""

    alone: Recipe
    singles: list[Record]
    in_use: Record
    others: list[Compared]

    @property
    def done(self) -> list[Record]:
        """All records."""
        return [*self.compared, *self.singles, self.in_use, *(r for other in self.others for r in other.compared)]

    @property
    def pairs(self) -> str:
        """The chosen pairs, for a sentence."""
        return ", ".join(f"{a} {b}" for a, b in self.setup.pairs)

    @cached_property
    def costs(self) -> dict[str, dict[str, float]]:
        """What a method costs in use, mean over the trials, by quantity and method."""
        means = self.test.groupby("method")[["bytes", "multiply_adds", "passes"]].mean()
        return {str(name): {str(method): float(v) for method, v in column.items()} for name, column in means.items()}

    @cached_property
    def fastest(self) -> dict[str, float]:
        """Seconds of the shortest training, by method."""
        return {str(name): float(s) for name, s in self.test.groupby("method")["training_seconds"].min().items()}

    @cached_property
    def milliseconds(self) -> dict[str, float]:
        """Time for a batch in use, by kind; and for recomposing a pair."""
        return {row["kind"]: row["ms"] for row in self.in_use.rows}

    def single(self, reading: str, quantity: str) -> np.ndarray:
        """Return a reading's `accuracies` or `balanced` in per cent on test images: [seeds, classes]."""
        rows = {(row["reading"], row["seed"]): row for r in self.singles for row in r.rows if row["split"] == "test"}
        return 100 * np.array([rows[reading, seed][quantity] for seed in self.seeds])

    def module_minus(self, reading: str, quantity: str = "accuracies") -> pd.Series:
        """Return the module minus a reading in points, mean over the classes: one number for each seed."""
        return pd.Series((self.single("module", quantity) - self.single(reading, quantity)).mean(1))

    def ahead_of(self) -> list[str]:
        """Return the readings of the parent that the module is more accurate than."""
        return [reading for reading in PARENTS if self.module_minus(reading).mean() > 0]


def run(
    store: Store,
    load: Load = load_images,
    *,
    dataset: str,
    model: str,
    seeds: Sequence[int],
    parent_epochs: int,
    k: float,
    epochs: int,
    batch_size: int,
    vote: float,
    alpha: float,
    alone_alpha: float,
    pairs: Sequence[Sequence[int]],
    others: Sequence[Mapping[str, Any]] = (),
    **_: Any,
) -> Runs:
    """Return what the page measured; parameters as the page has them."""
    recipe = recipes.ours(k=k, alpha=alpha, vote=vote, epochs=epochs, batch_size=batch_size)
    alone = recipes.ours(k=k, alpha=alone_alpha, epochs=epochs, batch_size=batch_size)
    checked = checked_pairs(pairs)

    def compared(dataset: str, model: str, seeds: Sequence[int]) -> Compared:
        setup = Setup(load(dataset), store, model, parent_epochs, recipe, checked)
        return Compared(setup, seeds, compare(list(METHODS), setup, seeds))

    first = compared(dataset, model, seeds)
    singles = [single_class(first.setup, seed, alone) for seed in seeds]
    rest = [compared(other.dataset, other.model, other.seeds) for other in named("others", others, Other)]
    return Runs(first.setup, seeds, first.compared, alone, singles, time_in_use(first.setup, seeds[0]), rest)


def experiments(*, results: str = "", **parameters: Any) -> list[Experiment]:
    """Return every experiment of the page; which setting the later seeds run is read from the first seed's records.

    `parameters`: see `run`.
    """
    asked = listing(results)
    run(asked, stand_in, **parameters)
    return asked.asked


def checked_pairs(pairs: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return the pairs of classes; raise ValueError where there is none, or something else than two classes in one."""
    for i, pair in enumerate(pairs):
        if len(set(pair)) != 2 or len(pair) != 2:
            raise ValueError(f"pairs[{i}] must be two different classes, got {list(pair)}")
    if not pairs:
        raise ValueError("pairs: empty; name at least one")
    return [(first, second) for first, second in pairs]


def setting(runs: Runs, method: str) -> str:
    """Return a method's chosen setting; a star where it is the lowest or the highest rate of three."""
    tried = METHODS[method].settings
    row = runs.best[runs.best["method"] == method].iloc[0]
    ends = [one["lr"] for one in tried if "lr" in one][::2]  # a better rate may lie beyond the end of the three
    names = {"alpha": "α", "lr": "rate"}
    text = ", ".join(f"{names[name]} {row[name]:g}" for name in tried[0] if name in names) or "none"
    return text + ("*" if row["lr"] in ends else "")


def at_the_same_edges(runs: Runs) -> Markdown:
    """Return the table of all methods: remaining parameters, accuracies, and the difference from stemming."""
    caption = (
        f"Accuracy of the vote on test images, mean ± standard deviation over n = {len(runs.seeds)} trials: of all "
        "classes, of all pairs of classes without any training for them, and of the chosen pairs "
        f"{runs.pairs}. Last: points against module stemming, trial by trial, on all classes or on the chosen pairs."
    )
    return tables.table(pd.DataFrame([_line(runs, method) for method in METHODS]), caption, "tab-controls")


def elsewhere(runs: Runs) -> Markdown:
    """Return the table of the vote of all classes on every network: module stemming, and each method minus it."""
    lines = []
    for method in WHOLE:
        line = {"method": method}
        for one in (runs, *runs.others):
            gaps = one.paired("accuracy")[method].dropna()
            line[one.name] = one.of(method, "accuracy") if method == BASE else signed(gaps)
        lines.append(line)
    caption = (
        "Accuracy of the vote of all classes on test images: module stemming with our vote loss, and points of every "
        "other method against it, trial by trial (+: more accurate than module stemming)."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-controls-elsewhere")


def settings_table(runs: Runs) -> Markdown:
    """Return the table of the settings that were chosen."""
    lines = [{"method": method, "setting": setting(runs, method)} for method in METHODS]
    caption = "Chosen settings. *: the lowest or highest of the three rates, so that a better one may lie beyond."
    return tables.table(pd.DataFrame(lines), caption, "tab-controls-settings")


def _line(runs: Runs, method: str) -> dict[str, str]:
    trials = runs.test[runs.test["method"] == method]
    kept = trials["remaining_parameters_all"]
    weights = "100" if kept.isna().all() else mean_and_spread(kept, digits=1)
    if METHODS[method].make is METHODS[SMALL].make:
        weights = "as the union"
    shown = {
        f"{name} (%)": "" if trials[column].isna().any() else mean_and_spread(trials[column])
        for column, name in ACCURACIES.items()
    }
    by = "chosen_pairs_accuracy" if trials["accuracy"].isna().any() else "accuracy"
    difference = "" if method == BASE else signed(runs.paired(by)[method])
    return {"method": method, "remaining (%)": weights} | shown | {"against stemming": difference}


def by_alpha(runs: Runs) -> Markdown:
    """Return the table of module stemming at each α, first seed."""
    tried = runs.rows[(runs.rows["method"] == BASE) & (runs.rows["seed"] == runs.seeds[0])]
    shown = tried[tried["split"] == "test"].assign(held_out=tried[tried["split"] == "held_out"]["accuracy"].to_numpy())
    shown = shown.sort_values("alpha").drop_duplicates("alpha")
    table = {
        "α": [f"{a:g}" for a in shown["alpha"]],
        "Jaccard index": [f"{j:.3f}" for j in shown["jaccard_index"]],
        "remaining, all (%)": [f"{100 * r:.1f}" for r in shown["remaining_parameters_all"]],
        "held-out, all classes (%)": [f"{100 * a:.2f}" for a in shown["held_out"]],
        "test, all classes (%)": [f"{100 * a:.2f}" for a in shown["accuracy"]],
        "test, all pairs (%)": [f"{100 * a:.2f}" for a in shown["pair_accuracy"]],
    }
    caption = (
        "Module stemming at each α, first trial (n = 1). The tables and figures of this page take "
        f"α = {runs.setup.recipe.alpha:g}, those of single classes α = {runs.alone.alpha:g}."
    )
    return tables.table(pd.DataFrame(table), caption, "tab-controls-alpha")


def draw_differences(runs: Runs) -> Figure:
    """Draw each control minus module stemming, one dot a trial: the vote of all classes, and of the chosen pairs."""
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.9), sharey=True)
    order, ticks = OTHERS[::-1], [-10, -1, -0.1, 0, 0.1, 1, 10]
    for ax, column in zip(axes, ("accuracy", "chosen_pairs_accuracy"), strict=True):
        difference = runs.paired(column)
        for at, method in enumerate(order):
            values = difference[method].dropna()
            colour = figures.COLOURS["parent" if method == RESTRICTED else "ours"]
            ax.scatter(values, [at] * len(values), s=16, color=colour, alpha=0.6)
            if len(values):
                ax.plot([values.mean()] * 2, [at - 0.3, at + 0.3], color=colour, lw=2)
        ax.axvline(0, color=figures.COLOURS[BASE], lw=1)
        ax.set_xscale("symlog", linthresh=0.1)
        ax.set(xlabel=f"points, {ACCURACIES[column]}", yticks=range(len(order)), yticklabels=order)
        ax.set(xticks=ticks, xticklabels=[f"{tick:g}" for tick in ticks])
    return figure


def in_use(runs: Runs) -> Markdown:
    """Return the table of what each method costs in use, all classes at once."""
    lines = [
        {
            "method": method,
            "bytes": f"{runs.costs['bytes'][method]:,.0f}",
            "multiply-adds an image": f"{runs.costs['multiply_adds'][method]:,.0f}",
            "passes": f"{runs.costs['passes'][method]:.0f}",
            "ms for a batch": f"{runs.milliseconds[KINDS.get(method, ONE_MASK)]:.2f}",
            "training (s)": "" if method == RESTRICTED else f"{runs.fastest[method]:.1f}",
        }
        for method in WHOLE
    ]
    caption = (
        f"Cost of answering for all {runs.setup.data.num_classes} classes. Milliseconds: batch of "
        f"{runs.in_use.rows[0]['batch']}, one thread, median of repeats taken in turns in one run. Training: after the "
        "parent's, the shortest of the trials; other work ran on the machine."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-controls-cost")


def single_classes(runs: Runs) -> Markdown:
    """Return the table of single-class classification: every reading, and the module minus it."""
    answers = records.frame(runs.singles)
    asked = answers[answers["split"] == "test"]
    lines = []
    for reading in asked["reading"].unique():
        trials = asked[asked["reading"] == reading]
        line = {"classifier": reading, "all images (%)": mean_and_spread(trials["module_accuracy"])}
        line["balanced (%)"] = mean_and_spread(trials["balanced_accuracy"])
        if reading != "module":
            for quantity, name in (("accuracies", "all images"), ("balanced", "balanced")):
                line[f"module minus it, {name}"] = signed(runs.module_minus(reading, quantity))
            better = (runs.single("module", "accuracies") - runs.single(reading, "accuracies")).mean(0) > 0
            line["module better in"] = f"{better.sum()} of {len(better)}"
        lines.append(line)
    caption = (
        "Single-class classification on test images, mean over the classes; mean ± standard deviation over "
        f"n = {len(runs.seeds)} trials. Balanced: on images of the class and as many others. Differences in points; "
        "last, in how many classes the module is better on all images."
    )
    return tables.table(pd.DataFrame(lines).fillna(""), caption, "tab-controls-single")


def sorted_out(runs: Runs) -> dict[str, list[str]]:
    """Return the controls above module stemming, below it, and not told apart (0 is in the 95% interval)."""
    found: dict[str, list[str]] = {"above": [], "below": [], "apart": []}
    for method in WHOLE:
        if method in (BASE, ALONE):
            continue
        values = runs.paired("accuracy")[method].dropna()
        n = len(values)
        told = abs(values.mean()) > (stats.t.ppf(0.975, n - 1) * values.sem() if n > 1 else 0)
        found[("above" if values.mean() > 0 else "below") if told else "apart"].append(method)
    return found


def answer(runs: Runs) -> Markdown:
    """Return the page's answer: against the controls, against the parent, and what it costs in use."""
    found = sorted_out(runs)
    controls = sum(map(len, found.values()))
    paired, ms, of = runs.paired("accuracy"), runs.milliseconds, runs.costs["bytes"]
    others = [
        f"{words} {len(found[name])} ({', '.join(found[name])})"
        for name, words in (("apart", "can't be told apart from"), ("above", "is less accurate than"))
        if found[name]
    ]
    single = [runs.module_minus(reading).mean() for reading in PARENTS]
    return Markdown(
        f"**Answer.** With our vote loss, module stemming is right on {runs.of(BASE, 'accuracy')} of the test images: "
        f"more accurate than {len(found['below'])} of {controls} controls"
        f"{''.join(', and ' + other for other in others)}. Against the parent with its other logits ignored that is "
        f"{signed(-paired[RESTRICTED])} points; without the vote loss, {signed(paired[ALONE] - paired[RESTRICTED])}. "
        f"Modules store {of[RESTRICTED] / of[BASE]:.1f} times fewer bytes than the parent, and take "
        f"{ms[EVERY_MASK] / ms['parent']:.1f} times as long (batch of {runs.in_use.rows[0]['batch']}). At its own "
        f"class a single module is at {min(single):+.2f} to {max(single):+.2f} points against the parent."
    )


def judged(runs: Runs) -> list[Claim]:
    """Return the verdicts on single classes and on the time that a subset takes; open on other than the paper's FC1."""
    own_network = (runs.setup.data.name, runs.setup.model) == ("mnist", "fc1")
    holds, n = runs.ahead_of(), len(runs.seeds)
    verdict = "holds" if len(holds) == len(PARENTS) else "partly" if holds else "does not hold"
    each = "; ".join(f"{reading} {signed(runs.module_minus(reading))}" for reading in PARENTS)
    of_time, here = _time_for_a_pair(runs)
    return [
        Claim(
            "A module with its grafting layer outperforms the parent at its own class",
            "Grafting Layer",
            "no number",
            f"module minus parent, all images, in points: {each}",
            verdict if own_network else "open",
            n,
        ),
        Claim(
            "Extracting from a large trained model is faster than learning a small model from scratch",
            "Required Properties",
            "no number",
            here,
            of_time if own_network else "open",
            n,
        ),
    ]


def _time_for_a_pair(runs: Runs) -> tuple[str, str]:
    """Return the verdict on recomposing against training from scratch, and the numbers it rests on."""
    recomposing, scratch = runs.milliseconds["recomposing a pair"] / 1e3, runs.fastest[SMALL_PAIR]
    verdict, pays = "does not hold", "never faster"
    if recomposing < scratch:
        verdict = "holds" if runs.fastest[BASE] + recomposing < scratch else "partly"  # for one subset; for many
        pays = f"all in all faster from {np.ceil(runs.fastest[BASE] / (scratch - recomposing)):.0f} subsets on"
    worse = runs.paired("chosen_pairs_accuracy")[SMALL_PAIR]
    return verdict, (
        f"a pair: recomposed in {recomposing:.3f} s, after a decomposition of {runs.fastest[BASE]:.0f} s; trained from "
        f"scratch in {scratch:.1f} s ({signed(worse)} points against the modules): {pays}"
    )
