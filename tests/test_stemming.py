"""The stemming loss: its average, the three readings of its factor, its value and its gradient."""

import math

import pytest
import torch

from modlib import stemming

WEIGHTS = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 3)}  # 4 and 6 scores, 10 in all; fan_in 2 and 3


@pytest.mark.parametrize(
    ("reduction", "a", "b"),
    [
        ("total", 3 / 10, 3 / 10),
        ("layer", 3 / (2 * 4), 3 / (2 * 6)),
        # one epoch can move a score by 5 steps * 0.1 / (1 - 0.5) = 1
        ("scale_free", 3 * math.sqrt(2 / 2), 3 * math.sqrt(2 / 3)),
    ],
)
def test_factors_by_hand(reduction, a, b):
    found = stemming.factors(3.0, WEIGHTS, reduction, steps_per_epoch=5, lr=0.1, momentum=0.5)
    assert found == pytest.approx({"a": a, "b": b})


def test_average_is_over_modules():
    ranked = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [4.0, -4.0]]])  # 2 runs, 2 modules, 2 scores
    assert stemming.average_scores(ranked).tolist() == [[[2.0, 4.0]], [[2.0, -2.0]]]


@pytest.mark.parametrize(
    ("p", "loss", "gradient"),
    [
        (1, 0.5 * (1 + 3 + 0) + 2.0 * 2, [9.5, 10.5, 10.0]),  # a gradient of 10, +-0.5 or 0
        (2, 0.5 * (1 + 9 + 0) + 2.0 * 4, [9.0, 13.0, 10.0]),  # 10 + 0.5 * 2 * (S - S_avg)
    ],
)
def test_loss_and_gradient_by_hand(p, loss, gradient):
    ranked = {"a": torch.tensor([1.0, 5.0, 2.0]), "b": torch.tensor([4.0])}
    average = {"a": torch.full((3,), 2.0), "b": torch.tensor([6.0])}
    assert stemming.stemming_loss(ranked, average, {"a": 0.5, "b": 2.0}, p).item() == loss
    found = torch.full((3,), 10.0)
    stemming.add_gradient(found, ranked["a"], average["a"], torch.tensor(0.5), p)
    assert found.tolist() == gradient


def test_equal_scores_are_their_average_to_the_last_bit():
    scores = torch.rand(1, 1, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(stemming.average_scores(scores.expand(1, 10, 1000)), scores)
    assert not torch.equal(scores.expand(1, 10, 1000).mean(1, keepdim=True), scores), "a plain mean would do"


@pytest.mark.parametrize("reduction", stemming.REDUCTIONS)
@pytest.mark.parametrize("p", [1, 2])
def test_closed_form_equals_autograd(p, reduction):
    draw = torch.Generator().manual_seed(0)
    factor = stemming.factors(0.7, WEIGHTS, reduction, steps_per_epoch=3, lr=0.2, momentum=0.9)
    average = {n: torch.randn(w.shape, generator=draw) for n, w in WEIGHTS.items()}
    ranked = {n: torch.randn(w.shape, generator=draw) for n, w in WEIGHTS.items()}
    ranked["a"][0, 0] = average["a"][0, 0]  # equal scores: no pull
    stemming.stemming_loss({n: r.requires_grad_() for n, r in ranked.items()}, average, factor, p).backward()
    for name, scores in ranked.items():
        found = torch.zeros_like(scores)
        with torch.no_grad():
            stemming.add_gradient(found, scores, average[name], torch.tensor(factor[name]), p)
        torch.testing.assert_close(found, scores.grad)
    assert ranked["a"].grad[0, 0] == 0
