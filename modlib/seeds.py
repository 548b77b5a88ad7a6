"""Random generators that depend on a seed and on what they are for, and on nothing else."""

from __future__ import annotations

import hashlib
from operator import index

import torch


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose of a run, e.g. `generator(0, "scores", "layer1")`.

    Draws for one purpose do not shift those for another, and are the same on every device.
    """
    plain = [part if isinstance(part, str) else index(part) for part in (seed, *purpose)]  # NumPy's are numbers, too
    digest = hashlib.sha256(repr(tuple(plain)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
