"""The exact top k of scores that move slowly.

Every training step needs the mask of the k largest scores of every layer. A sort, or even a selection, of all of them
costs more than the rest of the step. But a step moves the scores a little, so the last threshold is a good guess of
the next one: one pass compares all scores with the guess, counts those above it, and notes the few that lie near it.
Too few or too many lie above; the edges that make up the difference are the ones nearest to the guess, and only those
are sorted. The count stays exact, and among equal scores the lower index wins, as in `modlib.masking.top_k_mask`.

The loops over single scores (`modlib.engines.compiled`) are compiled by Numba, where it is installed; they serve
tensors on a CPU. Elsewhere `exact_mask` is the plain path.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from modlib import extras


class TopK:
    """Masks of the `keep` largest scores of every row; remembers each row's threshold between calls.

    The memory only saves time: the masks do not depend on it.
    """

    def __init__(self, keep: Tensor) -> None:
        """`keep`: int64 [R], how many of each row are kept."""
        self.keep = keep
        self.thresholds: np.ndarray | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the mask of `scores` [R, n]: 0 or 1 in the dtype of the scores, exactly keep[r] ones in row r."""
        if not is_compiled_for(scores):
            return exact_mask(scores, self.keep).to(scores.dtype)
        if self.thresholds is None:
            self.thresholds = no_thresholds(len(self.keep), scores.dtype)
        mask = torch.empty_like(scores, memory_format=torch.contiguous_format)
        from modlib.engines import compiled  # with Numba, which takes a second to load

        compiled.select_rows(scores.contiguous().numpy(), self.keep.numpy(), self.thresholds, mask.numpy())
        return mask


@cache
def has_numba() -> bool:
    """Say whether Numba is installed (the extra `fast`)."""
    return extras.there("numba")


def is_compiled_for(scores: Tensor) -> bool:
    """Return whether there are compiled loops, and they take these scores: float32 or float64 on a CPU."""
    return has_numba() and scores.is_cpu and scores.dtype in (torch.float32, torch.float64)


def no_thresholds(rows: int, dtype: torch.dtype) -> np.ndarray:
    """Return what is known of every row's threshold before the first selection: [R, 3] = guess, last one, width.

    No score is near a guess of infinity, so the first selection looks through the row.
    """
    return torch.tensor([torch.inf, torch.inf, 0.0], dtype=dtype).repeat(rows, 1).numpy()


def exact_mask(scores: Tensor, keep: Tensor) -> Tensor:
    """Return the mask of the keep[r] largest of each row of `scores` [R, n], on any device: bool; lower indices win.

    `keep`: int64 [R], best on the CPU. Nothing is then read back from the device, which would have to wait for it.
    """
    most, alike = int(keep.max()), bool((keep == keep[0]).all())
    # where all rows keep as many, the largest need no order among them: their sort takes longer than their selection
    largest = scores.topk(most, dim=1, sorted=not alike).values
    count = most if alike else keep.to(scores.device)[:, None]
    threshold = largest.amin(1, keepdim=True) if isinstance(count, int) else largest.gather(1, count - 1)
    above, equal = scores > threshold, scores == threshold
    room = count - above.sum(1, keepdim=True)
    return above | (equal & (equal.cumsum(1) <= room))
