"""Moved: see `modlib.study.single_class`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.single_class")
