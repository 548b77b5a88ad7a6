# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Discussing what holds, and what it costs
#
# **Question.** What does a decomposed network cost, in time and memory? What is lost as more classes are asked for? And what
# do the paper, and this book, leave open?
#
# The paper (section "Discussion") names one limitation: "it consumes a computation time proportional to the number of
# classes". It says that recomposed networks can be used immediately, and that they are small. Which of its claims hold
# is told by the [scoreboard](scoreboard.ipynb); this page measures the costs behind them, and says how far the evidence
# reaches.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges kept in every layer
epochs: int = 12  # epochs of recipe ours
batch_size: int = 32  # images in a batch
alpha: float = 1.0  # stemming of recipe ours without vote loss
vote: float = 0.9  # weight of the vote loss
vote_alpha: float = 4.0  # stemming with vote loss, which pulls harder
module_counts: list[int] = [1, 2, 5, 10]  # numbers of modules that are timed
timed_epochs: int = 3  # epochs timed for each of them
repeats: int = 100  # passes timed for each of them
images_timed: int = 1000  # images in a timed pass, at most
seed: int = 0  # seed of the parent and the decompositions
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import json
import math
import statistics
import time
from itertools import combinations, pairwise

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown

import modlib
from modlib import figures, library, masking, metrics, tables, training
from modlib.cotraining import RECIPES
from modlib.experiments import Trial, recipe_label, trained_parent, trial_modules
from modlib.records import Store
from modlib.reproduce import Layout

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## Time: one module after another
#
# Decomposing: one run, some of the classes, seconds per epoch by the clock, with all that goes on around the steps (the page on [cost](cost.ipynb) times the steps alone,
# and engines one by one). Predicting: a recomposed network applies mask
# after mask, one pass of the parent's size for each module, where the parent needs a single one. The masks save memory,
# not multiplications, unless a sparse kernel is used.

# %%
data = modlib.datasets.load(dataset)
store = Store.at(results)
parent = trained_parent(data, model, seed, parent_epochs, store)
counts = [n for n in module_counts if n <= data.num_classes]


def seconds_per_epoch(n):
    """The fastest epoch of a decomposition into the first `n` classes: whatever else runs only adds to it."""
    ends = []

    def note(epoch, modules):
        ends.append(time.perf_counter())

    modlib.cotrain(
        parent,
        data,
        k=k,
        alpha=alpha,
        epochs=timed_epochs + 1,
        batch_size=batch_size,
        classes=range(n),
        seed=seed,
        callback=note,
    )
    return min(b - a for a, b in pairwise(ends))  # the first epoch includes set-up


training_seconds = {n: seconds_per_epoch(n) for n in counts}


# %%
def trained(recipe_vote, recipe_alpha):
    recipe = RECIPES["ours"](k=k, alpha=recipe_alpha, vote=recipe_vote, epochs=epochs, batch_size=batch_size)
    return trial_modules(Trial(dataset, model, "ours", recipe, seed, parent_epochs), data, store)


decompositions = {recipe_label("ours", v): trained(v, a) for v, a in ((0.0, alpha), (vote, vote_alpha))}
modules = decompositions["ours"]
inputs = data.inputs(data.test_images[:images_timed])


@torch.no_grad()
def milliseconds(network):
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        network(inputs)
        taken.append(1000 * (time.perf_counter() - start))
    return min(taken)


parent_milliseconds = milliseconds(parent)
vote_milliseconds = {n: milliseconds(modules.recompose(modules.classes[:n])) for n in counts}
before = time.perf_counter()
modules.recompose(modules.classes)
recompose_milliseconds = 1000 * (time.perf_counter() - before)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time by the number of modules, on the device named below. Left: one epoch of a decomposition. Right: one pass of a recomposed network over the same images; solid line: one pass of the parent. Dashed: proportional to the number of modules, through the last point.", "name": "fig-time"}, "image": {"alt": "Two panels of points over the number of modules: seconds per epoch of co-training and milliseconds per pass, each beside a straight line through the origin."}}
figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.9))
for ax, taken, label in (
    (left, training_seconds, "seconds per epoch"),
    (right, vote_milliseconds, "milliseconds per pass"),
):
    last = max(taken)
    ax.plot([0, last], [0, taken[last]], ls="--", lw=1, color=figures.COLOURS["paper"], label="proportional")
    ax.plot(list(taken), list(taken.values()), marker="o", color=figures.COLOURS["ours"], label="measured")
    ax.set(xlabel="modules", ylabel=label, xlim=(0, None), ylim=(0, None), xticks=list(taken))
right.axhline(parent_milliseconds, color=figures.COLOURS["parent"], lw=1, label="the parent")
right.legend(frameon=False)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
rows = [
    {
        "modules": n,
        "seconds per epoch": f"{training_seconds[n]:.3f}",
        "of them per module": f"{training_seconds[n] / n:.3f}",
        "milliseconds per pass": f"{vote_milliseconds[n]:.2f}",
        "passes of the parent": f"{vote_milliseconds[n] / parent_milliseconds:.1f}",
    }
    for n in counts
]
tables.table(
    pd.DataFrame(rows),
    f"Time by the number of modules: the fastest of {timed_epochs} epochs of {len(data.train_labels):,} images, and of {repeats} passes of {len(inputs):,} images.",
    "tab-time",
)

# %% [markdown]
# ## Memory: a bit for every edge and module
#
# A mask is one bit an edge, whatever $k$ is. So $N$ masks weigh $N / 32$ of the parent's weights in float32, and above $N = 32$
# classes they weigh more than the parent itself:

# %% tags=["nbval-check-output"]
sizes = masking.sizes(masking.maskable_parameters(parent))
parent_bytes = sum(p.numel() * p.element_size() for p in parent.parameters())
mask_bytes = sum(library.pack(mask).numel() for mask in modules.masks.masks.values())
grafting_bytes = 4 * (modules.grafting_weight.numel() + modules.grafting_bias.numel())
print(f"parent: {sum(sizes.values())} edges, {parent_bytes} bytes with biases")
print(f"{len(modules.classes)} masks, packed: {mask_bytes} bytes; grafting layers: {grafting_bytes} bytes")
for n in (10, 32, 100, 1000):
    print(f"{n} classes: masks weigh {n / 32:g} of the parent's weights")
entropy = -(k * math.log2(k) + (1 - k) * math.log2(1 - k))
print(f"a mask at k = {k:.0%}, coded as well as can be without knowing the others: {entropy:.3f} bits an edge")

# %% [markdown]
# To ship a subset one needs the weights of its union, where they lie, and one bit for each of them and module:

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
total = sum(sizes.values())
rest = parent_bytes - 4 * total  # biases
rows = []
for label, made in decompositions.items():
    for n in (2, 5, len(made.classes)):
        if n > len(made.classes):
            continue
        share = statistics.mean(made.remaining(c) for c in combinations(made.classes[:8] if n < 8 else made.classes, n))
        bits = share * total * 32 + total + share * total * n
        extra = rest + grafting_bytes * n / len(made.classes)
        rows.append(
            {
                "decomposition": label,
                "classes": n,
                "remaining parameters": f"{share:.4f}",
                "bytes to ship": f"{bits / 8 + extra:,.0f}",
                "of the parent's": tables.percent((bits / 8 + extra) / parent_bytes, 1),
            }
        )
tables.table(
    pd.DataFrame(rows).drop_duplicates(),
    "Size of a recomposed network: weights of the union in float32, a map of where they lie, the masks within the union, grafting layers and biases. Means over subsets of the first eight classes; all classes in the last row of each.",
    "tab-bytes",
)

# %% [markdown]
# ## Accuracy: what is lost as subsets grow
#
# Every subset of the classes is asked, on the test images of its classes, beside the parent that is told which classes can
# occur (its largest logit among them).

# %%
images, labels = data.split("test")
answers = {label: made.log_odds(data.inputs(images)) for label, made in decompositions.items()}
answers["parent"] = training.logits(parent, data, "test")[0]
choice = torch.Generator().manual_seed(seed)


def subsets(n, most=252):
    """Subsets of `n` classes: all, or `most` of them drawn."""
    every = list(combinations(range(data.num_classes), n)) if data.num_classes <= 12 else None
    if every is None:
        return [torch.randperm(data.num_classes, generator=choice)[:n].tolist() for _ in range(most)]
    return [every[i] for i in torch.randperm(len(every), generator=choice)[:most].tolist()]


rows = []
for n in range(2, data.num_classes + 1):
    asked = subsets(n)
    for label, log_odds in answers.items():
        classes = range(data.num_classes)
        right = [metrics.recomposed_accuracy(log_odds, labels, classes, subset) for subset in asked]
        made = decompositions.get(label)
        kept = statistics.mean(made.remaining(s) for s in asked) if made else 1.0
        rows.append(
            {"classes": n, "subsets": len(asked), "who": label, "accuracy": statistics.mean(right), "kept": kept}
        )
growth = pd.DataFrame(rows)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Recomposed networks by their number of classes, means over subsets. Left: accuracy on test images, beside the parent told which classes can occur. Right: remaining parameters; dotted: k.", "name": "fig-growth"}, "image": {"alt": "Two panels of curves over the number of classes. Left, the accuracies of the vote of two decompositions and of the parent. Right, the share of the parent's weights in the union of the masks."}}
figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.3))
for label, group in growth.groupby("who", sort=False):
    colour = figures.COLOURS[label]
    left.plot(group["classes"], 100 * group["accuracy"], marker="o", markersize=3, color=colour, label=label)
    if label != "parent":
        right.plot(group["classes"], group["kept"], marker="o", markersize=3, color=colour)
right.axhline(k, ls=":", color="black", lw=1)
left.set(xlabel="classes in the subset", ylabel="accuracy (%)")
right.set(xlabel="classes in the subset", ylabel="remaining parameters", ylim=(0, None))
figure.legend(frameon=False, ncols=3, loc="outside upper center")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
wide = growth.pivot(index=["classes", "subsets"], columns="who", values=["accuracy", "kept"])
rows = []
for (n, many), row in wide.iterrows():
    line = {"classes": n, "subsets": many}
    line |= {f"{label} (%)": f"{100 * row['accuracy', label]:.2f}" for label in answers}
    line |= {f"remaining, {label}": f"{row['kept', label]:.4f}" for label in decompositions}
    rows.append(line)
tables.table(
    pd.DataFrame(rows),
    "Accuracy on test images and remaining parameters of recomposed networks, means over subsets (n = 1 seed).",
    "tab-growth",
)

# %% tags=["hide-input"]
few, many = min(counts), max(counts)
ratio = training_seconds[many] / training_seconds[few]
if ratio > 1.25 * many / few:
    scaling = "more than proportionally"
elif ratio > 0.75 * many / few:
    scaling = "about proportionally"
else:
    scaling = "less than proportionally: modules that are trained side by side share a part of the work"
passes = vote_milliseconds[many] / parent_milliseconds
at = growth.set_index(["who", "classes"])["accuracy"]
most = data.num_classes


def behind(label, n):
    gap = 100 * (at["parent", n] - at[label, n])
    if abs(gap) < 0.005:
        return "level with it"
    return f"{abs(gap):.2f} points {'behind' if gap > 0 else 'ahead of'} it"


names = list(decompositions)
grown = [100 * ((at[x, most] - at["parent", most]) - (at[x, 2] - at["parent", 2])) for x in names]
Markdown(
    f"**What came out.** On {dataset} with {model.upper()} (n = 1 seed): an epoch with {many} modules takes {ratio:.1f} times "
    f"as long as one with {few}, so time grows {scaling}. Recomposing takes {recompose_milliseconds:.1f} milliseconds, without "
    f"training; a prediction by {many} modules then costs {passes:.1f} passes of the parent. All masks together weigh "
    f"{tables.percent(mask_bytes / parent_bytes, 0)} of the parent's bytes.\n\n"
    f"Beside the parent, the vote of recipe {names[0]} is {behind(names[0], 2)} for two classes (mean of pairs), and "
    f"{behind(names[0], most)} for all {most}; that of recipe {names[1]} is {behind(names[1], 2)} and "
    f"{behind(names[1], most)}. From two classes to all, the one "
    f"{'loses' if grown[0] < 0 else 'gains'} {abs(grown[0]):.2f} points on the parent, the other "
    f"{'loses' if grown[1] < 0 else 'gains'} {abs(grown[1]):.2f}."
)

# %% [markdown]
# ## What is settled where
#
# | what the paper says | where it is looked at |
# |---|---|
# | a module is a small classifier of one class | [Training a mask](training_mask.ipynb), [Measuring modules](evaluation.ipynb) |
# | the grafting layer lets a module outperform the parent at its class | [Controls](controls.ipynb) |
# | stemming makes modules share edges | [Module stemming](module_stemming.ipynb), [Table 2](table2.ipynb), [Figure 3](figure3.ipynb) |
# | averaging beats a base class; $p = 1$ changes more slowly | [Preliminaries](preliminaries.ipynb) |
# | any subset is recomposed without training | [Recomposing](recomposing.ipynb) |
# | better than TI-I, TI-SNE and CM-RIE | [Baselines](baselines.ipynb), [Table 1](table1.ipynb) |
# | each module holds only the function of its own class | [Table 6](table6.ipynb) |
# | the printed training parameters | [Table 3](table3.ipynb), [Table 4](table4.ipynb) |
# | MNIST has equally many images of each class | [Setting up the experiments](experimental_setup.ipynb) |
# | faster than learning a small model from scratch | [Controls](controls.ipynb) |
# | any architecture | [Architectures](architectures.ipynb), [Figure 4](figure4.ipynb) |
# | time is proportional to the number of classes | [Engines](engines.ipynb), and this page |
#
# ## What the paper leaves open
#
# - **Inference.** It counts remaining parameters, not passes: the union is small, but it is used once for each module. One
#   mask for all classes would need a single pass; whether ten overlapping masks are worth it is asked by the
#   [controls](controls.ipynb) and the [frontier](frontier.ipynb).
# - **Many classes.** It advises "distributed learning" where classes are many. Memory grows with them too, as above.
# - **Confidences.** Modules never see each other's answers in training, yet their confidences are compared in the vote.
#   The vote loss, which is ours, trains that comparison ([co-training](module_stemming.ipynb)).
# - **Interpretability.** Small modules are said to be easier to verify. The paper does not test it; nor does this book.
# - **How to choose** $k$ and $\alpha$ for a new network: "it is necessary to determine" them, and no rule is given.
#
# ## How far this book's evidence reaches

# %% tags=["hide-input"]
folder = Layout.here().root / "book" / "results"
if (folder / "table1.csv").exists():
    so_far = pd.read_csv(folder / "table1.csv")
    runs = json.loads((folder / "table1.json").read_text())["runs"]
    devices = "; ".join(sorted({run["device"] for run in runs}))
    scale = so_far.groupby(["dataset", "model", "recipe"])[["seed", "epoch"]].agg({"seed": "nunique", "epoch": "max"})
    columns = {}
    for (name, network), part in scale.groupby(["dataset", "model"]):
        sizes = [f"{recipe}: {one.seed} seeds, {one.epoch} epochs" for (_, _, recipe), one in part.iterrows()]
        columns.setdefault("; ".join(sizes), []).append(f"{name} {network.upper()}")
    listed = ". ".join(f"{', '.join(names)} ({sizes})" for sizes, names in columns.items())
    reach = (
        f"The published [Table 1](table1.ipynb) rests on {len(runs)} decompositions, computed on: {devices}. {listed}."
    )
else:
    reach = "[Table 1](table1.ipynb) has no published run here."
Markdown(reach)

# %% [markdown]
# What is not there is not shown. A result on a small fully connected network says little about a deep convolutional one, where
# a signal must pass many masked layers: those have pages of their own, [Figure 4](figure4.ipynb) at a reduced size and
# [why deep networks die under a random mask](deep_networks.ipynb). How time grows with the number of classes, with engines and
# processes, is [measured there](engines.ipynb). Five trials tell a spread only roughly, and a published
# recipe that was given fewer epochs than the 50 that the paper names for Table 5 may not have come to its end. Timings are of one machine and of this
# implementation; a sparse kernel, or a GPU that takes all masks at once, would change them. Every departure from the
# paper is listed under [deviations](../deviations.md).
#
# **What it means.** Decomposing pays where many subsets are asked for, again and again, and memory or reuse counts more
# than the time of a prediction. Where one subset is needed once, the parent with the other logits ignored is the
# baseline to beat, and it takes no work at all.
#
# **Re-run it:** `modlib reproduce discussion -p model fc4`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {
    "dataset": dataset,
    "model": model,
    "parent_epochs": parent_epochs,
    "recipe": "ours",
    "k": k,
    "epochs": epochs,
    "batch_size": batch_size,
    "alpha": alpha,
    "vote": vote,
    "vote_alpha": vote_alpha,
    "seed": seed,
}
tables.where_from([], "tab-from-discussion", shown, time.perf_counter() - started)
