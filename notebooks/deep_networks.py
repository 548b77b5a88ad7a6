# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Deep networks die under a random mask, and live under the parent's largest weights
#
# **Question.** The paper's first mask keeps a *random* tenth of every layer. What is left of a deep network under it, and
# what brings it back? And does the stemming loss, Eq. 1 as printed, still pull in a network a thousand times larger than FC1?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, cifar10, cifar100, svhn, svhn_10k
model: str = "wrn16_2"  # deep parent, one of modlib.zoo.parents.CONVOLUTIONAL
parent_recipe: str = "ours"  # how it is trained: published or ours
parent_epochs: int = 2  # its epochs
reduced: str = "reduced: wide residual network 16-2"  # what is smaller than in the paper; empty: nothing
fc_dataset: str = "digits"  # data set of the fully connected parents: digits, mnist, fashion_mnist
fc_models: list[str] = ["fc1", "fc4"]  # fully connected parents, FC1 among them
fc_epochs: int = 10  # their epochs (Table 3: 100)
seeds: list[int] = [0]  # seeds of decompositions and of FC parents; rates are tuned with the first
parent_seeds: list[int] = [0]  # seed of the deep parent of each
k: float = 0.10  # share of the edges kept in every layer
probe_images: int = 64  # held-out images that signal and gradient are measured on
judged_images: int = 100  # held-out images that accuracies are measured on
classes: list[int] = [0, 1, 2]  # the modules of the short co-training
rates: list[float] = [0.1, 1.0]  # rates of the scores tried in it
epochs: int = 2  # its epochs
images_per_epoch: int = 160  # its images in an epoch
batch_size: int = 32  # its images in a batch
pull_classes: list[int] = [0, 1]  # the modules of the trial of the stemming loss
pull_epochs: int = 2  # its epochs; the first one has no stemming
pull_images: int = 64  # its images in an epoch
precision: str = "float32"  # of the co-training's forward and backward passes: float32 or bfloat16
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import claims, figures, pull, records, tables
from modlib.study.pages import deep_networks as page

figures.use_style()
store = records.Store.at(results)
settings = page.Settings(
    dataset=dataset, model=model, parent_recipe=parent_recipe, parent_epochs=parent_epochs, reduced=reduced,
    fc_dataset=fc_dataset, fc_models=fc_models, fc_epochs=fc_epochs, seeds=seeds, parent_seeds=parent_seeds, k=k,
    probe_images=probe_images, judged_images=judged_images, classes=classes, rates=rates, epochs=epochs,
    images_per_epoch=images_per_epoch, batch_size=batch_size, pull_classes=pull_classes, pull_epochs=pull_epochs,
    pull_images=pull_images, precision=precision,
)  # fmt: skip
bench = page.Bench.prepared(settings, store)
done = bench.before()
rows = records.frame(done)
trained, after = bench.after()
tried = bench.pulled()
pulls = page.Pulls.of(tried, settings)
networks = pull.untrained()
strengths = pull.strengths(networks)
claim = page.claim(pulls)

# %% tags=["remove-input"]
page.answer(rows, after, strengths, pulls, bench)

# %% [markdown]
# **Caveat.** A small network, three classes and a few epochs of few images: nothing here says where long runs end. The test
# images are not read.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The deep parent under its first mask, before any training. Left: signal of every layer relative to the parent's. Middle: agreement with the parent. Right: gradient of the scores relative to that of the parent without a mask. Lines are geometric means (left, right) or means over seeds, small points single seeds. Dotted, left: what a random share k leaves if nothing rescales it, k to the power of half the depth.", "name": "fig-deep-before"}, "image": {"alt": "Three panels over the depth of the network, each with four lines: two initial scores with two kinds of statistics. On the left, on a logarithmic axis, the line of Kaiming scores with frozen statistics falls furthest; on the right its gradient is by far the smallest in the first layers."}}
page.draw_before(rows, settings)
plt.show()

# %% [markdown]
# ## Four combinations
#
# The paper does not say what batch normalisation does while a module is trained, nor which initial scores it used beyond
# their distribution.
#
# | | |
# |---|---|
# | statistics `frozen` | batch normalisation goes on with the parent's means and variances |
# | statistics `batch` | those of the batch while a module is trained; running ones, the module's own, afterwards |
# | scores `kaiming` | the paper's: the first mask is random |
# | scores `magnitude` | ours: scores in the order of the weights' magnitude, scaled alike; the first mask keeps the largest |
#
# A layer that keeps a random share $k$ of its weights keeps about a share $k$ of the *variance* of what it computes, so
# $\sqrt k$ of its standard deviation. After $L$ layers in a row that nothing rescales, $k^{L/2}$ is left.
#
# ## Before training
#
# The **signal** of a layer is the standard deviation, over held-out images, of what enters its ReLU (at the end: of the
# logits), relative to the parent's. Batch statistics give a random layer its scale back, but not its meaning. So beside it
# stands the **agreement**: the correlation over images between the masked network's values and the parent's. The **gradient**
# is what a module's loss sends to the scores of a layer, $W \odot \partial L / \partial (W \odot \mathcal M)$, as a norm
# relative to that of the parent without a mask.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.signal_table(rows, settings)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.gradient_table(rows, settings)

# %% [markdown]
# The same masks, judged by the network's own answer, the largest of its logits. *Different outputs* counts the distinct
# vectors of logits, to the last bit; *the same answer* is how often it gives its most frequent one.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.answers_table(rows, settings)

# %% [markdown]
# ## After a short co-training
#
# No stemming, our recipe (annealed rates, grafting layers that start from the parent's own logit;
# [deviations](../deviations.md)). The rate of the scores is the best of a short list by the vote's accuracy on held-out images,
# for each combination by itself and with the first seed. The same held-out images are judged. The grafting layers have a
# tenth of that rate. Where the chosen rate is the first or the last of its list, a rate beyond it may be better.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.after_table(after, bench)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "After the short co-training, at the chosen rates: signal and agreement by layer of the modules as deployed, with their own running statistics (solid) or the parent's (dashed). Lines are means over seeds, points single seeds (means over their modules; geometric means of signals).", "name": "fig-deep-after"}, "image": {"alt": "Two panels over the depth of the network with four lines each, as in the figure before training: signal on a logarithmic axis, and agreement with the parent."}}
page.draw_after(after)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.signal_after_table(after, settings)

# %% [markdown]
# Both options are in `modlib.cotrain`: `norm="batch"` is the default. `init="magnitude"` is not, because the paper starts from
# Kaiming scores. How the edges are shared out among the layers [matters too](figure4.ipynb).
#
# ## What statistics of its own cost a module
#
# With statistics `batch`, a recomposed network holds a mean and a variance for every channel, for each of its modules. They
# cost memory and no time, because modules are run one after another anyway. They are not edges:
# [remaining parameters](evaluation.ipynb) do not count them.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
page.statistics_table(networks)

# %% [markdown]
# ## Eq. 1 at this size
#
# The stemming loss divides by the number of scores. [Module stemming](module_stemming.ipynb) has its three readings: `total`
# ($\alpha / n$) and `layer` ($\alpha / (L\, n_\ell)$) are literal, `scale_free` is ours. With $p = 1$ the pull on a score has
# one strength, the factor, whatever its distance. In an epoch it can move a score by at most
#
# $$\text{factor} \times \frac{\text{rate}}{1 - \text{momentum}} \times \text{steps},$$
#
# here relative to the standard deviation $\sigma_\ell$ of the layer's initial scores, at $\alpha = 1$, with the rates and
# batches of the paper's Table 4 and all official training images.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
pull.reach_table(strengths)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How far Eq. 1 can move a score in an epoch at α = 1, in initial standard deviations of its layer: one bar from the layer that it moves least to the one that it moves most, one point the mean over scores. Dashed: one standard deviation.", "name": "fig-deep-reach"}, "image": {"alt": "On logarithmic axes, what the readings total and layer can move falls with the number of weights of the network, from about one standard deviation in FC1 to far below a hundredth in the largest networks; the scale-free reading stays at one."}}
pull.draw_reach(strengths)
plt.show()

# %% [markdown]
# ### What the pull works against
#
# **Weight decay** pushes every score towards zero with $\lambda |\mathcal S|$. The stemming loss pulls to the average of the
# epoch *before*. Where decay is the stronger, the scores of all modules sink below that average together. The pull then has
# the same sign in all of them and brings no two of them closer. (The paper prints $\lambda = 5 \times 10^{-1}$, which we
# [read as](../deviations.md) $5 \times 10^{-4}$.)

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
pull.decay_table(strengths)

# %% [markdown]
# **The modules' own gradients** drive them apart: $d$ is the gradient of a score in one module minus its mean over the
# modules. Where $|d|$ is smaller than the factor, the pull is the stronger. These gradients are of the first masks and of few
# images, so noisy and too large: the shares are lower bounds.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.against_table(rows, bench)

# %% [markdown]
# A short trial: two modules by the published recipe (Kaiming scores, constant rate 0.1, batches of 32, statistics of the
# batch), from the same start, the first epoch without stemming as in Algorithm 1.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.pulled_table(pulls)

# %% tags=["hide-input"]
page.for_figure_4(strengths)

# %% tags=["hide-input"]
page.judged_claim(claim)

# %% tags=["remove-cell", "nbval-check-output"]
claims.publish(store, "deep_networks", [claim])
everything = [*done, *trained, *tried]
records.export(store, "deep_networks", everything, settings.shown())
print(claim.verdict)

# %% [markdown]
# **Re-run it:** `modlib reproduce deep_networks -p k 0.3`; another network: `-p dataset cifar10 -p model resnet50_quarter`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(everything, "tab-from-deep-networks", settings.shown())
