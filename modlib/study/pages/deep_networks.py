"""Why deep networks die under a random mask: first masks probed, short co-trainings, trials of the stemming loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from modlib import masking, stemming
from modlib.data import Dataset
from modlib.engines import start
from modlib.modules import Modules
from modlib.study import claims, figures, probes, pull, records, tables
from modlib.study.experiment import Experiment
from modlib.study.probes import COMBINATIONS
from modlib.study.pull import WEIGHT_DECAY, called, span
from modlib.study.records import Record, Rows, Store
from modlib.study.trials import trained_parent
from modlib.zoo import datasets, parents

VERSION = 1
"""Raised when the same parameters give another result."""
Subject = tuple[str, str, int]
"""A parent: its data set, its model, and the seed that its measurements go by."""
PULLS = [
    ("total", 0.0, 5e-4),
    ("total", 1.0, 5e-4),
    ("scale_free", 0.05, 5e-4),
    ("total", 0.0, 0.0),
    ("total", 1.0, 0.0),
]
"""The trials of the stemming loss: reading of Eq. 1, α, weight decay."""
LARGE = {"vgg16": "VGG16", "resnet50": "ResNet50", "wrn28_10": "WideResNet-28-10"}
"""The paper's large networks, and what it calls them."""


@dataclass(frozen=True)
class Settings:
    """The parameters of the page that its results depend on; the notebook says what each is."""

    dataset: str
    model: str
    parent_recipe: str
    parent_epochs: int
    reduced: str
    fc_dataset: str
    fc_models: Sequence[str]
    fc_epochs: int
    seeds: Sequence[int]
    parent_seeds: Sequence[int]
    k: float
    probe_images: int
    judged_images: int
    classes: Sequence[int]
    rates: Sequence[float]
    epochs: int
    images_per_epoch: int
    batch_size: int
    pull_classes: Sequence[int]
    pull_epochs: int
    pull_images: int
    precision: str

    @property
    def label(self) -> str:
        """The deep parent in words."""
        return f"{self.model} on {self.dataset}" + (f" ({self.reduced})" if self.reduced else "")

    @property
    def subjects(self) -> list[Subject]:
        """All parents, seed by seed, the deep one first."""
        fully = [name for name in parents.FC if name in self.fc_models]
        others = [[(self.fc_dataset, name, seed) for name in fully] for seed in self.seeds]
        return [one for seed, fc in zip(self.seeds, others, strict=True) for one in [self.deep(seed), *fc]]

    def deep(self, seed: int) -> Subject:
        """Return the deep parent of a seed."""
        return (self.dataset, self.model, seed)

    def parent_seed(self, seed: int) -> int:
        """Return the seed that the deep parent of a seed is trained with."""
        return dict(zip(self.seeds, self.parent_seeds, strict=True))[seed]

    def shown(self) -> dict[str, Any]:
        """Return what the provenance of the page names."""
        left_out = ("reduced", "fc_models", "probe_images", "judged_images", "classes", "pull_classes")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}

    def before(self, subject: Subject) -> Experiment:
        """Return the measurement of a parent's first masks."""
        return self._experiment(subject, "before", **self._probes())

    def after(self, init: str, norm: str, lr: float, seed: int) -> Experiment:
        """Return a short co-training of the deep parent."""
        size = {"epochs": self.epochs, "images": self.images_per_epoch, "batch": self.batch_size}
        choice = {"init": init, "norm": norm, "lr": lr}
        return self._experiment(self.deep(seed), "after", **choice, **size, precision=self.precision, **self._probes())

    def pulled(self, subject: Subject, reading: str, alpha: float, weight_decay: float) -> Experiment:
        """Return a trial of the stemming loss."""
        choice = {"reading": reading, "alpha": alpha, "weight_decay": weight_decay}
        size = {"classes": self.pull_classes, "epochs": self.pull_epochs, "images": self.pull_images}
        return self._experiment(subject, "pulled", **choice, **size, precision=self.precision)

    def _probes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("probe_images", "judged_images", "classes")}

    def _experiment(self, subject: Subject, kind: str, **settings: Any) -> Experiment:
        dataset, model, seed = subject
        facts = {"dataset": dataset, "model": model, "seed": seed, "kind": kind, "k": self.k, "version": VERSION}
        if model == self.model:
            facts |= {"parent_seed": self.parent_seed(seed), "parent_recipe": self.parent_recipe}
        epochs = self.parent_epochs if model == self.model else self.fc_epochs
        told = [f"{settings[s]}" for s in ("init", "norm", "reading", "lr", "alpha", "weight_decay") if s in settings]
        label = "-".join([dataset, model, kind, *told, f"seed{seed}"])
        return Experiment("deep_networks", label, facts | {"parent_epochs": epochs} | settings)


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
    return found + [settings.pulled(*which) for which in _pulls(settings)]


def _pulls(settings: Settings) -> list[tuple[Subject, str, float, float]]:
    """Return the trials of the stemming loss: FC1 and the deep parent of every seed."""
    subjects = [one for seed in settings.seeds for one in ((settings.fc_dataset, "fc1", seed), settings.deep(seed))]
    return [(subject, *setting) for subject in subjects for setting in PULLS]


def _best_rate(tried: Mapping[float, Record]) -> float:
    """Return the rate, the first of several, whose vote is the most accurate; one that diverged has none."""
    return max(tried, key=lambda lr: tried[lr].rows[-1].get("accuracy", 0.0))


@dataclass(frozen=True)
class Bench:
    """What the experiments are run on: settings, data sets by name, trained parents, and the store of records."""

    settings: Settings
    store: Store
    sets: Mapping[str, Dataset]
    parents: Mapping[Subject, nn.Module]

    @classmethod
    def prepared(cls, settings: Settings, store: Store) -> Bench:
        """Load the data and train the parents, or read them where the store has them."""
        sets = {name: datasets.load(name) for name in dict.fromkeys((settings.dataset, settings.fc_dataset))}
        made: dict[Subject, nn.Module] = {}
        deep: dict[int, nn.Module] = {}
        for subject in settings.subjects:
            dataset, model, seed = subject
            if model != settings.model:
                made[subject] = trained_parent(sets[dataset], model, seed, settings.fc_epochs, store)
                continue
            own = settings.parent_seed(seed)
            if own not in deep:
                training = (settings.parent_epochs, store, settings.parent_recipe)
                deep[own] = trained_parent(sets[dataset], model, own, *training)
            made[subject] = deep[own]
        return cls(settings, store, sets, made)

    @property
    def data(self) -> Dataset:
        """The data of the deep parent."""
        return self.sets[self.settings.dataset]

    @property
    def votes(self) -> int:
        """How many of the judged images are of the classes that have modules."""
        labels = self.data.held_out_labels[: self.settings.judged_images]
        return int(np.isin(labels, self.settings.classes).sum())

    def record(self, experiment: Experiment, measure: Callable[[], Rows]) -> Record:
        """Return the record of an experiment, measured where it is not there."""
        data = self.sets[experiment.parameters["dataset"]]
        return experiment.run(self.store, measure, data_sha256=data.sha256())

    def before(self) -> list[Record]:
        """Return what is left of every parent under its first masks."""
        own = self.settings
        return [self.record(own.before(subject), partial(self._probed, subject)) for subject in own.subjects]

    def _probed(self, subject: Subject) -> Rows:
        own, (dataset, model, seed) = self.settings, subject
        rows = probes.before_training(
            self.parents[subject],
            self.sets[dataset],
            seed,
            k=own.k,
            classes=own.classes,
            probe_images=own.probe_images,
            judged_images=own.judged_images,
        )
        return [{"dataset": dataset, "model": model, "seed": seed, "when": "before"} | row for row in rows]

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

    def pulled(self) -> list[Record]:
        """Return the trials of the stemming loss."""
        own = self.settings
        return [self.record(own.pulled(*which), partial(self._pulled, *which)) for which in _pulls(own)]

    def _pulled(self, subject: Subject, reading: str, alpha: float, weight_decay: float) -> Rows:
        """Train modules by the published recipe; a row an epoch: how far apart scores are (σ), and the masks."""
        own, (dataset, model, seed), parent = self.settings, subject, self.parents[subject]
        common: dict[str, Any] = {"dataset": dataset, "model": model, "seed": seed, "when": "pulled"}
        common |= {"reading": reading, "alpha": alpha, "weight_decay": weight_decay}
        found: Rows = []

        def watch(epoch: int, modules: Modules) -> None:
            row = {"epoch": epoch, "log_apart": probes.log10(pull.median_apart(modules))}
            row |= {"jaccard_index": modules.masks.mean_jaccard()}
            found.append(common | row | {"remaining_parameters": modules.masks.remaining(own.pull_classes)})

        modlib.cotrain(
            parent, self.sets[dataset], k=own.k, alpha=alpha, reduction=reading, epochs=own.pull_epochs, seed=seed,
            classes=own.pull_classes, batch_size=32, images_per_epoch=own.pull_images,
            precision=own.precision if model == own.model else "float32", weight_decay=weight_decay, device="cpu",
            callback=watch,
        )  # fmt: skip
        return found


COLOUR = {"kaiming": figures.COLOURS["published"], "magnitude": figures.COLOURS["ours"]}
LINE = {"frozen": "--", "batch": "-", "none": "-"}


def _of(rows: pd.DataFrame, init: str, norm: str, column: str) -> pd.Series:
    """Return a column of the rows of one combination, where it is there."""
    return rows.loc[(rows["init"] == init) & (rows["norm"] == norm), column].dropna()


def _by_depth(ax: Axes, rows: pd.DataFrame, x: str, y: str, log: bool = False) -> None:
    """Draw one line for each combination, the mean over seeds, and the seeds; `log`: `y` is a logarithm."""
    for init, norm in COMBINATIONS:
        values = _of(rows, init, norm, y)
        depth = rows.loc[values.index, x]
        mean = values.groupby(depth).mean()
        style: dict[str, Any] = {"color": COLOUR[init], "linestyle": LINE[norm], "label": f"{init}, {norm}"}
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
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)


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
    shown = {f"{init}, {norm}": mean[:, init, norm].map(lambda v: f"{10**v:.2g}") for init, norm in COMBINATIONS}
    table = pd.DataFrame(shown)
    table.insert(0, head, table.index.astype(int).astype(str))
    return table


def signal_table(rows: pd.DataFrame, settings: Settings) -> Markdown:
    """Return the signal by layer before training."""
    return tables.table(
        _each_layer(rows[rows["model"] == settings.model], "layer", "log_signal", "layer"),
        f"Signal by layer relative to the parent's before training: {settings.label}, k = {settings.k:.0%}, "
        f"{settings.probe_images} held-out images, geometric mean (n = {len(settings.seeds)}). Signals near 10⁻⁷ are "
        "the rounding of float32.",
        "tab-deep-signal",
    )


def gradient_table(rows: pd.DataFrame, settings: Settings) -> Markdown:
    """Return the gradient by masked layer before training."""
    return tables.table(
        _each_layer(rows[rows["model"] == settings.model], "masked_layer", "log_gradient", "masked layer"),
        "Norm of the scores' gradient by masked layer relative to that of the parent without a mask: "
        f"{settings.label}, modules {settings.classes}, geometric mean (n = {len(settings.seeds)}).",
        "tab-deep-gradient",
    )


def signal_after_table(rows: pd.DataFrame, settings: Settings) -> Markdown:
    """Return the signal by layer after the short co-training."""
    return tables.table(
        _each_layer(rows[rows["chosen"]], "layer", "log_signal", "layer"),
        "Signal by layer relative to the parent's after the short co-training: "
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
                "parent": called(model),
                "scores": init,
                "statistics": "" if norm == "none" or init == "no mask" else norm,
                "signal of the logits": "1" if end is None else f"{10 ** end['log_signal'].mean():.2g}",
                "agreement": "1" if end is None else f"{end['agreement'].mean():.2f}",
                "accuracy (%)": records.mean_and_spread(one["masked_accuracy"], digits=1),
                "the same answer (%)": records.mean_and_spread(one["most_frequent"], digits=1),
                "different outputs (%)": records.mean_and_spread(one["distinct_outputs"], digits=1),
                "n": len(one),
            }
        )
    return tables.table(
        pd.DataFrame(shown),
        f"What the masked parents answer before any training, k = {settings.k:.0%}: {settings.judged_images:,} "
        f"held-out images of {settings.dataset} ({settings.label}) and of {settings.fc_dataset}; mean ± standard "
        "deviation over n seeds.",
        "tab-deep-answers",
    )


def _signal_in_words(share: float) -> str:
    """Return a share of the parent's signal; below a millionth it is the rounding of float32."""
    return f"{share:.1g}{' (nothing but rounding)' if share < 1e-6 else ''}"


def after_table(rows: pd.DataFrame, bench: Bench) -> Markdown:
    """Return the accuracies after the short co-training, with those that chose the rates."""
    own = bench.settings
    final, seed = rows.dropna(subset=["accuracy"]), own.seeds[0]
    shown = []
    for init, norm in COMBINATIONS:
        every = rows[(rows["init"] == init) & (rows["norm"] == norm)]
        judged = final.loc[final.index.intersection(every.index)]
        tuned = judged[judged["seed"] == seed].set_index("lr")["accuracy"]
        one = judged[judged["chosen"]]
        votes = [f"{100 * tuned[lr]:.1f}" if lr in tuned else "diverged" for lr in own.rates]
        heads = [f"rate {lr:g}, seed {seed}: vote (%)" for lr in own.rates]
        shown.append(
            {
                "scores": init,
                "statistics": norm,
                **dict(zip(heads, votes, strict=True)),
                "chosen": f"{every.loc[every['chosen'], 'lr'].iloc[0]:g}",
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
        f"{own.label}. Vote of {count} classes (chance: {100 / count:.0f}) on {bench.votes:,} held-out images, "
        "balanced accuracy of a module (chance: 50); mean ± standard deviation over n seeds. The rate was chosen on "
        f"these same held-out images, with seed {seed}.",
        "tab-deep-after",
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
                "network": called(which),
                "classes N": classes,
                "maskable weights": f"{edges:,}",
                "numbers of a set": f"{count:,}",
                "of the weights": tables.percent(count / edges, 3),
                "a set (kB)": f"{size / 1e3:.1f}",
                "a mask, packed (kB)": f"{edges / 8e3:.1f}",
                "N sets (kB)": f"{classes * size / 1e3:,.0f}",
                "weights, float32 (kB)": f"{4 * edges / 1e3:,.0f}",
            }
        )
    return tables.table(
        pd.DataFrame(shown),
        "What statistics of its own cost a module, and a network recomposed of all N of them: numbers and bytes, "
        "beside a packed mask and the parent's weights.",
        "tab-deep-statistics",
    )


def _share_of_scores(rows: pd.DataFrame, column: str) -> list[float]:
    """Return a share that is known by layer for all scores of a network, seed by seed."""
    return [float(np.average(part[column], weights=part["scores"])) for _, part in rows.groupby("seed")]


def _first_gradients(rows: pd.DataFrame, model: str, init: str, norm: str) -> pd.DataFrame:
    one = rows[(rows["model"] == model) & (rows["init"] == init) & (rows["norm"] == norm)]
    return one.dropna(subset=["stronger_total"])


def against_table(rows: pd.DataFrame, bench: Bench) -> Markdown:
    """Return the pull of Eq. 1 beside the gradients that drive modules apart, on the first masks."""
    own, shown = bench.settings, []
    for subject, norms in (
        ((own.fc_dataset, "fc1", own.seeds[0]), ("none",)),
        (own.deep(own.seeds[0]), ("frozen", "batch")),
    ):
        literal = stemming.factors(1.0, masking.maskable_parameters(bench.parents[subject]), "total")
        for init, norm in ((i, n) for n in norms for i in ("kaiming", "magnitude")):
            one = _first_gradients(rows, subject[1], init, norm)
            sizes = one["log_difference"].groupby(one["masked_layer"]).mean()
            total, layer = (
                records.mean_and_spread(_share_of_scores(one, f"stronger_{reading}"), digits=1)
                for reading in ("total", "layer")
            )
            shown.append(
                {
                    "parent": called(subject[1]),
                    "scores": init,
                    "statistics": "" if norm == "none" else norm,
                    "factor, `total`": f"{next(iter(literal.values())):.2g}",
                    "root mean square of d, by layer": span(10**sizes, 1),
                    "pull stronger, `total` (% of scores)": total,
                    "`layer`": layer,
                    "n": len(own.seeds),
                }
            )
    return tables.table(
        pd.DataFrame(shown),
        f"The pull of Eq. 1 at α = 1 against what drives modules {own.classes} apart, on the first masks: FC1 on "
        f"{own.fc_dataset}, {own.label}; {own.probe_images} images; mean ± standard deviation over n seeds.",
        "tab-deep-against",
    )


@dataclass(frozen=True)
class Pulls:
    """The last epochs of the trials of the stemming loss."""

    rows: pd.DataFrame
    settings: Settings

    @classmethod
    def of(cls, done: Sequence[Record], settings: Settings) -> Pulls:
        """Return those of the trials' records."""
        rows = records.frame(done)
        rows = rows[rows["epoch"] == settings.pull_epochs]
        return cls(rows.assign(disagreement=1 - rows["jaccard_index"], apart=10 ** rows["log_apart"]), settings)

    @property
    def steps(self) -> int:
        """Steps with the stemming loss: the first epoch has none."""
        return (self.settings.pull_epochs - 1) * -(-self.settings.pull_images // 32)

    def measured(self, model: str, setting: tuple[str, float, float], column: str) -> pd.Series:
        """Return a quantity of the trials of a setting, one of `PULLS`, by seed."""
        rows = self.rows[self.rows["model"] == model]
        for name, value in zip(("reading", "alpha", "weight_decay"), setting, strict=True):
            rows = rows[rows[name] == value]
        return rows.set_index("seed")[column]

    def left(self, model: str, setting: tuple[str, float, float], column: str) -> pd.Series:
        """Return it as a share of what is there without stemming, under the same decay and seed."""
        free = self.measured(model, ("total", 0.0, setting[2]), column)
        return self.measured(model, setting, column) / free

    def stated(self, model: str, column: str, weight_decay: float = WEIGHT_DECAY) -> str:
        """Return in words what α = 1, `total`, leaves of a quantity."""
        return _stated(self.left(model, ("total", 1.0, weight_decay), column))


def _stated(shares: Sequence[float] | pd.Series) -> str:
    return f"{records.mean_and_spread(shares, digits=0)} %"


def pulled_table(pulls: Pulls) -> Markdown:
    """Return what a few steps with the stemming loss do to two modules."""
    own, shown = pulls.settings, []
    for model in ("fc1", own.model):
        for setting in PULLS:
            reading, alpha, weight_decay = setting
            apart, masks, pair = (
                pulls.measured(model, setting, column) for column in ("apart", "disagreement", "remaining_parameters")
            )
            apart_left, masks_left = (
                "" if alpha == 0 else records.mean_and_spread(pulls.left(model, setting, column), digits=0)
                for column in ("apart", "disagreement")
            )
            shown.append(
                {
                    "parent": called(model),
                    "weight decay": f"{weight_decay:g}",
                    "stemming": "none" if alpha == 0 else f"`{reading}`, α = {alpha:g}",
                    "scores apart (σ)": f"{apart.mean():.2g}",
                    "of that without (%)": apart_left,
                    "1 − Jaccard index": f"{masks.mean():.3g}",
                    "of that without (%) ": masks_left,
                    "pair keeps (%)": records.mean_and_spread(pair),
                    "n": len(apart),
                }
            )
    return tables.table(
        pd.DataFrame(shown),
        f"What {pulls.steps} steps with the stemming loss do to two modules, after an epoch without: FC1 on "
        f"{own.fc_dataset}, {own.label}. Scores apart: median distance of a score from the mean of both, in initial "
        "standard deviations; mean ± standard deviation over n seeds, paired with the run without stemming. "
        "`scale_free` counts the steps of these short epochs.",
        "tab-deep-pulled",
    )


def answer(rows: pd.DataFrame, after: pd.DataFrame, found: pull.Strengths, pulls: Pulls, bench: Bench) -> Markdown:
    """Return the answer in sentences: what first masks leave, what brings it back, and how strong Eq. 1 is."""
    own, chosen = pulls.settings, after[after["chosen"]]
    deep, count = rows[rows["model"] == own.model], len(own.classes)
    dead = float(10 ** _at_the_logits(deep).xs(("kaiming", "frozen"), level=("init", "norm"))["log_signal"].mean())

    def percent(part: pd.DataFrame, init: str, norm: str, column: str) -> str:
        return f"{records.mean_and_spread(_of(part, init, norm, column), digits=1)} %"

    equal = ", ".join(f"{found[which, 'total'].mean('equal'):.0f} in {name}" for which, name in LARGE.items())
    return Markdown(
        f"**Answer** ({own.label}; held-out images, n = {len(own.seeds)}).\n\n"
        f"- **Random mask, the parent's statistics:** {_signal_in_words(dead)} of the parent's signal is left at the "
        f"logits. A short co-training does not help: {percent(chosen, 'kaiming', 'frozen', 'accuracy')} of {count} "
        f"classes, chance {100 / count:.0f} %.\n"
        "- **Largest weights, statistics of the module's own:** "
        f"{percent(deep, 'magnitude', 'batch', 'masked_accuracy')} of {bench.data.num_classes} classes untrained, "
        f"**{percent(chosen, 'magnitude', 'batch', 'accuracy')}** of {count} after that co-training. Own "
        f"statistics alone give {percent(chosen, 'kaiming', 'batch', 'accuracy')}.\n"
        f"- **Eq. 1 as printed** gets weak with size: it holds a score against weight decay from "
        f"α = {found['fc1', 'total'].mean('equal'):.2g} on in FC1, but only from {equal} on. In {pulls.steps} steps "
        f"α = 1 leaves {pulls.stated('fc1', 'apart')} of the scores' distance in FC1, and "
        f"{pulls.stated(own.model, 'apart')} here."
    )


def for_figure_4(found: pull.Strengths) -> Markdown:
    """Return in words what the strength of Eq. 1 says of the paper's Figure 4."""
    later = ", ".join(f"{found[w, 'total'].until:.0f} epochs in {name}" for w, name in LARGE.items())
    return Markdown(
        "**For the paper's Figure 4.** It reports that stemming with α up to 1 reduces the remaining parameters of "
        "VGG16, ResNet50 and WideResNet-28-10. Read literally, α = 1 cannot hold modules together at first, because "
        f"weight decay ({WEIGHT_DECAY:g}) is stronger. It can once decay has shrunk the scores, if nothing else moves "
        f"them: after {later}. So a literal Eq. 1 is hard to reconcile with a reduction in WideResNet-28-10 within 50 "
        "epochs; for VGG16 and ResNet50 it is not ruled out. What the paper had instead, if anything, is not shown "
        "here. The `scale_free` reading moves scores as far in all of these networks, with an α of its own."
    )


def claim(pulls: Pulls) -> claims.Claim:
    """Return the claim that the page judges; one α in two networks is not the right one of each: it stays open."""
    own = pulls.settings
    found = (
        f"α = 1, `total`, {pulls.steps} steps leave {pulls.stated('fc1', 'apart')} of the scores' distance in FC1 on "
        f"{own.fc_dataset}, {pulls.stated(own.model, 'apart')} in {own.label}; which α is best was not tried"
    )
    return claims.Claim(
        claim="The right α depends on the size of the model",
        where="Evaluation of Composability and Reusability",
        paper="no number",
        here=found,
        verdict="open",
        n=len(own.seeds),
    )


def judged_claim(one: claims.Claim) -> Markdown:
    """Return a claim of the paper, what came out, and the verdict, in words."""
    return Markdown(f'**One claim of the paper.** "{one.claim}" ({one.where}): {one.here}. Verdict: **{one.verdict}**.')
