# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A few classes of VGG16 fit into a few per cent of it, and run several times as fast
#
# **Question.** How small and how fast can a network for a few of the classes be?

# %% tags=["parameters", "remove-input"]
plans: list[dict] = [
    {
        "name": "pairs", "dataset": "digits", "model": "fc1", "parent_epochs": 20, "parent_recipe": "published",
        "classes": 2, "count": 3, "settings": {"keep": 0.5}, "points": 2.0, "multiply_adds": 0.5,
    },
    {
        "name": "class-blind", "dataset": "digits", "model": "fc1", "parent_epochs": 20, "parent_recipe": "published",
        "classes": 2, "count": 3, "settings": {"keep": 0.5, "known": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}, "beside": "pairs",
    },
]  # fmt: skip # see modlib.study.pages.small_networks.Plan; points, parameters, multiply_adds: goals set beforehand
timed: list[list[str]] = [
    ["pairs"]
]  # plans whose first subset's network is timed beside the parent, a list for each machine
int8: list[str] = ["pairs"]  # plans whose first subset's network is rounded to int8 as well
repeats: int = 5  # rounds of the timing
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import small_networks

figures.use_style()
store = kept_or_scratch(results)
page = small_networks.run(plans, timed, int8, repeats, store)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
small_networks.answer(page)

# %% [markdown]
# **Caveat.** Ours, not the paper's: *these weights are not the parent's*. Smaller parents can be cut less.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Every subset's network: points of test accuracy against the parent restricted to the same classes (+ is better), over the share of the parent's multiply-adds.", "name": "fig-small-networks"}, "image": {"alt": "Points of a few groups, each at its own share of the multiply-adds; most lie a little below zero."}}
small_networks.draw(page.of_first_parent)
plt.show()

# %% [markdown]
# ## What came out, beside what was asked
#
# Goals were set before test images were read; a mean over the subsets meets them or misses them, however near. Everything is
# chosen on held-out images. *Points* compare with the whole parent, its logits restricted to the subset, on the same
# images. *s* is the seconds until the network is there, on one core, with other work on the machine.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
small_networks.results_table(page)

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The same for the other parents.", "name": "fig-small-networks-others"}, "image": {"alt": "Points of several groups of subsets, each at its own share of the multiply-adds; groups of ten and more classes need more of them."}}
small_networks.draw([f for f in page.mains if f not in page.of_first_parent] or page.mains)
plt.show()

# %% [markdown]
# ## By the number of classes
#
# One network at a budget for each number of classes; none was sought that is as small as possible. Pairs have a budget of
# multiply-adds, the others one of parameters, which for numbers without a goal lies between those with one.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
small_networks.by_classes_table(page)

# %% [markdown]
# ## Milliseconds
#
# One network of each kind, that of its first subset, in two runtimes. The networks and their parent take turns in every
# round, so that the machine is the same for all of them. How many times as fast a network is depends on the processor: the
# Xeon computes 16 channels at once (AVX-512), the EPYC eight. So widths are multiples of 16, which wastes nothing on either;
# *multiples of eight* were measured on both. Ratios move from run to run: the next table has some of the same networks, timed on
# the same kind of processor at another time.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
small_networks.times_table(page)

# %% [markdown]
# ## Whole numbers instead of floats
#
# ONNX Runtime's own tool rounds weights and activations to int8 ([Ship it](../shipping.md)), with 200 images that show it their
# ranges.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
small_networks.int8_table(page)

# %% [markdown]
# ## What each part brings
#
# Each variant changes one thing; most are variants of networks with *multiples of eight* as widths, which were the first.
# *Class-blind* doesn't know the subset: it chooses channels and repairs on as many images of
# all classes, then drops the other logits. So it shows what knowing the subset, and seeing more images of it, bring.
# *Errors below 0 count*: the repair also fits what the next ReLU sets to zero. *Statistics taken anew*: so it does, and
# batch normalisation's statistics are measured again. *Scale and shift alone*: a scale and a shift of every channel are all
# that is repaired. *Statistics alone*: the statistics are measured again, without a repair. *Classical saliency*: channels
# are chosen by Taylor importance. *Border weighs more*: in the repair, images count more the less sure the parent is of
# them. *500 images*: so many for the repair, and a quarter of them for the choice, instead of 2,000.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
small_networks.variants_table(page)

# %% [markdown]
# ## How it is done
#
# 1. **Choose channels.** A few hundred images of the subset show how the channels of a layer vary together, and how much the
#    log-odds *within the subset* depend on them. Channels are kept one after another, each time the one that explains most of
#    what the others leave open (`modlib.deploy.saliency`). Every layer keeps as many as explain the same share.
# 2. **Cut.** The other channels are removed for good (`modlib.deploy.slicing`).
# 3. **Repair.** Layer by layer, the weights that are left are solved anew, so that each layer gives what the parent's layer
#    gave. Errors that the next ReLU sets to zero cost nothing (`modlib.deploy.repair`). No labels and no gradients are needed.
#
# ```python
# channels = modlib.decomposers.ChannelSaliency().decompose(parent, data, seed=0)
# small = channels.recompose([3, 5], data=data, keep=0.12)  # a plain nn.Module with two logits
# ```
#
# *Distilled* networks are then trained for some hundred steps to say what the parent says. That needs no labels and little
# time, but it is training, so they are named apart.

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - For speed, cut channels: what is left is a plain network, much smaller and faster than the parent.
# - No training is needed: what is left is solved anew, layer by layer, from 2,000 images without labels, or 3,000.
# - The more classes are asked for, the better the parent is, and the smaller it is, the less can be cut.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
records.export(
    store, "small_networks", page.networks, {"plans": plans, "timed": timed, "int8": int8, "repeats": repeats}
)
print(len(page.networks), "records")

# %% [markdown]
# **Re-run it:** `modlib reproduce small_networks -p repeats 3`, or with plans of your own.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(page.done, "tab-from-small-networks", {"plans": len(plans), "repeats": repeats})
