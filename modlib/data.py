"""Data: what is decomposed on, with the preprocessing that the parent and its modules take.

A data set has three parts. Whoever trains or measures asks a part for batches by the numbers of their rows
(`Source.batch`), which are stable: the table of the vote and the passes of one module after another mean the same image
by the same number. What an image is, and how an input is made of it, is known here alone. `modlib.zoo.datasets` loads
the book's own by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from modlib import augmentation, checks

SPLITS = ("train", "held_out", "test")
Preprocess = Callable[[Tensor], Tensor]
"""uint8 images [B, ...] -> the float inputs of a network [B, ...]."""


@dataclass(frozen=True)
class Batch:
    """Some rows of a source: their numbers (int64 [B]), inputs as the parent takes them, and labels (int64 [B])."""

    rows: Tensor
    inputs: Any
    labels: Tensor


class Source(Protocol):
    """One part of a data set, as training and measuring see it: n rows with labels, and batches of them."""

    @property
    def labels(self) -> Tensor:
        """The class of every row: int64 [n]."""

    def batch(self, rows: Tensor, augment: str = "none", draw: torch.Generator | None = None) -> Batch:
        """Return the rows of these numbers (int64 [B]), augmented (see `modlib.augmentation`) with the draws of `draw`.

        Inputs and labels are where the source is. Inputs are a tensor, or whatever `modlib.parent.functional_call`
        hands to a parent; what is not floating-point in them reaches the parent as it is.
        """

    def to(self, device: str | torch.device) -> Source:
        """Return the source with all that it holds on `device`."""


@dataclass(frozen=True, eq=False)
class Images:
    """A source of uint8 images [n, H, W] or [n, H, W, 3] with labels int64 [n]."""

    images: Tensor
    labels: Tensor
    preprocess: Preprocess

    def batch(self, rows: Tensor, augment: str = "none", draw: torch.Generator | None = None) -> Batch:
        """See `Source.batch`."""
        images = self.images[rows]
        if draw is not None:
            images = augmentation.augment(images, augment, draw)
        return Batch(rows, self.preprocess(images), self.labels[rows])

    def to(self, device: str | torch.device) -> Images:
        """See `Source.to`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


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


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (uint8, [n, H, W] or [n, H, W, 3]) and labels (int64 [n]) in three splits.

    `train` is what is trained on, `held_out` is cut from the end of the training images and used for choosing, `test`
    is read at the end. A split may be empty, `train` may not.
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

    def inputs(self, images: Tensor) -> Tensor:
        """Return what networks take: float32 [B, C, H, W], scaled and normalised, of uint8 `images`."""
        return self.preprocess(images)

    def part(self, name: str) -> Source:
        """Return "train", "held_out" or "test" as a source of batches; raise ValueError where it is empty."""
        return Images(*self.split(name), self.preprocess)

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Return images and labels of "train", "held_out" or "test"; raise ValueError where it is empty."""
        checks.choice("split", name, SPLITS)
        images, labels = getattr(self, f"{name}_images"), getattr(self, f"{name}_labels")
        if not len(labels):
            raise ValueError(f"split: data set {self.name!r} has no {name} images")
        return images, labels

    def only(self, classes: Iterable[int]) -> Dataset:
        """Return the data set with the training images of `classes` alone."""
        asked = checks.subset(classes, range(self.num_classes))
        inside = torch.isin(self.train_labels, torch.tensor(asked, device=self.train_labels.device))
        if not bool(inside.any()):
            raise ValueError(f"classes: there are no training images of {asked}")
        return replace(self, train_images=self.train_images[inside], train_labels=self.train_labels[inside])

    def to(self, device: str | torch.device) -> Dataset:
        """Return the data set with all images and labels on `device`."""
        tensors: dict[str, Any] = {n: value.to(device) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def check_inputs(self, numbers: int = 8_000_000) -> None:
        """Raise where the preprocessing yields something that networks cannot take; so many `numbers` at once."""
        for images in self.train_images.split(max(1, numbers // self.train_images[0].numel())):
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
