"""Columns: networks that a page puts side by side. Named by its parameters, listed with their records, asked alike."""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from torch import Tensor

from modlib import checks, masking, metrics
from modlib.data import Dataset, Scaling, from_arrays
from modlib.study import names
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.reproduce import Layout, fits
from modlib.study.trials import SPLITS, Trial, trial_modules
from modlib.zoo import parents
from modlib.zoo.datasets import STATISTICS

T = TypeVar("T")
Load = Callable[[str], Dataset]
"""Returns a data set by its name: `modlib.zoo.datasets.load`, or `stand_in` where records are only named."""


@dataclass(frozen=True)
class Column:
    """A network of a page: the data set and the model of its parents."""

    dataset: str
    model: str

    @property
    def name(self) -> str:
        """How tables and figures call it."""
        return names.of_network(self.dataset, self.model)


def named(parameter: str, entries: Sequence[Mapping[str, Any]], kind: type[T]) -> list[T]:
    """Return the entries of a notebook's parameter, each a mapping, as `kind`: a dataclass of texts, numbers and lists.

    A field with a default may be left out. Whole numbers become floats where `kind` has floats: 4 and 4.0 are one
    setting, and one record. Raises ValueError for a name that is missing or unknown, TypeError for a value.
    """
    types = {f.name: str(f.type).removesuffix(" | None") for f in fields(kind)}  # type: ignore[arg-type]
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    made = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise TypeError(f"{parameter}[{i}] must be a mapping with {sorted(needed)}, got {entry!r}")
        if not needed <= entry.keys() <= types.keys():
            optional = sorted(types.keys() - needed)
            more = f", and may have {optional}" if optional else ""
            raise ValueError(f"{parameter}[{i}] has {sorted(entry)}; it must have {sorted(needed)}{more}")
        for name, value in entry.items():
            if not fits(value, types[name]):
                raise TypeError(f"{parameter}[{i}][{name!r}] must be {types[name]}, got {value!r}")
        made.append(kind(**{n: float(v) if types[n] == "float" else v for n, v in entry.items()}))
    return made


@dataclass(frozen=True)
class Listing(Store):
    """A store that notes what it is asked for and computes nothing: a run without a record counts as failed."""

    asked: list[Experiment] = field(default_factory=list)

    def record(
        self,
        stem: str,
        name: str,
        parameters: Mapping[str, Any],
        compute: Callable[[], Rows],
        seconds: float | None = None,
        **facts: Any,
    ) -> Record:
        """Return the rows of the record that is there, without its provenance: it may be of other data."""
        experiment = Experiment(stem, name, dict(parameters))
        self.asked.append(experiment)
        path = experiment.path(self)
        if path is None or not path.exists():
            return Record(dict(parameters), {}, [{"split": split, "failed": "not computed"} for split in SPLITS])
        return Record(dict(parameters), {}, json.loads(path.read_text())["rows"])


def listing(results: str) -> Listing:
    """Return a listing of the records in the folder `results`; where that is empty, of the book's own."""
    return Listing(Path(results).resolve() if results else Layout.here().root / "book" / "results")


def stand_in(name: str) -> Dataset:
    """Return one black image under the name of a data set: enough to name records, which do not ask for images."""
    image, label = np.zeros((1, 8, 8), dtype=np.uint8), np.zeros(1, dtype=np.int64)
    classes = 100 if name == "cifar100" else 10
    return from_arrays(image, label, preprocess=Scaling(*STATISTICS[name]), num_classes=classes, name=name)


def kept_or_scratch(results: str) -> Store:
    """Return the store in the folder `results`; where that is empty, one that goes when this process ends."""
    if results:
        return Store.at(results)
    scratch = tempfile.TemporaryDirectory()
    atexit.register(scratch.cleanup)
    return Store.at(scratch.name)


def last_layer(model: str) -> str:
    """Return the name of a parent's output layer among the weights that are masked; `model`: as in `modlib.zoo`."""
    checks.choice("model", model, parents.NAMES)
    network = parents.fc(parents.FC[model], 1) if model in parents.FC else parents.CONVOLUTIONAL[model]()
    return list(masking.maskable_parameters(network))[-1]


def held_out_and_test(trial: Trial, data: Dataset, store: Store) -> tuple[Tensor, Tensor]:
    """Return the log-odds [n, C] of a trial's modules on the held-out and on the test images."""
    modules = trial_modules(trial, data, store)
    held_out, test = (modules.log_odds(data.inputs(data.split(split)[0])) for split in SPLITS)
    return held_out, test


def votes(answers: Iterable[tuple[Tensor, Tensor]], data: Dataset) -> pd.DataFrame:
    """Return the accuracy of the vote of all classes on test images, one row for each trial.

    `answers`: of `held_out_and_test`. Columns: `plain`, `calibrated` on held-out images, and the difference, `gain`.
    """
    classes, labels, rows = tuple(range(data.num_classes)), data.split("held_out")[1], []
    for held_out, test in answers:
        scale, shift = metrics.calibrate(held_out, labels, classes)
        both = (metrics.recomposed_accuracy(odds, data.test_labels, classes) for odds in (test, test * scale + shift))
        rows.append(dict(zip(("plain", "calibrated"), both, strict=True)))
    table = pd.DataFrame(rows)
    return table.assign(gain=table["calibrated"] - table["plain"])
