"""Checks of arguments, before any work starts: every message names the argument, its value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def share(name: str, value: float) -> None:
    """Raise unless `value` is in (0, 1]."""
    real(name, value)
    if not 0.0 < value <= 1.0:
        hint = f" (did you mean {value / 100:.2f}?)" if 1 < value <= 100 else ""
        raise ValueError(f"{name} must be in (0, 1], got {value}{hint}")


def number(name: str, value: float, low: float = float("-inf"), high: float = float("inf")) -> None:
    """Raise unless `value` is a finite real number (not a bool) in [low, high]."""
    real(name, value)
    if not low <= float(value) <= high:
        allowed = f"in [{low:g}, {high:g}]" if high < float("inf") else f"at least {low:g}"
        raise ValueError(f"{name} must be {allowed}, got {value}")


def positive(name: str, value: float) -> None:
    """Raise unless `value` is a finite real number above zero."""
    real(name, value)
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


def real(name: str, value: float) -> None:
    """Raise unless `value` is a real number, not a bool, and not infinite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if math.isinf(value):
        raise ValueError(f"{name} must be finite, got {value}")


def whole(name: str, value: int, low: int) -> None:
    """Raise unless `value` is a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


def flag(name: str, value: bool) -> None:
    """Raise TypeError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def choice(name: str, value: str, allowed: Collection[str]) -> None:
    """Raise unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {sorted(allowed)}, got {value!r}")


def listed(classes: Iterable[Any], name: str) -> list[Any]:
    """Return `classes` as a list; raise TypeError for a single class."""
    if isinstance(classes, (int, str)) or not isinstance(classes, Iterable):
        raise TypeError(f"{name}: must be a list of classes, got {classes!r}")
    return [c.item() if isinstance(c, Tensor) else c for c in classes]


def subset(classes: Iterable[int], known: Collection[int], name: str = "classes") -> list[int]:
    """Return `classes` as a list of distinct, known classes; raise ValueError naming what is wrong with it."""
    asked = listed(classes, name)
    if not asked:
        raise ValueError(f"{name}: empty; ask for at least one of {sorted(known)}")
    for c in asked:
        whole(name, c, 0)
        if c not in known:
            raise ValueError(f"{name}: no module for class {c}; there are modules for {sorted(known)}")
    if len(set(asked)) != len(asked):
        raise ValueError(f"{name}: repeated class in {asked}; name each class once")
    return [int(c) for c in asked]


def finite(name: str, values: Tensor) -> None:
    """Raise ValueError where a floating-point tensor holds NaN or infinity."""
    if not values.is_floating_point() or bool(torch.isfinite(values.sum())):  # one pass: no finite sum has NaN in it
        return
    if not bool(torch.isfinite(values).all()):  # a sum of finite values may overflow
        bad = int((~torch.isfinite(values)).sum())
        raise ValueError(f"{name}: {bad} of {values.numel()} values are NaN or infinite; they must be finite")


def tensor(name: str, values: object) -> None:
    """Raise TypeError unless `values` is a tensor."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(values).__name__}")


def _as_tensor(values: Any) -> str:
    """Return how a tensor is made of `values`, in words; nothing where that is not known."""
    if hasattr(values, "to_numpy"):
        return "; make one of it, torch.as_tensor(inputs.to_numpy(dtype='float32'))"
    return "; make one of it, torch.as_tensor(inputs)" if hasattr(values, "__array__") else ""


def inputs(values: Any) -> None:
    """Raise unless `values` are a network's inputs: a batch [B, ...], or a dict or tuple of them; finite."""
    parts = list(values.values()) if isinstance(values, Mapping) else values if isinstance(values, tuple) else [values]
    for part in parts:
        if not isinstance(part, Tensor):
            raise TypeError(f"inputs must be a tensor, got {type(part).__name__}{_as_tensor(part)}")
        if part.ndim < 1 or part.shape[0] == 0 or (part.ndim < 2 and len(parts) == 1):
            raise ValueError(f"inputs must be a batch [B, ...] of at least one, got shape {tuple(part.shape)}")
        if part.is_complex() or part.dtype in (torch.bool, torch.uint8):
            raise TypeError(f"inputs must be floating-point numbers or ids, got {part.dtype}; see Dataset.inputs")
        finite("inputs", part)
    if not parts or any(part.shape[0] != parts[0].shape[0] for part in parts):
        raise ValueError(f"inputs must have as many rows each, got {[part.shape[0] for part in parts]}")
