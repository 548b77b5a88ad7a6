"""Claims are judged on one page and collected on another."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from modlib.study import claims, verdicts
from modlib.study.pages import text_claims
from modlib.study.records import Store
from modlib.study.reproduce import Layout

SMALLER = claims.Claim("modules are small", "Table 1", "10 %", "10.0 %", "holds", 5)


def test_what_pages_wrote_is_gathered_in_the_order_asked_for(tmp_path):
    store = Store.at(tmp_path)
    claims.publish(store, "table2", [SMALLER])
    claims.publish(store, "figure3", [])
    claims.publish(store, "table2", [SMALLER, claims.Claim("α = 0", "Table 2", "", "", "open", "")])
    found = claims.gather(store, ["figure3", "table5", "table2"])
    assert list(found) == ["figure3", "table2"]
    assert found["table2"][0] == SMALLER
    assert found["table2"][1].claim == "α = 0"


def test_nothing_is_kept_without_a_folder():
    claims.publish(Store.at(""), "table2", [SMALLER])
    assert claims.gather(Store.at(""), ["table2"]) == {}


def test_an_unknown_verdict_is_refused():
    with pytest.raises(ValueError, match="verdict must be"):
        claims.Claim("a", "b", "c", "d", "true", 1)


def test_every_claim_on_the_scoreboard_says_what_would_change_it() -> None:
    """And nothing is kept for a claim that is not there."""
    board = nbformat.read(Layout.here().root / "book" / "executed" / "scoreboard.ipynb", as_version=4)
    said = [o.get("data", {}).get("text/markdown", "") for c in board.cells for o in c.get("outputs", [])]
    cards = re.findall(r"````\{grid-item-card\} (.*?)\n(.*?)````", "\n".join(said), re.S)
    assert len(cards) > 30
    for title, text in cards:
        assert text_claims.WOULD_CHANGE[title] in text
    assert {title for title, _ in cards} == set(text_claims.WOULD_CHANGE)


def test_claims_of_the_text_are_open_without_results() -> None:
    found = {claim.claim: claim for claim, *_ in text_claims.judged(Store.at(""))}
    assert {claim.verdict for claim in found.values()} == {"open"}


def test_claims_of_the_text_are_judged_by_what_was_exported(tmp_path: Path) -> None:
    """Two trials of 50 epochs: their best differ by a point, and stemming is better once, worse once."""
    common = {"dataset": "mnist", "model": "fc1", "recipe": "published", "split": "test", "k": 0.1}
    rows = [
        common | {"seed": seed, "epoch": epoch, "alpha": alpha, "accuracy": best, "module_accuracy": module}
        | {"remaining_parameters": 0.12, "remaining_parameters_all": union}
        for seed, epoch, alpha, best, module, union in [
            (0, 50, 0.0, 0.96, 0.990, 0.4), (1, 50, 0.0, 0.97, 0.991, 0.4),
            (0, 50, 1.0, 0.96, 0.992, 0.2), (1, 50, 1.0, 0.96, 0.989, 0.7),
        ]
    ]  # fmt: skip
    for stem in ("table1", "table5"):
        pd.DataFrame(rows).to_csv(tmp_path / f"{stem}.csv", index=False)
    found = {claim.where + claim.claim[:5]: claim for claim, *_ in text_claims.judged(Store.at(str(tmp_path)))}
    better, changed, small = found["Table 5With "], found["Table 5Under"], found["IntroductionA sma"]
    assert better.verdict == "open"  # ahead once and behind once is what chance gives
    assert better.here.startswith("α = 1 is more accurate in 1 of 2 trials, +0.00 points [-2.54, +2.54]")
    assert changed.verdict == "does not hold"
    assert "1.00 points at α = 0; 0.00 points at α = 1" in changed.here
    assert (small.verdict, "all ten classes 45.0%" in small.here) == ("holds", True)


@pytest.mark.parametrize(
    ("values", "side"),
    [
        ([2.0, 2.1, 2.2], "ahead"),
        ([0.9, 1.0, 1.2], "level"),
        ([0.1, 0.4], "level"),
        ([0.1, 0.2, 0.3], "behind"),
        ([5.0], "level"),
    ],
)
def test_a_mean_is_level_where_its_interval_includes_a_number(values, side):
    assert verdicts.beside(pd.Series(values), 1.0) == side
