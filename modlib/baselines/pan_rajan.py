"""Moved: see `modlib.decomposers.pan_rajan`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.decomposers.pan_rajan")
