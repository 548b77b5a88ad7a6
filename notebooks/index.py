# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Take a network apart, recompose any part
#
# {cite:t}`kingetsu2021` cut a trained classifier into small modules, one a class; any of them work together again without
# training. **Does it hold?** Or [try it](../explorer.md): tick classes, draw a digit.

# %% tags=["parameters", "remove-input"]
table1: str = "quick"  # whose trials are read: those of the quick or of the published run of Table 1
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
from modlib.study import figures, tables
from modlib.study.pages import index as page
from modlib.study.records import Store

figures.use_style()
evidence = page.read(table1, Store.at(results))

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.six_cards(evidence)

# %% [markdown]
# ```python
# modules = modlib.cotrain(parent, data, seed=0)  # any classifier, our settings; recipe=modlib.published() for the paper's
# pair = modules.recompose([1, 7])  # an nn.Module: no training
# pair.predict(inputs)  # 1 or 7, for each input
# ```

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The main result: recomposing all modules, without training. Left: accuracy of the vote on test images, one point a trial; line: their parents. Right: how many edges every two modules share (Jaccard index of the masks). Crosses: the paper, where it has this network. The vote loss is ours, not the paper's.", "name": "fig-main"}, "image": {"alt": "Two panels with a row for each recipe, published and ours with vote loss. The accuracy of ours is higher, on the line of the parents; the Jaccard index of ours is higher than that of the published recipe."}}
page.draw(evidence)

# %% tags=["remove-input"]
page.main_result(evidence)

# %% [markdown]
# ## Where to go
#
# - **Does the paper hold?** The [scoreboard](scoreboard.ipynb): each claim with the paper's number, ours, and a verdict.
# - **See it work:** the [explorer](../explorer.md). Tick classes, draw a digit, watch the modules vote.
# - **How does it work?** [Introduction](introduction.ipynb), then [masks](training_mask.ipynb),
#   [grafting layers](grafting_layer.ipynb), [stemming and co-training](module_stemming.ipynb),
#   [recomposing](recomposing.ipynb).
# - **Your own network:** [an example](../own_network.md), [settings that work](recommended.ipynb),
#   [which way for a subset](which_way.ipynb), and the [API](../api.md).
# - **Re-run a page with other parameters:** [how](../rerun.md). What differs from the paper, and why:
#   [deviations](../deviations.md).

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(evidence.done, "tab-from-index", evidence.column.parameters)

# %% tags=["remove-cell", "nbval-check-output"]
print(page.summary(evidence))
