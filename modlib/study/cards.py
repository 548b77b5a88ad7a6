"""Cards: a finding in a few words with its verdict, a number, n and the page that has more; several make a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from IPython.display import Markdown

from modlib import checks
from modlib.study.claims import VERDICTS

MARKS = dict(zip(VERDICTS, ("✓ holds", "≈ close", "◐ holds in part", "✗ does not hold", "? open"), strict=True))
"""How a verdict is said: never by colour alone."""
OURS = "★ ours"
"""In place of a verdict, on what the paper does not claim."""


@dataclass(frozen=True)
class Card:
    """`verdict`: one of `VERDICTS`, or `OURS`; `text`: Markdown; `page`: the stem of the page behind it."""

    title: str
    verdict: str
    text: str
    page: str

    def __post_init__(self) -> None:
        checks.choice("verdict", self.verdict, (*VERDICTS, OURS))

    def markdown(self) -> str:
        """Return the card as MyST."""
        kind = self.verdict.replace(" ", "-") if self.verdict in MARKS else "ours"
        return (
            f"````{{grid-item-card}} {self.title}\n:link: {self.page}\n:link-type: doc\n:class-card: verdict-{kind}\n"
            f"**{MARKS.get(self.verdict, self.verdict)}** · {self.text}\n````"
        )


def grid(cards: Sequence[Card], columns: str = "1 2 3 3") -> Markdown:
    """Return cards side by side; `columns`: of them on a phone, a tablet, a laptop and a wide screen."""
    inside = "\n".join(card.markdown() for card in cards)
    return Markdown(f"`````{{grid}} {columns}\n:gutter: 2\n\n{inside}\n`````")
