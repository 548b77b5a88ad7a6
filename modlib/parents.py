"""Parents: the trained classifiers that are decomposed (paper, section "Models")."""

from __future__ import annotations

import torch
from torch import nn

from modlib import checks
from modlib.datasets import Dataset
from modlib.seeds import generator

FC = {"fc1": 1, "fc2": 2, "fc3": 3, "fc4": 4}
"""The paper's fully connected parents and their number of hidden layers."""


def fc(hidden_layers: int, in_features: int, width: int = 49, num_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Return a fully connected classifier with ReLU: [B, ...] -> logits [B, num_classes], torch's default weights.

    FC1 to FC4 of the paper have 1 to 4 hidden layers of 49 neurons (as Pan and Rajan 2020).
    """
    checks.whole("hidden_layers", hidden_layers, 1)
    checks.whole("in_features", in_features, 1)
    checks.whole("width", width, 1)
    checks.whole("num_classes", num_classes, 2)
    draw = int(torch.randint(2**62, (), generator=generator(seed, "parent")))
    layers: list[nn.Module] = [nn.Flatten()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw)
        for i in range(hidden_layers):
            layers += [nn.Linear(in_features if i == 0 else width, width), nn.ReLU()]
        layers.append(nn.Linear(width, num_classes))
    return nn.Sequential(*layers)


def make(model: str, data: Dataset, seed: int = 0) -> nn.Module:
    """Return an untrained parent by the paper's name ("fc1" to "fc4") for the images of `data`."""
    checks.choice("model", model, FC)
    in_features = data.inputs(data.train_images[:1])[0].numel()
    return fc(FC[model], in_features, num_classes=data.num_classes, seed=seed)
