"""Training as module stemming trains, of whatever gives log-odds: for what is compared with it on equal terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from modlib import shared_mask
from modlib.data import Data
from modlib.engines import start
from modlib.objective import balancing_weights, class_frequency, objective
from modlib.precision import at_once
from modlib.recipes import Recipe


@torch.no_grad()
def outputs(network: nn.Module, data: Data) -> Tensor:
    """Return the outputs of a network on all training images."""
    every, shape = torch.arange(len(data.train_labels)), inputs_at(network, data, torch.arange(1)).shape[1:]
    size = at_once(network, shape, shape[1:].numel() if len(shape) > 2 else shape.numel())
    return torch.cat([network(inputs_at(network, data, at)) for at in every.split(size)])


def inputs_at(network: nn.Module, data: Data, at: Tensor) -> Tensor:
    """Return the inputs of the training rows `at`, in the type and on the device of a network's parameters."""
    some = next(network.parameters())
    return data.part("train").batch(at).inputs.to(some.device, some.dtype)


def train_alike(
    log_odds: Callable[[Tensor], Tensor],
    parameters: list[nn.Parameter],
    grafts: list[nn.Parameter],
    data: Data,
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

    shared_mask.descend(loss, batches, parameters, grafts, recipe, range(recipe.epochs))
