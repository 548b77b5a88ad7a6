"""What module stemming is compared with: Pan and Rajan's three methods, on their parents and on ours."""

from modlib.baselines import comparison, pan_rajan

__all__ = ["comparison", "pan_rajan"]
