"""What others print: the numbers in `book/published`, as tables."""

from __future__ import annotations

import pandas as pd

from modlib.study.reproduce import Layout

STEMMING = "module stemming"
"""The paper's own method in its Table 1."""


def numbers(stem: str) -> pd.DataFrame:
    """Return a table of numbers that others print, by the stem of its file, such as "table1" or "moda"."""
    return pd.read_csv(Layout.here().root / "book" / "published" / f"{stem}.csv")


def table1_column(dataset: str, model: str) -> pd.DataFrame:
    """Return a column of the paper's Table 1, one row for each method; none where the paper has no such column."""
    table = numbers("table1")
    return table[(table["dataset"] == dataset) & (table["model"] == model)]


def shared_remaining_parameters() -> pd.Series:
    """Return the paper's mean two-class remaining parameters with shared initial scores, by whether there is stemming.

    They are of its Table 2, MNIST FC1 at epoch 25.
    """
    table = numbers("table2")
    return table[table["initial_score_sharing"]].set_index("stemming_loss")["remaining_parameters_mean"]
