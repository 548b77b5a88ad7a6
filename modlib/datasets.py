"""Data sets: images as uint8, as they are; the data set owns the preprocessing that parents and modules take.

`load(name, root)` reads `<root>/<name>.npz` (a packed copy: train_images, train_labels, test_images, test_labels).
Where that is missing, torchvision downloads the data, checks it, and the packed copy is written. `digits` needs
neither: it comes with scikit-learn.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modlib import checks

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "svhn_10k")
PARTS = ("train_images", "train_labels", "test_images", "test_labels")
DIGITS_TRAIN = 1437  # of 1,797: the rest, by other writers, is the test split

# mean and standard deviation of the training images' channels, of pixels in [0, 1]
STATISTICS = {
    "digits": ((0.3064,), (0.3753,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "svhn_10k": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}

Preprocess = Callable[[Tensor], Tensor]
SCALINGS = ("standard", "unit")
"""Input scalings that `load` knows: normalised by the training images' `STATISTICS`, or pixel / 255 as it is."""


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

    @property
    def scaling(self) -> str:
        """The name of the input scaling: one of `SCALINGS`, or that of a preprocessing of one's own.

        It is part of what the data set is: parents and trials on other inputs are others. ValueError for a
        preprocessing that has no name to be told by, such as a lambda.
        """
        if self.preprocess == Scaling(*STATISTICS.get(self.name, ())):
            return "standard"
        if self.preprocess == Scaling():
            return "unit"
        if isinstance(self.preprocess, Scaling):
            return f"mean {self.preprocess.mean} std {self.preprocess.std}"
        name = getattr(self.preprocess, "__name__", "<lambda>")
        if not name.isidentifier():
            raise ValueError(f"preprocess: {self.preprocess!r} has no name; results are kept by that of a function")
        return str(name)

    @property
    def identity(self) -> dict[str, str]:
        """What a key says of the data: its name, and the scaling of its inputs where it is not the standard one."""
        return {"dataset": self.name} | ({} if self.scaling == "standard" else {"scaling": self.scaling})

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Return images and labels of "train", "held_out" or "test"; raise ValueError where it is empty."""
        checks.choice("split", name, ("train", "held_out", "test"))
        images, labels = getattr(self, f"{name}_images"), getattr(self, f"{name}_labels")
        if not len(labels):
            raise ValueError(f"split: data set {self.name!r} has no {name} images")
        return images, labels

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


def load(name: str, root: str | Path | None = None, held_out: int | None = None, scaling: str = "standard") -> Dataset:
    """Return a data set by name, one of `NAMES`.

    `root`: the folder of the packed copies; default: the environment's MODLIB_DATA, else ~/.cache/modlib.
    `held_out`: how many images are cut from the end of the training images; default: a sixth.
    `scaling`: of the inputs, one of `SCALINGS`.
    Raises ValueError for an unknown name, and for a missing or damaged file with what was tried and what to do.
    """
    checks.choice("name", name, NAMES)
    checks.choice("scaling", scaling, SCALINGS)
    folder = Path(root) if root is not None else default_root()
    arrays: dict[str, Any] = _digits() if name == "digits" else _read_or_fetch(name, folder)
    preprocess = Scaling(*STATISTICS[name]) if scaling == "standard" else Scaling()
    count = len(arrays["train_labels"]) // 6 if held_out is None else held_out
    return from_arrays(**arrays, preprocess=preprocess, held_out=count, name=name)


def default_root() -> Path:
    """Return the folder of the packed copies: MODLIB_DATA, else ~/.cache/modlib."""
    return Path(os.environ.get("MODLIB_DATA") or Path.home() / ".cache" / "modlib")


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


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 digits, 8x8, pixels 0..16 stretched to 0..255, in their own order."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    n = DIGITS_TRAIN
    return dict(zip(PARTS, (images[:n], labels[:n], images[n:], labels[n:]), strict=True))


def _read_or_fetch(name: str, folder: Path) -> dict[str, np.ndarray]:
    path = folder / f"{name}.npz"
    if not path.exists():
        arrays = _fetch(name, folder)
        write_packed(path, arrays)
    return read_packed(path)


def read_packed(path: Path) -> dict[str, np.ndarray]:
    """Return the four arrays of a packed copy; raise ValueError where the file is damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return {part: stored[part] for part in PARTS}
    except Exception as error:  # a damaged zip raises whatever its reader stumbles over
        raise ValueError(
            f"data file {path} is damaged ({error!r}); remove it, and it will be fetched again, or write it anew"
        ) from error


def write_packed(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the four arrays of a data set as a packed copy, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        try:
            chosen: dict[str, Any] = {name: arrays[name] for name in PARTS}
            np.savez(part, **chosen)
            part.close()
            os.replace(part.name, path)
        except BaseException:
            os.unlink(part.name)
            raise


def _fetch(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Get a data set through torchvision, which downloads and checks it."""
    if name == "svhn_10k":
        raise ValueError(
            f"data: {folder / 'svhn_10k.npz'} is missing and cannot be downloaded: it is a packed part of SVHN; "
            "use 'svhn', or point MODLIB_DATA to the folder that has it"
        )
    from torchvision import datasets as tv

    raw = folder / "torchvision"
    try:
        if name == "svhn":
            splits = [tv.SVHN(str(raw), split=s, download=True) for s in ("train", "test")]
            return _packed([np.transpose(s.data, (0, 2, 3, 1)) for s in splits], [s.labels for s in splits])
        kinds = {"mnist": tv.MNIST, "fashion_mnist": tv.FashionMNIST, "cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}
        both = [kinds[name](str(raw), train=train, download=True) for train in (True, False)]
    except Exception as error:  # no network, a refused connection, a wrong checksum: torchvision raises many kinds
        raise ValueError(
            f"data: {folder / f'{name}.npz'} is missing, and torchvision could not get {name} into {raw}: {error!r}; "
            "check the network, or point MODLIB_DATA to a folder with the packed copy"
        ) from error
    return _packed([np.asarray(s.data) for s in both], [np.asarray(s.targets) for s in both])


def _packed(images: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, np.ndarray]:
    values = [v for x, y in zip(images, labels, strict=True) for v in (x.astype(np.uint8), y.astype(np.int64))]
    return dict(zip(PARTS, values, strict=True))
