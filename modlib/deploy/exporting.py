"""Networks written to one file that runs where this package is not installed, and is run at once and compared.

`.onnx`: ONNX by torch's dynamo exporter, for ONNX Runtime and others. `.pt2`: a program of `torch.export`. Both take a
batch of any size. What a user of the file must know is in it: metadata properties in ONNX, the extra file `modlib.json`
in a program, with the same keys.
"""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modlib import __version__, checks, extras
from modlib.parent import arguments, each_tensor, frozen_copy, parent_hash

ENDINGS = (".onnx", ".pt2")
EXTRA_FILE = "modlib.json"
LARGEST = 2**31 - 2**26
"""Bytes of weights that fit into one ONNX file, with room for the graph: protobuf ends at 2 GB."""

Run = Callable[[Any], list[Tensor]]
"""Inputs -> every tensor of what comes out, in order."""


@dataclass(frozen=True)
class Exported:
    """A file that was written: where, its bytes, and how far it was from the network at most.

    `difference`: the largest difference of a number of an output, as a share of the largest number of that output.
    """

    path: Path
    bytes: int
    difference: float


def export(
    network: nn.Module,
    path: str | Path,
    example: Any,
    *,
    classes: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    note: str = "",
    parent: nn.Module | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write `network`, in eval mode, to `path`, run the file, and return how well both agree.

    `path`: ends in ".onnx" or ".pt2". `example`: inputs of one image or more, on any device: a tensor [B, ...], or a
    tuple or a dict of such, handed over by position or by name; every tensor in it has the batch first. The file takes
    a batch of any size; it runs on a CPU with the example, one row and three. Weights above 2 GB lie beside an ONNX
    file, in `path` + ".data".

    Metadata, strings, lists as JSON: "modlib.version"; "modlib.classes", the class number of each output (default:
    those of a recomposed, merged or baked network); "modlib.names", their names (default: such a network's, where it
    has names); "modlib.note", how inputs are prepared; "modlib.parent", the SHA-256 of `parent`
    (`modlib.parent.parent_hash`). What isn't given is left out.

    Raises ValueError where the ending is another, `classes` or `names` don't fit, or the network can't be exported;
    and where file and network differ by more than `tolerance`, a share of the output's scale. Then nothing is written,
    and a file that was there stays as it was.
    """
    target = target_of(path)
    checks.positive("tolerance", tolerance)
    _check_network("network", network)
    network, example = frozen_copy(network).cpu(), on_cpu(example)
    count = batch_size(example)
    known, of_number = getattr(network, "classes", None), getattr(network, "class_names", None)
    if classes is None and isinstance(known, Tensor):  # recomposed, merged or baked
        classes = known.tolist()
        names = [of_number[c] for c in classes] if names is None and of_number is not None else names
    wanted = {n: _wanted(network, with_rows(example, n)) for n in {count, 1, 3}}
    metadata = _metadata(classes, names, note, parent, wanted[count])
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.part-") as folder, quiet():
        written = Path(folder) / target.name
        run = (_write_onnx if target.suffix == ".onnx" else _write_program)(network, written, example, metadata)
        difference = _difference(run, example, wanted)
        if not difference <= tolerance:  # NaN is above any tolerance
            raise ValueError(
                f"network: the file gives other numbers, by {difference:.2g} of the output's scale where tolerance is "
                f"{tolerance:g}; {target} was not written"
            )
        return Exported(target, _move(Path(folder), target.parent), difference)


def session(path: str | Path, threads: int = 1) -> Any:
    """Return an ONNX Runtime session of a file, on the CPU with so many threads."""
    ort = extras.require("onnxruntime", "running an ONNX file")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors; a warning tells nothing that the comparison doesn't
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(opened: Any, inputs: Any) -> dict[str, Any]:
    """Return `inputs` as a session takes them: its names, in order, -> arrays."""
    return {to.name: values.numpy() for to, values in zip(opened.get_inputs(), tensors(inputs), strict=True)}


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors in a value, alone or in tuples, lists and dicts, in order."""
    found: list[Tensor] = []
    each_tensor(values, lambda one: found.append(one) or one)  # type: ignore[func-returns-value]
    return found


def on_cpu(values: Any) -> Any:
    """Return inputs or outputs with every tensor in them on the CPU, without its graph."""
    return each_tensor(values, lambda one: one.detach().cpu())


def batch_size(example: Any) -> int:
    """Return how many rows an example has: those of its first tensor. Raises ValueError where there are none."""
    found = [len(values) if values.ndim else 0 for values in tensors(example)]
    if not found or min(found) == 0 or len(set(found)) > 1:
        raise ValueError(f"example: must hold tensors [B, ...] with the same B of at least 1, got B of {found}")
    return found[0]


def with_rows(example: Any, count: int) -> Any:
    """Return an example of `count` rows: its first ones, over again where it has fewer."""
    return each_tensor(example, lambda values: values[torch.arange(count) % len(values)])


@torch.no_grad()
def outputs(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return every tensor of what a network gives, in order."""
    by_position, by_name = arguments(inputs)
    return tensors(network(*by_position, **by_name))


def _move(folder: Path, to: Path) -> int:
    """Move the files of a folder, weights beside a model before the model; return their bytes."""
    parts = sorted(folder.iterdir(), reverse=True)
    size = sum(part.stat().st_size for part in parts)
    for part in parts:
        os.replace(part, to / part.name)
    return size


def _wanted(network: nn.Module, inputs: Any) -> list[Tensor]:
    """Return what the file must give; ValueError where the network itself takes no batch of that size."""
    try:
        found = outputs(network, inputs)
    except Exception as error:  # the user's code: it may raise anything
        raise ValueError(f"network: fails on a batch of {batch_size(inputs)}: {_line(error)}") from error
    if not found:
        raise ValueError("network: gives no tensor")
    return found


def target_of(path: str | Path, name: str = "path") -> Path:
    """Return `path` in full; raise where nothing can be written there, or a package for it is missing.

    `name`: what the caller calls it.
    """
    target = Path(path)
    if target.suffix not in ENDINGS:
        raise ValueError(f"{name}: must end in .onnx (ONNX) or .pt2 (torch.export), got {str(path)!r}")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {target.absolute().parent}")
    if target.suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            extras.require(package, "writing ONNX")
    return target.absolute()


def _check_network(name: str, network: Any) -> None:
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name} must be an nn.Module, got {type(network).__name__}")


def _metadata(
    classes: Any, names: Sequence[str] | None, note: str, parent: nn.Module | None, given: list[Tensor]
) -> dict[str, Any]:
    """Return the metadata, checked against each other and what the network gives."""
    found: dict[str, Any] = {"modlib.version": __version__}
    width = given[0].shape[1] if len(given) == 1 and given[0].ndim == 2 else None
    if classes is not None:
        found["modlib.classes"] = [int(c) for c in classes]
    if names is not None:
        if isinstance(names, str):
            raise TypeError(f"names: must be a list of names, got {names!r}")
        found["modlib.names"] = [str(name) for name in names]
    for key in ("classes", "names"):
        many = len(found.get(f"modlib.{key}", ()))
        if many and width is not None and many != width:
            raise ValueError(f"{key}: {many} for a network that gives {width} numbers")
    if note:
        found["modlib.note"] = note
    if parent is not None:
        _check_network("parent", parent)
        found["modlib.parent"] = parent_hash(parent)
    return found


def _program(network: nn.Module, example: Any) -> Any:
    """Return `network` as a program of torch.export that takes a batch of any size."""
    inputs = with_rows(example, max(2, batch_size(example)))  # a size of 1 would be taken for a constant
    batch, shapes = torch.export.Dim("batch"), torch.export.ShapesCollection()
    for values in tensors(inputs):
        shapes[values] = {0: batch}
    by_position, by_name = arguments(inputs)
    try:
        return torch.export.export(network, by_position, by_name, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # exporting runs the user's code: it may raise anything
        raise ValueError(f"network: cannot be exported with a batch of any size: {_line(error)}") from error


def _write_program(network: nn.Module, path: Path, example: Any, metadata: dict[str, Any]) -> Run:
    program = _program(network, example)
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        node.meta.pop("stack_trace", None)  # paths of this machine
    torch.export.save(program, path, extra_files={EXTRA_FILE: _json(metadata)})
    read = torch.export.load(path).module()
    return lambda inputs: outputs(read, inputs)


def _write_onnx(network: nn.Module, path: Path, example: Any, metadata: dict[str, Any]) -> Run:
    program = _program(network, example)
    try:
        made = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:  # an operator that ONNX lacks, and whatever else the exporter meets
        raise ValueError(f"network: cannot be written as ONNX: {_line(error)}") from error
    assert made is not None  # it is None where a path is given
    strings = {key: value if isinstance(value, str) else _json(value) for key, value in metadata.items()}
    _without_traces(made.model)
    made.model.metadata_props.update(strings)
    held = sum(values.nbytes for values in (*network.parameters(), *network.buffers()))
    made.save(path, external_data=held > LARGEST)
    try:
        opened = session(path)
    except Exception as error:  # ONNX Runtime's own kinds
        raise ValueError(f"network: ONNX Runtime cannot run it: {_line(error)}") from error
    return lambda inputs: [torch.as_tensor(values) for values in opened.run(None, feeds(opened, inputs))]


def _without_traces(model: Any) -> None:
    """Take out what the exporter notes beside nodes and values, stack traces with the paths of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _difference(run: Run, example: Any, wanted: Mapping[int, list[Tensor]]) -> float:
    """Return the largest difference of the file's outputs from `wanted`, by number of rows, as a share of their scale.

    The scale of an output is its largest number of all batches: a single row's logit may be next to nothing.
    """
    scales = [torch.stack([_largest(one) for one in each]).max() for each in zip(*wanted.values(), strict=True)]
    shares = [torch.tensor(0.0, dtype=torch.float64)]
    for count, there in wanted.items():
        try:
            found = run(with_rows(example, count))
        except Exception as error:  # the runtime's own kinds
            raise ValueError(f"network: the file fails on a batch of {count}: {_line(error)}") from error
        shapes = [[tuple(one.shape) for one in many] for many in (found, there)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"network: the file gives {shapes[0]} for a batch of {count}, the network {shapes[1]}")
        pairs = zip(found, there, scales, strict=True)
        shares += [_largest(one.double() - two.double()) / scale.clamp(min=1e-30) for one, two, scale in pairs]
    return float(torch.stack(shares).max())


def _largest(values: Tensor) -> Tensor:
    """Return the largest absolute number, 0 where there is none."""
    return values.double().abs().max() if values.numel() else torch.tensor(0.0, dtype=torch.float64)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _line(error: Exception) -> str:
    """Return what an error says, in one line that is short enough to be read."""
    words = " ".join(str(error).split()) or repr(error)
    return words if len(words) <= 300 else f"{words[:300]} ..."


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, exporters neither print, warn nor log: what they write is compared, which tells more."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
