"""Times of training steps and epochs, kept as records: a page that says them in other words does not time them again.

Timed alone on a machine. A page is timed anew where its records in `<results>/timings` are gone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from modlib import masking, recipes
from modlib.cotraining import cotrain
from modlib.data import Dataset
from modlib.engines.vectorised import VectorisedEngine
from modlib.modules import Modules
from modlib.study import timing, two_programs
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.timed_epochs import in_processes
from modlib.study.trials import Trial, trained_parent, trial_modules
from modlib.zoo import parents

KIND = "timings"


@dataclass(frozen=True)
class Steps:
    """Two programs that take the same steps on the same data, and how they are timed.

    `models`, `batch_sizes`: of the times with all modules; `classes`: numbers of modules, of the first model with the
    last batch size; `k`: share of the edges kept in every layer; `steps`: in one measurement; `repeats`: measurements
    of each, in turns; `threads`: of both; `device`: cpu or cuda.
    """

    dataset: str
    models: Sequence[str]
    batch_sizes: Sequence[int]
    classes: Sequence[int]
    k: float
    steps: int
    repeats: int
    threads: int
    device: str

    @property
    def experiment(self) -> Experiment:
        """What is timed, and where its record lies."""
        return Experiment(KIND, f"{self.dataset}-{'-'.join(self.models)}-steps", asdict(self))

    def run(self, data: Dataset, store: Store) -> Record:
        """Return the times, a row each: `what` is "size", "classes" or "parts"."""
        return self.experiment.run(store, partial(self._timed, data))

    def _timed(self, data: Dataset) -> Rows:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return [*self._by_size(data), *self._by_classes(data), self._parts(data)]
        finally:
            torch.set_num_threads(before)

    def _by_size(self, data: Dataset) -> Rows:
        return [
            {"what": "size", "model": model, "batch": batch} | row
            for model in self.models
            for batch in self.batch_sizes
            for row in self._both(data, parents.make(model, data), range(data.num_classes), batch)
        ]

    def _by_classes(self, data: Dataset) -> Rows:
        parent = parents.make(self.models[0], data)
        return [
            {"what": "classes", "classes": count} | row
            for count in self.classes
            for row in self._both(data, parent, range(count), self.batch_sizes[-1])
        ]

    def _both(self, data: Dataset, parent: nn.Module, chosen: Sequence[int], batch: int) -> Rows:
        """Time both programs; a row a measurement: the program, and milliseconds a step."""
        settings: dict[str, Any] = {"data": data, "k": self.k, "device": self.device}
        programs = {
            "obvious way": two_programs.obvious_way(parent, chosen, batch, **settings),
            "ours": two_programs.ours([parent], chosen, batch, **settings),
        }
        for run in programs.values():
            run(2)  # memory, caches, compilation
        measured = {name: partial(run, self.steps) for name, run in programs.items()}
        taken = timing.in_turns(measured, self.repeats, device=self.device)
        turns = zip(*taken.values(), strict=True)
        return [
            {"program": name, "ms": 1e3 * once / self.steps}
            for turn in turns
            for name, once in zip(taken, turn, strict=True)
        ]

    def _parts(self, data: Dataset) -> dict[str, Any]:
        """Time what a step of ours consists of, each part repeated by itself, and what the machine can do."""
        parent = parents.make(self.models[0], data).to(self.device)
        batch, first = self.batch_sizes[-1], next(layer for layer in parent.modules() if isinstance(layer, nn.Linear))
        out, width = data.num_classes * first.out_features, first.in_features
        left, right, back = (self._random(*shape) for shape in ((out, width), (batch, width), (out, batch)))
        square, one, other = (self._random(*shape) for shape in ((1024, 1024), (out * width,), (out * width,)))
        products = self._ms(lambda: left @ right.T) + self._ms(lambda: back @ right)
        operations = 4 * out * width * batch  # two products of the first layer, two operations for each multiply-add
        fused, sorting = self._after_the_gradient(parent, data, batch)
        return {
            "what": "parts",
            "products_ms": products,
            "fused_ms": fused,
            "sorting_ms": sorting,
            "operations": operations,
            "moved": 6 * 4 * out * width,  # gradient, scores, momentum read; scores, momentum, masked weights written
            # the fastest product seen here, whatever its shape; in thousand millions
            "operations_a_s": max(2 * 1024**3 / self._ms(lambda: square @ square), operations / products) / 1e6,
            "gigabytes_a_s": 3 * 4 * out * width / self._ms(lambda: torch.add(one, other, out=one)) / 1e6,
        }

    def _after_the_gradient(self, parent: nn.Module, data: Dataset, batch: int) -> tuple[float, float]:
        """Return the time of the first layer's update, and of a full sort of its scores, ms."""
        run = recipes.Run(parent, recipes.published(k=self.k, batch_size=batch), 0)
        engine = VectorisedEngine([run], tuple(range(data.num_classes)), data, torch.device(self.device))
        update = engine.updates[0]
        gradient, average = torch.randn_like(update.scores) * 1e-6, update.scores.mean(1, keepdim=True)
        factor = torch.full((1, 1, 1, 1), 1e-6, device=self.device)
        fused = self._ms(lambda: update.step(gradient, average, factor, 1e-6))
        return fused, self._ms(lambda: [scores.flatten().sort() for scores in update.scores[0]])

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device)

    def _ms(self, program: timing.Program, calls: int = 20) -> float:
        """Return the time of a call, the shortest of several measurements."""
        timing.repeated(program, 3)()
        taken = timing.in_turns({"": timing.repeated(program, calls)}, self.repeats, device=self.device)
        return 1e3 * min(taken[""]) / calls


@dataclass(frozen=True)
class Passes:
    """Forward and backward passes of several modules, all at once and one by one: of FC1 and a convolutional parent.

    `side`: height and width of the latter's random images; `counts`: numbers of modules; `repeats`: measurements, in
    turns.
    """

    convolutional: str
    side: int
    batch: int
    counts: Sequence[int]
    k: float
    repeats: int

    @property
    def experiment(self) -> Experiment:
        """What is timed, and where its record lies."""
        return Experiment(KIND, f"fc1-{self.convolutional}-passes", asdict(self))

    def run(self, store: Store) -> Record:
        """Return the shortest time of both ways by network and number of modules."""
        return self.experiment.run(store, self._timed)

    def _timed(self) -> Rows:
        images = timing.random_images(self.batch, self.side)
        numbers = torch.randn(self.batch, 784, generator=torch.Generator().manual_seed(0))
        networks = {
            "fc1": (parents.fc(1, 784), numbers),
            self.convolutional: (parents.make(self.convolutional, images), images.inputs(images.train_images)),
        }
        rows: Rows = []
        for name, (network, inputs) in networks.items():
            network.eval().requires_grad_(False)
            for count in self.counts:
                taken = timing.in_turns(two_ways(network, inputs, count, self.k), self.repeats, warm_up=1)
                shortest = {f"{way}_ms": 1e3 * min(times) for way, times in taken.items()}
                rows.append({"network": name, "modules": count} | shortest)
        return rows


def two_ways(network: nn.Module, inputs: Tensor, count: int, k: float) -> Mapping[str, timing.Program]:
    """Return what runs a forward and backward pass of `count` modules: by vmap, and one after another.

    Each module is the network under a random mask with a share `k` of the weights.
    """
    draw = torch.Generator().manual_seed(0)
    masked = {
        name: (weight * (torch.rand(count, *weight.shape, generator=draw) < k)).requires_grad_()
        for name, weight in masking.maskable_parameters(network).items()
    }

    def at_once() -> None:
        outputs = vmap(lambda own: functional_call(network, own, (inputs,)))(masked)
        torch.autograd.grad(outputs.sum(), list(masked.values()))

    def one_by_one() -> None:
        for m in range(count):
            own = {name: values[m].detach().requires_grad_() for name, values in masked.items()}
            torch.autograd.grad(functional_call(network, own, (inputs,)).sum(), list(own.values()))

    return {"at_once": at_once, "one_by_one": one_by_one}


@dataclass(frozen=True)
class Epochs:
    """Epochs of the modulewise engine: every number of modules in one process, the last of them in several, too.

    `images`: random ones, `side` pixels a side; `repeats`: measurements, in turns, of which the shortest counts.
    """

    model: str
    counts: Sequence[int]
    processes: Sequence[int]
    side: int
    images: int
    repeats: int

    @property
    def experiment(self) -> Experiment:
        """What is timed, and where its record lies."""
        return Experiment(KIND, f"{self.model}-epochs", asdict(self))

    def run(self, store: Store) -> Record:
        """Return seconds of an epoch by modules and processes."""
        return self.experiment.run(store, self._timed)

    def _timed(self) -> Rows:
        size = {"side": self.side, "images": self.images, "repeats": self.repeats}
        asked = [(self.counts, 1), *((self.counts[-1:], n) for n in self.processes if n > 1)]
        found = [in_processes(self.model, counts, n, **size) for counts, n in asked]
        return [
            {"modules": m, "processes": n, "seconds": s}
            for part in found
            for m, n, s in zip(*(part[c].tolist() for c in ("modules", "processes", "seconds")), strict=True)
        ]


@dataclass(frozen=True)
class InUse:
    """Passes of the modules of a trial, recomposed, and of their parent.

    `counts`: numbers of modules, of the first classes; `images`: of a pass, test ones; `repeats`: passes of each, of
    which the shortest counts.
    """

    trial: Trial
    counts: Sequence[int]
    images: int
    repeats: int

    @property
    def experiment(self) -> Experiment:
        """What is timed, and where its record lies."""
        timed = {"counts": self.counts, "images": self.images, "repeats": self.repeats}
        return Experiment(KIND, f"{self.trial.name}-in-use", self.trial.parameters | {"in_use": timed})

    def run(self, data: Dataset, store: Store) -> Record:
        """Return milliseconds: of the parent's pass, of recomposing all modules once, and of a pass by `modules`."""
        return self.experiment.run(store, partial(self._timed, data, store))

    @torch.no_grad()
    def _timed(self, data: Dataset, store: Store) -> Rows:
        modules = trial_modules(self.trial, data, store, device="cpu")
        inputs = data.inputs(data.test_images[: self.images])
        networks = {n: modules.recompose(modules.classes[:n]) for n in self.counts}
        programs: dict[int, timing.Program] = {n: partial(network, inputs) for n, network in networks.items()}
        taken = timing.in_turns({0: partial(modules.parent, inputs)} | programs, self.repeats, warm_up=1)
        recomposing = timing.seconds(partial(modules.recompose, modules.classes))
        return [
            {"what": "parent", "ms": 1e3 * min(taken[0])},
            {"what": "recomposing", "ms": 1e3 * recomposing},
            *({"what": "modules", "modules": n, "ms": 1e3 * min(taken[n])} for n in self.counts),
        ]


@dataclass(frozen=True)
class OwnEpochs:
    """Epochs of a trial's decomposition, without vote loss, by the number of modules: of the first classes.

    `epochs`: timed of each, of which the shortest counts, because what else runs only adds to it.
    """

    trial: Trial
    counts: Sequence[int]
    epochs: int

    @property
    def experiment(self) -> Experiment:
        """What is timed, and where its record lies."""
        timed = {"counts": self.counts, "epochs": self.epochs}
        return Experiment(KIND, f"{self.trial.name}-epochs", self.trial.parameters | {"own_epochs": timed})

    def run(self, data: Dataset, store: Store) -> Record:
        """Return seconds of an epoch by the number of modules."""
        return self.experiment.run(store, partial(self._timed, data, store))

    def _timed(self, data: Dataset, store: Store) -> Rows:
        parent = trained_parent(data, self.trial.model, self.trial.seed, self.trial.parent_epochs, store)
        return [{"modules": number, "seconds": self._shortest(parent, data, number)} for number in self.counts]

    def _shortest(self, parent: nn.Module, data: Dataset, number: int) -> float:
        ends: list[float] = []

        def note(epoch: int, modules: Modules) -> None:
            ends.append(time.perf_counter())

        recipe = self.trial.recipe
        cotrain(
            parent,
            data,
            k=recipe.k,
            alpha=recipe.alpha,
            epochs=self.epochs + 1,
            batch_size=recipe.batch_size,
            classes=range(number),
            seed=self.trial.seed,
            callback=note,
        )
        return min(b - a for a, b in pairwise(ends))  # the first epoch includes set-up
