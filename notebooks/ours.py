# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Ours: which lever does what
#
# **Question.** Our recipe with vote loss reaches its own parents' accuracy ([Table 1](table1.ipynb)). It differs from the
# paper's in several things at once. Which of them matter?
#
# Each row below changes **one** thing of our recipe with vote loss, on the same parents and seeds (without the vote loss $\alpha$ is a quarter,
# because it pulls harder there). Larger batches, which our recipe has too, have no row. The vote loss is ours,
# *not the paper's*. Nothing is chosen on test images.

# %% tags=["parameters"]
columns: list[dict] = [{"dataset": "digits", "model": "fc1", "alpha": 4.0, "trials": 2}]  # alpha: our stemming
k: float = 0.10  # share of the edges kept in every layer
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
short_parent_epochs: int = 10  # epochs of the less trained parent
epochs: int = 4  # epochs of our recipe
vote: float = 0.9  # weight of the vote loss
output_k: float = 0.30  # share kept in the output layer, where that is changed
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import ours

figures.use_style()

# %%
store = kept_or_scratch(results)
parameters = {
    "columns": columns, "k": k, "parent_epochs": parent_epochs, "epochs": epochs,
    "vote": vote, "output_k": output_k, "short_parent_epochs": short_parent_epochs,
}  # fmt: skip
found = ours.run(store, **parameters)
done = [record for one in found for record in one.done]

# %% tags=["nbval-check-output"]
records.export(store, "ours", done, parameters)
names = found[0].names
print(sum(len(one.last) for one in found) == sum(one.column.trials for one in found) * len(names), len(names))

# %% [markdown]
# ## One thing at a time
#
# Differences are paired: a trial minus the base trial of the same seed, hence of the same parent (but for the row that
# changes the parents).

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
ours.one_at_a_time(found, epochs)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of the accuracy of the vote (points) and of the Jaccard index when one thing of our recipe is changed; one point a trial, paired by seed with the base.", "name": "fig-ours"}, "image": {"alt": "For each change a row of points: left the change of accuracy, right the change of the Jaccard index; points left of zero are losses."}}
ours.draw_changes(found)
plt.show()

# %% [markdown]
# ## Are they still modules of a single class?
#
# The vote loss trains modules together. If they had become parts of one ten-class network, a module alone would no
# longer answer "is it my class?". Table 5 asks that of all test images, Table 6 of balanced sets: its diagonal is the
# module's own class (chance 50 %), off it a perfect module has about 44.4 %.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
ours.single_modules(found)

# %% [markdown]
# ## Calibrating the vote
#
# Modules that were trained apart need not agree on what a confidence is worth. A scale and a shift for each module's
# log-odds, fitted on held-out training images, would mend that without touching a mask.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
ours.calibration(found)

# %% tags=["hide-input"]
ours.came_out(found)

# %% [markdown]
# **Re-run it:** `modlib reproduce ours -p columns "[{dataset: fashion_mnist, model: fc1, alpha: 4.0, trials: 3}]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-ours", parameters)
