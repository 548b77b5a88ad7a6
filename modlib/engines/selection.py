"""The exact top k of scores that move slowly.

Every training step needs the mask of the k largest scores of every layer. A sort, or even a selection, of all of them
costs more than the rest of the step. But a step moves the scores a little, so the last threshold is a good guess of
the next one: one pass compares all scores with the guess, and counts. Too few or too many lie above it; the few edges
that make up the difference are the ones nearest to the guess, and only those are sorted. The count stays exact, and
among equal scores the lower index wins, as in `modlib.masking.top_k_mask`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 32
"""Scores are searched for candidates in blocks of this many."""
SMALL = 4096
"""Rows up to this length are selected directly."""


class TopK:
    """Masks of the `keep` largest scores of every row; remembers each row's threshold between calls.

    The memory only saves time: the masks do not depend on it.
    """

    def __init__(self, keep: Tensor) -> None:
        """`keep`: int64 [R], how many of each row are kept."""
        self.keep = keep
        self._guess: Tensor | None = None
        self._last: Tensor
        self._width: Tensor
        self._distance: Tensor
        self._nearness: Tensor
        self._mask: Tensor

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the mask of `scores` [R, n]: 0 or 1 in the dtype of the scores, exactly keep[r] ones in row r.

        The mask is valid until the next call, which may write over it.
        """
        if scores.is_cuda or scores.shape[1] <= SMALL:
            return exact_mask(scores, self.keep)[0]
        if self._guess is None:
            return self._start(scores)
        return self._adjust(scores)

    def _start(self, scores: Tensor) -> Tensor:
        mask, threshold = exact_mask(scores, self.keep)
        rows, n = scores.shape
        padded = -(-n // BLOCK) * BLOCK
        self._distance = torch.full((rows, padded), torch.inf, dtype=scores.dtype)
        self._nearness = torch.empty_like(self._distance)  # buffers: fresh ones this large cost more than the sums
        self._mask = torch.empty_like(scores)
        self._guess, self._last = threshold, threshold.clone()
        self._width = threshold.abs() * 1e-3 + 1e-12
        return mask

    def _adjust(self, scores: Tensor) -> Tensor:
        assert self._guess is not None
        n = scores.shape[1]
        distance = torch.sub(scores, self._guess[:, None], out=self._distance[:, :n])
        mask = torch.sign(distance, out=self._mask).relu_()
        missing = self.keep - mask.sum(1).long()  # below 2**24 ones a float32 sum is exact
        threshold = self._guess.clone()
        if bool(missing.any()):
            failed = self._swap_nearest(scores, mask, missing, threshold)
            if failed.numel():
                mask[failed], threshold[failed] = exact_mask(scores[failed], self.keep[failed])
        # thresholds drift (momentum, weight decay): guess that the last drift goes on
        self._guess, self._last = 2 * threshold - self._last, threshold
        return mask

    def _swap_nearest(self, scores: Tensor, mask: Tensor, missing: Tensor, threshold: Tensor) -> Tensor:
        """Add or remove the |missing| edges nearest to the guess, in place; return the rows where too few were near."""
        rows, n = mask.shape
        side = torch.where(missing > 0, -1.0, 1.0).to(mask.dtype)  # which side of the guess has the edges to swap
        blocks = self._distance.view(rows, -1, BLOCK)
        nearest = torch.abs(self._distance, out=self._nearness).view(blocks.shape).amin(-1)
        near = (nearest <= self._width[:, None]) & (missing != 0)[:, None]
        r, b = near.nonzero(as_tuple=True)
        key = blocks[r, b] * side[r, None]
        inside = (key <= self._width[r, None]) & ((key > 0) | ((key == 0) & (missing[r, None] > 0)))
        at, within = inside.nonzero(as_tuple=True)
        rows_at, columns_at = r[at], b[at] * BLOCK + within
        # ordered by score, not by distance: a difference to a far guess can round two scores to one
        near_key = (scores[rows_at, columns_at] * side[rows_at]).numpy()
        row, index = rows_at.numpy(), columns_at.numpy()
        wanted = missing.abs().numpy()
        found = np.bincount(row, minlength=rows)
        # nearest first; among equals the lower index is added first and removed last
        order = np.lexsort((np.where(missing.numpy()[row] > 0, index, -index), near_key, row))
        start = np.cumsum(found) - found
        rank = np.arange(len(order)) - start[row[order]]
        chosen = order[rank < wanted[row[order]]]
        flat = torch.from_numpy(row[chosen] * n + index[chosen])
        mask.view(-1)[flat] = (missing > 0).to(mask.dtype)[torch.from_numpy(row[chosen])]
        self._move_thresholds(threshold, row[order], near_key[order], start, found, wanted, side)
        return torch.from_numpy(np.flatnonzero(found < wanted))

    def _move_thresholds(
        self,
        threshold: Tensor,
        row: np.ndarray,
        key: np.ndarray,
        start: np.ndarray,
        found: np.ndarray,
        wanted: np.ndarray,
        side: Tensor,
    ) -> None:
        """Move each guess to the last edge swapped, and widen or narrow the search for the next call."""
        served = np.flatnonzero((wanted > 0) & (found >= wanted))
        at = torch.from_numpy(served)
        threshold[at] = torch.from_numpy(key[start[served] + wanted[served] - 1]) * side[at]
        factor = np.ones(len(wanted))
        factor[found < 1.5 * wanted + 4] = 1.5
        factor[found < wanted] = 4.0
        factor[found > 4 * wanted + 16] = 0.7
        factor[wanted == 0] = 1.0
        self._width *= torch.from_numpy(factor).to(self._width.dtype)


def exact_mask(scores: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask of the keep[r] largest of each row of `scores` [R, n], and each row's smallest kept score.

    0 or 1 in the dtype of the scores; among equal scores the lower index wins.
    """
    keep = keep.to(scores.device)
    top = scores.topk(int(keep.max()), dim=1).values
    threshold = top.gather(1, keep[:, None] - 1)
    above = scores > threshold
    equal = scores == threshold
    room = keep[:, None] - above.sum(1, keepdim=True)
    if bool((equal.sum(1, keepdim=True) > room).any()):
        equal &= equal.cumsum(1) <= room
    return (above | equal).to(scores.dtype), threshold[:, 0]
