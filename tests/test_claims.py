"""Claims are judged on one page and collected on another."""

import pytest

from modlib.study import claims
from modlib.study.records import Store

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
