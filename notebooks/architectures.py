# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Any architecture: all networks tried can be decomposed, at hardly more than a plain step
#
# **Question.** The abstract says that the method *requires no assumption about the network architecture*. Which networks does
# it take, and how much more than a plain training step does a step of a module cost?

# %% tags=["parameters", "remove-input"]
models: list[str] = [
    "squeezenet1_1",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
]  # classification models of torchvision
parents: list[str] = ["vgg16_quarter"]  # parents of this book, on images of 32 x 32
cut: list[str] = ["squeezenet1_1", "mobilenet_v3_small"]  # those of torchvision that channels are cut out of
precisions: list[str] = []  # of these parents: float32, bfloat16; empty: those that the device computes in natively
image_size: int = 64  # side of the images for torchvision's models; two of them need larger ones
batch_size: int = 8  # images in a batch; of larger images fewer, as many pixels
warm_up: int = 5  # steps of a module before those that are measured
steps: int = 2  # steps in one measurement
repeats: int = 2  # measurements of each program, in turns
k: float = 0.10  # share of the edges kept in every layer
goal: float = 1.5  # a module's step over a plain one: what the library aims at
device: str = "cpu"  # where all run: cpu or cuda
engine: str = "modulewise"  # whose step of a module is measured: modulewise, or graphed on a GPU
results: str = ""  # folder of records; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt
import torch

from modlib.study import claims, figures, records, tables
from modlib.study.pages import architectures as page
from modlib.study.pages import architectures_cut

figures.use_style()
torch.set_num_threads(1)
store = records.Store.at(results)
tried = page.subjects(models, parents, precisions, device)
settings = page.Settings(
    image_size=image_size, batch_size=batch_size, k=k, device=device, engine=engine,
    warm_up=warm_up, steps=steps, repeats=repeats,
)  # fmt: skip
ways = page.ways(tried, settings, store)
costs = page.costs(tried, settings, store)
found = page.Found.of(tried, ways, costs, settings)
found.export(store)
cuts = architectures_cut.run(cut, image_size, store)

# %% tags=["remove-input"]
page.answer(found, goal)

# %% [markdown]
# **Caveat.** Weights and images are random: nothing here is about accuracy. Recurrent layers and embeddings stay whole
# unless a `policy` names them. Whether deep networks *learn* under a mask is [another page's](deep_networks.ipynb)
# question.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "A module's training step over a plain one: fastest over fastest measurement. Dashed: the goal; solid: as fast as a plain step.", "name": "fig-architectures"}, "image": {"alt": "One row for each network, sorted: points of the ratio of a module's step to a plain step, by precision, beside a dashed line at the goal and a solid one at 1."}}
page.draw_ratios(found, goal)
plt.show()

# %% [markdown]
# ## What is decomposed, and what stays whole
#
# Every network is torchvision's own, or one of the book's parents. It is decomposed into two modules, recomposed, saved and
# loaded. The loaded network must predict the same, and the parent must be bit-identical afterwards. Every family of
# torchvision's classifiers is there, most of them with a small network and the largest that 24 GiB of memory hold.
# `vit_l_32`, `vit_h_14` and `regnet_y_128gf`, with 300 million parameters and more, are left out. Networks as users write them
# (grouped, transposed, 1-d and 3-d convolutions, tied weights, attention, every normalisation, buffers, outputs that are
# tuples or dicts) are tested one by one in `tests/test_architectures.py`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.whole_table(found)

# %% [markdown]
# Weights of linear, convolutional and attention layers are masked, whatever the architecture. Other weights (recurrent layers,
# embeddings, weights behind a parametrisation such as weight norm, plain parameters) stay whole until a `policy` names them:
# see [networks of your own](../own_network.md). Those left whole here are tables of positions, not edges between neurons.
# Auxiliary heads are masked, but not called in eval mode, so the library warns that their masks mean nothing. With batch
# normalisation a module holds statistics of its own.
#
# ## What can be cut out for good
#
# A small, fast network for a few classes needs whole channels cut out ([small networks](small_networks.ipynb)).

# %% tags=["remove-input"]
architectures_cut.said(cuts)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
architectures_cut.table(cut, cuts)

# %% [markdown]
# What is split or shuffled by place can't be cut, nor what a layer normalisation reads: it would give something else. Heads
# of attention stay, because torch's attention layer has no width of its own for them; the layers between them are cut. Swin,
# SwinV2 and MaxViT are not tried: reading their graph alone takes many minutes.
#
# ## What a step costs
#
# A plain step is what one would write: forward in training mode, cross-entropy, backward, fused Nesterov SGD; images in the
# layout that convolutions like best; no auxiliary heads. A module's step is all that the engine for large networks does for a
# batch: forward and backward through the masked network, stemming, momentum, the exact top $k$ of every layer, and the masked
# weights of the next step. What it adds is work for each weight, whatever the number of images.
#
# On a processor, time is that of one thread. The two programs run in turns, and the shortest of several measurements counts,
# because single ones differ by up to a third. The first steps of a module take longer, until the thresholds of its layers are
# known. Memory is the most that tensors hold at once, as torch's allocator counts it.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.cost_table(found, goal)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - Linear, convolutional and attention layers are masked whatever the network around them looks like.
# - A module's step takes hardly longer than a plain one, but more memory.
# - Whether a network also *learns* under a mask is another matter, above all if it is deep.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
claims.publish(store, "architectures", [page.claim(found)])
print(len(found.good), "of", len(found.once), "networks work:", ", ".join(found.good["model"]))
print("edges:", {row["model"]: int(row["edges"]) for _, row in found.once.iterrows()})

# %% [markdown]
# **Re-run it:** `modlib reproduce architectures -p models "[vit_b_16, convnext_small]" -p batch_size 32`. On a GPU:
# `-p device cuda -p image_size 224 -p batch_size 64`, with `-p engine graphed` for steps that are replayed.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
counts = {"models": len(models), "parents": parents, "steps": steps, "repeats": repeats, "warm_up": warm_up}
done = [record for pair in zip(ways, costs, strict=True) for record in pair] + cuts
tables.where_from(done, "tab-from-architectures", counts | settings.shared())
