"""Moved: see `modlib.study.claims`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.study.claims")
