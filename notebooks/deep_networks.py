# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why deep networks die under a random mask
#
# **Question.** A decomposition starts from a mask, and only then improves it. The paper starts from Kaiming scores
# (section "Training Mask"), so its first mask keeps a *random* tenth of every layer. What is left of a deep network under
# such a mask, and what does it take to bring it back? And what does the stemming loss, Eq. 1 as printed, still do in a
# network a thousand times larger than FC1?
#
# The paper does not say what batch normalisation does while a module is trained, nor which initial scores it used beyond
# their distribution. Two readings of the first and two starts of the second give four combinations:
#
# | | |
# |---|---|
# | statistics `frozen` | batch normalisation goes on with the parent's means and variances |
# | statistics `batch` | those of the batch while a module is trained; running ones, the module's own, afterwards |
# | scores `kaiming` | the paper's: the first mask is random |
# | scores `magnitude` | ours: scores in the order of the weights' magnitude, scaled alike; the first mask keeps the largest |
#
# What to expect: a layer that keeps a random share $k$ of its weights keeps about a share $k$ of the *variance* of what it
# computes, so $\sqrt k$ of its standard deviation. After $L$ layers in a row that nothing rescales, $k^{L/2}$ is left.

# %% tags=["parameters"]
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

# %% tags=["hide-input"]
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

# %%
bench = page.Bench.prepared(settings, store)

# %% [markdown]
# ## What is measured
#
# The **signal** of a layer is the standard deviation, over held-out images, of what enters its ReLU (or, at the end, of
# the logits), relative to the parent's. A network whose signal is gone answers the same whatever it is shown. Scale is not
# content: batch statistics give a random layer its scale back, not its meaning. So beside it stands the **agreement**, the
# correlation over images between the masked network's values and the parent's, all units of a layer together. The
# **gradient** is what a module's loss sends to the scores of a layer, $W \odot \partial L / \partial (W \odot \mathcal
# M)$, as a norm relative to that of the parent without a mask, with the same grafting layers.

# %%
done = bench.before()
rows = records.frame(done)

# %% [markdown]
# ## Before training: signal, agreement and gradient

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The deep parent under its first mask, before any training. Left: signal of every layer relative to the parent's. Middle: agreement with the parent. Right: gradient of the scores relative to that of the parent without a mask. Lines are geometric means (left, right) or means over seeds, small points single seeds. Dotted, left: what a random share k leaves if nothing rescales it, k to the power of half the depth.", "name": "fig-deep-before"}, "image": {"alt": "Three panels over the depth of the network, each with four lines: two initial scores with two kinds of statistics. On the left, on a logarithmic axis, the line of Kaiming scores with frozen statistics falls furthest; on the right its gradient is by far the smallest in the first layers."}}
page.draw_before(rows, settings)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.signal_table(rows, settings)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.gradient_table(rows, settings)

# %% [markdown]
# The same masks, judged by the network's own answer (the largest of its logits), before a single step. *Different outputs*
# counts the distinct vectors of logits, float32 and to the last bit; *the same answer* is how often it gives its most
# frequent one. The fully connected parents have biases and no normalisation.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.answers_table(rows, settings)

# %% tags=["hide-input"]
page.what_is_left(rows, settings, bench.data.num_classes)

# %% [markdown]
# ## After a short co-training
#
# Modules of a few classes are trained for a few epochs on a few images by all four combinations, without stemming, with our
# recipe (annealed rates, grafting layers that start from the parent's own logit; [deviations](../deviations.md)). The rate of
# the scores is the best of a short list by the vote's accuracy on held-out images, for each combination by itself and with
# the first seed; the other seeds take it as it is. The grafting layers have a tenth of it.

# %%
trained, after = bench.after()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.after_table(after, bench)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "After the short co-training, at the chosen rates: signal and agreement by layer of the modules as deployed, with their own running statistics (solid) or the parent's (dashed). Lines are means over seeds, points single seeds (means over their modules; geometric means of signals).", "name": "fig-deep-after"}, "image": {"alt": "Two panels over the depth of the network with four lines each, as in the figure before training: signal on a logarithmic axis, and agreement with the parent."}}
page.draw_after(after)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.signal_after_table(after, settings)

# %% tags=["hide-input"]
page.what_was_learnt(after, bench)

# %% [markdown]
# ## What statistics of its own cost a module
#
# A recomposed network holds one set of weights, the union of its modules' masks, and for each of its modules a packed mask,
# a grafting layer, and, with statistics `batch`, a set of statistics: a mean and a variance for every channel, and a counter
# for every layer. Only the set of the module that is being run is used; the modules are run one after another anyway, so
# it costs memory and no time. Counted below over the buffers of the networks (`Modules.extra_parameters` counts those of a
# decomposition).

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
networks = pull.untrained()
page.statistics_table(networks)

# %% tags=["hide-input"]
page.extra_parameters(after, settings)

# %% [markdown]
# ## Eq. 1 at this size
#
# The stemming loss divides by the number of scores. [Module stemming](module_stemming.ipynb) has its three readings: `total`
# ($\alpha / n$) and `layer` ($\alpha / (L\, n_\ell)$) are literal, `scale_free` is ours. With $p = 1$ the pull on a score has
# one strength, the factor, whatever its distance, so it can move a score in an epoch by at most
#
# $$\text{factor} \times \frac{\text{rate}}{1 - \text{momentum}} \times \text{steps},$$
#
# here relative to the standard deviation $\sigma_\ell$ of the layer's initial scores, at $\alpha = 1$, with the rates and
# batches of the paper's Table 4 and all official training images.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
strengths = pull.strengths(networks)
pull.reach_table(strengths)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How far Eq. 1 can move a score in an epoch at α = 1, in initial standard deviations of its layer: one bar from the least to the most reached layer, one point the mean over scores. Dashed: one standard deviation.", "name": "fig-deep-reach"}, "image": {"alt": "On logarithmic axes, the reach of the readings total and layer falls with the number of weights of the network, from about one standard deviation in FC1 to far below a hundredth in the largest networks; the scale-free reading stays at one."}}
pull.draw_reach(strengths)
plt.show()

# %% [markdown]
# ### What the pull works against
#
# A short reach does not make a pull weak by itself; what counts is what it competes with, step by step.
#
# **Weight decay** pushes every score towards zero with $\lambda |\mathcal S|$. The stemming loss pulls to the average of the
# epoch *before*. Where decay is the stronger of the two, the scores of all modules sink below that average together; the pull then has
# the same sign in all of them, works against the decay, and brings no two of them closer. A score of one $\sigma_\ell$ is
# held where the factor exceeds $\lambda \sigma_\ell$, and later, at a smaller $\alpha$, once decay has shrunk it. (The paper prints
# $\lambda = 5 \times 10^{-1}$, which we [read as](../deviations.md) $5 \times 10^{-4}$; as printed, every $\alpha$ of the next table would be a
# thousand times larger.)
#
# **The modules' own gradients** differ, and drive them apart: $d$ is the gradient of a score in one module minus its mean
# over the modules. Where $|d|$ is smaller than the factor, the pull is the stronger of the two.

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
pull.decay_table(strengths)

# %% [markdown]
# The gradients were measured above, on the first masks. (That of so few images is noisy and comes out too large: the
# shares are lower bounds.)

# %%
tried = bench.pulled()
pulls = page.Pulls.of(tried, settings)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.against_table(rows, bench)

# %% [markdown]
# What comes of it in a few steps can be tried: two modules by the published recipe (Kaiming scores, constant rate 0.1,
# batches of 32, statistics of the batch), the first epoch without stemming as in Algorithm 1, from the same start; with
# weight decay and without.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.pulled_table(pulls)

# %% tags=["hide-input"]
page.what_the_pull_does(rows, strengths, pulls)

# %% tags=["hide-input"]
page.for_figure_4(strengths)

# %% tags=["hide-input"]
claim = page.claim(pulls)
claims.publish(store, "deep_networks", [claim])
everything = [*done, *trained, *tried]
records.export(store, "deep_networks", everything, settings.shown())
page.judged_claim(claim)

# %% [markdown]
# **What it means.** In these short runs a deep network learnt far better with two things that the paper does not mention. The
# statistics of batch normalisation follow the module, and are then a part of it: numbers to keep for every module, few beside its
# mask. And the first mask keeps what carries the signal: a random one with statistics of the batch has a scale but little
# content, and its scores have to find a network before they can find a class. Both are options of `modlib.cotrain`: `norm="batch"` is the
# default; `init="magnitude"` is not, because the paper starts from Kaiming scores. All of this page keeps the same share of
# every layer, as the paper does; how the edges are shared out among the layers [matters too](figure4.ipynb).
#
# **What was cut.** The modules of a few classes, a few epochs of few images, a short list of rates, tuned with one seed and
# judged on the images that chose them (where a chosen rate is the first or the last of its list, a rate beyond it may be better); a reduced network, whose parent
# stays points behind what VGG16 reaches at full size ([by how much](figure4.ipynb)). Nothing here says where long runs end; the test images are not read.
#
# **Re-run it:** `modlib reproduce deep_networks -p k 0.3`; another network: `-p dataset cifar10 -p model resnet50_quarter`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(everything, "tab-from-deep-networks", settings.shown())
