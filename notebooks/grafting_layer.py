# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Grafting layers: a module is no better than its parent
#
# **Question.** A small layer behind the parent's logits turns them into "this class" or "another". Does it make a module a
# better single-class classifier than the parent itself, as the paper says?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges that every module keeps in every layer
alpha: float = 4.0  # weight of the stemming loss
epochs: int = 15  # epochs of each decomposition
batch_size: int = 16  # images in a batch of the decomposition
seed: int = 0  # seed of the parent and of the decompositions
results: str = ""  # folder of records, parents and modules; empty: keep none

# %% tags=["remove-cell"]
import time

import matplotlib.pyplot as plt
import torch

from modlib import grafting
from modlib.seeds import generator
from modlib.study import example, figures, tables
from modlib.study.pages import grafting_layer as page
from modlib.study.records import Store
from modlib.zoo import datasets

figures.use_style()
started = time.perf_counter()
settings = {"dataset": dataset, "model": model, "parent_epochs": parent_epochs, "k": k, "alpha": alpha}
settings |= {"epochs": epochs, "batch_size": batch_size, "seed": seed}
data, store = datasets.load(dataset), Store.at(results)
trials = page.trials(**settings)
made = [example.decompose(trial, data, store) for trial in trials]
own_logit, random, control = (modules for modules, _ in made)
held_out, test = (page.Answers.of(own_logit, random, control, data, split) for split in ("held_out", "test"))

# %% tags=["remove-input"]
page.answer(trials[0], test, held_out)

# %% [markdown]
# **Caveat.** One decomposition by our recipe without vote loss. [Controls](controls.ipynb) has several trials, and other
# ways to ask the parent.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Errors of single-class classification on the test images (images missed, and images wrongly claimed), as a share of all images. Left: mean over the classes. Right: by class, without the masked network that has no grafting layer.", "name": "fig-single-class"}, "image": {"alt": "A bar chart of the mean errors of four classifiers, and dots for the errors of three of them, class by class."}}
page.draw_errors(test)
plt.show()

# %% [markdown]
# ## What it computes
#
# The paper (section "Grafting Layer") {cite:p}`kingetsu2021` puts one fully connected layer behind the last layer of every
# masked parent. It is trained with a low rate while the masks are, and never again. It "uses all $N$ logits ... to predict
# the single-class classification, thus allowing it to outperform the original $N$-class trained model".
#
# With the masked parent's logits $\hat{\mathbf y} \in \mathbb R^N$, module $c$ computes
#
# $$\mathbf z_c = A_c\,\hat{\mathbf y} + \mathbf b_c, \qquad A_c \in \mathbb R^{2 \times N},\ \mathbf b_c \in \mathbb R^2.$$
#
# Row 0 is "another class" and row 1 "this class", $2N + 2$ numbers in all. The module's *confidence* is the softmax of
# "this class". A softmax of two depends on their difference alone, the *log-odds*
#
# $$d_c = (\mathbf a_{c,1} - \mathbf a_{c,0}) \cdot \hat{\mathbf y} + b_{c,1} - b_{c,0}, \qquad
# \text{confidence} = \frac{1}{1 + e^{-d_c}}.$$
#
# So only $N + 1$ of the numbers count. The module says yes where $d_c > 0$.

# %% tags=["nbval-check-output"]
logits = torch.tensor([1.0, 4.0, 2.0])  # of a parent with N = 3
weight = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])  # another, this class
bias = torch.tensor([0.25, -0.25])
grafted = grafting.graft(logits, weight, bias)
print("grafted logits        ", grafted.tolist())
d = grafting.log_odds(grafted)
print("log-odds d            ", float(d))
print("confidence            ", round(float(grafted.softmax(0)[1]), 4))
print("sigmoid of d          ", round(float(d.sigmoid()), 4))
added = torch.tensor([3.0, -1.0, 2.0])  # to both rows
shifted = grafting.graft(logits, weight + added, bias + 1)
print("d, both rows shifted  ", float(grafting.log_odds(shifted)))
print("numbers for N = 3, 10 ", [2 * n + 2 for n in (3, 10)])

# %% [markdown]
# ## Two ways to start
#
# The paper does not say how the layer starts. `random` draws it like any linear layer, uniform in $\pm 1/\sqrt N$.
# `own_logit`, ours, starts by reading the parent: $d_c$ is logit $c$ minus the mean of the others.

# %% tags=["nbval-check-output"]
weight, bias = grafting.initial_grafting([1], 5, "own_logit", generator(0))
print("another class", weight[0, 0].tolist(), "bias", float(bias[0, 0]))
print("this class   ", weight[0, 1].tolist(), "bias", float(bias[0, 1]))
weight, _ = grafting.initial_grafting(range(10), 10, "random", generator(0))
print("random start, within ±1/√10:", bool(weight.abs().max() <= 10**-0.5))

# %% tags=["remove-input"] mystnb={"figure": {"caption": "What the grafting layers learn: the weight of each of the parent's logits (columns) in each module's log-odds (rows), that is, row 1 minus row 0 of its layer. Red speaks for \"this class\", blue for \"another\".", "name": "fig-grafting-weights"}, "image": {"alt": "Two heat maps of ten modules by ten logits, one for each start of the layer; where the diagonal is red, a module trusts the parent's logit of its own class."}}
page.draw_weights({"own_logit (ours)": own_logit, "random": random})
plt.show()

# %% [markdown]
# ## Five single-class classifiers
#
# One parent is decomposed three times: with each of the two starts, and, as a control, with $k = 100\%$. The control's
# masks keep every edge, so only its grafting layers learn. It shows what such a layer does by itself.
#
# Each classifier is asked "is it class $c$?" for every class and every image. It says yes
#
# - **parent**: where logit $c$ is its largest;
# - **masked, no grafting layer**: by the same rule on the logits of module $c$'s masked parent. Its masks were trained
#   *with* grafting layers, and are not made to be read without;
# - **module** (and **module, random start**): where its log-odds are above 0;
# - **parent with grafting layer**: by the same rule, with all edges kept.

# %%
inputs = data.inputs(data.test_images)
log_odds = own_logit.log_odds(inputs)  # [images, classes]
says_yes = log_odds > 0
is_so = data.test_labels[:, None] == torch.tensor(own_logit.classes)

# %% tags=["nbval-check-output"]
N, numbers = data.num_classes, own_logit.extra_parameters()["grafting"]
print("numbers in a grafting layer:", numbers, "= 2N + 2 =", 2 * N + 2)
same = torch.equal(says_yes == is_so, test.right(page.MODULE))
print("the same answers as in the figure above:", same)

# %% [markdown]
# Most images are of other classes, so always saying no is right about most of them. Two more numbers help. Of the images
# of its class, how many does a classifier miss? Of the others, how many does it claim?

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.errors_table(test)

# %% [markdown]
# ## Does the module outperform its parent?
#
# One would expect a gain. The parent was trained to choose one of $N$ classes, and its rule "logit $c$ is the largest" was
# never fitted to the question "$c$ or not". A grafting layer is, with a threshold of its own.
#
# Both answer the same questions, so they are compared image by image: the share of the $N$ questions that the module
# answers right, minus the parent's. The mean over the images has a standard error. A difference of more than two of them
# is called one.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.differences_table(held_out, test)

# %% [markdown]
# ## Exercise
#
# Is there a grafting layer that says yes exactly where logit $c$ is the largest of $N = 3$? Hint: $d_c$ is a linear function
# of the logits plus a constant. Look at two sets of logits for which the answer is no, and at their mean.
#
# :::{admonition} Solution
# :class: dropdown
#
# No. Take $c = 0$ and the logits $(0, 1, -9)$ and $(0, -9, 1)$. Each has another class on top, so $d_0 \le 0$ for both. At
# their mean, $(0, -4, -4)$, the log-odds are the mean of the two, so they are not above 0 either. But there logit 0 is the
# largest. The parent's own rule can't be copied, so a grafting layer has to be better in another way to make up for it.
#
# ```python
# import torch
# from modlib import grafting
#
# no = torch.tensor([[0.0, 1.0, -9.0], [0.0, -9.0, 1.0]])
# print("largest logits:", no.argmax(1).tolist())
# print("largest logit of the mean:", int(no.mean(0).argmax()))
# draw = torch.Generator().manual_seed(0)
# layers = zip(*grafting.initial_grafting(range(1000), 3, "random", draw))
# for layer in layers:  # the log-odds of the mean are the mean log-odds
#     of_mean = grafting.log_odds(grafting.graft(no.mean(0), *layer))
#     mean = grafting.log_odds(grafting.graft(no, *layer)).mean()
#     assert torch.allclose(of_mean, mean, atol=1e-5)
# ```
#
# ```text
# largest logits: [1, 2]
# largest logit of the mean: 0
# ```
# :::
#
# ```{admonition} Take-aways
# - A grafting layer turns $N$ logits into one number, the log-odds of "this class".
# - It is tiny, and it belongs to the module: nothing is trained when modules are recomposed.
# - It does not make a module better than its parent. Nor does it help the whole parent.
# ```
#
# **Re-run it:** `modlib reproduce grafting_layer -p k 0.05`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
records = [record for _, of_trial in made for record in of_trial]
spent = None if records else time.perf_counter() - started
tables.where_from(records, "tab-from-grafting-layer", settings, spent)
