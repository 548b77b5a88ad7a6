"""Moved: see `modlib.study.panels`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.panels")
