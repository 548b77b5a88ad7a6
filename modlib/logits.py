"""Moved: see `modlib.parent`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.parent")
