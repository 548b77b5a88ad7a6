# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Recomposing a network for any subset of the classes
#
# **Question.** The modules are there. How is a network for *some* of the classes put together from them, how large is it,
# how well does it classify, and how long does it take?
#
# The paper (section "Recomposing"): the deployed network is the union of the supermasks of the subset's modules; it
# "makes predictions by sequentially applying supermasks and the grafting layer and then voting by a confidence score ...
# without retraining" {cite:p}`kingetsu2021`.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges that every module keeps in every layer
alpha: float = 4.0  # weight of the stemming loss
epochs: int = 15  # epochs of the decomposition
batch_size: int = 16  # images in a batch of the decomposition
subset: list[int] = [1, 7]  # the classes of the example
subsets_per_size: int = 12  # subsets drawn for each number of classes
repeats: int = 15  # runs of everything that is timed; the median counts
seed: int = 0  # seed of the parent, the decomposition and the drawn subsets
results: str = ""  # folder of records, parents and modules; empty: keep none

# %% tags=["hide-input"]
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from safetensors.torch import save_file
from torch.func import functional_call

import modlib
from modlib import cotraining, experiments, figures, grafting, metrics, tables, training
from modlib.records import Store
from modlib.seeds import generator

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## From modules to a network
#
# One decomposition (our recipe) serves the whole page.

# %%
data = modlib.datasets.load(dataset)
store = Store.at(results)
recipe = cotraining.ours(k=k, alpha=alpha, epochs=epochs, batch_size=batch_size)
trial = experiments.Trial(dataset, model, "ours", recipe, seed, parent_epochs)
records = experiments.run_trials([trial], data, store, device="cpu") if results else []
modules = experiments.trial_modules(trial, data, store, device="cpu")
classes = modules.classes

# %% [markdown]
# `recompose` copies the parent, sets all weights outside the union of the subset's masks to zero, and puts the masks and
# the grafting layers beside it. The result is an ordinary `torch.nn.Module`: images in, one confidence for each asked class
# out, in the order in which they were asked for. `predict` returns the winner of the vote.

# %%
images, labels = data.split("test")
inputs = data.inputs(images)
network = modules.recompose(subset)
inside = torch.isin(labels, torch.tensor(subset))
confidences = network(inputs[inside])  # [images, len(subset)]
predicted = network.predict(inputs[inside])

# %% tags=["nbval-check-output"]
within = bool(((confidences >= 0) & (confidences <= 1)).all())
print("columns of confidences:", confidences.shape[1], "| all in [0, 1]:", within)
print("predicted classes are the asked ones:", set(predicted.tolist()) <= set(subset))
print("anything to train:", any(p.requires_grad for p in network.parameters()))
swapped = modules.recompose(subset[::-1])
print("asked the other way round, columns swapped:", torch.allclose(swapped(inputs).flip(1), network(inputs)))

# %% [markdown]
# ## Nothing is lost by putting modules together
#
# A module gets the same weights from the recomposed network as from the parent: its mask is part of the union. So the
# network must answer exactly as the modules do when they are run one by one on the parent. Written out here, for the
# example, for a single class, and for all classes:


# %%
def one_by_one(subset, inputs: torch.Tensor) -> torch.Tensor:
    """Each module's log-odds from the parent, its own mask and its own grafting layer: [B, len(subset)]."""
    weights = dict(modules.parent.named_parameters())
    columns = []
    for m in modules.masks.rows(subset):
        masked = {name: weights[name] * mask[m] for name, mask in modules.masks.masks.items()}
        logits = functional_call(modules.parent, masked, (inputs,))
        grafted = grafting.graft(logits, modules.grafting_weight[m], modules.grafting_bias[m])
        columns.append(grafting.log_odds(grafted))
    return torch.stack(columns, dim=1)


# %% tags=["nbval-check-output"]
for asked in (subset, [classes[0]], list(classes)):
    recomposed = modules.recompose(asked)
    votes = torch.tensor(asked)[one_by_one(asked, inputs).argmax(1)]
    same = torch.allclose(recomposed.log_odds(inputs), one_by_one(asked, inputs), atol=1e-5)
    print(
        f"{len(asked)} of {len(classes)} classes: equal log-odds: {same}, equal votes:",
        torch.equal(recomposed.predict(inputs), votes),
    )
alone = modules.recompose([classes[0]])
print("a single class always wins its vote:", set(alone.predict(inputs).tolist()) == {classes[0]})
print("and still says yes or no:           ", sorted(set((alone(inputs) > 0.5).flatten().tolist())))
print("union of all = remaining of all:    ", modules.recompose(classes).remaining == modules.remaining())

# %% [markdown]
# ## Every pair of classes
#
# Two classes are the smallest task that needs a vote. Beside the vote of the two modules stands the parent, told to choose
# between the same two classes: the larger of its two logits wins.

# %%
log_odds = modules.log_odds(inputs)  # [images, classes]: one pass serves every subset
logits, _ = training.logits(modules.parent, data, "test")
accuracy = metrics.accuracy_of_pairs(log_odds, labels, classes)
parent_accuracy = metrics.accuracy_of_pairs(logits, labels, classes)
remaining = modules.masks.remaining_of_pairs()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Every pair of classes, in percent. Left: accuracy of the vote on the test images of the two classes. Right: remaining parameters of the network recomposed for them.", "name": "fig-pairs"}, "image": {"alt": "Two heat maps of ten by ten classes: the accuracy of every pair's vote, and the share of the parent's weights that every pair keeps."}}
figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.8), sharey=True)
small = {"fmt": ".1f", "annot_kws": {"size": 6}}
figures.matrix(100 * accuracy, classes, axes[0], "accuracy (%)", **small)
off_diagonal = (100 * remaining).fill_diagonal_(torch.nan)
figures.matrix(off_diagonal, classes, axes[1], "remaining parameters (%)", cmap="flare", **small)
axes[0].set(xlabel="class", ylabel="class")
axes[1].set_xlabel("class")
for ax in axes:
    ax.grid(False)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
pairs = pd.DataFrame(
    {
        "pair": f"{classes[i]}, {classes[j]}",
        "modules": float(accuracy[i, j]),
        "parent": float(parent_accuracy[i, j]),
        "remaining": float(remaining[i, j]),
    }
    for i, j in itertools.combinations(range(len(classes)), 2)
)
smallest, largest = pairs["remaining"].min(), pairs["remaining"].max()


def line(what: str, column: str) -> dict:
    """Mean, lowest and highest value of a column, with the pair that has it."""
    low, high = pairs.loc[pairs[column].idxmin()], pairs.loc[pairs[column].idxmax()]
    extremes = {
        word: f"{tables.percent(row[column])} ({row['pair']})" for word, row in (("lowest", low), ("highest", high))
    }
    return {"": what, "mean": tables.percent(pairs[column].mean())} | extremes


rows = [
    line("accuracy of the vote", "modules"),
    line("accuracy of the parent, told the two classes", "parent"),
    line("remaining parameters", "remaining"),
]
tables.table(
    pd.DataFrame(rows),
    f"The {len(pairs)} pairs of {data.name}, test images (n = 1 seed), with the pair that has the lowest and the highest "
    "value (the first, where several share it).",
    "tab-pairs",
)

# %% [markdown]
# ## Subsets of growing size
#
# How large does the network become, and how well does it classify, when it grows class by class? For every number of
# classes $K$, some subsets are drawn (all, where there are few). Three sizes frame the result: one module, $k$; modules
# with no edge in common, $K k$; and independent masks, $1 - (1 - k)^K$.

# %%
draw = generator(seed, "subsets")
grown = []
for size in range(1, len(classes) + 1):
    every = list(itertools.combinations(classes, size))
    chosen = torch.randperm(len(every), generator=draw)[:subsets_per_size].tolist()
    for asked in (every[i] for i in chosen):
        row = {"classes": size, "subset": asked, "remaining": modules.remaining(asked)}
        row["modules"] = metrics.recomposed_accuracy(log_odds, labels, classes, asked)
        row["parent"] = metrics.recomposed_accuracy(logits, labels, classes, asked)
        grown.append(row)
grown = pd.DataFrame(grown)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Networks recomposed for K classes: mean over the drawn subsets, the band spans the smallest and the largest. Left: remaining parameters, with the sizes of independent masks (dashed) and of masks with no edge in common (dotted). Right: accuracy on the test images of the subset's classes, of the vote and of the parent told to choose among the same classes (a single class always wins).", "name": "fig-growing"}, "image": {"alt": "Two line charts over the number of classes: the share of weights that remains, with two reference curves, and the accuracy of the vote and of the parent."}}
figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.1))
sizes = pd.Series(range(1, len(classes) + 1))
span = {"errorbar": ("pi", 100), "marker": "o", "markersize": 4}
table = grown.assign(**{column: 100 * grown[column] for column in ("remaining", "modules", "parent")})
sns.lineplot(table, x="classes", y="remaining", color=figures.COLOURS["ours"], label="modules", ax=left, **span)
left.plot(sizes, 100 * (1 - (1 - k) ** sizes), "--", color="0.4", linewidth=1, label="independent masks")
left.plot(sizes, (100 * k * sizes).clip(upper=100), ":", color="0.4", linewidth=1.3, label="nothing in common")
left.set(ylabel="remaining parameters (%)", ylim=(0, 102))
for column, colour in (("modules", "ours"), ("parent", "parent")):
    sns.lineplot(table, x="classes", y=column, color=figures.COLOURS[colour], label=column, ax=right, **span)
right.set(ylabel="accuracy (%)")
for ax in (left, right):
    ax.set(xlabel="classes K")
    ax.xaxis.set_major_locator(plt.MaxNLocator(10, integer=True))
    ax.legend(frameon=False)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
by_size = grown.groupby("classes")[["remaining", "modules", "parent"]].mean()
rows = [
    {
        "classes K": size,
        "subsets": int((grown["classes"] == size).sum()),
        "remaining parameters": tables.percent(row["remaining"]),
        "independent masks": tables.percent(1 - (1 - k) ** size),
        "accuracy of the vote": tables.percent(row["modules"]),
        "accuracy of the parent": tables.percent(row["parent"]),
    }
    for size, row in by_size.iterrows()
]
tables.table(
    pd.DataFrame(rows),
    f"Recomposed networks by number of classes, means over the subsets; {data.name}, test images (n = 1 seed).",
    "tab-growing",
)

# %% [markdown]
# ## How long it takes
#
# Recomposing copies and masks weights. A prediction costs one masked pass for every module, where the parent needs one in
# all: the network is small, but not faster than its parent unless the zeros are made use of.


# %%
def median_ms(work: Callable[[], object]) -> float:
    """The median time of `repeats` runs, in milliseconds."""
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - before))
    return statistics.median(times)


batch = inputs[:256]
timed = []
for size in sorted({1, 2, 5, len(classes)}):
    asked = classes[:size]
    built = modules.recompose(asked)
    timed.append(
        {
            "classes": size,
            "recompose (ms)": median_ms(lambda asked=asked: modules.recompose(asked)),
            "predict (ms)": median_ms(lambda built=built: built.predict(batch)),
        }
    )
with torch.no_grad():
    parent_ms = median_ms(lambda: modules.parent(batch).argmax(1))

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
rows = [{key: f"{v:.2f}" if isinstance(v, float) else v for key, v in row.items()} for row in timed]
rows.append({"classes": "the parent", "recompose (ms)": "", "predict (ms)": f"{parent_ms:.2f}"})
tables.table(
    pd.DataFrame(rows),
    f"Time to recompose, and to predict a batch of {len(batch)} images; median of {repeats} runs.",
    "tab-times",
)

# %% [markdown]
# ## Save and load
#
# One file holds the modules: masks, one bit an edge, and grafting layers, but not the parent. It is a safetensors file,
# which holds no code. Loading refuses a parent that is not the one that was decomposed.

# %%
with tempfile.TemporaryDirectory() as folder:
    path, parent_path = Path(folder) / "modules.safetensors", Path(folder) / "parent.safetensors"
    modules.save(path)
    loaded = modlib.load(path, modules.parent)
    save_file(modules.parent.state_dict(), parent_path)
    bytes_of = {"modules": path.stat().st_size, "parent": parent_path.stat().st_size}
    try:
        modlib.load(path, modlib.parents.make(model, data, seed=seed + 1))
        refused = "no"
    except ValueError as error:
        refused = str(error).split(":")[0]

# %% tags=["nbval-check-output"]
masks, again = modules.masks.masks, loaded.masks.masks
edges = sum(mask[0].numel() for mask in masks.values())
packed = sum(-(-mask[0].numel() // 8) for mask in masks.values())
extra = modules.extra_parameters()["grafting"]
print("masks equal after loading:  ", all(torch.equal(masks[name], again[name]) for name in masks))
print("answers equal after loading:", torch.allclose(loaded.log_odds(inputs), log_odds))
print("another parent is refused; the error names:", refused)
print(f"a module in the file: {packed} bytes of masks for {edges} edges, and {extra} numbers of its grafting layer")

# %% tags=["hide-input"]
gap = pairs["modules"].mean() - pairs["parent"].mean()
ahead, behind = int((pairs["modules"] > pairs["parent"]).sum()), int((pairs["modules"] < pairs["parent"]).sum())
whole = by_size.iloc[-1]
at_most = max(row["recompose (ms)"] for row in timed)
Markdown(
    f"**What came out.** On {data.name} (n = 1 seed, test images), two modules vote {tables.percent(pairs['modules'].mean())} "
    f"right on average over the {len(pairs)} pairs, {100 * gap:+.2f} points against the parent told the two classes (ahead in "
    f"{ahead} pairs, behind in {behind}), with {tables.percent(pairs['remaining'].mean())} of its weights "
    f"({tables.percent(smallest)} to {tables.percent(largest)}). All {len(classes)} modules need "
    f"{tables.percent(whole['remaining'])}, where independent masks would need "
    f"{tables.percent(1 - (1 - k) ** len(classes))}, and vote {tables.percent(whole['modules'])} right (parent: "
    f"{tables.percent(whole['parent'])}). Recomposing took at most {at_most:.1f} ms, for any number of classes timed. The "
    f"file of the modules has {bytes_of['modules'] / 1024:.0f} KiB, the parent's {bytes_of['parent'] / 1024:.0f} KiB."
)

# %% [markdown]
# **What it means.** A subset's network is put together by a union and a copy, and answers exactly as its modules do. It
# is small in *weights kept*; beside these it holds one mask and one grafting layer for each module, and a prediction takes
# one pass for each. How small the union stays as classes are added is what [module stemming](module_stemming.ipynb) is
# for.
#
# **Re-run it:** `modlib reproduce recomposing -p alpha 0`, to see the same without stemming.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "k": k, "alpha": alpha, "epochs": epochs}
shown |= {"batch_size": batch_size, "subsets_per_size": subsets_per_size, "seed": seed}
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-recomposing", shown, spent)
