"""What a network costs: parameters, multiply-adds, bytes, milliseconds."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modlib import checks, extras
from modlib.deploy.exporting import batch_size, export, feeds, on_cpu, session, with_rows
from modlib.deploy.turns import Program, in_turns, repeated, seconds
from modlib.parent import arguments, called, evaluating, frozen_copy, rows_of
from modlib.stacking import SparseLinear
from modlib.tabular import as_html

RUNTIMES = ("eager", "onnxruntime")
PARENT = "parent"
TURN = 0.005
"""Seconds that a turn of a program takes at least: a quick one is called several times, and its share is taken."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")
Key = tuple[str, str]
"""A network's name and a runtime."""
K = TypeVar("K", bound=Hashable)


@torch.no_grad()
def cost(network: nn.Module, example: Any) -> dict[str, int]:
    """Return the number of parameters, and of multiply-adds for one image, the first of `example`, in eval mode.

    The sparse layers of recomposed networks count with the weights that are there, one multiply-add each.
    """
    with evaluating(network), _without_fused_attention(), FlopCounterMode(display=False) as counter:
        called(network, rows_of(example, slice(1)))
    sparse = [part for part in network.modules() if isinstance(part, SparseLinear)]
    weights = sum(len(part.values) for part in sparse)  # buffers; and torch counts no sparse product of one row
    return {
        "parameters": sum(v.numel() for v in network.parameters()) + weights + sum(len(part.bias) for part in sparse),
        "multiply_adds": counter.get_total_flops() // 2 + weights,
    }


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    """Let transformer layers compute step by step: the counter does not see inside what torch fuses."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@dataclass(frozen=True)
class Measured:
    """Networks beside their parent; `str` gives a table, and a notebook shows one.

    `rows`: one for every network, runtime and batch, with the keys "network", "runtime", "batch"; "parameters";
    "multiply_adds" of one image; "bytes_float32", parameters, statistics and the places of sparse weights at four
    bytes each; "bytes_onnx", of the file; "ms", the median over the rounds of a call's milliseconds, "ms_25" and
    "ms_75", their quartiles; "speedup", the median over the rounds of the parent's time through the network's in the
    same runtime. What isn't known is None. `notes`: what is missing, and why.
    """

    rows: list[dict[str, Any]]
    notes: tuple[str, ...]
    rounds: int
    threads: int

    def __str__(self) -> str:
        lines = [list(HEADERS), *self._cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADERS))]
        shown = [
            "  ".join(
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:], "", self._caption(), *self.notes])

    def _repr_html_(self) -> str:
        return as_html(HEADERS, self._cells(), (self._caption(), *self.notes))

    def _caption(self) -> str:
        return (
            f"ms of a call on a CPU, {self.threads} thread{'' if self.threads == 1 else 's'}: median and quartiles of "
            f"{self.rounds} rounds in which all take turns; times as fast as the parent in the same round: median."
        )

    def _cells(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [
                row["network"],
                row["runtime"],
                str(row["batch"]),
                _shown(row["parameters"], ",d"),
                _shown(row["multiply_adds"], ",d"),
                _shown(row["bytes_float32"], ",.1f", 1000),
                _shown(row["bytes_onnx"], ",.1f", 1000),
                f"{row['ms']:.3g} ({row['ms_25']:.3g} to {row['ms_75']:.3g})",
                _shown(row["speedup"], ".2f"),
            ]


def _shown(number: float | None, how: str, unit: int = 1) -> str:
    """Return a number as it is printed, in a unit; "-" where there is none."""
    return "-" if number is None else format(number if unit == 1 else number / unit, how)


HEADERS = (
    "network", "runtime", "batch", "parameters", "multiply-adds", "float32 kB", "ONNX kB", "ms (quartiles)",
    "times as fast",
)  # fmt: skip


def measure(
    networks: nn.Module | Mapping[str, nn.Module | Path],
    parent: nn.Module,
    example: Any,
    *,
    batches: Sequence[int] = (1, 64),
    runtimes: Sequence[str] = RUNTIMES,
    repeats: int = 20,
    threads: int = 1,
) -> Measured:
    """Return what networks cost beside their parent: size, and milliseconds of a call on a CPU.

    `networks`: one, or several by name; copies are measured, in eval mode. A path among them is an ONNX file, of
    `quantised` for one: it runs in ONNX Runtime alone. `example`: inputs of one image or more, as
    `modlib.deploy.export` takes them; batches of the sizes `batches` are made of its rows. `runtimes`: "eager" (torch,
    inference mode), "onnxruntime" (the file that `export` writes). All networks and the parent take turns in each of
    `repeats` rounds, after one that doesn't count; a turn lasts 5 ms at least. `threads`: of torch, whose own number
    comes back afterwards, and of ONNX Runtime.

    Where a package of the extra `deploy` is missing, or a network can't be exported, its rows in ONNX Runtime are left
    out and a note says so. Raises ValueError or TypeError, before any work, for what cannot be.
    """
    named = _named(networks, parent)
    checks.whole("repeats", repeats, 2)
    checks.whole("threads", threads, 1)
    _check_settings(batches, runtimes)
    batch_size(example)
    example = on_cpu(example)
    copies = {name: frozen_copy(network).cpu() for name, network in named.items() if isinstance(network, nn.Module)}
    with tempfile.TemporaryDirectory() as folder, _threads(threads):
        files, notes = _files({**named, **copies}, example, Path(folder)) if "onnxruntime" in runtimes else ({}, [])
        sizes = {name: _size(copies.get(name), example, files.get(name)) for name in named}
        sessions = {name: session(file, threads) for name, file in files.items()}
        rows = []
        for batch in batches:
            inputs = with_rows(example, batch)
            times = milliseconds(_programs(copies, sessions, inputs, runtimes), repeats)
            rows += [_row(key, batch, sizes[key[0]], times) for key in times]
    order = [(name, runtime) for name in named for runtime in runtimes]
    rows.sort(key=lambda row: order.index((row["network"], row["runtime"])))  # stable: batches keep their order
    return Measured(rows, tuple(notes), repeats, threads)


def _named(networks: nn.Module | Mapping[str, nn.Module | Path], parent: nn.Module) -> dict[str, nn.Module | Path]:
    """Return the networks by name, the parent last."""
    named: dict[str, nn.Module | Path]
    named = {"network": networks} if isinstance(networks, nn.Module) else dict(networks)
    if PARENT in named:
        raise ValueError(f"networks: {PARENT!r} is the parent's own name")
    if not isinstance(parent, nn.Module):
        raise TypeError(f"parent must be an nn.Module, got {type(parent).__name__}")
    for name, network in named.items():
        if not isinstance(network, nn.Module | Path):
            raise TypeError(f"networks: {name!r} must be an nn.Module or a Path, got {type(network).__name__}")
        if isinstance(network, Path) and not network.is_file():
            raise FileNotFoundError(f"networks: there is no file {str(network)!r} for {name!r}")
    return {**named, PARENT: parent}


def _check_settings(batches: Sequence[int], runtimes: Sequence[str]) -> None:
    if not batches or not runtimes or isinstance(runtimes, str):
        raise ValueError(f"batches, runtimes: must be lists of at least one, got {batches!r} and {runtimes!r}")
    for batch in batches:
        checks.whole("batches", batch, 1)
    for runtime in runtimes:
        checks.choice("runtimes", runtime, RUNTIMES)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within it, torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _files(networks: Mapping[str, nn.Module | Path], example: Any, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Write each network as ONNX that is none yet; return the files by name, and why others have none."""
    missing = [package for package in NEEDED if not extras.there(package)]
    if missing:
        return {}, [f"onnxruntime: left out, needs {', '.join(missing)}: pip install 'modlib[deploy]'"]
    files, notes = {}, []
    for i, (name, network) in enumerate(networks.items()):
        try:
            written = network if isinstance(network, Path) else export(network, folder / f"{i}.onnx", example).path
            files[name] = written
        except ValueError as error:
            notes.append(f"{name}: no ONNX file: {str(error).removeprefix('network: ')}")
    return files, notes


def _size(network: nn.Module | None, example: Any, file: Path | None) -> dict[str, int | None]:
    """Return a network's cost and bytes; None is what isn't known, of a file or of a network without one."""
    parts = () if file is None else (file, Path(f"{file}.data"))  # weights may lie beside
    found: dict[str, int | None] = dict.fromkeys(("parameters", "multiply_adds", "bytes_float32"))
    if network is not None:
        numbers = sum(v.numel() for v in (*network.parameters(), *network.buffers()) if v.is_floating_point())
        places = sum(part.places() for part in network.modules() if isinstance(part, SparseLinear))
        found |= {**cost(network, example), "bytes_float32": 4 * (numbers + places)}
    return found | {"bytes_onnx": sum(part.stat().st_size for part in parts if part.is_file()) or None}


def _programs(
    networks: Mapping[str, nn.Module], sessions: Mapping[str, Any], inputs: Any, runtimes: Sequence[str]
) -> dict[Key, Program]:
    """Return one call of each network in each runtime, a runtime after the other."""
    programs: dict[Key, Program] = {}
    if "eager" in runtimes:
        for name, network in networks.items():
            programs[name, "eager"] = partial(_call, network, *arguments(inputs))
    for name, opened in sessions.items():
        programs[name, "onnxruntime"] = partial(opened.run, None, feeds(opened, inputs))
    return programs


def _call(network: nn.Module, by_position: tuple[Any, ...], by_name: dict[str, Any]) -> None:
    with torch.inference_mode():
        network(*by_position, **by_name)


def milliseconds(programs: Mapping[K, Program], repeats: int) -> dict[K, list[float]]:
    """Return the milliseconds of a call of each program, one number a round."""
    for program in programs.values():
        program()  # the first call of all sets things up
    calls = {key: max(1, math.ceil(TURN / max(seconds(program), 1e-7))) for key, program in programs.items()}
    turns = {key: repeated(program, calls[key]) for key, program in programs.items()}
    return {key: [1000 * t / calls[key] for t in taken] for key, taken in in_turns(turns, repeats, warm_up=1).items()}


def _row(key: Key, batch: int, size: Mapping[str, Any], times: Mapping[Key, list[float]]) -> dict[str, Any]:
    """Return one row of the table; `times`: the milliseconds of all that took turns, round by round."""
    name, runtime = key
    low, middle, high = quantiles(times[key], method="inclusive")
    of_parent = times.get((PARENT, runtime))
    faster = None if of_parent is None else median(p / t for p, t in zip(of_parent, times[key], strict=True))
    spread = {"ms": middle, "ms_25": low, "ms_75": high, "speedup": faster}
    return {"network": name, "runtime": runtime, "batch": batch, **size, **spread}
