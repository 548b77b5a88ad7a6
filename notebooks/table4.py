# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Table 4, re-run: the printed weight decay makes scores forget what they learnt
#
# **Question.** With which parameters are masks trained? What does the printed weight decay of $5 \times 10^{-1}$ do to *scores*?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
weight_decays: list[float] = [5e-4, 5e-2, 5e-1]  # decays of the scores; the last is what is printed
k: float = 0.10  # share of the edges kept in every layer
alpha: float = 1.0  # stemming
epochs: int = 10  # epochs of each decomposition
batch_size: int = 32  # images in a batch (Table 4: 32)
seed: int = 0  # seed of the parent, the scores and the batches
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import time

import matplotlib.pyplot as plt

import modlib
from modlib.study import figures, tables
from modlib.study.pages import table4
from modlib.study.records import Store
from modlib.study.trials import trained_parent
from modlib.zoo import datasets, training

figures.use_style()
started = time.perf_counter()
data = datasets.load(dataset)
parent = trained_parent(data, model, seed, parent_epochs, Store.at(results))
common = {"k": k, "alpha": alpha, "epochs": epochs, "batch_size": batch_size, "seed": seed}
looks = {decay: table4.Look(data) for decay in weight_decays}
for decay, look in looks.items():
    modlib.cotrain(parent, data, weight_decay=decay, callback=look, **common)
curve, own = table4.curves(looks), training.accuracy(parent, data, "held_out")

# %% tags=["remove-input"]
table4.answer(dataset, model, k, alpha, curve, own)

# %% [markdown]
# **Caveat.** One seed, one network and few epochs; recipe *published*, and only the weight decay differs.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Decompositions with different weight decays of the scores, on held-out images: accuracy of the vote of all modules (dotted: the parent), Jaccard index of the masks, root mean square of the first layer's scores on a logarithmic scale, and share of its kept edges that changed since the epoch before.", "name": "fig-score-decay"}, "image": {"alt": "Four panels of curves over epochs, one curve for each weight decay: accuracy of the vote, Jaccard index, size of the scores, and share of edges exchanged in an epoch."}}
table4.draw_decompositions(curve, own)
plt.show()

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
table4.last_epoch(curve)

# %% [markdown]
# ## How long a score remembers a gradient
#
# Decay does not change the order of scores: it shrinks all of them alike. But it makes them forget. A gradient of 1 in step 0
# lowers a score; the decay, with momentum, brings the score back. With the printed value a mask is decided by the last few
# batches, with $5 \times 10^{-4}$ by more than a thousand. Scores of another size also change what one unit of $\alpha$ is worth,
# because stemming pulls with a fixed force. So both recipes use $5 \times 10^{-4}$, the value of the work that the paper follows;
# see [deviations](../deviations.md).

# %% tags=["remove-input"] mystnb={"figure": {"caption": "How much a single gradient of 1 in the first step still moves a score, by weight decay, at the published recipe's rate and momentum.", "name": "fig-memory"}, "image": {"alt": "Curves over steps on a logarithmic axis, one for each weight decay: all rise at first with the momentum; with a larger decay the influence fades after fewer steps."}}
table4.draw_memory({decay: table4.influence(decay) for decay in weight_decays})
plt.show()

# %% [markdown]
# ## Two recipes
#
# The paper's Table 4 gives a rate, a weight decay, the momentum and the batch size. A decomposition needs more than that.
# **published** keeps to the paper, and fills its gaps with defaults; **ours** anneals the rates, takes larger batches and starts
# each grafting layer from the parent's own logit. A recipe is a frozen dataclass: it holds everything that decides a
# decomposition but the parent, the data and the seed.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
table4.parameters()

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Learning rates of the two recipes over a decomposition: of the scores (solid) and of the grafting layers (dashed).", "name": "fig-table4-schedule"}, "image": {"alt": "Two horizontal lines for the published recipe, and two cosine curves that start at the same rates and fall to zero for ours."}}
table4.draw_rates()
plt.show()

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - Under the printed weight decay, scores forget what they learnt within a few batches.
# - Decay also changes what one unit of α is worth, so the two can't be chosen apart.
# - A recipe needs more settings than the paper prints; ours are listed above.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
for decay in (5e-4, 5e-2, 5e-1):
    print(f"weight decay {decay:g}: half forgotten after {table4.steps_to_half(table4.influence(decay))} steps")

# %% [markdown]
# **Re-run it:** `modlib reproduce table4 -p weight_decays "[0, 0.0005]" -p alpha 0.0`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
shown = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "weight_decays": weight_decays} | common
tables.where_from([], "tab-from-table4", shown, time.perf_counter() - started)
