"""Moved: see `modlib.zoo.parent_files`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.zoo.parent_files")
