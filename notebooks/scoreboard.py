# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Judging the claims: a scoreboard
#
# **Question.** Claim by claim: what does the paper say, what came out here, and does it hold?
#
# Verdicts are computed from numbers: of the trials of [Table 1](table1.ipynb), of the paper's own tables, of the data,
# or on the page that has the evidence. A few are fixed, where the row itself says why: an identity decides it, or nothing was run.
#
# | verdict | means |
# |---|---|
# | holds | our runs show what the claim says |
# | partly | a part of it holds, and the row says which |
# | does not hold | our runs, or the paper's own numbers, contradict it |
# | open | not run at a scale that could decide it, or not decided by what was run |
#
# A claim about a *number* holds where our mean lies within two of our standard deviations of the paper's, which prints no
# spread, or within half a percentage point of accuracy, 0.01 of the Jaccard index, or 0.001 of remaining parameters, which
# is [the same](evaluation.ipynb). Where the paper does not say which $\alpha$ a number is of, it holds where
# it does at both ends, 0 and 1, and stays open where an $\alpha$ in between may give it (over all eight columns of Table 1, at $\alpha = 1$). *High accuracy* is at most a point behind the parents (partly: five); *close to* $2k$ is above $1.9\,k$ (partly:
# $1.5\,k$). On other data than the paper's MNIST FC1, what trials could decide stays open.

# %% tags=["parameters"]
table1: str = "quick"  # whose trials are read: those of the quick or of the published run of Table 1
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["hide-input"]
from modlib.study import figures, tables
from modlib.study.pages import scoreboard as page
from modlib.study.records import Store

figures.use_style()

# %% [markdown]
# ## The evidence
#
# The trials of Table 1, read where they have been run, and the paper's tables.

# %%
evidence = page.read(table1, Store.at(results))
board = page.board_of(evidence)

# %% [markdown]
# ## The verdicts

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.board_table(evidence, board)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How many claims got which verdict; a claim that has several rows, such as one for each data set, counts once; where they differ, as *partly* if any of them holds in part, else as *open*.", "name": "fig-scoreboard"}, "image": {"alt": "A horizontal bar for each verdict: holds, partly, does not hold, open; its length is the number of claims."}}
page.draw_counts(board)

# %% [markdown]
# ## What is ours
#
# These rows are no claims of the paper. The vote loss, the annealed rates and the grafting layers' start are ours.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.ours_table(evidence)

# %% tags=["nbval-check-output"]
print(page.summary(board))

# %% tags=["hide-input"]
page.findings(evidence, board)

# %% [markdown]
# **Re-run it:** `modlib reproduce scoreboard`, after `modlib reproduce table1`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(evidence.done, "tab-from-scoreboard", evidence.column.parameters)
