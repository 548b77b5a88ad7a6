# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Two parents: modules of one need to have seen what the other knows
#
# **Question.** Two networks were trained on different classes, and neither has ever seen the other's. Can their modules
# together tell all classes apart, and what does that take?

# %% tags=["parameters", "remove-input"]
halves: list[dict] = [
    {
        "dataset": "digits", "model": "fc1", "parent_epochs": 30, "recipe": {"alpha": 1.0, "epochs": 12}, "seeds": [0],
        "images": 1200,
    },
]  # fmt: skip # see modlib.study.pages.two_parents.Halves
shares: list[float] = [0.0, 0.1, 1.0]  # of the other half's images, as background
results: str = ""  # folder of records; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import two_parents

figures.use_style()
store = kept_or_scratch(results)
done = two_parents.run(halves, shares, store)

# %% tags=["remove-input"]
two_parents.answer(done)

# %% [markdown]
# **Caveat.** The halves are of one data set, in one scaling. Parents from different places differ in more than their classes.
# And the background images are of the other half itself, the best that one can have: others would bring less.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Accuracy of the vote of modules of two parents over all classes, test images, a point for each trial, by the share of the other half's images that modules were shown as background. Dashed: modules of one parent for all classes, and the two parents without modules.", "name": "fig-two-parents"}, "image": {"alt": "Points in pairs, as they are and calibrated, over three shares; they rise from left to right, the calibrated ones less."}}
two_parents.draw(done)
plt.show()

# %% [markdown]
# ## Why it fails without, and what helps
#
# A module learns "this class" against *the classes of its own parent*. An image of another parent's class is like neither, so
# modules of the wrong half may say yes to it. *Right half* in the table counts how often the vote looks in the right half. A
# parent's softmax has the same trouble; calibrating it was not tried.
#
# Two things help modules, and both leave the parents alone:
#
# - **Background images** (`background=` of `modlib.data.images`, `.tensors` and `.dataset`) are negatives for every module while
#   masks are trained. They have no labels, and need none.
# - **Calibration** (`merged.calibrated(data)`) fits a scale and a shift for each module's log-odds on held-out images of all
#   classes, with labels; here on the whole held-out part of the data set. It helps much without background images, and little
#   with them.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
two_parents.table(done)

# %% tags=["remove-cell", "nbval-check-output"]
parameters = {"halves": halves, "shares": shares}
records.export(store, "two_parents", done, parameters)
print(len(done), "trials")

# %% [markdown]
# ## In use
#
# ```python
# import modlib
#
# shirts = modlib.data.images(x, y, background=some_images_of_shoes)  # no labels for these
# shoes = modlib.data.images(v, w, background=some_images_of_shirts)
# a = modlib.cotrain(parent_of_shirts, shirts, k=0.1, alpha=1.0, epochs=12, seed=0)
# b = modlib.cotrain(parent_of_shoes, shoes, k=0.1, alpha=1.0, epochs=12, seed=0)
# both = modlib.merge(a, b, classes=[["shirt", "coat"], ["boot", "sandal"]])
# both = both.calibrated(data)  # held-out images of all four classes, in this order
# both.predict(inputs, names=True)
# ```
#
# Each parent keeps its weights, and is called for its own modules alone. `inputs=[None, change]` makes of the inputs what the
# second parent takes, where it takes another size or another scaling. With `reject=True`, an image that no module of either
# parent takes for its own gets -1 ([decompose a network of your own](../own_network.md)).
#
# ## How it was run
#
# The first training images of the data set are split by class, the lower half of the classes to the first parent, the upper
# half to the second. Parents are trained as in the paper's Table 3, for fewer epochs. The recipe is
# `modlib.recipes.ours` without a vote loss and without a setting chosen for this page. Background images are drawn from the
# other half's training images, by the seed of the trial. The one parent for all classes is trained on all of the images, and
# so are its modules.

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - Modules of different parents vote well together if they have seen what the other parent knows.
# - A few background images of the other's classes bring most of that, without labels.
# - Without background images, calibrating on labelled held-out images of all classes brings nearly as much.
# ```

# %% [markdown]
# **Re-run it:** `modlib reproduce two_parents -p shares "[0.0, 0.5]"`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-two-parents", {"shares": shares})
