"""Controls: what module stemming has to beat to mean anything.

Each is one short function over the same frozen parent, with the objective, the batches, the optimiser and the annealed
rates of recipe `ours` (`modlib.recipes`); a recipe says how many edges, how many steps, which rates. What is made is
either `Modules` whose masks are equal, or a plain network with one logit for each class. In both, the logits or
log-odds of any subset vote by their largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from modlib import checks, cotraining, masking
from modlib import shared_mask as one_mask
from modlib.data import Dataset
from modlib.engines import start
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.objective import balancing_weights, class_frequency, objective
from modlib.parent import copied
from modlib.parent_checks import check_parent
from modlib.precision import at_once, autocast
from modlib.recipes import Recipe, Run
from modlib.seeds import generator
from modlib.zoo import parents

FIXED = ("dense", "random", "magnitude")


def restricted_parent(logits: Tensor) -> Tensor:
    """Return the parent's own log-odds, read one-against-rest: log p_c / (1 − p_c) of its softmax, [n, N].

    `logits` [n, N]. The largest of any subset is the parent's largest logit among that subset; above 0 is p_c > 1/2.
    """
    return torch.stack(
        [logits[:, c] - logits[:, torch.arange(logits.shape[1]) != c].logsumexp(1) for c in range(logits.shape[1])], 1
    )


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
    return _same_for_all({n: masking.top_k_mask(v.flatten(), keep[n]).view_as(v) for n, v in values.items()}, classes)


def grafted(parent: nn.Module, masks: MaskSet, data: Dataset, recipe: Recipe, seed: int, train: bool = True) -> Modules:
    """Return modules over fixed, equal masks, whose grafting layers alone are trained; the rate is `recipe.lr`.

    The masked parent's logits are computed once. `train` False: the grafting layers as they start.
    """
    first = masks.select(masks.classes[:1])
    if any(bool((mask != first.masks[name]).any()) for name, mask in masks.masks.items()):
        raise ValueError("masks: must be the same for all classes")
    check_parent(parent, data, masking.default_policy)
    frozen = start.frozen_copy(parent, next(parent.parameters()).device)
    run, like = Run(frozen, recipe, seed), next(frozen.parameters())
    weight, bias = one_mask.starting_graftings(run, masks.classes, data.num_classes, like)
    if train:
        network = masked(frozen, {name: mask[0] for name, mask in masks.masks.items()})
        logits = _outputs(network, data)
        rates = replace(recipe, grafting_lr=recipe.lr)
        _descend(
            lambda at: one_mask.shared_log_odds(logits[at], weight, bias),
            [],
            [weight, bias],
            data,
            masks.classes,
            rates,
            seed,
        )
    return Modules(frozen, masks, weight.detach(), bias.detach())


def shared_mask(
    parent: nn.Module,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    classes: Sequence[int],
    checkpoint: Path | None = None,
) -> Modules:
    """Return modules with one supermask for all of `classes` and a grafting layer each: the limit of a large alpha.

    Only images of `classes` are trained on: with a subset, the mask is trained for the subset itself. Scores and
    grafting layers start as in module stemming. `checkpoint`: see `modlib.shared_mask.descend`. FloatingPointError
    where the scores diverge.
    """
    check_parent(parent, data, masking.default_policy)
    device = next(parent.parameters()).device
    classes, ours = checks.subset(classes, range(data.num_classes)), only(data, classes)
    run = Run(parent, replace(recipe, shared_epochs=0), seed, tuple(classes))
    identity = "" if checkpoint is None else cotraining.identity([run], ours, "shared mask")
    trained = one_mask.train(run, classes, ours, device, range(recipe.epochs), checkpoint, identity)
    cotraining.check_finite(trained.scores, -1)
    keep = recipe.kept_edges(dict(masking.maskable_parameters(parent)))
    final = {
        name: masking.top_k_mask(masking.ranked(scores, recipe.scores).flatten(), keep[name]).view_as(scores)
        for name, scores in trained.scores.items()
    }
    own = {n: s.to(device).expand(len(classes), *s.shape).clone() for n, s in trained.statistics.items()}
    weight, bias = (torch.stack(values).to(device) for values in zip(*trained.grafting.values(), strict=True))
    return Modules(start.frozen_copy(parent, device), _same_for_all(final, classes), weight, bias, own)


def small_network(
    data: Dataset, hidden_layers: int, weights: int, recipe: Recipe, seed: int, classes: Sequence[int]
) -> nn.Module:
    """Return a fully connected network for `classes` with about as many `weights`, trained from scratch on them."""
    ours = only(data, classes)
    if len(classes) < 2:
        raise ValueError(f"classes: {list(classes)}; a network that is trained from scratch chooses among two at least")
    in_features = data.inputs(data.train_images[:1])[0].numel()
    width = width_for(weights, hidden_layers, in_features, len(classes))
    network = parents.fc(hidden_layers, in_features, width, len(classes), seed=seed)
    parameters = list(network.parameters())
    _descend(lambda at: network(_inputs(network, ours, at)).T, parameters, [], ours, classes, recipe, seed)
    return network.eval().requires_grad_(False)


def width_for(weights: int, hidden_layers: int, in_features: int, out_features: int) -> int:
    """Return the width whose network has the number of weights nearest to `weights`; of two, the narrower."""
    checks.whole("weights", weights, 1)

    def count(width: int) -> int:
        sizes = [in_features, *[width] * hidden_layers, out_features]
        return sum(a * b for a, b in pairwise(sizes))

    width = 1
    while abs(count(width + 1) - weights) < abs(count(width) - weights):
        width += 1
    return width


def new_head(parent: nn.Module, data: Dataset, recipe: Recipe, seed: int, classes: Sequence[int]) -> nn.Module:
    """Return the parent, frozen, with a new last layer for `classes`, trained on their images: transfer learning.

    The parent must be an `nn.Sequential` that ends in a linear layer. Its features are computed once.
    """
    if not isinstance(parent, nn.Sequential) or not isinstance(parent[-1], nn.Linear):
        raise TypeError(f"parent must be a Sequential that ends in a linear layer, got {type(parent).__name__}")
    frozen = start.frozen_copy(parent, next(parent.parameters()).device)
    ours = only(data, classes)
    features = _outputs(frozen[:-1], ours)  # type: ignore[index]
    old = parent[-1].weight
    bound = old.shape[1] ** -0.5
    head = nn.Linear(old.shape[1], len(classes), device=old.device, dtype=old.dtype)
    with torch.no_grad():
        for values, which in ((head.weight, "weight"), (head.bias, "bias")):
            drawn = torch.empty_like(values, device="cpu")
            values.copy_(drawn.uniform_(-bound, bound, generator=generator(seed, "new head", which)))
    _descend(lambda at: head(features[at]).T, list(head.parameters()), [], ours, classes, recipe, seed)
    return nn.Sequential(*list(frozen)[:-1], head).eval().requires_grad_(False)  # type: ignore[call-overload]


def only(data: Dataset, classes: Iterable[int]) -> Dataset:
    """Return `data` with the training images of `classes` alone."""
    asked = checks.subset(classes, range(data.num_classes))
    inside = torch.isin(data.train_labels, torch.tensor(asked, device=data.train_labels.device))
    if not bool(inside.any()):
        raise ValueError(f"classes: there are no training images of {asked}")
    return replace(data, train_images=data.train_images[inside], train_labels=data.train_labels[inside])


def one_pass(modules: Modules, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """Return what computes the log-odds [B, C] of modules with equal masks in a single pass of the masked parent.

    `precision`: of that pass, "float32" or "bfloat16" (autocast).
    """
    if modules.masks.mean_jaccard() < 1.0:
        raise ValueError("modules: their masks differ; each needs a pass of its own")
    if any(bool((s != s[:1]).any()) for s in modules.statistics.values()):
        raise ValueError("modules: their statistics differ; each needs a pass of its own")
    network = modules.recompose(modules.classes[:1]).network  # the masks are all one
    network.load_state_dict({name: s[0] for name, s in modules.statistics.items()}, strict=False)
    weight, bias = (t[:, 1] - t[:, 0] for t in (modules.grafting_weight, modules.grafting_bias))

    def log_odds(inputs: Tensor) -> Tensor:
        with autocast(inputs.device, precision):
            logits = network(inputs)
        return linear(logits.to(weight.dtype), weight, bias)

    return log_odds


def _same_for_all(mask: dict[str, Tensor], classes: Sequence[int]) -> MaskSet:
    return MaskSet({name: m.expand(len(classes), *m.shape) for name, m in mask.items()}, tuple(classes))


@torch.no_grad()
def masked(network: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of `network` in which the weights outside the masks, by the parameter's name, are 0."""
    small = copied(network)
    for name, mask in masks.items():
        weight = small.get_parameter(name)
        weight.mul_(mask.to(weight.device))
    return small


def _inputs(network: nn.Module, data: Dataset, at: Tensor) -> Tensor:
    some = next(network.parameters())
    return data.inputs(data.train_images[at]).to(some.device, some.dtype)


@torch.no_grad()
def _outputs(network: nn.Module, data: Dataset) -> Tensor:
    """Return the outputs of a network on all training images."""
    every, shape = torch.arange(len(data.train_labels)), _inputs(network, data, torch.arange(1)).shape[1:]
    size = at_once(network, shape, shape[1:].numel() if len(shape) > 2 else shape.numel())
    return torch.cat([network(_inputs(network, data, at)) for at in every.split(size)])


def _descend(
    log_odds: Callable[[Tensor], Tensor],
    parameters: list[nn.Parameter],
    grafts: list[nn.Parameter],
    data: Dataset,
    classes: Sequence[int],
    recipe: Recipe,
    seed: int,
) -> None:
    """Train as Algorithm 1 does: its objective, its order of the images, its optimiser and rates.

    `log_odds` maps the positions of a batch's images to log-odds [C, B]. `parameters` step at `recipe.lr`, `grafts` at
    `recipe.grafting_rate`.
    """
    if recipe.augment != "none" or recipe.precision != "float32":
        raise ValueError("recipe: this control takes images as they are, and float32")
    recipe = replace(recipe, shared_epochs=0)  # rates start from the first of these epochs
    some = (parameters or grafts)[0]
    labels, chosen = data.train_labels.to(some.device), torch.tensor(list(classes), device=some.device)
    frequency = class_frequency(labels, data.num_classes)

    def batches(epoch: int) -> Sequence[Tensor]:
        return start.epoch_order(len(labels), seed, epoch)[: recipe.images_per_epoch].split(recipe.batch_size)

    def loss(batch: Tensor) -> Tensor:
        weights = balancing_weights(labels[batch], chosen, frequency) if recipe.balanced else None
        return objective(log_odds(batch), labels[batch], chosen, recipe.vote, weights)

    one_mask.descend(loss, batches, parameters, grafts, recipe, range(recipe.epochs))
