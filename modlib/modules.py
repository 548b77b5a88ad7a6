"""The modules of a decomposed network: the result of co-training, and what recomposing starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, library, subsets
from modlib.masking import MaskSet
from modlib.parent import parent_hash
from modlib.passes import distinct_passes
from modlib.precision import at_once, autocast, laid_out
from modlib.recomposing import Recomposed


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
        metadata: recipe, seed and whatever else was recorded.
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

    def remaining(self, subset: Iterable[int] | None = None) -> float:
        """Return the share of the parent's maskable weights in the union of `subset` (default: all), in [0, 1]."""
        return self.masks.remaining(subset)

    def select(self, subset: Iterable[int]) -> Modules:
        """Return the modules of `subset` alone, in its order."""
        chosen = checks.listed(subset, "classes")
        rows = self.masks.rows(chosen)
        return Modules(
            parent=self.parent,
            masks=self.masks.select(chosen),
            grafting_weight=self.grafting_weight[rows],
            grafting_bias=self.grafting_bias[rows],
            statistics={name: s[rows] for name, s in self.statistics.items()},
            scores=None if self.scores is None else {name: s[rows] for name, s in self.scores.items()},
            metadata=self.metadata,
        )

    def join(self, other: Modules, order: Iterable[int]) -> Modules:
        """Return the modules of both, over this one's parent, in the given order of classes.

        ValueError where they are of different parents, or only one of both has statistics of its own.
        """
        if self.parent is not other.parent and parent_hash(self.parent) != parent_hash(other.parent):
            raise ValueError("other: its modules are of another parent")
        if self.statistics.keys() != other.statistics.keys():
            raise ValueError("other: only one of both has statistics of its own (norm='batch'), the other the parent's")
        both = Modules(
            parent=self.parent,
            masks=MaskSet(
                {name: torch.cat([m, other.masks.masks[name].to(m.device)]) for name, m in self.masks.masks.items()},
                self.classes + other.classes,
            ),
            grafting_weight=torch.cat([self.grafting_weight, other.grafting_weight]),
            grafting_bias=torch.cat([self.grafting_bias, other.grafting_bias]),
            statistics={name: torch.cat([s, other.statistics[name]]) for name, s in self.statistics.items()},
            scores=None
            if self.scores is None or other.scores is None
            else {name: torch.cat([s, other.scores[name]]) for name, s in self.scores.items()},
            metadata=self.metadata,
        )
        return both.select(order)

    def recompose(self, subset: Iterable[int]) -> Recomposed:
        """Return a network for the classes of `subset`, in that order; see `modlib.recomposing.Recomposed`."""
        return Recomposed(self, subset)

    def log_odds(self, inputs: Tensor, batch_size: int | None = None, precision: str = "float32") -> Tensor:
        """Return every module's log-odds d of `inputs` [B, ...], computed in parts: [B, C], where the inputs are.

        The vote of any subset is the largest of its columns, so one call serves all subsets. One module lies on the
        parent's device at a time, so what that takes there does not grow with the number of classes. `batch_size`:
        default, see `modlib.precision.at_once`. `precision`: "float32" or "bfloat16" (autocast).
        """
        checks.tensor("inputs", inputs)
        pixels = inputs.shape[2:].numel() if inputs.ndim > 3 else inputs.shape[1:].numel()
        parts = inputs.split(batch_size or at_once(self.parent, inputs.shape[1:], pixels))
        passes = distinct_passes(self)
        found = torch.empty(len(inputs), len(self.classes), dtype=self.grafting_weight.dtype, device=inputs.device)
        for p in range(max(passes) + 1):
            columns = [m for m, own in enumerate(passes) if own == p]
            found[:, columns] = self._log_odds_of(columns, parts, precision)
        return found

    @torch.no_grad()
    def _log_odds_of(self, modules: Sequence[int], parts: Sequence[Tensor], precision: str) -> Tensor:
        """Return the log-odds [B, len(modules)] of modules (by position) that share a pass, where the inputs are."""
        together = self.recompose([self.classes[m] for m in modules])
        device = together.classes.device
        with autocast(device, precision):
            odds = [together.log_odds(laid_out(self.parent, part.to(device), precision)) for part in parts]
        return torch.cat([part.to(parts[0].device, self.grafting_weight.dtype) for part in odds])

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

    def save_subset(self, subset: Iterable[int], path: str | Path) -> None:
        """Write what a network of `subset` needs, and nothing else, to one file: `load_subset` needs no parent.

        See `modlib.subsets`. Raises ValueError for an empty subset, a repeated class, or a class without a module.
        """
        subsets.save(self.select(subset), path)


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
