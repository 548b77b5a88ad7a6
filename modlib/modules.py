"""The modules of a decomposed network: the result of co-training, and what recomposing starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, library, subsets
from modlib.data import Data
from modlib.labels import numbered
from modlib.masking import MaskSet, shortened
from modlib.parent import each_tensor, flat, in_parts, number_of_rows, parent_hash
from modlib.passes import distinct_passes
from modlib.precision import autocast, laid_out, rows_at_once
from modlib.recomposing import Recomposed
from modlib.reporting import Report, report

BY_CLASS = "by_class"
"""Where the metadata of modules that different runs have made hold each one's own: class, as a string -> metadata."""
PICKED = "logits"
"""The entry of the metadata that is a fact of the parent, not of a run: how its logits are found."""

RUNS_LISTED = 3
"""Runs that are printed at most."""


@dataclass(frozen=True, eq=False)
class Modules:
    """One module per class over one frozen parent.

    Attributes:
        parent: the parent, in eval mode (a copy of the user's).
        masks: the supermask of every module.
        grafting_weight: [C, 2, N], row 0 "another class", row 1 "this class".
        grafting_bias: [C, 2].
        statistics: running statistics of batch normalisation, each module's own, buffer name -> [C, shape of the
            buffer]; empty where the parent's are used.
        scores: final scores, layer -> [C, shape of the weight], of a decomposition just made in one process; not saved.
        metadata: recipe, seed and whatever else was recorded. Of modules that different runs have made: what they have
            in common, and under "by_class" all that was recorded of each, see `provenance`.
    """

    parent: nn.Module
    masks: MaskSet
    grafting_weight: Tensor
    grafting_bias: Tensor
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    scores: Mapping[str, Tensor] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each module, in order."""
        return self.masks.classes

    @property
    def passes(self) -> int:
        """How many times the network is called for the log-odds of all modules: once for every different mask."""
        return max(distinct_passes(self)) + 1

    def remaining(self, subset: Iterable[int | str] | None = None) -> float:
        """Return the share of the parent's maskable weights in the union of `subset` (default: all), in [0, 1]."""
        return self.masks.remaining(None if subset is None else self._numbers(subset))

    @property
    def provenance(self) -> dict[int, dict[str, Any]]:
        """What was recorded of the run that made each module: class -> recipe, seed and so on, in the classes' order.

        Selecting, joining and editing keep it, and so does a file.
        """
        by_class = self.metadata.get(BY_CLASS)
        if by_class is None:
            return {c: dict(self.metadata) for c in self.classes}
        return {c: dict(by_class.get(str(c), {})) for c in self.classes}

    def __repr__(self) -> str:
        """A few lines: which classes, how they were made, how much of the parent they keep."""
        weights = sum(mask[0].numel() for mask in self.masks.masks.values())
        passes = self.passes
        names = self.class_names
        shown = self.classes if names is None else [names[c] for c in self.classes]
        return (
            f"Modules of {type(self.parent).__name__} for {len(self.classes)} classes: {shortened(shown)}\n"
            f"  {_made(self.provenance)}\n"
            f"  together {self.remaining():.1%} of {weights:,} maskable weights, {passes} pass{'es' * (passes > 1)}"
        )

    def select(self, subset: Iterable[int | str]) -> Modules:
        """Return the modules of `subset` alone, classes by number or name, in its order."""
        chosen = self._numbers(checks.listed(subset, "classes"))
        rows = self.masks.rows(chosen)
        masks = self.masks.select(chosen)
        return Modules(
            parent=self.parent,
            masks=masks,
            grafting_weight=self.grafting_weight[rows],
            grafting_bias=self.grafting_bias[rows],
            statistics={name: s[rows] for name, s in self.statistics.items()},
            scores=None if self.scores is None else {name: s[rows] for name, s in self.scores.items()},
            metadata=self._metadata_of(masks.classes),
        )

    def _metadata_of(self, classes: Sequence[int]) -> Mapping[str, Any]:
        if BY_CLASS not in self.metadata:
            return self.metadata
        made = self.provenance
        return _recorded({c: made[c] for c in classes})

    def join(self, other: Modules, order: Iterable[int]) -> Modules:
        """Return the modules of both, over this one's parent and on its device, in the given order of classes.

        ValueError where they are of different parents or mask different layers, or only one of both has statistics of
        its own.
        """
        other = self._adopted(other, "other")
        both = Modules(
            parent=self.parent,
            masks=MaskSet(
                {name: torch.cat([m, other.masks.masks[name]]) for name, m in self.masks.masks.items()},
                self.classes + other.classes,
            ),
            grafting_weight=torch.cat([self.grafting_weight, other.grafting_weight]),
            grafting_bias=torch.cat([self.grafting_bias, other.grafting_bias]),
            statistics={name: torch.cat([s, other.statistics[name]]) for name, s in self.statistics.items()},
            scores=None
            if self.scores is None or other.scores is None
            else {name: torch.cat([s, other.scores[name]]) for name, s in self.scores.items()},
            metadata=_recorded(self.provenance | other.provenance),
        )
        return both.select(order)

    def _adopted(self, other: Modules, name: str) -> Modules:
        """Return `other` over this one's parent, and where this one lies; raise ValueError where it does not fit."""
        if not isinstance(other, Modules):
            raise TypeError(f"{name} must be modlib.Modules, got {type(other).__name__}")
        if self.parent is not other.parent and parent_hash(self.parent) != parent_hash(other.parent):
            raise ValueError(f"{name}: its modules are of another parent")
        if self.masks.masks.keys() != other.masks.masks.keys():
            masked, here = list(other.masks.masks), list(self.masks.masks)
            raise ValueError(f"{name}: its modules mask the layers {masked}, the ones here {here} (policy=)")
        if self.statistics.keys() != other.statistics.keys():
            raise ValueError(
                f"{name}: only one of both has statistics of its own (norm='batch'), the other the parent's"
            )
        logits = {entry: v for entry, v in self.metadata.items() if entry == PICKED}
        runs = {c: {n: v for n, v in run.items() if n != PICKED} | logits for c, run in other.provenance.items()}
        masks = {n: mask.to(self.masks.masks[n].device) for n, mask in other.masks.masks.items()}
        return Modules(
            parent=self.parent,
            masks=MaskSet(masks, other.classes),
            grafting_weight=other.grafting_weight.to(self.grafting_weight.device),
            grafting_bias=other.grafting_bias.to(self.grafting_bias.device),
            statistics={n: s.to(self.statistics[n].device) for n, s in other.statistics.items()},
            scores=None
            if self.scores is None or other.scores is None
            else {n: s.to(self.scores[n].device) for n, s in other.scores.items()},
            metadata=_recorded(runs),
        )

    def replace(self, c: int | str, newer: Modules) -> Modules:
        """Return these modules with the one of class `c` taken from `newer`, modules over the same parent.

        The order of the classes stays. Raises ValueError where one of both has no module of `c`, and as `join`.
        """
        (c,) = checks.subset(self._numbers([c]), self.classes, "c")
        adopted = self._adopted(newer, "newer")
        checks.subset([c], newer.classes, "newer")
        others = [own for own in self.classes if own != c]
        one = adopted.select([c])
        return self.select(others).join(one, self.classes) if others else one

    def without(self, classes: Iterable[int | str]) -> Modules:
        """Return the modules of all but `classes`, in their order; ValueError where one is unknown or none is left."""
        asked = self._numbers(classes)
        gone = checks.subset(asked, self.classes) if asked else []
        kept = [c for c in self.classes if c not in gone]
        if not kept:
            raise ValueError(f"classes: {gone} are all there are; at least one module must stay")
        return self.select(kept)

    def add(self, other: Modules) -> Modules:
        """Return these modules and then those of `other`, of further classes over the same parent.

        Raises ValueError where both have a module of the same class, and as `join`.
        """
        adopted = self._adopted(other, "other")
        repeated = [c for c in other.classes if c in self.classes]
        if repeated:
            raise ValueError(f"other: there are modules for {repeated} here already; replace(c, other) swaps one")
        return self.join(adopted, self.classes + other.classes)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of all classes of the parent, where the data had names."""
        names = self.metadata.get("class_names")
        return None if names is None else tuple(names)

    def _numbers(self, classes: Iterable[int | str]) -> list[int]:
        return numbered(classes, self.class_names)

    def recompose(self, subset: Iterable[int | str]) -> Recomposed:
        """Return a network for the classes of `subset`, by number or name, in that order; see `Recomposed`."""
        return Recomposed(self, self._numbers(subset))

    def log_odds(self, inputs: Any, batch_size: int | None = None, precision: str = "float32") -> Tensor:
        """Return every module's log-odds d of `inputs` [B, ...], computed in parts: [B, C], where the inputs are.

        The vote of any subset is the largest of its columns, so one call serves all subsets. One module lies on the
        parent's device at a time, so what that takes there does not grow with the number of classes. `batch_size`:
        default, see `modlib.precision.at_once`. `precision`: "float32" or "bfloat16" (autocast).
        """
        checks.inputs(inputs)
        parts = list(in_parts(inputs, batch_size or rows_at_once(self.parent, inputs)))
        passes, where = distinct_passes(self), flat(inputs)[0].device
        size = (number_of_rows(inputs), len(self.classes))
        found = torch.empty(size, dtype=self.grafting_weight.dtype, device=where)
        for p in range(max(passes) + 1):
            columns = [m for m, own in enumerate(passes) if own == p]
            found[:, columns] = self._log_odds_of(columns, parts, precision).to(found)
        return found

    def report(self, data: Data, split: str | None = None) -> Report:
        """Return how good and how large every module is, and all together, beside the parent: a table.

        `data`: a data set, see `modlib.data`; `split`: the part of it, "test", "held_out" or "train"; default, the
        first of these that has images. `str` of the report is for a terminal, a notebook shows a table, `rows` are
        plain numbers; see `modlib.reporting.Report`.

        Raises TypeError for what is no data set, ValueError where the part is empty or has no image of the classes.
        """
        return report(self, data, split)

    @torch.no_grad()
    def _log_odds_of(self, modules: Sequence[int], parts: Sequence[Any], precision: str) -> Tensor:
        """Return the log-odds [B, len(modules)] of modules (by position) that share a pass, where the network is."""
        together = self.recompose([self.classes[m] for m in modules])
        device = together.classes.device
        with autocast(device, precision):
            moved = (each_tensor(part, lambda v: v.to(device)) for part in parts)
            return torch.cat([together.log_odds(laid_out(self.parent, part, precision)) for part in moved])

    def extra_parameters(self) -> dict[str, int]:
        """Return what a module holds beside its masked weights: numbers of the grafting layer and of statistics."""
        per_module = sum(s[0].numel() for s in self.statistics.values())
        return {
            "grafting": self.grafting_weight[0].numel() + self.grafting_bias[0].numel(),
            "statistics": per_module,
        }

    def save(self, path: str | Path) -> None:
        """Write the modules to one file, without the parent; see `modlib.library`."""
        library.save(self, path)

    def save_subset(self, subset: Iterable[int | str], path: str | Path) -> None:
        """Write what a network of `subset` needs, and nothing else, to one file: `load_subset` needs no parent.

        Classes by number or name.

        See `modlib.subsets`. Raises ValueError for an empty subset, a repeated class, or a class without a module.
        """
        subsets.save(self.select(subset), path)


def _recorded(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metadata of modules that these runs have made (class -> metadata): plain where they are the same."""
    first, *others = runs.values()
    if all(run == first for run in others):
        return dict(first)
    common = {name: v for name, v in first.items() if all(name in run and run[name] == v for run in others)}
    return common | {BY_CLASS: {str(c): dict(run) for c, run in runs.items()}}


def _made(provenance: Mapping[int, Mapping[str, Any]]) -> str:
    """Return in a line how modules were made."""
    made = {c: _settings(run) for c, run in provenance.items()}
    different = dict.fromkeys(made.values())
    if len(different) == 1:
        return next(iter(different))
    each = [f"{shortened(c for c in made if made[c] == words)}: {words}" for words in list(different)[:RUNS_LISTED]]
    more = len(different) - len(each)
    return "; ".join(each) + (f"; and {more} more" if more else "")


def _settings(run: Mapping[str, Any]) -> str:
    """Return what a reader asks first of a run, where it was recorded."""
    known = {**run.get("recipe", {}), **run}
    return ", ".join(f"{n}={known[n]}" for n in ("k", "alpha", "epochs", "vote", "seed") if n in known) or "no recipe"


def load(path: str | Path, parent: nn.Module, logits: Callable[[Any], Tensor] | None = None) -> Modules:
    """Return the modules written to `path`, over `parent`; `logits` picks the logits in its output, as in `cotrain`.

    Masks lie in host memory, however many modules there are; all else is on the parent's device.

    Raises FileNotFoundError where there is no file, and ValueError where it is damaged or not of this format or
    version, where its parts are missing or do not fit each other or the parent, where it belongs to another parent
    (or to this one before it was trained further), and where `logits` is missing.
    """
    return Modules(**library.read(path, parent, logits))


def load_subset(
    path: str | Path, network: nn.Module | None = None, logits: Callable[[Any], Tensor] | None = None
) -> Recomposed:
    """Return the network of a subset that `Modules.save_subset` wrote to `path`: the same as `Modules.recompose` gives.

    `network`: one of the parent's architecture, as its class makes it, on the device that the result shall be on; its
    values are not used, and it stays as it is. A parent that is a plain `nn.Sequential` of flatten, linear, ReLU and
    dropout is described in the file, and needs none. `logits` picks the logits in its output, as in `cotrain`.

    Raises FileNotFoundError where there is no file, and ValueError where it is damaged or not of this format or
    version, where its parts are missing or do not fit each other or the network, and where `network` or `logits` is
    missing.
    """
    modules = Modules(**subsets.read(path, network, logits))
    return modules.recompose(modules.classes)
