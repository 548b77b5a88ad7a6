# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Engines: side by side for small parents, one after another for convolutional ones
#
# **Question.** Fully connected parents train all their modules in one pass ([what that saves](cost.ipynb)). Large networks
# cannot: their modules take turns. What does that cost in accuracy and time?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set of the fully connected trials
model: str = "fc1"  # its parent
seeds: list[int] = [0]  # one trial for each seed
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
epochs: int = 3  # epochs of recipe ours
alpha: float = 4.0  # stemming
vote: float = 0.9  # weight of the vote loss
k: float = 0.10  # share of the edges kept in every layer
convolutional: str = "wrn16_2"  # parent of the timings, random weights
side: int = 8  # height and width of its images, random pixels
modules_at_once: list[int] = [1, 4]  # modules of one pass
batch_sizes: list[int] = [8]  # images of one pass
classes: list[int] = [1, 2, 4]  # numbers of modules of an epoch
images: int = 32  # images of such an epoch
processes: list[int] = [1]  # processes that share the largest of these numbers out
repeats: int = 2  # measurements, in turns
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import tempfile
import time

import matplotlib.pyplot as plt
import torch

from modlib.study import claims, figures, records, tables
from modlib.study.pages import engines as page
from modlib.zoo import datasets

figures.use_style()
torch.set_num_threads(1)
scratch = tempfile.TemporaryDirectory()
store = records.Store.at(results or scratch.name)
start_of_page = time.perf_counter()
data = datasets.load(dataset)
trials = page.experiments(
    dataset=dataset, model=model, seeds=seeds, parent_epochs=parent_epochs, epochs=epochs, alpha=alpha, vote=vote, k=k
)
done = [page.decomposed(trial, data, store) for trial in trials]
rows = records.frame(done)
timed = page.passes(convolutional, side, batch_sizes, modules_at_once, k, repeats)
growth = page.Growth.measured(convolutional, classes, processes, side=side, images=images, repeats=repeats)

# %% tags=["remove-input"]
page.answer(rows, timed, growth)

# %% [markdown]
# **Caveat.** Times are of one CPU, in float32, with random images; accuracies are of FC1 and recipe *ours* with vote loss
# (*not the paper's*).

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Left: seconds of an epoch of the modulewise engine by the number of modules; dashed: proportional. Right: seconds of an epoch of the largest number of modules by the number of processes that share them out; dashed: the time of one, divided. Shortest of several measurements.", "name": "fig-engines-growth"}, "image": {"alt": "Left, points on a rising line close to the proportional one. Right, time against processes."}}
page.draw_growth(growth)
plt.show()

# %% [markdown]
# ## Which engine for what
#
# Use `engine="auto"`. It takes `vectorised` for fully connected parents and trains other networks module by module.
#
# - `vectorised`: all modules side by side; fully connected parents.
# - `modulewise`: one module after another within an epoch; any network. With a vote loss, a module sees the other modules'
#   log-odds in a **table** of one epoch ago.
# - `graphed`: the same, its steps recorded as CUDA graphs; on a GPU, so not timed here.
# - `sequential`: all modules step by step, as the paper reads; any network, the reference of the tests.
#
# ## What a table of one epoch ago costs
#
# The same parents, recipe, seeds and order of images. Nothing is chosen here.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.stale_table(rows, dataset, model, epochs)

# %% [markdown]
# ## Where passing all modules at once stops paying
#
# A forward and backward pass of several modules, each the same network under another mask: `torch.func.vmap` over the masks,
# which makes grouped convolutions of them, against a loop. Normalisation is as in eval mode.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.passes_table(timed, repeats)

# %% [markdown]
# ## The paper's limit: time proportional to the number of classes
#
# Within one machine the limit stands for the modulewise engine: every module is trained in its turn. The vectorised one shares
# a part of the work between modules, so its time [grows less](discussion.ipynb). While modules train, the device holds one of
# them; the others wait in host memory, at 8 bytes for each edge. That memory grows with the number of classes.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.growth_table(growth)

# %% tags=["remove-cell", "nbval-check-output"]
claims.publish(store, "engines", [page.claim(growth)])
print(len(done), "decompositions,", len(timed), "pairs of timings,", len(growth.every), "epochs timed")

# %% [markdown]
# **Re-run it:** `modlib reproduce engines -p processes "[1, 2]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(
    done, "tab-from-engines", {"dataset": dataset, "model": model, "seeds": seeds, "epochs": epochs, "side": side},
    seconds=time.perf_counter() - start_of_page,
)  # fmt: skip
