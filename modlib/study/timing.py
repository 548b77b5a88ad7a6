"""Timing: programs take turns, so that all meet the same machine; and the memory that they hold."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch

from modlib.data import Dataset, from_arrays

Program = Callable[[], object]
Clock = Callable[[], float]
T = TypeVar("T")


def random_images(count: int, side: int) -> Dataset:
    """Return a data set of `count` colour images of random pixels, `side` pixels a side, in ten classes."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, side, side, 3), generator=draw, dtype=torch.uint8)
    return from_arrays(pixels, torch.arange(count) % 10, num_classes=10, name="random")


def repeated(program: Program, times: int) -> Program:
    """Return what runs a program several times."""

    def run() -> None:
        for _ in range(times):
            program()

    return run


def seconds(program: Program, device: str = "cpu", clock: Clock = time.perf_counter) -> float:
    """Return the time of one run, on a GPU until its work is done.

    `clock`: `time.process_time` is the processor's own.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    began = clock()
    program()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - began


def in_turns(
    programs: Mapping[str, Program],
    repeats: int,
    *,
    warm_up: int = 0,
    device: str = "cpu",
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Return `repeats` times of each program, in seconds, taken in turns; the first `warm_up` turns do not count."""
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(warm_up + repeats):
        for name, program in programs.items():
            once = seconds(program, device, clock)
            if turn >= warm_up:
                taken[name].append(once)
    return taken


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
