"""Probes: what is left of a network under masks, layer by layer, and what it answers.

The *signal* of a layer is the standard deviation, over images, of what enters its ReLU (or, at the end, of the logits);
the *agreement* is the correlation over images between the masked network's values and the parent's, all units of a
layer together; the *gradient* is what a module's loss sends to the scores of a layer. Rows hold logarithms (base 10) of
numbers of any size, because records are rounded to six digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from modlib import grafting, masking, metrics, stemming
from modlib.data import Dataset
from modlib.engines import start
from modlib.modules import Modules
from modlib.seeds import generator
from modlib.study.records import Rows

Weights = Mapping[str, Tensor]
COMBINATIONS = tuple((init, norm) for norm in ("frozen", "batch") for init in ("kaiming", "magnitude"))
"""Initial scores and statistics of batch normalisation: the starts that are told apart."""


def log10(value: float) -> float:
    """Return its decimal logarithm; nothing at all counts as 10^-30."""
    return math.log10(max(value, 1e-30))


def weights_of(parent: nn.Module) -> dict[str, Tensor]:
    """Return the maskable weights of a network by name, without their gradients."""
    return {name: weight.detach() for name, weight in masking.maskable_parameters(parent).items()}


def masked_weights(parent: nn.Module, masks: Weights) -> dict[str, Tensor]:
    """Return W ⊙ M of every masked layer; `masks` bool, in the shape of the weights."""
    return {name: weight * masks[name] for name, weight in weights_of(parent).items()}


def first_masks(parent: nn.Module, init: str, k: float, seed: int) -> dict[str, Tensor]:
    """Return the masks that all modules start from, bool by layer, drawn as co-training draws them."""
    weights = masking.maskable_parameters(parent)
    keep = masking.keep_counts(k, masking.sizes(weights))
    masks = {}
    for name, weight in weights.items():
        scores = masking.initial_scores(weight, init, "positive", generator(seed, "scores", name))
        masks[name] = masking.top_k_mask(scores.flatten(), keep[name]).view_as(weight)
    return masks


def forward(
    parent: nn.Module, weights: Weights, norm: str, inputs: Tensor, statistics: Weights | None = None
) -> Tensor:
    """Return the logits [B, N] of `parent` with other weights and, where given, running statistics.

    `norm="batch"`: statistics of these inputs; the running ones that come of it are dropped.
    """
    buffers = {name: buffer.clone() for name, buffer in parent.named_buffers()} | dict(statistics or {})
    layers = [part for part in parent.modules() if isinstance(part, start.NORMALISATIONS)]
    try:
        for layer in layers:
            layer.train(norm == "batch")
        logits: Tensor = functional_call(parent, {**weights, **buffers}, (inputs,))
        return logits
    finally:
        parent.eval()


@contextmanager
def _listening(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what enters every ReLU of a forward pass; copies, because a ReLU may work in place."""
    heard: list[Tensor] = []
    with ExitStack() as hooks:
        for part in network.modules():
            if isinstance(part, nn.ReLU):
                hook = part.register_forward_pre_hook(lambda _, given: heard.append(given[0].detach().clone()))
                hooks.enter_context(hook)
        yield heard


@torch.no_grad()
def signals(
    parent: nn.Module, weights: Weights, norm: str, inputs: Tensor, statistics: Weights | None = None
) -> list[Tensor]:
    """Return what enters every ReLU, and the logits, of a `forward`: for each, centred over images, [images, units]."""
    with _listening(parent) as heard:
        logits = forward(parent, weights, norm, inputs, statistics)
    return [(values - values.mean(0)).flatten(1) for values in (*heard, logits)]


def compared(whole: Sequence[Tensor], masked: Sequence[Tensor]) -> Rows:
    """Return signal and agreement of every layer of `signals` relative to those of the whole network.

    Pooled over units, so that units without signal have no weight.
    """
    rows = []
    for i, (a, b) in enumerate(zip(whole, masked, strict=True), 1):
        power, own, both = float(a.square().sum()), float(b.square().sum()), float((a * b).sum())
        agreement = both / math.sqrt(power * own) if own > 0 else 0.0
        rows.append({"layer": i, "log_signal": log10(math.sqrt(own / power)), "agreement": agreement})
    return rows


def score_gradients(
    parent: nn.Module,
    weights: Weights,
    norm: str,
    *,
    inputs: Tensor,
    labels: Tensor,
    classes: Sequence[int],
    num_classes: int,
    seed: int,
) -> dict[str, Tensor]:
    """Return every module's gradient of the scores, W ⊙ dL/d(W ⊙ M), by layer: [modules, *weight shape].

    L: the cross-entropy of each of `classes` against the rest, behind grafting layers as they start.
    """
    leaves = {name: values.clone().requires_grad_() for name, values in weights.items()}
    logits = forward(parent, leaves, norm, inputs)
    found = []
    for c in classes:
        draw = generator(seed, "grafting", c)
        graft, bias = grafting.initial_grafting([c], num_logits=num_classes, init="random", generator=draw)
        log_odds = grafting.log_odds(grafting.graft(logits, graft[0], bias[0]))
        loss = nn.functional.binary_cross_entropy_with_logits(log_odds, (labels == c).to(log_odds.dtype))
        found.append(torch.autograd.grad(loss, list(leaves.values()), retain_graph=True))
    own = weights_of(parent)
    return {name: torch.stack(g) * own[name] for name, g in zip(leaves, zip(*found, strict=True), strict=True)}


def gradient_rows(parent: nn.Module, whole: Weights, part: Weights) -> Rows:
    """Return a row for each masked layer of `score_gradients` of the parent without a mask and with one.

    The gradient's norm relative to the parent's; the root mean square of how modules differ in it; and the share of
    scores in which they differ by less than the factor of Eq. 1 at α = 1, by its literal readings.
    """
    weights = masking.maskable_parameters(parent)
    pulls = {reading: stemming.factors(1.0, weights, reading) for reading in ("total", "layer")}
    rows = []
    for i, name in enumerate(weights, 1):
        apart = part[name] - part[name].mean(0)
        stronger = {f"stronger_{r}": float((apart.abs() < f[name]).double().mean()) for r, f in pulls.items()}
        row: dict[str, float] = {"masked_layer": i, "scores": weights[name].numel()}
        row |= {"log_gradient": log10(float(part[name].norm() / whole[name].norm()))}
        rows.append(row | {"log_difference": log10(float(apart.square().mean().sqrt()))} | stronger)
    return rows


@torch.no_grad()
def answers(
    parent: nn.Module, weights: Weights, norm: str, data: Dataset, images: int, at_once: int
) -> dict[str, float]:
    """Return what a masked network itself answers on held-out `images`, `at_once` in a pass.

    Its accuracy, how often it gives its most frequent answer, and the share of different logits, to the last bit.
    """
    taken, labels = data.held_out_images[:images], data.held_out_labels[:images]
    logits = torch.cat([forward(parent, weights, norm, data.inputs(part)) for part in taken.split(at_once)])
    predicted = logits.argmax(1)
    return {
        "masked_accuracy": float((predicted == labels).double().mean()),
        "most_frequent": float(predicted.bincount().max() / len(labels)),
        "distinct_outputs": len(torch.unique(logits, dim=0)) / len(labels),
    }


def before_training(
    parent: nn.Module,
    data: Dataset,
    seed: int,
    *,
    k: float,
    classes: Sequence[int],
    probe_images: int,
    judged_images: int,
) -> Rows:
    """Return everything about the first masks of a parent: for each combination rows by layer, and one of its answers.

    The first row is that of the parent without a mask. A parent without batch normalisation has `norm` "none".
    `probe_images`, `judged_images`: how many held-out images layers are measured on, and answers.
    """
    inputs, labels = data.inputs(data.held_out_images[:probe_images]), data.held_out_labels[:probe_images]
    own = weights_of(parent)
    whole = signals(parent, own, "frozen", inputs)
    gradients = partial(
        score_gradients,
        parent,
        inputs=inputs,
        labels=labels,
        classes=classes,
        num_classes=data.num_classes,
        seed=seed,
    )
    asked = partial(answers, parent, data=data, images=judged_images, at_once=probe_images)
    reference = gradients(own, "frozen")
    rows: Rows = [{"init": "no mask", "norm": "frozen"} | asked(own, "frozen")]
    normalised = any(isinstance(part, start.NORMALISATIONS) for part in parent.modules())
    for init, norm in COMBINATIONS:
        if norm == "frozen" or normalised:
            row = {"init": init, "norm": norm if normalised else "none"}
            weights = masked_weights(parent, first_masks(parent, init, k, seed))
            rows += [row | r for r in compared(whole, signals(parent, weights, norm, inputs))]
            rows += [row | r for r in gradient_rows(parent, reference, gradients(weights, norm))]
            rows.append(row | asked(weights, norm))
    return rows


def deployed(modules: Modules, parent: nn.Module, inputs: Tensor) -> Rows:
    """Return signal and agreement of every layer, mean over the modules, each with its own statistics."""
    whole = signals(parent, weights_of(parent), "frozen", inputs)
    rows = []
    for i in range(len(modules.classes)):
        weights = masked_weights(parent, {name: masks[i] for name, masks in modules.masks.masks.items()})
        statistics = {name: values[i] for name, values in modules.statistics.items()}
        rows += compared(whole, signals(parent, weights, "frozen", inputs, statistics))
    means: Rows = pd.DataFrame(rows).groupby("layer").mean().reset_index().to_dict("records")  # type: ignore[assignment]
    return means


def judged(modules: Modules, data: Dataset, seed: int, images: int, at_once: int) -> dict[str, float]:
    """Return the accuracy of the modules' vote on their classes and their balanced accuracy, on held-out `images`.

    Beside them stand the mean Jaccard index of their masks, and what pairs keep. `seed`: of the balanced draw.
    """
    taken, labels = data.held_out_images[:images], data.held_out_labels[:images]
    log_odds = modules.log_odds(data.inputs(taken), at_once)
    balanced = metrics.balanced_accuracies(log_odds, labels, modules.classes, seed).diagonal()
    return {
        "accuracy": metrics.recomposed_accuracy(log_odds, labels, modules.classes),
        "balanced_accuracy": float(balanced.mean()),
        "jaccard_index": modules.masks.mean_jaccard(),
        "remaining_parameters": masking.mean_over_pairs(modules.masks.remaining_of_pairs()),
    }
