"""The frontier in one pass: the union of masks that were or were not trained for it, beside one shared mask as large.

Settings of the hybrid (`modlib.study.one_pass`) are tried with the first seed; the one that is most accurate in one
pass of all classes on held-out images, of those whose union is small enough, runs with the other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import pandas as pd
from IPython.display import Markdown

from modlib import recipes
from modlib.recipes import Recipe
from modlib.study import comparison, one_pass, records, tables
from modlib.study.columns import Column, Listing, last_layer
from modlib.study.experiment import Experiment
from modlib.study.records import Record, signed
from modlib.study.trials import SPLITS

HELD_OUT, TEST = SPLITS


@dataclass(frozen=True)
class Hybrid(Column):
    """A setting of the hybrid: shares kept, stemming, the weight of the one-pass loss, epochs."""

    hidden: float
    output: float
    alpha: float
    one_pass: float
    epochs: int

    @property
    def words(self) -> str:
        """The setting in the words of the table."""
        shares = f"{self.hidden:.1%} / {self.output:.0%}"
        return f"{shares}, α = {self.alpha:g}, weight {self.one_pass:g}, {self.epochs} epochs"


@dataclass(frozen=True)
class Asked:
    """What is asked of one network. `setup`: of the page's chosen modules; `rate`: of the scores of one shared mask."""

    name: str
    setup: comparison.Setup
    hybrids: Sequence[Hybrid]
    largest: float
    """Share of the weights that the union of all classes of the hybrid may hold."""
    rate: float
    seeds: Sequence[int]

    def recipe(self, hybrid: Hybrid) -> Recipe:
        """Return the recipe of a setting; vote loss and initial scores are those of the page's modules."""
        shares = {"default": hybrid.hidden, last_layer(hybrid.model): hybrid.output}
        ours = self.setup.recipe
        return recipes.ours(k=shares, alpha=hybrid.alpha, epochs=hybrid.epochs, vote=ours.vote, init=ours.init)

    def trained(self, hybrid: Hybrid, seed: int) -> Record:
        """Return the record of one setting and seed."""
        return one_pass.trained(replace(self.setup, recipe=self.recipe(hybrid)), hybrid.one_pass, seed)

    def tried(self) -> list[Record]:
        """Return the records of all settings with the first seed."""
        return [self.trained(hybrid, self.seeds[0]) for hybrid in self.hybrids]

    def best(self, tried: Sequence[Record]) -> int:
        """Return the position of the setting to run with all seeds, by held-out images; of all, if none is small."""
        rows = [of_size(record, HELD_OUT, one_pass.SIZES[-1]) for record in tried]
        small = [i for i, row in enumerate(rows) if row["union"] <= self.largest]
        return max(small or range(len(rows)), key=lambda i: float(rows[i]["one_pass"]))

    def others(self, hybrid: Hybrid) -> list[Record]:
        """Return the records of the chosen setting with the other seeds."""
        return [self.trained(hybrid, seed) for seed in self.seeds[1:]]

    def shared(self, of_hybrid: Sequence[Record], size: int) -> list[Record]:
        """Return one shared mask for each seed, as large in every layer as the hybrid's unions of `size` classes."""
        setup = replace(self.setup, recipe=replace(self.setup.recipe, lr=self.rate))
        return [
            one_pass.shared(setup, of_size(record, HELD_OUT, size)["by_layer"], seed)
            for record, seed in zip(of_hybrid, self.seeds, strict=True)
        ]


@dataclass(frozen=True)
class Found:
    """What was found for one network; records of the chosen setting and its rivals: one for each seed."""

    asked: Asked
    tried: list[Record]
    chosen: Hybrid
    hybrid: list[Record]
    modules: list[Record]
    shared: Mapping[int, list[Record]]
    """By number of classes."""

    @property
    def records(self) -> list[Record]:
        """All records, each once."""
        masks = [record for part in self.shared.values() for record in part]
        return [*self.tried, *self.hybrid[1:], *self.modules, *masks]

    def lead(self, size: int) -> pd.Series:
        """Return the points by which one pass of the hybrid leads the shared mask of its size, by seed."""
        return points(self.hybrid, "one_pass", size) - points(self.shared[size], "one_pass", size)


def of_size(record: Record, split: str, size: int) -> dict[str, Any]:
    """Return the row of one split and number of classes; of the largest measured, where there are fewer classes."""
    return [row for row in record.rows if row["split"] == split and row["classes"] <= size][-1]


def points(done: Sequence[Record], way: str, size: int, split: str = TEST) -> pd.Series:
    """Return points against the restricted parent, `way` "one_pass" or "k_passes", one for each record."""
    rows = [of_size(record, split, size) for record in done]
    return pd.Series([100 * (row[way] - row["parent_accuracy"]) for row in rows])


def run(asked: Asked) -> Found:
    """Try the settings, choose, and run the chosen one and its rivals with all seeds."""
    tried = asked.tried()
    which = asked.best(tried)
    hybrid = [tried[which], *asked.others(asked.hybrids[which])]
    modules = [one_pass.of_modules(asked.setup, seed) for seed in asked.seeds]
    shared = {size: asked.shared(hybrid, size) for size in one_pass.SIZES}
    return Found(asked, tried, asked.hybrids[which], hybrid, modules, shared)


def listed(asked: Asked, store: Listing) -> list[Experiment]:
    """Return the experiments of `run`, as far as can be told from the records that are there; `store`: the setup's."""
    store.asked.clear()
    tried = asked.tried()
    if all(one.is_done(store) for one in store.asked):
        asked.others(asked.hybrids[asked.best(tried)])
        if all(one.is_done(store) for one in store.asked):
            run(asked)
    return list({one.name: one for one in store.asked}.values())


def answer(found: Sequence[Found]) -> Markdown:
    """Return whether one pass of the hybrid is better than one shared mask of its size, and what it costs."""
    if not found:
        return Markdown("No hybrid was asked for.")
    return Markdown("\n".join([_verdict(found), "", *map(_said, found)]))


def _verdict(found: Sequence[Found]) -> str:
    intervals = {(one.asked.name, size): records.interval(one.lead(size)) for one in found for size in one_pass.SIZES}
    if any(len(one.hybrid) == 1 for one in found):
        return "**This run has one trial, which has no interval:** whether one pass of the hybrid pays is open."
    ahead = [f"{name}, {size} classes" for (name, size), (low, _) in intervals.items() if low > 0]
    behind = sum(high < 0 for _, high in intervals.values())
    if ahead:
        return (
            f"**One pass of the hybrid beats one shared mask of its size in {len(ahead)} of {len(intervals)} cases** "
            f"(the 95% interval of the difference lies above 0): {'; '.join(ahead)}. It is worse in {behind}."
        )
    return (
        "**One pass of the hybrid pays nowhere here.** In none of the "
        f"{len(intervals)} cases is it better than one shared mask of its size, and in {behind} it is worse (by the "
        "95% interval of the difference)."
    )


def _said(one: Found) -> str:
    setup, most = one.asked.setup, one_pass.SIZES[-1]
    leads = ", ".join(
        f"{signed(one.lead(size))} points for {size} classes ({_between(one.lead(size))})" for size in one_pass.SIZES
    )
    in_k, in_one = (points(one.hybrid, way, most) for way in ("k_passes", "one_pass"))
    chosen = points(one.modules, "k_passes", most)
    cost = one.chosen.epochs * (setup.data.num_classes + 1)
    return (
        f"- **{one.asked.name}** (n = {len(one.hybrid)}). One pass of the hybrid against the shared mask: {leads}. For "
        f"{most} classes its K passes lead its one pass by {signed(in_k - in_one)} points. They are at {signed(in_k)} "
        f"points against the parent, in {_kept(one.hybrid, most)} of the weights; our chosen modules are at "
        f"{signed(chosen)}, in {_kept(one.modules, most)}. In training the hybrid takes {cost} passes of each image, "
        f"the shared mask {setup.recipe.epochs}."
    )


def _between(lead: pd.Series) -> str:
    low, high = records.interval(lead)
    return f"95% interval {low:+.2f} to {high:+.2f}" if len(lead) > 1 else "one trial"


def table(found: Sequence[Found]) -> Markdown:
    """Return the table of K passes and of one, test images: points against the restricted parent, and sizes."""
    lines = [line for one in found for line in _lines(one)]
    caption = (
        "In one pass and in K: points against the restricted parent on the same test images, in the share of the "
        "weights that is kept. Means over subsets of so many classes (all pairs, 45 of five, all ten), ± standard "
        "deviation over n trials. The shared mask keeps as much of every layer as the hybrid's union."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-frontier-one-pass")


def _lines(one: Found) -> list[dict[str, Any]]:
    alike, modules = (dict.fromkeys(one_pass.SIZES, done) for done in (one.hybrid, one.modules))
    hybrid = "hybrid" if one.chosen.one_pass < 1 else "trained for one pass alone"
    ways = [
        ("our chosen modules", "K", modules, "k_passes"),
        ("the same, their union", "1", modules, "one_pass"),
        (f"{hybrid}, its union", "1", alike, "one_pass"),
        (f"{hybrid}, its modules", "K", alike, "k_passes"),
        ("one shared mask of the hybrid's size", "1", one.shared, "one_pass"),
    ]
    return [
        {"network": one.asked.name, "masks": name, "passes": passes}
        | {f"{size} classes": _cell(done[size], way, size) for size in one_pass.SIZES}
        | {"n": len(one.hybrid)}
        for name, passes, done, way in ways
    ]


def _cell(done: Sequence[Record], way: str, size: int) -> str:
    return f"{signed(points(done, way, size))} in {_kept(done, size)}"


def _kept(done: Sequence[Record], size: int) -> str:
    """Return the mean share of the weights in unions of `size` classes."""
    return tables.percent(fmean(of_size(record, TEST, size)["union"] for record in done))


def tried(found: Sequence[Found]) -> Markdown:
    """Return the table of the settings of the hybrid that were tried, folded: held-out images, the first seed."""
    lines = []
    for one in found:
        for hybrid, record in zip(one.asked.hybrids, one.tried, strict=True):
            line = {"network": one.asked.name, "setting": hybrid.words}
            if hybrid == one.chosen:
                line["setting"] = f"**{hybrid.words}**"
            for size in one_pass.SIZES:
                gaps = [points([record], way, size, HELD_OUT) for way in ("one_pass", "k_passes")]
                kept = tables.percent(of_size(record, HELD_OUT, size)["union"])
                line[f"{size} classes"] = f"{signed(gaps[0])} / {signed(gaps[1])} in {kept}"
            lines.append(line)
    largest = "; ".join(f"{one.asked.name}: {one.asked.largest:.0%}" for one in found)
    words = (
        "Points against the restricted parent in one pass / in K passes, in the share of the weights of the union; "
        "held-out images, the first seed. A setting: shares kept in the hidden layers / the output layer, α, the "
        "weight of the one-pass loss, epochs. Bold: chosen, the most accurate in one pass of all classes, of those "
        f"whose union is small enough ({largest} of the weights)."
    )
    return tables.folded(pd.DataFrame(lines), "Settings tried for one pass", words, "tab-frontier-one-pass-tried")
