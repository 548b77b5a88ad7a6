"""Old names of what lies in `modlib.zoo` now: they go on working, and say where it is."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def moved(name: str, attribute: str) -> Any:
    """Return an attribute of `modlib.<name>`, which lies in `modlib.zoo` now, and warn where it is asked for."""
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    warnings.warn(f"modlib.{name} is now modlib.zoo.{name}", DeprecationWarning, stacklevel=3)
    places = [importlib.import_module(f"modlib.zoo.{name}")]
    if name == "datasets":
        places.append(importlib.import_module("modlib.data"))  # what there is for arrays of one's own
    for place in places:
        if hasattr(place, attribute):
            return getattr(place, attribute)
    raise AttributeError(f"module 'modlib.{name}' has no attribute {attribute!r}")
