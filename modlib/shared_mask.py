"""One mask for all classes: a control, and a first phase of co-training. Ours, not the paper's.

The scores of a single supermask are trained for all classes at once, a grafting layer for each, by the modules'
objectives together (`modlib.objective`). A step costs what one of a single module costs, and serves all of them.

By itself this is the control of `modlib.study.controls`, the limit of a large alpha. With `shared_epochs` in a
recipe, co-training goes on from there: every class gets a copy of these scores and statistics, and its grafting layer.
The rates are annealed over both phases together; the epochs of the first are numbered below 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from tqdm import tqdm

from modlib import masking
from modlib.data import Data
from modlib.engines import checkpoints, start
from modlib.engines.selection import TopK
from modlib.objective import objective
from modlib.parent import Reweighted
from modlib.precision import autocast, undisturbed
from modlib.recipes import Recipe, Run, Start

Batch = TypeVar("Batch")


@undisturbed()
def train(
    run: Run,
    classes: Sequence[int],
    data: Data,
    device: torch.device,
    epochs: range,
    checkpoint: Path | None = None,
    identity: str = "",
    spoken: bool = False,
) -> Start:
    """Return the scores of one mask trained for all of `classes`, with their grafting layers and the statistics.

    `run`: parent, recipe and seed. `epochs`: their numbers, by which rates, and order and augmentation of the images
    are found. `checkpoint`, `identity`: see `descend`. `spoken`: whether it is said how
    long it takes. Everything returned lies in host memory.
    """
    begun = start.Started([run], tuple(classes), data, device)
    recipe, parent, weights = run.recipe, begun.parents[0], begun.weights_of[0]
    call, initial = Reweighted(parent), start.starting_scores(run, weights, 0)
    scores = {name: nn.Parameter(values.to(device)) for name, values in initial.items()}
    weight, bias = starting_graftings(run, classes, data.num_classes, next(iter(weights.values())))
    statistics = start.starting_statistics(run, parent)
    top = {name: TopK(torch.tensor([count])) for name, count in recipe.kept_edges(weights).items()}

    def batches(epoch: int) -> list[tuple[Tensor, torch.Generator | None]]:
        order = start.epoch_order(len(begun.labels), run.seed, epoch)[: recipe.images_per_epoch]
        draw = begun.augmentation(0, epoch)
        return [(rows.to(device), draw) for rows in begun.batches(order)]

    def loss(rows_and_draw: tuple[Tensor, torch.Generator | None]) -> Tensor:
        batch = begun.batch(*rows_and_draw)
        masked = {}
        for name, w in weights.items():
            values = masking.ranked(scores[name], recipe.scores)
            mask = top[name](values.detach().view(1, -1)).view_as(values)
            masked[name] = w * masking.straight_through(mask, values)
        with autocast(device, recipe.precision):
            logits = call({**masked, **statistics}, batch.inputs)
        labels = batch.labels
        log_odds = shared_log_odds(logits.to(weight.dtype), weight, bias)
        return objective(log_odds, labels, begun.class_tensor, recipe.vote, begun.balancing_weights(labels))

    if spoken:
        begun.announce("one mask", len(epochs))
    with start.statistics_of_the_batch(parent, recipe.norm):
        descend(
            loss,
            batches,
            list(scores.values()),
            [weight, bias],
            recipe,
            epochs,
            moved=list(statistics.values()),
            checkpoint=checkpoint,
            identity=identity,
        )
    return Start(
        scores={name: values.detach().cpu() for name, values in scores.items()},
        grafting={c: (weight[i].detach().cpu(), bias[i].detach().cpu()) for i, c in enumerate(classes)},
        statistics={name: values.cpu() for name, values in statistics.items()},
    )


def starting_graftings(
    run: Run, classes: Iterable[int], num_logits: int, like: Tensor
) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the grafting layers of `classes` as module stemming starts them, [C, 2, N] and [C, 2], where `like` is."""
    each = [start.starting_grafting(run, c, num_logits, like.dtype) for c in classes]
    weight, bias = (torch.stack(values).to(like.device) for values in zip(*each, strict=True))
    return nn.Parameter(weight), nn.Parameter(bias)


def shared_log_odds(logits: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the log-odds [C, B] of grafting layers [C, 2, N] and [C, 2] that all read the same `logits` [B, N]."""
    # log-odds are linear in the logits: the difference of a layer's two rows is one vector for each module
    return linear(logits, weight[:, 1] - weight[:, 0], bias[:, 1] - bias[:, 0]).T


@undisturbed()
def descend(
    loss: Callable[[Batch], Tensor],
    batches: Callable[[int], Sequence[Batch]],
    parameters: list[nn.Parameter],
    grafts: list[nn.Parameter],
    recipe: Recipe,
    epochs: range,
    *,
    moved: Sequence[Tensor] = (),
    checkpoint: Path | None = None,
    identity: str = "",
) -> None:
    """Train as Algorithm 1 does: its optimiser and rates, on the `loss` of every one of the `batches` of an epoch.

    `parameters` step at `recipe.lr`, `grafts` at `recipe.grafting_rate`. `checkpoint`: a file written after epochs
    (see `modlib.engines.checkpoints.Pace`; the last one too), with what the loss `moved` besides; where it is there,
    training goes on from it, to the same result (ValueError where it is not of what `identity` names). It stays: the
    caller removes it when its own work is done.
    """
    optimiser = start.make_optimiser(recipe, parameters, grafts, fused=True)
    tensors, first, pace = [*parameters, *grafts, *moved], epochs.start, checkpoints.Pace()
    if checkpoint is not None and checkpoint.exists():
        saved = checkpoints.read(checkpoint, identity)
        checkpoints.check_epochs(checkpoint, saved["epoch"], epochs.stop)
        with torch.no_grad():
            for values, stored in zip(tensors, saved["tensors"], strict=True):
                values.copy_(stored)
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["epoch"]
    for epoch in tqdm(range(first, epochs.stop), "one mask", unit="epoch", disable=None):
        every = batches(epoch)
        for step, batch in enumerate(every):
            start.set_rates(optimiser, recipe.rate_factor_at(epoch, step, len(every)))
            value = loss(batch)
            optimiser.zero_grad()
            value.backward()
            start.fill_gradients(parameters)
            optimiser.step()
        if checkpoint is not None and (pace.is_due() or epoch + 1 == epochs.stop):
            state = {"epoch": epoch + 1, "optimiser": optimiser.state_dict()}
            with pace.writing():
                checkpoints.write(checkpoint, identity, state | {"tensors": [v.detach() for v in tensors]})
