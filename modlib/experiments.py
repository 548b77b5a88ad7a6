"""Moved: see `modlib.study.trials`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.trials")
