"""The page on Figure 3: which settings are compared, and what counts as a clear difference."""

from __future__ import annotations

import pandas as pd
import pytest

from modlib.study.pages import figure3
from modlib.study.pages.figure3 import ANY, Curves
from modlib.study.published import Grid


def curves(accuracies: dict[tuple[float, float], list[float]]) -> Curves:
    """Trials of one epoch, by k and alpha: accuracies by seed; more parameters for larger k and smaller alpha."""
    rows = [
        {"model": "fc1", "k": k, "alpha": alpha, "seed": seed, "epoch": 1, "split": "test", "accuracy": accuracy}
        | {"pair_accuracy": accuracy, "module_accuracy": accuracy, "remaining_parameters": k * (2 - alpha)}
        | {"dataset": "mnist", "recipe": "published", "vote": 0.0, "share_init": True, "parent_epochs": 1}
        for (k, alpha), values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]
    return Curves(Grid("mnist", ["fc1"], [0.1, 0.2], [0.0, 1.0], [0, 1, 2], 1, 1, further=[]), pd.DataFrame(rows))


def test_settings_are_compared_by_parameters_and_accuracy() -> None:
    made = curves(
        {
            (0.1, 1.0): [0.90, 0.91, 0.92],
            (0.1, 0.0): [0.93, 0.94, 0.95],  # more parameters, more accuracy: clear
            (0.2, 1.0): [0.96, 0.92, 0.94],  # as many parameters as the one above, and no clear difference
            (0.2, 0.0): [0.80, 0.81, 0.82],  # most parameters, least accuracy
        }
    )
    assert made.trade["accuracy", "α only"] == (1, 2)
    assert made.trade["accuracy", "k only"] == (1, 2)
    assert made.clear["accuracy", "α only"] == (1, 2)
    assert made.clear["accuracy", "k only"] == (1, 1)  # at α = 1 the interval of the difference holds zero
    assert made.trade["accuracy", ANY][0] == 3
    assert "of the clear ones" in figure3.trade_off(made).data


def test_single_trials_have_no_clear_differences() -> None:
    made = curves({(0.1, 1.0): [0.9], (0.1, 0.0): [0.8]})
    assert made.clear["accuracy", ANY] == (0, 0)
    assert made.trade["accuracy", ANY] == (1, 1)


@pytest.mark.parametrize(
    ("less", "total", "verdict"), [(0, 0, "open"), (3, 4, "holds"), (1, 2, "neither"), (1, 4, "reversed")]
)
def test_the_sentence_is_judged_by_thirds(less: int, total: int, verdict: str) -> None:
    assert figure3.judged(less, total) == verdict
