"""The introduction: a network small enough to draw, decomposed and recomposed, and a first decomposition measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor, nn

from modlib import masking, metrics
from modlib.data import Dataset, from_arrays
from modlib.modules import Modules
from modlib.parent import functional_call
from modlib.study import example, figures, tables
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.timing import median_ms
from modlib.study.trials import Trial, measure
from modlib.zoo import datasets, training

Colour = tuple[float, ...]
ColourOf = Callable[[int, int, int], Colour | None]
"""The colour of an edge, by layer, neuron it leads to and neuron it comes from; None: it is not drawn."""
CLASS_COLOURS: Sequence[Colour] = sns.color_palette("colorblind", 5)
SHARED, FAINT, OF_PARENT = (0.15, 0.15, 0.15), (0.87, 0.87, 0.87), (0.45, 0.45, 0.45)


def experiments(**parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes: its one trial."""
    return [example.trial(**parameters).experiment]


def small_digits() -> Dataset:
    """Return the digits 0 to 4, every 2 x 2 pixels averaged into one; nothing is held out."""
    digits = datasets.load("digits", held_out=0)
    train, test = (_pooled(*digits.split(name)) for name in ("train", "test"))
    return from_arrays(*train, *test, preprocess=digits.preprocess)


def _pooled(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    chosen = labels < 5
    small = torch.nn.functional.avg_pool2d(images[chosen][:, None].float(), 2)[:, 0]
    return small.round().to(torch.uint8), labels[chosen]


@dataclass(frozen=True)
class Sketch:
    """Draws the modules of a parent with one hidden layer, and the network recomposed for the classes of `task`."""

    modules: Modules
    task: tuple[int, ...]

    @cached_property
    def layers(self) -> list[Tensor]:
        """The weights of each layer, relative to its largest: [out, in]."""
        weights = masking.maskable_parameters(self.modules.parent).values()
        return [weight.detach() / weight.detach().abs().max() for weight in weights]

    @cached_property
    def masks(self) -> list[Tensor]:
        """The masks of each layer: bool [C, out, in]."""
        return list(self.modules.masks.masks.values())

    @cached_property
    def rows(self) -> list[int]:
        """The positions of the task's modules."""
        return self.modules.masks.rows(self.task)

    @property
    def edges(self) -> int:
        """How many edges the parent has."""
        return sum(layer.numel() for layer in self.layers)

    @property
    def kept(self) -> int:
        """How many edges a module keeps."""
        return sum(int(mask[0].sum()) for mask in self.masks)

    @property
    def used(self) -> int:
        """How many edges the recomposed network has."""
        return round(self.modules.remaining(self.task) * self.edges)

    def draw_overview(self) -> Figure:
        """Draw the parent, its modules and the recomposed network, from left to right."""
        figure = plt.figure(figsize=(figures.WIDTH, 5.0), layout="none")
        ax = figure.add_axes((0.0, 0.27, 0.27, 0.46))
        self._draw_network(ax, lambda layer, o, i: OF_PARENT, 40, width=1.2)
        ax.set_title(f"parent: {len(self.modules.classes)} classes\n{self.edges} edges", fontsize=10)
        for m, c in enumerate(self.modules.classes):
            ax = figure.add_axes((0.37, 0.79 - 0.195 * m, 0.23, 0.165))
            logits = self._draw_network(ax, self._of_module(m), 12, width=1.3)
            _draw_grafting(ax, logits, _heights(2, 0.5), CLASS_COLOURS[m], 12)
            ax.text(3.2, 0.5, f"module {c}", fontsize=9, color=CLASS_COLOURS[m], va="center")
        title = f"{len(self.modules.classes)} modules, {self.kept} edges each"
        figure.text(0.485, 0.985, title, fontsize=10, ha="center", va="center")
        ax = figure.add_axes((0.75, 0.27, 0.25, 0.46))
        logits = self._draw_network(ax, self._of_union, 40)
        for middle, m in zip(_heights(len(self.rows), 0.9), self.rows, strict=True):
            _draw_grafting(ax, logits, [middle + 0.05, middle - 0.05], CLASS_COLOURS[m], 24)
        ax.set_title(f"recomposed: {len(self.task)} classes\n{self.used} edges", fontsize=10)
        for x, word in ((0.295, "decompose"), (0.70, "recompose")):
            figure.text(x, 0.535, word, fontsize=9, ha="center")
            figure.text(x, 0.5, "→", fontsize=22, ha="center", va="center")
        return figure

    def overview_sentence(self) -> Markdown:
        """Say how many edges the recomposed network has, and how many its modules share."""
        users = torch.stack([torch.cat([mask[m].flatten() for mask in self.masks]) for m in self.rows]).sum(0)
        shared = int((users > 1).sum())
        return Markdown(
            f"In {{numref}}`fig-overview`, the recomposed network has {self.used} of the parent's {self.edges} edges. "
            f"Its {len(self.task)} modules keep {self.kept} each, and {shared} edges serve more than one of them. "
            f"If they shared no edge, it would need {min(len(self.task) * self.kept, self.edges)}."
        )

    def draw_flow(self, image: Tensor, label: int, inputs: Tensor, confidences: Tensor) -> Figure:
        """Draw how one image passes through the task's modules.

        `image` uint8 [H, W], `inputs` the same as the network takes it, [1, C, H, W]; `confidences` in [0, 1], [task].
        """
        figure = plt.figure(figsize=(figures.WIDTH, 4.2), layout="none")
        ax = figure.add_axes((0.0, 0.36, 0.15, 0.26))
        ax.imshow(image, cmap="Greys", vmin=0, vmax=255)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
        ax.set_title(f"a {label}", fontsize=10)
        figure.text(0.185, 0.49, "→", fontsize=22, ha="center", va="center")
        winner = int(confidences.argmax())
        for position, (m, sure) in enumerate(zip(self.rows, confidences.tolist(), strict=True)):
            bottom = 0.66 - 0.315 * position
            fills = [_shade(values) for values in (image.flatten().float(), *self._values(m, inputs))]
            self._draw_pass(figure.add_axes((0.22, bottom, 0.42, 0.28)), m, fills, sure)
            bar = figure.add_axes((0.72, bottom + 0.09, 0.2, 0.1))
            _draw_confidence(bar, sure, CLASS_COLOURS[m], "bold" if position == winner else "normal")
            if position == winner:
                vote = f"vote: {self.task[position]}"
                figure.text(0.93, bottom + 0.135, vote, fontsize=10, fontweight="bold", va="center")
        for x, word in ((0.243, "pixels"), (0.36, "hidden"), (0.475, "logits"), (0.59, "grafted")):
            figure.text(x, 0.0, word, fontsize=8, ha="center")
        return figure

    def _draw_pass(self, ax: Axes, m: int, fills: Sequence[Sequence[Colour]], sure: float) -> None:
        """Draw the part of module m over the union, its nodes filled by value, and its grafting layer."""
        self._draw_network(ax, lambda layer, o, i: FAINT if self._users(layer, o, i) else None, 0, width=1.2)
        logits = self._draw_network(ax, self._of_module(m), 26, fills)
        answers = _heights(2, 0.6)
        _draw_grafting(ax, logits, answers, CLASS_COLOURS[m], 40, [_grey(sure), _grey(1 - sure)])
        for y, word in zip(answers, (f"{self.modules.classes[m]}", "another"), strict=True):
            ax.text(3.12, y, word, fontsize=8, va="center")

    @torch.no_grad()
    def _values(self, m: int, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the hidden neurons and the logits of module m's masked parent, for one image."""
        parent = self.modules.parent
        assert isinstance(parent, nn.Sequential)  # flattened pixels, a linear layer, ReLU, a linear layer
        masked = {name: parent.get_parameter(name) * mask[m] for name, mask in self.modules.masks.masks.items()}
        of_first = dict(list(masked.items())[:1])
        hidden = functional_call(parent[:3], of_first, (inputs,))
        return hidden[0], functional_call(parent, masked, (inputs,))[0]

    def _draw_network(
        self,
        ax: Axes,
        colour_of: ColourOf,
        size: float,
        fills: Sequence[Sequence[Colour]] | None = None,
        width: float = 1.6,
    ) -> list[float]:
        """Draw the layers, and the nodes filled with `fills` by layer; return the heights of the logits."""
        (hidden, pixels), logits = self.layers[0].shape, self.layers[1].shape[0]
        columns = [_heights(pixels), _heights(hidden, 0.8), _heights(logits, 0.7)]
        for layer, weights in enumerate(self.layers):
            _draw_edges(ax, weights.tolist(), layer, columns[layer : layer + 2], colour_of, width)
        for x, ys in enumerate(columns):
            _draw_nodes(ax, x, ys, size * (0.55 if x == 0 else 1.0), fills[x] if fills else "white")
        ax.set(xlim=(-0.15, 3.25), ylim=(0, 1))
        ax.axis("off")
        return columns[-1]

    def _of_module(self, m: int) -> ColourOf:
        return lambda layer, o, i: CLASS_COLOURS[m] if self.masks[layer][m, o, i] else None

    def _of_union(self, layer: int, o: int, i: int) -> Colour | None:
        users = self._users(layer, o, i)
        if not users:
            return None
        return CLASS_COLOURS[users[0]] if len(users) == 1 else SHARED

    def _users(self, layer: int, o: int, i: int) -> list[int]:
        """Return which of the task's modules use an edge."""
        return [m for m in self.rows if self.masks[layer][m, o, i]]


def _heights(count: int, spread: float = 1.0) -> list[float]:
    """Return `count` heights, evenly spread around one half, the highest first."""
    return [0.5 + spread * ((i + 0.5) / count - 0.5) for i in reversed(range(count))]


def _draw_edges(
    ax: Axes,
    weights: Sequence[Sequence[float]],
    layer: int,
    ends: Sequence[Sequence[float]],
    colour_of: ColourOf,
    width: float,
) -> None:
    """Draw the edges of one layer between the heights of their two `ends`; the larger a weight, the wider."""
    lines, colours, widths = [], [], []
    for o, row in enumerate(weights):
        for i, weight in enumerate(row):
            colour = colour_of(layer, o, i)
            if colour is not None:
                lines.append([(layer, ends[0][i]), (layer + 1, ends[1][o])])
                colours.append(colour)
                widths.append(width * (0.25 + 0.75 * abs(weight)))
    ax.add_collection(LineCollection(lines, colors=colours, linewidths=widths, zorder=1))


def _draw_nodes(ax: Axes, x: float, ys: Sequence[float], size: float, colours: str | Sequence[Colour]) -> None:
    ax.scatter([x] * len(ys), ys, s=size, c=colours, edgecolors="0.25", linewidths=0.6, zorder=2, clip_on=False)


def _draw_grafting(
    ax: Axes,
    logits: Sequence[float],
    ys: Sequence[float],
    colour: Colour,
    size: float,
    fills: str | Sequence[Colour] = "white",
) -> None:
    """Draw a grafting layer from the heights of the logits to those of its two nodes, `ys`."""
    for y in ys:
        ax.add_collection(LineCollection([[(2, a), (3, y)] for a in logits], colors=[colour], linewidths=0.5, zorder=1))
    _draw_nodes(ax, 3, ys, size, fills)


def _draw_confidence(ax: Axes, sure: float, colour: Colour, weight: str) -> None:
    ax.barh([0], [sure], color=colour)
    ax.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[], xticks=[0, 1])
    ax.grid(False)
    ax.tick_params(labelsize=7, pad=0)
    ax.set_title(f"confidence {sure:.2f}", fontsize=9, fontweight=weight)


def _grey(share: float) -> Colour:
    """Return white for 0, a dark grey for 1."""
    return plt.get_cmap("Greys")(0.85 * share)


def _shade(values: Tensor) -> list[Colour]:
    """Return greys by value: white for the lowest, dark for the highest."""
    span = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-9)
    return [_grey(float(v)) for v in span]


@dataclass(frozen=True)
class Taste:
    """A first decomposition, measured on test images."""

    data: Dataset
    trial: Trial
    modules: Modules
    subset: Sequence[int]

    @cached_property
    def milliseconds(self) -> float:
        """How long recomposing `subset` takes: the median of several times."""
        return median_ms(lambda: self.modules.recompose(self.subset), repeats=21)

    @cached_property
    def found(self) -> dict[str, float]:
        """Accuracies of modules and parent, and what the modules share; all in [0, 1]."""
        images, labels = self.data.split("test")
        log_odds, classes = self.modules.log_odds(self.data.inputs(images)), self.modules.classes
        logits, _ = training.logits(self.modules.parent, self.data, "test")
        balanced = metrics.balanced_accuracies(log_odds, labels, classes, self.trial.seed).diagonal()
        every = range(self.data.num_classes)
        return measure(self.modules, self.data, "test") | {
            "balanced": float(balanced.mean()),
            "subset": metrics.recomposed_accuracy(log_odds, labels, classes, self.subset),
            "parent": metrics.recomposed_accuracy(logits, labels, every),
            "parent_subset": metrics.recomposed_accuracy(logits, labels, every, self.subset),
        }

    @property
    def k(self) -> float:
        """The share of the edges that a module is to keep."""
        assert isinstance(self.trial.recipe.k, float)  # a page's parameter, one for all layers
        return self.trial.recipe.k

    @property
    def named(self) -> str:
        """The classes of the subset, for a sentence."""
        return ", ".join(map(str, self.subset))

    def table(self) -> Markdown:
        """Return the three properties of a decomposition, as they were measured."""
        found, named, percent = self.found, self.named, tables.percent
        remaining = self.modules.remaining
        rows = [
            ("decomposability", "remaining parameters, one module", percent(remaining(self.subset[:1])), "100%"),
            ("", "accuracy of a module, all images (mean)", percent(found["module_accuracy"]), ""),
            ("", "accuracy of a module, balanced (mean)", percent(found["balanced"]), ""),
            ("", "Jaccard index (mean over pairs)", f"{found['jaccard_index']:.2f}", ""),
            ("recomposability", "accuracy, all classes", percent(found["accuracy"]), percent(found["parent"])),
            ("", f"accuracy, classes {named}", percent(found["subset"]), percent(found["parent_subset"])),
            ("reusability", "remaining parameters, all classes", percent(remaining()), "100%"),
            ("", f"remaining parameters, classes {named}", percent(remaining(self.subset)), "100%"),
            ("", f"time to recompose {named}", f"{self.milliseconds:.1f} ms", ""),
        ]
        return tables.table(
            pd.DataFrame(rows, columns=["property", "quantity", "modules", "parent"]),
            f"One decomposition of {of_network(self.data.name, self.trial.model)}, k = {percent(self.k, 0)}, test "
            "images (n = 1 seed). On a subset the parent is restricted to the same classes: the largest of "
            "their logits wins.",
            "tab-taste",
        )

    def answer(self) -> Markdown:
        """Say what came out, against the parent, for all classes and for the subset."""
        found, percent = self.found, tables.percent
        whole, part = (100 * (found[a] - found[b]) for a, b in (("accuracy", "parent"), ("subset", "parent_subset")))
        return Markdown(
            f"**Answer.** Yes. On {of_network(self.data.name, self.trial.model)} (n = 1 seed, "
            f"{len(self.data.test_labels):,} test images) the vote of all modules has {whole:+.2f} points against the "
            f"parent, with {percent(self.modules.remaining())} remaining parameters. A network for the classes "
            f"{' and '.join(self.named.rsplit(', ', 1))}, put together in milliseconds, has {part:+.2f} "
            "points against the parent restricted to the same classes, with "
            f"{percent(self.modules.remaining(self.subset))} remaining parameters."
        )
