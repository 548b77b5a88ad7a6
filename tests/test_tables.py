"""The book's tables as MyST."""

import pandas as pd

from modlib.study import tables

FRAME = pd.DataFrame({"a": ["1.0"]})


def test_a_table_has_a_caption_and_a_name():
    first, name, *rest = tables.table(FRAME, "Numbers.", "tab-x").data.split("\n")
    assert (first, name) == (":::{table} Numbers.", ":name: tab-x")
    assert rest[0] == ""
    assert rest[-1] == ":::"


def test_a_wide_table_is_folded_behind_its_title_with_its_words():
    text = tables.folded(FRAME, "All numbers", "What they are.", "tab-x").data
    assert text.startswith(":::{dropdown} All numbers\n:name: tab-x\n\nWhat they are.\n\n| a ")
    assert text.endswith("\n:::")
