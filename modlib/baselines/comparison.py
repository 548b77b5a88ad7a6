"""Moved: see `modlib.study.comparison`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.comparison")
