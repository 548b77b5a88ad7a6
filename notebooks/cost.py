# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Cost: ten modules train in seconds an epoch, 14 to 25 times faster than the obvious way
#
# **Question.** How long does module co-training take, where does the time go, and how does it grow with the number of
# classes? The paper names this limit itself: computation time proportional to the number of classes.

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
models: list[str] = ["fc1", "fc2"]  # parents: fc1 to fc4; only their sizes matter here, they are not trained
batch_sizes: list[int] = [32, 128]  # images in a batch
classes: list[int] = [2, 5, 10]  # numbers of modules
populations: list[int] = [1, 2]  # decompositions of all classes side by side
k: float = 0.10  # share of the edges kept in every layer
steps: int = 10  # steps in one measurement
repeats: int = 3  # measurements of each program, in turns
threads: int = 1  # threads of both programs
device: str = "cpu"  # where both run: cpu or cuda
results: str = ""  # folder that the measurements are written to; empty: nowhere

# %% tags=["remove-cell"]
import time

import matplotlib.pyplot as plt
import torch

from modlib.study import figures, records, tables
from modlib.study.pages import cost as page
from modlib.zoo import datasets

figures.use_style()
torch.set_num_threads(threads)
start_of_page = time.perf_counter()
data = datasets.load(dataset)
race = page.Race(data, k=k, steps=steps, repeats=repeats, threads=threads, device=device)
speed = race.by_size(models, batch_sizes)
if results:
    records.write(records.Store.at(results).folder / "cost.csv", speed.to_csv(index=False))
model, batch = models[0], batch_sizes[-1]
parts = race.parts(model, batch, page.medians(speed).loc[(model, batch), "ours"])
growth = race.by_classes(model, classes, batch)
side_by_side = race.by_population(model, populations, batch)

# %% tags=["remove-input"]
page.answer(speed, parts, growth, race)

# %% [markdown]
# **Caveat.** These are steps of small, fully connected parents on one machine; for large networks see
# [which engine trains what](engines.ipynb).

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Time of one step against the number of modules (left) and against the number of decompositions that train side by side, for each of them (right). Points: single measurements; lines: medians.", "name": "fig-cost"}, "image": {"alt": "Left: two rising lines on logarithmic axes, the obvious way far above ours. Right: time per decomposition against the size of a population."}}
page.draw_growth(growth, side_by_side)
plt.show()

# %% [markdown]
# ## How much faster
#
# Two programs take the same steps on the same data, in turns, so that both meet the same machine:
#
# - the **obvious way**: one module after another, autograd, a full sort of every layer's scores in every forward pass, as
#   edge-popup {cite:p}`ramanujan2020` is commonly written;
# - **ours**: all modules in one pass, the exact top $k$ found near the last threshold, and everything that follows the
#   gradient fused into one pass over memory (`modlib.engines`).
#
# A step is one batch through all modules. An epoch is the number of batches times that.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.speed_table(speed, race)

# %% [markdown]
# ## Where the time goes, and what the machine could do
#
# Two numbers bound a step: the floating-point operations of the matrix products, and the bytes that scores, momentum,
# gradients and masked weights move. Both stand beside what this machine can do: a large product of matrices, and one pass
# over arrays of the same size.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.parts_table(parts, data.num_classes)

# %% [markdown]
# ## Proportional to the number of classes?
#
# The work is. The time grows less, because modules that train side by side share a part of it.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.classes_table(growth, parts)

# %% [markdown]
# ## The obvious way, written out
#
# Sort the scores of each layer, set the largest to 1 and the rest to 0, multiply, let autograd find the gradient, add the
# stemming loss, step.

# %% tags=["hide-cell"]
page.obvious_code()

# %% tags=["remove-cell", "nbval-check-output"]
print(sorted(speed["program"].unique()), len(growth) == 2 * repeats * len(classes))

# %% [markdown]
# **Re-run it:** `modlib reproduce cost -p models "[fc4]" -p threads 2`. On a GPU: `-p device cuda -p populations "[1, 10, 100]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
settings = {
    "dataset": dataset, "models": models, "batch_sizes": batch_sizes, "k": k, "threads": threads, "device": device
}  # fmt: skip
tables.where_from([], "tab-from-cost", settings, time.perf_counter() - start_of_page)
