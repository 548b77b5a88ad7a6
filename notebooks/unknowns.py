# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A vote of modules rejects the parent's other classes better than a softmax over the asked ones
#
# **Question.** A recomposed network knows two, five or ten classes. If it is shown something else, does it say so, and better
# than its parent's softmax would?

# %% tags=["parameters", "remove-input"]
networks: list[dict] = [
    {
        "dataset": "digits", "model": "fc1", "parent_epochs": 30, "parent_recipe": "published", "other": "", "images": 300,
        "recipe": {"alpha": 4.0, "vote": 0.9, "epochs": 6}, "seeds": [0],
    },
]  # fmt: skip # see modlib.study.pages.unknowns.Network
sizes: list[int] = [2, 5, 10]  # numbers of classes that are known
count: int = 5  # subsets of each size
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import unknowns

figures.use_style()
store = kept_or_scratch(results)
done = unknowns.run(networks, sizes, count, store)

# %% tags=["remove-input"]
unknowns.answer(done)

# %% [markdown]
# **Caveat.** The parent's other classes are easy unknowns: every module has seen them, as images of "another class".

# %% tags=["remove-input"] mystnb={"figure": {"caption": "AUROC of telling images of the asked classes from others, by the number of classes asked for; a row for each network, a column for each kind of unknown image; mean over subsets and trials.", "name": "fig-unknowns"}, "image": {"alt": "Panels with three lines each: the vote of modules, the parent's softmax over the asked classes, and over all."}}
unknowns.draw(done)
plt.show()

# %% [markdown]
# On the parent's other classes, the vote does better than the softmax over the asked classes alone, which is all that a
# network for these classes has of its parent. Where all of the parent's logits are at hand, their softmax does better still.
# On another data set, CIFAR-10's modules do better than both. On noise all three miss many images.
#
# ## How many are rejected
#
# The threshold is set on held-out images of the asked classes, so that 95% of them are kept (`Recomposed.calibrated`). The
# score of the vote is the winner's log-odds. *Restricted softmax* is of the parent's logits of the asked classes alone. *Full
# softmax* has all logits, which a network for a subset would not have.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
unknowns.table(done)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - For the parent's other classes, a vote of modules says "none of these" better than a softmax over the asked classes.
# - The whole parent, where it is at hand, does that better still.
# - On noise and other data many images pass: calibrate, and don't rely on it.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
parameters = {"networks": networks, "sizes": sizes, "count": count}
records.export(store, "unknowns", done, parameters)
print(len(done), "trials")

# %% [markdown]
# **In use:** `pair = modules.recompose([1, 7]).calibrated(data)`, then `pair.predict(inputs, reject=True)` gives -1 for none
# of them ([decompose a network of your own](../own_network.md)).
#
# **Re-run it:** `modlib reproduce unknowns -p count 20`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-unknowns", {"sizes": sizes, "count": count})
