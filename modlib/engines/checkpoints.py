"""Checkpoints: the state of a training after an epoch, of co-training an engine's, written whole or not at all.

Those of a large network are gigabytes, and an epoch may be seconds: `Pace` says after which epochs one is written.

One process writes one file. Of several, each writes its own, with epoch and rank in the name; the one of the epoch
before is removed when all have written theirs, so that there is always an epoch which every process can go on from.
"""

from __future__ import annotations

import io
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


COPIED = 2**30
"""Size in bytes of the largest checkpoint of which a copy is kept in memory too."""


SHARED = r"-shared\d+"
"""What the names of checkpoints of shared epochs have behind the stem, see `of_shared_epochs`."""


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


class Keeper:
    """Keeps what an engine has after its epochs: in a file, as `Pace` says, and in memory what is newer than the file.

    So a run that is interrupted, within an epoch for the most part, writes the last whole one of which there is a copy:
    of the time for epochs, copies take a twentieth too. Several processes write after every epoch, and keep no copies.
    """

    def __init__(self, engine: Engine, identity: str, path: Path | None) -> None:
        self.engine, self.identity, self.path = engine, identity, path
        self.pace, self.pace_of_copies = Pace(), Pace()
        self.copy: bytes | None = None
        self.trained: int | None = None
        self.told = True

    def start(self, epochs: int) -> int:
        """Load the checkpoint, if there is one, and return the number of epochs done, see `resume`.

        `told` is then False where the run was interrupted before its callback had seen the last of these.
        """
        done, self.told = resume(self.engine, self.identity, self.path, epochs)
        return done

    def begin(self) -> None:
        """An epoch begins: until it is trained the engine's state is none that can be gone on from."""
        self.trained = None

    def end(self, epoch: int) -> None:
        """So many epochs are trained, of which the callback has not seen the last one yet."""
        self.trained, self.told = epoch, False

    def keep(self, epoch: int, last: bool) -> None:
        """So many epochs are trained and seen: write them, or keep a copy, where it is time to."""
        self.told = True
        if self.path is None:
            return
        if last or self.pace.is_due():
            with self.pace.writing():
                save(self.engine, self.identity, self.path, epoch)
            self.copy = None
        elif self.pace_of_copies.is_due() and self.path.exists() and self.path.stat().st_size <= COPIED:
            with self.pace_of_copies.writing():
                memory = io.BytesIO()
                state = {"identity": self.identity, "epoch": epoch, "told": True, "engine": self.engine.state()}
                torch.save(state, memory)
                self.copy = memory.getvalue()

    def interrupted(self) -> None:
        """Write the newest epoch that can be gone on from, unless the file has it."""
        if self.path is None or Shard.here().size > 1:  # others may be in another epoch
            return
        if self.trained is not None:
            save(self.engine, self.identity, self.path, self.trained, self.told)
        elif self.copy is not None:
            with _whole_or_not(self.path) as part:
                part.write_bytes(self.copy)


@contextmanager
def _whole_or_not(path: Path) -> Iterator[Path]:
    """Yield where to write; when that is done its checksum is written behind it, and it takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    yield part
    checksums.append(part)
    part.replace(path)


def write(path: Path, identity: str, state: Mapping[str, Any]) -> None:
    """Write a checkpoint of what `identity` names, its checksum behind it, whole or not at all."""
    with _whole_or_not(path) as part:
        torch.save({"identity": identity, **state}, part)


def read(path: Path, identity: str) -> dict[str, Any]:
    """Return the state in a checkpoint; raise ValueError where it is damaged, or of something else."""
    if not checksums.fits(path):
        raise ValueError(
            f"checkpoint: {path} is damaged: its content does not match its checksum; remove it to start anew"
        )
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = saved["identity"]
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, TypeError) as error:
        raise ValueError(f"checkpoint: {path} is damaged: {error}; remove it to start anew") from error
    if found != identity:
        raise ValueError(
            f"checkpoint: {path} is of another run: another parent, recipe, seed, engine or other data; remove it to "
            "start anew"
        )
    return saved


def save(engine: Engine, identity: str, path: Path, epoch: int, told: bool = True) -> None:
    """Write the engine's state after `epoch` epochs of the runs that `identity` names; `told`: see `Keeper`."""
    shard = Shard.here()
    write(_of_shard(path, shard, epoch), identity, {"epoch": epoch, "told": told, "engine": engine.state()})
    if shard.size > 1:
        shard.wait()
        for found, old in _own(path, shard):
            if found < epoch:
                old.unlink()


def check(path: Path | None, identity: str, epochs: int) -> None:
    """Raise ValueError where what is saved at `path` cannot be gone on from; nothing of it is loaded into an engine."""
    if path is not None:
        _refuse_others(path, Shard.here())
        if path.exists():
            check_epochs(path, read(path, identity)["epoch"], epochs)


def check_epochs(path: Path, done: int, epochs: int) -> None:
    """Raise ValueError where more epochs are done than are asked for."""
    if done > epochs:
        raise ValueError(
            f"epochs: {epochs} asked for, {done} are done in {path}; ask for as many or more, or remove it"
        )


def resume(engine: Engine, identity: str, path: Path | None, epochs: int) -> tuple[int, bool]:
    """Load the checkpoint, if there is one; return the number of epochs done, and whether the last has been seen.

    Raises ValueError where it is of other runs, parents or data, of more than `epochs`, or of another number of
    processes.
    """
    if path is None:
        return 0, True
    shard = Shard.here()
    _refuse_others(path, shard)
    if shard.size == 1:
        found = path if path.exists() else None
    else:
        common = set.intersection(*({epoch for epoch, _ in own} for own in shard.gather(_own(path, shard))))
        found = _of_shard(path, shard, max(common)) if common else None
    if found is None:
        return 0, True
    saved = read(found, identity)
    check_epochs(found, saved["epoch"], epochs)
    engine.load_state(saved["engine"])
    return saved["epoch"], saved.get("told", True)


def there(path: Path) -> bool:
    """Say whether something is saved of a population: its own checkpoint, or one of its shared epochs."""
    return path.exists() or bool(_of_several(path)) or bool(_named(path, SHARED))


def of_shared_epochs(path: Path, run: int) -> Path:
    """Return where the shared epochs of one run of a population are saved, beside its checkpoint `path`."""
    return path.with_name(f"{path.stem}-shared{run}{path.suffix}")


def remove(path: str | Path) -> None:
    """Remove the checkpoints of a population: this process's own, and by the first those of the shared epochs."""
    path, shard = Path(path), Shard.here()
    path.unlink(missing_ok=True)
    for _, own in _own(path, shard):
        own.unlink()
    for _, shared in _named(path, SHARED) if shard.rank == 0 else ():
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
