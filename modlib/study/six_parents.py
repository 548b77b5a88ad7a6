"""Small parents of different kinds, trained here, and how far the vote of their modules is behind them.

Six kinds of network: fully connected, convolutional (with batch normalisation and without), residual, transformer,
recurrent, and a perceptron over a table. What is chosen is chosen on held-out images; test images are read at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import modlib
from modlib import cotraining, data, metrics
from modlib.data import Data
from modlib.masking import mean_over_pairs
from modlib.parent import called
from modlib.precision import undisturbed
from modlib.recipes import Recipe
from modlib.seeds import generator
from modlib.sources import batches
from modlib.study.experiment import Experiment, chosen, later_versions
from modlib.study.records import Record, Rows, Store, key
from modlib.zoo import datasets, parent_files, parents

VERSION = 1
"""Raised when the same parameters give other numbers."""
BATCH = 128
"""Images in a batch of a parent's training."""
COLUMNS = 32
"""Columns of the table: principal components of images."""


class Rows2d(nn.Module):
    """An LSTM that reads an image row by row: [B, 1, H, W] -> logits [B, 10]."""

    def __init__(self, width: int, hidden: int = 48) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.hidden, self.out = nn.Linear(hidden, 64), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        states, _ = self.lstm(images[:, 0])
        return self.out(self.hidden(states[:, -1]).relu())


class Patches(nn.Module):
    """A small vision transformer over patches: [B, 1, S, S] -> logits [B, 10] (Dosovitskiy et al. 2021, in small)."""

    def __init__(self, side: int, patch: int = 7, dim: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, nn.functional.gelu, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.out(self.norm(self.layers(tokens)).mean(1))


def strided(normalised: bool) -> nn.Sequential:
    """Return three 3 × 3 convolutions of stride 2 and a linear layer: [B, 3, 32, 32] -> logits [B, 10]."""
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers.append(nn.Conv2d(before, after, 3, 2, 1, bias=not normalised))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if normalised else [nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def perceptron() -> nn.Sequential:
    """Return a perceptron over a table: [B, `COLUMNS`] -> logits [B, 10]."""
    return nn.Sequential(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@dataclass(frozen=True)
class Kind:
    """A kind of parent: in words, its data, the network, the epochs and the largest rate of its training."""

    words: str
    dataset: str
    build: Callable[[Data], nn.Module]
    epochs: int
    lr: float = 3e-3
    table: bool = False


def _side(data: Data) -> int:
    return int(data.part("train").batch(torch.tensor([0])).inputs.shape[-1])


KINDS = {
    "fc": Kind("fully connected", "mnist", lambda data: parents.fc(1, _side(data) ** 2), 6),
    "cnn": Kind("convolutions", "cifar10", lambda _: strided(False), 8),
    "cnn_bn": Kind("convolutions, batch norm", "cifar10", lambda _: strided(True), 8),
    "resnet": Kind("residual", "svhn_10k", lambda _: parents.wide_resnet(10, 1), 8, 1e-2),
    "vit": Kind("transformer", "fashion_mnist", lambda data: Patches(_side(data)), 4),
    "lstm": Kind("LSTM", "fashion_mnist", lambda data: Rows2d(_side(data)), 4),
    "mlp": Kind("perceptron, table", "fashion_mnist", lambda _: perceptron(), 6, table=True),
}
"""By name."""


def load(name: str, dataset: str = "") -> Data:
    """Return the data of a kind of parent; `dataset`: others than its own, of the same shape or another."""
    given = datasets.load(dataset or KINDS[name].dataset)
    return as_table(given) if KINDS[name].table else given


def as_table(images: data.Dataset) -> data.Samples:
    """Return images as a table of floats: their first principal components, each of deviation 1 in training."""
    parts = {split: images.split(split) for split in data.SPLITS}
    flat = {split: images.inputs(part[0]).flatten(1).double() for split, part in parts.items()}
    mean = flat["train"].mean(0)
    centred = flat["train"] - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    largest = vectors[:, -COLUMNS:] / values[-COLUMNS:].sqrt()
    tables = {split: ((pixels - mean) @ largest).float() for split, pixels in flat.items()}
    given = {split: (tables[split], parts[split][1]) for split in data.SPLITS}
    return data.tensors(*given["train"], test=given["test"], held_out=given["held_out"], name=f"{images.name} table")


@undisturbed()
def trained(name: str, given: Data, seed: int, epochs: int, store: Store) -> nn.Module:
    """Return a parent in eval mode, from the store where it is there: AdamW, one cycle of its rate."""
    kind = KINDS[name]
    facts = {"kind": name, "data": given.name, "seed": seed, "epochs": epochs, "lr": kind.lr, "version": VERSION}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parent = kind.build(given)
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
    """What is asked: how far the vote of a parent's modules is behind it, under a recipe.

    `kind`: of the parent, one of `KINDS`; `parent_seed` and `epochs` (0: the kind's) of its training; `dataset` or "",
    see `load`. `split`: where it is measured; `images`: how many of it at most. `seed`: of the decomposition.
    """

    kind: str
    recipe: Recipe
    seed: int
    split: str
    images: int
    parent_seed: int = 0
    epochs: int = 0
    dataset: str = ""

    @property
    def experiment(self) -> Experiment:
        """Return it as an experiment: its record."""
        own = {name: value for name, value in vars(self).items() if name != "recipe"}
        versions = {"version": VERSION} | later_versions(cotraining=cotraining.VERSION)
        return Experiment(
            "recommended",
            f"{self.kind}-{self.split}-seed{self.seed}",
            {**own, "recipe": chosen(self.recipe), **versions},
        )

    def parent(self, given: Data, store: Store) -> nn.Module:
        """Return its parent."""
        return trained(self.kind, given, self.parent_seed, self.epochs or KINDS[self.kind].epochs, store)

    def run(self, given: Data, store: Store) -> Record:
        """Return its record: one row."""
        return self.experiment.run(store, lambda: self._rows(given, store), data_sha256=given.sha256())

    def _rows(self, given: Data, store: Store) -> Rows:
        parent = self.parent(given, store)
        began = time.process_time()
        modules = modlib.cotrain(parent, given, seed=self.seed, recipe=self.recipe, device="cpu")
        seconds = time.process_time() - began
        logits, odds, labels = _answers(modules, given, self.split, self.images)
        pairs = modules.masks.remaining_of_pairs()
        own = pairs.diagonal().mean()
        right = {"parent": logits, "vote": odds}
        accuracy = {
            name: metrics.recomposed_accuracy(values, labels, modules.classes) for name, values in right.items()
        }
        return [
            {
                "kind": self.kind,
                "seed": self.seed,
                "split": self.split,
                "images": len(labels),
                **accuracy,
                "gap": accuracy["parent"] - accuracy["vote"],
                "module": float(own),
                "pairs": mean_over_pairs(pairs),
                "all": modules.remaining(),
                "jaccard": modules.masks.mean_jaccard(),
                "seconds": seconds,
            }
        ]


@undisturbed()
@torch.no_grad()
def _answers(modules: modlib.Modules, given: Data, split: str, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parent's logits and the modules' log-odds, [n, N] each, and the labels [n]."""
    source = given.part(split)
    rows = torch.arange(min(images, len(source.labels)))
    found = [(called(modules.parent, b.inputs), modules.log_odds(b.inputs)) for b in batches(source, rows, 500)]
    logits, odds = (torch.cat(part) for part in zip(*found, strict=True))
    return logits, odds, source.labels[rows]
