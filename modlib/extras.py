"""Packages that the core works without: what needs one says which extra brings it, in one line."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

OF = {
    "numba": "fast",
    "torchvision": "zoo",
    "sklearn": "zoo",
    "h5py": "zoo",
    "torch_pruning": "deploy",
    "onnx": "deploy",
    "onnxruntime": "deploy",
    "onnxscript": "deploy",
    "scipy": "book",
    "pandas": "book",
    "matplotlib": "book",
    "seaborn": "book",
    "papermill": "book",
    "jupytext": "book",
    "jupyter_book": "book",
    "yaml": "book",
}
"""The extra of `pip install 'modlib[...]'` that brings a package, by the name that it is imported by."""


def require(module: str, what: str) -> Any:
    """Return a module of an optional package; ImportError where it is missing, with who needs it and the extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, and lacks something else
        raise ImportError(f"{what} needs {package}: pip install 'modlib[{OF[package]}]'", name=package) from error


def there(package: str) -> bool:
    """Say whether a package is installed; it is not imported."""
    return find_spec(package) is not None
