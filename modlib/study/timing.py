"""Timing: programs take turns, so that all meet the same machine (`modlib.deploy.turns`); and the memory they hold."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from modlib.data import Dataset, from_arrays
from modlib.deploy.turns import Clock, Program, in_turns, repeated, seconds

__all__ = ["Clock", "Program", "in_turns", "median_ms", "peak_memory", "random_images", "repeated", "seconds"]

T = TypeVar("T")


def random_images(count: int, side: int) -> Dataset:
    """Return a data set of `count` colour images of random pixels, `side` pixels a side, in ten classes."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, side, side, 3), generator=draw, dtype=torch.uint8)
    return from_arrays(pixels, torch.arange(count) % 10, num_classes=10, name="random")


def peak_memory(program: Callable[[], T], device: str = "cpu") -> tuple[T, int]:
    """Return what `program` returns, and the most bytes that it held in tensors at once, by torch's allocator."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return program(), torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        made = program()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return made, int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of `repeats` runs of `work`, in milliseconds."""
    return statistics.median(1000 * seconds(work) for _ in range(repeats))
