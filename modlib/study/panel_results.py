"""What the panels of Figure 4 have given: tables over all panels, for the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from modlib.data import Dataset
from modlib.recipes import Recipe
from modlib.study import panels
from modlib.study.panels import Panel
from modlib.study.records import Record, Store
from modlib.study.trials import run_variants, trained_parent
from modlib.zoo import datasets, training

RESTRICTED = "restricted parent"


@dataclass(frozen=True)
class Results:
    """What one panel has given. Tables have a column `panel`.

    `rows`, `tried`: of trials, epoch by epoch, by `variant`. `subsets`, `controls`: accuracies of recomposed networks
    by number of `classes` and `setting`, of trials and of one shared mask. `untrained`: see
    `modlib.study.panels.before_training`. `devices`: CPU or GPU, by setting. `parents`: accuracy on held-out images,
    and their number, by seed.
    """

    panel: Panel
    num_classes: int
    train_images: int
    done: list[Record]
    rows: pd.DataFrame
    tried: pd.DataFrame
    subsets: pd.DataFrame
    controls: pd.DataFrame
    untrained: pd.DataFrame
    devices: dict[str, set[str]]
    parents: dict[int, tuple[float, int]]

    @property
    def size(self) -> str:
        """Whether the panel is of the paper's size."""
        return "reduced" if self.panel.reduced else "full size"

    @property
    def paper_dataset(self) -> str:
        """The data set of the paper that it stands for."""
        return self.panel.dataset.removesuffix("_10k")

    def recipes(self) -> dict[str, Recipe]:
        """Return the recipe of everything that was run, by name."""
        panel = self.panel
        return panel.settings() | panel.recipes_of(panel.tried) | panel.control_recipes()


@dataclass(frozen=True)
class Evidence:
    """What all panels have given, by the panel's name."""

    panels: dict[str, Results]

    def _all(self, kind: str) -> pd.DataFrame:
        return pd.concat([getattr(results, kind) for results in self.panels.values()], ignore_index=True)

    @property
    def done(self) -> list[Record]:
        """All records."""
        return [record for results in self.panels.values() for record in results.done]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Trials of the settings that the page shows."""
        return self._all("rows")

    @cached_property
    def tried(self) -> pd.DataFrame:
        """Trials of what only first seeds tried."""
        return self._all("tried")

    @cached_property
    def subsets(self) -> pd.DataFrame:
        """Recomposed networks of the settings that the page shows."""
        return self._all("subsets")

    @cached_property
    def controls(self) -> pd.DataFrame:
        """Recomposed networks of one shared mask, tried ones too; those that failed have none."""
        return self._all("controls").dropna(subset=["classes"])

    @cached_property
    def untrained(self) -> pd.DataFrame:
        """Masks by magnitude that nothing was trained for."""
        return self._all("untrained")

    @cached_property
    def trials(self) -> pd.DataFrame:
        """All trials, tried ones last."""
        return pd.concat([self.rows, self.tried], ignore_index=True)

    @cached_property
    def failed(self) -> pd.DataFrame:
        """Trials and controls that failed, with the reason."""
        every = pd.concat([self.trials, self._all("controls").rename(columns={"setting": "variant"})])
        return every.reindex(columns=["panel", "variant", "seed", "failed"]).dropna(subset=["failed"])

    def last(self, rows: pd.DataFrame, split: str = "test") -> pd.DataFrame:
        """Return the rows of trials after the last epoch of their panel, on one split."""
        epochs = rows["panel"].map({name: results.panel.epochs for name, results in self.panels.items()})
        return rows[(rows["split"] == split) & (rows["epoch"] == epochs)]

    @cached_property
    def shown_controls(self) -> pd.DataFrame:
        """The controls that are drawn: those of every seed."""
        return self.controls[
            [
                setting in self.panels[panel].panel.controls
                for panel, setting in zip(self.controls["panel"], self.controls["setting"], strict=True)
            ]
        ]

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Recomposed networks of all settings, of restricted parents, and of the controls that are drawn."""
        restricted = self.subsets.drop_duplicates(["panel", "seed", "classes"])
        restricted = restricted.assign(setting=RESTRICTED, accuracy=restricted["parent_accuracy"], union=1.0)
        return pd.concat([self.subsets, restricted, self.shown_controls], ignore_index=True)

    def of_all_classes(self, name: str) -> pd.DataFrame:
        """Return the curves of a panel where all classes are recomposed."""
        return self.curves[(self.curves["panel"] == name) & (self.curves["classes"] == self.panels[name].num_classes)]

    @cached_property
    def images(self) -> str:
        """On how many test images, where that is not all, in brackets."""
        limits = [
            f"of {name} the first {results.panel.final_images:,}"
            for name, results in self.panels.items()
            if results.panel.final_images
        ]
        return f" ({'; '.join(limits)})" if limits else ""


def gather(settings: Sequence[Mapping[str, Any]], store: Store) -> Evidence:
    """Run what is open of the panels with these settings, and read the rest."""
    results = [_results(Panel.of(of_panel), store) for of_panel in settings]
    return Evidence({one.panel.title: one for one in results})


def _results(panel: Panel, store: Store) -> Results:
    data = datasets.load(panel.dataset)
    panels.run(panel, data, store)
    trials, name = panel.trials(), panel.title
    done, rows = run_variants(trials, data, store)
    devices: dict[str, set[str]] = {}
    subsets, controls, one_mask = [], [], []
    settings = [setting for setting, of_setting in trials.items() for _ in of_setting]
    for setting, record in zip(settings, done, strict=True):
        kind = "CPU" if record.provenance["device"].startswith("CPU") else "GPU"
        devices.setdefault(setting, set()).add(kind)
        curve = pd.DataFrame(record.rows[-1].get("subsets", []))  # the last row: the last epoch, on test images
        subsets.append(curve.assign(panel=name, setting=setting, seed=record.parameters["seed"]))
    for setting, seed in panel.control_runs():
        one_mask.append(panels.shared_mask(panel, seed, data, store, control=setting))
        controls.append(pd.DataFrame(one_mask[-1].rows).assign(panel=name, setting=setting))
    before = panels.before_training(panel, data, store)
    tried, tried_rows = run_variants(panel.tried_trials(), data, store) if panel.tried else ([], pd.DataFrame())
    return Results(
        panel=panel,
        num_classes=data.num_classes,
        train_images=len(data.train_labels),
        done=[*done, *one_mask, before, *tried],
        rows=rows.assign(panel=name),
        tried=tried_rows.assign(panel=name),
        subsets=pd.concat(subsets, ignore_index=True),
        controls=pd.concat(controls, ignore_index=True),
        untrained=pd.DataFrame(before.rows).assign(panel=name),
        devices=devices,
        parents={seed: _parent_held_out(panel, seed, data, store) for seed in panel.seeds},
    )


def _parent_held_out(panel: Panel, seed: int, data: Dataset, store: Store) -> tuple[float, int]:
    """Return a parent's accuracy on the held-out images that modules are measured on, and their number."""
    parent = trained_parent(data, panel.model, seed, panel.parent_epochs, store, panel.parent_recipe)
    images, labels = (part[: panel.final_images] for part in data.split("held_out"))
    measured = replace(data, held_out_images=images, held_out_labels=labels)
    return training.accuracy(parent, measured, "held_out", panel.precision), len(labels)
