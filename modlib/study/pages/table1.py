"""Table 1: its columns under both recipes, beside the paper's and beside Pan and Rajan's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown

from modlib.decomposers import pan_rajan
from modlib.study import claims, figures, grids, methods, printed, records, tables, verdicts
from modlib.study.experiment import Experiment
from modlib.study.grids import Table1Settings
from modlib.study.names import of_data, of_model, of_network
from modlib.study.records import Record, Store, against_parent, mean_and_spread
from modlib.study.trials import Trial, labelled, last_epochs, run_trials
from modlib.zoo import datasets

COLUMNS_OF_PAPER = 8
PAPERS_EPOCH = 25
"""That of the paper's Table 2."""


@dataclass(frozen=True)
class Plan:
    """What the page runs: its parameters, see the parameters cell of the notebook."""

    datasets: Sequence[str]
    models: Sequence[str]
    seeds: Sequence[int]
    settings: Table1Settings
    tried: Sequence[Mapping[str, Any]] = ()

    def trials(self) -> dict[tuple[str, str], list[Trial]]:
        """Return the trials of every column, by data set and parent."""
        columns = [(dataset, model) for dataset in self.datasets for model in self.models]
        return {column: self.settings.trials(*column, self.seeds) for column in columns}

    def attempts(self) -> list[Trial]:
        """Return the trials of other values of our alpha, with the first seed."""
        columns = grids.columns("tried", self.tried)
        return [trial for c in columns for trial in self.settings.voting_trials(c, self.seeds[:1])]

    def subjects(self) -> list[methods.Subject]:
        """Return the parents that all methods decompose: those of the trials."""
        return [
            methods.Subject(*column, "own", seed, self.settings.parent_epochs)
            for column in self.trials()
            for seed in self.seeds
        ]

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the trials, for the page's provenance."""
        main = {"datasets": self.datasets, "models": self.models, "seeds": self.seeds, **vars(self.settings)}
        return main | ({"tried": self.tried} if self.tried else {})

    @property
    def shown_parameters(self) -> dict[str, Any]:
        """The same, for readers: what was tried in a few words."""
        shown = {"tried": [str(c) for c in grids.columns("tried", self.tried)]} if self.tried else {}
        return self.parameters | shown


def experiments(**parameters: Any) -> list[Experiment]:
    """Return all that the page reads or computes: the trials, those tried, and Pan and Rajan's rules."""
    known = {f.name for f in fields(Plan)}
    taken = {name: value for name, value in parameters.items() if name in known}
    plan = Plan(settings=Table1Settings.of(parameters), **taken)
    trials = [trial for of_column in plan.trials().values() for trial in of_column]
    rules = [experiment for subject in plan.subjects() for experiment in methods.experiments(subject, [])]
    return [*(trial.experiment for trial in [*trials, *plan.attempts()]), *rules]


@dataclass(frozen=True)
class Evidence:
    """What the plan has given.

    `rows`: of all trials, epoch by epoch and split by split, with the label of their recipe. `ruled`: of the rules.
    """

    plan: Plan
    done: list[Record]
    attempts: list[Record]
    rows: pd.DataFrame
    ruled: pd.DataFrame

    @cached_property
    def test(self) -> pd.DataFrame:
        """All trials on test images, epoch by epoch."""
        return self.rows[self.rows["split"] == "test"]

    @cached_property
    def last(self) -> pd.DataFrame:
        """All trials on test images, after their last epoch."""
        return last_epochs(self.test)

    def published(self, alpha: float) -> pd.DataFrame:
        """Return the trials of recipe published with some stemming, after their last epoch."""
        return self.last[(self.last["recipe"] == "published") & (self.last["alpha"] == alpha)]

    @property
    def stemmed(self) -> pd.DataFrame:
        """The trials of recipe published with the most stemming, after their last epoch."""
        return self.published(max(self.plan.settings.published_alphas))

    @property
    def voting(self) -> pd.DataFrame:
        """The trials of recipe ours with vote loss, after their last epoch."""
        return self.last[self.last["vote"] > 0]

    @property
    def kinds(self) -> dict[str, pd.DataFrame]:
        """What the page compares, by the name that its tables show."""
        settings = self.plan.settings
        published = {f"published, α = {alpha:g}": self.published(alpha) for alpha in settings.published_alphas}
        return published | {f"ours, α = {settings.vote_alpha:g}": self.voting}


def run(plan: Plan, store: Store) -> Evidence:
    """Run what is open of the plan, and read the rest; write the page's table of trials."""
    columns, tried, subjects = plan.trials(), plan.attempts(), plan.subjects()
    data = {
        name: datasets.load(name)
        for name in dict.fromkeys([*(name for name, _ in columns), *(t.dataset for t in tried)])
    }
    done = [record for (name, _), trials in columns.items() for record in run_trials(trials, data[name], store)]
    attempts = [record for trial in tried for record in run_trials([trial], data[trial.dataset], store)]
    ruled = [record for of in subjects for record in methods.compare(of, [], data[of.dataset], store)]
    rows = labelled(records.export(store, "table1", done, plan.parameters))
    rules = records.frame(ruled)
    return Evidence(plan, done, attempts, rows, rules[rules["method"].isin(pan_rajan.METHODS)])


def summary(evidence: Evidence) -> str:
    """Return how many trials there are, and which recipes."""
    failed = sum("failed" in row for record in evidence.done for row in record.rows)
    return f"{len(evidence.done)} trials, {failed} failed\n{sorted(set(evidence.last['label']))}"


def columns_of(rows: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Yield data set, parent, the name that the page shows, and the rows of every column."""
    for (dataset, model), column in tables.groups(rows, ["dataset", "model"], sort=False):
        yield dataset, model, of_network(dataset, model), column


@dataclass(frozen=True)
class Theirs:
    """The paper's numbers of one network, NaN where it has none: accuracies in per cent, and a Jaccard index.

    `best`: the highest accuracy of any method; `accuracy` and `index`: of its module stemming.
    """

    best: float
    accuracy: float
    index: float

    @classmethod
    def of(cls, dataset: str, model: str) -> Theirs:
        """Return those of a data set and parent."""
        column = printed.table1_column(dataset, model)
        stemming = column[column["method"] == printed.STEMMING]
        return cls(
            column["accuracy_percent"].max(), stemming["accuracy_percent"].max(), stemming["jaccard_index"].max()
        )


def accuracies_table(evidence: Evidence) -> Markdown:
    """Tabulate every network's accuracy: parents, the paper's, and the vote of all modules under both recipes."""
    lines = []
    for dataset, model, name, column in columns_of(evidence.last):
        theirs = Theirs.of(dataset, model)
        own = column.drop_duplicates("seed")["parent_accuracy"]
        line = {"network": name, "own parents": mean_and_spread(own)}
        line |= {"paper, stemming": _number(theirs.accuracy, 2), "paper, best": _number(theirs.best, 2)}
        line |= {kind: _shown(_of(rows, dataset, model)["accuracy"], 100, 2) for kind, rows in evidence.kinds.items()}
        lines.append(line)
    return tables.table(
        pd.DataFrame(lines),
        f"Accuracy (%) of the vote of all classes on test images, k = {evidence.plan.settings.k:.0%}: "
        f"mean ± standard deviation over {len(evidence.plan.seeds)} trials. Paper, best: of any of its methods. Ours: "
        "with vote loss, which is not the paper's.",
        "tab-table1",
    )


def indices_table(evidence: Evidence) -> Markdown:
    """Tabulate every network's Jaccard index: the paper's, and under both recipes."""
    lines = []
    for dataset, model, name, _ in columns_of(evidence.last):
        line = {"network": name, "paper": _number(Theirs.of(dataset, model).index, 2)}
        line |= {
            kind: _shown(_of(rows, dataset, model)["jaccard_index"], 1, 3) for kind, rows in evidence.kinds.items()
        }
        lines.append(line)
    return tables.table(
        pd.DataFrame(lines),
        f"Jaccard index of the modules' masks, mean ± standard deviation over {len(evidence.plan.seeds)} trials. The "
        "paper doesn't print its α.",
        "tab-table1-indices",
    )


def _of(rows: pd.DataFrame, dataset: str, model: str) -> pd.DataFrame:
    return rows[(rows["dataset"] == dataset) & (rows["model"] == model)]


def _shown(values: pd.Series, scale: float, digits: int) -> str:
    return mean_and_spread(values, scale, digits) if len(values) else ""


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def tally(evidence: Evidence) -> pd.DataFrame:
    """Count on how many networks what we measured is ahead of, level with or behind what it is compared with."""
    found: dict[str, list[str]] = {}
    for dataset, model, _, column in columns_of(evidence.last):
        theirs, own = Theirs.of(dataset, model), column.drop_duplicates("seed")["parent_accuracy"]
        parts = {kind: _of(rows, dataset, model) for kind, rows in evidence.kinds.items()}
        compared = [("own parents, untouched: accuracy, paper's best", 100 * own, theirs.best)]
        for kind, rows in parts.items():
            rival, whose = (theirs.best, "best") if kind.startswith("ours") else (theirs.accuracy, "stemming")
            gap = against_parent(rows)
            compared += [
                (f"{kind}: accuracy, paper's {whose}", 100 * rows["accuracy"], rival),
                (f"{kind}: Jaccard index, paper's stemming", rows["jaccard_index"], theirs.index),
                (f"{kind}: accuracy, own parents", gap, 0.0),
            ]
        for name, values, rival in compared:
            if len(values) and not np.isnan(rival):
                found.setdefault(name, []).append(verdicts.beside(values, rival))
    counted = {name: pd.Series(outcomes).value_counts() for name, outcomes in found.items()}
    return pd.DataFrame(counted).T.reindex(columns=verdicts.SIDES).fillna(0).astype(int)


def tally_table(evidence: Evidence) -> Markdown:
    """Tabulate the tally."""
    return tables.table(
        tally(evidence).rename_axis("what: quantity, beside").reset_index(),
        "On how many networks the mean of our trials is ahead of, level with or behind another number. Level: the 95% "
        "interval of the mean includes it; the answer above takes an accuracy for the printed one up to two standard "
        "deviations, as the scoreboard does.",
        "tab-table1-tally",
    )


def draw_gaps(evidence: Evidence) -> None:
    """Draw points against the own parents, one dot a trial, for each network: both recipes with stemming."""
    final = pd.concat([evidence.stemmed, evidence.voting])
    gaps = against_parent(final)
    names = [name for *_, name, _ in columns_of(evidence.last)]
    _, ax = plt.subplots(figsize=(figures.WIDTH, 1.1 + 0.24 * len(names)))
    for label, shift in (("published", 0.14), ("ours, with vote loss", -0.14)):
        of = final["label"] == label
        rows = final[of]
        at = [names.index(of_network(d, m)) - shift for d, m in zip(rows["dataset"], rows["model"], strict=True)]
        ax.scatter(gaps[of], at, s=18, color=figures.COLOURS[label], label=label, zorder=3)
    ax.axvline(0, color=figures.COLOURS["parent"], lw=1)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("points against the own parent (+ is better)")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    plt.show()


def alphas_table(evidence: Evidence) -> Markdown:
    """Tabulate the values of alpha that were tried, by depth of the parent."""
    plan = evidence.plan
    tried = records.frame([*evidence.done, *evidence.attempts])
    tried = tried[(tried["vote"] > 0) & (tried["split"] == "held_out")]
    tried = tried[(tried["epoch"] == plan.settings.ours_epochs) & (tried["seed"] == plan.seeds[0])]
    lines = [
        {
            "parent": of_model(model),
            "α": f"{alpha:g}",
            "smallest Jaccard index": f"{part['jaccard_index'].min():.3f}",
            "held-out accuracy (%)": ", ".join(
                f"{of_data(dataset)} {100 * accuracy:.2f}"
                for dataset, accuracy in zip(part["dataset"], part["accuracy"], strict=True)
            ),
            "data sets": part["dataset"].nunique(),
        }
        for (model, alpha), part in tables.groups(
            tried.sort_values(["model", "alpha"], kind="stable"), ["model", "alpha"], sort=False
        )
    ]
    return tables.table(
        pd.DataFrame(lines),
        "Values of α that were tried, by depth of the parent; one trial for each data set.",
        "tab-table1-alpha",
    )


def methods_table(evidence: Evidence) -> Markdown:
    """Tabulate every method on our own parents."""
    plan = evidence.plan
    lines = [
        {"network": name, **line}
        for dataset, model, name, trials in columns_of(evidence.last)
        for line in _method_lines(evidence, dataset, model, trials)
    ]
    head = ["network", "method", "paper (%)", "here (%)", "against the parent", "Jaccard index", "density", "n"]
    return tables.table(
        pd.DataFrame(lines, columns=head).fillna(""),
        f"Every method on our own parents, test images, mean ± standard deviation over n trials; points against the "
        f"parent (+ is better). Module stemming at k = {plan.settings.k:.0%}; recipe published with "
        f"α = {max(plan.settings.published_alphas):g}, after {plan.settings.published_epochs} epochs.",
        "tab-table1-methods",
    )


def _method_lines(evidence: Evidence, dataset: str, model: str, trials: pd.DataFrame) -> Iterator[dict[str, Any]]:
    paper = printed.table1_column(dataset, model).set_index("method")["accuracy_percent"]
    own = trials.drop_duplicates("seed")["parent_accuracy"]
    yield {"method": "own parent", "here (%)": mean_and_spread(own), "n": len(own)}
    of_column = (evidence.ruled["dataset"] == dataset) & (evidence.ruled["model"] == model)
    stemmed, vote = trials[trials["alpha"] > 0], evidence.plan.settings.vote
    kinds = [(rule, evidence.ruled[of_column & (evidence.ruled["method"] == rule)], rule) for rule in pan_rajan.METHODS]
    for recipe, weight, name, theirs in (
        ("published", 0.0, "stemming, published", printed.STEMMING),
        ("ours", vote, "stemming, ours with vote loss", ""),
    ):
        kinds.append((name, stemmed[(stemmed["recipe"] == recipe) & (stemmed["vote"] == weight)], theirs))
    for name, part, theirs in kinds:
        if len(part):
            yield {
                "method": name,
                "paper (%)": f"{paper[theirs]:.2f}" if theirs in paper else "",
                "here (%)": mean_and_spread(part["accuracy"]),
                "against the parent": records.signed(against_parent(part)),
                "Jaccard index": mean_and_spread(part["jaccard_index"], 1, 3),
                "density": mean_and_spread(part["density"] if "density" in part else part["k"], 1, 2),
                "n": len(part),
            }


def draw_epochs(evidence: Evidence) -> None:
    """Draw remaining parameters of the first network's pairs, and its vote, over the epochs of recipe published."""
    (dataset, model), k = next(iter(evidence.plan.trials())), evidence.plan.settings.k
    rows = _of(evidence.test[evidence.test["recipe"] == "published"], dataset, model)
    rows = rows.assign(
        stemming=[f"α = {a:g}" for a in rows["alpha"]],
        percent=100 * rows["accuracy"],
        remaining=100 * rows["remaining_parameters"],
    )
    palette = {f"α = {a:g}": colour for a, colour in figures.of_alphas(rows["alpha"].unique()).items()}
    options = {"x": "epoch", "hue": "stemming", "palette": palette, "errorbar": "sd"}
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    sns.lineplot(rows, y="remaining", ax=left, **options)
    sns.lineplot(rows, y="percent", ax=right, legend=False, **options)
    left.axhline(100 * k, ls=":", color="black", lw=1)
    if grids.is_papers(dataset, model, k):
        paper = 100 * printed.shared_remaining_parameters()
        left.scatter([PAPERS_EPOCH] * 2, paper, marker="x", s=50, color="black", zorder=3, label="paper, Table 2")
    left.legend(frameon=False)
    left.set_ylabel("remaining parameters of pairs (%)")
    right.set_ylabel("accuracy of the vote (%)")
    plt.show()


def pairs_table(evidence: Evidence) -> Markdown:
    """Tabulate remaining parameters of two-class networks under recipe published, beside the paper's Table 2."""
    paper, rows = printed.shared_remaining_parameters(), evidence.test[evidence.test["recipe"] == "published"]
    shown = rows[rows["epoch"].isin({PAPERS_EPOCH, rows["epoch"].max()})]
    lines = []
    for (dataset, model, alpha, epoch), trials in tables.groups(shown, ["dataset", "model", "alpha", "epoch"]):
        of_table2 = grids.is_papers(dataset, model, evidence.plan.settings.k) and alpha in (0, 1)
        comparable = of_table2 and epoch == PAPERS_EPOCH
        lines.append(
            {
                "network": of_network(dataset, model),
                "α": f"{alpha:g}",
                "epoch": epoch,
                "paper (%)": f"{100 * paper[alpha > 0]:.1f}" if comparable else "not given",
                "here (%)": mean_and_spread(trials["remaining_parameters"]),
                "smallest pair": f"{100 * trials['remaining_parameters_best'].min():.2f}",
                "largest pair": f"{100 * trials['remaining_parameters_worst'].max():.2f}",
            }
        )
    return tables.table(
        pd.DataFrame(lines),
        "Remaining parameters of two-class networks under recipe published, with shared initial scores, beside Table 2 "
        "of the paper.",
        "tab-table2-shared",
    )


@dataclass(frozen=True)
class AsPrinted:
    """How recipe published compares with the paper's row, at each α that was run: the paper does not give its own.

    `differences`: α -> of the accuracy in points, by column; `agreeing`: α -> how many are as printed; `n`: trials.
    """

    differences: dict[float, dict[str, float]]
    agreeing: dict[float, int]
    epochs: int
    n: int

    @property
    def columns(self) -> int:
        """How many networks are compared."""
        return max(map(len, self.differences.values()))

    def __str__(self) -> str:
        counts = [f"for {count} of {self.columns} at α = {alpha:g}" for alpha, count in self.agreeing.items()]
        return " and ".join(counts)


def as_printed(evidence: Evidence) -> AsPrinted:
    """Compare recipe published with the paper's row, column by column."""
    differences: dict[float, dict[str, float]] = {}
    agreeing, n = {}, 0
    for alpha in evidence.plan.settings.published_alphas:
        differences[alpha], agreeing[alpha] = {}, 0
        n += len(evidence.published(alpha))
        for dataset, model, name, trials in columns_of(evidence.published(alpha)):
            printed_accuracy = Theirs.of(dataset, model).accuracy
            if not np.isnan(printed_accuracy):
                differences[alpha][name] = verdicts.ACCURACY.mean(trials) - printed_accuracy
                agreeing[alpha] += verdicts.ACCURACY.near(trials, printed_accuracy)
    return AsPrinted(differences, agreeing, evidence.plan.settings.published_epochs, n)


def judged(compared: AsPrinted) -> claims.Claim:
    """Return the claim of the paper that the page judges: at the α with which most columns are as printed."""
    paper = printed.numbers("table1")
    row = paper[paper["method"] == printed.STEMMING]["accuracy_percent"]
    apart = [f"{min(of.values()):+.2f} to {max(of.values()):+.2f}" for of in compared.differences.values() if of]
    return claims.Claim(
        "Recomposed accuracy of all eight networks (recipe published)",
        "Table 1",
        f"{row.min():.2f} to {row.max():.2f}%",
        f"as printed {compared} after {compared.epochs} epochs; difference in points: {' and '.join(apart)}",
        verdicts.of_columns(max(compared.agreeing.values()), compared.columns, COLUMNS_OF_PAPER),
        compared.n,
    )


def answer(evidence: Evidence, compared: AsPrinted) -> Markdown:
    """Return what the paper's recipe gives, and what ours with vote loss gives, beside the parents and the paper."""
    dataset, model, name, first = next(columns_of(evidence.stemmed))
    theirs = Theirs.of(dataset, model)
    said = (
        f"**Answer.** Under the paper's recipe with stemming the vote of all modules is right on "
        f"{records.percent_of_n(first['accuracy'])} of the test images of {name}, at a Jaccard index of "
        f"{first['jaccard_index'].mean():.2f}"
    )
    if not np.isnan(theirs.accuracy):
        said += f"; the paper prints {theirs.accuracy:.2f}% at {theirs.index:.2f}"
    gaps = _gaps(evidence.stemmed)
    said += (
        f". Over {_networks(len(gaps))} the vote is at {_span(gaps)} points against its own parents. The printed "
        f"accuracies come out, within two standard deviations, {compared}. Our recipe with vote loss is at "
        f"{_span(_gaps(evidence.voting))} points against the same parents."
    )
    return Markdown(said)


def _gaps(rows: pd.DataFrame) -> list[float]:
    """Return the mean of accuracy minus the own parent's, a share, of every network."""
    return [float((of["accuracy"] - of["parent_accuracy"]).mean()) for *_, of in columns_of(rows)]


def _networks(count: int) -> str:
    return f"{count} network{'s' if count > 1 else ''}"


def _span(gaps: Sequence[float]) -> str:
    """Return "smallest to largest" of shares in points, with their signs."""
    low, high = f"{100 * min(gaps):+.2f}", f"{100 * max(gaps):+.2f}"
    return low if low == high else f"{low} to {high}"
