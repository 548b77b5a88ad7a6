"""Labels as users have them: numbers from 0 or not, texts, truth values, with or without gaps; and classes by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modlib import checks

PANDAS_MISSING = ("NAType", "NaTType")
"""Types of pandas, which is not needed here; a comparison of the first has no truth value."""


@dataclass(frozen=True)
class Numbering:
    """Which label is which output of the parent: `values`, by output; `names`, where they are other than 0 to N - 1."""

    values: tuple[Any, ...]
    names: tuple[str, ...] | None

    @classmethod
    def of(cls, labels: Any, *, classes: Sequence[Any] | None = None, num_classes: int | None = None) -> Numbering:
        """Return the numbering of training labels.

        `classes`: the labels in the order of the parent's outputs; or, where labels are numbers of outputs already,
        texts that name all outputs; texts, too, for other labels, as many as there are, in ascending order, that of the
        parent's outputs. `num_classes`: labels are the numbers of the outputs themselves, from 0. With
        neither: a pandas categorical has its own order; texts, truth values and numbers with gaps, or from 1, are
        numbered in ascending order (texts of digits by their number), which a warning says of numbers. ValueError for
        both, for values that fit neither, and for numbers below 0.
        """
        if classes is None and num_classes is None:
            classes = _categories(labels)
        found = as_array("labels", labels)
        there = sorted(set(found.tolist()), key=_order)
        numbers = all(isinstance(v, int) and not isinstance(v, bool) for v in there)
        if numbers and there[0] < 0 and classes is None:
            raise ValueError(
                f"labels must be at least 0, got {there[0]}; leave out what has no class, or pass classes="
            )
        if classes is not None and num_classes is not None:
            raise ValueError("classes, num_classes: give one of both")
        if classes is not None:
            values = tuple(_plain(c) for c in classes)
            if len(set(values)) != len(values) or len(values) < 2:
                raise ValueError(f"classes must be two or more different labels, got {list(classes)!r}")
            if numbers and all(isinstance(v, str) for v in values) and there[0] >= 0 and there[-1] < len(values):
                return cls(tuple(range(len(values))), tuple(values))
            others = not any(isinstance(v, str) for v in there)  # numbers from 1, with gaps, or truth values
            if others and all(isinstance(v, str) for v in values) and len(there) == len(values):
                return cls(tuple(there), tuple(values))
            return cls(values, tuple(str(v) for v in values))
        if num_classes is not None:
            checks.whole("num_classes", num_classes, 2)
            wrong = [v for v in there if not isinstance(v, int) or isinstance(v, bool) or not 0 <= v < num_classes]
            if wrong:
                raise ValueError(
                    f"labels must be whole numbers from 0 to {num_classes - 1} (num_classes), got {_shown(wrong)}"
                )
            return cls(tuple(range(num_classes)), None)
        if len(there) < 2:
            raise ValueError(f"labels: all are {there[0]!r}; a classifier has two classes at least, see classes=")
        if numbers and there == list(range(len(there))):
            return cls(tuple(there), None)
        if numbers:
            warnings.warn(
                f"labels: {_shown(there)} are taken as the parent's outputs 0 to {len(there) - 1}, in ascending order; "
                f"which later calls mean by a number; ask for {str(there[0])!r} by this name. Pass num_classes= where "
                "labels are numbers of outputs, classes= for another order",
                stacklevel=3,
            )
        return cls(tuple(there), tuple(str(v) for v in there))

    def numbers(self, name: str, labels: Any) -> Tensor:
        """Return labels as the numbers of outputs: int64 [n]; ValueError for one that is none of the classes."""
        found = as_array(name, labels)
        at = {value: i for i, value in enumerate(self.values)}
        unknown = sorted({v for v in found.tolist() if v not in at}, key=str)
        if unknown:
            raise ValueError(f"{name}: {_shown(unknown)} are none of the classes {_shown(self.values)}")
        return torch.tensor([at[v] for v in found.tolist()], dtype=torch.int64, device="cpu")


def as_array(name: str, labels: Any) -> np.ndarray:
    """Return labels [n] as whole numbers, truth values or texts; TypeError or ValueError for anything else."""
    if labels is None:
        raise TypeError(f"{name}: missing; every training image needs its class")
    if isinstance(labels, list | tuple):  # which NumPy would turn into texts where one of them is
        labels = np.array(labels, dtype=object)
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name} must be [n], one label for each image, got shape {values.shape}{_raveled(values)}")
    if values.dtype.kind in "Of":
        _check_not_missing(name, values)
    if values.dtype.kind == "O":
        kinds = sorted({type(v).__name__ for v in values.tolist()})
        if "str" in kinds and len(kinds) > 1:
            raise TypeError(f"{name} must be of one type, got {kinds}")
        values = np.asarray(values.tolist())
    if values.dtype.kind == "f":
        broken = values[~np.isfinite(values) | (values != values.round())]
        if len(broken):
            raise ValueError(f"{name} must be whole numbers, texts or truth values, got numbers such as {broken[0]}")
        values = values.astype(np.int64)
    if values.dtype.kind not in "iubUS":
        raise TypeError(f"{name} must be whole numbers, texts or truth values, got {values.dtype}")
    return values


def _raveled(values: np.ndarray) -> str:
    """Return how labels that are one column of a table become a row, in words; nothing for others."""
    if values.ndim != 2 or values.shape[1] != 1:
        return ""
    return "; ravel it: labels.ravel(), or labels.to_numpy().ravel() of a data frame"


def _check_not_missing(name: str, values: np.ndarray) -> None:
    """Raise ValueError where a label is None, NaN, or what pandas has for a value that is not there."""
    missing = [i for i, v in enumerate(values.tolist()) if v is None or type(v).__name__ in PANDAS_MISSING or v != v]
    if missing:
        raise ValueError(
            f"{name}: {len(missing)} of {len(values)} are missing (None, NaN or NA), the first at row {missing[0]}; "
            "leave these rows out"
        )


def numbered(classes: Iterable[int | str], names: Sequence[str] | None) -> list[int]:
    """Return classes, given by number or by name, as numbers; ValueError for a name that is not there."""
    found = []
    for c in checks.listed(classes, "classes"):
        if not isinstance(c, str):
            found.append(c)
        elif names is None or c not in names:
            known = "they have no names" if names is None else f"they are {_shown(names)}"
            raise ValueError(f"classes: there is no {c!r}; {known}")
        else:
            found.append(names.index(c))
    return found


def _categories(labels: Any) -> list[Any] | None:
    """Return the categories of a pandas categorical that are there, in their order; None for anything else."""
    kind: Any = getattr(labels, "dtype", None)
    if not hasattr(kind, "categories"):
        return None
    there = set(np.asarray(labels).tolist())
    return [c for c in kind.categories.tolist() if c in there]


def _order(value: Any) -> tuple[bool, Any]:
    """Texts of digits come first, by their number."""
    return (False, int(value)) if isinstance(value, str) and value.isdecimal() else (isinstance(value, str), value)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic | Tensor) else value


def _shown(values: Sequence[Any], most: int = 6) -> str:
    first = ", ".join(repr(v) for v in list(values)[:most])
    return f"[{first}{', ...' if len(values) > most else ''}]"
