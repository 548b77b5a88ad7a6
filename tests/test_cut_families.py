"""Channels cut out of torchvision's families: what is left computes what the whole one does without these channels.

What can't be cut is named. Left out: Swin and SwinV2, which take Torch-Pruning minutes, and MaxViT, where it fails.
"""

import pytest
import torch
from families import FAMILIES
from torch import nn

import modlib
from modlib.decomposers.channels import ChannelSaliency
from modlib.deploy import measuring, slicing

UNCUT = {
    "convnext": {"a cut changes what stays": 3, "gives the logits": 1},
    "googlenet": {"not in the traced graph": 6, "gives the logits": 1},
    "shufflenet": {"tied to a layer of another width": 2, "a cut changes what stays": 1, "gives the logits": 1},
    "vit": {"not in the traced graph": 2, "a cut changes what stays": 1, "gives the logits": 1},
}
CUT = sorted(set(FAMILIES) - {"maxvit", "swin", "swin_v2"})
QUICK = sorted(set(CUT) - {"googlenet", "mnasnet", "mobilenet_v2", "resnet"})
"""Those that are ranked and repaired in seconds, and whose blocks the others share."""


def made(family: str) -> nn.Module:
    """A network in float64 whose every parameter and statistic is random: fresh ones hold zeros, which hide errors."""
    torch.manual_seed(0)
    net = FAMILIES[family]().double().eval()
    for values in net.parameters():
        values.data += 0.05 * torch.randn_like(values)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
    return net


@pytest.mark.parametrize("family", CUT)
@torch.no_grad()
def test_a_cut_network_is_the_silenced_one(family):
    net, inputs = made(family), torch.rand(2, 3, 32, 32, dtype=torch.double)
    anatomy = slicing.anatomy(net, inputs)
    kept = {u.root: u.first(torch.randperm(u.channels), -(-u.channels // 3)) for u in anatomy.units}
    small, whole = slicing.cut(net, inputs, kept), slicing.silenced(net, inputs, kept)
    assert float(whole(inputs).norm()) > 0
    torch.testing.assert_close(small(inputs), whole(inputs), rtol=1e-6, atol=1e-9)
    before, after = measuring.cost(net, inputs), measuring.cost(small, inputs)
    assert after["multiply_adds"] < 0.9 * before["multiply_adds"]
    counts = {why: list(anatomy.uncut.values()).count(why) for why in anatomy.uncut.values()}
    assert counts == UNCUT.get(family, {"gives the logits": 1})


@pytest.mark.parametrize("family", QUICK)
def test_a_subset_is_repaired(family):
    """With images as many as these, nearly the parent's logits come out where little is cut."""
    net = made(family).float()
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = modlib.data.tensors(images, torch.arange(24) % 3)
    channels = ChannelSaliency().decompose(net, data, seed=0, device="cpu")
    small, bare = (channels.recompose([2, 0], data=data, keep=0.9, images=24, repair=r) for r in ("nonlinear", None))
    assert measuring.cost(small, images)["multiply_adds"] <= 0.9 * measuring.cost(net, images)["multiply_adds"]
    with torch.no_grad():
        wanted = net(images)[:, [2, 0]]
        far, near = (float((one(images) - wanted).square().mean()) for one in (bare, small))
    assert near < far
