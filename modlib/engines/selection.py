"""The exact top k of scores that move slowly.

Every training step needs the mask of the k largest scores of every layer. A sort, or even a selection, of all of them
costs more than the rest of the step. But a step moves the scores a little, so the last threshold is a good guess of
the next one: one pass compares all scores with the guess, counts those above it, and notes the few that lie near it.
Too few or too many lie above; the edges that make up the difference are the ones nearest to the guess, and only those
are sorted. The count stays exact, and among equal scores the lower index wins, as in `modlib.masking.top_k_mask`.

The loops over single scores are compiled by Numba; they serve tensors on a CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

BLOCK = 128
"""Scores are looked at in blocks of this many: a block stays in the fastest cache from one loop to the next."""
CANDIDATES = 4096
"""Room for the edges near the guess of one row; where more are near, the whole row is looked through."""


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
        _select_rows(scores.contiguous().numpy(), self.keep.numpy(), self.thresholds, mask.numpy())
        return mask


def is_compiled_for(scores: Tensor) -> bool:
    """Return whether the compiled loops take these scores: float32 or float64 on a CPU."""
    return scores.is_cpu and scores.dtype in (torch.float32, torch.float64)


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


@njit(cache=True, error_model="numpy")
def _select_rows(scores, keep, thresholds, masks):  # type: ignore[no-untyped-def]
    """Write the mask of every row."""
    rows, n = scores.shape
    ones = np.ones(n, scores.dtype)
    for row in range(rows):
        candidates, found, above = np.empty(CANDIDATES, np.int64), 0, 0
        for start in range(0, n, BLOCK):
            block = slice(start, min(start + BLOCK, n))
            more, found = compare(
                scores[row, block], ones[block], thresholds[row], masks[row, block], start, candidates, found
            )
            above += more
        finish(scores[row], ones, keep[row], above, thresholds[row], masks[row], candidates, found)


@njit(cache=True, error_model="numpy")
def compare(ranked, values, threshold, out, start, candidates, found):  # type: ignore[no-untyped-def]
    """Write `values` where `ranked` is above the guess, else 0; count those, and note the positions near the guess.

    `start`: the position of the block in its row. `found`: how many candidates there are so far.
    """
    guess, width, zero = threshold[0], threshold[2], ranked.dtype.type(0)
    above, near = np.int32(0), np.int32(0)  # narrow counters: the loop becomes vector instructions
    for j in range(ranked.size):
        out[j] = values[j] if ranked[j] > guess else zero
        above = np.int32(above + np.int32(ranked[j] > guess))
        near = np.int32(near + np.int32(abs(ranked[j] - guess) <= width))
    if near > 0:
        for j in range(ranked.size):
            if abs(ranked[j] - guess) <= width:
                if found < candidates.size:
                    candidates[found] = start + j
                found += 1
    return above, found


@njit(cache=True, error_model="numpy")
def finish(ranked, values, keep, above, threshold, out, candidates, found):  # type: ignore[no-untyped-def]
    """Add or remove in `out` the edges nearest to the guess, until `keep` are there, and move the guess on."""
    missing = keep - above
    wanted = abs(missing)
    exact, usable = threshold[0], 0
    if wanted > 0:
        nearest = _nearest_first(ranked, threshold[0], missing > 0, candidates[: min(found, candidates.size)])
        usable = nearest.size if found <= candidates.size else 0
        if usable >= wanted:
            for i in nearest[:wanted]:
                out[i] = values[i] if missing > 0 else 0
            exact = ranked[nearest[wanted - 1]]
        else:
            exact = _look_through(ranked, values, keep, out)
    drift = exact - threshold[1]  # momentum and weight decay go on: so does the threshold
    threshold[0] = exact + drift if np.isfinite(drift) else exact
    threshold[1] = exact
    threshold[2] = _next_width(threshold[2], wanted, usable, found > candidates.size, exact)


@njit(cache=True, error_model="numpy")
def _nearest_first(ranked, guess, adding, candidates):  # type: ignore[no-untyped-def]
    """Return the candidates on the side of the guess that edges are added from or removed from, nearest first.

    Ordered by score, not by distance: a difference to a far guess can round two scores to one. Among equal scores the
    lower index is added first and removed last.
    """
    side = np.empty(candidates.size, np.int64)
    count = 0
    for i in range(candidates.size):
        j = candidates[i] if adding else candidates[candidates.size - 1 - i]
        if (ranked[j] > guess) != adding:
            side[count] = j
            count += 1
    key = ranked[side[:count]]
    return side[np.argsort(-key if adding else key, kind="mergesort")]


@njit(cache=True, error_model="numpy")
def _look_through(ranked, values, keep, out):  # type: ignore[no-untyped-def]
    """Write the exact mask of a whole row, without a guess, and return its smallest kept score."""
    exact = np.partition(ranked, ranked.size - keep)[ranked.size - keep]
    room = keep - np.sum(ranked > exact)
    for j in range(ranked.size):
        equal = ranked[j] == exact
        out[j] = values[j] if ranked[j] > exact or (equal and room > 0) else 0
        room -= equal
    return exact


@njit(cache=True, error_model="numpy")
def _next_width(width, wanted, usable, too_many, exact):  # type: ignore[no-untyped-def]
    """Return how far from the guess to look next time: so that few more are found than are wanted."""
    if too_many:
        return width / 2
    if width == 0:
        return abs(exact) * 1e-3 + 1e-12
    if usable < wanted:
        return width * 4
    if wanted > 0 and usable < 1.5 * wanted + 4:
        return width * 1.5
    return width * 0.7 if wanted > 0 and usable > 4 * wanted + 16 else width
