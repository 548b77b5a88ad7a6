"""What module stemming is compared with: Pan and Rajan's three methods, on their parents and on ours."""

from modlib.baselines import methods, pan_rajan

__all__ = ["methods", "pan_rajan"]
