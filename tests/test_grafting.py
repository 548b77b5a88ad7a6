"""Grafting layers: N logits of the masked parent -> "another class", "this class"."""

import torch

from modlib import grafting


def initial(classes, n, init, seed=0):
    return grafting.initial_grafting(classes, n, init, torch.Generator().manual_seed(seed), torch.float64)


def test_random_layers_are_torchs_default():
    weight, bias = initial(range(50), 16, "random")
    assert (weight.shape, bias.shape, weight.dtype) == ((50, 2, 16), (50, 2), torch.float64)
    for values in (weight, bias):  # uniform in +-1/sqrt(16) = +-0.25
        assert -0.25 <= values.min() < -0.2
        assert 0.2 < values.max() <= 0.25
    assert not torch.equal(weight, initial(range(50), 16, "random", seed=1)[0])


def test_own_logit_by_hand():
    """Log-odds start as the class's own logit minus the mean of the others."""
    weight, bias = initial([2, 0], 3, "own_logit")
    assert weight.tolist() == [[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]]
    assert bias.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    logits = torch.tensor([[3.0, 5.0, 10.0]], dtype=torch.float64)
    assert grafting.log_odds(grafting.graft(logits, weight[0], bias[0])).tolist() == [10.0 - (3 + 5) / 2]


def test_graft_by_hand():
    # row 0: 1*2 + 0*3 + 5 = 7; row 1: -1*2 + 2*3 + 0 = 4; log-odds 4 - 7 = -3
    weight, bias = torch.tensor([[1.0, 0.0], [-1.0, 2.0]]), torch.tensor([5.0, 0.0])
    grafted = grafting.graft(torch.tensor([[2.0, 3.0]]), weight, bias)
    assert grafted.tolist() == [[7.0, 4.0]]
    assert grafting.log_odds(grafted).tolist() == [-3.0]
    torch.testing.assert_close(grafting.log_odds(grafted).sigmoid(), torch.softmax(grafted, 1)[:, 1])
