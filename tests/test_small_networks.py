"""Records of subsets' networks: one for each subset and setting, read when it is there."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pandas as pd
import pytest

from modlib.study.draws import subsets
from modlib.study.eight_bits import EightBits
from modlib.study.pages import small_networks as page
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


def test_subsets_are_all_or_drawn_alike():
    assert subsets(4, 2, 6) == subsets(4, 2, 99) == list(combinations(range(4), 2))
    drawn = subsets(10, 5, 20)
    assert drawn == subsets(10, 5, 20) == sorted(set(drawn))
    assert len(drawn) == 20
    many = subsets(100, 50, 3)
    assert [len(set(subset)) for subset in many] == [50, 50, 50]


def plan(**changes):
    given = {"dataset": "toy", "model": "fc1", "parent_epochs": 1, "parent_recipe": "ours", "classes": 2, "count": 2}
    return page.Plan("pairs", **given, settings={"keep": 0.5}, **changes)


def test_a_goal_is_met_where_accuracy_and_sizes_are():
    rows = [
        {"subset": subset, "split": split, "gap": gap, "parameters": 0.04, "multiply_adds": 0.1}
        for subset, gap in (((0, 1), -0.2), ((0, 2), -0.8))
        for split in ("held_out", "test")
    ]
    frame = pd.DataFrame(rows)
    asked = {"points": 0.5, "parameters": 0.04, "multiply_adds": 0.12}
    assert page.Found(plan(), frame, []).goal_met is None
    assert page.Found(plan(**asked), frame, []).goal_met is True
    for harder in ({"points": 0.4}, {"parameters": 0.03}, {"multiply_adds": 0.09}):
        assert page.Found(plan(**asked | harder), frame, []).goal_met is False


def test_plans_without_a_goal_are_no_answers_but_stand_in_the_table_by_classes():
    split = {"parameters": 0.04, "multiply_adds": 0.1, "parent_accuracy": 1.0, "seconds": 1.0, "gap": -0.5}
    frame = pd.DataFrame([{"subset": (0, 1), "split": "test"} | split])
    plans = {
        "fives": plan(points=1.0), "threes": plan(), "distilled": plan(points=1.0), "variant": plan(beside="fives"),
    }  # fmt: skip
    plans["fives"], plans["threes"] = replace(plans["fives"], classes=5), replace(plans["threes"], classes=3)
    plans["distilled"] = replace(plans["distilled"], settings={"keep": 0.5, "distilled": 9})
    found = {name: page.Found(replace(of, name=name), frame, []) for name, of in plans.items()}
    whole = page.Page(found, [], {})
    assert [f.plan.name for f in whole.mains] == ["fives", "distilled"]
    assert [f.plan.name for f in whole.by_classes] == ["threes", "fives"]
    assert page.Page({"threes": found["threes"]}, [], {}).mains == [found["threes"]]
    lines = [line for line in page.by_classes_table(whole).data.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines[1:]] == ["3", "5"]
    assert "- / -" in lines[1], "nothing was timed"


def test_a_plan_beside_none_and_a_time_of_none_are_refused():
    given = vars(plan()) | {"beside": "fives"}
    with pytest.raises(ValueError, match="'pairs' is beside 'fives'"):
        page.experiments(plans=[given], timed=[], int8=[], repeats=2, results="")
    with pytest.raises(ValueError, match=r"timed: \['fives'\] are none of the plans"):
        page.experiments(plans=[given | {"beside": ""}], timed=[["fives"]], int8=[], repeats=2, results="")
    with pytest.raises(ValueError, match=r"int8: \['fives'\] are none of the plans"):
        page.experiments(plans=[given | {"beside": ""}], timed=[], int8=["fives"], repeats=2, results="")


def test_an_int8_version_stands_beside_what_it_was_rounded_from(tmp_path):
    data, store = datasets.load("digits"), Store.at(tmp_path)
    asked = EightBits(SmallNetwork(Subject("fc1", 3, "published"), (1, 7), {"keep": 0.5, "images": 100}), 2)
    record = asked.run(data, store)
    assert {(row["network"], row["batch"]) for row in record.rows} == {
        (name, batch) for name in ("float32", "int8", "parent") for batch in (1, 64)
    }
    by_name = {row["network"]: row for row in record.rows}
    (network,) = measured([asked.network], data, store)
    assert by_name["float32"]["test_accuracy"] == network.rows[1]["accuracy"]
    assert by_name["parent"]["test_accuracy"] == network.rows[1]["parent_accuracy"]
    assert abs(by_name["int8"]["test_accuracy"] - network.rows[1]["accuracy"]) <= 0.05
    assert by_name["int8"]["bytes_onnx"] != by_name["float32"]["bytes_onnx"]
