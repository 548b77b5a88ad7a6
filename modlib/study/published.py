"""Recipe `published` beside the paper: the grid of trials that a page shows, and the numbers that the paper prints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from modlib.study.experiment import Experiment
from modlib.study.records import Record, Store
from modlib.study.trials import Trial, published_trials, run_trials
from modlib.zoo import datasets


@dataclass(frozen=True)
class Grid:
    """The trials of recipe `published` that a page shows: every combination of its lists, for every seed.

    `further`: more seeds for a part of the grid; each entry names `seeds` and, where they are not for all of the grid,
    the `model` or the `k` that they are for. None: the page has no such parameter. ValueError or TypeError for an entry
    that names something else, or lies outside the grid.
    """

    dataset: str
    models: Sequence[str]
    ks: Sequence[float]
    alphas: Sequence[float]
    seeds: Sequence[int]
    epochs: int
    parent_epochs: int
    share_inits: Sequence[bool] = (True,)
    further: Sequence[Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        for i, entry in enumerate(self.further or ()):
            self._check_further(f"further[{i}]", entry)

    def _check_further(self, name: str, entry: Mapping[str, Any]) -> None:
        if "seeds" not in entry or entry.keys() - {"model", "k", "seeds"}:
            raise ValueError(f"{name} must name 'seeds', and may name 'model' and 'k'; it names {sorted(entry)}")
        if not isinstance(entry["seeds"], (list, tuple, range)):
            raise TypeError(f"{name}: seeds must be a list of numbers, got {entry['seeds']!r}")
        for field, own in (("model", self.models), ("k", self.ks)):
            if field in entry and entry[field] not in own:
                raise ValueError(f"{name}: {field} must be one that the page shows, {list(own)}, got {entry[field]!r}")

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the trials, as the page tells where it is from; what a page has no parameter for is left out."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    @property
    def has_papers_network(self) -> bool:
        """Whether the network that the paper's Tables 2 and 6 are of is in it: FC1 on MNIST."""
        return self.dataset == "mnist" and "fc1" in self.models

    def trials(self) -> list[Trial]:
        """Return all trials, those of `further` last."""
        parts: list[Mapping[str, Any]] = [{"seeds": self.seeds}, *(self.further or ())]
        settings: dict[str, Any] = {name: getattr(self, name) for name in ("epochs", "parent_epochs", "share_inits")}
        trials = []
        for part in parts:
            models = [part["model"]] if "model" in part else self.models
            ks = [part["k"]] if "k" in part else self.ks
            trials += published_trials(self.dataset, models, ks, self.alphas, part["seeds"], **settings)
        return trials

    def experiments(self) -> list[Experiment]:
        """Return the experiments whose records hold the trials."""
        return [trial.experiment for trial in self.trials()]

    def run(self, store: Store, population: int = 1) -> list[Record]:
        """Return the record of every trial, `population` of those that are not in the store trained side by side."""
        return run_trials(self.trials(), datasets.load(self.dataset), store, population=population)


def done_and_failed(done: Sequence[Record]) -> str:
    """Return in words how many trials there are, and how many of them failed."""
    return f"{len(done)} trials, {sum('failed' in row for record in done for row in record.rows)} failed"


def count_of(numbers: Collection[int]) -> int | str:
    """Return how many trials the settings of a page have: one number, or "fewest to most" where they differ."""
    fewest, most = min(numbers), max(numbers)
    return fewest if fewest == most else f"{fewest} to {most}"


def trials_of(count: int | str) -> str:
    """Return a `count_of` trials in words."""
    return f"{count} trial" if count == 1 else f"{count} trials"
