"""Grids of trials by the parameters of pages: the columns of Table 1, and the run of it that other pages read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from modlib import checks
from modlib.study import names
from modlib.study.columns import Column
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Store
from modlib.study.reproduce import Layout
from modlib.study.trials import Trial, run_trials, table1_settings, table1_trials
from modlib.zoo import datasets, parents


@dataclass(frozen=True)
class StemmedColumn(Column):
    """A column of Table 1 with its stemming under recipe ours with vote loss."""

    alpha: float

    def __str__(self) -> str:
        return f"{self.name} (α = {self.alpha:g})"


def columns(name: str, given: Sequence[Mapping[str, Any]]) -> list[StemmedColumn]:
    """Return the columns that the parameter `name` of a page lists, as mappings of dataset, model and alpha.

    Raises ValueError or TypeError, with the place in the list, for what is missing, unknown or out of its range.
    """
    known = [f.name for f in fields(StemmedColumn)]
    for i, column in enumerate(given):
        if column.keys() != set(known):
            raise ValueError(f"{name}[{i}]: a column has {', '.join(known)}; got {dict(column)}")
        checks.choice(f"{name}[{i}].dataset", column["dataset"], datasets.NAMES)
        checks.choice(f"{name}[{i}].model", column["model"], parents.FC)
        checks.number(f"{name}[{i}].alpha", column["alpha"], 0.0)
    return [StemmedColumn(column["dataset"], column["model"], float(column["alpha"])) for column in given]


@dataclass(frozen=True)
class Table1Settings:
    """The settings that all columns of Table 1 have in common, see `modlib.study.trials.table1_trials`."""

    k: float
    parent_epochs: int
    published_epochs: int
    published_alphas: Sequence[float]
    ours_epochs: int
    vote: float
    vote_alpha: float

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Table1Settings:
        """Return the settings among the parameters of a page; ValueError names those that are missing."""
        return cls(**table1_settings(parameters))

    def trials(self, dataset: str, model: str, seeds: Sequence[int]) -> list[Trial]:
        """Return the trials of a column: recipe published for each alpha, and ours with vote loss."""
        return table1_trials(dataset, model, seeds, **vars(self))

    def voting_trials(self, column: StemmedColumn, seeds: Sequence[int]) -> list[Trial]:
        """Return the trials of a column under recipe ours with vote loss, with the column's own stemming."""
        settings = vars(self) | {"vote_alpha": column.alpha}
        trials = table1_trials(column.dataset, column.model, seeds, **settings)
        return [trial for trial in trials if trial.recipe.vote > 0]


@dataclass(frozen=True)
class FirstColumn:
    """The first column of a run of Table 1, with all of its trials: what the home page and the scoreboard read."""

    dataset: str
    model: str
    seeds: Sequence[int]
    settings: Table1Settings

    @classmethod
    def of(cls, run: str) -> FirstColumn:
        """Return that of a run of Table 1's page, one of `RUNS`, from the page's own parameters."""
        parameters = Layout.here().parameters_of("table1", run)
        settings = Table1Settings.of(parameters)
        return cls(parameters["datasets"][0], parameters["models"][0], parameters["seeds"], settings)

    @property
    def name(self) -> str:
        """Data set and parent, as sentences name them."""
        return names.of_network(self.dataset, self.model)

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides its trials, for a page's provenance."""
        return {"dataset": self.dataset, "model": self.model, "seeds": self.seeds, **vars(self.settings)}

    def trials(self) -> list[Trial]:
        """Return its trials."""
        return self.settings.trials(self.dataset, self.model, self.seeds)

    def run(self, store: Store) -> list[Record]:
        """Return the records of its trials, computing those that are not there."""
        return run_trials(self.trials(), datasets.load(self.dataset), store)

    def experiments(self) -> list[Experiment]:
        """Return its trials as experiments."""
        return [trial.experiment for trial in self.trials()]


def is_papers(dataset: str, model: str, k: float) -> bool:
    """Return whether a column is the one that most of the paper's numbers are of: MNIST FC1 at k = 10%."""
    return dataset == "mnist" and model == "fc1" and k == 0.10
