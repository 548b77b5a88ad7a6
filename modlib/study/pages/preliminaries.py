"""The choices before the method: the norm p of the stemming loss, and methods A (base class) and B (average)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from modlib import recipes
from modlib.study import figures, tables
from modlib.study.claims import Claim
from modlib.study.columns import Load
from modlib.study.experiment import Experiment
from modlib.study.names import of_network
from modlib.study.records import Record, Store
from modlib.study.trials import Trial, run_variants, variants
from modlib.zoo.datasets import load as load_images

PAPERS = "p = 1, α = 1"
"""The paper's choice: its trial is method B, too."""
NOISE = 0.005
"""A difference that tells nothing of a single trial: of accuracy, or of remaining parameters, as fractions."""


@dataclass(frozen=True)
class Curve:
    """One trial, epoch by epoch, on test images (index: the epoch)."""

    rows: pd.DataFrame

    @property
    def pace(self) -> float:
        """Mean change of the remaining parameters in an epoch."""
        return float(self.rows["remaining_parameters"].diff().abs().iloc[1:].mean())

    @property
    def best(self) -> float:
        """The best accuracy with stemming: the first epoch has none."""
        return float(self.rows["accuracy"][self.rows.index > 1].max())

    @property
    def best_of_all(self) -> float:
        """The best accuracy over all epochs."""
        return float(self.rows["accuracy"].max())

    @property
    def accuracy(self) -> float:
        """Accuracy after the last epoch."""
        return float(self.rows["accuracy"].iloc[-1])

    @property
    def remaining(self) -> float:
        """Remaining parameters of pairs after the last epoch."""
        return float(self.rows["remaining_parameters"].iloc[-1])


@dataclass(frozen=True)
class Preliminaries:
    """What came out on one network: a curve for each norm, and methods A and B at one epoch."""

    dataset: str
    model: str
    seed: int
    done: list[Record]
    norms: dict[str, Curve]
    average: pd.Series
    """Method B, after as many epochs as method A has."""
    from_base: pd.DataFrame
    """Method A, a row for each base class."""

    @property
    def network(self) -> str:
        """The network in the words of a caption."""
        return of_network(self.dataset, self.model)

    @property
    def one(self) -> Curve:
        """The curve of p = 1."""
        return self.norms[PAPERS]

    @property
    def closest(self) -> str:
        """The trial of p = 2 whose remaining parameters end closest to those of p = 1."""
        squares = [name for name in self.norms if name.startswith("p = 2")]
        return min(squares, key=lambda name: abs(self.norms[name].remaining - self.one.remaining))

    @property
    def two(self) -> Curve:
        """The curve of p = 2 that ends closest to p = 1."""
        return self.norms[self.closest]

    @property
    def far(self) -> bool:
        """Whether the two norms end too far apart to be compared."""
        return abs(self.two.remaining - self.one.remaining) > NOISE

    @property
    def ahead(self) -> str:
        """From how many base classes method A is more accurate than B."""
        return f"{int((self.from_base['accuracy'] > self.average['accuracy']).sum())} of {len(self.from_base)}"

    @property
    def gain(self) -> float:
        """How far the best base class is ahead of B in accuracy, a fraction."""
        return float((self.from_base["accuracy"] - self.average["accuracy"]).max())

    @property
    def verdicts(self) -> tuple[str, str, str]:
        """Whether p = 1 is slower, whether the best accuracy is alike, whether A is not better than B."""
        slower = "open" if self.far else "holds" if self.one.pace < self.two.pace else "does not hold"
        # both readings of "best accuracy" have to agree
        alike = {abs(getattr(self.one, best) - getattr(self.two, best)) <= NOISE for best in ("best", "best_of_all")}
        best = "open" if self.far or len(alike) > 1 else "holds" if alike == {True} else "does not hold"
        base = "holds" if self.gain <= 0 else "does not hold" if self.gain > NOISE else "open"
        return slower, best, base


def trials(
    *,
    dataset: str,
    model: str,
    seed: int,
    k: float,
    parent_epochs: int,
    epochs: int,
    squared_alphas: Sequence[float],
    base_classes: Sequence[int],
    base_epochs: int,
    **_: Any,
) -> dict[str, list[Trial]]:
    """Return the trials of the norms and of method A by name; parameters as the page has them."""
    base = Trial(dataset, model, "published", recipes.published(k=k, epochs=epochs), seed, parent_epochs)
    changes: dict[str, dict[str, Any]] = {PAPERS: {"alpha": 1.0}}
    changes |= {f"p = 2, α = {alpha:g}": {"p": 2, "alpha": alpha} for alpha in squared_alphas}
    changes |= {"without stemming": {"alpha": 0.0}}
    changes |= {f"A, base {c}": {"method": "base", "base_class": c, "epochs": base_epochs} for c in base_classes}
    return variants(base, changes, [seed])


def experiments(**parameters: Any) -> list[Experiment]:
    """Return every experiment of the page; `parameters`: see `trials`."""
    return [trial.experiment for part in trials(**parameters).values() for trial in part]


def run(store: Store, load: Load = load_images, **parameters: Any) -> Preliminaries:
    """Return what came out; `parameters`: see `trials`."""
    asked = trials(**parameters)
    done, rows = run_variants(asked, load(parameters["dataset"]), store)
    test = rows[rows["split"] == "test"]
    curves = {name: Curve(test[test["variant"] == name].set_index("epoch")) for name in asked}
    norms = {name: curve for name, curve in curves.items() if not name.startswith("A, ")}
    at = test[test["epoch"] == parameters["base_epochs"]]
    from_base = at[at["variant"].str.startswith("A, ")]
    average = at[at["variant"] == PAPERS].iloc[0]
    which = {name: parameters[name] for name in ("dataset", "model", "seed")}
    return Preliminaries(**which, done=done, norms=norms, average=average, from_base=from_base)


def draw_norms(found: Preliminaries, k: float) -> Figure:
    """Draw remaining parameters and accuracy, epoch by epoch, one curve for each norm; dotted: `k`."""
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    for ax, quantity, scale in ((axes[0], "remaining_parameters", 100), (axes[1], "accuracy", 100)):
        for name, curve in found.norms.items():
            ax.plot(curve.rows.index, scale * curve.rows[quantity], label=name)
        ax.set_xlabel("epoch")
    axes[0].axhline(100 * k, ls=":", color="black", lw=1)
    axes[0].set_ylabel("remaining parameters, pairs (%)")
    axes[1].set_ylabel("accuracy of the vote (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=4, loc="outside upper center")
    return figure


def norms(found: Preliminaries, epochs: int) -> Markdown:
    """Return the table of the norms after `epochs` epochs."""
    lines = [
        {
            "norm": name,
            "accuracy, best epoch (%)": f"{100 * curve.best_of_all:.2f}",
            "best from epoch 2 on": f"{100 * curve.best:.2f}",
            "last epoch": f"{100 * curve.accuracy:.2f}",
            "remaining parameters, pairs (%)": f"{100 * curve.remaining:.2f}",
            "Jaccard index": f"{curve.rows['jaccard_index'].iloc[-1]:.3f}",
            "change an epoch (points)": f"{100 * curve.pace:.3f}",
        }
        for name, curve in found.norms.items()
    ]
    caption = (
        f"The norms after {epochs} epochs, {found.network}, test images, n = 1 trial each. Best epochs are best on "
        "test images, as in the paper. Last: mean change of the remaining parameters in an epoch."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-preliminaries-p")


def methods(found: Preliminaries, base_epochs: int) -> Markdown:
    """Return the table of method B, and of method A from every base class, after `base_epochs` epochs."""
    rows = [("B, average", found.average), *((str(row["variant"]), row) for _, row in found.from_base.iterrows())]
    lines = [
        {
            "method": name,
            "accuracy, all classes (%)": f"{100 * row['accuracy']:.2f}",
            "accuracy, pairs (%)": f"{100 * row['pair_accuracy']:.2f}",
            "remaining parameters, pairs (%)": f"{100 * row['remaining_parameters']:.2f}",
            "Jaccard index": f"{row['jaccard_index']:.3f}",
        }
        for name, row in rows
    ]
    caption = f"Methods A and B, α = 1, epoch {base_epochs}, {found.network}, test images, n = 1 trial each."
    return tables.table(pd.DataFrame(lines), caption, "tab-preliminaries-methods")


def answer(found: Preliminaries) -> Markdown:
    """Return the page's answer: on the norms, and on methods A and B."""
    one, two = found.one, found.two
    pace, best, base = found.verdicts
    return Markdown(
        f"**Answer** ({found.network}, n = 1 trial of each).\n\n"
        f"- p = 1 changes more slowly: **{pace}**. Its remaining parameters change by {100 * one.pace:.3f} points an "
        f"epoch, those of {found.closest} by {100 * two.pace:.3f}.\n"
        f"- Both have the same best accuracy: **{best}**. With stemming p = 1 has {100 * (one.best - two.best):+.2f} "
        f"points against p = 2, but {100 * (one.best_of_all - two.best_of_all):+.2f} if the first epoch, which has no "
        "stemming, counts too.\n"
        f"- A is not better than B: **{base}**. A is more accurate from {found.ahead} base classes. The best has "
        f"{100 * found.gain:+.2f} points against B."
    )


def judged(found: Preliminaries) -> list[Claim]:
    """Return the verdicts on the norms and on method A; open on other networks than the paper's FC1."""
    own_network = (found.dataset, found.model) == ("mnist", "fc1")
    pace, best, base = found.verdicts if own_network else ("open", "open", "open")
    one, two, accuracy = found.one, found.two, 100 * found.from_base["accuracy"]
    return [
        Claim(
            "p = 1 changes more slowly than p = 2",
            "Preliminaries",
            "no number",
            f"the remaining parameters change by {100 * one.pace:.3f} points an epoch (p = 1) and {100 * two.pace:.3f} "
            f"({found.closest}, which ends closest)",
            pace,
            1,
        ),
        Claim(
            "p = 1 and p = 2 make no significant change in the best accuracy, or in the parameters required",
            "Preliminaries",
            "no number",
            f"p = 2 gets as small: {tables.percent(two.remaining)} against {tables.percent(one.remaining)}; best "
            f"accuracy with stemming {100 * one.best:.2f}% (p = 1), {100 * two.best:.2f}% ({found.closest}); over "
            f"all epochs {100 * one.best_of_all:.2f} and {100 * two.best_of_all:.2f}%",
            best,
            1,
        ),
        Claim(
            "Method A is not equal to or better than method B",
            "Module Co-training",
            "no number",
            f"more accurate from {found.ahead} base classes: {accuracy.min():.2f} to {accuracy.max():.2f}%, B "
            f"{100 * found.average['accuracy']:.2f}%",
            base,
            1,
        ),
    ]
