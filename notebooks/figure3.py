# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 3: remaining parameters and accuracy, epoch by epoch
#
# **Question.** How do the share $k$ of edges that a module keeps and the weight $\alpha$ of the stemming loss set what two
# modules need together, and how accurate they are?
#
# The paper's Figure 3 follows two-class networks on MNIST over 50 epochs, FC1 to FC4: above the remaining parameters, the
# mean over all pairs of classes, below the "average accuracy of the module". Its text doesn't say whether that is the accuracy
# of a pair's vote or of single modules, so both are shown. Recipe *published*; the grid of $\alpha$ is our reading
# ([deviations](../deviations.md)). Every number is of test images; nothing is chosen on them.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
models: list[str] = ["fc1"]  # parents: fc1 to fc4
ks: list[float] = [0.05, 0.10, 0.20]  # shares of the edges kept in every layer
alphas: list[float] = [0.0, 1.0]  # stemming
seeds: list[int] = [0]  # one trial for each seed
further: list[str] = []  # further trials of one parent and k, and their seeds: "fc1 0.1 1 2"
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
epochs: int = 4  # epochs of recipe published (the paper gives none here, 50 for Table 5)
population: int = 1  # decompositions trained side by side: 1 on a processor, many on a GPU
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
from itertools import combinations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown

import modlib
from modlib import claims, figures, records, tables
from modlib.experiments import last_epochs, published_trials, run_trials

figures.use_style()

# %% [markdown]
# ## Running the trials
#
# A trial that is in `results` is read; every other one is computed, and written as soon as it is done. `population` runs
# train side by side, which pays on a GPU.
#
# In the first epoch there is no stemming, so trials of one $k$ and seed agree in it. They do exactly where one version of the
# engine made them; two versions add up in another order, and the last check below then says *False* for a difference of rounding.

# %%
store = records.Store.at(results)
data = modlib.datasets.load(dataset)
grid = {"models": models, "ks": ks, "alphas": alphas, "seeds": seeds}
lengths = {"epochs": epochs, "parent_epochs": parent_epochs}
trials = published_trials(dataset, **grid, **lengths)
for entry in further:
    model, k, *some = entry.split()
    trials += published_trials(dataset, [model], [float(k)], alphas, [int(seed) for seed in some], **lengths)
done = run_trials(trials, data, store, population=population)

parameters = {"dataset": dataset, **grid, "further": further, **lengths}
rows = records.export(store, "figure3", done, parameters)
test = rows[rows["split"] == "test"]
last = last_epochs(rows)

# %% tags=["nbval-check-output"]
print(len(done), "trials,", sum("failed" in row for record in done for row in record.rows), "failed")
inside = last["remaining_parameters"].between(0.98 * last["k"], 2.04 * last["k"])
print("remaining parameters of pairs between k and 2k:", bool(inside.all()))
first = test[test["epoch"] == 1].groupby(["model", "k", "seed"])["remaining_parameters"]
print("first epoch, which has no stemming loss, the same for every alpha:", bool((first.nunique() == 1).all()))
numbers = sorted({len(part) for _, part in last.groupby(["model", "k", "alpha"])})
counted_trials = " to ".join(str(number) for number in dict.fromkeys([numbers[0], numbers[-1]]))

# %% [markdown]
# ## Epoch by epoch

# %% tags=["hide-input"] mystnb={"figure": {"caption": "For each parent: remaining parameters of two-class networks (share of the parent's maskable weights, mean over pairs), accuracy of the vote of two modules (mean over pairs), and accuracy of single modules, on test images, epoch by epoch; one column for each k. Mean over trials; one standard deviation shaded, where there are several trials. Dotted: k, the size of a single module.", "name": "fig-figure3"}, "image": {"alt": "A grid of curves over epochs. In the top row, remaining parameters: without stemming they rise from the first epoch towards twice k, and the larger alpha is, the closer they stay to the dotted line at k. The rows below hold the accuracies of pairs and of single modules."}}
stems = [a for a in sorted(alphas) if a > 0]
palette = dict(zip(stems, sns.color_palette("blend:#9ecae1,#08306b", max(len(stems), 2))[-len(stems) :], strict=False))
palette[0.0] = figures.COLOURS["no stemming"]
quantities = {
    "remaining_parameters": ("remaining\nparameters", 1),
    "pair_accuracy": ("accuracy of\npairs (%)", 100),
    "module_accuracy": ("accuracy of\nmodules (%)", 100),
}
height = len(quantities) * len(models)
figure, axes = plt.subplots(height, len(ks), figsize=(figures.WIDTH, 1.9 * height), sharex=True, squeeze=False)
for i, (model, (quantity, (label, scale))) in enumerate((m, q) for m in models for q in quantities.items()):
    for ax, k in zip(axes[i], ks, strict=True):
        part = test[(test["model"] == model) & (test["k"] == k)]
        part = part.assign(shown=scale * part[quantity], α=part["alpha"])
        corner = ax is axes[0, -1]
        sns.lineplot(part, x="epoch", y="shown", hue="α", palette=palette, errorbar="sd", ax=ax, legend=corner)
        ax.set(ylabel=label if ax is axes[i, 0] else "")
        ax.tick_params(labelsize=7)
        if quantity == "remaining_parameters":
            ax.axhline(k, ls=":", color="black", lw=1)
            ax.set(title=f"{model.upper()}, k = {k:.0%}")
    if scale == 100:  # one scale for all k; the first fifth of the epochs, where some are at chance, may lie below it
        shown = scale * test[(test["model"] == model) & (test["epoch"] > epochs / 5)][quantity]
        for ax in axes[i]:
            ax.set_ylim(shown.quantile(0.02) - 0.1, shown.max() + 0.1)
handles, labels = axes[0, -1].get_legend_handles_labels()
axes[0, -1].get_legend().remove()
figure.legend(
    handles, [f"α = {float(a):g}" for a in labels], frameon=False, fontsize=7, ncols=7, loc="outside upper center"
)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
settings = ["model", "k", "alpha"]
lines = [
    {
        "parent": model.upper(),
        "k": f"{k:.0%}",
        "α": f"{alpha:g}",
        "remaining parameters of pairs": records.mean_and_spread(part["remaining_parameters"], 1, 4),
        "Jaccard index": records.mean_and_spread(part["jaccard_index"], 1, 3),
        "accuracy of pairs (%)": records.mean_and_spread(part["pair_accuracy"]),
        "of modules (%)": records.mean_and_spread(part["module_accuracy"]),
        "of all classes (%)": records.mean_and_spread(part["accuracy"]),
        "own parent (%)": records.mean_and_spread(part["parent_accuracy"]),
        "n": len(part),
    }
    for (model, k, alpha), part in last.groupby(settings)
]
tables.table(
    pd.DataFrame(lines),
    f"The last epoch ({epochs}) of the figure: {dataset}, recipe published, test images. Accuracies of votes: mean over pairs, and all classes together. Mean ± standard deviation over n trials.",
    "tab-figure3",
)

# %% [markdown]
# ## "Close to 0.2 when α = 0"
#
# The paper says of $k = 10\%$ that without stemming two modules need nearly $2k$, the worst there is. The sentence
# *holds* where their remaining parameters are above $1.9\,k$, and *partly* above $1.5\,k$; two independent masks need
# $2k - k^2$.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
means = last.groupby(settings)[["remaining_parameters", "pair_accuracy", "module_accuracy", "accuracy"]].mean()
apart = last[last["alpha"] == 0]
worst = []
for (model, k), part in apart.groupby(["model", "k"]):
    ratio = part["remaining_parameters"] / k
    stemmed = last[(last["model"] == model) & (last["k"] == k) & (last["alpha"] == max(alphas))]
    worst.append(
        {
            "parent": model.upper(),
            "k": f"{k:.0%}",
            "remaining parameters, α = 0": records.mean_and_spread(part["remaining_parameters"], 1, 4),
            "as a multiple of k": records.mean_and_spread(ratio, 1, 2),
            "independent masks": f"{2 * k - k * k:.4f}",
            f"α = {max(alphas):g}": records.mean_and_spread(stemmed["remaining_parameters"], 1, 4),
            "close to 2k": "holds" if ratio.mean() > 1.9 else "partly" if ratio.mean() > 1.5 else "does not hold",
            "n": len(part),
        }
    )
tables.table(
    pd.DataFrame(worst or [{"parent": "no trial has α = 0"}]),
    "Two-class networks without stemming, beside twice the size of a module.",
    "tab-figure3-apart",
)

# %% [markdown]
# ## "The accuracy of the model decreased as the PRs increased"
#
# PRs must be the remaining parameters. Every two settings of one parent are compared, by their means over trials in
# the last epoch: does the one with more remaining parameters have the lower accuracy? The sentence *holds* where that is so in
# more than two thirds of the comparisons, and is *reversed* where it is in fewer than one third. Settings differ in
# $\alpha$ (same $k$: the same size of a module, other overlaps), in $k$ (same $\alpha$), or in both.


# %%
def comparisons(quantity, same):
    """Return how often more parameters go with less accuracy, out of how many pairs of settings that agree in `same`."""
    less = total = 0
    for a, b in combinations(means.reset_index().to_dict("records"), 2):
        if any(a[name] != b[name] for name in ["model", *same]):
            continue
        change = (a["remaining_parameters"] - b["remaining_parameters"]) * (a[quantity] - b[quantity])
        less += change < 0
        total += change != 0
    return less, total


def judged(less, total):
    if not total:
        return "open"
    return "holds" if less > 2 / 3 * total else "reversed" if less < total / 3 else "neither"


accuracies = {"pair_accuracy": "pairs", "accuracy": "all classes", "module_accuracy": "single modules"}
kinds = {"α only": ["k"], "k only": ["alpha"], "α, k or both": []}
counted = {(quantity, kind): comparisons(quantity, same) for quantity in accuracies for kind, same in kinds.items()}
recomposed = {judged(*counted[quantity, "α, k or both"]) for quantity in ("pair_accuracy", "accuracy")}
verdict = recomposed.pop() if len(recomposed) == 1 else "neither"

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines = []
for (quantity, kind), (less, total) in counted.items():
    lines.append(
        {
            "accuracy of": accuracies[quantity],
            "settings differ in": kind,
            "more parameters, less accuracy": f"{less} of {total}",
            "the sentence": judged(less, total),
        }
    )
tables.table(
    pd.DataFrame(lines),
    f"Comparisons of settings, means over n = {counted_trials} {'trial' if counted_trials == '1' else 'trials'} each, test images, epoch {epochs}.",
    "tab-figure3-trade",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Accuracy against remaining parameters in the last epoch, test images, one point a trial; lines join the means of one parent (by its dashes) and k, from the largest α (left) to the smallest (right). Left: votes of two modules (mean over pairs). Right: the vote of all modules, over the same horizontal axis.", "name": "fig-figure3-trade"}, "image": {"alt": "Two scatter plots with one line for each k: every line goes from fewer remaining parameters at large alpha to more at small alpha; its slope shows whether accuracy grows or falls on the way."}}
figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
markers = dict(zip(ks, "osD^vPX", strict=False))
dashes = dict(zip(models, ["-", "--", ":", "-."], strict=False))
for ax, quantity, label in zip(axes, ("pair_accuracy", "accuracy"), ("pairs", "all classes"), strict=True):
    for model, k in ((m, k) for m in models for k in ks):
        line = means.loc[(model, k)].sort_index(ascending=False)
        ax.plot(
            line["remaining_parameters"],
            100 * line[quantity],
            color=figures.COLOURS["paper"],
            lw=1,
            ls=dashes[model],
            zorder=1,
        )
        part = last[(last["model"] == model) & (last["k"] == k)]
        colours = [palette[a] for a in part["alpha"]]
        ax.scatter(part["remaining_parameters"], 100 * part[quantity], c=colours, marker=markers[k], s=30, zorder=2)
    ax.set(xlabel="remaining parameters of pairs", ylabel=f"accuracy of {label} (%)")
for k in ks:
    axes[1].scatter([], [], color="black", marker=markers[k], s=30, label=f"k = {k:.0%}")
for alpha in sorted(alphas):
    axes[1].plot([], [], color=palette[alpha], label=f"α = {alpha:g}")
for model in models if len(models) > 1 else ():
    axes[1].plot([], [], color=figures.COLOURS["paper"], lw=1, ls=dashes[model], label=model.upper())
figure.legend(*axes[1].get_legend_handles_labels(), frameon=False, fontsize=7, ncols=7, loc="outside upper center")
plt.show()

# %% tags=["hide-input"]
text = f"**What came out.** On {dataset}, after {epochs} epochs (n = {counted_trials} {'trial' if counted_trials == '1' else 'trials'} a setting): "
if worst:
    multiples = means["remaining_parameters"] / means.index.get_level_values("k")
    low, high = (multiples.groupby("alpha").agg(bound) for bound in ("min", "max"))
    found = pd.Series([row["close to 2k"] for row in worst]).value_counts()
    text += (
        f"without stemming two modules need {low[0.0]:.2f} to {high[0.0]:.2f} k, with α = {max(alphas):g} "
        f'{low[max(alphas)]:.2f} to {high[max(alphas)]:.2f} k. "Close to 2k" at α = 0: '
        f"{', '.join(f'**{verdict}** for {count} of {len(worst)}' for verdict, count in found.items())} settings of parent and k. "
    )
least, most = means["remaining_parameters"].idxmin(), means["remaining_parameters"].idxmax()
differences = 100 * (means.loc[most] - means.loc[least])
less, total = counted["pair_accuracy", "α, k or both"]
text += (
    f'\n\n"The accuracy of the model decreased as the PRs increased": **{verdict}**. More parameters go with less accuracy of pairs in '
    f"{less} of {total} comparisons of settings, and with less accuracy of all classes in "
    f"{' of '.join(str(c) for c in counted['accuracy', 'α, k or both'])}. From the setting with the fewest parameters "
    f"({least[0].upper()}, k = {least[1]:.0%}, α = {least[2]:g}) to that with the most ({most[0].upper()}, k = {most[1]:.0%}, α = {most[2]:g}), "
    f"pairs change by {differences['pair_accuracy']:+.2f} points and the vote of all classes by {differences['accuracy']:+.2f}."
)
if (dataset, "fc1" in models) != ("mnist", True):
    text += " These runs are not of the paper's network and data."
Markdown(text)

# %% tags=["hide-input"]
own_network = dataset == "mnist" and "fc1" in models
judged = claims.Claim(
    "The accuracy of the model decreased as the remaining parameters increased",
    "Evaluation of Composability, Figure 3",
    "no number",
    f"more parameters, less accuracy: pairs {counted['pair_accuracy', 'α, k or both'][0]} of {counted['pair_accuracy', 'α, k or both'][1]}, all classes "
    f"{counted['accuracy', 'α, k or both'][0]} of {counted['accuracy', 'α, k or both'][1]} comparisons ({verdict})",
    ("holds" if verdict == "holds" else "open" if verdict == "open" else "does not hold") if own_network else "open",
    numbers[0] if len(numbers) == 1 else counted_trials,
)
claims.publish(store, "figure3", [judged])

# %% [markdown]
# **What it means.** $k$ sets how large a module is, $\alpha$ how much of it the modules share; the remaining parameters are
# bounded by both, between $k$ and $2k$. Whether fewer parameters cost accuracy is told by the slopes of the last figure,
# for $\alpha$ along a line and for $k$ from line to line, and where a setting has one trial only by those that are larger
# than what another seed would change: [Table 1](table1.ipynb) shows that spread.
#
# **Re-run it:** `modlib reproduce figure3 -p ks "[0.5]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-figure3", parameters)
