# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A random mask silences a convolutional network; its largest weights and own statistics bring it back
#
# **Question.** The paper's first mask keeps a *random* tenth of every layer. What is left of a convolutional network under
# such a mask, why, and what repairs it?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, cifar10, cifar100, svhn, svhn_10k
model: str = "wrn16_2"  # deep parent, one of modlib.zoo.parents.CONVOLUTIONAL
parent_recipe: str = "ours"  # how it is trained: published or ours
parent_epochs: int = 2  # its epochs
reduced: str = "wide residual network 16-2"  # what is smaller than in the paper; empty: nothing
fc_dataset: str = "digits"  # data set of the fully connected parents: digits, mnist, fashion_mnist
fc_models: list[str] = ["fc1", "fc4"]  # fully connected parents
fc_epochs: int = 10  # their epochs (Table 3: 100)
seeds: list[int] = [0]  # seeds of decompositions and of FC parents; rates are tuned with the first
parent_seeds: list[int] = [0]  # seed of the deep parent of each
k: float = 0.10  # share of the edges kept in every layer
probe_images: int = 64  # held-out images that signal and gradient are measured on
judged_images: int = 100  # held-out images that accuracies are measured on
classes: list[int] = [0, 1, 2]  # the modules of the short co-training
rates: list[float] = [0.1, 1.0]  # rates of the scores tried in it
epochs: int = 2  # its epochs
images_per_epoch: int = 160  # its images in an epoch
batch_size: int = 32  # its images in a batch
precision: str = "float32"  # of the co-training's forward and backward passes: float32 or bfloat16
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, pull, records, tables
from modlib.study.pages import deep_networks as page

figures.use_style()
store = records.Store.at(results)
settings = page.Settings(
    dataset=dataset, model=model, parent_recipe=parent_recipe, parent_epochs=parent_epochs, reduced=reduced,
    fc_dataset=fc_dataset, fc_models=fc_models, fc_epochs=fc_epochs, seeds=seeds, parent_seeds=parent_seeds, k=k,
    probe_images=probe_images, judged_images=judged_images, classes=classes, rates=rates, epochs=epochs,
    images_per_epoch=images_per_epoch, batch_size=batch_size, precision=precision,
)  # fmt: skip
bench = page.Bench.prepared(settings, store)
done = bench.before()
rows = records.frame(done)
trained, after = bench.after()
networks = pull.untrained()

# %% tags=["remove-input"]
page.answer(rows, after, bench)

# %% [markdown]
# **Caveat.** A small network, three classes, and a few epochs of few images: nothing here says where long runs end. The test
# images are not read.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The deep parent under its first mask, before any training; what the parent itself has is 1. Left: signal of every layer. Middle: agreement with the parent. Right: gradient of the scores. Lines: means over seeds (geometric ones left and right); small points: single seeds. Dotted, left: what a random share k leaves if nothing rescales it, k to the power of half the depth.", "name": "fig-deep-before"}, "image": {"alt": "Three panels over the depth of the network, each with four lines: two first masks with two kinds of statistics. On the left, on a logarithmic axis, the line of a random mask with the parent's statistics falls furthest; on the right its gradient is by far the smallest in the first layers."}}
page.draw_before(rows, settings)
plt.show()

# %% [markdown]
# ## Why
#
# A layer that keeps a random share $k$ of its weights keeps about a share $k$ of the *variance* of what it computes, so
# $\sqrt k$ of its standard deviation. After $L$ layers in a row that nothing rescales, $k^{L/2}$ is left. Batch normalisation
# would rescale them, but with the parent's means and variances it does not. So two things matter, and the paper says little
# about either. It names the distribution of the initial scores and no more; it does not say what batch normalisation does
# while a module is trained.
#
# | | | in `modlib.cotrain` |
# |---|---|---|
# | first mask | *random*: the paper's scores, drawn at random | `init="kaiming"` |
# | | *largest weights* (ours): scores in the order of the weights' magnitude, of the same scale | `init="magnitude"` |
# | statistics | *the parent's*: batch normalisation goes on with its means and variances | `norm="frozen"` |
# | | *its own*: those of the batch while a module is trained, afterwards running ones | `norm="batch"` |
#
# ## Before training
#
# The **signal** of a layer is the standard deviation, over held-out images, of what enters its ReLU (at the end: of the
# logits). Own statistics give a random layer its scale back, but not its meaning. That is what the **agreement** shows: the
# correlation over images between the masked network's values and the parent's. The **gradient** is what a module's loss sends
# to the scores of a layer, $W \odot \partial L / \partial (W \odot \mathcal M)$, as a norm.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.signal_table(rows, settings)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.gradient_table(rows, settings)

# %% [markdown]
# The same masks, judged by the network's own answer, the largest of its logits. *Different outputs* counts the distinct
# vectors of logits, to the last bit; *the same answer* is how often it gives its most frequent one.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.answers_table(rows, settings)

# %% [markdown]
# ## After a short co-training
#
# No stemming, our recipe (annealed rates, grafting layers that start from the parent's own logit;
# [deviations](../deviations.md)). The grafting layers have a tenth of the scores' rate. That rate is chosen for each combination
# by itself: the best of a short list by the vote on held-out images, with the first seed. The same images judge it below.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.after_table(after, bench)

# %% [markdown]
# Where the chosen rate is the first or the last of its list, a rate beyond it may be better.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.rates_table(after, bench)

# %% tags=["remove-input"] mystnb={"figure": {"caption": "After the short co-training, at the chosen rates: signal and agreement by layer of the modules as they are used, each with its own running statistics (solid) or the parent's (dashed). Lines: means over seeds; points: single seeds (means over their modules; geometric means of signals).", "name": "fig-deep-after"}, "image": {"alt": "Two panels over the depth of the network with four lines each, as in the figure before training: signal on a logarithmic axis, and agreement with the parent."}}
page.draw_after(after)
plt.show()

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.signal_after_table(after, settings)

# %% [markdown]
# `modlib.cotrain(parent, data, seed=0)` takes both, own statistics and the largest weights. `modlib.recipes.published` has
# own statistics and starts from random scores, as the paper does.
# How the edges are shared out among the layers [matters too](figure4.ipynb).
#
# ## What statistics of its own cost a module
#
# A recomposed network then holds a mean and a variance for every channel, for each of its modules. They cost memory and no
# time, because modules are run one after another anyway. They are not edges: [remaining parameters](evaluation.ipynb) do not
# count them.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
page.statistics_table(networks)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - A random mask with the parent's statistics leaves a deep network nothing to learn from: the signal is gone before the
#   logits, and so is the gradient.
# - Own statistics repair the scale, the parent's largest weights the meaning. Only both together give modules that work soon.
# - A module's own statistics take little memory and no time, but they belong to the module and have to be stored with it.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
everything = [*done, *trained]
exported = records.export(store, "deep_networks", everything, settings.shown())
print(sorted(exported["when"].unique()), len(done), "parents probed")

# %% [markdown]
# **Re-run it:** `modlib reproduce deep_networks -p k 0.3`; another network: `-p dataset cifar10 -p model resnet50_quarter`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(everything, "tab-from-deep-networks", settings.shown())
