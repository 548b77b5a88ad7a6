"""Channels: from saliencies to a plain, smaller network for any subset of the classes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from modlib.decomposers.channels import ChannelSaliency, coverage, uniform
from modlib.deploy import measuring


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3, 2, 1)]
        return nn.Sequential(*layers, nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)).eval()


@pytest.fixture(scope="module")
def parent(data):
    """A network that tells the toy's three classes apart."""
    net = network().train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    inputs = data.inputs(data.train_images)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(inputs), data.train_labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def channels(parent, data):
    before = copy.deepcopy(parent.state_dict())
    found = ChannelSaliency(images=20).decompose(parent, data, seed=0, device="cpu")
    assert all(torch.equal(values, before[name]) for name, values in parent.state_dict().items())
    return found


@pytest.mark.parametrize("subset", [[0, 1, 2], [2, 0], [1]], ids=str)
@pytest.mark.parametrize("of", ["multiply_adds", "parameters"])
def test_a_subset_is_a_plain_network_within_its_budget(subset, of, channels, parent, data):
    small = channels.recompose(subset, data=data, keep=0.5, of=of, images=60)
    inputs = data.inputs(data.test_images)
    assert small(inputs).shape == (18, len(subset))
    example = inputs[:2]
    assert measuring.cost(small, example)[of] <= 0.5 * measuring.cost(parent, example)[of]
    mine = torch.isin(data.test_labels, torch.tensor(subset))
    predicted = torch.tensor(subset)[small(inputs[mine]).argmax(1)]
    assert (predicted == data.test_labels[mine]).float().mean() > 0.8


def test_without_a_cut_it_is_the_restricted_parent(channels, parent, data):
    inputs = data.inputs(data.test_images)
    whole = channels.recompose([2, 0], data=data, keep=1.0, images=0)
    torch.testing.assert_close(whole(inputs), parent(inputs)[:, [2, 0]])


def test_saliency_by_hand_on_one_linear_layer(data):
    """A hidden unit's saliency is the mean of |value · dBCE / dvalue| over the images that are drawn."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    found = ChannelSaliency(images=10**6).decompose(net, data, seed=0, classes=[1], device="cpu")
    rows = found.saliency["1"][0]
    silent = rows == 0
    with torch.no_grad():
        never = (net[:2](data.inputs(data.train_images)) <= 0).all(0)
    assert torch.equal(silent & never, never), "a unit that never fires says nothing"
    assert bool((rows >= 0).all())


def test_budgets_are_shared_out_by_a_rule():
    saliency = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0])
    assert [coverage(saliency, share) for share in (0.5, 0.75, 1.0)] == [1, 2, 5]
    assert uniform(saliency, 0.4) == 2


def test_what_cannot_be_is_said(channels, data):
    with pytest.raises(ValueError, match="no module for class 7"):
        channels.recompose([7], data=data)
    with pytest.raises(ValueError, match="keep: so little"):
        channels.recompose([0], data=data, keep=1e-6)
    with pytest.raises(ValueError, match="of must be one of"):
        channels.recompose([0], data=data, of="seconds")


def test_the_network_is_read_without_this_package(channels, data, tmp_path):
    path = Path(tmp_path) / "pair.pkl"
    path.write_bytes(pickle.dumps(channels.recompose([0, 1], data=data, keep=0.5, images=20)))
    read = f"pickle.load(open({str(path)!r}, 'rb'))"
    code = f"import pickle, sys; sys.modules['modlib'] = None; print(type({read}).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "Sequential", done.stderr
