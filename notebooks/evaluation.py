# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Measuring modules: two of the four quantities are one
#
# **Question.** By what are modules judged, and do the paper's printed numbers agree with each other?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges kept in every layer
alpha: float = 1.0  # stemming
epochs: int = 12  # epochs of the decomposition
batch_size: int = 32  # images in a batch
seed: int = 0  # seed of the parent, the decomposition and the balanced sets
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import time
from itertools import combinations

import matplotlib.pyplot as plt
import torch

from modlib import metrics
from modlib.study import example, figures, tables
from modlib.study.methods import stemming_weights
from modlib.study.pages import evaluation as page
from modlib.study.printed import numbers
from modlib.study.records import Store
from modlib.study.trials import trial_modules
from modlib.zoo import datasets

figures.use_style()
started = time.perf_counter()
settings = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "recipe": "ours", "k": k}
settings |= {"alpha": alpha, "epochs": epochs, "batch_size": batch_size, "seed": seed}
data = datasets.load(dataset)
modules = trial_modules(example.trial(**settings), data, Store.at(results))
images, labels = data.split("test")
classes = modules.classes

log_odds = modules.log_odds(data.inputs(images))
jaccard = modules.masks.jaccard()
remaining = modules.masks.remaining_of_pairs()
balanced = metrics.balanced_accuracies(log_odds, labels, classes, seed)
value_index = metrics.value_index(stemming_weights(modules))  # mean over the pairs

share = remaining.diagonal()  # of each module by itself
pairs = list(combinations(range(len(classes)), 2))
error = max(abs(float(remaining[a, b]) - 2 * float(share[a]) / (1 + float(jaccard[a, b]))) for a, b in pairs)

table1, table2, table5 = (numbers(f"table{number}") for number in (1, 2, 5))
printed_k = page.PRINTED_K  # of Tables 1 and 2
table2["jaccard_index"] = 2 * printed_k / table2["remaining_parameters_mean"] - 1
stemming = table1[table1["method"] == "module stemming"].copy()
stemming["remaining_parameters"] = metrics.remaining_from_jaccard(printed_k, stemming["jaccard_index"])
mnist_fc1 = stemming[(stemming["dataset"] == "mnist") & (stemming["model"] == "fc1")].iloc[0]
full = table2[table2["initial_score_sharing"] & table2["stemming_loss"]].iloc[0]
agree = full.best <= mnist_fc1.remaining_parameters <= full.worst

equal = metrics.off_diagonal(metrics.perfect_balanced_accuracies([1] * 10)).mean(1)
counts = torch.bincount(labels, minlength=data.num_classes)[list(classes)]
expected = metrics.off_diagonal(metrics.perfect_balanced_accuracies(counts.tolist())).mean(1)
levels = page.Levels(dataset, k, classes, counts, equal, expected, balanced)

# %% tags=["remove-input"]
page.answer(modules, error, agree)

# %% [markdown]
# **Caveat.** One decomposition is measured here. The identity holds for any that keeps the same share in every module.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Remaining parameters of a pair against the Jaccard index of its masks. Curve: the identity. Dots: all pairs of the decomposition. Crosses: the means that the paper's Table 2 prints, with and without stemming loss. Plus signs: the Jaccard indices of its Table 1. Star: two independent masks.", "name": "fig-identity"}, "image": {"alt": "A falling curve from twice k at Jaccard index 0 to k at Jaccard index 1, with points on it: pairs of the decomposition, rows of the paper's Tables 1 and 2, and the point of independent masks."}}
page.draw_identity(modules.masks, k, stemming, table2)
plt.show()

# %% [markdown]
# ## The quantities
#
# The paper (section "Evaluation") {cite:p}`kingetsu2021` uses four: the Jaccard index of two masks, the accuracy of modules
# and of their vote, the accuracy of recomposed networks, and the remaining parameters (RPs). Two modules $a$ and $b$ with
# masks $\mathcal M_a, \mathcal M_b$ over $n$ edges have
#
# $$J = \frac{|\mathcal M_a \wedge \mathcal M_b|}{|\mathcal M_a \vee \mathcal M_b|}, \qquad
# \text{RP} = \frac{|\mathcal M_a \vee \mathcal M_b|}{n}.$$
#
# Here they are measured on a decomposition by [our recipe](table4.ipynb), without vote loss. The log-odds of all modules are
# computed once. Every accuracy follows from them.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.metrics_table(modules, log_odds, balanced, value_index, data)

# %% [markdown]
# A module that always says "another" is right on nine in ten of *all* images. In a balanced set half of the images are of
# the module's class, so balanced accuracy shows more.
#
# The "Jaccard index" of the three older methods in the paper's Table 1 is another quantity. {cite:t}`pan2020` count the
# distinct weight *values* $u$ that two modules share, zero among them, and divide by $2n - u$. By that index two *equal*
# masks have $k / (2 - k)$. By the Jaccard index two *independent* masks have the same. So the two can't be compared.
#
# ## One identity ties Jaccard index and remaining parameters
#
# Two modules that keep the same share $k$ and have the Jaccard index $J$ need together
#
# $$\text{RP} = \frac{2k}{1+J}.$$
#
# The reason is short: both masks keep $kn$ edges, so intersection and union have $2kn$ together, and the intersection is $J$
# times the union. So a table that shows both quantities shows one result. On two masks of six edges:

# %% tags=["nbval-check-output"]
a = torch.tensor([1, 1, 1, 0, 0, 0]).bool()
b = torch.tensor([0, 1, 1, 1, 0, 0]).bool()
J, kept = float((a & b).sum() / (a | b).sum()), float(a.float().mean())
RP = float((a | b).float().mean())
print(f"J = {J}, RP = {RP:.4f}, 2k / (1 + J) = {2 * kept / (1 + J):.4f}")

# %% tags=["remove-input"]
page.about_the_identity(mnist_fc1, full)

# %% [markdown]
# The [scoreboard](scoreboard.ipynb) has other sentences of the paper that its own tables contradict.
#
# ## The paper's Table 6 and how it asks
#
# The table asks module $i$ about class $j$, on all images of $j$ and as many others. The paper does not say how those others
# are drawn. A *perfect* module $i \ne j$ calls every image of $j$ "another", which counts as wrong: that is half of the set.
# Of the other half it gets only the images of its own class wrong. With ten equally frequent classes that makes
# $0.5 \cdot 0 + 0.5 \cdot 8/9 = 44.4\%$.
#
# If the others are drawn uniformly over images, as here, modules of frequent classes are right less often and those of rare
# ones more often. If they were drawn class by class, all perfect modules would be equally right.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Accuracy of each module on the balanced sets of the other classes, mean over these. Horizontal line: perfect modules, all classes equally frequent. Steps: perfect modules, classes as frequent as in the test split. Grey: the paper's Table 6 (MNIST). Dots: measured here.", "name": "fig-table6-levels"}, "image": {"alt": "For each module, the mean accuracy on other classes' balanced sets: points near 44 per cent, the printed values of the paper in grey, a horizontal line and a step line for perfect modules."}}
levels.draw()
plt.show()

# %% tags=["remove-input"]
page.about_table_6(levels)

# %% [markdown]
# A real module can lie a little above a perfect one: it misses images of its own class, and among the others a missed image
# counts as right.

# %% tags=["hide-cell"] mystnb={"markdown_format": "myst"}
levels.table()

# %% tags=["remove-cell", "nbval-check-output"]
print(f"{len(pairs)} pairs; every module keeps the same number of edges: {bool((share == share[0]).all())}")
print(f"RP = 2k / (1 + J) for all of them, to 12 digits: {error < 1e-12}")
both, either = printed_k**2, 1 - (1 - printed_k) ** 2
print(f"two independent masks at k = 10%: RP {either:.3f}, Jaccard index {both / either:.3f}")
print(f"two equal masks: RP {printed_k:.3f}, Pan and Rajan's index {printed_k / (2 - printed_k):.3f}")

# %% tags=["remove-cell", "nbval-check-output"]
means, best, worst = (table2[name] for name in ("remaining_parameters_mean", "best", "worst"))
ordered, inside = (best <= means) & (means <= worst), (best >= printed_k) & (worst <= 2 * printed_k)
print(f"Table 2: best <= mean <= worst in {ordered.sum()} of {len(table2)} rows; between k and 2k in {inside.sum()}")
print(f"Table 1, MNIST FC1: Jaccard index {mnist_fc1.jaccard_index}, so RP {mnist_fc1.remaining_parameters:.3f}")
print(f"Table 2, both means: RP {full.remaining_parameters_mean}, so Jaccard index {full.jaccard_index:.2f}")
print(f"Table 1's value lies between Table 2's best ({full.best}) and worst ({full.worst}): {agree}")
print(f'"RPs close to 0.5": possible for a pair at k = 10%: {printed_k <= 0.5 <= 2 * printed_k}')

# %% tags=["remove-cell", "nbval-check-output"]
print(f"perfect modules, classes equally frequent: {100 * float(equal[0]):.1f}% off the diagonal")
print(f"with the {int(counts.sum())} test images of {dataset}:", " ".join(f"{100 * float(e):.1f}" for e in expected))
wrong = 0
for _, group in table5.groupby(["model", "alpha"]):
    average = group[group["module"] == "avg"]["accuracy_percent"].item()
    wrong += abs(group[group["module"] != "avg"]["accuracy_percent"].mean() - average) > 0.0051
print(f"Table 5: the printed average is the mean of its ten modules in {12 - wrong} of 12 columns")

# %% [markdown]
# ## Exercise
#
# The Jaccard index of a pair gives the remaining parameters of the pair. Do the Jaccard indices of all three pairs give the
# remaining parameters of three modules? Try masks of two edges each.
#
# :::{admonition} Solution
# :class: dropdown
#
# No. Take the edges 1 and 2, 2 and 3, 1 and 3: each pair shares one edge of three, and the union has three. Now take 1 and 2,
# 1 and 3, 1 and 4: each pair shares one edge of three again, but the union has four. So for more than two modules the
# remaining parameters say something that the Jaccard index does not.
#
# ```python
# import torch
# from modlib.masking import MaskSet
#
# for edges in ([(0, 1), (1, 2), (0, 2)], [(0, 1), (0, 2), (0, 3)]):
#     masks = torch.zeros(3, 1, 4, dtype=torch.bool)
#     for mask, kept in zip(masks, edges):
#         mask[0, list(kept)] = True
#     three = MaskSet({"layer": masks}, classes=(0, 1, 2))
#     J, RP = three.mean_jaccard(), three.remaining()
#     print(f"J of every pair: {J:.3f}, remaining parameters of all: {RP:.0%}")
# ```
#
# ```text
# J of every pair: 0.333, remaining parameters of all: 75%
# J of every pair: 0.333, remaining parameters of all: 100%
# ```
# :::
#
# ```{admonition} Take-aways
# - For pairs, Jaccard index and remaining parameters are one quantity. For more modules they are two.
# - Accuracy over all images flatters a single module. A balanced set does not.
# - The "Jaccard index" of the older methods counts weight values, so it does not compare with that of masks.
# ```
#
# **Re-run it:** `modlib reproduce evaluation -p alpha 0.0`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from([], "tab-from-evaluation", settings, time.perf_counter() - started)
