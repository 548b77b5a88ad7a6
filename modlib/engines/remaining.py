"""How long a training will take, said once, after its first steps."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

AFTER = 5.0
"""Seconds of steps after which it is known; the first step, in which libraries get ready, is left out."""
LONG = 60.0
"""Seconds below which nothing is said."""


class Remaining:
    """Counts the batches of a training of `steps` batches, and says to stderr how long the rest takes, if long.

    `what`: how the training is called. A GPU works through its first steps while they are handed to it: the time is
    then a little too short.
    """

    def __init__(self, what: str, steps: int) -> None:
        self.what = what
        self.steps, self.done, self.began, self.said = steps, 0, 0.0, False

    def step(self) -> None:
        """A batch is asked for: those before it are done."""
        if self.said:
            return
        now = time.perf_counter()
        if self.done == 1:
            self.began = now
        self.done += 1
        measured = self.done - 2
        if measured < 1 or now - self.began < AFTER:
            return
        self.said = True
        left = (now - self.began) / measured * (self.steps - self.done + 1)
        if left > LONG:
            tqdm.write(f"{self.what}: about {in_words(left)} left", file=sys.stderr)


def in_words(seconds: float) -> str:
    """Return a time as a reader wants it: "1 minute", "3 minutes", "2.5 hours"."""
    if seconds < 5400:
        minutes = max(1, round(seconds / 60))
        return f"{minutes} minute{'s' * (minutes > 1)}"
    return f"{seconds / 3600:.1f} hours"
