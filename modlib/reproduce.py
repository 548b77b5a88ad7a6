"""Moved: see `modlib.study.reproduce`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.reproduce")
