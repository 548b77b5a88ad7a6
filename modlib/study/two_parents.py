"""One classifier over modules of two parents, each of half the classes, and what images of the other half bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from modlib import cotraining, metrics
from modlib.cotraining import cotrain_population
from modlib.data import Dataset
from modlib.merging import merge
from modlib.modules import Modules
from modlib.parent import called
from modlib.recipes import Recipe, Run
from modlib.seeds import generator
from modlib.study.experiment import Experiment, chosen
from modlib.study.records import Record, Rows, Store
from modlib.study.trials import PARENT_VERSION
from modlib.zoo import parents, training

VERSION = 1
"""Raised when the same parameters give other numbers."""
SPLITS = ("held_out", "test")


@dataclass(frozen=True)
class TwoParents:
    """Two networks that share nothing, and one that knows all.

    The first parent and its modules see the lower half of the classes, the second one the upper half; a third parent,
    and its modules, all. `images`: the first training images, split by their classes. `shares`: of the other half's
    images, those that modules are shown as background, drawn.
    """

    dataset: str
    model: str
    parent_epochs: int
    recipe: Recipe
    seed: int
    images: int
    shares: tuple[float, ...]

    @property
    def experiment(self) -> Experiment:
        """Return it as an experiment: its record."""
        versions = {"cotraining_version": cotraining.VERSION, "parent_version": PARENT_VERSION, "version": VERSION}
        own = asdict(self) | {"recipe": chosen(self.recipe)}
        return Experiment("two_parents", f"{self.dataset}-{self.model}-seed{self.seed}", own | versions)

    def run(self, data: Dataset, store: Store) -> Record:
        """Return its record: a row for each network, share of background images and split, with its accuracy."""
        return self.experiment.run(store, lambda: self._rows(data), data_sha256=data.sha256())

    def _rows(self, data: Dataset) -> Rows:
        few = replace(
            data, train_images=data.train_images[: self.images], train_labels=data.train_labels[: self.images]
        )
        middle = data.num_classes // 2
        split = [tuple(range(middle)), tuple(range(middle, data.num_classes))]
        halves = [half(few, classes) for classes in split]
        nets = [self._parent(part) for part in halves]
        rows = self._of_parents(nets, halves, few)
        for share in self.shares:
            shown = [
                replace(part, background_images=some(other.train_images, share, self.seed))
                for part, other in zip(halves, reversed(halves), strict=True)
            ]
            made = [self._modules(net, part) for net, part in zip(nets, shown, strict=True)]
            both = merge(*made, classes=split)
            votes = {"two parents": both, "two parents, calibrated": both.calibrated(few)}
            rows += [self._row(name, share, network, few, s) for name, network in votes.items() for s in SPLITS]
        one = self._parent(few)
        whole = self._modules(one, few).recompose(range(data.num_classes))
        alone = [self._of_parent("one parent itself", one, few, s) for s in SPLITS]
        return rows + alone + [self._row("one parent", None, whole, few, s) for s in SPLITS]

    def _parent(self, data: Dataset) -> nn.Module:
        settings = training.recipe("published", self.dataset, self.model, epochs=self.parent_epochs)
        return training.train(parents.make(self.model, data, self.seed), data, seed=self.seed, parameters=settings)

    def _modules(self, parent: nn.Module, data: Dataset) -> Modules:
        return cotrain_population([Run(parent, self.recipe, self.seed)], data, device="cpu")[0]

    @torch.no_grad()
    def _of_parents(self, nets: Sequence[nn.Module], halves: Sequence[Dataset], data: Dataset) -> Rows:
        """Return how each parent does on its own half, and both together by the larger of their softmaxes."""
        rows = []
        for s in SPLITS:
            for name, net, part in zip(("first parent", "second parent"), nets, halves, strict=True):
                rows.append(self._of_parent(f"{name}, own half", net, part, s))
            images, labels = data.split(s)
            said = torch.cat([called(net, data.inputs(images)).softmax(1) for net in nets], 1)
            accuracy = float((said.argmax(1) == labels).double().mean())
            rows.append(self._named("two parents, softmax", None, s) | {"accuracy": accuracy})
        return rows

    @torch.no_grad()
    def _of_parent(self, name: str, net: nn.Module, data: Dataset, split: str) -> dict[str, Any]:
        images, labels = data.split(split)
        right = called(net, data.inputs(images)).argmax(1) == labels
        return self._named(name, None, split) | {"accuracy": float(right.double().mean())}

    def _row(self, name: str, share: float | None, network: Any, data: Dataset, split: str) -> dict[str, Any]:
        """Return how often the vote of a network for all classes is right, and how often it finds the right half."""
        images, labels = data.split(split)
        with torch.no_grad():
            odds = network.log_odds(data.inputs(images))
        every, middle = range(data.num_classes), data.num_classes // 2
        found = {"accuracy": metrics.recomposed_accuracy(odds, labels, every)}
        found["right_half"] = float(((odds.argmax(1) < middle) == (labels < middle)).double().mean())
        return self._named(name, share, split) | found

    def _named(self, name: str, share: float | None, split: str) -> dict[str, Any]:
        common = {"dataset": self.dataset, "model": self.model, "seed": self.seed, "images": self.images}
        return common | {"network": name, "background": share, "split": split}


def half(data: Dataset, classes: Sequence[int]) -> Dataset:
    """Return the images of some neighbouring classes in every split, numbered from 0."""
    first, parts = classes[0], dict[str, Tensor]()
    for split in ("train", *SPLITS):
        images, labels = data.split(split)
        inside = (labels >= first) & (labels <= classes[-1])
        parts |= {f"{split}_images": images[inside], f"{split}_labels": labels[inside] - first}
    return replace(data, num_classes=len(classes), **parts)  # type: ignore[arg-type]


def some(images: Tensor, share: float, seed: int) -> Tensor | None:
    """Return a share of the images, drawn by `seed`; None where that is none of them."""
    count = round(share * len(images))
    drawn = torch.randperm(len(images), generator=generator(seed, "background"))[:count]
    return images[drawn] if count else None
