# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Decomposing a network and recomposing it for a part of its task
#
# **Question.** A trained network tells $N$ classes apart. Tomorrow's task needs some of them. Can the network be taken
# apart once, into one small module per class, so that a network for *any* subset of classes is put together at once,
# without training?
#
# That is what Kingetsu, Kobayashi and Suzuki {cite:p}`kingetsu2021` ask, for settings in which the classes of interest
# change often, and retraining for each change costs too much. Their answer has four steps, one page of this book each:
#
# 1. over the frozen, trained network, the *parent*, learn for every class a
#    [mask that keeps the top $k$ share of the edges](training_mask.ipynb); no weight changes;
# 2. behind it, learn a small [grafting layer](grafting_layer.ipynb) that turns the parent's $N$ logits into "this class"
#    or "another"; mask and grafting layer together are a *module*;
# 3. train all modules together, and pull their choices towards one another, so that they use the *same* edges:
#    [module stemming](module_stemming.ipynb);
# 4. for a subset of classes, take the union of the modules' masks and let the modules vote:
#    [recomposing](recomposing.ipynb).

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges that every module keeps in every layer
alpha: float = 4.0  # weight of the stemming loss
epochs: int = 15  # epochs of the decomposition
batch_size: int = 16  # images in a batch of the decomposition
subset: list[int] = [1, 7]  # the classes of the task that is recomposed
seed: int = 0  # seed of the parent and of the decomposition
results: str = ""  # folder of records, parents and modules; empty: keep none

# %% tags=["hide-input"]
import math
import time

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch.func import functional_call

import modlib
from modlib import cotraining, experiments, figures, grafting, masking, metrics, tables, training
from modlib.records import Store

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## A network small enough to draw
#
# The figures below are no sketches: each line is an edge of a real network, decomposed in this cell. Its parent has 16
# inputs (digits, pooled to 4 x 4 pixels), 6 hidden neurons and 5 logits, one for each of the digits 0 to 4.

# %%
digits = modlib.datasets.load("digits", held_out=0)


def pooled(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of the classes 0 to 4, every 2 x 2 pixels averaged into one."""
    chosen = labels < 5
    small = torch.nn.functional.avg_pool2d(images[chosen][:, None].float(), 2)[:, 0]
    return small.round().to(torch.uint8), labels[chosen]


tiny_data = modlib.datasets.from_arrays(
    *pooled(*digits.split("train")), *pooled(*digits.split("test")), preprocess=digits.preprocess
)
tiny_parent = modlib.parents.fc(hidden_layers=1, in_features=16, width=6, num_classes=5, seed=0)
training.train(tiny_parent, tiny_data, epochs=40, seed=0)
tiny_recipe = {"k": 0.3, "alpha": 0.3, "epochs": 20, "batch_size": 16, "grafting_init": "own_logit"}
tiny = modlib.cotrain(tiny_parent, tiny_data, **tiny_recipe, schedule="cosine", seed=0, device="cpu")
task = (0, 3, 4)  # the classes of the small task
small_network = tiny.recompose(task)

# %% tags=["nbval-check-output"]
edges = masking.sizes(masking.maskable_parameters(tiny_parent))
kept = {name: int(mask[0].sum()) for name, mask in tiny.masks.masks.items()}
print("edges of the parent, by layer ", list(edges.values()), "together", sum(edges.values()))
print("edges of a module, by layer   ", list(kept.values()), "together", sum(kept.values()))
print("numbers of its grafting layer ", tiny.extra_parameters()["grafting"])

# %% tags=["hide-input"]
CLASS_COLOURS = sns.color_palette("colorblind", 5)
SHARED = (0.15, 0.15, 0.15)
FAINT = (0.87, 0.87, 0.87)


def heights(count: int, spread: float = 1.0) -> list[float]:
    """Return `count` heights, evenly spread around one half."""
    return [0.5 + spread * ((i + 0.5) / count - 0.5) for i in reversed(range(count))]


def draw_edges(ax: Axes, weights, x: float, ends, colour_of, width: float = 1.6) -> None:
    """Draw the edges of one layer from x to x + 1; `colour_of(out, in)` gives a colour, or None for no line."""
    lines, colours, widths = [], [], []
    for o, row in enumerate(weights):
        for i, weight in enumerate(row):
            colour = colour_of(o, i)
            if colour is not None:
                lines.append([(x, ends[0][i]), (x + 1, ends[1][o])])
                colours.append(colour)
                widths.append(width * (0.25 + 0.75 * abs(float(weight))))
    ax.add_collection(LineCollection(lines, colors=colours, linewidths=widths, zorder=1))


def draw_nodes(ax: Axes, x: float, ys, size: float, colours="white") -> None:
    ax.scatter([x] * len(ys), ys, s=size, c=colours, edgecolors="0.25", linewidths=0.6, zorder=2, clip_on=False)


def draw_network(ax: Axes, colour_of, size: float, fills=None, width: float = 1.6):
    """Draw the layers of the tiny network; `colour_of(layer, out, in)`; `fills`: the colours of each layer's nodes."""
    weights = list(masking.maskable_parameters(tiny_parent).values())
    columns = [heights(16), heights(6, 0.8), heights(5, 0.7)]
    for layer, weight in enumerate(weights):
        shown = (weight.detach() / weight.detach().abs().max()).tolist()
        draw_edges(ax, shown, layer, columns[layer : layer + 2], lambda o, i, n=layer: colour_of(n, o, i), width)
    for x, ys in enumerate(columns):
        draw_nodes(ax, x, ys, size * (0.55 if x == 0 else 1.0), fills[x] if fills else "white")
    ax.set(xlim=(-0.15, 3.25), ylim=(0, 1))
    ax.axis("off")
    return columns[-1]


def draw_grafting(ax: Axes, logits, ys, colour, size: float, fills="white") -> None:
    for y in ys:
        ax.add_collection(LineCollection([[(2, a), (3, y)] for a in logits], colors=[colour], linewidths=0.5, zorder=1))
    draw_nodes(ax, 3, ys, size, fills)


masks = list(tiny.masks.masks.values())
rows = tiny.masks.rows(task)


def parent_colour(layer, o, i):
    return (0.45, 0.45, 0.45)


def module_colour(m):
    return lambda layer, o, i: CLASS_COLOURS[m] if masks[layer][m, o, i] else None


def union_colour(layer, o, i):
    users = [m for m in rows if masks[layer][m, o, i]]
    if not users:
        return None
    return CLASS_COLOURS[users[0]] if len(users) == 1 else SHARED


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Overview (the paper's Figure 1, redrawn from a decomposition). The parent tells five classes apart (left); it is decomposed into five modules (middle), each a part of the parent's edges and a grafting layer with the outputs \"this class\" and \"another\"; the modules of three classes are recomposed into one network for these three (right). Line widths follow the size of the weights. On the right, edges that more than one module uses are black, the others have the colour of their module.", "name": "fig-overview"}, "image": {"alt": "On the left a densely connected small network; in the middle five copies of it, each with a third of its edges in a colour of its own and two more output nodes; on the right one network with the edges of three of them, many of these shared, and three pairs of output nodes."}}
figure = plt.figure(figsize=(figures.WIDTH, 5.0), layout="none")
ax = figure.add_axes((0.0, 0.27, 0.27, 0.46))
draw_network(ax, parent_colour, 40, width=1.2)
ax.set_title(f"parent: 5 classes\n{sum(edges.values())} edges", fontsize=10)
for c in tiny.classes:
    ax = figure.add_axes((0.37, 0.79 - 0.195 * c, 0.23, 0.165))
    logits = draw_network(ax, module_colour(c), 12, width=1.3)
    draw_grafting(ax, logits, heights(2, 0.5), CLASS_COLOURS[c], 12)
    ax.text(3.2, 0.5, f"module {c}", fontsize=9, color=CLASS_COLOURS[c], va="center")
figure.text(0.485, 0.985, f"5 modules, {sum(kept.values())} edges each", fontsize=10, ha="center", va="center")
ax = figure.add_axes((0.75, 0.27, 0.25, 0.46))
logits = draw_network(ax, union_colour, 40, width=1.6)
for position, m in enumerate(rows):
    middle = heights(3, 0.9)[position]
    draw_grafting(ax, logits, [middle + 0.05, middle - 0.05], CLASS_COLOURS[m], 24)
used = round(small_network.remaining * sum(edges.values()))
ax.set_title(f"recomposed: {len(task)} classes\n{used} edges", fontsize=10)
for x, word in ((0.295, "decompose"), (0.70, "recompose")):
    figure.text(x, 0.535, word, fontsize=9, ha="center")
    figure.text(x, 0.5, "→", fontsize=22, ha="center", va="center")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
by_use = torch.stack([torch.cat([m[r].flatten() for m in masks]) for r in rows]).sum(0)
shared = int((by_use > 1).sum())
Markdown(
    f"In {{numref}}`fig-overview`, the recomposed network has {used} of the parent's {sum(edges.values())} edges. Its "
    f"{len(task)} modules keep {sum(kept.values())} each; {shared} edges serve more than one of them. Without any "
    f"sharing it would need {min(len(task) * sum(kept.values()), sum(edges.values()))}."
)

# %% [markdown]
# To predict, the recomposed network is run once for each of its modules, with that module's mask and grafting layer.
# Each module answers with a confidence, the softmax of its two outputs; the highest confidence wins.

# %%
images, labels = tiny_data.split("test")
image, label = images[labels == task[1]][:1], task[1]
inputs = tiny_data.inputs(image)
weights = dict(tiny.parent.named_parameters())
flow = []
for m in rows:
    masked = {name: weights[name] * mask[m] for name, mask in tiny.masks.masks.items()}
    hidden = functional_call(tiny.parent[:3], {n: v for n, v in masked.items() if n.startswith("1")}, (inputs,))
    logits = functional_call(tiny.parent, masked, (inputs,))
    outputs = grafting.graft(logits, tiny.grafting_weight[m], tiny.grafting_bias[m])
    flow.append({"hidden": hidden[0], "logits": logits[0], "confidence": float(outputs.softmax(-1)[0, 1])})
vote = int(small_network.predict(inputs))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Flow of a prediction (the paper's Figure 2, redrawn with the values of one test image). The image passes through each module's part of the recomposed network (coloured edges; grey: the edges of the union that this module does not use) and through its grafting layer. The darker a node, the larger its value in its layer. The bars are the modules' confidences in \"this class\"; the largest wins the vote.", "name": "fig-flow"}, "image": {"alt": "A small image on the left; three rows, one for each module, with the module's edges in colour over the grey edges of the union, the grafting layer's two nodes, and a bar for the confidence; the row with the longest bar is marked as the winner of the vote."}}
greys = plt.get_cmap("Greys")


def shade(values: torch.Tensor) -> list:
    """Grey by value: white for the lowest, dark for the highest."""
    span = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-9)
    return [greys(0.85 * float(v)) for v in span]


figure = plt.figure(figsize=(figures.WIDTH, 4.2), layout="none")
ax = figure.add_axes((0.0, 0.36, 0.15, 0.26))
ax.imshow(image[0], cmap="Greys", vmin=0, vmax=255)
ax.set(xticks=[], yticks=[])
ax.spines[:].set_visible(True)
ax.set_title(f"a {label}", fontsize=10)
figure.text(0.185, 0.49, "→", fontsize=22, ha="center", va="center")
for position, (m, step) in enumerate(zip(rows, flow, strict=True)):
    c, bottom = tiny.classes[m], 0.66 - 0.315 * position
    ax = figure.add_axes((0.22, bottom, 0.42, 0.28))
    draw_network(ax, lambda n, o, i: FAINT if union_colour(n, o, i) is not None else None, 0, width=1.2)
    fills = [shade(image[0].flatten().float()), shade(step["hidden"]), shade(step["logits"])]
    logits = draw_network(ax, module_colour(m), 26, fills, width=1.6)
    sure = step["confidence"]
    draw_grafting(ax, logits, heights(2, 0.6), CLASS_COLOURS[m], 40, [greys(0.85 * sure), greys(0.85 * (1 - sure))])
    for y, word in zip(heights(2, 0.6), (f"{c}", "another"), strict=True):
        ax.text(3.12, y, word, fontsize=8, va="center")
    bar = figure.add_axes((0.72, bottom + 0.09, 0.2, 0.1))
    bar.barh([0], [sure], color=CLASS_COLOURS[m])
    bar.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[], xticks=[0, 1])
    bar.grid(False)
    bar.tick_params(labelsize=7, pad=0)
    bar.set_title(f"confidence {sure:.2f}", fontsize=9, fontweight="bold" if c == vote else "normal")
    if c == vote:
        figure.text(0.93, bottom + 0.135, f"vote: {c}", fontsize=10, fontweight="bold", va="center")
for x, word in ((0.243, "pixels"), (0.36, "hidden"), (0.475, "logits"), (0.59, "grafted")):
    figure.text(x, 0.0, word, fontsize=8, ha="center")
plt.show()

# %% [markdown]
# ## What a decomposition must deliver
#
# The paper expects three properties. Each is measured:
#
# | property | what it asks | how it is measured | where |
# |---|---|---|---|
# | **decomposability** | modules come out of a large network, are smaller, and classify one class well | Jaccard index of the masks; accuracy of single modules, on all images and on balanced sets | [Table 1](table1.ipynb), [grafting layer](grafting_layer.ipynb), [evaluation](evaluation.ipynb) |
# | **recomposability** | modules combine, and together classify many classes well | accuracy of the vote, of all classes, of pairs and of any subset | [Table 1](table1.ipynb), [recomposing](recomposing.ipynb), [evaluation](evaluation.ipynb) |
# | **reusability, small parameters** | any subset without retraining, in few parameters | remaining parameters of the union; time to recompose | [module stemming](module_stemming.ipynb), [recomposing](recomposing.ipynb) |
#
# The *Jaccard index* of two masks is the number of edges that both keep, divided by the number that either keeps: 0 for
# modules with nothing in common, 1 for equal ones. *Remaining parameters* is the share of the parent's maskable weights
# that the union of a subset's masks keeps. [The scoreboard](scoreboard.ipynb) holds the paper's claims, one by one,
# against what was found.
#
# ## A taste: one decomposition, measured
#
# Now the same on one of the paper's parents: train it, decompose it, recompose a subset. The recipe is ours (annealed
# rates, grafting layers that start from the parent's own logit); `records` are there so that a run need not be repeated.

# %%
data = modlib.datasets.load(dataset)
recipe = cotraining.ours(k=k, alpha=alpha, epochs=epochs, batch_size=batch_size)
trial = experiments.Trial(dataset, model, "ours", recipe, seed, parent_epochs)
store = Store.at(results)
records = experiments.run_trials([trial], data, store, device="cpu") if results else []

parent = experiments.trained_parent(data, model, seed, parent_epochs, store)
modules = experiments.trial_modules(trial, data, store, device="cpu")
before = time.perf_counter()
network = modules.recompose(subset)
milliseconds = 1000 * (time.perf_counter() - before)

# %%
images, labels = data.split("test")
log_odds = modules.log_odds(data.inputs(images))
logits, _ = training.logits(parent, data, "test")
found = experiments.measure(modules, data, "test")
balanced = metrics.balanced_accuracies(log_odds, labels, modules.classes, seed).diagonal()
of_subset = metrics.recomposed_accuracy(log_odds, labels, modules.classes, subset)
parent_of_subset = metrics.recomposed_accuracy(logits, labels, range(data.num_classes), subset)
parent_accuracy = training.accuracy(parent, data, "test")

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
named = ", ".join(str(c) for c in subset)
taste = [
    ("decomposability", "edges of a module", tables.percent(modules.remaining([subset[0]])), "100%"),
    ("", "accuracy of a module, all images (mean)", tables.percent(found["module_accuracy"]), ""),
    ("", "accuracy of a module, balanced (mean)", tables.percent(float(balanced.mean())), ""),
    ("", "Jaccard index (mean over pairs)", f"{found['jaccard_index']:.2f}", ""),
    ("recomposability", "accuracy, all classes", tables.percent(found["accuracy"]), tables.percent(parent_accuracy)),
    ("", f"accuracy, classes {named}", tables.percent(of_subset), tables.percent(parent_of_subset)),
    ("reusability", "remaining parameters, all classes", tables.percent(modules.remaining()), "100%"),
    ("", f"remaining parameters, classes {named}", tables.percent(network.remaining), "100%"),
    ("", f"time to recompose {named}", f"{milliseconds:.1f} ms", ""),
]
tables.table(
    pd.DataFrame(taste, columns=["property", "quantity", "modules", "parent"]),
    f"One decomposition of {data.name}, {model}, k = {tables.percent(k, 0)}, test images (n = 1 seed). The parent's "
    "accuracy on a subset takes the largest of that subset's logits.",
    "tab-taste",
)


# %% tags=["hide-input"]
def against(mine: float, other: float) -> str:
    """Say how far one share is above or below another, in points."""
    points = 100 * (mine - other)
    if abs(points) < 0.005:
        return "exactly as many as"
    return f"{abs(points):.2f} points {'more' if points > 0 else 'fewer'} than"


most = min(1.0, len(subset) * k)
saved = (most - network.remaining) / (most - k) if len(subset) > 1 and most > k else math.nan
Markdown(
    f"**What came out.** On {data.name} (n = 1 seed, {len(labels):,} test images), the modules of all "
    f"{data.num_classes} classes vote {tables.percent(found['accuracy'])} of the images right, "
    f"{against(found['accuracy'], parent_accuracy)} their parent, with {tables.percent(modules.remaining())} of its "
    f"weights. For the classes {named} alone, a network recomposed in {milliseconds:.1f} ms gets "
    f"{tables.percent(of_subset)} right, {against(of_subset, parent_of_subset)} the parent told to choose among the "
    f"same classes, with {tables.percent(network.remaining)} of the weights; modules with no edge in common would need "
    f"{tables.percent(most)}"
    + ("." if math.isnan(saved) else f", so sharing saved {tables.percent(saved, 0)} of what can be saved.")
)

# %% [markdown]
# **What it means.** This is one run of one small network, to show what is measured; the claims are judged on the pages
# of the results, over several seeds, data sets and parents.
#
# **Re-run it:** `modlib reproduce introduction -p subset "[0, 3, 8]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {
    "dataset": dataset,
    "model": model,
    "parent_epochs": parent_epochs,
    "k": k,
    "alpha": alpha,
    "epochs": epochs,
    "batch_size": batch_size,
}
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-introduction", shown | {"subset": subset, "seed": seed}, spent)
