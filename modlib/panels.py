"""Panels of Figure 4: a convolutional parent decomposed under several settings, with its control.

`modlib panel` runs them, alone or under `torchrun`; each trial's record is written as soon as it is done, and what was
stopped goes on from its last epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from modlib import checks, datasets, experiments, metrics, parents, recipes, training
from modlib.baselines import controls
from modlib.cotraining import resolve_device
from modlib.datasets import Dataset
from modlib.engines.sharding import Shard
from modlib.experiments import Trial
from modlib.recipes import Recipe
from modlib.records import Record, Store


@dataclass(frozen=True)
class Panel:
    """A data set, a parent, and the settings under which it is decomposed.

    `alphas`: of Eq. 1 as it is written, `scale_free`: of its scale-free reading; `voting`: those of the scale-free
    reading that are run with the vote loss too. `epochs`, `images_per_epoch`, `batch_size`, `lr`, `init`, `k`,
    `precision`: see `modlib.cotrain`; recipe `ours` otherwise. `parent_recipe`, `parent_epochs`: see
    `modlib.training.recipe`. `measured_images`, `final_images`: see `modlib.experiments.Trial`.
    `reduced`: what is smaller than in the paper, in words; empty: nothing.
    """

    dataset: str
    model: str
    seeds: Sequence[int]
    parent_epochs: int
    epochs: int
    lr: float
    images_per_epoch: int | None = None
    alphas: Sequence[float] = (0.0, 0.05, 0.1, 1.0)
    scale_free: Sequence[float] = ()
    voting: Sequence[float] = ()
    vote: float = 0.9
    k: float = 0.10
    init: str = "magnitude"
    batch_size: int = 128
    precision: str = "bfloat16"
    parent_recipe: str = "ours"
    measured_images: int | None = None
    final_images: int | None = None
    reduced: str = ""

    def __post_init__(self) -> None:
        checks.choice("dataset", self.dataset, datasets.NAMES)
        checks.choice("model", self.model, parents.CONVOLUTIONAL)
        if not self.seeds:
            raise ValueError("seeds: empty; name at least one")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Panel:
        """Return the panel of a notebook's parameters; raise ValueError for an unknown name."""
        unknown = settings.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"panels: unknown settings {sorted(unknown)}")
        return cls(**settings)

    @property
    def name(self) -> str:
        """Data set and parent."""
        return f"{self.dataset} {self.model}"

    def recipe(self, alpha: float, reduction: str = "total", vote: float = 0.0) -> Recipe:
        """Return the recipe of one setting."""
        return recipes.ours(
            k=self.k,
            alpha=float(alpha),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            init=self.init,
            reduction=reduction,
            vote=vote,
            images_per_epoch=self.images_per_epoch,
            precision=self.precision,
        )

    def settings(self) -> dict[str, Recipe]:
        """Return the recipes of the panel by the name that the page shows; α = 0 is the same in every reading."""
        made = {f"α = {a:g}": self.recipe(a) for a in self.alphas}
        made |= {f"α = {a:g}, scale-free": self.recipe(a, "scale_free") for a in self.scale_free}
        return made | {f"α = {a:g}, scale-free, vote": self.recipe(a, "scale_free", self.vote) for a in self.voting}

    def trials(self) -> dict[str, list[Trial]]:
        """Return the trials of every setting, one for each seed."""
        return {
            name: [
                Trial(
                    self.dataset,
                    self.model,
                    "ours",
                    recipe,
                    seed,
                    self.parent_epochs,
                    parent_recipe=self.parent_recipe,
                    measured_images=self.measured_images,
                    final_images=self.final_images,
                )
                for seed in self.seeds
            ]
            for name, recipe in self.settings().items()
        }


FULL = {
    "cifar10 vgg16": Panel("cifar10", "vgg16", range(5), parent_epochs=60, epochs=30, lr=0.1),
    "cifar100 wrn28_10": Panel("cifar100", "wrn28_10", range(5), parent_epochs=100, epochs=10, lr=0.1),
    "svhn resnet50": Panel("svhn", "resnet50", range(5), parent_epochs=30, epochs=20, lr=0.1),
}
"""The paper's three panels at full size, for a GPU. Rate and epochs are first guesses, not tuned."""

REDUCED_FILE = Path("notebooks") / "params" / "figure4.yml"
"""The panels that the book shows, from the root of a checkout."""


def named(dataset: str, model: str, file: Path = REDUCED_FILE) -> Panel:
    """Return a panel: of the page's parameter file where it has it, else the paper's at full size."""
    known = {panel.name: panel for panel in map(Panel.of, yaml.safe_load(file.read_text())["panels"])}
    found = (FULL | known).get(f"{dataset} {model}")
    if found is None:
        raise ValueError(f"panel: no panel {dataset} {model}; there are {sorted(known | FULL)}")
    return found


def run(panel: Panel, data: Dataset, store: Store, device: str = "auto") -> None:
    """Run what is open of a panel, seed by seed, so that what is there after any time is of use."""
    trials = panel.trials()
    for i, seed in enumerate(panel.seeds):
        experiments.run_trials([of_setting[i] for of_setting in trials.values()], data, store, device=device)
        shared_mask(panel, seed, data, store, device)


def shared_mask(panel: Panel, seed: int, data: Dataset, store: Store, device: str = "auto") -> Record:
    """Return the record of the control: one supermask for all classes, with the vote loss, as many steps as a module.

    Its rows are those of `modlib.metrics.subset_curve`, beside the accuracy on held-out images.
    """
    recipe = panel.recipe(0.0, vote=panel.vote)
    irrelevant = {"alphas", "scale_free", "voting", "reduced", "measured_images"}
    relevant = {name: v for name, v in vars(panel).items() if name not in irrelevant} | {"seeds": [seed]}
    parameters = {"control": "shared mask", "panel": relevant}

    def compute() -> list[dict[str, Any]]:
        where = resolve_device(device)
        which = (panel.model, seed, panel.parent_epochs)
        parent = experiments.trained_parent(data, *which, store, panel.parent_recipe, where)
        classes = range(data.num_classes)
        modules = controls.shared_mask(parent, data, recipe, seed, classes)
        one_pass = controls.one_pass(modules, panel.precision)
        held, held_labels = _log_odds(one_pass, data, "held_out", panel.final_images, where)
        odds, labels = _log_odds(one_pass, data, "test", panel.final_images, where)
        logits, _ = training.logits(parent, data, "test", precision=panel.precision)
        held_out = metrics.recomposed_accuracy(held, held_labels, classes)
        curve = metrics.subset_curve(odds, logits[: len(labels)], labels, modules.masks, seed)
        return [
            {"seed": seed, "held_out_accuracy": held_out, "density": modules.masks.remaining([0])} | row
            for row in curve
        ]

    name = f"{panel.dataset}-{panel.model}-shared-mask-seed{seed}"
    sha256 = data.sha256()
    return Shard.here().first_alone(lambda: store.record("panels", name, parameters, compute, data_sha256=sha256))


@torch.no_grad()
def _log_odds(
    network: Callable[[Tensor], Tensor], data: Dataset, split: str, images: int | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return log-odds [n, C] of the first `images` of a split, and the labels [n], in host memory."""
    taken, labels = (values[:images] for values in data.split(split))
    return torch.cat([network(data.inputs(part.to(device))).cpu() for part in taken.split(500)]), labels


def describe(panel: Panel, store: Store) -> str:
    """Return one line on how much of a panel is there."""
    every = [trial for of_setting in panel.trials().values() for trial in of_setting]
    done = sum(experiments.is_done(trial, store) for trial in every)
    return f"{panel.name}: {done} of {len(every)} trials are there ({time.strftime('%H:%M')})"
