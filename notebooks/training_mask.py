# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training a mask: choose edges, change no weight
#
# **Question.** Can a trained network be cut down to a small subnetwork that recognises one class, by choosing edges only,
# without changing a weight?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges kept in every layer
epochs: int = 8  # epochs of mask training
batch_size: int = 32  # images in a batch
target: int = 3  # the class whose module is looked at
seed: int = 0  # seed of the parent, the scores and the batches
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import time

import matplotlib.pyplot as plt
import torch

import modlib
from modlib import masking
from modlib.decomposers.fixed_masks import fixed_masks
from modlib.parent import functional_call
from modlib.study import figures, tables
from modlib.study.pages import training_mask as page
from modlib.study.records import Store
from modlib.study.trials import trained_parent
from modlib.zoo import datasets

figures.use_style()
started = time.perf_counter()
data = datasets.load(dataset)
parent = trained_parent(data, model, seed, parent_epochs, Store.at(results))
weights = masking.maskable_parameters(parent)
initial = fixed_masks(parent, "random", k, seed, range(data.num_classes))  # what all modules start from
watch = page.Watch(data, target, initial, seed)
recipe = modlib.published(k=k, alpha=0.0, epochs=epochs, batch_size=batch_size)
modules = modlib.cotrain(parent, data, recipe=recipe, seed=seed, device="cpu", callback=watch)

# %% tags=["remove-input"]
watch.answer(k, model)

# %% [markdown]
# **Caveat.** One module of one network is watched, on held-out images. A module also has a small
# [grafting layer](grafting_layer.ipynb), which was trained with the mask.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "A module while its mask is trained. Left: accuracy on held-out images, asked on all images and on a set with as many positives as negatives. Right: share of the first layer's kept edges that differ from the initial mask.", "name": "fig-mask-training"}, "image": {"alt": "Two curves over epochs: the accuracy of one module rises to a plateau, and the share of its first layer edges that were exchanged grows epoch by epoch."}}
watch.draw()
plt.show()

# %% [markdown]
# ## The idea
#
# The paper (section "Training Mask") {cite:p}`kingetsu2021` follows edge-popup {cite:p}`ramanujan2020`. Every edge of the
# frozen parent gets a *score* $\mathcal S$. In each layer the mask $\mathcal M$ keeps the edges with the highest scores, a
# share $k$ of them. The masked network computes
#
# $$\hat{\mathbf y} = (W \odot \mathcal M)^\top \mathbf x, \qquad \mathcal M = h(\mathcal S).$$
#
# The choice $h$ has no useful gradient: a small change of a score changes nothing, or flips an edge. So the backward pass
# leaves $h$ out, $\partial L/\partial \mathcal S = \partial L/\partial \mathcal M$. That is called a *straight-through*
# gradient.
#
# ## What is masked
#
# By default the weights of linear and convolutional layers are masked, and biases are not.

# %% tags=["remove-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
page.kept_table(weights, k)

# %% [markdown]
# ## One step by hand
#
# The definition fits in a few lines. `top_k_mask` is $h$. `straight_through` has the value of the mask and the gradient of
# the scores.

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
# Edges that are *not* kept get a gradient too, here $x_j w_j$ for each of them. That is how an edge can pop up again.
#
# ## Training
#
# `cotrain` trains the masks of all classes. The call of this page is
#
# ```python
# recipe = modlib.published(alpha=0.0)
# modules = modlib.cotrain(parent, data, recipe=recipe, seed=0)
# ```
#
# With $\alpha = 0$ there is no stemming loss, and every module looks for its own edges. The recipe `published` has
# constant rates, because the paper names no schedule. The parent under one module's mask is the parent with other weights:

# %% tags=["nbval-check-output"]
row = modules.classes.index(target)
masks = modules.masks.masks  # layer -> [modules, *shape of the weight]
masked = {name: weight * masks[name][row] for name, weight in weights.items()}
inputs = data.inputs(data.held_out_images[:5])
logits = functional_call(parent, masked, (inputs,))  # for the grafting layer
same = [((m == 0) | (m == weights[n])).all() for n, m in masked.items()]
print("kept weights are the parent's:", all(map(bool, same)))
print("logits of five images:", list(logits.shape))

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Which pixels the module reads. Each panel is one class's first-layer mask at the image's size: the number of hidden neurons that keep an edge from that pixel.", "name": "fig-first-layer"}, "image": {"alt": "Ten small images, one for each module: bright pixels are those that many hidden neurons read; they lie in the middle, where digits are drawn."}}
first, shape = next(iter(weights)), tuple(data.train_images.shape[1:3])
figures.first_layer_masks(modules.masks.masks[first], shape, modules.classes)
plt.show()

# %% [markdown]
# ## Exercise
#
# Four edges lead to an output that should get as large as possible. Their weights are 1, 2, 0 and 3, their inputs are 1,
# and their scores are 0.5, 0.4, 0.3 and 0.11. Two edges are kept, and the rate is 0.01. After how many steps does the last
# edge pop up? What if only kept edges got a gradient?
#
# :::{admonition} Solution
# :class: dropdown
#
# A step adds $0.01\, w_j x_j$ to score $j$. The first two edges are kept. After $t$ steps the first has $0.5 + 0.01\,t$ and
# the last $0.11 + 0.03\,t$, which is more from $t = 20$ on. If only kept edges got a gradient, the last would never move.
#
# ```python
# import torch
# from modlib import masking
#
# weight = torch.tensor([1.0, 2.0, 0.0, 3.0])
# for only_kept in (False, True):
#     scores, popped_up = torch.tensor([0.5, 0.4, 0.3, 0.11]), None
#     for step in range(1, 101):
#         scores.requires_grad_()
#         mask = masking.top_k_mask(scores.detach(), keep=2).float()
#         output = (weight * masking.straight_through(mask, scores)).sum()
#         (gradient,) = torch.autograd.grad(output, scores)
#         scores = scores.detach() + 0.01 * gradient * (mask if only_kept else 1)
#         if popped_up is None and masking.top_k_mask(scores, keep=2)[3]:
#             popped_up = step
#     print(f"only kept edges: {only_kept}, the last edge pops up at step {popped_up}")
# ```
#
# ```text
# only kept edges: False, the last edge pops up at step 20
# only kept edges: True, the last edge pops up at step None
# ```
# :::
#
# ```{admonition} Take-aways
# - A class can be carried by a choice of edges: no weight of the parent changes.
# - Scores are trained, and the mask follows from them. Edges that are not kept get a gradient too.
# - In long training every module finds edges of its own, unless something pulls them together. [Module
#   stemming](module_stemming.ipynb) makes them agree.
# ```
#
# **Re-run it:** `modlib reproduce training_mask -p k 0.05`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
shown = {"dataset": dataset, "model": model, "k": k, "epochs": epochs, "batch_size": batch_size, "seed": seed}
tables.where_from([], "tab-from-training-mask", shown, time.perf_counter() - started)
