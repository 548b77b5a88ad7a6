"""Ways to a subset's network, measured alike: a record for each parent, way, setting, subset and draw; their times."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modlib import checks
from modlib.data import Dataset
from modlib.decomposers.channels import restricted_accuracy
from modlib.deploy import measure
from modlib.study import small_networks
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.small_networks import Subject, beside_parent, listed
from modlib.study.trials import trained_parent
from modlib.study.ways import WAYS, Built, Prepared, Way, build, prepare
from modlib.study.ways.fitting import example_of
from modlib.zoo.datasets import identity

VERSION = 1
"""Raised when the same settings give another network."""


@dataclass(frozen=True)
class Asked:
    """What decides a network: a parent, a way by its name in `WAYS`, its settings, the subset, and what is drawn."""

    subject: Subject
    way: str
    settings: Mapping[str, Any] = field(hash=False)
    subset: tuple[int, ...] = ()
    draw: int = 0

    def __post_init__(self) -> None:
        checks.choice("way", self.way, WAYS)
        known = [f.name for f in fields(WAYS[self.way])]
        if unknown := set(self.settings) - set(known):
            raise ValueError(f"settings: {sorted(unknown)} are none of {self.way}; it has {known}")

    @property
    def made_by(self) -> Way:
        """The way, with its settings."""
        return WAYS[self.way](**self.settings)

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the network, beside data and parent."""
        return {"way": self.way, "settings": dict(self.settings), "subset": list(self.subset), "draw": self.draw}

    def experiment(self, data: Dataset) -> Experiment:
        """Return it as an experiment: its record."""
        label = f"{self.subject.label(data)}-{self.way.replace(' ', '_')}-{listed(self.subset)}"
        return Experiment("ways", label, identity(data) | vars(self.subject) | self.parameters | {"version": VERSION})


class Bench:
    """Parents and what ways have prepared of them, once each, and the networks that are built."""

    def __init__(self, data: Dataset, store: Store) -> None:
        self.data, self.store = data, store
        self._prepared: dict[Hashable, Prepared] = {}
        self.parent = cache(self._parent)
        self.accuracy_of_parent = cache(self._accuracy_of_parent)

    def _parent(self, subject: Subject) -> nn.Module:
        of = (subject.model, subject.seed, subject.parent_epochs, self.store, subject.parent_recipe)
        return trained_parent(self.data, *of)

    def _accuracy_of_parent(self, subject: Subject, subset: tuple[int, ...], split: str) -> float:
        return restricted_accuracy(self.parent(subject), self.data, subset, split, subset)

    def built(self, asked: Asked) -> Built:
        """Return the network that is asked for."""
        way, parent = asked.made_by, self.parent(asked.subject)
        shared = (asked.subject, asked.way, way.shared, asked.draw)
        if shared not in self._prepared:
            self._prepared[shared] = prepare(way, parent, self.data, asked.draw, self.store)
        made = build(way, parent, self.data, asked.subset, asked.draw, self._prepared[shared])
        path = self._path(asked)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(made.network, path)
        return made

    def network(self, asked: Asked) -> nn.Module:
        """Return the network that is asked for: as this checkout has built it before, else built now."""
        path = self._path(asked)
        if path is not None and path.exists():
            kept: nn.Module = torch.load(path, weights_only=False)  # of this very folder, written above
            return kept
        return self.built(asked).network

    def _path(self, asked: Asked) -> Path | None:
        """Return where a built network is kept, so that it can be timed when the machine is idle; in no repository."""
        return asked.experiment(self.data).path(self.store, "checkpoints", ".pt")


def measured(networks: Sequence[Asked], data: Dataset, store: Store) -> list[Record]:
    """Return the records of networks: read where they are there, else computed and written one by one."""
    bench, sha256 = Bench(data, store), data.sha256()

    def compute(asked: Asked) -> Callable[[], Rows]:
        return lambda: _rows(asked, bench)

    return [asked.experiment(data).run(store, compute(asked), data_sha256=sha256) for asked in networks]


def _rows(asked: Asked, bench: Bench) -> Rows:
    """Return the rows of a network, with what it took to build it."""
    built, parent = bench.built(asked), bench.parent(asked.subject)
    about = asked.subject.columns(bench.data) | {
        "way": asked.way,
        "draw": asked.draw,
        "kept_weights": built.kept_weights,
        "first_seconds": built.first_seconds,
        "further_seconds": built.further_seconds,
        "labelled_images": built.labelled_images,
    }
    of_parent = partial(bench.accuracy_of_parent, asked.subject, asked.subset)
    example = example_of(bench.data, parent)
    rows = beside_parent(built.network, parent, example, bench.data, asked.subset, of_parent)
    return [about | row for row in rows]


class Timing(small_networks.Timing):
    """Networks of one parent, by name, that are timed beside it in torch, in turns; `repeats`: rounds."""

    kind = "ways"
    version = VERSION

    def _rows(self, data: Dataset, store: Store) -> Rows:
        bench = Bench(data, store)
        made = {name: bench.network(asked) for name, asked in self.networks.items()}
        parent = bench.parent(self.subject)
        return measure(made, parent, example_of(data, parent), runtimes=("eager",), repeats=self.repeats).rows
