"""Merging: one classifier over modules of different parents, which need not have seen each other's classes.

Every part is a recomposed network of its own; the class of the largest log-odds wins, whatever part it is of. Log-odds
of different parents need not be on one scale, and no module of one has ever been shown the other's classes: train
modules with images of these as `background=` (see `modlib.data`), and let `Merged.calibrated` fit scales and shifts.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, metrics
from modlib.data import Data, check_data
from modlib.labels import numbered
from modlib.masking import shortened
from modlib.modules import Modules
from modlib.parent import parent_hash
from modlib.precision import rows_at_once
from modlib.recomposing import Recomposed, Voting, threshold_of
from modlib.sources import batches

Inputs = Callable[[Any], Any]
"""What all parts are handed [B, ...] -> what the parent of one of them takes."""
Numbers = tuple[list[int], tuple[str, ...] | None]
"""Classes of all modules, and the names of classes by number."""


class Merged(Voting):
    """A classifier over modules of different parents: inputs [B, ...] -> confidence of each class, [B, K]; see `merge`.

    A plain module, in which nothing is trained. `scale` and `shift` [K] are what `calibrated` has fitted to the
    log-odds, ones and zeros before.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, parts: Sequence[Recomposed], numbers: Numbers, inputs: Sequence[Inputs | None]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.inputs = tuple(inputs)
        classes, self.class_names = numbers
        device = parts[0].classes.device
        self.register_buffer("classes", torch.tensor(classes, device=device))
        self.register_buffer("scale", torch.ones(len(classes), device=device))
        self.register_buffer("shift", torch.zeros(len(classes), device=device))

    @property
    def passes(self) -> int:
        """How many networks a prediction calls."""
        return sum(part.passes for part in self.parts)  # type: ignore[misc]

    def log_odds(self, inputs: Any) -> Tensor:
        """Return each module's log-odds, scaled and shifted: [B, K], on this network's device."""
        found = [
            part.log_odds(inputs if change is None else change(inputs)).to(self.scale.device)  # type: ignore[operator]
            for part, change in zip(self.parts, self.inputs, strict=True)
        ]
        return torch.cat(found, 1) * self.scale + self.shift

    def extra_repr(self) -> str:
        """Return what torch prints in front of the layers."""
        return f"classes {shortened(self.classes.tolist())}; passes: {self.passes}; threshold: {self.threshold}"

    @torch.no_grad()
    def calibrated(self, data: Data, split: str = "held_out", keep: float = 0.95) -> Merged:
        """Return a copy whose log-odds are on one scale, and which answers for a share `keep` of such images.

        Of the images of its classes in `split`, whose labels are its class numbers: a scale and a shift for every
        module that minimise the loss of the vote (`modlib.metrics.calibrate`), then the threshold of
        `predict(..., reject=True)`, as in `Recomposed.calibrated`. Take images that nothing was trained on, and not
        those that you test on.

        Raises TypeError for what is no data set; ValueError for `keep` outside (0, 1], for data whose names are others
        than this network's, and where a class has no image.
        """
        checks.share("keep", keep)
        odds, labels = self._answers(data, split)
        classes = self.classes.tolist()
        missing = sorted(set(classes) - set(labels.tolist()))
        if missing:
            raise ValueError(f"data: no image of the classes {missing} in its part {split!r}; each needs some")
        with torch.enable_grad():
            scale, shift = metrics.calibrate(odds, labels, classes)
        twin = copy.deepcopy(self)
        twin.shift = self.shift * scale + shift
        twin.scale = self.scale * scale
        twin.threshold = threshold_of((odds * scale + shift).amax(1), keep)
        return twin

    def _answers(self, data: Data, split: str) -> tuple[Tensor, Tensor]:
        """Return the log-odds [n, K] and labels [n] of the images of these classes, where the network is."""
        check_data(data)
        names, classes = self.class_names, self.classes.tolist()
        if names is not None and data.class_names is not None:
            other = [c for c in classes if c >= len(data.class_names) or data.class_names[c] != names[c]]
            if other:
                raise ValueError(
                    f"data: class {other[0]} is {names[other[0]]!r} here, its classes are {list(data.class_names)}; "
                    "number both alike (classes=)"
                )
        source = data.part(split)
        rows = torch.isin(source.labels, self.classes.to(source.labels.device)).nonzero()[:, 0]
        if not len(rows):
            raise ValueError(f"data: no image of the classes {classes} in its part {split!r}")
        size = rows_at_once(self, source.batch(rows[:1]).inputs)
        found = [(self.log_odds(b.inputs), b.labels.to(self.scale.device)) for b in batches(source, rows, size)]
        odds, labels = (torch.cat(values) for values in zip(*found, strict=True))
        return odds, labels


def merge(
    *parts: Modules,
    classes: Sequence[Iterable[int | str]] | None = None,
    inputs: Sequence[Inputs | None] | None = None,
) -> Merged:
    """Return one network that votes over the modules of several decompositions, of different parents for the most part.

    Args:
        parts: modules, such as `a.select([0, 1])` and `b.without(["dog"])`. Nothing in them is changed.
        classes: what each part's classes are in the new network, a list for every part with a number, or a name, for
            each of its modules, in their order; names are numbered from 0 as they come. Default: the numbers that they
            have, where all parts mean the same by a number; else their names, where all have names.
        inputs: for every part a function that makes of the network's inputs what the part's parent takes, or None.

    Returns:
        The network, in eval mode, on the device of the first part; see `Merged` for votes on one scale.

    Raises:
        TypeError: for a part that is none.
        ValueError: where there is nothing to merge, where a class is in two parts or means two things, and where
            `classes` or `inputs` do not fit the parts.
    """
    if len(parts) < 2:
        raise ValueError(f"parts: {len(parts)} given; two decompositions at least make something to merge")
    for i, part in enumerate(parts):
        if not isinstance(part, Modules):
            raise TypeError(f"parts: number {i} must be modlib.Modules, got {type(part).__name__}")
    changes = [None] * len(parts) if inputs is None else list(inputs)
    if len(changes) != len(parts) or not all(change is None or callable(change) for change in changes):
        raise ValueError(f"inputs must be a function or None for each of the {len(parts)} parts, got {inputs!r}")
    numbers = _own(parts) if classes is None else _given(parts, classes)
    return Merged([part.recompose(part.classes) for part in parts], numbers, changes).eval()


def _own(parts: Sequence[Modules]) -> Numbers:
    """Return the classes that parts have: by number where these mean the same in all, else by name."""
    names = parts[0].class_names
    if all(part.class_names == names for part in parts):
        every = [c for part in parts for c in part.classes]
        if names is None and len({parent_hash(part.parent) for part in parts}) > 1:
            warnings.warn(
                "classes: the parts have no names, and are of different parents; a number is taken to mean the same "
                "class in all of them, which classes= would say",
                stacklevel=3,
            )
        return _distinct(every), names
    if any(part.class_names is None for part in parts):
        raise ValueError("classes: some parts have names for their classes, others have not; give classes=")
    found = [part.class_names[c] for part in parts for c in part.classes]  # type: ignore[index]
    return numbered(_distinct(found), found), tuple(found)


def _given(parts: Sequence[Modules], classes: Sequence[Iterable[int | str]]) -> Numbers:
    """Return the classes that were asked for; names are numbered as they come."""
    asked = [checks.listed(own, "classes") for own in classes]
    sizes = [len(part.classes) for part in parts]
    if [len(own) for own in asked] != sizes:
        raise ValueError(
            f"classes must be a list for each part, with one for each of its modules, {sizes} in all; got "
            f"{[len(own) for own in asked]}"
        )
    every = _distinct([c for own in asked for c in own])
    if all(isinstance(c, str) for c in every):
        return numbered(every, every), tuple(every)
    for c in every:
        checks.whole("classes: numbers or names, not both;", c, 0)
    return every, None


def _distinct(classes: list[Any]) -> list[Any]:
    twice = sorted({c for c in classes if classes.count(c) > 1}, key=str)
    if twice:
        raise ValueError(f"classes: {twice} are in two parts; leave them out of one (without), or give classes=")
    return classes
