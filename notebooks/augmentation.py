# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Augmenting the images
#
# **Question.** What do the paper's three augmentations do to an image, and how much does a parent mind that never saw them?
#
# The paper (appendix, "Augmentation") flips and crops CIFAR-10 and SVHN at random, and trains the wide residual network of
# CIFAR-100 with RandAugment {cite:p}`cubuk2020`, $N = 2$ operations of magnitude $M = 14$. MNIST and F-MNIST are taken as
# they are, to compare with {cite:t}`pan2020`. So are all data sets of the fully connected parents in this book: **no result
# of FC1 to FC4 uses an augmentation.** This page shows the three, checks them, and asks a trained parent what it thinks.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist, cifar10, cifar100, svhn_10k
model: str = "fc1"  # parent, trained without augmentation: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
padding: int = 4  # pixels around the image from which a crop is taken
operations: int = 2  # RandAugment's N
magnitude: int = 14  # RandAugment's M
shown_images: int = 4  # rows of the figure
images: int = 200  # held-out images that the parent is asked about
draws: int = 3  # augmentations drawn of each of them
seed: int = 0  # seed of the parent and of the draws
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from torchvision.transforms import v2

import modlib
from modlib import figures, tables
from modlib.experiments import trained_parent
from modlib.records import Store, mean_and_spread

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## Who gets which

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
rows = [
    ("MNIST, F-MNIST", "FC1 to FC4", "none"),
    ("CIFAR-10", "VGG16", "flip, random crop"),
    ("SVHN", "ResNet50", "flip, random crop"),
    ("CIFAR-100", "WideResNet28-10", "RandAugment, N = 2, M = 14"),
]
tables.table(
    pd.DataFrame(rows, columns=["data set", "parent", "augmentation"]),
    "Augmentations in the paper, by data set and parent.",
    "tab-augmentations",
)

# %% [markdown]
# The paper does not say how far a crop may move (4 pixels is customary for images of 32 × 32), nor whether RandAugment
# comes on top of flip and crop. `modlib.augmentation` applies all of them to a batch on the device it lies on, each image
# with a draw of its own, by torchvision's own operations; RandAugment comes on top. The convolutional parents of
# [Figure 4](figure4.ipynb) are of our recipe: flip and crop, for digits the crop alone.
#
# ## The three augmentations
#
# torchvision's, on uint8 images `[C, H, W]`, as they are: grey images stay grey.

# %%
data = modlib.datasets.load(dataset)
height, width = data.train_images.shape[1:3]


def channels_first(batch):
    return batch[:, None] if batch.ndim == 3 else batch.permute(0, 3, 1, 2)


augmentations = {
    "flip": v2.RandomHorizontalFlip(p=0.5),
    "random crop": v2.RandomCrop((height, width), padding=padding),
    "RandAugment": v2.RandAugment(num_ops=operations, magnitude=magnitude),
}


def augmented(name, batch, draw):
    """Every image of `batch` [B, C, H, W] with a draw of its own."""
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
        torch.manual_seed(1000 * seed + draw)
        return torch.stack([augmentations[name](image) for image in batch])


# %% [markdown]
# RandAugment's magnitude is a position on a scale of its own, the same for all operations: the larger, the stronger.
#
# ## What they keep

# %% tags=["nbval-check-output"]
some = channels_first(data.train_images[:20])
for name in augmentations:
    once, again = augmented(name, some, 0), augmented(name, some, 0)
    kept = once.shape == some.shape and once.dtype == some.dtype
    print(f"{name}: shape and dtype kept: {kept}; the same seed, the same images: {torch.equal(once, again)}")
always = v2.RandomHorizontalFlip(p=1.0)
print("flipped twice is the image:", torch.equal(always(always(some)), some))
print("flipped once is the image: ", torch.equal(always(some), some))
print("crops of a padded image:   ", (2 * padding + 1) ** 2)
print(f"RandAugment: magnitude {magnitude} of 0 to {augmentations['RandAugment'].num_magnitude_bins - 1}")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Images as they are (first column) and three draws of each augmentation. What lies outside the image is black.", "name": "fig-augmentations"}, "image": {"alt": "A grid of images. Each row starts with an original, followed by three draws each of a random flip, a random crop and RandAugment, which also changes colours and brightness and tilts or shears the image."}}
pick = channels_first(data.train_images[:shown_images])
blocks = [("as it is", [pick])] + [(name, [augmented(name, pick, d) for d in (1, 2, 3)]) for name in augmentations]
columns = [(name if i == len(block) // 2 else "", batch) for name, block in blocks for i, batch in enumerate(block)]
gaps = [0.25 if c and c % 3 == 1 else 0 for c in range(len(columns))]  # a little air before each block
figure = plt.figure(figsize=(figures.WIDTH, 0.3 + 0.66 * len(pick)), layout="none")
total = len(columns) + sum(gaps)
for c, (title, batch) in enumerate(columns):
    for r, image in enumerate(batch):
        left, low = (c + sum(gaps[: c + 1])) / total, 0.92 * (1 - (r + 1) / len(pick))
        ax = figure.add_axes((left, low, 0.95 / total, 0.92 * 0.95 / len(pick)))
        ax.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=255)
        ax.axis("off")
        if r == 0:
            ax.set_title(title, fontsize=9)
plt.show()

# %% tags=["hide-input"]
# SHA-256 of the packed copy of CIFAR-10 in which some images are not exact (their source was JPEG)
NOT_EXACT = "3334af532d0bc2d1bd36028ecd0e4769bd15ea3b8dbc480b2013e29114ae77f4"
if data.sha256() == NOT_EXACT:
    note = "In the copy of CIFAR-10 that this page was made with, 111 of the 60,000 images (horses and ships) went through JPEG; the others are exact."
elif dataset == "svhn_10k":
    note = "`svhn_10k` is a part of SVHN's official test split, not SVHN."
else:
    note = f"The images are those of {dataset}, unchanged."
Markdown(note)

# %% [markdown]
# ## What a parent makes of them
#
# An augmentation is harmless where it leaves the class alone. A mirrored horse is a horse; a mirrored 2 is no digit. A
# parent that was trained *without* augmentation is asked about augmented images: it shows how far they lie from what it
# knows. This does not measure what training *with* them would bring.

# %%
parent = trained_parent(data, model, seed, parent_epochs, Store.at(results))
asked, labels = (values[:images] for values in data.split("held_out"))
asked = channels_first(asked)


def share_right(batch):
    stored = batch[:, 0] if batch.shape[1] == 1 else batch.permute(0, 2, 3, 1)
    with torch.no_grad():
        return float((parent(data.inputs(stored)).argmax(1) == labels).double().mean())


own = share_right(asked)
measured = []
for name in augmentations:
    for draw in range(draws):
        batch = augmented(name, asked, draw)
        difference = (batch.float() - asked.float()).abs().flatten(1).mean(1) / 255
        changed = float((difference > 0).float().mean())
        measured.append(
            {
                "augmentation": name,
                "accuracy": share_right(batch),
                "changed": changed,
                "difference": float(difference.sum() / max(1, int((difference > 0).sum()))),
            }
        )
flipped = share_right(always(asked))
measured = pd.DataFrame(measured)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Accuracy of a parent trained without augmentation, on augmented held-out images; one point a draw, bars: their mean. Line: the same images as they are.", "name": "fig-augmented-accuracy"}, "image": {"alt": "Three bars, one for each augmentation, with the accuracy of the parent on augmented images, below or at a horizontal line for the images as they are."}}
figure, ax = plt.subplots(figsize=(figures.WIDTH, 2.6))
measured["percent"] = 100 * measured["accuracy"]
sns.barplot(measured, y="augmentation", x="percent", errorbar=None, color="#56b4e9", ax=ax)
sns.stripplot(measured, y="augmentation", x="percent", color="black", size=4, jitter=0.15, ax=ax)
ax.axvline(100 * own, color=figures.COLOURS["parent"], lw=1, label="as they are")
ax.set(xlabel="accuracy of the parent (%)", ylabel="", xlim=(0, 100))
figure.legend(frameon=False, loc="outside upper right")
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
rows = [
    {
        "images": "as they are",
        "accuracy of the parent (%)": f"{100 * own:.2f}",
        "n": "1",
        "images changed (%)": "0",
        "mean change of a pixel (%)": "0",
    }
]
for name, group in measured.groupby("augmentation", sort=False):
    rows.append(
        {
            "images": name,
            "accuracy of the parent (%)": mean_and_spread(group["accuracy"]),
            "n": str(len(group)),
            "images changed (%)": f"{100 * group['changed'].mean():.0f}",
            "mean change of a pixel (%)": f"{100 * group['difference'].mean():.1f}",
        }
    )
rows.append({"images": "all flipped", "accuracy of the parent (%)": f"{100 * flipped:.2f}", "n": "1"})
tables.table(
    pd.DataFrame(rows).fillna(""),
    f"Augmented held-out images, {len(labels)} of them, and what a parent trained without augmentation makes of them: mean ± standard deviation over n draws. The change of a pixel is that of changed images, as a share of the range from black to white.",
    "tab-augmented",
)

# %% tags=["hide-input"]
worst = measured.groupby("augmentation")["accuracy"].mean()
lost = 100 * (own - worst)
drop = 100 * (own - flipped)
if drop > 10:
    verdict = "here left and right matter, and a flip makes images of another kind"
elif drop > 2:
    verdict = "here left and right matter a little"
else:
    verdict = "here left and right hardly matter"
Markdown(
    f"**What came out.** On {dataset}, {model.upper()} trained without augmentation is right on {tables.percent(own)} of "
    f"{len(labels)} held-out images, and on {tables.percent(flipped)} of them when all are flipped: {verdict}. Of the three "
    f"augmentations, {worst.idxmin()} takes it furthest from what it knows: {lost.max():.1f} points less (n = {draws} "
    f"draws); {worst.idxmax()} the least, {abs(lost.min()):.1f} points {'less' if lost.min() >= 0 else 'more'}."
)

# %% [markdown]
# **What it means.** The paper applies flips to SVHN, whose images are digits too. That is worth a look before it is
# copied: `-p dataset svhn_10k` asks it of that data set; compare the row "all flipped". A fully connected parent knows
# nothing of neighbouring pixels: to it, a shifted image is another image. That is a reason more to compare FC1 to FC4
# without augmentation, as the paper does.
#
# **Re-run it:** `modlib reproduce augmentation -p dataset cifar10 -p parent_epochs 20`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {
    "dataset": dataset,
    "model": model,
    "parent_epochs": parent_epochs,
    "padding": padding,
    "operations": operations,
    "magnitude": magnitude,
    "images": images,
    "draws": draws,
    "seed": seed,
}
tables.where_from([], "tab-from-augmentation", shown, time.perf_counter() - started)
