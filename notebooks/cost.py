# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a decomposition costs
#
# **Question.** How much time does module co-training take, where does it go, and how does it grow with the number of
# classes and the batch? The paper names its limit itself: computation time proportional to the number of classes.
#
# Two programs take the same steps here, on the same data, in turns, so that both meet the same machine:
#
# - the **obvious way**, written out below: one module after another, autograd, a full sort of every layer's scores in
#   every forward pass, as edge-popup {cite:p}`ramanujan2020` is commonly written;
# - **ours**: all modules in one pass, the exact top $k$ found near the last threshold, and everything that follows the
#   gradient fused into one pass over memory (`modlib.engines`).

# %% tags=["parameters"]
dataset: str = "digits"  # data set: digits, mnist, fashion_mnist
models: list[str] = ["fc1", "fc2"]  # parents: fc1 to fc4; only their sizes matter here, they are not trained
batch_sizes: list[int] = [32, 128]  # images in a batch
classes: list[int] = [2, 5, 10]  # numbers of modules
populations: list[int] = [1, 2]  # decompositions of all classes side by side
k: float = 0.10  # share of the edges kept in every layer
steps: int = 10  # steps in one measurement
repeats: int = 3  # measurements of each program, in turns
threads: int = 1  # threads of both programs
device: str = "cpu"  # where both run: cpu or cuda
results: str = ""  # folder that the measurements are written to; empty: nowhere

# %%
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

from modlib import recipes
from modlib.cotraining import epoch_order
from modlib.engines import make_engine
from modlib.study import figures, records, tables
from modlib.study.pages import cost as page
from modlib.zoo import datasets

figures.use_style()
torch.set_num_threads(threads)
start_of_page = time.perf_counter()
data = datasets.load(dataset)
images = len(data.train_labels)

# %% [markdown]
# ## The obvious way
#
# One module, one step: sort the scores of each layer, set the smallest to 0 and the rest to 1, multiply, let autograd
# find the gradient, add the stemming loss, step.


# %%
class SortedMask(torch.autograd.Function):
    """h(S) by a full sort; the gradient goes straight through."""

    @staticmethod
    def forward(ctx, scores, keep):
        mask = torch.zeros_like(scores)
        _, order = scores.flatten().sort()
        mask.view(-1)[order[-keep:]] = 1.0
        return mask

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class PlainModule(nn.Module):
    """One supermask over a frozen fully connected parent, with its grafting layer."""

    def __init__(self, parent, c):
        super().__init__()
        self.c, self.layers = c, [layer for layer in parent if isinstance(layer, nn.Linear)]
        self.scores = nn.ParameterList([nn.Parameter(torch.rand_like(layer.weight)) for layer in self.layers])
        self.keep = [max(1, int(k * layer.weight.numel() + 0.5)) for layer in self.layers]
        self.graft = nn.Linear(self.layers[-1].out_features, 2)
        groups = [{"params": list(self.scores)}, {"params": self.graft.parameters(), "lr": 0.01}]
        self.optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def forward(self, inputs):
        hidden = inputs.flatten(1)
        for i, (layer, scores, keep) in enumerate(zip(self.layers, self.scores, self.keep, strict=True)):
            hidden = hidden.relu() if i else hidden
            mask = SortedMask.apply(scores, keep)
            hidden = nn.functional.linear(hidden, layer.weight * mask, layer.bias)
        return self.graft(hidden)

    def step(self, inputs, labels, average, alpha):
        loss = nn.functional.cross_entropy(self(inputs), (labels == self.c).long())
        total = sum(scores.numel() for scores in self.scores)
        for scores, mean in zip(self.scores, average, strict=True):
            loss = loss + alpha / total * (scores - mean).abs().sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


def obvious_way(parent, chosen, batch):
    """Return a function that takes `n` steps with every module, one module after another."""
    net = parent.to(device).requires_grad_(False)
    modules = [PlainModule(net, c).to(device) for c in chosen]
    average = [torch.stack([m.scores[i].detach() for m in modules]).mean(0) for i in range(len(modules[0].scores))]
    pixels, labels = data.train_images.to(device), data.train_labels.to(device)

    def run(n):
        for part in epoch_order(images, 0, 0)[: n * batch].to(device).split(batch):
            inputs = data.inputs(pixels[part])
            for module in modules:
                module.step(inputs, labels[part], average, 1.0)

    return run


# %% [markdown]
# ## Ours


# %%
def ours(parents, chosen, batch):
    """Return a function that takes `n` steps with every module of every parent, all in one pass."""
    recipe = recipes.published(k=k, alpha=1.0, batch_size=batch)
    runs = [recipes.Run(parent, recipe, seed) for seed, parent in enumerate(parents)]
    engine = make_engine("vectorised", runs, tuple(chosen), data, torch.device(device))
    average = {name: scores.mean(1, keepdim=True) for name, scores in engine.ranked().items()}

    def run(n):
        orders = torch.stack([epoch_order(images, run.seed, 0)[: n * batch] for run in runs])
        engine.train_epoch(orders, 0, average)

    return run


race = page.Race(data, obvious_way, ours, k=k, steps=steps, repeats=repeats, threads=threads, device=device)

# %% [markdown]
# ## How much faster
#
# A step is one batch through all modules; an epoch is the number of batches times that.

# %%
speed = race.by_size(models, batch_sizes)
if results:
    records.write(records.Store.at(results).folder / "cost.csv", speed.to_csv(index=False))

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.speed_table(speed, race)

# %% [markdown]
# ## Where the time goes, and what the machine could do
#
# Two numbers bound a step: the floating-point operations of the matrix products, and the bytes that scores, momentum,
# gradients and masked weights move. Both are set against what this machine reaches here: a large product of matrices, and
# one pass over arrays of the same size.

# %%
model, batch = models[0], batch_sizes[-1]
parts = race.parts(model, batch, page.medians(speed).loc[(model, batch), "ours"])

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.parts_table(parts, data.num_classes)

# %% [markdown]
# ## Proportional to the number of classes?

# %%
growth = race.by_classes(model, classes, batch)
side_by_side = race.by_population(model, populations, batch)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time of one step against the number of modules (left) and against the number of decompositions that train side by side, for each of them (right). Points: single measurements; lines: medians.", "name": "fig-cost"}, "image": {"alt": "Left: two rising lines on logarithmic axes, the obvious way far above ours. Right: time per decomposition against the size of a population."}}
page.draw_growth(growth, side_by_side)
plt.show()

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
page.classes_table(growth, parts)

# %% tags=["nbval-check-output"]
print(sorted(speed["program"].unique()), len(growth) == 2 * repeats * len(classes))

# %% tags=["hide-input"]
page.what_came_out(speed, parts, growth, side_by_side, race)

# %% [markdown]
# **Re-run it:** `modlib reproduce cost -p models "[fc4]" -p threads 2`. On a GPU: `-p device cuda -p populations "[1, 10, 100]"`.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
settings = {
    "dataset": dataset, "models": models, "batch_sizes": batch_sizes, "k": k, "threads": threads, "device": device
}  # fmt: skip
tables.where_from([], "tab-from-cost", settings, time.perf_counter() - start_of_page)
