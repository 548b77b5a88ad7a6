"""How strong the stemming loss is in deep networks: against weight decay, gradients, and in short trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown

import modlib
from modlib import masking, stemming
from modlib.modules import Modules
from modlib.study import claims, deep, names, probes, pull, records, tables
from modlib.study.deep import MASKS, STATISTICS, Subject
from modlib.study.experiment import Experiment
from modlib.study.pull import WEIGHT_DECAY, span
from modlib.study.records import Record, Rows

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
class Settings(deep.Settings):
    """The parameters of the page that its results depend on; the notebook says what each is."""

    pull_classes: Sequence[int]
    pull_epochs: int
    pull_images: int

    @property
    def pulls(self) -> list[tuple[Subject, str, float, float]]:
        """The trials of the stemming loss: FC1 and the deep parent of every seed."""
        subjects = [one for seed in self.seeds for one in ((self.fc_dataset, "fc1", seed), self.deep(seed))]
        return [(subject, *setting) for subject in subjects for setting in PULLS]

    @property
    def both(self) -> str:
        """FC1 and the deep parent in words."""
        return f"{names.of_network(self.fc_dataset, 'fc1')} and {self.label}"

    def pulled(self, subject: Subject, reading: str, alpha: float, weight_decay: float) -> Experiment:
        """Return a trial of the stemming loss."""
        choice = {"reading": reading, "alpha": alpha, "weight_decay": weight_decay}
        size = {"classes": self.pull_classes, "epochs": self.pull_epochs, "images": self.pull_images}
        return self.experiment(subject, "pulled", **choice, **size, precision=self.precision)


def experiments(**parameters: Any) -> list[Experiment]:
    """Return all experiments of the page."""
    settings = Settings(**{f.name: parameters[f.name] for f in fields(Settings)})
    return [settings.before(one) for one in settings.subjects] + [settings.pulled(*which) for which in settings.pulls]


@dataclass(frozen=True)
class Bench(deep.Bench):
    """What the experiments are run on."""

    settings: Settings

    def pulled(self) -> list[Record]:
        """Return the trials of the stemming loss."""
        own = self.settings
        return [self.record(own.pulled(*which), partial(self._pulled, *which)) for which in own.pulls]

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
                    "parent": names.of_model(subject[1]),
                    "first mask": MASKS[init],
                    "statistics": STATISTICS[norm],
                    "factor, `total`": f"{next(iter(literal.values())):.2g}",
                    "size of d, by layer": span(10**sizes, 1),
                    "pull stronger, `total` (% of scores)": total,
                    "`layer` (% of scores)": layer,
                }
            )
    return tables.table(
        pd.DataFrame(shown),
        f"The pull of Eq. 1 at α = 1 against what drives modules {own.classes} apart, on the first masks: {own.both}; "
        f"{own.probe_images} images. Size of d: its root mean square. Mean ± standard deviation (n = "
        f"{len(own.seeds)}).",
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
    return f"{records.mean_and_spread(shares, digits=0)}%"


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
                    "parent": names.of_model(model),
                    "weight decay": f"{weight_decay:g}",
                    "stemming": "none" if alpha == 0 else f"`{reading}`, α = {alpha:g}",
                    "scores apart (σ)": f"{apart.mean():.2g}",
                    "left of it (%)": apart_left,
                    "1 − Jaccard index": f"{masks.mean():.3g}",
                    "left of it (%) ": masks_left,
                    "remaining parameters of the pair (%)": records.mean_and_spread(pair),
                }
            )
    return tables.table(
        pd.DataFrame(shown),
        f"What {pulls.steps} steps with the stemming loss do to two modules, after an epoch without: {own.both}. "
        "Scores apart: median distance of a score from the mean of both, in initial standard deviations. Left of it: "
        "as a share of the run of the same seed without stemming. Mean ± standard deviation "
        f"(n = {len(own.seeds)}). `scale_free` counts the steps of these short epochs.",
        "tab-deep-pulled",
    )


def answer(found: pull.Strengths, pulls: Pulls) -> Markdown:
    """Return the answer in sentences: from which α on Eq. 1 holds a score, and what α = 1 does in a few steps."""
    own = pulls.settings
    equal = ", ".join(f"{found[which, 'total'].mean('equal'):.0f} in {name}" for which, name in LARGE.items())
    return Markdown(
        "**Answer.** Read as printed, Eq. 1 outweighs weight decay from "
        f"α = {found['fc1', 'total'].mean('equal'):.2g} on in FC1, but only from α = {equal}. What {pulls.steps} steps "
        f"at α = 1 leave of how far apart two modules are without it (n = {len(own.seeds)}):\n\n"
        f"- {names.of_network(own.fc_dataset, 'fc1')}: **{pulls.stated('fc1', 'apart')}** for their scores, "
        f"{pulls.stated('fc1', 'disagreement')} for their masks;\n"
        f"- {own.label}: **{pulls.stated(own.model, 'apart')}** and {pulls.stated(own.model, 'disagreement')}; scores "
        f"without weight decay {pulls.stated(own.model, 'apart', 0.0)}."
    )


def for_figure_4(found: pull.Strengths) -> Markdown:
    """Return in words what the strength of Eq. 1 says of the paper's Figure 4."""
    later = ", ".join(f"{found[w, 'total'].until:.0f} epochs in {name}" for w, name in LARGE.items())
    return Markdown(
        "**For the paper's Figure 4.** The paper reports that stemming with α up to 1 reduces the remaining parameters "
        f"of VGG16, ResNet50 and WideResNet-28-10. Read as printed, α = 1 is at first weaker than weight decay "
        f"({WEIGHT_DECAY:g}), so it cannot hold modules together. It can once decay has shrunk the scores, if nothing "
        f"else moves them: after {later}. So for WideResNet-28-10 Eq. 1 as printed hardly explains a reduction within "
        "50 epochs; for VGG16 and ResNet50 it may. What else the paper may have done is not shown here. Our "
        "`scale_free` reading moves scores equally far in all of these networks, with an α of its own."
    )


def claim(pulls: Pulls) -> claims.Claim:
    """Return the claim that the page judges; one α in two networks is not the right one of each: it stays open."""
    own = pulls.settings
    found = (
        f"averaged over all scores, Eq. 1 at α = 1 leaves two modules' scores {pulls.stated('fc1', 'apart')} as far "
        f"apart as without it, after {pulls.steps} steps in {names.of_network(own.fc_dataset, 'fc1')}, "
        f"{pulls.stated(own.model, 'apart')} in {own.label}; which α is best was not tried"
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
