"""One pass for a subset: modules trained so that the union of their masks answers for all of its classes at once.

A comparison, not the method: recomposing takes a pass of the parent for each of K modules, and here it takes one. The
parent keeps the edges of the union, and the members' grafting layers read the same logits. With S the subset, masks m_c
of 0 and 1, scores s_c, and the gradient straight through the choice of the top k (`modlib.masking`)::

    union            u = OR_c m_c = 1 − Π_c (1 − m_c)          c in S
    gradient         dL/ds_c = dL/du · Π_c' (1 − m_c')         c' in S, c' ≠ c

so the union teaches an edge of a module only where no other member keeps it. In every step S is drawn anew, its size
uniform in 2..N, and the images are as many of each member. With d_c the log-odds in one pass::

    one-pass loss    vote · N · (−log softmax(d)[y])  +  (1 − vote) · Σ_c CE_c         c in S
    objective        one_pass · one-pass loss  +  (1 − one_pass) · loss of N passes  +  Σ_c stemming loss_c

The loss of N passes is that of `modlib.objective`, for all modules. The weight `one_pass` is 1 for one pass alone, and
between 0 and 1 for a hybrid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from modlib import checks, masking, metrics, stemming
from modlib.data import Dataset
from modlib.decomposers import SharedMask
from modlib.engines import start
from modlib.engines.selection import TopK
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.objective import objective
from modlib.parent import Reweighted
from modlib.recipes import Recipe, Run
from modlib.seeds import generator
from modlib.shared_mask import descend, shared_log_odds, starting_graftings
from modlib.study import comparison, draws
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows
from modlib.study.trials import SPLITS

VERSION = 1
"""Raised when a run of the same parameters and seed gives another result."""
SIZES = (2, 5, 10)
"""Numbers of classes that are measured; all classes, where there are fewer."""
SUBSETS = 45
"""Subsets of one size that are measured at most: all pairs of ten classes."""


@dataclass(frozen=True)
class Step:
    """What one step sees: `rows` of training images for N passes, a `subset` (int64 [K], ascending), its images."""

    rows: Tensor
    subset: Tensor
    rows_of_subset: Tensor


def union(masks: Tensor, values: Tensor) -> Tensor:
    """Return the union of masks [K, *shape], 0 or 1 as floats: [*shape], with its gradient to what is ranked.

    `values` [K, *shape]: what is ranked, the scores. The formulas are in the module's docstring.
    """
    kept_by = masks.sum(0)
    alone = (kept_by == masks).to(values.dtype)  # Π (1 − m_c') of the others: they keep nothing of this edge
    return masking.straight_through((kept_by > 0).to(values.dtype), (values * alone).sum(0))


def one_pass_loss(log_odds: Tensor, labels: Tensor, subset: Tensor, num_classes: int, vote: float) -> Tensor:
    """Return the one-pass loss, a scalar: `log_odds` [K, B] of the classes `subset` [K], `labels` [B] among these."""
    votes = cross_entropy(log_odds.T, torch.searchsorted(subset, labels))
    return vote * num_classes * votes + (1 - vote) * objective(log_odds, labels, subset, 0.0)


def steps(labels: Tensor, num_classes: int, recipe: Recipe, seed: int, epoch: int) -> list[Step]:
    """Return the steps of an epoch, a function of seed and epoch; `labels` [n] of the training images.

    The images of a subset are drawn with repetition, a batch in all, rounded up to as many of each member.
    """
    draw = generator(seed, "one pass", epoch)
    of_class = [(labels == c).nonzero()[:, 0] for c in range(num_classes)]
    order = start.epoch_order(len(labels), seed, epoch)[: recipe.images_per_epoch]
    made = []
    for rows in order.split(recipe.batch_size):
        size = int(torch.randint(2, num_classes + 1, (1,), generator=draw))
        subset = torch.randperm(num_classes, generator=draw)[:size].sort().values
        each = -(-recipe.batch_size // size)
        drawn = [of_class[c][torch.randint(len(of_class[c]), (each,), generator=draw)] for c in subset.tolist()]
        made.append(Step(rows, subset, torch.cat(drawn)))
    return made


class _Training(start.Started):
    """Scores [N, *weight shape] by layer and grafting layers of all modules, and the objective that they descend."""

    def __init__(self, run: Run, classes: tuple[int, ...], data: Dataset, one_pass: float) -> None:
        super().__init__([run], classes, data, torch.device("cpu"))
        self.weights, self.call, self.one_pass = self.weights_of[0], Reweighted(self.parents[0]), one_pass
        initial = [start.starting_scores(run, self.weights, c) for c in classes]
        self.scores = {name: nn.Parameter(torch.stack([own[name] for own in initial])) for name in self.weights}
        self.grafting = starting_graftings(run, classes, data.num_classes, next(iter(self.weights.values())))
        kept = self.recipe.kept_edges(self.weights)
        self.top = {name: TopK(torch.full((len(classes),), count)) for name, count in kept.items()}
        self.pull: dict[str, Tensor] = {}
        self.factor: dict[str, float] = {}

    def steps(self, epoch: int) -> list[Step]:
        """Return the steps of an epoch that begins now; from the second on, scores are pulled to their average now."""
        made = steps(self.labels, len(self.classes), self.recipe, self.runs[0].seed, epoch)
        if epoch > 0 and self.recipe.alpha > 0:
            self.pull = {name: average[0] for name, average in self.average().items()}
            self.factor = start.stemming_factors(self.recipe, self.weights, len(made))
        return made

    def ranked(self) -> dict[str, Tensor]:
        return {name: values.detach()[None] for name, values in self.values().items()}

    def values(self) -> dict[str, Tensor]:
        """Return what is ranked, by layer: [N, *weight shape]."""
        return {name: masking.ranked(scores, self.recipe.scores) for name, scores in self.scores.items()}

    def masks(self) -> dict[str, Tensor]:
        """Return the masks of all modules by layer, 0 or 1: [N, *weight shape]."""
        return {name: self.top[name](v.detach().flatten(1)).view_as(v) for name, v in self.values().items()}

    def loss(self, step: Step) -> Tensor:
        """Return the objective of one step, a scalar; a part without weight costs nothing."""
        masks, values = self.masks(), self.values()
        loss = torch.zeros((), dtype=self.dtype)
        if self.one_pass > 0:
            loss = loss + self.one_pass * self._loss_in_one_pass(step, masks, values)
        if self.one_pass < 1:
            loss = loss + (1 - self.one_pass) * self._loss_in_n_passes(step, masks, values)
        if self.pull:
            loss = loss + stemming.stemming_loss(values, self.pull, self.factor, self.recipe.p)
        return loss

    def _loss_in_one_pass(self, step: Step, masks: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        batch, subset = self.batch(step.rows_of_subset), step.subset
        united = {name: w * union(masks[name][subset], values[name][subset]) for name, w in self.weights.items()}
        weight, bias = (part[subset] for part in self.grafting)
        log_odds = shared_log_odds(self.call(united, batch.inputs), weight, bias)
        return one_pass_loss(log_odds, batch.labels, subset, len(self.classes), self.recipe.vote)

    def _loss_in_n_passes(self, step: Step, masks: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
        batch = self.batch(step.rows)
        own = {name: w * masking.straight_through(masks[name], values[name]) for name, w in self.weights.items()}

        def log_odds(masked: dict[str, Tensor], weight: Tensor, bias: Tensor) -> Tensor:
            return shared_log_odds(self.call(masked, batch.inputs), weight[None], bias[None])[0]

        every = torch.func.vmap(log_odds)(own, *self.grafting)
        return objective(every, batch.labels, self.class_tensor, self.recipe.vote)


def train(parent: nn.Module, data: Dataset, recipe: Recipe, seed: int, one_pass: float) -> Modules:
    """Return modules of all classes trained with the weight `one_pass` on the one-pass loss, in [0, 1]; on the CPU.

    Start, order of the images, optimiser, rates and stemming are those of module stemming under `recipe`, which
    the weight 0 gives. ValueError for a parent with normalisation: the statistics of a union are no module's.
    """
    checks.number("one_pass", one_pass, 0.0, 1.0)
    if start.statistics(parent):
        raise ValueError("parent: has normalisation layers; this comparison takes fully connected parents")
    classes = tuple(range(data.num_classes))
    training = _Training(Run(parent, recipe, seed, classes), classes, data, one_pass)
    descend(
        training.loss,
        training.steps,
        list(training.scores.values()),
        list(training.grafting),
        recipe,
        range(recipe.epochs),
    )
    masks = MaskSet({name: mask.bool() for name, mask in training.masks().items()}, classes)
    weight, bias = (part.detach() for part in training.grafting)
    scores = {name: values.detach() for name, values in training.scores.items()}
    return Modules(training.parents[0], masks, weight, bias, scores=scores)


@torch.no_grad()
def log_odds(modules: Modules, subset: Sequence[int], inputs: Tensor) -> Tensor:
    """Return the log-odds [B, K] of the members of `subset` in one pass, with the union of their masks."""
    rows, weights = modules.masks.rows(subset), masking.maskable_parameters(modules.parent)
    united = {name: weights[name] * mask for name, mask in modules.masks.union(subset).items()}
    logits = Reweighted(modules.parent)(united, inputs)
    return shared_log_odds(logits, modules.grafting_weight[rows], modules.grafting_bias[rows]).T


def measured(modules: Modules, data: Dataset, split: str) -> Rows:
    """Return a row for each of `SIZES`, means over subsets of so many classes, images of a split.

    `union`: share of the weights, and `by_layer`; accuracies of the vote in `one_pass` and in `k_passes`, and of the
    restricted parent, `parent_accuracy`.
    """
    images, labels = data.split(split)
    inputs, classes = data.inputs(images), modules.classes
    with torch.no_grad():
        answers = {"k_passes": modules.log_odds(inputs), "parent_accuracy": modules.parent(inputs)}
    rows = []
    for size in sorted({min(size, len(classes)) for size in SIZES}):
        chosen = draws.subsets(len(classes), size, SUBSETS)
        found = {
            name: fmean(metrics.recomposed_accuracy(values, labels, classes, subset) for subset in chosen)
            for name, values in answers.items()
        }
        shares = [modules.masks.remaining_by_layer(subset) for subset in chosen]
        rows.append(
            {
                "split": split,
                "classes": size,
                "subsets": len(chosen),
                "union": fmean(modules.masks.remaining(subset) for subset in chosen),
                "one_pass": fmean(_accuracy_in_one_pass(modules, subset, inputs, labels) for subset in chosen),
                **found,
                "by_layer": {name: fmean(share[name] for share in shares) for name in shares[0]},
            }
        )
    return rows


def _accuracy_in_one_pass(modules: Modules, subset: Sequence[int], inputs: Tensor, labels: Tensor) -> float:
    inside = torch.isin(labels, torch.tensor(subset))
    return metrics.recomposed_accuracy(log_odds(modules, subset, inputs[inside]), labels[inside], subset)


def trained(setup: comparison.Setup, one_pass: float, seed: int) -> Record:
    """Return the record of modules trained with the weight `one_pass` on the one-pass loss."""

    def make() -> Modules:
        return train(setup.parent(seed), setup.data, setup.recipe, seed, one_pass)

    return _record(setup, "hybrid" if one_pass < 1 else "one-pass", seed, make, weight=one_pass)


def of_modules(setup: comparison.Setup, seed: int) -> Record:
    """Return the record of the modules of module stemming, from its trial: never trained for one pass."""
    return _record(setup, "module-stemming", seed, lambda: comparison.stemming(setup, setup.recipe, seed))


def shared(setup: comparison.Setup, k: Mapping[str, float], seed: int) -> Record:
    """Return the record of one shared mask that keeps the shares `k` by layer; both ways are one pass for it."""
    own = replace(setup, recipe=replace(setup.recipe, k=dict(k), alpha=0.0))

    def make() -> Modules:
        return SharedMask(own.recipe).decompose(own.parent(seed), own.data, seed=seed, device="cpu")

    return _record(own, "shared-mask", seed, make)


def _record(setup: comparison.Setup, method: str, seed: int, make: Callable[[], Modules], **more: float) -> Record:
    parameters = setup.key(seed, setup.recipe) | {"method": method, **more}
    parameters |= {"subsets": [list(SIZES), SUBSETS], "one_pass_version": VERSION}
    label = f"{setup.data.name}-{setup.model}-{method}-seed{seed}"
    facts = {"dataset": setup.data.name, "model": setup.model, "method": method, "seed": seed, **more}
    own = setup.recipe
    facts |= comparison.shares(own) | {"alpha": own.alpha, "vote": own.vote, "epochs": own.epochs, "lr": own.lr}

    def measure() -> Rows:
        modules = make()
        return [facts | row for split in SPLITS for row in measured(modules, setup.data, split)]

    experiment = Experiment("one_pass", label, parameters)
    return experiment.run(setup.store, measure, data_sha256=setup.data.sha256())
