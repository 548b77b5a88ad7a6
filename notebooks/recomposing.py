# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Recomposing takes milliseconds and no training
#
# **Question.** How do modules make a network for *some* of the classes? How large and how accurate is it, and how long does
# it take?

# %% tags=["parameters", "remove-input"]
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

# %% tags=["remove-cell"]
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
data = datasets.load(dataset)
modules, records = example.decompose(example.trial(**settings), data, Store.at(results))  # by our recipe
classes = modules.classes
images, labels = data.split("test")
inputs = data.inputs(images)
log_odds = modules.log_odds(inputs)  # [images, classes]: one pass serves every subset
logits, _ = training.logits(modules.parent, data, "test")
subsets = page.Subsets(data.name, modules, log_odds, logits, labels)
pairs, grown = subsets.pairs(), subsets.grown(subsets_per_size, seed)
times = page.Times.of(modules, inputs[:256], repeats)

# %% tags=["remove-input"]
page.answer(pairs, grown, times, data.name, model)

# %% [markdown]
# **Caveat.** One decomposition by *our* recipe without vote loss; the paper's own loses more ([Table 1](table1.ipynb)). Each
# module needs a pass with its own mask. So a network of many modules is small, but slower than its parent.
# For faster ones see [small networks](small_networks.ipynb).

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Networks recomposed for K classes: mean over the drawn subsets, the band spans the smallest and the largest. Left: remaining parameters, with the sizes of independent masks (dashed) and of masks with no edge in common (dotted). Right: accuracy on the test images of the subset's classes, of the vote and of the parent restricted to the same classes (a single class always wins).", "name": "fig-growing"}, "image": {"alt": "Two line charts over the number of classes: the share of weights that remains, with two reference curves, and the accuracy of the vote and of the parent."}}
page.draw_grown(grown, k)
plt.show()

# %% [markdown]
# ## From modules to a network
#
# The paper (section "Recomposing") {cite:p}`kingetsu2021`: the deployed network is the union of the supermasks of the
# subset's modules. It "makes predictions by sequentially applying supermasks and the grafting layer and then voting by a
# confidence score (e.g., max softmax score) without retraining". For a subset $C$ of the classes, with the parent's
# weights $W$ and the log-odds $d_c$ of module $c$,
#
# $$W_C = W \odot \bigvee_{c \in C} \mathcal M_c, \qquad \text{answer} = \arg\max_{c \in C}\ d_c(\mathbf x).$$
#
# `recompose` copies the parent, sets all weights outside the union to zero, and puts the masks and the grafting layers
# beside it. The result is an ordinary `torch.nn.Module`. Images go in, and one confidence for each asked class comes out,
# in the order in which the classes were asked for. `predict` returns the winner of the vote.

# %%
network = modules.recompose(subset)
inside = torch.isin(labels, torch.tensor(subset))
confidences = network(inputs[inside])  # [images, len(subset)]
predicted = network.predict(inputs[inside])

# %% tags=["nbval-check-output"]
within = bool(((confidences >= 0) & (confidences <= 1)).all())
print("confidences:", confidences.shape[1], "for each image, all in [0, 1]:", within)
print("predicted classes are asked ones:", set(predicted.tolist()) <= set(subset))
print("anything to train:", any(p.requires_grad for p in network.parameters()))
swapped = modules.recompose(subset[::-1])
same = torch.allclose(swapped(inputs).flip(1), network(inputs))
print("asked the other way round, confidences are swapped:", same)

# %% [markdown]
# ## Nothing is lost by putting modules together
#
# A module's mask is part of the union, so it finds the same weights in the recomposed network as in the parent. So the
# network must answer exactly as the modules do one by one on the parent. The code checks that for the example, for a single
# class, and for all classes:


# %%
def one_by_one(asked: list[int]) -> torch.Tensor:
    """The log-odds of each module, by its own mask and grafting layer: [B, K]."""
    of = modules.select(asked)
    logits = masked_logits(of, inputs)  # of the parent under each mask
    parts = zip(logits, of.grafting_weight, of.grafting_bias, strict=True)
    grafted = [grafting.graft(*part) for part in parts]
    return grafting.log_odds(torch.stack(grafted, dim=1))


# %% tags=["nbval-check-output"]
for asked in (subset, [classes[0]], list(classes)):
    recomposed, alone = modules.recompose(asked), one_by_one(asked)
    same = torch.allclose(recomposed.log_odds(inputs), alone, atol=1e-5)
    equal = torch.equal(recomposed.predict(inputs), torch.tensor(asked)[alone.argmax(1)])
    print(f"{len(asked)} of {len(classes)}: equal log-odds: {same}, equal votes: {equal}")
single = modules.recompose([classes[0]])
print("a single class always wins:", set(single.predict(inputs).tolist()) == {classes[0]})
print("and still says yes or no:", (single(inputs) > 0.5).unique().tolist())

# %% [markdown]
# ## Every pair of classes
#
# Two classes are the smallest task that needs a vote. Beside the vote stands the *restricted parent*: the larger of its
# logits of the same two classes wins.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Every pair of classes, in percent. Left: accuracy of the vote on the test images of the two classes. Right: remaining parameters of the network recomposed for them.", "name": "fig-pairs"}, "image": {"alt": "Two heat maps of ten by ten classes: the accuracy of every pair's vote, and the share of the parent's weights that every pair keeps."}}
subsets.draw_pairs()
plt.show()

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.pairs_table(pairs, data.name)

# %% [markdown]
# ## Subsets of growing size
#
# Three sizes frame {numref}`fig-growing`: one module, $k$; $K$ modules with no edge in common, $K k$; and $K$ independent
# masks, $1 - (1 - k)^K$. For every number of classes $K$ some subsets are drawn, or all of them where there are few.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.grown_table(grown, k, data.name)

# %% [markdown]
# ## How long it takes
#
# Recomposing copies and masks weights. A prediction takes a masked pass for every module, where the parent needs one pass in
# all. If all layers are linear, the passes are joined into one wide, sparse network, which is faster.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
times.table()

# %% [markdown]
# ## Save and load
#
# One file holds the modules: masks of one bit an edge, and grafting layers. The parent is not in it. It is a safetensors
# file, so it holds no code. Loading refuses any parent but the one that was decomposed.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = {name: Path(folder) / f"{name}.safetensors" for name in ("modules", "parent")}
    modules.save(path["modules"])
    loaded = modlib.load(path["modules"], modules.parent)
    save_file(modules.parent.state_dict(), path["parent"])
    bytes_of = {name: file.stat().st_size for name, file in path.items()}
    try:
        modlib.load(path["modules"], parents.make(model, data, seed=seed + 1))
        refused = "no"
    except ValueError as error:
        refused = str(error).split(":")[0]

# %% tags=["nbval-check-output"]
masks, again = modules.masks.masks, loaded.masks.masks
edges = sum(mask[0].numel() for mask in masks.values())
packed = sum(-(-mask[0].numel() // 8) for mask in masks.values())
extra = modules.extra_parameters()["grafting"]
print("equal masks after loading:", all(torch.equal(masks[n], again[n]) for n in masks))
print("equal answers:", torch.allclose(loaded.log_odds(inputs), log_odds))
print("another parent is refused; the error names:", refused)
print(f"a module in the file: {packed} bytes of masks for {edges} edges,")
print(f"and {extra} numbers of its grafting layer")

# %% tags=["remove-input"]
page.of_files(bytes_of)

# %% [markdown]
# A subset has a file of its own, which needs no parent ([ship it](../shipping.md)):

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.files_table(modules, data.name, model)

# %% [markdown]
# ## Exercise
#
# Why a pass for each module? The union holds the edges of all of them. Run it once, and give its logits to all grafting
# layers. What becomes of the vote?
#
# :::{admonition} Solution
# :class: dropdown
#
# It gets much worse. Edges that a module has left out now add to its neurons, and its grafting layer has never seen such
# logits. A module is a mask *and* a grafting layer, so each module needs its own pass.
#
# ```python
# import torch
# import modlib
# from modlib import grafting
# from modlib.zoo import datasets, parents, training
#
# data = datasets.load("digits")
# parent = parents.make("fc1", data, seed=0)
# training.train(parent, data, epochs=20, seed=0)
# recipe = modlib.ours(alpha=0.0, epochs=10, batch_size=16)
# modules = modlib.cotrain(parent, data, recipe=recipe, seed=0, device="cpu")
# inputs, labels = data.inputs(data.test_images), data.test_labels
#
# masks = modules.masks.union()
# union = {name: parent.get_parameter(name) * mask for name, mask in masks.items()}
# logits = torch.func.functional_call(parent, union, (inputs,))  # one pass for all
# layers = zip(modules.grafting_weight, modules.grafting_bias)
# grafted = torch.stack([grafting.graft(logits, *layer) for layer in layers], dim=1)
# one_pass = (grafting.log_odds(grafted).argmax(1) == labels).double().mean()
# vote = (modules.recompose(modules.classes).predict(inputs) == labels).double().mean()
# print("one pass loses more than ten points:", bool(one_pass < vote - 0.1))
# ```
#
# ```text
# one pass loses more than ten points: True
# ```
# :::
#
# ```{admonition} Take-aways
# - Recomposing is a union and a copy: it takes milliseconds, and the network answers exactly as its modules do.
# - The network is small in weights kept. It also holds one mask and one grafting layer for each module.
# - Each module needs a pass of its own. [Module stemming](module_stemming.ipynb) keeps the union small, not fast.
# ```
#
# **Re-run it:** `modlib reproduce recomposing -p alpha 0`, to see the same without stemming.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-recomposing", settings, spent)
