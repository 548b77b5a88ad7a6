# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The frontier: all classes fit into a few per cent of the weights
#
# **Question.** How small can a recomposed network be, and what does that cost in accuracy?

# %% tags=["parameters", "remove-input"]
columns: list[dict] = [
    {"dataset": "digits", "model": "fc1", "all_classes": 0.03, "pairs": 0.02}
]  # goals: union of all classes, of two (mean over pairs)
settings: list[dict] = [
    {"dataset": "digits", "model": "fc1", "hidden": 0.1, "output": 0.1, "alpha": 4.0, "epochs": 8},
    {"dataset": "digits", "model": "fc1", "hidden": 0.05, "output": 0.3, "alpha": 10.0, "epochs": 8},
]  # see the end of the page
seeds: list[int] = [0]  # trials: the first seed tries every setting, the others only the finalists
finalists: int = 2  # settings that are run with all seeds
rates: list[float] = [0.03, 0.1]  # rates tried for the control, one shared mask
shares: list[float] = [0.2]  # shares of all weights of the other control: one mask that keeps half of the output layer
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
vote: float = 0.9  # weight of the vote loss
init: str = "magnitude"  # initial scores: magnitude or kaiming
behind: float = 0.005  # how far behind the parent the goal lets all classes be
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import frontier

figures.use_style()
store = kept_or_scratch(results)
parameters = {
    "columns": columns, "settings": settings, "seeds": seeds, "rates": rates, "shares": shares,
    "parent_epochs": parent_epochs, "vote": vote, "init": init, "behind": behind,
}  # fmt: skip
found = frontier.run(store, **parameters, finalists=finalists)
done = [record for one in found for record in one.done]
controls = [record for one in found for record in one.controls]
of_subsets = frontier.every_subset(found, store)

# %% tags=["remove-input"]
frontier.answer(found, behind)

# %% [markdown]
# **Caveat.** Recipe *ours* with vote loss, *not the paper's*. The rule that chooses a setting reads no test image, but it
# replaced an earlier rule *after* the first test results had been seen.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Left: accuracy of all classes against the parent's, over the union of all modules; one point a trial, crosses: one shared mask, as large as the chosen union and of other sizes. Dotted: the goals, met left of the colour's line and above the horizontal one. Right: accuracy by the number of classes, mean over all subsets and trials, of the chosen modules (solid) and of the parent restricted to the subset (dashed). Test images.", "name": "fig-frontier"}, "image": {"alt": "Left: points of settings, those of small unions further below their parents; the crosses of the control lie lower still. Right: accuracy falls with the number of classes, the modules' curve close to that of the restricted parent."}}
frontier.draw(found, of_subsets, behind)
plt.show()

# %% [markdown]
# ## All settings
#
# The paper keeps one share $k$ in every layer. Two things make smaller unions. The output layer holds few weights, so it may
# keep more than the hidden layers. A large $\alpha$ lets the modules share what they keep. Initial scores are in the order
# of the weights' magnitude.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
frontier.settings_tried(found, behind)

# %% [markdown]
# ## Every subset
#
# One pass of every module over the test images serves all subsets: the vote of a subset is an argmax over its modules. Beside
# it stands the parent itself, its logits restricted to the subset. The parent holds all weights.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
frontier.subsets_by_size(of_subsets)

# %% [markdown]
# ## How it was done
#
# 1. The first seed tries every setting. Of those whose union of all classes is as small as the goal asks, the two that are
#    most accurate on **held-out** images are run with the other seeds. The one with the higher held-out accuracy over all
#    seeds is chosen.
# 2. The control is *one* mask for all classes, with as many edges in every layer as the union of the chosen modules. It has a
#    grafting layer for each class, the same vote loss, images, epochs and annealing. Its rate is chosen on held-out images.
#    One mask's epochs are a tenth of the passes of ten modules. A second control is one mask of a few sizes that keeps half
#    of the output layer: what the layer's share alone does.
# 3. The modules' lead is smaller here than at $k = 10\%$ on the page on [controls](controls.ipynb), where the shared mask has
#    fewer epochs and starts from random scores: how far ahead modules are depends on how well the control is trained.

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - All classes fit into a few per cent of a small network, if the output layer may keep more than the others.
# - Such small modules are a little behind the parent, and not clearly ahead of one shared mask of that size.
# - What they are ahead in they pay for with a pass for each class.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
records.export(store, "frontier", [*done, *controls], parameters)
print(len(done), "trials,", len(controls), "controls; one setting chosen for each of", len(found), "network(s)")

# %% [markdown]
# **Re-run it:** `modlib reproduce frontier -p settings "[{dataset: digits, model: fc1, hidden: 0.05, output: 0.5, alpha: 10, epochs: 8}]"`.
# A setting names data set, parent, shares kept in the hidden and the output layer, $\alpha$, epochs, and, where it is not
# 0.1, the `rate` of the scores.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from([*done, *controls], "tab-from-frontier", parameters)
