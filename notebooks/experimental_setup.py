# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Setting up: MNIST is uneven, F-MNIST is not binary
#
# **Question.** On which images, and with which trained networks, is the method tried? And are the data sets what the
# paper says that they are?

# %% tags=["parameters", "remove-input"]
datasets: list[str] = ["digits"]  # data sets that are looked at
dataset: str = "digits"  # data set of the parents
models: list[str] = ["fc1", "fc2", "fc3", "fc4"]  # parents that are trained
seeds: list[int] = [0, 1]  # one parent for each seed
parent_epochs: int = 20  # epochs of a parent (Table 3: 100)
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import time

from modlib.study import figures, tables
from modlib.study.pages import experimental_setup as page
from modlib.study.records import Store

figures.use_style()
started = time.perf_counter()
loaded = page.load([*datasets, dataset])
facts = {name: page.describe(data) for name, data in loaded.items()}
data = loaded[dataset]
edges = page.edges_of(data)
trained = page.train(data, models, seeds, parent_epochs, Store.at(results))

# %% tags=["remove-input"]
page.answer(facts, trained, dataset)

# %% [markdown]
# **Caveat.** The paper's own parents are not published. Those of this book are trained anew, with its parameters where it
# gives them ([the paper's Table 3](table3.ipynb)).

# %% tags=["remove-input"] mystnb={"figure": {"caption": "How often each class occurs in the official training split. Left: every class of every loaded data set, against the mean over its classes; on the line, all classes are equally frequent. Right: the data set of the parents, class by class.", "name": "fig-class-counts"}, "image": {"alt": "Left, one row of points for each data set, the frequency of its classes relative to the mean. Right, a bar for each class with its number of images."}}
page.draw_class_counts(facts, dataset)

# %% [markdown]
# ## The data sets
#
# The paper (section "Experimental Setup") takes MNIST {cite:p}`lecun1998`, Fashion-MNIST {cite:p}`xiao2017`, CIFAR-10 and
# CIFAR-100 {cite:p}`krizhevsky2009` and SVHN {cite:p}`netzer2011`. It trains on all training images. Here the last sixth of
# them is **held out**, for every choice that needs images. So test images are read once, at the
# end. Where a page read them before, it says so ([our recipe](ours.ipynb), [frontier](frontier.ipynb),
# [recommended settings](recommended.ipynb)).
#
# `modlib.zoo.datasets.load` reads a packed copy, or gets the data through torchvision. What can't be had is left out, with
# the reason.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.datasets_table(facts)

# %% tags=["remove-cell", "nbval-check-output"]
print(page.summary(facts))

# %% [markdown]
# `svhn_10k` is not SVHN. It is 10,000 images of SVHN's official *test* split, divided anew: easier to come by, and much
# smaller to learn from. Accuracies on it say nothing about the paper's.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The first training image of each class, at most ten classes, one row for each loaded data set.", "name": "fig-samples"}, "image": {"alt": "A grid of small images, one row for each data set and one column for each of its first classes."}}
page.draw_samples(loaded)

# %% [markdown]
# ## The parents
#
# FC1 to FC4 have 1 to 4 hidden layers of 49 neurons, as in {cite:t}`pan2020`. A parent's size depends on the images only.
# Masks choose among its edges: the weights, not the biases.

# %% tags=["remove-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
page.edges_table(edges, data)

# %% [markdown]
# A parent is trained and then frozen. The seed decides its initial weights and the order of the images.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.accuracy_table(trained, edges)

# %% [markdown]
# The paper's other parents are convolutional: VGG16 {cite:p}`simonyan2015`, ResNet50 {cite:p}`he2016` and a wide residual
# network {cite:p}`zagoruyko2016`. Its baselines do not apply to them. They are on the page on [the paper's Figure
# 4](figure4.ipynb).
#
# ```{admonition} Take-aways
# - Where classes differ in size, a perfect module scores a little differently on the balanced set of each class
#   ([Measuring modules](evaluation.ipynb)).
# - A module that always answers "another" is right on most images. So the paper's Table 6 asks on balanced sets.
# - A decomposition is worth as much as it keeps of its parent. So accuracies stand beside those of the parent.
# ```
#
# **Re-run it:** `modlib reproduce experimental_setup -p datasets "[mnist, fashion_mnist]"`, or
# `-p models "[fc4]" -p dataset mnist -p parent_epochs 100`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
shown = {"datasets": datasets, "dataset": dataset, "models": models, "seeds": seeds, "parent_epochs": parent_epochs}
tables.where_from([], "tab-from-experimental-setup", shown, time.perf_counter() - started)
