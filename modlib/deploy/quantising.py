"""int8: an ONNX file with weights and activations of eight bits, by ONNX Runtime's own tool, and how far it agrees."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modlib import checks, extras
from modlib.deploy.exporting import batch_size, feeds, on_cpu, quiet, session
from modlib.parent import each_tensor


@dataclass(frozen=True)
class Quantised:
    """An int8 file that was written: where, its bytes, and how far it agrees with the float one on the calibration.

    `agreement`: the share of rows with the same largest output. `difference`: the largest difference of an output, as
    a share of the largest output.
    """

    path: Path
    bytes: int
    agreement: float
    difference: float


def quantised(source: str | Path, path: str | Path, calibration: Any, *, batch: int = 32) -> Quantised:
    """Write the int8 version of the ONNX file `source` to `path`, run both, and return how far they agree.

    `source`: a file of `modlib.deploy.export` with one output [B, K]; its metadata are kept. `calibration`: inputs of
    some hundred images, as `export` takes an example, in whose ranges the activations are rounded; `batch` of them go
    through at once. Weights are int8 with a scale a channel, activations uint8 with one a tensor (static, QDQ). On
    processors without VNNI sums may saturate; the agreement, measured on this one, shows it. The images of the
    calibration flatter it: measure the accuracy on others.

    Raises FileNotFoundError where there is no `source`, ValueError where it can't be quantised; then nothing is
    written.
    """
    source, target = Path(source), Path(path).absolute()
    if not source.is_file():
        raise FileNotFoundError(f"source: there is no file {str(source)!r}")
    if target.suffix != ".onnx" or not target.parent.is_dir():
        raise ValueError(f"path: must end in .onnx and lie in a folder that is there, got {str(path)!r}")
    checks.whole("batch", batch, 1)
    count = batch_size(calibration)
    calibration = on_cpu(calibration)
    parts = [_part(calibration, at, batch) for at in range(0, count, batch)]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.part-") as folder, quiet():
        written = Path(folder) / target.name
        try:
            _quantise(source, written, parts, Path(folder))
            exact, rounded = (_outputs(file, parts) for file in (source, written))
        except Exception as error:  # the tool's own kinds, and bare asserts
            raise ValueError(f"source: {source} cannot be quantised: {error!r}") from error
        size = written.stat().st_size
        os.replace(written, target)
    agreement = (exact.argmax(1) == rounded.argmax(1)).double().mean()
    difference = (exact - rounded).abs().max() / exact.abs().max().clamp(min=1e-30)
    return Quantised(target, size, float(agreement), float(difference))


def _part(inputs: Any, at: int, batch: int) -> Any:
    return each_tensor(inputs, lambda values: values[at : at + batch])


def _quantise(source: Path, target: Path, parts: list[Any], folder: Path) -> None:
    """Fold and infer shapes first, as the tool asks for, then quantise with the ranges of `parts`."""
    tool = extras.require("onnxruntime.quantization", "quantising")
    shapes = extras.require("onnxruntime.quantization.shape_inference", "quantising")
    prepared = folder / "prepared.onnx"
    shapes.quant_pre_process(str(source), str(prepared))

    class Reader(tool.CalibrationDataReader):  # type: ignore[name-defined]
        """Hands the tool one batch after the other."""

        def __init__(self) -> None:
            opened = session(prepared)
            self.left: Iterator[dict[str, Any]] = (feeds(opened, part) for part in parts)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    tool.quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=tool.QuantFormat.QDQ,
        per_channel=True,
        activation_type=tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8,
    )


def _outputs(file: Path, parts: list[Any]) -> torch.Tensor:
    """Return the first output of a file for all parts: float64 [n, K]."""
    opened = session(file)
    return torch.cat([torch.as_tensor(opened.run(None, feeds(opened, part))[0]).double() for part in parts])
