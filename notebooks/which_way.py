# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which way for a subset: cut channels for speed, keep masks for a small file
#
# **Question.** Which way to a small, fast or light network for some classes is best?

# %% tags=["parameters", "remove-input"]
ways: list[dict] = [
    {"name": "restricted parent", "way": "restricted parent", "settings": {}, "sizes": [{}]},
    {"name": "channels by norm, no repair", "way": "channels", "sizes": [{"keep": 0.5}],
     "settings": {"ranking": "l1", "repair": "statistics", "images": 200}},
    {"name": "channels, class-blind", "way": "channels", "settings": {"class_blind": True, "images": 200}, "sizes": [{"keep": 0.5}],
     "ours": True},
    {"name": "our channels", "way": "channels", "settings": {"images": 200}, "sizes": [{"keep": 0.5}], "ours": True},
    {"name": "our channels, tuned", "way": "channels", "settings": {"images": 200, "tuned": 20}, "sizes": [{"keep": 0.5}], "ours": True},
    {"name": "channels by trained masks", "way": "trained channels", "settings": {"steps": 2, "rate": 0.03, "images": 200},
     "sizes": [{"keep": 0.5}], "ours": True},
    {"name": "Torch-Pruning, tuned", "way": "torch-pruning", "settings": {"steps": 30, "rate": 0.001}, "sizes": [{"keep": 0.5}],
     "tried": [{"rate": 0.003}]},
    {"name": "small network, trained", "way": "small network", "settings": {"steps": 60, "rate": 0.003}, "sizes": [{"keep": 0.5}],
     "draws": [0, 1]},
    {"name": "small network, distilled", "way": "small network", "sizes": [{"keep": 0.5}],
     "settings": {"steps": 60, "rate": 0.003, "distilled": True}},
    {"name": "after SeaM", "way": "seam", "settings": {"steps": 30, "rate": 0.05}, "sizes": [{"alpha": 1.0}]},
    {"name": "after GradSplitter", "way": "gradsplitter", "settings": {"steps": 20, "head_steps": 5, "rate": 0.05}, "sizes": [{"alpha": 1.0}]},
    {"name": "after MODA", "way": "moda", "settings": {"steps": 30, "rate": 0.001}, "sizes": [{"keep": 0.5}]},
    {"name": "one mask", "way": "one mask", "settings": {"epochs": 1, "images_per_epoch": 256}, "sizes": [{"k": 0.1}]},
    {"name": "modules, one mask first", "way": "module stemming", "settings": {},
     "sizes": [{"recipe": {"k": 0.1, "alpha": 1.0, "epochs": 1, "init": "magnitude", "images_per_epoch": 256}}]},
]  # fmt: skip # see modlib.study.pages.which_way.Plan and modlib.study.ways
parents: list[dict] = [
    {"dataset": "digits", "model": "fc1", "parent_epochs": 20, "parent_recipe": "published", "counts": [[2, 2], [5, 1], [10, 1]]},
]  # fmt: skip # counts: [classes of a subset, how many subsets]; the first parent is the page's own
small: list[dict] = []  # plans of the page small_networks that are shown beside further parents
budgets: list[float] = [0.5]  # shares of the parent's multiply-adds within which networks are compared
repeats: int = 2  # rounds of the timing, 0 for none; run it alone on the machine
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, records, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import which_way

figures.use_style()
store = kept_or_scratch(results)
page = which_way.run(ways, parents, small, repeats, store)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.answer(page, budgets)

# %% [markdown]
# **Caveat.** The parent is small. Ways that train for one subset get about half a minute of one core: too little to be at their
# best. *Tuned*: trained briefly on labels; *distilled*: on the parent's own answers; *one mask*: trained for the subset;
# *restricted parent*: its other logits are ignored.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Points of test accuracy against the restricted parent (0; + is better), means over the subsets, over the multiply-adds as a share of the parent's. A line joins the sizes of one way; every way is in the tables below. Below -1 the scale is logarithmic.", "name": "fig-which-way"}, "image": {"alt": "For pairs, fives and all ten classes, a point for each way: cut and small networks on the left, below zero; masks and the parent on the right, near zero."}}
which_way.draw(page, "multiply_adds")
plt.show()

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.best_table(page, budgets)

# %% [markdown]
# ## What to take
#
# *None* stands where no way is accurate enough. *Many subsets* counts the seconds of the first subset once, and those of a
# further one for each of the others.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.decision_table(page, budgets)

# %% [markdown]
# ## All ways, by the number of classes
#
# - *mult.-adds*, *param.*: of the network as it is stored and run, as a share of the parent's.
# - *weights ≠ 0*: those of them that are not 0, as a share of the parent's.
# - *ms 1 / 64*: milliseconds in torch for one image and for 64, of the first subset's network. All ways and the parent take
#   turns. Other work on the machine moves these times, those of one image most.
# - *kB*: all numbers at four bytes each, zeros too.
# - *s first / further*: seconds of one core until the first subset's network is there, and each further one. Modules were
#   timed when they were trained.
# - *labels*: how many labelled training images were used.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.every_table(page)

# %% [markdown]
# ## Light is not fast
#
# A mask leaves every layer as wide as it was: there are fewer weights to store, and as many multiply-adds. Cutting channels
# saves both.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The same points over the milliseconds for 64 images in torch.", "name": "fig-which-way-times"}, "image": {"alt": "For pairs, fives and all ten classes, points over milliseconds: cut and small networks on the left, the parent and one mask further right, modules furthest."}}
if repeats:
    which_way.draw(page, "ms_64")
    plt.show()

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The same points over the share of weights that are not 0. Dotted: the share that MODA's authors print for two and ten classes of another parent.", "name": "fig-which-way-weights"}, "image": {"alt": "For pairs, fives and all ten classes, points over the weights that are not 0: masks reach zero points with about a tenth of the weights."}}
which_way.draw(page, "kept_weights")
plt.show()

# %% tags=["remove-input"]
which_way.moda_sentence()

# %% [markdown]
# ## How each way is done
#
# The ways "after" a paper are our own simplified versions.
#
# - **restricted parent**: the parent, of whose logits only the subset's are read.
# - **channels by norm, no repair**: channels are ranked by the sum of a filter's weights; only the statistics of batch
#   normalisation are measured again. **channels by scale, repaired**: ranked by the scale of that normalisation.
# - **our channels**: as on [Small networks](small_networks), without labels. **class-blind**: the same on images of all
#   classes. **distilled**: some hundred steps of training on what the parent says, without labels. **tuned**: as many on the
#   labels of the subset.
# - **channels by trained masks**: our variant of the paper's method, with channels for edges. Every class trains a mask of
#   channels on labels. A subset keeps those with the best mean score, at the widths of *our channels*, and they are
#   repaired in the same way.
# - **Torch-Pruning, tuned**: the library's pruner with Taylor importance, then training on the subset's labels with AdamW.
# - **small network**: the parent's architecture, narrower, trained from scratch on labels or on what the restricted parent says.
# - **after SeaM** (Qi et al. 2023): a mask of weights, found by gradient, with a new head.
# - **after GradSplitter** (Qi et al. 2022): a mask of whole filters and a head for each class; a subset's network keeps the
#   filters of all its classes.
# - **after MODA** (Ngo et al. 2026): *the parent itself* is trained further to be modular. Then the channels are kept that the
#   subset's images activate most often.
# - **one mask**: a mask trained for the subset, which starts from the largest weights.
# - **modules, stemmed**: stored modules by module stemming as the paper has it (α = 1, the same share of every layer), with what
#   our recipe changes: annealed rates, scores that start from the weights' magnitude, grafting layers from the own logit. Not
#   timed: as many passes as *modules, one mask first*.
# - **modules, one mask first**: stored modules, a pass for each class. They are co-trained from one mask, with the vote
#   loss and without stemming: *one mask first* of [the paper's Figure 4](figure4.ipynb). It is ours, not the paper's.
#
# The files in `modlib/study/ways` say what was simplified. All ways are called alike:
#
# ```python
# from modlib.study.ways import SmallNetwork, build
#
# way = SmallNetwork(keep=0.25, steps=600, rate=0.003, distilled=True)
# built = build(way, parent, data, subset=[3, 5], seed=0)  # built.network: images -> two logits; built.seconds_first
# ```
#
# ## What was tried
#
# Every way that trains has about half a minute of one core for a network, ours among them. Of each way the setting with
# the best mean over the first pair and the first five is taken, on held-out images, or one within 0.05 points of it. The
# three ways that came closest chose their rate anew at half of the multiply-adds.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.tried_table(page)

# %% [markdown]
# ## Further parents
#
# The same parent at full width, and our networks of [Small networks](small_networks). No setting was chosen anew for it, so
# ways that train may do better with others. A very large ± stands for a network that collapsed to chance.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.other_parents(page)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - For a fast network, cut channels and repair them. For a small file, keep a mask and store it sparsely.
# - Some hundred steps of training help VGG16 ¼ most where the cut is deep. With the same settings they made the full VGG16
#   worse: try both on held-out images.
# - In half a minute, pruning without a repair does not get as far, least of all for many classes.
# - Here trained masks chose no better channels than a look at some images.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
records.export(store, "which_way", page.networks, {"ways": ways, "parents": parents, "repeats": repeats})
print(len(page.networks), "records")

# %% [markdown]
# **Re-run it:** `modlib reproduce which_way -p repeats 5`, or with ways of your own.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(page.done, "tab-from-which-way", {"ways": len(ways), "parents": len(parents), "repeats": repeats})
