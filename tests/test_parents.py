"""Parents: their sizes, shapes and weights."""

import pytest
import torch
import torchvision
from torch import nn

from modlib import masking
from modlib.zoo import parents


@pytest.mark.parametrize(("name", "weights"), [("fc1", 38_906), ("fc2", 41_307), ("fc4", 46_109)])
def test_sizes_of_the_papers_networks(name, weights):
    # 784 * 49 = 38,416; 49 * 49 = 2,401 for each further hidden layer; 49 * 10 = 490
    net = parents.fc(parents.FC[name], 784)
    assert sum(masking.sizes(masking.maskable_parameters(net)).values()) == weights
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_network_by_its_seed(data):
    state = torch.random.get_rng_state()
    nets = [parents.make("fc2", data, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert [p.ndim == 2 and tuple(p.shape) for p in nets[0].parameters()][::2] == [(49, 16), (49, 49), (3, 49)]
    assert torch.equal(nets[0][1].weight, nets[1][1].weight)
    assert not torch.equal(nets[0][1].weight, nets[2][1].weight)
    assert nets[0][1].weight.abs().max() <= 1 / 4  # torch's default: uniform in +-1/sqrt(16)


LITERATURE = [
    # thirteen convolutions 14,710,464 + biases 4,224 + normalisation 8,448; 2 x (512 * 512 + 512) + 512 * 10 + 10
    ("vgg16", {"num_classes": 10}, 15_253_578),
    # torchvision's 25,557,032, less its classifier (2,049,000) and the 7x7 stem (9,408), plus 20,490 and 1,728
    ("resnet50", {"num_classes": 10}, 23_520_842),
    ("wrn28_10", {"num_classes": 10}, 36_479_194),  # Zagoruyko and Komodakis 2016: 36.5M
    ("wrn28_10", {"num_classes": 100}, 36_536_884),
    ("wrn16_2", {"num_classes": 10}, 691_674),  # the same: 0.7M
]


@pytest.mark.parametrize(("name", "changes", "expected"), LITERATURE)
def test_sizes_of_the_convolutional_networks(name, changes, expected):
    net = parents.CONVOLUTIONAL[name](**changes)
    assert sum(p.numel() for p in net.parameters()) == expected


STAGES = {
    "vgg16_quarter": {"features": (128, 1, 1), "flatten": (128,), "classifier": (10,)},
    "resnet50_quarter": {
        "conv1": (16, 32, 32),
        "layer1": (64, 32, 32),
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "layer4": (512, 4, 4),
        "flatten": (512,),
        "fc": (10,),
    },
    "wrn16_2": {
        "conv1": (16, 32, 32),
        "group1": (32, 32, 32),
        "group2": (64, 16, 16),
        "group3": (128, 8, 8),
        "flatten": (128,),
        "fc": (10,),
    },
}


@pytest.mark.parametrize("name", STAGES)
def test_shapes_of_every_stage(name):
    hidden, shapes = torch.zeros(2, 3, 32, 32), {}
    for stage, layer in parents.CONVOLUTIONAL[name]().eval().named_children():
        hidden = layer(hidden)
        shapes[stage] = tuple(hidden.shape[1:])
    assert {stage: shapes[stage] for stage in STAGES[name]} == STAGES[name]


def test_vgg16_layer_by_layer():
    net = parents.vgg16(num_classes=7, width=0.5, dropout=0.25)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    channels = [32, 32, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256, 256]
    assert [m.out_channels for m in convolutions] == channels
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 13
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    assert [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Linear)] == [(256, 256)] * 2 + [(7, 256)]
    variance = float(convolutions[4].weight.detach().var())  # 64 -> 128, by fan out
    assert variance == pytest.approx(2 / (9 * 128), rel=0.02)
    assert not convolutions[5].bias.any()


def test_resnet50_is_torchvisions_but_for_the_stem():
    theirs = torchvision.models.resnet50(num_classes=10).state_dict()
    ours = parents.resnet50().state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if ours[name].shape != theirs[name].shape] == ["conv1.weight"]
    net = torchvision.models.resnet50(num_classes=10)
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    net.load_state_dict(ours)
    inputs = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net.eval()(inputs), parents.resnet50().eval()(inputs))


def test_a_wide_block_by_hand():
    """One channel, 1x1 image: only the middle of each 3x3 kernel meets it."""
    block = parents.WideBlock(1, 1, stride=1, dropout=0.0).eval().requires_grad_(False)
    block.conv1.weight.fill_(2.0)
    block.conv2.weight.fill_(3.0)
    block.bn2.running_mean.fill_(1.0)
    block.bn1.eps = block.bn2.eps = 0.0
    assert block.shortcut is None
    assert block(torch.tensor([5.0, -5.0]).view(2, 1, 1, 1)).flatten().tolist() == [5 + 3 * (2 * 5 - 1), -5]
    wider = parents.WideBlock(1, 2, stride=2, dropout=0.0).eval().requires_grad_(False)
    wider.conv2.weight.zero_()
    wider.shortcut.weight.copy_(torch.tensor([1.0, 4.0]).view(2, 1, 1, 1))
    wider.bn1.eps = 0.0
    images = torch.tensor([[7.0, -1.0], [-1.0, -1.0]]).view(1, 1, 2, 2)  # the shortcut takes the activated input
    assert wider(images).flatten().tolist() == [7.0, 28.0]
    assert wider(-images).flatten().tolist() == [0.0, 0.0]


def test_a_convolutional_network_by_its_seed(data):
    state = torch.random.get_rng_state()
    nets = [parents.make("wrn16_2", data, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert nets[0].fc.weight.shape == (3, 128)
    assert nets[0].conv1.weight.shape == (16, 1, 3, 3)
    first, again, other = (net.group3[0].conv1.weight for net in nets)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert nets[0](data.inputs(data.train_images[:2])).shape == (2, 3)


def test_old_fully_connected_parents_are_drawn_as_before():
    net = parents.fc(2, 16, 6, 3, seed=5)
    sums = [round(float(p.detach().double().sum()), 5) for p in net.parameters()]
    assert sums == [0.11607, -0.29779, 0.55634, 0.40902, -1.0081, 0.40563]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda data: parents.make("vgg", data), "model must be one of .*'wrn28_10'.*, got 'vgg'"),
        (lambda data: parents.make("vgg16", data), r"vgg16 takes inputs \[B, 3, 32, 32\], those of 'toy' .* 1, 4, 4\]"),
        (lambda data: parents.wide_resnet(20, 2), r"depth must be 6 n \+ 4 .*, got 20"),
        (lambda data: parents.wide_resnet(16, 0), "widen must be at least 1"),
        (lambda data: parents.vgg16(width=0.0), "width must be above 0"),
        (lambda data: parents.vgg16(dropout=1.5), r"dropout must be in \[0, 1\], got 1.5"),
        (lambda data: parents.resnet50(num_classes=1), "num_classes must be at least 2, got 1"),
    ],
)
def test_what_parents_refuse(call, match, data):
    with pytest.raises(ValueError, match=match):
        call(data)
