"""Rules by which numbers decide on the paper's claims; the scoreboard says them in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from modlib.study.claims import VERDICTS
from modlib.study.records import interval, mean_and_spread

HOLDS, CLOSE, PARTLY, DOES_NOT_HOLD, OPEN = VERDICTS
SIDES = ("ahead", "level", "behind")


@dataclass(frozen=True)
class Quantity:
    """A measured quantity: its column of the trials, and what of it counts as the same as a printed number.

    `tolerance`: in the unit of print, which is `scale` times that of the trials; `close`: what is not the same but
    close, in that unit; `digits`: of print.
    """

    column: str
    tolerance: float
    close: float
    scale: float
    digits: int

    def text(self, trials: pd.DataFrame) -> str:
        """Return mean and standard deviation over trials, in the unit of print."""
        return mean_and_spread(trials[self.column], self.scale, self.digits)

    def mean(self, trials: pd.DataFrame) -> float:
        """Return the mean over trials, in the unit of print."""
        return self.scale * float(trials[self.column].mean())

    def near(self, trials: pd.DataFrame, printed: float) -> bool:
        """Return whether the mean lies within two standard deviations or the tolerance of a printed number."""
        spread = self.scale * float(trials[self.column].std()) if len(trials) > 1 else 0.0
        return abs(self.mean(trials) - printed) <= max(2 * spread, self.tolerance)

    def verdict(self, trials: pd.DataFrame, printed: float) -> str:
        """Return the verdict on a printed number."""
        if self.near(trials, printed):
            return HOLDS
        return CLOSE if abs(self.mean(trials) - printed) <= self.close else DOES_NOT_HOLD


ACCURACY = Quantity("accuracy", tolerance=0.5, close=1.0, scale=100, digits=2)
MODULE_ACCURACY = Quantity("module_accuracy", tolerance=0.5, close=1.0, scale=100, digits=2)
JACCARD_INDEX = Quantity("jaccard_index", tolerance=0.01, close=0.03, scale=1, digits=3)
REMAINING = Quantity("remaining_parameters", tolerance=0.001, close=0.005, scale=1, digits=4)


def beside(values: pd.Series, rival: float) -> str:
    """Return which of `SIDES` of a number the mean over trials is on; level where its 95% interval includes the number.

    One trial has no interval, and is level with everything.
    """
    ahead, level, behind = SIDES
    low, high = interval(values)
    return ahead if low > rival else behind if high < rival else level


def yes(shown: bool) -> str:
    """Return the verdict on a claim that is either shown or contradicted."""
    return HOLDS if shown else DOES_NOT_HOLD


def graded(value: float, holds_from: float, partly_from: float) -> str:
    """Return the verdict on a claim that holds above one value, and in part above a lower one."""
    return HOLDS if value > holds_from else PARTLY if value > partly_from else DOES_NOT_HOLD


def of_some_alpha(quantity: Quantity, ends: Sequence[pd.DataFrame], printed: float) -> str:
    """Return the verdict on a number whose alpha is not printed, by the trials at both ends of its range.

    Open where one end gives it, or an alpha in between may.
    """
    agree = [quantity.near(trials, printed) for trials in ends]
    means = [quantity.mean(trials) for trials in ends]
    if all(agree):
        return HOLDS
    return OPEN if any(agree) or min(means) <= printed <= max(means) else DOES_NOT_HOLD


def of_columns(agreeing: int, compared: int, every: int) -> str:
    """Return the verdict on a claim about a number of columns, of which some were compared, and some of these agree."""
    if compared < every:
        return OPEN
    return HOLDS if agreeing == every else PARTLY if agreeing else DOES_NOT_HOLD


def of_rows(verdicts: pd.Series) -> str:
    """Return the verdict on a claim with several rows; one that has not been run contradicts nothing."""
    if verdicts.nunique() == 1:
        return str(verdicts.iloc[0])
    return PARTLY if verdicts.isin([HOLDS, CLOSE, PARTLY]).any() else OPEN
