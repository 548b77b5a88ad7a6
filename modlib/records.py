"""Moved: see `modlib.study.records`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.records")
