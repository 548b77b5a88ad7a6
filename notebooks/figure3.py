# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figure 3, re-run: more parameters go with more accuracy, not less
#
# **Question.** How do the share $k$ of edges that a module keeps and the weight $\alpha$ of the stemming loss set what two
# modules need together? And what does it cost in accuracy?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
models: list[str] = ["fc1"]  # parents: fc1 to fc4
ks: list[float] = [0.05, 0.10, 0.20]  # shares of the edges kept in every layer
alphas: list[float] = [0.0, 1.0]  # stemming
seeds: list[int] = [0]  # one trial for each seed
further: list[dict] = []  # further trials, each entry: model, k (default: all), and their seeds
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
epochs: int = 4  # epochs of recipe published (the paper gives none here, 50 for Table 5)
population: int = 1  # decompositions trained side by side: 1 on a processor, many on a GPU
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import claims, figures, records, tables
from modlib.study.pages import figure3
from modlib.study.published import Grid, done_and_failed

figures.use_style()
store = records.Store.at(results)
grid = Grid(dataset, models, ks, alphas, seeds, epochs, parent_epochs, further=further)
done = grid.run(store, population)
curves = figure3.Curves(grid, records.export(store, "figure3", done, grid.parameters))
claims.publish(store, "figure3", [figure3.claim(curves)])

# %% tags=["remove-input"]
figure3.answer(curves)

# %% [markdown]
# **Caveat.** MNIST alone. The values of α are our reading. Settings of one parent are compared with each other, so the
# comparisons are not independent.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "FC1 (the first parent): accuracy against remaining parameters in the last epoch, test images, one point a trial. A line joins the means of one k, from the largest α (left) to the smallest (right). Left: votes of two modules, mean over pairs. Right: the vote of all modules.", "name": "fig-figure3-trade"}, "image": {"alt": "Two scatter plots with one line for each k: every line goes from fewer remaining parameters at large alpha to more at small alpha, and most of them rise on the way."}}
figure3.draw_trade_off(curves, models[:1])
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "The other parents", "code_prompt_hide": "The other parents", "figure": {"caption": "The same for the other parents, one in a row.", "name": "fig-figure3-trade-others"}, "image": {"alt": "The same two scatter plots for every other parent; most lines rise in the same way."}}
if len(models) > 1:
    figure3.draw_trade_off(curves, models[1:])
    plt.show()

# %% [markdown]
# ## "The accuracy of the model decreased as the PRs increased"
#
# "PRs" must mean RPs, the remaining parameters. Every two settings of one parent are compared in the last epoch: does the one
# with more remaining parameters have the lower accuracy? The sentence *holds* where that is so in more than two thirds of
# the comparisons, and is *reversed* where it is so in fewer than one third. Settings differ in $\alpha$ (modules of one
# size, other overlaps), in $k$, or in both.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
figure3.trade_off(curves)

# %% [markdown]
# ## "Close to 0.2 when α = 0"
#
# The paper says of $k = 10\%$ that without stemming two modules need nearly $2k$, the worst there is. The sentence
# *holds* above $1.9\,k$, and *partly* above $1.5\,k$; two independent masks need $2k - k^2$.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
figure3.apart(curves)

# %% [markdown]
# ## Epoch by epoch
#
# The paper's Figure 3 follows two-class networks on MNIST over 50 epochs: above the remaining parameters, below the
# "average accuracy of the module". Its text does not say whether that is the accuracy of a pair's vote or of single
# modules, so both are shown. The recipe is *published*; the values of $\alpha$ are our reading
# ([deviations](../deviations.md)). Nothing is chosen on test images.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "FC1 (the first parent), test images, epoch by epoch: remaining parameters of two-class networks (mean over pairs), accuracy of the vote of two modules (mean over pairs), and accuracy of single modules. Mean over trials, one standard deviation shaded. Dotted: k, the size of a single module.", "name": "fig-figure3"}, "image": {"alt": "A grid of curves over epochs. In the top row, remaining parameters: without stemming they rise from the first epoch towards twice k, and the larger alpha is, the closer they stay to the dotted line at k. The rows below hold the accuracies of pairs and of single modules."}}
figure3.draw_epochs(curves, models[:1])
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "The other parents", "code_prompt_hide": "The other parents", "figure": {"caption": "The same for the other parents.", "name": "fig-figure3-others"}, "image": {"alt": "The same grid of curves for every other parent; the curves have the same shapes."}}
if len(models) > 1:
    figure3.draw_epochs(curves, models[1:])
    plt.show()

# %% tags=["hide-cell"] mystnb={"markdown_format": "myst"}
figure3.last_epoch(curves)

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - Stemming brings two modules close to the size of one; without it they share few edges.
# - A strong pull ($\alpha = 1$) is paid for with accuracy. A weak one (0.05 or 0.1) shows no cost on average, and saves less.
# - The paper's sentence says the opposite, and most comparisons of settings contradict it.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
print(done_and_failed(done))
print("remaining parameters of pairs between k and 2k:", curves.lie_between_k_and_2k())
# two versions of the engine add up in another order: records of both together make the last check False
print("first epoch, which has no stemming loss, the same for every alpha:", curves.start_alike())

# %% [markdown]
# **Re-run it:** `modlib reproduce figure3 -p ks "[0.5]"`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(done, "tab-from-figure3", grid.parameters)
