"""Records of subsets' networks: one for each subset and setting, read when it is there."""

from __future__ import annotations

import pytest

from modlib.study.records import Store
from modlib.study.small_networks import SmallNetwork, Subject, measured
from modlib.zoo import datasets


def test_a_record_holds_size_and_both_accuracies_and_is_read_again(tmp_path, monkeypatch):
    data, store = datasets.load("digits"), Store.at(tmp_path)
    subject = Subject("fc1", 3, "published")
    asked = [SmallNetwork(subject, (1, 7), {"keep": keep, "images": 100}) for keep in (0.5, 0.9)]
    first = measured(asked, data, store)
    for record, network in zip(first, asked, strict=True):
        held_out, test = record.rows
        assert (held_out["split"], test["split"], test["subset"]) == ("held_out", "test", [1, 7])
        assert 0 < test["multiply_adds"] <= network.settings["keep"]
        assert 0.5 <= test["accuracy"] <= 1.0
        assert test["seconds"] > 0
    assert first[0].rows[1]["parent_accuracy"] == first[1].rows[1]["parent_accuracy"]
    monkeypatch.setattr("modlib.study.small_networks._rows", lambda *_: pytest.fail("computed again"))
    assert [r.rows for r in measured(asked, data, store)] == [r.rows for r in first]
