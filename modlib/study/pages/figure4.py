"""Figure 4: what its panels have given, as tables, drawings, sentences and claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modlib.study import claims, figures, panel_results, panels, printed, records, tables, verdicts
from modlib.study.experiment import Experiment
from modlib.study.panel_results import RESTRICTED, Evidence, Results
from modlib.study.panels import Panel
from modlib.study.published import count_of, trials_of
from modlib.study.records import Store, against_parent, mean_and_spread

MODA = "MODA (their numbers, full size)"
CLAIM = (
    "Module stemming reduces the remaining parameters, and the accuracy is not ensured for α = 1 compared with α = 0"
)
CLOSE = 0.01
"""How far behind its parent a decomposition may be, as a share of the images: one point."""
BEST, BEST_MASK = "best setting", "best shared mask alone"
Look = tuple[Any, Any]
"""Colour and line of a setting."""


def experiments(panels: Sequence[Mapping[str, Any]], **_: Any) -> list[Experiment]:
    """Return all that the page reads or computes: trials, controls, and masks that nothing is trained for."""
    return [experiment for settings in panels for experiment in _experiments(Panel.of(settings))]


def _experiments(panel: Panel) -> Iterator[Experiment]:
    for of_setting in (panel.trials() | panel.tried_trials()).values():
        yield from (trial.experiment for trial in of_setting)
    yield from (panels.control_experiment(panel, seed, name) for name, seed in panel.control_runs())
    yield panels.before_training_experiment(panel)


def summary(evidence: Evidence) -> str:
    """Return how many trials there are, and whether the pairs' remaining parameters lie where they must."""
    last = evidence.last(evidence.rows)
    trials = evidence.trials.groupby(["panel", "variant", "seed"]).ngroups
    between = bool(last["remaining_parameters"].between(0.98 * last["k"], 2.02 * last["k"]).all())
    return f"{trials} trials, {len(evidence.failed)} failed, controls included\npairs between k and 2k: {between}"


def gather(settings: Sequence[Mapping[str, Any]], store: Store) -> Evidence:
    """Run what is open of the panels with these settings, and read the rest; write the page's table of trials."""
    evidence = panel_results.gather(settings, store)
    records.export(store, "figure4", evidence.done, {"panels": settings})
    return evidence


def looks_of(evidence: Evidence) -> dict[str, Look]:
    """Return how every setting is drawn: the paper's solid and blue, scale-free ones green, ours yellow to red."""
    plain = figures.of_alphas((0.05, 0.1, 1.0))
    names = list(dict.fromkeys([*evidence.rows["variant"], *evidence.shown_controls["setting"]]))
    looks: dict[str, Look] = {f"α = {a:g}": (hue, "-") for a, hue in plain.items()}
    looks |= {name: ("#009e73", ":" if "vote" in name else "--") for name in names if "scale-free" in name}
    own = [name for name in names if name not in looks and not name.startswith(panels.SHARED)]
    hues = sns.color_palette("YlOrRd", len(own) + 1)[1:]
    looks |= {name: (hue, "--") for name, hue in zip(own, hues, strict=True)}
    dashes = cycle(["-", "-.", ":", "--", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)), (0, (8, 3))])
    one_mask = [name for name in names if name.startswith(panels.SHARED)]
    looks |= {name: (figures.COLOURS["TI-SNE"], line) for name, line in zip(one_mask, dashes, strict=False)}
    return looks | {RESTRICTED: ("black", "--")}


def _draw(ax: Axes, looks: Mapping[str, Look], setting: str, curve: pd.Series, **options: Any) -> None:
    """Draw a curve [x -> y] as its setting looks."""
    hue, line = looks.get(setting, ("#555555", "-"))
    ax.plot(curve.index, curve, color=hue, ls=line, label=setting, **options)


def _legend_of(figure: Figure, axes: Iterable[Axes]) -> None:
    """Draw one legend above all axes, in which every setting stands once."""
    lines = [line for ax in axes for line in ax.lines if not str(line.get_label()).startswith("_")]
    drawn: dict[str, Any] = {}
    for line in lines:
        drawn.setdefault(str(line.get_label()), line)
    figure.legend(drawn.values(), drawn, frameon=False, fontsize=7, ncols=4, loc="outside upper center")


def _title(ax: Axes, results: Results) -> None:
    ax.set_title(f"{results.panel.title} ({results.size})", fontsize=9)


def draw_epochs(evidence: Evidence) -> None:
    """Draw remaining parameters of pairs and accuracies of modules over the epochs, a row for each panel."""
    looks = looks_of(evidence)
    count = len(evidence.panels)
    figure, axes = plt.subplots(count, 2, figsize=(figures.WIDTH, 1.0 + 2.1 * count), squeeze=False)
    test = evidence.rows[evidence.rows["split"] == "test"]
    for row, (name, results) in zip(axes, evidence.panels.items(), strict=True):
        part = test[(test["panel"] == name) & (test["k"] == results.panel.k)]
        _draw_over_epochs(row[0], looks, part, "remaining_parameters", 100)
        _draw_over_epochs(row[1], looks, part, "module_accuracy", 100)
        row[0].axhline(100 * results.panel.k, ls=":", color="black", lw=1)
        row[0].ticklabel_format(axis="y", useOffset=False)
        row[0].set(ylabel="remaining\nparameters (%)")
        row[1].set(ylabel="accuracy of\nmodules (%)")
        for ax in row:
            _title(ax, results)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[-1]:
        ax.set(xlabel="epoch")
    _legend_of(figure, axes.flat)
    plt.show()


def _draw_over_epochs(ax: Axes, looks: Mapping[str, Look], rows: pd.DataFrame, quantity: str, scale: float) -> None:
    """Draw the mean of a quantity over trials for every setting, one standard deviation shaded."""
    over = rows.groupby(["variant", "epoch"], sort=False)[quantity].agg(["mean", "std"]) * scale
    for setting in over.index.unique("variant"):
        curve = over.loc[setting]
        _draw(ax, looks, setting, curve["mean"])
        low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
        ax.fill_between(curve.index, low, high, color=ax.lines[-1].get_color(), alpha=0.2, lw=0)


def panels_table(evidence: Evidence) -> Markdown:
    """Tabulate what each panel is: its parents, and what was reduced."""
    public = printed.numbers("public_recipes").set_index("dataset")["accuracy_percent_low"]
    last = evidence.last(evidence.rows)
    lines = []
    for name, results in evidence.panels.items():
        panel = results.panel
        parents = last[last["panel"] == name].drop_duplicates("seed")["parent_accuracy"]
        reached = public.get(results.paper_dataset)
        lines.append(
            {
                "panel": name,
                "reduced": panel.reduced or "nothing",
                "trials": len(panel.seeds),
                "epochs": panel.epochs,
                "images per epoch and module": panel.images_per_epoch or "all",
                "steps of a module": _steps(results),
                "own parents (%)": mean_and_spread(parents),
                "points behind": f"{reached - 100 * parents.mean():.1f}" if reached else "",
            }
        )
    return tables.table(
        pd.DataFrame(lines),
        "What each panel is: its parents, and what was reduced of the paper's scale (50 epochs, all images, five "
        "trials). Parents: recipe ours, all test images. Behind: the lower end of what public recipes reach at full "
        "size, for SVHN-10k on the whole of SVHN.",
        "tab-figure4-panels",
    )


def settings_table(evidence: Evidence) -> Markdown:
    """Tabulate every setting after the last epoch."""
    where = " and ".join(
        sorted({kind for one in evidence.panels.values() for on in one.devices.values() for kind in on})
    )
    lines = [
        {
            "panel": name,
            "setting": variant,
            "remaining, pairs (%)": mean_and_spread(part["remaining_parameters"]),
            "remaining, all (%)": mean_and_spread(part["remaining_parameters_all"], digits=1),
            "Jaccard index": mean_and_spread(part["jaccard_index"], 1, 3),
            "modules (%)": mean_and_spread(part["module_accuracy"]),
            "pairs (%)": mean_and_spread(part["pair_accuracy"]),
            "all classes (%)": mean_and_spread(part["accuracy"]),
            "n": len(part),
        }
        for (name, variant), part in evidence.last(evidence.rows).groupby(["panel", "variant"], sort=False)
    ]
    return tables.table(
        pd.DataFrame(lines),
        f"The last epoch, test images{evidence.images}, mean ± standard deviation over n trials, computed on {where}. "
        "Remaining: remaining parameters of two modules and of all. Then accuracies. A module that always "
        "says *another class* has an accuracy of one minus the share of its class: 90% with ten classes, 99% with a "
        "hundred. Trials of one panel may come from several devices: compare means, not single trials.",
        "tab-figure4",
    )


def draw_subsets(evidence: Evidence, goal: float) -> None:
    """Draw the accuracy of recomposed networks over the number of classes, for each panel.

    Shown are the paper's settings, the best one and the best shared mask (see `InPanel`), and the restricted parent.
    """
    looks = looks_of(evidence) | {
        BEST: (figures.COLOURS["ours, with vote loss"], "--"),
        BEST_MASK: (figures.COLOURS["TI-SNE"], "-."),
    }
    count = len(evidence.panels)
    rows, columns = -(-count // 2), min(2, count)
    figure, axes = plt.subplots(rows, columns, figsize=(figures.WIDTH, 0.7 + 2.1 * rows), squeeze=False)
    for ax in axes.flat[count:]:
        ax.axis("off")
    for ax, (name, results) in zip(axes.flat, evidence.panels.items(), strict=False):
        part, found = evidence.curves[evidence.curves["panel"] == name], InPanel.of(evidence, name, goal)
        means = 100 * part.groupby(["setting", "classes"], sort=False)["accuracy"].mean()
        shown = {s: s for s, recipe in results.panel.settings().items() if s == f"α = {recipe.alpha:g}"}
        for label, setting in (shown | {BEST_MASK: found.mask, BEST: found.best, RESTRICTED: RESTRICTED}).items():
            _draw(ax, looks, label, means[setting], marker=".", ms=3)
        _title(ax, results)
    for ax in axes[-1]:
        ax.set(xlabel="classes in the subset")
    for ax in axes[:, 0]:
        ax.set(ylabel="accuracy of the vote (%)")
    _legend_of(figure, axes.flat)
    plt.show()


def subsets_table(evidence: Evidence) -> Markdown:
    """Tabulate recomposed networks of two, five and all classes."""
    lines = []
    for (name, setting), part in evidence.curves.groupby(["panel", "setting"], sort=False):
        most = part["classes"].max()
        for size in sorted({2, min(5, most), most}):
            one = part[part["classes"] == size].groupby("seed")[["accuracy", "union"]].mean()
            lines.append(
                {
                    "panel": name,
                    "setting": setting,
                    "classes": size,
                    "accuracy (%)": mean_and_spread(one["accuracy"]),
                    "remaining (%)": mean_and_spread(one["union"]),
                    "n": len(one),
                }
            )
    return tables.folded(
        pd.DataFrame(lines),
        "Every setting with two, five and all classes",
        f"Recomposed networks, test images{evidence.images}: accuracy, and the share of the parent's maskable weights "
        "that they hold. Mean ± standard deviation over n trials.",
        "tab-figure4-subsets",
    )


def draw_untrained(evidence: Evidence) -> None:
    """Draw what two allocations keep of every layer, and the accuracy that this leaves before any training."""
    untrained = evidence.untrained
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


def untrained_table(evidence: Evidence) -> Markdown:
    """Tabulate masks by magnitude that nothing was trained for."""
    whole = evidence.untrained["allocation"] == "all"
    parents = evidence.untrained[whole].set_index("panel")["held_out_accuracy"]
    masks = evidence.untrained[~whole].pivot_table("held_out_accuracy", ["panel", "k"], "allocation", sort=False)
    lines = [
        {
            "panel": row["panel"],
            "weights kept": f"{row['k']:.0%}",
            "the same share of every layer (%)": tables.percent(row["uniform"]),
            "LAMP (%)": tables.percent(row["lamp"]),
            "the parent (%)": tables.percent(parents[row["panel"]]),
        }
        for row in masks.reset_index().to_dict("records")
    ]
    return tables.table(
        pd.DataFrame(lines),
        "Masks by magnitude that nothing was trained for: accuracy on held-out images, one parent for each panel.",
        "tab-figure4-allocation",
    )


def one_mask_table(evidence: Evidence) -> Markdown:
    """Tabulate modules alone, modules that go on from one mask, and one mask alone."""
    lines = [line for name in evidence.panels for line in _one_mask_lines(evidence, name)]
    return tables.table(
        pd.DataFrame(lines),
        f"Modules alone, modules that go on from one mask, and one mask alone: test images{evidence.images}, all "
        "classes, mean ± standard deviation over n trials. Images trained on: passes of one image through the network, "
        "forward and back.",
        "tab-figure4-one-mask",
    )


def _one_mask_lines(evidence: Evidence, name: str) -> Iterator[dict[str, Any]]:
    results, panel = evidence.panels[name], evidence.panels[name].panel
    last = evidence.last(evidence.rows)
    modules = last[last["panel"] == name].groupby("variant")["module_accuracy"]
    chosen = {s: r for s, r in panel.settings().items() if r.allocation == "lamp" and r.vote}
    alone = {s: r for s, r in panel.control_recipes().items() if r.allocation == "lamp" and s in panel.controls}
    of_all = evidence.of_all_classes(name)
    for setting, recipe in (chosen | alone).items():
        epochs = recipe.epochs if setting in alone else results.num_classes * panel.epochs
        passes = (recipe.shared_epochs + epochs) * (panel.images_per_epoch or results.train_images)
        part = of_all[of_all["setting"] == setting]
        yield {
            "panel": name,
            "setting": setting,
            "images trained on": f"{passes:,}",
            "all classes (%)": mean_and_spread(part["accuracy"]),
            "the parent (%)": mean_and_spread(part["parent_accuracy"]),
            "remaining (%)": mean_and_spread(part["union"]),
            "modules (%)": "" if setting in alone else mean_and_spread(modules.get_group(setting)),
            "n": len(part),
        }


def one_mask_differences(evidence: Evidence) -> Markdown:
    """Tabulate what modules that go on from one mask gain over one mask alone, of about as many epochs."""
    lines = [line for name in evidence.panels for line in _one_mask_differences(evidence, name)]
    columns = ["panel", "one mask alone", "points", "95% interval", "its passes, of those of the modules", "n"]
    return tables.table(
        pd.DataFrame(lines, columns=columns),
        "Modules that go on from one mask, minus one mask alone: accuracy of all classes, test images, mean ± standard "
        "deviation over n trials, paired by seed.",
        "tab-figure4-one-mask-differences",
    )


def _one_mask_differences(evidence: Evidence, name: str) -> Iterator[dict[str, Any]]:
    results, panel = evidence.panels[name], evidence.panels[name].panel
    accuracy = evidence.of_all_classes(name).set_index(["setting", "seed"])["accuracy"]
    both = panel.settings() | panel.control_recipes()
    firsts = [s for s, r in both.items() if r.shared_epochs and r.k == panel.k]
    masks = [s for s in panel.controls if both[s].allocation == "lamp" and both[s].epochs > panel.epochs]
    for first_mask, one in [(a, b) for a in firsts for b in masks]:
        change = 100 * (accuracy[first_mask] - accuracy[one])
        low, high = records.interval(change)
        share = both[one].epochs / (both[first_mask].shared_epochs + results.num_classes * panel.epochs)
        yield {
            "panel": name,
            "one mask alone": one,
            "points": signed(change),
            "95% interval": f"{low:+.2f} to {high:+.2f}" if len(change) > 1 else "",
            "its passes, of those of the modules": f"{share:.0%}",
            "n": len(change),
        }


def first_seeds(evidence: Evidence) -> pd.DataFrame:
    """Return all settings and controls under the first seed of their panel, by their accuracy on held-out images.

    Columns: panel, setting, rate of the scores, accuracy (of all classes), pairs (NaN for one mask), weights.
    """
    seeds = {name: results.panel.seeds[0] for name, results in evidence.panels.items()}
    held = pd.concat([evidence.rows[evidence.rows["seed"] == evidence.rows["panel"].map(seeds)], evidence.tried])
    held = held[held["split"] == "held_out"].rename(columns={"variant": "setting"})
    held = held[held["epoch"] == held.groupby(["panel", "setting"])["epoch"].transform("max")]
    held = held.rename(columns={"pair_accuracy": "pairs", "remaining_parameters_all": "weights"})
    controls = evidence.controls
    largest = controls["classes"] == controls.groupby("panel")["classes"].transform("max")
    whole = controls[largest & (controls["seed"] == controls["panel"].map(seeds))].drop(columns="accuracy")
    whole = whole.rename(columns={"held_out_accuracy": "accuracy", "density": "weights"})
    every = pd.concat([held.sort_values("panel", kind="stable"), whole], ignore_index=True)
    recipes = {name: results.recipes() for name, results in evidence.panels.items()}
    rates = [recipes[name][setting].lr for name, setting in zip(every["panel"], every["setting"], strict=True)]
    return every.assign(rate=rates)[["panel", "setting", "rate", "accuracy", "pairs", "weights"]]


def tried_table(tried: pd.DataFrame) -> Markdown:
    """Tabulate the table of `first_seeds`."""
    lines = [
        {
            "panel": row["panel"],
            "setting": row["setting"],
            "rate": f"{row['rate']:g}",
            "all classes (%)": tables.percent(row["accuracy"]),
            "pairs (%)": "" if pd.isna(row["pairs"]) else tables.percent(row["pairs"]),
            "remaining": tables.percent(row["weights"], 1),
            "n": 1,
        }
        for row in tried.to_dict("records")
    ]
    return tables.folded(
        pd.DataFrame(lines),
        "What was tried",
        "Accuracy of the vote on held-out training images: what the panels above show, and what else was tried; the "
        "rate is that of the scores.",
        "tab-figure4-tried",
    )


def beside_moda(evidence: Evidence) -> dict[tuple[str, str], pd.DataFrame]:
    """Return what stands beside MODA, CIFAR-10 by panel and setting: means by the number of classes, in per cent."""
    found = {}
    for name, results in evidence.panels.items():
        shown = [s for s in results.panel.settings() if s == "α = 0" or s in results.panel.variants]
        for setting in shown if results.panel.dataset == "cifar10" else []:
            part = results.subsets[results.subsets["setting"] == setting]
            found[name, setting] = 100 * part.groupby("classes")[["union", "accuracy", "parent_accuracy"]].mean()
    return found


def draw_moda(evidence: Evidence, goal: float) -> None:
    """Draw the share of the weights that recomposed networks hold, MODA's and ours; `goal`: for all classes."""
    looks = looks_of(evidence)
    theirs = printed.numbers("moda").set_index("classes")["weights_percent"].dropna()
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 3.8))
    ax.plot(theirs.index.astype(int), theirs, color=figures.COLOURS["paper"], marker="s", label=MODA)
    means = beside_moda(evidence)
    markers = dict(zip(dict.fromkeys(name for name, _ in means), "o^vD", strict=False))
    for (name, setting), of_setting in means.items():
        _draw(ax, looks, setting, of_setting["union"], marker=markers[name], ms=3)
        ax.lines[-1].set_label(f"{name}{' (reduced)' if evidence.panels[name].panel.reduced else ''}, {setting}")
    ax.axhline(100 * goal, ls=":", color="black", lw=1)
    ax.set(xlabel="classes", ylabel="remaining parameters (%)")
    figure.legend(frameon=False, fontsize=7, ncols=2, loc="outside upper center")
    plt.show()


def moda_table(evidence: Evidence) -> Markdown:
    """Tabulate MODA as its authors print it, and our CIFAR-10 panels."""
    theirs = printed.numbers("moda").set_index("classes")
    lines: list[dict[str, Any]] = [
        {
            "system": MODA,
            "two classes, remaining (%)": f"{theirs['weights_percent']['2']:g}",
            "ten classes, remaining (%)": f"{theirs['weights_percent']['10']:g}",
            "accuracy over subsets (%)": f"{theirs['accuracy_percent']['mean over subsets']:g}",
            "the parent's (%)": "not printed",
            "n": "",
        }
    ]
    lines += [
        {
            "system": f"{name} ({evidence.panels[name].size}), {setting}",
            "two classes, remaining (%)": f"{means['union'][2]:.1f}",
            "ten classes, remaining (%)": f"{means['union'][10]:.1f}",
            "accuracy over subsets (%)": f"{means['accuracy'].mean():.2f}",
            "the parent's (%)": f"{means['parent_accuracy'].mean():.2f}",
            "n": len(evidence.panels[name].panel.seeds),
        }
        for (name, setting), means in beside_moda(evidence).items()
    ]
    return tables.table(
        pd.DataFrame(lines),
        "MODA as its authors print it, and our CIFAR-10 panels. Accuracy over subsets: of ours the mean over two to "
        "ten classes, each the mean over at most 50 subsets, test images; of theirs the mean over subsets, which they "
        "don't list. The parent's: restricted to the same subsets.",
        "tab-figure4-moda",
    )


def answer(evidence: Evidence, goal: float) -> Markdown:
    """Return the answer: where the vote of all classes ends, and what stemming does; `goal`: a share of the weights."""
    found = {name: InPanel.of(evidence, name, goal) for name in evidence.panels}
    plain, best, alone = (
        _from_to([getattr(one, what).mean() for one in found.values()]) for what in ("plain", "gap", "alone")
    )
    last = evidence.last(evidence.rows)
    alike = last.loc[last["variant"] == "α = 0", "jaccard_index"].groupby(last["panel"]).mean()
    changes = [change for name in evidence.panels if (change := stemming_of(evidence, name)[1]) is not None]
    most = max((100 * abs(change["remaining_parameters"].mean()) for change in changes), default=0.0)
    stemming = (
        f"α = 1 changes the remaining parameters of pairs by at most {most:.2f} points ({len(changes)} of {len(found)} "
        "panels):"
    )
    n = count_of([len(results.panel.seeds) for results in evidence.panels.values()])
    steps = count_of([_steps(results) for results in evidence.panels.values()])
    chosen = " or ".join(f"*{name}*" for name in dict.fromkeys(one.best for one in found.values()))
    return Markdown(
        f"**Answer** (reduced networks, {len(found)} panel{'s' if len(found) > 1 else ''}, n = {trials_of(n)} each). "
        "The vote of all classes against the own parent, in points of test accuracy:\n\n"
        f"- with the same share of every layer, as in the paper, but after {steps} steps a module: {plain};\n"
        f"- with the best setting, {chosen} (ours): **{best}**; with one shared mask alone: {alone}.\n\n"
        f"{stemming if changes else 'α above 0 was not run;'} already without stemming two modules have a Jaccard "
        f"index of {alike.min():.2f} to {alike.max():.2f}, and the loss as printed [pulls weakly in large "
        "networks](stemming_at_scale.ipynb)."
    )


def _steps(results: Results) -> int:
    """Return how many steps a module of a panel takes."""
    panel = results.panel
    return panel.epochs * -(-(panel.images_per_epoch or results.train_images) // panel.batch_size)


def _from_to(points: Sequence[float]) -> str:
    """Return the smallest and the largest of some points in words; one number where they read the same."""
    low, high = f"{min(points):+.1f}", f"{max(points):+.1f}"
    return low if low == high else f"{low} to {high}"


def signed(points: Sequence[float] | pd.Series) -> str:
    """Return mean ± standard deviation of points, with their sign."""
    return f"{'+' if pd.Series(points).mean() >= 0 else ''}{mean_and_spread(points, 1)}"


def _last_of(evidence: Evidence, name: str) -> pd.DataFrame:
    """Return the trials of a panel after the last epoch on test images, by variant and seed."""
    last = evidence.last(evidence.rows)
    return last[last["panel"] == name].set_index(["variant", "seed"])


def _best_on_held_out(evidence: Evidence, name: str) -> str:
    """Return the decomposition of a panel that is most accurate on held-out images."""
    last = evidence.last(evidence.rows, "held_out")
    return str(last[last["panel"] == name].groupby("variant")["accuracy"].mean().idxmax())


def _against_parents(evidence: Evidence, name: str) -> Any:
    """Return the points of the vote of all classes against the parent on the same test images, grouped by setting."""
    of_all = evidence.of_all_classes(name)
    return against_parent(of_all).groupby(of_all["setting"])


@dataclass(frozen=True)
class InPanel:
    """The vote of all classes in a panel, in points against the parent, by trial.

    `plain`: the same share of every layer; `gap`: of the setting `best` on held-out images, which holds `union` of the
    weights; `alone`: of the best shared mask, `mask`; `met`: whether `best` reaches the goal.
    """

    plain: pd.Series
    best: str
    gap: pd.Series
    union: float
    mask: str
    alone: pd.Series
    met: bool

    @classmethod
    def of(cls, evidence: Evidence, name: str, goal: float) -> InPanel:
        """Return what came out in a panel; `goal`: the share of the weights in which all classes should fit."""
        panel, last = evidence.panels[name].panel, _last_of(evidence, name)
        best, points = _best_on_held_out(evidence, name), _against_parents(evidence, name)
        controls = evidence.controls[evidence.controls["panel"] == name]
        held = controls[controls["setting"].isin(panel.controls)].groupby("setting")["held_out_accuracy"].mean()
        mask, gap = str(held.idxmax()), points.get_group(best)
        union = float(last.loc[best]["remaining_parameters_all"].mean())
        met = union <= goal and bool(gap.mean() >= -100 * CLOSE)
        return cls(points.get_group("α = 0"), best, gap, union, mask, points.get_group(mask), met)


def by_panel(evidence: Evidence, goal: float) -> Markdown:
    """Tabulate where the vote of all classes ends in every panel."""
    lines = []
    for name in evidence.panels:
        found = InPanel.of(evidence, name, goal)
        lines.append(
            {
                "panel": name,
                "same share of every layer": signed(found.plain),
                "best setting": f"{found.best}: {signed(found.gap)}",
                "remaining (%)": f"{100 * found.union:.1f}",
                "goal": "met" if found.met else "missed",
                "best shared mask alone": f"{found.mask.removeprefix('shared mask, ')}: {signed(found.alone)}",
                "n": len(found.gap),
            }
        )
    return tables.table(
        pd.DataFrame(lines),
        f"The vote of all classes on test images{evidence.images}, in points against the own parent (+ is better), "
        "mean ± standard deviation over n trials. The best setting and the best shared mask are chosen on held-out "
        f"images. Goal: within one point, in at most {goal:.0%} of the weights.",
        "tab-figure4-answer",
    )


def stemming_of(evidence: Evidence, name: str) -> tuple[float, pd.DataFrame | None]:
    """Return two modules' Jaccard index without stemming, and what the strongest changed by seed; None: not run."""
    panel, uniform = evidence.panels[name].panel, _last_of(evidence, name).loc["α = 0"]
    recipes = panel.settings() | panel.recipes_of(panel.tried)
    as_written = {recipe.alpha: setting for setting, recipe in recipes.items() if setting == f"α = {recipe.alpha:g}"}
    index = float(uniform["jaccard_index"].mean())
    if max(as_written) == 0:
        return index, None
    measured = ["remaining_parameters", "module_accuracy"]
    last = evidence.last(evidence.trials)
    stemmed = last[(last["panel"] == name) & (last["variant"] == as_written[max(as_written)])].set_index("seed")
    return index, (stemmed[measured] - uniform[measured]).dropna()  # of what was tried, the first seed


def judged(evidence: Evidence) -> list[claims.Claim]:
    """Return the paper's claim about stemming, judged for each of its three panels."""
    return [_claim(evidence, full) for full in panels.FULL.values()]


def _claim(evidence: Evidence, full: Panel) -> claims.Claim:
    shown = {name: results for name, results in evidence.panels.items() if results.paper_dataset == full.dataset}
    stemming = {name: stemming_of(evidence, name) for name in shown}
    at_size = [name for name, results in shown.items() if not results.panel.reduced]
    changes = [change for name in at_size if (change := stemming[name][1]) is not None]
    runs = f"{len(at_size)} networks at full size" if at_size else "reduced runs only (width, images or epochs)"
    here = f"{full.title}: {runs}"
    return claims.Claim(
        CLAIM,
        f"Evaluation of Composability, Figure 4 ({full.title})",
        "no number",
        f"{here}{_in_short(list(stemming.values()))}",
        verdict(changes),
        ", ".join(str(len(results.panel.seeds)) for results in shown.values()),
    )


def _in_short(found: Sequence[tuple[float, pd.DataFrame | None]]) -> str:
    """Return in a sentence what `stemming_of` found on some networks; nothing where there are none."""
    if not found:
        return ""
    indices = [f"{index:.2f}" for index, _ in found]
    span = " to ".join(dict.fromkeys((min(indices), max(indices))))
    said = f". Two modules' Jaccard index without stemming is {span}"
    changes = [change["remaining_parameters"] for _, change in found if change is not None]
    if not changes:
        return f"{said}; α above 0 was not run"
    most = 100 * max(float(change.abs().max()) for change in changes)
    by = "less than 0.01" if most < 0.005 else f"at most {most:.2f}"
    return f"{said}, and stemming changes a pair's remaining parameters by {by} points"


def verdict(changes: Sequence[pd.DataFrame]) -> str:
    """Judge the paper's claim on panels at full size: pairs hold less, and modules lose half a point or more."""
    if not changes:
        return verdicts.OPEN
    every = pd.concat(changes)
    fewer = bool((every["remaining_parameters"] < 0).all())
    worse = bool(every["module_accuracy"].mean() <= -0.005)
    return verdicts.HOLDS if fewer and worse else verdicts.PARTLY if fewer or worse else verdicts.DOES_NOT_HOLD
