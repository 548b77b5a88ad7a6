# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The frontier: accuracy against remaining parameters
#
# **Question.** How small can a recomposed network be? For every subset of two to all classes: the share of the parent's
# maskable weights that the union of its modules holds, and the accuracy of the vote on the subset's classes.
#
# The paper keeps one share $k$ in every layer. Two things make small unions possible: the output layer is a bottleneck that
# costs next to nothing, so it may keep more than the hidden layers; and a large $\alpha$ lets the modules share what they
# keep. Recipe *ours*, with vote loss (ours, *not the paper's*) and initial scores in the order of the weights' magnitude.

# %% tags=["parameters"]
columns: list[str] = ["digits fc1"]  # data sets with parents
settings: list[str] = ["0.10 0.10 4", "0.05 0.30 10"]  # share of hidden layers, share of the output layer, alpha
seeds: list[int] = [0]  # one trial for each seed
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
epochs: int = 8  # epochs of our recipe
vote: float = 0.9  # weight of the vote loss
init: str = "magnitude"  # initial scores: magnitude or kaiming
behind: float = 0.005  # how far behind the parent a network may be on held-out images to be chosen
goals_all: list[float] = [0.03]  # goal of the union of all classes, for each column
goals_pairs: list[float] = [0.02]  # goal of the union of two classes, mean over pairs, for each column
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import tempfile
from itertools import combinations

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown

import modlib
from modlib import experiments, figures, masking, metrics, parents, recipes, records, tables, training
from modlib.experiments import Trial

figures.use_style()
scratch = tempfile.TemporaryDirectory()  # parents and modules of a run that keeps none
store = records.Store.at(results or scratch.name)

# %% [markdown]
# ## Running the trials


# %%
def variants_of(data, model):
    """One change of the recipe for each setting."""
    last_layer = list(masking.maskable_parameters(parents.make(model, data)))[-1]
    changes = {}
    for text in settings:
        hidden, output, alpha = (float(part) for part in text.split())
        name = f"{hidden:.1%} / {output:.0%}, α = {alpha:g}"
        changes[name] = {"k": {"default": hidden, last_layer: output}, "alpha": alpha}
    return changes


done, frames, trials, sets = [], [], {}, {}
for column in columns:
    dataset, model = column.split()
    sets[column] = modlib.datasets.load(dataset)
    recipe = recipes.ours(vote=vote, epochs=epochs, init=init)
    base = Trial(dataset, model, "ours", recipe, seeds[0], parent_epochs)
    trials[column] = experiments.variants(base, variants_of(sets[column], model), seeds)
    some, rows = experiments.run_variants(trials[column], sets[column], store)
    done += some
    frames.append(rows.assign(column=column))
rows = pd.concat(frames, ignore_index=True)
parameters = {
    "columns": columns, "settings": settings, "seeds": seeds, "parent_epochs": parent_epochs, "epochs": epochs,
    "vote": vote, "init": init,
}  # fmt: skip
records.export(store, "frontier", done, parameters)
last = rows[rows["epoch"] == epochs]

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
chosen, lines = {}, []
for column, goal_all, goal_pairs in zip(columns, goals_all, goals_pairs, strict=True):
    part = last[last["column"] == column]
    held = part[part["split"] == "held_out"]
    gap = (held["parent_accuracy"] - held["accuracy"]).groupby(held["variant"]).mean()
    size = held.groupby("variant")["remaining_parameters_all"].mean()
    near = size[gap <= behind]
    chosen[column] = near.idxmin() if len(near) else gap.idxmin()
    test = part[part["split"] == "test"]
    for name in trials[column]:
        one = test[test["variant"] == name]
        gap_on_test = 100 * (one["parent_accuracy"] - one["accuracy"])
        lines.append(
            {
                "column": column,
                "k hidden / output, α": f"**{name}**" if name == chosen[column] else name,
                "all classes (%)": records.mean_and_spread(one["accuracy"]),
                "behind the parent": records.mean_and_spread(gap_on_test, 1),
                "union of all (%)": records.mean_and_spread(one["remaining_parameters_all"]),
                "pairs (%)": records.mean_and_spread(one["pair_accuracy"]),
                "union of pairs (%)": records.mean_and_spread(one["remaining_parameters"]),
                "goals met": ", ".join(
                    name
                    for name, met in (
                        (
                            "all",
                            one["remaining_parameters_all"].mean() <= goal_all and gap_on_test.mean() <= 100 * behind,
                        ),
                        ("pairs", one["remaining_parameters"].mean() <= goal_pairs),
                    )
                    if met
                )
                or "none",
                "n": len(one),
            }
        )
board = pd.DataFrame(lines)
goals = "; ".join(
    f"{column}: all classes in {a:.0%} of the weights within {100 * behind:.1f} points of the parent, pairs in {b:.0%}"
    for column, a, b in zip(columns, goals_all, goals_pairs, strict=True)
)
tables.table(
    board,
    f"Settings tried, test images, mean ± standard deviation over n trials. Bold: the smallest union that is at most {100 * behind:.1f} points behind the parent on held-out images. Goals: {goals}.",
    "tab-frontier",
)

# %% tags=["nbval-check-output"]
print(len(done), "trials; one setting chosen for each of", len(chosen), "column(s)")

# %% [markdown]
# ## Every subset
#
# One pass of every module over the test images serves all subsets: a subset's vote is an argmax over some columns. The
# control is the parent itself, its logits restricted to the subset: it holds all weights, and is asked the same.


# %%
def every_subset(modules, data, parent):
    """Return one row for each subset of two or more classes: its size, union, accuracy, and the parent's."""
    images, labels = data.split("test")
    odds = modules.log_odds(data.inputs(images))
    logits, _ = training.logits(parent, data, "test")
    masks = torch.cat([mask.flatten(1) for mask in modules.masks.masks.values()], 1)
    rows = []
    for size in range(2, len(modules.classes) + 1):
        for subset in combinations(modules.classes, size):
            rows.append(
                {
                    "classes": size,
                    "union": float(masks[list(subset)].any(0).float().mean()),
                    "modules": metrics.recomposed_accuracy(odds, labels, modules.classes, subset),
                    "restricted parent": metrics.recomposed_accuracy(logits, labels, modules.classes, subset),
                }
            )
    return pd.DataFrame(rows)


subsets = []
for column, name in chosen.items():
    data = sets[column]
    for trial in trials[column][name]:
        parent = experiments.trained_parent(data, trial.model, trial.seed, trial.parent_epochs, store)
        modules = experiments.trial_modules(trial, data, store)
        subsets.append(every_subset(modules, data, parent).assign(column=column, seed=trial.seed))
subsets = pd.concat(subsets, ignore_index=True)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: accuracy of all classes against the union of all modules, test images, one point a trial; lines: the parents. Right: accuracy against the number of classes in the subset, mean over all subsets of that size and over trials, of the chosen modules (solid) and of the parent restricted to the subset (dashed).", "name": "fig-frontier"}, "image": {"alt": "Left: points of settings, the smaller the union the lower the accuracy. Right: accuracy falls with the number of classes, the modules' curve close to that of the restricted parent."}}
figure, (a, b) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.2))
palette = dict(zip(columns, (figures.COLOURS[c] for c in ("ours, with vote loss", "ours", "published")), strict=False))
on_test = last[last["split"] == "test"]
for column in columns:
    part = on_test[on_test["column"] == column]
    a.scatter(100 * part["remaining_parameters_all"], 100 * part["accuracy"], s=22, color=palette[column], label=column)
    a.axhline(100 * part["parent_accuracy"].mean(), color=palette[column], lw=1)
    curves = subsets[subsets["column"] == column].groupby("classes")[["modules", "restricted parent"]].mean()
    b.plot(curves.index, 100 * curves["modules"], color=palette[column], label=f"{column}, modules")
    b.plot(curves.index, 100 * curves["restricted parent"], color=palette[column], ls="--", label="restricted parent")
a.set(xlabel="union of all modules (% of the weights)", ylabel="accuracy of the vote (%)")
b.set(xlabel="classes in the subset", ylabel="accuracy (%)")
a.legend(frameon=False, fontsize=8)
b.legend(frameon=False, fontsize=8)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines = []
for (column, size), part in subsets.groupby(["column", "classes"], sort=False):
    lines.append(
        {
            "column": column,
            "classes": size,
            "subsets": len(part) // len(seeds),
            "union (%)": f"{100 * part['union'].mean():.2f}",
            "smallest to largest": f"{100 * part['union'].min():.2f} to {100 * part['union'].max():.2f}",
            "modules (%)": f"{100 * part['modules'].mean():.2f}",
            "worst subset": f"{100 * part['modules'].min():.2f}",
            "restricted parent (%)": f"{100 * part['restricted parent'].mean():.2f}",
            "modules at least as accurate": f"{(part['modules'] >= part['restricted parent']).mean():.0%}",
            "n": len(seeds),
        }
    )
tables.table(
    pd.DataFrame(lines),
    "All subsets of the chosen setting: means over subsets of one size and over n trials, test images.",
    "tab-frontier-subsets",
)

# %% tags=["hide-input"]
sentences = []
for column, goal_all, goal_pairs in zip(columns, goals_all, goals_pairs, strict=True):
    one = on_test[(on_test["column"] == column) & (on_test["variant"] == chosen[column])]
    gap = 100 * (one["parent_accuracy"] - one["accuracy"]).mean()
    union, pairs = one["remaining_parameters_all"].mean(), one["remaining_parameters"].mean()
    met = union <= goal_all and gap <= 100 * behind
    sentences.append(
        f"On {column}, the setting chosen on held-out images ({chosen[column]}) holds all classes in {union:.2%} of the weights, "
        f"{abs(gap):.2f} points {'behind' if gap > 0 else 'ahead of'} its parents (n = {len(one)}), and two classes in {pairs:.2%}. "
        f"The goal for all classes ({goal_all:.0%}, within {100 * behind:.1f} points) is {'**met**' if met else '**not met**'}; "
        f"that for pairs ({goal_pairs:.0%}) is {'**met**' if pairs <= goal_pairs else '**not met**'}."
    )
Markdown("**What came out.** " + "\n\n".join(sentences))

# %% [markdown]
# **Re-run it:** `modlib reproduce frontier -p settings "[0.02 0.5 10, 0.03 0.3 10]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-frontier", parameters)
