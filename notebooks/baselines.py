# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Running Table 1's baselines
#
# **Question.** Table 1 sets module stemming against TI-I, TI-SNE and CM-RIE, and the paper concludes that it "outperforms the
# conventional method in terms of JI". Does it, when all methods are measured alike, on the same parents?
#
# The three methods are rules of {cite:t}`pan2020`; nothing is trained ([related work](../related_work.md)). The paper
# copied their numbers, which are of eight parents that Pan and Rajan trained. Those parents are public. Here the rules are run
# again on them, then on our own parents of [Table 1](table1.ipynb), and module stemming on both.
#
# **Table 1 mixes two definitions under "JI".** With $A$, $B$ the edges that two modules keep, $n$ the number of weights of the
# network, and $u$ the number of distinct weight *values* that the two have in common (0 counts as one of them):
#
# | | definition | ten copies of one network that keeps a share $p$ | independent masks of density $p$ |
# |---|---|---|---|
# | Jaccard index of the edges | $\lvert A \cap B\rvert / \lvert A \cup B\rvert$ | 1 | $p / (2 - p)$ |
# | Pan and Rajan's index | $u / (2n - u)$ | about $p / (2 - p)$ | less |
#
# The row of module stemming shows the first, the rows of the three rules the second. The same expression is the *level of
# chance* of one and the *ceiling* of the other. So each index needs the **density** beside it, the share of the weights that a
# module keeps, and the **union**, the share that a network of all ten modules needs.

# %% tags=["parameters"]
columns: list[str] = ["digits fc1"]  # columns of Table 1: data set and model
seeds: list[int] = [0, 1]  # own parents of a column, one for each seed
further: list[str] = []  # further columns, only ours with vote loss, and its stemming, e.g. "mnist fc3 5.0"
further_seeds: list[int] = [0]  # own parents of a further column
stored_parents: str = ""  # folder of Pan and Rajan's parents (<dataset>_<model>.h5); empty: their records only
k: float = 0.10  # share of the edges kept in every layer by module stemming
parent_epochs: int = 50  # epochs of own parents (Table 3: 100)
published_epochs: int = 5  # epochs of recipe published (the paper gives none here, 50 for Table 5)
published_alpha: float = 1.0  # stemming of recipe published
ours_epochs: int = 5  # epochs of recipe ours with vote loss
vote: float = 0.9  # weight of the vote loss
vote_alpha: float = 4.0  # stemming of recipe ours with vote loss, elsewhere
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

import modlib
from modlib import claims, figures, recipes, records, tables
from modlib.baselines import methods, pan_rajan
from modlib.experiments import recipe_label
from modlib.reproduce import Layout

figures.use_style()

# %% [markdown]
# ## One parent, every method
#
# Each rule, a control, and module stemming decompose the *same* parent; everything is measured on all test images. The control,
# **no idle neurons**, decomposes nothing: every module is the parent without the hidden neurons that none of 10,000 training
# images activates. A rule that decomposes should differ from it.
#
# Stored parents take pixels that are scaled twice, pixel / 255 / 255, as their authors did; own parents take the book's inputs.
# A record that is in `results` is read, so the stored parents themselves are needed only to compute theirs again.

# %%
store = records.Store.at(results)
published = ("published", recipes.published(k=k, alpha=published_alpha, epochs=published_epochs))


def ours(alpha):
    """Recipe ours with vote loss, by its name."""
    return "ours", recipes.ours(k=k, alpha=alpha, vote=vote, epochs=ours_epochs)


done = []
for column in (*columns, *further):
    dataset, model, *own_alpha = column.split()
    data = modlib.datasets.load(dataset)
    also = [published] if column in columns else []
    for seed in seeds if column in columns else further_seeds:
        own = methods.Subject(dataset, model, "own", seed, parent_epochs)
        done += methods.compare(own, [ours(float(own_alpha[0]) if own_alpha else vote_alpha), *also], data, store)
    if dataset in ("mnist", "fashion_mnist"):
        stored = methods.Subject(dataset, model, "stored", 0, methods.STORED_EPOCHS)
        done += methods.compare(stored, [ours(vote_alpha), *also], data, store, stored_parents)

parameters = {
    "columns": columns,
    "seeds": seeds,
    "further": further,
    "further_seeds": further_seeds,
    "k": k,
    "parent_epochs": parent_epochs,
    "published_epochs": published_epochs,
    "published_alpha": published_alpha,
    "ours_epochs": ours_epochs,
    "vote": vote,
    "vote_alpha": vote_alpha,
}
rows = records.export(store, "baselines", done, parameters)

# %% tags=["hide-input"]
STEMMING = [recipe_label("published", 0), recipe_label("ours", vote)]
METHODS = [*pan_rajan.METHODS, methods.CONTROL, *STEMMING]
rule = rows["recipe"] == "rule"
rows["what"] = np.where(
    rule, rows["method"], [recipe_label(r, v > 0) for r, v in zip(rows["recipe"], rows["vote"], strict=True)]
)
rows["behind"] = rows["parent_accuracy"] - rows["accuracy"]
rows["column"] = rows["dataset"] + " " + rows["model"].str.upper()
paper = pd.read_csv(Layout.here().root / "book" / "published" / "table1.csv")
paper["column"] = paper["dataset"] + " " + paper["model"].str.upper()
paper = paper.set_index(["column", "method"])
of_stored, of_own = rows[rows["parent"] == "stored"], rows[rows["parent"] == "own"]
NAMES = {"published": "stemming, published", "ours, with vote loss": "stemming, ours, with vote loss"}

# %% tags=["nbval-check-output"]
print(sorted(set(rows["what"])))
print(of_own.groupby("column")["seed"].nunique().to_dict(), "own parents")
print("both indices at most 1:", bool((rows[["jaccard_index", "value_index"]] <= 1).all(axis=None)))

# %% [markdown]
# ## Both indices, for every method

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The two indices against the density of the modules; one point is one method on one parent, filled for Pan and Rajan's stored parents, open for our own. Dotted: p / (2 − p), the level of independent masks on the left, and the most that modules of that density can score on the right.", "name": "fig-baselines"}, "image": {"alt": "Two scatter plots against density. Left, Jaccard index of edges: the three rules and the control lie at high density with an index near one; module stemming lies at the density k with an index well above its dotted line. Right, Pan and Rajan's index: the rules lie on or just below the dotted curve, which module stemming, at its low density, cannot leave."}}
MARKS = dict(zip(METHODS, "os^xDv", strict=True))
figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.4), sharey=True)
density = np.linspace(0, 1, 101)
for ax, quantity, title in zip(
    axes, ("jaccard_index", "value_index"), ("Jaccard index of the edges", "Pan and Rajan's index"), strict=True
):
    ax.plot(density, density / (2 - density), ls=":", color="black", lw=1)
    for what in METHODS:
        for kind, points in rows[rows["what"] == what].groupby("parent"):
            colour = figures.COLOURS[what]
            face = colour if kind == "stored" or what == methods.CONTROL else "none"
            edge = {"edgecolors": colour} if MARKS[what] != "x" else {}
            label = NAMES.get(what, what) if ax is axes[0] and kind == "own" else None
            ax.scatter(points["density"], points[quantity], s=26, marker=MARKS[what], c=face, label=label, **edge)
    ax.set(xlabel="density of a module", title=title, ylim=(-0.03, 1.06))
axes[0].set_ylabel("mean over pairs of modules")
figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
plt.show()


# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
def spread(values, digits=2):
    low, high = f"{values.min():.{digits}f}", f"{values.max():.{digits}f}"
    return low if low == high else f"{low} to {high}"


summary = []
for kind, of_kind in (("stored", of_stored), ("own", of_own)):
    for what in METHODS:
        points = of_kind[of_kind["what"] == what]
        if len(points):
            summary.append(
                {
                    "parents": kind,
                    "method": NAMES.get(what, what),
                    "behind the parent (points)": spread(100 * points["behind"]),
                    "Jaccard index of edges": spread(points["jaccard_index"]),
                    "their index": spread(points["value_index"]),
                    "density": spread(points["density"]),
                    "union of all": spread(points["remaining_parameters_all"]),
                    "n": len(points),
                }
            )
tables.table(
    pd.DataFrame(summary),
    f"All methods by both definitions: smallest to largest over n parents. A negative number of points is ahead of the parent. Module stemming at k = {k:.0%}.",
    "tab-baselines",
)

# %% [markdown]
# CM-RIE's density and union count *positions* of weights other than zero. It also replaces weights by means that each module
# has of its own, so a network of its modules holds more numbers than its union says.
#
# ## Table 1 under one definition
#
# As printed, on the left; then every method by the Jaccard index of the edges, then every method by Pan and Rajan's index. The
# rules are measured on the stored parents. Module stemming is the paper's own: its printed Jaccard index $J$ gives their
# index too, because two modules at $k$ share $s = 2kJ/(1+J)$ of the weights, and $u = sn$, which gives $s/(2 - s)$.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
NONE = "There are no records of the stored parents for these columns: give their folder, `-p stored_parents FOLDER`."
K = 0.10  # of the paper's Table 1


def their_index(j):
    shared = 2 * K * j / (1 + j)
    return shared / (2 - shared)


rules = of_stored[of_stored["method"].isin(pan_rajan.METHODS)]
single = []
for column, points in rules.groupby("column", sort=False):
    stemming = paper.loc[(column, "module stemming"), "jaccard_index"]
    printed = paper.loc[[(column, m) for m in pan_rajan.METHODS], "jaccard_index"]
    single.append(
        {
            "column": column,
            "printed: rules": spread(printed),
            "printed: stemming": f"{stemming:.2f}",
            "edges: rules": spread(points["jaccard_index"]),
            "edges: stemming ": f"{stemming:.2f}",
            "their index: rules": spread(points["value_index"]),
            "their index: stemming": f"{their_index(stemming):.3f}",
            "_printed": stemming > printed.max(),
            "_edges": stemming > points["jaccard_index"].min(),
            "_values": their_index(stemming) > points["value_index"].min(),
        }
    )
single = pd.DataFrame(single)
CAPTION = "Table 1's index as printed, and by each definition alone: smallest to largest of the three rules, and module stemming."
tables.table(single[[c for c in single if c[0] != "_"]], CAPTION, "tab-one-definition") if len(single) else Markdown(
    NONE
)

# %% [markdown]
# ## Do the rules give the printed numbers?
#
# One recipe is run for all parents. The artefact's scripts differ from model to model; where that changes a printed number, the
# cell is named below.

# %% tags=["hide-input"]
REASONS = {
    (
        "mnist FC3",
        "TI-I",
    ): "the artefact's script for this model identifies the concern in another way: a neuron of the last hidden layer that sleeps also loses its outgoing weights, improbable outputs lose their weights and the *model's own* bias in place, and full columns come back where few weights are left. We know that script from a description and did not run it",
    (
        "mnist FC4",
        "TI-I",
    ): "the artefact's vote takes the position of the winner among the voters for its class; with that vote the same modules give the printed number",
    (
        "fashion_mnist FC3",
        "CM-RIE",
    ): "the artefact merges the weights into the last hidden layer for the first classes and leaves that out for the last ones; with that the printed number comes out",
}
cells, differing = 0, []
for row in rules.itertuples():
    printed = paper.loc[(row.column, row.method)]
    pairs = [
        ("accuracy", 100 * row.accuracy, printed.accuracy_percent),
        ("index", row.value_index, printed.jaccard_index),
    ]
    for quantity, measured, theirs in pairs:
        cells += 1
        if abs(measured - theirs) > 0.00501:  # all are printed with two digits
            reason = REASONS.get((row.column, row.method), "we do not know why")
            differing.append(
                f"- **{row.column}, {row.method}, {quantity}**: printed {theirs:.2f}, here {measured:.2f}. Why: {reason}."
            )
Markdown(
    f"{cells - len(differing)} of {cells} printed numbers come out, to both digits.\n\n" + "\n".join(differing)
    if cells
    else NONE
)


# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
def with_paper(row):
    if (row.column, row.method) not in paper.index or row.method == "module stemming":
        return "", ""
    printed = paper.loc[(row.column, row.method)]
    return f"{printed.accuracy_percent:.2f}", f"{printed.jaccard_index:.2f}"


full = pd.DataFrame(
    [
        {
            "column": row.column,
            "method": NAMES.get(row.what, row.what),
            "α": "" if pd.isna(row.alpha) else f"{row.alpha:g}",
            "accuracy (%): paper": with_paper(row)[0],
            "here": f"{100 * row.accuracy:.2f}",
            "parent": f"{100 * row.parent_accuracy:.2f}",
            "their index: paper": with_paper(row)[1],
            "here ": f"{row.value_index:.2f}",
            "Jaccard index of edges": f"{row.jaccard_index:.3f}",
            "density": f"{row.density:.3f}",
            "union of all": f"{row.remaining_parameters_all:.3f}",
        }
        for row in of_stored.itertuples()
    ]
)
CAPTION = (
    "Pan and Rajan's eight stored parents (n = 1 each; the rules are deterministic, module stemming has one seed)."
)
tables.table(full, CAPTION, "tab-stored") if len(full) else Markdown(NONE)

# %% [markdown]
# ## On our own parents
#
# These numbers compare with each other, not with the table above: other parents have other accuracies and other densities.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
full_own = pd.DataFrame(
    [
        {
            "column": column,
            "method": NAMES.get(what, what),
            "α": ", ".join(f"{a:g}" for a in sorted(set(points["alpha"].dropna()))),
            "accuracy (%)": records.mean_and_spread(points["accuracy"]),
            "parent": records.mean_and_spread(points["parent_accuracy"]),
            "their index": records.mean_and_spread(points["value_index"], 1, 3),
            "Jaccard index of edges": records.mean_and_spread(points["jaccard_index"], 1, 3),
            "density": records.mean_and_spread(points["density"], 1, 3),
            "union of all": records.mean_and_spread(points["remaining_parameters_all"], 1, 3),
            "n": len(points),
        }
        for (column, what), points in of_own.groupby(["column", "what"], sort=False)
    ]
)
tables.table(full_own, "Our own parents: mean ± standard deviation over n of them, test images.", "tab-own")

# %% tags=["hide-input"]


def beats_stemming(of_kind, quantity):
    """On how many parents every rule scores more than every recipe of module stemming."""
    every = of_kind.groupby(["column", "seed"])
    won = [
        points[points["method"].isin(pan_rajan.METHODS)][quantity].min()
        > points[points["method"] == "module stemming"][quantity].max()
        for _, points in every
    ]
    return f"{sum(won)} of {len(won)}"


def like_control(of_kind):
    """How far TI-SNE's modules are from the control, at most: points of accuracy and density."""
    both = of_kind.set_index(["column", "seed"])
    theirs, control = (both[both["method"] == m] for m in ("TI-SNE", methods.CONTROL))
    return 100 * (theirs["accuracy"] - control["accuracy"]).abs().max(), (
        theirs["density"] - control["density"]
    ).abs().max()


said = []
for kind, of_kind in (("stored", of_stored), ("own", of_own)):
    if not len(of_kind):
        continue
    theirs = of_kind[of_kind["method"].isin(pan_rajan.METHODS)]
    stemming = of_kind[of_kind["method"] == "module stemming"]
    accuracy, apart = like_control(of_kind)
    n = of_kind.groupby(["column", "seed"]).ngroups
    said.append(
        f"**On the {n} {'stored' if kind == 'stored' else 'own'} parents**, the three rules keep {spread(100 * theirs['density'], 0)} % of "
        f"the weights in a module, module stemming {spread(100 * stemming['density'], 0)} %. Every rule scores above module stemming by the "
        f"Jaccard index of edges on {beats_stemming(of_kind, 'jaccard_index')} parents ({spread(theirs['jaccard_index'])} against "
        f"{spread(stemming['jaccard_index'])}), and by Pan and Rajan's index on {beats_stemming(of_kind, 'value_index')} "
        f"({spread(theirs['value_index'])} against {spread(stemming['value_index'])}). TI-SNE's modules differ from the control, which decomposes nothing, "
        f"by at most {apart:.3f} in density and {accuracy:.2f} points in accuracy. All ten modules together need "
        f"{spread(100 * theirs['remaining_parameters_all'], 0)} % of the weights under the rules and "
        f"{spread(100 * stemming['remaining_parameters_all'], 0)} % under module stemming."
    )
    for what in STEMMING:
        points = of_kind[of_kind["what"] == what]
        if len(points):
            ahead = "ahead of" if (points["behind"] <= 0).all() else "behind"
            gap = 100 * points["behind"] * (-1 if ahead == "ahead of" else 1)
            said[-1] += (
                f" Recipe {what} is {spread(gap)} points {ahead} its parent{' (negative: ahead)' if gap.min() < 0 else ''}, n = {len(points)}."
            )
if len(single):
    said.append(
        f"**Table 1 by one definition.** As printed, module stemming has the highest index in {single['_printed'].sum()} of {len(single)} columns. "
        f"By the Jaccard index of edges it is above even the lowest of the three rules in {single['_edges'].sum()} of {len(single)}, and by "
        f"Pan and Rajan's index in {single['_values'].sum()} of {len(single)}."
    )
Markdown("**What came out.** " + "\n\n".join(said))

# %% tags=["hide-input"]
judged = []
if len(single):
    printed, by_edges, by_values = (int(single[name].sum()) for name in ("_printed", "_edges", "_values"))
    judged = [
        claims.Claim(
            "Module stemming has the higher Jaccard index, by one definition and on the same parents",
            "Evaluation of Decomposability",
            f"{printed} of {len(single)} columns, by two definitions",
            f"above the lowest of the three rules: {by_edges} of {len(single)} by edges, {by_values} by their index",
            "holds" if by_edges == by_values == len(single) else "partly" if by_edges + by_values else "does not hold",
            len(single),
        )
    ]
claims.publish(store, "baselines", judged)

# %% [markdown]
# **What it means.** The sentence "outperforms the conventional method in terms of JI" rests on two definitions. By either one
# alone, the conventional methods score higher. That is no merit of theirs: ten copies of one network have a Jaccard index of 1,
# and the rules come close to making such copies. (Nor is a high index a merit of module stemming by itself: $\alpha$ sets it.) With an image of every other class, or many, to put back what a module
# needs to say "another", TI-SNE keeps nearly every neuron that does anything, for every class. What it cuts are neurons that
# were idle in the parent, and hardly any other; where the parent has none, it cuts next to nothing.
#
# What holds for module stemming is what Table 1 does not show: its modules keep a small, chosen share of the edges, and share far
# more of them than independent masks of that size would; a network of all ten modules is several times smaller than that
# of any of the rules. Read accuracy, density and union together; an index of overlap alone says nothing. TI-SNE pays
# nothing in accuracy, and CM-RIE little, because they take next to nothing away; TI-I, which puts less back, loses accuracy on
# some parents.
#
# Only methods on the same parent compare. In the paper, the rules' accuracies are those of Pan and Rajan's parents, to which
# the modules are all but equal, and module stemming's are of parents whose accuracy it does not print. "The accuracy is also
# higher than the baseline in most cases" therefore compares parents as much as methods, and the same is true between the two
# tables above.
#
# **Re-run it:** `modlib reproduce baselines -p columns "[digits fc2]"`; with the parents of Pan and Rajan's public
# repository (`rangeetpan/decomposeDNNintoModules`) as `<dataset>_<model>.h5` in a folder:
# `modlib reproduce baselines -p columns "[mnist fc1]" -p stored_parents FOLDER`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-baselines", parameters)
