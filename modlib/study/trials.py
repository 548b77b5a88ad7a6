"""The book's trials: a parent and its decomposition from one seed, measured after every epoch, and kept.

A trial's parent, modules and record lie in a `Store`. What is there is not computed again; a decomposition that was
stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from modlib import cotraining, metrics, recipes
from modlib.data import Dataset
from modlib.decomposers import ModuleStemming
from modlib.engines import checkpoints
from modlib.engines.sharding import Shard
from modlib.masking import mean_over_pairs
from modlib.modules import Modules, load
from modlib.precision import convolutional
from modlib.recipes import FREE, Recipe, Run
from modlib.study import records
from modlib.study.experiment import Experiment, chosen
from modlib.study.records import Record, Rows, Store, key, write
from modlib.zoo import parent_files, parents, training
from modlib.zoo.datasets import identity

PARENT_VERSION = 1
"""Raised when the same parameters and seed give another parent."""
SPLITS = ("held_out", "test")
SETTINGS = ["dataset", "model", "recipe", "vote", "k", "alpha", "share_init"]
"""The columns that tell the settings of the paper's tables apart; with `seed`, their trials."""


@dataclass(frozen=True)
class Trial:
    """One row of a table: data set, model, recipe and seed; the seed is the parent's and the decomposition's.

    `parent`: "own", or "stored" for one of an artefact, which is not trained; the seed is then the decomposition's.
    `parent_recipe`: how an own one is trained, see `modlib.zoo.training.recipe`. `measured_images`, `final_images`: how
    many images of a split are measured after an epoch, and after the last one; default, all. `scaling`: of the inputs
    of an own parent, see `modlib.zoo.datasets.Dataset.scaling`; a stored parent brings its own.
    """

    dataset: str
    model: str
    recipe_name: str
    recipe: Recipe
    seed: int
    parent_epochs: int
    parent: str = "own"
    parent_recipe: str = "published"
    measured_images: int | None = None
    final_images: int | None = None
    scaling: str = "standard"

    @property
    def name(self) -> str:
        """A readable name for files."""
        model = self.model if self.parent == "own" else f"{self.model}-{self.parent}"
        alpha, vote = f"{self.recipe.alpha:g}", f"{self.recipe.vote:g}"
        dataset = self.dataset if self.scaling == "standard" else f"{self.dataset}-{self.scaling}"
        return f"{dataset}-{model}-{self.recipe_name}-alpha{alpha}-vote{vote}-seed{self.seed}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that decides the result, and the versions of the code's recipes."""
        versions = {"cotraining_version": cotraining.VERSION, "parent_version": PARENT_VERSION}
        given = {**vars(self), "recipe": chosen(self.recipe), **versions}
        for name in ("parent", "parent_recipe", "measured_images", "final_images", "scaling"):
            if given[name] == getattr(type(self), name):
                del given[name]  # a setting added later leaves the keys of old runs alone
        return given

    @property
    def experiment(self) -> Experiment:
        """The trial as an experiment: its record, and its modules under the same name."""
        return Experiment("trials", self.name, self.parameters)


def trained_parent(
    data: Dataset,
    model: str,
    seed: int,
    epochs: int,
    store: Store,
    recipe: str = "published",
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Return a parent trained by a recipe of `modlib.zoo.training`, on `device`, from the store where it is there.

    Convolutional parents are kept, and used, in half precision (`modlib.zoo.parent_files`). A training that was stopped
    goes on from its last epoch.
    """
    precision = "bfloat16" if model in parents.CONVOLUTIONAL and recipe == "ours" else "float32"
    settings = training.recipe(recipe, data.name, model, epochs=epochs, precision=precision)
    facts = {
        **identity(data),
        "train_images": len(data.train_labels),
        "model": model,
        "seed": seed,
        "training": chosen(settings),
        "version": PARENT_VERSION,
    }
    name = f"{'-'.join(identity(data).values())}-{model}-seed{seed}-{key(facts)}"
    if name not in store.parents:
        store.parents[name] = _read_or_trained(
            parents.make(model, data, seed), name, data, seed, settings, store, device
        )
    return store.parents[name].to(device)


def _read_or_trained(
    parent: nn.Module,
    name: str,
    data: Dataset,
    seed: int,
    settings: training.Parameters,
    store: Store,
    device: str | torch.device,
) -> nn.Module:
    """Return `parent` with the weights that are kept under `name`, else trained, and kept."""
    path, checkpoint = store.path("parents", name, ".safetensors"), store.path("checkpoints", f"parent-{name}", ".pt")
    if path is not None and parent_files.load(parent, path):
        parent = parent.eval()
    else:
        parent = training.train(parent.to(device), data, seed=seed, parameters=settings, checkpoint=checkpoint)
        if convolutional(parent):
            parent_files.round_to_half(parent)
        if path is not None:
            parent_files.save(parent, path)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)  # only now: the parent is written
    return parent


def run_trials(
    trials: Sequence[Trial],
    data: Dataset,
    store: Store,
    *,
    device: str = "auto",
    population: int = 1,
    engine: str = "auto",
    keep_modules: bool = True,
) -> list[Record]:
    """Return the record of every trial, computing those that are not in the store, one population at a time.

    `engine`: one of `modlib.engines.ENGINES`. Results do not depend on it but for rounding, and with a vote loss where
    "auto" would be the vectorised one: others may see the other modules as they were an epoch ago. Kept in the record.
    `population`: how many decompositions train side by side. One is fastest on a CPU, whose caches hold one; a GPU
    takes many. Trials that differ in more than k, alpha, share_init and seed go into different populations.
    `keep_modules`: whether the modules are kept, too, for pages that read masks.
    A trial that diverges is recorded as failed, with the reason; the others are not touched by it.
    """
    if any(trial.parent != "own" for trial in trials):
        raise ValueError("trials: own parents only; see trial_modules for others")
    for trial in trials:
        _check_data(trial, data)
    records.commit()  # of the code as it is loaded now
    computed: dict[str, Record] = {}
    waiting = []
    for trial in trials:
        if is_done(trial, store):
            _remove_checkpoints([trial], store)  # of one that was stopped just after its record
        else:
            waiting.append(trial)
    for group in _populations(waiting, population):
        computed |= _run_or_report(group, data, store, device, engine, keep_modules)
        print(
            f"{len(computed)} of {len(waiting)} trials computed, the last {group[-1].name}", file=sys.stderr, flush=True
        )
    return [
        computed[t.experiment.key] if t.experiment.key in computed else _record(t, data, store, None) for t in trials
    ]


def table1_trials(
    dataset: str,
    model: str,
    seeds: Sequence[int],
    *,
    k: float,
    parent_epochs: int,
    published_epochs: int,
    published_alphas: Sequence[float],
    ours_epochs: int,
    vote: float,
    vote_alpha: float,
) -> list[Trial]:
    """Return the trials of one column of Table 1: recipe `published` for each alpha, and `ours` with vote loss."""
    _refuse_empty(seeds=seeds)
    voting = recipes.ours(k=k, alpha=vote_alpha, vote=vote, epochs=ours_epochs)
    trials = []
    for seed in seeds:
        trials += published_trials(
            dataset, [model], [k], published_alphas, [seed], epochs=published_epochs, parent_epochs=parent_epochs
        )
        trials.append(Trial(dataset, model, "ours", voting, seed, parent_epochs))
    return trials


def table1_settings(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a page's parameters that `table1_trials` takes by name; ValueError for missing ones."""
    taken = inspect.signature(table1_trials).parameters.values()
    names = [p.name for p in taken if p.kind is p.KEYWORD_ONLY]
    missing = [name for name in names if name not in variables]
    if missing:
        raise ValueError(f"variables: {missing} are missing; the trials of Table 1 take {names}")
    return {name: variables[name] for name in names}


def published_trials(
    dataset: str,
    models: Sequence[str],
    ks: Sequence[float],
    alphas: Sequence[float],
    seeds: Sequence[int],
    *,
    epochs: int,
    parent_epochs: int,
    share_inits: Sequence[bool] = (True,),
    scaling: str = "standard",
    **changes: Any,
) -> list[Trial]:
    """Return a grid of trials of recipe `published`, seed by seed: what was run for one page is read by the others.

    Numbers become floats: `alpha: 1` and `alpha: 1.0` are one trial, and one record. `scaling`: of the inputs;
    `changes`: of the recipe, such as another reading of Eq. 1.
    """
    _refuse_empty(models=models, ks=ks, alphas=alphas, seeds=seeds, share_inits=share_inits)
    grid = product(seeds, models, ks, alphas, share_inits)
    return [
        Trial(
            dataset,
            model,
            "published",
            recipes.published(k=float(k), alpha=float(alpha), share_init=share_init, epochs=epochs, **changes),
            seed,
            parent_epochs,
            scaling=scaling,
        )
        for seed, model, k, alpha, share_init in grid
    ]


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table of trials with a column `label`, how the book names their recipes (see `recipe_label`)."""
    return rows.assign(
        label=[recipe_label(name, vote) for name, vote in zip(rows["recipe"], rows["vote"], strict=True)]
    )


def last_epochs(rows: pd.DataFrame, split: str = "test", by: Sequence[str] = SETTINGS) -> pd.DataFrame:
    """Return the row of every trial's last epoch on one split.

    `by`: the columns that, with `seed`, tell one trial from another; variants of one setting need their own.
    """
    measured = rows[rows["split"] == split]
    last = measured.groupby([*by, "seed"])["epoch"].transform("max")
    return measured[measured["epoch"] == last]


def module_rows(done: Sequence[Record]) -> pd.DataFrame:
    """Return the accuracy of every single module, one row per trial, epoch, split and module (by its position)."""
    kept = [*SETTINGS, "seed", "epoch", "split"]
    return pd.DataFrame(
        [
            {name: row[name] for name in kept} | {"module": module, "accuracy": accuracy}
            for record in done
            for row in record.rows
            for module, accuracy in enumerate(row.get("module_accuracies", []))
        ]
    )


def chosen_epochs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, per trial and module of `module_rows`, its accuracy on test images by three choices of the epoch.

    Columns: `maximum`, the highest on test itself (paper, Table 5); `by_held_out`, at the epoch that is best on
    held-out images, the first of several; `last`, at the last epoch.
    """
    which = [*SETTINGS, "seed", "module"]
    wide = rows.pivot(index=[*which, "epoch"], columns="split", values="accuracy").reset_index().sort_values("epoch")
    groups = wide.groupby(which, sort=False)
    chosen = wide.loc[groups["held_out"].idxmax()].set_index(which)["test"]
    table = {"maximum": groups["test"].max(), "by_held_out": chosen, "last": groups["test"].last()}
    return pd.DataFrame(table).reset_index()


def variants(base: Trial, changes: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, list[Trial]]:
    """Return the trials of `base` with some settings changed, for every seed, by the name of the change.

    A change names settings of the recipe, or `parent_epochs`. Raises ValueError for an unknown setting.
    """
    known = {f.name for f in fields(Recipe)} | {"parent_epochs"}
    made = {}
    for name, settings in changes.items():
        if not settings.keys() <= known:
            raise ValueError(f"changes[{name!r}]: unknown settings {sorted(settings.keys() - known)}")
        recipe = replace(base.recipe, **{key: v for key, v in settings.items() if key != "parent_epochs"})
        epochs = settings.get("parent_epochs", base.parent_epochs)
        made[name] = [replace(base, recipe=recipe, seed=seed, parent_epochs=epochs) for seed in seeds]
    return made


def run_variants(
    trials: Mapping[str, Sequence[Trial]], data: Dataset, store: Store
) -> tuple[list[Record], pd.DataFrame]:
    """Run the trials of `variants`; return their records, and their rows with the name as column `variant`."""
    done = {name: run_trials(part, data, store) for name, part in trials.items()}
    rows = [records.frame(part).assign(variant=name) for name, part in done.items()]
    return [record for part in done.values() for record in part], pd.concat(rows, ignore_index=True)


def differences(rows: pd.DataFrame, base: str, quantity: str) -> pd.DataFrame:
    """Return, by variant (columns) and seed (rows), `quantity` minus that of the variant `base` under the same seed."""
    table = rows.pivot(index="seed", columns="variant", values=quantity)
    return table.sub(table[base], axis=0)


def recipe_label(name: str, vote: float) -> str:
    """Return how the book names a recipe: what is ours says so, the vote loss above all."""
    return f"{name}, with vote loss" if vote > 0 else name


def trial_modules(
    trial: Trial, data: Dataset, store: Store, *, device: str = "auto", parent: nn.Module | None = None
) -> Modules:
    """Return the modules of a trial, from the store where they are there, else by running it.

    `parent`: the trial's, where it is not "own"; an own one is read or trained.
    """
    if (parent is None) != (trial.parent == "own"):
        raise ValueError(f"parent: trial {trial.name} has parent={trial.parent!r}; hand one over unless it is 'own'")
    if trial.parent == "own":
        _check_data(trial, data)
    parent = parent or _own_parent(trial, data, store, device)
    path = _modules_path(trial, store)
    if path is not None and path.exists():
        return load(path, parent)
    modules = ModuleStemming(trial.recipe).decompose(parent, data, seed=trial.seed, device=device)
    if path is not None:
        modules.save(path)
    return modules


def measure(
    modules: Modules, data: Dataset, split: str, images: int | None = None, precision: str = "float32"
) -> dict[str, Any]:
    """Return what a page shows of modules on one split: accuracies, Jaccard index, remaining parameters.

    `images`: how many, the first ones; default, all. `precision`: of the forward passes.
    """
    return _measure(modules, *split_log_odds(modules, data, split, images, precision))


def split_log_odds(
    modules: Modules, data: Dataset, split: str, images: int | None, precision: str
) -> tuple[Tensor, Tensor]:
    """Return the modules' log-odds [n, C] of the first `images` of a split (None: all), and the labels [n]."""
    taken, labels = (values[:images] for values in data.split(split))
    parts = [modules.log_odds(data.inputs(part), precision=precision) for part in taken.split(10_000)]
    return torch.cat(parts), labels


def _measure(modules: Modules, log_odds: Tensor, labels: Tensor) -> dict[str, Any]:
    each = metrics.module_accuracies(log_odds, labels, modules.classes)
    row: dict[str, Any] = {
        "accuracy": metrics.recomposed_accuracy(log_odds, labels, modules.classes),
        "module_accuracy": float(each.mean()),
    }
    if len(modules.classes) > 1:
        pairs = modules.masks.remaining_of_pairs()
        above = torch.triu(torch.ones_like(pairs, dtype=torch.bool), 1)
        row |= {
            "pair_accuracy": mean_over_pairs(metrics.accuracy_of_pairs(log_odds, labels, modules.classes)),
            "remaining_parameters": mean_over_pairs(pairs),
            "remaining_parameters_best": float(pairs[above].min()),
            "remaining_parameters_worst": float(pairs[above].max()),
        }
    return row | {
        "jaccard_index": modules.masks.mean_jaccard(),
        "remaining_parameters_all": modules.remaining(),
        "module_accuracies": each.tolist(),
    }


def _refuse_empty(**lists: Sequence[Any]) -> None:
    for name, values in lists.items():
        if not values:
            raise ValueError(f"{name}: empty; name at least one")


def _check_data(trial: Trial, data: Dataset) -> None:
    """Raise ValueError unless `data` is what a trial is about: its record would be taken for that of other inputs."""
    asked = {"dataset": trial.dataset} | ({} if trial.scaling == "standard" else {"scaling": trial.scaling})
    if identity(data) != asked:
        raise ValueError(f"data: trial {trial.name} is of {asked}, the data are {identity(data)}")


def _own_parent(trial: Trial, data: Dataset, store: Store, device: str) -> nn.Module:
    which = (trial.model, trial.seed, trial.parent_epochs)
    # fully connected parents are trained where their results were: on the CPU, in the same minutes
    where = cotraining.resolve_device(device) if trial.model in parents.CONVOLUTIONAL else "cpu"
    return Shard.here().first_alone(partial(trained_parent, data, *which, store, trial.parent_recipe, where))


def is_done(trial: Trial, store: Store) -> bool:
    """Return whether the record of a trial is in the store."""
    return trial.experiment.is_done(store)


def _modules_path(trial: Trial, store: Store) -> Path | None:
    return trial.experiment.path(store, "modules", ".safetensors")


def _populations(trials: Sequence[Trial], size: int) -> Iterator[list[Trial]]:
    """Yield the trials in groups of at most `size` that can train side by side."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        alike = replace(trial, seed=0, recipe=replace(trial.recipe, **FREE))
        groups.setdefault(repr(alike), []).append(trial)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _run_or_report(
    trials: Sequence[Trial], data: Dataset, store: Store, device: str, engine: str, keep: bool
) -> dict[str, Record]:
    """Run a population; where it diverges, run its trials alone, and record those that fail by themselves."""
    try:
        return _run_population(trials, data, store, device, engine, keep)
    except FloatingPointError as error:
        _remove_checkpoints(trials, store)
        if len(trials) == 1:
            failed = [_columns(trials[0]) | {"failed": str(error)}]
            record = Shard.here().first_alone(partial(_record, trials[0], data, store, failed))
            return {trials[0].experiment.key: record}
        alone = [_run_or_report([t], data, store, device, engine, keep) for t in trials]
        return {name: record for one in alone for name, record in one.items()}


def _run_population(
    trials: Sequence[Trial], data: Dataset, store: Store, device: str, engine: str, keep: bool
) -> dict[str, Record]:
    """Train the trials side by side and return their records, by id; each is written, with its modules."""
    trained = [_own_parent(t, data, store, device) for t in trials]
    shares = [{s: training.accuracy(p, data, s, trials[0].recipe.precision) for s in SPLITS} for p in trained]
    shard = Shard.here()
    checkpoint, so_far = _checkpoints(trials, store)
    before = time.perf_counter()
    kept = json.loads(so_far.read_text()) if so_far is not None and so_far.exists() else {}
    rows: list[Rows] = kept.get("rows", [[] for _ in trials])
    earlier = kept.get("seconds", 0.0)

    def after_epoch(i: int, epoch: int, modules: Modules) -> None:
        if shard.rank > 0:
            return  # of several processes, the first measures
        common = _columns(trials[i]) | {"epoch": epoch}
        rows[i] = [row for row in rows[i] if row["epoch"] < epoch]  # measured, but stopped before its checkpoint
        for split in SPLITS:
            measured = _measure_trial(trials[i], epoch, modules, data, split)
            rows[i].append(common | {"split": split, "parent_accuracy": shares[i][split]} | measured)
        if so_far is not None and i == len(trials) - 1:
            seconds = earlier + time.perf_counter() - before
            write(so_far, json.dumps({"rows": rows, "seconds": seconds}))

    runs = [Run(p, t.recipe, t.seed) for p, t in zip(trained, trials, strict=True)]
    if trials[0].recipe.method == "base":
        checkpoint = None  # which method A does not write
    done = cotraining.cotrain_population(
        runs, data, engine=engine, device=device, callback=after_epoch, checkpoint=checkpoint
    )
    seconds = (earlier + time.perf_counter() - before) / len(trials)
    facts = {} if engine == "auto" else {"engine": engine}
    facts["device"] = records.device_name(cotraining.resolve_device(device))
    measured_now = {}
    for trial, modules, measured in zip(trials, done, rows, strict=True):
        path = _modules_path(trial, store)
        if keep and path is not None and shard.rank == 0:
            modules.save(path)
        record = partial(_record, trial, data, store, measured, seconds, **facts)
        measured_now[trial.experiment.key] = shard.first_alone(record)
    _remove_checkpoints(trials, store)  # only now: modules and records are written
    return measured_now


def _checkpoints(trials: Sequence[Trial], store: Store) -> tuple[Path | None, Path | None]:
    """Return where a population is saved while it trains: its engine, and the rows measured so far."""
    name = key({"trials": [t.experiment.key for t in trials]})
    return store.path("checkpoints", name, ".pt"), store.path("checkpoints", name, ".json")


def _remove_checkpoints(trials: Sequence[Trial], store: Store) -> None:
    """Remove what has been saved of a population that is done, or has failed."""
    checkpoint, so_far = _checkpoints(trials, store)
    if checkpoint is None or so_far is None:
        return
    checkpoints.remove(checkpoint)
    if Shard.here().rank == 0:
        so_far.unlink(missing_ok=True)


def _measure_trial(trial: Trial, epoch: int, modules: Modules, data: Dataset, split: str) -> dict[str, Any]:
    """Measure a trial after an epoch: on as many images as it says, and on their number where that is not all."""
    last, precision = epoch == trial.recipe.epochs, trial.recipe.precision
    images = trial.final_images if last else trial.measured_images
    taken = {} if images is None else {"images": images}
    if not last or split != "test" or trial.model not in parents.CONVOLUTIONAL:
        return taken | measure(modules, data, split, images, precision)
    log_odds, labels = split_log_odds(modules, data, split, images, precision)
    logits, _ = training.logits(modules.parent, data, split, precision=precision)
    subsets = metrics.subset_curve(log_odds, logits[:images], labels, modules.masks, trial.seed)
    return taken | _measure(modules, log_odds, labels) | {"subsets": subsets}


def _record(trial: Trial, data: Dataset, store: Store, rows: Rows | None, seconds: float = 0.0, **facts: str) -> Record:
    """Write the record of a trial just measured, or read the one that is there (`rows` None)."""
    facts["data_sha256"] = data.sha256()

    def measured() -> Rows:
        if not rows:  # of several processes, the first has written it
            raise FileNotFoundError(
                f"results: no record of {trial.name} in {store.folder}; all processes need one folder"
            )
        return rows

    record = trial.experiment.run(store, measured, seconds, **facts)
    # a setting that got its column after a record was written
    return replace(record, rows=[_columns(trial) | row for row in record.rows])


def _columns(trial: Trial) -> dict[str, Any]:
    recipe = trial.recipe
    by_layer = dict(recipe.k) if isinstance(recipe.k, Mapping) else {"default": recipe.k}
    share = by_layer.pop("default", None)
    return {
        "dataset": trial.dataset,
        **({} if trial.scaling == "standard" else {"scaling": trial.scaling}),
        "model": trial.model,
        "parent": trial.parent,
        "method": "module stemming",
        "recipe": trial.recipe_name,
        "k": share,
        **({"k_by_layer": json.dumps(by_layer)} if by_layer else {}),
        **({} if recipe.allocation == "uniform" else {"allocation": recipe.allocation}),
        **({"shared_epochs": recipe.shared_epochs} if recipe.shared_epochs else {}),
        "alpha": recipe.alpha,
        "vote": recipe.vote,
        "p": recipe.p,
        "share_init": recipe.share_init,
        "seed": trial.seed,
    }
