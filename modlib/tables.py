"""Moved: see `modlib.study.tables`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.tables")
