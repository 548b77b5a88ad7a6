"""Data: what is decomposed on, with the preprocessing that the parent and its modules take.

A data set has three parts, each a source of batches (`modlib.sources`). Of one's own there are three kinds: `images`
(uint8 arrays, lists of PIL images), `tensors` (floats of any shape, token ids, dicts and tuples of them, data frames)
and `dataset` (any map-style dataset of torch, read as it is needed). `modlib.zoo.datasets` loads the book's by name.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from modlib import checks, sources
from modlib.labels import Numbering, as_array
from modlib.parent import flat, number_of_rows, rows_of
from modlib.sources import NO_CLASS, Augment, Images, Joined, Preprocess, Rows, Source, Tensors

SPLITS = ("train", "held_out", "test")
SHOWN = 64
"""Rows that are looked at before work starts, of data that are read as they are needed."""
D = TypeVar("D", bound="Data")


@dataclass(frozen=True)
class Scaling:
    """uint8 [B, H, W] or [B, H, W, 3] -> float32 [B, C, H, W]: pixel / 255, then (x − mean) / std by channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}: inputs are made of raw images, once")
        channels_first = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        scaled = channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)
        if self.mean == (0.0,) and self.std == (1.0,):
            return scaled
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return scaled.sub_(mean).div_(std)


class Data(ABC):
    """A data set: `train` is trained on, `held_out` is used for choosing, `test` is read at the end.

    Labels are the numbers of the parent's outputs, from 0; `class_names`: of all N, where they have names. A split may
    be empty, `train` may not.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...] | None
    train_labels: Tensor
    held_out_labels: Tensor
    test_labels: Tensor
    background: Source | None = None
    """Images of none of the classes, negatives for every module in training; no part of any split."""

    @abstractmethod
    def part(self, name: str) -> Source:
        """Return "train", "held_out" or "test" as a source of batches; raise ValueError where it is empty."""

    def training(self) -> Source:
        """Return what modules are trained on: the training images, then those of no class (label -1), if there are."""
        train = self.part("train")
        return train if self.background is None else Joined(train, self.background)

    @abstractmethod
    def only(self: D, classes: Iterable[int]) -> D:
        """Return the data set with the training images of `classes` alone."""

    @abstractmethod
    def to(self: D, device: str | torch.device) -> D:
        """Return the data set with all that it holds on `device`."""

    @abstractmethod
    def check_inputs(self) -> None:
        """Raise where there is something that networks cannot take."""

    @abstractmethod
    def sha256(self) -> str:
        """Return the SHA-256 over what it holds, as recorded with every result."""

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(getattr(self, f'{split}_labels')):,} {split}" for split in SPLITS)
        counts += "" if self.background is None else f", {len(self.background.labels):,} of no class"
        return f"{type(self).__name__} {self.name!r}: {self.num_classes} classes; {counts}"

    @property
    def present(self) -> tuple[int, ...]:
        """The classes that have training images."""
        return tuple(self.train_labels.unique().tolist())

    def _inside(self, classes: Iterable[int]) -> Tensor:
        """Return which training images are of some classes: bool [n]; ValueError where none is."""
        asked = checks.subset(classes, range(self.num_classes))
        inside = torch.isin(self.train_labels, torch.tensor(asked, device=self.train_labels.device))
        if not bool(inside.any()):
            raise ValueError(f"classes: there are no training images of {asked}")
        return inside


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Data):
    """Images (uint8, [n, H, W] or [n, H, W, C]) and labels (int64 [n]) in three splits, see `Data`.

    `augment`: a function that changes one input, as the network takes it, at random; in training alone.
    `background_images`: of no class, see `Data.background`.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int
    preprocess: Preprocess = field(default_factory=Scaling)
    class_names: tuple[str, ...] | None = None
    augment: Augment | None = None
    background_images: Tensor | None = None

    @property
    def background(self) -> Source | None:  # type: ignore[override]
        """See `Data.background`."""
        images = self.background_images
        return None if images is None else Images(images, _of_no_class(images), self.preprocess, self.augment)

    def inputs(self, images: Any) -> Tensor:
        """Return what networks take: float32 [B, C, H, W], scaled and normalised, of uint8 `images`.

        `images`: in any layout that `modlib.data.images` takes. Raises TypeError for what is not uint8, ValueError for
        another layout, and for another number of channels than the training images have.
        """
        return self.preprocess(images if self._as_stored(images) else self._stored(images))

    def _as_stored(self, images: Any) -> bool:
        own = self.train_images
        raw = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == own.ndim
        return raw and (own.ndim == 3 or images.shape[3] == own.shape[3])

    def _stored(self, images: Any) -> Tensor:
        """Return images as the training images are stored, uint8 [B, H, W] or [B, H, W, C]."""
        if isinstance(images, Tensor) and images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}: inputs are made of raw images, once")
        device = images.device if isinstance(images, Tensor) else self.train_images.device
        found = _uint8("images", images).to(device)
        if not self._as_stored(found):
            own, other = (
                f"{tuple(values.shape)} {'grey' if values.ndim == 3 else f'of {values.shape[3]} channels'}"
                for values in (self.train_images, found)
            )
            raise ValueError(f"images: {other}; the training images are {own}")
        return found

    def part(self, name: str) -> Source:
        """See `Data.part`."""
        return Images(*self.split(name), self.preprocess, self.augment)

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Return images and labels of "train", "held_out" or "test"; raise ValueError where it is empty."""
        checks.choice("split", name, SPLITS)
        images, labels = getattr(self, f"{name}_images"), getattr(self, f"{name}_labels")
        if not len(labels):
            raise ValueError(f"split: data set {self.name!r} has no {name} images")
        return images, labels

    def only(self, classes: Iterable[int]) -> Dataset:
        """See `Data.only`."""
        inside = self._inside(classes)
        return replace(self, train_images=self.train_images[inside], train_labels=self.train_labels[inside])

    def to(self, device: str | torch.device) -> Dataset:
        """Return the data set with all images and labels on `device`."""
        tensors: dict[str, Any] = {n: value.to(device) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def check_inputs(self, numbers: int = 8_000_000) -> None:
        """Raise where the preprocessing yields something that networks cannot take; so many `numbers` at once."""
        given = [self.train_images] + ([] if self.background_images is None else [self.background_images])
        for images in (p for part in given for p in part.split(max(1, numbers // part[0].numel()))):
            inputs = self.inputs(images)
            if not inputs.is_floating_point() or inputs.shape[0] != images.shape[0]:
                raise TypeError(
                    f"preprocess: must return floating-point inputs [{len(images)}, ...], "
                    f"got {inputs.dtype} {tuple(inputs.shape)}"
                )
            checks.finite("preprocess: inputs", inputs)

    def sha256(self) -> str:
        """Return the SHA-256 over all images and labels, as recorded with every result."""
        digest = hashlib.sha256()
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class Samples(Data):
    """Three sources of any kind, see `Data`."""

    name: str
    train: Source
    held_out: Source | None
    test: Source | None
    num_classes: int
    class_names: tuple[str, ...] | None = None
    background: Source | None = None

    @property
    def train_labels(self) -> Tensor:  # type: ignore[override]
        """Labels of what is trained on: int64 [n]."""
        return self.train.labels

    @property
    def held_out_labels(self) -> Tensor:  # type: ignore[override]
        """Labels of what is held out."""
        return self.train.labels[:0] if self.held_out is None else self.held_out.labels

    @property
    def test_labels(self) -> Tensor:  # type: ignore[override]
        """Labels of the test images."""
        return self.train.labels[:0] if self.test is None else self.test.labels

    def part(self, name: str) -> Source:
        """See `Data.part`."""
        checks.choice("split", name, SPLITS)
        source: Source | None = getattr(self, name)
        if source is None:
            raise ValueError(
                f"split: data set {self.name!r} has no {name} images; see test= and held_out= of its makers"
            )
        return source

    def only(self, classes: Iterable[int]) -> Samples:
        """See `Data.only`."""
        return replace(self, train=self.train.take(self._inside(classes).nonzero()[:, 0]))

    def to(self, device: str | torch.device) -> Samples:
        """See `Data.to`."""
        held = (*SPLITS, "background")
        moved = {name: source.to(device) for name in held if (source := getattr(self, name)) is not None}
        return replace(self, **moved)

    def check_inputs(self) -> None:
        """See `Data.check_inputs`; of some rows."""
        for name, source in (("inputs", self.train), ("background", self.background)):
            if source is not None:
                rows = torch.arange(min(SHOWN, len(source.labels)), device=source.labels.device)
                for values in flat(source.batch(rows).inputs):
                    checks.finite(name, values)

    def sha256(self) -> str:
        """See `Data.sha256`."""
        every = [self.train, self.held_out, self.test]
        return sources.sha256(every if self.background is None else [*every, self.background])


Given = tuple[Any, Any]
"""Inputs and labels of a part."""


def images(
    x: Any,
    y: Any,
    *,
    test: Given | None = None,
    held_out: Given | int = 0,
    background: Any = None,
    preprocess: Preprocess | None = None,
    augment: Augment | None = None,
    classes: Sequence[Any] | None = None,
    num_classes: int | None = None,
    empty: bool = False,
    name: str = "images",
) -> Dataset:
    """Return a data set of images in memory.

    `x`: uint8 [n, H, W], [n, H, W, C] or [n, C, H, W] (an array, a tensor, or a list of PIL images or arrays of one
    size). `y`: labels [n]: whole numbers, texts or truth values, see `modlib.labels.Numbering.of` for `classes` and
    `num_classes`. `test`: images and labels; `held_out`: the same, or how many training images are cut, evenly spread:
    they may be sorted by class. `background`: images of none of the classes, without labels: every module learns to
    refuse them in training; they are in no split, no count and no report. `preprocess` turns uint8 images [B, H, W] or
    [B, H, W, C] into the float inputs of the network; default: pixel / 255, [B, C, H, W]. `augment` changes one such
    input at random, in training alone. `empty`: whether classes without training images may be; they get no module.
    Raises TypeError or ValueError for anything else.
    """
    _check_functions(preprocess=preprocess, augment=augment)
    parts, numbering = _parts(x, y, test, held_out, _uint8, classes, num_classes, empty)
    (own, own_labels), (held, held_labels), (last, last_labels) = parts
    unknown = None if background is None else _uint8("background", background)
    for which, part in (("held_out", held), ("test", last), ("background", own if unknown is None else unknown)):
        if part.shape[1:] != own.shape[1:]:
            raise ValueError(f"{which}: images of {tuple(part.shape[1:])}, those of training {tuple(own.shape[1:])}")
    return Dataset(
        name,
        own,
        own_labels,
        held,
        held_labels,
        last,
        last_labels,
        num_classes=len(numbering.values),
        preprocess=preprocess or Scaling(),
        class_names=numbering.names,
        augment=augment,
        background_images=unknown,
    )


def tensors(
    x: Any,
    y: Any,
    *,
    test: Given | None = None,
    held_out: Given | int = 0,
    background: Any = None,
    augment: Augment | None = None,
    classes: Sequence[Any] | None = None,
    num_classes: int | None = None,
    empty: bool = False,
    name: str = "tensors",
) -> Samples:
    """Return a data set of what the parent takes: a tensor, array or data frame [n, ...], or a dict or tuple of them.

    Floating-point numbers reach the parent in its precision, whole numbers (token ids) as they are. A dict is handed
    over by name, a tuple by position. The other arguments are those of `images`; `augment` takes one row of `x`. Raises
    TypeError for what is no numbers (a data frame's columns of texts by name), ValueError for NaN or infinity.
    """
    _check_functions(augment=augment)
    unlabelled = None if background is None else (background, None)
    for which, part in (("test", test), ("held_out", held_out), ("background", unlabelled)):
        if isinstance(part, tuple | list) and _columns(part[0]) != _columns(x):
            raise ValueError(f"{which}: its columns {_columns(part[0])} are not those of x, {_columns(x)}")
    parts, numbering = _parts(x, y, test, held_out, _numbers, classes, num_classes, empty)
    train, other, last = (Tensors(inputs, labels, augment) if len(labels) else None for inputs, labels in parts)
    assert train is not None
    unknown = None if background is None else _numbers("background", background)
    none = None if unknown is None else Tensors(unknown, _of_no_class(flat(unknown)[0]), augment)
    for which, source in (("held_out", other), ("test", last)):
        _check_form(which, train, source)
    _check_alike(train, none)
    return Samples(name, train, other, last, len(numbering.values), numbering.names, none)


def measured_part(data: Data) -> str:
    """Return the part on which a network is measured: of "test", "held_out" and "train" the first that has images."""
    return next(name for name in ("test", "held_out", "train") if len(getattr(data, f"{name}_labels")))


def _check_functions(**given: Any) -> None:
    """Raise TypeError where an argument is neither a function nor None."""
    for name, value in given.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be a function, got {type(value).__name__} {value!r}")


def _of_no_class(values: Any) -> Tensor:
    """Return the labels of images of no class, as many as there are `values`: int64 [n], where these are."""
    return torch.full((len(values),), NO_CLASS, device=getattr(values, "device", "cpu"))


def _check_form(which: str, train: Tensors, part: Tensors | None) -> None:
    """Raise ValueError where a part has other keys, shapes or kinds of numbers than training."""
    if part is None:
        return
    own, other = _form(train.inputs), _form(part.inputs)
    if own != other:
        raise ValueError(f"{which}: its inputs are {_shown_form(other)}, those of training {_shown_form(own)}")


def _form(inputs: Any) -> Any:
    """Return names, shapes without rows, and kinds of numbers, in a form that can be compared."""
    if isinstance(inputs, Mapping):
        return {name: _form(values) for name, values in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_form(values) for values in inputs)
    kind = "floats" if inputs.is_floating_point() else "truth values" if inputs.dtype == torch.bool else "whole numbers"
    return f"[{', '.join(map(str, ('n', *inputs.shape[1:])))}] of {kind}"


def _shown_form(form: Any) -> str:
    if isinstance(form, dict):
        return "{" + ", ".join(f"{name!r}: {_shown_form(part)}" for name, part in form.items()) + "}"
    return f"({', '.join(map(_shown_form, form))})" if isinstance(form, tuple) else str(form)


def _check_alike(train: Source, background: Source | None) -> None:
    """Raise ValueError where images of no class do not reach the parent as training images do."""
    if background is None:
        return
    kinds = []
    for source in (train, background):
        inputs = source.batch(torch.tensor([0])).inputs
        kind = [(tuple(values.shape[1:]), str(values.dtype)) for values in flat(inputs)]
        kinds.append((list(inputs) if isinstance(inputs, Mapping) else None, kind))
    if kinds[0] != kinds[1]:
        own, other = (f"{list(names) if names else ''}{kind}" for names, kind in kinds)
        raise ValueError(f"background: its inputs are {other}, those of training {own}")


def dataset(
    train: Any,
    labels: Any = None,
    *,
    test: Any = None,
    held_out: Any = 0,
    background: Any = None,
    unpack: Callable[[Any], tuple[Any, Any]] | None = None,
    collate: Callable[[list[Any]], Any] = default_collate,
    augment: Augment | None = None,
    workers: int = 0,
    classes: Sequence[Any] | None = None,
    num_classes: int | None = None,
    empty: bool = False,
    name: str = "dataset",
) -> Samples:
    """Return a data set over map-style datasets of torch (ImageFolder for one), whose items are read as needed.

    An item is a pair of an input and a label; `unpack` makes one of anything else. `labels` [n], else those that the
    dataset lists as `targets` or `labels`, else every item is read once for its label. `test`, `held_out`: datasets of
    the same kind, for `held_out` also how many items are cut, evenly spread. `background`: a dataset whose items are of
    none of the classes, see `images`: pairs as in training, whose labels do not count, or inputs alone. Names of
    classes are those of `classes`, else the dataset's own (`dataset.classes`). Where it has names, texts in `classes`
    are these names in the order of the parent's outputs; to rename classes, hand over `labels`, too. `collate`: a list
    of inputs -> inputs. `workers`: threads that read.

    A transform of the dataset acts whenever an item is read, at test time too: what is random belongs into `augment`,
    see `images`. Raises TypeError for a DataLoader or an iterable dataset, ValueError for a dataset that is empty or
    lies about its length, and where items are no pairs or differ in shape from one reading to the next.
    """
    checks.whole("workers", workers, 0)
    _check_functions(unpack=unpack, collate=collate, augment=augment)
    own = _names_of(train) if classes is None and unpack is None else None
    given = {"train": train, "test": test} | ({} if isinstance(held_out, int) else {"held_out": held_out})
    for which, items in given.items():
        if items is not None:
            _check_items(which, items, unpack, collate)
            if own is not None and _names_of(items) not in (own, None):
                raise ValueError(f"{which}: its classes {_names_of(items)} are not those of training, {own}")
    found = {
        which: _labels_of(which, items, labels if which == "train" else None, unpack)
        for which, items in given.items()
        if items is not None
    }
    if classes is not None and labels is None and unpack is None:
        found = _by_name(found, given, classes)
    if own is not None and num_classes is None:
        num_classes = len(own)
    numbering = Numbering.of(found["train"], classes=classes, num_classes=num_classes)
    names = tuple(own) if own is not None and len(own) == len(numbering.values) else numbering.names

    def rows(items: Any, numbers: Tensor, unpack: Callable[[Any], tuple[Any, Any]]) -> Rows:
        every = torch.arange(len(numbers), device="cpu")
        return Rows(items, every, numbers, unpack, collate, augment, workers)

    made: dict[str, Source] = {
        which: rows(given[which], numbering.numbers(which, values), unpack or tuple) for which, values in found.items()
    }
    none = None
    if background is not None:
        _check_items("background", background, unpack or _unlabelled, collate)
        none = rows(background, _of_no_class(background), unpack or _unlabelled)
        _check_alike(made["train"], none)
    if isinstance(held_out, int) and held_out:
        made["train"], made["held_out"] = _spread(made["train"], held_out)
    _check_present(made["train"].labels, numbering, empty)
    return Samples(name, made["train"], made.get("held_out"), made.get("test"), len(numbering.values), names, none)


def _unlabelled(item: Any) -> tuple[Any, None]:
    """Return an item of no class, a pair with a label or an input alone, as a pair."""
    return (item[0] if isinstance(item, tuple | list) and len(item) == 2 else item), None


def _names_of(items: Any) -> list[str] | None:
    """Return the names of a dataset's classes, or of that which it is a part of (a Subset); None where it has none."""
    names = getattr(items, "classes", None)
    if names is None and hasattr(items, "dataset"):
        return _names_of(items.dataset)
    return [str(c) for c in names] if isinstance(names, list | tuple) else None


def _by_name(found: Mapping[str, Any], given: Mapping[str, Any], classes: Sequence[Any]) -> dict[str, Any]:
    """Return the labels of each part as names, of the datasets' own, where they have such and `classes` are texts.

    Raises ValueError where a name that a dataset uses is none of `classes`. A dataset that changes its labels, or has
    labels that are no numbers of its names, keeps them.
    """
    every = [_names_of(given[which]) for which in found]
    own = next((names for names in every if names is not None), None)
    if own is None or not all(isinstance(c, str) for c in classes) or any(map(_changes_labels, given.values())):
        return dict(found)
    named = {}
    for (which, labels), names in zip(found.items(), every, strict=True):
        numbers, names = as_array(f"{which} labels", labels), names or own
        if numbers.dtype.kind not in "iu" or not all(0 <= n < len(names) for n in numbers.tolist()):
            return dict(found)
        named[which] = [names[n] for n in numbers.tolist()]
        unknown = sorted(set(named[which]) - set(classes))
        if unknown:
            raise ValueError(
                f"classes: {list(classes)[:6]} are not the names of {which}, {names[:6]}: there is no {unknown[:6]}; "
                "to give other names, pass labels=, too"
            )
    return named


def _changes_labels(items: Any) -> bool:
    """Return whether a dataset, or that which it is a part of, has a function that changes labels."""
    if getattr(items, "target_transform", None) is not None:
        return True
    return hasattr(items, "dataset") and _changes_labels(items.dataset)


def _spread(source: Source, count: int) -> tuple[Source, Source]:
    """Return a source without `count` rows, evenly spread, and these: folders are sorted by class."""
    left, cut = _left_and_cut(len(source.labels), count)
    return source.take(left), source.take(cut)


def _left_and_cut(n: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of n rows without `count` of them, evenly spread, and of these."""
    _check_cut(count, n)
    cut = torch.linspace(0, n - 1, count, device="cpu").round().long()
    left = torch.ones(n, dtype=torch.bool, device="cpu")
    left[cut] = False
    return left.nonzero()[:, 0], cut


def _check_cut(held_out: int, n: int) -> None:
    checks.whole("held_out", held_out, 0)
    if held_out >= n:
        raise ValueError(f"held_out must be below the number of training images, {n}, got {held_out}")


def _check_items(which: str, items: Any, unpack: Any, collate: Callable[[list[Any]], Any]) -> None:
    """Raise unless `items` is a map-style dataset of pairs whose inputs have one shape."""
    if isinstance(items, DataLoader):
        raise TypeError(f"{which}: a DataLoader gives batches in an order of its own; hand over its .dataset")
    if isinstance(items, IterableDataset) or not (hasattr(items, "__getitem__") and hasattr(items, "__len__")):
        raise TypeError(f"{which} must be a map-style dataset (len and items by number), got {type(items).__name__}")
    if len(items) == 0:
        raise ValueError(f"{which}: the dataset is empty")
    try:
        read = [items[i] for i in (0, 0, len(items) - 1)]
    except Exception as error:  # it is the user's code: it may raise anything
        raise ValueError(f"{which}: its length is {len(items)}, but item 0 or the last fails: {error!r}") from error
    if unpack is None and not all(isinstance(item, tuple | list) and len(item) == 2 for item in read):
        raise ValueError(
            f"{which}: its items must be pairs of an input and a label, got {type(read[0]).__name__}; "
            "pass unpack=, a function that makes such a pair of an item"
        )
    inputs = [(unpack or tuple)(item)[0] for item in read]
    try:
        one, again, _ = (collate([i]) for i in inputs)
        collate([inputs[0], inputs[2]])
    except Exception as error:  # it is the user's code: it may raise anything
        raise ValueError(
            f"{which}: items cannot be put into one batch; make them tensors of one shape (a transform such as "
            f"ToTensor and Resize), or pass collate=: {error}"
        ) from error
    shapes = [[tuple(t.shape) for t in flat(values)] for values in (one, again)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{which}: item 0 changes its shape from one reading to the next, {shapes[0]} and {shapes[1]}")
    if any(not torch.equal(a, b) for a, b in zip(flat(one), flat(again), strict=True)):
        warnings.warn(
            f"{which}: item 0 changes from one reading to the next: a random transform acts at test time, too; "
            "move it to augment=",
            stacklevel=3,
        )


def _labels_of(which: str, items: Any, labels: Any, unpack: Any) -> Any:
    """Return the labels of a dataset: given, listed by it, or read item by item."""
    listed = labels
    if unpack is None and getattr(items, "target_transform", None) is None:
        for attribute in ("targets", "labels"):
            listed = getattr(items, attribute, None) if listed is None else listed

    def read(i: int) -> Any:
        value = (unpack or tuple)(items[i])[1]
        if isinstance(value, Tensor | np.ndarray) and np.prod(value.shape) != 1:
            raise ValueError(f"{which}: the label of item {i} must be one number or text, got shape {value.shape}")
        return value.item() if isinstance(value, Tensor | np.ndarray | np.generic) else value

    if listed is None:
        return [read(i) for i in range(len(items))]
    if len(listed) != len(items):
        raise ValueError(f"{which}: {len(listed)} labels for {len(items)} items")
    for i in (0, len(items) // 2, len(items) - 1) if labels is None else ():
        said, found = (np.asarray(v).item() for v in (listed[i], read(i)))
        if said != found:
            raise ValueError(f"{which}: item {i} has the label {found!r}, the dataset lists {said!r}; pass labels=")
    return listed


def _parts(
    x: Any,
    y: Any,
    test: Given | None,
    held_out: Given | int,
    made: Callable[[str, Any], Any],
    classes: Sequence[Any] | None,
    num_classes: int | None,
    empty: bool,
) -> tuple[list[tuple[Any, Tensor]], Numbering]:
    """Return inputs and labels of the training, held-out and test part, and the numbering of the classes."""
    inputs, numbering = made("x", x), Numbering.of(y, classes=classes, num_classes=num_classes)
    labels = numbering.numbers("y", y)
    _check_count("y", inputs, labels)
    none = rows_of(inputs, slice(0)), labels[:0]
    parts = [(inputs, labels), none, none if test is None else _given("test", test, made, numbering)]
    if not isinstance(held_out, int):
        parts[1] = _given("held_out", held_out, made, numbering)
    elif held_out:
        parts[:2] = [(rows_of(inputs, rows), labels[rows]) for rows in _left_and_cut(len(labels), held_out)]
    _check_present(parts[0][1], numbering, empty)
    return parts, numbering


def _given(which: str, part: Given, made: Callable[[str, Any], Any], numbering: Numbering) -> tuple[Any, Tensor]:
    if not isinstance(part, tuple | list) or len(part) != 2:
        number = ", or a whole number" if which == "held_out" else ""
        raise TypeError(f"{which} must be a pair, inputs and labels{number}, got {type(part).__name__}")
    inputs, labels = made(which, part[0]), numbering.numbers(f"{which} labels", part[1])
    _check_count(f"{which} labels", inputs, labels)
    return inputs, labels


def _check_count(name: str, inputs: Any, labels: Tensor) -> None:
    if number_of_rows(inputs) != len(labels):
        raise ValueError(f"{name}: {len(labels)} for {number_of_rows(inputs)} images")


def _check_present(labels: Tensor, numbering: Numbering, empty: bool) -> None:
    missing = sorted(set(range(len(numbering.values))) - set(labels.unique().tolist()))
    if missing and not empty:
        shown = [numbering.names[m] if numbering.names else m for m in missing]
        raise ValueError(
            f"classes: {len(missing)} have no training images, {shown[:6]}; pass empty=True to go on without modules "
            "for them"
        )


def _uint8(name: str, values: Any) -> Tensor:
    """Return images as uint8 [n, H, W] or [n, H, W, C]."""
    if isinstance(values, list | tuple):
        values = _stacked(name, values)
    found = _tensor(name, values)
    if found.dtype != torch.uint8:
        raise TypeError(
            f"{name} must be uint8 images, got {found.dtype}; what is ready for the network goes into data.tensors"
        )
    if found.ndim == 4 and found.shape[3] > 4 and found.shape[1] <= 4:
        found = found.permute(0, 2, 3, 1).contiguous()
    if found.ndim == 4 and found.shape[3] == 1:
        found = found[..., 0]
    if found.ndim not in (3, 4) or (found.ndim == 4 and found.shape[3] > 4) or not len(found):
        raise ValueError(
            f"{name} must be [n, H, W], [n, H, W, C] or [n, C, H, W] with n of at least 1 and C of at most 4, got "
            f"{tuple(found.shape)}"
        )
    return found


def _stacked(name: str, values: Sequence[Any]) -> np.ndarray:
    """Return a list of PIL images or arrays as one array; palettes become colours."""
    if not len(values):
        raise ValueError(f"{name}: empty; there must be one image at least")
    arrays = [np.asarray(_eight_bits(name, i, image)) for i, image in enumerate(values)]
    for i, array in enumerate(arrays):
        if _channels(array) != _channels(arrays[0]):
            modes = [getattr(values[j], "mode", f"{_channels(arrays[j])} channels") for j in (0, i)]
            raise ValueError(
                f"{name}: images differ in mode, {modes[0]} at 0 and {modes[1]} at {i}; convert them to one, such as "
                'image.convert("RGB")'
            )
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{name}: images differ in size, {arrays[0].shape} at 0 and {array.shape} at {i}; resize them to one "
                "size, or use modlib.data.dataset with a transform that does"
            )
    return np.stack(arrays)


def _eight_bits(name: str, i: int, image: Any) -> Any:
    """Return a PIL image as one of 8 bits, palettes as colours; others as they are."""
    if not hasattr(image, "convert") or image.mode in ("L", "RGB", "RGBA"):
        return image
    if image.mode == "F" or image.mode.startswith("I"):  # PIL would clamp what is above 255
        raise TypeError(
            f"{name}: the image at {i} has mode {image.mode!r}, not 8 bits for each channel; scale it to 0 to 255 and "
            "make it uint8, or hand floats over to modlib.data.tensors"
        )
    return image.convert("L" if image.mode == "1" else "RGB")


def _channels(image: np.ndarray) -> int:
    return image.shape[2] if image.ndim == 3 else 1


def _numbers(name: str, values: Any) -> Any:
    """Return what a parent takes as tensors: one, or a dict or tuple of them with as many rows each."""
    if isinstance(values, Mapping):
        found: Any = {str(key): _numbers(f"{name}[{key!r}]", part) for key, part in values.items()}
    elif isinstance(values, tuple):
        found = tuple(_numbers(f"{name}[{i}]", part) for i, part in enumerate(values))
    else:
        return _number_tensor(name, values)
    counts = {len(tensor) for tensor in flat(found)}
    if len(counts) != 1:
        raise ValueError(f"{name}: its parts must have as many rows each, one at least; they have {sorted(counts)}")
    return found


def _columns(values: Any) -> list[str] | None:
    """Return the columns of a data frame; pandas is not needed for it."""
    return [str(c) for c in values.columns] if hasattr(values, "columns") and hasattr(values, "dtypes") else None


def _number_tensor(name: str, values: Any) -> Tensor:
    if _columns(values) is not None:
        texts = [str(c) for c, kind in values.dtypes.items() if getattr(kind, "kind", "O") not in "iufb"]
        if texts:
            raise TypeError(f"{name}: columns must be numbers, these are not: {texts[:6]}")
        values = values.to_numpy(dtype=np.float32, na_value=np.nan)
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    found = _tensor(name, values)
    if found.ndim < 1 or not len(found):
        raise ValueError(f"{name} must be [n, ...] with n of at least 1, got {tuple(found.shape)}")
    if found.is_complex():
        raise TypeError(f"{name} must be real or whole numbers, got {found.dtype}")
    checks.finite(name, found)
    return found.float() if found.dtype == torch.float64 else found


def _tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, np.ndarray) and (not values.flags.writeable or any(s < 0 for s in values.strides)):
        values = values.copy()  # torch shares memory; it warns where nobody may write to it, and reads forwards alone
    try:
        return torch.as_tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be an array or a tensor of numbers: {error}") from error


def from_arrays(
    train_images: Any,
    train_labels: Any,
    test_images: Any = None,
    test_labels: Any = None,
    preprocess: Preprocess | None = None,
    *,
    held_out: int = 0,
    num_classes: int | None = None,
    name: str = "arrays",
) -> Dataset:
    """Return a data set of one's own arrays or tensors.

    Images: uint8 [n, H, W] or [n, H, W, 3]. Labels: whole numbers [n], from 0. `preprocess` (default: pixel / 255)
    turns a batch of images into the float inputs of the network. `held_out` images are cut from the end of the
    training images. `num_classes`: default, the largest label + 1. Raises TypeError or ValueError for anything else.
    """
    images, labels = _images("train_images", train_images), _labels("train_labels", train_labels)
    if (test_images is None) != (test_labels is None):
        raise ValueError("test_images, test_labels: give both or none")
    if test_images is None:
        test, test_of = images[:0], labels[:0]
    else:
        test, test_of = _images("test_images", test_images), _labels("test_labels", test_labels)
        if test.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"test_images: {tuple(test.shape[1:])} differs from train_images {tuple(images.shape[1:])}"
            )
    for which, x, y in (("train", images, labels), ("test", test, test_of)):
        if len(x) != len(y):
            raise ValueError(f"{which}_labels: {len(y)} for {len(x)} images")
    checks.whole("held_out", held_out, 0)
    if held_out >= len(labels):
        raise ValueError(f"held_out must be below the number of training images, {len(labels)}, got {held_out}")
    if num_classes is not None:
        checks.whole("num_classes", num_classes, 2)
    largest = int(torch.cat([labels, test_of]).max())
    count = largest + 1 if num_classes is None else num_classes
    if count < 2:
        raise ValueError("train_labels: all are 0; a classifier has two classes at least, see num_classes")
    if largest >= count:
        raise ValueError(f"num_classes: {count}, but there is a label {largest}")
    cut = len(labels) - held_out
    parts = (images[:cut], labels[:cut], images[cut:], labels[cut:], test, test_of)
    return Dataset(name, *parts, count, preprocess or Scaling())


def _images(name: str, values: Any) -> Tensor:
    try:
        images = torch.as_tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be uint8 images: {error}") from error
    if images.dtype != torch.uint8:
        raise TypeError(f"{name} must be uint8, got {images.dtype}; scaling belongs into preprocess=")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3) or images.shape[0] == 0:
        raise ValueError(f"{name} must be [n, H, W] or [n, H, W, 3] with n of at least 1, got {tuple(images.shape)}")
    return images


def _labels(name: str, values: Any) -> Tensor:
    try:
        labels = torch.as_tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be whole numbers: {error}") from error
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be whole numbers, got {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"{name} must be [n], got {tuple(labels.shape)}")
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"{name} must be at least 0, got {int(labels.min())}")
    return labels.to(torch.int64)


def check_data(data: object) -> None:
    """Raise TypeError for what is no data set."""
    if not isinstance(data, Data):
        raise TypeError(
            f"data must be one of modlib's, got {type(data).__name__}; see modlib.data.images, .tensors and .dataset"
        )
