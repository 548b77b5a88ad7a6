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
hybrids: list[dict] = [
    {"dataset": "digits", "model": "fc1", "hidden": 0.1, "output": 0.3, "alpha": 4.0, "one_pass": 0.5, "epochs": 4},
]  # trained for one pass: one_pass is the weight of that loss
hybrid_union: float = 0.09  # union of all classes that a hybrid may hold, where one is as small
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import frontier, frontier_one_pass

figures.use_style()
store = kept_or_scratch(results)
parameters = {
    "columns": columns, "settings": settings, "seeds": seeds, "rates": rates, "shares": shares,
    "parent_epochs": parent_epochs, "vote": vote, "init": init, "behind": behind, "hybrids": hybrids,
    "hybrid_union": hybrid_union,
}  # fmt: skip
found = frontier.run(store, **parameters, finalists=finalists)
done = [record for one in found for record in one.done]
controls = [record for one in found for record in one.controls]
of_subsets = frontier.every_subset(found, store)
united = frontier.in_one_pass(found, store, **parameters, finalists=finalists)
in_one_pass = [record for one in united for record in one.records]

# %% tags=["remove-input"]
frontier.answer(found, behind)

# %% [markdown]
# **Caveat.** This is our recipe with vote loss, *not the paper's*. The rule that chooses a setting reads no test image, but
# we changed that rule once *after* we had seen the first test results.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Left: accuracy of all classes against the parent's, over the union of all modules; one point a trial. Crosses: one shared mask, as large as the chosen union and of other sizes. The goal is met above the dotted line and left of the line of the same colour. Right: accuracy by the number of classes, mean over all subsets and trials, of the chosen modules (solid) and of the parent restricted to the subset (dashed). Test images.", "name": "fig-frontier"}, "image": {"alt": "Left: points of settings, those of small unions further below their parents; the crosses of the control lie lower still. Right: accuracy falls with the number of classes, the modules' curve close to that of the restricted parent."}}
frontier.draw(found, of_subsets, behind)
plt.show()

# %% [markdown]
# ## All settings
#
# The paper keeps one share $k$ in every layer. Two changes make unions smaller here. The hidden layers keep less and the
# output layer, which has few weights, keeps more. And a large $\alpha$ makes the modules keep the same weights. At the start
# the largest weights have the highest scores.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
frontier.settings_tried(found, behind)

# %% [markdown]
# ## Every subset
#
# The same chosen modules answer for all subsets: the most confident module of the subset wins. Beside them stands the parent
# with all its weights, its logits restricted to the subset.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
frontier.subsets_by_size(of_subsets)

# %% [markdown]
# ## In one pass
#
# A subset of K classes costs K passes. The alternative is one pass with the union of the members' masks. The members'
# grafting layers then read the same logits. Three kinds of masks are compared: our chosen modules, a *hybrid* that is
# trained for it, and one shared mask. Half of the hybrid's loss is that of K passes. The other half is the loss in one
# pass, for a subset $S$ that is drawn anew in every step. With $m_c$ the masks and $s_c$ the scores:
#
# $$u = \bigvee_{c \in S} m_c, \qquad \frac{\partial L}{\partial s_c} = \frac{\partial L}{\partial u}
# \prod_{c' \in S,\, c' \neq c} (1 - m_{c'}).$$
#
# So the union teaches a module only where no other member keeps the same edge.

# %% tags=["remove-input"]
frontier_one_pass.answer(united)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
frontier_one_pass.table(united)

# %% [markdown]
# **What it doesn't do.** A union in one pass does not vote: its members read the same features, as with one mask. The
# hybrid's K passes, with the same weights, are more accurate. It needs more training than modules do: in every step a pass
# for each module and one for the union. It was tried on fully connected parents only, at one rate, and with fewer epochs
# than the other masks. How large its union may be was set (from 8% to 9%) when the tries were known on held-out images.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
frontier_one_pass.tried(united)

# %% [markdown]
# ## How it was done
#
# 1. The first seed tries every setting. Some have a union of all classes as small as the goal asks. The two of these that
#    are most accurate on **held-out** images run with the other seeds too. The better one over all seeds, again on held-out
#    images, is chosen.
# 2. The control is *one* mask for all classes, with as many edges in every layer as the union of the chosen modules. It has a
#    grafting layer for each class, and the same vote loss, images, epochs and annealing. Its rate is chosen on held-out
#    images. An epoch of one mask is a tenth of the work of ten modules. A second control is one mask that keeps half of the
#    output layer, at a few sizes.
# 3. On the page on [controls](controls.ipynb), at $k = 10\%$, modules lead one shared mask by more. There the shared mask
#    has fewer epochs and starts from random scores. So the lead depends on how well the control is trained.

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - All classes fit into a few per cent of a small network, if the output layer may keep more than the others.
# - Such small modules are a little less accurate than the parent, and not clearly better than one shared mask of that size.
# - They need a pass for each class, where one mask needs one.
# - In one pass, no union of masks was better than one shared mask of its size. The vote of K passes is what more masks buy.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
records.export(store, "frontier", [*done, *controls, *in_one_pass], parameters)
print(len(done), "trials,", len(controls), "controls,", len(in_one_pass), "runs in one pass")
print("one setting chosen for each of", len(found), "network(s)")

# %% [markdown]
# **Re-run it:** `modlib reproduce frontier -p settings "[{dataset: digits, model: fc1, hidden: 0.05, output: 0.5, alpha: 10, epochs: 8}]"`.
# A setting names the data set, the parent, the shares kept in the hidden layers and in the output layer, $\alpha$ and the
# epochs. The `rate` of the scores is 0.1 unless it is given.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from([*done, *controls, *in_one_pass], "tab-from-frontier", parameters)
