"""Module co-training (paper, section "Module Co-training", Algorithm 1).

Method B ("average", the paper's choice): in the first epoch the modules train without stemming; in every later one
each module's scores are pulled to S_avg, the mean over all modules of the previous epoch's scores.
Method A ("base"): the module of one base class is trained alone; then the others are pulled to its scores.

The objective is `modlib.objective`, what a recipe holds `modlib.recipes`, how steps are taken `modlib.engines`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from modlib import checks, examination, masking, shared_mask
from modlib.data import Data, check_data
from modlib.engines import Engine, checkpoints, engine_class, make_engine
from modlib.engines.sharding import Shard
from modlib.engines.start import epoch_order as epoch_order
from modlib.engines.start import resolve_device as resolve_device
from modlib.labels import numbered
from modlib.modules import Modules
from modlib.parent import flat, parent_hash, picked, with_logits
from modlib.parent_checks import SPARE, check_parent, unmasked_lines
from modlib.precision import undisturbed
from modlib.recipes import FREE, RECIPES, Recipe, Run, ours, published
from modlib.recommending import recommended

VERSION = 1
"""Version of the algorithm: raised when the same recipe and seed give other results (a golden test watches)."""


class _LeftOut:
    """Stands for a setting that a call does not give."""

    def __repr__(self) -> str:
        return "left out"


LEFT_OUT: Any = _LeftOut()

Callback = Callable[[int, int, Modules], None]
"""Called after every epoch of every run of a population: position of the run, epoch (from 1), its modules."""


def cotrain(
    parent: nn.Module,
    data: Data,
    *,
    seed: int,
    recipe: Recipe | None = None,
    minutes: float | None = None,
    k: float | Mapping[str, float] = LEFT_OUT,
    alpha: float = LEFT_OUT,
    epochs: int = LEFT_OUT,
    vote: float = LEFT_OUT,
    init: str = LEFT_OUT,
    norm: str = LEFT_OUT,
    classes: Iterable[int | str] | None = None,
    batch_size: int = LEFT_OUT,
    lr: float = LEFT_OUT,
    grafting_lr: float | None = LEFT_OUT,
    momentum: float = LEFT_OUT,
    weight_decay: float = LEFT_OUT,
    p: int = LEFT_OUT,
    reduction: str = LEFT_OUT,
    scores: str = LEFT_OUT,
    method: str = LEFT_OUT,
    base_class: int | None = LEFT_OUT,
    share_init: bool = LEFT_OUT,
    schedule: str = LEFT_OUT,
    balanced: bool | str = LEFT_OUT,
    grafting_init: str = LEFT_OUT,
    images_per_epoch: int | None = LEFT_OUT,
    augment: str = LEFT_OUT,
    precision: str = LEFT_OUT,
    allocation: str = LEFT_OUT,
    shared_epochs: int = LEFT_OUT,
    policy: masking.Policy = masking.default_policy,
    logits: Callable[[Any], Tensor] | None = None,
    engine: str = "auto",
    device: str | torch.device = "auto",
    callback: Callable[[int, Modules], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Modules:
    """Decompose a trained classifier into one module per class (Algorithm 1).

    With parent, data and seed alone, settings are the recommended ones, see `modlib.recommended`; so they are, with
    changes, where other settings than `k`, `alpha` and `epochs` are given. Where these three are given, all of them,
    what is left out is as in `Recipe`: the paper's.

    Args:
        parent: any `nn.Module`, inputs [B, ...] -> N logits [B, N]; a copy in eval mode is used, yours is untouched.
            Dropout is off. Weights that are not masked are named in a warning.
        data: the training images, see `modlib.data`.
        seed: of scores, grafting layers and batches.
        recipe: all settings at once, such as `published()`, `ours()`, or `recommended(parent, data)` with changes; then
            no others may be given.
        minutes: how long it may take, with recommended settings; default, a fixed number of steps.
        k: share of the edges that every layer of every module keeps, in (0, 1]; or a share by layer name, with
            "default" for the rest. See `allocation`.
        alpha: weight of the stemming loss, at least 0.
        epochs: passes over the training images.
        vote: weight of the vote loss, in [0, 1]; ours, 0 is the paper.
        init: initial scores, "kaiming" (the paper) or "magnitude" (in the order of the weights' magnitude; ours).
        norm: batch normalisation, "batch" (statistics of the batch in training, running ones of each module's own
            afterwards) or "frozen" (the parent's).
        classes: the classes to decompose (default: all).
        batch_size: images in a batch; all modules see the same one.
        lr: rate of the scores, for SGD with Nesterov momentum.
        grafting_lr: rate of the grafting layers; default, a tenth of `lr`.
        momentum: of both.
        weight_decay: of both.
        p: norm of the stemming loss, 1 or 2.
        reduction: reading of Eq. 1, "total", "layer" or "scale_free"; see `modlib.stemming.factors`.
        scores: what is ranked, "positive" or "absolute"; see `modlib.masking.ranked`.
        method: "average" (method B) or "base" (method A, from `base_class`).
        base_class: the class that method A starts from.
        share_init: whether all modules start from the same scores.
        schedule: "constant" (the paper) or "cosine", annealed to 0 step by step.
        balanced: whether "this class" and "another" weigh the same in a module's loss. "auto": where the most frequent
            of the classes has `modlib.examination.STRONG` times or more the images of the rarest; the recipe says so.
        grafting_init: "random" or "own_logit"; see `modlib.grafting.initial_grafting`.
        images_per_epoch: images of an epoch, drawn anew for each; default, all training images.
        augment: of the training images, see `modlib.augmentation`; all modules see the same ones.
        precision: of forward and backward passes, "float32" or "bfloat16" (autocast); scores are float32 in both.
        allocation: "uniform" (the paper), `k` of every layer, or "lamp" (ours), `k` of all edges, shared out among the
            layers by the parent's weights; see `modlib.masking.kept_edges`.
        shared_epochs: epochs before those, in which one mask is trained for all classes, by the modules' objectives
            together; every module goes on from it. Rates are annealed over both. Ours; see `modlib.shared_mask`.
        policy: which parameters are masked.
        logits: picks the logits [B, N] out of what the parent returns, where that is a tuple, a dict or the like.
        engine: "auto", "vectorised" (fully connected parents), "modulewise", "graphed" (on a GPU) or "sequential"; see
            `modlib.engines`.
        device: "auto" (a GPU where there is one), or a torch device.
        callback: called after every epoch with its number (from 1) and the modules so far.
        checkpoint: a file written after epochs, also where the run is interrupted (Ctrl-C): the same call goes on from
            it, to the same modules, with the constant schedule also for more `epochs`. It stays: remove it when the
            modules are saved. Not with `method="base"`.

    Returns:
        The modules, on `device` (of "modulewise" and "graphed" the masks in host memory), with recipe and seed in their
        metadata.

    Raises:
        ValueError: before any work, for an argument out of its range, a parent without maskable layer or whose output
            is not N logits, inputs that are not finite, and a checkpoint that is damaged, of another run or of more
            epochs.
        TypeError: before any work, for an argument of another type.
        FloatingPointError: where the scores diverge.
        WorkerLost: under `torchrun`, where another process has ended.
        KeyboardInterrupt: where it is interrupted; a warning says what is saved.
    """
    known = {f.name for f in fields(Recipe)}
    settings = {name: value for name, value in locals().items() if name in known and value is not LEFT_OUT}
    check_data(data)
    chosen = None if classes is None else tuple(numbered(classes, data.class_names))
    if "balanced" in settings:
        settings["balanced"] = _balanced(balanced, data, chosen)
    if minutes is not None and checkpoint is not None:
        raise ValueError(
            "minutes: counts steps by the time of a few, anew in each call, and a checkpoint goes on with the same "
            "number; take recipe=modlib.recommended(parent, data, minutes=...) once, and hand it over each time"
        )
    recipe = _recipe(parent, data, recipe, minutes, settings, policy, logits, device)
    parent = parent if logits is None else with_logits(parent, logits)
    run = Run(parent, recipe, seed, chosen, policy)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of an epoch and modules, got {callback!r}")
    each = None if callback is None else lambda _, epoch, modules: callback(epoch, modules)
    checkpoint = _path(checkpoint)
    try:
        modules = _decomposed([run], data, engine, device, each, checkpoint, examined=True)[0]
    except KeyboardInterrupt:
        warnings.warn(_interrupted(checkpoint), stacklevel=2)
        raise
    examination.warn_if_behind(modules, data, stacklevel=2)
    return modules


def _balanced(asked: bool | str, data: Data, classes: Sequence[int] | None) -> bool:
    """Return whether losses are balanced, for "auto" by the images of the classes that are decomposed."""
    if isinstance(asked, str):
        checks.choice("balanced", asked, ("auto",))
        return examination.uneven(data, classes)
    if not isinstance(asked, bool):
        raise TypeError(f"balanced must be True, False or 'auto', got {asked!r}")
    return asked


def _recipe(
    parent: nn.Module,
    data: Data,
    recipe: Recipe | None,
    minutes: float | None,
    settings: Mapping[str, Any],
    policy: masking.Policy,
    logits: Callable[[Any], Tensor] | None,
    device: str | torch.device,
) -> Recipe:
    """Return the recipe that a call of `cotrain` means; `settings`: those that it gives."""
    if recipe is not None:
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipe must be a modlib.Recipe, got {type(recipe).__name__}")
        if settings or minutes is not None:
            also = [*settings, *(() if minutes is None else ("minutes",))]
            raise ValueError(f"recipe: holds all settings, and {also} are given beside it; change them in the recipe")
        return recipe
    needed = ("k", "alpha", "epochs")
    there = [name for name in needed if name in settings]
    if not there:
        return recommended(parent, data, minutes=minutes, policy=policy, logits=logits, device=device, **settings)
    if len(there) < len(needed):
        raise ValueError(
            f"k, alpha, epochs: give all three, or none of them for the recommended settings, got {there} alone; "
            f"recipe=modlib.recommended(parent, data, {there[0]}=...) changes one of the recommended settings"
        )
    if minutes is not None:
        raise ValueError(f"minutes: {minutes!r} goes with recommended settings; with k, alpha and epochs, epochs count")
    return Recipe(**settings)


def _interrupted(checkpoint: Path | None) -> str:
    """Return what is left of a run that has been interrupted."""
    if checkpoint is None:
        return "cotrain: interrupted, and nothing of it is kept; with checkpoint=, a file, the same call would go on"
    if not checkpoints.there(checkpoint):
        return f"cotrain: interrupted before its first epoch was done; nothing is in {checkpoint} yet"
    return f"cotrain: interrupted; what is done is in {checkpoint}, from which the same call goes on"


def cotrain_population(
    runs: Sequence[Run],
    data: Data,
    *,
    engine: str = "auto",
    device: str | torch.device = "auto",
    callback: Callback | None = None,
    checkpoint: str | Path | None = None,
) -> list[Modules]:
    """Decompose several parents of one architecture side by side; return the modules of each run, in order.

    The runs may differ in parent, k, alpha, share_init and seed; everything else in their recipes must agree.
    `checkpoint`: a file written after epochs (see `modlib.engines.checkpoints.Keeper`), and one beside it for the
    shared epochs of each run; where they are there, the population goes on from them, to the same result; where the
    schedule is constant, also for more epochs. They stay: remove them (`modlib.engines.checkpoints.remove`) when what
    comes out is written. Otherwise as `cotrain`, but that nothing is said of how parents and data go together.
    """
    return _decomposed(runs, data, engine, device, callback, _path(checkpoint), examined=False)


def _decomposed(
    runs: Sequence[Run],
    data: Data,
    engine: str,
    device: str | torch.device,
    callback: Callback | None,
    checkpoint: Path | None,
    examined: bool,
) -> list[Modules]:
    """See `cotrain_population`; `examined`: whether what looks wrong is warned of, and how long it takes is said."""
    device = resolve_device(device)
    with undisturbed():
        classes = _check_population(runs, data)
        _check_writing(runs[0].recipe, callback, checkpoint)
        for line in unmasked_lines(runs[0].parent, data, runs[0].policy):
            warnings.warn(line, stacklevel=3)
        if examined:
            examination.warn(runs[0].parent, data, runs[0].policy, runs[0].recipe.balanced, stacklevel=3)
        if runs[0].recipe.method == "base":
            return _cotrain_from_base(runs, data, classes, engine, device, callback, examined)
        chosen = engine_class(engine, runs, classes, data, device)
        saved = _Saved(checkpoint, _agreed_identity(runs, data, chosen.__name__, checkpoint))
        if runs[0].recipe.shared_epochs:
            checkpoints.check(saved.path, saved.identity, runs[0].recipe.epochs)
            runs = _started_from_one_mask(runs, classes, data, device, saved, examined)
        return _train(chosen(runs, classes, data, device), runs, data, callback, saved, examined, stemming_from=1)


@dataclass(frozen=True)
class _Saved:
    """Where a population is saved, and what it must agree in to be gone on from."""

    path: Path | None = None
    identity: str = ""

    def shared(self, run: int) -> Path | None:
        """Where the mask of a run's shared epochs is saved."""
        return None if self.path is None else checkpoints.of_shared_epochs(self.path, run)


def _started_from_one_mask(
    runs: Sequence[Run],
    classes: tuple[int, ...],
    data: Data,
    device: torch.device,
    saved: _Saved,
    spoken: bool,
) -> list[Run]:
    """Return the runs with what a mask trained for all classes gives their modules to start from.

    It goes on from where it has been saved. Of several processes, the first trains it for all.
    """
    shard, starts = Shard.here(), []
    for i, run in enumerate(runs if shard.rank == 0 else ()):
        epochs = range(-run.recipe.shared_epochs, 0)
        starts.append(shared_mask.train(run, classes, data, device, epochs, saved.shared(i), saved.identity, spoken))
    starts = shard.gather(starts)[0]
    for start in starts:
        check_finite(start.scores, -1)  # by every process, so that all of them fail
    return [replace(run, start=start) for run, start in zip(runs, starts, strict=True)]


def _cotrain_from_base(
    runs: Sequence[Run],
    data: Data,
    classes: tuple[int, ...],
    engine: str,
    device: torch.device,
    callback: Callback | None,
    spoken: bool,
) -> list[Modules]:
    """Method A: the base module alone and without stemming, then the others, pulled to the base's final scores.

    `callback` sees the second phase, with the finished base module among the modules.
    """
    base = checks.subset([runs[0].recipe.base_class], classes, "base_class")  # type: ignore[list-item]
    others = tuple(c for c in classes if c not in base)
    first = make_engine(engine, runs, tuple(base), data, device)
    alone = _train(first, runs, data, None, _Saved(), spoken, stemming_from=None)
    if not others:
        return alone
    second = make_engine(engine, runs, others, data, device)

    def joined(run: int, epoch: int, modules: Modules) -> None:
        assert callback is not None
        callback(run, epoch, alone[run].join(modules, classes))

    told = joined if callback else None
    rest = _train(second, runs, data, told, _Saved(), spoken, stemming_from=0, target=first.ranked())
    return [a.join(b, classes) for a, b in zip(alone, rest, strict=True)]


def _train(
    engine: Engine,
    runs: Sequence[Run],
    data: Data,
    callback: Callback | None,
    saved: _Saved,
    spoken: bool,
    stemming_from: int | None,
    target: dict[str, Tensor] | None = None,
) -> list[Modules]:
    """Algorithm 1: epochs of training, each pulled to the average scores of the one before, or to a fixed `target`.

    `spoken`: whether it is said how long it takes. `stemming_from`: the first epoch (from 0) with stemming; None is
    never.
    """
    epochs, pulled = runs[0].recipe.epochs, any(run.recipe.alpha > 0 for run in runs)
    images = len(data.training().labels)

    def tell(epoch: int) -> None:
        if callback is not None:
            for i, modules in enumerate(_described(engine, runs, data.class_names)):
                callback(i, epoch, modules)

    keeper = checkpoints.Keeper(engine, saved.identity, saved.path)
    start = keeper.start(epochs)
    if spoken and Shard.here().rank == 0:
        engine.announce("co-training", epochs - start)
    try:
        if not keeper.told:
            tell(start)
        latest = engine.average()
        for epoch in tqdm(range(start, epochs), "co-training", initial=start, total=epochs, unit="epoch", disable=None):
            average = None
            if pulled and stemming_from is not None and epoch >= stemming_from:
                average = target or latest
            orders = torch.stack([epoch_order(images, run.seed, epoch) for run in runs])
            keeper.begin()
            engine.train_epoch(orders[:, : runs[0].recipe.images_per_epoch], epoch, average)
            latest = engine.average()
            check_finite(latest, epoch)
            keeper.end(epoch + 1)
            tell(epoch + 1)
            keeper.keep(epoch + 1, last=epoch + 1 == epochs)
    except KeyboardInterrupt:
        keeper.interrupted()
        raise
    return _described(engine, runs, data.class_names)


def _described(engine: Engine, runs: Sequence[Run], names: Sequence[str] | None) -> list[Modules]:
    """Return the modules of every run with recipe, seed, names of classes, and whether logits are picked."""
    return [
        replace(
            modules,
            metadata={"recipe": asdict(run.recipe), "recipe_version": VERSION, "seed": run.seed}
            | ({"logits": "picked"} if picked(run.parent) else {})
            | ({"class_names": list(names)} if names else {}),
        )
        for modules, run in zip(engine.modules(), runs, strict=True)
    ]


def _agreed_identity(runs: Sequence[Run], data: Data, engine: str, checkpoint: Path | None) -> str:
    """Return the identity of a population that is saved; raise ValueError where the processes' are not one."""
    shard = Shard.here()
    if checkpoint is None and shard.size == 1:
        return ""
    own = identity(runs, data, engine)
    if any(other != own for other in shard.gather(own)):
        raise ValueError(
            "runs: the processes of this run differ in parent, recipe, seed or data; hand the same to all of them "
            "(a parent from one file, or made with one seed)"
        )
    return own


def identity(runs: Sequence[Run], data: Data, engine: str) -> str:
    """Return what a checkpoint must agree in: recipes, seeds, classes, parents, what is masked, data and engine.

    Where the rates are constant, the number of epochs is no part of it: the first of many are those of few.
    """
    each = [
        (_lasting(run.recipe), run.seed, run.classes, parent_hash(run.parent), masked, run.start is not None)
        for run in runs
        for masked in [sorted(masking.maskable_parameters(run.parent, run.policy))]
    ]
    return repr((VERSION, data.sha256(), each, _seen(data), engine))


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """Return what of a recipe every epoch depends on."""
    return {name: v for name, v in asdict(recipe).items() if name != "epochs" or recipe.schedule != "constant"}


def _seen(data: Data) -> tuple[Any, ...]:
    """Return what a preprocessing makes of two images: shapes, and where it is not random, their means."""
    source = data.part("train")
    one, other = (flat(source.batch(torch.arange(min(2, len(source.labels)))).inputs) for _ in range(2))
    shapes = [tuple(part.shape) for part in one]
    means = [round(float(part.double().mean()), 2) for part in one]
    random = any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    found: Any = "random" if random else means if len(one) > 1 else means[0]
    return (shapes if len(one) > 1 else shapes[0]), found


def _path(checkpoint: str | Path | None) -> Path | None:
    """Return where a checkpoint is written; raise TypeError for what is no path."""
    if checkpoint is not None and not isinstance(checkpoint, str | Path):
        raise TypeError(f"checkpoint must be a path, a str or a pathlib.Path, got {checkpoint!r}")
    return None if checkpoint is None else Path(checkpoint)


def _check_writing(recipe: Recipe, callback: Callback | None, checkpoint: Path | None) -> None:
    """Raise for a callback that is none, and for a checkpoint that would not be written."""
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of a run's position, an epoch and modules, got {callback!r}")
    if checkpoint is not None and checkpoint.is_dir():
        raise ValueError(f"checkpoint: {checkpoint} is a folder, name a file")
    if recipe.method == "base" and Shard.here().size > 1:
        raise ValueError("method: 'base' runs in one process, its first module is trained alone")
    if checkpoint is not None and recipe.method == "base":
        raise ValueError("checkpoint: method='base' writes none; its two phases run in one go")
    asked = Shard.here().gather((callback is None, checkpoint is None))
    if any(other != asked[0] for other in asked):  # what these do, all processes do together
        raise ValueError("callback, checkpoint: all processes of a run need them, or none")


def check_finite(average: Mapping[str, Tensor], epoch: int) -> None:
    """Raise FloatingPointError where a score has diverged: then the mean over modules, which is at hand, has too.

    `epoch`: the one that was trained, from 0; below 0, the epochs of one mask for all classes.
    """
    for name, mean in average.items():
        if not bool(torch.isfinite(mean).all()):
            where = f"in epoch {epoch + 1}" if epoch >= 0 else "in the epochs of one mask"
            raise FloatingPointError(f"the scores of {name} diverged {where}: lower lr or alpha")


def _check_normalisation(parent: nn.Module) -> None:
    """Raise where processes that train different modules would share the statistics of their batches."""
    if Shard.here().size > 1 and any(isinstance(part, nn.SyncBatchNorm) for part in parent.modules()):
        raise ValueError(
            "parent: SyncBatchNorm would mix the statistics of different modules in several processes; hand over the "
            "network with BatchNorm layers"
        )


def _check_present(asked: tuple[int, ...] | None, data: Data) -> None:
    """Warn of classes that get no module, having no training images; ValueError where one of them is asked for."""
    missing = sorted(set(range(data.num_classes) if asked is None else asked) - set(data.present))
    if missing and asked is not None:
        raise ValueError(f"classes: {missing} have no training images")
    if missing:
        warnings.warn(f"data: classes {missing} have no training images, and get no modules", stacklevel=5)


def _check_population(runs: Sequence[Run], data: Data) -> tuple[int, ...]:
    """Check everything that can be checked before work starts; return the classes of the modules."""
    if not runs:
        raise ValueError("runs: empty; a population needs at least one run")
    check_data(data)
    first = runs[0]
    known = range(data.num_classes)
    beyond = [c for c in first.classes or () if isinstance(c, int) and c >= len(known)]
    if beyond:
        raise ValueError(
            f"classes: class {beyond[0]} is beyond the parent's {len(known)} outputs, 0 to {len(known) - 1}, which "
            f"modules read; {SPARE}"
        )
    classes = tuple(checks.subset(data.present if first.classes is None else first.classes, known))
    _check_present(first.classes, data)
    for run in runs:
        checks.whole("seed", run.seed, 0)
        if not callable(run.policy):
            raise TypeError(f"policy must be a function of a module and a parameter's name, got {run.policy!r}")
        if replace(run.recipe, **FREE) != replace(first.recipe, **FREE):
            raise ValueError("runs: recipes of one population may differ in k, alpha and share_init only")
        if run.classes != first.classes:
            raise ValueError("runs: all runs of a population decompose the same classes")
    asked, images = first.recipe.images_per_epoch, len(data.training().labels)
    if asked is not None and asked > images:
        raise ValueError(f"images_per_epoch: {asked}, there are {images} training images")
    data.check_inputs()
    shapes = []
    for run in runs:
        check_parent(run.parent, data, run.policy)
        _check_normalisation(run.parent)
        weights = masking.maskable_parameters(run.parent, run.policy)
        run.recipe.kept_edges(weights)
        shapes.append({name: (weight.shape, weight.dtype) for name, weight in weights.items()})
    if any(other != shapes[0] for other in shapes):
        raise ValueError("runs: the parents of one population must be of one architecture and type")
    return classes


__all__ = ["RECIPES", "Recipe", "Run", "cotrain", "cotrain_population", "ours", "published", "recommended"]
