"""Controls that no decomposition comes into: what a user would do instead, trained on equal terms.

With the objective, the batches, the optimiser and the annealed rates of recipe `ours` (`modlib.recipes`); a recipe says
how many edges, how many steps, which rates. What is made is a plain network with one logit for each class, of which any
subset votes by its largest. Fixed and shared masks are decompositions of their own: `modlib.decomposers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from modlib import checks
from modlib.data import Dataset
from modlib.decomposers.alike import inputs_at, outputs, train_alike
from modlib.engines import start
from modlib.recipes import Recipe
from modlib.seeds import generator
from modlib.zoo import parents


def restricted_parent(logits: Tensor) -> Tensor:
    """Return the parent's own log-odds, read one-against-rest: log p_c / (1 − p_c) of its softmax, [n, N].

    `logits` [n, N]. The largest of any subset is the parent's largest logit among that subset; above 0 is p_c > 1/2.
    """
    return torch.stack(
        [logits[:, c] - logits[:, torch.arange(logits.shape[1]) != c].logsumexp(1) for c in range(logits.shape[1])], 1
    )


def small_network(
    data: Dataset, hidden_layers: int, weights: int, recipe: Recipe, seed: int, classes: Sequence[int]
) -> nn.Module:
    """Return a fully connected network for `classes` with about as many `weights`, trained from scratch on them."""
    ours = data.only(classes)
    if len(classes) < 2:
        raise ValueError(f"classes: {list(classes)}; a network that is trained from scratch chooses among two at least")
    in_features = data.inputs(data.train_images[:1])[0].numel()
    width = width_for(weights, hidden_layers, in_features, len(classes))
    network = parents.fc(hidden_layers, in_features, width, len(classes), seed=seed)
    parameters = list(network.parameters())
    train_alike(lambda at: network(inputs_at(network, ours, at)).T, parameters, [], ours, classes, recipe, seed)
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
    ours = data.only(classes)
    features = outputs(frozen[:-1], ours)  # type: ignore[index]
    old = parent[-1].weight
    bound = old.shape[1] ** -0.5
    head = nn.Linear(old.shape[1], len(classes), device=old.device, dtype=old.dtype)
    with torch.no_grad():
        for values, which in ((head.weight, "weight"), (head.bias, "bias")):
            drawn = torch.empty_like(values, device="cpu")
            values.copy_(drawn.uniform_(-bound, bound, generator=generator(seed, "new head", which)))
    train_alike(lambda at: head(features[at]).T, list(head.parameters()), [], ours, classes, recipe, seed)
    return nn.Sequential(*list(frozen)[:-1], head).eval().requires_grad_(False)  # type: ignore[call-overload]
