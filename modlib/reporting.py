"""What to know of modules at a glance: how good and how large each is, and all together, beside the parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from modlib.data import Data, check_data, measured_part
from modlib.parent import Reweighted, brought, each_tensor, flat, in_parts
from modlib.passes import Decomposed
from modlib.precision import rows_at_once
from modlib.sources import batches
from modlib.tabular import as_html

BEHIND = 0.03
"""A vote that is further behind the parent than this gets a warning."""
NUMBERS = 32_000_000
"""Numbers of inputs that are held at once: every module sees them before the next ones are made."""


class Reported(Decomposed, Protocol):
    """What a report is made of, see `modlib.Modules`."""

    @property
    def passes(self) -> int: ...
    def log_odds(self, inputs: Any) -> Tensor: ...


@dataclass(frozen=True)
class Report:
    """Modules beside their parent on one part of a data set; `str` gives a table, and a notebook shows one.

    All shares are in [0, 1]. Only images of the modules' classes count, but for false alarms.

    Attributes:
        rows: one for every class, in order, with the keys "class"; "name" (or None); "images" of it;
            "parent_recall", the share of them that the parent gets right by its logits of the modules' classes alone;
            "module_recall", the share that the module says yes to (log-odds above 0); "false_alarms", the share of the
            images of *all* other classes, those without a module too, that it says yes to; "vote_recall", the share
            that the vote of all modules gets right; "kept", the module's share of the maskable weights; "mask_bytes",
            its mask packed eight weights to a byte, as in a file. None where there are no images to count.
        split: which part of the data.
        images: how many of its images are of the modules' classes.
        accuracy: of the vote of all modules.
        parent_accuracy: of the parent, by its logits of the modules' classes alone: what the vote is held against.
        unrestricted_accuracy: of the parent, by all of its logits, on the same images.
        remaining: share of the maskable weights in the union of all masks.
        passes: how many times a prediction calls the network.
        settings: recipe of the modules, where one and the same was recorded for all.
    """

    rows: tuple[dict[str, Any], ...]
    split: str
    images: int
    accuracy: float
    parent_accuracy: float
    unrestricted_accuracy: float
    remaining: float
    passes: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def warning(self) -> str | None:
        """A line where the vote is more than 3 points behind the parent: both numbers, and what to try; else None."""
        behind = self.parent_accuracy - self.accuracy
        if behind <= BEHIND + 1e-9:  # 0.98 - 0.95 is a little more than 0.03
            return None
        return (
            f"Warning: the vote ({self.accuracy:.1%}) is {100 * behind:.1f} points behind the parent "
            f"({self.parent_accuracy:.1%}); try {', '.join(self._remedies())}, as changes of "
            "modlib.recommended(parent, data, ...), for cotrain(..., recipe=)."
        )

    def _remedies(self) -> Iterator[str]:
        """Yield what may bring the vote closer to the parent, each with its present value where that is known."""
        for words, name in (("more epochs", "epochs"), ("a larger k", "k"), ("vote=0.9", "vote")):
            value = self.settings.get(name)
            if name == "epochs" or value is None or isinstance(value, Mapping) or value < (1.0 if name == "k" else 0.9):
                yield words if value is None or isinstance(value, Mapping) else f"{words} (now {value})"

    def __str__(self) -> str:
        lines = [list(HEADERS), *self._cells()]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADERS))]
        shown = [
            "  ".join(
                cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:], "", *self._captions()])

    def _repr_html_(self) -> str:
        return as_html(HEADERS, self._cells(), self._captions())

    def _cells(self) -> Iterator[list[str]]:
        for row in self.rows:
            yield [
                str(row["class"]) if row["name"] is None else f"{row['class']} {row['name']}",
                f"{row['images']:,}",
                *(
                    "-" if row[name] is None else f"{row[name]:.1%}"
                    for name in ("parent_recall", "vote_recall", "module_recall", "false_alarms", "kept")
                ),
                f"{row['mask_bytes'] / 1000:,.1f}",
            ]

    def _captions(self) -> list[str]:
        lines = [
            f"All {len(self.rows)} classes, {self.images:,} {self.split} images: vote {self.accuracy:.1%}, parent "
            f"{self.parent_accuracy:.1%} (choosing among all of its classes: {self.unrestricted_accuracy:.1%}).",
            f"Size: {self.remaining:.1%} of the parent's maskable weights in the union of the masks, "
            f"{self.passes} pass{'es' if self.passes > 1 else ''} of the network for a prediction.",
            "Parent and vote choose among these classes. A module alone says yes or no: to images of its class (says "
            "yes), and to those of all other classes (false alarms).",
        ]
        return lines if self.warning is None else [*lines, self.warning]


HEADERS = ("class", "images", "parent", "vote", "says yes", "false alarms", "kept", "mask kB")


def report(modules: Reported, data: Data, split: str | None = None) -> Report:
    """Return the report of `modules` on a part of `data`; see `modlib.Modules.report`, for its errors too."""
    check_data(data)
    split = split or measured_part(data)
    log_odds, logits, labels = _answers(modules, data, split)
    classes = torch.tensor(modules.classes, device="cpu")
    own = labels[:, None] == classes
    inside = own.any(1)
    parent, vote = (classes[found.argmax(1)] == labels for found in (logits[:, classes], log_odds))
    columns = {
        "parent_recall": [_share(parent, mine) for mine in own.T],
        "module_recall": [_share(yes, mine) for yes, mine in zip(log_odds.T > 0, own.T, strict=True)],
        "false_alarms": [_share(yes, ~mine) for yes, mine in zip(log_odds.T > 0, own.T, strict=True)],
        "vote_recall": [_share(vote, mine) for mine in own.T],
    }
    names = getattr(data, "class_names", None) or ()
    packed = sum(-(-mask[0].numel() // 8) for mask in modules.masks.masks.values())
    rows = tuple(
        {"class": c, "name": names[c] if c < len(names) else None, "images": int(own[:, i].sum())}
        | {name: values[i] for name, values in columns.items()}
        | {"kept": modules.masks.remaining([c]), "mask_bytes": packed}
        for i, c in enumerate(modules.classes)
    )
    return Report(
        rows=rows,
        split=split,
        images=int(inside.sum()),
        accuracy=float(vote[inside].double().mean()),
        parent_accuracy=float(parent[inside].double().mean()),
        unrestricted_accuracy=float((logits.argmax(1) == labels)[inside].double().mean()),
        remaining=modules.masks.remaining(),
        passes=modules.passes,
        settings=dict(modules.metadata.get("recipe", {})),
    )


def _share(right: Tensor, counted: Tensor) -> float | None:
    """Return the share of the images `counted` (bool [n]) that are `right` (bool [n]); None where there are none."""
    return float(right[counted].double().mean()) if bool(counted.any()) else None


@torch.no_grad()
def _answers(modules: Reported, data: Data, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return, of all images of a part, the log-odds [n, C], the parent's logits [n, N] and labels [n], in memory."""
    check_data(data)
    source = data.part(split)
    labels = source.labels
    if not bool(torch.isin(labels.cpu(), torch.tensor(modules.classes, device="cpu")).any()):
        raise ValueError(f"data: no image of the classes {list(modules.classes)} in its part {split!r}")
    rows = torch.arange(len(labels), device=labels.device)
    size = max(1, NUMBERS // sum(part.numel() for part in flat(source.batch(rows[:1]).inputs)))
    like = modules.parent.get_parameter(next(iter(modules.masks.masks)))
    parent, found = Reweighted(modules.parent), []  # so called, a parent that writes to its buffers stays as it is
    for batch in batches(source, rows, size):
        parts = in_parts(batch.inputs, rows_at_once(modules.parent, batch.inputs))
        logits = torch.cat([parent({}, each_tensor(brought(part, like), Tensor.contiguous)).cpu() for part in parts])
        found.append((modules.log_odds(batch.inputs).cpu(), logits, batch.labels.cpu()))
    log_odds, logits, labels = (torch.cat(values) for values in zip(*found, strict=True))
    return log_odds, logits, labels
