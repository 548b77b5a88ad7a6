# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Decomposing a neural network into modules, and recomposing it
#
# Kingetsu, Kobayashi and Suzuki {cite:p}`kingetsu2021` cut a trained classifier into one small module per class; any subset
# works together again without training. **Does it hold, what is better, and how do I use it?**

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

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The main result: recomposing all modules, without training. Left: accuracy of the vote on test images, one point a trial; line: their parents. Right: how many edges every two modules share (Jaccard index of the masks). Crosses: the paper, where it has this column. The vote loss is ours, not the paper's.", "name": "fig-main"}, "image": {"alt": "Two panels with a row for each recipe, published, ours, and ours with vote loss. The accuracy rises from the first to the last and reaches the line of the parents; the Jaccard index of ours is higher than that of the published recipe."}}
page.draw(evidence)

# %% tags=["remove-input"]
page.main_result(evidence)

# %% [markdown]
# ## Where to go
#
# - **Does the paper hold?** The [scoreboard](scoreboard.ipynb): each claim with the paper's number, ours, and a verdict.
# - **How does it work?** [Introduction](introduction.ipynb), then [masks](training_mask.ipynb),
#   [grafting layers](grafting_layer.ipynb), [stemming and co-training](module_stemming.ipynb),
#   [recomposing](recomposing.ipynb).
# - **Does it work for convolutional networks?** [Figure 4](figure4.ipynb): VGG16, ResNet50 and a WideResNet at a reduced
#   size, what starves their modules, and what to do about it; the paper's claims about them are still open.
# - **Your own network:** [three lines](../own_network.md), and the [API](../api.md).
# - **Re-run a page with other parameters:** [how](../rerun.md). What differs from the paper, and why:
#   [deviations](../deviations.md).
#
# ```python
# modules = modlib.cotrain(parent, data, seed=0)  # or recipe settings of your own
# pair = modules.recompose([1, 7])  # an nn.Module: no training
# pair.predict(inputs)  # 1 or 7, for each input
# ```

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(evidence.done, "tab-from-index", evidence.column.parameters)

# %% tags=["remove-cell", "nbval-check-output"]
print(page.summary(evidence))
