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
columns: list[str] = ["digits fc1 4.0 2"]  # data set, parent, stemming of our recipe, number of trials
k: float = 0.10  # share of the edges kept in every layer
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
short_parent_epochs: int = 10  # epochs of the less trained parent
epochs: int = 4  # epochs of our recipe
vote: float = 0.9  # weight of the vote loss
output_k: float = 0.30  # share kept in the output layer, where that is changed
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import tempfile

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown

import modlib
from modlib import experiments, figures, masking, metrics, parents, recipes, records, tables
from modlib.experiments import Trial

figures.use_style()
scratch = tempfile.TemporaryDirectory()  # parents and modules of a run that keeps none
store = records.Store.at(results or scratch.name)


# %%
def levers(data, model, alpha):
    """Our recipe with vote loss, and one change at a time."""
    last_layer = list(masking.maskable_parameters(parents.make(model, data)))[-1]
    return {
        "ours, with vote loss": {},
        "without vote loss (and a quarter of α)": {"vote": 0.0, "alpha": alpha / 4},
        "without stemming": {"alpha": 0.0},
        "constant rates": {"schedule": "constant"},
        "random grafting layers": {"grafting_init": "random"},
        "initial scores by magnitude": {"init": "magnitude"},
        "half the epochs": {"epochs": epochs // 2},
        "twice the epochs": {"epochs": 2 * epochs},
        f"output layer at {output_k:.0%}": {"k": {"default": k, last_layer: output_k}},
        f"parents of {short_parent_epochs} epochs": {"parent_epochs": short_parent_epochs},
    }


done, tables_of_rows, sets, trials = [], [], {}, {}
for text in columns:
    dataset, model, alpha, count = text.split()
    column, alpha, seeds = f"{dataset} {model}", float(alpha), range(int(count))
    sets[column] = modlib.datasets.load(dataset)
    recipe = recipes.ours(k=k, alpha=alpha, vote=vote, epochs=epochs)
    base = Trial(dataset, model, "ours", recipe, seeds[0], parent_epochs)
    trials[column] = experiments.variants(base, levers(sets[column], model, alpha), seeds)
    some, rows = experiments.run_variants(trials[column], sets[column], store)
    done += some
    tables_of_rows.append(rows.assign(column=column))
rows = pd.concat(tables_of_rows, ignore_index=True)
parameters = {
    "columns": columns, "k": k, "parent_epochs": parent_epochs, "epochs": epochs,
    "vote": vote, "output_k": output_k, "short_parent_epochs": short_parent_epochs,
}  # fmt: skip
records.export(store, "ours", done, parameters)
last = experiments.last_epochs(rows, by=["column", "variant"])

# %% tags=["nbval-check-output"]
names = list(dict.fromkeys(last["variant"]))
print(len(last) == sum(int(text.split()[3]) for text in columns) * len(names), len(names))

# %% [markdown]
# ## One thing at a time
#
# Differences are paired: a trial minus the base trial of the same seed, hence of the same parent (but for the row that
# changes the parents).

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
base_name = names[0]
changes = {}
lines = []
for column in sets:
    part = last[last["column"] == column]
    change = {q: experiments.differences(part, base_name, q) for q in ("accuracy", "jaccard_index")}
    changes[column] = change
    for name in names:
        one = part[part["variant"] == name]
        behind = 100 * (one["parent_accuracy"] - one["accuracy"])
        lines.append(
            {
                "column": column,
                "what": name,
                "accuracy of the vote (%)": records.mean_and_spread(one["accuracy"]),
                "against the base (points)": ""
                if name == base_name
                else records.mean_and_spread(change["accuracy"][name]),
                "behind the parent": f"{behind.mean():.2f}",
                "Jaccard index": records.mean_and_spread(one["jaccard_index"], 1, 3),
                "pairs (%)": records.mean_and_spread(one["pair_accuracy"]),
                "n": len(one),
            }
        )
tables.table(
    pd.DataFrame(lines),
    f"Recipe ours with vote loss (α = {', '.join(text.split()[2] for text in columns)}; {epochs} epochs) and one change at a time: last epoch, test images, mean ± standard deviation over n trials.",
    "tab-ours",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of the accuracy of the vote (points) and of the Jaccard index when one thing of our recipe is changed; one point a trial, paired by seed with the base.", "name": "fig-ours"}, "image": {"alt": "For each change a row of points: left the change of accuracy, right the change of the Jaccard index; points left of zero are losses."}}
figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 0.32 * len(names) + 0.9), sharey=True)
palette = [figures.COLOURS["ours, with vote loss"], figures.COLOURS["ours"], figures.COLOURS["published"]]
for i, column in enumerate(sets):
    for ax, quantity, scale in ((axes[0], "accuracy", 100), (axes[1], "jaccard_index", 1)):
        for y, name in enumerate(names[1:]):
            values = scale * changes[column][quantity][name]
            label = column if y == 0 else None
            ax.scatter(values, [y + 0.22 * i] * len(values), color=palette[i % 3], s=16, alpha=0.8, label=label)
for ax, label in zip(axes, ("accuracy, change (points)", "Jaccard index, change"), strict=True):
    ax.axvline(0, color="black", lw=1)
    ax.set(xlabel=label, yticks=range(len(names) - 1), yticklabels=names[1:])
axes[0].invert_yaxis()
axes[1].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Are they still modules of a single class?
#
# The vote loss trains modules together. If they had become parts of one ten-class network, a module alone would no
# longer answer "is it my class?". Table 5 asks that of all test images, Table 6 of balanced sets: its diagonal is the
# module's own class (chance 50 %), off it a perfect module has about 44.4 %.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines, odds, alone = [], {}, {}
for column, data in sets.items():
    for name in names[:2]:
        one = last[(last["column"] == column) & (last["variant"] == name)]
        own, other = [], []
        for trial in trials[column][name]:
            modules = experiments.trial_modules(trial, data, store)
            for split in experiments.SPLITS:
                odds[column, name, trial.seed, split] = modules.log_odds(data.inputs(data.split(split)[0]))
            table = metrics.balanced_accuracies(
                odds[column, name, trial.seed, "test"], data.test_labels, modules.classes, trial.seed
            )
            own.append(float(table.diagonal().mean()))
            other.append(float(metrics.off_diagonal(table).mean()))
        alone[column, name] = pd.DataFrame({"all": one.sort_values("seed")["module_accuracy"].tolist(), "own": own})
        lines.append(
            {
                "column": column,
                "what": name,
                "all test images (Table 5, %)": records.mean_and_spread(one["module_accuracy"]),
                "own class, balanced (Table 6, %)": records.mean_and_spread(own),
                "other classes, balanced (%)": records.mean_and_spread(other),
                "n": len(one),
            }
        )
single = pd.DataFrame(lines)
tables.table(single, "Single modules, means over the modules of a trial, test images.", "tab-ours-single")

# %% [markdown]
# ## Calibrating the vote
#
# Modules that were trained apart need not agree on what a confidence is worth. A scale and a shift for each module's
# log-odds, fitted on held-out training images, would mend that without touching a mask.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines, gains = [], {}
for column, data in sets.items():
    for name in names[:2]:
        plain, mended = [], []
        for trial in trials[column][name]:
            held, test_odds = (odds[column, name, trial.seed, split] for split in experiments.SPLITS)
            classes = tuple(range(data.num_classes))
            scale, shift = metrics.calibrate(held, data.split("held_out")[1], classes)
            plain.append(metrics.recomposed_accuracy(test_odds, data.test_labels, classes))
            mended.append(metrics.recomposed_accuracy(test_odds * scale + shift, data.test_labels, classes))
        gain = [b - a for a, b in zip(plain, mended, strict=True)]
        gains[column, name] = gain
        lines.append(
            {
                "column": column,
                "what": name,
                "vote (%)": records.mean_and_spread(plain),
                "calibrated vote (%)": records.mean_and_spread(mended),
                "difference (points)": records.mean_and_spread(gain),
                "n": len(gain),
            }
        )
tables.table(
    pd.DataFrame(lines),
    "The vote of all modules before and after calibration on held-out images.",
    "tab-ours-calibration",
)

# %% tags=["hide-input"]
sentences = []
for column in sets:
    change = 100 * changes[column]["accuracy"].drop(columns=base_name)
    mean, n = change.mean(), len(change)
    intervals = {name: records.interval(change[name].dropna()) for name in change}
    with_vote, without = (100 * alone[column, name] for name in names[:2])

    def cost(which, lost=without - with_vote):
        return records.mean_and_spread(lost[which], 1)

    clear = mean[[low > 0 or high < 0 for low, high in intervals.values()]].sort_values()
    listed = "; ".join(f"{name} {value:+.2f}" for name, value in clear.items()) or "none"
    rest = sorted(set(mean.index) - set(clear.index))
    sentences.append(
        f"On {column} (n = {n}), changes of accuracy whose 95% interval (Student's, paired) leaves out zero, in points: "
        f"{listed}. Not told apart from zero: {', '.join(rest) or 'none'}{' (one trial tells no spread)' if n == 1 else ''}. "
        f"Single modules lose by the vote loss: {cost('all')} points on all test images, {cost('own')} on their own class, balanced. "
        f"Calibration changes the vote by {100 * sum(gains[column, names[0]]) / n:+.2f} points with the vote loss, and "
        f"by {100 * sum(gains[column, names[1]]) / n:+.2f} without."
    )
Markdown("**What came out.** " + "\n\n".join(sentences))

# %% [markdown]
# **Re-run it:** `modlib reproduce ours -p columns "[fashion_mnist fc1 4.0 3]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-ours", parameters)
