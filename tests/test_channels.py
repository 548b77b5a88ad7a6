"""Channels: from saliencies to a plain, smaller network for any subset of the classes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from modlib.decomposers.channels import ChannelSaliency, _width, explained, nearness, restricted_accuracy, uniform
from modlib.deploy import measuring, saliency


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


def test_it_is_printed_in_a_line(channels):
    assert repr(channels) == "Channels of 3 classes: 32 in 2 units; not cut: 7, gives the logits"


def test_without_a_cut_it_is_the_restricted_parent(channels, parent, data):
    inputs = data.inputs(data.test_images)
    whole = channels.recompose([2, 0], data=data, keep=1.0, repair=None)
    torch.testing.assert_close(whole(inputs), parent(inputs)[:, [2, 0]])


def test_saliency_by_hand_on_one_hidden_layer(data):
    """A hidden unit's saliency is the mean of |value · gradient of the log-odds|, relative to the layer's mean."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    found = ChannelSaliency(images=10**6).decompose(net, data, seed=0, classes=[1], device="cpu").saliency["1"][0]
    inputs = data.inputs(data.train_images[data.train_labels == 1])
    hidden = net[:3](inputs).detach().requires_grad_()
    logits = net[3](hidden)
    (logits[:, 1] - torch.logaddexp(logits[:, 0], logits[:, 2])).sum().backward()
    by_hand = (hidden * hidden.grad).abs().sum(0).detach()
    torch.testing.assert_close(found, by_hand / by_hand.mean())


def test_channels_are_ranked_by_what_they_explain_together():
    """Of two equal channels the second adds nothing; one that nothing depends on comes last."""
    pattern = [[1.0, 1.0, 0.0, 2.0], [-1.0, -1.0, 0.0, 2.0], [0.0, 0.0, 1.0, -2.0], [0.0, 0.0, -1.0, -2.0]]
    values = torch.tensor(pattern)  # [rows, channels], each of mean 0
    gradients = torch.tensor([[3.0, 3.0, 1.0, 0.0]])
    moments = saliency.Moments(4, values.sum(0), values.T @ values, 4 * gradients.T @ gradients, torch.ones(4))
    ranking = saliency.by_variance(moments)
    assert ranking.order[0] in (0, 1)
    assert ranking.order[1] == 2
    assert float(ranking.explained[1]) == pytest.approx(1.0)
    assert ranking.needed(0.999) == 2
    assert ranking.needed(1.0) == 4
    assert saliency.by_size(torch.tensor([1.0, 4.0, 3.0])).order.tolist() == [1, 2, 0]


def test_moments_of_two_batches_are_those_of_both(channels, data):
    inputs = data.inputs(data.train_images[:24])
    whole, parts = (
        saliency.measure(channels.parent, channels.anatomy, batches, [0, 2]) for batches in ([inputs], inputs.split(7))
    )
    for root, moments in whole.items():
        assert moments.rows == parts[root].rows
        torch.testing.assert_close(moments.products, parts[root].products)
        torch.testing.assert_close(moments.gradients, parts[root].gradients)


def test_budgets_are_shared_out_by_a_rule():
    ranking = saliency.by_size(torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0]))
    assert [ranking.needed(share) for share in (0.5, 0.75, 1.0)] == [1, 2, 5]
    assert uniform(ranking, 0.4) == 2
    assert [explained(ranking, strength) for strength in (0.0, 1.0)] == [1, 5]


@pytest.mark.parametrize(
    ("count", "channels", "multiple", "width"),
    [
        (3, 49, 16, 8),
        (13, 49, 16, 16),
        (48, 49, 16, 48),
        (49, 49, 16, 49),
        (22, 23, 16, 16),
        (28, 30, 16, 24),
        (3, 64, 8, 16),
        (23, 64, 8, 24),
        (23, 64, 16, 16),
        (25, 64, 16, 32),
        (3, 512, 16, 32),
        (90, 512, 16, 96),
        (90, 512, 1, 90),
        (7, 49, 1, 12),
        (5, 10, 16, 5),
        (0, 10, 16, 1),
    ],
)
def test_widths_are_multiples_where_a_layer_is_wide_enough(count, channels, multiple, width):
    assert _width(count, channels, multiple) == width


def test_within_gives_the_smallest_that_loses_no_more_on_held_out_images(channels, parent, data):
    small = channels.recompose([0, 1, 2], data=data, within=20.0, images=60)
    lost = restricted_accuracy(parent, data, [0, 1, 2], "held_out", [0, 1, 2])
    lost -= restricted_accuracy(small, data, [0, 1, 2], "held_out")
    assert lost <= 0.2
    whole, cut = (measuring.cost(net, channels.example)["multiply_adds"] for net in (parent, small))
    assert cut <= 0.5 * whole


def test_within_chooses_among_networks_that_are_already_distilled(channels, data, monkeypatch):
    steps = []
    monkeypatch.setattr("modlib.decomposers.channels.distil", lambda small, *_, **settings: steps.append(settings))
    monkeypatch.setattr("modlib.decomposers.channels.KEEPS", (1.0, 0.6))
    channels.recompose([0, 2], data=data, within=100.0, images=60, distilled=3)
    assert [one["steps"] for one in steps] == [3]  # of two budgets the smaller one does


def test_distillation_brings_a_cut_network_nearer_to_its_parent(channels, parent, data):
    inputs = data.inputs(data.test_images)
    wanted = parent(inputs).detach()[:, [0, 2]].log_softmax(1)
    far, near = (
        channels.recompose([0, 2], data=data, keep=0.5, images=60, repair=None, distilled=steps) for steps in (0, 60)
    )
    loss = [
        nn.functional.kl_div(n(inputs).log_softmax(1), wanted, reduction="batchmean", log_target=True)
        for n in (far, near)
    ]
    assert float(loss[1]) < 0.5 * float(loss[0])
    assert not any(p.requires_grad for p in near.parameters())


def test_images_near_the_border_weigh_more(channels, parent, data):
    inputs = data.inputs(data.train_images)
    weights = nearness(parent, inputs, [0, 2], 0.3)
    odds = saliency.log_odds(parent(inputs), [0, 2]).detach()
    assert weights.argmax() == odds.argmin()
    assert torch.equal(weights.argsort(stable=True), (-odds).argsort(stable=True))
    assert 0 < float(weights.min()) < float(weights.max()) <= 0.5
    plain, near = (channels.recompose([0, 2], data=data, keep=0.5, images=60, near=value) for value in (None, 0.3))
    assert not torch.equal(plain(inputs), near(inputs))


def test_what_cannot_be_is_said(channels, data):
    with pytest.raises(ValueError, match="no module for class 7"):
        channels.recompose([7], data=data, keep=0.5)
    with pytest.raises(ValueError, match="keep: so little"):
        channels.recompose([0], data=data, keep=1e-6)
    with pytest.raises(ValueError, match="keep, within: give one"):
        channels.recompose([0], data=data)
    with pytest.raises(ValueError, match=r"near must be in \[0.1, 100\]"):
        channels.recompose([0], data=data, keep=0.5, near=0.0)
    with pytest.raises(ValueError, match="of must be one of"):
        channels.recompose([0], data=data, keep=0.5, of="seconds")
    with pytest.raises(ValueError, match="multiple"):
        channels.recompose([0], data=data, keep=0.5, multiple=0)


@pytest.mark.parametrize("settings", [{"within": 1.0}, {"keep": 0.5, "distilled": 5}], ids=str)
def test_one_class_alone_has_nothing_to_be_chosen_or_distilled_by(settings, channels, data):
    with pytest.raises(ValueError, match="subset: one class alone"):
        channels.recompose([1], data=data, **settings)


def test_a_class_without_training_images_is_said(parent, data):
    some = replace(data, train_labels=data.train_labels.clamp(max=1))
    assert ChannelSaliency().decompose(parent, some, seed=0, device="cpu").classes == (0, 1)
    with pytest.raises(ValueError, match=r"no training images of \[2\]"):
        ChannelSaliency().decompose(parent, some, seed=0, classes=[0, 2], device="cpu")


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (nn.BatchNorm1d(3), "not the logits one for one"),
        (nn.Softmax(1), "not the logits one for one"),
        (nn.Bilinear(3, 3, 3), "not the logits one for one"),
        (nn.Unflatten(1, (3, 1)), "must return logits of shape"),
    ],
    ids=["own weights", "in relation", "another layer", "another shape"],
)
def test_what_ends_in_something_else_than_logits_is_refused(behind, said, parent, data):
    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.end = copy.deepcopy(parent), behind

        def forward(self, x):
            logits = self.net(x)
            return self.end(logits, logits) if isinstance(self.end, nn.Bilinear) else self.end(logits)

    with pytest.raises(ValueError, match=said):
        ChannelSaliency().decompose(Ends().eval(), data, seed=0, device="cpu")


class ByPlace(nn.Module):
    """A block as ConvNeXt has them: linear layers over the channels of each place, [B, H, W, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.back = nn.Conv2d(1, 8, 1), nn.Linear(8, 24), nn.Linear(24, 8)
        self.last = nn.Linear(8 * 16, 3)

    def forward(self, x):
        places = self.first(x).permute(0, 2, 3, 1)
        return self.last((places + self.back(self.wide(places).relu())).flatten(1))


@pytest.mark.parametrize("ranking", ["variance", "taylor"])
def test_linear_layers_have_their_channels_last(ranking, data):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = ByPlace().eval()
    channels = ChannelSaliency(images=20).decompose(net, data, seed=0, device="cpu")
    assert [unit.root for unit in channels.anatomy.units if unit.channels == 24] == ["wide"]
    inputs = data.inputs(data.test_images)
    small = channels.recompose([2, 0], data=data, keep=0.95, images=60, ranking=ranking)
    assert small.wide.out_features < 24
    wanted, found = net(inputs).detach()[:, [2, 0]], small(inputs)
    assert float((found - wanted).square().mean()) < 0.02 * float(wanted.var(0).mean())


def test_the_network_is_read_without_this_package(channels, data, tmp_path):
    path = Path(tmp_path) / "pair.pkl"
    path.write_bytes(pickle.dumps(channels.recompose([0, 1], data=data, keep=0.5, images=20)))
    read = f"pickle.load(open({str(path)!r}, 'rb'))"
    code = f"import pickle, sys; sys.modules['modlib'] = None; print(type({read}).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "Sequential", done.stderr
