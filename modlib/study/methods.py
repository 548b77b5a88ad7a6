"""Every method on one parent, measured alike: Pan and Rajan's rules, a control, module stemming. One record each.

What is in the store is read. A stored parent's records can be read without its file, which is needed to compute them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, metrics
from modlib.data import Dataset
from modlib.decomposers import PanRajan, WithoutIdleNeurons, pan_rajan
from modlib.masking import MaskSet, mean_over_pairs
from modlib.modules import Modules
from modlib.parent import parent_hash
from modlib.recipes import Recipe
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.trials import Trial, measure, trained_parent, trial_modules
from modlib.zoo import stored, training
from modlib.zoo.datasets import scaling_of

VERSION = 1
"""Raised when the same parent and method give other results."""
CONTROL = "no idle neurons"
RULES = (*pan_rajan.METHODS, CONTROL)
STORED_EPOCHS = 50
"""Epochs that the authors of the stored parents trained them for."""


@dataclass(frozen=True)
class Subject:
    """A parent: "own", of a seed, or "stored", one of the authors' eight (its seed is module stemming's alone)."""

    dataset: str
    model: str
    parent: str
    seed: int
    parent_epochs: int


def compare(
    subject: Subject, recipes: Sequence[tuple[str, Recipe]], data: Dataset, store: Store, folder: str | Path = ""
) -> list[Record]:
    """Return a record for every rule, the control and every named recipe of module stemming, on the parent `subject`.

    `folder`: where the stored parents lie; empty: only what the store has is returned of a stored one.
    `data`: with the preprocessing of own parents; stored ones get theirs.
    """
    checks.choice("subject.parent", subject.parent, ("own", "stored"))
    if subject.parent == "stored":
        data = replace(data, preprocess=pan_rajan.twice_scaled)
    scaling = scaling_of(data) if subject.parent == "own" else "standard"  # a stored parent brings its own

    def parent() -> nn.Module:
        if subject.parent == "stored":
            return stored.stored_parent(folder, subject.dataset, subject.model)
        return trained_parent(data, subject.model, subject.seed, subject.parent_epochs, store)

    def compute(method: str | Trial) -> Callable[[], Rows]:
        return lambda: [vars(subject) | _row(method, parent(), data, store)]

    records, sha256 = [], data.sha256()
    for method in _methods(subject, recipes, scaling):
        experiment = _experiment(subject, method, scaling)
        if subject.parent == "own" or folder or experiment.is_done(store):
            records.append(experiment.run(store, compute(method), data_sha256=sha256))
    return records


def experiments(subject: Subject, recipes: Sequence[tuple[str, Recipe]], scaling: str = "standard") -> list[Experiment]:
    """Return the experiments that `compare` reads or runs; `scaling`: of the data, which counts for an own parent."""
    scaling = scaling if subject.parent == "own" else "standard"  # a stored parent brings its own
    return [_experiment(subject, method, scaling) for method in _methods(subject, recipes, scaling)]


def _methods(subject: Subject, recipes: Sequence[tuple[str, Recipe]], scaling: str) -> list[str | Trial]:
    of = (subject.seed, subject.parent_epochs, subject.parent)
    trials = [Trial(subject.dataset, subject.model, name, recipe, *of, scaling=scaling) for name, recipe in recipes]
    return [*RULES, *trials]


def sharing(masks: MaskSet, weights: Tensor) -> dict[str, float]:
    """Return what modules share: both indices, density, union of pairs and of all; `weights` [C, n], zeros included."""
    own = masks.common().diagonal() / weights.shape[1]
    return {
        "jaccard_index": masks.mean_jaccard(),
        "value_index": metrics.value_index(weights),
        "density": float(own.mean()),
        "remaining_parameters": mean_over_pairs(masks.remaining_of_pairs()),
        "remaining_parameters_all": masks.remaining(),
    }


def stemming_weights(modules: Modules) -> Tensor:
    """Return the weights of each module of a decomposition, zeros where cut: [C, weights]."""
    weights = {name: modules.parent.get_parameter(name).detach() for name in modules.masks.masks}
    parts = [(weights[name] * mask.to(weights[name].device)).flatten(1) for name, mask in modules.masks.masks.items()]
    return torch.cat(parts, dim=1)


def _row(method: str | Trial, parent: nn.Module, data: Dataset, store: Store) -> dict[str, Any]:
    measured = _stemming(method, parent, data, store) if isinstance(method, Trial) else _rule(method, parent, data)
    facts = {"parent_accuracy": training.accuracy(parent, data), "parent_hash": parent_hash(parent)[:12]}
    return {"split": "test"} | measured | facts


def _rule(method: str, parent: nn.Module, data: Dataset) -> dict[str, Any]:
    decomposer = WithoutIdleNeurons() if method == CONTROL else PanRajan(method)
    made = decomposer.decompose(parent, data, seed=0)
    images, labels = data.split("test")
    predicted = made.recompose(made.classes).predict(data.inputs(images))
    return {
        "method": method,
        "recipe": "rule",
        "accuracy": float((predicted == labels).double().mean()),
        **sharing(made.masks, pan_rajan.flat_weights(made.modules)),
    }


def _stemming(trial: Trial, parent: nn.Module, data: Dataset, store: Store) -> dict[str, Any]:
    modules = trial_modules(trial, data, store, parent=None if trial.parent == "own" else parent)
    return {
        "method": "module stemming",
        "recipe": trial.recipe_name,
        **{name: getattr(trial.recipe, name) for name in ("k", "alpha", "vote")},
        "epoch": trial.recipe.epochs,
        "accuracy": measure(modules, data, "test")["accuracy"],
        **sharing(modules.masks, stemming_weights(modules)),
    }


def _experiment(subject: Subject, method: str | Trial, scaling: str) -> Experiment:
    """Return the experiment of one method on one parent."""
    given = {**vars(subject), "version": VERSION} | ({} if scaling == "standard" else {"scaling": scaling})
    if isinstance(method, Trial):
        parameters = {**given, "method": "module stemming", "trial": method.parameters}
        return Experiment("baselines", method.name, parameters)
    kind = f"{subject.dataset}-{subject.model}-{subject.parent}-seed{subject.seed}"
    return Experiment("baselines", f"{kind}-{method.lower().replace(' ', '-')}", {**given, "method": method})
