# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # In large networks the stemming loss as printed is weaker than weight decay
#
# **Question.** Eq. 1 divides the stemming loss by the number of scores. Does it still pull modules together in a network far
# larger than FC1?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, cifar10, cifar100, svhn, svhn_10k
model: str = "wrn16_2"  # deep parent, one of modlib.zoo.parents.CONVOLUTIONAL
parent_recipe: str = "ours"  # how it is trained: published or ours
parent_epochs: int = 2  # its epochs
reduced: str = "wide residual network 16-2"  # what is smaller than in the paper; empty: nothing
fc_dataset: str = "digits"  # data set of FC1: digits, mnist, fashion_mnist
fc_epochs: int = 10  # epochs of FC1 (Table 3: 100)
seeds: list[int] = [0]  # seeds of decompositions and of FC1
parent_seeds: list[int] = [0]  # seed of the deep parent of each
k: float = 0.10  # share of the edges kept in every layer
probe_images: int = 64  # held-out images that gradients are measured on
judged_images: int = 100  # held-out images that accuracies of first masks are measured on
classes: list[int] = [0, 1, 2]  # the modules whose gradients are measured
pull_classes: list[int] = [0, 1]  # the modules of the trial of the stemming loss
pull_epochs: int = 2  # its epochs; the first one has no stemming
pull_images: int = 64  # its images in an epoch
precision: str = "float32"  # of the trial's forward and backward passes: float32 or bfloat16
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import claims, figures, pull, records, tables
from modlib.study.pages import stemming_at_scale as page

figures.use_style()
store = records.Store.at(results)
settings = page.Settings(
    dataset=dataset, model=model, parent_recipe=parent_recipe, parent_epochs=parent_epochs, reduced=reduced,
    fc_dataset=fc_dataset, fc_epochs=fc_epochs, seeds=seeds, parent_seeds=parent_seeds, k=k, probe_images=probe_images,
    judged_images=judged_images, classes=classes, pull_classes=pull_classes, pull_epochs=pull_epochs,
    pull_images=pull_images, precision=precision,
)  # fmt: skip
bench = page.Bench.prepared(settings, store)
done, tried = bench.before(), bench.pulled()
rows = records.frame(done)
pulls = page.Pulls.of(tried, settings)
strengths = pull.strengths(pull.untrained())
claim = page.claim(pulls)

# %% tags=["remove-input"]
page.answer(strengths, pulls)

# %% [markdown]
# **Caveat.** The trials are short, of two modules and few held-out images: they don't say where long runs end.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "How far Eq. 1 can move a score in an epoch at α = 1, in standard deviations of its layer's initial scores. Bars: from the layer that it moves least to the one that it moves most; points: means over all scores. Dashed: one standard deviation.", "name": "fig-deep-reach"}, "image": {"alt": "On logarithmic axes, what the readings total and layer can move falls with the number of weights of the network, from about one standard deviation in FC1 to far below a hundredth in the largest networks; the scale-free reading stays at one."}}
pull.draw_reach(strengths)
plt.show()

# %% [markdown]
# ## How far the pull can move a score
#
# Eq. 1 has [three readings](module_stemming.ipynb): `total` ($\alpha / n$) and `layer` ($\alpha / (L\, n_\ell)$) are literal,
# `scale_free` is ours. With $p = 1$ a score is pulled with the same strength, the factor, however far it is from the average.
# In an epoch it can move by at most
#
# $$\text{factor} \times \frac{\text{rate}}{1 - \text{momentum}} \times \text{steps}.$$
#
# The table has this at $\alpha = 1$, with the rates and batches of the paper's Table 4 and all official training images. Its
# unit is $\sigma_\ell$, the standard deviation of the layer's initial scores.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
pull.reach_table(strengths)

# %% [markdown]
# ## Weight decay works against it
#
# Weight decay pushes every score towards zero with $\lambda |\mathcal S|$. The stemming loss pulls to the average of the
# epoch *before*. Where decay is the stronger, the scores of all modules sink below that average together. The pull then has
# the same sign in all of them and brings no two of them closer. (The paper prints $\lambda = 5 \times 10^{-1}$, which we
# [read as](../deviations.md) $5 \times 10^{-4}$.)

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
pull.decay_table(strengths)

# %% [markdown]
# ## So do the modules' own gradients
#
# They drive the modules apart. Let $d$ be the gradient of a score in one module minus its mean over the modules. Where $|d|$ is
# smaller than the factor, the pull is the stronger. The gradients are those of the first masks on few images. So they are
# noisy and too large, and the shares in the table are lower bounds. [Deep networks](deep_networks.ipynb) explains first masks
# and statistics.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.against_table(rows, bench)

# %% [markdown]
# ## What it does in a short trial
#
# Two modules by the published recipe (random first masks, constant rate 0.1, batches of 32, own statistics) start from the same
# scores. The first epoch has no stemming, as in Algorithm 1.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.pulled_table(pulls)

# %% tags=["remove-input"]
page.for_figure_4(strengths)

# %% tags=["remove-input"]
page.judged_claim(claim)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - Read as printed, Eq. 1 gets weaker as a network gets larger, and weight decay is soon the stronger of the two.
# - So α has to grow with the network, or the loss has to be scaled as in our `scale_free` reading.
# - Whether stemming shrinks what modules of a large network need together is shown [for real runs](figure4.ipynb), not here.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
claims.publish(store, "stemming_at_scale", [claim])
everything = [*done, *tried]
exported = records.export(store, "stemming_at_scale", everything, settings.shown())
print(claim.verdict)

# %% [markdown]
# **Re-run it:** `modlib reproduce stemming_at_scale -p k 0.3`; another network: `-p dataset cifar10 -p model resnet50_quarter`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(everything, "tab-from-stemming-at-scale", settings.shown())
