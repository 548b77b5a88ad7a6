"""Moved: see `modlib.study.controls`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.controls")
