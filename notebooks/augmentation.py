# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # To a fully connected parent without augmentation, a shifted image is another image; a mirrored one is not
#
# **Question.** What do the paper's three augmentations do to an image, and how much do they bother a parent that never saw them?

# %% tags=["parameters", "remove-input"]
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
masks: dict = {
    "dataset": "digits", "model": "wrn16_2", "parent_epochs": 2, "seeds": [0, 1], "epochs": 2, "lr": 0.1,
    "images_per_epoch": 96, "batch_size": 16, "precision": "float32", "augment": "crop",
}  # fmt: skip # masks trained with and without an augmentation: a panel, see modlib.study.panels.Panel, and "augment"
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import time

import matplotlib.pyplot as plt
import torch
from torchvision.transforms import v2

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import augmentation as page
from modlib.study.trials import trained_parent
from modlib.zoo import datasets

figures.use_style()
started = time.perf_counter()
data = datasets.load(dataset)
augmentations = {
    "flip": v2.RandomHorizontalFlip(p=0.5),
    "random crop": v2.RandomCrop(data.train_images.shape[1:3], padding=padding),
    "RandAugment": v2.RandAugment(num_ops=operations, magnitude=magnitude),
}
always = v2.RandomHorizontalFlip(p=1.0)
store = kept_or_scratch(results)
parent = trained_parent(data, model, seed, parent_epochs, store)
panel = page.both_trainings(masks)
trained = page.trained_masks(panel, datasets.load(panel.dataset), store)
of_masks = page.of_all_classes(records.frame(trained))
found = page.asked(parent, data, images, augmentations, always, seed=seed, draws=draws)

# %% tags=["remove-input"]
page.answer(found, dataset, model, draws, panel, of_masks)

# %% [markdown]
# **Caveat.** As in the paper, **no result of FC1 to FC4 in this book uses an augmentation**. Masks were trained for few
# epochs, and augmentation is for long trainings.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Accuracy of a parent trained without augmentation, on augmented held-out images: one point a draw, and bars for their mean. Line: the same images as they are.", "name": "fig-augmented-accuracy"}, "image": {"alt": "Three bars, one for each augmentation, with the accuracy of the parent on augmented images, below or at a horizontal line for the images as they are."}}
page.draw_accuracy(found)
plt.show()

# %% [markdown]
# ## What a parent makes of them
#
# An augmentation is harmless where it leaves the class alone: a mirrored horse is a horse, but a mirrored 2 is no digit. The
# paper flips SVHN too, whose images are digits. To see what that does, run this page with `-p dataset svhn_10k` and look at
# the row "all flipped". A fully connected parent knows nothing of neighbouring pixels, so a shift changes all it sees.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.accuracy_table(found)

# %% [markdown]
# ## What training masks with them brings
#
# The paper's appendix says that augmentation can improve supermasks. Here is one mask for all classes of a convolutional parent,
# trained with the vote loss on images as they are, and on augmented ones. All else is the same.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.mask_table(panel, of_masks)

# %% [markdown]
# ## Who gets which
#
# MNIST and F-MNIST are taken as they are, to compare with {cite:t}`pan2020`. RandAugment is from {cite:t}`cubuk2020`.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
page.in_the_paper()

# %% [markdown]
# The paper does not say how far a crop may move (4 pixels are usual for images of 32 × 32), nor whether RandAugment comes on
# top of flip and crop. In `modlib.augmentation` it does. That module uses torchvision's operations, draws anew for each image,
# and runs on the device that holds the batch. The convolutional parents of [the paper's Figure 4](figure4.ipynb) are trained
# by our recipe, with flip and crop, on digits with the crop alone.
#
# ## The three augmentations
#
# RandAugment has one magnitude for all its operations: the larger, the stronger. Grey images stay grey.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Images as they are (first column) and three draws of each augmentation. What lies outside the image is black.", "name": "fig-augmentations"}, "image": {"alt": "A grid of images. Each row starts with an original, followed by three draws each of a random flip, a random crop and RandAugment, which also changes colours and brightness and tilts or shears the image."}}
page.draw_images(page.channels_first(data.train_images[:shown_images]), augmentations, seed)
plt.show()

# %% tags=["remove-input"]
page.note_on(data)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - A shifted image confuses a fully connected parent, a mirrored one hardly does.
# - Fully connected parents are trained without augmentation here, as in the paper.
# - The paper doesn't say how far crops move, nor in which order augmentations are applied.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
some = page.channels_first(data.train_images[:20])
for name, operation in augmentations.items():
    once, again = (page.augmented(operation, some, seed, draw=0) for _ in range(2))
    kept = once.shape == some.shape and once.dtype == some.dtype
    print(f"{name}: shape and dtype kept: {kept}; the same seed, the same images: {torch.equal(once, again)}")
print("flipped twice is the image:", torch.equal(always(always(some)), some))
print("flipped once is the image: ", torch.equal(always(some), some))
print("crops of a padded image:   ", (2 * padding + 1) ** 2)
print(f"RandAugment: magnitude {magnitude} of 0 to {augmentations['RandAugment'].num_magnitude_bins - 1}")

# %% tags=["remove-cell", "nbval-check-output"]
records.export(store, "augmentation", trained, {"masks": masks})
print(len(trained), "records")

# %% [markdown]
# **Re-run it:** `modlib reproduce augmentation -p dataset cifar10 -p parent_epochs 20`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
settings = {
    "dataset": dataset, "model": model, "parent_epochs": parent_epochs, "padding": padding, "operations": operations,
    "magnitude": magnitude, "images": images, "draws": draws, "seed": seed,
}  # fmt: skip
tables.where_from([], "tab-from-augmentation", settings, time.perf_counter() - started)
