"""The scoreboard: the paper's claims, judged here or on the pages that have the evidence, counted and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.container import BarContainer
from matplotlib.ticker import MaxNLocator

from modlib import metrics
from modlib.data import Dataset
from modlib.study import cards, claims, grids, printed, records, tables, verdicts
from modlib.study.cards import Card
from modlib.study.claims import VERDICTS, Claim
from modlib.study.experiment import Experiment
from modlib.study.grids import FirstColumn
from modlib.study.pages import text_claims
from modlib.study.records import Record, Store, against_parent, mean_and_spread
from modlib.study.reproduce import Layout
from modlib.study.trials import chosen_epochs, last_epochs, module_rows
from modlib.study.verdicts import ACCURACY, JACCARD_INDEX, MODULE_ACCURACY, OPEN, REMAINING, Quantity
from modlib.zoo import datasets

ON_TRIALS = "table1"
ON_DATA = "experimental_setup"
CENTRAL, NUMBERS, SLIPS = "Central claims", "Numbers and details", "Slips of the text"
GROUPS = {
    CENTRAL: "What the paper is about.",
    NUMBERS: "Whether what it prints, or says in passing, comes out again.",
    SLIPS: "Sentences that the data, an identity or the paper's own tables decide.",
}
"""The groups of the scoreboard, and what is in them."""
DETAILS = ("table1", "table2", "preliminaries")
"""Pages whose claims are numbers and details."""
NOT_HERE = "the data are not on this machine"
ORDER = ("does not hold", "partly", "close", "holds", "open")
"""Of the cards in a group: what a reader should know first."""
COLOURS = dict(zip(VERDICTS, ("#009e73", "#56b4e9", "#e69f00", "#d55e00", "#999999"), strict=True))
JUDGED_ELSEWHERE = (
    ("MNIST FC2 to FC4 and F-MNIST under the published recipe", "Table 1", "seven further networks", "table1"),
    ("Initial score sharing has no significant effect", "Ablation Study", "0.175 and 0.173; 0.122 and 0.122", "table2"),
    ("p = 1 changes more slowly than p = 2", "Preliminaries", "no number", "preliminaries"),
    ("Method A is not equal to or better than method B", "Module Co-training", "no number", "preliminaries"),
    ("The accuracy decreased as the remaining parameters increased", "Figure 3", "no number", "figure3"),
    ("Each module holds only the function of its own class", "Table 6", "44.8% off the diagonal", "table6"),
    ("A module outperforms the parent at its own class", "Grafting Layer", "no number", "controls"),
    ("Faster than learning a small model from scratch", "Required Properties", "no number", "controls"),
    ("No assumption about the network architecture", "Abstract", "no number", "architectures"),
)
"""Claim, place, what is printed, and the page that judges it: the row that stands where the page has not yet."""


def experiments(table1: str, **_: Any) -> list[Experiment]:
    """Return the trials that the page reads or computes; `table1`: which run of Table 1."""
    return FirstColumn.of(table1).experiments()


@dataclass(frozen=True)
class Evidence:
    """The first column of Table 1, its records, and the claims that other pages have judged."""

    column: FirstColumn
    done: list[Record]
    gathered: dict[str, list[Claim]]
    of_text: Sequence[tuple[Claim, str, bool]]

    @cached_property
    def last(self) -> pd.DataFrame:
        """All trials after their last epoch, test images."""
        return last_epochs(records.frame(self.done))

    @cached_property
    def apart(self) -> pd.DataFrame:
        """Those of recipe published without stemming."""
        return self.last[(self.last["recipe"] == "published") & (self.last["alpha"] == 0)]

    @cached_property
    def stemmed(self) -> pd.DataFrame:
        """Those of recipe published with stemming."""
        return self.last[(self.last["recipe"] == "published") & (self.last["alpha"] > 0)]

    @cached_property
    def maxima(self) -> pd.DataFrame:
        """Of those without stemming the mean over modules of each one's highest accuracy on test, as in Table 5."""
        chosen = chosen_epochs(module_rows(self.done)).query("recipe == 'published' and alpha == 0")
        return chosen.groupby("seed")["maximum"].mean().rename("module_accuracy").reset_index()

    @property
    def comparable(self) -> bool:
        """Whether the trials are of the network and the data that the paper's numbers are of."""
        return grids.is_papers(self.column.dataset, self.column.model, self.column.settings.k)


@dataclass(frozen=True)
class Row:
    """A claim, judged, the stem of the page that has the evidence, and one of `GROUPS`."""

    claim: Claim
    page: str
    group: str = CENTRAL


def read(table1: str, store: Store) -> Evidence:
    """Read the first column of a run of Table 1, and the claims of all pages; compute the trials that are not there."""
    column = FirstColumn.of(table1)
    gathered = claims.gather(store, Layout.here().stems())
    return Evidence(column, column.run(store), gathered, list(text_claims.judged(store)))


def board_of(evidence: Evidence) -> pd.DataFrame:
    """Return the scoreboard, one row for each claim, or for each of its parts."""
    rows = [*_on_trials(evidence), *_on_the_papers_numbers(), *_on_accuracies(evidence), *_on_data()]
    rows += [
        Row(claim, stem, NUMBERS if stem in DETAILS else CENTRAL)
        for stem, of_page in evidence.gathered.items()
        for claim in of_page
    ]
    rows += [
        Row(Claim(text, where, paper, "not run yet", OPEN, ""), page, NUMBERS if page in DETAILS else CENTRAL)
        for text, where, paper, page in JUDGED_ELSEWHERE
        if page not in evidence.gathered
    ]
    rows += [Row(claim, page, CENTRAL if central else NUMBERS) for claim, page, central in evidence.of_text]
    rows += [Row(claim, page, SLIPS) for claim, page in text_claims.on_its_text()]
    return pd.DataFrame([asdict(row.claim) | {"page": row.page, "group": row.group} for row in rows])


def _trial_row(
    evidence: Evidence,
    text: str,
    where: str,
    paper: str,
    here: str,
    verdict: str,
    n: int,
    group: str = CENTRAL,
    page: str = ON_TRIALS,
) -> Row:
    """Return a row that rests on the trials: open, where they are not of the paper's network and data."""
    return Row(Claim(text, where, paper, here, verdict if evidence.comparable else OPEN, n), page, group)


def _on_trials(evidence: Evidence) -> Iterator[Row]:
    """Judge numbers of the paper's Tables 1 and 2, and what it says of remaining parameters."""
    apart, stemmed, k = evidence.apart, evidence.stemmed, evidence.column.settings.k
    paper = printed.table1_column("mnist", "fc1").set_index("method").T[printed.STEMMING]
    yield _of_some_alpha(evidence, "recomposed accuracy (%)", ACCURACY, float(paper["accuracy_percent"]))
    yield _of_some_alpha(evidence, "Jaccard index of the masks", JACCARD_INDEX, float(paper["jaccard_index"]))
    sharing = printed.shared_remaining_parameters()
    yield _at_epoch_25(evidence, 0, apart, sharing[False])
    yield _at_epoch_25(evidence, 1, stemmed, sharing[True])
    where = "Evaluation of Composability"
    yield _trial_row(
        evidence,
        "Stemming significantly reduces the parameters that recomposing needs",
        where,
        f"{sharing[False]:.3f} → {sharing[True]:.3f}",
        f"{REMAINING.mean(apart):.3f} → {REMAINING.mean(stemmed):.3f}",
        verdicts.yes(stemmed["remaining_parameters"].max() < apart["remaining_parameters"].min()),
        len(stemmed),
    )
    yield _trial_row(
        evidence,
        "Without stemming, two-class remaining parameters are close to 2k",
        where,
        "close to 0.2 at k = 10%",
        f"{REMAINING.mean(apart):.3f} at k = {k:.0%}; two independent masks: {2 * k - k * k:.3f}",
        verdicts.graded(REMAINING.mean(apart) / k, 1.9, 1.5),
        len(apart),
    )
    converge = "With stemming, the remaining parameters converge to close to 0.5"
    bounds = f"between k and 2k, {k:.2f} and {2 * k:.2f}, whatever the masks"
    yield Row(Claim(converge, where, "0.5", bounds, verdicts.DOES_NOT_HOLD, ""), "evaluation", SLIPS)


def _of_some_alpha(evidence: Evidence, what: str, quantity: Quantity, paper: float) -> Row:
    """Judge a number of the paper's Table 1, which does not say its alpha."""
    ends = (evidence.apart, evidence.stemmed)
    here = "; ".join(f"{quantity.text(trials)} at α = {alpha}" for alpha, trials in enumerate(ends))
    verdict = verdicts.of_some_alpha(quantity, ends, paper)
    text, said = f"MNIST FC1: {what}", f"{paper:.2f}, its α not given"
    return _trial_row(evidence, text, "Table 1", said, here, verdict, len(evidence.stemmed), NUMBERS)


def _at_epoch_25(evidence: Evidence, alpha: int, trials: pd.DataFrame, paper: float) -> Row:
    """Judge a number of the paper's Table 2, of epoch 25."""
    every = records.frame(evidence.done)
    rows = every[(every["recipe"] == "published") & (every["alpha"] == alpha) & (every["split"] == "test")]
    then = rows[rows["epoch"] == 25] if evidence.comparable else trials
    text = f"MNIST FC1: two-class remaining parameters at epoch 25, α = {alpha}"
    verdict = REMAINING.verdict(then, paper) if len(then) else OPEN
    return _trial_row(evidence, text, "Table 2", f"{paper:.4f}", REMAINING.text(then), verdict, len(then), NUMBERS)


def _ahead(quantity: str) -> tuple[int, int]:
    """Return in how many columns of the paper's Table 1 module stemming is highest in a quantity, and of how many."""
    wide = printed.numbers("table1").pivot(index=["dataset", "model"], columns="method", values=quantity)
    others = wide.drop(columns=printed.STEMMING).max(axis=1)
    return int((wide[printed.STEMMING] > others).sum()), len(wide)


def _on_the_papers_numbers() -> Iterator[Row]:
    """Judge what the paper concludes from its own Table 1."""
    where = "Evaluation of Decomposability"
    ahead, every = _ahead("accuracy_percent")
    text = "The accuracy is also higher than the baseline in most cases"
    here = f"{ahead} of {every} networks in the paper's own table"
    verdict = verdicts.yes(ahead > every / 2)
    yield Row(Claim(text, where, "most cases", here, verdict, ""), "evaluation", SLIPS)
    higher, every = _ahead("jaccard_index")
    text = "Module stemming outperforms the older method in terms of the Jaccard index"
    here = f"{higher} of {every} networks as printed; and the rows print two different quantities"
    verdict = verdicts.yes(higher == every)
    yield Row(Claim(text, where, "all networks", here, verdict, ""), "../deviations", SLIPS)


def _on_accuracies(evidence: Evidence) -> Iterator[Row]:
    """Judge the accuracy of single modules, and that of recomposed networks."""
    maxima, stemmed, table5 = evidence.maxima, evidence.stemmed, printed.numbers("table5")
    average = table5[(table5["module"] == "avg") & (table5["model"] == "fc1")].set_index("alpha")["accuracy_percent"]
    yield _trial_row(
        evidence,
        "Modules classify their own class accurately (mean over modules, all test images)",
        "Table 5",
        f"{average.min():.2f} to {average.max():.2f}%, the maximum over epochs on test",
        f"{MODULE_ACCURACY.text(maxima)}%, the same maximum, α = 0 (the paper's α = 0: {average[0]:.2f}%)",
        MODULE_ACCURACY.verdict(maxima, average[0]),
        len(maxima),
        NUMBERS,
        "table5",
    )
    gaps = [against_parent(rows).mean() for rows in (evidence.apart, stemmed)]
    yield _trial_row(
        evidence,
        "Recomposed networks classify with high accuracy",
        "Required Properties",
        "no number",
        f"{gaps[0]:+.2f} points against the parents at α = 0, {gaps[1]:+.2f} at α = 1 (the paper does not say which); "
        f"two-class networks {mean_and_spread(stemmed['pair_accuracy'])}% at α = 1",
        verdicts.graded(min(gaps), -1, -5),
        len(stemmed),
    )


def _on_data() -> Iterator[Row]:
    """Judge what the paper says of MNIST and F-MNIST; open where they are not on this machine."""
    here, verdict = NOT_HERE, OPEN
    data = _training_part("mnist")
    if data is not None:
        counts = np.bincount(data.train_labels)
        here = f"{counts.min():,} to {counts.max():,} training images a class"
        verdict = verdicts.yes(counts.min() == counts.max())
    text = "MNIST has an equal number of images of each class"
    yield Row(Claim(text, "Dataset", "equal", here, verdict, ""), ON_DATA, SLIPS)
    here, verdict = NOT_HERE, OPEN
    data = _training_part("fashion_mnist")
    if data is not None:
        levels = len(np.unique(data.train_images))
        here, verdict = f"{levels} grey levels", verdicts.yes(levels == 2)
    yield Row(Claim("F-MNIST has binary images", "Dataset", "binary", here, verdict, ""), ON_DATA, SLIPS)


def _training_part(name: str) -> Dataset | None:
    """Return a data set with its whole training split, or None where it is not on this machine."""
    try:
        return datasets.load(name, held_out=0)
    except ValueError:
        return None


def counted(board: pd.DataFrame) -> pd.DataFrame:
    """Return group, claim and verdict, every claim once."""
    return board.groupby(["group", "claim"], sort=False)["verdict"].agg(verdicts.of_rows).reset_index()


def group_cards(board: pd.DataFrame, group: str) -> Markdown:
    """Return the claims of one of `GROUPS` as cards, those that don't hold first."""
    mine = board[board["group"] == group]
    made = []
    for _, rows in mine.groupby("claim", sort=False):
        verdict, first = verdicts.of_rows(rows["verdict"]), rows.iloc[0]
        here = " · ".join(f"{row['here']}{_n(row['n'])}" for _, row in rows.iterrows())
        text = f"*The paper* ({first['where']}): {first['paper']}. *Here:* {here}."
        change = text_claims.WOULD_CHANGE.get(first["claim"])
        text += f" *Would change it:* {change}." if change else ""
        made.append(Card(first["claim"], verdict, text, first["page"]))
    made.sort(key=lambda card: ORDER.index(card.verdict))
    return cards.grid(made, "1 1 2 2")


def _n(n: Any) -> str:
    return f" (n = {n})" if str(n) else ""


def draw_counts(board: pd.DataFrame) -> None:
    """Draw how many claims of each group got which verdict."""
    tally = counted(board).groupby(["group", "verdict"]).size().unstack(fill_value=0)
    tally = tally.reindex(index=list(GROUPS)[::-1], columns=list(VERDICTS), fill_value=0)
    _, ax = plt.subplots(figsize=(4.4, 2.1))  # as narrow as a phone: it is not to scroll there
    said = tally.rename(columns={"partly": "holds in part"})
    said.plot.barh(stacked=True, ax=ax, color=[COLOURS[name] for name in VERDICTS], width=0.7)
    for bars, verdict in zip(ax.containers, VERDICTS, strict=True):
        labels = [str(n) if n else "" for n in tally[verdict]]
        ax.bar_label(cast(BarContainer, bars), labels, label_type="center", color="white")
    ax.set(xlabel="claims", ylabel="")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=3, columnspacing=1, handlelength=1, frameon=False)
    plt.show()


def ours_table(evidence: Evidence) -> Markdown:
    """Tabulate the published recipe and ours on the same parents."""
    last, settings = evidence.last, evidence.column.settings
    recipes = {
        "published, α = 1": evidence.stemmed,
        f"ours, with vote loss, α = {settings.vote_alpha:g}": last[last["vote"] > 0],
    }
    lines = [
        {
            "recipe": label,
            "accuracy (%)": mean_and_spread(trials["accuracy"]),
            "against its parents (points)": f"{100 * (trials['accuracy'] - trials['parent_accuracy']).mean():+.2f}",
            "Jaccard index": f"{trials['jaccard_index'].mean():.3f}",
            "remaining parameters of pairs": tables.percent(trials["remaining_parameters"].mean(), 1),
            "n": len(trials),
        }
        for label, trials in recipes.items()
    ]
    return tables.table(
        pd.DataFrame(lines),
        "The published recipe and ours on the same parents. The Jaccard index is set by α.",
        "tab-scoreboard-ours",
    )


def summary(board: pd.DataFrame) -> str:
    """Return the size of the scoreboard, and what follows from the paper's own numbers and from identities."""
    ahead, every = _ahead("accuracy_percent")
    higher, _ = _ahead("jaccard_index")
    bounds = (metrics.remaining_from_jaccard(0.10, 1.0), metrics.remaining_from_jaccard(0.10, 0.0))
    return (
        f"{len(board)} rows, {len(counted(board))} claims\n"
        f"paper's Table 1: stemming has the best accuracy in {ahead} of {every} columns, the highest index in "
        f"{higher}\n"
        f"two-class bounds: {bounds[0]} {bounds[1]}"
    )


def findings(evidence: Evidence, board: pd.DataFrame) -> Markdown:
    """Say whether the paper holds, what its method does in two numbers, and how many claims got which verdict."""
    every = counted(board)
    said = [_in_short(evidence, every.loc[every["group"] == CENTRAL, "verdict"])]
    for group in GROUPS:
        each = every.loc[every["group"] == group, "verdict"]
        counts = {v: int((each == v).sum()) for v in VERDICTS}
        some = ", ".join(f"{n} {_WORDS[v][n > 1]}" for v, n in counts.items() if n)
        said.append(f"Of {len(each)} {group[0].lower()}{group[1:]}, {some}.")
    return Markdown(f"**Answer.** {' '.join(said)}")


def _in_short(evidence: Evidence, central: pd.Series) -> str:
    """Return whether all central claims hold, and what two modules need and how all of them vote."""
    settled = set(central) - {OPEN}
    yes = "Yes" if settled == {verdicts.HOLDS} else "No" if settled == {verdicts.DOES_NOT_HOLD} else "In part"
    apart, stemmed = (100 * rows["remaining_parameters"].mean() for rows in (evidence.apart, evidence.stemmed))
    without, gap = (against_parent(rows).mean() for rows in (evidence.apart, evidence.stemmed))
    return (
        f"{yes}. With stemming two modules need together {stemmed:.1f}% of the edges, without it {apart:.1f}%; and any "
        f"subset is there at once. The vote of all modules is at {gap:+.2f} points against its parents "
        f"with stemming, {without:+.2f} without ({evidence.column.name}, n = {len(evidence.stemmed)})."
    )


_WORDS = dict(
    zip(
        VERDICTS,
        (("holds", "hold"), ("comes close", "come close"), ("holds in part", "hold in part"),
         ("does not hold", "do not hold"), ("is open", "are open")),
        strict=True,
    )
)  # fmt: skip
"""A verdict about one claim, and about several."""
