"""Moved: see `modlib.engines.checkpoints`."""

import importlib
import sys

sys.modules[__name__] = importlib.import_module("modlib.engines.checkpoints")
