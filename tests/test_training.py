"""Training of parents."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from modlib import parents, training
from modlib.training import Parameters


def test_table_3():
    assert training.table_3("mnist") == Parameters(0.01, 5e-4, 0.9, 64, 100, ())
    assert training.table_3("cifar100", epochs=3) == Parameters(0.1, 5e-4, 0.9, 256, 3, (60, 120, 160), 0.2)


def test_a_step_of_training_by_hand(data):
    """One batch of all images, plain gradient descent: w - lr (dL/dw + decay w)."""
    doubled = replace(data, preprocess=lambda images: data.preprocess(images).double())
    net = parents.fc(1, 16, 6, 3).double()
    nn.functional.cross_entropy(net(doubled.inputs(data.train_images)), data.train_labels).backward()
    expected = {n: (p - 0.1 * (p.grad + 0.01 * p)).detach() for n, p in net.named_parameters()}
    settings = Parameters(lr=0.1, weight_decay=0.01, momentum=0.0, batch_size=60, epochs=1)
    assert training.train(net, doubled, seed=0, parameters=settings) is net
    torch.testing.assert_close({n: p.detach() for n, p in net.named_parameters()}, expected)


def test_milestones_lower_the_rate(data, monkeypatch):
    rates, step = [], torch.optim.SGD.step
    watched = lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]  # noqa: E731
    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    settings = Parameters(lr=1.0, epochs=4, milestones=(1, 3), factor=0.2, batch_size=60)
    training.train(parents.fc(1, 16, 6, 3), data, seed=0, parameters=settings)
    assert rates == pytest.approx([1.0, 0.2, 0.2, 0.04])


def test_the_same_seed_trains_the_same_parent(data):
    nets = [training.train(parents.fc(1, 16, 6, 3), data, seed=s, epochs=2) for s in (0, 0, 1)]
    assert torch.equal(nets[0][1].weight, nets[1][1].weight)
    assert not torch.equal(nets[0][1].weight, nets[2][1].weight)
    assert not nets[0].training


def test_accuracy_by_hand(data):
    """A network that says class 0 always: a third of the images are of class 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
    net[1].weight.zero_()
    net[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    assert training.accuracy(net, data, "held_out") == 1 / 3
    assert training.logits(net, data, "test", batch_size=7)[0].tolist() == [[1.0, 0.0, 0.0]] * 18
