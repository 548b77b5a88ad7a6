"""Any architecture, cut: which channels of a network can go for good, and whether what is left computes the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn

from modlib.deploy import measuring, slicing
from modlib.seeds import generator
from modlib.study import tables
from modlib.study.experiment import Experiment
from modlib.study.families import SIDES, Subject, attempt, network
from modlib.study.records import Record, Store
from modlib.study.timing import random_images

VERSION = 1
"""Raised when the same parameters give another result."""


def experiment(model: str, side: int) -> Experiment:
    """Return the experiment of cutting one of torchvision's models, with images of `side` x `side`."""
    parameters = {"model": model, "image_size": SIDES.get(model, side), "cut": "half", "version": VERSION}
    return Experiment("architectures", f"torchvision-{model}-cut", parameters)


def run(models: Sequence[str], side: int, store: Store) -> list[Record]:
    """Return what could be cut of every model, or its error."""
    return [
        experiment(m, side).run(store, partial(attempt, partial(cut_in_half, m, SIDES.get(m, side)))) for m in models
    ]


@torch.no_grad()
def cut_in_half(model: str, side: int) -> dict[str, Any]:
    """Cut half of every unit's channels out of a network of random weights; compare with the same channels at 0.

    `difference`: of the logits, relative, in float64. `seconds`: until it is known what can be cut.
    """
    data = random_images(2, side)
    net = _random(network(Subject(model, "torchvision", "float32"), data, heads=False)).double().eval()
    inputs = data.inputs(data.train_images).double()
    before = time.perf_counter()
    anatomy = slicing.anatomy(net, inputs)
    seconds = time.perf_counter() - before
    draw = generator(0, "half")
    kept = slicing.random_half(anatomy.units, draw)
    small, whole = slicing.cut(net, inputs, kept), slicing.silenced(net, inputs, kept)
    wanted = whole(inputs)
    costs, left = measuring.cost(net, inputs), measuring.cost(small, inputs)
    why = Counter(anatomy.uncut.values())
    return {
        "cut_layers": sum(len(u.layers) for u in anatomy.units),
        "uncut": {reason: count for reason, count in why.items() if reason != "gives the logits"},
        "parameters": left["parameters"] / costs["parameters"],
        "multiply_adds": left["multiply_adds"] / costs["multiply_adds"],
        "difference": f"{float((small(inputs) - wanted).norm() / wanted.norm()):.0e}",  # a record has six digits
        "seconds": seconds,
    }


def _random(net: nn.Module) -> nn.Module:
    """Move every parameter at random: fresh networks hold zeros, which hide errors."""
    draw = generator(0, "weights")
    for values in net.parameters():
        values.data += 0.05 * torch.randn(values.shape, generator=draw)
    return net


def table(models: Sequence[str], done: Sequence[Record]) -> Markdown:
    """Return what could be cut of every model."""
    lines = []
    for model, record in zip(models, done, strict=True):
        (row,) = record.rows
        line = {"network": model}
        if not row["error"]:
            uncut = "; ".join(f"{count} {reason}" for reason, count in row["uncut"].items())
            line |= {
                "layers cut": str(row["cut_layers"]),
                "not cut": uncut or "none",
                "parameters left (%)": f"{100 * row['parameters']:.0f}",
                "multiply-adds left (%)": f"{100 * row['multiply_adds']:.0f}",
                "difference": row["difference"],
                "s": f"{row['seconds']:.0f}",
            }
        lines.append(line | {"works": row["error"] or "yes"})
    shown = pd.DataFrame(lines).fillna("")
    shown["works"] = shown.pop("works")
    return tables.folded(
        shown,
        "Every family: what can be cut",
        "Half of all channels that can go are cut out for good. Difference: of the logits, relative, in float64, from "
        "the whole network with these channels at 0. Layers are linear or convolutional ones; s: until it is known "
        "what can go, one core; n = 1 each, random weights.",
        "tab-architectures-cut",
    )


def said(done: Sequence[Record]) -> Markdown:
    """Return in a sentence how many networks can be cut, and how exact that is."""
    rows = pd.DataFrame([record.rows[0] for record in done])
    good = rows[rows["error"] == ""]
    most = good["difference"].astype(float).max()
    return Markdown(
        f"Of {len(rows)} networks, one for each family, **{len(good)}** can be cut. What is left computes what the "
        f"whole one does without these channels, to {most:.0e} at most. Half of the channels leave "
        f"{100 * good['multiply_adds'].min():.0f} to {100 * good['multiply_adds'].max():.0f}% of the multiply-adds."
    )
