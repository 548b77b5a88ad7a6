"""An experiment: what is measured under which parameters. Its key names its record, so that it is computed once.

Whatever the book measures and keeps is one of these: a trial, a control, a rule of others, a probe, a timing. The key
covers the parameters and the versions of the code's recipes, not the code itself (see `modlib.study.records`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from modlib.recipes import Recipe
from modlib.study.records import Record, Rows, Store, key
from modlib.zoo.training import Parameters


@dataclass(frozen=True)
class Experiment:
    """What decides a result, and where its record lies: `<results>/<kind>/<label>-<key>.json`.

    `kind`: the folder. `label`: the readable part of the name; it decides nothing. `parameters`: everything that
    decides the result, as it can be written to JSON.
    """

    kind: str
    label: str
    parameters: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Eight hexadecimal digits that stand for the parameters."""
        return key(self.parameters)

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.label}-{self.key}"

    def path(self, store: Store, kind: str | None = None, suffix: str = ".json") -> Path | None:
        """Return where its record lies in a store, or another file of its own; None where nothing is kept."""
        return store.path(kind or self.kind, self.name, suffix)

    def is_done(self, store: Store) -> bool:
        """Return whether its record is in a store."""
        path = self.path(store)
        return path is not None and path.exists()

    def run(self, store: Store, measure: Callable[[], Rows], seconds: float | None = None, **facts: Any) -> Record:
        """Return its record: read where it is there, else of the rows that `measure` returns, and written at once.

        `seconds`: of work done before. `facts` go into the provenance. With `data_sha256` among them, ValueError where
        the record that is there was made on other data of the same name.
        """
        record = store.record(self.kind, self.label, self.parameters, measure, seconds, **facts)
        given = facts.get("data_sha256")
        if given is not None and record.provenance.get("data_sha256", given) != given:
            raise ValueError(f"data: the record of {self.label} in {store.folder} was made on other data of this name")
        return record


def chosen(settings: Recipe | Parameters) -> dict[str, Any]:
    """Return the settings that differ from their defaults: a setting added later leaves the keys of old runs alone."""
    return {f.name: getattr(settings, f.name) for f in fields(settings) if getattr(settings, f.name) != f.default}


def later_versions(**versions: int) -> dict[str, int]:
    """Return the versions that a key must tell apart, as `<name>_version`; the first has no mark."""
    return {f"{name}_version": version for name, version in versions.items() if version > 1}
