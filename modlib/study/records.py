"""Records: what a run measured, with where it came from. What is there is read, not computed again.

A record is one JSON file, `<folder>/<stem>/<readable name>-<key>.json`, written whole as soon as its run is done. Its
key covers the run's parameters and the version of the code's recipe, not the code itself: a changed docstring must not
throw away a GPU's work, and a changed result must raise the version.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import nn

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Record:
    """The rows that one run measured, its parameters, and its provenance."""

    parameters: dict[str, Any]
    provenance: dict[str, Any]
    rows: Rows


@dataclass(frozen=True)
class Store:
    """A folder of records, parents, modules and checkpoints. With `folder` None nothing is kept.

    `parents`: those that have been trained or read through this store, by name: whoever asks again gets the same one.
    """

    folder: Path | None
    parents: dict[str, nn.Module] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def at(cls, folder: str | Path | None) -> Store:
        """Return the store in `folder`; an empty name keeps nothing."""
        return cls(Path(folder).resolve() if folder else None)

    def path(self, stem: str, name: str, suffix: str) -> Path | None:
        """Return where a file of this store lies, or None where nothing is kept."""
        return None if self.folder is None else self.folder / stem / f"{name}{suffix}"

    def record(
        self,
        stem: str,
        name: str,
        parameters: Mapping[str, Any],
        compute: Callable[[], Rows],
        seconds: float | None = None,
        **facts: Any,
    ) -> Record:
        """Return the record of `parameters`: read where it is there, else computed and written at once.

        `facts` go into its provenance, beside device, versions, commit and seconds (`seconds`: of work done before).
        """
        path = self.path(stem, f"{name}-{key(parameters)}", ".json")
        if path is not None and path.exists():
            stored = json.loads(path.read_text())
            return Record(stored["parameters"], stored["provenance"], stored["rows"])
        start = time.perf_counter()
        rows = [_rounded(row) for row in compute()]  # as they will be read: a page does not change when rendered again
        taken = time.perf_counter() - start if seconds is None else seconds
        record = Record(dict(parameters), provenance(taken, **facts), rows)
        if path is not None:
            write(path, _dump(record))
        return record


def key(parameters: Mapping[str, Any]) -> str:
    """Return eight hexadecimal digits that stand for `parameters`, whatever their order."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=list).encode()).hexdigest()[:8]


def _dump(record: Record) -> str:
    """JSON with one row a line, numbers to six digits: readable in a diff, and small."""
    head = json.dumps({"parameters": record.parameters, "provenance": record.provenance}, indent=1, default=list)
    rows = ",\n".join("  " + json.dumps(row) for row in record.rows)
    return f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n'


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def provenance(seconds: float, **facts: Any) -> dict[str, Any]:
    """Return where a result came from: device, versions, commit, seconds, and `facts`.

    `facts` may name the device; else it is taken for the GPU where there is one.
    """
    from torchvision import __version__ as torchvision_version

    from modlib import __version__

    return {
        "device": device_name("cuda" if torch.cuda.is_available() else "cpu"),
        "versions": {
            "modlib": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision_version,
        },
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        **facts,
    }


def device_name(device: torch.device | str) -> str:
    """Return the name of a GPU, or of the processor."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"CPU ({model}, {os.cpu_count()} cores)"


@cache
def commit() -> str:
    """Return the commit of the working tree that this package lies in, "+" where it has changes, "" outside one.

    As it was at the first call of this process: the tree may move on while the code that was loaded still runs.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parents[1]), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return the rows of all records as one table; columns that hold lists are left to the records."""
    table = pd.DataFrame([row for record in records for row in record.rows])
    return table[[c for c in table if not table[c].map(lambda v: isinstance(v, (list, dict))).any()]]


def export(store: Store, stem: str, records: Sequence[Record], parameters: Mapping[str, Any]) -> pd.DataFrame:
    """Write `<stem>.csv`, one row per run and epoch, and `<stem>.json`, its provenance; return the table."""
    table = frame(records)
    if store.folder is not None:
        write(store.folder / f"{stem}.csv", table.to_csv(index=False))
        facts = {"parameters": dict(parameters), "runs": [{**r.parameters, **r.provenance} for r in records]}
        write(store.folder / f"{stem}.json", json.dumps(facts, indent=1, default=list) + "\n")
    return table


def mean_and_spread(values: Collection[float], scale: float = 100.0, digits: int = 2) -> str:
    """Return "mean ± standard deviation" of `values` times `scale`; the deviation needs two values or more."""
    series = pd.Series(list(values), dtype=float) * scale
    spread = f" ± {series.std():.{digits}f}" if len(series) > 1 else ""
    return f"{series.mean():.{digits}f}{spread}"


def against_parent(rows: pd.DataFrame) -> pd.Series:
    """Return the points of each row (a trial, a subset) against its parent; + is better."""
    return 100 * (rows["accuracy"] - rows["parent_accuracy"])


def signed(values: Iterable[float], digits: int = 2) -> str:
    """Return "mean ± standard deviation" of points, with the sign of the mean."""
    series = pd.Series(list(values), dtype=float)
    spread = f" ± {series.std():.{digits}f}" if len(series) > 1 else ""
    mean = round(float(series.mean()), digits)
    return (f"{mean:+.{digits}f}" if mean else f"{0:.{digits}f}") + spread  # no "-0.00"


def interval(values: Collection[float], level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval for the mean of `values`; (-inf, inf) for a single value, which tells no spread."""
    series = pd.Series(list(values), dtype=float)
    if len(series) < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf((1 + level) / 2, len(series) - 1) * series.sem())
    return float(series.mean() - half), float(series.mean() + half)


def percent_of_n(values: Collection[float]) -> str:
    """Return "mean ± standard deviation % (n = ...)" of shares, for a sentence."""
    return f"{mean_and_spread(values)}% (n = {len(values)})"
