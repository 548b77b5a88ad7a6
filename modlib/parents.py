"""Moved: see `modlib.zoo.parents`. This name goes on working, with a warning."""

from typing import Any

from modlib.moved import moved


def __getattr__(name: str) -> Any:
    return moved("parents", name)
