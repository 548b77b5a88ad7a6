"""The recommended recipe: what it goes by, what overrides it, and that a call without settings is good."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import modlib
from modlib import recommending


def test_it_goes_by_what_the_network_is(parent, conv_parent, tied_parent, data):
    flat, other, own = (modlib.recommended(p, data) for p in (parent, conv_parent, tied_parent))
    assert flat.allocation == "uniform"
    assert other.allocation == own.allocation == "lamp", "a forward of one's own may be anything"
    assert other.lr < own.lr, "batch normalisation"
    assert other.epochs == 2 * own.epochs
    assert {flat.init, other.init} == {"magnitude"}
    assert {flat.grafting_init, other.grafting_init} == {"own_logit"}
    assert flat.vote == other.vote > 0


@pytest.mark.parametrize(
    ("steps", "images", "batch", "epochs", "each"),
    [
        (400, 50_000, 64, 10, 2560),  # 40 steps of 64 in each epoch
        (405, 50_000, 64, 10, 2624),  # 41 steps
        (5, 50_000, 64, 5, 64),
        (400, 2561, 64, 10, 2560),
        (400, 2560, 64, 10, None),
        (400, 640, 64, 40, None),  # ten steps see all images
        (400, 650, 64, 37, None),  # eleven, the last of ten images
        (400, 10, 64, 400, None),
    ],
)
def test_steps_are_shared_out_among_epochs(steps, images, batch, epochs, each):
    assert recommending._shared_out(steps, images, batch) == {"epochs": epochs, "images_per_epoch": each}


def test_changes_are_made_and_the_rest_stays(parent, data):
    plain = modlib.recommended(parent, data)
    assert modlib.recommended(parent, data, k=0.5, epochs=3) == replace(plain, k=0.5, epochs=3)
    twice = modlib.recommended(parent, data, batch_size=30)
    assert twice.epochs == recommending.STEPS_FULLY_CONNECTED // 2, "two steps see the 60 images"
    with pytest.raises(ValueError, match=r"settings: unknown \['rate'\]; there are \['allocation', "):
        modlib.recommended(parent, data, rate=1.0)
    with pytest.raises(ValueError, match="k must be in"):
        modlib.recommended(parent, data, k=10)
    with pytest.raises(TypeError, match="data must be one of modlib's"):
        modlib.recommended(parent, "mnist")


def test_losses_are_balanced_where_classes_are_uneven(parent, data):
    some = torch.cat([(data.train_labels == 0).nonzero()[:2, 0], (data.train_labels > 0).nonzero()[:, 0]])
    uneven = replace(data, train_images=data.train_images[some], train_labels=data.train_labels[some])
    found = [modlib.recommended(parent, d).balanced for d in (data, uneven)]
    assert found == [False, True]
    assert modlib.recommended(parent, uneven, balanced=False).balanced is False


def test_minutes_are_turned_into_steps(parent, conv_parent, data, monkeypatch):
    before = modlib.recommended(conv_parent, data)
    state = {name: values.clone() for name, values in conv_parent.state_dict().items()}
    assert recommending._seconds_of_a_step(conv_parent, data, before, modlib.masking.default_policy, "cpu") > 0
    assert all(torch.equal(values, state[name]) for name, values in conv_parent.state_dict().items())
    monkeypatch.setattr(recommending, "_seconds_of_a_step", lambda *_: 0.5)
    assert modlib.recommended(conv_parent, data, minutes=2, batch_size=60).epochs == 240
    assert modlib.recommended(conv_parent, data, minutes=0.001, batch_size=60).epochs == 1
    for wrong, error in ((0, ValueError), (-1.0, ValueError), ("2", TypeError), (float("inf"), ValueError)):
        with pytest.raises(error, match="minutes must be"):
            modlib.recommended(parent, data, minutes=wrong)


def test_a_call_without_settings_takes_it_and_says_so(parent, data, same, monkeypatch):
    monkeypatch.setattr(recommending, "STEPS_FULLY_CONNECTED", 4)
    recipe = modlib.recommended(parent, data)
    alone = modlib.cotrain(parent, data, seed=0, device="cpu")
    assert alone.metadata["recipe"] == asdict(recipe)
    assert same(alone, modlib.cotrain(parent, data, seed=0, recipe=recipe, device="cpu"))
    cooler = modlib.cotrain(parent, data, seed=0, lr=0.01, device="cpu")
    assert cooler.metadata["recipe"] == asdict(replace(recipe, lr=0.01))


def test_a_call_that_gives_settings_keeps_its_meaning(parent, data):
    modules = modlib.cotrain(parent, data, k=0.3, alpha=1.0, epochs=1, seed=0, vote=0.0, device="cpu")
    assert modules.metadata["recipe"] == asdict(modlib.Recipe(k=0.3, alpha=1.0, epochs=1))


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"k": 0.2}, ValueError, r"k, alpha, epochs: give all three, or none .* got \['k'\] alone"),
        ({"alpha": 1.0, "epochs": 2}, ValueError, r"got \['alpha', 'epochs'\] alone; recipe=modlib.recommended"),
        ({"k": 0.2, "alpha": 1.0, "epochs": 2, "minutes": 1}, ValueError, "minutes: 1 goes with recommended"),
        ({"recipe": {"k": 0.2}}, TypeError, "recipe must be a modlib.Recipe, got dict"),
        ({"recipe": modlib.published(), "lr": 0.1}, ValueError, r"recipe: holds all settings, and \['lr'\] are"),
        ({"recipe": modlib.ours(), "minutes": 1}, ValueError, r"recipe: holds all settings, and \['minutes'\] are"),
        ({"rate": 0.1}, TypeError, "rate"),
    ],
)
def test_settings_that_do_not_go_together(settings, error, match, parent, data):
    with pytest.raises(error, match=match):
        modlib.cotrain(parent, data, seed=0, **settings)


@pytest.fixture(scope="module")
def digits():
    """What README's snippet asks of its reader: images and labels in two parts."""
    found = load_digits()
    images, labels = (found.images * 255 / 16).astype(np.uint8), found.target
    return {"x": images[:1437], "y": labels[:1437], "x_test": images[1437:], "y_test": labels[1437:]}


def small_cnn(digits, normalised):
    """A trained network of two strided convolutions and a linear layer."""
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(16)] if normalised else [nn.Identity(), nn.Identity()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 3, 2, 1), norms[0], nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), norms[1], nn.ReLU()]
        parent = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))
    settings = modlib.zoo.training.Parameters(lr=0.1, batch_size=64, epochs=15, schedule="one_cycle")
    return modlib.zoo.training.train(parent, modlib.data.images(digits["x"], digits["y"]), seed=0, parameters=settings)


@pytest.mark.examined
@pytest.mark.parametrize("normalised", [False, True])
def test_readmes_snippet_makes_good_modules_of_a_small_network(normalised, digits, recwarn, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (snippet,) = re.findall(r"<!-- tested -->\s+```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"parent": small_cnn(digits, normalised), **digits}
    exec(compile(snippet, "README.md", "exec"), names)
    report = names["modules"].report(names["data"])
    assert report.parent_accuracy > 0.85
    error = (report.parent_accuracy * (1 - report.parent_accuracy) / report.images) ** 0.5
    assert report.accuracy > report.parent_accuracy - 0.03 - 2 * error  # 3 points, on a few hundred images
    assert names["pair"].remaining < 0.5
    inside = np.isin(digits["y_test"], [1, 7])
    predicted = names["pair"].predict(names["inputs"]).numpy()
    assert (predicted == digits["y_test"])[inside].mean() > 0.95
    assert modlib.load("mine.safetensors", names["parent"]).classes == tuple(range(10))
    assert not [w for w in recwarn if issubclass(w.category, modlib.CheckWarning)]


@pytest.mark.parametrize(("width", "k"), [(600, 0.1), (40, 0.4)])
def test_small_fully_connected_networks_keep_more_of_their_few_edges(width, k):
    """5,400 and 360 weights: a tenth of the latter's would be an edge for every hidden unit, or none."""
    data = modlib.data.tensors(torch.randn(30, 6), torch.arange(30) % 3)
    net = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.ReLU(), torch.nn.Linear(width, 3))
    assert modlib.recommended(net, data).k == k


def test_minutes_do_not_go_with_a_checkpoint(tmp_path):
    data = modlib.data.tensors(torch.randn(30, 6), torch.arange(30) % 3)
    with pytest.raises(ValueError, match=r"minutes: counts steps .* recipe=modlib.recommended"):
        modlib.cotrain(torch.nn.Linear(6, 3), data, seed=0, minutes=0.1, checkpoint=tmp_path / "a.pt")
