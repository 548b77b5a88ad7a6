# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which way for a subset: cut channels for speed, modules for memory
#
# **Question.** Someone needs two, five or ten of a classifier's classes, in a network that is small, fast or light. Taking the
# classifier apart is one way. What else is there, and is it better?

# %% tags=["parameters", "remove-input"]
ways: list[dict] = [
    {"name": "restricted parent", "way": "restricted parent", "settings": {}, "sizes": [{}]},
    {"name": "channels by norm, no repair", "way": "channels", "sizes": [{"keep": 0.5}],
     "settings": {"ranking": "l1", "repair": "statistics", "images": 200}},
    {"name": "channels, class-blind", "way": "channels", "settings": {"class_blind": True, "images": 200}, "sizes": [{"keep": 0.5}]},
    {"name": "our channels", "way": "channels", "settings": {"images": 200}, "sizes": [{"keep": 0.5}], "ours": True},
    {"name": "Torch-Pruning, tuned", "way": "torch-pruning", "settings": {"steps": 30, "rate": 0.001}, "sizes": [{"keep": 0.5}],
     "tried": [{"rate": 0.003}]},
    {"name": "small network, trained", "way": "small network", "settings": {"steps": 60, "rate": 0.003}, "sizes": [{"keep": 0.5}]},
    {"name": "small network, distilled", "way": "small network", "sizes": [{"keep": 0.5}],
     "settings": {"steps": 60, "rate": 0.003, "distilled": True}},
    {"name": "after SeaM", "way": "seam", "settings": {"steps": 30, "rate": 0.05}, "sizes": [{"alpha": 1.0}]},
    {"name": "after GradSplitter", "way": "gradsplitter", "settings": {"steps": 20, "head_steps": 5, "rate": 0.05}, "sizes": [{"alpha": 1.0}]},
    {"name": "after MODA", "way": "moda", "settings": {"steps": 30, "rate": 0.001}, "sizes": [{"keep": 0.5}]},
    {"name": "one mask", "way": "one mask", "settings": {"epochs": 1, "images_per_epoch": 256}, "sizes": [{"k": 0.1}]},
    {"name": "module stemming", "way": "module stemming", "settings": {},
     "sizes": [{"recipe": {"k": 0.1, "alpha": 1.0, "epochs": 1, "init": "magnitude", "images_per_epoch": 256}}]},
]  # fmt: skip # see modlib.study.pages.which_way.Plan and modlib.study.ways
parents: list[dict] = [
    {"dataset": "digits", "model": "fc1", "parent_epochs": 20, "parent_recipe": "published", "counts": [[2, 2], [5, 1], [10, 1]]},
]  # fmt: skip # counts: [classes of a subset, how many subsets]; the first parent is the page's own
small: list[dict] = []  # plans of the page small_networks that are shown beside further parents
most: float = 0.5  # share of the parent's multiply-adds within which networks count as small
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
which_way.answer(page, most)

# %% [markdown]
# **Caveat.** A small parent with little to spare, few subsets (n), one draw, about half a minute of one core for a
# network: no way is at its best, trained ones least of all. The ways after others are written anew from their papers and
# simplified: they show what an idea costs and gives here.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Points of test accuracy against the restricted parent (0; + is better), means over the subsets, over the multiply-adds as a share of the parent's and over the milliseconds for 64 images in torch. Below -1 the scale is logarithmic.", "name": "fig-which-way"}, "image": {"alt": "For pairs, fives and all ten classes, a point for each way: cut and small networks on the left, below zero; masks and the parent on the right, near zero."}}
which_way.draw(page)
plt.show()

# %% [markdown]
# ## What to take
#
# *many subsets* counts the first subset's seconds once and the further ones' for the rest. Where no way is within the
# points that are allowed, it says none.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.decision_table(page, most)

# %% [markdown]
# ## All ways, by the number of classes
#
# *mult.-adds* and *param.* are what is physically in the network, as a share of the parent's; *weights held* are those
# that are not 0. *labels*: labelled training images that were used. *s first / further*: processor's seconds, one thread,
# until the first subset's network is there, and each further one's. Module stemming's first are those on the clock when
# its modules were trained, at another time. *ms*: medians in torch of the first subset's network, all ways and the parent in
# turns; other work on the machine moves them, those of one image most.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.every_table(page)

# %% [markdown]
# ## Light is not fast
#
# A mask leaves every layer as wide as it was: fewer weights to store, as many multiply-adds. Cut channels are both.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The same points over the share of weights that are not 0. Dotted: the share that MODA's authors print for two and ten classes; theirs, and without points.", "name": "fig-which-way-weights"}, "image": {"alt": "For pairs, fives and all ten classes, points over the weights held: masks reach zero points with about a tenth of the weights."}}
which_way.draw_weights(page)
plt.show()

# %% tags=["remove-input"]
which_way.moda_sentence()

# %% [markdown]
# ## How each way is done
#
# - **restricted parent**: the logits of the subset are picked. No cost, no gain.
# - **channels**: by the sum of a filter's weights or the scale behind it, statistics recomputed or the rest repaired; *class-blind*
#   with our choice and repair on images of all classes; *ours* as on [Small networks](small_networks), no labels; *distilled*
#   some hundred steps without labels on top.
# - **Torch-Pruning, tuned**: the library's pruner with Taylor importance, then AdamW on the subset's labels.
# - **small network**: the parent's architecture, narrower, from untrained weights: on labels, or on what the restricted parent says.
# - **after SeaM** (Qi et al. 2023): a mask of weights by gradient, with a new head. **after GradSplitter** (Qi et al. 2022): masks
#   of whole filters for each class and a head each; the union of a subset is cut. **after MODA** (Ngo et al. 2024): *trains its
#   parent* further to be modular, then keeps the channels that the subset's images activate most often.
# - **one mask**: a supermask for the subset, from the weights' magnitudes. **module stemming**: the paper's, stored modules; a pass a class.
#
# Their files in `modlib/study/ways` say what was simplified. All of them are one interface:
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
# Every way that trains has about half a minute of one core for a network, ours among them. Rates and rounds were chosen by two
# or three tries each on held-out images of the first pair and the first five; what is kept of that:

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.tried_table(page)

# %% [markdown]
# ## Further parents

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
which_way.other_parents(page)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - For a fast network, cut channels and repair or distil; for a light one, keep a mask.
# - Pruning with tuning on labels comes close for pairs of classes, and falls behind with more of them.
# - No way is best in speed, size and accuracy at once.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
records.export(store, "which_way", page.networks, {"ways": ways, "parents": parents, "repeats": repeats})
print(len(page.networks), "records")

# %% [markdown]
# **Re-run it:** `modlib reproduce which_way -p repeats 5`, or with ways of your own.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(page.done, "tab-from-which-way", {"ways": len(ways), "parents": len(parents), "repeats": repeats})
