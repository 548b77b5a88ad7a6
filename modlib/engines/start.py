"""What every engine starts from: data and parents on its device, and scores, grafting layers and rates, which are
functions of the recipe and the seed alone."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from modlib import grafting, masking, objective, stemming
from modlib.data import Data
from modlib.engines.remaining import Remaining
from modlib.parent import each_tensor, functional_call
from modlib.parent import frozen_copy as parent_copy
from modlib.recipes import Recipe, Run
from modlib.seeds import generator
from modlib.sources import Batch

NORMALISATIONS = nn.modules.batchnorm._NormBase
"""Batch and instance normalisation: the layers that keep running statistics."""


class Started:
    """What every engine holds: its runs, what is trained on, on its device, and frozen copies of the parents."""

    def __init__(self, runs: Sequence[Run], classes: tuple[int, ...], data: Data, device: torch.device) -> None:
        self.runs, self.classes, self.data, self.device = runs, classes, data, device
        self.recipe = runs[0].recipe
        self.source = data.training().to(device)
        self.labels = self.source.labels
        self.class_tensor = torch.tensor(classes, device=device)
        self.parents = [frozen_copy(run.parent, device) for run in runs]
        self.weights_of = [
            dict(masking.maskable_parameters(parent, run.policy))
            for parent, run in zip(self.parents, runs, strict=True)
        ]
        self.dtype = next(iter(self.weights_of[0].values())).dtype
        self.remaining: Remaining | None = None
        self.frequency = objective.class_frequency(self.labels, data.num_classes).to(self.dtype)
        self.layout = torch.contiguous_format
        if self._takes_channels_last():
            self.layout = torch.channels_last

    @torch.no_grad()
    def _takes_channels_last(self) -> bool:
        """Say whether the parents have convolutions, whose fast layout this is, and take images that lie so."""
        two = torch.arange(2, device=self.device) % len(self.labels)
        inputs, parent = self.batch(two).inputs, self.parents[0]
        if (
            not isinstance(inputs, Tensor)
            or inputs.ndim != 4
            or not any(isinstance(part, nn.Conv2d) for part in parent.modules())
        ):
            return False
        try:
            functional_call(parent, {}, inputs.contiguous(memory_format=torch.channels_last))
        except Exception:  # a network that views its feature maps needs them channel by channel
            return False
        return True

    def announce(self, what: str, epochs: int) -> None:
        """Say to stderr, after the first steps, how long so many epochs of `what` take, where that is over a minute."""
        images = self.recipe.images_per_epoch or len(self.labels)
        self.remaining = Remaining(what, epochs * self.passes * math.ceil(images / self.recipe.batch_size))

    @property
    def passes(self) -> int:
        """How many times an epoch asks for each batch."""
        return 1

    def batch(self, rows: Tensor, draw: torch.Generator | None = None) -> Batch:
        """Return training rows by number, as the parents take them, augmented with the recipe's policy and `draw`."""
        if self.remaining is not None:
            self.remaining.step()
        batch = self.source.batch(rows, self.recipe.augment, draw)
        return replace(batch, inputs=each_tensor(batch.inputs, self._laid_out))

    def _laid_out(self, values: Tensor) -> Tensor:
        """Return floating-point inputs in the type and layout of the parents; others, such as ids, as they are."""
        if not values.is_floating_point():
            return values
        values = values.to(self.dtype)
        return values.contiguous(memory_format=self.layout) if values.ndim == 4 else values

    def augmentation(self, r: int, epoch: int) -> torch.Generator | None:
        """Return the generator of an epoch's augmentation of run `r`: all modules see the same images."""
        changed = self.recipe.augment != "none" or self.source.augmented
        return generator(self.runs[r].seed, "augmentation", epoch) if changed else None

    def batches(self, order: Tensor) -> list[Tensor]:
        """Return the batches of an epoch; a last one of a single image is left out where it would need statistics."""
        batches = list(order.split(self.recipe.batch_size))
        layers = [part for part in self.parents[0].modules() if isinstance(part, NORMALISATIONS)]
        of_batch = nn.modules.batchnorm._BatchNorm
        takes_statistics = any(
            self.recipe.norm == "batch" or (isinstance(layer, of_batch) and layer.running_mean is None)
            for layer in layers
        )
        return batches[:-1] if takes_statistics and len(batches) > 1 and len(batches[-1]) == 1 else batches

    def ranked(self) -> dict[str, Tensor]:
        """Return what is ranked, by layer: `[R, C, *weight shape]`."""
        raise NotImplementedError

    def average(self) -> dict[str, Tensor]:
        """Return S_avg, the mean over modules of what is ranked, by layer: `[R, 1, *weight shape]`."""
        return {name: stemming.average_scores(ranked) for name, ranked in self.ranked().items()}

    def balancing_weights(self, labels: Tensor) -> Tensor | None:
        """Return the weights of `labels` [..., B] in every module's loss, [..., C, B]; None where all are 1."""
        if not self.recipe.balanced:
            return None
        return objective.balancing_weights(labels, self.class_tensor, self.frequency)


def frozen_copy(parent: nn.Module, device: torch.device) -> nn.Module:
    """Return a copy of `parent` on `device`, in eval mode, whose parameters take no gradient."""
    return parent_copy(parent).to(device)


def statistics(parent: nn.Module) -> dict[str, Tensor]:
    """Return copies of the running statistics of the normalisations of `parent`, by qualified buffer name.

    A cumulative average (`momentum=None`) starts anew: after the parent's many batches it would not follow a module's.
    """
    return {
        f"{path}.{name}" if path else name: torch.zeros_like(buffer)
        if name == "num_batches_tracked" and owner.momentum is None
        else buffer.clone()
        for path, owner in parent.named_modules()
        if isinstance(owner, NORMALISATIONS)
        for name, buffer in owner.named_buffers(recurse=False)
    }


def starting_statistics(run: Run, parent: nn.Module) -> dict[str, Tensor]:
    """Return the running statistics that a module of one run starts with, on the parent's device; none if frozen."""
    own = statistics(parent) if run.recipe.norm == "batch" else {}
    if run.start is None:
        return own
    begun = run.start.statistics
    # the count is as in `statistics`: a cumulative average starts anew
    return {n: v if n.endswith("num_batches_tracked") else begun[n].to(v.device, copy=True) for n, v in own.items()}


@contextmanager
def statistics_of_the_batch(network: nn.Module, norm: str) -> Iterator[None]:
    """Let the normalisations of `network` take the statistics of the batch, with `norm="batch"`; eval mode afterwards.

    The running ones that they move are those that the call hands over, a module's own.
    """
    try:
        for layer in network.modules():
            if isinstance(layer, NORMALISATIONS):
                layer.training = norm == "batch"  # of the layer alone: a dropout within it stays off
        yield
    finally:
        network.eval()


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device that a name means; "auto": this process's GPU where there is one. ValueError for others."""
    if device == "auto":
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto' or a torch device such as 'cpu' or 'cuda', got {device!r}") from error


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order in which one run sees its `count` training images in an epoch: a function of seed and epoch."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def starting_scores(run: Run, weights: Mapping[str, Tensor], c: int) -> dict[str, Tensor]:
    """Return the initial scores of the module of class `c` of one run, by layer, on the CPU."""
    recipe = run.recipe
    if run.start is not None:
        return {name: run.start.scores[name].clone() for name in weights}
    purpose: tuple[str | int, ...] = ("scores",) if recipe.share_init else ("scores", c)
    return {
        name: masking.initial_scores(weight, recipe.init, recipe.scores, generator(run.seed, *purpose, name))
        for name, weight in weights.items()
    }


def starting_grafting(run: Run, c: int, num_logits: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the initial grafting layer of the module of class `c`: weight [2, N] and bias [2], on the CPU."""
    if run.start is not None:
        weight, bias = run.start.grafting[c]
        return weight.clone(), bias.clone()
    draw = generator(run.seed, "grafting", c)
    weight, bias = grafting.initial_grafting([c], num_logits, run.recipe.grafting_init, draw, dtype)
    return weight[0], bias[0]


def stemming_factors(recipe: Recipe, weights: Mapping[str, Tensor], steps_per_epoch: int) -> dict[str, float]:
    """Return the factor of Eq. 1 by layer, for one recipe."""
    return stemming.factors(
        recipe.alpha,
        weights,
        recipe.reduction,
        steps_per_epoch=steps_per_epoch,
        lr=recipe.lr,
        momentum=recipe.momentum,
    )


def make_optimiser(
    recipe: Recipe, scores: list[nn.Parameter], grafts: list[nn.Parameter], fused: bool | None = None
) -> torch.optim.SGD:
    """Return Nesterov SGD with weight decay over scores and grafting layers, each at its own rate."""
    return torch.optim.SGD(
        [
            {"params": scores, "lr": recipe.lr, "base": recipe.lr},
            {"params": grafts, "lr": recipe.grafting_rate, "base": recipe.grafting_rate},
        ],
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


def fill_gradients(parameters: Iterable[Tensor]) -> None:
    """Give parameters without a part in the logits of a batch the gradient 0: they decay and coast on all the same."""
    for values in parameters:
        if values.grad is None:
            values.grad = torch.zeros_like(values)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to its base rate times `factor`."""
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor
