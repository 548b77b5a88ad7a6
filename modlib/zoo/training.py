"""Training of parents (paper, Table 3), and their accuracy.

`recipe("published", ...)` is the paper's, `recipe("ours", ...)` a modern one of few epochs. Convolutional networks may
train in bfloat16: weights, their updates and the loss stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR
from tqdm import tqdm

from modlib import augmentation, checks
from modlib.data import Dataset
from modlib.engines import checkpoints
from modlib.parent import parent_hash
from modlib.precision import PRECISIONS, at_once, autocast, convolutional, laid_out, undisturbed
from modlib.seeds import generator
from modlib.zoo import parents

SCHEDULES = ("steps", "one_cycle")


@dataclass(frozen=True)
class Parameters:
    """Parameters of Nesterov SGD.

    `schedule`: of the rate; "steps": after the epochs `milestones` it is multiplied by `factor`; "one_cycle": it rises
    to `lr` over three tenths of all steps and falls to nothing (Smith and Topin 2019; torch's `OneCycleLR`, the
    momentum stays). `augment`: one of `modlib.augmentation.POLICIES`. `precision`: "float32", or "bfloat16" (autocast).
    `label_smoothing`: share of the target that is spread over all classes.
    """

    lr: float = 0.01
    weight_decay: float = 5e-4
    momentum: float = 0.9
    batch_size: int = 64
    epochs: int = 100
    milestones: tuple[int, ...] = ()
    factor: float = 0.2
    schedule: str = "steps"
    augment: str = "none"
    precision: str = "float32"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        checks.positive("lr", self.lr)
        checks.number("weight_decay", self.weight_decay, 0.0)
        checks.number("momentum", self.momentum, 0.0, 0.999999)
        checks.whole("batch_size", self.batch_size, 1)
        checks.whole("epochs", self.epochs, 1)
        checks.choice("schedule", self.schedule, SCHEDULES)
        if self.schedule == "one_cycle" and self.milestones:
            raise ValueError(f"milestones must be () with schedule 'one_cycle', got {self.milestones}")
        checks.choice("augment", self.augment, augmentation.POLICIES)
        checks.choice("precision", self.precision, PRECISIONS)
        checks.number("label_smoothing", self.label_smoothing, 0.0, 1.0)


# Table 3 prints the weight decay as 5 x 10^-1, and for CIFAR-100 "0.02": see the page on deviations
TABLE_3 = {
    "others": Parameters(),
    "cifar100": Parameters(lr=0.1, batch_size=256, epochs=200, milestones=(60, 120, 160)),
}

OURS = Parameters(lr=0.1, batch_size=128, epochs=15, schedule="one_cycle", label_smoothing=0.1)
"""A modern recipe for the convolutional parents, ours."""


def table_3(data_name: str, **changes: Any) -> Parameters:
    """Return the parameters that Table 3 gives for a data set, with `changes`."""
    return replace(TABLE_3.get(data_name, TABLE_3["others"]), **changes)


def recipe(
    name: str, data_name: str, model: str, *, epochs: int | None = None, precision: str = "float32", **changes: Any
) -> Parameters:
    """Return the training parameters of a parent by name, with `changes`.

    `name`: "published" (Table 3's; for a convolutional `model` the appendix's augmentation) or "ours" (one cycle up to
    0.1, batches of 128, smoothed labels, flip and crop; 15 epochs). `ours` does not flip digits, the paper does; fully
    connected models get no augmentation. `model`: one of `modlib.zoo.parents.NAMES`. `epochs`: instead of the recipe's.
    `precision`: of convolutional models, see `fast_precision`; fully connected ones stay in float32. ValueError for
    other names.
    """
    checks.choice("name", name, ("published", "ours"))
    checks.choice("model", model, parents.NAMES)
    published = name == "published"
    settings = table_3(data_name) if published else OURS
    if model in parents.CONVOLUTIONAL:
        policies = augmentation.PUBLISHED if published else augmentation.OURS
        settings = replace(settings, augment=policies.get(data_name, "none"), precision=precision)
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    return replace(settings, **changes)


def fast_precision(device: str | torch.device = "cpu") -> str:
    """Return "bfloat16" where `device` computes in it natively, else "float32"."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if kind != "cpu":
        return "float32"
    # oneDNN takes bfloat16 wherever there is AVX-512, emulated and slow: ask for the instructions themselves
    has: Mapping[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # older versions of torch cannot say: then float32
    native = any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if native and supported else "float32"


@undisturbed()
def train(
    model: nn.Module,
    data: Dataset,
    *,
    seed: int,
    epochs: int | None = None,
    parameters: Parameters | None = None,
    callback: Callable[[int, nn.Module], None] | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train `model` in place on the training images with cross-entropy and return it, in eval mode.

    `parameters`: default, Table 3's for `data`. `epochs`: overrides theirs. `callback`: called after every epoch with
    its number (from 1) and the model. `checkpoint`: a file written after every epoch but the last; where it is there,
    training goes on from it to the same result (ValueError where it is another training's). It stays: remove it when
    the model is written. Deterministic given `seed` on one CPU; torch's global generators are left as they were.
    """
    if checkpoint is not None and not isinstance(checkpoint, Path):
        raise TypeError(f"checkpoint must be a pathlib.Path, got {checkpoint!r}")
    settings = parameters or table_3(data.name)
    if epochs is not None:
        checks.whole("epochs", epochs, 1)
        settings = replace(settings, epochs=epochs)
    device = next(model.parameters()).device
    images, labels = data.train_images.to(device), data.train_labels.to(device)
    identity = "" if checkpoint is None else _identity(model, data, settings, seed)
    faster_layout = settings.precision == "bfloat16" and convolutional(model)
    if faster_layout:
        model.to(memory_format=torch.channels_last)
    state = _State.start(model, settings, len(labels))
    start = state.resume(checkpoint, identity)
    model.train()
    for epoch in tqdm(range(start, settings.epochs), "parent", unit="epoch", disable=None, initial=start):
        _train_epoch(state, data, images, labels, seed, epoch)
        if callback is not None:
            callback(epoch + 1, model)
        if checkpoint is not None and epoch + 1 < settings.epochs:
            state.save(checkpoint, identity, epoch + 1)
    if faster_layout:
        model.to(memory_format=torch.contiguous_format)  # which is what files and other code expect
    return model.eval()


@dataclass(frozen=True)
class _State:
    """What changes during a training."""

    model: nn.Module
    settings: Parameters
    optimiser: torch.optim.SGD
    schedule: LRScheduler

    @classmethod
    def start(cls, model: nn.Module, settings: Parameters, images: int) -> _State:
        optimiser = torch.optim.SGD(
            model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        if settings.schedule == "steps":
            return cls(model, settings, optimiser, MultiStepLR(optimiser, list(settings.milestones), settings.factor))
        steps = settings.epochs * -(-images // settings.batch_size)
        return cls(model, settings, optimiser, OneCycleLR(optimiser, settings.lr, steps, cycle_momentum=False))

    def save(self, path: Path, identity: str, epochs: int) -> None:
        """Write a checkpoint, whole or not at all."""
        parts: dict[str, Any] = {"model": self.model, "optimiser": self.optimiser, "schedule": self.schedule}
        checkpoints.write(path, identity, {n: p.state_dict() for n, p in parts.items()} | {"epochs": epochs})

    def resume(self, path: Path | None, identity: str) -> int:
        """Load the checkpoint, if there is one, and return the number of epochs done."""
        if path is None or not path.exists():
            return 0
        stored = checkpoints.read(path, identity)
        self.model.load_state_dict(stored["model"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.schedule.load_state_dict(stored["schedule"])
        return int(stored["epochs"])


def _identity(model: nn.Module, data: Dataset, settings: Parameters, seed: int) -> str:
    """Return what a checkpoint must agree in to be gone on from: the untrained parent, data, recipe and seed."""
    return repr((parent_hash(model), data.sha256(), sorted(asdict(settings).items()), seed))


def _batches(order: Tensor, size: int, model: nn.Module) -> list[Tensor]:
    """Return the batches of an epoch; a last one of a single image is left out where it would need statistics."""
    batches = list(order.split(size))
    normalised = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
    return batches[:-1] if normalised and len(batches) > 1 and len(batches[-1]) == 1 else batches


def _train_epoch(state: _State, data: Dataset, images: Tensor, labels: Tensor, seed: int, epoch: int) -> None:
    settings, optimiser = state.settings, state.optimiser
    order = torch.randperm(len(labels), generator=generator(seed, "parent order", epoch)).to(images.device)
    draw = generator(seed, "parent augmentation", epoch)
    with _dropout_of(seed, epoch, images.device):
        for batch in _batches(order, settings.batch_size, state.model):
            inputs = data.inputs(augmentation.augment(images[batch], settings.augment, draw))
            predicted = _predict(state.model, inputs, settings.precision)
            loss = nn.functional.cross_entropy(predicted, labels[batch], label_smoothing=settings.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if settings.schedule == "one_cycle":
                state.schedule.step()
    if settings.schedule == "steps":
        state.schedule.step()


@contextmanager
def _dropout_of(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Within it, dropout, which knows torch's global generators only, draws by seed and epoch."""
    draw = int(torch.randint(2**62, (), generator=generator(seed, "parent dropout", epoch)))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(draw)
        yield


def _predict(model: nn.Module, inputs: Tensor, precision: str) -> Tensor:
    """Return logits; in bfloat16, images go in channels-last, and the logits come out in the inputs' precision."""
    if precision == "float32":
        return model(inputs)
    with autocast(inputs.device, precision):
        return model(laid_out(model, inputs, precision)).to(inputs.dtype)


@torch.no_grad()
def logits(
    model: nn.Module, data: Dataset, split: str, batch_size: int | None = None, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Return the logits [n, N] of a parent in eval mode on a split, and the labels [n]; its mode stays what it was.

    `batch_size`: default, see `modlib.precision.at_once`.
    """
    checks.choice("precision", precision, PRECISIONS)
    images, labels = data.split(split)
    if batch_size is None:
        batch_size = at_once(model, images.shape[1:], images.shape[1:3].numel())
    device = next(model.parameters()).device
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        parts = [_predict(model, data.inputs(part.to(device)), precision) for part in images.split(batch_size)]
    finally:
        for part, mode in modes.items():
            part.training = mode
    return torch.cat(parts), labels.to(device)


def accuracy(model: nn.Module, data: Dataset, split: str = "test", precision: str = "float32") -> float:
    """Return the share of a split's images that a parent classifies right, in [0, 1]."""
    predicted, labels = logits(model, data, split, precision=precision)
    return float((predicted.argmax(1) == labels).double().mean())
