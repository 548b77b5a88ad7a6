"""One mask for all classes, with a grafting layer each: the limit of a large alpha, the strongest simple alternative.

Ours, not the paper's. `modlib.shared_mask` trains it. The modules that come out share one pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from modlib import checks, cotraining, masking, shared_mask
from modlib.data import Data
from modlib.modules import Modules
from modlib.parent import frozen_copy
from modlib.parent_checks import check_parent
from modlib.recipes import Recipe, Run


@dataclass(frozen=True)
class SharedMask:
    """Trains one supermask for all classes under a recipe (its stemming has no part).

    `checkpoint`: a file from which a training that was stopped goes on, see `modlib.shared_mask.descend`.
    """

    recipe: Recipe
    checkpoint: Path | None = None

    def decompose(
        self,
        parent: nn.Module,
        data: Data,
        *,
        seed: int,
        classes: Iterable[int] | None = None,
        device: str | torch.device = "auto",
    ) -> Modules:
        """See `modlib.decomposers.Decomposer`. With a subset of the classes, the mask is trained for the subset itself.

        Scores and grafting layers start as in module stemming. FloatingPointError where the scores diverge.
        """
        check_parent(parent, data, masking.default_policy)
        where, known = cotraining.resolve_device(device), range(data.num_classes)
        chosen = tuple(checks.subset(known if classes is None else classes, known))
        ours = data.only(chosen)
        run = Run(parent, replace(self.recipe, shared_epochs=0), seed, chosen)
        parent = run.parent  # without what wraps it
        identity = "" if self.checkpoint is None else cotraining.identity([run], ours, "shared mask")
        epochs = range(self.recipe.epochs)
        trained = shared_mask.train(run, chosen, ours, where, epochs, self.checkpoint, identity)
        cotraining.check_finite(trained.scores, -1)
        keep = self.recipe.kept_edges(dict(masking.maskable_parameters(parent)))
        final = {
            name: masking.top_k_mask(masking.ranked(scores, self.recipe.scores).flatten(), keep[name]).view_as(scores)
            for name, scores in trained.scores.items()
        }
        own = {n: s.to(where).expand(len(chosen), *s.shape).clone() for n, s in trained.statistics.items()}
        weight, bias = (torch.stack(values).to(where) for values in zip(*trained.grafting.values(), strict=True))
        return Modules(frozen_copy(parent).to(where), masking.same_for_all(final, chosen), weight, bias, own)
