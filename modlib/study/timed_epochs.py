"""Epochs of the modulewise engine, timed in processes of their own: run this module, alone or under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import pandas as pd
import torch

from modlib.cotraining import cotrain_population
from modlib.engines.sharding import Shard
from modlib.recipes import Run, ours
from modlib.study.timing import random_images
from modlib.zoo import parents


def in_processes(
    model: str, counts: Sequence[int], processes: int, *, side: int, images: int, repeats: int
) -> pd.DataFrame:
    """Return the shortest of several times of an epoch, in seconds, for each number of modules of a parent.

    The modules are shared out over `processes`, one thread each, on a CPU. `images`: random ones, `side` pixels a side.
    RuntimeError with what the processes said where they fail.
    """
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    asked = [model, *(str(value) for value in (side, images, repeats, *counts))]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, "-m", __name__, *asked], capture_output=True, text=True, env=quiet, check=False)
    timed = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("seconds")]
    if not timed:
        raise RuntimeError(f"the timed processes failed: {done.stderr[-2000:]}")
    shortest = {count: min(float(taken) for n, taken in timed if int(n) == count) for count in counts}
    rows = [{"modules": count, "processes": processes, "seconds": taken} for count, taken in shortest.items()]
    return pd.DataFrame(rows)


def main(arguments: Sequence[str]) -> None:
    """Print the times of epochs in turns: model, side, images, repeats, numbers of modules; the first turn warms up."""
    model, (side, images, repeats, *counts) = arguments[0], map(int, arguments[1:])
    torch.set_num_threads(1)
    data = random_images(images, side)
    for turn in range(repeats + 1):
        for count in counts:
            run = Run(parents.make(model, data), ours(epochs=1, batch_size=32), 0, tuple(range(count)))
            Shard.here().wait()
            start = time.perf_counter()
            cotrain_population([run], data, device="cpu", engine="modulewise")
            if turn and Shard.here().rank == 0:
                print("seconds", count, time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1:])
