"""Table 1: its columns under both recipes, beside the paper's and beside Pan and Rajan's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.axes import Axes

from modlib.decomposers import pan_rajan
from modlib.study import claims, figures, grids, methods, printed, records, tables, verdicts
from modlib.study.experiment import Experiment
from modlib.study.grids import Table1Settings
from modlib.study.records import Record, Store, mean_and_spread
from modlib.study.trials import Trial, labelled, last_epochs, published_trials, run_trials
from modlib.zoo import datasets

CLOSE_POINTS, ALIKE = 0.2, 0.75
"""At most so many points behind its own parent, and a Jaccard index of at least this: what our recipe aims at."""
CLEAR_POINTS, CLEAR_INDEX = 0.5, 0.01
"""What a cell must be won by to be won clearly."""
COLUMNS_OF_PAPER = 8


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

    def _further_published(self, column: grids.Column) -> list[Trial]:
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
        yield dataset, model, f"{dataset} {model.upper()}", column


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
                mean_and_spread(trials["remaining_parameters"], 1, 4),
            )
            lines.append((name, label, f"{alpha:g}", *measured, len(trials)))
    head = ["column", "what", "alpha", "accuracy of the vote (%)", "Jaccard index", "remaining parameters, pairs", "n"]
    return tables.table(
        pd.DataFrame(lines, columns=head),
        "Recomposed accuracy of all classes on the test images, Jaccard index of the masks, and remaining parameters "
        f"of two-class networks (share of the parent's maskable weights), at k = {evidence.plan.settings.k:.0%}. Mean "
        "± standard deviation over n trials.",
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
        (f"paper, best of any method ({best['method']})", "", f"{best['accuracy_percent']:.2f}", "", "", ""),
    ]


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


def wins_of(evidence: Evidence) -> pd.DataFrame:
    """Return, for every column, what recipe ours with vote loss reaches, and how far ahead of the paper that is.

    Columns are those of the page's table, and in points and units of the index `accuracy ahead` and `index ahead`, NaN
    where the paper has no such column.
    """
    lines = []
    for dataset, model, name, trials in columns_of(evidence.voting):
        column = printed.table1_column(dataset, model)
        theirs = column[column["method"] == printed.STEMMING]
        best, highest = column["accuracy_percent"].max(), theirs["jaccard_index"].max()
        ahead = (100 * trials["accuracy"].mean() - best, trials["jaccard_index"].mean() - highest)
        won = ["" if column.empty else "won" if points > 0 else "lost" for points in ahead]
        lines.append(
            {
                "column": name,
                "paper, best accuracy of any method (%)": "" if column.empty else f"{best:.2f}",
                "ours, with vote loss (%)": mean_and_spread(trials["accuracy"]),
                "paper, Jaccard index of stemming": "" if column.empty else f"{highest:.2f}",
                "ours": mean_and_spread(trials["jaccard_index"], 1, 3),
                "own parent (%)": mean_and_spread(trials["parent_accuracy"]),
                "behind it (points)": f"{100 * (trials['parent_accuracy'] - trials['accuracy']).mean():.2f}",
                "α": ", ".join(f"{a:g}" for a in sorted(set(trials["alpha"]))),
                "n": len(trials),
                "accuracy": won[0],
                "index": won[1],
                "accuracy ahead": ahead[0],
                "index ahead": ahead[1],
            }
        )
    return pd.DataFrame(lines)


def columns_table(evidence: Evidence) -> Markdown:
    """Tabulate every column under recipe ours with vote loss."""
    settings = evidence.plan.settings
    return tables.table(
        wins_of(evidence).drop(columns=["accuracy ahead", "index ahead"]),
        f"Recipe ours with vote loss (ours, not the paper's), k = {settings.k:.0%}, {settings.ours_epochs} epochs, "
        "test images.",
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
            "parent": model.upper(),
            "α": f"{alpha:g}",
            "smallest Jaccard index": f"{part['jaccard_index'].min():.3f}",
            "held-out accuracy (%)": ", ".join(
                f"{dataset} {100 * accuracy:.2f}"
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
        {"column": name, **line}
        for dataset, model, name, trials in columns_of(evidence.final)
        for line in _method_lines(evidence, dataset, model, trials)
    ]
    head = ["column", "method", "paper (%)", "here (%)", "behind the parent", "Jaccard index of edges", "density", "n"]
    return tables.table(
        pd.DataFrame(lines, columns=head).fillna(""),
        f"Every method on our own parents, test images, mean ± standard deviation over n trials; module stemming at "
        f"k = {plan.settings.k:.0%}, recipe published with α = {max(plan.settings.published_alphas):g} after "
        f"{plan.settings.published_epochs} epochs, {plan.further_published_epochs} in further columns.",
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
        ("published", 0.0, "module stemming, published", printed.STEMMING),
        ("ours", vote, "module stemming, ours with vote loss", ""),
    ):
        kinds.append((name, stemmed[(stemmed["recipe"] == recipe) & (stemmed["vote"] == weight)], theirs))
    for name, part, theirs in kinds:
        if len(part):
            yield {
                "method": name,
                "paper (%)": f"{paper[theirs]:.2f}" if theirs in paper else "",
                "here (%)": mean_and_spread(part["accuracy"]),
                "behind the parent": mean_and_spread(part["parent_accuracy"] - part["accuracy"]),
                "Jaccard index of edges": mean_and_spread(part["jaccard_index"], 1, 3),
                "density": mean_and_spread(part["density"] if "density" in part else part["k"], 1, 2),
                "n": len(part),
            }


def draw_epochs(evidence: Evidence) -> None:
    """Draw remaining parameters of pairs, and the accuracy of the vote, over the epochs of recipe published."""
    plan, k = evidence.plan, evidence.plan.settings.k
    rows = evidence.test[evidence.test["recipe"] == "published"]
    rows = rows.assign(stemming=[f"α = {a:g}" for a in rows["alpha"]], percent=100 * rows["accuracy"])
    style = None if len(plan.models) * len(plan.datasets) == 1 else "model"
    options = {"x": "epoch", "hue": "stemming", "style": style, "errorbar": "sd"}
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    sns.lineplot(rows, y="remaining_parameters", ax=left, **options)
    sns.lineplot(rows, y="percent", ax=right, legend=False, **options)
    left.axhline(k, ls=":", color="black", lw=1)
    if [*plan.datasets, *plan.models] == ["mnist", "fc1"] and grids.is_papers("mnist", "fc1", k):
        paper = printed.shared_remaining_parameters()
        left.scatter([25, 25], paper, marker="x", s=50, color="black", zorder=3, label="paper, Table 2")
    left.legend(frameon=False)
    left.set_ylabel("remaining parameters (share)")
    right.set_ylabel("accuracy of the vote (%)")
    plt.show()


def pairs_table(evidence: Evidence) -> Markdown:
    """Tabulate remaining parameters of two-class networks under recipe published, beside the paper's Table 2."""
    paper, last = printed.shared_remaining_parameters(), evidence.last
    lines = []
    for (dataset, model, alpha), trials in tables.groups(
        last[last["recipe"] == "published"], ["dataset", "model", "alpha"], sort=False
    ):
        comparable = grids.is_papers(dataset, model, evidence.plan.settings.k) and alpha in (0, 1)
        lines.append(
            {
                "column": f"{dataset} {model.upper()}",
                "alpha": f"{alpha:g}",
                "epoch": int(trials["epoch"].max()),
                "paper (epoch 25)": f"{paper[alpha > 0]:.3f}" if comparable else "not given",
                "here": mean_and_spread(trials["remaining_parameters"], 1, 4),
                "smallest pair": f"{trials['remaining_parameters_best'].min():.4f}",
                "largest pair": f"{trials['remaining_parameters_worst'].max():.4f}",
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
        f"as printed in {compared.agreeing} of {run} columns run ({compared.lengths}); differences in points: {listed}",
        verdicts.of_columns(compared.agreeing, run, COLUMNS_OF_PAPER),
        compared.n,
    )


def findings(evidence: Evidence, compared: AsPrinted) -> Markdown:
    """Say what came out in each main column, and over all columns."""
    sentences = [
        _finding(evidence.plan.settings, dataset, model, column)
        for dataset, model, _, column in columns_of(evidence.last)
    ]
    return Markdown("**What came out.** " + "\n\n".join([*sentences, *_over_all_columns(evidence, compared)]))


def _finding(settings: Table1Settings, dataset: str, model: str, column: pd.DataFrame) -> str:
    best = column[column["vote"] > 0]
    stemmed = column[(column["recipe"] == "published") & (column["alpha"] > 0)]
    plain = column[(column["recipe"] == "ours") & (column["vote"] == 0)]
    gap = 100 * (best["parent_accuracy"] - best["accuracy"]).mean()
    first, second, third = (100 * trials["accuracy"].mean() for trials in (stemmed, plain, best))
    return (
        f"On {dataset} with {model.upper()}, our recipe with vote loss reaches "
        f"{records.percent_of_n(best['accuracy'])} at a Jaccard index of {best['jaccard_index'].mean():.2f}: "
        f"{abs(gap):.2f} points {'behind' if gap > 0 else 'ahead of'} its own parents. "
        f"{_beside_paper(printed.table1_column(dataset, model), stemmed, best)}"
        "On the same parents, from the published recipe to ours without vote loss the mean changes by "
        f"{second - first:+.2f} points, and with vote loss (and α = {settings.vote_alpha:g} instead of "
        f"{settings.ours_alpha:g}) by {third - second:+.2f} more."
    )


def _beside_paper(paper: pd.DataFrame, stemmed: pd.DataFrame, best: pd.DataFrame) -> str:
    """Say how the published recipe, and ours with vote loss, compare with a column of the paper; empty without one."""
    if paper.empty or stemmed.empty:
        return ""
    theirs = paper[paper["method"] == printed.STEMMING].iloc[0]
    highest = paper["accuracy_percent"].max()
    difference = 100 * stemmed["accuracy"].mean() - theirs["accuracy_percent"]
    above = 100 * best["accuracy"].mean() > highest
    return (
        f"The published recipe gives {records.percent_of_n(stemmed['accuracy'])} at "
        f"{stemmed['jaccard_index'].mean():.2f}, where the paper prints {theirs['accuracy_percent']:.2f} % at "
        f"{theirs['jaccard_index']:.2f}: {abs(difference):.2f} points {'more' if difference > 0 else 'less'}, after "
        f"{int(stemmed['epoch'].max())} epochs (the paper gives none for this table). With vote loss, the mean is "
        f"{'above' if above else 'not above'} the paper's best accuracy of any method in this column "
        f"({highest:.2f} %). "
    )


def _over_all_columns(evidence: Evidence, compared: AsPrinted) -> list[str]:
    """Say how many cells our recipe wins; nothing where there is one column of the paper, or none."""
    wins = wins_of(evidence)
    cells = pd.concat([wins["accuracy"], wins["index"]])
    cells = cells[cells != ""]
    if len(cells) <= 2:
        return []
    clear = int((wins["accuracy ahead"] > CLEAR_POINTS).sum() + (wins["index ahead"] > CLEAR_INDEX).sum())
    voting = evidence.voting
    by_column = voting.assign(gap=100 * (voting["parent_accuracy"] - voting["accuracy"])).groupby(["dataset", "model"])
    means = by_column[["gap", "jaccard_index"]].mean()
    close = int(((means["gap"] <= CLOSE_POINTS) & (means["jaccard_index"] >= ALIKE)).sum())
    return [
        f"Over all columns, our recipe with vote loss wins {(cells == 'won').sum()} of {len(cells)} cells, {clear} of "
        "them by more than half a point, or 0.01 of the index. At most 0.2 points behind its own parent, at a Jaccard "
        f"index of at least 0.75: {close} of {len(wins)} columns. The published recipe comes out as printed (within "
        f"half a point, or two standard deviations) in {compared.agreeing} of the {len(compared.differences)} columns "
        f"where it was run ({compared.lengths})."
    ]
