"""Why deep networks die under a random mask, and what brings them back: first masks probed, short co-trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import modlib
from modlib import masking
from modlib.engines import start
from modlib.study import deep, figures, names, probes, pull, records, tables
from modlib.study.deep import MASKS, STATISTICS
from modlib.study.experiment import Experiment
from modlib.study.probes import COMBINATIONS
from modlib.study.records import Record, Rows, Store
from modlib.zoo import parents


@dataclass(frozen=True)
class Settings(deep.Settings):
    """The parameters of the page that its results depend on; the notebook says what each is."""

    fc_models: Sequence[str]
    rates: Sequence[float]
    epochs: int
    images_per_epoch: int
    batch_size: int

    @property
    def fully(self) -> Sequence[str]:
        """The fully connected parents beside the deep one."""
        return [name for name in parents.FC if name in self.fc_models]

    def after(self, init: str, norm: str, lr: float, seed: int) -> Experiment:
        """Return a short co-training of the deep parent."""
        size = {"epochs": self.epochs, "images": self.images_per_epoch, "batch": self.batch_size}
        choice = {"init": init, "norm": norm, "lr": lr}
        return self.experiment(self.deep(seed), "after", **choice, **size, precision=self.precision, **self.probed())


def experiments(*, results: str = "", **parameters: Any) -> list[Experiment]:
    """Return all experiments of the page.

    What further seeds co-train follows from the rates that the first one chose: that needs its records in `results`.
    """
    settings, store = Settings(**{f.name: parameters[f.name] for f in fields(Settings)}), Store.at(results)
    found = [settings.before(subject) for subject in settings.subjects]
    for combination in COMBINATIONS:
        tried = {lr: settings.after(*combination, lr, settings.seeds[0]) for lr in settings.rates}
        found += tried.values()
        if all(one.is_done(store) for one in tried.values()):
            rate = _best_rate({lr: one.run(store, list) for lr, one in tried.items()})  # read: they are there
            found += [settings.after(*combination, rate, seed) for seed in settings.seeds[1:]]
    return found


def _best_rate(tried: Mapping[float, Record]) -> float:
    """Return the rate, the first of several, whose vote is the most accurate; one that diverged has none."""
    return max(tried, key=lambda lr: tried[lr].rows[-1].get("accuracy", 0.0))


@dataclass(frozen=True)
class Bench(deep.Bench):
    """What the experiments are run on."""

    settings: Settings

    @property
    def votes(self) -> int:
        """How many of the judged images are of the classes that have modules."""
        labels = self.data.held_out_labels[: self.settings.judged_images]
        return int(np.isin(labels, self.settings.classes).sum())

    def after(self) -> tuple[list[Record], pd.DataFrame]:
        """Return the short co-trainings, and their rows; `chosen`: at the best rate of the first seed."""
        first, *others = self.settings.seeds
        done, best = [], {}
        for combination in COMBINATIONS:
            tried = {lr: self._after(*combination, lr, first) for lr in self.settings.rates}
            best[combination] = _best_rate(tried)
            done += [*tried.values(), *(self._after(*combination, best[combination], seed) for seed in others)]
        rows = records.frame(done)
        settings = zip(rows["init"], rows["norm"], rows["lr"], strict=True)
        return done, rows.assign(chosen=[best[init, norm] == lr for init, norm, lr in settings])

    def _after(self, init: str, norm: str, lr: float, seed: int) -> Record:
        return self.record(self.settings.after(init, norm, lr, seed), partial(self._trained, init, norm, lr, seed))

    def _trained(self, init: str, norm: str, lr: float, seed: int) -> Rows:
        """Co-train modules without stemming; rows: those of `probes.deployed`, and one of their accuracies."""
        own, parent = self.settings, self.parents[self.settings.deep(seed)]
        common: dict[str, Any] = {"dataset": own.dataset, "model": own.model, "seed": seed, "when": "after"}
        common |= {"init": init, "norm": norm, "lr": lr}
        try:
            modules = modlib.cotrain(
                parent, self.data, k=own.k, alpha=0.0, epochs=own.epochs, seed=seed, init=init, norm=norm, lr=lr,
                classes=own.classes, batch_size=own.batch_size, images_per_epoch=own.images_per_epoch, device="cpu",
                schedule="cosine", grafting_init="own_logit", precision=own.precision,
            )  # fmt: skip
        except FloatingPointError as error:
            return [common | {"failed": str(error)}]
        layers = probes.deployed(modules, parent, self.data.inputs(self.data.held_out_images[: own.probe_images]))
        last = probes.judged(modules, self.data, seed, own.judged_images, own.probe_images)
        extra = {f"extra_{name}": count for name, count in modules.extra_parameters().items()}
        return [common | row for row in layers] + [common | last | extra]


COLOUR = {"kaiming": figures.COLOURS["published"], "magnitude": figures.COLOURS["ours"]}
LINE = {"frozen": "--", "batch": "-", "none": "-"}


def in_words(init: str, norm: str) -> str:
    """Return the first mask and the statistics of a combination in words."""
    return f"{MASKS[init]}, {STATISTICS[norm]}"


def _of(rows: pd.DataFrame, init: str, norm: str, column: str) -> pd.Series:
    """Return a column of the rows of one combination, where it is there."""
    return rows.loc[(rows["init"] == init) & (rows["norm"] == norm), column].dropna()


def _by_depth(ax: Axes, rows: pd.DataFrame, x: str, y: str, log: bool = False) -> None:
    """Draw one line for each combination, the mean over seeds, and the seeds; `log`: `y` is a logarithm."""
    for init, norm in COMBINATIONS:
        values = _of(rows, init, norm, y)
        depth = rows.loc[values.index, x]
        mean = values.groupby(depth).mean()
        style: dict[str, Any] = {"color": COLOUR[init], "linestyle": LINE[norm], "label": in_words(init, norm)}
        ax.plot(mean.index, 10**mean if log else mean, **style)
        ax.scatter(depth, 10**values if log else values, color=COLOUR[init], s=5, alpha=0.5)
    ax.xaxis.set_major_locator(plt.MaxNLocator(5, integer=True))
    if log:
        ax.set_yscale("log")


def _signal_and_agreement(axes: Sequence[Axes], rows: pd.DataFrame) -> None:
    _by_depth(axes[0], rows, "layer", "log_signal", log=True)
    _by_depth(axes[1], rows, "layer", "agreement")
    axes[0].set(xlabel="layer (the last: logits)", ylabel="signal / parent's")
    axes[1].set(xlabel="layer (the last: logits)", ylabel="agreement with the parent", ylim=(None, 1.05))
    figure = axes[0].get_figure()
    assert isinstance(figure, Figure)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=2,
        frameon=False,
        title="first mask, statistics of the batch normalisation",
    )


def draw_before(rows: pd.DataFrame, settings: Settings) -> Figure:
    """Draw signal, agreement and gradient of the deep parent under its first masks over its depth."""
    figure, axes = plt.subplots(1, 3, figsize=(figures.WIDTH, 3.1))
    deep = rows[rows["model"] == settings.model]
    _signal_and_agreement(axes, deep)
    depth = np.arange(1, int(deep["layer"].max()) + 1)
    axes[0].plot(depth, settings.k ** (depth / 2), color="0.5", linestyle=":", linewidth=1)
    _by_depth(axes[2], deep, "masked_layer", "log_gradient", log=True)
    axes[2].set(xlabel="masked layer", ylabel="gradient / parent's")
    return figure


def draw_after(rows: pd.DataFrame) -> Figure:
    """Draw signal and agreement of the co-trained modules over the depth."""
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    _signal_and_agreement(axes, rows[rows["chosen"]])
    return figure


def _each_layer(rows: pd.DataFrame, x: str, y: str, head: str) -> pd.DataFrame:
    """Return a quantity, given by its logarithm: layers down, combinations across; geometric mean over seeds."""
    mean = rows.dropna(subset=[y]).groupby([x, "init", "norm"])[y].mean()
    shown = {in_words(init, norm): mean[:, init, norm].map(lambda v: f"{10**v:.2g}") for init, norm in COMBINATIONS}
    table = pd.DataFrame(shown)
    table.insert(0, head, table.index.astype(int).astype(str))
    return table


def signal_table(rows: pd.DataFrame, settings: Settings) -> Markdown:
    """Return the signal by layer before training."""
    return tables.table(
        _each_layer(rows[rows["model"] == settings.model], "layer", "log_signal", "layer"),
        f"Signal by layer before training, the parent's is 1: {settings.label}, k = {settings.k:.0%}, "
        f"{settings.probe_images} held-out images, geometric mean (n = {len(settings.seeds)}). A signal near 10⁻⁷ is "
        "nothing but the rounding of float32.",
        "tab-deep-signal",
    )


def gradient_table(rows: pd.DataFrame, settings: Settings) -> Markdown:
    """Return the gradient by masked layer before training."""
    return tables.table(
        _each_layer(rows[rows["model"] == settings.model], "masked_layer", "log_gradient", "masked layer"),
        "Gradient of the scores by masked layer, as a norm; that of the parent without a mask is 1: "
        f"{settings.label}, modules {settings.classes}, geometric mean (n = {len(settings.seeds)}).",
        "tab-deep-gradient",
    )


def signal_after_table(rows: pd.DataFrame, settings: Settings) -> Markdown:
    """Return the signal by layer after the short co-training."""
    return tables.table(
        _each_layer(rows[rows["chosen"]], "layer", "log_signal", "layer"),
        "Signal by layer after the short co-training, the parent's is 1: "
        f"{settings.label}, geometric mean (n = {len(settings.seeds)}).",
        "tab-deep-signal-after",
    )


def _at_the_logits(rows: pd.DataFrame) -> pd.DataFrame:
    """Return signal and agreement of the last layer, by model, combination and seed."""
    layers = rows.dropna(subset=["log_signal"]).groupby(["model", "init", "norm", "seed"])
    return layers[["log_signal", "agreement"]].last()


def answers_table(rows: pd.DataFrame, settings: Settings) -> Markdown:
    """Return what the masked parents answer before any training."""
    ends, shown = _at_the_logits(rows), []
    judged = rows.dropna(subset=["masked_accuracy"])
    for which, one in judged.groupby(["model", "init", "norm"], sort=False):
        model, init, norm = map(str, which)
        end = ends.xs((model, init, norm)) if init != "no mask" else None
        shown.append(
            {
                "parent": names.of_model(model),
                "first mask": MASKS[init],
                "statistics": "" if init == "no mask" else STATISTICS[norm],
                "signal": "1" if end is None else f"{10 ** end['log_signal'].mean():.2g}",
                "agreement": "1" if end is None else f"{end['agreement'].mean():.2f}",
                "accuracy (%)": records.mean_and_spread(one["masked_accuracy"], digits=1),
                "the same answer (%)": records.mean_and_spread(one["most_frequent"], digits=1),
                "different outputs (%)": f"{100 * one['distinct_outputs'].mean():.0f}",
            }
        )
    return tables.table(
        pd.DataFrame(shown),
        f"What the masked parents answer before any training, k = {settings.k:.0%}: {settings.judged_images:,} "
        f"held-out images of {names.of_data(settings.dataset)} or, for fully connected parents, of "
        f"{names.of_data(settings.fc_dataset)}. Signal and agreement are those of the logits; mean ± standard "
        f"deviation (n = {len(settings.seeds)}).",
        "tab-deep-answers",
    )


def _signal_in_words(share: float) -> str:
    """Return a share of the parent's signal; below a millionth it is the rounding of float32."""
    return f"nothing but rounding ({share:.0e})" if share < 1e-6 else f"{share:.1g}"


def after_table(rows: pd.DataFrame, bench: Bench) -> Markdown:
    """Return the accuracies after the short co-training, at the chosen rates."""
    own, final = bench.settings, rows.dropna(subset=["accuracy"])
    shown = []
    for init, norm in COMBINATIONS:
        one = final[(final["init"] == init) & (final["norm"] == norm) & final["chosen"]]
        shown.append(
            {
                "first mask": MASKS[init],
                "statistics": STATISTICS[norm],
                "rate": f"{_of(rows[rows['chosen']], init, norm, 'lr').iloc[0]:g}",
                "vote (%)": records.mean_and_spread(one["accuracy"], digits=1),
                "balanced accuracy of a module (%)": records.mean_and_spread(one["balanced_accuracy"], digits=1),
                "Jaccard index": records.mean_and_spread(one["jaccard_index"], 1, 3),
                "n": len(one),
            }
        )
    count, steps = len(own.classes), own.epochs * -(-own.images_per_epoch // own.batch_size)
    return tables.table(
        pd.DataFrame(shown),
        f"{count} modules after {own.epochs} epochs of {own.images_per_epoch:,} images ({steps} steps), no stemming: "
        f"{own.label}. Vote of {count} classes (chance: {100 / count:.0f}) on {bench.votes:,} held-out images; "
        "balanced accuracy of a module (chance: 50); mean ± standard deviation over n seeds.",
        "tab-deep-after",
    )


def rates_table(rows: pd.DataFrame, bench: Bench) -> Markdown:
    """Return the votes that chose the rates."""
    own, final = bench.settings, rows.dropna(subset=["accuracy"])
    shown = []
    for init, norm in COMBINATIONS:
        tried = final[(final["init"] == init) & (final["norm"] == norm) & (final["seed"] == own.seeds[0])]
        votes = tried.set_index("lr")["accuracy"]
        said = [f"{100 * votes[lr]:.1f}" if lr in votes else "diverged" for lr in own.rates]
        heads = [f"rate {lr:g}: vote (%)" for lr in own.rates]
        shown.append({"first mask": MASKS[init], "statistics": STATISTICS[norm], **dict(zip(heads, said, strict=True))})
    return tables.table(
        pd.DataFrame(shown),
        f"The rates that were tried, with seed {own.seeds[0]}: vote of {len(own.classes)} classes on the same "
        f"{bench.votes:,} held-out images.",
        "tab-deep-rates",
    )


def statistics_table(networks: Mapping[str, nn.Module]) -> Markdown:
    """Return what statistics of its own cost a module, and a network recomposed of all of them."""
    shown = []
    for which, network in networks.items():
        edges, classes = sum(masking.sizes(masking.maskable_parameters(network)).values()), pull.SETTINGS[which].classes
        own = start.statistics(network).values()
        count, size = sum(s.numel() for s in own), sum(s.numel() * s.element_size() for s in own)
        shown.append(
            {
                "network": names.of_model(which),
                "classes N": classes,
                "maskable weights": f"{edges:,}",
                "numbers of a set": f"{count:,}",
                "of the weights": tables.percent(count / edges, 3),
                "a set (kB)": f"{size / 1e3:.1f}",
                "a mask, packed (kB)": f"{edges / 8e3:,.1f}",
                "N sets (kB)": f"{classes * size / 1e3:,.0f}",
                "weights, float32 (kB)": f"{4 * edges / 1e3:,.0f}",
            }
        )
    return tables.table(
        pd.DataFrame(shown),
        "What statistics of its own cost a module, and a network recomposed of all N modules: numbers and bytes, "
        "beside a packed mask and the parent's weights.",
        "tab-deep-statistics",
    )


def answer(rows: pd.DataFrame, after: pd.DataFrame, bench: Bench) -> Markdown:
    """Return the answer in sentences: what the first masks leave, and what a short co-training makes of it."""
    own, chosen = bench.settings, after[after["chosen"]]
    deep_rows, count = rows[rows["model"] == own.model], len(own.classes)
    left = float(10 ** _at_the_logits(deep_rows).xs(("kaiming", "frozen"), level=("init", "norm"))["log_signal"].mean())

    def percent(part: pd.DataFrame, init: str, norm: str, column: str) -> str:
        return f"{records.mean_and_spread(_of(part, init, norm, column), digits=1)}%"

    return Markdown(
        f"**Answer**, for {own.label} (held-out images, n = {len(own.seeds)}). Under a random mask, with the parent's "
        f"statistics in batch normalisation, {_signal_in_words(left)} of the parent's signal is left at the logits. "
        f"After a short co-training the vote of {count} modules (chance: {100 / count:.0f}%) is right on\n\n"
        f"- random mask: {percent(chosen, 'kaiming', 'frozen', 'accuracy')} with the parent's statistics, "
        f"{percent(chosen, 'kaiming', 'batch', 'accuracy')} with each module's own;\n"
        f"- the parent's largest weights as first mask: {percent(chosen, 'magnitude', 'frozen', 'accuracy')} and "
        f"**{percent(chosen, 'magnitude', 'batch', 'accuracy')}**."
    )
