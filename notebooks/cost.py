# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a decomposition costs
#
# **Question.** How much time does module co-training take, where does it go, and how does it grow with the number of
# classes and the batch? The paper names its limit itself: computation time proportional to the number of classes.
#
# Two programs take the same steps here, on the same data, in turns, so that both meet the same machine:
#
# - the **obvious way**, written out below: one module after another, autograd, a full sort of every layer's scores in
#   every forward pass, as edge-popup {cite:p}`ramanujan2020` is commonly written;
# - **ours**: all modules in one pass, the exact top $k$ found near the last threshold, and everything that follows the
#   gradient fused into one pass over memory (`modlib.engines`).

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
models: list[str] = ["fc1", "fc2"]  # parents: fc1 to fc4; only their sizes matter here, they are not trained
batch_sizes: list[int] = [32, 128]  # images in a batch
classes: list[int] = [2, 5, 10]  # numbers of modules
populations: list[int] = [1, 2]  # decompositions of all classes side by side
k: float = 0.10  # share of the edges kept in every layer
steps: int = 10  # steps in one measurement
repeats: int = 3  # measurements of each program, in turns
threads: int = 1  # threads of both programs
device: str = "cpu"  # where both run: cpu or cuda
results: str = ""  # folder that the measurements are written to; empty: nowhere

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from torch import nn

import modlib
from modlib import figures, recipes, records, tables
from modlib.cotraining import epoch_order
from modlib.engines import make_engine

figures.use_style()
torch.set_num_threads(threads)
start_of_page = time.perf_counter()
data = modlib.datasets.load(dataset)
images = len(data.train_labels)

# %% [markdown]
# ## The obvious way
#
# One module, one step: sort the scores of each layer, set the smallest to 0 and the rest to 1, multiply, let autograd
# find the gradient, add the stemming loss, step.


# %%
class SortedMask(torch.autograd.Function):
    """h(S) by a full sort; the gradient goes straight through."""

    @staticmethod
    def forward(ctx, scores, keep):
        mask = torch.zeros_like(scores)
        _, order = scores.flatten().sort()
        mask.view(-1)[order[-keep:]] = 1.0
        return mask

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class PlainModule(nn.Module):
    """One supermask over a frozen fully connected parent, with its grafting layer."""

    def __init__(self, parent, c):
        super().__init__()
        self.c, self.layers = c, [layer for layer in parent if isinstance(layer, nn.Linear)]
        self.scores = nn.ParameterList([nn.Parameter(torch.rand_like(layer.weight)) for layer in self.layers])
        self.keep = [max(1, int(k * layer.weight.numel() + 0.5)) for layer in self.layers]
        self.graft = nn.Linear(self.layers[-1].out_features, 2)
        groups = [{"params": list(self.scores)}, {"params": self.graft.parameters(), "lr": 0.01}]
        self.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def forward(self, inputs):
        hidden = inputs.flatten(1)
        for i, (layer, scores, keep) in enumerate(zip(self.layers, self.scores, self.keep, strict=True)):
            hidden = hidden.relu() if i else hidden
            mask = SortedMask.apply(scores, keep)
            hidden = nn.functional.linear(hidden, layer.weight * mask, layer.bias)
        return self.graft(hidden)

    def step(self, inputs, labels, average, alpha):
        loss = nn.functional.cross_entropy(self(inputs), (labels == self.c).long())
        total = sum(scores.numel() for scores in self.scores)
        for scores, mean in zip(self.scores, average, strict=True):
            loss = loss + alpha / total * (scores - mean).abs().sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


def obvious_way(parent, chosen, batch):
    """Return a function that takes `n` steps with every module, one module after another."""
    net = parent.to(device).requires_grad_(False)
    modules = [PlainModule(net, c).to(device) for c in chosen]
    average = [torch.stack([m.scores[i].detach() for m in modules]).mean(0) for i in range(len(modules[0].scores))]
    pixels, labels = data.train_images.to(device), data.train_labels.to(device)

    def run(n):
        for part in epoch_order(images, 0, 0)[: n * batch].to(device).split(batch):
            inputs = data.inputs(pixels[part])
            for module in modules:
                module.step(inputs, labels[part], average, 1.0)

    return run


# %% [markdown]
# ## Ours


# %%
def ours(parents, chosen, batch):
    """Return a function that takes `n` steps with every module of every parent, all in one pass."""
    recipe = recipes.published(k=k, alpha=1.0, batch_size=batch)
    runs = [recipes.Run(parent, recipe, seed) for seed, parent in enumerate(parents)]
    engine = make_engine("vectorised", runs, tuple(chosen), data, torch.device(device))
    average = {name: scores.mean(1, keepdim=True) for name, scores in engine.ranked().items()}

    def run(n):
        orders = torch.stack([epoch_order(images, run.seed, 0)[: n * batch] for run in runs])
        engine.train_epoch(orders, 0, average)

    return run


def milliseconds(run, n):
    """Return the time of one step, in milliseconds, from `n` of them."""
    if device == "cuda":
        torch.cuda.synchronize()
    before = time.perf_counter()
    run(n)
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - before) / n


def in_turns(programs):
    """Measure all programs in turns, `repeats` times: one row a measurement."""
    for run in programs.values():
        run(2)  # memory, caches, compilation
    rows = [{"program": name, "ms": milliseconds(run, steps)} for _ in range(repeats) for name, run in programs.items()]
    return pd.DataFrame(rows)


# %% [markdown]
# ## How much faster
#
# A step is one batch through all modules; an epoch is the number of batches times that.

# %%
rows = []
for model in models:
    for batch in batch_sizes:
        parent, every = modlib.parents.make(model, data), range(data.num_classes)
        measured = in_turns({"obvious way": obvious_way(parent, every, batch), "ours": ours([parent], every, batch)})
        rows.append(measured.assign(model=model, batch=batch))
speed = pd.concat(rows)
if results:
    records.write(records.Store.at(results).folder / "cost.csv", speed.to_csv(index=False))

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
middle = speed.groupby(["model", "batch", "program"])["ms"].median().unstack()
spread = speed.groupby(["model", "batch", "program"])["ms"].agg(lambda s: f"{s.min():.2f} to {s.max():.2f}").unstack()
ratio = middle["obvious way"] / middle["ours"]
batches = np.ceil(images / middle.index.get_level_values("batch"))
shown = pd.DataFrame(
    {
        "parent": [model.upper() for model, _ in middle.index],
        "batch": [batch for _, batch in middle.index],
        "obvious way (ms a step)": [
            f"{m:.2f} ({s})" for m, s in zip(middle["obvious way"], spread["obvious way"], strict=True)
        ],
        "ours (ms a step)": [f"{m:.2f} ({s})" for m, s in zip(middle["ours"], spread["ours"], strict=True)],
        "obvious way (s an epoch)": (middle["obvious way"] * batches / 1e3).map("{:.1f}".format).to_numpy(),
        "ours (s an epoch)": (middle["ours"] * batches / 1e3).map("{:.1f}".format).to_numpy(),
        "ratio": ratio.map("{:.1f}".format).to_numpy(),
    }
)
tables.table(
    shown,
    f"Time of a step with all {data.num_classes} modules on {dataset}, {threads} thread(s): median (smallest to largest) of {repeats} measurements of {steps} steps, in turns.",
    "tab-cost-speed",
)

# %% [markdown]
# ## Where the time goes, and what the machine could do
#
# Two numbers bound a step: the floating-point operations of the matrix products, and the bytes that scores, momentum,
# gradients and masked weights move. Both are set against what this machine reaches here: a large product of matrices, and
# one pass over arrays of the same size.

# %%
batch = batch_sizes[-1]
parent = modlib.parents.make(models[0], data).to(device)
sizes = [layer.weight.shape for layer in parent if isinstance(layer, nn.Linear)]
modules = data.num_classes
out, width = modules * sizes[0][0], sizes[0][1]
left, right = torch.randn(out, width, device=device), torch.randn(batch, width, device=device)
back, square = torch.randn(out, batch, device=device), torch.randn(1024, 1024, device=device)
flat = [torch.randn(out * width, device=device) for _ in range(2)]


def timed(program, n=20):
    def run(times):
        for _ in range(times):
            program()

    run(3)
    return min(milliseconds(run, n) for _ in range(repeats))


engine = make_engine(
    "vectorised",
    [recipes.Run(parent, recipes.published(k=k, batch_size=batch), 0)],
    range(modules),
    data,
    torch.device(device),
)
update = engine.updates[0]
gradient = torch.randn_like(update.scores) * 1e-6
average = update.scores.mean(1, keepdim=True)
factor = torch.full((1, 1, 1, 1), 1e-6, device=device)
products = timed(lambda: left @ right.T) + timed(lambda: back @ right)
fused = timed(lambda: update.step(gradient, average, factor, 1e-6))
sorting = timed(lambda: [scores.flatten().sort() for scores in update.scores[0]])
operations = 4 * out * width * batch  # two products of the first layer, two operations for each multiply-add
# the fastest product seen here, whatever its shape
peak = max(2 * 1024**3 / timed(lambda: square @ square), operations / products) / 1e6
bandwidth = 3 * 4 * flat[0].numel() / timed(lambda: torch.add(flat[0], flat[1], out=flat[0])) / 1e6
whole = middle.loc[(models[0], batch), "ours"]
moved = 6 * 4 * out * width  # gradient, scores, momentum read; scores, momentum, masked weights written

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
parts = pd.DataFrame(
    [
        (
            "matrix products of the first layer",
            products,
            f"{operations / 1e6:.0f} million operations",
            operations / peak / 1e6,
        ),
        (
            "what follows the gradient: stemming, SGD, top k, masking (compiled, one pass)",
            fused,
            f"{moved / 1e6:.1f} MB",
            moved / bandwidth / 1e6,
        ),
        ("the rest: batch, other layers, objective, calls", max(whole - products - fused, 0), "", np.nan),
        ("one step", whole, "", (operations / peak + moved / bandwidth) / 1e6),
        ("for comparison: a full sort of every module's first layer", sorting, "", np.nan),
    ],
    columns=["part", "ms", "work", "limit of this machine (ms)"],
)
parts["share of a step"] = (parts["ms"] / whole).map("{:.0%}".format)
parts.loc[parts.index[-1], "share of a step"] = ""  # no part of it
parts["ms"] = parts["ms"].map("{:.2f}".format)
parts["limit of this machine (ms)"] = parts["limit of this machine (ms)"].map(
    lambda v: "" if np.isnan(v) else f"{v:.2f}"
)
tables.table(
    parts,
    f"A step of ours, {models[0].upper()}, batch {batch}, {modules} modules. Limits: {peak:.0f} thousand million operations a second (the fastest matrix product seen: 1024 x 1024, or the ones above), {bandwidth:.1f} GB a second (one addition of two arrays of the first layer's size).",
    "tab-cost-parts",
)

# %% [markdown]
# ## Proportional to the number of classes?

# %%
rows = []
for model in models[:1]:
    parent = modlib.parents.make(model, data)
    for count in classes:
        chosen = range(count)
        measured = in_turns({"obvious way": obvious_way(parent, chosen, batch), "ours": ours([parent], chosen, batch)})
        rows.append(measured.assign(classes=count))
growth = pd.concat(rows)
rows = []
for size in populations:
    parents = [modlib.parents.make(models[0], data, seed) for seed in range(size)]
    measured = in_turns({"ours": ours(parents, range(data.num_classes), batch)})
    rows.append(measured.assign(population=size))
side_by_side = pd.concat(rows)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time of one step against the number of modules (left) and against the number of decompositions that train side by side, for each of them (right). Points: single measurements; lines: medians.", "name": "fig-cost"}, "image": {"alt": "Left: two rising lines on logarithmic axes, the obvious way far above ours. Right: time per decomposition against the size of a population."}}
figure, (a, b) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
sns.lineplot(growth, x="classes", y="ms", hue="program", estimator="median", errorbar=None, marker="o", ax=a)
sns.scatterplot(growth, x="classes", y="ms", hue="program", s=12, legend=False, ax=a)
a.set(xscale="log", yscale="log", xlabel="modules", ylabel="ms a step", xticks=classes, xticklabels=classes)
a.legend(frameon=False, title=None)
side_by_side["each"] = side_by_side["ms"] / side_by_side["population"]
sns.lineplot(side_by_side, x="population", y="each", estimator="median", errorbar=None, marker="o", ax=b)
b.set(xlabel="decompositions side by side", ylabel="ms a step, each", ylim=(0, None), xticks=populations)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
by_count = growth.groupby(["classes", "program"])["ms"].median().unstack().reset_index()
by_count["ratio"] = by_count["obvious way"] / by_count["ours"]
tables.table(
    by_count.map(lambda v: f"{v:.2f}" if isinstance(v, float) else v),
    f"Time of a step (ms) against the number of modules, {models[0].upper()}, batch {batch}.",
    "tab-cost-classes",
)

# %% tags=["nbval-check-output"]
print(sorted(speed["program"].unique()), len(growth) == 2 * repeats * len(classes))

# %% tags=["hide-input"]
at = ratio.loc[(models[0], batch)]
few, many = by_count.iloc[0], by_count.iloc[-1]
each = side_by_side.groupby("population")["each"].median()
span = np.log(max(many["classes"] / few["classes"], 1.001))
slope = np.log(many["ours"] / few["ours"]) / span
Markdown(
    f"**What came out.** On {dataset}, {models[0].upper()}, batch {batch}, {threads} thread(s), {data.num_classes} modules: ours takes "
    f"{whole:.1f} ms a step, the obvious way {middle.loc[(models[0], batch), 'obvious way']:.1f} ms, a ratio of **{at:.1f}** "
    f"(n = {repeats} measurements of each; over all rows of the table {ratio.min():.1f} to {ratio.max():.1f}). The matrix products "
    f"take {products / whole:.0%} of our step, at {operations / products / 1e6 / peak:.0%} of the fastest rate seen on this machine; "
    f"the compiled pass takes {fused / whole:.0%}. From {int(few['classes'])} to {int(many['classes'])} modules the time of a step "
    f"grows like the {slope:.2f}th power of their number (1 is proportional): the paper's limit holds for the work, and what "
    f"the modules share makes up for a part of it. A population of {max(populations)} takes {each[max(populations)]:.2f} ms a step for each "
    f"decomposition, where one alone takes {each[min(populations)]:.2f}."
)

# %% [markdown]
# **Re-run it:** `modlib reproduce cost -p models "[fc4]" -p threads 2`. On a GPU: `-p device cuda -p populations "[1, 10, 100]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
settings = {
    "dataset": dataset,
    "models": models,
    "batch_sizes": batch_sizes,
    "k": k,
    "threads": threads,
    "device": device,
}
tables.where_from([], "tab-from-cost", settings, time.perf_counter() - start_of_page)
