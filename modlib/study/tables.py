"""The book's tables: MyST, so that they are numbered and can be referred to, made from data frames and records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import Markdown

from modlib.study.records import Record, provenance


def table(frame: pd.DataFrame, caption: str, name: str) -> Markdown:
    """Return a data frame as a numbered table; the cell needs mystnb={"markdown_format": "myst"}."""
    return _directive("table", caption, name, frame)


def folded(frame: pd.DataFrame, title: str, caption: str, name: str) -> Markdown:
    """Return a data frame that is wider than the column, folded behind its title; like `table`, without a number."""
    return _directive("dropdown", title, name, frame, caption)


def _directive(kind: str, title: str, name: str, frame: pd.DataFrame, words: str = "") -> Markdown:
    """Return a data frame inside a directive of MyST that has a title and a name; `words` stand before it."""
    listed = frame.to_markdown(index=False, disable_numparse=True)
    before = f"{words}\n\n" if words else ""
    return Markdown(f":::{{{kind}}} {title}\n:name: {name}\n\n{before}{listed}\n:::")


def percent(share: float, digits: int = 2) -> str:
    """Return a share in [0, 1] as a percentage."""
    return f"{100 * share:.{digits}f}%"


def groups(frame: pd.DataFrame, by: Any, *, sort: bool = True) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield the values of a column or several and the rows that have them, sorted or as they first appear."""
    yield from frame.groupby(by, sort=sort)


def where_from(
    records: Sequence[Record], name: str, parameters: Mapping[str, Any], seconds: float | None = None
) -> Markdown:
    """Return the provenance of a page, folded: from its records, or of this very run where `seconds` is given."""
    origins = [record.provenance for record in records]
    if seconds is not None:
        origins.append(provenance(seconds))
    devices = sorted({origin["device"] for origin in origins})
    versions = sorted({", ".join(f"{k} {v}" for k, v in origin["versions"].items()) for origin in origins})
    commits = sorted({origin["commit"] or "not recorded" for origin in origins})
    rows = {
        "parameters": ", ".join(f"{k} = {v}" for k, v in parameters.items()),
        "runs": str(len(records)) if records else "this page, computed when it was executed",
        "device": "; ".join(devices),
        "versions": "; ".join(versions),
        "commit": ", ".join(commits),
        "computing time": f"{sum(origin['seconds'] for origin in origins):.0f} seconds in all",
    }
    sums = sorted({o["data_sha256"][:12] for o in origins if "data_sha256" in o})
    if sums:
        rows["data (SHA-256)"] = ", ".join(f"{s}…" for s in sums)
    shown = pd.DataFrame({"": list(rows), "value": list(rows.values())})
    return _directive("dropdown", "Where the numbers of this page come from", name, shown)
