# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Turning N logits into one class: the grafting layer
#
# **Question.** A small layer behind the parent's logits turns them into "this class" or "another". Does it make a module
# a better single-class classifier than the parent itself, as the paper says?
#
# The paper (section "Grafting Layer") puts one fully connected layer behind the last layer of every masked parent. It is
# trained with a low rate while the masks are, and never again. It "uses all $N$ logits ... to predict the single-class
# classification, thus allowing it to outperform the original $N$-class trained model for single-class classification"
# {cite:p}`kingetsu2021`.

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges that every module keeps in every layer
alpha: float = 4.0  # weight of the stemming loss
epochs: int = 15  # epochs of each decomposition
batch_size: int = 16  # images in a batch of the decomposition
seed: int = 0  # seed of the parent and of the decompositions
results: str = ""  # folder of records, parents and modules; empty: keep none

# %% tags=["hide-input"]
import time

import matplotlib.pyplot as plt
import torch

from modlib import grafting
from modlib.seeds import generator
from modlib.study import example, figures, tables
from modlib.study.pages import grafting_layer as page
from modlib.study.records import Store
from modlib.study.single_class import masked_logits
from modlib.zoo import datasets, training

figures.use_style()
started = time.perf_counter()
settings = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "k": k, "alpha": alpha}
settings |= {"epochs": epochs, "batch_size": batch_size, "seed": seed}

# %% [markdown]
# ## What it computes
#
# With the masked parent's logits $\hat{\mathbf y} \in \mathbb R^N$, module $c$ computes
#
# $$\mathbf z_c = A_c\,\hat{\mathbf y} + \mathbf b_c, \qquad A_c \in \mathbb R^{2 \times N},\ \mathbf b_c \in \mathbb R^2,$$
#
# row 0 for "another class", row 1 for "this class": $2N + 2$ numbers. The module's confidence is the softmax of "this
# class". A softmax of two depends on their difference alone, the *log-odds*
#
# $$d_c = (\mathbf a_{c,1} - \mathbf a_{c,0}) \cdot \hat{\mathbf y} + b_{c,1} - b_{c,0}, \qquad
# \text{confidence} = \frac{1}{1 + e^{-d_c}},$$
#
# so that only $N + 1$ of the numbers count. The module says yes where $d_c > 0$.

# %% tags=["nbval-check-output"]
logits = torch.tensor([1.0, 4.0, 2.0])  # of a parent with N = 3
weight = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])  # rows: another class, this class
bias = torch.tensor([0.25, -0.25])
grafted = grafting.graft(logits, weight, bias)
print("grafted logits        ", grafted.tolist())
print("log-odds d            ", float(grafting.log_odds(grafted)))
print("confidence            ", round(float(grafted.softmax(0)[1]), 4))
print("sigmoid of d          ", round(float(grafting.log_odds(grafted).sigmoid()), 4))
shifted = grafting.graft(logits, weight + torch.tensor([3.0, -1.0, 2.0]), bias + 1)  # the same added to both rows
print("d, both rows shifted  ", float(grafting.log_odds(shifted)))
print("numbers for N = 3, 10 ", [2 * n + 2 for n in (3, 10)])

# %% [markdown]
# ## Two ways to start
#
# The paper does not say how the layer starts. `random` draws it like any linear layer, uniform in $\pm 1/\sqrt N$.
# `own_logit`, ours, starts by reading the parent: $d_c$ is logit $c$ minus the mean of the others.

# %% tags=["nbval-check-output"]
weight, bias = grafting.initial_grafting([1], num_logits=5, init="own_logit", generator=generator(0))
print("another class", weight[0, 0].tolist(), "bias", float(bias[0, 0]))
print("this class   ", weight[0, 1].tolist(), "bias", float(bias[0, 1]))
weight, bias = grafting.initial_grafting(range(10), num_logits=10, init="random", generator=generator(0))
print("random, all 10 modules within ±1/√10:", bool(weight.abs().max() <= 10**-0.5), "| shape", list(weight.shape))

# %% [markdown]
# ## Four single-class classifiers
#
# Three decompositions of one parent: modules with each of the two starts, and, as a control, modules with $k = 100\%$.
# Their masks keep every edge, so that only the grafting layer learns: it shows what that layer does by itself.

# %%
data, store = datasets.load(dataset), Store.at(results)
trials = page.trials(**settings)
made = [example.decompose(trial, data, store) for trial in trials]
own_logit, random, control = (modules for modules, _ in made)

# %% tags=["nbval-check-output"]
print("numbers in a grafting layer:", own_logit.extra_parameters()["grafting"], "= 2N + 2 =", 2 * data.num_classes + 2)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What the grafting layers learn: the weight of each of the parent's logits (columns) in each module's log-odds (rows), that is, row 1 minus row 0 of its layer. Red speaks for \"this class\", blue for \"another\".", "name": "fig-grafting-weights"}, "image": {"alt": "Two heat maps of ten modules by ten logits, one for each start of the layer; where the diagonal is red, a module trusts the parent's logit of its own class."}}
starts = {"own_logit (ours)": own_logit, "random": random}
page.draw_weights(starts)
plt.show()

# %% tags=["hide-input"]
page.own_logits(starts)

# %% [markdown]
# Now each is asked "is it class $c$?" for every class and every image:
#
# - **parent**: yes, where logit $c$ is its largest;
# - **masked, no grafting layer**: the same rule on the logits of module $c$'s masked parent;
# - **module**: yes, where its log-odds are above 0;
# - **parent with grafting layer**: the control, the same with all edges kept.


# %%
def answers(split: str) -> page.Answers:
    """Each classifier's yes or no, [B, C], and whether it is so, [B, C]."""
    images, labels = data.split(split)
    inputs = data.inputs(images)
    classes = torch.tensor(own_logit.classes)
    bare = torch.stack(masked_logits(own_logit, inputs), dim=1)  # of each module's masked parent, [B, C, N]
    said = {
        page.PARENT: training.logits(own_logit.parent, data, split)[0].argmax(1)[:, None] == classes,
        page.BARE: bare.argmax(2) == classes,
        page.MODULE: own_logit.log_odds(inputs) > 0,
        page.RANDOM: random.log_odds(inputs) > 0,
        page.CONTROL: control.log_odds(inputs) > 0,
    }
    return page.Answers(split, said, labels[:, None] == classes)


held_out, test = answers("held_out"), answers("test")

# %% [markdown]
# Most images are of other classes, so that a classifier which always says no is right about most of them. Two more
# numbers tell more: of the images of its class, how many does it miss; of the others, how many does it claim?

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.errors_table(held_out, test)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Errors of single-class classification on the test images, images missed and wrongly claimed, as a share of all images: mean over the classes (left), and by class (right, without the masked network that has no grafting layer).", "name": "fig-single-class"}, "image": {"alt": "A bar chart of the mean errors of four classifiers, and dots for the errors of three of them, class by class."}}
page.draw_errors(test)
plt.show()

# %% [markdown]
# ## Does the module outperform its parent?
#
# Both answer the same questions, so the comparison is paired: for every image, the share of the $N$ questions that the
# module answers right, minus the parent's. The mean over the images has a standard error; a difference of more than two
# of them is called one.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.differences_table(held_out, test)

# %% tags=["hide-input"]
page.what_came_out(trials[0], test, held_out)

# %% [markdown]
# **What it means.** One would expect a gain: the parent was trained to choose one of $N$ classes, its rule "logit $c$ is the
# largest" was never fitted to the question "$c$ or not", and a grafting layer is, with a threshold of its own and the other logits
# as evidence. The paired differences above say whether there is one; on the published page there is none, not for the module, and
# not for the same layer on the whole parent. Five trials, and other ways to ask the parent, are among the
# [controls](controls.ipynb). On the mask alone, without the layer, see "masked, no grafting layer" in {numref}`tab-single-class`: the masks were trained *with*
# their grafting layers, and are not made to be read without.
#
# **Re-run it:** `modlib reproduce grafting_layer -p k 0.05`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
records = [record for _, of_trial in made for record in of_trial]
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-grafting-layer", settings, spent)
