"""Module stemming against its controls: every method by name, its settings, and one record for each run of it.

All are tried alike: three settings each with the first seed; then one of them with every seed. For a control that is
the one with the best held-out accuracy. Module stemming keeps the alpha of the comparison's recipe: alpha trades
accuracy for size, and accuracy alone would always take the least stemming. Test images decide nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modlib import cotraining, masking, metrics
from modlib.data import Dataset
from modlib.decomposers import FixedMasks, SharedMask
from modlib.decomposers.fixed_masks import fixed_masks, grafted
from modlib.modules import Modules
from modlib.recipes import Recipe
from modlib.study import controls
from modlib.study.experiment import Experiment, chosen
from modlib.study.records import Record, Rows, Store
from modlib.study.trials import PARENT_VERSION, SPLITS, Trial, run_trials, trained_parent, trial_modules
from modlib.zoo import parents, training
from modlib.zoo.datasets import identity, scaling_of

VERSION = 1
"""Raised when a control of the same parameters and seed gives another result."""
HALF = 0.5
"""Share of the layer of the logits that `STRONG` keeps: it holds few of the edges, and every class needs some."""
STRONG = "shared mask from magnitudes, half of the output"


@dataclass(frozen=True)
class Setup:
    """What all methods of a comparison have in common."""

    data: Dataset
    store: Store
    model: str
    parent_epochs: int
    recipe: Recipe
    """Module stemming's; a method's settings change it."""
    pairs: Sequence[tuple[int, int]]
    """The pairs of classes that are also trained for by themselves; may be none."""
    modules: dict[str, Modules] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[int, ...]:
        """All classes."""
        return tuple(range(self.data.num_classes))

    def parent(self, seed: int) -> nn.Module:
        """Return the trained parent of a seed."""
        return trained_parent(self.data, self.model, seed, self.parent_epochs, self.store)

    def trial(self, seed: int, recipe: Recipe) -> Trial:
        """Return the trial of module stemming that the tables of the book share."""
        scaling = scaling_of(self.data)
        return Trial(self.data.name, self.model, "ours", recipe, seed, self.parent_epochs, scaling=scaling)

    def key(self, seed: int, recipe: Recipe) -> dict[str, Any]:
        """Return what decides the result of one run, and the versions of the code's recipes."""
        return {
            **identity(self.data),
            "model": self.model,
            "seed": seed,
            "parent_epochs": self.parent_epochs,
            "recipe": chosen(recipe),
            "versions": [VERSION, cotraining.VERSION, PARENT_VERSION],
        }


Maker = Callable[[Setup, Recipe, int, Sequence[int]], Modules | nn.Module]
"""Makes what answers for some classes: `Modules`, or a network with one logit for each of them."""
Settings = tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Method:
    """A way to answer for a subset of the classes, and the settings that it is tuned over."""

    make: Maker
    settings: Settings
    for_pairs: bool = False
    """Whether it is trained anew for every pair; else once, for all classes."""


def stemming(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int] = ()) -> Modules:
    """Return the modules of module stemming, from its trial; always for all classes."""
    trial = setup.trial(seed, recipe)
    which = trial.experiment.key
    if which not in setup.modules:
        if setup.store.folder is not None:
            run_trials([trial], setup.data, setup.store, device="cpu")
        setup.modules[which] = trial_modules(trial, setup.data, setup.store, device="cpu")
    return setup.modules[which]


def _untrained(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> Modules:
    parent = parents.make(setup.model, setup.data, seed)
    return SharedMask(recipe).decompose(parent, setup.data, seed=seed, classes=classes, device="cpu")


def _fixed(kind: str) -> Maker:
    def make(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> Modules:
        decomposer = FixedMasks(kind, _share(recipe), recipe)
        return decomposer.decompose(setup.parent(seed), setup.data, seed=seed, classes=classes, device="cpu")

    return make


def _shared(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> Modules:
    return SharedMask(recipe).decompose(setup.parent(seed), setup.data, seed=seed, classes=classes, device="cpu")


def _union(setup: Setup, seed: int, classes: Sequence[int]) -> float:
    """Return the share of the weights that module stemming, as the recipe has it, keeps for `classes`."""
    return round(stemming(setup, setup.recipe, seed, setup.classes).remaining(classes), 6)


def _shared_as_union(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> Modules:
    """One mask with as many edges as the union; where `k` is given by layer, with as many in every layer."""
    if isinstance(setup.recipe.k, Mapping):
        k = stemming(setup, setup.recipe, seed, setup.classes).masks.remaining_by_layer(classes)
        return _shared(setup, replace(recipe, k=k), seed, classes)
    return _shared(setup, replace(recipe, k=_union(setup, seed, classes)), seed, classes)


def _shared_from_magnitudes(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> Modules:
    """One mask of a share k of all edges: it starts from magnitudes, and keeps `HALF` of the layer of the logits.

    The other layers keep the same share each. ValueError where k is less than that layer alone would keep.
    """
    sizes = masking.sizes(masking.maskable_parameters(setup.parent(seed)))
    *_, last = sizes
    others = sum(sizes.values()) - sizes[last]
    hidden = (_share(recipe) * sum(sizes.values()) - HALF * sizes[last]) / others
    if hidden <= 0:
        raise ValueError(f"k: {recipe.k} of the edges is less than half of the last layer, which this control keeps")
    return _shared(setup, replace(recipe, k={"default": hidden, last: HALF}, init="magnitude"), seed, classes)


def _small(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> nn.Module:
    total = sum(masking.sizes(masking.maskable_parameters(setup.parent(seed))).values())
    budget = round(_union(setup, seed, classes) * total)
    return controls.small_network(setup.data, parents.FC[setup.model], budget, recipe, seed, classes)


def _head(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> nn.Module:
    return controls.new_head(setup.parent(seed), setup.data, recipe, seed, classes)


def _restricted(setup: Setup, recipe: Recipe, seed: int, classes: Sequence[int]) -> nn.Module:
    return setup.parent(seed)


def _share(recipe: Recipe) -> float:
    assert isinstance(recipe.k, float)
    return recipe.k


def shares(recipe: Recipe) -> dict[str, Any]:
    """Return `k` for the columns of a row: one number, and beside it what differs by layer."""
    if not isinstance(recipe.k, Mapping):
        return {"k": recipe.k}
    by_layer = dict(recipe.k)
    return {"k": by_layer.pop("default", None), "k_by_layer": json.dumps(by_layer)}


def _rates(*rates: float) -> Settings:
    return tuple({"lr": rate} for rate in rates)


GRAFTING, SCORES, WEIGHTS = _rates(0.01, 0.1, 1.0), _rates(0.03, 0.1, 0.3), _rates(0.001, 0.003, 0.01)
METHODS: dict[str, Method] = {
    "module stemming": Method(stemming, tuple({"alpha": alpha} for alpha in (2.0, 4.0, 8.0))),
    "module stemming, without vote loss": Method(stemming, ({"alpha": 1.0, "vote": 0.0},)),
    "parent, restricted": Method(_restricted, ({},)),
    "dense parent + grafting": Method(_fixed("dense"), GRAFTING),
    "random mask + grafting": Method(_fixed("random"), GRAFTING),
    "magnitude mask + grafting": Method(_fixed("magnitude"), GRAFTING),
    "shared mask": Method(_shared, SCORES),
    "shared mask, as large as the union": Method(_shared_as_union, SCORES),
    STRONG: Method(_shared_from_magnitudes, SCORES),
    "small network from scratch": Method(_small, WEIGHTS),
    "new head": Method(_head, GRAFTING),
    "shared mask, untrained parent": Method(_untrained, _rates(0.3, 1.0, 3.0)),
    "mask for the pair": Method(_shared, SCORES, for_pairs=True),
    "small network for the pair": Method(_small, WEIGHTS, for_pairs=True),
    "new head for the pair": Method(_head, GRAFTING, for_pairs=True),
}
"""Every method by the name that its records and pages carry."""


def compare(names: Sequence[str], setup: Setup, seeds: Sequence[int]) -> list[Record]:
    """Return the records of every method: all settings with the first seed, the chosen one with the others."""
    done = []
    for name in names:
        method = METHODS[name]
        tried = [run(name, setup, setting, seeds[0]) for setting in method.settings]
        chosen = method.settings[best_of([record.rows for record in tried])]
        if name == "module stemming":
            chosen = {"alpha": setup.recipe.alpha}
        rest = seeds[1:] if chosen in method.settings else seeds
        done += tried + [run(name, setup, chosen, seed) for seed in rest]
    return done


def best_of(tried: Sequence[Rows]) -> int:
    """Return the position of the rows with the best held-out accuracy (of the pairs, where it is trained for them)."""
    held_out = [next(row for row in rows if row["split"] == "held_out") for rows in tried]
    values = [
        -1.0 if "failed" in row else float(row["accuracy"] if "accuracy" in row else row["chosen_pairs_accuracy"])
        for row in held_out
    ]
    return values.index(max(values))


def run(name: str, setup: Setup, setting: Mapping[str, float], seed: int) -> Record:
    """Return the record of one method with one setting and seed; two rows, held-out and test."""
    recipe = _recipe(name, setup, setting)
    parameters = setup.key(seed, recipe) | {"method": name, "pairs": [list(pair) for pair in setup.pairs]}
    if METHODS[name].make in (_small, _shared_as_union):
        parameters["as_large_as"] = chosen(setup.recipe)
    label = "-".join([*name.replace(",", "").replace("+ ", "").split(), *(f"{n}{v:g}" for n, v in setting.items())])
    experiment = Experiment("controls", f"{setup.data.name}-{setup.model}-{label}-seed{seed}", parameters)
    measure = partial(_rows, name, setup, recipe, seed)
    return experiment.run(setup.store, measure, data_sha256=setup.data.sha256())


def _recipe(name: str, setup: Setup, setting: Mapping[str, float]) -> Recipe:
    """Return module stemming's recipe with the settings of a method, without stemming where all masks are equal."""
    return replace(setup.recipe, **({"alpha": 0.0} | dict(setting)))  # type: ignore[arg-type]


def _rows(name: str, setup: Setup, recipe: Recipe, seed: int) -> Rows:
    method, start = METHODS[name], time.perf_counter()
    subsets = list(setup.pairs) if method.for_pairs else [setup.classes]
    common: dict[str, Any] = {
        "dataset": setup.data.name,
        "model": setup.model,
        "parent": "own",
        "method": name,
        "recipe": "ours",
    }
    common |= shares(recipe) | {"alpha": recipe.alpha, "lr": recipe.lr, "vote": recipe.vote, "seed": seed}
    try:
        made = {tuple(subset): method.make(setup, recipe, seed, subset) for subset in subsets}
    except FloatingPointError as error:
        return [common | {"split": split, "failed": str(error)} for split in SPLITS]
    seconds = (time.perf_counter() - start) / len(subsets)
    if method.make is stemming and setup.store.folder is not None:  # read from its trial, or computed there just now
        seconds = run_trials([setup.trial(seed, recipe)], setup.data, setup.store)[0].provenance["seconds"]
    first = made[tuple(subsets[0])]
    common |= {"training_seconds": seconds} | cost(first)
    rows = []
    for split in SPLITS:
        row = common | {"split": split, "parent_accuracy": training.accuracy(setup.parent(seed), setup.data, split)}
        rows.append(row | _accuracies(made, setup, split))
    return rows


def _accuracies(made: Mapping[tuple[int, ...], Modules | nn.Module], setup: Setup, split: str) -> dict[str, Any]:
    """Return accuracies on a split; of one thing made for all classes, or of one for each of the chosen pairs."""
    images, labels = setup.data.split(split)
    inputs = setup.data.inputs(images)
    found = {subset: log_odds(one, inputs) for subset, one in made.items()}
    every = found.get(setup.classes)
    pairs = [
        metrics.recomposed_accuracy(
            found[pair] if every is None else every, labels, pair if every is None else setup.classes, pair
        )
        for pair in setup.pairs
    ]
    row: dict[str, Any] = {"chosen_pairs_accuracy": statistics.mean(pairs)} if pairs else {}
    if every is not None:
        table = metrics.accuracy_of_pairs(every, labels, setup.classes)
        row |= {
            "accuracy": metrics.recomposed_accuracy(every, labels, setup.classes),
            "pair_accuracy": masking.mean_over_pairs(table),
            "module_accuracy": float(metrics.module_accuracies(every, labels, setup.classes).mean()),
        }
    return row


@torch.no_grad()
def log_odds(made: Modules | nn.Module, inputs: Tensor) -> Tensor:
    """Return the log-odds [B, C] of modules, or of a network's logits read one-against-rest."""
    if isinstance(made, nn.Module):
        return controls.restricted_parent(made(inputs))
    return made.log_odds(inputs)


def cost(made: Modules | nn.Module) -> dict[str, float]:
    """Return what a fully connected network or its modules cost in use, all classes at once.

    `bytes`: float32 weights in the union, biases and grafting layers; where weights were dropped one bit for every
    weight of the parent, to say which; and where masks differ one bit for every weight in the union and module.
    `multiply_adds` for one image: an edge counts once in every pass that keeps it; and the grafting layers.
    """
    network = made if isinstance(made, nn.Module) else made.parent
    total = sum(parameter.numel() for parameter in network.parameters())
    weights = sum(masking.sizes(masking.maskable_parameters(network)).values())
    if isinstance(made, nn.Module):
        return {"bytes": 4 * total, "multiply_adds": weights, "passes": 1}
    union, number = round(made.remaining() * weights), made.passes
    grafts = made.grafting_weight.numel()
    held = 4 * (union + total - weights + grafts + made.grafting_bias.numel())
    held += (weights // 8 if union < weights else 0) + (len(made.classes) * union // 8 if number > 1 else 0)
    own = int(sum(int(mask[0].sum()) for mask in made.masks.masks.values()))
    facts = {"bytes": held, "multiply_adds": own * number + grafts, "passes": number}
    return facts | {
        "jaccard_index": made.masks.mean_jaccard(),
        "remaining_parameters": masking.mean_over_pairs(made.masks.remaining_of_pairs()),
        "remaining_parameters_all": made.remaining(),
    }


def time_in_use(setup: Setup, seed: int, batch_size: int = 1000, repeats: int = 21) -> Record:
    """Return milliseconds for a batch in use, by kind, and for recomposing a pair: medians, taken turn by turn.

    The kinds differ in what is computed, not in what was learnt: nothing but module stemming is trained for this.
    """
    parameters = setup.key(seed, setup.recipe) | {"timing": [batch_size, repeats], "pairs": [list(setup.pairs[0])]}

    def compute() -> Rows:
        images = setup.data.train_images[:batch_size]
        calls = _kinds(setup, seed, setup.data.inputs(images))
        taken: dict[str, list[float]] = {kind: [] for kind in calls}
        with torch.no_grad():
            for _ in range(repeats):
                for kind, call in calls.items():
                    start = time.perf_counter()
                    call()
                    taken[kind].append(1000 * (time.perf_counter() - start))
        return [{"kind": kind, "batch": len(images), "ms": statistics.median(t)} for kind, t in taken.items()]

    experiment = Experiment("controls", f"{setup.data.name}-{setup.model}-in-use-seed{seed}", parameters)
    return experiment.run(setup.store, compute, data_sha256=setup.data.sha256())


def _kinds(setup: Setup, seed: int, inputs: Tensor) -> dict[str, Callable[[], Any]]:
    modules = stemming(setup, setup.recipe, seed, setup.classes)
    pair = setup.pairs[0]
    parent = setup.parent(seed)
    masks = fixed_masks(parent, "magnitude", _share(setup.recipe), seed, setup.classes)
    one = grafted(parent, masks, setup.data, setup.recipe, seed, train=False, device="cpu").recompose(setup.classes)
    many, two = modules.recompose(setup.classes), modules.recompose(pair)
    small = _small(setup, replace(setup.recipe, epochs=1), seed, setup.classes)
    return {
        "parent": lambda: setup.parent(seed)(inputs),
        "one mask": lambda: one.log_odds(inputs),
        "a mask for every class": lambda: many.log_odds(inputs),
        "two masks": lambda: two.log_odds(inputs),
        "small network": lambda: small(inputs),
        "recomposing a pair": lambda: modules.recompose(pair),
    }
