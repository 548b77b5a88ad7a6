# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does the paper hold? A scoreboard
#
# **Question.** Claim by claim: what does the paper say, what came out here, and does it hold?

# %% tags=["parameters", "remove-input"]
table1: str = "quick"  # whose trials are read: those of the quick or of the published run of Table 1
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
from modlib.study import figures, tables
from modlib.study.pages import scoreboard as page
from modlib.study.records import Store

figures.use_style()
evidence = page.read(table1, Store.at(results))
board = page.board_of(evidence)

# %% tags=["remove-input"]
page.findings(evidence, board)

# %% [markdown]
# **Caveat.** Verdicts are computed from numbers by [rules](rules) that we set. Convolutional networks were not run at the
# paper's size: what is said of them stays open.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "How many claims of each group got which verdict. A claim with several rows counts once.", "name": "fig-scoreboard"}, "image": {"alt": "A horizontal bar for each of the groups central claims, numbers and details, and slips of the text; its parts are the numbers of claims that hold, hold in part, do not hold, or are open."}}
page.draw_counts(board)

# %% [markdown]
# ## Central claims
#
# What the paper is about. Each card leads to the page that has the evidence.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.group_cards(board, page.CENTRAL)

# %% [markdown]
# ## Numbers and details
#
# Whether what the paper prints, or says in passing, comes out again. The trials are of recipe *published*.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.group_cards(board, page.NUMBERS)

# %% [markdown]
# ## Slips of the text
#
# Sentences that the data, an identity or the paper's own tables decide. They say nothing against the method.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.group_cards(board, page.SLIPS)

# %% [markdown]
# ## What is ours
#
# These rows are no claims of the paper. The vote loss, the annealed rates and the grafting layers' start are ours.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.ours_table(evidence)

# %% [markdown]
# (rules)=
# ## How verdicts come about
#
# | verdict | means |
# |---|---|
# | holds | our runs show what the claim says |
# | close | a number that is not the paper's, but near it |
# | holds in part | a part of it holds, and the card says which |
# | does not hold | our runs, or the paper's own numbers, contradict it |
# | open | not run at a scale that could decide it, or not decided by what was run |
#
# A *number* holds where our mean lies within two of our standard deviations of the paper's, which prints no spread; or within
# half a percentage point of accuracy, 0.01 of the Jaccard index, or 0.001 of remaining parameters. It is *close* within a
# point, 0.03, or 0.005. *No change* over trials holds if all
# print the same number, and is close if they differ by less than half a point.
# Where the paper does not say which $\alpha$ a number is of, it holds where it does at both ends, 0 and 1. It stays open
# where an $\alpha$ in between may give it.
#
# *High accuracy* is at most a point behind the parents, in part at most five. *Close to* $2k$ is above $1.9\,k$, in part
# above $1.5\,k$. *Competitive* is at most a point below the best older method; a parent is *almost equal* to its reference
# at most half a point below it; a network for all classes is *small* with at most half of the weights. On other data than
# the paper's MNIST FC1, what trials could decide stays open.

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - Most of what the paper is about holds, or holds in part. Three central claims don't: a module is no better than its parent,
#   modules overlap less than those of older methods, and more parameters don't go with less accuracy.
# - What convolutional networks of the paper's size do stays open.
# - Every verdict follows from numbers by a rule: where you would draw the line elsewhere, the card has the numbers.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
print(page.summary(board))

# %% [markdown]
# **Re-run it:** `modlib reproduce scoreboard`, after `modlib reproduce table1`.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(evidence.done, "tab-from-scoreboard", evidence.column.parameters)
