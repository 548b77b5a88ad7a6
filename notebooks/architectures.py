# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Any architecture: what can be decomposed, and what a step costs
#
# **Question.** The abstract says that the method *requires no assumption about the network architecture*. Which networks
# does it take, what does it leave whole, and how much more than a plain training step does a step of a module cost?
#
# Every network here is torchvision's own, or one of the book's parents. It goes all the way: decomposed into two modules,
# recomposed, saved, loaded, the same predictions afterwards, the parent bit-identical. Of every family of torchvision's classifiers the
# published page has a network, of most a small one and the largest that its machine's memory (24 GiB) holds beside other work: `vit_l_32`, with
# 300 million parameters, and `vit_h_14` and `regnet_y_128gf`, with more than 600, are left out. Weights and images are random,
# because nothing on this page is about accuracy: whether deep networks *learn* under a mask is another page's question.
# Networks as users write them (grouped, transposed, 1-d and 3-d convolutions, tied weights, attention, every
# normalisation, buffers, outputs that are tuples or dicts) are tested one by one in `tests/test_architectures.py`.

# %% tags=["parameters"]
models: list[str] = [
    "squeezenet1_1",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
]  # classification models of torchvision
parents: list[str] = ["vgg16_quarter"]  # parents of this book, on images of 32 x 32
image_size: int = 64  # side of the images for torchvision's models; two of them need larger ones
batch_size: int = 8  # images in a batch; of larger images fewer, as many pixels
warm_up: int = 5  # steps of a module before those that are measured
steps: int = 2  # steps in one measurement
repeats: int = 2  # measurements of each program, in turns
k: float = 0.10  # share of the edges kept in every layer
goal: float = 1.5  # a module's step over a plain one: what the library aims at
device: str = "cpu"  # where all run: cpu or cuda
engine: str = "modulewise"  # whose step of a module is measured: modulewise, or graphed on a GPU
results: str = ""  # folder of records; empty: keep none

# %%
import copy
import gc
import tempfile
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torchvision
from IPython.display import Markdown
from torch import nn

import modlib
from modlib import claims, figures, masking, recipes, records, tables
from modlib.engines import make_engine, start
from modlib.library import parent_hash
from modlib.precision import autocast
from modlib.training import convolutional, fast_precision

figures.use_style()
torch.set_num_threads(1)
clock = time.process_time if device == "cpu" else time.perf_counter
store = records.Store.at(results)
SIDES = {"inception_v3": 96, "maxvit_t": 224}  # these take no less: many halvings, windows of 7 x 7 after five
WITH_HEADS = ("googlenet", "inception_v3")  # auxiliary classifiers, which only their own training uses

# %% [markdown]
# ## The networks and their images


# %%
def images_for(name, family):
    """Return random images and labels of ten classes, enough for one measurement, and the images in a batch."""
    side = 32 if family == "book" else SIDES.get(name, image_size)
    batch = max(2, batch_size * image_size**2 // side**2) if family == "torchvision" else batch_size
    count = max(8, steps * batch)
    pixels = torch.randint(
        0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return modlib.datasets.from_arrays(pixels, torch.arange(count) % 10, num_classes=10), batch


def network(name, family, data, heads=True):
    """Return a network with random weights and ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "book":
            return modlib.parents.make(name, data)
        options = {"init_weights": False, "aux_logits": heads} if name in WITH_HEADS else {}
        options |= {"image_size": data.train_images.shape[1]} if name.startswith("vit") else {}
        return torchvision.models.get_model(name, num_classes=10, **options)


# %% [markdown]
# ## All the way
#
# What the library does not mask, it says in one line; here that line is counted, and turned into the kinds of weights it
# names.


# %%
def kinds(names):
    """Return the last parts of parameters' names, each once."""
    return ", ".join(sorted({name.rsplit(".", 1)[-1] for name in names}))


def all_the_way(net, data, precision):
    """Decompose, recompose, save and load `net`; return what was masked and what was not."""
    before, modes = parent_hash(net), [part.training for part in net.modules()]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        modules = modlib.cotrain(
            net, data, k=k, alpha=1.0, epochs=1, seed=0, classes=[0, 1], batch_size=4, images_per_epoch=8,
            precision=precision, device=device,
        )  # fmt: skip
    began = clock()
    pair = modules.recompose([0, 1])
    seconds = clock() - began
    inputs = data.inputs(data.train_images[:2]).to(device)
    with tempfile.TemporaryDirectory() as folder:
        modules.save(Path(folder) / "m")
        again = modlib.load(Path(folder) / "m", copy.deepcopy(net).to(device))
    assert torch.equal(again.recompose([0, 1])(inputs), pair(inputs)), "loaded modules predict otherwise"
    assert parent_hash(net) == before, "the parent has changed"
    assert [part.training for part in net.modules()] == modes, "the parent's modes have changed"
    masked = masking.maskable_parameters(net)
    every = sum(p.numel() for p in net.parameters())
    edges = sum(p.numel() for p in masked.values())
    idle = [str(line.message).split("logits: ")[1] for line in said if "no part in the logits" in str(line.message)]
    heads = {name.split(".")[0] for line in idle for name in line.split(" and ")[0].split(", ")}
    return {
        "parameters": every,
        "edges": edges,
        "whole_share": 1 - edges / every,
        "whole": kinds(masking.unmasked_parameters(net)),
        "no_part": ", ".join(sorted(heads)),
        "lines": len(said),
        "recompose_s": seconds,
    }


# %% [markdown]
# ## A plain step, and a module's
#
# A plain step is what one would write: forward in training mode, cross-entropy, backward, fused Nesterov SGD; images in the
# layout that convolutions like best. Auxiliary heads are left out of it, as they are of a module. A module's step is all
# that the engine for large networks does for a batch: forward and backward through the masked network, stemming, momentum,
# the exact top $k$ of every layer, and the masked weights of the next step.


# %%
def plain_step(name, family, data, batch, precision):
    """Return a function that takes the plain training step number i."""
    net = network(name, family, data, heads=False).to(device).train()
    layout = torch.channels_last if convolutional(net) else torch.contiguous_format
    net.to(memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    pixels, labels = data.train_images.to(device), data.train_labels.to(device)

    def step(i):
        rows = slice(i * batch, (i + 1) * batch)
        inputs = data.inputs(pixels[rows]).contiguous(memory_format=layout)
        with autocast(torch.device(device), precision):
            logits = net(inputs)
        sgd.zero_grad()
        nn.functional.cross_entropy(logits.float(), labels[rows]).backward()
        sgd.step()

    return step


def module_step(name, family, data, batch, precision):
    """Return a function that takes the training step number i of one module, and what begins and ends an epoch."""
    recipe = recipes.published(k=k, alpha=1.0, batch_size=batch, epochs=2, precision=precision)
    run = recipes.Run(network(name, family, data), recipe, seed=0)
    made = make_engine(engine, [run], (0,), data, torch.device(device))
    slot, member = made.slots[0], made.members[0][0]
    batches = torch.arange(steps * batch).split(batch)
    average = {layer: scores[0, 0].reshape(1, 1, 1, -1) for layer, scores in made.average().items()}
    slot.pull_to(average, start.stemming_factors(recipe, made.weights_of[0], steps))
    slot.load(member)

    def step(i):
        with start.statistics_of_the_batch(slot.parent, recipe.norm):
            made._pass(0, 0, batches[i : i + 1], 1, None)

    def once_an_epoch(epoch):
        slot.load(member)
        slot.store(member)
        made.average()

    return step, once_an_epoch


# %% [markdown]
# On a processor, time is the processor's own of one thread. Single measurements of one program still differ, by a third in some networks; so the two
# programs run in turns, and the smallest of several measurements counts. The first steps of a module take longer: where a
# layer's threshold is not known yet, all its scores are looked through. Memory is the most that tensors hold at once, from
# making the network to the end of the first step, as torch's allocator counts it.


# %%
def milliseconds(program, *numbers):
    """Return the time of one of the calls of `program` with `numbers`."""
    began = clock()
    for number in numbers:
        program(number)
    if device == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (clock() - began) / len(numbers)


def peak_memory(program):
    """Return what `program` returns, and the most bytes that it held in tensors at once."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return program(), torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        made = program()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return made, int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())


def step_costs(name, family, data, batch, precision):
    """Measure time and memory of both programs."""

    def plain_started():
        step = plain_step(name, family, data, batch, precision)
        step(0)
        return step

    def module_started():
        step, once_an_epoch = module_step(name, family, data, batch, precision)
        step(0)
        return step, once_an_epoch

    plain, plain_bytes = peak_memory(plain_started)
    (module, once_an_epoch), module_bytes = peak_memory(module_started)
    first = [milliseconds(module, i % steps) for i in range(warm_up)]
    times = [(milliseconds(plain, *range(steps)), milliseconds(module, *range(steps))) for _ in range(repeats)]
    return {
        "plain_ms": min(a for a, _ in times),
        "module_ms": min(b for _, b in times),
        "plain_slowest_ms": max(a for a, _ in times),
        "module_slowest_ms": max(b for _, b in times),
        "slowest_of_the_first_ms": max(first),
        "epoch_ms": milliseconds(once_an_epoch, 1),
        "plain_bytes": plain_bytes,
        "module_bytes": module_bytes,
    }


# %% [markdown]
# A network that fails gets a row with its error; the next one is tried.


# %%
def attempt(measure):
    """Return what `measure` returns, or its error in one line: whatever goes wrong is a result of this page."""
    try:
        return [measure() | {"error": ""}]
    except Exception as error:
        return [{"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}]


def examined(name, family, precision):
    """Return the two records of one network: what is decomposed, and what steps cost; read where they have been run."""
    data, batch = images_for(name, family)
    about = {"model": name, "family": family, "precision": precision, **shared}
    way = store.record(
        "architectures",
        f"{family}-{name}-{precision}-way",
        about,
        lambda: attempt(lambda: all_the_way(network(name, family, data), data, precision)),
    )
    costs = store.record(
        "architectures",
        f"{family}-{name}-{precision}-steps",
        about | {"steps": steps, "repeats": repeats, "warm_up": warm_up} | of_engine,
        lambda: attempt(lambda: step_costs(name, family, data, batch, precision)),
    )
    facts = {"side": data.train_images.shape[1], "batch": batch}
    error = way.rows[0]["error"] or costs.rows[0]["error"]
    return (way, costs), {**about, **facts, **way.rows[0], **costs.rows[0], "error": error}


precisions = ["float32"] + (["bfloat16"] if fast_precision(device) == "bfloat16" else [])
tried = [(name, "torchvision", "float32") for name in models]
tried += [(name, "book", precision) for name in parents for precision in precisions]
of_engine = {} if engine == "modulewise" else {"engine": engine}
shared = {"image_size": image_size, "batch_size": batch_size, "k": k, "device": device, "version": 1}
found = [examined(*one) for one in tried]
done = [record for pair, _ in found for record in pair]
rows = pd.DataFrame([row for _, row in found])
rows["ratio"] = rows["module_ms"] / rows["plain_ms"]
works, failed = rows[rows["error"] == ""], rows[rows["error"] != ""]
if store.folder is not None:
    records.write(store.folder / "architectures.csv", rows.to_csv(index=False))

# %% [markdown]
# ## What is decomposed, and what stays whole

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
once = rows[rows["precision"] == "float32"]
shown = [
    {
        "network": row["model"] + (" (book)" if row["family"] == "book" else ""),
        "parameters (M)": "" if row["error"] else f"{row['parameters'] / 1e6:.2f}",
        "edges that can be masked (M)": "" if row["error"] else f"{row['edges'] / 1e6:.2f}",
        "not masked (%)": "" if row["error"] else f"{100 * row['whole_share']:.2f}",
        "weights left whole": "" if row["error"] else row["whole"] or "none",
        "masked, no part in the logits": "" if row["error"] else row["no_part"] or "none",
        "recomposing a pair (s)": "" if row["error"] else f"{row['recompose_s']:.2f}",
        "works": row["error"] or "yes",
    }
    for _, row in once.iterrows()
]
tables.table(
    pd.DataFrame(shown),
    "Networks that were decomposed into two modules, recomposed, saved and loaded. Not masked: biases, scales and shifts of normalisation, and the weights named beside; n = 1 run each, random weights.",
    "tab-architectures",
)

# %% [markdown]
# The weights left whole are tables that are looked up or added (positions of tokens), not edges between neurons. Auxiliary heads
# are masked, but in eval mode they are not called: the library says that their masks mean nothing.
#
# ## What a step costs

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
shown = [
    {
        "network": row["model"] + (" (book)" if row["family"] == "book" else ""),
        "precision": row["precision"],
        "images": f"{row['batch']} of {row['side']}²",
        "plain (ms)": f"{row['plain_ms']:.0f} to {row['plain_slowest_ms']:.0f}",
        "module (ms)": f"{row['module_ms']:.0f} to {row['module_slowest_ms']:.0f}",
        "ratio": f"{row['ratio']:.2f}",
        f"at most {goal:g}": "met" if row["ratio"] <= goal else "not met",
        "once an epoch (ms)": f"{row['epoch_ms']:.0f}",
        "plain (MB)": f"{row['plain_bytes'] / 1e6:.0f}",
        "module (MB)": f"{row['module_bytes'] / 1e6:.0f}",
    }
    for _, row in works.iterrows()
]
tables.table(
    pd.DataFrame(shown),
    f"One training step of the whole network and of one module, in turns ({'processor time of one thread' if device == 'cpu' else 'time on the GPU'}): fastest to slowest of {repeats} measurements of {steps} step(s); the ratio is of the fastest. Once an epoch: a module into its place and back, and the average of its scores. Memory includes weights, gradients, momentum and, of the module, the user's parent and the copy of the scores that waits in host memory.",
    "tab-architectures-cost",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A module's training step over a plain one: fastest over fastest measurement. Dashed: the goal; solid: as fast as a plain step.", "name": "fig-architectures"}, "image": {"alt": "One row for each network, sorted: points of the ratio of a module's step to a plain step, by precision, beside a dashed line at the goal and a solid one at 1."}}
order = list(works.groupby(["family", "model"])["ratio"].max().sort_values().index)
figure, ax = plt.subplots(figsize=(figures.WIDTH, 0.8 + 0.17 * len(order)))
for (precision, family), group in works.groupby(["precision", "family"]):
    places = [order.index(one) for one in zip(group["family"], group["model"], strict=True)]
    ax.scatter(group["ratio"], places, s=18, label=f"{family}, {precision}")
ax.axvline(goal, color="black", lw=0.8, ls="--")
ax.axvline(1, color="black", lw=0.8)
ax.set_yticks(range(len(order)), [name + (" (book)" if family == "book" else "") for family, name in order], fontsize=7)
ax.set(xlabel="module / plain", ylabel="")
figure.legend(frameon=False, ncols=3, fontsize=8, loc="outside upper center")
plt.show()

# %% [markdown]
# What a module adds to a step is work for each weight, whatever the number of images: one pass over scores, momentum and
# gradient, and the selection. Beside a forward and a backward pass this is little, even with batches as small as these.

# %% tags=["nbval-check-output"]
print(len(once[once["error"] == ""]), "of", len(once), "networks work:", ", ".join(once[once["error"] == ""]["model"]))
print("edges:", {row["model"]: int(row["edges"]) for _, row in once.iterrows()})

# %% tags=["hide-input"]
good = once[once["error"] == ""]
left = sorted({kind for names in good["whole"] for kind in names.split(", ") if kind})
lost = "; ".join(f"{row['model']}: {row['error']}" for _, row in failed.iterrows())
claims.publish(
    store,
    "architectures",
    [
        claims.Claim(
            claim="No assumption about the network architecture",
            where="Abstract",
            paper="fully connected networks, VGG16, ResNet50, WideResNet",
            here=f"{len(good)} of {len(once)} networks are decomposed and recomposed, as far as they are linear, convolutional or attention layers; left whole: {', '.join(left) or 'nothing'}; embeddings and recurrent layers too, unless a policy names them; accuracy is not judged here",
            verdict="open" if len(once) < 18 else "partly" if len(good) else "does not hold",
            n=len(once),
        )
    ],
)
worst = works.sort_values("ratio").iloc[-1]
memory = works["module_bytes"] / works["plain_bytes"]
Markdown(
    f"**What came out.** {len(good)} of {len(once)} networks are decomposed, recomposed, saved and loaded, and their parents stay as they "
    f"were{f' (failed: {lost})' if lost else ''}. Masks cover {100 * (1 - good['whole_share'].max()):.1f} to "
    f"{100 * (1 - good['whole_share'].min()):.1f} % of their parameters. A module's step takes {works['ratio'].min():.2f} to "
    f"{works['ratio'].max():.2f} times a plain one (median {works['ratio'].median():.2f}, n = {len(works)} networks and precisions, "
    f"the fastest of {repeats} measurements of {steps} {'step' if steps == 1 else 'steps'} each; most in {worst['model']}, {worst['edges'] / 1e6:.1f} million edges for {worst['batch']} images): the goal "
    f"of at most {goal:g} is met in {int((works['ratio'] <= goal).sum())} of {len(works)}. The slowest of a module's first {warm_up} steps "
    f"takes up to {(works['slowest_of_the_first_ms'] / works['module_ms']).max():.1f} times a later one, and what begins and ends an epoch as "
    f"long as {(works['epoch_ms'] / works['module_ms']).min():.1f} to {(works['epoch_ms'] / works['module_ms']).max():.1f} steps. Training one module holds "
    f"{memory.median():.1f} times the memory of plain training (median; {memory.min():.1f} to {memory.max():.1f}), "
    f"{(works['module_bytes'] / works['parameters']).median():.0f} bytes for each parameter in the median network."
)

# %% [markdown]
# **What it means.** Nothing has to be known about an architecture, where its weights belong to linear, convolutional or
# attention layers. Where they do not (recurrent layers, embeddings, weights behind a parametrisation such as weight norm,
# plain parameters), they stay whole until a `policy` names them; the method itself has no objection. The page on
# [networks of your own](../own_network.md) says how. With batch normalisation a module holds statistics of its own.
#
# **Re-run it:** `modlib reproduce architectures -p models "[vit_b_16, convnext_small]" -p batch_size 32`. On a GPU:
# `-p device cuda -p image_size 224 -p batch_size 64`, with `-p engine graphed` for steps that are replayed.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables.where_from(
    done,
    "tab-from-architectures",
    {"models": len(models), "parents": parents, "steps": steps, "repeats": repeats, "warm_up": warm_up, **shared},
)
