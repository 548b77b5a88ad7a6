# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which engine trains what
#
# **Question.** Fully connected parents train all their modules in one pass ([what that saves](cost.ipynb)). Large networks
# cannot: their modules go one after another over the images, and the device holds one at a time. What does that cost in
# accuracy, where does the first way stop paying, and how does the time grow with the number of classes and shrink with processes?
#
# - `vectorised`: all modules side by side; fully connected parents.
# - `modulewise`: one module after another within an epoch; any network. With a vote loss, a module sees the other modules' log-odds
#   in a **table** of one epoch ago.
# - `graphed`: the same, its steps recorded as CUDA graphs; on a GPU, so not timed on this page, whose runs are on a CPU.
# - `sequential`: all modules step by step, as the paper reads; any network, the reference of the tests.

# %% tags=["parameters"]
dataset: str = "digits"  # data set of the fully connected trials
model: str = "fc1"  # its parent
seeds: list[int] = [0]  # one trial for each seed
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
epochs: int = 3  # epochs of recipe ours
alpha: float = 4.0  # stemming
vote: float = 0.9  # weight of the vote loss
k: float = 0.10  # share of the edges kept in every layer
convolutional: str = "wrn16_2"  # parent of the timings, random weights
side: int = 8  # height and width of its images, random pixels
modules_at_once: list[int] = [1, 4]  # modules of one pass
batch_sizes: list[int] = [8]  # images of one pass
classes: list[int] = [1, 2, 4]  # numbers of modules of an epoch
images: int = 32  # images of such an epoch
processes: list[int] = [1]  # processes that share the largest of these numbers out
repeats: int = 2  # measurements, in turns
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch.func import functional_call, vmap

import modlib
from modlib import claims, experiments, figures, masking, parents, recipes, records, tables
from modlib.cotraining import Run, cotrain_population

figures.use_style()
torch.set_num_threads(1)
scratch = tempfile.TemporaryDirectory()
store = records.Store.at(results or scratch.name)
start_of_page = time.perf_counter()

# %% [markdown]
# ## What a table of one epoch ago costs
#
# The same parents, recipe, seeds and order of images; recipe *ours* with vote loss (ours, *not the paper's*). Nothing is chosen
# here.


# %%
def trial(engine, seed):
    """Return the record of one decomposition by an engine: its last epoch, on test images."""

    def compute():
        parent = experiments.trained_parent(data, model, seed, parent_epochs, store)
        recipe = recipes.ours(k=k, alpha=alpha, vote=vote, epochs=epochs)
        start = time.perf_counter()
        (modules,) = cotrain_population([Run(parent, recipe, seed)], data, engine=engine)
        seconds = time.perf_counter() - start
        found = experiments.measure(modules, data, "test")
        kept = ("accuracy", "module_accuracy", "pair_accuracy", "jaccard_index", "remaining_parameters_all")
        return [{"engine": engine, "seed": seed, "seconds": seconds} | {name: found[name] for name in kept}]

    settings = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "epochs": epochs}
    asked = settings | {"alpha": alpha, "vote": vote, "k": k, "engine": engine, "seed": seed}
    return store.record("engines", f"{dataset}-{model}-{engine}-seed{seed}", asked, compute, data_sha256=data.sha256())


data = modlib.datasets.load(dataset)
done = [trial(engine, seed) for seed in seeds for engine in ("vectorised", "modulewise")]
rows = records.frame(done)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines = []
for engine, part in rows.groupby("engine", sort=False):
    lines.append(
        {
            "engine": engine,
            "vote of all classes (%)": records.mean_and_spread(part["accuracy"]),
            "pairs (%)": records.mean_and_spread(part["pair_accuracy"]),
            "modules (%)": records.mean_and_spread(part["module_accuracy"]),
            "Jaccard index": records.mean_and_spread(part["jaccard_index"], 1, 3),
            "weights of all": records.mean_and_spread(part["remaining_parameters_all"], 1, 3),
            "n": len(part),
        }
    )
difference = rows.pivot(index="seed", columns="engine", values="accuracy")
stale = difference["modulewise"] - difference["vectorised"]
tables.table(
    pd.DataFrame(lines),
    f"{dataset} {model.upper()}, test images, last epoch ({epochs}): log-odds of the same batch (vectorised) against a table of one epoch ago (modulewise). Mean ± standard deviation over n trials. Difference of the votes, paired: {records.mean_and_spread(stale)} points.",
    "tab-engines-stale",
)

# %% [markdown]
# ## Where passing all modules at once stops paying
#
# A forward and backward pass of $C$ modules, each the same network under another mask: `torch.func.vmap` over the masks, which
# makes grouped convolutions of them, against a loop. Normalisation as in eval mode, random images; only time is asked here.


# %%
def two_ways(network, inputs, count):
    """Return what runs a forward and backward pass of `count` modules: by vmap, and one after another."""
    weights = dict(masking.maskable_parameters(network))
    draw = torch.Generator().manual_seed(0)
    masked = {
        name: (weight * (torch.rand(count, *weight.shape, generator=draw) < k)).requires_grad_()
        for name, weight in weights.items()
    }

    def at_once():
        outputs = vmap(lambda own: functional_call(network, own, (inputs,)))(masked)
        torch.autograd.grad(outputs.sum(), list(masked.values()))

    def one_by_one():
        for m in range(count):
            own = {name: values[m].detach().requires_grad_() for name, values in masked.items()}
            torch.autograd.grad(functional_call(network, own, (inputs,)).sum(), list(own.values()))

    return {"all at once": at_once, "one by one": one_by_one}


def seconds_of(ways):
    """Return the shortest of several times of each way, taken in turns."""
    taken = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: min(times) for name, times in taken.items()}


pixels = torch.randint(0, 256, (max([*batch_sizes, images]), side, side, 3), generator=torch.Generator().manual_seed(0))
made_up = modlib.datasets.from_arrays(pixels.to(torch.uint8), torch.arange(len(pixels)) % 10, name="random")
fully = parents.fc(1, 784).eval().requires_grad_(False)
conv = parents.make(convolutional, made_up).eval().requires_grad_(False)
networks = {"fc1": (fully, lambda b: torch.randn(b, 784, generator=torch.Generator().manual_seed(0)))}
networks[convolutional] = (conv, lambda b: made_up.inputs(made_up.train_images[:b]))
timings = []
for name, (network, inputs_of) in networks.items():
    for batch in batch_sizes:
        for count in modules_at_once:
            taken = seconds_of(two_ways(network, inputs_of(batch), count))
            timings.append({"network": name, "batch": batch, "modules": count} | taken)
timings = pd.DataFrame(timings)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = timings.assign(ratio=timings["one by one"] / timings["all at once"])
tables.table(
    pd.DataFrame(
        {
            "network": shown["network"],
            "batch": shown["batch"].astype(str),
            "modules": shown["modules"].astype(str),
            "all at once (ms)": [f"{1000 * v:.1f}" for v in shown["all at once"]],
            "one by one (ms)": [f"{1000 * v:.1f}" for v in shown["one by one"]],
            "at once is faster": [f"{v:.2f} times" for v in shown["ratio"]],
        }
    ),
    f"Forward and backward pass of several modules, shortest of {repeats} measurements in turns, one thread of the device below.",
    "tab-engines-vmap",
)

# %% [markdown]
# ## The paper's limit: time proportional to the number of classes

# %%
SCRIPT = """
    import sys, time
    import torch
    from modlib import datasets, parents
    from modlib.cotraining import Run, cotrain_population
    from modlib.engines.sharding import Shard
    from modlib.recipes import ours

    model, side, images, repeats, *counts = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (images, side, side, 3), generator=torch.Generator().manual_seed(0))
    data = datasets.from_arrays(pixels.to(torch.uint8), torch.arange(images) % 10, name="random")
    for turn in range(repeats + 1):
        for count in counts:
            run = Run(parents.make(model, data), ours(epochs=1, batch_size=32), 0, tuple(range(count)))
            Shard.here().wait()
            start = time.perf_counter()
            cotrain_population([run], data, device="cpu", engine="modulewise")
            if turn and Shard.here().rank == 0:
                print("seconds", count, time.perf_counter() - start)
"""


def epoch_seconds(counts, workers):
    """Return the shortest time of an epoch for each number of modules, shared out over processes by torchrun."""
    script = Path(scratch.name) / "epoch.py"
    script.write_text(textwrap.dedent(SCRIPT))
    launch = [sys.executable]
    if workers > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    asked = [str(v) for v in (script, convolutional, side, images, repeats, *counts)]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, *asked], capture_output=True, text=True, env=quiet, check=False)
    timed = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("seconds")]
    if not timed:
        raise RuntimeError(f"the timed processes failed: {done.stderr[-2000:]}")
    return pd.DataFrame(
        [
            {"modules": c, "processes": workers, "seconds": min(float(s) for n, s in timed if int(n) == c)}
            for c in counts
        ]
    )


growth = epoch_seconds(classes, 1)
shared = pd.concat([epoch_seconds([classes[-1]], p) for p in processes], ignore_index=True)
slope = float(np.polyfit(np.log(growth["modules"]), np.log(growth["seconds"]), 1)[0])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: seconds of an epoch of the modulewise engine by the number of modules; dashed: proportional. Right: seconds of an epoch of the largest number of modules by the number of processes that share them out; dashed: the time of one, divided. Shortest of several measurements.", "name": "fig-engines-growth"}, "image": {"alt": "Left, points on a rising line close to the proportional one. Right, time against processes."}}
figure, (a, b) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.8))
a.plot(growth["modules"], growth["seconds"], marker="o", color=figures.COLOURS["ours"])
a.plot(classes, growth["seconds"].iloc[-1] * np.array(classes) / classes[-1], ls="--", color="black", lw=1)
a.set(xlabel="modules", ylabel="seconds of an epoch", ylim=(0, None))
b.plot(shared["processes"], shared["seconds"], marker="o", color=figures.COLOURS["ours"])
b.plot(processes, shared["seconds"].iloc[0] / np.array(processes), ls="--", color="black", lw=1)
b.set(xlabel="processes", ylabel="", ylim=(0, None), xticks=processes)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
both = pd.concat([growth, shared[shared["processes"] > 1]])
tables.table(
    pd.DataFrame(
        {
            "modules": both["modules"].astype(str),
            "processes": both["processes"].astype(str),
            "seconds of an epoch": [f"{v:.2f}" for v in both["seconds"]],
            "seconds a module": [f"{s / m:.3f}" for s, m in zip(both["seconds"], both["modules"], strict=True)],
        }
    ),
    f"The modulewise engine, {convolutional}, {images} random images of {side} × {side}: shortest of {repeats} measurements, one thread for each process.",
    "tab-engines-growth",
)

# %% tags=["nbval-check-output"]
print(len(done), "decompositions,", len(timings), "pairs of timings,", len(both), "epochs timed")

# %% tags=["hide-input"]
of_conv, of_fc = (shown[shown["network"] == name]["ratio"] for name in (convolutional, "fc1"))
speedup = shared["seconds"].iloc[0] / shared["seconds"].iloc[-1]
low, high = records.interval(100 * stale) if len(stale) > 1 else (float("nan"), float("nan"))
text = (
    f"**What came out.** A table of one epoch ago instead of the same batch's log-odds changes the vote by {100 * stale.mean():+.2f} points "
    f"(n = {len(stale)}{f', 95% interval {low:+.2f} to {high:+.2f}' if len(stale) > 1 else ', one trial tells no spread'}).\n\n"
    f"All modules at once is {of_fc.min():.1f} to {of_fc.max():.1f} times as fast as one by one for FC1, and {of_conv.min():.2f} to "
    f"{of_conv.max():.2f} times for {convolutional}: "
    f"{'a loop is the better choice there' if of_conv.max() < 1.1 else 'it pays there too in some cases, but needs memory for all modules'}. "
    f"That is why `engine='auto'` takes the vectorised engine for fully connected parents only.\n\n"
    f"The time of an epoch grows like the {slope:.2f}th power of the number of modules (1 is proportional). "
    + (
        f"{shared['processes'].iloc[-1]} processes are {speedup:.2f} times as fast as one."
        if len(shared) > 1
        else "Several processes were not timed here."
    )
)
claims.publish(
    store,
    "engines",
    [
        claims.Claim(
            "Module co-training takes a computation time proportional to the number of classes",
            "Discussion",
            "no number",
            f"{convolutional}, modulewise engine, one module after another: time grows like the {slope:.2f}th power; side by side it grows less (page Cost)"
            + (f"; {shared['processes'].iloc[-1]} processes divide it by {speedup:.2f}" if len(shared) > 1 else ""),
            "partly",  # of modules in turn; side by side they share work
            f"{repeats} timings",
        )
    ],
)
Markdown(text)

# %% [markdown]
# **What it means.** Use `engine="auto"`. With the modulewise engine the limit stands within one machine: every module is trained in its turn. (The
# vectorised one shares a part of the work between modules: its time [grows less](discussion.ipynb).) While they train,
# the device holds one module (and, with a vote loss, one number for each image and class); the others wait in host memory, at 8 bytes
# for each edge, which does grow with the number of classes. The times above are of
# whole decompositions of one epoch, with what is checked and set up around it, and in float32.
#
# **Re-run it:** `modlib reproduce engines -p processes "[1, 2]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(
    done, "tab-from-engines", {"dataset": dataset, "model": model, "seeds": seeds, "epochs": epochs, "side": side},
    seconds=time.perf_counter() - start_of_page,
)  # fmt: skip
