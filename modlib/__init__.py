"""modlib: decompose a trained classifier into one module per class, recompose any subset without training.

Kingetsu, Kobayashi, Suzuki, *Neural Network Module Decomposition and Recomposition*. The method lies in this folder,
one idea a file. Rooms hold the rest, and are loaded when they are first asked for: `engines`, how modules take their
steps; `decomposers`, the ways to take a network apart; `deploy`, networks made small; `zoo`, the book's data and
parents; `study`, its experiments.
"""

from importlib import import_module
from typing import Any

from modlib import cotraining, data, library, masking, metrics, recomposing, reporting
from modlib.cotraining import cotrain
from modlib.examination import CheckWarning, check
from modlib.masking import MaskSet
from modlib.merging import Merged, merge
from modlib.modules import Modules, load, load_subset
from modlib.recipes import Recipe, ours, published
from modlib.recommending import recommended
from modlib.recomposing import Recomposed
from modlib.reporting import Report

__version__ = "0.2.0"

ROOMS = ("decomposers", "deploy", "study", "zoo")
MOVED = ("datasets", "parents", "training")
"""Now in `modlib.zoo`; the old names go on working, and say so."""

__all__ = [
    "CheckWarning",
    "MaskSet",
    "Merged",
    "Modules",
    "Recipe",
    "Recomposed",
    "Report",
    "check",
    "cotrain",
    "cotraining",
    "data",
    "library",
    "load",
    "load_subset",
    "masking",
    "merge",
    "metrics",
    "ours",
    "published",
    "recommended",
    "recomposing",
    "reporting",
]


def __getattr__(name: str) -> Any:
    """Load a room, or what has moved to one, when it is first asked for."""
    if name in ROOMS or name in MOVED:
        return import_module(f"modlib.{name}")
    raise AttributeError(f"module 'modlib' has no attribute {name!r}")
