"""Images of no asked class: how well the vote of modules, and their parent's softmax, tell them from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from modlib.data import Dataset
from modlib.modules import Modules
from modlib.parent import called
from modlib.study.draws import subsets
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.trials import Trial, trial_modules
from modlib.zoo.datasets import load

VERSION = 1
"""Raised when the same parameters give other numbers."""
KEPT = 0.95
"""Share of held-out images of the asked classes that a threshold keeps."""
BATCH = 250
SCORES = ("vote of modules", "parent, restricted softmax", "parent, full softmax")


@dataclass(frozen=True)
class Unknowns:
    """What is asked of one decomposition.

    `trial`: whose modules. `other`: a data set of images of the same shape and of none of its classes, or "". `sizes`:
    numbers of classes that are known; `count`: subsets of each size; `images`: of each part, the first ones.
    """

    trial: Trial
    other: str
    sizes: tuple[int, ...]
    count: int
    images: int

    @property
    def experiment(self) -> Experiment:
        """Return it as an experiment: its record."""
        own = {name: value for name, value in asdict(self).items() if name != "trial"}
        label = f"{self.trial.name}-unknowns"
        return Experiment("unknowns", label, {"trial": self.trial.parameters, **own, "version": VERSION})

    def run(self, data: Dataset, store: Store) -> Record:
        """Return its record: a row for each number of classes, kind of unknown images and score."""
        return self.experiment.run(store, lambda: self._rows(data, store), data_sha256=data.sha256())

    def _rows(self, data: Dataset, store: Store) -> Rows:
        modules = trial_modules(self.trial, data, store, device="cpu")
        known = {name: _answers(modules, data, data.split(name)[0][: self.images]) for name in ("held_out", "test")}
        labels = {name: data.split(name)[1][: self.images].numpy() for name in known}
        noise = torch.randint(256, data.test_images[: self.images].shape, generator=torch.Generator().manual_seed(0))
        unknown = {"noise": _answers(modules, data, noise.to(torch.uint8))}
        if self.other:
            unknown[self.other] = _answers(modules, data, load(self.other).test_images[: self.images])
        common = {"dataset": self.trial.dataset, "model": self.trial.model, "seed": self.trial.seed}
        rows = []
        for size in self.sizes:
            drawn = subsets(data.num_classes, size, self.count)
            found = [_of_subset(subset, known, labels, unknown) for subset in drawn]
            for kind, score in found[0]:
                each = np.array([f[kind, score] for f in found])  # [subsets, 3]
                names = ("auroc", "rejected", "kept")
                errors = each.std(0, ddof=1) / len(each) ** 0.5 if len(each) > 1 else np.zeros(3)
                rows.append(
                    common
                    | {"classes": size, "subsets": len(drawn), "unknown": kind, "score": score}
                    | dict(zip(names, each.mean(0).tolist(), strict=True))
                    | {f"{name}_error": float(error) for name, error in zip(names, errors, strict=True)}
                )
        return rows


Answers = tuple[np.ndarray, np.ndarray]
"""Log-odds of all modules and logits of the parent, [n, N] each."""


@torch.no_grad()
def _answers(modules: Modules, data: Dataset, images: Tensor) -> Answers:
    odds, logits = [], []
    for part in images.split(BATCH):
        inputs = data.inputs(part).to(modules.grafting_weight)
        odds.append(modules.log_odds(inputs))
        logits.append(called(modules.parent, inputs))
    return torch.cat(odds).double().numpy(), torch.cat(logits).double().numpy()


def _of_subset(
    subset: Sequence[int], known: dict[str, Answers], labels: dict[str, np.ndarray], unknown: dict[str, Answers]
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return AUROC, share of unknown images rejected, and of known ones kept, by kind of unknown image and score."""
    inside = {name: np.isin(values, list(subset)) for name, values in labels.items()}
    kinds = dict(unknown)
    if not inside["test"].all():
        kinds = {"other classes": tuple(part[~inside["test"]] for part in known["test"]), **kinds}  # type: ignore[dict-item]
    found = {}
    for score in SCORES:
        held_out, test = (_scores(score, known[n], subset)[inside[n]] for n in ("held_out", "test"))
        threshold = np.quantile(held_out, 1 - KEPT)
        for kind, answers in kinds.items():
            others = _scores(score, answers, subset)
            truth = np.r_[np.ones(len(test)), np.zeros(len(others))]
            auroc = float(roc_auc_score(truth, np.r_[test, others]))
            found[kind, score] = auroc, float((others < threshold).mean()), float((test >= threshold).mean())
    return found


def _scores(score: str, answers: Answers, subset: Sequence[int]) -> np.ndarray:
    """Return how sure each answer is that an image is of the subset, [n]."""
    odds, logits = (torch.from_numpy(part) for part in answers)
    if score == SCORES[0]:
        return odds[:, list(subset)].amax(1).numpy()
    if score == SCORES[1]:
        return logits[:, list(subset)].log_softmax(1).amax(1).numpy()
    return logits.log_softmax(1)[:, list(subset)].amax(1).numpy()
