# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which engine trains what
#
# **Question.** Fully connected parents train all their modules in one pass ([what that saves](cost.ipynb)). Large networks
# cannot: their modules go one after another over the images, and the device holds one at a time. What does that cost in
# accuracy, where does the first way stop paying, and how does the time grow with the number of classes and shrink with processes?
#
# - `vectorised`: all modules side by side; fully connected parents.
# - `modulewise`: one module after another within an epoch; any network. With a vote loss, a module sees the other modules' log-odds
#   in a **table** of one epoch ago.
# - `graphed`: the same, its steps recorded as CUDA graphs; on a GPU, so not timed on this page, whose runs are on a CPU.
# - `sequential`: all modules step by step, as the paper reads; any network, the reference of the tests.

# %% tags=["parameters"]
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

# %% tags=["hide-input"]
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

# %% [markdown]
# ## What a table of one epoch ago costs
#
# The same parents, recipe, seeds and order of images; recipe *ours* with vote loss (ours, *not the paper's*). Nothing is chosen
# here.

# %%
data = datasets.load(dataset)
trials = page.experiments(
    dataset=dataset, model=model, seeds=seeds, parent_epochs=parent_epochs, epochs=epochs, alpha=alpha, vote=vote, k=k
)
done = [page.decomposed(trial, data, store) for trial in trials]
rows = records.frame(done)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.stale_table(rows, dataset, model, epochs)

# %% [markdown]
# ## Where passing all modules at once stops paying
#
# A forward and backward pass of $C$ modules, each the same network under another mask: `torch.func.vmap` over the masks, which
# makes grouped convolutions of them, against a loop. Normalisation as in eval mode, random images; only time is asked here.

# %%
timed = page.passes(convolutional, side, batch_sizes, modules_at_once, k, repeats)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.passes_table(timed, repeats)

# %% [markdown]
# ## The paper's limit: time proportional to the number of classes

# %%
growth = page.Growth.measured(convolutional, classes, processes, side=side, images=images, repeats=repeats)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: seconds of an epoch of the modulewise engine by the number of modules; dashed: proportional. Right: seconds of an epoch of the largest number of modules by the number of processes that share them out; dashed: the time of one, divided. Shortest of several measurements.", "name": "fig-engines-growth"}, "image": {"alt": "Left, points on a rising line close to the proportional one. Right, time against processes."}}
page.draw_growth(growth)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.growth_table(growth)

# %% tags=["nbval-check-output"]
print(len(done), "decompositions,", len(timed), "pairs of timings,", len(growth.every), "epochs timed")

# %% tags=["hide-input"]
claims.publish(store, "engines", [page.claim(growth)])
page.what_came_out(rows, timed, growth)

# %% [markdown]
# **What it means.** Use `engine="auto"`. With the modulewise engine the limit stands within one machine: every module is trained in its turn. (The
# vectorised one shares a part of the work between modules: its time [grows less](discussion.ipynb).) While they train,
# the device holds one module (and, with a vote loss, one number for each image and class); the others wait in host memory, at 8 bytes
# for each edge, which does grow with the number of classes. The times above are of
# whole decompositions of one epoch, with what is checked and set up around it, and in float32.
#
# **Re-run it:** `modlib reproduce engines -p processes "[1, 2]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(
    done, "tab-from-engines", {"dataset": dataset, "model": model, "seeds": seeds, "epochs": epochs, "side": side},
    seconds=time.perf_counter() - start_of_page,
)  # fmt: skip
