"""Many processes for one decomposition: `torchrun` starts them, each trains its share of the modules.

What they exchange, once an epoch: the sum of their scores, layer by layer, the log-odds that their modules gave to the
images, and, when modules are asked for, masks and grafting layers. Every process ends up with the same numbers as one
process has.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")

LOST = (
    "a process of this run has ended before its time (see its own message); records and checkpoints written so far "
    "stay, and the same command goes on from them"
)
PATIENCE = timedelta(hours=6)
"""How long a process waits for the others: one of them may be measuring."""


class WorkerLost(RuntimeError):
    """Another process of the same run has ended before its time."""


@dataclass(frozen=True)
class Shard:
    """The place of this process among `size` processes; by default it is the only one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Shard:
        """Return the place that `torchrun` gave to this process; join the others where that is not done yet."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_available():
            return cls()
        if not dist.is_initialized():
            with _others_may_be_lost():
                dist.init_process_group(_backend(), timeout=PATIENCE)
            atexit.register(_leave)
            _tell_when_stopped()
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, items: Sequence[Any]) -> list[Any]:
        """Return those of `items` that this process works on."""
        return list(items[self.rank :: self.size])

    def sum(self, values: Tensor) -> Tensor:
        """Add up `values` over all processes, in place, and return them."""
        if self.size > 1:
            with _others_may_be_lost():
                dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the `value` of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _others_may_be_lost():
            dist.all_gather_object(values, value)
        return values

    def join(self, shares: Sequence[Sequence[Any]]) -> list[Any]:
        """Undo `share`: return the items in their first order."""
        count = sum(len(part) for part in shares)
        return [shares[i % self.size][i // self.size] for i in range(count)]

    def first_alone(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns; the first process does it alone, so that the others find what it wrote."""
        if self.rank == 0:
            result = work()
        self.wait()
        return result if self.rank == 0 else work()

    def wait(self) -> None:
        """Return when every process has come here."""
        self.gather(None)


def _backend() -> str:
    """Return gloo, and NCCL for what lies on a GPU: this process's own, which is set here."""
    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "cpu:gloo,cuda:nccl"


def _leave() -> None:
    """End the group's threads while Python still runs: one that needs it afterwards aborts the whole process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _tell_when_stopped() -> None:
    """Say what to do where `torchrun` stops this process because another has ended: it sends SIGTERM to the rest."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stopped)


def _stopped(signum: int, frame: object) -> None:
    raise WorkerLost(f"{LOST}. {signal.Signals(signum).name}: this one was stopped")


def _tells_of_a_lost_process(error: RuntimeError) -> bool:
    """Say whether a collective failed because of its partners; gloo's errors have no class of their own."""
    words = ("gloo", "nccl", "connection", "timed out")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


@contextmanager
def _others_may_be_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL name sockets and ranks, not what to do
        if not _tells_of_a_lost_process(error):
            raise
        raise WorkerLost(f"{LOST}. {type(error).__name__}: {error}") from error
