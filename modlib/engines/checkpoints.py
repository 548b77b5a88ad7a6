"""Checkpoints: the state of a training after an epoch, of co-training an engine's, written whole or not at all.

Those of a large network are gigabytes, and an epoch may be seconds: `Pace` says after which epochs one is written.

One process writes one file. Of several, each writes its own, with epoch and rank in the name; the one of the epoch
before is removed when all have written theirs, so that there is always an epoch which every process can go on from.
"""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modlib import checksums
from modlib.engines.sharding import Shard

if TYPE_CHECKING:
    from modlib.engines import Engine


class Pace:
    """Says when a checkpoint is due: after the first epoch, then so that writing takes a twentieth of the time at most.

    Several processes write after every epoch: all of them need the same one.
    """

    def __init__(self) -> None:
        self.rest_until = 0.0

    def is_due(self) -> bool:
        """Return whether the next one is to be written."""
        return Shard.here().size > 1 or time.perf_counter() >= self.rest_until

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within it one is written."""
        began = time.perf_counter()
        yield
        now = time.perf_counter()
        self.rest_until = now + 19 * (now - began)


def write(path: Path, identity: str, state: Mapping[str, Any]) -> None:
    """Write a checkpoint of what `identity` names, its checksum behind it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    torch.save({"identity": identity, **state}, part)
    checksums.append(part)
    part.replace(path)


def read(path: Path, identity: str) -> dict[str, Any]:
    """Return the state in a checkpoint; raise ValueError where it is damaged, or of something else."""
    if not checksums.fits(path):
        raise ValueError(
            f"checkpoint: {path} is damaged: its content does not match its checksum; remove it to start anew"
        )
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = saved["identity"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
        raise ValueError(f"checkpoint: {path} is damaged: {error}; remove it to start anew") from error
    if found != identity:
        raise ValueError(
            f"checkpoint: {path} is of another run: another parent, recipe, seed, engine or other data; remove it to "
            "start anew"
        )
    return saved


def save(engine: Engine, identity: str, path: Path, epoch: int) -> None:
    """Write the engine's state after `epoch` epochs of the runs that `identity` names."""
    shard = Shard.here()
    write(_of_shard(path, shard, epoch), identity, {"epoch": epoch, "engine": engine.state()})
    if shard.size > 1:
        shard.wait()
        for found, old in _own(path, shard):
            if found < epoch:
                old.unlink()


def check(path: Path | None, identity: str) -> None:
    """Raise ValueError where what is saved at `path` cannot be gone on from; nothing of it is loaded into an engine."""
    if path is not None:
        _refuse_others(path, Shard.here())
        if path.exists():
            read(path, identity)


def resume(engine: Engine, identity: str, path: Path | None) -> int:
    """Load the checkpoint, if there is one, and return the number of epochs done.

    Raises ValueError where it is of other runs, parents or data, or of another number of processes.
    """
    if path is None:
        return 0
    shard = Shard.here()
    _refuse_others(path, shard)
    if shard.size == 1:
        found = path if path.exists() else None
    else:
        epochs = [{epoch for epoch, _ in own} for own in shard.gather(_own(path, shard))]
        common = set.intersection(*epochs)
        found = _of_shard(path, shard, max(common)) if common else None
    if found is None:
        return 0
    saved = read(found, identity)
    engine.load_state(saved["engine"])
    return int(saved["epoch"])


def of_shared_epochs(path: Path, run: int) -> Path:
    """Return where the shared epochs of one run of a population are saved, beside its checkpoint `path`."""
    return path.with_name(f"{path.stem}-shared{run}{path.suffix}")


def remove(path: Path) -> None:
    """Remove the checkpoints of a population: this process's own, and by the first those of the shared epochs."""
    shard = Shard.here()
    path.unlink(missing_ok=True)
    for _, own in _own(path, shard):
        own.unlink()
    for _, shared in _named(path, r"-shared\d+") if shard.rank == 0 else ():
        shared.unlink()


def _refuse_others(path: Path, shard: Shard) -> None:
    """Raise where another number of processes has left its checkpoint: nothing of it would be used, or removed."""
    found = {int(match[3]): file for match, file in _of_several(path) if int(match[3]) != shard.size}
    if shard.size > 1 and path.exists():
        found[1] = path
    if found:
        size, file = next(iter(found.items()))
        raise ValueError(
            f"checkpoint: {file} is of {size} processes, there are {shard.size}; go on with {size}, or remove it"
        )


def _of_shard(path: Path, shard: Shard, epoch: int) -> Path:
    if shard.size == 1:
        return path
    return path.with_name(f"{path.stem}-epoch{epoch}-{shard.rank}of{shard.size}{path.suffix}")


def _own(path: Path, shard: Shard) -> list[tuple[int, Path]]:
    """Return the files of this one of several processes, with their epochs."""
    place = (shard.rank, shard.size)
    return [(int(match[1]), file) for match, file in _of_several(path) if (int(match[2]), int(match[3])) == place]


def _of_several(path: Path) -> list[tuple[re.Match[str], Path]]:
    """Return the files that several processes wrote, matched: epoch, rank and number of processes."""
    return _named(path, r"-epoch(\d+)-(\d+)of(\d+)")


def _named(path: Path, mark: str) -> list[tuple[re.Match[str], Path]]:
    """Return the files beside `path` of its name with a mark, a regular expression, behind the stem."""
    pattern = re.compile(re.escape(path.stem) + mark + re.escape(path.suffix))
    there = sorted(path.parent.iterdir()) if path.parent.exists() else []
    matched = [(pattern.fullmatch(file.name), file) for file in there]
    return [(match, file) for match, file in matched if match]
