"""Moved: see `modlib.study.figures`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.figures")
