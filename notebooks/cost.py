# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Modules of fully connected parents train side by side; those of convolutional ones take turns
#
# **Question.** How long does it take to decompose a network, and to use what is recomposed? Which engine does it? The paper
# names this limit itself: a computation time in proportion to the number of classes.

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # fully connected parent: fc1 to fc4; for times only its size matters, it is not trained
deeper: list[str] = ["fc2"]  # further parents of the times with all modules
batch_sizes: list[int] = [32, 128]  # images in a batch
modules: list[int] = [2, 5, 10]  # numbers of modules side by side
k: float = 0.10  # share of the edges kept in every layer
steps: int = 10  # steps in one measurement
repeats: int = 3  # measurements of each program, in turns
threads: int = 1  # threads of both programs
device: str = "cpu"  # where both run: cpu or cuda
seeds: list[int] = [0]  # one decomposition by each engine for each seed
parent_epochs: int = 50  # epochs of their parents (Table 3: 100)
epochs: int = 3  # epochs of recipe ours
alpha: float = 4.0  # stemming
vote: float = 0.9  # weight of the vote loss
convolutional: str = "wrn16_2"  # convolutional parent of the timings, random weights
side: int = 8  # height and width of its images, random pixels
images: int = 32  # images of an epoch
batch: int = 8  # images of a pass
at_once: list[int] = [1, 4]  # numbers of modules of a pass
in_turn: list[int] = [1, 2, 4]  # numbers of modules of an epoch
processes: list[int] = [1]  # processes that share the largest of these numbers out
in_turn_repeats: int = 2  # measurements of passes and epochs, in turns
use_alpha: float = 1.0  # stemming of the modules in use, recipe ours without vote loss
use_images: int = 100  # images of a pass in use
use_repeats: int = 5  # passes of each network, of which the shortest counts
use_ks: list[float] = [0.05, 0.10]  # shares of the edges of the subsets in use
layer_sizes: list[list[int]] = [[49, 784], [490, 784]]  # linear layers, outputs and inputs, in both forms
layer_edges: list[float] = [0.02, 0.10]  # shares of their weights that are not 0
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import claims, figures, tables
from modlib.study.columns import kept_or_scratch
from modlib.study.pages import cost as page

figures.use_style()
store = kept_or_scratch(results)
plan = page.Plan(
    dataset=dataset, model=model, deeper=deeper, batch_sizes=batch_sizes, modules=modules, k=k, steps=steps, repeats=repeats,
    threads=threads, device=device, seeds=seeds, parent_epochs=parent_epochs, epochs=epochs, alpha=alpha, vote=vote,
    convolutional=convolutional, side=side, images=images, batch=batch, at_once=at_once, in_turn=in_turn, processes=processes,
    in_turn_repeats=in_turn_repeats, use_alpha=use_alpha, use_images=use_images, use_repeats=use_repeats,
    use_ks=use_ks, layer_sizes=layer_sizes, layer_edges=layer_edges,
)  # fmt: skip
found = page.Found.run(plan, store)
claims.publish(store, "cost", [page.claim(found)])

# %% tags=["remove-input"]
page.answer(found)

# %% [markdown]
# **Caveat.** Times are of one small CPU in float32, and those of the convolutional network are of random images. Seconds differ
# elsewhere; how they grow with the number of modules should not.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Time against the number of modules. Left: a step of the fully connected parent, all modules side by side (ours) or one after another (the obvious way), medians. Right: an epoch of the convolutional parent, whose modules take turns; dashed: in proportion to their number; square: the largest number shared out over processes. Shortest of several measurements.", "name": "fig-cost"}, "image": {"alt": "Left: two rising lines on logarithmic axes, the obvious way far above ours. Right: points that rise in proportion to the number of modules, and one point for several processes below the last."}}
page.draw(found)
plt.show()

# %% [markdown]
# ## Which engine for what
#
# Use `engine="auto"`. It takes `vectorised` for fully connected parents and trains other networks module by module.
#
# - `vectorised`: all modules side by side; fully connected parents.
# - `modulewise`: one module after another within an epoch; any network. With a vote loss, a module sees the other modules'
#   log-odds in a **table** of one epoch ago.
# - `graphed`: the same, its steps recorded as CUDA graphs; on a GPU, so not timed here.
# - `sequential`: all modules step by step, as the paper reads; any network, the reference of the tests.
#
# ## Side by side: how much faster
#
# Two programs take the same steps on the same data, in turns, so that both meet the same machine:
#
# - the **obvious way**: one module after another, autograd, a full sort of every layer's scores in every forward pass, as
#   edge-popup {cite:p}`ramanujan2020` is commonly written;
# - **ours**: all modules in one pass, the exact top $k$ found near the last threshold, and everything that follows the
#   gradient fused into one pass over memory (`modlib.engines`).
#
# A step is one batch through all modules. An epoch is the number of batches times that.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.speed_table(found)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.modules_table(found)

# %% [markdown]
# ## Where the time goes, and what the machine could do
#
# Two numbers bound a step: the operations of its matrix products, and the bytes of scores, momentum, gradients and masked
# weights that it moves. The table compares both with what this machine can do at best: a large product of matrices, and one
# pass over arrays of the same size.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.parts_table(found)

# %% [markdown]
# ## In turns: time in proportion to the number of classes
#
# For large networks the paper's limit stands: every module is trained in its turn. Passing several modules at once does not
# help there. The table sets `torch.func.vmap` over the masks, which makes grouped convolutions, against a loop.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.passes_table(found)

# %% [markdown]
# Several processes share the modules out. While modules train, the device holds one of them. The others wait in host memory,
# at 8 bytes for each edge, so that memory grows with the number of classes.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.epochs_table(found)

# %% [markdown]
# Taking turns could cost accuracy, because with a vote loss a module sees the others as they were one epoch ago. The two
# engines decompose the same parents below, with the same recipe, seeds and order of images. Nothing is chosen here.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.stale_table(found)

# %% [markdown]
# ## In use
#
# A recomposed network runs one pass for each distinct mask. In a chain of linear layers, as here, units that a mask cuts off
# are left out, and all passes are joined into one network, sparse where that is faster. So ten passes take less than ten
# times as long as the parent's. Networks that are smaller and faster than the parent are cut by channels
# ([small networks](small_networks.ipynb)).

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.in_use_table(found)

# %% [markdown]
# Can a subset of a fully connected parent be faster than the parent itself? At few edges, hardly: such a parent is so small that
# most of a call is not arithmetic. `baked()` gives a plain module without the checks of inputs.

# %% tags=["remove-input"]
page.subsets_sentence(found)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.subsets_table(found)

# %% [markdown]
# Whether a layer is a sparse product is decided by how many weights it has and how many of them are not 0
# (`modlib.stacking.pays_sparse`). Each form was timed:

# %% tags=["remove-input"]
page.layers_sentence(found)

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
page.layers_table(found)

# %% [markdown]
# ## The obvious way, written out
#
# Sort the scores of each layer, set the largest to 1 and the rest to 0, multiply, let autograd find the gradient, add the
# stemming loss, step.

# %% tags=["hide-cell"]
page.obvious_code()

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - For fully connected parents the number of classes is no obstacle: modules that train side by side share most of the work.
# - For convolutional ones it is: modules take turns, and time grows in proportion. More processes divide it. On FC1 taking
#   turns made no clear difference to the vote; on convolutional parents that was not measured.
# - In use, every module of the vote is a pass. Decomposing by edges saves storage, not time.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
print(len(found.engines), "decompositions,", len(found.ways), "pairs of passes,", len(found.epochs), "epochs timed")
print("steps of both programs, so many times:", found.by_size.groupby("program").size().to_dict())

# %% [markdown]
# **Re-run it:** `modlib reproduce cost -p model fc4 -p threads 2`; on a GPU: `-p device cuda`. Where times are kept, in
# `book/results/timings`, they are read; remove them to time anew.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
tables.where_from(found.done, "tab-from-cost", plan.shown)
