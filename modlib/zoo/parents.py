"""Parents: the trained classifiers that are decomposed (paper, section "Models").

FC1 to FC4, and the convolutional networks of the paper for images of 32 × 32: VGG16, ResNet50 and WideResNet-28-10,
each also narrower or shallower ("reduced"), for machines without a GPU. Blocks are torchvision's where it has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, extras
from modlib.data import Dataset
from modlib.precision import undisturbed
from modlib.seeds import generator

FC = {"fc1": 1, "fc2": 2, "fc3": 3, "fc4": 4}
"""The paper's fully connected parents and their number of hidden layers."""


@contextmanager
def _weights_of(seed: int) -> Iterator[None]:
    """Within it, torch's own initialisation draws by `seed`; torch's global generator is afterwards what it was."""
    with undisturbed(), torch.random.fork_rng(devices=[]):
        draw = int(torch.randint(2**62, (), generator=generator(seed, "parent")))
        torch.manual_seed(draw)
        yield


def fc(hidden_layers: int, in_features: int, width: int = 49, num_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Return a fully connected classifier with ReLU: [B, ...] -> logits [B, num_classes], torch's default weights.

    FC1 to FC4 of the paper have 1 to 4 hidden layers of 49 neurons (as Pan and Rajan 2020).
    """
    checks.whole("hidden_layers", hidden_layers, 1)
    checks.whole("in_features", in_features, 1)
    checks.whole("width", width, 1)
    checks.whole("num_classes", num_classes, 2)
    layers: list[nn.Module] = [nn.Flatten()]
    with _weights_of(seed):
        for i in range(hidden_layers):
            layers += [nn.Linear(in_features if i == 0 else width, width), nn.ReLU()]
        layers.append(nn.Linear(width, num_classes))
    return nn.Sequential(*layers)


def vgg16(num_classes: int = 10, width: float = 1.0, dropout: float = 0.5, seed: int = 0) -> nn.Sequential:
    """Return VGG16 with batch normalisation: float [B, 3, 32, 32] -> logits [B, num_classes].

    Thirteen 3 × 3 convolutions (Simonyan and Zisserman 2015, configuration D), then three linear layers, two of 512
    neurons, with dropout in front of each of these. `width` scales all channels and these neurons. The paper does not
    say which classifier it used: with ImageNet's 4,096 neurons it would hold more weights than the convolutions; 512 is
    customary at 32 × 32, and three layers keep VGG's sixteen and a place for its dropout. 15.3 million parameters.
    """
    _check(num_classes, width=width, dropout=dropout)
    hidden, vgg = _scaled(512, width), extras.require("torchvision.models.vgg", "VGG16")
    with _weights_of(seed):
        plan = [v if isinstance(v, str) else _scaled(v, width) for v in vgg.cfgs["D"]]
        features = vgg.make_layers(plan, batch_norm=True)
        first, second = ([nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()] for _ in range(2))
        classifier = nn.Sequential(*first, *second, nn.Linear(hidden, num_classes))
        return _he(OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier))


def resnet50(num_classes: int = 10, width: float = 1.0, in_channels: int = 3, seed: int = 0) -> nn.Sequential:
    """Return ResNet50 with the stem for 32 × 32: float [B, in_channels, H, W] -> logits [B, num_classes].

    torchvision's bottlenecks (3, 4, 6, 3 of them) after one 3 × 3 convolution of stride 1, no max pooling (He et al.
    2016, section 4.2). Parameters are named as torchvision's. `width` scales all channels. 23.5 million parameters.
    """
    _check(num_classes, in_channels, width=width)
    channels = _scaled(64, width)
    with _weights_of(seed):
        stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        layers = OrderedDict[str, nn.Module](conv1=stem, bn1=nn.BatchNorm2d(channels), relu=nn.ReLU())
        for i, blocks in enumerate((3, 4, 6, 3)):
            planes = _scaled(64 * 2**i, width)
            layers[f"layer{i + 1}"] = _stage(channels, planes, blocks, stride=1 if i == 0 else 2)
            channels = planes * _bottleneck().expansion
        layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(channels, num_classes)}
        return _he(layers)


def _bottleneck() -> Any:
    return extras.require("torchvision.models.resnet", "ResNet50").Bottleneck


def _stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Return bottlenecks in a row; the first has the stride, and a convolution in its shortcut."""
    block = _bottleneck()
    out = planes * block.expansion
    shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    first = block(channels, planes, stride, shortcut)
    return nn.Sequential(first, *(block(out, planes) for _ in range(blocks - 1)))


class WideBlock(nn.Module):
    """A block of a wide residual network: twice batch normalisation, ReLU and a 3 × 3 convolution, dropout between.

    [B, channels, H, W] -> [B, out, H / stride, W / stride]. Where the shape changes, the shortcut is a 1 × 1
    convolution of the activated input, else the input itself (Zagoruyko and Komodakis 2016, and their code).
    """

    def __init__(self, channels: int, out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out)
        self.relu1, self.relu2, self.dropout = nn.ReLU(), nn.ReLU(), nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        changes = stride != 1 or channels != out
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.relu1(self.bn1(inputs))
        hidden = self.relu2(self.bn2(self.conv1(active)))
        return self.conv2(self.dropout(hidden)) + (inputs if self.shortcut is None else self.shortcut(active))


def wide_resnet(
    depth: int = 28, widen: int = 10, num_classes: int = 10, dropout: float = 0.0, in_channels: int = 3, seed: int = 0
) -> nn.Sequential:
    """Return a wide residual network, WRN-depth-widen: float [B, in_channels, H, W] -> logits [B, num_classes].

    A 3 × 3 convolution, three groups of (depth - 4) / 6 pre-activated blocks of 16, 32 and 64 times `widen` channels
    (Zagoruyko and Komodakis 2016, table 1). WRN-28-10: 36.5 million parameters. ValueError where depth is not 6 n + 4.
    """
    _check(num_classes, in_channels, dropout=dropout)
    checks.whole("depth", depth, 10)
    checks.whole("widen", widen, 1)
    if depth % 6 != 4:
        raise ValueError(f"depth must be 6 n + 4 (10, 16, 22, 28, ...), got {depth}")
    channels = 16
    with _weights_of(seed):
        layers = OrderedDict[str, nn.Module](conv1=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
        for i in range(3):
            group = nn.Sequential()
            for j in range((depth - 4) // 6):
                out = 16 * 2**i * widen
                group.append(WideBlock(channels, out, 2 if i > 0 and j == 0 else 1, dropout))
                channels = out
            layers[f"group{i + 1}"] = group
        layers |= {"bn": nn.BatchNorm2d(channels), "relu": nn.ReLU(), "avgpool": nn.AdaptiveAvgPool2d(1)}
        layers |= {"flatten": nn.Flatten(), "fc": nn.Linear(channels, num_classes)}
        return _he(layers)


Build = Callable[..., nn.Module]

CONVOLUTIONAL: dict[str, Build] = {
    "vgg16": vgg16,
    "resnet50": resnet50,
    "wrn28_10": wide_resnet,
    "vgg16_quarter": partial(vgg16, width=0.25),
    "resnet50_quarter": partial(resnet50, width=0.25),
    "wrn16_2": partial(wide_resnet, 16, 2),
}
"""Convolutional parents by name: the paper's three, and those at a quarter of the width or of fewer layers."""

NAMES = (*FC, *CONVOLUTIONAL)
"""All parents that `make` knows."""


def make(model: str, data: Dataset, seed: int = 0) -> nn.Module:
    """Return an untrained parent by name, one of `NAMES`, for the images and the number of classes of `data`.

    Raises ValueError for an unknown name, and where a network cannot take such images: VGG16 takes 32 × 32 or a bit
    more in three channels, the residual networks any size and number of channels.
    """
    checks.choice("model", model, NAMES)
    shape = data.inputs(data.train_images[:1]).shape[1:]
    if model in FC:
        return fc(FC[model], shape.numel(), num_classes=data.num_classes, seed=seed)
    vgg = model.startswith("vgg16")
    if len(shape) != 3 or (vgg and not (shape[0] == 3 and all(32 <= side < 64 for side in shape[1:]))):
        takes = "[B, 3, 32, 32]" if vgg else "[B, C, H, W]"
        raise ValueError(f"model: {model} takes inputs {takes}, those of {data.name!r} are [B, {str(list(shape))[1:]}")
    channels = {} if vgg else {"in_channels": shape[0]}
    return CONVOLUTIONAL[model](num_classes=data.num_classes, seed=seed, **channels)


def _check(num_classes: int, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0) -> None:
    checks.whole("num_classes", num_classes, 2)
    checks.whole("in_channels", in_channels, 1)
    checks.positive("width", width)
    checks.number("dropout", dropout, 0.0, 1.0)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _he(layers: OrderedDict[str, nn.Module]) -> nn.Sequential:
    """Join the layers; convolutions start as torchvision's and the papers' do, linear layers as torch's."""
    net = nn.Sequential(layers)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net
