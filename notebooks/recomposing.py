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
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from safetensors.torch import save_file

import modlib
from modlib import grafting
from modlib.study import example, figures, tables
from modlib.study.pages import recomposing as page
from modlib.study.records import Store
from modlib.study.single_class import masked_logits
from modlib.zoo import datasets, parents, training

figures.use_style()
started = time.perf_counter()
settings = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "k": k, "alpha": alpha}
settings |= {"epochs": epochs, "batch_size": batch_size, "subsets_per_size": subsets_per_size, "seed": seed}

# %% [markdown]
# ## From modules to a network
#
# One decomposition (our recipe) serves the whole page.

# %%
data = datasets.load(dataset)
modules, records = example.decompose(example.trial(**settings), data, Store.at(results))
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
def one_by_one(asked: list[int]) -> torch.Tensor:
    """Each module's log-odds from the parent, its own mask and its own grafting layer: [B, len(asked)]."""
    chosen = modules.select(asked)
    graftings = zip(chosen.grafting_weight, chosen.grafting_bias, strict=True)
    logits = masked_logits(chosen, inputs)  # of the parent under each mask
    grafted = [grafting.graft(of_mask, *layer) for of_mask, layer in zip(logits, graftings, strict=True)]
    return grafting.log_odds(torch.stack(grafted, dim=1))


# %% tags=["nbval-check-output"]
for asked in (subset, [classes[0]], list(classes)):
    recomposed, alone = modules.recompose(asked), one_by_one(asked)
    same = torch.allclose(recomposed.log_odds(inputs), alone, atol=1e-5)
    votes = torch.tensor(asked)[alone.argmax(1)]
    print(
        f"{len(asked)} of {len(classes)} classes: equal log-odds: {same}, equal votes:",
        torch.equal(recomposed.predict(inputs), votes),
    )
single = modules.recompose([classes[0]])
print("a single class always wins its vote:", set(single.predict(inputs).tolist()) == {classes[0]})
print("and still says yes or no:           ", sorted(set((single(inputs) > 0.5).flatten().tolist())))
print("union of all = remaining of all:    ", modules.recompose(classes).remaining == modules.remaining())

# %% [markdown]
# ## Every pair of classes
#
# Two classes are the smallest task that needs a vote. Beside the vote of the two modules stands the parent, told to choose
# between the same two classes: the larger of its two logits wins.

# %%
log_odds = modules.log_odds(inputs)  # [images, classes]: one pass serves every subset
logits, _ = training.logits(modules.parent, data, "test")
subsets = page.Subsets(data.name, modules, log_odds, logits, labels)
pairs = subsets.pairs()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Every pair of classes, in percent. Left: accuracy of the vote on the test images of the two classes. Right: remaining parameters of the network recomposed for them.", "name": "fig-pairs"}, "image": {"alt": "Two heat maps of ten by ten classes: the accuracy of every pair's vote, and the share of the parent's weights that every pair keeps."}}
subsets.draw_pairs()
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.pairs_table(pairs, data.name)

# %% [markdown]
# ## Subsets of growing size
#
# How large does the network become, and how well does it classify, when it grows class by class? For every number of
# classes $K$, some subsets are drawn (all, where there are few). Three sizes frame the result: one module, $k$; modules
# with no edge in common, $K k$; and independent masks, $1 - (1 - k)^K$.

# %%
grown = subsets.grown(subsets_per_size, seed)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Networks recomposed for K classes: mean over the drawn subsets, the band spans the smallest and the largest. Left: remaining parameters, with the sizes of independent masks (dashed) and of masks with no edge in common (dotted). Right: accuracy on the test images of the subset's classes, of the vote and of the parent told to choose among the same classes (a single class always wins).", "name": "fig-growing"}, "image": {"alt": "Two line charts over the number of classes: the share of weights that remains, with two reference curves, and the accuracy of the vote and of the parent."}}
page.draw_grown(grown, k)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.grown_table(grown, k, data.name)

# %% [markdown]
# ## How long it takes
#
# Recomposing copies and masks weights. A prediction costs one masked pass for every module, where the parent needs one in
# all: the network is small, but not faster than its parent unless the zeros are made use of.

# %%
times = page.Times.of(modules, inputs[:256], repeats)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
times.table()

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
        modlib.load(path, parents.make(model, data, seed=seed + 1))
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
page.what_came_out(pairs, grown, k, times, bytes_of, data.name)

# %% [markdown]
# **What it means.** A subset's network is put together by a union and a copy, and answers exactly as its modules do. It
# is small in *weights kept*; beside these it holds one mask and one grafting layer for each module, and a prediction takes
# one pass for each. How small the union stays as classes are added is what [module stemming](module_stemming.ipynb) is
# for.
#
# **Re-run it:** `modlib reproduce recomposing -p alpha 0`, to see the same without stemming.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-recomposing", settings, spent)
