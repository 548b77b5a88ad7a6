"""Module stemming, the paper's way: a supermask and a grafting layer a class, co-trained (`modlib.cotraining`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from modlib import checks, masking
from modlib.cotraining import cotrain_population
from modlib.data import Data
from modlib.modules import Modules
from modlib.recipes import Recipe, Run


@dataclass(frozen=True)
class ModuleStemming:
    """Decomposes by module stemming under a recipe; see `modlib.cotrain` for policies and engines."""

    recipe: Recipe
    policy: masking.Policy = masking.default_policy
    engine: str = "auto"

    def decompose(
        self,
        parent: nn.Module,
        data: Data,
        *,
        seed: int,
        classes: Iterable[int] | None = None,
        device: str | torch.device = "auto",
    ) -> Modules:
        """See `modlib.decomposers.Decomposer`."""
        chosen = None if classes is None else tuple(checks.listed(classes, "classes"))
        run = Run(parent, self.recipe, seed, chosen, self.policy)
        return cotrain_population([run], data, engine=self.engine, device=device)[0]
