"""A subset's network in int8: what rounding costs in accuracy and brings in bytes and milliseconds, in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modlib.data import Dataset
from modlib.decomposers.channels import BATCH, restricted_accuracy, rows_of_classes, told_right
from modlib.deploy import export, measure, quantised
from modlib.deploy.exporting import feeds, session
from modlib.deploy.measuring import PARENT
from modlib.seeds import generator
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.small_networks import SmallNetwork, channels_of
from modlib.study.trials import SPLITS
from modlib.zoo.datasets import identity

VERSION = 1
"""Raised when the same settings give another network."""
FLOAT, INT8 = "float32", "int8"


@dataclass(frozen=True)
class EightBits:
    """A subset's network and its int8 version, timed in turns with their parent.

    `calibration`: unlabelled training images of the subset that show the ranges of activations. `repeats`: rounds.
    """

    network: SmallNetwork
    repeats: int
    calibration: int = 200

    def experiment(self, data: Dataset) -> Experiment:
        """Return it as an experiment: its record."""
        settings = {
            "network_version": self.network.version,
            "calibration": self.calibration,
            "repeats": self.repeats,
            "version": VERSION,
        }
        of = identity(data) | vars(self.network.subject) | self.network.parameters | settings
        return Experiment("small_networks", f"{self.network.subject.label(data)}-int8", of)

    def run(self, data: Dataset, store: Store) -> Record:
        """Return its record: for both networks and the parent the times of each batch, with accuracy by split."""
        return self.experiment(data).run(store, lambda: self._rows(data, store), data_sha256=data.sha256())

    def _rows(self, data: Dataset, store: Store) -> Rows:
        parent, channels = channels_of(data, store)(self.network.subject)
        subset = self.network.subset
        small = self.network.made(channels, data)
        with tempfile.TemporaryDirectory() as folder:
            exact, rounded = (Path(folder) / f"{name}.onnx" for name in (FLOAT, INT8))
            export(small, exact, channels.example)
            quantised(exact, rounded, self._images(data))
            times = measure(
                {FLOAT: small, INT8: rounded}, parent, channels.example, runtimes=("onnxruntime",), repeats=self.repeats
            )
            found = {
                FLOAT: {split: restricted_accuracy(small, data, subset, split) for split in SPLITS},
                INT8: {split: accuracy_of_file(rounded, data, subset, split) for split in SPLITS},
                PARENT: {split: restricted_accuracy(parent, data, subset, split, subset) for split in SPLITS},
            }
        return [row | {"subset": list(subset)} | _named(found[row["network"]]) for row in times.rows]

    def _images(self, data: Dataset) -> torch.Tensor:
        rows = rows_of_classes(data, self.network.subset, "train")
        drawn = torch.randperm(len(rows), generator=generator(self.network.subject.seed, "calibration"))
        return data.part("train").batch(rows[drawn[: self.calibration]]).inputs


def _named(accuracies: dict[str, float]) -> dict[str, float]:
    return {f"{split}_accuracy": accuracy for split, accuracy in accuracies.items()}


def accuracy_of_file(file: Path, data: Dataset, subset: Sequence[int], split: str) -> float:
    """Return what `restricted_accuracy` does of an ONNX file that gives one logit for each class of `subset`."""
    rows, opened = rows_of_classes(data, subset, split), session(file)
    parts = [opened.run(None, feeds(opened, data.part(split).batch(part).inputs))[0] for part in rows.split(BATCH)]
    logits = torch.cat([torch.as_tensor(part) for part in parts])
    return told_right(logits, data.part(split).labels[rows], subset)
