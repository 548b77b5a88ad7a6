"""Which way is best for a subset: everything that a user could pick instead, on the same parent and the same images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from modlib.data import Dataset
from modlib.study import figures, printed, tables
from modlib.study.columns import Load, listing, named, stand_in
from modlib.study.compared_ways import Asked, Timing, measured
from modlib.study.draws import subsets
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.pages.small_networks import Plan as SmallPlan
from modlib.study.pages.small_networks import framed, gap
from modlib.study.records import Record, Store
from modlib.study.small_networks import Subject
from modlib.study.small_networks import measured as measured_small
from modlib.zoo.datasets import load as load_images

POINTS = 1.0
"""Points that a reader of the decision table gives up at most, against the restricted parent."""
MANY = 45
"""Subsets that "many" are: all pairs of ten classes."""
MODA = "MODA, as printed"
FAMILIES = {
    "restricted parent": "restricted parent",
    "channels": "other channels",
    "torch-pruning": "other channels",
    "gradsplitter": "other channels",
    "moda": "other channels",
    "trained channels": "our channels",
    "small network": "small network",
    "one mask": "one mask of weights",
    "seam": "one mask of weights",
    "module stemming": "modules",
}
"""What figures call the ways of `modlib.study.ways.WAYS`: one colour each."""
MARKERS = dict(zip(dict.fromkeys(FAMILIES.values()), "Xovs^D", strict=False))
X_TICKS = (0.01, 0.1, 1, 5, 10, 25, 50, 100, 200, 500, 1000)
MOST_TICKS = 4
"""More of them would touch; then the powers of ten are enough."""
Y_TICKS = (1, 0, -1, -3, -10, -30)
AXES = {
    "multiply_adds": (100.0, "multiply-adds, %"),
    "ms_64": (1.0, "ms for 64 images"),
    "kept_weights": (100.0, "weights other than 0, %"),
}
"""What accuracy is drawn against: scale and label."""


@dataclass(frozen=True)
class Plan:
    """A way by the name that the page shows: one of `modlib.study.ways.WAYS`, its settings, and one or more sizes.

    `sizes`: settings that decide how small the network is. `tried`: what else was tried of the settings, with the first
    size, on held-out images. `draws`: seeds of what is drawn, see `Parent.runs`. `ours`: whether it is ours. `counts`:
    of the subsets it is run on, as `Parent.counts`, where these are fewer. `timed`: whether its networks are.
    """

    name: str
    way: str
    settings: dict[str, Any] = field(hash=False)
    sizes: list[dict] = field(hash=False)
    tried: list[dict] = field(default_factory=list, hash=False)
    draws: list[int] = field(default_factory=lambda: [0], hash=False)
    ours: bool = False
    counts: list[list[int]] = field(default_factory=list, hash=False)
    timed: bool = True

    @property
    def family(self) -> str:
        """What figures call the way."""
        return "our channels" if self.ours else FAMILIES[self.way]

    def asked(self, subject: Subject, subset: tuple[int, ...], size: Mapping[str, Any], draw: int) -> Asked:
        """Return what is asked for a subset."""
        return Asked(subject, self.way, {**self.settings, **size}, subset, draw)


@dataclass(frozen=True)
class Parent:
    """A parent whose subsets are built: `counts`: how many subsets of how many classes, as [classes, count].

    `sizes`: names of the plans that are run on it, with sizes in place of their own, for the first draw alone; empty:
    all plans, with theirs.
    """

    dataset: str
    model: str
    parent_epochs: int
    parent_recipe: str
    counts: list[list[int]] = field(hash=False)
    seed: int = 0
    sizes: dict[str, list[dict]] = field(default_factory=dict, hash=False)

    def runs(self, plan: Plan) -> list[tuple[int, int, dict[str, Any]]]:
        """Return the draws, numbers of sizes and sizes of a plan on this parent; none where it is not run.

        Further draws show what lies between draws: they are run at the first size, see `subsets_of`.
        """
        first, *further = plan.draws
        own = self.sizes.get(plan.name, []) if self.sizes else plan.sizes
        of_first = [(first, i, size) for i, size in enumerate(own)]
        return of_first if self.sizes else of_first + [(draw, 0, own[0]) for draw in further]

    @property
    def subject(self) -> Subject:
        """The parent."""
        return Subject(self.model, self.parent_epochs, self.parent_recipe, self.seed)

    def subsets(self, num_classes: int) -> list[tuple[int, ...]]:
        """Return all subsets, drawn with seed 0."""
        return [s for size, count in self.counts for s in subsets(num_classes, size, count)]

    def firsts(self, num_classes: int) -> list[tuple[int, ...]]:
        """Return the first subset of each number of classes."""
        return [subsets(num_classes, size, count)[0] for size, count in self.counts]

    def subsets_of(self, plan: Plan, num_classes: int, draw: int) -> list[tuple[int, ...]]:
        """Return the subsets that a plan is run on: the first of each number of classes, as many as it has.

        For further draws those of the first number of classes alone.
        """
        counts = self.counts if draw == plan.draws[0] else self.counts[:1]
        most = {n: count for n, count in plan.counts or counts}  # noqa: C416  pairs, as lists
        return [s for n, count in counts for s in subsets(num_classes, n, count)[: most.get(n, 0)]]


@dataclass(frozen=True)
class Page:
    """Everything that the page shows.

    `rows`: one for each way, size, subset, draw and split; `plan`, its name; `size`, the number of its size; `gap`,
    points against the restricted parent. `tried`: the same for what was tried, on the first subset of each number of
    classes below all; `setting` 0 is what was chosen. `times`: of the first subset of each
    size of subsets, by `plan` and `size`. `small`: rows of the page on small networks, of another parent.
    """

    plans: list[Plan]
    rows: pd.DataFrame
    tried: pd.DataFrame
    times: pd.DataFrame
    small: pd.DataFrame
    done: list[Record]
    networks: list[Record]

    def of(self, split: str = "test", classes: int | None = None) -> pd.DataFrame:
        """Return the rows of a split, of the first parent."""
        rows = self.rows[(self.rows["split"] == split) & self.rows["first"]]
        return rows if classes is None else rows[rows["classes"] == classes]

    @property
    def sizes_of_subsets(self) -> list[int]:
        """How many classes subsets have."""
        return sorted(self.of()["classes"].unique())

    def means(self, classes: int) -> pd.DataFrame:
        """Return the mean over subsets of each plan and size, on test images, with `held_out`, `n`, times.

        A subset counts once: with its mean over draws; seconds are those of its first draw, for further ones are
        computed beside other work. `draws`: how many there are; `spread`: between them, the standard deviation of one
        subset's points, root mean square over subsets; NaN for one draw.
        """
        seconds = ["first_seconds", "further_seconds"]
        quantities = ["gap", "parameters", "multiply_adds", "kept_weights", *seconds, "labelled_images"]
        by = ["plan", "size"]
        rows = self.of("test", classes)
        firsts = {plan.name: plan.draws[0] for plan in self.plans}
        timed = rows["draw"] == rows["plan"].map(firsts)
        drawn = rows.assign(**{s: rows[s].where(timed) for s in seconds}).groupby([*by, "subset"], sort=False)
        each = drawn[quantities].mean().reset_index()
        each["variance"], each["draws"] = drawn["gap"].var().to_numpy(), drawn.size().to_numpy()
        groups = each.groupby(by, sort=False)
        found = groups[quantities].mean()
        found["held_out"] = self.of("held_out", classes).groupby(by, sort=False)["gap"].mean()
        found["n"], found["draws"] = groups.size(), groups["draws"].max()
        found["spread"] = groups["variance"].mean() ** 0.5
        found["shown"] = groups["gap"].agg(gap)
        mine = self.times[self.times["classes"] == classes] if len(self.times) else self.times
        for batch in (1, 64):
            part = mine[mine["batch"] == batch] if len(mine) else mine
            of = part.set_index(by) if len(part) else None
            found[f"ms_{batch}"] = float("nan") if of is None else of["ms"]
            found[f"faster_{batch}"] = float("nan") if of is None else of["speedup"]
            found["kilobytes"] = float("nan") if of is None else of["bytes_float32"] / 1000
        return found.reset_index()


def run(
    ways: Sequence[Mapping[str, Any]],
    parents: Sequence[Mapping[str, Any]],
    small: Sequence[Mapping[str, Any]],
    repeats: int,
    store: Store,
) -> Page:
    """Return what all ways gave on all parents; `repeats`: rounds of the timing, 0 for none."""
    return _run(ways, parents, small, repeats, store, cache(load_images))


def experiments(
    *,
    ways: Sequence[Mapping[str, Any]],
    parents: Sequence[Mapping[str, Any]],
    small: Sequence[Mapping[str, Any]],
    repeats: int,
    results: str,
    **_: Any,
) -> list[Experiment]:
    """Return the experiments that the page reads, from its parameters."""
    store = listing(results)
    _run(ways, parents, small, repeats, store, cache(stand_in))
    return store.asked


def _run(
    ways: Sequence[Mapping[str, Any]],
    parents: Sequence[Mapping[str, Any]],
    small: Sequence[Mapping[str, Any]],
    repeats: int,
    store: Store,
    load: Load,
) -> Page:
    plans, whose, smalls = (
        named("ways", ways, Plan),
        named("parents", parents, Parent),
        named("small", small, SmallPlan),
    )
    known = {plan.name for plan in plans}
    for parent in whose:
        if unknown := set(parent.sizes) - known:
            raise ValueError(f"parents: {sorted(unknown)} are none of the ways {sorted(known)}")
    found = [_of_parent(plans, parent, load(parent.dataset), store) for parent in whose]
    rows = pd.concat([rows.assign(first=i == 0) for i, (rows, _) in enumerate(found)], ignore_index=True)
    tried, tried_done = _tried(plans, whose[0], load(whose[0].dataset), store)
    times, timed = _times(plans, whose[0], load(whose[0].dataset), repeats, store)
    others = [
        (plan, measured_small(plan.networks(load(plan.dataset).num_classes), load(plan.dataset), store))
        for plan in smalls
    ]
    small_rows = (
        pd.concat(
            [framed(done).assign(plan=plan.name, setting=_changes(plan.settings, "")) for plan, done in others],
            ignore_index=True,
        )
        if others
        else pd.DataFrame()
    )
    networks = [record for _, done in found for record in done]
    done = networks + tried_done + timed + [record for _, part in others for record in part]
    return Page(plans, rows, tried, times, small_rows, done, networks)


def _of_parent(plans: Sequence[Plan], parent: Parent, data: Dataset, store: Store) -> tuple[pd.DataFrame, list[Record]]:
    asked: list[Asked] = []
    marks: list[dict[str, Any]] = []
    for plan in plans:
        for draw, i, size in parent.runs(plan):
            for subset in parent.subsets_of(plan, data.num_classes, draw):
                asked.append(plan.asked(parent.subject, subset, size, draw))
                marks.append({"plan": plan.name, "size": i, "setting": _changes(size, "")})
    done = measured(asked, data, store)
    return pd.concat([framed([r]).assign(**m) for r, m in zip(done, marks, strict=True)], ignore_index=True), done


def _tried(plans: Sequence[Plan], parent: Parent, data: Dataset, store: Store) -> tuple[pd.DataFrame, list[Record]]:
    """Return what was tried, see `Page`; the setting that was chosen is the first of each plan."""
    asked: list[Asked] = []
    marks: list[dict[str, Any]] = []
    for plan in plans:
        for i, change in enumerate([{}, *plan.tried] if plan.tried else []):
            for subset in parent.firsts(data.num_classes):
                if len(subset) == data.num_classes:
                    continue
                settings = {**plan.sizes[0], **change}
                asked.append(plan.asked(parent.subject, subset, settings, plan.draws[0]))
                marks.append({"plan": plan.name, "setting": i, "change": change})
    done = measured(asked, data, store)
    parts = [framed([r]).assign(plan=m["plan"], setting=m["setting"]) for r, m in zip(done, marks, strict=True)]
    for part, mark in zip(parts, marks, strict=True):
        part["change"] = [mark["change"]] * len(part)
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()), done


def _times(
    plans: Sequence[Plan], parent: Parent, data: Dataset, repeats: int, store: Store
) -> tuple[pd.DataFrame, list[Record]]:
    """Return the times of the networks of the first subset of each number of classes."""
    if not repeats:
        return pd.DataFrame(), []
    rows, done = [], []
    for subset in parent.firsts(data.num_classes):
        of = {
            f"{plan.name} {i}": plan.asked(parent.subject, subset, size, plan.draws[0])
            for plan in plans
            if plan.timed and parent.runs(plan) and subset in parent.subsets_of(plan, data.num_classes, plan.draws[0])
            for i, size in enumerate(plan.sizes)
        }
        record = Timing(of, repeats).run(data, store)
        done.append(record)
        for row in record.rows:
            name, _, number = row.get("network", "").rpartition(" ")
            if number.isdigit():
                rows.append(row | {"plan": name, "size": int(number), "classes": len(subset)})
    return pd.DataFrame(rows), done


def _amount(classes: int) -> str:
    return {2: "pairs", 5: "fives", 10: "all ten"}.get(classes, f"{classes} classes")


def _best(rows: pd.DataFrame) -> pd.Series:
    """Return the row with the best accuracy on held-out images."""
    return rows.sort_values("held_out", kind="stable").iloc[-1]


def _small(rows: pd.DataFrame, most: float) -> pd.DataFrame:
    return rows[rows["multiply_adds"] <= most * 1.001]


def answer(page: Page, budgets: Sequence[float]) -> Markdown:
    """Return, for each number of classes and share of the multiply-adds, the best way, and the lightest ways."""
    said = []
    for classes in page.sizes_of_subsets:
        means = page.means(classes)
        best = [_best(rows) for rows in (_small(means, most) for most in budgets) if len(rows)]
        ways = " and ".join(f"**{name}**" for name in dict.fromkeys(row["plan"] for row in best))
        points = " and ".join(row["shown"] for row in best)
        said.append(f"- {_amount(classes)} (n = {int(means['n'].max())}): {ways or 'none'}, {points or '-'}")
    shares = " and ".join(tables.percent(most, 0) for most in budgets)
    head = (
        f"**Answer**{_first_parent(page)}. The best within {shares} of the parent's multiply-adds, in points of test "
        "accuracy against the restricted parent (± standard error):\n\n"
    )
    tail = (
        f"\n\nMasks leave few weights to store, and a network as large and slow as before. Within {POINTS:g} point: "
        f"{_lightest(page)}."
    )
    return Markdown(head + "\n".join(said) + tail + (_elsewhere(page, min(budgets)) if budgets else ""))


def _elsewhere(page: Page, most: float) -> str:
    """Say, for each further parent, which way is best there, and how the best one of the first parent does."""
    way = page.rows["plan"].map({plan.name: plan.way for plan in page.plans})
    rows = page.rows[~page.rows["first"] & (way != "restricted parent")]
    rows = _small(rows, most)
    said = []
    for (dataset, model, classes), part in tables.groups(rows, ["dataset", "model", "classes"], sort=False):
        gaps = part.groupby(["split", "plan", "size"])["gap"].mean()
        held_out, test = gaps["held_out"], gaps["test"]
        there = f"*{held_out.idxmax()[0]}* is best ({test[held_out.idxmax()]:+.2f})"
        small = _small(page.means(classes), most)
        here = _best(small)["plan"] if len(small) else ""
        if here in held_out.index.unique("plan") and here != held_out.idxmax()[0]:
            there += f"; *{here}* is at {test[here, held_out[here].idxmax()]:+.2f}"
        networks = f"{of_network(dataset, model)}, {_amount(classes)} (n = {part['subset'].nunique()})"
        said.append(f" On {networks}, within {tables.percent(most, 0)}, {there}.")
    return "".join(said)


def best_table(page: Page, budgets: Sequence[float]) -> Markdown:
    """Tabulate, for each number of classes and share of the multiply-adds, the best of ours and the best of others."""
    ours = [plan.name for plan in page.plans if plan.ours]
    lines = []
    for classes, most in product(page.sizes_of_subsets, budgets):
        rows = _small(page.means(classes), most)
        mine = rows["plan"].isin(ours)
        best = {"ours": rows[mine], "others": rows[~mine]}
        found = pd.DataFrame({name: _best(some) for name, some in best.items() if len(some)}).T
        line = {"classes": _amount(classes), "within": tables.percent(most, 0)}
        lines.append(line | {f"best of {name}": _said(found, name) for name in best})
    caption = (
        "The best networks within a share of the multiply-adds, chosen on held-out images: points of test accuracy "
        "against the restricted parent, ± standard error over subsets."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-which-way-best")


def _said(found: pd.DataFrame, name: str) -> str:
    """Return one of the best ways with its points, in bold where no other is better; `found`: the best ways by name."""
    if name not in found.index:
        return "none"
    row = found.loc[name]
    said = f"{row['plan']} {row['shown']} ({'labels' if row['labelled_images'] else 'no labels'})"
    return f"**{said}**" if row["gap"] >= found["gap"].max() else said


def _first_parent(page: Page) -> str:
    """Return in brackets which parent the answer is about; nothing where its rows don't say."""
    first = page.rows[page.rows["first"]] if {"first", "dataset", "model"} <= set(page.rows) else page.rows[:0]
    return f" ({of_network(first['dataset'].iloc[0], first['model'].iloc[0])})" if len(first) else ""


def _lightest(page: Page) -> str:
    """Return the ways with the fewest weights, each with what it holds and takes over all numbers of classes."""
    least = {_amount(classes): _least(page.means(classes), "kept_weights") for classes in page.sizes_of_subsets}
    there = pd.DataFrame({amount: row for amount, row in least.items() if row is not None}).T
    said = []
    for plan, rows in there.groupby("plan", sort=False) if len(there) else ():
        most, work = tables.percent(rows["kept_weights"].max(), 1), rows["multiply_adds"]
        times = _span(work.min(), work.max())
        taken = "the parent's" if times == "1" else f"{times} times the"
        said.append(f"{' and '.join(rows.index)} **{plan}**, {most} of weights, {taken} multiply-adds")
    return "; ".join(said) or "none"


def _span(low: float, high: float) -> str:
    ends = [f"{end:.2g}" for end in (low, high)]
    return " to ".join(dict.fromkeys(ends))


def draw(page: Page, quantity: str) -> Figure:
    """Draw accuracy against a quantity of `AXES`, a panel for each number of classes and a colour for each family."""
    scale, label = AXES[quantity]
    columns = page.sizes_of_subsets
    figure, axes = plt.subplots(1, len(columns), figsize=(figures.WIDTH, 2.5), squeeze=False)
    for ax, classes in zip(axes[0], columns, strict=True):
        _panel(ax, page, classes, quantity, scale)
        if quantity == "kept_weights":
            _mark_moda(ax, classes)
        ax.set(title=_amount(classes), xlabel=label, ylabel="points" if ax is axes[0, 0] else "")
    _legend(figure, axes[0, 0])
    return figure


def _mark_moda(ax: Axes, classes: int) -> None:
    """Mark the share of weights that MODA's authors print, where they do for this number of classes."""
    theirs = printed.numbers("moda").set_index("classes")["weights_percent"].dropna()
    if str(classes) in theirs.index:
        ax.axvline(theirs[str(classes)], color=figures.COLOURS["paper"], ls=":", label=MODA)


def _panel(ax: Axes, page: Page, classes: int, name: str, scale: float) -> None:
    colours, means = figures.palette(list(MARKERS)), page.means(classes)
    families = {plan.name: plan.family for plan in page.plans}
    for plan, part in tables.groups(means, "plan", sort=False):
        part, family = part.sort_values(name), families[plan]
        style = {"color": colours[family], "marker": MARKERS[family], "label": family}
        ax.plot(scale * part[name], part["gap"], ms=4, lw=1, **style)
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1.0)
    low, high = ax.get_xlim()
    ticks = [t for t in X_TICKS if low <= t <= high]
    ax.set_xticks(ticks if len(ticks) <= MOST_TICKS else [t for t in ticks if math.log10(t).is_integer()])
    ax.set_yticks([t for t in Y_TICKS if t >= ax.get_ylim()[0]])
    for one in (ax.xaxis, ax.yaxis):
        one.set_major_formatter("{x:g}")
        one.set_minor_locator(NullLocator())
    ax.axhline(0, color="0.4", linewidth=1)


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once, loc="outside upper center", ncol=4, frameon=False, fontsize=8)


def moda_sentence() -> Markdown:
    """Say what MODA's authors print, which has no parent beside it."""
    theirs = printed.numbers("moda").set_index("classes")
    weights, accuracy = theirs["weights_percent"], theirs["accuracy_percent"]["mean over subsets"]
    return Markdown(
        f"**MODA, as its authors print it** (theirs: another parent, VGG16 at full width): {weights['2']:g}% of the "
        f"weights for two classes, {weights['10']:g}% for ten, accuracy {accuracy:g}% as a mean over subsets. The "
        "parent's accuracy on the same subsets is not printed: points against it are not known."
    )


def table(page: Page, classes: int) -> Markdown:
    """Return all ways and sizes for one number of classes."""
    means = page.means(classes)
    several = bool((means["draws"] > 1).any())  # else the column would say nothing
    shown = [
        {
            "way": row["plan"],
            "held out": f"{row['held_out']:+.2f}",
            "test": row["shown"],
            "mult.-adds": tables.percent(row["multiply_adds"], 0),
            "param.": tables.percent(row["parameters"], 0),
            "weights ≠ 0": tables.percent(row["kept_weights"], 0),
            "kB": _number(row["kilobytes"], ",.0f"),
            "ms 1 / 64": f"{_number(row['ms_1'], '.2g')} / {_number(row['ms_64'], '.3g')}",
            **({"draws": _draws(row)} if several else {}),
            "s first / further": f"{row['first_seconds']:.0f} / {row['further_seconds']:.0f}",
            "labels": f"{row['labelled_images']:,.0f}",
            "n": int(row["n"]),
        }
        for _, row in means.iterrows()
    ]
    caption = "Points against the restricted parent, size, time, and what it takes."
    if several:
        caption += " Draws: how often what is drawn was drawn (± standard deviation between draws)."
    title = f"{_amount(classes).capitalize()}: all ways"
    return tables.folded(pd.DataFrame(shown), title, caption, f"tab-which-way-{classes}")


def _draws(row: pd.Series) -> str:
    """Return how many draws there are, and what lies between them."""
    return f"{row['draws']:.0f} (± {row['spread']:.2f})" if row["draws"] > 1 else f"{row['draws']:.0f}"


def _number(value: float, how: str) -> str:
    return "-" if pd.isna(value) else format(value, how)


Rule = Callable[[pd.DataFrame], pd.Series | None]


def _least(rows: pd.DataFrame, of: str) -> pd.Series | None:
    """Return the row with the least of something among those within `POINTS` on held-out images; None without one."""
    near = rows[(rows["held_out"] >= -POINTS) & rows[of].notna()]
    return None if near.empty else near.sort_values(of).iloc[0]


def _fastest(rows: pd.DataFrame, batch: int) -> pd.Series | None:
    """Return the fastest network within `POINTS`; None where none is a tenth faster than the parent: less is noise."""
    return _least(rows[rows[f"faster_{batch}"] >= 1.1], f"ms_{batch}")


def decision_table(page: Page, budgets: Sequence[float]) -> Markdown:
    """Return which way to take, by need: chosen by rules from the numbers above."""
    near = f"{POINTS:g} point"
    needs: dict[str, Rule] = {}
    for most in budgets:
        within = tables.percent(most, 0)
        needs[f"one subset, small and fast ({within} of multiply-adds): best accuracy"] = partial(_best_of, most=most)
        needs[f"the same ({within}), without any labels"] = partial(_best_of, most=most, labels=False)
    needs |= {
        f"many subsets ({MANY}), {tables.percent(max(budgets), 0)}: fewest seconds in all, within {near}": lambda r: (
            _least(_small(r.assign(all=r["first_seconds"] + (MANY - 1) * r["further_seconds"]), max(budgets)), "all")
        ),
        f"small file: fewest weights other than 0, within {near}": lambda r: _least(r, "kept_weights"),
        f"speed: fewest ms for one image, within {near}, a tenth less than the parent": lambda r: _fastest(r, 1),
        "speed in batches: the same for 64 images": lambda r: _fastest(r, 64),
    }
    shown = []
    for need, rule in needs.items():
        line = {"what is needed": need}
        for classes in page.sizes_of_subsets:
            line[_amount(classes)] = _choice(rule(page.means(classes)))
        shown.append(line)
    caption = (
        "What to take, by need: chosen on held-out images by the rules in the first column, shown with points on test "
        "images. Seconds: of the first subset / of each further one. Modules never fit into a share of the "
        "multiply-adds: each is a pass of its own."
    )
    return tables.table(pd.DataFrame(shown), caption, "tab-which-way-decide")


def _best_of(rows: pd.DataFrame, most: float, labels: bool = True) -> pd.Series | None:
    """Return the best row within a share of the multiply-adds; without `labels`, of the ways that need none."""
    some = _small(rows if labels else rows[rows["labelled_images"] == 0], most)
    return None if some.empty else _best(some)


def _choice(row: pd.Series | None) -> str:
    if row is None:
        return "none"
    return (
        f"{row['plan']}: {row['gap']:+.2f}, {tables.percent(row['multiply_adds'], 0)} of multiply-adds, "
        f"{tables.percent(row['kept_weights'], 0)} of weights, {row['first_seconds']:.0f} / "
        f"{row['further_seconds']:.0f} s"
    )


def tried_table(page: Page) -> Markdown:
    """Return the settings that were tried of each way, on held-out images of the first subsets."""
    if page.tried.empty:
        return Markdown("No records of these tries are kept.")
    rows = page.tried[page.tried["split"] == "held_out"]
    shown = []
    for (plan, setting), part in tables.groups(rows, ["plan", "setting"], sort=False):
        shown.append(
            {
                "way": plan,
                "setting": _changes(part["change"].iloc[0], "as chosen" if setting == 0 else ""),
                **{_amount(n): f"{points:+.2f}" for n, points in zip(part["classes"], part["gap"], strict=True)},
                "mean": f"{part['gap'].mean():+.2f}",
                "weights ≠ 0": tables.percent(part["kept_weights"].mean(), 0),
            }
        )
    return tables.folded(
        pd.DataFrame(shown),
        "What was tried of each way",
        "Points on held-out images of the first subset of each size, and their mean.",
        "tab-which-way-tried",
    )


def _changes(change: Mapping[str, Any], otherwise: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in change.items()) or otherwise


def other_parents(page: Page) -> Markdown:
    """Return the ways that were run on further parents, and those of the page on small networks."""
    rows = page.rows[~page.rows["first"] & (page.rows["split"] == "test")]
    parts = [rows, page.small[page.small["split"] == "test"]] if len(page.small) else [rows]
    every = pd.concat(parts, ignore_index=True)
    if every.empty:
        return Markdown("No further parent.")
    every = every.fillna({"size": 0, "setting": ""})
    shown = [
        {
            "parent": of_network(dataset, model),
            "classes": int(classes),
            "way": plan,
            "setting": part["setting"].iloc[0],
            "test": gap(part["gap"]),
            "mult.-adds": tables.percent(part["multiply_adds"].mean(), 1),
            "param.": tables.percent(part["parameters"].mean(), 1),
            "n": len(part),
        }
        for (dataset, model, classes, plan, _), part in tables.groups(
            every, ["dataset", "model", "classes", "plan", "size"], sort=False
        )
    ]
    return tables.table(pd.DataFrame(shown), "Further parents.", "tab-which-way-others")


def every_table(page: Page) -> Markdown:
    """Return the tables of all numbers of classes, one below the other."""
    return Markdown("\n\n".join(table(page, classes).data for classes in page.sizes_of_subsets))
