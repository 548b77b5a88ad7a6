"""Training a mask: what a layer keeps, and one module watched while its mask is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from modlib import masking, metrics
from modlib.data import Dataset
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.study import figures, tables
from modlib.study.names import of_network

ACCURACIES = ("all images", "balanced")


def kept_table(weights: Mapping[str, Tensor], k: float) -> Markdown:
    """Return the number of edges of each layer, and how many of them a module keeps."""
    sizes = masking.sizes(weights)
    keep = masking.keep_counts(k, sizes)
    rows = [
        {"layer": n, "edges": f"{sizes[n]:,}", "kept": f"{keep[n]:,}", "share": tables.percent(keep[n] / sizes[n])}
        for n in sizes
    ]
    return tables.table(
        pd.DataFrame(rows),
        "Edges of the parent and how many a module keeps: max(1, ⌊kn + ½⌋) of n in every layer.",
        "tab-kept-edges",
    )


@dataclass
class Watch:
    """Measures the module of one class after every epoch, on held-out images: the callback of a co-training.

    `initial`: the masks that the modules start from. `seed`: of the balanced set. Shares in [0, 1].
    """

    data: Dataset
    target: int
    initial: MaskSet
    seed: int
    rows: list[dict[str, float]] = field(default_factory=list)

    def __call__(self, epoch: int, modules: Modules) -> None:
        """Measure accuracy, and which share of the first layer's kept edges is not among the initial ones."""
        images, labels = self.data.split("held_out")
        log_odds = modules.log_odds(self.data.inputs(images))
        row = modules.classes.index(self.target)
        own = metrics.module_accuracies(log_odds, labels, modules.classes)[row]
        balanced = metrics.balanced_accuracies(log_odds, labels, modules.classes, self.seed)[row, row]
        first = next(iter(self.initial.masks))
        before, now = (masks.masks[first][row] for masks in (self.initial, modules.masks))
        moved = (now & ~before).sum() / before.sum()
        measured = {"all images": float(own), "balanced": float(balanced), "moved": float(moved)}
        self.rows.append({"epoch": epoch} | measured)

    def draw(self) -> Figure:
        """Draw both accuracies and the share of exchanged edges over the epochs."""
        curve = pd.DataFrame(self.rows)
        line = {"marker": "o", "markersize": 3}
        figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.8))
        for column in ACCURACIES:
            left.plot(curve["epoch"], 100 * curve[column], label=column, **line)
        left.set(xlabel="epoch", ylabel=f"accuracy of module {self.target} (%)")
        left.legend(frameon=False)
        right.plot(curve["epoch"], 100 * curve["moved"], color=figures.COLOURS["ours"], **line)
        right.set(xlabel="epoch", ylabel="edges exchanged (%)", ylim=(0, 105))
        return figure

    def answer(self, k: float, model: str) -> Markdown:
        """Say how the module does after the last epoch; `k`: the share of the edges that it keeps."""
        last = self.rows[-1]
        return Markdown(
            f"**Answer.** Yes. On {of_network(self.data.name, model)} (n = 1 seed) a module with "
            f'{tables.percent(k, 0)} of the edges answers "is this a {self.target}?" rightly for '
            f"{tables.percent(last['all images'])} of the held-out images, and for {tables.percent(last['balanced'])} "
            "of a balanced set, in which half of the "
            f"images are of its class. {tables.percent(last['moved'], 0)} of its edges in the first layer are not "
            "those that it started with: training has chosen them."
        )
