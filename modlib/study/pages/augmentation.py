"""Augmenting the images: what the paper's three augmentations do to an image, and how much a parent minds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor, nn

from modlib.data import Dataset
from modlib.study import figures, panels, records, tables
from modlib.study.experiment import Experiment
from modlib.study.names import of_data, of_network
from modlib.study.panels import Panel
from modlib.study.records import Record, Store, mean_and_spread

Augmentations = Mapping[str, Callable[[Tensor], Tensor]]
"""By the name that the page shows: uint8 image [C, H, W] -> another one."""
NOT_EXACT = "3334af532d0bc2d1bd36028ecd0e4769bd15ea3b8dbc480b2013e29114ae77f4"
"""SHA-256 of the packed copy of CIFAR-10 in which some images are not exact: their source was JPEG."""


def in_the_paper() -> Markdown:
    """Return which data set and parent get which augmentation in the paper."""
    rows = [
        ("MNIST, F-MNIST", "FC1 to FC4", "none"),
        ("CIFAR-10", "VGG16", "flip, random crop"),
        ("SVHN", "ResNet50", "flip, random crop"),
        ("CIFAR-100", "WideResNet28-10", "RandAugment, N = 2, M = 14"),
    ]
    return tables.table(
        pd.DataFrame(rows, columns=["data set", "parent", "augmentation"]),
        "Augmentations in the paper, by data set and parent.",
        "tab-augmentations",
    )


def channels_first(images: Tensor) -> Tensor:
    """Return stored images, [B, H, W] or [B, H, W, 3], as [B, C, H, W]."""
    return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)


def as_stored(images: Tensor) -> Tensor:
    """Return images [B, C, H, W] as data sets store them, see `channels_first`."""
    return images[:, 0] if images.shape[1] == 1 else images.permute(0, 2, 3, 1)


def augmented(operation: Callable[[Tensor], Tensor], images: Tensor, seed: int, draw: int) -> Tensor:
    """Return every image of `images` [B, C, H, W] with a draw of its own."""
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
        torch.manual_seed(1000 * seed + draw)
        return torch.stack([operation(image) for image in images])


def draw_images(images: Tensor, augmentations: Augmentations, seed: int) -> Figure:
    """Draw `images` [B, C, H, W] as they are and three draws of each augmentation, one image a row."""
    blocks = [("as it is", [images])]
    blocks += [(name, [augmented(one, images, seed, d) for d in (1, 2, 3)]) for name, one in augmentations.items()]
    columns = [(name if i == len(block) // 2 else "", batch) for name, block in blocks for i, batch in enumerate(block)]
    gaps = [0.25 if c and c % 3 == 1 else 0 for c in range(len(columns))]  # a little air before each block
    figure = plt.figure(figsize=(figures.WIDTH, 0.3 + 0.66 * len(images)), layout="none")
    total = len(columns) + sum(gaps)
    for c, (title, batch) in enumerate(columns):
        for r, image in enumerate(batch):
            left, low = (c + sum(gaps[: c + 1])) / total, 0.92 * (1 - (r + 1) / len(images))
            ax = figure.add_axes((left, low, 0.95 / total, 0.92 * 0.95 / len(images)))
            ax.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=255)
            ax.axis("off")
            if r == 0:
                ax.set_title(title, fontsize=9)
    return figure


def note_on(data: Dataset) -> Markdown:
    """Return what the reader should know of the images."""
    if data.sha256() == NOT_EXACT:
        return Markdown(
            "In the copy of CIFAR-10 that this page was made with, 111 of the 60,000 images (horses and ships) went "
            "through JPEG; the others are exact."
        )
    if data.name == "svhn_10k":
        return Markdown("`svhn_10k` is a part of SVHN's official test split, not SVHN.")
    return Markdown(f"The images are those of {of_data(data.name)}, unchanged.")


@dataclass(frozen=True)
class Asked:
    """What a parent makes of held-out images: its accuracy as they are, and all `flipped`.

    `draws`: a row an augmentation and draw: accuracy, share of images changed, mean change of a pixel of these.
    """

    images: int
    own: float
    flipped: float
    draws: pd.DataFrame

    @property
    def means(self) -> pd.Series:
        """The accuracy on each augmentation."""
        return self.draws.groupby("augmentation")["accuracy"].mean()


def asked(
    parent: nn.Module,
    data: Dataset,
    images: int,
    augmentations: Augmentations,
    flip: Callable[[Tensor], Tensor],
    *,
    seed: int,
    draws: int,
) -> Asked:
    """Return what `parent` makes of held-out `images`; `flip` mirrors all of them."""
    stored, labels = (values[:images] for values in data.split("held_out"))
    plain = channels_first(stored)

    def share_right(batch: Tensor) -> float:
        with torch.no_grad():
            return float((parent(data.inputs(as_stored(batch))).argmax(1) == labels).double().mean())

    rows = []
    for name, operation in augmentations.items():
        for draw in range(draws):
            batch = augmented(operation, plain, seed, draw)
            difference = (batch.float() - plain.float()).abs().flatten(1).mean(1) / 255
            changed = difference > 0
            mean = float(difference.sum() / max(1, int(changed.sum())))
            row = {"accuracy": share_right(batch), "changed": float(changed.float().mean()), "difference": mean}
            rows.append({"augmentation": name} | row)
    return Asked(len(labels), share_right(plain), share_right(flip(plain)), pd.DataFrame(rows))


PLAIN, AUGMENTED = "images as they are", "augmented images"


def both_trainings(settings: Mapping[str, Any]) -> Panel:
    """Return a panel whose controls are one supermask for all classes, trained on images as they are and on others.

    `settings`: of the panel, and "augment", one of `modlib.augmentation.POLICIES`.
    """
    alike = {"allocation": "lamp"}
    controls = {PLAIN: alike, AUGMENTED: alike | {"augment": settings["augment"]}}
    common = {name: value for name, value in settings.items() if name != "augment"}
    return Panel.of({**common, "alphas": [], "controls": controls})


def experiments(*, masks: Mapping[str, Any], **_: Any) -> list[Experiment]:
    """Return the experiments that the page reads, from its parameters."""
    panel = both_trainings(masks)
    return [panels.control_experiment(panel, seed, name) for name, seed in panel.control_runs()]


def trained_masks(panel: Panel, data: Dataset, store: Store) -> list[Record]:
    """Return the records of both trainings, one of each for every seed; their rows say which, "trained"."""

    def of(name: str, seed: int) -> Record:
        record = panels.shared_mask(panel, seed, data, store, control=name)
        return replace(record, rows=[{"trained": name} | row for row in record.rows])

    return [of(name, seed) for name, seed in panel.control_runs()]


def of_all_classes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return of each training and seed the row of all classes: accuracy on held-out and on test images."""
    return rows[rows["classes"] == rows["classes"].max()]


def gains(rows: pd.DataFrame) -> pd.Series:
    """Return what augmenting brings a mask, in points of test accuracy, by seed; `rows`: see `of_all_classes`."""
    wide = 100 * rows.pivot(index="seed", columns="trained", values="accuracy")
    return wide[AUGMENTED] - wide[PLAIN]


def mask_table(panel: Panel, rows: pd.DataFrame) -> Markdown:
    """Return the accuracy of masks trained with and without augmentation, and the difference, seed by seed."""
    low, high = records.interval(gains(rows))
    shown = [
        {
            "trained on": name,
            "n": str(len(own)),
            "held-out (%)": mean_and_spread(own["held_out_accuracy"]),
            "test (%)": mean_and_spread(own["accuracy"]),
            "parent, test (%)": mean_and_spread(own["parent_accuracy"]),
            "difference, test": f"{gains(rows).mean():+.2f} [{low:+.2f}, {high:+.2f}]" if name == AUGMENTED else "",
        }
        for name, own in rows.groupby("trained", sort=False)
    ]
    caption = (
        f"One supermask for all classes of {panel.title}, {100 * panel.k:g}% of the edges, {panel.epochs} epochs; "
        "mean ± standard deviation over n parents, difference by parent with its 95% interval."
    )
    return tables.table(pd.DataFrame(shown), caption, "tab-augmented-masks")


def draw_accuracy(found: Asked) -> Figure:
    """Draw the accuracy on augmented images, draw by draw."""
    figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.6))
    percent = found.draws.assign(percent=100 * found.draws["accuracy"])
    sns.barplot(percent, y="augmentation", x="percent", errorbar=None, color="#56b4e9", ax=ax)
    sns.stripplot(percent, y="augmentation", x="percent", color="black", size=4, jitter=0.15, ax=ax)
    ax.axvline(100 * found.own, color=figures.COLOURS["parent"], lw=1, label="as they are")
    ax.set(xlabel="accuracy of the parent (%)", ylabel="", xlim=(0, 100))
    figure.legend(frameon=False, loc="outside upper right")
    return figure


def accuracy_table(found: Asked) -> Markdown:
    """Return the accuracy on augmented images, and how much they differ."""
    names = ("images", "accuracy of the parent (%)", "n", "images changed (%)", "mean change of a pixel (%)")
    rows = [("as they are", f"{100 * found.own:.2f}", "1", "0", "0")]
    for name, group in found.draws.groupby("augmentation", sort=False):
        changed, difference = (100 * group[column].mean() for column in ("changed", "difference"))
        accuracy = mean_and_spread(group["accuracy"])
        rows.append((str(name), accuracy, str(len(group)), f"{changed:.0f}", f"{difference:.1f}"))
    rows.append(("all flipped", f"{100 * found.flipped:.2f}", "1", "", ""))
    return tables.table(
        pd.DataFrame(rows, columns=list(names)),
        f"Augmented held-out images, {found.images} of them, and what a parent trained without augmentation makes of "
        "them: mean ± standard deviation over n draws. The change of a pixel is that of changed images, as a share of "
        "the range from black to white.",
        "tab-augmented",
    )


def answer(found: Asked, dataset: str, model: str, draws: int, panel: Panel, rows: pd.DataFrame) -> Markdown:
    """Return the answer in sentences: how far augmentations lie from what a parent knows, and what masks gain."""
    change, flipped = 100 * (found.means - found.own), 100 * (found.flipped - found.own)
    said = ", ".join(f"{name} **{points:+.1f}**" for name, points in change.sort_values().items())
    gained = gains(rows)
    low, high = records.interval(gained)
    return Markdown(
        f"**Answer.** {of_network(dataset, model)}, trained without augmentation, is right on "
        f"{tables.percent(found.own, 1)} of {found.images:,} held-out images. Augmenting them changes that by so many "
        f"points: {said} (n = {draws} draws each). With all images flipped it changes by {flipped:+.1f}.\n\n"
        f"A mask for {panel.title}, trained for {panel.epochs} epochs on augmented images, is at "
        f"**{gained.mean():+.2f}** points of test accuracy against one on plain images (95% interval {low:+.2f} to "
        f"{high:+.2f}, n = {len(gained)} parents): {'a clear difference' if low * high > 0 else 'not clear'}."
    )
