"""Which engine trains what: what a stale table costs, where passing modules together stops paying, how time grows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.func import functional_call, vmap

from modlib import masking, recipes
from modlib.cotraining import cotrain_population
from modlib.data import Dataset
from modlib.recipes import Run
from modlib.study import figures, records, tables, timing
from modlib.study.claims import Claim
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.timed_epochs import in_processes
from modlib.study.trials import measure, trained_parent
from modlib.zoo import parents

COMPARED = ("vectorised", "modulewise")
"""The engines whose results are compared."""


def experiments(
    *,
    dataset: str,
    model: str,
    seeds: Sequence[int],
    parent_epochs: int,
    epochs: int,
    alpha: float,
    vote: float,
    k: float,
    **_: Any,
) -> list[Experiment]:
    """Return all experiments of the page: a decomposition by each engine for every seed."""
    settings = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "epochs": epochs}
    settings |= {"alpha": alpha, "vote": vote, "k": k}
    return [
        Experiment("engines", f"{dataset}-{model}-{engine}-seed{seed}", settings | {"engine": engine, "seed": seed})
        for seed in seeds
        for engine in COMPARED
    ]


def decomposed(experiment: Experiment, data: Dataset, store: Store) -> Record:
    """Return the record of a decomposition by an engine: its last epoch, on test images."""
    given = experiment.parameters

    def compute() -> Rows:
        parent = trained_parent(data, given["model"], given["seed"], given["parent_epochs"], store)
        recipe = recipes.ours(**{name: given[name] for name in ("k", "alpha", "vote", "epochs")})
        start = time.perf_counter()
        (modules,) = cotrain_population([Run(parent, recipe, given["seed"])], data, engine=given["engine"])
        taken = time.perf_counter() - start
        found = measure(modules, data, "test")
        kept = ("accuracy", "module_accuracy", "pair_accuracy", "jaccard_index", "remaining_parameters_all")
        about = {"engine": given["engine"], "seed": given["seed"], "seconds": taken}
        return [about | {name: found[name] for name in kept}]

    return experiment.run(store, compute, data_sha256=data.sha256())


def stale(rows: pd.DataFrame) -> pd.Series:
    """Return, by seed, how much more accurate the vote is with a table of one epoch ago."""
    votes = rows.pivot(index="seed", columns="engine", values="accuracy")
    return votes["modulewise"] - votes["vectorised"]


def stale_table(rows: pd.DataFrame, dataset: str, model: str, epochs: int) -> Markdown:
    """Return what the engines' decompositions give."""
    lines = [
        {
            "engine": engine,
            "vote of all classes (%)": records.mean_and_spread(part["accuracy"]),
            "pairs (%)": records.mean_and_spread(part["pair_accuracy"]),
            "modules (%)": records.mean_and_spread(part["module_accuracy"]),
            "Jaccard index": records.mean_and_spread(part["jaccard_index"], 1, 3),
            "weights of all": records.mean_and_spread(part["remaining_parameters_all"], 1, 3),
            "n": len(part),
        }
        for engine, part in rows.groupby("engine", sort=False)
    ]
    return tables.table(
        pd.DataFrame(lines),
        f"{dataset} {model.upper()}, test images, last epoch ({epochs}): log-odds of the same batch (vectorised) "
        "against a table of one epoch ago (modulewise). Mean ± standard deviation over n trials. Difference of the "
        f"votes, paired: {records.mean_and_spread(stale(rows))} points.",
        "tab-engines-stale",
    )


def two_ways(network: nn.Module, inputs: Tensor, count: int, k: float) -> dict[str, timing.Program]:
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

    return {"all at once": at_once, "one by one": one_by_one}


def passes(
    convolutional: str, side: int, batch_sizes: Sequence[int], counts: Sequence[int], k: float, repeats: int
) -> pd.DataFrame:
    """Return the shortest time of both of `two_ways`, in seconds, for FC1 and a convolutional parent.

    `side`: of the latter's random images; `counts`: numbers of modules; `repeats`: measurements, in turns.
    """
    images = timing.random_images(max(batch_sizes), side)
    numbers = torch.randn(max(batch_sizes), 784, generator=torch.Generator().manual_seed(0))
    networks = {
        "fc1": (parents.fc(1, 784), numbers),
        convolutional: (parents.make(convolutional, images), images.inputs(images.train_images)),
    }
    rows = []
    for name, (network, inputs) in networks.items():
        network.eval().requires_grad_(False)
        for batch in batch_sizes:
            for count in counts:
                taken = timing.in_turns(two_ways(network, inputs[:batch], count, k), repeats, warm_up=1)
                shortest = {way: min(times) for way, times in taken.items()}
                rows.append({"network": name, "batch": batch, "modules": count} | shortest)
    table = pd.DataFrame(rows)
    return table.assign(ratio=table["one by one"] / table["all at once"])


def passes_table(timed: pd.DataFrame, repeats: int) -> Markdown:
    """Return the times of `passes`."""
    shown = pd.DataFrame(
        {
            "network": timed["network"],
            "batch": timed["batch"].astype(str),
            "modules": timed["modules"].astype(str),
            "all at once (ms)": [f"{1000 * v:.1f}" for v in timed["all at once"]],
            "one by one (ms)": [f"{1000 * v:.1f}" for v in timed["one by one"]],
            "at once is faster": [f"{v:.2f} times" for v in timed["ratio"]],
        }
    )
    return tables.table(
        shown,
        f"Forward and backward pass of several modules, shortest of {repeats} measurements in turns, one thread of the "
        "device below.",
        "tab-engines-vmap",
    )


@dataclass(frozen=True)
class Growth:
    """Seconds of an epoch of the modulewise engine: `alone`, by `modules`, and `shared`, by `processes`."""

    model: str
    side: int
    images: int
    repeats: int
    alone: pd.DataFrame
    shared: pd.DataFrame

    @classmethod
    def measured(
        cls, model: str, counts: Sequence[int], processes: Sequence[int], *, side: int, images: int, repeats: int
    ) -> Growth:
        """Time every number of modules in one process, and the largest of them in every number of processes."""
        size = {"side": side, "images": images, "repeats": repeats}
        alone = in_processes(model, counts, 1, **size)
        shared = [in_processes(model, counts[-1:], p, **size) for p in processes]
        return cls(model, side, images, repeats, alone, pd.concat(shared, ignore_index=True))

    @property
    def every(self) -> pd.DataFrame:
        """All epochs that were timed, the largest number of modules in one process but once."""
        return pd.concat([self.alone, self.shared[self.shared["processes"] > 1]])

    @property
    def slope(self) -> float:
        """The power of the number of modules that the time grows like."""
        return float(np.polyfit(np.log(self.alone["modules"]), np.log(self.alone["seconds"]), 1)[0])

    @property
    def speedup(self) -> float:
        """How many times as fast the largest number of processes is as the first one."""
        return float(self.shared["seconds"].iloc[0] / self.shared["seconds"].iloc[-1])


def draw_growth(growth: Growth) -> Figure:
    """Draw the time of an epoch against modules and processes."""
    figure, (a, b) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.8))
    for ax, part, what in ((a, growth.alone, "modules"), (b, growth.shared, "processes")):
        ax.plot(part[what], part["seconds"], marker="o", color=figures.COLOURS["ours"])
    modules, processes = growth.alone["modules"], growth.shared["processes"]
    proportional = growth.alone["seconds"].iloc[-1] * modules / modules.iloc[-1]
    a.plot(modules, proportional, ls="--", color="black", lw=1)
    a.set(xlabel="modules", ylabel="seconds of an epoch", ylim=(0, None))
    b.plot(processes, growth.shared["seconds"].iloc[0] / processes, ls="--", color="black", lw=1)
    b.set(xlabel="processes", ylabel="", ylim=(0, None), xticks=processes)
    return figure


def growth_table(growth: Growth) -> Markdown:
    """Return the times of epochs."""
    both = growth.every
    shown = pd.DataFrame(
        {
            "modules": both["modules"].astype(str),
            "processes": both["processes"].astype(str),
            "seconds of an epoch": [f"{v:.2f}" for v in both["seconds"]],
            "seconds a module": [f"{s / m:.3f}" for s, m in zip(both["seconds"], both["modules"], strict=True)],
        }
    )
    return tables.table(
        shown,
        f"The modulewise engine, {growth.model}, {growth.images} random images of {growth.side} × {growth.side}: "
        f"shortest of {growth.repeats} measurements, one thread for each process.",
        "tab-engines-growth",
    )


def answer(rows: pd.DataFrame, timed: pd.DataFrame, growth: Growth) -> Markdown:
    """Return the answer in sentences: what taking turns costs in accuracy, where it is faster, and how time grows."""
    points, model, processes = 100 * stale(rows), growth.model, growth.shared["processes"]
    of_conv, of_fc = (timed.loc[timed["network"] == name, "ratio"] for name in (model, "fc1"))
    divided = ""
    if len(processes) > 1:
        divided = f", and {processes.iloc[-1]} processes are {growth.speedup:.1f} times as fast as one"
    few, many = growth.alone.iloc[0], growth.alone.iloc[-1]
    return Markdown(
        f"**Answer.** Taking turns changes the accuracy of the vote by {points.mean():+.2f} points (n = {len(points)}"
        f"{_between(points)}). All modules at once is up to **{of_fc.max():.1f} times** as fast as one by one for FC1, "
        f"but only {of_conv.min():.2f} to **{of_conv.max():.2f} times** for {model}. There, an epoch "
        f"takes {many['seconds'] / few['seconds']:.1f} times as long with {many['modules']:.0f} modules as with "
        f"{few['modules']:.0f}{divided}."
    )


def _between(points: pd.Series) -> str:
    """Return the 95% interval of a mean in words; empty for a single trial, which tells no spread."""
    if len(points) < 2:
        return ""
    low, high = records.interval(points)
    return f", 95% interval {low:+.2f} to {high:+.2f}"


def claim(growth: Growth) -> Claim:
    """Return the claim that the page judges."""
    processes = growth.shared["processes"]
    divided = f"; {processes.iloc[-1]} processes divide it by {growth.speedup:.2f}" if len(processes) > 1 else ""
    return Claim(
        claim="Module co-training takes a computation time proportional to the number of classes",
        where="Discussion",
        paper="no number",
        here=f"{growth.model}, modulewise engine, one module after another: time grows like the {growth.slope:.2f}th "
        f"power; side by side it grows less (page Cost){divided}",
        verdict="partly",  # of modules in turn; side by side they share work
        n=f"{growth.repeats} timings",
    )
