"""Times of the modules of fully connected parents as one network, and of the layers that decide its form.

Timed alone on a machine; kept as records, see `modlib.study.step_times`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from statistics import median

import torch

from modlib import recipes, stacking
from modlib.data import Dataset
from modlib.decomposers.channels import restricted_accuracy
from modlib.deploy import measure
from modlib.deploy.measuring import PARENT, milliseconds
from modlib.seeds import generator
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.step_times import KIND
from modlib.study.trials import Trial, trial_modules

BATCHES = (1, 64)


@dataclass(frozen=True)
class Subsets:
    """Recomposed networks of recipe ours beside their parents, as they are and baked: plain modules.

    `counts`: numbers of modules, of the first classes.

    `ks`: shares of the edges; `repeats`: rounds, in which all networks of a parent and a k take turns.
    """

    dataset: str
    models: Sequence[str]
    ks: Sequence[float]
    counts: Sequence[int]
    alpha: float
    vote: float
    epochs: int
    parent_epochs: int
    seed: int
    repeats: int

    @property
    def experiment(self) -> Experiment:
        """What is timed, and where its record lies."""
        return Experiment(KIND, f"{self.dataset}-{'-'.join(self.models)}-subsets", asdict(self))

    def run(self, data: Dataset, store: Store) -> Record:
        """Return a row for each network and batch size: milliseconds, and how many times as fast as the parent."""
        return self.experiment.run(store, partial(self._timed, data, store), data_sha256=data.sha256())

    def _timed(self, data: Dataset, store: Store) -> Rows:
        return [row for model, k in product(self.models, self.ks) for row in self._of(model, k, data, store)]

    def _of(self, model: str, k: float, data: Dataset, store: Store) -> Rows:
        recipe = recipes.ours(k=k, alpha=self.alpha, vote=self.vote, epochs=self.epochs)
        modules = trial_modules(
            Trial(data.name, model, "ours", recipe, self.seed, self.parent_epochs), data, store, device="cpu"
        )
        recomposed = {count: modules.recompose(modules.classes[:count]) for count in self.counts}
        about, networks = {}, {}
        for count, network in recomposed.items():
            mine, subset = torch.isin(data.test_labels, network.classes), network.classes.tolist()
            right = network.predict(data.inputs(data.test_images[mine])) == data.test_labels[mine]
            of_parent = restricted_accuracy(modules.parent, data, subset, "test", subset)
            accuracies = {"accuracy": float(right.double().mean()), "parent_accuracy": of_parent}
            for form, made in (("recomposed", network), ("baked", network.baked())):
                networks[f"{count} {form}"] = made
                about[f"{count} {form}"] = {"modules": count, "form": form, "remaining": network.remaining} | accuracies
        example = data.inputs(data.test_images[: BATCHES[-1]])
        found = measure(
            networks, modules.parent, example, batches=BATCHES, runtimes=("eager",), repeats=self.repeats
        ).rows
        return [
            {
                "model": model,
                "k": k,
                **about[row["network"]],
                **{name: row[name] for name in ("batch", "ms", "speedup")},
            }
            for row in found
            if row["network"] != PARENT
        ]


@dataclass(frozen=True)
class Layers:
    """Linear layers as dense and as sparse products: `sizes`, [out, in]; `edges`, shares of weights that are not 0."""

    sizes: Sequence[Sequence[int]]
    edges: Sequence[float]
    repeats: int

    @property
    def experiment(self) -> Experiment:
        """What is timed, and where its record lies."""
        return Experiment(KIND, "layers-dense-or-sparse", asdict(self))

    def run(self, store: Store) -> Record:
        """Return milliseconds, one thread: `dense_ms` and `sparse_ms`; `not_zero`: how many weights are not."""
        return self.experiment.run(store, self._timed)

    def _timed(self) -> Rows:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            cases = product(self.sizes, self.edges, BATCHES)
            return [self._case(out, width, edges, batch) for (out, width), edges, batch in cases]
        finally:
            torch.set_num_threads(before)

    @torch.inference_mode()
    def _case(self, out: int, width: int, edges: float, batch: int) -> dict[str, float]:
        draw = generator(0, "layer", out, width)
        weight, bias = torch.randn(out, width, generator=draw), torch.randn(out, generator=draw)
        weight *= torch.rand(out, width, generator=draw) < edges
        rows, columns = weight.nonzero(as_tuple=True)
        sparse = stacking.SparseLinear(rows, columns, weight[rows, columns], bias, width)
        inputs = torch.randn(batch, width, generator=draw)
        layers = {"dense": stacking.dense_layer(weight, bias), "sparse": sparse}
        programs = {name: partial(layer, inputs) for name, layer in layers.items()}
        taken = {f"{name}_ms": median(ms) for name, ms in milliseconds(programs, self.repeats).items()}
        return {"out": out, "in": width, "edges": edges, "not_zero": len(rows), "batch": batch, **taken}
