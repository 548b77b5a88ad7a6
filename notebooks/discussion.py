# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Discussion: a subset costs no training, but one pass for each of its classes
#
# **Question.** What does a decomposed network cost, in time and memory? What is lost as more classes are asked for? And what
# do the paper, and this book, leave open?

# %% tags=["parameters", "remove-input"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
model: str = "fc1"  # parent: fc1 to fc4
parent_epochs: int = 50  # epochs of the parent (Table 3: 100)
k: float = 0.10  # share of the edges kept in every layer
epochs: int = 12  # epochs of recipe ours
batch_size: int = 32  # images in a batch
alpha: float = 1.0  # stemming of recipe ours without vote loss
vote: float = 0.9  # weight of the vote loss
vote_alpha: float = 4.0  # stemming with vote loss, which pulls harder
module_counts: list[int] = [1, 2, 5, 10]  # numbers of modules that are timed
timed_epochs: int = 3  # epochs timed for each of them
repeats: int = 100  # passes timed for each of them
images_timed: int = 1000  # images in a timed pass, at most
seed: int = 0  # seed of the parent and the decompositions
results: str = ""  # folder of records and parents; empty: keep none

# %% tags=["remove-cell"]
import matplotlib.pyplot as plt

from modlib.study import figures, tables
from modlib.study.pages import discussion
from modlib.study.records import Store
from modlib.study.trials import trained_parent, trial_modules
from modlib.zoo import datasets

figures.use_style()
data, store = datasets.load(dataset), Store.at(results)
settings = discussion.Settings(dataset, model, parent_epochs, k, epochs, batch_size, alpha, vote, vote_alpha, seed)
parent = trained_parent(data, model, seed, parent_epochs, store)
counts = [n for n in module_counts if n <= data.num_classes]
trained = discussion.own_epochs(settings, counts, timed_epochs).run(data, store)
used = discussion.in_use(settings, counts, images_timed, repeats).run(data, store)
seconds = {row["modules"]: row["seconds"] for row in trained.rows}
passes = discussion.Passes.of(used)
decompositions = {label: trial_modules(trial, data, store) for label, trial in settings.trials().items()}
modules = decompositions["ours"]
sizes = discussion.Sizes.of(modules)
growth = discussion.growth(decompositions, parent, data, seed)

# %% tags=["remove-input"]
discussion.answer(settings, seconds, passes, sizes, growth)

# %% [markdown]
# **Caveat.** One seed, one small network, one machine and this implementation. A sparse kernel, or a GPU that takes all masks
# at once, would change the times.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Recomposed networks by their number of classes, means over subsets. Left: accuracy on test images, beside the parent restricted to the same classes. Right: remaining parameters; dotted: k.", "name": "fig-growth"}, "image": {"alt": "Two panels of curves over the number of classes. Left, the accuracies of the vote of two decompositions and of the parent. Right, the share of the parent's weights in the union of the masks."}}
discussion.draw_growth(growth, k)
plt.show()

# %% [markdown]
# ## Accuracy: what is lost as subsets grow
#
# Every subset of the classes is asked, on the test images of its classes. Beside it stands the parent restricted to the same
# classes: its largest logit among them.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
discussion.growth_table(growth)

# %% [markdown]
# ## Time: one module after another
#
# The paper names one limitation: "it consumes a computation time proportional to the number of classes". Left below: one run,
# some of the classes, seconds of an epoch with all that goes on around the steps ([cost](cost.ipynb) times the steps alone).
# Right: a recomposed network applies mask after mask, one pass of the parent's size for each module. The masks save memory, not
# multiplications, unless a sparse kernel is used.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time by the number of modules, on the device named below. Left: one epoch of a decomposition. Right: one pass of a recomposed network over the same images; solid line: one pass of the parent. Dashed: proportional to the number of modules, through the last point.", "name": "fig-time"}, "image": {"alt": "Two panels of points over the number of modules: seconds per epoch of co-training and milliseconds per pass, each beside a straight line through the origin."}}
discussion.draw_times(seconds, passes)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
timed_images = min(images_timed, len(data.test_labels))
timed = (
    f"{timed_epochs} epochs of {len(data.train_labels):,} images, and of {repeats} passes of {timed_images:,} images"
)
discussion.times(seconds, passes, f"the fastest of {timed}")

# %% [markdown]
# ## Memory: a bit for every edge and module
#
# A mask is one bit an edge, whatever $k$ is. So $N$ masks weigh $N / 32$ of the parent's weights in float32, and above $N = 32$
# classes they weigh more than the parent itself. To ship a subset one needs the weights of its union, where they lie, and one
# bit for each of them and module:

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
discussion.bytes_to_ship(decompositions, sizes)

# %% [markdown]
# ## What is settled where
#
# | what the paper says | where it is looked at |
# |---|---|
# | a module is a small classifier of one class | [Training a mask](training_mask.ipynb), [Measuring modules](evaluation.ipynb) |
# | the grafting layer lets a module outperform the parent at its class | [Controls](controls.ipynb) |
# | stemming makes modules share edges | [Module stemming](module_stemming.ipynb), [Table 2](table2.ipynb), [Figure 3](figure3.ipynb) |
# | averaging beats a base class; $p = 1$ changes more slowly | [Preliminaries](preliminaries.ipynb) |
# | any subset is recomposed without training | [Recomposing](recomposing.ipynb) |
# | better than TI-I, TI-SNE and CM-RIE | [Baselines](baselines.ipynb), [Table 1](table1.ipynb) |
# | each module holds only the function of its own class | [Table 6](table6.ipynb) |
# | the printed training parameters | [Table 3](table3.ipynb), [Table 4](table4.ipynb) |
# | MNIST has equally many images of each class | [Setting up the experiments](experimental_setup.ipynb) |
# | faster than learning a small model from scratch | [Controls](controls.ipynb) |
# | any architecture | [Architectures](architectures.ipynb), [Figure 4](figure4.ipynb) |
# | time is proportional to the number of classes | [Cost](cost.ipynb), and this page |
#
# ## What the paper leaves open
#
# - **Inference.** It counts remaining parameters, not passes: the union is small, but it is used once for each module. Whether
#   ten overlapping masks are worth it beside one mask and one pass is asked by the [controls](controls.ipynb) and the
#   [frontier](frontier.ipynb).
# - **Many classes.** It advises "distributed learning" where classes are many. Memory grows with them too, as above.
# - **Confidences.** Modules never see each other's answers in training, yet their confidences are compared in the vote.
#   The vote loss, which is ours, trains that comparison ([co-training](module_stemming.ipynb)).
# - **Interpretability.** Small modules are said to be easier to verify. The paper does not test it; nor does this book.
# - **How to choose** $k$ and $\alpha$ for a new network: "it is necessary to determine" them, and no rule is given.
#
# ## How far this book's evidence goes

# %% tags=["hide-input"]
discussion.rests_on()

# %% [markdown]
# Five trials show a spread only roughly. A published recipe that was given fewer epochs than the 50 that the paper names for
# Table 5 may not have come to its end. A small fully connected network says little about a deep convolutional one: those have
# pages of their own, [Figure 4](figure4.ipynb) at a reduced size and
# [deep networks under a random mask](deep_networks.ipynb). How their time grows with classes and processes is
# [measured, too](cost.ipynb). Every departure from the paper is listed under [deviations](../deviations.md), every claim on
# the [scoreboard](scoreboard.ipynb).
#
# Decomposing pays where many subsets are asked for, again and again, and memory or reuse counts more than the time of a
# prediction. Where one subset is needed once, the restricted parent is the baseline to beat, and it takes no work at all.

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - A subset is there at once, without training; in use it costs a pass for each of its classes.
# - Masks are light where classes are few; with many classes they weigh more than the parent itself.
# - Decompose where many subsets are asked for. Where one subset is needed once, ignore the parent's other logits.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
print(f"parent: {sizes.edges} edges, {sizes.parent} bytes with biases")
print(f"{len(modules.classes)} masks, packed: {sizes.masks} bytes; grafting layers: {sizes.grafting} bytes")

# %% [markdown]
# **Re-run it:** `modlib reproduce discussion -p model fc4`. Where times are kept, in `book/results/timings`, they are read; remove
# them to time anew.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = vars(settings) | {"recipe": "ours"}
tables.where_from([trained, used], "tab-from-discussion", shown)
