"""Programs timed in turns, so that all meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

Program = Callable[[], object]
Clock = Callable[[], float]
K = TypeVar("K", bound=Hashable)


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
    programs: Mapping[K, Program],
    repeats: int,
    *,
    warm_up: int = 0,
    device: str = "cpu",
    clock: Clock = time.perf_counter,
) -> dict[K, list[float]]:
    """Return `repeats` times of each program, in seconds, taken in turns; the first `warm_up` turns do not count."""
    taken: dict[K, list[float]] = {name: [] for name in programs}
    for turn in range(warm_up + repeats):
        for name, program in programs.items():
            once = seconds(program, device, clock)
            if turn >= warm_up:
                taken[name].append(once)
    return taken
