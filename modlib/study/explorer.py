"""What the book's explorer shows: one script of data, made of stored parents, modules and records.

`python -m modlib.study.explorer` writes `book/_static/explorer_data.js` and the figure that stands in where scripts are
off. The same store gives the same script. Images are needed where a count is not in the store, and then alone.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from torch import Tensor, nn

from modlib import library, metrics, recipes, stacking
from modlib.checksums import in_bytes
from modlib.data import Dataset
from modlib.modules import Modules, load
from modlib.study import figures, records
from modlib.study.columns import named, stand_in
from modlib.study.experiment import Experiment
from modlib.study.pages.small_networks import Plan, by_parent, timing
from modlib.study.records import Record, Rows, Store, against_parent, write
from modlib.study.reproduce import Layout
from modlib.study.small_networks import SmallNetwork
from modlib.study.trials import Trial, last_epochs, split_log_odds
from modlib.zoo import datasets, parent_files, parents, training

VERSION = 1
"""Raised when the same parameters give other numbers."""
SCRIPT, FIGURE = "explorer_data.js", "explorer.png"
VARIABLE = "window.MODLIB_EXPLORER"
SEEDS = range(5)
"""Trials whose means are drawn beside the grid of k and alpha, as far as they are stored."""
FC1_PLANS = ("pairs of FC1", "fives of FC1")
VGG16_PLANS = ("pairs", "fives", "all ten")


@dataclass(frozen=True)
class Shown:
    """A decomposition that a visitor can choose: its trial, and what it is called."""

    name: str
    trial: Trial

    @property
    def experiment(self) -> Experiment:
        """How many test images every subset gets right, as an experiment: its record."""
        parameters = {"trial": self.trial.parameters, "version": VERSION}
        return Experiment("explorer", f"{self.trial.name}-subsets", parameters)

    def stored(self, store: Store) -> Modules:
        """Return its modules over their parent, from the store alone; FileNotFoundError where one is not there."""
        path = self.trial.experiment.path(store, "modules", ".safetensors")
        if path is None or not path.exists():
            raise FileNotFoundError(f"store: {store.folder} has no modules of {self.trial.experiment.name}")
        why: ValueError | None = None
        for parent in _parents(self.trial, store):
            try:
                return load(path, parent)
            except ValueError as error:  # of another parent: a parent's file does not say whose it is
                why = error
        raise FileNotFoundError(f"store: {store.folder} has no parent of {self.trial.experiment.name}") from why

    def counted(self, store: Store, data: Dataset | None) -> Record:
        """Return the record of its subsets: read where it is there, else counted on the test images of `data`.

        One row: `images` of every class [N], and lists over all subsets, `right` by the vote of the modules and
        `parent_right` by the parent restricted to the subset. The subset at position i holds class c where bit c of
        i + 1 is set. Raises ValueError where there is neither a record nor data.
        """
        if self.experiment.is_done(store):
            return self.experiment.run(store, list)
        if data is None:
            raise ValueError(f"data: {self.experiment.name} is not in the store, and needs the images of MNIST")
        modules = self.stored(store)
        return self.experiment.run(store, lambda: _counts(modules, data), data_sha256=data.sha256())


def shown() -> list[Shown]:
    """Return the decompositions that the explorer has, all over one parent: MNIST FC1 of seed 0."""
    small = {"default": 0.015, "3.weight": 0.3}
    settings = {
        "ours, k = 10%, alpha = 4": ("ours", recipes.ours(alpha=4.0, vote=0.9)),
        "ours, k = 1.5%, alpha = 20": (
            "ours",
            recipes.ours(k=small, alpha=20.0, vote=0.9, epochs=60, init="magnitude"),
        ),
        "published, k = 10%, no stemming": ("published", recipes.published(k=0.1, alpha=0.0, epochs=25)),
    }
    return [Shown(name, Trial("mnist", "fc1", which, recipe, 0, 100)) for name, (which, recipe) in settings.items()]


def every_subset(num_classes: int) -> list[tuple[int, ...]]:
    """Return all subsets but the empty one; the one at position i holds class c where bit c of i + 1 is set."""
    return [tuple(c for c in range(num_classes) if number >> c & 1) for number in range(1, 2**num_classes)]


def contents(store: Store, data: Dataset | None) -> dict[str, Any]:
    """Return all that the explorer shows, as it is written to JSON; see `Shown.counted` for `data`."""
    choices = shown()
    decompositions = [one.stored(store) for one in choices]
    counts = [one.counted(store, data).rows[0] for one in choices]
    ((mean,), (std,)) = datasets.STATISTICS[choices[0].trial.dataset]
    return {
        "mean": mean,
        "std": std,
        "layers": _layers(decompositions[0].parent),
        "images": counts[0]["images"],
        "parent_right": counts[0]["parent_right"],
        "modules": [
            _modules(one, modules, count["right"])
            for one, modules, count in zip(choices, decompositions, counts, strict=True)
        ],
        "grid": _grid(store),
        "marks": [mark for one in choices if (mark := _mark(one, store))["recipe"] != "published"],
        **_small_networks(store),
    }


def script(found: dict[str, Any]) -> str:
    """Return the script that sets `window.MODLIB_EXPLORER` to `found`, an entry a line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    return f"{VARIABLE} = {{\n{lines}\n}};\n"


def answer(store: Store, data: Dataset | None) -> str:
    """Return what the explorer shows in sentences, for the page's head."""
    one = shown()[0]
    modules, counts = one.stored(store), one.counted(store, data).rows[0]
    rows = subsets_table(modules, counts)
    points = against_parent(rows)
    sizes = rows.groupby("classes")["remaining"].mean()
    return (
        f"Each of the {len(rows):,} subsets of two classes or more is a network at once, without training. Two classes "
        f"hold {sizes.iloc[0]:.1%} of the parent's weights (mean over {(rows['classes'] == 2).sum()} pairs), all ten "
        f"{sizes.iloc[-1]:.1%}, at {points.mean():+.2f} points against the restricted parent (all subsets, test "
        f"images; worst {points.min():+.2f}, best {points.max():+.2f}). Our recipe with vote loss (not the paper's), "
        "k = 10%, one trial."
    )


def subsets_table(modules: Modules, counts: dict[str, list[int]]) -> pd.DataFrame:
    """Return one row for each subset of two classes or more: `classes`, `remaining`, `accuracy`, `parent_accuracy`."""
    rows = []
    for subset, right, parent_right in zip(
        every_subset(len(modules.classes)), counts["right"], counts["parent_right"], strict=True
    ):
        images = sum(counts["images"][c] for c in subset)
        if len(subset) > 1:
            rows.append((len(subset), modules.remaining(subset), right / images, parent_right / images))
    return pd.DataFrame(rows, columns=["classes", "remaining", "accuracy", "parent_accuracy"])


def write_all(store: Store, data: Dataset | None, folder: Path) -> None:
    """Write the script and the figure into `folder`."""
    write(folder / SCRIPT, script(contents(store, data)))
    modules = shown()[0].stored(store)
    mask = next(iter(modules.masks.masks.values()))
    with plt.rc_context():
        figures.use_style()
        figure = figures.first_layer_masks(mask, (28, 28), modules.classes)
        figure.savefig(folder / FIGURE, dpi=160, metadata={"Software": None})
        plt.close(figure)


def _parents(trial: Trial, store: Store) -> list[nn.Module]:
    """Return the parents in a store that are of a trial's data set, model and seed."""
    folder = store.path("parents", "", "")
    found: list[nn.Module] = []
    for path in sorted(folder.glob(f"{trial.dataset}-{trial.model}-seed{trial.seed}-*")) if folder else []:
        parent = parents.fc(parents.FC[trial.model], 64 if trial.dataset == "digits" else 28 * 28)
        parent_files.load(parent, path)
        found.append(parent.eval().requires_grad_(False))
    return found


def _counts(modules: Modules, data: Dataset) -> Rows:
    """Return the row of `Shown.counted`."""
    log_odds, labels = split_log_odds(modules, data, "test", None, "float32")
    logits, _ = training.logits(modules.parent, data, "test")
    images = labels.bincount(minlength=data.num_classes).tolist()

    def right(scores: Tensor) -> list[int]:
        shares = (metrics.recomposed_accuracy(scores, labels, modules.classes, s) for s in subsets)
        return [round(share * sum(images[c] for c in subset)) for share, subset in zip(shares, subsets, strict=True)]

    subsets = every_subset(data.num_classes)
    return [{"split": "test", "images": images, "right": right(log_odds), "parent_right": right(logits)}]


def _layers(parent: nn.Module) -> list[dict[str, Any]]:
    """Return the parent's linear layers: sizes, weights [out, in] and biases [out] in float32."""
    linear = stacking.linear_layers(parent)
    assert linear is not None, "the explorer's parent is a chain of linear layers"
    return [
        {"out": layer.out_features, "in": layer.in_features, "weight": _text(layer.weight), "bias": _text(layer.bias)}
        for layer in linear
    ]


def _modules(one: Shown, modules: Modules, right: list[int]) -> dict[str, Any]:
    """Return modules as the script has them: masks packed as in their file, by layer."""
    packed = [_text(library.pack(mask)) for mask in modules.masks.masks.values()]
    return {
        "name": one.name,
        "masks": packed,
        "grafting_weight": _text(modules.grafting_weight),
        "grafting_bias": _text(modules.grafting_bias),
        "right": right,
    }


def _text(values: Tensor) -> str:
    """Return the bytes of a tensor in base64: float32 little-endian, or uint8."""
    return base64.b64encode(in_bytes(values.detach()).tobytes()).decode()


def _grid(store: Store) -> list[dict[str, Any]]:
    """Return the published recipe's runs of Figure 3's page on MNIST FC1: a curve over epochs for each k and alpha."""
    rows = pd.read_csv(_folder(store) / "figure3.csv")
    rows = rows[(rows["dataset"] == "mnist") & (rows["model"] == "fc1")]
    return [_curve(part) for _, part in rows.groupby(["k", "alpha"])]


def _mark(one: Shown, store: Store) -> dict[str, Any]:
    """Return the curve of a decomposition's stored trials."""
    trials = [replace(one.trial, seed=seed).experiment for seed in SEEDS]
    done = [trial.run(store, list) for trial in trials if trial.is_done(store)]
    return {"name": one.name, "recipe": one.trial.recipe_name, **_curve(records.frame(done))}


def _curve(rows: pd.DataFrame) -> dict[str, Any]:
    """Return means over trials by epoch, on test images: `pairs` and `all` are the unions, in shares of the weights."""
    test = rows[rows["split"] == "test"]
    names = {"remaining_parameters": "pairs", "remaining_parameters_all": "all", "accuracy": "accuracy"}
    means = test.groupby("epoch")[list(names)].mean().round(5).rename(columns=names)
    last = last_epochs(test, by=["recipe"])
    facts = {
        "k": float(test["k"].iloc[0]),
        "alpha": float(test["alpha"].iloc[0]),
        "trials": int(last["seed"].nunique()),
    }
    parent = round(float(last["parent_accuracy"].mean()), 5)
    return facts | {"parent": parent} | {str(name): column.tolist() for name, column in means.items()}


def _small_networks(store: Store) -> dict[str, Any]:
    """Return the channel networks that are stored: those of FC1 by subset, and VGG16's means and milliseconds."""
    given = Layout.here().published_parameters("small_networks")
    plans = {plan.name: plan for plan in named("plans", given["plans"], Plan)}
    fc1 = {}
    for plan in (plans[name] for name in FC1_PLANS):
        for network in plan.networks(10):
            row = _on_test(plan, network, store)
            fc1["".join(map(str, network.subset))] = [row["parameters"], row["accuracy"], row["parent_accuracy"]]
    vgg16 = [plans[name] for name in VGG16_PLANS]
    times = _times(plans, given, store)
    return {"fc1_channels": fc1, "vgg16_channels": [_vgg16(plan, times, store) for plan in vgg16]}


def _on_test(plan: Plan, network: SmallNetwork, store: Store) -> dict[str, Any]:
    """Return the row of a network's record on test images."""
    record = _read(network.experiment(stand_in(plan.dataset)), store)
    return next(row for row in record.rows if row["split"] == "test")


def _times(plans: dict[str, Plan], given: dict[str, Any], store: Store) -> Rows:
    """Return the rows of the record of the networks that are timed beside VGG16's parent."""
    shown = plans[VGG16_PLANS[0]]
    groups = (group for names in given["timed"] for group in by_parent([plans[name] for name in names]))
    mine = next(group for group in groups if shown in group)
    return _read(timing(mine, 10, given["repeats"]).experiment(stand_in(shown.dataset)), store).rows


def _vgg16(plan: Plan, times: Rows, store: Store) -> dict[str, Any]:
    """Return means over a plan's subsets; of its first network, size and milliseconds of one image."""
    rows = pd.DataFrame([_on_test(plan, network, store) for network in plan.networks(10)])
    names = ("parameters", "accuracy", "parent_accuracy")
    means = {name: round(float(rows[name].mean()), 5) for name in names}
    row = next(r for r in times if (r["network"], r["runtime"], r["batch"]) == (plan.name, "onnxruntime", 1))
    facts = {"kB": round(row["bytes_float32"] / 1000, 1), "ms": row["ms"], "faster": row["speedup"]}
    return {"classes": plan.classes, "subsets": len(rows), **means, **facts}


def _read(experiment: Experiment, store: Store) -> Record:
    """Return a record that must be there."""
    if not experiment.is_done(store):
        raise FileNotFoundError(f"store: {store.folder} has no record of {experiment.name}")
    return experiment.run(store, list)


def _folder(store: Store) -> Path:
    if store.folder is None:
        raise ValueError("store: keeps nothing; the explorer is made of what the book's store holds")
    return store.folder


def main() -> None:
    """Write the explorer's files of the book's own store."""
    root = Layout.here().root
    store = Store.at(root / "book" / "results")
    complete = all(one.experiment.is_done(store) for one in shown())
    data = None if complete else datasets.load("mnist")
    write_all(store, data, root / "book" / "_static")
    print(answer(store, data))


if __name__ == "__main__":
    main()
