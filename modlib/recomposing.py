"""Recomposing (paper, section "Recomposing"): a network for any subset of the classes, without training.

To predict, the deployed network applies each module's mask and grafting layer in turn; the module with the highest
confidence, the softmax of "this class" against "another", wins the vote. Modules with the same mask share one pass of
the network (`modlib.passes`). All passes of a chain of linear layers are one network of wider, sparse layers
(`modlib.stacking`). Masks are multiplied in once, when the network is made.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from modlib import baking, checks, stacking
from modlib.data import Data, check_data
from modlib.masking import shortened
from modlib.parent import brought, each_tensor, flat, in_parts, number_of_rows
from modlib.passes import Decomposed, Passes, distinct_passes
from modlib.precision import rows_at_once
from modlib.sources import batches
from modlib.stacking import Stacked

NONE = -1
"""What a network answers that takes an image for none of its classes."""


class Voting(nn.Module):
    """A classifier that votes: modules have log-odds of their classes, the largest wins."""

    classes: Tensor
    threshold: float | None = None
    """The log-odds that the winner must reach with `predict(..., reject=True)`; None before `calibrated`.

    A plain attribute: copies and pickles keep it, the state dict of tensors does not have it.
    """
    class_names: tuple[str, ...] | None = None
    """Names of classes by their number, or None."""

    def log_odds(self, inputs: Any) -> Tensor:
        """Return the log-odds of each class: [B, K]."""
        raise NotImplementedError

    def forward(self, inputs: Any) -> Tensor:
        """Return the confidence of each module, sigmoid(d): [B, K]."""
        return self.log_odds(inputs).sigmoid()

    @overload
    def predict(
        self,
        inputs: Any,
        reject: float | bool | None = None,
        names: Literal[False] = False,
        batch_size: int | None = None,
    ) -> Tensor: ...
    @overload
    def predict(
        self, inputs: Any, reject: float | bool | None = None, *, names: Literal[True], batch_size: int | None = None
    ) -> list[str | None]: ...
    @torch.no_grad()
    def predict(
        self, inputs: Any, reject: float | bool | None = None, names: bool = False, batch_size: int | None = None
    ) -> Tensor | list[str | None]:
        """Return the class that wins the vote, one of the asked ones, or -1 for none of them: int64 [B].

        `names`: their names instead, None for none of them, where the data that were decomposed had names.
        `batch_size`: rows that pass the network at once; default, see `modlib.precision.at_once`.

        `reject`: the confidence, in (0, 1), that a module must reach for an answer; True for the threshold that
        `calibrated` has found; None or False (default) to answer always. ValueError for another number, and for True
        without a threshold. The vote takes log-odds, whose order is that of the confidences but which do not saturate.
        """
        least = self._least(reject)
        checks.inputs(inputs)
        values, winners = zip(*(self.log_odds(part).max(1) for part in self._parts(inputs, batch_size)), strict=True)
        found = self.classes[torch.cat(winners)].where(torch.cat(values) >= least, NONE)
        if not names:
            return found
        if self.class_names is None:
            raise ValueError("names: the data had no names for these classes")
        return [None if c == NONE else self.class_names[c] for c in found.tolist()]

    def _parts(self, inputs: Any, batch_size: int | None) -> Iterator[Any]:
        """Yield inputs as many rows at a time as a network takes well; all of them where they are none or few."""
        if batch_size is not None:
            checks.whole("batch_size", batch_size, 1)
        size = batch_size or rows_at_once(self, inputs)
        return iter([inputs]) if number_of_rows(inputs) <= size else in_parts(inputs, size)

    def _least(self, reject: float | bool | None) -> float:
        """Return the log-odds that `reject` asks of the winner."""
        if reject is None or reject is False:
            return -math.inf
        if reject is True:
            if self.threshold is None:
                raise ValueError(
                    "reject: True needs a threshold; take the network that calibrated(data) returns, or a number"
                )
            return self.threshold
        checks.real("reject", reject)
        if not 0 < reject < 1:
            raise ValueError(f"reject must be a confidence in (0, 1), True or False, got {reject}")
        return math.log(reject) - math.log1p(-reject)


class Recomposed(Voting):
    """A classifier of the classes `subset`: inputs [B, ...] -> confidence of each, [B, len(subset)], in that order.

    A plain module: it can be moved, saved, put in eval mode. Inputs of any floating-point type, on any device, are
    brought to its own. Nothing in it is trained. Its state fits a network of the same subset of the same modules.
    `passes`: how many networks a prediction calls, one for every different mask among its modules. Raises ValueError
    for an empty subset, a repeated class, or a class without a module.
    """

    def __init__(self, modules: Decomposed, subset: Iterable[int]) -> None:
        super().__init__()
        chosen = modules.select(subset)
        self.remaining = modules.masks.remaining(chosen.classes)
        """Share of the parent's maskable weights in the union, in [0, 1]."""
        self.voters = _stacked(chosen) or Passes(chosen)
        self.passes = max(distinct_passes(chosen)) + 1
        recorded = modules.metadata.get("class_names")
        self.class_names = None if recorded is None else tuple(recorded)
        """Names of all classes of the parent, or None."""
        self.register_buffer("classes", torch.tensor(chosen.classes, device=self.voters.like.device))

    def log_odds(self, inputs: Any) -> Tensor:
        """Return each module's log-odds d, the logit of "this class" minus that of "another": [B, len(subset)]."""
        if not torch.compiler.is_compiling():  # a check of values cannot be exported
            checks.inputs(inputs)
        return self._voted(brought(inputs, self.voters.like))

    def _voted(self, inputs: Any) -> Tensor:
        try:
            found: Tensor = self.voters(inputs)
            return found
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not all(part.is_contiguous() for part in flat(inputs)):  # a network that views its feature maps
                return self._voted(each_tensor(inputs, Tensor.contiguous))  # takes no channels-last images
            shapes = ", ".join(str(tuple(part.shape)) for part in flat(inputs))
            raise ValueError(f"inputs: the network fails on shape {shapes}: {error}") from error

    def train(self, mode: bool = True) -> Recomposed:
        """Set the mode; the network within stays in eval mode, because nothing in it is trained."""
        super().train(mode)
        self.voters.eval()
        return self

    def extra_repr(self) -> str:
        """Return what torch prints in front of the layers."""
        return (
            f"classes {shortened(self.classes.tolist())}; {self.remaining:.1%} of the maskable weights; "
            f"passes: {self.passes}; threshold: {self.threshold}"
        )

    def calibrated(self, data: Data | Tensor, split: str = "held_out", keep: float = 0.95) -> Recomposed:
        """Return a copy that, with `predict(..., reject=True)`, answers for a share `keep` of images of its classes.

        `data`: a data set (see `modlib.data`), of whose `split` the images of this network's classes are taken; or
        inputs [B, ...], all of these classes. The threshold is the largest winning log-odds that this share of them
        reaches: what the winner itself says tells more than its lead, which is large on many an image that all modules
        refuse. Take images that nothing was trained on, and not those that you test on.

        Raises TypeError where `data` is neither, ValueError for `keep` outside (0, 1] and where there is no such image.
        """
        checks.share("keep", keep)
        twin = copy.deepcopy(self)
        twin.threshold = threshold_of(self._winning(data, split), keep)
        return twin

    @torch.no_grad()
    def _winning(self, data: Data | Tensor, split: str) -> Tensor:
        """Return the log-odds of the winner, [n], of inputs or of the images of its classes in a data set."""
        if isinstance(data, Tensor):
            parts = iter(data.split(rows_at_once(self.voters, data)) if data.ndim > 1 else [data])
        else:
            check_data(data)
            source = data.part(split)
            rows = torch.isin(source.labels, self.classes.to(source.labels.device)).nonzero()[:, 0]
            if not len(rows):
                raise ValueError(f"data: no image of the classes {self.classes.tolist()} in its part {split!r}")
            size = rows_at_once(self.voters, source.batch(rows[:1]).inputs)
            parts = (batch.inputs for batch in batches(source, rows, size))
        return torch.cat([self.log_odds(part).amax(1) for part in parts])

    def baked(self) -> nn.Module:
        """Return a network without `modlib` in it: inputs [B, ...] -> confidences, as `forward`; see `modlib.baking`.

        Where the parent takes several inputs, this network takes them as the parent does: `baked(ids=ids, mask=mask)`.
        Its layers are torch's and, unless they are a chain of linear ones, the parent's own classes. It shares no
        memory with this one. Raises ValueError where a function `logits` cannot be found by its name when it is loaded.
        """
        return baking.baked(self.voters, self.classes)


def threshold_of(scores: Tensor, keep: float) -> float:
    """Return the largest of `scores` [n] that a share `keep` of them reaches."""
    kept = max(1, math.ceil(keep * len(scores) - 1e-9))  # 0.55 * 100 is a little more than 55
    return float(scores.sort(descending=True).values[kept - 1])


@torch.no_grad()
def _stacked(chosen: Decomposed) -> Stacked | None:
    """Return the modules as one chain of linear layers, where the parent is one."""
    layers = stacking.linear_layers(chosen.parent)
    if layers is None or layers[0].weight.dtype != chosen.grafting_weight.dtype:
        return None
    passes, names = distinct_passes(chosen), chosen.masks.masks
    chains, columns = [], []
    for p in range(max(passes) + 1):
        own = [m for m, q in enumerate(passes) if p == q]
        masks = {id(w := chosen.parent.get_parameter(n)): mask[own[0]].to(w.device) for n, mask in names.items()}
        chains.append(stacking.masked_chain(layers, masks, chosen.grafting_weight[own], chosen.grafting_bias[own]))
        columns.append(own)
    return Stacked(chains, columns, any(map(stacking.flattens, stacking.unrolled(chosen.parent))))
