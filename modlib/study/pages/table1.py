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
from matplotlib.axes import Axes

from modlib.decomposers import pan_rajan
from modlib.study import claims, figures, grids, methods, printed, records, tables, verdicts
from modlib.study.experiment import Experiment
from modlib.study.grids import Table1Settings
from modlib.study.names import of_data, of_model, of_network
from modlib.study.records import Record, Store, mean_and_spread
from modlib.study.trials import Trial, labelled, last_epochs, published_trials, run_trials
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
    further: Sequence[Mapping[str, Any]] = ()
    further_seeds: Sequence[int] = ()
    further_published_seeds: Sequence[int] = ()
    further_published_epochs: int = 1
    tried: Sequence[Mapping[str, Any]] = ()

    def trials(self) -> dict[tuple[str, str], list[Trial]]:
        """Return the trials of every column, by data set and parent."""
        main = [(dataset, model) for dataset in self.datasets for model in self.models]
        made = {column: self.settings.trials(*column, self.seeds) for column in main}
        for column in grids.columns("further", self.further):
            of_column = made.setdefault((column.dataset, column.model), [])
            of_column += self.settings.voting_trials(column, self.further_seeds)
            of_column += self._further_published(column) if self.further_published_seeds else []
        return made

    def _further_published(self, column: grids.StemmedColumn) -> list[Trial]:
        return published_trials(
            column.dataset,
            [column.model],
            [self.settings.k],
            [max(self.settings.published_alphas)],
            self.further_published_seeds,
            epochs=self.further_published_epochs,
            parent_epochs=self.settings.parent_epochs,
        )

    def attempts(self) -> list[Trial]:
        """Return the trials of other values of alpha, with the first seed."""
        columns = grids.columns("tried", self.tried)
        return [trial for c in columns for trial in self.settings.voting_trials(c, self.further_seeds[:1])]

    def subjects(self) -> list[methods.Subject]:
        """Return the parents that all methods decompose: those of the trials."""
        return [
            methods.Subject(*column, "own", seed, self.settings.parent_epochs)
            for column, trials in self.trials().items()
            for seed in sorted({trial.seed for trial in trials})
        ]

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the trials, for the page's provenance."""
        main = {"datasets": self.datasets, "models": self.models, "seeds": self.seeds, **vars(self.settings)}
        names = ("further", "further_seeds", "further_published_seeds", "tried", "further_published_epochs")
        return main | ({name: getattr(self, name) for name in names} if self.further else {})

    @property
    def shown_parameters(self) -> dict[str, Any]:
        """The same, for readers: a column in a few words."""
        lists = {name: self.parameters[name] for name in ("further", "tried") if name in self.parameters}
        return self.parameters | {name: [str(c) for c in grids.columns(name, given)] for name, given in lists.items()}


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
    def every(self) -> pd.DataFrame:
        """All trials on test images, epoch by epoch."""
        return self.rows[self.rows["split"] == "test"]

    @cached_property
    def test(self) -> pd.DataFrame:
        """The trials of the main columns on test images, epoch by epoch."""
        main = [(dataset, model) for dataset in self.plan.datasets for model in self.plan.models]
        columns = zip(self.every["dataset"], self.every["model"], strict=True)
        return self.every[[column in main for column in columns]]

    @cached_property
    def last(self) -> pd.DataFrame:
        """The trials of the main columns after their last epoch."""
        return last_epochs(self.test)

    @cached_property
    def final(self) -> pd.DataFrame:
        """All trials after their last epoch."""
        return last_epochs(self.every)

    @cached_property
    def voting(self) -> pd.DataFrame:
        """All trials of recipe ours with vote loss, after its last epoch."""
        return self.every[(self.every["vote"] > 0) & (self.every["epoch"] == self.plan.settings.ours_epochs)]


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


def stemming_table(evidence: Evidence) -> Markdown:
    """Tabulate the row of module stemming: the paper's, and ours under both recipes."""
    lines: list[tuple[Any, ...]] = []
    for dataset, model, name, column in columns_of(evidence.last):
        own = column.drop_duplicates("seed")["parent_accuracy"]
        lines.append((name, "own parent", "", mean_and_spread(own), "", "", len(own)))
        lines += [(name, *line) for line in _paper_lines(printed.table1_column(dataset, model))]
        for (label, alpha), trials in tables.groups(column, ["label", "alpha"], sort=False):
            measured = (
                mean_and_spread(trials["accuracy"]),
                mean_and_spread(trials["jaccard_index"], 1, 3),
                mean_and_spread(trials["remaining_parameters"]),
            )
            lines.append((name, label, f"{alpha:g}", *measured, len(trials)))
    head = ["network", "what", "α", "accuracy (%)", "Jaccard index", "remaining parameters of pairs (%)", "n"]
    return tables.table(
        pd.DataFrame(lines, columns=head),
        f"The row of module stemming, k = {evidence.plan.settings.k:.0%}: accuracy of the vote of all classes on test "
        "images, mean ± standard deviation over n trials.",
        "tab-table1",
    )


def _paper_lines(column: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the paper's own row of a column, and the best of any method; none where it has no such column."""
    if column.empty:
        return []
    stemming = column[column["method"] == printed.STEMMING].iloc[0]
    best = column.sort_values("accuracy_percent", ascending=False, kind="stable").iloc[0]
    accuracy, index = f"{stemming['accuracy_percent']:.2f}", f"{stemming['jaccard_index']:.2f}"
    return [
        ("paper, module stemming", "not given", accuracy, index, "", "5"),
        (f"paper, best of all ({best['method']})", "", f"{best['accuracy_percent']:.2f}", "", "", ""),
    ]


def draw_gaps(evidence: Evidence) -> None:
    """Draw points against the own parents, one dot a trial, for each network: both recipes with stemming."""
    final = evidence.final[evidence.final["alpha"] > 0]
    gaps = 100 * (final["accuracy"] - final["parent_accuracy"])
    names = [name for *_, name, _ in columns_of(final)]
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


def draw_trials(evidence: Evidence) -> None:
    """Draw the accuracy of the vote against the Jaccard index, one point a trial, for each main column."""
    columns = list(columns_of(evidence.last))
    _, axes = plt.subplots(1, len(columns), figsize=(figures.WIDTH, 3.6), squeeze=False)
    for ax, (dataset, model, name, column) in zip(axes[0], columns, strict=True):
        _draw_column(ax, column, printed.table1_column(dataset, model))
        ax.set(xlabel="Jaccard index", ylabel="accuracy of the vote (%)", title=name)
    axes[0, -1].legend(frameon=False, fontsize=8)
    plt.show()


def _draw_column(ax: Axes, column: pd.DataFrame, paper: pd.DataFrame) -> None:
    for (label, alpha), trials in tables.groups(column, ["label", "alpha"], sort=False):
        colour = figures.COLOURS["no stemming" if alpha == 0 else label]
        name = f"{label}, α = {alpha:g}"
        ax.scatter(trials["jaccard_index"], 100 * trials["accuracy"], s=22, color=colour, label=name)
    ax.axhline(100 * column["parent_accuracy"].mean(), color=figures.COLOURS["parent"], lw=1, label="own parents")
    row = paper[paper["method"] == printed.STEMMING]
    if len(row):
        where = (row["jaccard_index"], row["accuracy_percent"])
        ax.scatter(*where, marker="x", s=60, color=figures.COLOURS["paper"], label="paper")


@dataclass(frozen=True)
class Ours:
    """What recipe ours with vote loss gives on one data set and parent, beside the paper; NaN where it has neither."""

    name: str
    trials: pd.DataFrame
    best: float
    """The paper's best accuracy of any method, in per cent."""
    index: float
    """The Jaccard index of its module stemming."""

    @property
    def gap(self) -> pd.Series:
        """Accuracy minus the own parent's."""
        return self.trials["accuracy"] - self.trials["parent_accuracy"]

    @property
    def wins(self) -> bool:
        """Whether the mean accuracy and the mean index are both above the paper's."""
        return bool(
            100 * self.trials["accuracy"].mean() > self.best and self.trials["jaccard_index"].mean() > self.index
        )


def ours_of(evidence: Evidence) -> list[Ours]:
    """Return what recipe ours with vote loss gives, by data set and parent."""
    found = []
    for dataset, model, name, trials in columns_of(evidence.voting):
        column = printed.table1_column(dataset, model)
        theirs = column[column["method"] == printed.STEMMING]
        found.append(Ours(name, trials, column["accuracy_percent"].max(), theirs["jaccard_index"].max()))
    return found


def columns_table(evidence: Evidence) -> Markdown:
    """Tabulate every network under recipe ours with vote loss."""
    settings = evidence.plan.settings
    lines = [
        {
            "network": of.name,
            "paper, best accuracy (%)": "" if np.isnan(of.best) else f"{of.best:.2f}",
            "ours (%)": mean_and_spread(of.trials["accuracy"]),
            "against the parent": records.signed(100 * of.gap),
            "paper, Jaccard index": "" if np.isnan(of.index) else f"{of.index:.2f}",
            "ours": mean_and_spread(of.trials["jaccard_index"], 1, 3),
            "α": ", ".join(f"{a:g}" for a in sorted(set(of.trials["alpha"]))),
            "n": len(of.trials),
        }
        for of in ours_of(evidence)
    ]
    return tables.table(
        pd.DataFrame(lines),
        f"Recipe ours with vote loss (ours, not the paper's), k = {settings.k:.0%}, {settings.ours_epochs} epochs, "
        "test images. The paper's best accuracy is that of any method, its Jaccard index that of module stemming.",
        "tab-table1-columns",
    )


def alphas_table(evidence: Evidence) -> Markdown:
    """Tabulate the values of alpha that were tried, by depth of the parent."""
    plan = evidence.plan
    tried = records.frame([*evidence.done, *evidence.attempts])
    tried = tried[(tried["vote"] > 0) & (tried["split"] == "held_out")]
    tried = tried[
        (tried["epoch"] == plan.settings.ours_epochs) & (tried["seed"] == (plan.further_seeds or plan.seeds)[0])
    ]
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
        for dataset, model, name, trials in columns_of(evidence.final)
        for line in _method_lines(evidence, dataset, model, trials)
    ]
    head = ["network", "method", "paper (%)", "here (%)", "against the parent", "Jaccard index", "density", "n"]
    return tables.table(
        pd.DataFrame(lines, columns=head).fillna(""),
        f"Every method on our own parents, test images, mean ± standard deviation over n trials; points against the "
        f"parent (+ is better). Module stemming at k = {plan.settings.k:.0%}; recipe published with "
        f"α = {max(plan.settings.published_alphas):g}, after {plan.settings.published_epochs} epochs on the first "
        f"network and {plan.further_published_epochs} on others.",
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
                "against the parent": records.signed(100 * (part["accuracy"] - part["parent_accuracy"])),
                "Jaccard index": mean_and_spread(part["jaccard_index"], 1, 3),
                "density": mean_and_spread(part["density"] if "density" in part else part["k"], 1, 2),
                "n": len(part),
            }


def draw_epochs(evidence: Evidence) -> None:
    """Draw remaining parameters of pairs, and the accuracy of the vote, over the epochs of recipe published."""
    plan, k = evidence.plan, evidence.plan.settings.k
    rows = evidence.test[evidence.test["recipe"] == "published"]
    rows = rows.assign(
        stemming=[f"α = {a:g}" for a in rows["alpha"]],
        percent=100 * rows["accuracy"],
        remaining=100 * rows["remaining_parameters"],
    )
    style = None if len(plan.models) * len(plan.datasets) == 1 else "model"
    options = {"x": "epoch", "hue": "stemming", "style": style, "errorbar": "sd"}
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    sns.lineplot(rows, y="remaining", ax=left, **options)
    sns.lineplot(rows, y="percent", ax=right, legend=False, **options)
    left.axhline(100 * k, ls=":", color="black", lw=1)
    if [*plan.datasets, *plan.models] == ["mnist", "fc1"] and grids.is_papers("mnist", "fc1", k):
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
    """How recipe published, with stemming, compares with the paper's row.

    `differences`: of the accuracy in points, by column; `agreeing`: how many are as printed; `lengths`: after how many
    epochs, in words; `n`: trials.
    """

    differences: dict[str, float]
    agreeing: int
    lengths: str
    n: int


def as_printed(evidence: Evidence) -> AsPrinted:
    """Compare recipe published, with stemming, with the paper's row, column by column."""
    final = evidence.final
    stemmed = final[(final["recipe"] == "published") & (final["alpha"] > 0)]
    differences, agreeing = {}, 0
    for dataset, model, name, trials in columns_of(stemmed):
        column = printed.table1_column(dataset, model)
        if len(column):
            theirs = column.set_index("method")["accuracy_percent"][printed.STEMMING]
            differences[name] = verdicts.ACCURACY.mean(trials) - theirs
            agreeing += verdicts.ACCURACY.near(trials, theirs)
    epochs = stemmed.groupby(["dataset", "model"])["epoch"].max().value_counts()
    lengths = ", ".join(f"{many} after {int(str(length))} epochs" for length, many in epochs.items())
    return AsPrinted(differences, agreeing, lengths, len(stemmed))


def judged(compared: AsPrinted) -> claims.Claim:
    """Return the claim of the paper that the page judges."""
    paper = printed.numbers("table1")
    row = paper[paper["method"] == printed.STEMMING]["accuracy_percent"]
    listed = ", ".join(f"{name} {points:+.2f}" for name, points in compared.differences.items())
    run = len(compared.differences)
    return claims.Claim(
        "Recomposed accuracy of all eight columns (recipe published, α = 1)",
        "Table 1",
        f"{row.min():.2f} to {row.max():.2f} %",
        f"as printed for {compared.agreeing} of {run} networks ({compared.lengths}); difference in points: {listed}",
        verdicts.of_columns(compared.agreeing, run, COLUMNS_OF_PAPER),
        compared.n,
    )


def answer(evidence: Evidence, compared: AsPrinted) -> Markdown:
    """Return what the paper's recipe gives, and what ours with vote loss gives, beside the parents and the paper."""
    final = evidence.final
    stemmed = final[(final["recipe"] == "published") & (final["alpha"] > 0)]
    dataset, model, name, first = next(columns_of(stemmed))
    said = (
        f"**Answer.** Under the paper's recipe the vote of all modules is right on "
        f"{records.percent_of_n(first['accuracy'])} of the test images of {name}, at a Jaccard index of "
        f"{first['jaccard_index'].mean():.2f}"
    )
    paper = printed.table1_column(dataset, model)
    if len(paper):
        row = paper[paper["method"] == printed.STEMMING].iloc[0]
        said += f"; the paper prints {row['accuracy_percent']:.2f} % at {row['jaccard_index']:.2f}"
    gaps = [(of["accuracy"] - of["parent_accuracy"]).mean() for *_, of in columns_of(stemmed)]
    ours = ours_of(evidence)
    said += (
        f". That is {_span(gaps)} points against its own parents ({_networks(len(gaps))}); the printed numbers come "
        f"out for {compared.agreeing} of {len(compared.differences)}."
    )
    if ours:
        said += (
            f" Our recipe with vote loss is at {_span([of.gap.mean() for of in ours])} points against its parents, and "
            f"ahead of the paper's best accuracy and index on {sum(of.wins for of in ours)} of {len(ours)}."
        )
    return Markdown(said)


def _networks(count: int) -> str:
    return f"{count} network{'s' if count > 1 else ''}"


def _span(gaps: Sequence[float]) -> str:
    """Return "smallest to largest" of shares in points, with their signs."""
    low, high = f"{100 * min(gaps):+.2f}", f"{100 * max(gaps):+.2f}"
    return low if low == high else f"{low} to {high}"
