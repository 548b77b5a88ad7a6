"""Small networks for subsets: how far behind the parent, how small, how fast, and what each part of the way brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure
from scipy import stats

from modlib.data import Dataset
from modlib.deploy.measuring import PARENT
from modlib.study import figures, records, tables
from modlib.study.columns import Listing, Load, listing, named, stand_in
from modlib.study.draws import subsets
from modlib.study.eight_bits import FLOAT, INT8, EightBits
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.records import Record, Store, against_parent
from modlib.study.reproduce import Layout
from modlib.study.small_networks import SmallNetwork, Subject, Timing, measured
from modlib.zoo.datasets import load as load_images

RUNTIMES = {"eager": "torch", "onnxruntime": "ONNX Runtime"}


@dataclass(frozen=True)
class Plan:
    """Subsets of one parent's classes, one setting, and what was asked of the mean over the subsets beforehand.

    `classes`: in each of `count` subsets; `settings`: of `Channels.recompose`. `points` (1/100), `parameters` and
    `multiply_adds` (shares of the parent's), `faster_1` and `faster_64` (times as fast as the parent at batch 1 and
    64, in ONNX Runtime): the goals, 0 for none. `beside`: the plan that this one is a variant of.
    """

    name: str
    dataset: str
    model: str
    parent_epochs: int
    parent_recipe: str
    classes: int
    count: int
    settings: dict[str, Any] = field(hash=False)
    points: float = 0.0
    parameters: float = 0.0
    multiply_adds: float = 0.0
    faster_1: float = 0.0
    faster_64: float = 0.0
    beside: str = ""

    @property
    def subject(self) -> Subject:
        """The parent."""
        return Subject(self.model, self.parent_epochs, self.parent_recipe)

    @property
    def parent(self) -> str:
        """How tables call the parent."""
        return of_network(self.dataset, self.model)

    def networks(self, num_classes: int) -> list[SmallNetwork]:
        """Return a network for every subset: all that there are, or `count` of them, drawn with seed 0."""
        drawn = subsets(num_classes, self.classes, self.count)
        return [SmallNetwork(self.subject, subset, self.settings) for subset in drawn]


@dataclass(frozen=True)
class Found:
    """What a plan gave: `rows`, one for each subset and split, with `gap`, points against the restricted parent."""

    plan: Plan
    rows: pd.DataFrame
    done: list[Record]

    def split(self, name: str = "test") -> pd.DataFrame:
        """Return the rows of a split, by subset."""
        return self.rows[self.rows["split"] == name].set_index("subset")

    @property
    def goal_met(self) -> bool | None:
        """Whether the mean over the subsets, on test images, is within all goals; None where none was set."""
        if not self.plan.points:
            return None
        of = self.split()
        sizes = [(of[n].mean(), getattr(self.plan, n)) for n in ("parameters", "multiply_adds")]
        return bool(of["gap"].mean() >= -self.plan.points and all(is_ <= goal for is_, goal in sizes if goal))


@dataclass(frozen=True)
class Page:
    """Everything that the page shows: what the plans gave, by name, and the times of one network of some of them.

    `rounded`: the records of int8 versions, by the plan's name.
    """

    found: Mapping[str, Found]
    timed: list[Record]
    rounded: Mapping[str, Record]

    @property
    def done(self) -> list[Record]:
        """All records."""
        return [*self.networks, *self.timed, *self.rounded.values()]

    @property
    def networks(self) -> list[Record]:
        """The records of all networks; a network of two plans is there twice."""
        return [r for f in self.found.values() for r in f.done]

    @property
    def mains(self) -> list[Found]:
        """The plans with a goal; where there is none, all that are no variants of others."""
        whole = [f for f in self.found.values() if not f.plan.beside]
        return [f for f in whole if f.plan.points] or whole

    @property
    def of_first_parent(self) -> list[Found]:
        """Those of the parent that the page begins with."""
        return [f for f in self.mains if self.is_of_first(f)]

    @property
    def by_classes(self) -> list[Found]:
        """Networks of that parent by the number of classes: no variants, and not trained afterwards."""
        plain = [f for f in self.found.values() if not f.plan.beside and not f.plan.settings.get("distilled")]
        return sorted((f for f in plain if self.is_of_first(f)), key=lambda f: f.plan.classes)

    def is_of_first(self, found: Found) -> bool:
        """Return whether a plan's parent is the one that the page begins with."""
        first = self.mains[0].plan
        return (found.plan.dataset, found.plan.subject) == (first.dataset, first.subject)

    @property
    def of_longer_training(self) -> list[Found]:
        """Those of a parent of the same kind that was trained for longer."""
        first = self.mains[0].plan
        kind = (first.dataset, first.model)
        return [f for f in self.mains if (f.plan.dataset, f.plan.model) == kind and f.plan.subject != first.subject]

    def like(self, found: Found) -> list[Found]:
        """Return those of the parent trained for longer that have the settings of a plan of the first parent."""
        same = found.plan.classes, found.plan.settings
        return [f for f in self.of_longer_training if (f.plan.classes, f.plan.settings) == same]

    def times(self, name: str, runtime: str, batch: int, quantity: str = "speedup") -> list[float]:
        """Return how many times as fast as the parent a plan's network was, each time that it was timed.

        `quantity` "ms": the milliseconds instead.
        """
        asked = {"network": name, "runtime": runtime, "batch": batch}
        rows = (row for record in self.timed for row in record.rows)
        return [row[quantity] for row in rows if asked.items() <= row.items()]


def run(
    plans: Sequence[Mapping[str, Any]], timed: Sequence[Sequence[str]], int8: Sequence[str], repeats: int, store: Store
) -> Page:
    """Return what all plans gave.

    `timed`: names of those whose first subset's network is timed beside its parent, those of one list and parent in
    turns with each other; another list may be timed on another machine. `int8`: of those whose first
    subset's network is rounded, too.
    """
    return _run(plans, timed, int8, repeats, store, cache(load_images))


def experiments(
    *,
    plans: Sequence[Mapping[str, Any]],
    timed: Sequence[Sequence[str]],
    int8: Sequence[str],
    repeats: int,
    results: str,
    **_: Any,
) -> list[Experiment]:
    """Return the experiments that the page reads, from its parameters."""
    store = listing(results)
    _run(plans, timed, int8, repeats, store, cache(stand_in))
    return store.asked


def kept(run: str, store: Store) -> Page | None:
    """Return what a run of this page, "quick" or "published", has left in a store; None where it has not been run."""
    of = Layout.here().parameters_of("small_networks", run)
    page = _run(of["plans"], of["timed"], of["int8"], of["repeats"], Listing(store.folder), cache(stand_in))
    there = {n: f for n, f in page.found.items() if "accuracy" in f.rows and f.rows["accuracy"].notna().all()}
    return replace(page, found=there) if any(not f.plan.beside for f in there.values()) else None


def _run(
    plans: Sequence[Mapping[str, Any]],
    timed: Sequence[Sequence[str]],
    int8: Sequence[str],
    repeats: int,
    store: Store,
    load: Load,
) -> Page:
    asked = named("plans", plans, Plan)
    by_name = {plan.name: plan for plan in asked}
    for plan in asked:
        if plan.beside and plan.beside not in by_name:
            raise ValueError(f"plans: {plan.name!r} is beside {plan.beside!r}, which is none of {sorted(by_name)}")
    for given, names in {"timed": [name for group in timed for name in group], "int8": int8}.items():
        if unknown := set(names) - by_name.keys():
            raise ValueError(f"{given}: {sorted(unknown)} are none of the plans {sorted(by_name)}")
    found = {plan.name: _found(plan, load(plan.dataset), store) for plan in asked}
    times = []
    for mine in [group for names in timed for group in by_parent([by_name[name] for name in names])]:
        data = load(mine[0].dataset)
        times.append(timing(mine, data.num_classes, repeats).run(data, store))
    rounded = {}
    for plan in [by_name[name] for name in int8]:
        data = load(plan.dataset)
        rounded[plan.name] = EightBits(plan.networks(data.num_classes)[0], repeats).run(data, store)
    return Page(found, times, rounded)


def by_parent(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Return plans in groups of one parent each, in their order."""
    groups: dict[tuple[str, Subject], list[Plan]] = {}
    for plan in plans:
        groups.setdefault((plan.dataset, plan.subject), []).append(plan)
    return list(groups.values())


def timing(plans: Sequence[Plan], num_classes: int, repeats: int) -> Timing:
    """Return what is timed of the plans of one parent: the first subset's network of each."""
    return Timing({plan.name: plan.networks(num_classes)[0] for plan in plans}, repeats)


def _found(plan: Plan, data: Dataset, store: Store) -> Found:
    done = measured(plan.networks(data.num_classes), data, store)
    return Found(plan, framed(done), done)


def framed(done: Sequence[Record]) -> pd.DataFrame:
    """Return the rows of networks for subsets, each with its `subset` as a tuple and its `gap` against the parent."""
    rows = pd.DataFrame([row | {"subset": tuple(row.get("subset", ()))} for r in done for row in r.rows])
    if "accuracy" in rows:  # not where records are only named
        rows["gap"] = against_parent(rows)
    return rows


def gap(values: pd.Series) -> str:
    """Return points against the parent: mean over subsets, and its standard error."""
    points = np.asarray(values, dtype=float)
    error = f" ± {stats.sem(points):.2f}" if len(points) > 1 else ""
    return f"{points.mean():+.2f}{error}"


def answer(page: Page) -> Markdown:
    """Return the answer: what each plan of the first parent gave, and how many of all plans met their goals."""
    said = []
    for f in page.of_first_parent:
        of, fast = f.split(), in_each_runtime(page, f.plan.name)
        faster = f", {fast}" if fast else ""
        size = tables.percent(of["parameters"].mean(), 1)
        said.append(f"- **{f.plan.name}** (n = {len(of)}): {gap(of['gap'])}, {size} of parameters{faster}")
    asked = [f.goal_met for f in page.mains if f.goal_met is not None]
    speeds = {f.plan.name: met for f in page.of_first_parent if (met := _fast_enough(page, f.plan)) is not None}
    where = {processor(record) for record in page.timed if any(row["network"] in speeds for row in record.rows)}
    fast_enough = f"{sum(speeds.values())} of {len(speeds)}"
    of_speed = f", {fast_enough} for speed (on {' and '.join(sorted(where))})" if speeds else ""
    head = (
        f"**Answer** ({page.mains[0].plan.parent}). Test accuracy in points against the restricted parent (± "
        "standard error), size, and speed for one image:\n\n"
    )
    tail = f"{_longer_training(page)}{sum(asked)} of {len(asked)} goals for accuracy and size are met{of_speed}."
    return Markdown(head + "\n".join(said) + f"\n\n{tail}")


def in_each_runtime(page: Page, name: str) -> str:
    """Return in words how many times as fast as the parent a plan's network was for one image; "" where not known.

    In each runtime, from the slowest to the fastest time.
    """
    said = []
    for runtime, called in RUNTIMES.items():
        if ratios := page.times(name, runtime, 1):
            ends = dict.fromkeys(f"{ratio:.0f}" for ratio in (min(ratios), max(ratios)))
            said.append(f"{' to '.join(ends)} ({called})")
    return f"{', '.join(said)} times as fast" if said else ""


def processor(record: Record) -> str:
    """Return on which processor a record was timed."""
    return str(record.provenance["device"]).removeprefix("CPU (").rsplit(",", 1)[0]


def _longer_training(page: Page) -> str:
    """Say whether a parent that was trained for longer loses more with the same settings, by the first plan."""
    both = [(f, g) for g in page.found.values() if page.is_of_first(g) for f in page.like(g)]
    if not both:
        return ""
    longer, first = min(both, key=lambda pair: pair[0].plan.classes)
    of_first = f"{first.plan.name} {gap(longer.split()['gap'])}"
    epochs = f"trained for {longer.plan.parent_epochs} epochs, not {first.plan.parent_epochs}"
    if all(f.split()["gap"].mean() < g.split()["gap"].mean() for f, g in both):
        last = max(both, key=lambda pair: pair[0].plan.classes)
        after, before = (100 * f.split()["accuracy"].mean() for f in last)
        end = "yet end higher" if after > before else "and end no higher"
        return (
            f"A parent {epochs}, is harder to cut: all lose more ({of_first}), {end} "
            f"({last[0].plan.classes} classes: {after:.1f}%, not {before:.1f}%). "
        )
    return f"With a parent {epochs}: {of_first}. "


def _fast_enough(page: Page, plan: Plan) -> bool | None:
    """Return whether a plan's network is as fast as was asked, in ONNX Runtime, each time; None where not known."""
    found = [page.times(plan.name, "onnxruntime", batch) for batch in (1, 64)]
    if not plan.faster_1 or not all(found):
        return None
    return min(found[0]) >= plan.faster_1 and min(found[1]) >= plan.faster_64


def draw(found: Sequence[Found]) -> Figure:
    """Draw every subset: points against the restricted parent over the share of its multiply-adds."""
    frames = [f.split().assign(plan=f.plan.name) for f in found]
    rows = pd.concat(frames).assign(share=lambda t: 100 * t["multiply_adds"])
    names = [f.plan.name for f in found]
    height = max(1.9, 0.3 + 0.2 * len(names))  # as high as its legend
    figure, ax = plt.subplots(figsize=(figures.WIDTH, height))
    sns.scatterplot(rows, x="share", y="gap", hue="plan", style="plan", palette=figures.palette(names), ax=ax, s=28)
    ax.axhline(0, color="0.4", linewidth=1)
    ax.set(xlabel="multiply-adds, % of the parent's", ylabel="points against\nthe restricted parent")
    ax.legend(title="", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def results_table(page: Page) -> Markdown:
    """Return what every plan gave beside its goals."""
    shown = []
    for f in page.mains:
        of, plan = f.split(), f.plan
        goal = f"{-plan.points:+.1f} in {_limits(plan)}" if plan.points else "none"
        shown.append(
            {
                "network": f"{plan.name} ({plan.parent}, {len(of)} × {plan.classes})",
                "points, test": gap(of["gap"]),
                "worst": f"{of['gap'].min():+.2f}",
                "parent": tables.percent(of["parent_accuracy"].mean(), 1),
                "param.": tables.percent(of["parameters"].mean(), 1),
                "mult.-adds": tables.percent(of["multiply_adds"].mean(), 1),
                "s": f"{of['seconds'].mean():.0f}",
                "goal": goal + {None: "", True: ": met", False: ": missed"}[f.goal_met],
            }
        )
    return tables.table(
        pd.DataFrame(shown),
        "Networks for subsets, against the parent restricted to them, whose accuracy is beside; in brackets parent, "
        "subsets × classes.",
        "tab-small",
    )


def _limits(plan: Plan) -> str:
    sizes = {"parameters": plan.parameters, "multiply-adds": plan.multiply_adds}
    return ", ".join(f"{100 * v:g}% of {name}" for name, v in sizes.items() if v) or "any size"


def variants_table(page: Page) -> Markdown:
    """Return every variant beside its plan on the same subsets: what it gives, and the difference, subset by subset."""
    shown = []
    for f in page.found.values():
        if not f.plan.beside:
            continue
        mine, whole = f.split(), page.found[f.plan.beside].split()
        both = mine.index.intersection(whole.index)
        difference = mine.loc[both, "gap"] - whole.loc[both, "gap"]
        low, high = records.interval(difference)
        shown.append(
            {
                "variant": f.plan.name,
                "of": f.plan.beside,
                "n": str(len(both)),
                "points, test": gap(mine["gap"]),
                "multiply-adds": tables.percent(mine["multiply_adds"].mean(), 1),
                "difference": f"{difference.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
                "s a subset": f"{mine['seconds'].mean():.0f}",
            }
        )
    caption = "Variants, and their difference from what they are variants of, subset by subset, with its 95% interval."
    return tables.table(pd.DataFrame(shown), caption, "tab-variants")


def by_classes_table(page: Page) -> Markdown:
    """Return accuracy, size and milliseconds by the number of classes, of the parent that the page begins with."""
    shown = []
    for f in page.by_classes:
        of = f.split()
        line = {
            "classes": f.plan.classes,
            "points, test": gap(of["gap"]),
            "param.": tables.percent(of["parameters"].mean(), 1),
            "mult.-adds": tables.percent(of["multiply_adds"].mean(), 1),
        }
        for runtime, name in RUNTIMES.items():
            for quantity, (said, how) in {"ms": ("ms 1 / 64", ".3g"), "speedup": ("times as fast", ".1f")}.items():
                found = [page.times(f.plan.name, runtime, batch, quantity)[-1:] for batch in (1, 64)]
                line[f"{said}, {name}"] = " / ".join(format(of[0], how) if of else "-" for of in found)
        shown.append(line | {"n": len(of)})
    caption = (
        f"Networks of {page.mains[0].plan.parent} by the number of classes. Points: mean over n subsets ± standard "
        "error. Milliseconds: of the first subset's network, one thread, for one image and for 64, on "
        f"{processor(page.timed[-1]) if page.timed else 'no processor yet'}."
    )
    return tables.table(pd.DataFrame(shown), caption, "tab-small-by-classes")


def times_table(page: Page) -> Markdown:
    """Return the milliseconds of one network of each timed plan, beside its parent's."""
    shown = [
        {
            "network": "their parent" if row["network"] == PARENT else row["network"],
            "processor": processor(record),
            "runtime": RUNTIMES[row["runtime"]],
            "batch": row["batch"],
            "ms (quartiles)": f"{row['ms']:.3g} ({row['ms_25']:.3g} to {row['ms_75']:.3g})",
            "times as fast": f"{row['speedup']:.1f}",
            "float32 kB": f"{row['bytes_float32'] / 1000:,.0f}",
            "ONNX kB": "-" if row["bytes_onnx"] is None else f"{row['bytes_onnx'] / 1000:,.0f}",
        }
        for record in page.timed
        for row in record.rows
    ]
    caption = f"Milliseconds of a call, one thread, in turns with the parent.{_asked_speed(page)}"
    return tables.folded(pd.DataFrame(shown), "Milliseconds of every network", caption, "tab-small-times")


def int8_table(page: Page) -> Markdown:
    """Return the int8 versions beside what they were rounded from: accuracy, file, and times in ONNX Runtime."""
    shown = []
    for plan, record in page.rounded.items():
        rows = {(row["network"], row["batch"]): row for row in record.rows}
        accuracy = rows[PARENT, 1]["test_accuracy"]
        for name in (FLOAT, INT8):
            of = rows[name, 1]
            shown.append(
                {
                    "network": plan,
                    "numbers": name,
                    "points, test": f"{100 * (of['test_accuracy'] - accuracy):+.2f}",
                    "ONNX kB": f"{of['bytes_onnx'] / 1000:,.0f}",
                    "ms 1 / 64": " / ".join(f"{rows[name, batch]['ms']:.3g}" for batch in (1, 64)),
                    "times as fast 1 / 64": " / ".join(f"{rows[name, batch]['speedup']:.1f}" for batch in (1, 64)),
                }
            )
    where = ", ".join(dict.fromkeys(processor(record) for record in page.rounded.values()))
    caption = (
        "The first subset's network of each kind and its int8 version, in ONNX Runtime, one thread: points and times "
        f"against the parent in float32 (n = 1 network each), on {where}."
    )
    return tables.table(pd.DataFrame(shown), caption, "tab-small-int8")


def _asked_speed(page: Page) -> str:
    said = [
        f"{f.plan.name} {f.plan.faster_1:g} and {f.plan.faster_64:g} times"
        for f in page.mains
        if _fast_enough(page, f.plan) is not None
    ]
    return f" Asked in ONNX Runtime, at batch 1 and 64: {', '.join(said)}." if said else ""
