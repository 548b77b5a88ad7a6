# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Measuring modules
#
# **Question.** By what are modules judged, and do the paper's printed numbers agree with each other?
#
# The paper (section "Evaluation") uses four quantities: the Jaccard index of two masks, the accuracy of modules and of their
# vote, the accuracy of recomposed networks, and the ratio of remaining parameters (RPs). Simple identities tie them
# together. They pin down what the paper leaves unsaid, and every one of them is checked here, on a real decomposition
# and on the paper's tables.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges kept in every layer
alpha: float = 1.0  # stemming
epochs: int = 12  # epochs of the decomposition
batch_size: int = 32  # images in a batch
seed: int = 0  # seed of the parent, the decomposition and the balanced sets
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import math
import time
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

import modlib
from modlib import figures, metrics, tables, training
from modlib.cotraining import RECIPES
from modlib.experiments import Trial, trial_modules
from modlib.masking import mean_over_pairs
from modlib.records import Store
from modlib.reproduce import Layout

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## A decomposition to measure
#
# Recipe ours ([Table 4](table4.ipynb)), without vote loss. Log-odds of all modules are computed once; every accuracy below is
# an argmax or a comparison of them.

# %%
data = modlib.datasets.load(dataset)
recipe = RECIPES["ours"](k=k, alpha=alpha, epochs=epochs, batch_size=batch_size)
trial = Trial(dataset, model, "ours", recipe, seed, parent_epochs)
modules = trial_modules(trial, data, Store.at(results))
images, labels = data.split("test")
classes = modules.classes

log_odds = modules.log_odds(data.inputs(images))
jaccard = modules.masks.jaccard()
remaining = modules.masks.remaining_of_pairs()
balanced = metrics.balanced_accuracies(log_odds, labels, classes, seed)
own = metrics.module_accuracies(log_odds, labels, classes)


# %% [markdown]
# One more index, for comparison: the "Jaccard index" of the three older methods in the paper's Table 1 is another
# quantity. {cite:t}`pan2020` count the distinct weight *values* $u$ that two modules share, zero among them, and divide by
# $2n - u$, with $n$ the number of weights.

# %%
weights = torch.cat([p.detach().flatten() for n, p in modules.parent.named_parameters() if n in modules.masks.masks])
kept = torch.cat([modules.masks.masks[n].flatten(1) for n in modules.masks.masks], dim=1)
values = [np.unique((weights * mask).numpy()) for mask in kept]


def value_index(a, b):
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (2 * len(weights) - shared)


value_indices = [value_index(a, b) for a, b in combinations(values, 2)]

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
off = ~torch.eye(len(classes), dtype=torch.bool)
pair_accuracy = mean_over_pairs(metrics.accuracy_of_pairs(log_odds, labels, classes))
rows = [
    ("Jaccard index", "edges both keep / edges either keeps", "mean of pairs", f"{modules.masks.mean_jaccard():.3f}"),
    ("Pan and Rajan's index", "shared values u / (2n - u)", "mean of pairs", f"{np.mean(value_indices):.3f}"),
    ("remaining parameters", "edges in the union / the parent's", "mean of pairs", f"{mean_over_pairs(remaining):.4f}"),
    ("", "", "all classes", f"{modules.remaining():.4f}"),
    ("accuracy of a module", '"this class" or "another", all images', "mean of modules", f"{100 * own.mean():.2f}%"),
    ("balanced accuracy", "as many of the class as of others", "own class", f"{100 * balanced.diagonal().mean():.2f}%"),
    ("", "Table 6", "other classes", f"{100 * balanced[off].mean():.2f}%"),
    ("accuracy of the vote", "highest confidence wins", "pairs", f"{100 * pair_accuracy:.2f}%"),
    (
        "",
        "",
        "all classes",
        f"{100 * metrics.recomposed_accuracy(log_odds, labels, classes):.2f}%",
    ),
    ("accuracy of the parent", "all classes", "", f"{100 * training.accuracy(modules.parent, data):.2f}%"),
]
tables.table(
    pd.DataFrame(rows, columns=["quantity", "what it is", "of", "value"]),
    "The quantities of the book, for one decomposition, on test images (n = 1 seed).",
    "tab-metrics",
)

# %% [markdown]
# ## One identity ties Jaccard index and remaining parameters
#
# Two modules that keep the same share $k$ and have the Jaccard index $J$ need together
#
# $$\text{RP} = \frac{2k}{1+J}.$$
#
# So the two are one number told twice. It is exact for every pair of masks, with the share that they really keep:

# %% tags=["nbval-check-output"]
share = kept.double().mean(1)
pairs = list(combinations(range(len(classes)), 2))
error = max(abs(float(remaining[a, b]) - 2 * float(share[a]) / (1 + float(jaccard[a, b]))) for a, b in pairs)
print(f"{len(pairs)} pairs; every module keeps the same number of edges: {bool((share == share[0]).all())}")
print(f"RP = 2k / (1 + J) for all of them, to 12 digits: {error < 1e-12}")

# %% [markdown]
# What would two masks share that know nothing of each other? And how large can each index be?

# %%
folder = Layout.here().root / "book" / "published"
table1, table2 = (pd.read_csv(folder / f"table{i}.csv") for i in (1, 2))
printed_k = 0.10  # of both tables

# %% tags=["nbval-check-output"]
kept_share = printed_k
both, either = kept_share**2, 1 - (1 - kept_share) ** 2
print(f"two independent masks at k = 10%: RP {either:.3f}, Jaccard index {both / either:.3f}")
print(f"ten independent masks: RP {1 - (1 - kept_share) ** 10:.3f}")
print(
    f"two equal masks: RP {kept_share:.3f}, Jaccard index 1, Pan and Rajan's index {kept_share / (2 - kept_share):.3f}"
)
for ratio in sorted(set(table2["remaining_parameters_mean"])):
    print(f"RP {ratio}, a mean of Table 2: Jaccard index {2 * kept_share / ratio - 1:.2f}")

# %% [markdown]
# By Pan and Rajan's index two *equal* masks score no more than two *independent* ones do by the Jaccard index: both are
# $k / (2 - k)$. Table 1 prints the two indices under one name; they cannot be compared.
#
# ## The paper's Tables 1 and 2

# %%
table2["jaccard_index"] = 2 * printed_k / table2["remaining_parameters_mean"] - 1
stemming = table1[table1["method"] == "module stemming"].copy()
stemming["remaining_parameters"] = metrics.remaining_from_jaccard(printed_k, stemming["jaccard_index"])

# %% tags=["nbval-check-output"]
ordered = (table2["best"] <= table2["remaining_parameters_mean"]) & (
    table2["remaining_parameters_mean"] <= table2["worst"]
)
inside = (table2["best"] >= printed_k) & (table2["worst"] <= 2 * printed_k)
print(f"Table 2: best <= mean <= worst in {ordered.sum()} of {len(table2)} rows; between k and 2k in {inside.sum()}")
mnist_fc1 = stemming[(stemming["dataset"] == "mnist") & (stemming["model"] == "fc1")].iloc[0]
full = table2[table2["initial_score_sharing"] & table2["stemming_loss"]].iloc[0]
print(f"Table 1, MNIST FC1: Jaccard index {mnist_fc1.jaccard_index}, so RP {mnist_fc1.remaining_parameters:.3f}")
print(
    f"Table 2, same network, both means: RP {full.remaining_parameters_mean}, so Jaccard index {full.jaccard_index:.2f}"
)
agree = full.best <= mnist_fc1.remaining_parameters <= full.worst
print(f"Table 1's value lies between Table 2's best ({full.best}) and worst ({full.worst}): {agree}")
off_scale = 0.5
print(f'"RPs close to {off_scale}": possible for a pair at k = 10%: {printed_k <= off_scale <= 2 * printed_k}')

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Remaining parameters of a pair against the Jaccard index of its masks. The curve is the identity, at the share kept here and at the paper's. Dots: all pairs of the decomposition above. Crosses: the means that the paper's Table 2 prints, with and without stemming loss. Plus signs: the Jaccard indices of Table 1's stemming row. Star: two independent masks.", "name": "fig-identity"}, "image": {"alt": "A falling curve from twice k at Jaccard index 0 to k at Jaccard index 1, with points on it: pairs of the decomposition, rows of the paper's Tables 1 and 2, and the point of independent masks."}}
figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.2))
grid = np.linspace(0, 1, 101)
for value in sorted({k, printed_k}):
    ax.plot(grid, 2 * value / (1 + grid), color="black", lw=1, label=f"2k / (1 + J), k = {value:.0%}")
ax.scatter(
    [float(jaccard[p]) for p in pairs],
    [float(remaining[p]) for p in pairs],
    s=14,
    color=figures.COLOURS["ours"],
    label="pairs measured here",
    zorder=3,
)
grey = figures.COLOURS["paper"]
ax.scatter(
    table2["jaccard_index"],
    table2["remaining_parameters_mean"],
    marker="x",
    s=50,
    color=grey,
    label="paper, Table 2",
    zorder=3,
)
ax.scatter(
    stemming["jaccard_index"],
    stemming["remaining_parameters"],
    marker="+",
    s=60,
    color=figures.COLOURS["published"],
    label="paper, Table 1",
    zorder=3,
)
ax.scatter(k / (2 - k), 1 - (1 - k) ** 2, marker="*", s=80, color="black", label="independent masks", zorder=3)
ax.set(xlabel="Jaccard index J of the pair", ylabel="remaining parameters", xlim=(0, 1))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Table 6 and its protocol
#
# Table 6 asks module $i$ about class $j$, on all images of $j$ and as many others. How those others are drawn is not
# said. A *perfect* module $i \ne j$ calls every image of $j$ "another", wrong for half of the set; of the other half
# it gets wrong only those of its own class. With equally frequent classes that is $0.5 \cdot 0 + 0.5 \cdot 8/9$:

# %% tags=["nbval-check-output"]
equal = metrics.off_diagonal(metrics.perfect_balanced_accuracies([1] * 10)).mean(1)
print(f"perfect modules, classes equally frequent: {100 * float(equal[0]):.1f}% off the diagonal")
counts = torch.bincount(labels, minlength=data.num_classes)[list(classes)]
expected = metrics.off_diagonal(metrics.perfect_balanced_accuracies(counts.tolist())).mean(1)
measured_levels = metrics.off_diagonal(balanced).mean(1)
print(f"with the {int(counts.sum())} test images of {dataset}:", " ".join(f"{100 * float(e):.1f}" for e in expected))

# %% [markdown]
# The second line takes the classes as frequent as they are among the test images. If the negatives are drawn uniformly over
# images, as here, a frequent class has a lower level and a rare one a higher; if they were drawn class by class, all
# levels would be the same.

# %%
table6 = pd.read_csv(folder / "table6.csv")
printed6 = {
    share: metrics.off_diagonal(
        torch.tensor(group.pivot(index="module", columns="class", values="accuracy_percent").to_numpy() / 100)
    ).mean(1)
    for share, group in table6.groupby("k_percent")
}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Accuracy of each module on the balanced sets of the other classes, mean over these. Horizontal line: perfect modules, all classes equally frequent. Steps: perfect modules, classes as frequent as in the test split of the data set used here. Grey: the paper's Table 6 (MNIST). Dots: measured here.", "name": "fig-table6-levels"}, "image": {"alt": "For each module, the mean accuracy on other classes' balanced sets: points near 44 per cent, the printed values of the paper in grey, a horizontal line and a step line for perfect modules."}}
figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.4))
position = np.arange(len(classes))
ax.axhline(100 * float(equal[0]), color="black", lw=1, ls=":", label="perfect, equal frequencies")
ax.step(position, 100 * expected, where="mid", color="black", lw=1, label=f"perfect, frequencies of {dataset}")
if len(classes) == 10:
    for (percent, levels), marker in zip(printed6.items(), ("v", "s", "^"), strict=True):
        ax.scatter(
            position, 100 * levels, marker=marker, s=24, color=grey, label=f"paper, MNIST, k = {percent}%", zorder=3
        )
ax.scatter(
    position,
    100 * measured_levels,
    s=26,
    color=figures.COLOURS["ours"],
    label=f"measured, {dataset}, k = {k:.0%}",
    zorder=4,
)
ax.set(xlabel="module", ylabel="accuracy on other classes (%)", xticks=position, xticklabels=classes)
figure.legend(frameon=False, ncols=3, fontsize=8, loc="outside upper center")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
rows = [
    {
        "module": c,
        "test images": int(counts[i]),
        f"perfect, {dataset}": f"{100 * expected[i]:.2f}",
        f"measured, {dataset}": f"{100 * measured_levels[i]:.2f}",
        "measured, own class": f"{100 * balanced[i, i]:.2f}",
    }
    | {f"paper, MNIST, k = {percent}%": f"{100 * levels[i]:.2f}" for percent, levels in printed6.items() if i < 10}
    for i, c in enumerate(classes)
]
tables.table(
    pd.DataFrame(rows),
    "Accuracy (%) of each module on the balanced sets of the other classes, mean over these: perfect, measured, and printed. Classes differ in their levels as their frequencies do.",
    "tab-table6-levels",
)

# %% [markdown]
# A real module lies a little above its perfect level where it overlooks images of its own class: among the negatives of class
# $j$ an overlooked image counts as right.
#
# **One trial, or a mean?** A share of $2 n_j$ images can take few values. If Table 6 came from one trial, all its entries
# would be such shares, rounded. This needs the class counts of MNIST's test images, so it is asked when `dataset` is
# mnist.


# %%
def possible(percent, images):
    """Whether a number with two decimals can be a share of `images`, in per cent."""
    near = percent / 100 * images
    return any(abs(round(100 * n / images, 2) - percent) < 1e-9 for n in (math.floor(near), math.ceil(near)))


grain = {}
if dataset == "mnist":
    for trials in (1, 5):
        sizes = [2 * trials * int(counts[c]) for c in table6["class"]]
        hits = sum(possible(p, n) for p, n in zip(table6["accuracy_percent"], sizes, strict=True))
        by_chance = sum(min(1.0, n / 10_000) for n in sizes)  # a number with two decimals, taken at random
        grain[trials] = (hits, by_chance)

# %% tags=["nbval-check-output"]
table5 = pd.read_csv(folder / "table5.csv")
wrong = 0
for _, group in table5.groupby(["model", "alpha"]):
    average = group[group["module"] == "avg"]["accuracy_percent"].item()
    wrong += abs(group[group["module"] != "avg"]["accuracy_percent"].mean() - average) > 0.0051
print(f"Table 5: the printed average is the mean of its ten modules in {12 - wrong} of 12 columns")

# %% tags=["hide-input"]
gap = 100 * float((measured_levels - expected).abs().max())
text = (
    f"**What came out.** On {dataset} with {model.upper()} (n = 1 seed), the identity RP = 2k / (1 + J) holds for all "
    f"{len(pairs)} pairs to {'machine precision' if error < 1e-12 else f'{error:.1g}'}; the modules' mean Jaccard index is "
    f"{modules.masks.mean_jaccard():.2f}, where independent masks have {k / (2 - k):.3f}, and the same masks score "
    f"{np.mean(value_indices):.3f} by Pan and Rajan's index. On the balanced sets of other classes the modules lie within "
    f"{gap:.1f} points of perfect ones. "
)
text += (
    "Tables 1 and 2 of the paper agree: the Jaccard index of one gives an RP within the range of the other. "
    if agree
    else "Tables 1 and 2 of the paper do not agree about MNIST FC1. "
)
if grain:
    uniform = {p: 100 * float((levels - expected).abs().max()) for p, levels in printed6.items()}
    flat = {p: 100 * float((levels - equal).abs().max()) for p, levels in printed6.items()}
    closer = sum(uniform[p] < flat[p] for p in uniform)
    rank = np.corrcoef(expected, printed6[10])[0, 1]
    hits, chance = grain[1]
    verdict = "so it is not of one trial" if hits < (chance + len(table6)) / 2 else "so it may be of one trial"
    text += (
        f"\n\nTable 6's levels follow the frequencies of MNIST's test images (correlation {rank:.2f} over the ten modules at "
        f"k = 10%): its negatives are drawn {'uniformly over images' if rank > 0.5 else 'in another way'}. "
        f"{hits} of its {len(table6)} entries can be the share of a single trial, where {chance:.0f} would by chance; "
        f"{grain[5][0]} can be a mean over five ({grain[5][1]:.0f} by chance): {verdict}."
    )
Markdown(text)

# %% [markdown]
# **What it means.** The paper's numbers obey the identities checked on this page, but for one sentence: "RPs close to 0.5"
# cannot be, because a pair at $k = 10\%$ has between 0.10 and 0.20. (Other sentences that its own tables contradict are on the
# [scoreboard](scoreboard.ipynb).) Its balanced protocol can be rebuilt from its own table. Two
# things to keep in mind on every page: RPs and Jaccard index carry the same information, so a table that shows both shows
# one result; and the accuracy of a module on *all* images starts at nine in ten for a module that always says
# "another", so balanced accuracy tells more.
#
# **Re-run it:** `modlib reproduce evaluation -p alpha 0.0`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {
    "dataset": dataset,
    "model": model,
    "parent_epochs": parent_epochs,
    "recipe": "ours",
    "k": k,
    "alpha": alpha,
    "epochs": epochs,
    "batch_size": batch_size,
    "seed": seed,
}
tables.where_from([], "tab-from-evaluation", shown, time.perf_counter() - started)
