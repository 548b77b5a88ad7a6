"""The paper's claims: judged on the page that has the evidence, collected by the scoreboard.

A page writes its claims beside its results, `<results>/claims/<stem>.json`; the scoreboard reads all of them, so that a
verdict is computed in one place only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from modlib import checks
from modlib.study.records import Store, write

VERDICTS = ("holds", "close", "partly", "does not hold", "open")


@dataclass(frozen=True)
class Claim:
    """What the paper says, where, what it prints, what came out here, the verdict, and over how many trials."""

    claim: str
    where: str
    paper: str
    here: str
    verdict: str
    n: int | str

    def __post_init__(self) -> None:
        checks.choice("verdict", self.verdict, VERDICTS)


def publish(store: Store, stem: str, claims: Sequence[Claim]) -> None:
    """Write the claims that the page `stem` judges, in place of those it wrote before; nowhere if nothing is kept."""
    path = store.path("claims", stem, ".json")
    if path is not None:
        write(path, json.dumps([asdict(claim) for claim in claims], indent=1, ensure_ascii=False) + "\n")


def gather(store: Store, stems: Iterable[str]) -> dict[str, list[Claim]]:
    """Return the claims of those pages of `stems` that have written theirs, by page, in the order of `stems`."""
    found = {}
    for stem in stems:
        path = store.path("claims", stem, ".json")
        if path is not None and path.exists():
            found[stem] = [Claim(**claim) for claim in json.loads(path.read_text(encoding="utf-8"))]
    return found
