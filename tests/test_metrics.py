"""Metrics from log-odds, by hand."""

import pytest
import torch

from modlib import metrics
from modlib.masking import MaskSet

# modules of classes 3, 0, 5; the largest of each row: 3, 0, 5, 0, 3
ODDS = torch.tensor([[2.0, 1.0, -1.0], [-3.0, -1.0, -2.0], [0.5, 0.1, 0.7], [-1.0, 4.0, 3.0], [0.0, -5.0, -1.0]])
LABELS = torch.tensor([3, 0, 3, 5, 5])
CLASSES = (3, 0, 5)


def test_accuracy_of_the_vote():
    assert metrics.recomposed_accuracy(ODDS, LABELS, CLASSES) == 2 / 5  # votes 3 0 5 0 3
    assert metrics.recomposed_accuracy(ODDS, LABELS, CLASSES, [3, 0]) == 3 / 3  # images 0 1 2 vote 3 0 3
    assert metrics.recomposed_accuracy(ODDS, LABELS, CLASSES, [5, 3]) == 2 / 4  # images 0 2 3 4 vote 3 5 5 3
    assert metrics.recomposed_accuracy(ODDS, LABELS, CLASSES, [5]) == 1.0
    table = metrics.accuracy_of_pairs(ODDS, LABELS, CLASSES)  # 0 and 5: images 1 3 4 vote 0 0 5
    expected = [[torch.nan, 1.0, 0.5], [1.0, torch.nan, 2 / 3], [0.5, 2 / 3, torch.nan]]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64), equal_nan=True)
    with pytest.raises(ValueError, match=r"labels: no image of the classes \[0\]"):
        metrics.recomposed_accuracy(ODDS[:1], LABELS[:1], CLASSES, [0])


def test_module_accuracies():
    # yes where above 0. class 3: y n y n n against y n y n n; class 0: y n y y n against n y n n n;
    # class 5: n n y y n against n n n y y
    assert metrics.module_accuracies(ODDS, LABELS, CLASSES).tolist() == [1.0, 1 / 5, 3 / 5]


def perfect(labels, classes):
    return torch.where(labels[:, None] == torch.tensor(classes), 1.0, -1.0)


def test_perfect_modules_on_the_balanced_sets():
    """Table 6: as many negatives as positives, uniform over the images of the other classes."""
    labels = torch.tensor([0] * 4 + [1] * 3 + [2] * 1)
    table = metrics.balanced_accuracies(perfect(labels, (0, 1, 2)), labels, (0, 1, 2), seed=0)
    assert table.diagonal().tolist() == [1.0, 1.0, 1.0]
    # class 0's set: its 4 images and all 4 others. Module 1 is wrong on the 4, and on the 3 of its own: 1 right of 8
    assert table[:, 0].tolist() == [1.0, 1 / 8, 3 / 8]


def test_a_perfect_module_off_the_diagonal():
    """0.5 * 0 + 0.5 * the share of drawn negatives that are not its own; 8/9 of them on average, hence 44.4%."""
    labels, classes = torch.arange(2000) % 10, tuple(range(10))
    table = metrics.balanced_accuracies(perfect(labels, classes), labels, classes, seed=3)
    for j in classes:
        _, negatives = metrics.balanced_indices(labels, j, 3)
        own = [int((labels[negatives] == i).sum()) for i in classes]
        assert table[:, j].tolist() == [1.0 if i == j else (200 - own[i]) / 400 for i in classes]
    assert table[~torch.eye(10).bool()].mean().item() == pytest.approx(4 / 9)  # a column's own add up to 200


def test_balanced_set():
    labels = torch.arange(60) % 3
    positives, negatives = metrics.balanced_indices(labels, 1, seed=0)
    assert positives.tolist() == list(range(1, 60, 3))
    assert len(set(negatives.tolist())) == 20
    assert not bool((labels[negatives] == 1).any())
    assert torch.equal(negatives, metrics.balanced_indices(labels, 1, seed=0)[1])
    assert not torch.equal(negatives, metrics.balanced_indices(labels, 1, seed=1)[1])
    with pytest.raises(ValueError, match=r"labels: class 0 has 3 images, more than the 1 of all others"):
        metrics.balanced_indices(torch.tensor([0, 0, 0, 1]), 0, seed=0)


def test_remaining_parameters_of_a_pair_from_its_jaccard_index(modules):
    """Two modules with the same number of edges: 2k / (1 + JI)."""
    masks = torch.zeros(2, 1, 100, dtype=torch.bool)
    masks[0, 0, :10], masks[1, 0, 4:14] = True, True  # 10 edges each, 6 in common, 14 in the union
    both = MaskSet({"a": masks}, (0, 1))
    assert both.mean_jaccard() == pytest.approx(6 / 14)
    assert both.remaining() == 0.14 == pytest.approx(metrics.remaining_from_jaccard(0.10, 6 / 14))
    assert metrics.remaining_from_jaccard(0.10, 0.64) == pytest.approx(0.122, abs=5e-4)
    kept = (29 + 5) / 114  # 0.3 of 96 and of 18 edges
    expected = metrics.remaining_from_jaccard(kept, modules.masks.jaccard())
    torch.testing.assert_close(modules.masks.remaining_of_pairs(), expected)


def test_perfect_modules_by_the_counts_of_classes():
    # the sets of test_perfect_modules_on_the_balanced_sets; classes 1 and 2 draw from more images than they take
    table = metrics.perfect_balanced_accuracies([4, 3, 1])
    assert table.diagonal().tolist() == [1.0, 1.0, 1.0]
    assert table[:, 0].tolist() == [1.0, 1 / 8, 3 / 8]
    assert table[0, 1].item() == pytest.approx(0.5 * (1 - 4 / 5))
    equal = metrics.off_diagonal(metrics.perfect_balanced_accuracies([7] * 10))
    assert equal.shape == (10, 9)
    torch.testing.assert_close(equal, torch.full_like(equal, 4 / 9))


def test_off_the_diagonal_row_by_row():
    assert metrics.off_diagonal(torch.arange(9).view(3, 3)).tolist() == [[1, 2], [3, 5], [6, 7]]


def test_calibration_finds_the_scale_and_the_shift_that_were_lost():
    """Labels are drawn from the softmax of known log-odds; what the modules say of them is scaled and shifted."""
    draw = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(20_000, 3, generator=draw, dtype=torch.float64)
    labels = torch.multinomial(true.softmax(1), 1, generator=draw)[:, 0]
    scale, shift = torch.tensor([0.5, 2.0, 1.0]), torch.tensor([1.0, 0.0, -3.0])
    said = ((true - shift) / scale)[:, [2, 0, 1]]
    found_scale, found_shift = metrics.calibrate(said, torch.tensor([6, 4, 5])[labels], [5, 6, 4])
    torch.testing.assert_close(found_scale, scale[[2, 0, 1]].double(), rtol=0.05, atol=0.05)
    # a shift of all modules changes no vote
    moved = found_shift - found_shift[0] + shift[2]
    torch.testing.assert_close(moved, shift[[2, 0, 1]].double(), rtol=0.05, atol=0.1)


def test_calibration_on_a_class_without_module():
    with pytest.raises(ValueError, match=r"labels: no module for class 2; there are modules for \[0, 1\]"):
        metrics.calibrate(torch.zeros(3, 2), torch.tensor([0, 1, 2]), [0, 1])


def test_subset_curve_by_hand():
    """Three modules of four edges, four images; the parent is right where the modules are wrong."""
    odds = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 4.0], [1.0, 0.0, 2.0], [5.0, 0.0, 1.0]])
    labels = torch.tensor([0, 1, 2, 2])
    logits = torch.nn.functional.one_hot(labels, 3).float()
    edges = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    pairs, every = metrics.subset_curve(odds, logits, labels, MaskSet({"layer": edges}, (0, 1, 2)), seed=0)
    # votes of {0, 1}: 0, 1; of {0, 2}: 0, 2, 0; of {1, 2}: 2, 2, 2
    assert pairs["accuracy"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert pairs["union"] == pytest.approx((3 / 4 + 2 / 4 + 3 / 4) / 3)
    assert every == {"classes": 3, "subsets": 1, "accuracy": 0.5, "parent_accuracy": 1.0, "union": 0.75}
    assert (pairs["classes"], pairs["subsets"], pairs["parent_accuracy"]) == (2, 3, 1.0)


def test_subsets_are_all_or_drawn_without_repetition():
    assert metrics._subsets((4, 5, 6), 2, 3, seed=0) == [(4, 5), (4, 6), (5, 6)]
    drawn = metrics._subsets(tuple(range(20)), 5, 30, seed=1)
    assert len(set(drawn)) == 30
    assert all(len(set(subset)) == 5 and subset == tuple(sorted(subset)) for subset in drawn)
    assert drawn == metrics._subsets(tuple(range(20)), 5, 30, seed=1)
    assert drawn != metrics._subsets(tuple(range(20)), 5, 30, seed=2)
