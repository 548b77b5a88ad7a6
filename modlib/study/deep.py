"""Deep networks on two pages: what their first masks leave of them, and how strong the stemming loss is in them.

Both pages read the same measurements of first masks; their records lie in the folder `deep_networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Self

from torch import nn

from modlib.data import Dataset
from modlib.study import names, probes
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.trials import trained_parent
from modlib.zoo import datasets

VERSION = 1
"""Raised when the same parameters give another result."""
Subject = tuple[str, str, int]
"""A parent: its data set, its model, and the seed that its measurements go by."""
MASKS = {"kaiming": "random", "magnitude": "largest weights", "no mask": "none"}
"""The first mask, by the initial scores that give it."""
STATISTICS = {"frozen": "the parent's", "batch": "its own", "none": ""}
"""The statistics of batch normalisation, by what `norm` calls them."""


@dataclass(frozen=True)
class Settings:
    """The parameters that both pages have; their notebooks say what each is."""

    dataset: str
    model: str
    parent_recipe: str
    parent_epochs: int
    reduced: str
    fc_dataset: str
    fc_epochs: int
    seeds: Sequence[int]
    parent_seeds: Sequence[int]
    k: float
    probe_images: int
    judged_images: int
    classes: Sequence[int]
    precision: str

    @property
    def fully(self) -> Sequence[str]:
        """The fully connected parents beside the deep one."""
        return ["fc1"]

    @property
    def label(self) -> str:
        """The deep parent in words."""
        return names.of_network(self.dataset, self.model) + (f" ({self.reduced})" if self.reduced else "")

    @property
    def subjects(self) -> list[Subject]:
        """All parents, seed by seed, the deep one first."""
        others = [[(self.fc_dataset, name, seed) for name in self.fully] for seed in self.seeds]
        return [one for seed, fc in zip(self.seeds, others, strict=True) for one in [self.deep(seed), *fc]]

    def deep(self, seed: int) -> Subject:
        """Return the deep parent of a seed."""
        return (self.dataset, self.model, seed)

    def parent_seed(self, seed: int) -> int:
        """Return the seed that the deep parent of a seed is trained with."""
        return dict(zip(self.seeds, self.parent_seeds, strict=True))[seed]

    def shown(self) -> dict[str, Any]:
        """Return what the provenance of the page names."""
        left_out = ("reduced", "fc_models", "probe_images", "judged_images", "classes", "pull_classes")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}

    def before(self, subject: Subject) -> Experiment:
        """Return the measurement of a parent's first masks."""
        return self.experiment(subject, "before", **self.probed())

    def probed(self) -> dict[str, Any]:
        """Return what decides the measurements of first masks."""
        return {name: getattr(self, name) for name in ("probe_images", "judged_images", "classes")}

    def experiment(self, subject: Subject, kind: str, **settings: Any) -> Experiment:
        """Return an experiment on a parent under these settings."""
        dataset, model, seed = subject
        facts = {"dataset": dataset, "model": model, "seed": seed, "kind": kind, "k": self.k, "version": VERSION}
        if model == self.model:
            facts |= {"parent_seed": self.parent_seed(seed), "parent_recipe": self.parent_recipe}
        epochs = self.parent_epochs if model == self.model else self.fc_epochs
        told = [f"{settings[s]}" for s in ("init", "norm", "reading", "lr", "alpha", "weight_decay") if s in settings]
        label = "-".join([dataset, model, kind, *told, f"seed{seed}"])
        return Experiment("deep_networks", label, facts | {"parent_epochs": epochs} | settings)


@dataclass(frozen=True)
class Bench:
    """What the experiments are run on: settings, data sets by name, trained parents, and the store of records."""

    settings: Settings
    store: Store
    sets: Mapping[str, Dataset]
    parents: Mapping[Subject, nn.Module]

    @classmethod
    def prepared(cls, settings: Settings, store: Store) -> Self:
        """Load the data and train the parents, or read them where the store has them."""
        sets = {name: datasets.load(name) for name in dict.fromkeys((settings.dataset, settings.fc_dataset))}
        made: dict[Subject, nn.Module] = {}
        deep: dict[int, nn.Module] = {}
        for subject in settings.subjects:
            dataset, model, seed = subject
            if model != settings.model:
                made[subject] = trained_parent(sets[dataset], model, seed, settings.fc_epochs, store)
                continue
            own = settings.parent_seed(seed)
            if own not in deep:
                training = (settings.parent_epochs, store, settings.parent_recipe)
                deep[own] = trained_parent(sets[dataset], model, own, *training)
            made[subject] = deep[own]
        return cls(settings, store, sets, made)

    @property
    def data(self) -> Dataset:
        """The data of the deep parent."""
        return self.sets[self.settings.dataset]

    def record(self, experiment: Experiment, measure: Callable[[], Rows]) -> Record:
        """Return the record of an experiment, measured where it is not there."""
        data = self.sets[experiment.parameters["dataset"]]
        return experiment.run(self.store, measure, data_sha256=data.sha256())

    def before(self) -> list[Record]:
        """Return what is left of every parent under its first masks."""
        own = self.settings
        return [self.record(own.before(subject), partial(self._probed, subject)) for subject in own.subjects]

    def _probed(self, subject: Subject) -> Rows:
        own, (dataset, model, seed) = self.settings, subject
        rows = probes.before_training(
            self.parents[subject],
            self.sets[dataset],
            seed,
            k=own.k,
            classes=own.classes,
            probe_images=own.probe_images,
            judged_images=own.judged_images,
        )
        return [{"dataset": dataset, "model": model, "seed": seed, "when": "before"} | row for row in rows]
