"""Panels of Figure 4: a convolutional parent decomposed under several settings, with its control.

`modlib panel` runs them, alone or under `torchrun`; each trial's record is written as soon as it is done, and what was
stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from modlib import checks, cotraining, masking, metrics, recipes
from modlib.data import Dataset
from modlib.decomposers import SharedMask
from modlib.decomposers.fixed_masks import fixed_masks, masked
from modlib.engines import check_engine
from modlib.engines.sharding import Shard
from modlib.recipes import Recipe
from modlib.study import names, records
from modlib.study.experiment import Experiment, later_versions
from modlib.study.records import Record, Store
from modlib.study.trials import PARENT_VERSION, SPLITS, Trial, is_done, run_trials, split_log_odds, trained_parent
from modlib.zoo import datasets, parents, training
from modlib.zoo.datasets import identity

Changes = Mapping[str, Mapping[str, Any]]
"""Settings by the name that the page shows, each what it changes of a recipe."""
SHARED = "shared mask"
"""The control: one supermask for all classes, as large as a module."""
NOT_OF_CONTROLS = (
    "alphas",
    "alphas_lr",
    "scale_free",
    "voting",
    "variants",
    "controls",
    "tried",
    "tried_controls",
    "shares",
    "reduced",
    "measured_images",
)
"""The settings of a panel that its controls do not depend on."""
OF_RECIPE = ("k", "epochs", "batch_size", "lr", "init", "images_per_epoch", "precision")
"""The settings of a panel that are settings of its recipes."""


@dataclass(frozen=True)
class Panel:
    """A data set, a parent, and the settings under which it is decomposed.

    `alphas`: of Eq. 1 as it is written, `scale_free`: of its scale-free reading; `voting`: those of the scale-free
    reading that are run with the vote loss too; `alphas_lr`: the rate of all these, where it is not `lr`. `variants`:
    further settings by the name that the page shows, each what it changes of the recipe at α = 0; `controls`: the same
    for the control, one supermask for all classes with the vote loss; `tried` and `tried_controls`: the same for
    settings that only the first seed tries, such as other rates, to choose on held-out images. `shares`: what masks
    keep that are not trained, see `before_training`. `epochs`, `images_per_epoch`, `batch_size`, `lr`, `init`, `k`,
    `precision`: see `modlib.cotrain`; recipe `ours` otherwise. `parent_recipe`, `parent_epochs`: see
    `modlib.zoo.training.recipe`. `measured_images`, `final_images`: see `modlib.study.trials.Trial`. `reduced`: what is
    smaller than in the paper, in words; empty: nothing. ValueError or TypeError for what is out of its range.
    """

    dataset: str
    model: str
    seeds: Sequence[int]
    parent_epochs: int
    epochs: int
    lr: float
    images_per_epoch: int | None = None
    alphas: Sequence[float] = (0.0, 0.05, 0.1, 1.0)
    alphas_lr: float | None = None
    scale_free: Sequence[float] = ()
    voting: Sequence[float] = ()
    variants: Changes = field(default_factory=dict)
    controls: Changes = field(default_factory=lambda: {SHARED: {}})
    tried: Changes = field(default_factory=dict)
    tried_controls: Changes = field(default_factory=dict)
    shares: Sequence[float] = (0.05, 0.1, 0.2)
    vote: float = 0.9
    k: float = 0.10
    init: str = "magnitude"
    batch_size: int = 128
    precision: str = "bfloat16"
    parent_recipe: str = "ours"
    measured_images: int | None = None
    final_images: int | None = None
    reduced: str = ""

    def __post_init__(self) -> None:
        checks.choice("dataset", self.dataset, datasets.NAMES)
        checks.choice("model", self.model, parents.CONVOLUTIONAL)
        for name in ("seeds", "alphas", "scale_free", "voting", "shares"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # from a file they are lists
        if not self.seeds:
            raise ValueError("seeds: empty; name at least one")
        for seed in self.seeds:
            checks.whole("seeds", seed, 0)
        if self.alphas_lr is not None:
            checks.positive("alphas_lr", self.alphas_lr)
        for share in self.shares:
            checks.share("shares", share)
        checks.whole("parent_epochs", self.parent_epochs, 1)
        for name in ("measured_images", "final_images"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), 1)
        self._check_changes()

    def _check_changes(self) -> None:
        """Raise ValueError for a setting that cannot be, or for two of one name."""
        every = [*self._of_alphas(), *self.variants, *self.tried, *self.controls, *self.tried_controls]
        twice = sorted({name for name in every if every.count(name) > 1})
        if twice:
            raise ValueError(f"variants: {twice} twice among the settings, controls and tried ones of the panel")
        for kind in ("variants", "tried", "controls", "tried_controls"):
            for name, change in getattr(self, kind).items():
                # curves share their epochs; a control has no modules that are pulled, or that go on from it
                fixed = {"method", "alpha", "shared_epochs"} if "controls" in kind else {"method", "epochs"}
                unknown = change.keys() - {f.name for f in fields(Recipe)} | change.keys() & fixed
                if unknown:
                    raise ValueError(f"{kind}[{name!r}]: a panel cannot change {sorted(unknown)}")
                if "/" in name:
                    raise ValueError(f"{kind}[{name!r}]: no slash in a name, it is part of a file's")
                self.recipe(**{"alpha": 0.0, **change})

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Panel:
        """Return the panel of a notebook's parameters; raise ValueError for an unknown name."""
        unknown = settings.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"panels: unknown settings {sorted(unknown)}")
        return cls(**settings)

    @property
    def name(self) -> str:
        """Data set and parent, as the command line takes them."""
        return f"{self.dataset} {self.model}"

    @property
    def title(self) -> str:
        """Data set and parent, as readers see them."""
        return names.of_network(self.dataset, self.model)

    def recipe(self, alpha: float, **changes: Any) -> Recipe:
        """Return the recipe of one setting."""
        common = {name: getattr(self, name) for name in OF_RECIPE}
        return recipes.ours(**common | {"alpha": float(alpha)} | changes)

    def settings(self) -> dict[str, Recipe]:
        """Return the recipes of the panel by the name that the page shows."""
        return self._of_alphas() | self.recipes_of(self.variants)

    def _of_alphas(self) -> dict[str, Recipe]:
        """Return the recipes of Eq. 1, as written and scale-free; α = 0 is the same in every reading."""
        rate = {} if self.alphas_lr is None else {"lr": self.alphas_lr}
        made = {f"α = {a:g}": self.recipe(a, **rate) for a in self.alphas}
        made |= {f"α = {a:g}, scale-free": self.recipe(a, reduction="scale_free", **rate) for a in self.scale_free}
        voting = {a: self.recipe(a, reduction="scale_free", vote=self.vote, **rate) for a in self.voting}
        return made | {f"α = {a:g}, scale-free, vote": recipe for a, recipe in voting.items()}

    def recipes_of(self, changes: Changes) -> dict[str, Recipe]:
        """Return the recipe at α = 0 with each of some changes, by name."""
        return {name: self.recipe(**{"alpha": 0.0, **change}) for name, change in changes.items()}

    def control_recipes(self) -> dict[str, Recipe]:
        """Return the recipes of the controls by name, tried ones last."""
        changes = {**self.controls, **self.tried_controls}
        return self.recipes_of({name: {"vote": self.vote, **change} for name, change in changes.items()})

    def control_runs(self) -> list[tuple[str, int]]:
        """Return the names and seeds of all controls: tried ones first, then seed by seed."""
        tried = [(name, self.seeds[0]) for name in self.tried_controls]
        return tried + [(name, seed) for seed in self.seeds for name in self.controls]

    def trials(self) -> dict[str, list[Trial]]:
        """Return the trials of every setting, one for each seed."""
        return {name: [self._trial(recipe, seed) for seed in self.seeds] for name, recipe in self.settings().items()}

    def tried_trials(self) -> dict[str, list[Trial]]:
        """Return the trials of what only the first seed tries, by name."""
        return {name: [self._trial(recipe, self.seeds[0])] for name, recipe in self.recipes_of(self.tried).items()}

    def _trial(self, recipe: Recipe, seed: int) -> Trial:
        return Trial(
            self.dataset,
            self.model,
            "ours",
            recipe,
            seed,
            self.parent_epochs,
            parent_recipe=self.parent_recipe,
            measured_images=self.measured_images,
            final_images=self.final_images,
        )


SHARED_EPOCHS = 30
"""Of "one mask first", at full size."""
OURS: Changes = {
    "LAMP": {"allocation": "lamp"},
    "LAMP, vote": {"allocation": "lamp", "vote": 0.9},
    "LAMP 18%, vote": {"allocation": "lamp", "vote": 0.9, "k": 0.18},
    "one mask first": {"allocation": "lamp", "vote": 0.9, "shared_epochs": SHARED_EPOCHS},
}
"""Ours: a share of all edges, shared out among the layers by layer-adaptive magnitude, see `masking.kept_edges`; and
modules that go on from one mask, see `modlib.shared_mask`."""


def _full(dataset: str, model: str, parent_epochs: int, epochs: int, lr: float = 0.1) -> Panel:
    longer = {"allocation": "lamp", "epochs": SHARED_EPOCHS + epochs}  # as many as "one mask first" has in both phases
    rates = [float(f"{factor * lr:g}") for factor in (0.3, 3.0)]
    return Panel(
        dataset, model, range(5), parent_epochs, epochs, lr=lr, scale_free=(0.01,), voting=(0.01,), variants=OURS,
        controls={SHARED: {}, "shared mask, LAMP": {"allocation": "lamp"}, "shared mask, LAMP, longer": longer},
        tried={f"LAMP, vote, rate {rate:g}": {**OURS["LAMP, vote"], "lr": rate} for rate in rates},
    )  # fmt: skip


FULL = {
    "cifar10 vgg16": _full("cifar10", "vgg16", parent_epochs=60, epochs=30),
    "cifar100 wrn28_10": _full("cifar100", "wrn28_10", parent_epochs=100, epochs=10, lr=0.01),
    "svhn resnet50": _full("svhn", "resnet50", parent_epochs=30, epochs=20),
}
"""The paper's three panels at full size, for a GPU. Rates and epochs are first guesses, not tuned; a mask for a hundred
classes takes a hundred gradients together, and at ten times this rate it was at chance in the reduced panel (n = 1)."""

REDUCED_FILE = Path("notebooks") / "params" / "figure4.yml"
"""The panels that the book shows, from the root of a checkout."""


def named(dataset: str, model: str, file: Path = REDUCED_FILE, full: bool = False) -> Panel:
    """Return a panel: of the page's parameter file where it has it, else, or with `full`, the paper's at full size."""
    shown = yaml.safe_load(file.read_text())["panels"] if file.exists() else []  # outside a checkout: the paper's alone
    known = {panel.name: panel for panel in map(Panel.of, shown)}
    there = FULL if full else FULL | known
    found = there.get(f"{dataset} {model}")
    if found is None:
        raise ValueError(
            f"panel: no panel {dataset} {model}{' at full size' if full else ''}; there are {sorted(there)}"
        )
    return found


def run(panel: Panel, data: Dataset, store: Store, device: str = "auto", engine: str = "auto") -> None:
    """Run what is open of a panel: what is tried first, then seed by seed, so that what is there is of use at any time.

    Raises ValueError, before any work, where it asks for more images than there are, or so few that a class has none,
    and for an engine that there is not, or not on this device.
    """
    if identity(data) != {"dataset": panel.dataset}:
        raise ValueError(f"data: panel {panel.name} is of {panel.dataset}, the data are {identity(data)}")
    _check_images(panel, data)
    check_engine(engine, cotraining.resolve_device(device))
    trials = panel.trials()
    before_training(panel, data, store, device=device)
    run_trials(
        [t for of_setting in panel.tried_trials().values() for t in of_setting],
        data,
        store,
        device=device,
        engine=engine,
    )
    for control in panel.tried_controls:
        shared_mask(panel, panel.seeds[0], data, store, device, control)
    for i, seed in enumerate(panel.seeds):
        run_trials([of_setting[i] for of_setting in trials.values()], data, store, device=device, engine=engine)
        for control in panel.controls:
            shared_mask(panel, seed, data, store, device, control)


def _check_images(panel: Panel, data: Dataset) -> None:
    """Raise ValueError unless the images that a panel trains on and measures are there, some of every class."""
    for recipes_of_kind in (panel.settings(), panel.recipes_of(panel.tried), panel.control_recipes()):
        for name, recipe in recipes_of_kind.items():
            if recipe.images_per_epoch is not None and recipe.images_per_epoch > len(data.train_labels):
                raise ValueError(
                    f"images_per_epoch: {recipe.images_per_epoch} ({name}), {data.name} has {len(data.train_labels)}"
                )
    for split, name in itertools.product(SPLITS, ("measured_images", "final_images")):
        asked, labels = getattr(panel, name), data.split(split)[1]
        if asked is None:
            continue
        if asked > len(labels):
            raise ValueError(f"{name}: {asked}, {data.name} has {len(labels)} images in {split}")
        missing = set(range(data.num_classes)) - set(labels[:asked].tolist())
        if missing:
            raise ValueError(f"{name}: the first {asked} of {split} have none of the classes {sorted(missing)[:5]}")


def control_experiment(panel: Panel, seed: int, control: str = SHARED) -> Experiment:
    """Return the experiment of a control of a panel, one of `panel.control_recipes()`, under a seed."""
    relevant = {name: v for name, v in vars(panel).items() if name not in NOT_OF_CONTROLS} | {"seeds": [seed]}
    parameters: dict[str, Any] = {"control": "shared mask", "panel": relevant}
    if changes := {**panel.controls, **panel.tried_controls}[control]:
        parameters["changes"] = changes
    parameters |= later_versions(cotraining=cotraining.VERSION, parent=PARENT_VERSION)
    label = f"{panel.dataset}-{panel.model}-{control.replace(' ', '-').replace(',', '')}-seed{seed}"
    return Experiment("panels", label, parameters)


def shared_mask(
    panel: Panel, seed: int, data: Dataset, store: Store, device: str = "auto", control: str = SHARED
) -> Record:
    """Return the record of a control: one supermask for all classes, with the vote loss.

    It takes as many steps as one module does, or those of the epochs that the control names.

    `control`: which of `panel.control_recipes()`. The rows are those of `modlib.metrics.subset_curve`, beside the
    accuracy on held-out images; or one row with what `failed`, where the scores diverge.
    """
    recipe, where = panel.control_recipes()[control], cotraining.resolve_device(device)
    experiment = control_experiment(panel, seed, control)
    checkpoint = store.path("checkpoints", f"control-{experiment.key}", ".pt")

    def compute() -> list[dict[str, Any]]:
        which = (panel.model, seed, panel.parent_epochs)
        parent = trained_parent(data, *which, store, panel.parent_recipe, where)
        classes = range(data.num_classes)
        try:
            modules = SharedMask(recipe, checkpoint).decompose(parent, data, seed=seed, device=where)
        except FloatingPointError as error:
            return [{"seed": seed, "failed": str(error)}]
        held, held_labels = split_log_odds(modules, data, "held_out", panel.final_images, panel.precision)
        odds, labels = split_log_odds(modules, data, "test", panel.final_images, panel.precision)
        logits, _ = training.logits(parent, data, "test", precision=panel.precision)
        held_out = metrics.recomposed_accuracy(held, held_labels, classes)
        curve = metrics.subset_curve(odds, logits[: len(labels)], labels, modules.masks, seed)
        return [
            {"seed": seed, "held_out_accuracy": held_out, "density": modules.masks.remaining([0])} | row
            for row in curve
        ]

    facts: dict[str, Any] = {"data_sha256": data.sha256(), "device": records.device_name(where)}

    def recorded() -> Record:
        record = experiment.run(store, compute, **facts)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)  # only now: measuring takes its time too
        return record

    return Shard.here().first_alone(recorded)


def before_training_experiment(panel: Panel, images: int = 1000) -> Experiment:
    """Return the experiment of masks by magnitude that nothing is trained for, see `before_training`."""
    seed = panel.seeds[0]
    parameters = {
        "control": "before training",
        "parent": [panel.dataset, panel.model, seed, panel.parent_epochs, panel.parent_recipe],
        "shares": list(panel.shares),
        "images": images,
        "precision": panel.precision,
        **later_versions(parent=PARENT_VERSION),
    }
    return Experiment("panels", f"{panel.dataset}-{panel.model}-before-training-seed{seed}", parameters)


def before_training(panel: Panel, data: Dataset, store: Store, images: int = 1000, device: str = "auto") -> Record:
    """Return the record of what a mask by magnitude leaves of the first seed's parent, before anything is trained.

    One row for every allocation and share k of `panel.shares`, and one for the parent: accuracy on all held-out images
    with the weights outside the mask 0 and the statistics of batch normalisation taken anew on `images` training images
    (cumulative averages), and the share that every layer keeps.
    """
    seed = panel.seeds[0]
    which = (panel.model, seed, panel.parent_epochs)
    where = cotraining.resolve_device(device)

    def compute() -> list[dict[str, Any]]:
        parent = trained_parent(data, *which, store, panel.parent_recipe, where)
        cases = [("all", 1.0), *itertools.product(masking.ALLOCATIONS, panel.shares)]
        return [{"seed": seed} | _before_training(parent, *case, data, images, panel.precision) for case in cases]

    experiment = before_training_experiment(panel, images)
    facts: dict[str, Any] = {"data_sha256": data.sha256(), "device": records.device_name(where)}
    return Shard.here().first_alone(lambda: experiment.run(store, compute, **facts))


def _before_training(
    parent: nn.Module, allocation: str, k: float, data: Dataset, images: int, precision: str
) -> dict[str, Any]:
    network, kept = parent, {}
    if allocation != "all":
        masks = fixed_masks(parent, "magnitude", k, 0, [0], allocation)
        network, kept = masked(parent, {n: m[0] for n, m in masks.masks.items()}), masks.remaining_by_layer()
        device = next(network.parameters()).device
        batches = (data.inputs(part.to(device)) for part in data.train_images[:images].split(100))
        torch.optim.swa_utils.update_bn(batches, network)
    accuracy = training.accuracy(network, data, "held_out", precision)
    return {"allocation": allocation, "k": k, "held_out_accuracy": accuracy, "kept_by_layer": kept}


def describe(panel: Panel, store: Store) -> str:
    """Return one line on how much of a panel is there, and what it is."""
    every = [t for of_setting in (*panel.trials().values(), *panel.tried_trials().values()) for t in of_setting]
    done = sum(is_done(trial, store) for trial in every)
    size = f"reduced: {panel.reduced}" if panel.reduced else "full size"
    return (
        f"{panel.name} ({size}): {done} of {len(every)} trials are there, beside {len(panel.control_runs())} controls "
        f"({time.strftime('%H:%M')})"
    )
