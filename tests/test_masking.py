"""Supermasks: how many edges, which ones, what flows back; and what is counted over the masks of all modules."""

import math

import pytest
import torch
from torch import nn

from modlib import masking
from modlib.masking import MaskSet


@pytest.mark.parametrize(
    ("k", "n", "kept"),
    [
        (0.1, 14, 1),  # 1.4 + 0.5 = 1.9
        (0.1, 15, 2),  # 1.5 + 0.5 = 2.0
        (0.25, 6, 2),  # 1.5 + 0.5 = 2.0: halves go up
        (0.01, 10, 1),  # 0.1 + 0.5 = 0.6, but one edge is always kept
        (0.1, 38416, 3842),  # 3841.6 + 0.5 = 3842.1
        (1.0, 7, 7),
    ],
)
def test_count_of_kept_edges(k, n, kept):
    assert masking.keep_counts(k, {"layer": n}) == {"layer": kept}


def test_count_for_each_layer_and_the_default():
    sizes = {"a": 10, "b": 20, "c": 40}
    assert masking.keep_counts({"b": 0.5, "default": 0.1}, sizes) == {"a": 1, "b": 10, "c": 4}
    assert masking.keep_counts({"a": 0.2, "b": 0.2, "c": 0.2}, sizes) == {"a": 2, "b": 4, "c": 8}


def test_lamp_shares_the_edges_out_by_its_definition():
    weights = {"a": torch.tensor([[3.0, -1.0], [2.0, 0.0]]), "b": torch.tensor([1.0, -1.0, 4.0])}

    def lamp(values):  # equation 1 of Lee et al. 2021, edge by edge, among equals the lower index first
        order = sorted(range(len(values)), key=lambda u: (-abs(values[u]), u))
        return [values[u] ** 2 / sum(values[v] ** 2 for v in order[: i + 1]) for i, u in enumerate(order)]

    each = {name: lamp(w.flatten().tolist()) for name, w in weights.items()}
    for keep in range(2, 8):
        threshold = sorted([score for scores in each.values() for score in scores], reverse=True)[keep - 1]
        expected = {name: sum(score >= threshold for score in scores) for name, scores in each.items()}
        assert masking.kept_edges(keep / 7, weights, "lamp") == expected
    assert masking.kept_edges(0.01, weights, "lamp") == {"a": 1, "b": 1}  # the largest of every layer stays
    assert masking.kept_edges(0.5, weights, "uniform") == masking.keep_counts(0.5, masking.sizes(weights))
    assert masking.kept_edges(1 / 4, {"a": torch.zeros(2, 2), "b": torch.ones(4)}, "lamp") == {"a": 1, "b": 1}


def test_allocations_that_cannot_be():
    weights = {"a": torch.ones(4)}
    with pytest.raises(ValueError, match=r"allocation must be one of .*, got 'erk'"):
        masking.kept_edges(0.5, weights, "erk")
    with pytest.raises(ValueError, match="k: shares by layer go with allocation='uniform'"):
        masking.kept_edges({"a": 0.5}, weights, "lamp")
    with pytest.raises(ValueError, match="k must be in"):
        masking.kept_edges(1.5, weights, "lamp")


@pytest.mark.parametrize(("keep", "expected"), [(1, "00100"), (2, "10100"), (3, "11100"), (4, "11101"), (5, "11111")])
def test_the_largest_are_kept_and_among_equals_the_lower_index_wins(keep, expected):
    values = torch.tensor([1.0, 1.0, 2.0, 0.0, 1.0])
    mask = masking.top_k_mask(torch.stack([values, values - 9.0]), keep)
    assert ["".join(str(int(m)) for m in row) for row in mask] == [expected] * 2


@pytest.mark.parametrize(
    ("reading", "mask", "gradient"),
    [
        # ranked 0.2, -0.9, 0.5: the third is kept; W = 2, -3, 5, x = 1, 10, 100, dL/dy = 2y
        # y = 5 * 100 = 500, dL/dW_eff = 1000 x = 1000, 10000, 100000, times W
        ("positive", [0.0, 0.0, 1.0], [2_000.0, -30_000.0, 500_000.0]),
        # ranked 0.2, 0.9, 0.5: the second is kept; y = -3 * 10 = -30, dL/dW_eff = -60 x, times W, times sign(S)
        ("absolute", [0.0, 1.0, 0.0], [-120.0, -1_800.0, -30_000.0]),
    ],
)
def test_straight_through_gradient_by_hand(reading, mask, gradient):
    weight, x = torch.tensor([2.0, -3.0, 5.0]), torch.tensor([1.0, 10.0, 100.0])
    scores = torch.tensor([0.2, -0.9, 0.5], requires_grad=True)
    ranked = masking.ranked(scores, reading)
    soft = masking.straight_through(masking.top_k_mask(ranked.detach(), 1).float(), ranked)
    assert soft.tolist() == mask
    (weight * soft * x).sum().square().backward()
    assert scores.grad.tolist() == gradient


def test_maskable_are_the_weights_of_linear_and_convolutional_layers(tied_parent):
    inner = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2), nn.Embedding(3, 2))
    model = nn.ModuleDict({"up": nn.ConvTranspose2d(2, 1, 3), "norm": nn.BatchNorm2d(2), "inner": inner})
    found = masking.maskable_parameters(model)
    assert masking.sizes(found) == {"up.weight": 18, "inner.0.weight": 8}
    assert found["up.weight"] is model["up"].weight
    assert "up.bias" in masking.maskable_parameters(model, lambda owner, name: name == "bias")
    assert list(masking.maskable_parameters(tied_parent)) == ["first.weight", "middle.weight", "last.weight"]


def draw(weight, init="kaiming", scores="positive", seed=0):
    return masking.initial_scores(weight, init, scores, torch.Generator().manual_seed(seed))


def test_kaiming_scores():
    weight = torch.zeros(300, 4, 5, 5, dtype=torch.float64)  # fan_in 4 * 5 * 5
    signed = draw(weight, scores="absolute")
    assert signed.dtype == torch.float64
    assert signed.min() < 0
    assert signed.std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.03)  # 30,000 draws: 7 standard errors
    assert torch.equal(signed.abs(), draw(weight))
    assert not torch.equal(signed, draw(weight, scores="absolute", seed=1))


def test_magnitude_scores_by_hand():
    # root mean square of the weights: sqrt((9 + 16 + 0 + 25 + 1 + 49) / 6) = sqrt(100 / 6); target sqrt(2 / 2) = 1
    weight = torch.tensor([[3.0, -4.0], [0.0, 5.0], [-1.0, 7.0]])
    torch.testing.assert_close(draw(weight, "magnitude", "absolute"), weight * math.sqrt(6 / 100))
    torch.testing.assert_close(draw(weight, "magnitude"), weight.abs() * math.sqrt(6 / 100))


def bits(*rows):
    return torch.tensor([[c == "1" for c in row] for row in rows])


@pytest.fixture
def masks():
    """Modules of classes 5, 7, 2 on layers of four and two edges; three edges each."""
    a = bits("1100", "1010", "1100").view(3, 2, 2)
    return MaskSet({"a": a, "b": bits("10", "10", "01").view(3, 1, 2)}, (5, 7, 2))


def test_union_and_intersection_by_hand(masks):
    assert masks.union()["a"].tolist() == [[True, True], [True, False]]
    assert masks.union([7])["b"].tolist() == [[True, False]]
    assert masks.intersection()["a"].tolist() == [[True, False], [False, False]]
    assert masks.intersection()["b"].tolist() == [[False, False]]
    assert masks.intersection([2, 5])["a"].tolist() == [[True, True], [False, False]]
    chosen = masks.select([2, 5])
    assert chosen.classes == (2, 5)
    assert torch.equal(chosen.masks["b"], bits("01", "10").view(2, 1, 2))


@pytest.mark.parametrize("together", [0, 16])
def test_jaccard_and_remaining_by_hand(masks, together, monkeypatch):
    """Counted by module, as where there are many, and together."""
    monkeypatch.setattr(masking, "COUNTED_TOGETHER", together)
    assert masks.common().tolist() == [[3, 2, 2], [2, 3, 1], [2, 1, 3]]
    jaccard = torch.tensor([[1, 2 / 4, 2 / 4], [2 / 4, 1, 1 / 5], [2 / 4, 1 / 5, 1]], dtype=torch.float64)
    torch.testing.assert_close(masks.jaccard(), jaccard)
    assert masks.mean_jaccard() == pytest.approx((0.5 + 0.5 + 0.2) / 3)
    assert masks.select([7]).mean_jaccard() == 1.0
    assert (masks.remaining(), masks.remaining([2]), masks.remaining([2, 5])) == (5 / 6, 3 / 6, 4 / 6)
    assert masks.remaining_by_layer([5, 7]) == {"a": 0.75, "b": 0.5}
    pairs = torch.tensor([[3, 4, 4], [4, 3, 5], [4, 5, 3]], dtype=torch.float64) / 6
    torch.testing.assert_close(masks.remaining_of_pairs(), pairs)


@pytest.mark.parametrize(
    ("masks", "classes", "error", "match"),
    [
        ({}, (0,), ValueError, "masks: empty"),
        ({"a": torch.ones(1, 2)}, (0,), TypeError, r"masks\['a'\]: must be bool"),
        ({"a": bits("10")}, (0, 1), ValueError, r"masks\['a'\]: must be \[2 modules"),
        ({"a": bits("10", "01")}, (1, 1), ValueError, "classes: must be distinct"),
        ({"a": bits("10")}, (), ValueError, "classes: must be distinct and not empty"),
    ],
)
def test_a_mask_set_refuses_what_is_not_one(masks, classes, error, match):
    with pytest.raises(error, match=match):
        MaskSet(masks, classes)
