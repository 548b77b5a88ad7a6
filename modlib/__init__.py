"""modlib: decompose a trained classifier into one module per class, recompose any subset without training.

Kingetsu, Kobayashi, Suzuki, *Neural Network Module Decomposition and Recomposition*.
"""

from modlib import cotraining, datasets, library, masking, metrics, parents, recomposing, training
from modlib.cotraining import cotrain
from modlib.library import load
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.recomposing import Recomposed

__version__ = "0.1.0"

__all__ = [
    "MaskSet",
    "Modules",
    "Recomposed",
    "cotrain",
    "cotraining",
    "datasets",
    "library",
    "load",
    "masking",
    "metrics",
    "parents",
    "recomposing",
    "training",
]
