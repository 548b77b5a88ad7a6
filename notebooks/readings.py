# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One reading of Eq. 1 gives the printed sizes, none gives the printed vote
#
# **Question.** The text leaves three things open: how pixels are scaled, whether Eq. 1 averages over all scores or layer by
# layer, and whether $S$ or $|S|$ is ranked. Which of the eight combinations gives what the paper prints?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
seeds: list[int] = [0]  # trials of every reading, parent and decomposition each
epochs: int = 3  # epochs of recipe published (the paper's Table 2: 25)
parent_epochs: int = 30  # epochs of the parents (the paper's Table 3: 100)
elsewhere: list[dict] = [
    {
        "dataset": "digits",
        "model": "fc2",
        "scaling": "standard",
        "reduction": "layer",
        "scores": "absolute",
        "epochs": 3,
        "parent_epochs": 30,
    },
]  # the same question on other networks
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import readings

figures.use_style()
store = kept_or_scratch(results)
parameters = {
    "dataset": dataset, "model": model, "seeds": seeds, "epochs": epochs, "parent_epochs": parent_epochs,
    "elsewhere": elsewhere,
}  # fmt: skip
found = readings.run(store, **parameters)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
readings.answer(found)

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Remaining parameters of two-class networks with stemming over those without; a point a reading, bars: standard deviations over trials; the cross: the paper's Table 2.", "name": "fig-readings"}, "image": {"alt": "Eight points with small bars; one or two lie near the cross."}}
readings.draw(found)
plt.show()

# %% [markdown]
# ## All that the paper prints of this network
#
# Pairs: mean over all pairs and trials, and the range from best to worst. Index and vote of ten modules are its Table 1's,
# with $\alpha$ = 1 here (the paper doesn't say which). Single modules are its Table 5's without stemming: the maximum over
# epochs, chosen on test images, as the paper did.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
readings.distances_table(found)

# %% [markdown]
# ## Does it hold elsewhere?
#
# The reading with the nearest index, on other networks of the paper's Table 1.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
readings.elsewhere_table(found)

# %% [markdown]
# **What follows.** On MNIST FC1 *Eq. 1 by layer* is what matters: all four readings with it are within half a range of both
# numbers of Table 2, and none of the others is. The index and the single modules speak for ranking the magnitude of $S$. How
# pixels are scaled hardly matters. But none of the eight also gives the printed vote, and on other networks the index is
# far below the printed one. So the reading is *not* found: something else is unknown. Eight readings were tried here, and
# some eight before them; one of them had to come near. Recipe *published* stays Eq. 1 over all scores, $S$ ranked,
# normalised pixels; pages name the reading that they show.

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - Reading Eq. 1 layer by layer brings the sizes of the paper's Table 2; how pixels are scaled hardly matters.
# - No reading tried also brings the printed vote, so what the paper did is not found.
# - Sizes that agree on one network don't show that the reading is right: elsewhere it does not fit.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
done = [record for some in [*found.done.values(), *(part for _, part in found.elsewhere)] for record in some]
records.export(store, "readings", done, parameters)
print(len(found.done), "readings,", len(done), "trials")

# %% [markdown]
# **Re-run it:** `modlib reproduce readings -p seeds "[0, 1]"`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-readings", parameters)
