"""The loops over single scores, compiled by Numba for a CPU: the exact top k, and a step in one pass over memory.

What they compute is defined in `modlib.engines.selection` and `modlib.engines.update`, which call them. The loops over
a block are compiled into their callers (`inline`): Numba counts references to the view of a block that it hands over,
which took up to a quarter of all time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange, set_num_threads
from numba.core import config

BLOCK = 256
"""Scores are looked at in blocks of this many: a block stays in the fastest cache from one loop to the next."""
CANDIDATES = 4096
"""Room for the edges near the guess of one row; where more are near, the whole row is looked through."""


def step(scores: np.ndarray, *rest: Any) -> None:
    """Take a step with every row, see `_step_rows`, on as many threads as torch has."""
    threads = min(torch.get_num_threads(), config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if threads > 1:
        set_num_threads(threads)
    (_step_in_parallel if threads > 1 else _step_rows)(scores, *rest)


@njit(cache=True, error_model="numpy")
def select_rows(scores, keep, thresholds, masks):  # type: ignore[no-untyped-def]
    """Write the mask of every row."""
    rows, n = scores.shape
    ones = np.ones(n, scores.dtype)
    for row in range(rows):
        candidates, found, above = np.empty(CANDIDATES, np.int64), 0, 0
        for start in range(0, n, BLOCK):
            block = slice(start, min(start + BLOCK, n))
            more, found = _compare(
                scores[row, block], ones[block], thresholds[row], masks[row, block], start, candidates, found
            )
            above += more
        _finish(scores[row], ones, keep[row], above, thresholds[row], masks[row], candidates, found)


@njit(cache=True, error_model="numpy", inline="always")
def _compare(ranked, values, threshold, out, start, candidates, found):  # type: ignore[no-untyped-def]
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
def _finish(ranked, values, keep, above, threshold, out, candidates, found):  # type: ignore[no-untyped-def]
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


@njit(cache=True, error_model="numpy")
def _step_rows(scores, momentum, gradient, weight, average, factor, rates, p, absolute, keep, thresholds, masked):  # type: ignore[no-untyped-def]
    """Take a step with every row; rows of `weight`, `average` and `factor` serve as many rows of scores each."""
    per_run = scores.shape[0] // weight.shape[0]
    for row in prange(scores.shape[0]):
        run = row // per_run
        _step_row(
            scores[row],
            momentum[row],
            gradient[row],
            weight[run],
            average[run],
            factor[run],
            rates,
            p,
            absolute,
            keep[row],
            thresholds[row],
            masked[row],
        )


_step_in_parallel = njit(cache=True, parallel=True, error_model="numpy")(_step_rows.py_func)


@njit(cache=True, error_model="numpy")
def _step_row(scores, momentum, gradient, weight, average, factor, rates, p, absolute, keep, threshold, masked):  # type: ignore[no-untyped-def]
    candidates, found, above = np.empty(CANDIDATES, np.int64), 0, 0
    for start in range(0, scores.size, BLOCK):
        b = slice(start, min(start + BLOCK, scores.size))
        block = scores[b]
        _move(block, momentum[b], gradient[b], weight[b], average[b], factor, rates, p, absolute)
        ranked = np.abs(block) if absolute else block
        more, found = _compare(ranked, weight[b], threshold, masked[b], start, candidates, found)
        above += more
    ranked = np.abs(scores) if absolute else scores
    _finish(ranked, weight, keep, above, threshold, masked, candidates, found)


@njit(cache=True, error_model="numpy", inline="always")
def _move(scores, momentum, gradient, weight, average, factor, rates, p, absolute):  # type: ignore[no-untyped-def]
    """Move the scores of one block: the first four lines of the module's docstring."""
    rate, inertia, decay = rates
    for j in range(scores.size):
        gradient[j] *= weight[j]
    if factor != 0:
        for j in range(scores.size):
            difference = (abs(scores[j]) if absolute else scores[j]) - average[j]
            if p == 1:
                gradient[j] += factor if difference > 0 else (-factor if difference < 0 else 0 * factor)
            else:
                gradient[j] += factor * difference
    if absolute:
        for j in range(scores.size):
            gradient[j] *= np.sign(scores[j])
    for j in range(scores.size):
        g = gradient[j] + decay * scores[j]
        momentum[j] = inertia * momentum[j] + g
        scores[j] -= rate * (g + inertia * momentum[j])
