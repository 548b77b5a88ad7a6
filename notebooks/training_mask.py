# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training a mask
#
# **Question.** Can a trained network be cut down to a small subnetwork that recognises one class, by choosing edges
# only, without changing a weight?
#
# The paper (section "Training Mask") follows edge-popup {cite:p}`ramanujan2020`. Every edge of the frozen parent gets a
# score $\mathcal S$; the mask keeps the top $k$ share of each layer, and the masked network computes
#
# $$\hat{\mathbf y} = (W \odot \mathcal M)^\top \mathbf x, \qquad \mathcal M = h(\mathcal S).$$
#
# The choice $h$ has no useful gradient, so the backward pass goes straight through it: $\partial L/\partial \mathcal S =
# \partial L/\partial \mathcal M$. This page trains such a mask and looks at what it keeps.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges kept in every layer
epochs: int = 8  # epochs of mask training
batch_size: int = 32  # images in a batch
target: int = 3  # the class whose module is looked at
seed: int = 0  # seed of the parent, the scores and the batches
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import torch

import modlib
from modlib import masking
from modlib.decomposers.fixed_masks import fixed_masks
from modlib.study import figures, tables
from modlib.study.pages import training_mask as page
from modlib.study.records import Store
from modlib.study.trials import trained_parent
from modlib.zoo import datasets

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## The parent, and what is masked
#
# The parent is trained as usual and then frozen. By default the weights of its linear and convolutional layers are
# masked; biases are not.

# %%
data = datasets.load(dataset)
parent = trained_parent(data, model, seed, parent_epochs, Store.at(results))
weights = masking.maskable_parameters(parent)

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
page.kept_table(weights, k)

# %% [markdown]
# ## One step by hand
#
# The definition fits in a few lines. `top_k_mask` is $h$; `straight_through` has the value of the mask and the gradient
# of the scores.

# %% tags=["nbval-check-output"]
weight = torch.tensor([[0.5, -1.0, 2.0, 0.1]])
scores = torch.tensor([[0.3, 0.9, 0.1, 0.4]], requires_grad=True)
mask = masking.top_k_mask(scores.detach(), keep=2)
x = torch.tensor([1.0, 2.0, 3.0, 4.0])
y = (weight * masking.straight_through(mask.float(), scores)) @ x
y.backward()
print("mask    ", mask.int().tolist())
print("output  ", [round(v, 4) for v in y.tolist()])
print("gradient", [[round(v, 4) for v in row] for row in scores.grad.tolist()])

# %% [markdown]
# Edges that are *not* kept get a gradient too, here $x_j w_j$ for each of them: that is how an edge can pop up again.
#
# ## Training
#
# `cotrain` trains the masks of all classes. Here the stemming loss is off ($\alpha = 0$): every module looks for its own
# edges. The recipe is `published`: constant rates, because the paper names no schedule.

# %%
initial = fixed_masks(parent, "random", k, seed, range(data.num_classes))  # what all modules start from
watch = page.Watch(data, target, initial, seed)
modules = modlib.cotrain(
    parent, data, k=k, alpha=0.0, epochs=epochs, batch_size=batch_size, seed=seed, device="cpu", callback=watch
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A module while its mask is trained. Left: accuracy on held-out images, asked on all images and on a set with as many positives as negatives. Right: share of the first layer's kept edges that differ from the initial mask.", "name": "fig-mask-training"}, "image": {"alt": "Two curves over epochs: the accuracy of one module rises to a plateau, and the share of its first layer edges that were exchanged grows epoch by epoch."}}
watch.draw()
plt.show()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Which pixels the module reads. Each panel is one class's first-layer mask at the image's size: the number of hidden neurons that keep an edge from that pixel.", "name": "fig-first-layer"}, "image": {"alt": "Ten small images, one for each module: bright pixels are those that many hidden neurons read; they lie in the middle, where digits are drawn."}}
first, shape = next(iter(weights)), tuple(data.train_images.shape[1:3])
figures.first_layer_masks(modules.masks.masks[first], shape, modules.classes)
plt.show()

# %% tags=["hide-input"]
watch.what_came_out(k)

# %% [markdown]
# **What it means.** Edges carry the class: no weight of the parent was changed. (A module also has a small grafting layer, which was trained;
# what it adds is [another page](grafting_layer.ipynb).) Without a common pull, each module found edges of
# its own; [module stemming](module_stemming.ipynb) makes them agree.
#
# **Re-run it:** `modlib reproduce training_mask -p k 0.05`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {"dataset": dataset, "model": model, "k": k, "epochs": epochs, "batch_size": batch_size, "seed": seed}
tables.where_from([], "tab-from-training-mask", shown, time.perf_counter() - started)
