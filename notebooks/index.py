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
# A trained classifier can be cut into one small **module per class**, by choosing edges only; any subset of the modules
# works together again at once, without training. That is the claim of Kingetsu, Kobayashi and Suzuki, *Neural Network
# Module Decomposition and Recomposition* {cite:p}`kingetsu2021`. This book re-runs it, section by section and table by
# table, says claim by claim whether it holds, and comes with `modlib`, a small library that does it to networks of your
# own.

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
seeds: list[int] = [0, 1]  # one trial for each seed
k: float = 0.10  # share of the edges kept in every layer
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
published_epochs: int = 5  # epochs of recipe published (the paper gives none here, 50 for Table 5)
published_alphas: list[float] = [0.0, 1.0]  # stemming of recipe published
ours_epochs: int = 5  # epochs of recipe ours
ours_alpha: float = 1.0  # stemming of recipe ours without vote loss
vote: float = 0.9  # weight of the vote loss
vote_alpha: float = 4.0  # stemming of recipe ours with vote loss
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown

import modlib
from modlib import figures, records, tables
from modlib.experiments import labelled, last_epochs, run_trials, table1_settings, table1_trials
from modlib.reproduce import Layout

figures.use_style()
data = modlib.datasets.load(dataset)
settings = table1_settings(globals())
done = run_trials(table1_trials(dataset, model, seeds, **settings), data, records.Store.at(results))
last = last_epochs(labelled(records.frame(done)))
stemmed = last[last["alpha"] > 0]
paper = pd.read_csv(Layout.here().root / "book" / "published" / "table1.csv")
paper = paper[(paper["dataset"] == dataset) & (paper["model"] == model)]
parent = last.drop_duplicates("seed")["parent_accuracy"]

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The main result: recomposing all modules, without training. Left: accuracy of the vote on test images, one point a trial; line: their parents. Right: how many edges every two modules share (Jaccard index of the masks). Crosses: the paper, where it has this column. The vote loss is ours, not the paper's.", "name": "fig-main"}, "image": {"alt": "Two panels with a row for each recipe, published, ours, and ours with vote loss. The accuracy rises from the first to the last and reaches the line of the parents; the Jaccard index of ours is higher than that of the published recipe."}}
figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.3), sharey=True)
labels = list(dict.fromkeys(stemmed["label"]))
for y, label in enumerate(labels):
    trials = stemmed[stemmed["label"] == label]
    left.scatter(100 * trials["accuracy"], [y] * len(trials), color=figures.COLOURS[label], s=26, alpha=0.8)
    right.scatter(trials["jaccard_index"], [y] * len(trials), color=figures.COLOURS[label], s=26, alpha=0.8)
theirs = paper[paper["method"] == "module stemming"]
left.scatter(theirs["accuracy_percent"], [0] * len(theirs), marker="x", s=60, color="black")
right.scatter(theirs["jaccard_index"], [0] * len(theirs), marker="x", s=60, color="black")
left.axvline(100 * parent.mean(), color="black", lw=1)
left.set(xlabel="accuracy of the vote (%)", yticks=range(len(labels)), yticklabels=labels)
left.set_ylim(-0.6, len(labels) - 0.4)
right.set(xlabel="Jaccard index")
plt.show()

# %% tags=["remove-input"]
best = stemmed[stemmed["vote"] > 0]
gap = 100 * (best["parent_accuracy"].mean() - best["accuracy"].mean())
plain = stemmed[stemmed["recipe"] == "published"]
sentence = (
    f"**On {data.name}, {model.upper()}, {tables.percent(k, 0)} of the edges for each module:** the published recipe (α = {max(published_alphas):g}) gives "
    f"{records.percent_of_n(plain['accuracy'])} at a Jaccard index of {plain['jaccard_index'].mean():.2f}"
)
if len(theirs):
    row = theirs.iloc[0]
    sentence += f" (the paper: {row.accuracy_percent:.2f} % at {row.jaccard_index:.2f})"
sentence += (
    f"; ours, with a loss for the vote (α = {vote_alpha:g}), {records.percent_of_n(best['accuracy'])} at "
    f"{best['jaccard_index'].mean():.2f}, {abs(gap):.2f} points {'behind' if gap > 0 else 'ahead of'} the parents' "
    f"{records.mean_and_spread(parent)} %. The numbers are computed; [Table 1](table1.ipynb) has them all."
)
Markdown(sentence)

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
# modules = modlib.cotrain(parent, data, k=0.10, alpha=1.0, epochs=50, seed=0)
# pair = modules.recompose([1, 7])  # an nn.Module: no training
# pair.predict(inputs)  # 1 or 7, for each input
# ```

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-index", {"dataset": dataset, "model": model, "seeds": seeds, **settings})

# %% tags=["remove-cell", "nbval-check-output"]
print(len(done), "trials of", dataset, model, labels)
