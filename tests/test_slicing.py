"""Channels cut out: a cut network is the silenced one, to rounding, and what cannot be cut is named."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from modlib.deploy import measuring, slicing
from modlib.deploy.following import relu_follows
from modlib.deploy.repair import _between, repair, targets


class Plain(nn.Module):
    """Convolutions with biases and padding, one without normalisation, then linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, 2, 1)
        self.c, self.d = nn.Linear(6 * 16, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.norm(self.a(x)).relu()).relu()
        return self.d(self.c(x.flatten(1)).relu())


class Residual(nn.Module):
    """A stream that three layers add to, normalised before it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n1, self.c1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.n2, self.c2, self.n3 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.c1(self.n1(x).relu())
        x = x + self.c2(self.n2(x).relu())
        return self.head(self.n3(x).relu().mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.n1 = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.n2 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.down, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.n2(self.deep(self.n1(self.up(x)).relu())).relu()
        return self.head(self.down(x).relu().mean((2, 3)))


class Branches(nn.Module):
    """Two branches whose channels are concatenated, in which one convolution is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.mix, self.twice, self.head = nn.Conv2d(10, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.one(x).relu(), self.two(x).relu()], 1)
        x = self.twice(self.twice(self.mix(x).relu()).relu()).relu()
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """A convolution of two groups between two plain ones, with a residual connection around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.mix, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.mix(x).relu()).mean((2, 3)))


KINDS = (Plain, Residual, Depthwise, Branches, Grouped)


def made(kind: type[nn.Module]) -> nn.Module:
    """A network in float64 whose normalisations have statistics, scales and shifts of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = kind().double()
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias)
    return net.eval()


def with_statistics_of(net: nn.Module, inputs: Tensor) -> nn.Module:
    """The network with running statistics of these inputs, as a trained one has."""
    torch.optim.swa_utils.update_bn([inputs], net)
    return net.eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def half(anatomy: slicing.Anatomy) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return {u.root: u.first(torch.randperm(u.channels, generator=draw), u.channels // 2) for u in anatomy.units}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cut_network_is_the_silenced_one(kind: type[nn.Module]) -> None:
    net, inputs = made(kind), images()
    before = copy.deepcopy(net.state_dict())
    anatomy = slicing.anatomy(net, inputs)
    assert anatomy.units
    kept = half(anatomy)
    small, whole = slicing.cut(net, inputs, kept), slicing.silenced(net, inputs, kept)
    for some in (inputs, 100 * inputs, -inputs):  # also far from any data
        torch.testing.assert_close(small(some), whole(some), rtol=1e-10, atol=1e-10)
        single = small.float()(some.float())
        torch.testing.assert_close(
            single, whole.float()(some.float()), rtol=1e-4, atol=1e-4 * float(single.abs().max())
        )
        small.double(), whole.double()
    assert not torch.allclose(small(inputs), net(inputs))
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    assert measuring.cost(small, inputs)["parameters"] < 0.8 * measuring.cost(net, inputs)["parameters"]


def test_what_is_tied_is_one_unit_and_what_is_not_cut_is_named() -> None:
    anatomy = slicing.anatomy(made(Residual), images())
    assert [(u.root, u.layers, u.normalised) for u in anatomy.units] == [
        ("stem", ("stem", "c1", "c2"), ("n1", "n2", "n3")),
    ]
    assert dict(anatomy.uncut) == {"head": "gives the logits"}
    plain = slicing.anatomy(made(Plain), images())
    assert [(u.root, u.read_at) for u in plain.units] == [("a", ("norm",)), ("b", ("b",)), ("c", ("c",))]


def test_of_a_grouped_convolution_the_same_places_of_each_group_go() -> None:
    (unit,) = slicing.anatomy(made(Grouped), images()).units
    assert (unit.layers, unit.groups) == (("stem", "mix"), 2)
    order = torch.tensor([7, 0, 6, 5, 1, 2, 3, 4])
    assert unit.first(order, 4).tolist() == [0, 3, 4, 7]
    assert unit.first(order, 5).tolist() == [0, 3, 4, 7]  # no more than asked for
    assert unit.first(order, 1).tolist() == [3, 7]


def test_the_cost_of_a_layer_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 64, 4))
    found = measuring.cost(net, torch.zeros(2, 3, 8, 8))
    assert found == {"parameters": 8 * 27 + 4 * 512 + 4, "multiply_adds": 64 * 8 * 27 + 4 * 512}


def test_the_cost_of_attention_is_counted() -> None:
    """Torch's fused layers hide it from a counter."""
    layer = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
    projections, attention, behind = 4 * 16 * 16, 2 * 6 * 16, 2 * 16 * 64
    found = measuring.cost(layer, torch.zeros(2, 6, 16))
    assert found["multiply_adds"] == 6 * (projections + attention + behind)
    assert torch.backends.mha.get_fastpath_enabled()


def test_kinds_of_layers_that_are_not_cut_are_named() -> None:
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    anatomy = slicing.anatomy(net, torch.randn(2, 3, 6))
    assert anatomy.uncut == {"0": "a Conv1d is not cut", "5": "gives the logits"}
    assert [unit.root for unit in anatomy.units] == ["3"]


@pytest.mark.parametrize("kind", KINDS)
def test_repair_brings_a_cut_network_nearer_to_its_parent(kind: type[nn.Module]) -> None:
    inputs = images(64)
    net = with_statistics_of(made(kind), inputs)
    anatomy = slicing.anatomy(net, inputs)
    kept = half(anatomy)
    cut = slicing.cut(net, inputs, kept)
    outputs = {layer: kept[u.root] for u in anatomy.units for layer in u.layers}
    mended = repair(copy.deepcopy(cut), targets(net, inputs, batch=16), outputs, ridge=1e-3)
    with torch.no_grad():
        wanted, without, with_it = net(inputs), cut(inputs), mended(inputs)

    def left(given: Tensor) -> float:
        return float((given - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())

    assert left(with_it) < 0.7 * left(without)
    pickle.loads(pickle.dumps(mended))


def test_repair_of_a_network_that_lost_nothing_leaves_what_it_computes() -> None:
    inputs = images(64)
    net = with_statistics_of(made(Plain), inputs)
    with torch.no_grad():
        mended = repair(copy.deepcopy(net), targets(net, inputs, batch=16), {}, ridge=1e-6)
        torch.testing.assert_close(mended(inputs), net(inputs), rtol=1e-2, atol=1e-2)


def test_a_scale_and_a_shift_are_found_where_they_are_all_that_is_wrong() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    inputs = torch.randn(40, 3, 8, 8)
    wrong = copy.deepcopy(net)
    with torch.no_grad():
        wrong[0].weight *= torch.tensor([0.5, -2.0, 3.0, 1.0])[:, None, None, None]
        wrong[3].weight *= 1.5
        wrong[3].bias += 0.7
        mended = repair(wrong, targets(net, inputs), {}, kind="scaled")
        torch.testing.assert_close(mended(inputs), net(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["nonlinear", "linear", "scaled"])
def test_an_image_that_weighs_twice_as_much_is_there_twice(kind: str) -> None:
    """Exactly so where every row of a layer is an image; of convolutions other places would be drawn."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    inputs = torch.randn(40, 6)
    kept = {"0": torch.tensor([0, 2, 3, 6])}
    cut = slicing.cut(net, inputs, kept)
    twice = torch.cat([inputs, inputs[:10]])
    weights = torch.ones(40)
    weights[:10] = 2.0
    weighed = repair(copy.deepcopy(cut), targets(net, inputs, weights=weights), kept, kind=kind)
    repeated = repair(copy.deepcopy(cut), targets(net, twice), kept, kind=kind)
    plain = repair(copy.deepcopy(cut), targets(net, inputs), kept, kind=kind)
    with torch.no_grad():
        torch.testing.assert_close(weighed(inputs), repeated(inputs), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(plain(inputs), repeated(inputs), rtol=1e-2, atol=1e-2)


class Gated(nn.Module):
    """Layers that a ReLU follows: as a function, as a module, behind a normalisation; and such that it doesn't."""

    def __init__(self) -> None:
        super().__init__()
        self.function, self.module, self.normed = (nn.Conv2d(c, 3, 1) for c in (3, 3, 3))
        self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.added, self.twice, self.smooth = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.read_twice = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.function(x))
        x = self.relu(self.module(x))
        x = self.relu(self.norm(self.normed(x)))
        x = self.relu(x + self.added(x))
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        x = nn.functional.gelu(self.smooth(x))
        y = self.read_twice(x)
        return self.head((torch.relu(y) + y).mean((2, 3)))


def test_a_relu_is_found_behind_functions_modules_and_normalisations_and_nowhere_else() -> None:
    net = made(Gated).requires_grad_(False)
    assert relu_follows(net, images(2)) == {"function": None, "module": None, "normed": "norm"}
    assert not any(p.requires_grad for p in net.parameters())


def test_the_step_between_target_and_output_is_the_least_of_all() -> None:
    passed = torch.tensor([0.0, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    given = torch.tensor([0.7, -1.0, -0.4, 3.0, -5.0], dtype=torch.float64)
    grid = torch.linspace(-6, 6, 120_001, dtype=torch.float64)[:, None]
    for penalty in (0.03, 0.3, 1.0):
        cost = (passed - grid.relu()) ** 2 + penalty * (grid - given) ** 2
        torch.testing.assert_close(_between(passed, given, penalty), grid[cost.argmin(0), 0], atol=3e-4, rtol=0)


def test_errors_below_a_threshold_are_let_go_where_that_buys_accuracy_above_it() -> None:
    """A scale of -1 turns the threshold round; the layer has no bias of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        net = nn.Sequential(
            nn.Conv2d(3, 24, 3, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 8, 3, bias=False)
        )
        net = nn.Sequential(*net, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)).eval()
        inputs = torch.randn(200, 3, 8, 8)
    with torch.no_grad():
        net[4].weight[::2] = -1.0
        net[4].bias -= 0.3
    net = with_statistics_of(net, inputs)
    kept = {"0": torch.arange(0, 24, 3)}
    cut = slicing.cut(net, inputs[:2], kept)
    aims = targets(net, inputs)

    def left(kind: str) -> float:
        small = repair(copy.deepcopy(cut), aims, kept, kind=kind)
        with torch.no_grad():
            return float((small[:6](inputs) - net[:6](inputs)).square().mean())

    assert left("nonlinear") < 0.97 * left("linear")
    assert left("linear") < left("scaled") < left("statistics")
