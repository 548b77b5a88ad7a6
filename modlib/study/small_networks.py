"""Networks of channels for subsets of a parent's classes: a record for each subset and setting, and their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modlib.data import Dataset
from modlib.decomposers.channels import (
    Channels,
    ChannelSaliency,
    logits_of,
    restricted_accuracy,
    rows_of_classes,
    told_right,
)
from modlib.deploy import cost, measure
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.trials import SPLITS, trained_parent
from modlib.zoo import parents
from modlib.zoo.datasets import identity

VERSION = 2
"""Raised when the same settings give another network."""
OF_FULLY_CONNECTED = 3
"""The same of fully connected parents, whose 49 units were not cut to multiples of eight before."""
WIDTHS = 8
"""Widths of networks in records are multiples of this, where settings name no other `multiple`."""
LISTED = 10
"""Classes in the name of a record's file: names have an end."""


@dataclass(frozen=True)
class Subject:
    """An own parent that is cut: trained by a recipe of `modlib.zoo.training`."""

    model: str
    parent_epochs: int
    parent_recipe: str = "ours"
    seed: int = 0

    def label(self, data: Dataset) -> str:
        """Return what the files of a parent's records begin with."""
        return f"{data.name}-{self.model}-seed{self.seed}"

    def columns(self, data: Dataset) -> dict[str, Any]:
        """Return what the rows of its networks say of it."""
        return {"dataset": data.name, "model": self.model, "seed": self.seed}


def listed(subset: Sequence[int]) -> str:
    """Return a subset as the names of files have it: up to `LISTED` classes."""
    return "_".join(map(str, subset[:LISTED])) + ("_more" if len(subset) > LISTED else "")


@dataclass(frozen=True)
class SmallNetwork:
    """What decides a subset's network; `settings`: arguments of `Channels.recompose` beside the subset and the data."""

    subject: Subject
    subset: tuple[int, ...]
    settings: Mapping[str, Any] = field(hash=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the network, beside data and parent."""
        return {"subset": list(self.subset), "settings": dict(self.settings)}

    @property
    def version(self) -> int:
        """The version of what makes it."""
        return OF_FULLY_CONNECTED if self.subject.model in parents.FC else VERSION

    def experiment(self, data: Dataset) -> Experiment:
        """Return it as an experiment: its record."""
        of = identity(data) | vars(self.subject) | self.parameters | {"version": self.version}
        return Experiment("small_networks", f"{self.subject.label(data)}-{listed(self.subset)}", of)

    def made(self, channels: Channels, data: Dataset) -> nn.Module:
        """Return the network, cut out of the channels of its parent."""
        return channels.recompose(list(self.subset), data=data, **({"multiple": WIDTHS} | dict(self.settings)))


def measured(networks: Sequence[SmallNetwork], data: Dataset, store: Store) -> list[Record]:
    """Return the records of networks: read where they are there, else computed and written one by one."""
    channels = channels_of(data, store)

    @cache
    def of_parent(subject: Subject, split: str) -> Tensor:  # of all images, once for all subsets
        parent, _ = channels(subject)
        return logits_of(parent, data, split, torch.arange(len(data.part(split).labels)))

    def compute(network: SmallNetwork) -> Callable[[], Rows]:
        return lambda: _rows(network, *channels(network.subject), data, partial(of_parent, network.subject))

    sha256 = data.sha256()
    return [n.experiment(data).run(store, compute(n), data_sha256=sha256) for n in networks]


@dataclass(frozen=True)
class Timing:
    """Networks of one parent, by name, that are timed beside it, in turns; `repeats`: rounds."""

    networks: Mapping[str, Any] = field(hash=False)
    repeats: int
    kind: ClassVar[str] = "small_networks"
    version: ClassVar[int] = VERSION

    @property
    def subject(self) -> Subject:
        """The parent of all of them."""
        (subject,) = {network.subject for network in self.networks.values()}
        return subject

    def experiment(self, data: Dataset) -> Experiment:
        """Return it as an experiment: its record."""
        of = {name: network.parameters for name, network in self.networks.items()}
        parameters = {"timed": of, "repeats": self.repeats, "version": self.version}
        label = f"{self.subject.label(data)}-timed"
        return Experiment(self.kind, label, identity(data) | vars(self.subject) | parameters)

    def run(self, data: Dataset, store: Store) -> Record:
        """Return its record: a row for each network, runtime and batch (`modlib.deploy.measure`), one thread."""
        return self.experiment(data).run(store, lambda: self._rows(data, store), data_sha256=data.sha256())

    def _rows(self, data: Dataset, store: Store) -> Rows:
        parent, channels = channels_of(data, store)(self.subject)
        made = {name: network.made(channels, data) for name, network in self.networks.items()}
        return measure(made, parent, channels.example, repeats=self.repeats).rows


def channels_of(data: Dataset, store: Store) -> Callable[[Subject], tuple[nn.Module, Channels]]:
    """Return what gives a subject's parent and its channels, once each."""

    @cache
    def of(subject: Subject) -> tuple[nn.Module, Channels]:
        parent = trained_parent(data, subject.model, subject.seed, subject.parent_epochs, store, subject.parent_recipe)
        return parent, ChannelSaliency().decompose(parent, data, seed=subject.seed, device="cpu")

    return of


def _rows(
    network: SmallNetwork, parent: nn.Module, channels: Channels, data: Dataset, logits: Callable[[str], Tensor]
) -> Rows:
    """Return the rows of a network; `seconds`: until it is there. `logits`: the parent's, of all images of a split."""
    subset, before = network.subset, time.perf_counter()
    small = network.made(channels, data)
    about = network.subject.columns(data) | {"seconds": time.perf_counter() - before}

    def of_parent(split: str) -> float:
        rows = rows_of_classes(data, subset, split)
        return told_right(logits(split)[rows][:, list(subset)], data.part(split).labels[rows], subset)

    return [about | row for row in beside_parent(small, parent, channels.example, data, subset, of_parent)]


def beside_parent(
    network: nn.Module,
    parent: nn.Module,
    example: Any,
    data: Dataset,
    subset: Sequence[int],
    of_parent: Callable[[str], float],
) -> Rows:
    """Return a row for the held-out and for the test images: accuracy, and sizes as shares of the parent's.

    `example`: inputs of both; `of_parent`: the accuracy of the restricted parent by split.
    """
    whole, left = cost(parent, example), cost(network, example)
    sizes = {name: left[name] / whole[name] for name in whole}
    return [
        {"classes": len(subset), "subset": list(subset), "split": split}
        | sizes
        | {"accuracy": restricted_accuracy(network, data, subset, split), "parent_accuracy": of_parent(split)}
        for split in SPLITS
    ]
