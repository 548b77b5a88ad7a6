"""The example of a method's page: one trial of recipe ours, its modules, and its record where results are kept."""

from __future__ import annotations

from typing import Any

from modlib import recipes
from modlib.data import Dataset
from modlib.modules import Modules
from modlib.study.records import Record, Store
from modlib.study.trials import Trial, run_trials, trial_modules


def trial(
    *,
    dataset: str,
    model: str,
    parent_epochs: int,
    k: float,
    alpha: float,
    epochs: int,
    batch_size: int,
    seed: int,
    grafting_init: str = "own_logit",
    **_: Any,
) -> Trial:
    """Return the trial that a page's parameters name; further parameters of the page do not decide it."""
    recipe = recipes.ours(k=k, alpha=alpha, epochs=epochs, batch_size=batch_size, grafting_init=grafting_init)
    return Trial(dataset, model, "ours", recipe, seed, parent_epochs)


def decompose(of: Trial, data: Dataset, store: Store) -> tuple[Modules, list[Record]]:
    """Return the modules of a trial, on the CPU, and its record; no record where nothing is kept."""
    records = [] if store.folder is None else run_trials([of], data, store, device="cpu")
    return trial_modules(of, data, store, device="cpu"), records
