# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 4: convolutional parents
#
# **Question.** Does the method carry over to convolutional networks with batch normalisation, and what does stemming do there?
#
# The paper's Figure 4 follows modules of ResNet50 on SVHN, VGG16 on CIFAR-10 and WideResNet-28-10 on CIFAR-100 over the
# epochs: above the remaining parameters of two modules, below the mean accuracy of single modules. Below that, what the paper
# doesn't show: how accurate recomposed networks are, beside two controls.
#
# The paper keeps the same share $k$ of every layer, which starves the small layers at the input (a section below).
# Two things in the names of settings are ours, and have sections of their own below. **LAMP**: the same share of all edges, shared out
# among the layers by the parent's weights. **One mask first**: one mask is trained for all classes, with LAMP and the vote loss, and every
# module goes on from it.
#
# Every panel says what was **reduced** of the paper's scale. All settings, $\alpha = 0$ too, are of our [recipe](ours.ipynb): annealed rates, grafting
# layers that start from the class's own logit, batches of 128, bfloat16. Initial scores are in the order of the weights' magnitude and
# batch normalisation is each module's own: with the parent's statistics deep modules learn next to nothing, and with the paper's random
# scores they learn less ([why](deep_networks.ipynb)). Other rates were tried with the first
# seed of each panel, on held-out images (the section on what was tried). CIFAR-10 here: 111 of its 60,000 images
# went through JPEG. `svhn_10k` is 10,000 of SVHN's images, divided by house; its accuracies are not those of SVHN.

# %% tags=["parameters"]
panels: list[dict] = [  # settings of each panel, see modlib.panels.Panel
    {
        "dataset": "digits", "model": "wrn16_2", "seeds": [0], "parent_epochs": 2, "epochs": 2, "lr": 0.1,
        "images_per_epoch": 96, "batch_size": 16, "measured_images": 40, "final_images": 60, "precision": "float32",
        "alphas": [0.0, 1.0], "voting": [0.03], "reduced": "digits, WideResNet-16-2",
        "variants": {
            "LAMP, vote": {"allocation": "lamp", "vote": 0.9},
            "one mask first": {"allocation": "lamp", "vote": 0.9, "shared_epochs": 2},
        },
        "controls": {
            "shared mask": {}, "shared mask, LAMP": {"allocation": "lamp"},
            "shared mask, LAMP, longer": {"allocation": "lamp", "epochs": 4},
        },
        "tried": {"α = 0, rate 0.3": {"lr": 0.3}},
        "tried_controls": {"shared mask, LAMP, rate 0.3": {"allocation": "lamp", "lr": 0.3}},
    }
]  # fmt: skip
goal: float = 0.20  # share of the weights in which all classes should fit, within one point of the parent
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import tempfile
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.ticker import MaxNLocator

import modlib
from modlib import claims, experiments, figures, records, tables, training
from modlib import panels as figure4
from modlib.reproduce import Layout

figures.use_style()
printed = Layout.here().root / "book" / "published"  # numbers of others
scratch = tempfile.TemporaryDirectory()  # parents of a run that keeps none
store = records.Store.at(results or scratch.name)

# %% [markdown]
# ## Running the panels
#
# `modlib panel DATASET MODEL` runs the same trials without a notebook, alone or in several processes
# (`torchrun --nproc-per-node 4 -m modlib panel cifar10 vgg16 --full`), for as long as it is given: every trial's record is written as
# soon as it is done, and a trial that was stopped goes on from its last checkpoint. The paper's panels at full size are
# `modlib.panels.FULL`.

# %%
shown, classes_and_images, devices, parents_held_out = {}, {}, {}, {}
done, frames, curves, shared, tried, untrained = [], [], [], [], [], []
for settings in panels:
    panel = figure4.Panel.of(settings)
    shown[panel.name] = panel
    data = modlib.datasets.load(panel.dataset)
    classes_and_images[panel.name] = data.num_classes, len(data.train_labels)
    figure4.run(panel, data, store)
    trials = panel.trials()
    some, rows = experiments.run_variants(trials, data, store)
    done += some
    frames.append(rows.assign(panel=panel.name))
    names = [name for name, of_setting in trials.items() for _ in of_setting]
    for name, record in zip(names, some, strict=True):
        kind = "CPU" if record.provenance["device"].startswith("CPU") else "GPU"
        devices.setdefault((panel.name, name), set()).add(kind)
        curve = pd.DataFrame(record.rows[-1].get("subsets", []))  # the last row: the last epoch, on test images
        curves.append(curve.assign(panel=panel.name, setting=name, seed=record.parameters["seed"]))
    for name, seed in panel.control_runs():
        control = figure4.shared_mask(panel, seed, data, store, control=name)
        shared.append(pd.DataFrame(control.rows).assign(panel=panel.name, setting=name))
        done.append(control)
    for seed in panel.seeds:  # on the images that modules are measured on
        parent = experiments.trained_parent(data, panel.model, seed, panel.parent_epochs, store, panel.parent_recipe)
        logits, labels = training.logits(parent, data, "held_out", precision=panel.precision)
        right = (logits.argmax(1) == labels)[: panel.final_images]
        parents_held_out[panel.name, seed] = float(right.double().mean()), len(right)
    before = figure4.before_training(panel, data, store)
    untrained.append(pd.DataFrame(before.rows).assign(panel=panel.name))
    done.append(before)
    some, rows = experiments.run_variants(panel.tried_trials(), data, store) if panel.tried else ([], pd.DataFrame())
    tried.append(rows.assign(panel=panel.name))
    done += some
rows, subsets, shared, tried, untrained = (
    pd.concat(parts, ignore_index=True) for parts in (frames, curves, shared, tried, untrained)
)
records.export(store, "figure4", done, {"panels": panels})
of_trials = pd.concat([rows, tried], ignore_index=True)
failed = pd.concat([of_trials, shared.rename(columns={"setting": "variant"})]).reindex(
    columns=["panel", "variant", "seed", "failed"]
)
failed = failed.dropna(subset=["failed"])
shared = shared.dropna(subset=["classes"])  # those that failed have no curve
test = rows[rows["split"] == "test"]
last = test[test["epoch"] == test["panel"].map({name: p.epochs for name, p in shown.items()})]

# %% tags=["nbval-check-output"]
print(of_trials.groupby(["panel", "variant", "seed"]).ngroups, "trials,", len(failed), "failed, controls included")
print("pairs between k and 2k:", bool(last["remaining_parameters"].between(0.98 * last["k"], 2.02 * last["k"]).all()))

# %% [markdown]
# ## Epoch by epoch, as in the paper


# %% tags=["hide-input"]
plain = [figures.COLOURS["no stemming"], *sns.color_palette("blend:#9ecae1,#08306b", 3)]
compared = {(name, control) for name, panel in shown.items() for control in panel.controls}
of_figures = shared[[which in compared for which in zip(shared["panel"], shared["setting"], strict=True)]]
names = list(dict.fromkeys([*rows["variant"], *of_figures["setting"]]))
looks = {f"α = {a:g}": (hue, "-") for a, hue in zip([0.0, 0.05, 0.1, 1.0], plain, strict=True)}
free = [name for name in names if "scale-free" in name]
looks |= {name: ("#009e73", ":" if "vote" in name else "--") for name in free}
own = [name for name in names if name not in looks and not name.startswith("shared mask")]
looks |= {name: (hue, "--") for name, hue in zip(own, sns.color_palette("YlOrRd", len(own) + 1)[1:], strict=True)}
one_mask = [name for name in names if name.startswith("shared mask")]
dashes = cycle(["-", "-.", ":", "--", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)), (0, (8, 3))])
looks |= {name: (figures.COLOURS["TI-SNE"], line) for name, line in zip(one_mask, dashes, strict=False)}
looks |= {"restricted parent": ("black", "--")}
"""Colour and line of every setting: the paper's solid and blue, the scale-free reading green, ours yellow to red."""


def title(name):
    """Name a panel with its size."""
    return f"{name}\n({'reduced' if shown[name].reduced else 'full size'})"


def draw(ax, setting, curve, **options):
    """Draw a curve [x -> y] as its setting looks."""
    hue, line = looks.get(setting, ("#555555", "-"))
    ax.plot(curve.index, curve, color=hue, ls=line, label=setting, **options)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Remaining parameters of two-class networks (top, mean over pairs; dotted: k, the size of one module) and mean accuracy of single modules (bottom) on test images, epoch by epoch; one column for each panel, at the reduced size that its title and the table below name. Lines: settings with this k, mean over trials; one standard deviation shaded, where there are several. Epochs before the last are measured on the first images only, the last one on all, or on as many as the table below says.", "name": "fig-figure4"}, "image": {"alt": "Curves over epochs for each panel. On top the remaining parameters of each setting beside the dotted line at k; below, the accuracy of modules."}}
figure, axes = plt.subplots(
    2, len(shown), figsize=(max(figures.WIDTH * 0.6, 2.6 * len(shown)), 4.8), squeeze=False, sharex="col"
)
drawn = {}
for column, (name, panel) in zip(axes.T, shown.items(), strict=True):
    part = test[(test["panel"] == name) & (test["k"] == panel.k)]
    for ax, (quantity, label, scale) in zip(
        column,
        [("remaining_parameters", "remaining\nparameters", 1), ("module_accuracy", "accuracy\nof modules (%)", 100)],
        strict=True,
    ):
        over = part.groupby(["variant", "epoch"], sort=False)[quantity].agg(["mean", "std"]) * scale
        for setting in over.index.unique("variant"):
            curve = over.loc[setting]
            draw(ax, setting, curve["mean"])
            drawn.setdefault(setting, ax.lines[-1])
            low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
            ax.fill_between(curve.index, low, high, color=ax.lines[-1].get_color(), alpha=0.2, lw=0)
        ax.set(ylabel=label if ax in axes[:, 0] else "")
    column[0].axhline(panel.k, ls=":", color="black", lw=1)
    column[0].ticklabel_format(axis="y", useOffset=False)
    column[0].set_title(title(name), fontsize=9)
    column[1].set(xlabel="epoch")
    column[1].xaxis.set_major_locator(MaxNLocator(integer=True))
figure.legend(drawn.values(), drawn, frameon=False, fontsize=7, ncols=4, loc="outside upper center")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
public = pd.read_csv(printed / "public_recipes.csv").set_index("dataset")
of_paper = {name: panel.dataset.removesuffix("_10k") for name, panel in shown.items()}
lines = [
    {
        "panel": name,
        "reduced": panel.reduced or "nothing",
        "trials": len(panel.seeds),
        "epochs": panel.epochs,
        "images per epoch and module": panel.images_per_epoch or "all",
        "steps of a module": panel.epochs
        * -(-(panel.images_per_epoch or classes_and_images[name][1]) // panel.batch_size),
        "own parents (%)": records.mean_and_spread(of_parents),
        "points behind": f"{behind - 100 * of_parents.mean():.1f}" if behind else "",
    }
    for name, panel in shown.items()
    for behind in [public["accuracy_percent_low"].get(of_paper[name])]
    for of_parents in [last[last["panel"] == name].drop_duplicates("seed")["parent_accuracy"]]
]
tables.table(
    pd.DataFrame(lines),
    "What each panel is: its parents, and what was reduced of the paper's scale (50 epochs, all images, five trials). Parents: recipe ours, all test images. Behind: the lower end of what public recipes reach at full size, for svhn_10k on the whole of SVHN.",
    "tab-figure4-panels",
)

# %% [markdown]
# What public recipes reach is of the networks at full size, with many more epochs: WideResNet-28-10 as its authors print it (Zagoruyko and Komodakis 2016), VGG16 and
# ResNet50 as public code commonly reports, without a single source. A parent that stays more than a point behind was trained for too short, on too few images, or is too
# small; what is judged here is the distance to a network's *own* parent.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
limits = "; ".join(f"of {name} the first {p.final_images:,}" for name, p in shown.items() if p.final_images)
of_first = f" ({limits})" if limits else ""
lines = []
for (name, variant), part in last.groupby(["panel", "variant"], sort=False):
    lines.append(
        {
            "panel": name,
            "setting": variant,
            "remaining parameters of pairs": records.mean_and_spread(part["remaining_parameters"], 1, 4),
            "of all classes": records.mean_and_spread(part["remaining_parameters_all"], 1, 3),
            "Jaccard index": records.mean_and_spread(part["jaccard_index"], 1, 3),
            "modules (%)": records.mean_and_spread(part["module_accuracy"]),
            "pairs (%)": records.mean_and_spread(part["pair_accuracy"]),
            "all classes (%)": records.mean_and_spread(part["accuracy"]),
            "n": len(part),
            "on": ", ".join(sorted(devices[name, variant])),
        }
    )
tables.table(
    pd.DataFrame(lines),
    f"The last epoch, test images{of_first}, mean ± standard deviation over n trials. A module that always says *another class* has an accuracy of one minus the share of its class: 90% with ten classes, 99% with a hundred. Trials of one panel may come from several devices: compare means, not single trials.",
    "tab-figure4",
)

# %% [markdown]
# ## Recomposed networks, and what they have to beat
#
# The paper stops at pairs. Here are the votes of all numbers of classes, means over at most 50 subsets of each size, beside the parent
# restricted to the subset, which holds all weights, and one supermask shared by all classes with a grafting layer each,
# trained with the vote loss for as many steps as one module, so for far fewer than all modules together (*longer*: for as many epochs as
# both phases of *one mask first* have; *200 epochs*: for longer still).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Accuracy of recomposed networks on test images against the number of classes: modules of every setting (the vote loss is ours, not the paper's), beside the parent restricted to the subset and one shared mask, at the reduced size of the table above. Means over subsets of one size and over trials.", "name": "fig-figure4-subsets"}, "image": {"alt": "Falling curves of accuracy over the number of classes: the restricted parent on top, the modules below, and the shared mask."}}
restricted = subsets.drop_duplicates(["panel", "seed", "classes"]).assign(
    setting="restricted parent", accuracy=lambda frame: frame["parent_accuracy"], union=1.0
)
every = pd.concat([subsets, restricted, of_figures], ignore_index=True)
figure, axes = plt.subplots(1, len(shown), figsize=(max(figures.WIDTH * 0.7, 2.8 * len(shown)), 3.4), squeeze=False)
drawn = {}
for ax, name in zip(axes[0], shown, strict=True):
    part = every[every["panel"] == name]
    means = 100 * part.groupby(["setting", "classes"], sort=False)["accuracy"].mean()
    for setting in means.index.unique("setting"):
        draw(ax, setting, means[setting], marker=".", ms=3)
        drawn.setdefault(setting, ax.lines[-1])
    ax.set(xlabel="classes in the subset", ylabel="accuracy of the vote (%)" if ax is axes[0, 0] else "")
    ax.set_title(title(name), fontsize=9)
figure.legend(drawn.values(), drawn, frameon=False, fontsize=7, ncols=4, loc="outside upper center")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines = []
for (name, setting), part in every.groupby(["panel", "setting"], sort=False):
    for size in sorted({2, min(5, part["classes"].max()), part["classes"].max()}):
        one = part[part["classes"] == size].groupby("seed")[["accuracy", "union"]].mean()
        lines.append(
            {
                "panel": name,
                "setting": setting,
                "classes": size,
                "accuracy (%)": records.mean_and_spread(one["accuracy"]),
                "weights held": records.mean_and_spread(one["union"], 1, 3),
                "n": len(one),
            }
        )
tables.table(
    pd.DataFrame(lines),
    f"Recomposed networks, test images{of_first}: accuracy, and the share of the parent's maskable weights that they hold. Mean ± standard deviation over n trials.",
    "tab-figure4-subsets",
)

# %% [markdown]
# ## What the same share of every layer costs
#
# Edge-popup, and so the paper, keeps the same share $k$ of every layer. The layers at the input of a convolutional network hold few
# weights, and all of the image has to come through them: a tenth of the 27 weights that a filter of the first layer has is three. Most weights lie in the
# last convolutions, which do with far less. *Layer-adaptive magnitude pruning* (LAMP; Lee et al. 2021,
# [arXiv 2010.07611](https://arxiv.org/abs/2010.07611)) shares a number of edges out among the layers by the parent's weights: an edge $u$ scores
#
# $$ W_u^2 \,/\, \textstyle\sum_{v:\, |W_v| \ge |W_u|} W_v^2, $$
#
# the sum over its layer, and the highest scores of all layers together are kept. We take from it *how many* edges a layer keeps
# (`allocation="lamp"` of `modlib.cotrain`); *which* ones is what the modules learn. All modules get the same numbers, and the total is the same as before.
#
# Here nothing is trained yet: the largest weights of each layer stay, and the statistics of batch normalisation are taken anew.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Before any training, parents at the reduced size of the table above. Left: share that every layer keeps, from the input to the output, at the middle one of the shares tried. Right: accuracy on held-out images of the parent with the largest weights of each layer alone. Solid: the same share of every layer; dashed: the same number of edges by LAMP; dotted: the parent. One parent for each panel.", "name": "fig-figure4-allocation"}, "image": {"alt": "Left, the share kept over the depth of the layer, a line for each panel beside a level line. Right, accuracy over the share of all weights kept: solid lines for the same share of every layer, dashed ones for LAMP."}}
figure, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
middle = sorted(set(untrained["k"]) - {1.0})[1]
for hue, (name, part) in zip(sns.color_palette("deep"), untrained.groupby("panel", sort=False), strict=False):
    kept = part[(part["allocation"] == "lamp") & (part["k"] == middle)]["kept_by_layer"].item()
    depth = [i / (len(kept) - 1) for i in range(len(kept))]
    left.plot(depth, [100 * share for share in kept.values()], color=hue, marker=".", ms=3, ls="--", label=name)
    for allocation, line in (("uniform", "-"), ("lamp", "--")):
        curve = part[part["allocation"] == allocation].set_index("k")["held_out_accuracy"]
        right.plot(100 * curve.index, 100 * curve, color=hue, ls=line, marker=".")
    right.axhline(100 * part[part["allocation"] == "all"]["held_out_accuracy"].item(), color=hue, ls=":", lw=1)
left.axhline(100 * middle, color="black", lw=1)
left.set(xlabel="layer, from input (0) to output (1)", ylabel=f"share kept (%) at k = {middle:.0%}")
right.set(xlabel="share of all weights kept (%)", ylabel="accuracy, not trained (%)")
figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=8, ncols=3, loc="outside upper center")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
wide = untrained[untrained["allocation"] != "all"].pivot_table(
    "held_out_accuracy", ["panel", "k"], "allocation", sort=False
)
whole = untrained[untrained["allocation"] == "all"].set_index("panel")["held_out_accuracy"]
tables.table(
    pd.DataFrame(
        {
            "panel": name,
            "weights kept": f"{k:.0%}",
            "the same share of every layer (%)": tables.percent(row["uniform"]),
            "LAMP (%)": tables.percent(row["lamp"]),
            "the parent (%)": tables.percent(whole[name]),
        }
        for (name, k), row in wide.iterrows()
    ),
    "Masks by magnitude that nothing was trained for: accuracy on held-out images, one parent for each panel.",
    "tab-figure4-allocation",
)

# %% [markdown]
# ## One mask first
#
# Modules that are trained apart from the start have each to find the same: a mask under which the small network works at all. One mask can find it for all
# of them. So `shared_epochs` of `modlib.cotrain` train one mask for all classes, a grafting layer each, by the sum of the modules'
# objectives; then every module goes on from its scores and statistics, with the grafting layer of its class. Rates are annealed over both phases together. A
# step for all classes costs what a step of a single module does.
#
# Beside it: modules alone, and the one mask alone, trained for as many epochs as both phases have.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
lines = []
for name, panel in shown.items():
    num_classes, train_images = classes_and_images[name]
    of_all = every[(every["panel"] == name) & (every["classes"] == num_classes)]
    own_accuracy = last[last["panel"] == name].set_index(["variant", "seed"])["module_accuracy"]
    chosen = {s: r for s, r in panel.settings().items() if r.allocation == "lamp" and r.vote}
    own_epochs = dict.fromkeys(chosen, num_classes * panel.epochs)
    alone = {s: r for s, r in panel.control_recipes().items() if r.allocation == "lamp" and (name, s) in compared}
    for setting, recipe in (chosen | alone).items():
        passes = recipe.shared_epochs + own_epochs.get(setting, recipe.epochs)
        part = of_all[of_all["setting"] == setting]
        lines.append(
            {
                "panel": name,
                "setting": setting,
                "images trained on": f"{passes * (panel.images_per_epoch or train_images):,}",
                "all classes (%)": records.mean_and_spread(part["accuracy"]),
                "the parent (%)": records.mean_and_spread(part["parent_accuracy"]),
                "weights held": records.mean_and_spread(part["union"], 1, 3),
                "modules (%)": "" if setting in alone else records.mean_and_spread(own_accuracy[setting]),
                "n": len(part),
            }
        )
tables.table(
    pd.DataFrame(lines),
    f"Modules alone, modules that go on from one mask, and one mask alone: test images{of_first}, all classes, mean ± standard deviation over n trials. Images trained on: passes of one image through the network, forward and back.",
    "tab-figure4-one-mask",
)

# %% tags=["hide-input"]
said = []
for name, panel in shown.items():
    num_classes, _ = classes_and_images[name]
    of_all = every[(every["panel"] == name) & (every["classes"] == num_classes)].set_index(["setting", "seed"])
    both = panel.settings() | panel.control_recipes()
    firsts = [s for s, r in both.items() if r.shared_epochs and r.k == panel.k]
    masks = [s for s in panel.controls if both[s].allocation == "lamp" and both[s].epochs > panel.epochs]
    for first_mask, one in [(a, b) for a in firsts for b in masks]:
        change = 100 * (of_all.loc[first_mask, "accuracy"] - of_all.loc[one, "accuracy"])
        low, high = records.interval(change)
        share = both[one].epochs / (both[first_mask].shared_epochs + num_classes * panel.epochs)
        spread = f"n = {len(change)}, 95% interval {low:+.2f} to {high:+.2f}" if len(change) > 1 else "n = 1"
        said.append(
            f"{name}: {records.mean_and_spread(change, 1)} points against *{one}* ({spread}), which takes {share:.0%} of the passes"
        )
Markdown(f"Modules that go on from one mask, minus one mask alone, paired by seed: {'; '.join(said)}.")

# %% [markdown]
# ## What was tried
#
# With the first seed of a panel, judged on held-out images; test images choose nothing.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
first_seed = {name: panel.seeds[0] for name, panel in shown.items()}
first = rows[rows["seed"] == rows["panel"].map(first_seed)]
held = pd.concat([first, tried], ignore_index=True)
held = held[held["split"] == "held_out"]
held = held[held["epoch"] == held.groupby(["panel", "variant"])["epoch"].transform("max")]
rates = {
    (name, setting): recipe.lr
    for name, panel in shown.items()
    for setting, recipe in (panel.settings() | panel.recipes_of(panel.tried) | panel.control_recipes()).items()
}
lines = [
    {
        "panel": row.panel,
        "setting": row.variant,
        "rate": f"{rates[row.panel, row.variant]:g}",
        "all classes (%)": tables.percent(row.accuracy),
        "pairs (%)": tables.percent(row.pair_accuracy),
        "of all weights": f"{row.remaining_parameters_all:.3f}",
        "n": 1,
    }
    for row in held.sort_values("panel", kind="stable").itertuples()
]
largest = shared["classes"] == shared.groupby("panel")["classes"].transform("max")
whole = shared[largest & (shared["seed"] == shared["panel"].map(first_seed))]
lines += [
    {
        "panel": row.panel,
        "setting": row.setting,
        "rate": f"{rates[row.panel, row.setting]:g}",
        "all classes (%)": tables.percent(row.held_out_accuracy),
        "pairs (%)": "",
        "of all weights": f"{row.density:.3f}",
        "n": 1,
    }
    for row in whole.itertuples()
]
tables.table(
    pd.DataFrame(lines),
    "Accuracy of the vote on held-out training images: what the panels above show, and what else was tried; the rate is that of the scores.",
    "tab-figure4-tried",
)

# %% tags=["hide-input"]
by_rate = pd.concat(
    [
        held[["panel", "variant", "accuracy"]].rename(columns={"variant": "setting"}),
        whole[["panel", "setting", "held_out_accuracy"]].rename(columns={"held_out_accuracy": "accuracy"}),
    ]
)
by_rate["used"] = by_rate["setting"].str.split(", rate ").str[0]  # the setting whose rate was varied
said = []
for (name, used), part in by_rate.groupby(["panel", "used"], sort=False):
    accuracy = 100 * part.set_index("setting")["accuracy"]
    if len(accuracy) > 1:
        best, rate = accuracy.idxmax(), rates[name, used]
        others = accuracy.drop(best)
        images = parents_held_out[name, shown[name].seeds[0]][1]
        error = (accuracy[best] * (100 - accuracy[best]) / images) ** 0.5
        lead = f"{rates[name, best]:g} is {accuracy[best] - others.max():.2f} points ahead of {rates[name, others.idxmax()]:g}"
        said.append(f"{name}, *{used}*: of {len(accuracy)} rates {lead} (standard error {error:.2f}); {rate:g} is used")
Markdown(
    f"Rates (n = 1 each; a lead within two standard errors tells nothing): {'; '.join(said) or 'no other tried'}. Of *one mask first* no other rate was tried."
)

# %% tags=["hide-input"]
diverged = "; ".join(f"{one.panel}, *{one.variant}*, seed {one.seed}: {one.failed}" for one in failed.itertuples())
Markdown(f"Failed: {diverged or 'no trial and no control'}.")

# %% [markdown]
# ## Beside another system that reuses parts of such networks
#
# MODA (Ngo et al. 2026, [arXiv 2411.01074](https://arxiv.org/abs/2411.01074)) trains the parent so that it falls into modules, and then
# composes them without training. We don't touch the parent. Theirs are *their* numbers, for VGG16 on CIFAR-10 at full size, of another parent, trained for longer than ours; they
# print neither that parent's accuracy beside them nor accuracies by the number of classes. So what can be compared is the share of the weights.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the parent's weights that a recomposed network holds, against the number of classes. Grey squares: MODA, VGG16 on CIFAR-10 at full size, two and ten classes, as its authors print them; the line between them is ours. Others: our modules of the CIFAR-10 panels above, at their reduced size, means over subsets and trials. Dotted: our goal for all classes.", "name": "fig-figure4-moda"}, "image": {"alt": "Share of weights over the number of classes: MODA's two points at 5 and 48 percent with a line between them, and our curves from about k to their union."}}
moda = pd.read_csv(printed / "moda.csv").set_index("classes")
theirs = moda["weights_percent"].dropna()
figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.8))
ax.plot(
    theirs.index.astype(int),
    theirs,
    color=figures.COLOURS["paper"],
    marker="s",
    label="MODA (their numbers, full size)",
)
same_data = {name: panel for name, panel in shown.items() if panel.dataset == "cifar10"}
lines = [
    {
        "system": "MODA (their numbers, full size)",
        "two classes, weights held (%)": f"{theirs['2']:g}",
        "ten classes, weights held (%)": f"{theirs['10']:g}",
        "accuracy over subsets (%)": f"{moda['accuracy_percent']['mean over subsets']:g}",
        "the parent's (%)": "not printed",
        "n": "",
    }
]
for (name, panel), marker in zip(same_data.items(), "o^vD", strict=False):
    for setting in panel.settings():
        part = subsets[(subsets["panel"] == name) & (subsets["setting"] == setting)]
        if setting == "α = 0" or setting in panel.variants:
            means = 100 * part.groupby("classes")[["union", "accuracy", "parent_accuracy"]].mean()
            draw(ax, setting, means["union"], marker=marker, ms=3)
            ax.lines[-1].set_label(f"{name}{' (reduced)' if panel.reduced else ''}, {setting}")
            lines.append(
                {
                    "system": f"{name} ({'reduced' if panel.reduced else 'full size'}), {setting}",
                    "two classes, weights held (%)": f"{means['union'][2]:.1f}",
                    "ten classes, weights held (%)": f"{means['union'][10]:.1f}",
                    "accuracy over subsets (%)": f"{means['accuracy'].mean():.2f}",
                    "the parent's (%)": f"{means['parent_accuracy'].mean():.2f}",
                    "n": part["seed"].nunique(),
                }
            )
ax.axhline(100 * goal, ls=":", color="black", lw=1)
ax.set(xlabel="classes", ylabel="weights held (%)")
figure.legend(frameon=False, fontsize=7, ncols=2, loc="outside upper center")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.table(
    pd.DataFrame(lines),
    "MODA as its authors print it, and our CIFAR-10 panels. Accuracy over subsets: of ours the mean over two to ten classes, each the mean over at most 50 subsets, test images; of theirs the mean over subsets, which they don't list. The parent's: restricted to the same subsets.",
    "tab-figure4-moda",
)

# %% tags=["hide-input"]
sentences, stemming = [], {}
last_of_all = pd.concat(
    [
        last,
        tried[
            (tried["split"] == "test") & (tried["epoch"] == tried["panel"].map({n: p.epochs for n, p in shown.items()}))
        ],
    ]
    if len(tried)
    else [last]
)
last_of_all = last_of_all.set_index(["panel", "variant", "seed"]).sort_index()
panel_classes = subsets.groupby("panel")["classes"].max()
for name, panel in shown.items():
    num_classes = classes_and_images[name][0]
    part = last[last["panel"] == name].set_index(["variant", "seed"])
    size = f"{name}, {'reduced: ' + panel.reduced if panel.reduced else 'full size'} (n = {len(panel.seeds)})"
    held_out = rows[(rows["panel"] == name) & (rows["split"] == "held_out") & (rows["epoch"] == panel.epochs)]
    of_parent = [parents_held_out[name, seed][0] for seed in held_out["seed"]]
    means = held_out.assign(behind=of_parent - held_out["accuracy"]).groupby("variant")
    means = means[["accuracy", "behind", "remaining_parameters_all"]].mean()
    best, close = means["accuracy"].idxmax(), means[means["behind"] <= 0.01]
    at_best = part.loc[best]
    of_all = subsets[(subsets["panel"] == name) & (subsets["classes"] == panel_classes[name])]
    gaps = (of_all["parent_accuracy"] - of_all["accuracy"]).groupby(of_all["setting"])  # same images
    gap = gaps.get_group(best)
    of_control = of_figures[(of_figures["panel"] == name) & (of_figures["classes"] == panel_classes[name])]
    masks = ", ".join(
        f"{records.mean_and_spread(control['accuracy'])}% in {control['union'].mean():.1%} ({which})"
        for which, control in of_control.groupby("setting", sort=False)
    )
    held_controls = of_control.groupby("setting")["held_out_accuracy"].mean()
    met = at_best["remaining_parameters_all"].mean() <= goal and gap.mean() <= 0.01
    uniform = part.loc["α = 0"]
    sentences.append(
        f"**{size}.** With the same share of every layer, as in the paper, and without stemming, the vote of all classes is right on "
        f"{records.mean_and_spread(uniform['accuracy'])}%, in {uniform['remaining_parameters_all'].mean():.1%} of the weights. "
        f"Best of the decompositions on held-out images is *{best}* ({means['accuracy'][best]:.2%} there; the best control, *{held_controls.idxmax()}*, {held_controls.max():.2%}): "
        f"**{records.mean_and_spread(at_best['accuracy'])}% in {at_best['remaining_parameters_all'].mean():.1%}** of the weights on test images, "
        f"{records.mean_and_spread(gap)} points behind the parent, on held-out ones {100 * means['behind'][best]:.2f}. One mask for all classes: {masks}. All classes in at most {goal:.0%} of "
        f"the weights within one point of the parent, on test images: {'**met**' if met else '**not met**'}{'' if len(gap) > 1 else ' in one trial, which tells no spread'}."
    )
    if len(close):
        smallest = close["remaining_parameters_all"].idxmin()
        sentences[-1] += (
            f" The smallest within one point on held-out images is *{smallest}*: {records.mean_and_spread(part.loc[smallest]['accuracy'])}% on "
            f"test images, in {part.loc[smallest]['remaining_parameters_all'].mean():.1%} of the weights, {records.mean_and_spread(gaps.get_group(smallest))} points "
            "behind the parent."
        )
    found = (
        f"without stemming two modules' Jaccard index is {uniform['jaccard_index'].mean():.3f}, and pairs hold {uniform['remaining_parameters'].mean():.4f} "
        f"of a possible {panel.k:g} to {2 * panel.k:g}"
    )
    change, measured = None, ["remaining_parameters", "module_accuracy"]
    stemmed = {
        recipe.alpha: setting
        for setting, recipe in (panel.settings() | panel.recipes_of(panel.tried)).items()
        if setting == f"α = {recipe.alpha:g}"
    }
    if max(stemmed) > 0:
        strongest = stemmed[max(stemmed)]
        change = (
            last_of_all.loc[name, strongest][measured] - uniform[measured]
        ).dropna()  # of what was tried, the first seed
        found += (
            f"; with {strongest} of Eq. 1 as written (n = {len(change)}) that changes by {records.mean_and_spread(change['remaining_parameters'], 1, 4)}, and "
            f"a module's accuracy by {records.mean_and_spread(change['module_accuracy'])} points ({records.mean_and_spread(uniform['module_accuracy'])}% at α = 0; always "
            f"saying *another class*: {1 - 1 / num_classes:.0%})"
        )
    else:
        found += "; α above 0 was not run"
    sentences[-1] += f" Stemming: {found}."
    stemming[name] = found, change
Markdown("**What came out.**\n\n" + "\n\n".join(sentences))


# %% tags=["hide-input"]
def verdict(names):
    """Judge the paper's claim on the panels at full size: pairs hold less, and modules lose half a point or more."""
    changes = [stemming[name][1] for name in names if not shown[name].reduced and stemming[name][1] is not None]
    if not changes:
        return "open"
    every_change = pd.concat(changes)
    fewer = bool((every_change["remaining_parameters"] < 0).all())
    worse = bool(every_change["module_accuracy"].mean() <= -0.005)
    return "holds" if fewer and worse else "partly" if fewer or worse else "does not hold"


judged = []
for of_paper_name, full in figure4.FULL.items():
    names = [name for name in shown if of_paper[name] == full.dataset]
    at_size = [f"{name}{' (reduced)' if shown[name].reduced else ''}: {stemming[name][0]}" for name in names]
    not_run = all(shown[name].reduced for name in names)
    judged.append(
        claims.Claim(
            "Module stemming reduces the remaining parameters, and the accuracy is not ensured for α = 1 compared with α = 0",
            f"Evaluation of Composability, Figure 4 ({of_paper_name})",
            "no number",
            "; ".join([*(["not run at full size"] if not_run else []), *at_size]),
            verdict(names),
            ", ".join(str(len(shown[name].seeds)) for name in names),
        )
    )
claims.publish(store, "figure4", judged)

# %% [markdown]
# **What it means.** The method runs on convolutional networks as they are, and a recomposed network needs no training. About *stemming*, the paper's question, these runs say little: all modules start
# from the same scores, in the order of the weights' magnitude, and take few steps, so that already without stemming the masks of two modules are nearly one (least so on CIFAR-100, at a higher rate), and little is left for
# stemming to reduce; of that little, $\alpha = 1$ of Eq. 1 as written takes next to nothing away. The claims about Figure 4 stay *open* on the scoreboard until the panels have run at full size.
#
# Two other things decide whether the modules work. The small layers near the input must keep enough edges: with the same share of every layer, as in the paper, modules trained for as few steps as here do not get
# over the loss that the table of untrained masks shows (whether more steps would was not run); with LAMP they start closer to the parent, on CIFAR-10 much closer. And a mask must be found under which the small network works
# at all: one mask, trained for all classes, finds it in a fraction of the steps that many modules need side by side (the two panels at a quarter of their width have both), and modules that go on from it keep it.
#
# Said as loudly: that is not much of a decomposition. Modules that go on from one mask stay nearly equal, and one mask trained alone, with a grafting layer for each class, comes close to them or
# passes them for a fraction of the passes (the differences stand below the table of one mask first); at equal passes the two were not compared. At full width most of it is there before anything is trained (the table of untrained masks). Where only accuracy and
# size count, masks of their own buy the classes little here; LAMP and the common mask get the credit.
#
# A module's own accuracy is another thing: the vote loss lets the modules' thresholds go, because only their order counts in a vote. VGG16 at a quarter of its width, the one panel with LAMP both with and without the vote loss,
# has the better single modules without it.
#
# **Re-run it:** `modlib panel cifar10 vgg16_quarter`, then `modlib reproduce figure4 --published`. The paper's scale, on a GPU:
# `modlib panel cifar10 vgg16 --full --engine graphed`, and so `cifar100 wrn28_10` and `svhn resnet50`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-figure4", {"panels": ", ".join(shown)})
