"""Settings that work: the recommended call on parents of different kinds, and how each of its constants was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from modlib.study import figures, records, tables
from modlib.study.columns import named
from modlib.study.experiment import Experiment
from modlib.study.names import of_data
from modlib.study.records import Record, Store
from modlib.study.six_parents import KINDS, Asked, load

CLOSE = 0.03
"""A vote no further behind its parent than this is within reach of it."""


@dataclass(frozen=True)
class Candidate:
    """Settings that were tried instead of the recommended ones: a name, what is changed, and of which parents.

    `kinds`: default, all of the page's.
    """

    name: str
    changes: dict[str, Any]
    kinds: list[str] | None = None


@dataclass(frozen=True)
class Page:
    """The parameters of the page that its results depend on; the notebook says what each is."""

    kinds: Sequence[str]
    dataset: str
    parent_epochs: int
    changes: Mapping[str, Any]
    seeds: Sequence[int]
    candidates: Sequence[Mapping[str, Any]]
    images: int

    def recommended(self) -> list[Asked]:
        """Return what is asked of the recommended settings; of the first seed, on held-out images too."""
        return [
            self._asked(kind, {}, seed, ("held_out", "test") if seed == self.seeds[0] else ("test",))
            for kind in self.kinds
            for seed in self.seeds
        ]

    def tried(self) -> dict[str, list[Asked]]:
        """Return what is asked of other settings, on held-out images, by the name of the settings."""
        return {
            one.name: [
                self._asked(kind, one.changes, self.seeds[0], ("held_out",))
                for kind in self.kinds
                if kind in (one.kinds or self.kinds)
            ]
            for one in named("candidates", self.candidates, Candidate)
        }

    def _asked(self, kind: str, changes: Mapping[str, Any], seed: int, splits: tuple[str, ...]) -> Asked:
        return Asked(kind, {**self.changes, **changes}, seed, splits, self.images, self.dataset, self.parent_epochs)


def experiments(**parameters: Any) -> list[Experiment]:
    """Return the experiments that the page reads, from its parameters."""
    page = Page(**{name: parameters[name] for name in Page.__dataclass_fields__})
    return [one.experiment for part in (page.recommended(), *page.tried().values()) for one in part]


@dataclass(frozen=True)
class Done:
    """The records of the recommended settings, and of those that were tried instead, by name."""

    recommended: list[Record]
    tried: dict[str, list[Record]]

    @property
    def all(self) -> list[Record]:
        """All records, those of the recommended settings first."""
        return [*self.recommended, *(record for part in self.tried.values() for record in part)]

    @property
    def gaps(self) -> pd.DataFrame:
        """The rows of the recommended settings on test images."""
        return records.frame(self.recommended).query("split == 'test'")


def run(page: Page, store: Store) -> Done:
    """Return the records of the page, one parent after another."""
    recommended: list[Record] = []
    tried: dict[str, list[Record]] = {name: [] for name in page.tried()}
    for kind in page.kinds:
        given = load(kind, page.dataset)
        recommended += [one.run(given, store) for one in page.recommended() if one.kind == kind]
        for name, part in page.tried().items():
            tried[name] += [one.run(given, store) for one in part if one.kind == kind]
    return Done(recommended, tried)


def answer(done: Done) -> Markdown:
    """Return how many parents the vote comes close to, and how far the others are away."""
    means, trials = done.gaps.groupby("kind", sort=False)["gap"].mean(), done.gaps["seed"].nunique()
    close, far = means[means <= CLOSE], means[means > CLOSE]
    rest = ""
    if len(far):
        each = ", ".join(f"{KINDS[str(kind)].words} {100 * gap:.1f}" for kind, gap in far.items())
        rest = f" Further behind: {each} points."
    return Markdown(
        f"**Answer.** On {len(close)} of {len(means)} parents the vote of all modules is within "
        f"{100 * CLOSE:.0f} points of the parent, {100 * means.mean():.1f} behind on average and "
        f"{100 * means.max():.1f} at most (test images, n = {trials} decompositions of each).{rest} "
        f"A pair keeps {_span(done.gaps, 'pairs')} of the maskable weights, all classes "
        f"{_span(done.gaps, 'all')}. It takes {done.gaps['seconds'].min():.0f} to "
        f"{done.gaps['seconds'].max():.0f} seconds of one core."
    )


def _span(rows: pd.DataFrame, column: str) -> str:
    means = rows.groupby("kind")[column].mean()
    return f"{100 * means.min():.0f} to {100 * means.max():.0f}%"


def draw(done: Done) -> Figure:
    """Draw how far the vote is behind each parent: a point for each decomposition, dashed where it is close."""
    rows = done.gaps
    kinds = list(rows["kind"].unique())
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 0.8 + 0.24 * len(kinds)))
    ax.axvline(-100 * CLOSE, color="black", linestyle="--", linewidth=1)
    ax.axvline(0, color="grey", linewidth=1)
    ax.plot(
        -100 * rows["gap"], rows["kind"].map(kinds.index), "o", color=figures.COLOURS["ours, with vote loss"], alpha=0.7
    )
    ax.set_yticks(range(len(kinds)), [KINDS[kind].words for kind in kinds])
    ax.invert_yaxis()
    ax.set_xlabel("points against the parent (test images)")
    return figure


def data_in_words(name: str) -> str:
    """Return what readers see in place of a data set's name; "<name> table" is its images as rows of a table."""
    dataset, *table = name.split(" ", 1)
    return " ".join([of_data(dataset), *table])


def result_table(done: Done) -> Markdown:
    """Return parent, vote, gap, sizes and seconds for each parent."""
    shown = []
    for kind, part in tables.groups(done.gaps, "kind", sort=False):
        shown.append(
            {
                "parent": KINDS[kind].words,
                "data": data_in_words(part["data"].iloc[0]),
                "weights": f"{part['weights'].iloc[0]:,}",
                "masked": tables.percent(part["masked"].iloc[0], 0),
                "parent right": tables.percent(part["parent"].mean()),
                "vote right": tables.percent(part["vote"].mean()),
                "points behind": records.mean_and_spread(part["gap"]),
                "kept: one / pair / all": " / ".join(f"{100 * part[c].mean():.0f}" for c in ("module", "pairs", "all")),
                "seconds": f"{part['seconds'].mean():.0f}",
            }
        )
    caption = (
        f"The recommended call on test images, mean ± standard deviation over {done.gaps['seed'].nunique()} seeds of "
        "the decomposition. *Masked*: share of a parent's weights that masks choose among; *kept*: shares of these, in "
        "%; *seconds* of a processor's time, one thread."
    )
    return tables.table(pd.DataFrame(shown), caption, "tab-recommended")


def candidate_table(done: Done) -> Markdown:
    """Return the gap on held-out images of every setting tried, a column for each parent."""
    kinds = list(done.gaps["kind"].unique())
    shown = []
    for name, part in {"recommended": done.recommended, **done.tried}.items():
        rows = records.frame(part).query("split == 'held_out'").set_index("kind")
        gap, kept = (100 * rows[column].reindex(kinds) for column in ("gap", "all"))
        cells = {KINDS[c].words: f"{gap[c]:.1f} ({kept[c]:.0f}%)" if c in rows.index else "" for c in kinds}
        shown.append({"settings": name, **cells})
    images = rows["images"].min()
    caption = (
        f"Points behind the parent on {images:,} held-out images, and the share of maskable weights that all ten "
        "modules keep; one seed. Each row changes one thing of the recommended settings; an empty cell is what "
        "is recommended already, or was not tried."
    )
    return tables.folded(pd.DataFrame(shown), "Every setting that was tried", caption, "tab-recommended-candidates")


def compared(done: Done) -> Markdown:
    """Return how much closer or further other settings are, on average over the parents that they were tried on."""
    own = _held_out(done.recommended)
    said = []
    for name, part in done.tried.items():
        change = (_held_out(part) - own).dropna()
        said.append((float(change.mean()), f"{name} {100 * change.mean():+.1f} ({len(change)})"))
    lines = ", ".join(text for _, text in sorted(said))
    return Markdown(
        "Points further behind than the recommended settings, on average over the parents that were tried (how many); "
        f"below 0 is better: {lines}. What is better keeps more, or is worse on some parent."
    )


def _held_out(part: list[Record]) -> pd.Series:
    return records.frame(part).query("split == 'held_out'").set_index("kind")["gap"]


def settings_table(done: Done) -> Markdown:
    """Return the settings that were recommended, a column for each set of them."""
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for record in done.recommended:
        row = record.rows[0]
        of = found.setdefault(repr(row["recipe"]), (row["recipe"], []))[1]
        if KINDS[row["kind"]].words not in of:
            of.append(KINDS[row["kind"]].words)
    names = sorted({name for recipe, _ in found.values() for name in recipe})
    shown = [
        {"setting": f"`{name}`"} | {", ".join(kinds): str(recipe.get(name, "")) for recipe, kinds in found.values()}
        for name in names
    ]
    return tables.table(
        pd.DataFrame(shown), "What is recommended; the rest is as in `Recipe`.", "tab-recommended-settings"
    )
