"""The page on the paper's preliminaries: which trials it asks for, and how several of them, or one, decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from modlib.data import Scaling
from modlib.study.pages import preliminaries as page
from modlib.study.pages.preliminaries import PAPERS, UNSTEMMED, Plan, Preliminaries
from modlib.study.records import Store
from modlib.zoo.datasets import STATISTICS

GIVEN: dict[str, Any] = {
    "dataset": "mnist", "model": "fc1", "seeds": [0, 1, 2], "k": 0.1, "parent_epochs": 1, "epochs": 3,
    "squared_alphas": [1.0, 10.0], "further_alphas": [10.0], "base_classes": [3, 4, 5], "base_epochs": 2,
    "base_trials": 2, "elsewhere": "",
}  # fmt: skip
SMALL, LARGE = "p = 2, α = 1", "p = 2, α = 10"
LEVEL = [0.960, 0.960, 0.960]


def curve(variant: str, seed: int, accuracy: Sequence[float], remaining: Sequence[float]) -> list[dict[str, Any]]:
    """The rows of a trial on test images."""
    both = zip(accuracy, remaining, strict=True)
    common = {"variant": variant, "seed": seed, "split": "test", "pair_accuracy": 0.99, "jaccard_index": 0.5}
    return [common | {"epoch": e, "accuracy": a, "remaining_parameters": r} for e, (a, r) in enumerate(both, 1)]


def found(
    one: Mapping[int, Sequence[float]],
    two: Mapping[int, Sequence[float]],
    bases: Mapping[int, Mapping[int, float]] = {3: {0: 0.95}, 4: {0: 0.95}, 5: {0: 0.95}},
    *,
    slow: Sequence[float] = (0.13, 0.12, 0.12),
    fast: Sequence[float] = (0.16, 0.13, 0.12),
    **changes: Any,
) -> Preliminaries:
    """What came out where p = 1 and p = 2 at α = 10 have these accuracies by seed, and A these at its last epoch."""
    rows = [row for seed, accuracy in one.items() for row in curve(PAPERS, seed, accuracy, slow)]
    rows += [row for seed, accuracy in two.items() for row in curve(LARGE, seed, accuracy, fast)]
    rows += curve(SMALL, 0, LEVEL, [0.13, 0.12, 0.12])  # as close as can be, but only one trial
    for base, by_seed in bases.items():
        rows += [row for s, a in by_seed.items() for row in curve(page.from_base(base), s, [0.9, a], [0.13, 0.12])]
    return Preliminaries(Plan(**GIVEN | changes), [], pd.DataFrame(rows), best=3, worst=4)


def same(*accuracies: float) -> dict[int, list[float]]:
    """Accuracies that do not change over the epochs, by seed."""
    return {seed: [accuracy] * 3 for seed, accuracy in enumerate(accuracies)}


def test_which_trials_get_which_seeds() -> None:
    plan = Plan(**GIVEN)
    norms = plan.norms()
    assert {name: [t.seed for t in part] for name, part in norms.items()} == {
        PAPERS: [0, 1, 2], SMALL: [0], LARGE: [0, 1, 2], UNSTEMMED: [0, 1, 2],
    }  # fmt: skip
    assert list(norms) == [PAPERS, SMALL, LARGE, UNSTEMMED]
    assert {(t.recipe.p, t.recipe.alpha, t.recipe.epochs) for t in norms[LARGE]} == {(2, 10.0, 3)}
    first = plan.first_bases()
    assert list(first) == ["A, base 3", "A, base 4", "A, base 5"]
    assert [(t.seed, t.recipe.base_class, t.recipe.epochs) for part in first.values() for t in part] == [
        (0, 3, 2), (0, 4, 2), (0, 5, 2),
    ]  # fmt: skip


def test_a_further_alpha_need_not_be_in_the_sweep_and_whole_numbers_are_the_same_trials() -> None:
    plan = Plan(**GIVEN | {"squared_alphas": [1], "further_alphas": [10]})
    assert plan.norms() == Plan(**GIVEN).norms()
    assert all(isinstance(t.recipe.alpha, float) for part in plan.norms().values() for t in part)


def test_held_out_images_choose_the_base_classes_with_further_trials() -> None:
    """Test images would choose others."""
    held_out, test = {3: 0.7, 4: 0.9, 5: 0.8}, {3: 0.9, 4: 0.8, 5: 0.7}
    rows = [
        {"variant": page.from_base(c), "seed": 0, "split": split, "epoch": epoch, "accuracy": accuracy[epoch == 2]}
        for split, of in (("held_out", held_out), ("test", test))
        for c, accuracy in ((c, (1 - last, last)) for c, last in of.items())  # the first epoch turns the order
        for epoch in (1, 2)
    ]
    plan = Plan(**GIVEN)
    assert plan.extremes(pd.DataFrame(rows)) == (4, 3)
    further = plan.further_bases(pd.DataFrame(rows))
    assert {name: [t.seed for t in part] for name, part in further.items()} == {"A, base 4": [1], "A, base 3": [1]}
    assert replace(plan, base_trials=1).further_bases(pd.DataFrame(rows)) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "seeds: empty"),
        ({"base_classes": []}, "base_classes: empty"),
        ({"squared_alphas": [], "further_alphas": []}, "squared_alphas, further_alphas: both empty"),
        ({"elsewhere": "mnist"}, "elsewhere: 'mnist' is the page's own data set"),
        ({"base_epochs": 4}, r"base_epochs: 4 is more than epochs \(3\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**GIVEN | changes)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.001, 0.002, 0.000], "holds"),  # mean 0.001, half of the interval 0.0025
        ([0.010, 0.011, 0.012], "does not hold"),
        ([-0.010, -0.011, -0.012], "does not hold"),
        ([0.000, 0.002, 0.004], "open"),  # from -0.003 to 0.007
        ([-0.020, 0.020], "open"),
        ([0.004], "holds"),
        ([-0.006], "does not hold"),
    ],
)
def test_no_significant_change(differences: list[float], verdict: str) -> None:
    assert page.unchanged(pd.Series(differences)) == verdict


@pytest.mark.parametrize(
    ("differences", "noise", "verdict"),
    [
        ([-0.001, -0.002, -0.0015], 0.005, "holds"),  # a spread makes a small difference one
        ([0.001, 0.002, 0.0015], 0.005, "does not hold"),
        ([-0.002, 0.001, -0.003], 0.005, "open"),
        ([-0.004], 0.005, "open"),
        ([0.004], 0.005, "open"),
        ([-0.006], 0.005, "holds"),
        ([0.006], 0.005, "does not hold"),
        ([-0.004], 0.0, "holds"),
    ],
)
def test_lower(differences: list[float], noise: float, verdict: str) -> None:
    assert page.lower(pd.Series(differences), noise) == verdict


def test_a_trial_summed_up_by_hand() -> None:
    rows = pd.DataFrame(curve(PAPERS, 0, [0.97, 0.95, 0.96], [0.10, 0.14, 0.12]))
    assert page.summed_up(rows) == pytest.approx(
        {"pace": 0.03, "best": 0.96, "best_of_all": 0.97, "accuracy": 0.96, "remaining_parameters": 0.12}
        | {"jaccard_index": 0.5}
    )


def test_p_2_with_every_trial_is_compared_seed_by_seed() -> None:
    made = found(same(0.95, 0.96, 0.97), same(0.949, 0.959, 0.969))
    assert made.closest == LARGE
    assert made.apart("best").tolist() == pytest.approx([0.001] * 3)
    assert made.verdicts[:2] == ("holds", "holds")  # the spread between seeds, ten times that, does not count
    answer = page.answer(made).data
    assert "**holds** (n = 3 trials). With stemming p = 1 has +0.10 points (95% interval +0.10 to +0.10)" in answer


def test_means_are_of_the_trials_that_are_compared() -> None:
    made = found(same(0.95, 0.96, 0.97), same(0.95, 0.96))
    assert (made.closest, made.mean(PAPERS, "best")) == (LARGE, pytest.approx(95.5))
    assert "(n = 2 trials)" in page.answer(made).data


def test_an_interval_is_said_where_there_are_several_trials() -> None:
    assert page.points(pd.Series([0.01, 0.03])) == "+2.00 points (95% interval -10.71 to +14.71)"
    assert page.points(pd.Series([0.001])) == "+0.10 points"
    assert page.points(pd.Series([-0.00001])) == "0.00 points"


def test_the_verdict_is_open_where_the_readings_of_best_disagree() -> None:
    two = {seed: [0.96, 0.94, 0.94] for seed in range(3)}
    assert found(same(0.96, 0.96, 0.96), two).verdicts[1] == "open"
    two = {seed: [0.94, 0.94, 0.94] for seed in range(3)}
    assert found(same(0.96, 0.96, 0.96), two).verdicts[1] == "does not hold"


def test_norms_that_end_far_apart_are_not_compared() -> None:
    accuracies = same(0.96, 0.96, 0.96)
    assert found(accuracies, accuracies, fast=[0.16, 0.13, 0.124]).verdicts[:2] == ("holds", "holds")
    assert found(accuracies, accuracies, fast=[0.16, 0.13, 0.126]).verdicts[:2] == ("open", "open")


def test_slower_does_not_hold_where_p_1_changes_more() -> None:
    accuracies = same(0.96, 0.96)
    assert found(accuracies, accuracies, slow=[0.16, 0.13, 0.12], fast=[0.13, 0.12, 0.12]).verdicts[0] == (
        "does not hold"
    )


@pytest.mark.parametrize(
    ("best", "verdict"),
    [
        ({0: 0.950, 1: 0.951}, "holds"),  # B has 0.96 under every seed
        ({0: 0.970, 1: 0.971}, "does not hold"),
        ({0: 0.961, 1: 0.955}, "open"),
        ({0: 0.956}, "open"),
        ({0: 0.954}, "holds"),
        ({0: 0.966}, "does not hold"),
    ],
)
def test_method_a_from_its_best_base_class_against_b(best: dict[int, float], verdict: str) -> None:
    made = found(same(0.96, 0.96, 0.96), same(0.96, 0.96, 0.96), {3: best, 4: {0: 0.90}, 5: {0: 0.99}})
    assert made.verdicts[2] == verdict
    assert made.ahead == f"{1 + (best[0] > 0.96)} of 3"
    claim = page.judged(made)[2]
    assert (claim.verdict, claim.n) == (verdict, len(best))


@pytest.mark.parametrize(
    ("there", "verdict", "lost"),
    [
        ([0.80, 0.83, 0.81], "holds", (0.01, 0.03)),  # here class 3 is best: 0.95, 0.94, 0.93
        ([0.829, 0.83, 0.81], "open", (0.01, 0.001)),
        ([0.83, 0.82, 0.81], "does not hold", (0.0, 0.0)),
    ],
)
def test_what_the_best_base_class_of_another_data_set_loses(
    there: list[float], verdict: str, lost: tuple[float, float]
) -> None:
    level = same(0.96, 0.96, 0.96)
    bases = {3: {0: 0.95}, 4: {0: 0.94}, 5: {0: 0.93}}
    accuracy = pd.Series(there, [page.from_base(c) for c in bases])
    second = page.Elsewhere(accuracy, max(bases, key=lambda c: accuracy[page.from_base(c)]))
    made = replace(found(level, level, bases, elsewhere="fashion_mnist"), elsewhere=second)
    assert made.lost(second) == pytest.approx(lost)
    assert (made.depends, page.judged(made)[3].verdict) == (verdict, verdict)
    assert f"**{verdict}**" in page.elsewhere(made).data


def test_other_networks_than_the_papers_leave_its_claims_open() -> None:
    accuracies = same(0.96, 0.96, 0.96)
    verdicts = [c.verdict for c in page.judged(found(accuracies, accuracies))]
    assert verdicts == ["holds", "holds", "holds", "open"]  # the last: no second data set
    assert {c.verdict for c in page.judged(found(accuracies, accuracies, dataset="digits"))} == {"open"}


def test_the_experiments_are_the_records_that_the_page_reads(data: Any, tmp_path: Any) -> None:
    """Before the first run those of the first choice; after it, those of the chosen base classes too."""
    digits = replace(data, name="digits", preprocess=Scaling(*STATISTICS["digits"]))
    given = GIVEN | {"dataset": "digits", "seeds": [0, 1], "k": 0.3, "epochs": 2, "base_classes": [0, 1, 2]}
    given["elsewhere"] = "mnist"  # in name alone
    before = page.experiments(results=str(tmp_path), **given)
    assert len(before) == 2 + 1 + 2 + 2 + 3 + 3
    store = Store.at(tmp_path)
    made = page.run(store, lambda name: replace(digits, name=name, preprocess=Scaling(*STATISTICS[name])), **given)
    after = page.experiments(results=str(tmp_path), **given)
    assert after[: len(before)] == before
    assert [dict(e.parameters) for e in after] == [r.parameters for r in made.done]
    assert all(e.is_done(store) for e in after)
    assert len(after) == len(before) + len({made.best, made.worst})
    for shown in (page.norms(made), page.methods(made), page.elsewhere(made), page.answer(made)):
        assert " nan" not in shown.data
    lines = page.methods(made).data.splitlines()
    assert [line.rstrip(" |")[-1] for line in lines if line.startswith(f"| A, base {made.best} (best)")] == ["2"]
