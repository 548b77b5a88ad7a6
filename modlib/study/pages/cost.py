"""What a decomposition and a recomposed network cost in time, and which engine trains what."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure

from modlib import recipes
from modlib.cotraining import cotrain_population
from modlib.data import Dataset
from modlib.recipes import Run
from modlib.stacking import pays_sparse
from modlib.study import figures, names, records, tables, two_programs
from modlib.study.claims import Claim
from modlib.study.experiment import Experiment
from modlib.study.records import Record, Rows, Store
from modlib.study.stacked_times import Layers, Subsets
from modlib.study.step_times import Epochs, InUse, Passes, Steps
from modlib.study.trials import Trial, measure, trained_parent
from modlib.zoo import datasets

TAKEN = {True: "sparse_ms", False: "dense_ms"}
"""What a layer takes, by whether it is a sparse product."""
COMPARED = ("vectorised", "modulewise")
"""The engines whose results are compared."""


def engine_trials(
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
    """Return a decomposition by each engine for every seed."""
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The parameters of the page; the notebook says what each is."""

    dataset: str
    model: str
    deeper: Sequence[str]
    batch_sizes: Sequence[int]
    modules: Sequence[int]
    k: float
    steps: int
    repeats: int
    threads: int
    device: str
    seeds: Sequence[int]
    parent_epochs: int
    epochs: int
    alpha: float
    vote: float
    convolutional: str
    side: int
    images: int
    batch: int
    at_once: Sequence[int]
    in_turn: Sequence[int]
    processes: Sequence[int]
    in_turn_repeats: int
    use_alpha: float
    use_images: int
    use_repeats: int
    use_ks: Sequence[float]
    layer_sizes: Sequence[Sequence[int]]
    layer_edges: Sequence[float]

    @property
    def subsets(self) -> Subsets:
        """Recomposed networks of both parents at several k: of two modules, and of the most."""
        models, counts = [self.model, *self.deeper], sorted({2, self.modules[-1]})
        trial = (self.alpha, self.vote, self.epochs, self.parent_epochs, self.seeds[0])
        return Subsets(self.dataset, models, self.use_ks, counts, *trial, self.repeats)

    @property
    def layers(self) -> Layers:
        """Layers as dense and as sparse products."""
        return Layers(self.layer_sizes, self.layer_edges, self.repeats)

    @property
    def step_times(self) -> Steps:
        """Steps of the obvious way and of ours."""
        models = [self.model, *self.deeper]
        measured = (self.k, self.steps, self.repeats, self.threads, self.device)
        return Steps(self.dataset, models, self.batch_sizes, self.modules, *measured)

    @property
    def passes(self) -> Passes:
        """Passes of several modules, all at once and one by one."""
        return Passes(self.convolutional, self.side, self.batch, self.at_once, self.k, self.in_turn_repeats)

    @property
    def epoch_times(self) -> Epochs:
        """Epochs of modules in turn."""
        size = (self.side, self.images, self.in_turn_repeats)
        return Epochs(self.convolutional, self.in_turn, self.processes, *size)

    @property
    def trials(self) -> list[Experiment]:
        """A decomposition by each engine for every seed."""
        return engine_trials(**vars(self))

    @property
    def shown(self) -> dict[str, Any]:
        """Return what the provenance of the page names."""
        left_out = ("k", "alpha", "vote", "images", "batch", "at_once", "in_turn", "layer_sizes", "layer_edges")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    @property
    def in_use(self) -> InUse:
        """Passes of recomposed networks."""
        recipe = recipes.ours(k=self.k, alpha=self.use_alpha, epochs=self.epochs)
        trial = Trial(self.dataset, self.model, "ours", recipe, self.seeds[0], self.parent_epochs)
        return InUse(trial, self.modules, self.use_images, self.use_repeats)


def experiments(*, results: str = "", **parameters: Any) -> list[Experiment]:
    """Return what the page reads or computes with these parameters, wherever its `results` are."""
    plan = Plan(**parameters)
    timed = (plan.step_times, plan.passes, plan.epoch_times, plan.in_use, plan.subsets, plan.layers)
    return [*plan.trials, *(one.experiment for one in timed)]


@dataclass(frozen=True, eq=False)
class Found:
    """What the page shows: the plan, its data, and the records."""

    plan: Plan
    data: Dataset
    engines: list[Record]
    step_times: Record
    passes: Record
    epoch_times: Record
    in_use: Record
    subsets: Record
    layers: Record

    @classmethod
    def run(cls, plan: Plan, store: Store) -> Found:
        """Read the records, or measure what is not there."""
        data = datasets.load(plan.dataset)
        engines = [decomposed(trial, data, store) for trial in plan.trials]
        timed = (plan.step_times.run(data, store), plan.passes.run(store), plan.epoch_times.run(store))
        used = (plan.in_use.run(data, store), plan.subsets.run(data, store), plan.layers.run(store))
        return cls(plan, data, engines, *timed, *used)

    @property
    def done(self) -> list[Record]:
        """All records."""
        timed = (self.step_times, self.passes, self.epoch_times, self.in_use, self.subsets, self.layers)
        return [*self.engines, *timed]

    @property
    def network(self) -> str:
        """The fully connected parent in words."""
        return names.of_network(self.plan.dataset, self.plan.model)

    @property
    def convolutional(self) -> str:
        """The convolutional parent in words."""
        return names.of_model(self.plan.convolutional)

    def _times(self, what: str) -> pd.DataFrame:
        rows = records.frame([self.step_times])
        return rows[rows["what"] == what]

    @cached_property
    def by_size(self) -> pd.DataFrame:
        """Milliseconds of a step with all modules: model, batch, program."""
        return self._times("size").astype({"batch": int})

    @cached_property
    def by_modules(self) -> pd.DataFrame:
        """Median milliseconds of a step by the number of modules, a column a program, and `ratio`."""
        return medians(self._times("classes").astype({"classes": int}), ["classes"])

    @cached_property
    def parts(self) -> dict[str, float]:
        """The parts of a step of ours, what they have to do, and what the machine reaches; `whole_ms`: the step."""
        (row,) = [row for row in self.step_times.rows if row["what"] == "parts"]
        return {k: v for k, v in row.items() if k != "what"} | {"whole_ms": self.step["ours"]}

    @cached_property
    def step(self) -> Mapping[str, float]:
        """The step that the answer is about: the parent with the last batch size."""
        middle = medians(self.by_size).reset_index()
        last = (middle["model"] == self.plan.model) & (middle["batch"] == self.plan.batch_sizes[-1])
        return {name: float(middle.loc[last, name].iloc[0]) for name in ("obvious way", "ours", "ratio")}

    @cached_property
    def ways(self) -> pd.DataFrame:
        """Passes all at once and one by one, and `ratio`: how many times as fast all at once is."""
        rows = records.frame([self.passes])
        return rows.assign(ratio=rows["one_by_one_ms"] / rows["at_once_ms"])

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """Seconds of epochs of modules in turn."""
        return records.frame([self.epoch_times])

    @property
    def alone(self) -> pd.DataFrame:
        """Those in one process."""
        return self.epochs[self.epochs["processes"] == 1]

    @property
    def shared(self) -> pd.DataFrame:
        """Those of the largest number of modules, by processes."""
        return self.epochs[self.epochs["modules"] == self.epochs["modules"].max()]

    @property
    def slope(self) -> float:
        """The power of the number of modules that the time grows like."""
        return float(np.polyfit(np.log(self.alone["modules"]), np.log(self.alone["seconds"]), 1)[0])

    @property
    def speedup(self) -> float:
        """How many times as fast the largest number of processes is as one."""
        return float(self.shared["seconds"].iloc[0] / self.shared["seconds"].iloc[-1])

    @cached_property
    def stale(self) -> pd.Series:
        """By seed, how much more accurate the vote is with a table of one epoch ago."""
        votes = records.frame(self.engines).pivot(index="seed", columns="engine", values="accuracy")
        return votes["modulewise"] - votes["vectorised"]

    def seconds_an_epoch(self, ms: float, batch: int) -> float:
        """Return the time of an epoch of steps of so many milliseconds."""
        return ms * math.ceil(len(self.data.train_labels) / batch) / 1e3

    @cached_property
    def use(self) -> pd.DataFrame:
        """Milliseconds in use: `what` is "parent", "recomposing" or "modules"; `passes`: in passes of the parent."""
        rows = records.frame([self.in_use])
        return rows.assign(passes=rows["ms"] / rows.loc[rows["what"] == "parent", "ms"].iloc[0])

    @property
    def of_modules(self) -> pd.DataFrame:
        """Those of recomposed networks, by the number of modules."""
        return self.use[self.use["what"] == "modules"].astype({"modules": int}).set_index("modules")


def medians(speed: pd.DataFrame, by: Sequence[str] = ("model", "batch")) -> pd.DataFrame:
    """Return the median time of a step, ms: one column a program, and `ratio`, the obvious way over ours."""
    middle = speed.groupby([*by, "program"])["ms"].median().unstack()
    return middle.assign(ratio=middle["obvious way"] / middle["ours"])


def answer(found: Found) -> Markdown:
    """Return the answer in sentences: what side by side saves, what taking turns costs, and what use costs."""
    plan, step, growth = found.plan, found.step, found.by_modules["ours"]
    epoch = found.seconds_an_epoch(step["ours"], plan.batch_sizes[-1])
    few, many = found.alone.iloc[0], found.alone.iloc[-1]
    use = found.of_modules["passes"]
    return Markdown(
        f"**Answer.** The {growth.index[-1]} modules of {found.network} train side by side: **{epoch:.1f} s an epoch** "
        f"(batch {plan.batch_sizes[-1]}, median of n = {plan.repeats}), {step['ratio']:.0f} times as fast as the "
        f"obvious way, and only {growth.iloc[-1] / growth.iloc[0]:.1f} times the time of one module. Those of a "
        f"convolutional network, {found.convolutional}, take turns: {many['modules']:.0f} modules take "
        f"**{many['seconds'] / few['seconds']:.1f} times** as long as {few['modules']:.0f}. In use every module is a "
        f"pass. Fully connected networks join them: a vote of {use.index[-1]} takes as long as {use.iloc[-1]:.1f} "
        "passes of the parent. Convolutional ones don't."
    )


def draw(found: Found) -> Figure:
    """Draw the time of a step side by side, and of an epoch in turns, against the number of modules."""
    figure, (a, b) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    growth, alone = found.by_modules, found.alone
    colours = {"obvious way": figures.COLOURS["paper"], "ours": figures.COLOURS["ours"]}
    for program, colour in colours.items():
        a.plot(growth.index, growth[program], marker="o", color=colour, label=program)
    counts = list(growth.index)
    a.set(xscale="log", yscale="log", xlabel="modules", ylabel="ms a step", title=found.network)
    a.set_xticks(counts, [str(count) for count in counts])
    a.minorticks_off()
    a.legend(frameon=False)
    b.plot(alone["modules"], alone["seconds"], marker="o", color=colours["ours"], label="one process")
    proportional = alone["seconds"].iloc[-1] * alone["modules"] / alone["modules"].iloc[-1]
    b.plot(alone["modules"], proportional, ls="--", color="black", lw=1, label="proportional")
    for _, row in found.shared[found.shared["processes"] > 1].iterrows():
        b.plot(row["modules"], row["seconds"], "s", color="black", ms=5, label=f"{row['processes']:.0f} processes")
    b.set(xlabel="modules", ylabel="seconds an epoch", ylim=(0, None), title=found.convolutional)
    b.legend(frameon=False)
    sns.despine(figure)
    return figure


def speed_table(found: Found) -> Markdown:
    """Return the time of a step and an epoch of both programs."""
    plan = found.plan
    spans = found.by_size.groupby(["model", "batch", "program"])["ms"].agg(lambda s: f"{s.min():.1f} to {s.max():.1f}")
    shown = []
    for one in medians(found.by_size).reset_index().to_dict("records"):
        model, batch = one["model"], one["batch"]
        line = {"parent": names.of_model(model), "batch": batch}
        for program in ("obvious way", "ours"):
            line[f"{program} (ms a step)"] = f"{one[program]:.1f} ({spans[model, batch, program]})"
        line["ours (s an epoch)"] = f"{found.seconds_an_epoch(one['ours'], batch):.1f}"
        shown.append(line | {"times as fast": f"{one['ratio']:.1f}"})
    return tables.table(
        pd.DataFrame(shown),
        f"Time of a step with all {found.data.num_classes} modules on {names.of_data(plan.dataset)}, {plan.threads} "
        f"thread{'s' if plan.threads > 1 else ''}: median (smallest to largest) of {plan.repeats} measurements of "
        f"{plan.steps} steps, in turns.",
        "tab-cost-speed",
    )


def parts_table(found: Found) -> Markdown:
    """Return the parts of a step of ours beside the limits of the machine."""
    parts, plan = found.parts, found.plan
    of_products = parts["operations"] / parts["operations_a_s"] / 1e6
    of_pass = parts["moved"] / parts["gigabytes_a_s"] / 1e6
    whole = parts["whole_ms"]
    rest = max(whole - parts["products_ms"] - parts["fused_ms"], 0)
    rows = [
        ("matrix products of the first layer", parts["products_ms"], f"{parts['operations'] / 1e6:.0f} M operations"),
        ("what follows the gradient, in one pass", parts["fused_ms"], f"{parts['moved'] / 1e6:.1f} MB"),
        ("the rest: batch, other layers, objective", rest, ""),
        ("one step", whole, ""),
        ("for comparison: a full sort of the scores", parts["sorting_ms"], ""),
    ]
    shown = pd.DataFrame([(part, f"{ms:.2f}", work) for part, ms, work in rows], columns=["part", "ms", "work"])
    limits = (of_products, of_pass, None, of_products + of_pass, None)
    shown["limit (ms)"] = ["" if v is None else f"{v:.2f}" for v in limits]
    shares = [f"{ms / whole:.0%}" for _, ms, _ in rows]
    shown["share of a step"] = [*shares[:-1], ""]  # the last is no part of it
    return tables.table(
        shown,
        f"A step of ours, {names.of_model(plan.model)}, batch {plan.batch_sizes[-1]}, {found.data.num_classes} "
        "modules. What follows the gradient: stemming, SGD, top k, masking. Limits of this machine: "
        f"{parts['operations_a_s']:.0f} thousand million operations a second (the fastest matrix product seen: "
        f"1024 x 1024, or the ones above), {parts['gigabytes_a_s']:.1f} GB a second (one addition of two arrays of the "
        "first layer's size). The sort is of the first layer of every module.",
        "tab-cost-parts",
    )


def modules_table(found: Found) -> Markdown:
    """Return the time of a step against the number of modules."""
    shown = found.by_modules.reset_index().map(lambda v: f"{v:.2f}" if isinstance(v, float) else v)
    columns = {
        "classes": "modules",
        "obvious way": "obvious way (ms)",
        "ours": "ours (ms)",
        "ratio": "times as fast",
    }
    return tables.table(
        shown.rename(columns=columns),
        f"Time of a step against the number of modules, {names.of_model(found.plan.model)}, batch "
        f"{found.plan.batch_sizes[-1]}, medians of {found.plan.repeats} measurements.",
        "tab-cost-modules",
    )


def passes_table(found: Found) -> Markdown:
    """Return the times of passes all at once and one by one."""
    ways = found.ways
    shown = pd.DataFrame(
        {
            "network": [names.of_model(name) for name in ways["network"]],
            "modules": ways["modules"].astype(str),
            "all at once (ms)": [f"{v:.1f}" for v in ways["at_once_ms"]],
            "one by one (ms)": [f"{v:.1f}" for v in ways["one_by_one_ms"]],
            "at once is faster": [f"{v:.2f} times" for v in ways["ratio"]],
        }
    )
    return tables.table(
        shown,
        f"Forward and backward pass of several modules on {found.plan.batch} images, shortest of "
        f"{found.plan.in_turn_repeats} measurements in turns, one thread.",
        "tab-cost-passes",
    )


def epochs_table(found: Found) -> Markdown:
    """Return the times of epochs of modules in turn."""
    both, plan = found.epochs, found.plan
    shown = pd.DataFrame(
        {
            "modules": both["modules"].astype(str),
            "processes": both["processes"].astype(str),
            "seconds an epoch": [f"{v:.2f}" for v in both["seconds"]],
            "seconds a module": [f"{s / m:.3f}" for s, m in zip(both["seconds"], both["modules"], strict=True)],
        }
    )
    return tables.table(
        shown,
        f"The modulewise engine, {found.convolutional}, {plan.images} random images of {plan.side} × {plan.side}: "
        f"shortest of {plan.in_turn_repeats} measurements, one thread for each process.",
        "tab-cost-epochs",
    )


def stale_table(found: Found) -> Markdown:
    """Return what the engines' decompositions give."""
    lines = [
        {
            "engine": engine,
            "vote of all classes (%)": records.mean_and_spread(part["accuracy"]),
            "pairs (%)": records.mean_and_spread(part["pair_accuracy"]),
            "modules (%)": records.mean_and_spread(part["module_accuracy"]),
            "Jaccard index": records.mean_and_spread(part["jaccard_index"], 1, 3),
            "remaining, all (%)": records.mean_and_spread(part["remaining_parameters_all"], digits=1),
            "n": len(part),
        }
        for engine, part in tables.groups(records.frame(found.engines), "engine", sort=False)
    ]
    points = records.mean_and_spread(found.stale)
    return tables.table(
        pd.DataFrame(lines),
        f"{found.network}, test images, last epoch ({found.plan.epochs}): log-odds of the same batch (vectorised) or "
        "of one epoch ago (modulewise). Mean ± standard deviation over n trials. Difference of the votes, trial by "
        f"trial: {points} points{_between(100 * found.stale)}.",
        "tab-cost-stale",
    )


def _between(points: pd.Series) -> str:
    """Return the 95% interval of a mean in words; empty for a single trial, which tells no spread."""
    if len(points) < 2:
        return ""
    low, high = records.interval(points)
    return f", 95% interval {low:+.2f} to {high:+.2f}"


def in_use_table(found: Found) -> Markdown:
    """Return the times of networks in use."""
    plan, whole = found.plan, f"recomposing all {found.data.num_classes} modules, once"
    called = {"parent": "the parent", "recomposing": whole}
    shown = [
        {
            "what": called.get(row["what"]) or f"modules recomposed: {row['modules']:.0f}",
            "ms": f"{row['ms']:.2f}",
            "passes of the parent": f"{row['passes']:.1f}",
        }
        for row in found.use.to_dict("records")
    ]
    return tables.table(
        pd.DataFrame(shown),
        f"{found.network}, recipe ours (α = {plan.use_alpha:g}, no vote loss): a pass of {plan.use_images:,} images, "
        f"shortest of {plan.use_repeats}.",
        "tab-cost-in-use",
    )


def subsets_table(found: Found) -> Markdown:
    """Return the times of recomposed networks by parent, k and number of modules."""
    if not found.subsets.rows:
        return Markdown("No subsets were timed.")
    shown = []
    rows = pd.DataFrame(found.subsets.rows)
    for (model, k, count), part in tables.groups(rows, ["model", "k", "modules"], sort=False):
        one = part.iloc[0]
        line = {"parent": names.of_model(model), "k": f"{k:.0%}", "modules": int(count)}
        line["remaining"] = tables.percent(one["remaining"], 1)
        line["points, test"] = f"{100 * (one['accuracy'] - one['parent_accuracy']):+.2f}"
        for form, of in part.groupby("form", sort=False):
            line[f"{form}, 1 / 64"] = " / ".join(f"{times:.2f}" for times in of["speedup"])
        shown.append(line)
    plan = found.plan
    return tables.table(
        pd.DataFrame(shown),
        "How many times as fast as the parent recomposed networks are, for one image and for 64, torch, one thread: as "
        f"they are, and baked. Medians of {plan.repeats} rounds; below 1 the parent is faster. Points: against the "
        f"restricted parent. Recipe ours, α = {plan.alpha:g}, with vote loss, one trial.",
        "tab-cost-subsets",
    )


def subsets_sentence(found: Found) -> Markdown:
    """Say which of the timed subsets are faster than their parent, of those that are as accurate within a point."""
    near = [row for row in found.subsets.rows if row["accuracy"] >= row["parent_accuracy"] - 0.01]
    faster = sum(row["speedup"] > 1 for row in near)
    said = f"Of {len(near)} timed calls of networks within a point of the parent, {faster} are faster than its own"
    if near:
        best = max(near, key=lambda row: row["speedup"])
        said += (
            f"; at best {best['speedup']:.1f} times as fast ({names.of_model(best['model'])}, k = {best['k']:.0%}, "
            f"{best['modules']} modules, {best['form']}, batches of {best['batch']})"
        )
    return Markdown(f"{said}.")


def layers_sentence(found: Found) -> Markdown:
    """Say how often the rule takes the faster form, and what the others cost."""
    if not found.layers.rows:
        return Markdown("No layers were timed.")
    slower = [row[TAKEN[_sparse(row)]] / min(row[name] for name in TAKEN.values()) for row in found.layers.rows]
    said = f"In {slower.count(1.0)} of {len(slower)} cases the rule takes the faster form"
    worst = f"; at worst what it takes is {max(slower):.1f} times as slow as the other" if max(slower) > 1 else ""
    return Markdown(f"{said}{worst}.")


def _sparse(row: Mapping[str, Any]) -> bool:
    return pays_sparse(row["out"] * row["in"], row["not_zero"])


def layers_table(found: Found) -> Markdown:
    """Return the times of layers as dense and as sparse products."""
    shown = [
        {
            "out × in": f"{row['out']} × {row['in']}",
            "not 0": f"{row['edges']:.0%}",
            "batch": row["batch"],
            "dense (ms)": f"{row['dense_ms']:.3g}",
            "sparse (ms)": f"{row['sparse_ms']:.3g}",
            "taken": "sparse" if _sparse(row) else "dense",
        }
        for row in found.layers.rows
    ]
    caption = f"One linear layer in both forms, one thread, medians of {found.plan.repeats} measurements in turns."
    return tables.folded(pd.DataFrame(shown), "Dense or sparse, by size", caption, "tab-cost-layers")


def obvious_code() -> Markdown:
    """Return the code of the obvious way."""
    return Markdown(f"```python\n{two_programs.source()}```")


def claim(found: Found) -> Claim:
    """Return the claim that the page judges."""
    processes = found.shared["processes"]
    divided = f"; {processes.iloc[-1]} processes divide it by {found.speedup:.2f}" if len(processes) > 1 else ""
    growth = found.by_modules["ours"]
    return Claim(
        claim="Module co-training takes a computation time proportional to the number of classes",
        where="Discussion",
        paper="no number",
        here=f"{found.convolutional}, one module after another: time grows like the {found.slope:.2f}th power of their "
        f"number{divided}; {found.network}, side by side: {growth.index[-1]} modules take "
        f"{growth.iloc[-1] / growth.iloc[0]:.1f} times as long as {growth.index[0]}",
        verdict="partly",  # of modules in turn; side by side they share work
        n=f"{found.plan.repeats} and {found.plan.in_turn_repeats} timings",
    )
