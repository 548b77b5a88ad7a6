"""The book's data sets by name, one packed file each.

`load(name, root)` reads `<root>/<name>.npz` (a packed copy: train_images, train_labels, test_images, test_labels).
Where that is missing, torchvision downloads the data, checks it, and the packed copy is written. `digits` needs
neither: it comes with scikit-learn.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from modlib import checks, extras
from modlib.data import Dataset, Scaling, from_arrays

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

SCALINGS = ("standard", "unit")
"""Input scalings that `load` knows: normalised by the training images' `STATISTICS`, or pixel / 255 as it is."""


def scaling_of(data: Dataset) -> str:
    """Return the name of the input scaling: one of `SCALINGS`, or that of a preprocessing of one's own.

    It is part of what a data set is: parents and trials on other inputs are others. ValueError for a preprocessing
    that has no name to be told by, such as a lambda.
    """
    if data.preprocess == Scaling(*STATISTICS.get(data.name, ())):
        return "standard"
    if data.preprocess == Scaling():
        return "unit"
    if isinstance(data.preprocess, Scaling):
        return f"mean {data.preprocess.mean} std {data.preprocess.std}"
    name = getattr(data.preprocess, "__name__", "<lambda>")
    if not name.isidentifier():
        raise ValueError(f"preprocess: {data.preprocess!r} has no name; results are kept by that of a function")
    return str(name)


def identity(data: Dataset) -> dict[str, str]:
    """Return what a key says of the data: its name, and the scaling of its inputs where it is not the standard one."""
    scaling = scaling_of(data)
    return {"dataset": data.name} | ({} if scaling == "standard" else {"scaling": scaling})


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


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 digits, 8x8, pixels 0..16 stretched to 0..255, in their own order."""
    load_digits = extras.require("sklearn.datasets", "the data set 'digits'").load_digits

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
    tv = extras.require("torchvision.datasets", f"downloading {name}")

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
