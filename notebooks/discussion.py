# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Discussion: a subset costs no training, but time that grows with its classes
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
# **Caveat.** This is one seed of one small network, on one machine. Its linear layers let all passes be joined, which
# convolutions do not. A GPU would change the times.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Recomposed networks by their number of classes, means over subsets. Left: accuracy on test images, beside the parent restricted to the same classes. Right: remaining parameters; dotted: k.", "name": "fig-growth"}, "image": {"alt": "Two panels of curves over the number of classes. Left, the accuracies of the vote of two decompositions and of the parent. Right, the share of the parent's weights in the union of the masks."}}
discussion.draw_growth(growth, k)
plt.show()

# %% [markdown]
# ## Accuracy: what is lost as subsets grow
#
# Every subset of the classes votes on the test images of its classes. Beside it stands the parent restricted to the same
# classes: the largest of their logits wins.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
discussion.growth_table(growth)

# %% [markdown]
# ## Time: one module after another
#
# The paper names one limitation: "it consumes a computation time proportional to the number of classes". The left figure has
# whole epochs of training. [Cost](cost.ipynb) times the steps alone, so its factors differ. The right figure has predictions of
# recomposed networks: one masked pass for each module, all of them joined into one network, because all layers are linear.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "Time by the number of modules, on the device named below. Left: one epoch of a decomposition. Right: one pass of a recomposed network over the same images; solid line: one pass of the parent. Dashed: proportional to the number of modules, through the last point.", "name": "fig-time"}, "image": {"alt": "Two panels of points over the number of modules: seconds per epoch of co-training and milliseconds per pass, each beside a straight line through the origin."}}
discussion.draw_times(seconds, passes)
plt.show()

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
timed_images = min(images_timed, len(data.test_labels))
timed = (
    f"{timed_epochs} epochs of {len(data.train_labels):,} images, and of {repeats} passes of {timed_images:,} images"
)
discussion.times(seconds, passes, f"the fastest of {timed}")

# %% [markdown]
# ## Memory: a bit for every edge and module
#
# A mask is one bit for each edge, whatever $k$ is. So $N$ masks weigh $N / 32$ of the parent's float32 weights: with more than
# 32 classes they weigh more than the parent itself. A network for a subset can be packed tighter. It needs the weights of its
# union, a map of where they lie, and one bit for each of these weights and module:

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
discussion.bytes_to_ship(decompositions, sizes)

# %% [markdown]
# ## What is settled where
#
# | what the paper says | where it is looked at |
# |---|---|
# | a module is a small classifier of one class | [Training a mask](training_mask.ipynb), [Measuring modules](evaluation.ipynb) |
# | the grafting layer lets a module outperform the parent at its class | [Controls](controls.ipynb) |
# | stemming makes modules share edges | [Module stemming](module_stemming.ipynb), [the paper's Table 2](table2.ipynb), [its Figure 3](figure3.ipynb) |
# | averaging beats a base class; $p = 1$ changes more slowly | [Preliminaries](preliminaries.ipynb) |
# | any subset is recomposed without training | [Recomposing](recomposing.ipynb) |
# | better than TI-I, TI-SNE and CM-RIE | [Baselines](baselines.ipynb), [the paper's Table 1](table1.ipynb) |
# | each module holds only the function of its own class | [the paper's Table 6](table6.ipynb) |
# | the printed training parameters | [the paper's Table 3](table3.ipynb), [its Table 4](table4.ipynb) |
# | MNIST has equally many images of each class | [Setting up the experiments](experimental_setup.ipynb) |
# | faster than learning a small model from scratch | [Controls](controls.ipynb) |
# | any architecture | [Architectures](architectures.ipynb), [the paper's Figure 4](figure4.ipynb) |
# | time is proportional to the number of classes | [Cost](cost.ipynb), and this page |
#
# ## What the paper leaves open
#
# - **Time in use.** The paper counts remaining parameters, not passes: the union is small, but it runs once for each module.
#   [Controls](controls.ipynb) and the [frontier](frontier.ipynb) ask whether that is better than one mask and one pass.
# - **Many classes.** For these it advises "distributed learning". Memory grows with the classes too.
# - **Confidences.** Modules never see each other's answers in training, yet the vote compares their confidences.
#   Our vote loss trains that comparison ([co-training](module_stemming.ipynb)).
# - **Interpretability.** Small modules are said to be easier to verify. Neither the paper nor this book tests that.
# - **The choice of $k$ and $\alpha$** for a new network: "it is necessary to determine" them, and no rule is given.
#
# ## How far this book's evidence goes

# %% tags=["remove-input"]
discussion.rests_on()

# %% [markdown]
# Three to five trials show a spread only roughly. Where the published recipe ran for fewer than the paper's 50 epochs, it may
# not have come to its end. And small fully connected networks say little about deep convolutional ones. Those have pages of
# their own, at a reduced size: [the paper's Figure 4](figure4.ipynb) and [random masks in deep networks](deep_networks.ipynb).
# Every departure from the paper is listed under [deviations](../deviations.md), every claim on the
# [scoreboard](scoreboard.ipynb).
#
# Decomposing pays where many subsets are asked for, and storage or reuse counts more than the time of a prediction. Where one
# subset is needed once, the restricted parent takes no work at all. For a small and fast network, cut channels
# ([small networks](small_networks.ipynb)): that takes seconds for each subset, as long for some dozens of pairs as training
# the modules once ([which way](which_way.ipynb)).

# %% [markdown]
# ```{admonition} Take-aways
# :class: tip
#
# - A subset is there at once, without training. In use it costs a pass for each of its classes.
# - Masks are light where classes are few. With more than 32 classes they weigh more than the parent itself.
# - Decompose where many subsets come from one file, or classes are exchanged. Where one is needed once, ignore the parent's
#   other logits.
# ```

# %% tags=["remove-cell", "nbval-check-output"]
print(f"parent: {sizes.edges} edges, {sizes.parent} bytes with biases")
print(f"{len(modules.classes)} masks, packed: {sizes.masks} bytes; grafting layers: {sizes.grafting} bytes")

# %% [markdown]
# **Re-run it:** `modlib reproduce discussion -p model fc4`. Where times are kept, in `book/results/timings`, they are read;
# remove them to time anew.

# %% tags=["remove-input"] mystnb={"markdown_format": "myst"}
shown = vars(settings) | {"recipe": "ours"}
tables.where_from([trained, used], "tab-from-discussion", shown)
