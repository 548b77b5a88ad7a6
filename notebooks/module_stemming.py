# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Making modules use the same edges: module stemming
#
# **Question.** Modules that are trained side by side choose different edges, and a network recomposed from them is large.
# How can they be made to choose the *same* edges, and what does it cost?
#
# The paper (sections "Module Stemming" and "Module Co-training") has two means: all modules start from the same scores,
# and a *stemming loss* pulls every module's scores to a common average {cite:p}`kingetsu2021`. This page takes them one
# by one, then compares the two ways of choosing what to pull to, and adds a loss of our own.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges that every module keeps in every layer
alpha: float = 4.0  # weight of the stemming loss
bases: list[int] = [0, 3]  # base classes tried with method A
vote: float = 0.9  # weight of the vote loss in the last section, in (0, 1]
vote_alpha: float = 16.0  # weight of the stemming loss beside it
epochs: int = 10  # epochs of each decomposition
batch_size: int = 16  # images in a batch of the decomposition
seed: int = 0  # seed of the parent and of the decompositions
results: str = ""  # folder of parents; empty: keep none

# %% tags=["hide-input"]
import time
from functools import partial

import matplotlib.pyplot as plt
import torch

import modlib
from modlib import masking, recipes, stemming
from modlib.study import figures, tables
from modlib.study.pages import module_stemming as page
from modlib.study.records import Store
from modlib.study.trials import measure, trained_parent
from modlib.zoo import datasets

figures.use_style()
started = time.perf_counter()

# %% [markdown]
# ## Initial score sharing
#
# A mask depends on the scores that it starts from. With shared scores all modules start from one mask; with scores of
# their own, two modules that keep a share $k$ each have little in common: independent masks have a Jaccard index of
# $k / (2 - k)$, and their union keeps $1 - (1 - k)^2$.

# %%
data = datasets.load(dataset)
parent = trained_parent(data, model, seed, parent_epochs, Store.at(results))
weights = masking.maskable_parameters(parent)
classes = tuple(range(data.num_classes))
together = page.starting_masks(parent, k, seed, classes, shared=True)
apart = page.starting_masks(parent, k, seed, classes, shared=False)

# %% tags=["nbval-check-output"]
total = sum(masking.sizes(weights).values())
print("shared scores, Jaccard index:     ", together.mean_jaccard())
print("edges in the union of all modules:", round(together.remaining() * total), "of", total)
print("independent masks, Jaccard index: ", round(k / (2 - k), 4), "| union of a pair:", round(1 - (1 - k) ** 2, 4))

# %% tags=["hide-input"]
page.initial_sentence(apart)

# %% [markdown]
# ## The stemming loss
#
# With $\mathcal S^*$ the scores of the previous epoch, the loss of module $c$ is its cross-entropy plus (Eq. 1)
#
# $$\frac{\alpha}{L \times M \times N} \sum_{\ell}^{L} \sum_{m}^{M} \sum_{n}^{N} \Big\| \mathcal S_{c,\ell,m,n} -
# \frac 1N \sum_{c'=1}^{N} \mathcal S^*_{c',\ell,m,n} \Big\|_p^p .$$
#
# The formula is written for layers of equal size $M \times N$ "for simplicity", and uses $N$ for the classes too. Real
# layers differ in size, so the factor in front of one score's $|\mathcal S - \mathcal S_\text{avg}|^p$ has to be read.
# With $n_\ell$ scores in layer $\ell$, $n$ in all, and $L$ layers:
#
# - `total`: $\alpha / n$, the same for every score; the default here;
# - `layer`: $\alpha / (L\, n_\ell)$, every layer weighs the same, so that small layers are pulled harder;
# - `scale_free`, ours: $\alpha\, \sigma_\ell / (\text{steps per epoch} \cdot \text{rate} / (1 - \text{momentum}))$, with
#   $\sigma_\ell$ the standard deviation of the initial scores. With $\alpha = 1$ and $p = 1$ the pull can move a score by
#   one $\sigma_\ell$ in an epoch, whatever the size of network, data set and batch.
#
# The first two depend on the size of the network: at the same $\alpha$, a larger network is pulled less. All that the paper
# leaves open is on the page of [deviations](../deviations.md).

# %% tags=["hide-input", "nbval-check-output"] mystnb={"markdown_format": "myst"}
recipe = recipes.ours(k=k, alpha=alpha, epochs=epochs, batch_size=batch_size)
page.factors_table(recipe, weights, len(data.train_labels))

# %% [markdown]
# The gradient has a closed form, which the faster engine for such a parent uses: factor times the sign of the difference for
# $p = 1$, factor times twice the difference for $p = 2$. Here it is beside what automatic differentiation finds.

# %% tags=["nbval-check-output"]
scores = torch.tensor([[0.50, 0.25], [1.00, 0.75]], requires_grad=True)
average = torch.tensor([[0.50, 0.50], [0.75, 0.25]])
for p in (1, 2):
    loss = stemming.stemming_loss({"layer": scores}, {"layer": average}, {"layer": 0.5}, p)
    (automatic,) = torch.autograd.grad(loss, scores)
    closed = torch.zeros_like(average)
    stemming.add_gradient(closed, scores.detach(), average, torch.tensor(0.5), p)
    print(f"p = {p}: loss {loss.item()}, gradient {closed.tolist()}, equal: {torch.equal(automatic, closed)}")

# %% [markdown]
# ## Algorithm 1
#
# Module co-training, as in `modlib.cotraining`:
#
# 1. initialise the scores, the same for all modules;
# 2. first epoch: train every module's mask and grafting layer without stemming;
# 3. every later epoch: $\mathcal S_\text{avg}$ is the mean, over the modules, of the scores at the end of the epoch
#    before; train every module with the stemming loss, pulled to it.
#
# Below, the same parent is decomposed with $\alpha = 0$ and with stemming. The rates are annealed, the grafting layers
# start from the parent's own logit, and batches are larger than the paper's 32 where the parameters say so (our recipe);
# everything else is as in the paper.

# %%
fit = partial(
    modlib.cotrain,
    parent,
    data,
    k=k,
    epochs=epochs,
    batch_size=batch_size,
    seed=seed,
    schedule="cosine",
    grafting_init="own_logit",
    device="cpu",
)
history = page.History(data, together)
free = fit(alpha=0.0, callback=history.watch(page.FREE))
stemmed = fit(alpha=alpha, callback=history.watch(page.STEMMED))

# %% tags=["nbval-check-output"]
one, other = history.first_epoch
print("masks after the first epoch, with and without stemming, equal:", all(torch.equal(one[n], other[n]) for n in one))
share = stemmed.remaining(classes[:1])
identity = (2 * share / (1 + stemmed.masks.jaccard()) - stemmed.masks.remaining_of_pairs()).abs().max()
print("remaining parameters of every pair are 2k / (1 + Jaccard index):", bool(identity < 1e-12))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Co-training with and without the stemming loss, from the same shared scores. Left: Jaccard index of the masks, mean over all pairs of modules. Middle: remaining parameters of pairs, mean over all pairs; the dashed lines are one module and two modules with no edge in common. Right: accuracy of the vote of all modules on held-out images.", "name": "fig-stemming-epochs"}, "image": {"alt": "Three panels over epochs, each with one curve for training with stemming and one for training without: Jaccard index, remaining parameters, accuracy."}}
page.draw_epochs(history, share)
plt.show()

# %% tags=["hide-input"]
with_it, without = (measure(modules, data, "held_out") for modules in (stemmed, free))
page.with_and_without(with_it, without, data, recipe, share)

# %% [markdown]
# What the loss does to the scores shows between any two modules: an edge that both keep lies in the upper right of
# {numref}`fig-scores`. The loss pulls all modules' scores of an edge together, that is, to the diagonal.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Scores of the edges of the first layer in two modules, without (left) and with stemming (right): edges that either module keeps, at most 1,000 drawn at random, and as many that neither keeps. Dashed: the lowest score that is kept.", "name": "fig-scores"}, "image": {"alt": "Two scatter plots of one module's scores against another's; colours tell edges kept by both modules, by one, and by none; with stemming the points lie closer to the diagonal the stronger the pull."}}
page.draw_scores({page.FREE: free, page.STEMMED: stemmed}, seed)
plt.show()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "First-layer masks without stemming, at the image's size: the number of hidden neurons that keep an edge from each pixel.", "name": "fig-masks-free"}, "image": {"alt": "Five small images, one for each of five modules, bright where many hidden neurons read a pixel."}}
first, shape = next(iter(weights)), tuple(data.train_images.shape[1:3])
figures.first_layer_masks(free.masks.masks[first][:5], shape, classes[:5])
plt.show()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same with stemming: the more the modules share, the more the images look alike.", "name": "fig-masks-stemmed"}, "image": {"alt": "Five small images as before, of the modules trained with stemming."}}
figures.first_layer_masks(stemmed.masks.masks[first][:5], shape, classes[:5])
plt.show()

# %% [markdown]
# ## What to pull to: a base class, or the average
#
# The paper tried two ways. **Method A**: train the module of one base class alone, then all others, pulled to its scores.
# **Method B**: Algorithm 1, the average of all. It found the accuracy of A "not equal to or better than" that of B, and no
# rule for a good base class other than brute force. Here is A from some base classes, at the same $\alpha$ and epochs
# (twice: the base first, then the others).

# %%
from_base = {base: fit(alpha=alpha, method="base", base_class=base) for base in bases}

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
measured = {page.AVERAGE: with_it}
measured |= {f"A, base class {base}": measure(modules, data, "held_out") for base, modules in from_base.items()}
count = len(data.held_out_labels)
page.decompositions_table(
    measured,
    f"Methods A and B at α = {alpha:g} on {count:,} held-out images (n = 1 seed). Remaining parameters and accuracy of the "
    "vote of pairs are means over all pairs.",
    "tab-methods",
)

# %% tags=["hide-input"]
page.a_or_b(measured, data)

# %% [markdown]
# ## Ours: a loss for the vote
#
# In the paper, every module learns its own yes or no, and nothing in its loss knows that the modules will vote. Since they
# are co-trained anyway, their log-odds $d_1, \dots, d_N$ on the same images are there, and the vote can be trained:
#
# $$\text{vote loss} = -\log \frac{e^{d_y(\mathbf x)}}{\sum_c e^{d_c(\mathbf x)}}, \qquad
# (1 - v) \sum_c \text{CE}_c + v\,N\,\text{vote loss} + \text{stemming}.$$
#
# With $v = 0$, the default, this is the paper's objective, and every result "of the paper's method" in this book is with
# $v = 0$. Nothing else changes, neither the masks' size nor recomposing. The vote loss has gradients of another size, so that an
# $\alpha$ does not compare between different $v$: it gets one of its own here.

# %%
voted = fit(alpha=vote_alpha, vote=vote)

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
with_vote = measure(voted, data, "held_out")
page.decompositions_table(
    {f"v = 0, α = {alpha:g}": with_it, f"v = {vote:g}, α = {vote_alpha:g}": with_vote},
    f"Without and with the vote loss, on {count:,} held-out images (n = 1 seed).",
    "tab-vote",
)

# %% tags=["hide-input"]
page.of_the_vote(with_vote, with_it, data)

# %% [markdown]
# **What it means.** The stemming loss decides how much the modules share, from little to one mask for all; what that costs
# in accuracy is the difference computed above. How hard it pulls at a given $\alpha$ depends on the parent, the batch and
# the reading of Eq. 1 ({numref}`tab-factors`), so that an $\alpha$ compares within a page, not between networks.
# [Recomposing](recomposing.ipynb) shows what shared edges are worth for subsets; the [evaluation](evaluation.ipynb) and
# [Table 1](table1.ipynb) look at it again, the latter over five seeds.
#
# **Re-run it:** `modlib reproduce module_stemming -p alpha 1 -p bases "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "k": k, "alpha": alpha, "bases": bases}
shown |= {"vote": vote, "vote_alpha": vote_alpha, "epochs": epochs, "batch_size": batch_size, "seed": seed}
tables.where_from([], "tab-from-module-stemming", shown, time.perf_counter() - started)
