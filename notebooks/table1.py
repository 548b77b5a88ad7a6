# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Table 1: comparing accuracy and Jaccard index
#
# **Question.** When a trained network is decomposed into one module per class, at $k = 10\%$ of its edges each, how
# accurate is the vote of all modules, and how many edges do they share?
#
# The paper's Table 1 answers for MNIST and F-MNIST with FC1 to FC4. Two recipes are shown here, by name:
#
# - **published**: what the paper says (Table 4), batches of 32, and, where it says nothing, our reading of it: constant rates; as many
#   epochs as the page says.
# - **ours**: rates annealed to zero, batches of 128, grafting layers that start from the parent's own logit. It is shown
#   without and with the **vote loss**, which is ours and *not the paper's*: it trains the vote that recomposing asks for
#   ([co-training](module_stemming.ipynb)).
#
# A trial is a parent *and* its decomposition, both from the trial's seed. Every number is of the last epoch; nothing is
# chosen on test images.

# %% tags=["parameters"]
datasets: list[str] = ["digits"]  # data sets: digits, mnist, fashion_mnist
models: list[str] = ["fc1"]  # parents: fc1 to fc4
further: list[str] = []  # further columns and their stemming of recipe ours with vote loss, e.g. "mnist fc3 5.0"
further_seeds: list[int] = [0]  # trials of recipe ours with vote loss in a further column
further_published_seeds: list[int] = []  # trials of recipe published, with stemming, in a further column
further_published_epochs: int = 5  # epochs of recipe published in a further column
tried: list[str] = []  # other values of that stemming, tried with the first seed, e.g. "mnist fc3 8.0"
seeds: list[int] = [0, 1]  # one trial for each seed
k: float = 0.10  # share of the edges kept in every layer
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
published_epochs: int = 5  # epochs of recipe published (the paper gives none here, 50 for Table 5)
published_alphas: list[float] = [0.0, 1.0]  # stemming of recipe published
ours_epochs: int = 5  # epochs of recipe ours
ours_alpha: float = 1.0  # stemming of recipe ours without vote loss
vote: float = 0.9  # weight of the vote loss
vote_alpha: float = 4.0  # stemming of recipe ours with vote loss, which pulls harder
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown

import modlib
from modlib import claims, figures, records, tables
from modlib.baselines import methods, pan_rajan
from modlib.experiments import labelled, last_epochs, published_trials, run_trials, table1_settings, table1_trials
from modlib.reproduce import Layout

figures.use_style()

# %% [markdown]
# ## Running the trials
#
# A trial that is in `results` is read; every other one is computed, and written as soon as it is done.

# %%
store = records.Store.at(results)
settings = table1_settings(globals())
done = []
for dataset in datasets:
    data = modlib.datasets.load(dataset)
    for model in models:
        done += run_trials(table1_trials(dataset, model, seeds, **settings), data, store)


def voting_trials(text, its_seeds):
    """The trials of recipe ours with vote loss that a column's text names: data set, parent, stemming."""
    dataset, model, alpha = text.split()
    trials = table1_trials(dataset, model, its_seeds, **settings | {"vote_alpha": float(alpha)})
    return [trial for trial in trials if trial.recipe.vote > 0]


for text in further:
    dataset, model, _ = text.split()
    trials = voting_trials(text, further_seeds)
    if further_published_seeds:
        lengths = {"epochs": further_published_epochs, "parent_epochs": parent_epochs}
        trials += published_trials(dataset, [model], [k], [max(published_alphas)], further_published_seeds, **lengths)
    done += run_trials(trials, modlib.datasets.load(dataset), store)
attempts = [
    record
    for text in tried
    for record in run_trials(voting_trials(text, further_seeds[:1]), modlib.datasets.load(text.split()[0]), store)
]

parameters = {"datasets": datasets, "models": models, "seeds": seeds, **settings}
if further:
    parameters |= {"further": further, "further_seeds": further_seeds}
    parameters |= {"further_published_seeds": further_published_seeds, "tried": tried}
    parameters |= {"further_published_epochs": further_published_epochs}
rows = labelled(records.export(store, "table1", done, parameters))
every = rows[rows["split"] == "test"]
test = every[(every["dataset"] + " " + every["model"]).isin([f"{d} {m}" for d in datasets for m in models])]
last = last_epochs(test)

# %% tags=["nbval-check-output"]
print(len(done), "trials,", sum("failed" in row for record in done for row in record.rows), "failed")
print(sorted(set(last["label"])))

# %% [markdown]
# ## The row of module stemming
#
# The paper's own row, and the best accuracy of any method in its table, stand beside ours. The paper's "Jaccard index" of
# the three older methods is another quantity (see [deviations](../deviations.md)), so only its stemming row is compared.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
paper = pd.read_csv(Layout.here().root / "book" / "published" / "table1.csv")


def paper_rows(dataset, model):
    column = paper[(paper["dataset"] == dataset) & (paper["model"] == model)]
    if column.empty:
        return []
    stemming = column[column["method"] == "module stemming"].iloc[0]
    best = column.loc[column["accuracy_percent"].idxmax()]
    return [
        (
            "paper, module stemming",
            "not given",
            f"{stemming.accuracy_percent:.2f}",
            f"{stemming.jaccard_index:.2f}",
            "",
            "5",
        ),
        (f"paper, best of any method ({best.method})", "", f"{best.accuracy_percent:.2f}", "", "", ""),
    ]


lines = []
for (dataset, model), column in last.groupby(["dataset", "model"], sort=False):
    own = column.drop_duplicates("seed")["parent_accuracy"]
    shown = [("own parent", "", records.mean_and_spread(own), "", "", len(own)), *paper_rows(dataset, model)]
    for (label, alpha), trials in column.groupby(["label", "alpha"], sort=False):
        measured = (
            records.mean_and_spread(trials["accuracy"]),
            records.mean_and_spread(trials["jaccard_index"], 1, 3),
            records.mean_and_spread(trials["remaining_parameters"], 1, 4),
        )
        shown.append((label, f"{alpha:g}", *measured, len(trials)))
    lines += [(f"{dataset} {model.upper()}", *line) for line in shown]
head = ["column", "what", "alpha", "accuracy of the vote (%)", "Jaccard index", "remaining parameters, pairs", "n"]
table = pd.DataFrame(lines, columns=head)
tables.table(
    table,
    f"Recomposed accuracy of all classes on the test images, Jaccard index of the masks, and remaining parameters of two-class networks (share of the parent's maskable weights), at k = {k:.0%}. Mean ± standard deviation over n trials.",
    "tab-table1",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Accuracy of the vote against the Jaccard index of the masks, one point a trial. Lines: the trials' parents (solid, mean) and, where the paper has this column, its module stemming (cross).", "name": "fig-table1"}, "image": {"alt": "Scatter plot of accuracy against Jaccard index. Trials without stemming lie at a low Jaccard index; trials with stemming lie further right; our recipe with vote loss lies highest, near the line of the parents."}}
columns = list(last.groupby(["dataset", "model"], sort=False))
figure, axes = plt.subplots(1, len(columns), figsize=(figures.WIDTH, 3.6), squeeze=False)
for ax, ((dataset, model), column) in zip(axes[0], columns, strict=True):
    for (label, alpha), trials in column.groupby(["label", "alpha"], sort=False):
        colour = figures.COLOURS["no stemming" if alpha == 0 else label]
        ax.scatter(
            trials["jaccard_index"], 100 * trials["accuracy"], s=22, color=colour, label=f"{label}, α = {alpha:g}"
        )
    ax.axhline(100 * column["parent_accuracy"].mean(), color=figures.COLOURS["parent"], lw=1, label="own parents")
    row = paper[(paper["dataset"] == dataset) & (paper["model"] == model) & (paper["method"] == "module stemming")]
    if len(row):
        ax.scatter(
            row["jaccard_index"],
            row["accuracy_percent"],
            marker="x",
            s=60,
            color=figures.COLOURS["paper"],
            label="paper",
        )
    ax.set(xlabel="Jaccard index", ylabel="accuracy of the vote (%)", title=f"{dataset} {model.upper()}")
axes[0, -1].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Every column under our recipe
#
# One setting for all columns: recipe ours with vote loss, the same $k$; only $\alpha$ differs between depths. A column counts
# as won where the mean accuracy is above the best accuracy that the paper prints for *any* method, and the Jaccard index
# above that of its module stemming. The parents are ours, not the paper's; how far a decomposition is behind its own parent is
# the number that compares.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
voting = every[(every["vote"] > 0) & (every["epoch"] == ours_epochs)]
wins = []
for (dataset, model), trials in voting.groupby(["dataset", "model"], sort=False):
    column = paper[(paper["dataset"] == dataset) & (paper["model"] == model)]
    theirs = column[column["method"] == "module stemming"]
    accuracy, index = 100 * trials["accuracy"].mean(), trials["jaccard_index"].mean()
    wins.append(
        {
            "column": f"{dataset} {model.upper()}",
            "paper, best accuracy of any method (%)": f"{column['accuracy_percent'].max():.2f}" if len(column) else "",
            "ours, with vote loss (%)": records.mean_and_spread(trials["accuracy"]),
            "paper, Jaccard index of stemming": f"{theirs['jaccard_index'].max():.2f}" if len(column) else "",
            "ours": records.mean_and_spread(trials["jaccard_index"], 1, 3),
            "own parent (%)": records.mean_and_spread(trials["parent_accuracy"]),
            "behind it (points)": f"{100 * (trials['parent_accuracy'] - trials['accuracy']).mean():.2f}",
            "α": ", ".join(f"{a:g}" for a in sorted(set(trials["alpha"]))),
            "n": len(trials),
            "accuracy": ("won" if accuracy > column["accuracy_percent"].max() else "lost") if len(column) else "",
            "index": ("won" if index > theirs["jaccard_index"].max() else "lost") if len(column) else "",
            "accuracy ahead": accuracy - column["accuracy_percent"].max(),
            "index ahead": index - theirs["jaccard_index"].max(),
        }
    )
wins = pd.DataFrame(wins)
tables.table(
    wins.drop(columns=["accuracy ahead", "index ahead"]),
    f"Recipe ours with vote loss (ours, not the paper's), k = {k:.0%}, {ours_epochs} epochs, test images.",
    "tab-table1-columns",
)

# %% [markdown]
# $\alpha$ was chosen as the smallest value tried whose Jaccard index reaches 0.75 with the first seed on every data set of that
# depth. The index is a property of the masks and needs no images; held-out accuracies stand beside it.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
candidates = records.frame([*done, *attempts])
candidates = candidates[(candidates["vote"] > 0) & (candidates["split"] == "held_out")]
candidates = candidates[(candidates["epoch"] == ours_epochs) & (candidates["seed"] == (further_seeds or seeds)[0])]
tables.table(
    pd.DataFrame(
        [
            {
                "parent": model.upper(),
                "α": f"{alpha:g}",
                "smallest Jaccard index": f"{part['jaccard_index'].min():.3f}",
                "held-out accuracy (%)": ", ".join(
                    f"{row.dataset} {100 * row.accuracy:.2f}" for row in part.itertuples()
                ),
                "data sets": part["dataset"].nunique(),
            }
            for (model, alpha), part in candidates.groupby(["model", "alpha"])
        ]
    ),
    "Values of α that were tried, by depth of the parent; one trial for each data set.",
    "tab-table1-alpha",
)

# %% [markdown]
# ## All methods, on the same parents
#
# Pan and Rajan's three rules decompose the same parents that module stemming does. The paper's numbers for them are of
# *their* parents, so its column can't be compared with ours; [the page on the baselines](baselines.ipynb) runs both kinds of
# parents, and both definitions of the index. Here the Jaccard index is that of edges for every method, and the density says
# how many of the parent's weights a module keeps.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
ruled = []
for (dataset, model), trials in every.groupby(["dataset", "model"], sort=False):
    data = modlib.datasets.load(dataset)
    for seed in sorted(set(trials["seed"])):
        subject = methods.Subject(dataset, model, "own", int(seed), parent_epochs)
        ruled += methods.compare(subject, [], data, store)
ruled = records.frame(ruled)
ruled = ruled[ruled["method"].isin(pan_rajan.METHODS)]
final = last_epochs(every)
rows_of = {("published", 0.0): "module stemming, published", ("ours", vote): "module stemming, ours with vote loss"}
lines = []
for (dataset, model), trials in final.groupby(["dataset", "model"], sort=False):
    column = paper[(paper["dataset"] == dataset) & (paper["model"] == model)].set_index("method")
    own = trials.drop_duplicates("seed")["parent_accuracy"]
    lines.append(
        {
            "column": f"{dataset} {model.upper()}",
            "method": "own parent",
            "here (%)": records.mean_and_spread(own),
            "n": len(own),
        }
    )
    kinds = [
        (m, ruled[(ruled["dataset"] == dataset) & (ruled["model"] == model) & (ruled["method"] == m)])
        for m in pan_rajan.METHODS
    ]
    for (recipe, weight), name in rows_of.items():
        kinds.append((name, trials[(trials["recipe"] == recipe) & (trials["vote"] == weight) & (trials["alpha"] > 0)]))
    for name, part in kinds:
        if part.empty:
            continue
        key = "module stemming" if name.startswith("module stemming") else name
        density = part["density"] if "density" in part else part["k"]
        lines.append(
            {
                "column": f"{dataset} {model.upper()}",
                "method": name,
                "paper (%)": f"{column.loc[key, 'accuracy_percent']:.2f}"
                if len(column) and name != "module stemming, ours with vote loss"
                else "",
                "here (%)": records.mean_and_spread(part["accuracy"]),
                "behind the parent": records.mean_and_spread(part["parent_accuracy"] - part["accuracy"]),
                "Jaccard index of edges": records.mean_and_spread(part["jaccard_index"], 1, 3),
                "density": records.mean_and_spread(density, 1, 2),
                "n": len(part),
            }
        )
head = ["column", "method", "paper (%)", "here (%)", "behind the parent", "Jaccard index of edges", "density", "n"]
tables.table(
    pd.DataFrame(lines, columns=head).fillna(""),
    f"Every method on our own parents, test images, mean ± standard deviation over n trials; module stemming at k = {k:.0%}, recipe published with α = {max(published_alphas):g} after {published_epochs} epochs, {further_published_epochs} in further columns.",
    "tab-table1-methods",
)

# %% [markdown]
# ## Epoch by epoch
#
# Two-class networks are what Table 2 and Figure 3 look at: the union of two masks, as a share of the parent's maskable
# weights. It lies between $k$ (the same edges) and $2k$ (none in common).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Recipe published, epoch by epoch: remaining parameters of two-class networks (mean over pairs) and accuracy of the vote of all modules, on test images. Mean over trials, one standard deviation shaded. Dotted: k; crosses: the paper's Table 2, where it has this column.", "name": "fig-table1-epochs"}, "image": {"alt": "Two panels of curves over epochs. Without stemming the remaining parameters rise towards twice k; with stemming they fall towards k. The accuracies of the two stay close."}}
table2 = pd.read_csv(Layout.here().root / "book" / "published" / "table2.csv")
shared = table2[table2["initial_score_sharing"]].set_index("stemming_loss")["remaining_parameters_mean"]
as_published = test[test["recipe"] == "published"].copy()
as_published["stemming"] = [f"α = {a:g}" for a in as_published["alpha"]]
figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
for ax, quantity, scale in ((left, "remaining_parameters", 1), (right, "accuracy", 100)):
    as_published["shown"] = scale * as_published[quantity]
    style = None if len(models) * len(datasets) == 1 else "model"
    sns.lineplot(
        as_published, x="epoch", y="shown", hue="stemming", style=style, errorbar="sd", ax=ax, legend=ax is left
    )
left.axhline(k, ls=":", color="black", lw=1)
if datasets == ["mnist"] and models == ["fc1"] and k == 0.10:
    left.scatter([25, 25], shared, marker="x", s=50, color="black", zorder=3, label="paper, Table 2")
left.legend(frameon=False)
left.set_ylabel("remaining parameters (share)")
right.set_ylabel("accuracy of the vote (%)")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines = []
for (dataset, model, alpha), trials in last[last["recipe"] == "published"].groupby(
    ["dataset", "model", "alpha"], sort=False
):
    comparable = dataset == "mnist" and model == "fc1" and k == 0.10 and alpha in (0, 1)
    lines.append(
        {
            "column": f"{dataset} {model.upper()}",
            "alpha": f"{alpha:g}",
            "epoch": int(trials["epoch"].max()),
            "paper (epoch 25)": f"{shared[alpha > 0]:.3f}" if comparable else "not given",
            "here": records.mean_and_spread(trials["remaining_parameters"], 1, 4),
            "smallest pair": f"{trials['remaining_parameters_best'].min():.4f}",
            "largest pair": f"{trials['remaining_parameters_worst'].max():.4f}",
        }
    )
tables.table(
    pd.DataFrame(lines),
    "Remaining parameters of two-class networks under recipe published, with shared initial scores, beside Table 2 of the paper.",
    "tab-table2-shared",
)

# %% tags=["hide-input"]
gaps = 100 * (voting["parent_accuracy"] - voting["accuracy"]).groupby([voting["dataset"], voting["model"]]).mean()
indices = voting.groupby(["dataset", "model"])["jaccard_index"].mean()
close = int(((gaps <= 0.2) & (indices >= 0.75)).sum())
as_printed = final[(final["recipe"] == "published") & (final["alpha"] > 0)]
compared, agreeing = {}, []
stemming_row = paper[paper["method"] == "module stemming"]["accuracy_percent"]
for (dataset, model), trials in as_printed.groupby(["dataset", "model"], sort=False):
    column = paper[(paper["dataset"] == dataset) & (paper["model"] == model) & (paper["method"] == "module stemming")]
    if len(column):
        difference = 100 * trials["accuracy"].mean() - column["accuracy_percent"].iloc[0]
        compared[f"{dataset} {model.upper()}"] = difference
        if abs(difference) <= max(0.5, 200 * trials["accuracy"].std() if len(trials) > 1 else 0):
            agreeing.append(f"{dataset} {model.upper()}")
listed = ", ".join(f"{name} {difference:+.2f}" for name, difference in compared.items())
by_length = as_printed.groupby(["dataset", "model"])["epoch"].max().value_counts()
lengths = ", ".join(f"{many} after {int(epochs)} epochs" for epochs, many in by_length.items())
judged = claims.Claim(
    "Recomposed accuracy of all eight columns (recipe published, α = 1)",
    "Table 1",
    f"{stemming_row.min():.2f} to {stemming_row.max():.2f} %",
    f"as printed in {len(agreeing)} of {len(compared)} columns run ({lengths}); differences in points: {listed}",
    "open" if len(compared) < 8 else "holds" if len(agreeing) == 8 else "partly" if agreeing else "does not hold",
    len(as_printed),
)
claims.publish(store, "table1", [judged])

# %% tags=["hide-input"]
sentences = []
for (dataset, model), column in last.groupby(["dataset", "model"], sort=False):
    n = column["seed"].nunique()
    best = column[column["vote"] > 0]
    gap = 100 * (best["parent_accuracy"] - best["accuracy"])
    where = "behind" if gap.mean() > 0 else "ahead of"
    text = (
        f"On {dataset} with {model.upper()}, our recipe with vote loss reaches "
        f"{records.percent_of_n(best['accuracy'])} at a Jaccard index of "
        f"{best['jaccard_index'].mean():.2f}: {abs(gap.mean()):.2f} points {where} its own parents. "
    )
    stemmed = column[(column["recipe"] == "published") & (column["alpha"] > 0)]
    row = paper[(paper["dataset"] == dataset) & (paper["model"] == model)]
    if len(row) and len(stemmed):
        theirs = row[row["method"] == "module stemming"].iloc[0]
        difference = 100 * stemmed["accuracy"].mean() - theirs.accuracy_percent
        above = 100 * best["accuracy"].mean() > row["accuracy_percent"].max()
        text += (
            f"The published recipe gives {records.percent_of_n(stemmed['accuracy'])} at "
            f"{stemmed['jaccard_index'].mean():.2f}, where the paper prints {theirs.accuracy_percent:.2f} % at "
            f"{theirs.jaccard_index:.2f}: {abs(difference):.2f} points {'more' if difference > 0 else 'less'}, after "
            f"{int(stemmed['epoch'].max())} epochs (the paper gives none for this table). With vote loss, the mean is "
            f"{'above' if above else 'not above'} the paper's best accuracy of any method in this column "
            f"({row['accuracy_percent'].max():.2f} %). "
        )
    plain = column[(column["recipe"] == "ours") & (column["vote"] == 0)]
    means = [100 * trials["accuracy"].mean() for trials in (stemmed, plain, best)]
    text += (
        f"On the same parents, from the published recipe to ours without vote loss the mean changes by "
        f"{means[1] - means[0]:+.2f} points, and with vote loss (and α = {vote_alpha:g} instead of {ours_alpha:g}) by {means[2] - means[1]:+.2f} more."
    )
    sentences.append(text)
cells = pd.concat([wins["accuracy"], wins["index"]])
cells = cells[cells != ""]
clear = int((wins["accuracy ahead"] > 0.5).sum() + (wins["index ahead"] > 0.01).sum())
if len(cells) > 2:
    sentences.append(
        f"Over all columns, our recipe with vote loss wins {(cells == 'won').sum()} of {len(cells)} cells, {clear} of them by more than half a point, "
        f"or 0.01 of the index. "
        f"At most 0.2 points behind its own parent, at a Jaccard index of at least 0.75: {close} of {len(wins)} columns. "
        f"The published recipe comes out as printed (within half a point, or two standard deviations) in {len(agreeing)} of the {len(compared)} columns where it was run ({lengths})."
    )
Markdown("**What came out.** " + "\n\n".join(sentences))

# %% [markdown]
# **What it means.** Only trials of the same parents compare: a better parent gives a better vote, so the distance to the
# parent tells more than the accuracy. The Jaccard index is set by $\alpha$, and the paper does not say which $\alpha$ its
# Table 1 used; nor can an $\alpha$ be carried from one recipe to another, because batch size, rates and vote loss change
# what the pull works against ([deviations](../deviations.md)). Read accuracy and index together.
#
# The published recipe at the paper's scale is one command away: `modlib reproduce table1 --published -p models "[fc1, fc2,
# fc3, fc4]" -p datasets "[mnist, fashion_mnist]" -p published_epochs 50`. Which readings of the paper give its lower
# index is asked in [sensitivity](sensitivity.ipynb).
#
# **Re-run it:** `modlib reproduce table1 -p published_alphas "[0.5]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-table1", parameters)
