"""The fast selection gives the masks of the definition, `masking.top_k_mask`, whatever the scores do."""

import pytest
import torch

from modlib import masking
from modlib.engines.compiled import CANDIDATES
from modlib.engines.selection import TopK, exact_mask

N = 5003  # more than there is room for candidates, and no multiple of the block length


def assert_follows(keep, steps):
    """Run one `TopK` over all steps; every mask must be that of the definition, row by row."""
    top = TopK(torch.tensor(keep))
    for step, scores in enumerate(steps):
        expected = torch.stack([masking.top_k_mask(row, k) for row, k in zip(scores, keep, strict=True)])
        assert torch.equal(top(scores), expected.to(scores.dtype)), f"step {step}"


def drifting(seed, dtype=torch.float32, steps=60, noise=1e-4):
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, N, generator=draw, dtype=dtype).abs()
    momentum = torch.zeros_like(scores)
    for _ in range(steps):
        momentum = 0.9 * momentum + noise * torch.randn(3, N, generator=draw, dtype=dtype)
        scores = scores * (1 - 5e-5) + momentum
        yield scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("keep", [[1, 500, N], [2500, 17, N - 1]])
def test_over_drifting_scores(dtype, keep):
    assert_follows(keep, drifting(0, dtype))


def test_over_scores_that_tie():
    assert_follows([50, 500, 2500], ((s * 256).round() / 256 for s in drifting(1, noise=2e-3)))
    assert_follows([50, 500, 2500], [(s * 64).round() / 64 if i % 3 else s for i, s in enumerate(drifting(2))])
    assert_follows([1, 500, N], [torch.full((3, N), level) for level in (0.0, 1.0, 1.0, -2.0, 0.0, -0.0)])


def test_over_jumps():
    factors = {3: 3.0, 5: 0.2}
    assert_follows([50, 500, 2500], [s.flip(1) * factors.get(i % 7, 1.0) - i % 11 for i, s in enumerate(drifting(3))])


def test_over_scores_that_differ_in_the_last_bits():
    """Where the guess is far off, score - guess rounds different scores to the same distance."""
    near = torch.arange(N) * 2.0**-27  # on top of 0.4: neighbours in float32
    shuffled = near[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
    levels = (1.0, 0.7, 1.3, 0.6, 1.5, 0.5, 1.8, 0.4)  # each jump widens the search
    assert_follows([500], [(shuffled + level)[None] for level in levels])


def test_over_rows_of_any_length():
    draw = torch.Generator().manual_seed(4)
    for n in (1, 2, 127, 128, 129, CANDIDATES):
        assert_follows([1, n], (torch.randn(2, n, generator=draw).round(decimals=1) for _ in range(3)))


def test_over_scores_of_which_too_many_are_near():
    """More scores near the guess than there is room for: the row is looked through."""
    near = torch.rand(1, 3 * CANDIDATES, generator=torch.Generator().manual_seed(5)) * 1e-6
    assert_follows([CANDIDATES], (1 + near * factor for factor in (1, 3, -2, 1, 5, -7, 2)))


@pytest.mark.parametrize("keep", [[2, 2, 2], [1, 1, 1], [4, 4, 4], [1, 3, 2]], ids=str)
def test_exact_mask_is_the_definition(keep):
    """Where all rows keep as many, and where they don't; there are equal scores at every threshold."""
    scores = torch.tensor([[1.0, 3.0, 3.0, 1.0], [5.0, 5.0, 5.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    rows = [masking.top_k_mask(row, count) for row, count in zip(scores, keep, strict=True)]
    assert torch.equal(exact_mask(scores, torch.tensor(keep)), torch.stack(rows))


def test_exact_mask_by_hand():
    mask = exact_mask(torch.tensor([[1.0, 3.0, 1.0, 2.0], [5.0, 5.0, 5.0, 0.0]]), torch.tensor([3, 2]))
    assert mask.tolist() == [[True, True, False, True], [True, True, False, False]]
