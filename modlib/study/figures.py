"""The book's figures: one style, one colour for each method, and the drawings that more than one page shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats
from torch import Tensor

COLOURS = {
    "paper": "#7f7f7f",
    "published": "#0072b2",
    "ours": "#d55e00",
    "ours, with vote loss": "#009e73",
    "parent": "#000000",
    "module stemming": "#0072b2",
    "no stemming": "#cc79a7",
    "TI-I": "#e69f00",
    "TI-SNE": "#56b4e9",
    "CM-RIE": "#882255",
    "no idle neurons": "#000000",
}
"""Colours that stay apart in print and for colour-blind readers (Okabe and Ito)."""

NETWORKS = ("#332288", "#aa4499", "#999933")
"""Colours of networks, where a figure tells these apart: no recipe has them."""

WIDTH = 7.0
"""Width of a full figure in inches: the text column of the book."""


def use_style() -> None:
    """Set the style of the whole book."""
    sns.set_theme("notebook", "whitegrid", font_scale=0.85)
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.2),
            "figure.dpi": 110,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "svg.hashsalt": "modlib",  # the same figure gives the same file
        }
    )
    if get_ipython() is not None:
        set_matplotlib_formats("svg", metadata={"Date": None})  # sharp at every size


def palette(values: Sequence[Any]) -> dict[Any, Any]:
    """Return a colour for each value of a setting; they stay apart for colour-blind readers."""
    return dict(zip(values, sns.color_palette("colorblind", len(values)), strict=True))


STEMMED = LinearSegmentedColormap.from_list(
    "α", [(0, "#b5dcf0"), (0.2, "#4aa3d8"), (0.6, COLOURS["published"]), (1, "#02294a")]
)


def of_alphas(alphas: Iterable[float]) -> dict[float, Any]:
    """Return the colour that each α has on every page: deeper for a larger one; at α = 1 that of recipe published."""
    shades = {a: STEMMED((math.log10(a) + 1.5) / 2.5) for a in alphas if a > 0}
    return {0.0: COLOURS["no stemming"]} | shades


def matrix(values: Tensor, classes: Sequence[int], ax: Axes, title: str, fmt: str = ".2f", **options: object) -> None:
    """Draw a matrix of numbers by class as a heat map with its numbers, large enough for a phone; NaN stays white."""
    table = pd.DataFrame(np.asarray(values), index=list(classes), columns=list(classes))
    shown = table.map(lambda value: format(value, fmt).replace("100.0", "100"))  # no wider than its square
    settings: dict[str, object] = {"cmap": "viridis", "cbar": False, "annot_kws": {"size": 9}} | options
    sns.heatmap(table, annot=shown, fmt="", ax=ax, square=True, linewidths=0.5, **settings)
    ax.set_title(title)
    ax.tick_params(rotation=0)
    ax.grid(False)


def first_layer_masks(mask: Tensor, shape: tuple[int, int], classes: Sequence[int]) -> Figure:
    """Draw how many hidden neurons read each pixel, for every module: `mask` bool [C, hidden, pixels]."""
    columns = min(5, len(classes))
    rows = -(-len(classes) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 1.55 * rows), squeeze=False)
    counts = mask.sum(1).reshape(-1, *shape).numpy()
    for ax in axes.flat:
        ax.axis("off")
    for ax, c, image in zip(axes.flat, classes, counts, strict=False):
        shown = ax.imshow(image, cmap="magma", vmin=0, vmax=int(counts.max()))
        ax.set_title(f"module {c}", fontsize=9)
    figure.colorbar(shown, ax=axes, shrink=0.8, label="edges from this pixel")
    return figure
