"""Any architecture: networks decomposed all the way, and what a step of a module costs beside a plain one."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn

import modlib
from modlib import masking, recipes
from modlib.data import Dataset
from modlib.engines import make_engine, start
from modlib.parent import parent_hash
from modlib.precision import autocast, convolutional
from modlib.study import figures, records, tables, timing
from modlib.study.claims import Claim
from modlib.study.experiment import Experiment
from modlib.study.families import SIDES, Subject, attempt, network
from modlib.study.names import of_model
from modlib.study.pages import architectures_cut
from modlib.study.records import Record, Store
from modlib.zoo.training import fast_precision

VERSION = 1
"""Raised when the same parameters give another result."""
Step = Callable[[int], None]
"""Takes the training step of a number, from 0."""


def subjects(models: Sequence[str], parents: Sequence[str], precisions: Sequence[str], device: str) -> list[Subject]:
    """Return torchvision's `models` in float32, and the book's `parents` in some precisions.

    `precisions`: none means float32, and bfloat16 too where the device computes in it natively.
    """
    fast = fast_precision(device)
    asked = precisions or ["float32", *([fast] if fast != "float32" else [])]
    tried = [Subject(name, "torchvision", "float32") for name in models]
    return tried + [Subject(name, "book", precision) for name in parents for precision in asked]


@dataclass(frozen=True)
class Settings:
    """The parameters of the page that its results depend on; the notebook says what each is."""

    image_size: int
    batch_size: int
    k: float
    device: str
    engine: str
    warm_up: int
    steps: int
    repeats: int

    def about(self, subject: Subject) -> dict[str, Any]:
        """Return what both experiments of a network share."""
        return {**asdict(subject), **self.shared()}

    def shared(self) -> dict[str, Any]:
        """Return what the experiments of all networks share."""
        names = ("image_size", "batch_size", "k", "device")
        return {name: getattr(self, name) for name in names} | {"version": VERSION}

    def way(self, subject: Subject) -> Experiment:
        """Return the experiment of going all the way with a network."""
        return Experiment("architectures", f"{_label(subject)}-way", self.about(subject))

    def costs(self, subject: Subject) -> Experiment:
        """Return the experiment of timing a network's steps; "modulewise", the first engine, leaves no mark."""
        counts = {"steps": self.steps, "repeats": self.repeats, "warm_up": self.warm_up}
        of_engine = {} if self.engine == "modulewise" else {"engine": self.engine}
        return Experiment("architectures", f"{_label(subject)}-steps", self.about(subject) | counts | of_engine)

    def size(self, subject: Subject) -> tuple[int, int]:
        """Return the side of a network's images and how many are in a batch: of larger ones fewer, as many pixels."""
        if subject.family == "book":
            return 32, self.batch_size
        side = SIDES.get(subject.model, self.image_size)
        return side, max(2, self.batch_size * self.image_size**2 // side**2)

    def images(self, subject: Subject) -> Dataset:
        """Return random images, enough for one measurement."""
        side, batch = self.size(subject)
        return timing.random_images(max(8, self.steps * batch), side)


def _label(subject: Subject) -> str:
    return f"{subject.family}-{subject.model}-{subject.precision}"


def experiments(
    *,
    models: Sequence[str],
    parents: Sequence[str],
    precisions: Sequence[str],
    cut: Sequence[str],
    device: str,
    **parameters: Any,
) -> list[Experiment]:
    """Return all experiments of the page: two for each network and precision, one for each that is cut."""
    names = ("image_size", "batch_size", "k", "engine", "warm_up", "steps", "repeats")
    settings = Settings(device=device, **{name: parameters[name] for name in names})
    tried = subjects(models, parents, precisions, device)
    cuts = [architectures_cut.experiment(model, settings.image_size) for model in cut]
    return [of(one) for one in tried for of in (settings.way, settings.costs)] + cuts


def ways(tried: Sequence[Subject], settings: Settings, store: Store) -> list[Record]:
    """Return what of every network was masked, or its error."""
    return [settings.way(one).run(store, partial(attempt, partial(all_the_way, one, settings))) for one in tried]


def costs(tried: Sequence[Subject], settings: Settings, store: Store) -> list[Record]:
    """Return what the steps of every network cost, or its error."""
    return [settings.costs(one).run(store, partial(attempt, partial(step_costs, one, settings))) for one in tried]


def _kinds(names: Mapping[str, Any]) -> str:
    """Return the last parts of parameters' names, each once."""
    return ", ".join(sorted({name.rsplit(".", 1)[-1] for name in names}))


def all_the_way(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Decompose, recompose, save and load a network; return what was masked and what was not.

    AssertionError where loaded modules predict otherwise, or the parent is not what it was.
    """
    data = settings.images(subject)
    net = network(subject, data)
    before, modes = parent_hash(net), [part.training for part in net.modules()]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", modlib.CheckWarning)  # weights and images are random
        modules = modlib.cotrain(
            net, data, k=settings.k, alpha=1.0, epochs=1, seed=0, classes=[0, 1], batch_size=4, images_per_epoch=8,
            precision=subject.precision, device=settings.device,
        )  # fmt: skip
    began = _clock(settings)()
    pair = modules.recompose([0, 1])
    taken = _clock(settings)() - began
    inputs = data.inputs(data.train_images[:2]).to(settings.device)
    with tempfile.TemporaryDirectory() as folder:
        modules.save(Path(folder) / "m")
        again = modlib.load(Path(folder) / "m", copy.deepcopy(net).to(settings.device))
    assert torch.equal(again.recompose([0, 1])(inputs), pair(inputs)), "loaded modules predict otherwise"
    assert parent_hash(net) == before, "the parent has changed"
    assert [part.training for part in net.modules()] == modes, "the parent's modes have changed"
    return _masked_of(net) | {
        "no_part": _idle([str(line.message) for line in said]),
        "lines": len(said),
        "recompose_s": taken,
    }


def _masked_of(net: nn.Module) -> dict[str, Any]:
    """Return the parameters of a network, those that can be masked, and what is left whole."""
    every = sum(p.numel() for p in net.parameters())
    edges = sum(masking.sizes(masking.maskable_parameters(net)).values())
    whole = _kinds(masking.unmasked_parameters(net))
    return {"parameters": every, "edges": edges, "whole_share": 1 - edges / every, "whole": whole}


def _idle(said: Sequence[str]) -> str:
    """Return the parts of a network that a warning names as without a part in the logits."""
    idle = [line.split("logits: ")[1] for line in said if "no part in the logits" in line]
    return ", ".join(sorted({name.split(".")[0] for line in idle for name in line.split(" and ")[0].split(", ")}))


def plain_step(subject: Subject, data: Dataset, settings: Settings) -> Step:
    """Return plain training steps: forward in training mode, cross-entropy, backward, fused Nesterov SGD."""
    (_, batch), device = settings.size(subject), settings.device
    net = network(subject, data, heads=False).to(device).train()
    layout = torch.channels_last if convolutional(net) else torch.contiguous_format
    net.to(memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    pixels, labels = data.train_images.to(device), data.train_labels.to(device)

    def step(i: int) -> None:
        rows = slice(i * batch, (i + 1) * batch)
        inputs = data.inputs(pixels[rows]).contiguous(memory_format=layout)
        with autocast(torch.device(device), subject.precision):
            logits = net(inputs)
        sgd.zero_grad()
        nn.functional.cross_entropy(logits.float(), labels[rows]).backward()
        sgd.step()

    return step


def module_step(subject: Subject, data: Dataset, settings: Settings) -> tuple[Step, Step]:
    """Return the training steps of one module, and what begins and ends the epoch of a number."""
    (_, batch), steps = settings.size(subject), settings.steps
    recipe = recipes.published(k=settings.k, alpha=1.0, batch_size=batch, epochs=2, precision=subject.precision)
    run = recipes.Run(network(subject, data), recipe, seed=0)
    made: Any = make_engine(settings.engine, [run], (0,), data, torch.device(settings.device))
    slot, member = made.slots[0], made.members[0][0]
    batches = torch.arange(steps * batch).split(batch)
    average = {layer: scores[0, 0].reshape(1, 1, 1, -1) for layer, scores in made.average().items()}
    slot.pull_to(average, start.stemming_factors(recipe, made.weights_of[0], steps))
    slot.load(member)

    def step(i: int) -> None:
        with start.statistics_of_the_batch(slot.parent, recipe.norm):
            made.train_module(0, 0, batches[i : i + 1], 1, None)

    def once_an_epoch(epoch: int) -> None:
        slot.load(member)
        slot.store(member)
        made.average()

    return step, once_an_epoch


def _clock(settings: Settings) -> timing.Clock:
    """Return the processor's own clock, or that of the wall where a GPU works."""
    return time.process_time if settings.device == "cpu" else time.perf_counter


def _all_of(step: Step, steps: int) -> None:
    for i in range(steps):
        step(i)


def step_costs(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Measure time, ms a step, and memory, in bytes, of both programs: from making the network on."""
    data = settings.images(subject)  # before memory is counted

    def plain_started() -> Step:
        step = plain_step(subject, data, settings)
        step(0)
        return step

    def module_started() -> tuple[Step, Step]:
        step, once_an_epoch = module_step(subject, data, settings)
        step(0)
        return step, once_an_epoch

    where: Any = {"device": settings.device, "clock": _clock(settings)}
    plain, plain_bytes = timing.peak_memory(plain_started, settings.device)
    (module, once_an_epoch), module_bytes = timing.peak_memory(module_started, settings.device)
    first = [timing.seconds(partial(module, i % settings.steps), **where) for i in range(settings.warm_up)]
    both = {name: partial(_all_of, step, settings.steps) for name, step in (("plain", plain), ("module", module))}
    taken = timing.in_turns(both, settings.repeats, **where)
    ms = {name: [1e3 * t / settings.steps for t in times] for name, times in taken.items()}
    return {
        "plain_ms": min(ms["plain"]),
        "module_ms": min(ms["module"]),
        "plain_slowest_ms": max(ms["plain"]),
        "module_slowest_ms": max(ms["module"]),
        "slowest_of_the_first_ms": 1e3 * max(first),
        "epoch_ms": 1e3 * timing.seconds(partial(once_an_epoch, 1), **where),
        "plain_bytes": plain_bytes,
        "module_bytes": module_bytes,
    }


@dataclass(frozen=True)
class Found:
    """One row a network and precision, and those that work, that failed, and that are in float32."""

    rows: pd.DataFrame
    settings: Settings

    @classmethod
    def of(cls, tried: Sequence[Subject], way: Sequence[Record], cost: Sequence[Record], settings: Settings) -> Found:
        """Join both records of every network."""
        rows = []
        for subject, a, b in zip(tried, way, cost, strict=True):
            side, batch = settings.size(subject)
            error = a.rows[0]["error"] or b.rows[0]["error"]
            size = {"side": side, "batch": batch}
            rows.append({**settings.about(subject), **size, **a.rows[0], **b.rows[0], "error": error})
        table = pd.DataFrame(rows)
        return cls(table.assign(ratio=table["module_ms"] / table["plain_ms"]), settings)

    @property
    def works(self) -> pd.DataFrame:
        """Those without an error."""
        return self.rows[self.rows["error"] == ""]

    @property
    def once(self) -> pd.DataFrame:
        """Every network once, in float32."""
        return self.rows[self.rows["precision"] == "float32"]

    @property
    def good(self) -> pd.DataFrame:
        """Every network that works, once."""
        return self.once[self.once["error"] == ""]

    def export(self, store: Store) -> None:
        """Write the rows beside the other results, where they are kept."""
        if store.folder is not None:
            records.write(store.folder / "architectures.csv", self.rows.to_csv(index=False))


def _name(model: str, family: str) -> str:
    """Return what readers see: torchvision's names are what its users type."""
    return f"{of_model(model)} (book)" if family == "book" else model


def whole_table(found: Found) -> Markdown:
    """Return what of every network is decomposed, and what stays whole."""
    shown = []
    for row in found.once.to_dict("records"):
        facts = {}
        if not row["error"]:
            facts = {
                "parameters (M)": f"{row['parameters'] / 1e6:.2f}",
                "edges that can be masked (M)": f"{row['edges'] / 1e6:.2f}",
                "not masked (%)": f"{100 * row['whole_share']:.2f}",
                "weights left whole": row["whole"] or "none",
                "masked, no part in the logits": row["no_part"] or "none",
                "recomposing a pair (s)": f"{row['recompose_s']:.2f}",
            }
        shown.append({"network": _name(row["model"], row["family"]), **facts, "works": row["error"] or "yes"})
    table = pd.DataFrame(shown).fillna("")
    table["works"] = table.pop("works")  # the last column, whichever network has facts
    return tables.folded(
        table,
        "Every network: what is masked, and what stays whole",
        "Networks that were decomposed into two modules, recomposed, saved and loaded. Not masked: biases, scales and "
        "shifts of normalisation, and the weights named beside; n = 1 run each, random weights.",
        "tab-architectures",
    )


def cost_table(found: Found, goal: float) -> Markdown:
    """Return what a step costs; `goal`: a module's step over a plain one."""
    settings = found.settings
    shown = [
        {
            "network": _name(row["model"], row["family"]),
            "precision": row["precision"],
            "images": f"{row['batch']} of {row['side']}²",
            "plain (ms)": f"{row['plain_ms']:.0f} to {row['plain_slowest_ms']:.0f}",
            "module (ms)": f"{row['module_ms']:.0f} to {row['module_slowest_ms']:.0f}",
            "ratio": f"{row['ratio']:.2f}",
            f"at most {goal:g}": "met" if row["ratio"] <= goal else "not met",
            "once an epoch (ms)": f"{row['epoch_ms']:.0f}",
            "plain (MB)": f"{row['plain_bytes'] / 1e6:.0f}",
            "module (MB)": f"{row['module_bytes'] / 1e6:.0f}",
        }
        for row in found.works.to_dict("records")
    ]
    clock = "processor time of one thread" if settings.device == "cpu" else "time on the GPU"
    return tables.folded(
        pd.DataFrame(shown),
        "Every network: milliseconds and memory of a step",
        f"One training step of the whole network and of one module, in turns ({clock}): fastest to slowest of "
        f"{settings.repeats} measurements of {settings.steps} step(s); the ratio is of the fastest. Once an epoch: a "
        "module into its place and back, and the average of its scores. Memory includes weights, gradients, momentum "
        "and, of the module, the user's parent and the copy of the scores that waits in host memory.",
        "tab-architectures-cost",
    )


def draw_ratios(found: Found, goal: float) -> Figure:
    """Draw a module's step over a plain one, network by network."""
    works = found.works
    order = list(works.groupby(["family", "model"])["ratio"].max().sort_values().index)
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 0.8 + 0.17 * len(order)))
    for which, group in works.groupby(["precision", "family"]):
        precision, family = map(str, which)
        places = [order.index(one) for one in zip(group["family"], group["model"], strict=True)]
        ax.scatter(group["ratio"], places, s=18, label=f"{family}, {precision}")
    ax.axvline(goal, color="black", lw=0.8, ls="--")
    ax.axvline(1, color="black", lw=0.8)
    ax.set_yticks(range(len(order)), [_name(name, family) for family, name in order], fontsize=7)
    ax.set(xlabel="module / plain", ylabel="")
    figure.legend(frameon=False, ncols=3, fontsize=8, loc="outside upper center")
    return figure


def claim(found: Found) -> Claim:
    """Return the claim that the page judges; a few networks leave it open."""
    good, count = found.good, len(found.once)
    left = sorted({kind for names in good["whole"] for kind in names.split(", ") if kind})
    return Claim(
        claim="No assumption about the network architecture",
        where="Abstract",
        paper="fully connected networks, VGG16, ResNet50, WideResNet",
        here=f"{len(good)} of {count} networks are decomposed and recomposed, as far as they are linear, "
        f"convolutional or attention layers; left whole: {', '.join(left) or 'nothing'}; embeddings and recurrent "
        "layers too, unless a policy names them; accuracy is not judged here",
        verdict="open" if count < 18 else "partly" if len(good) else "does not hold",
        n=count,
    )


def answer(found: Found, goal: float) -> Markdown:
    """Return the answer in sentences: how many networks are decomposed, and what a step costs."""
    works, good, settings = found.works, found.good, found.settings
    failed = "; ".join(f"{row['model']}: {row['error']}" for row in found.rows.to_dict("records") if row["error"])
    ratio, memory = works["ratio"], works["module_bytes"] / works["plain_bytes"]
    epoch, masked = works["epoch_ms"] / works["module_ms"], 100 * (1 - good["whole_share"].max())
    return Markdown(
        f"**Answer.** **{len(good)} of {len(found.once)}** networks are decomposed, recomposed, saved and loaded"
        f"{f' (failed: {failed})' if failed else ''}. Masks cover {masked:.1f}% or more "
        f"of their parameters. A module's step takes **{ratio.median():.2f} times** a plain one (median of n = "
        f"{len(works)} networks and precisions; {ratio.min():.2f} to {ratio.max():.2f}, goal at most {goal:g}; fastest "
        f"of {settings.repeats} measurements). It holds {memory.median():.1f} times the memory ({memory.min():.1f} to "
        f"{memory.max():.1f}), and beginning and ending an epoch takes as long as {epoch.min():.1f} to "
        f"{epoch.max():.1f} steps."
    )
