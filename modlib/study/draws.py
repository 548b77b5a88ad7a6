"""Subsets of classes that pages measure: all that there are, or some of them, drawn."""

from __future__ import annotations

import random
from itertools import combinations
from math import comb

LISTED = 10_000
"""Subsets are drawn from the list of all of them where there are no more than this, else one by one."""


def subsets(num_classes: int, size: int, count: int) -> list[tuple[int, ...]]:
    """Return up to `count` subsets of so many classes, drawn with seed 0, ascending."""
    draw, there = random.Random(0), comb(num_classes, size)
    if there <= count:
        return list(combinations(range(num_classes), size))
    if there <= LISTED:
        return sorted(draw.sample(list(combinations(range(num_classes), size)), count))
    return sorted(tuple(sorted(draw.sample(range(num_classes), size))) for _ in range(count))
