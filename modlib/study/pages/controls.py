"""Controls: module stemming against the obvious, trial by trial; what each costs in use; single classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from modlib.study.columns import Load, listing, stand_in
from modlib.study.comparison import METHODS, Setup, compare, time_in_use
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Store, mean_and_spread, percent_of_n
from modlib.study.single_class import single_class
from modlib.zoo.datasets import load as load_images

BASE = "module stemming"
ALONE = f"{BASE}, without vote loss"
RESTRICTED = "parent, restricted"
SMALL, SMALL_PAIR = "small network from scratch", "small network for the pair"
OTHERS = [method for method in METHODS if method != BASE]
WHOLE = [method for method, how in METHODS.items() if not how.for_pairs]
"""Methods that are made once for all classes."""
ACCURACIES = {"accuracy": "all classes", "pair_accuracy": "all pairs", "chosen_pairs_accuracy": "the chosen pairs"}
EVERY_MASK, ONE_MASK = "a mask for every class", "one mask"
KINDS = {BASE: EVERY_MASK, ALONE: EVERY_MASK, RESTRICTED: "parent", "new head": "parent", SMALL: "small network"}
"""What computes the answers of a method, as it is timed; else one mask."""
PARENTS = ("parent, p > 1/2", "parent, largest logit", "parent, threshold fitted")
DENSE = "dense parent + grafting layer"
"""Readings of the parent as a single-class classifier, and its twin of the module without a mask."""


@dataclass(frozen=True)
class Runs:
    """What the page measured: every method, the single classes, the times in use, over the same parents."""

    setup: Setup
    alone: Recipe
    seeds: Sequence[int]
    compared: list[Record]
    singles: list[Record]
    in_use: Record

    @property
    def done(self) -> list[Record]:
        """All records."""
        return [*self.compared, *self.singles, self.in_use]

    @property
    def pairs(self) -> str:
        """The chosen pairs, for a sentence."""
        return ", ".join(f"{a} {b}" for a, b in self.setup.pairs)

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

    def paired(self, column: str) -> pd.DataFrame:
        """Return each method minus module stemming, in points: one row for each seed."""
        table = self.test.pivot(index="seed", columns="method", values=column)
        return 100 * table.sub(table[BASE], axis=0)

    def of(self, method: str, column: str) -> str:
        """Return a method's share in `column`, for a sentence."""
        return percent_of_n(self.test[self.test["method"] == method][column])

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
    **_: Any,
) -> Runs:
    """Return what the page measured; parameters as the page has them."""
    recipe = recipes.ours(k=k, alpha=alpha, vote=vote, epochs=epochs, batch_size=batch_size)
    alone = recipes.ours(k=k, alpha=alone_alpha, epochs=epochs, batch_size=batch_size)
    setup = Setup(load(dataset), store, model, parent_epochs, recipe, checked_pairs(pairs))
    done = compare(list(METHODS), setup, seeds)
    singles = [single_class(setup, seed, alone) for seed in seeds]
    return Runs(setup, alone, seeds, done, singles, time_in_use(setup, seeds[0]))


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


def signed(values: Iterable[float]) -> str:
    """Return "mean ± standard deviation" of points, with the sign of the mean."""
    series = pd.Series(list(values), dtype=float)
    spread = f" ± {series.std():.2f}" if len(series) > 1 else ""
    return f"{series.mean():+.2f}{spread}"


def setting(runs: Runs, method: str) -> str:
    """Return a method's chosen setting; a star where it is the lowest or the highest rate of three."""
    tried = METHODS[method].settings
    row = runs.best[runs.best["method"] == method].iloc[0]
    ends = [one["lr"] for one in tried if "lr" in one][::2]  # a better rate may lie beyond the end of the three
    names = {"alpha": "α", "lr": "rate"}
    text = ", ".join(f"{names[name]} {row[name]:g}" for name in tried[0] if name in names) or "none"
    return text + ("*" if row["lr"] in ends else "")


def at_the_same_edges(runs: Runs) -> Markdown:
    """Return the table of all methods: setting, weights in use, accuracies, and the difference from stemming."""
    caption = (
        f"Accuracy of the vote on test images, mean ± standard deviation over n = {len(runs.seeds)} trials: of all "
        "classes, of all pairs of classes without any training for them (mean over the pairs), and of the chosen pairs "
        f"{runs.pairs}. Last column: paired with module stemming trial by trial, all classes, or the chosen pairs "
        "where trained for those. *: the lowest or highest of the three rates, so that a better one may lie beyond."
    )
    return tables.table(pd.DataFrame([_line(runs, method) for method in METHODS]), caption, "tab-controls")


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
    line = {"method": method, "setting": setting(runs, method), "weights in use (%)": weights}
    return line | shown | {"against stemming (points)": difference}


def by_alpha(runs: Runs) -> Markdown:
    """Return the table of module stemming at each α, first seed."""
    tried = runs.rows[(runs.rows["method"] == BASE) & (runs.rows["seed"] == runs.seeds[0])]
    shown = tried[tried["split"] == "test"].assign(held_out=tried[tried["split"] == "held_out"]["accuracy"].to_numpy())
    shown = shown.sort_values("alpha").drop_duplicates("alpha")
    table = {
        "α": [f"{a:g}" for a in shown["alpha"]],
        "Jaccard index": [f"{j:.3f}" for j in shown["jaccard_index"]],
        "weights in use, all classes (%)": [f"{100 * r:.1f}" for r in shown["remaining_parameters_all"]],
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
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 4.4), sharey=True)
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
                line[f"module minus it, {name} (points)"] = signed(runs.module_minus(reading, quantity))
            better = (runs.single("module", "accuracies") - runs.single(reading, "accuracies")).mean(0) > 0
            line["classes where the module is better"] = f"{better.sum()} of {len(better)}"
        lines.append(line)
    caption = (
        "Single-class classification on test images, mean over the classes; mean ± standard deviation over "
        f"n = {len(runs.seeds)} trials. Balanced: on the images of the class and as many others. The last column "
        "compares means over the trials on all images."
    )
    return tables.table(pd.DataFrame(lines).fillna(""), caption, "tab-controls-single")


def sorted_out(runs: Runs, methods: Sequence[str], column: str) -> dict[str, str]:
    """Return the controls above module stemming, below it, and not told apart (0 is in the 95% interval)."""
    lists: dict[str, list[str]] = {"above": [], "below": [], "apart": []}
    n = len(runs.seeds)
    for method in methods:
        values = runs.paired(column)[method].dropna()
        told = abs(values.mean()) > (stats.t.ppf(0.975, n - 1) * values.sem() if n > 1 else 0)
        outcome = f"{method} ({signed(values)} points, higher in {(values > 0).sum()} of {n} trials)"
        lists[("above" if values.mean() > 0 else "below") if told else "apart"].append(outcome)
    return {name: "; ".join(found) or "none" for name, found in lists.items()}


def came_out(runs: Runs) -> Markdown:
    """Return the page's answer in words, a paragraph for each of its questions."""
    parts = (_against_controls, _without_vote, _against_parent, _on_pairs, _costs, _single_class_claim)
    return Markdown("\n\n".join(part(runs) for part in parts))


def _against_controls(runs: Runs) -> str:
    every = sorted_out(runs, [method for method in WHOLE if method != BASE], "accuracy")
    return (
        f"**What came out.** On {runs.setup.data.name} with {runs.setup.model.upper()}, k = {runs.setup.recipe.k:.0%}, "
        f"module stemming reaches {runs.of(BASE, 'accuracy')} on all classes. **Less accurate than module stemming:** "
        f"{every['below']}. **More accurate:** {every['above']}. **Not told apart** (0 is in the 95% interval of the "
        f"paired mean, Student's t): {every['apart']}."
    )


def _without_vote(runs: Runs) -> str:
    plain = runs.paired("accuracy")[ALONE] - runs.paired("accuracy")[RESTRICTED]
    below = plain.mean() < 0
    where = "below" if below else "above"
    return (
        "**Without the vote loss**, the paper's objective under our rates and batches, module stemming reaches "
        f"{runs.of(ALONE, 'accuracy')}, {abs(plain.mean()):.2f} points {where} the restricted parent, and is {where} "
        f"it in {((plain < 0) if below else (plain > 0)).sum()} of {len(runs.seeds)} trials."
    )


def _against_parent(runs: Runs) -> str:
    every, pairs = (runs.paired(column)[RESTRICTED].mean() for column in ("accuracy", "pair_accuracy"))
    of = runs.costs["bytes"]
    return (
        f"**The parent with its logits restricted**, which takes no work at all, is {abs(every):.2f} points "
        f"{'behind' if every < 0 else 'ahead of'} module stemming on all classes and {abs(pairs):.2f} points "
        f"{'behind' if pairs < 0 else 'ahead of'} it on pairs (mean of all pairs). It uses all weights: "
        f"{of[RESTRICTED]:,.0f} bytes, where the modules of all classes take {of[BASE]:,.0f}."
    )


def _on_pairs(runs: Runs) -> str:
    two = sorted_out(runs, OTHERS, "chosen_pairs_accuracy")
    return (
        f"**On the chosen pairs** ({runs.pairs}), less accurate than module stemming: {two['below']}. More accurate: "
        f"{two['above']}. Not told apart: {two['apart']}."
    )


def _costs(runs: Runs) -> str:
    ms, of = runs.milliseconds, runs.costs["multiply_adds"]
    return (
        f"**In use**, the {runs.setup.data.num_classes} overlapping masks take {ms[EVERY_MASK] / ms[ONE_MASK]:.1f} "
        f"times as long as one shared mask of dense products, and {of[BASE] / of['shared mask']:.1f} times its "
        f"multiply-adds; that is {ms[EVERY_MASK] / ms['parent']:.1f} times the parent's time and "
        f"{of[BASE] / of[RESTRICTED]:.2f} times its multiply-adds. Recomposing a pair takes "
        f"{ms['recomposing a pair']:.1f} ms; a network of that size trained from scratch for it "
        f"{runs.fastest[SMALL_PAIR]:.1f} s."
    )


def _single_class_claim(runs: Runs) -> str:
    holds = runs.ahead_of()
    verdict = (
        "holds for every reading of the parent"
        if len(holds) == len(PARENTS)
        else f"depends on how the parent is read: it holds against {' and '.join(holds)} only"
        if holds
        else "fails for every reading of the parent"
    )
    each = "; ".join(
        f"{reading}: {signed(runs.module_minus(reading))} points on all images, "
        f"{signed(runs.module_minus(reading, 'balanced'))} balanced"
        for reading in (*PARENTS, DENSE)
    )
    behind = runs.module_minus(DENSE).mean() > 0
    return (
        f"**The single-class claim** {verdict}. Module minus {each} (n = {len(runs.seeds)}). The grafting layer on the "
        f"dense parent, without any mask, is {'behind the module' if behind else 'as good as the module or better'}; "
        f"with its own layer removed, the masked network loses "
        f"{runs.module_minus('module, layer removed, p > 1/2').mean():.2f} points to the module where it is read by "
        "p > 1/2."
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
            f"module minus parent, all images: {each} points",
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
        f"scratch in {scratch:.1f} s ({signed(worse)} points of accuracy): {pays}"
    )
