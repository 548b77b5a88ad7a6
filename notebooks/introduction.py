# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Decomposing a network and recomposing it for a part of its task
#
# **Question.** A trained network tells $N$ classes apart. Tomorrow's task needs some of them. Can the network be taken
# apart once, into one small module per class, so that a network for *any* subset of classes is put together at once,
# without training?
#
# That is what Kingetsu, Kobayashi and Suzuki {cite:p}`kingetsu2021` ask, for settings in which the classes of interest
# change often, and retraining for each change costs too much. Their answer has four steps, one page of this book each:
#
# 1. over the frozen, trained network, the *parent*, learn for every class a
#    [mask that keeps the top $k$ share of the edges](training_mask.ipynb); no weight changes;
# 2. behind it, learn a small [grafting layer](grafting_layer.ipynb) that turns the parent's $N$ logits into "this class"
#    or "another"; mask and grafting layer together are a *module*;
# 3. train all modules together, and pull their choices towards one another, so that they use the *same* edges:
#    [module stemming](module_stemming.ipynb);
# 4. for a subset of classes, take the union of the modules' masks and let the modules vote:
#    [recomposing](recomposing.ipynb).

# %% tags=["parameters"]
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

# %% tags=["hide-input"]
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

# %% [markdown]
# ## A network small enough to draw
#
# The figures below are no sketches: each line is an edge of a real network, decomposed in this cell. Its parent has 16
# inputs (digits, pooled to 4 x 4 pixels), 6 hidden neurons and 5 logits, one for each of the digits 0 to 4.

# %%
tiny_data = page.small_digits()
tiny_parent = parents.fc(hidden_layers=1, in_features=16, width=6, num_classes=5, seed=0)
training.train(tiny_parent, tiny_data, epochs=40, seed=0)
tiny_recipe = {"k": 0.3, "alpha": 0.3, "epochs": 20, "batch_size": 16, "grafting_init": "own_logit"}
tiny = modlib.cotrain(tiny_parent, tiny_data, **tiny_recipe, schedule="cosine", seed=0, device="cpu")
task = (0, 3, 4)  # the classes of the small task
small_network = tiny.recompose(task)

# %% tags=["nbval-check-output"]
edges = masking.sizes(masking.maskable_parameters(tiny_parent))
kept = {name: int(mask[0].sum()) for name, mask in tiny.masks.masks.items()}
print("edges of the parent, by layer ", list(edges.values()), "together", sum(edges.values()))
print("edges of a module, by layer   ", list(kept.values()), "together", sum(kept.values()))
print("numbers of its grafting layer ", tiny.extra_parameters()["grafting"])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Overview (the paper's Figure 1, redrawn from a decomposition). The parent tells five classes apart (left); it is decomposed into five modules (middle), each a part of the parent's edges and a grafting layer with the outputs \"this class\" and \"another\"; the modules of three classes are recomposed into one network for these three (right). Line widths follow the size of the weights. On the right, edges that more than one module uses are black, the others have the colour of their module.", "name": "fig-overview"}, "image": {"alt": "On the left a densely connected small network; in the middle five copies of it, each with a third of its edges in a colour of its own and two more output nodes; on the right one network with the edges of three of them, many of these shared, and three pairs of output nodes."}}
sketch = page.Sketch(tiny, task)
sketch.draw_overview()
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
sketch.overview_sentence()

# %% [markdown]
# To predict, the recomposed network is run once for each of its modules, with that module's mask and grafting layer.
# Each module answers with a confidence, the softmax of its two outputs; the highest confidence wins.

# %%
images, labels = tiny_data.split("test")
label = task[1]
image = images[labels == label][0]
inputs = tiny_data.inputs(image[None])
confidences = small_network(inputs)[0]  # one for each class of the task

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Flow of a prediction (the paper's Figure 2, redrawn with the values of one test image). The image passes through each module's part of the recomposed network (coloured edges; grey: the edges of the union that this module does not use) and through its grafting layer. The darker a node, the larger its value in its layer. The bars are the modules' confidences in \"this class\"; the largest wins the vote.", "name": "fig-flow"}, "image": {"alt": "A small image on the left; three rows, one for each module, with the module's edges in colour over the grey edges of the union, the grafting layer's two nodes, and a bar for the confidence; the row with the longest bar is marked as the winner of the vote."}}
sketch.draw_flow(image, label, inputs, confidences)
plt.show()

# %% [markdown]
# ## What a decomposition must deliver
#
# The paper expects three properties. Each is measured:
#
# | property | what it asks | how it is measured | where |
# |---|---|---|---|
# | **decomposability** | modules come out of a large network, are smaller, and classify one class well | Jaccard index of the masks; accuracy of single modules, on all images and on balanced sets | [Table 1](table1.ipynb), [grafting layer](grafting_layer.ipynb), [evaluation](evaluation.ipynb) |
# | **recomposability** | modules combine, and together classify many classes well | accuracy of the vote, of all classes, of pairs and of any subset | [Table 1](table1.ipynb), [recomposing](recomposing.ipynb), [evaluation](evaluation.ipynb) |
# | **reusability, small parameters** | any subset without retraining, in few parameters | remaining parameters of the union; time to recompose | [module stemming](module_stemming.ipynb), [recomposing](recomposing.ipynb) |
#
# The *Jaccard index* of two masks is the number of edges that both keep, divided by the number that either keeps: 0 for
# modules with nothing in common, 1 for equal ones. *Remaining parameters* is the share of the parent's maskable weights
# that the union of a subset's masks keeps. [The scoreboard](scoreboard.ipynb) holds the paper's claims, one by one,
# against what was found.
#
# ## A taste: one decomposition, measured
#
# Now the same on one of the paper's parents: train it, decompose it, recompose a subset. The recipe is ours (annealed
# rates, grafting layers that start from the parent's own logit); `records` are there so that a run need not be repeated.

# %%
data = datasets.load(dataset)
trial = example.trial(**settings)
modules, records = example.decompose(trial, data, Store.at(results))
before = time.perf_counter()
network = modules.recompose(subset)
milliseconds = 1000 * (time.perf_counter() - before)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
taste = page.Taste(data, trial, modules, subset, milliseconds)
taste.table()

# %% tags=["hide-input"]
taste.sentence()

# %% [markdown]
# **What it means.** This is one run of one small network, to show what is measured; the claims are judged on the pages
# of the results, over several seeds, data sets and parents.
#
# **Re-run it:** `modlib reproduce introduction -p subset "[0, 3, 8]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-introduction", settings, spent)
