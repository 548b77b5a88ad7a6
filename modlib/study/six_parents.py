"""Small parents of different kinds, trained here, and how far the vote of their modules is behind them.

Six kinds of network: fully connected, convolutional (with batch normalisation and without), residual, transformer,
recurrent, and a perceptron over a table. What is chosen is chosen on held-out images; test images are read at the end.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import modlib
from modlib import data, metrics, recommending
from modlib.data import Data
from modlib.masking import mean_over_pairs
from modlib.parent import called
from modlib.precision import undisturbed
from modlib.recipes import Recipe
from modlib.seeds import generator
from modlib.sources import batches
from modlib.study.experiment import Experiment, chosen
from modlib.study.records import Record, Rows, Store, key
from modlib.zoo import datasets, parent_files, parents

VERSION = 1
"""Raised when the same parameters give other numbers."""
BATCH = 128
"""Images in a batch of a parent's training."""


class Recurrent(nn.Module):
    """An LSTM that reads an image row by row: [B, C, H, W] -> logits [B, 10]."""

    def __init__(self, channels: int, side: int, hidden: int = 48) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels * side, hidden, batch_first=True)
        self.hidden, self.out = nn.Linear(hidden, 64), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        states, _ = self.lstm(images.transpose(1, 2).flatten(2))
        return self.out(self.hidden(states[:, -1]).relu())


class Transformer(nn.Module):
    """A small vision transformer over 16 patches: [B, C, S, S] -> logits [B, 10] (Dosovitskiy et al. 2021)."""

    def __init__(self, channels: int, side: int, dim: int = 48, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, dim, side // 4, side // 4)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 16, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, nn.functional.gelu, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.out(self.norm(self.layers(tokens)).mean(1))


def strided(channels: int, side: int, normalised: bool = False) -> nn.Sequential:
    """Return three 3 × 3 convolutions of stride 2 and a linear layer: [B, channels, side, side] -> logits [B, 10]."""
    layers: list[nn.Module] = []
    for before, after in ((channels, 16), (16, 32), (32, 64)):
        layers.append(nn.Conv2d(before, after, 3, 2, 1, bias=not normalised))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if normalised else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (-(-side // 8)) ** 2, 10))


def residual(channels: int, _: int) -> nn.Sequential:
    """Return a convolution of stride 2 and three blocks of a wide residual network: [B, channels, H, W] -> [B, 10]."""
    shapes = ((16, 16, 2), (16, 32, 2), (32, 32, 1))
    blocks = [parents.WideBlock(before, after, stride, 0.0) for before, after, stride in shapes]
    last = [nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1, bias=False), *blocks, *last)


def perceptron(columns: int) -> nn.Sequential:
    """Return a perceptron over a table: [B, columns] -> logits [B, 10]."""
    return nn.Sequential(nn.Linear(columns, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def small_perceptron(columns: int) -> nn.Sequential:
    """Return a perceptron of one narrow layer over a table: [B, columns] -> logits [B, 10]."""
    return nn.Sequential(nn.Linear(columns, 24), nn.ReLU(), nn.Linear(24, 10))


@dataclass(frozen=True)
class Kind:
    """A kind of parent: in words, its data, the network for a shape of inputs, epochs and largest rate of training.

    `columns`: of a table that it reads instead of pixels, principal components of the images, as floats; 0: pixels.
    """

    words: str
    dataset: str
    build: Callable[..., nn.Module]
    epochs: int
    lr: float = 3e-3
    columns: int = 0


KINDS = {
    "fc": Kind("fully connected", "mnist", lambda channels, side: parents.fc(1, channels * side * side), 6),
    "cnn": Kind("convolutions", "cifar10", strided, 8),
    "cnn_bn": Kind("convolutions, batch norm", "cifar10", partial(strided, normalised=True), 8),
    "resnet": Kind("residual", "svhn_10k", residual, 12, 1e-2),
    "vit": Kind("transformer", "fashion_mnist", Transformer, 4),
    "lstm": Kind("LSTM", "fashion_mnist", Recurrent, 4),
    "mlp": Kind("perceptron on a table", "fashion_mnist", perceptron, 6, columns=32),
    "small_mlp": Kind("small perceptron on a table", "fashion_mnist", small_perceptron, 12, columns=8),
}
"""By name."""


def load(name: str, dataset: str = "") -> Data:
    """Return the data of a kind of parent; `dataset`: others than its own, of the same shape or another."""
    given = datasets.load(dataset or KINDS[name].dataset)
    return as_table(given, KINDS[name].columns) if KINDS[name].columns else given


@dataclass(frozen=True, eq=False, repr=False)
class Table(data.Samples):
    """A table made of images. It is known by their checksum, since its own last bits depend on the processor."""

    images_sha256: str = ""

    def sha256(self) -> str:
        """Return the checksum of the images."""
        return self.images_sha256


def as_table(images: data.Dataset, columns: int) -> Table:
    """Return images as a table of floats: their first principal components, each of deviation 1 in training."""
    parts = {split: images.split(split) for split in data.SPLITS}
    flat = {split: images.inputs(part[0]).flatten(1).double() for split, part in parts.items()}
    mean = flat["train"].mean(0)
    centred = flat["train"] - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    largest = vectors[:, -columns:] / values[-columns:].sqrt()
    tables = {split: ((pixels - mean) @ largest).float() for split, pixels in flat.items()}
    given = {split: (tables[split], parts[split][1]) for split in data.SPLITS}
    samples = data.tensors(*given["train"], test=given["test"], held_out=given["held_out"], name=f"{images.name} table")
    return Table(**vars(samples), images_sha256=images.sha256())


@undisturbed()
def trained(name: str, given: Data, seed: int, epochs: int, store: Store) -> nn.Module:
    """Return a parent in eval mode, from the store where it is there: AdamW, one cycle of its rate."""
    kind = KINDS[name]
    facts = {"kind": name, "data": given.name, "seed": seed, "epochs": epochs, "lr": kind.lr, "version": VERSION}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parent = kind.build(*given.part("train").batch(torch.tensor([0])).inputs.shape[1:3])
    path = store.path("parents", f"{kind.dataset}-{name}-seed{seed}-{key(facts)}", ".safetensors")
    if path is not None and parent_files.load(parent, path):
        return parent.eval()
    source = given.part("train")
    optimiser = torch.optim.AdamW(parent.parameters(), lr=kind.lr, weight_decay=0.01)
    steps = epochs * -(-len(source.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, kind.lr, total_steps=steps)
    parent.train()
    for epoch in range(epochs):
        order = torch.randperm(len(source.labels), generator=generator(seed, "parent's images", epoch))
        for batch in batches(source, order, BATCH):
            loss = nn.functional.cross_entropy(parent(batch.inputs), batch.labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    parent_files.round_to_half(parent)
    if path is not None:
        parent_files.save(parent, path)
    return parent.eval()


@dataclass(frozen=True)
class Asked:
    """What is asked: how far the vote of a parent's modules is behind it, with recommended settings or changed ones.

    `kind`: of the parent, one of `KINDS`. `changes`: of the recommended settings. `seed`: of the decomposition.
    `splits`: where it is measured; `images`: how many of each at most. `dataset`: whose images, or "" for the kind's;
    `epochs`: of the parent's training, or 0 for the kind's.
    """

    kind: str
    changes: Mapping[str, Any]
    seed: int
    splits: tuple[str, ...]
    images: int
    dataset: str = ""
    epochs: int = 0

    @property
    def experiment(self) -> Experiment:
        """Return it as an experiment: its record. The settings that were recommended are in its row."""
        versions = {"version": VERSION, "recommending_version": recommending.VERSION}
        facts = {**vars(self), "changes": dict(self.changes), **versions}
        return Experiment("recommended", f"{self.kind}-{'-'.join(self.splits)}-seed{self.seed}", facts)

    def run(self, given: Data, store: Store) -> Record:
        """Return its record: a row for each split."""
        return self.experiment.run(store, lambda: self._rows(given, store), data_sha256=given.sha256())

    def _rows(self, given: Data, store: Store) -> Rows:
        parent = trained(self.kind, given, 0, self.epochs or KINDS[self.kind].epochs, store)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an LSTM's weights stay whole; a vote far behind is a result of the page
            recipe = modlib.recommended(parent, given, **self.changes)
            modules = modlib.cotrain(parent, given, seed=self.seed, recipe=recipe, device="cpu")
        seconds = time.process_time() - began
        common = {
            "kind": self.kind,
            "data": given.name,
            "seed": self.seed,
            **_sizes(modules),
            "seconds": seconds,
            "recipe": chosen(Recipe(**modules.metadata["recipe"])),
        }
        return [common | {"split": split, **_accuracies(modules, given, split, self.images)} for split in self.splits]


def _sizes(modules: modlib.Modules) -> dict[str, float]:
    """Return shares of the maskable weights, those of all weights, and how alike masks are."""
    pairs, weights = modules.masks.remaining_of_pairs(), sum(p.numel() for p in modules.parent.parameters())
    return {
        "weights": weights,
        "masked": sum(mask[0].numel() for mask in modules.masks.masks.values()) / weights,
        "module": float(pairs.diagonal().mean()),
        "pairs": mean_over_pairs(pairs),
        "all": modules.remaining(),
        "jaccard": modules.masks.mean_jaccard(),
    }


@undisturbed()
@torch.no_grad()
def _accuracies(modules: modlib.Modules, given: Data, split: str, images: int) -> dict[str, float]:
    """Return how many images of a split are asked about, and what share of them parent and vote are right on."""
    source = given.part(split)
    rows = torch.arange(min(images, len(source.labels)))
    found = [(called(modules.parent, b.inputs), modules.log_odds(b.inputs)) for b in batches(source, rows, 500)]
    parent, vote = (
        metrics.recomposed_accuracy(torch.cat(part), source.labels[rows], modules.classes)
        for part in zip(*found, strict=True)
    )
    return {"images": len(rows), "parent": parent, "vote": vote, "gap": parent - vote}
