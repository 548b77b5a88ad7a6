"""Moved: see `modlib.study.methods`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.methods")
