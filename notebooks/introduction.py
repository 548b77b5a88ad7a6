# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One module per class: any part of a network, without training
#
# **Question.** A trained network tells $N$ classes apart. Tomorrow's task needs some of them. Can the network be taken
# apart once, into one small module per class, so that a network for *any* subset of classes is put together at once,
# without training?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges that every module keeps in every layer
alpha: float = 4.0  # weight of the stemming loss
epochs: int = 15  # epochs of the decomposition
batch_size: int = 16  # images in a batch of the decomposition
subset: list[int] = [1, 7]  # the classes of the task that is recomposed
seed: int = 0  # seed of the parent and of the decomposition
results: str = ""  # folder of records, parents and modules; empty: keep none

# %% tags=["remove-cell"]
import time

import matplotlib.pyplot as plt

import modlib
from modlib import masking
from modlib.study import example, figures, tables
from modlib.study.pages import introduction as page
from modlib.study.records import Store
from modlib.zoo import datasets, parents, training

figures.use_style()
started = time.perf_counter()
settings = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "k": k, "alpha": alpha}
settings |= {"epochs": epochs, "batch_size": batch_size, "subset": subset, "seed": seed}
data = datasets.load(dataset)
trial = example.trial(**settings)
modules, records = example.decompose(trial, data, Store.at(results))
taste = page.Taste(data, trial, modules, subset)

# %% tags=["remove-input"]
taste.answer()

# %% [markdown]
# **Caveat.** This is one run of one small network, by *our* recipe without vote loss, to show what is measured; the paper's
# own recipe loses more ([Table 1](table1.ipynb)). The [scoreboard](scoreboard.ipynb) judges the
# paper's claims, over several seeds, data sets and parents.
#
# ## The method in four steps
#
# Kingetsu, Kobayashi and Suzuki {cite:p}`kingetsu2021` think of tasks whose classes change often, so that training a
# network anew for each of them costs too much. Each step of their method has a page here, and each special word a line in
# the [glossary](../glossary.md).
#
# 1. **Mask.** The trained network, the *parent*, is frozen. For every class a [mask](training_mask.ipynb) is learned, which
#    keeps the share $k$ of the parent's edges. No weight changes.
# 2. **Graft.** A small [grafting layer](grafting_layer.ipynb) turns the parent's $N$ logits into "this class" or
#    "another". Mask and grafting layer together are a *module*.
# 3. **Stem.** All modules are trained together. [Module stemming](module_stemming.ipynb) pulls their choices towards one
#    another, so that they use the *same* edges.
# 4. **Recompose.** For a subset of classes, take the union of the modules' masks and let the modules vote:
#    [recomposing](recomposing.ipynb).
#
# ## A network small enough to draw
#
# The figures below are no sketches: each line is an edge of a real network, decomposed in this cell. Its parent has 16
# inputs (digits, pooled to 4 x 4 pixels), 6 hidden neurons and 5 logits, one for each of the digits 0 to 4.

# %%
digits = page.small_digits()
sizes = {"in_features": 16, "width": 6, "num_classes": 5}
tiny_parent = parents.fc(hidden_layers=1, **sizes, seed=0)
training.train(tiny_parent, digits, epochs=40, seed=0)
recipe = modlib.ours(k=0.3, alpha=0.3, epochs=20, batch_size=16)
tiny = modlib.cotrain(tiny_parent, digits, recipe=recipe, seed=0, device="cpu")
task = (0, 3, 4)  # the classes of the small task
small_network = tiny.recompose(task)

# %% tags=["nbval-check-output"]
edges = masking.sizes(masking.maskable_parameters(tiny_parent))
kept = {name: int(mask[0].sum()) for name, mask in tiny.masks.masks.items()}
for name, counts in {"the parent": edges, "a module": kept}.items():
    layers = list(counts.values())
    print(f"edges of {name} by layer: {layers}, together {sum(layers)}")
print("numbers of its grafting layer:", tiny.extra_parameters()["grafting"])

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Overview (the paper's Figure 1, redrawn from a decomposition). The parent tells five classes apart (left); it is decomposed into five modules (middle), each a part of the parent's edges and a grafting layer with the outputs \"this class\" and \"another\"; the modules of three classes are recomposed into one network for these three (right). Line widths follow the size of the weights. On the right, edges that more than one module uses are black, the others have the colour of their module.", "name": "fig-overview"}, "image": {"alt": "On the left a densely connected small network; in the middle five copies of it, each with a third of its edges in a colour of its own and two more output nodes; on the right one network with the edges of three of them, many of these shared, and three pairs of output nodes."}}
sketch = page.Sketch(tiny, task)
sketch.draw_overview()
plt.show()

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
sketch.overview_sentence()

# %% [markdown]
# To predict, the recomposed network runs once for each of its modules, with that module's mask and grafting layer. Each
# module answers with a confidence, the softmax of its two outputs. The highest confidence wins.

# %%
images, labels = digits.split("test")
label = task[1]
image = images[labels == label][0]
inputs = digits.inputs(image[None])
confidences = small_network(inputs)[0]  # one for each class of the task

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Flow of a prediction (the paper's Figure 2, redrawn with the values of one test image). The image passes through each module's part of the recomposed network (coloured edges; grey: the edges of the union that this module does not use) and through its grafting layer. The darker a node, the larger its value in its layer. The bars are the modules' confidences in \"this class\"; the largest wins the vote.", "name": "fig-flow"}, "image": {"alt": "A small image on the left; three rows, one for each module, with the module's edges in colour over the grey edges of the union, the grafting layer's two nodes, and a bar for the confidence; the row with the longest bar is marked as the winner of the vote."}}
sketch.draw_flow(image, label, inputs, confidences)
plt.show()

# %% [markdown]
# ## What a decomposition must deliver
#
# The paper expects three properties:
#
# | property | what it asks | where it is measured |
# |---|---|---|
# | **decomposability** | modules are smaller than the parent, and each classifies one class well | [grafting layer](grafting_layer.ipynb), [the paper's Table 6](table6.ipynb) |
# | **recomposability** | modules combine, and classify many classes well together | [recomposing](recomposing.ipynb), [the paper's Table 1](table1.ipynb) |
# | **reusability, small parameters** | any subset works without training, in few parameters | [recomposing](recomposing.ipynb), [the paper's Figure 3](figure3.ipynb) |
#
# Two quantities appear on nearly every page. The *Jaccard index* of two masks is the number of edges that both keep,
# divided by the number that either keeps. It is 0 for modules with nothing in common and 1 for equal ones. *Remaining
# parameters* are the share of the parent's maskable weights that the union of a subset's masks keeps.
#
# ## One decomposition, measured
#
# Now the same on one of the paper's parents, by our recipe (rates fall to zero, grafting layers start from the parent's
# own logit).

# %%
network = modules.recompose(subset)  # a torch.nn.Module
answers = network.predict(data.inputs(data.test_images))  # asked classes only

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
taste.table()

# %% [markdown]
# ## Exercise
#
# A task is any choice of at least two of the ten classes. How many tasks do ten modules serve? And a hundred modules?
#
# :::{admonition} Solution
# :class: dropdown
#
# Every class is in the task or not, which makes $2^N$ choices. The empty one and the $N$ single classes are no tasks.
#
# ```python
# import math
#
# for N in (10, 100):
#     tasks = 2**N - N - 1
#     assert tasks == sum(math.comb(N, size) for size in range(2, N + 1))
#     print(f"{N} modules serve {tasks:.4g} tasks")
# ```
#
# ```text
# 10 modules serve 1013 tasks
# 100 modules serve 1.268e+30 tasks
# ```
#
# Nobody trains a network for each of these. That is why the method decomposes once and recomposes without training.
# :::
#
# ```{admonition} Take-aways
# - A module is a mask over the frozen parent and a small grafting layer. It answers one question: this class, or another?
# - Modules are trained once. A network for any subset is put together without training.
# - The more edges the modules share, the smaller that network is.
# ```
#
# **Re-run it:** `modlib reproduce introduction -p subset "[0, 3, 8]"`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-introduction", settings, spent)
