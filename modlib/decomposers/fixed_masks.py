"""Masks that nothing is learnt for, the same for every class: what masks chosen by training have to beat.

Only the grafting layers are trained, on the masked parent's logits, which are computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from modlib import checks, cotraining, masking, shared_mask
from modlib.data import Data
from modlib.decomposers.alike import outputs, train_alike
from modlib.engines import start
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.parent import copied
from modlib.parent_checks import check_parent
from modlib.recipes import Recipe, Run

FIXED = ("dense", "random", "magnitude")


@dataclass(frozen=True)
class FixedMasks:
    """Decomposes by one fixed mask, see `fixed_masks`; grafting layers train under a recipe, at its `lr`."""

    kind: str
    k: float
    recipe: Recipe
    allocation: str = "uniform"

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
        known = range(data.num_classes)
        chosen = checks.subset(known if classes is None else classes, known)
        masks = fixed_masks(parent, self.kind, self.k, seed, chosen, self.allocation)
        return grafted(parent, masks, data, self.recipe, seed, device=device)


def fixed_masks(
    parent: nn.Module, kind: str, k: float, seed: int, classes: Sequence[int], allocation: str = "uniform"
) -> MaskSet:
    """Return one mask that nothing was learnt for, the same for every class.

    `dense` keeps every edge, `magnitude` the largest weights of every layer, `random` the edges that module stemming
    starts from with this seed. `allocation`: how many edges each layer keeps, see `modlib.masking.kept_edges`.
    """
    checks.choice("kind", kind, FIXED)
    weights = dict(masking.maskable_parameters(parent))
    values = {name: w.detach().abs() for name, w in weights.items()}
    if kind == "random":
        values = start.starting_scores(Run(parent, Recipe(k=k, alpha=0.0, epochs=1), seed), weights, 0)
    keep = masking.kept_edges(1.0 if kind == "dense" else k, weights, allocation)
    return masking.same_for_all(
        {n: masking.top_k_mask(v.flatten(), keep[n]).view_as(v) for n, v in values.items()}, classes
    )


def grafted(
    parent: nn.Module,
    masks: MaskSet,
    data: Data,
    recipe: Recipe,
    seed: int,
    train: bool = True,
    device: str | torch.device = "auto",
) -> Modules:
    """Return modules over fixed, equal masks, whose grafting layers alone are trained; the rate is `recipe.lr`.

    The masked parent's logits are computed once. `train` False: the grafting layers as they start.
    """
    first = masks.select(masks.classes[:1])
    if any(bool((mask != first.masks[name]).any()) for name, mask in masks.masks.items()):
        raise ValueError("masks: must be the same for all classes")
    check_parent(parent, data, masking.default_policy)
    frozen = start.frozen_copy(parent, cotraining.resolve_device(device))
    run, like = Run(frozen, recipe, seed), next(frozen.parameters())
    weight, bias = shared_mask.starting_graftings(run, masks.classes, data.num_classes, like)
    if train:
        network = masked(frozen, {name: mask[0] for name, mask in masks.masks.items()})
        logits = outputs(network, data)
        rates = replace(recipe, grafting_lr=recipe.lr)
        train_alike(
            lambda at: shared_mask.shared_log_odds(logits[at], weight, bias),
            [],
            [weight, bias],
            data,
            masks.classes,
            rates,
            seed,
        )
    return Modules(frozen, masks, weight.detach(), bias.detach())


@torch.no_grad()
def masked(network: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of `network` in which the weights outside the masks, by the parameter's name, are 0."""
    small = copied(network)
    for name, mask in masks.items():
        weight = small.get_parameter(name)
        weight.mul_(mask.to(weight.device))
    return small
