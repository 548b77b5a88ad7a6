"""Tables in a notebook: HTML of headers, rows and lines below, with nothing but text in it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def as_html(headers: Sequence[str], rows: Iterable[Sequence[str]], below: Iterable[str]) -> str:
    """Return a table and the lines below it; every text is escaped."""
    body = "".join(_line(cells, "td") for cells in rows)
    lines = "".join(f"<p>{html.escape(words)}</p>" for words in below)
    return f"<table><thead>{_line(headers, 'th')}</thead><tbody>{body}</tbody></table>{lines}"


def _line(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
