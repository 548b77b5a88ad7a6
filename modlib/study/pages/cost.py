"""What a decomposition costs: the obvious way against ours, where a step of ours goes, and how both grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn

from modlib import recipes
from modlib.data import Dataset
from modlib.engines.vectorised import VectorisedEngine
from modlib.study import figures, tables, timing, two_programs
from modlib.zoo import parents


@dataclass(frozen=True)
class Race:
    """Two programs that take the same steps on the same data, and how they are measured.

    `k`: share of the edges kept in every layer; `steps`: in one measurement; `repeats`: measurements of each, in turns;
    `threads`: of both; `device`: cpu or cuda.
    """

    data: Dataset
    k: float
    steps: int
    repeats: int
    threads: int
    device: str

    def _in_turns(self, programs: Mapping[str, two_programs.Steps]) -> pd.DataFrame:
        """Return one row a measurement: the program, and milliseconds a step."""
        for run in programs.values():
            run(2)  # memory, caches, compilation
        measured = {name: partial(run, self.steps) for name, run in programs.items()}
        taken = timing.in_turns(measured, self.repeats, device=self.device)
        turns = zip(*taken.values(), strict=True)
        rows = [(name, 1e3 * once / self.steps) for turn in turns for name, once in zip(taken, turn, strict=True)]
        return pd.DataFrame(rows, columns=["program", "ms"])

    def _both(self, parent: nn.Module, chosen: Sequence[int], batch: int) -> pd.DataFrame:
        obvious = two_programs.obvious_way(parent, chosen, batch, **self._common)
        return self._in_turns(
            {"obvious way": obvious, "ours": two_programs.ours([parent], chosen, batch, **self._common)}
        )

    @property
    def _common(self) -> dict[str, Any]:
        return {"data": self.data, "k": self.k, "device": self.device}

    def by_size(self, models: Sequence[str], batch_sizes: Sequence[int]) -> pd.DataFrame:
        """Return the time of a step of all modules of every parent with every batch size."""
        every = range(self.data.num_classes)
        rows = [
            self._both(parents.make(model, self.data), every, batch).assign(model=model, batch=batch)
            for model in models
            for batch in batch_sizes
        ]
        return pd.concat(rows)

    def by_classes(self, model: str, counts: Sequence[int], batch: int) -> pd.DataFrame:
        """Return the time of a step by the number of modules."""
        parent = parents.make(model, self.data)
        return pd.concat([self._both(parent, range(count), batch).assign(classes=count) for count in counts])

    def by_population(self, model: str, populations: Sequence[int], batch: int) -> pd.DataFrame:
        """Return the time of a step of ours by the number of decompositions side by side; `each`: for each of them."""
        rows = []
        for size in populations:
            made = [parents.make(model, self.data, seed) for seed in range(size)]
            taken = self._in_turns(
                {"ours": two_programs.ours(made, range(self.data.num_classes), batch, **self._common)}
            )
            rows.append(taken.assign(population=size, each=taken["ms"] / size))
        return pd.concat(rows)

    def parts(self, model: str, batch: int, whole: float) -> Parts:
        """Return where the milliseconds `whole` of a step of ours go, each part repeated by itself."""
        parent = parents.make(model, self.data).to(self.device)
        first = next(layer for layer in parent.modules() if isinstance(layer, nn.Linear))
        out, width = self.data.num_classes * first.out_features, first.in_features
        left, right, back = (self._random(*shape) for shape in ((out, width), (batch, width), (out, batch)))
        square, one, other = (self._random(*shape) for shape in ((1024, 1024), (out * width,), (out * width,)))
        products = self._ms(lambda: left @ right.T) + self._ms(lambda: back @ right)
        operations = 4 * out * width * batch  # two products of the first layer, two operations for each multiply-add
        fused, sorting = self._after_the_gradient(parent, batch)
        # the fastest product seen here, whatever its shape
        peak = max(2 * 1024**3 / self._ms(lambda: square @ square), operations / products) / 1e6
        bandwidth = 3 * 4 * out * width / self._ms(lambda: torch.add(one, other, out=one)) / 1e6
        moved = 6 * 4 * out * width  # gradient, scores, momentum read; scores, momentum, masked weights written
        return Parts(model, batch, whole, products, fused, sorting, operations, moved, peak, bandwidth)

    def _after_the_gradient(self, parent: nn.Module, batch: int) -> tuple[float, float]:
        """Return the time of the first layer's update, and of a full sort of its scores, ms."""
        run = recipes.Run(parent, recipes.published(k=self.k, batch_size=batch), 0)
        engine = VectorisedEngine([run], tuple(range(self.data.num_classes)), self.data, torch.device(self.device))
        update = engine.updates[0]
        gradient, average = torch.randn_like(update.scores) * 1e-6, update.scores.mean(1, keepdim=True)
        factor = torch.full((1, 1, 1, 1), 1e-6, device=self.device)
        fused = self._ms(lambda: update.step(gradient, average, factor, 1e-6))
        return fused, self._ms(lambda: [scores.flatten().sort() for scores in update.scores[0]])

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device)

    def _ms(self, program: timing.Program, calls: int = 20) -> float:
        """Return the time of a call, the shortest of several measurements."""
        timing.repeated(program, 3)()
        taken = timing.in_turns({"": timing.repeated(program, calls)}, self.repeats, device=self.device)
        return 1e3 * min(taken[""]) / calls


@dataclass(frozen=True)
class Parts:
    """The parts of a step of ours in milliseconds, what they have to do, and what the machine reaches.

    `whole`: the step. `products`: matrix products of the first layer, of so many `operations`; `fused`: what follows
    the gradient, which moves so many bytes; `sorting`: a full sort of every module's first layer; `peak`: operations in
    a nanosecond; `bandwidth`: bytes in a nanosecond.
    """

    model: str
    batch: int
    whole: float
    products: float
    fused: float
    sorting: float
    operations: int
    moved: int
    peak: float
    bandwidth: float


def medians(speed: pd.DataFrame, by: Sequence[str] = ("model", "batch")) -> pd.DataFrame:
    """Return the median time of a step, ms: one column a program, and `ratio`, the obvious way over ours."""
    middle = speed.groupby([*by, "program"])["ms"].median().unstack()
    return middle.assign(ratio=middle["obvious way"] / middle["ours"])


def speed_table(speed: pd.DataFrame, race: Race) -> Markdown:
    """Return the time of a step and an epoch of both programs."""
    spans = speed.groupby(["model", "batch", "program"])["ms"].agg(lambda s: f"{s.min():.2f} to {s.max():.2f}")
    shown = []
    for one in medians(speed).reset_index().to_dict("records"):
        model, batch = one["model"], one["batch"]
        steps = math.ceil(len(race.data.train_labels) / batch)
        programs = ("obvious way", "ours")
        of_step = {f"{name} (ms a step)": f"{one[name]:.2f} ({spans[model, batch, name]})" for name in programs}
        of_epoch = {f"{name} (s an epoch)": f"{one[name] * steps / 1e3:.1f}" for name in programs}
        shown.append({"parent": model.upper(), "batch": batch, **of_step, **of_epoch, "ratio": f"{one['ratio']:.1f}"})
    return tables.table(
        pd.DataFrame(shown),
        f"Time of a step with all {race.data.num_classes} modules on {race.data.name}, {race.threads} thread(s): "
        f"median (smallest to largest) of {race.repeats} measurements of {race.steps} steps, in turns.",
        "tab-cost-speed",
    )


def parts_table(parts: Parts, modules: int) -> Markdown:
    """Return the parts of a step of ours beside the limits of the machine."""
    of_products, of_pass = parts.operations / parts.peak / 1e6, parts.moved / parts.bandwidth / 1e6
    update = "what follows the gradient: stemming, SGD, top k, masking (compiled, one pass)"
    rest = max(parts.whole - parts.products - parts.fused, 0)
    rows = [
        ("matrix products of the first layer", parts.products, f"{parts.operations / 1e6:.0f} million operations"),
        (update, parts.fused, f"{parts.moved / 1e6:.1f} MB"),
        ("the rest: batch, other layers, objective, calls", rest, ""),
        ("one step", parts.whole, ""),
        ("for comparison: a full sort of every module's first layer", parts.sorting, ""),
    ]
    shown = pd.DataFrame([(part, f"{ms:.2f}", work) for part, ms, work in rows], columns=["part", "ms", "work"])
    limits = (of_products, of_pass, None, of_products + of_pass, None)
    shown["limit of this machine (ms)"] = ["" if v is None else f"{v:.2f}" for v in limits]
    shares = [f"{ms / parts.whole:.0%}" for _, ms, _ in rows]
    shown["share of a step"] = [*shares[:-1], ""]  # the last is no part of it
    return tables.table(
        shown,
        f"A step of ours, {parts.model.upper()}, batch {parts.batch}, {modules} modules. Limits: {parts.peak:.0f} "
        "thousand million operations a second (the fastest matrix product seen: 1024 x 1024, or the ones above), "
        f"{parts.bandwidth:.1f} GB a second (one addition of two arrays of the first layer's size).",
        "tab-cost-parts",
    )


def draw_growth(growth: pd.DataFrame, side_by_side: pd.DataFrame) -> Figure:
    """Draw the time of a step against the number of modules, and against that of decompositions side by side."""
    figure, (a, b) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    counts, sizes = growth["classes"].unique(), side_by_side["population"].unique()
    sns.lineplot(growth, x="classes", y="ms", hue="program", estimator="median", errorbar=None, marker="o", ax=a)
    sns.scatterplot(growth, x="classes", y="ms", hue="program", s=12, legend=False, ax=a)
    a.set(xscale="log", yscale="log", xlabel="modules", ylabel="ms a step", xticks=counts, xticklabels=counts)
    a.legend(frameon=False, title=None)
    sns.lineplot(side_by_side, x="population", y="each", estimator="median", errorbar=None, marker="o", ax=b)
    b.set(xlabel="decompositions side by side", ylabel="ms a step, each", ylim=(0, None), xticks=sizes)
    return figure


def classes_table(growth: pd.DataFrame, parts: Parts) -> Markdown:
    """Return the time of a step against the number of modules."""
    by_count = medians(growth, ["classes"]).reset_index()
    return tables.table(
        by_count.map(lambda v: f"{v:.2f}" if isinstance(v, float) else v),
        f"Time of a step (ms) against the number of modules, {parts.model.upper()}, batch {parts.batch}.",
        "tab-cost-classes",
    )


def answer(speed: pd.DataFrame, parts: Parts, growth: pd.DataFrame, race: Race) -> Markdown:
    """Return the answer in sentences: how much faster ours is, where its time goes, and how it grows."""
    middle, by_count = medians(speed), medians(growth, ["classes"]).reset_index()
    one, few, many = middle.xs((parts.model, parts.batch)), by_count.iloc[0], by_count.iloc[-1]
    epoch = one["ours"] * math.ceil(len(race.data.train_labels) / parts.batch) / 1e3
    least, most = middle["ratio"].min(), middle["ratio"].max()
    threads = f"{race.threads} thread{'s' if race.threads > 1 else ''} of a {race.device.upper()}"
    return Markdown(
        f"**Answer** ({race.data.name} {parts.model.upper()}, {race.data.num_classes} modules, batch {parts.batch}, "
        f"{threads}, medians of n = {race.repeats}). Ours takes **{one['ours']:.1f} ms a step**, so {epoch:.1f} s an "
        f"epoch. The obvious way takes {one['obvious way']:.1f} ms, **{one['ratio']:.1f} times** as long "
        f"({least:.1f} to {most:.1f} over all parents and batches tried). The matrix products take "
        f"{parts.products / parts.whole:.0%} of our step. {int(many['classes'])} modules take "
        f"{many['ours'] / few['ours']:.1f} times as long as {int(few['classes'])}: less than in proportion."
    )


def obvious_code() -> Markdown:
    """Return the code of the obvious way."""
    return Markdown(f"```python\n{two_programs.source()}```")
