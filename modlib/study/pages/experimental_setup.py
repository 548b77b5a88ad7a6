"""Setting up the experiments: what the data sets are, and how large and how accurate the fully connected parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from torch import Tensor

from modlib import masking
from modlib.data import Dataset
from modlib.study import figures, tables
from modlib.study.names import of_data, of_model
from modlib.study.records import Store, mean_and_spread, percent_of_n
from modlib.study.trials import trained_parent
from modlib.zoo import datasets, parents, training

SPLITS = ("train", "held_out", "test")
SIZES = "train / held out / test"


@dataclass(frozen=True)
class About:
    """A data set in numbers, train and held out together but for `sizes`: train, held out, test.

    `counts`: images of each class. `levels`: pixel values that occur; `between`: the share of neither 0 nor 255.
    """

    sizes: tuple[int, ...]
    shape: str
    counts: Tensor
    levels: int
    between: float

    @property
    def equal(self) -> bool:
        """Whether all classes are equally frequent."""
        return bool((self.counts == self.counts[0]).all())


def load(names: Iterable[str]) -> dict[str, Dataset]:
    """Return the data sets by name; say of those that cannot be had why they are left out."""
    loaded = {}
    for name in dict.fromkeys(names):
        try:
            loaded[name] = datasets.load(name)
        except ValueError as error:
            print(f"{name} is left out: {error}")
    return loaded


def describe(data: Dataset) -> About:
    """Count what a data set has, over the official training split."""
    labels = torch.cat([data.train_labels, data.held_out_labels])
    images = torch.cat([data.train_images, data.held_out_images])
    values = torch.bincount(images.flatten(), minlength=256)
    return About(
        sizes=tuple(len(part) for part in (data.train_labels, data.held_out_labels, data.test_labels)),
        shape="×".join(str(n) for n in images.shape[1:]),
        counts=torch.bincount(labels, minlength=data.num_classes),
        levels=int((values > 0).sum()),
        between=1 - float(values[0] + values[255]) / images.numel(),
    )


def datasets_table(facts: Mapping[str, About]) -> Markdown:
    """Tabulate all data sets that the library knows; filled rows are those of `facts`."""
    columns = ["data set", SIZES, "image", "classes", "images of a class", "pixel values", "others than 0, 255", "here"]
    lines = []
    for name in datasets.NAMES:
        here = name in facts or name == "digits" or (datasets.default_root() / f"{name}.npz").exists()
        filled = _facts_of(facts[name]) if name in facts else {}
        lines.append({"data set": name, **filled, "here": "yes" if here else "no"})
    return tables.table(
        pd.DataFrame(lines, columns=columns).fillna(""),
        "Data sets that the library knows. Here: present when this page was made. Filled rows were loaded. Images "
        "of a class, and pixel values, are counted in the official training split, train and held out together.",
        "tab-data-sets",
    )


def _facts_of(about: About) -> dict[str, str]:
    counts = about.counts
    return {
        SIZES: " / ".join(f"{n:,}" for n in about.sizes),
        "image": about.shape,
        "classes": f"{len(counts)}",
        "images of a class": f"{counts[0]:,}" if about.equal else f"{counts.min():,} to {counts.max():,}",
        "pixel values": f"{about.levels}",
        "others than 0, 255": tables.percent(about.between, 1),
    }


def summary(facts: Mapping[str, About]) -> str:
    """Return one line for each data set: how many images, pixel values, and images of a class."""
    return "\n".join(
        f"{name}: {sum(about.sizes)} images, {about.levels} pixel values; "
        + (
            "every class equally often"
            if about.equal
            else f"a class has {about.counts.min()} to {about.counts.max()} images"
        )
        for name, about in facts.items()
    )


def draw_class_counts(facts: Mapping[str, About], dataset: str) -> None:
    """Draw how often each class occurs: in all data sets against the mean, and in one of them in numbers."""
    _, (left, right) = plt.subplots(1, 2, figsize=(figures.WIDTH, 3.0))
    points = pd.DataFrame(
        [
            {"data set": name, "share": 100 * float(c) / float(about.counts.float().mean())}
            for name, about in facts.items()
            for c in about.counts
        ]
    )
    sns.stripplot(points, x="share", y="data set", hue="data set", ax=left, size=4, jitter=0.12, legend=False)
    left.axvline(100, color="black", lw=1)
    left.set(xlabel="images of a class (% of the mean)", ylabel="")
    count = facts[dataset].counts
    ticks = range(0, len(count), max(1, len(count) // 10))
    right.bar(range(len(count)), count, color=figures.COLOURS["published"])
    right.axhline(float(count.float().mean()), color="black", lw=1)
    right.set(xlabel=f"class of {of_data(dataset)}", ylabel="training images", xticks=ticks)
    plt.show()


def draw_samples(loaded: Mapping[str, Dataset]) -> None:
    """Draw the first training image of each class, at most ten, a row for each data set."""
    columns = min(10, max(data.num_classes for data in loaded.values()))
    size = (figures.WIDTH, 0.35 + 0.68 * len(loaded))
    _, axes = plt.subplots(len(loaded), columns, figsize=size, squeeze=False, layout="constrained")
    for line, (name, data) in zip(axes, loaded.items(), strict=True):
        for c, ax in enumerate(line):
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
            if c < data.num_classes:
                image = data.train_images[(data.train_labels == c).nonzero()[0, 0]]
                ax.imshow(image, cmap="gray", vmin=0, vmax=255)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    plt.show()


def edges_of(data: Dataset) -> dict[str, dict[str, int]]:
    """Return the edges of the fully connected parents for a data set, layer by layer."""
    made = {model: parents.make(model, data, seed=0) for model in parents.FC}
    return {model: masking.sizes(masking.maskable_parameters(parent)) for model, parent in made.items()}


def edges_table(edges: Mapping[str, Mapping[str, int]], data: Dataset) -> Markdown:
    """Tabulate the edges of the parents, by layer, and what one module keeps of them."""
    lines = []
    for model, layers in edges.items():
        parameters = sum(p.numel() for p in parents.make(model, data, seed=0).parameters())
        sizes = list(layers.values())
        lines.append(
            {
                "parent": model.upper(),
                "edges of the first layer": f"{sizes[0]:,}",
                "of each middle layer": f"{sizes[-2]:,} × {len(sizes) - 2}" if len(sizes) > 2 else "",
                "of the output layer": f"{sizes[-1]:,}",
                "edges": f"{sum(sizes):,}",
                "biases": parameters - sum(sizes),
                "kept at k = 10%": f"{sum(masking.keep_counts(0.10, layers).values()):,}",
            }
        )
    return tables.table(
        pd.DataFrame(lines), "Edges of the parents, by layer, and what one module keeps of them.", "tab-parents"
    )


def train(data: Dataset, models: Sequence[str], seeds: Sequence[int], epochs: int, store: Store) -> pd.DataFrame:
    """Train the parents that are not in the store; return their accuracies, a row for each, a column for each split."""
    lines = []
    for model in models:
        for seed in seeds:
            parent = trained_parent(data, model, seed, epochs, store)
            accuracies = {split: training.accuracy(parent, data, split) for split in SPLITS}
            lines.append({"model": model, "seed": seed} | accuracies)
    return pd.DataFrame(lines)


def accuracy_table(trained: pd.DataFrame, edges: Mapping[str, Mapping[str, int]]) -> Markdown:
    """Tabulate the accuracies of the trained parents."""
    lines = [
        {
            "parent": str(model).upper(),
            "edges": f"{sum(edges[str(model)].values()):,}",
            **{split.replace("_", " "): mean_and_spread(group[split]) for split in SPLITS},
            "n": len(group),
        }
        for model, group in trained.groupby("model", sort=False)
    ]
    return tables.table(
        pd.DataFrame(lines),
        "Accuracy of the parents (%): mean ± standard deviation over n seeds.",
        "tab-parent-accuracy",
    )


def answer(facts: Mapping[str, About], trained: pd.DataFrame, dataset: str) -> Markdown:
    """Say what the data sets are, beside the paper's words, and how accurate the best parent is."""
    best = str(trained.groupby("model")["test"].mean().idxmax())
    accuracy = percent_of_n(trained[trained["model"] == best]["test"])
    said = _beside_paper(facts) or [f"The data sets here are {', '.join(facts)}, which the paper does not use."]
    return Markdown(
        f"**Answer.** {' '.join(said)} {of_model(best)}, trained on {of_data(dataset)}, is right on {accuracy} of the "
        "test images."
    )


def _beside_paper(facts: Mapping[str, About]) -> list[str]:
    """Say what the paper says of its data sets, and what they are."""
    said = []
    if "mnist" in facts:
        counts, same = facts["mnist"].counts, facts["mnist"].equal
        has = f"they have {counts[0]:,} each" if same else f"they have {counts.min():,} to {counts.max():,}"
        said.append(f'The paper says that MNIST\'s classes have "an equal number of data": {has} training images.')
    if "fashion_mnist" in facts:
        about = facts["fashion_mnist"]
        are = "they are" if about.levels <= 2 else f"they have {about.levels} grey levels"
        said.append(f'It says that F-MNIST has "binary images": {are}.')
    return said
