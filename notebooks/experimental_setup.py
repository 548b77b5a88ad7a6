# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Setting up the experiments
#
# **Question.** On which images, and with which trained networks, is the method tried? And are the data sets what the
# paper says that they are?
#
# The paper (section "Experimental Setup") takes MNIST {cite:p}`lecun1998`, Fashion-MNIST {cite:p}`xiao2017`, CIFAR-10 and
# CIFAR-100 {cite:p}`krizhevsky2009` and SVHN {cite:p}`netzer2011`. The parents that this page trains are its four fully
# connected ones, FC1 to FC4, with 1 to 4 hidden layers of 49 neurons, as {cite:t}`pan2020`.

# %% tags=["parameters"]
datasets: list[str] = ["digits"]  # data sets that are looked at
dataset: str = "digits"  # data set of the parents
models: list[str] = ["fc1", "fc2", "fc3", "fc4"]  # parents that are trained
seeds: list[int] = [0, 1]  # one parent for each seed
parent_epochs: int = 20  # epochs of a parent (Table 3: 100)
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import time

from modlib.study import figures, tables
from modlib.study.pages import experimental_setup as page
from modlib.study.records import Store

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## The data sets
#
# `datasets.load` reads a packed copy, or gets the data through torchvision. What cannot be had is left out, with the
# reason. The paper trains on all training images; here their last sixth is **held out**, for every choice that needs
# images, so that test images are read once, at the end.

# %%
loaded = page.load([*datasets, dataset])
facts = {name: page.describe(data) for name, data in loaded.items()}

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.datasets_table(facts)

# %% tags=["nbval-check-output"]
print(page.summary(facts))

# %% [markdown]
# `svhn_10k` is not SVHN: it is 10,000 images of SVHN's official *test* split, divided anew, an easier data set to come by
# and a much smaller one to learn from. Accuracies on it say nothing about the paper's.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How often each class occurs in the official training split. Left: every class of every loaded data set, against the mean over its classes; on the line, all classes are equally frequent. Right: the data set of the parents, class by class.", "name": "fig-class-counts"}, "image": {"alt": "Left, one row of points for each data set, the frequency of its classes relative to the mean. Right, a bar for each class with its number of images."}}
page.draw_class_counts(facts, dataset)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The first training image of each class, at most ten classes, one row for each loaded data set.", "name": "fig-samples"}, "image": {"alt": "A grid of small images, one row for each data set and one column for each of its first classes."}}
page.draw_samples(loaded)

# %% [markdown]
# ## The parents
#
# A parent's size depends on the images only. The edges are what masks choose from: the weights, not the biases.

# %%
data = loaded[dataset]
edges = page.edges_of(data)

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
page.edges_table(edges, data)

# %% [markdown]
# They are trained with the parameters of [Table 3](table3.ipynb) and then frozen. The seed decides the initial weights and
# the order of the images.

# %%
trained = page.train(data, models, seeds, parent_epochs, Store.at(results))

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.accuracy_table(trained, edges)

# %% tags=["hide-input"]
page.findings(facts, trained, dataset, parent_epochs)

# %% [markdown]
# **What it means.** Frequencies matter twice. A module that always answers "another" is right on about nine images of ten,
# so the paper's Table 6 asks on balanced sets; and the chance level of such sets shifts from class to class where
# classes are not equally frequent ([Measuring modules](evaluation.ipynb)). What a
# decomposition is worth shows against the parent that it was cut from, so the pages of results say how accurate that is.
#
# The paper's other parents are convolutional: VGG16 {cite:p}`simonyan2015`, ResNet50 {cite:p}`he2016` and a wide residual
# network {cite:p}`zagoruyko2016`. Its baselines do not apply to them; they are on the page of [Figure 4](figure4.ipynb).
#
# **Re-run it:** `modlib reproduce experimental_setup -p datasets "[mnist, fashion_mnist]"`, or
# `-p models "[fc4]" -p dataset mnist -p parent_epochs 100`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {"datasets": datasets, "dataset": dataset, "models": models, "seeds": seeds, "parent_epochs": parent_epochs}
tables.where_from([], "tab-from-experimental-setup", shown, time.perf_counter() - started)
