"""Networks by name, with random weights: torchvision's families and the book's parents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn

from modlib.data import Dataset
from modlib.study.records import Rows
from modlib.zoo import parents as zoo

SIDES = {"inception_v3": 96, "maxvit_t": 224}
"""Images of networks that take no smaller ones: many halvings, windows of 7 x 7 after five."""
WITH_HEADS = ("googlenet", "inception_v3")
"""Networks with auxiliary classifiers, which only their own training uses."""


@dataclass(frozen=True)
class Subject:
    """A network by name, its family, "torchvision" or "book", and the precision of its passes."""

    model: str
    family: str
    precision: str


def network(subject: Subject, data: Dataset, heads: bool = True) -> nn.Module:
    """Return a network with random weights for `data`; `heads`: with auxiliary classifiers, where it has some."""
    name = subject.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if subject.family == "book":
            return zoo.make(name, data)
        options: dict[str, Any] = {"init_weights": False, "aux_logits": heads} if name in WITH_HEADS else {}
        options |= {"image_size": data.train_images.shape[1]} if name.startswith("vit") else {}
        made: nn.Module = torchvision.models.get_model(name, num_classes=data.num_classes, **options)
        return made


def attempt(measure: Callable[[], dict[str, Any]]) -> Rows:
    """Return what `measure` returns, or its error in one line: whatever goes wrong is a result of this page."""
    try:
        return [measure() | {"error": ""}]
    except Exception as error:
        return [{"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}]
