"""Toys that the tests share: small enough to work out by hand, on the CPU wherever they run."""

import copy

import pytest
import torch
from torch import nn

import modlib

torch.set_num_threads(1)


class TiedNet(nn.Module):
    """A network as users write them: one layer is called twice, and another shares its weight."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.tied, self.last = (nn.Linear(*s) for s in ((16, 5), (5, 5), (5, 5), (5, 3)))
        self.tied.weight = self.middle.weight

    def forward(self, inputs):
        hidden = self.middle(self.middle(self.first(inputs.flatten(1)).relu()).relu()).relu()
        return self.last(self.tied(hidden).tanh())


def conv_net():
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make().double().eval()


@pytest.fixture(autouse=True)
def _unexamined(request, monkeypatch):
    """Parents of tests are mostly untrained: tests of the mark `examined` alone hear what `cotrain` says of them."""
    if not request.node.get_closest_marker("examined"):
        monkeypatch.setattr(modlib.examination, "warn", lambda *_, **__: None)
        monkeypatch.setattr(modlib.examination, "warn_if_behind", lambda *_, **__: None)


@pytest.fixture(scope="session")
def data():
    """60 training, 12 held-out and 18 test images of 4x4, three classes; the row of its class is bright."""
    labels = torch.arange(90) % 3
    images = torch.randint(0, 128, (90, 4, 4), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    images[torch.arange(90), labels] += 127
    return modlib.data.from_arrays(images[:72], labels[:72], images[72:], labels[72:], held_out=12, name="toy")


@pytest.fixture(scope="session")
def inputs(data):
    """The test images as float64 inputs [18, 1, 4, 4]."""
    return data.inputs(data.test_images).double()


@pytest.fixture
def parent():
    """16 -> 6 -> 3, float64: 96 and 18 weights."""
    return modlib.zoo.parents.fc(1, 16, 6, 3, seed=1).double().eval()


@pytest.fixture
def tied_parent():
    return seeded(TiedNet)


@pytest.fixture
def conv_parent(data):
    """A convolutional network whose batch normalisations have seen the data."""
    net = seeded(conv_net)
    net[:7].train()(data.inputs(data.train_images).double())
    return net.eval()


@pytest.fixture(scope="session")
def decompose(data):
    """`cotrain` with small settings: four steps of at most 16 images an epoch."""

    def run(parent, **changes):
        settings = {"data": data, "k": 0.3, "alpha": 1.0, "epochs": 2, "seed": 0, "batch_size": 16, "device": "cpu"}
        return modlib.cotrain(parent, **settings | changes)

    return run


@pytest.fixture(scope="session")
def modules(decompose):
    """One decomposition of the toy network, for tests that only read it."""
    return decompose(modlib.zoo.parents.fc(1, 16, 6, 3, seed=1).double(), share_init=False)


@pytest.fixture(scope="session")
def masked_copy():
    """Makes, by hand, the network of one module: the parent times its mask, with its own statistics."""

    @torch.no_grad()
    def make(modules, row):
        net = copy.deepcopy(modules.parent)
        for name, mask in modules.masks.masks.items():
            net.state_dict()[name].mul_(mask[row])
        for name, own in modules.statistics.items():
            net.state_dict()[name].copy_(own[row])
        return net

    return make


@pytest.fixture(scope="session")
def same():
    """Says whether two decompositions are equal to the last bit."""

    def parts(m):
        return [*m.masks.masks.values(), *m.scores.values(), *m.statistics.values(), m.grafting_weight, m.grafting_bias]

    def check(a, b):
        return a.classes == b.classes and all(torch.equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))

    return check
