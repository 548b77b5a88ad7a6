"""The paper's claim that a module outperforms its parent at telling one class from the others, read fairly.

A parent can be asked "is it class c?" in more than one way; each reading is one classifier here, and so is the dense
parent with a trained grafting layer, which shows what that layer does by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modlib import metrics
from modlib.decomposers import FixedMasks
from modlib.modules import Modules
from modlib.parent import functional_call
from modlib.recipes import Recipe
from modlib.study import controls
from modlib.study.comparison import Setup, log_odds, stemming
from modlib.study.experiment import Experiment, chosen
from modlib.study.records import Record, Rows
from modlib.study.trials import SPLITS


def single_class(setup: Setup, seed: int, alone: Recipe) -> Record:
    """Return how well parent and modules answer "is it class c?", one row for each reading and split.

    `alone`: the recipe of modules that train without vote loss, as in the paper; the dense parent's grafting layers
    train with its objective and rate. A row's lists hold one number for each class: `accuracies` on all images,
    `balanced` on the class's own set of Table 6.
    """
    name = f"{setup.data.name}-{setup.model}-single-class-seed{seed}"
    parameters = setup.key(seed, setup.recipe) | {"single_class": chosen(alone)}
    sha256 = setup.data.sha256()
    experiment = Experiment("controls", name, parameters)
    return experiment.run(setup.store, lambda: _rows(setup, seed, alone), data_sha256=sha256)


def _rows(setup: Setup, seed: int, alone: Recipe) -> Rows:
    parent, classes = setup.parent(seed), setup.classes
    grafting_only = replace(alone, alpha=0.0, lr=alone.grafting_rate)
    made = {
        "dense parent + grafting layer": FixedMasks("dense", 1.0, grafting_only).decompose(
            parent, setup.data, seed=seed, classes=classes, device="cpu"
        ),
        "module": stemming(setup, alone, seed),
        "module, with vote loss": stemming(setup, setup.recipe, seed),
    }
    cuts, rows = None, []
    for split in SPLITS:
        images, labels = setup.data.split(split)
        inputs = setup.data.inputs(images)
        odds = log_odds(parent, inputs)
        if cuts is None:  # the held-out images come first
            cuts = thresholds(odds, labels[:, None] == torch.arange(len(classes)))
        said = {
            "parent, p > 1/2": odds,
            "parent, largest logit": largest(odds),
            "parent, threshold fitted": odds - cuts,
        }
        said |= {name: log_odds(modules, inputs) for name, modules in made.items()}
        bare = [controls.restricted_parent(logits) for logits in masked_logits(made["module"], inputs)]
        said["module, layer removed, p > 1/2"] = torch.stack([d[:, c] for c, d in enumerate(bare)], 1)
        said["module, layer removed, largest logit"] = torch.stack([largest(d)[:, c] for c, d in enumerate(bare)], 1)
        rows += [_row(setup, seed, split, reading, values, labels) for reading, values in said.items()]
    return rows


def _row(setup: Setup, seed: int, split: str, reading: str, said: Tensor, labels: Tensor) -> dict[str, Any]:
    every = metrics.module_accuracies(said, labels, setup.classes)
    balanced = metrics.balanced_accuracies(said, labels, setup.classes, seed).diagonal()
    common = {"dataset": setup.data.name, "model": setup.model, "reading": reading, "seed": seed, "split": split}
    means = {"module_accuracy": float(every.mean()), "balanced_accuracy": float(balanced.mean())}
    return common | means | {"accuracies": every.tolist(), "balanced": balanced.tolist()}


def largest(odds: Tensor) -> Tensor:
    """Return +1 where a column is the row's largest, the first of equal ones, else −1: [n, N]."""
    return 2.0 * torch.nn.functional.one_hot(odds.argmax(1), odds.shape[1]) - 1.0


def thresholds(odds: Tensor, truth: Tensor) -> Tensor:
    """Return, for each column of `odds` [n, C], the cut with the most right answers of "above it is yes": [C].

    `truth` bool [n, C]. Cuts lie half-way between neighbouring values, or outside all of them; the lowest wins a tie.
    """
    cuts = []
    for d, own in zip(odds.T, truth.T, strict=True):
        values, order = d.sort()
        yes = own[order].long()
        right = yes.sum() + torch.cat([yes.new_zeros(1), (1 - 2 * yes).cumsum(0)])  # the i lowest are answered no
        i = int(right.argmax())
        padded = torch.cat([values[:1] - 1, values, values[-1:] + 1])
        cuts.append((padded[i] + padded[i + 1]) / 2)
    return torch.stack(cuts)


@torch.no_grad()
def masked_logits(modules: Modules, inputs: Tensor) -> list[Tensor]:
    """Return the logits [B, N] of the parent under each module's mask, without its grafting layer."""
    weights = dict(modules.parent.named_parameters())
    masks = {name: mask.to(weights[name].device) for name, mask in modules.masks.masks.items()}
    return [
        functional_call(modules.parent, {name: weights[name] * mask[i] for name, mask in masks.items()}, (inputs,))
        for i in range(len(modules.classes))
    ]
