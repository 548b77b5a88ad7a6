"""What is wrong is named, with its value and what it may be, before any work starts."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import modlib
from modlib import cotraining
from modlib.cotraining import Recipe, Run, cotrain_population

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
    monkeypatch.setattr(cotraining, "_train", lambda *a, **o: pytest.fail("work started before the check"))


@pytest.mark.parametrize(
    ("argument", "value", "error", "match"),
    [
        ("k", 0, ValueError, r"k must be in \(0, 1\], got 0"),
        ("k", 10, ValueError, r"k must be in \(0, 1\], got 10 \(did you mean 0\.10\?\)"),
        ("k", True, TypeError, "k must be a number, got True"),
        ("k", "0.1", TypeError, "k must be a number, got '0.1'"),
        ("k", {"1.weight": 0.1}, ValueError, r"k: no share for \['3.weight'\]"),
        ("k", {"default": 0.1, "2.weight": 0.1}, ValueError, "k: unknown layer '2.weight'"),
        ("k", {"default": 0.1, "3.weight": 30}, ValueError, r"k\['3.weight'\] must be in \(0, 1\], got 30"),
        ("k", NAN, ValueError, r"k must be in \(0, 1\], got nan"),
        ("alpha", -0.1, ValueError, "alpha must be at least 0, got -0.1"),
        ("alpha", NAN, ValueError, "alpha must be at least 0, got nan"),
        ("alpha", True, TypeError, "alpha must be a number, got True"),
        ("alpha", INF, ValueError, "alpha must be"),
        ("vote", -0.1, ValueError, r"vote must be in \[0, 1\], got -0.1"),
        ("vote", 1.1, ValueError, r"vote must be in \[0, 1\], got 1.1"),
        ("vote", NAN, ValueError, r"vote must be in \[0, 1\], got nan"),
        ("epochs", 0, ValueError, "epochs must be at least 1, got 0"),
        ("epochs", 1.5, TypeError, "epochs must be a whole number, got 1.5"),
        ("epochs", True, TypeError, "epochs must be a whole number, got True"),
        ("seed", -1, ValueError, "seed must be at least 0, got -1"),
        ("seed", None, TypeError, "seed must be a whole number, got None"),
        ("batch_size", 0, ValueError, "batch_size must be at least 1"),
        ("lr", 0, ValueError, "lr must be above 0, got 0"),
        ("lr", NAN, ValueError, "lr must be above 0, got nan"),
        ("lr", INF, ValueError, "lr must be"),
        ("grafting_lr", -1, ValueError, "grafting_lr must be at least 0, got -1"),
        ("momentum", 1.0, ValueError, r"momentum must be in .*, got 1.0"),
        ("weight_decay", -1e-4, ValueError, "weight_decay must be at least 0"),
        ("p", 3, ValueError, "p must be 1 or 2, got 3"),
        ("p", True, (TypeError, ValueError), "p must be 1 or 2, got True"),
        ("method", "base", ValueError, r"base_class: .*method='base' needs one"),
        ("base_class", 1, ValueError, r"base_class: .*method='average' takes none"),
        ("classes", [3], ValueError, r"classes: class 3 is beyond the parent's 3 outputs, 0 to 2"),
        ("classes", [0, 1, 0], ValueError, r"classes: repeated class in \[0, 1, 0\]"),
        ("classes", [], ValueError, "classes: empty"),
        ("images_per_epoch", 61, ValueError, "images_per_epoch: 61, there are 60 training images"),
        ("classes", [True], TypeError, "classes must be a whole number, got True"),
        ("classes", 5, TypeError, "classes: must be a list"),
        ("data", "mnist", TypeError, "data must be one of modlib's, got str"),
    ],
)
def test_arguments_of_cotrain(argument, value, error, match, parent, decompose):
    with pytest.raises(error, match=match):
        decompose(parent, **{argument: value})


@pytest.mark.parametrize(
    "argument", ["init", "norm", "reduction", "scores", "method", "schedule", "grafting_init", "engine"]
)
def test_choices(argument, parent, decompose):
    for value in ("nope", None, 1):
        with pytest.raises(ValueError, match=rf"^{argument} must be one of \['.*'\], got {value!r}"):
            decompose(parent, **{argument: value})


def test_method_a(parent, decompose):
    with pytest.raises(ValueError, match=r"base_class: no module for class 0; there are modules for \[1, 2\]"):
        decompose(parent, method="base", base_class=0, classes=[1, 2])
    with pytest.raises(ValueError, match=r"vote must be 0 with method='base', got 0\.5"):
        decompose(parent, method="base", base_class=0, vote=0.5)


class Returns(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.layer, self.what = nn.Linear(16, 3), what

    def forward(self, inputs):
        return self.what(self.layer(inputs.flatten(1)))


@pytest.mark.parametrize(
    ("parent", "match"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "parent: Sequential has no maskable layer"),
        (modlib.zoo.parents.fc(1, 16, 6, 4), r"parent: must return logits of shape \[batch, 3 classes\], got \(2, 4\)"),
        (modlib.zoo.parents.fc(1, 9, 6, 3), r"parent: does not take inputs of shape \(2, 1, 4, 4\)"),
        (Returns(lambda y: (y, y)), r"parent: must return logits .*, got tuple"),
        (Returns(lambda y: y.argmax(1)), r"parent: must return logits .*, got \(2,\)"),
        (Returns(lambda y: y / 0), "parent: logits: 6 of 6 values are NaN or infinite"),
    ],
    ids=range(6),
)
def test_parents(parent, match, decompose):
    with pytest.raises(ValueError, match=match):
        decompose(parent.train())
    assert all(part.training for part in parent.modules())
    with pytest.raises(TypeError, match=r"parent must be an nn\.Module, got function"):
        decompose(parent.forward.__func__)


def spoiled(at):
    def preprocess(images):
        inputs = images.float() / 255
        inputs[at:][:1, 0, 0] = NAN
        return inputs

    return preprocess


@pytest.mark.parametrize(
    ("preprocess", "error", "match"),
    [
        (spoiled(40), ValueError, "preprocess: inputs: 1 of 960 values are NaN or infinite"),
        (spoiled(0), ValueError, "preprocess: inputs"),
        (lambda images: images, TypeError, r"preprocess: must return floating-point .* \[60, ...\], got torch.uint8"),
        (lambda images: images[:1].float(), (TypeError, ValueError), "must return"),
    ],
    ids=range(4),
)
def test_preprocessing(preprocess, error, match, parent, data, decompose):
    with pytest.raises(error, match=match):
        decompose(parent, data=replace(data, preprocess=preprocess))


def test_populations(parent, data):
    recipe = Recipe(k=0.3, alpha=1.0, epochs=1)
    with pytest.raises(ValueError, match="runs: empty"):
        cotrain_population([], data)
    for other in (replace(recipe, epochs=2), replace(recipe, vote=0.5)):
        with pytest.raises(ValueError, match="runs: recipes of one population may differ in k, alpha and share_init"):
            cotrain_population([Run(parent, recipe, 0), Run(parent, other, 0)], data)
    with pytest.raises(ValueError, match="runs: all runs of a population decompose the same classes"):
        cotrain_population([Run(parent, recipe, 0), Run(parent, recipe, 0, (1,))], data)


@pytest.mark.parametrize("engine", ["vectorised", "sequential"])
def test_parents_of_different_architectures(engine, data):
    runs = [Run(modlib.zoo.parents.fc(1, 16, width, 3), Recipe(k=0.3, alpha=1.0, epochs=1), 0) for width in (6, 7)]
    with pytest.raises(ValueError, match=r"runs: .*architecture"):
        cotrain_population(runs, data, engine=engine)


@pytest.mark.parametrize(
    ("subset", "error", "match"),
    [
        ([], ValueError, "classes: empty"),
        ([0, 0], ValueError, "classes: repeated class"),
        ([1], ValueError, r"classes: no module for class 1; there are modules for \[0, 2\]"),
        ([False], TypeError, "classes must be a whole number, got False"),
        (2, TypeError, "classes: must be a list of classes, got 2"),
        ("02", TypeError, "classes: must be a list of classes, got '02'"),
    ],
)
def test_subsets(subset, error, match, modules):
    some = modules.select([0, 2])
    for ask in (some.recompose, some.remaining, some.select):
        with pytest.raises(error, match=match):
            ask(subset)


def test_subsets_as_arrays(modules):
    for subset in (np.array([2, 0]), torch.tensor([2, 0]), {2: "", 0: ""}, range(2, -1, -2)):
        assert modules.recompose(subset).classes.tolist() == [2, 0]


def test_subsets_from_an_iterator(modules):
    assert modules.recompose(iter([2, 0])).classes.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda x: x * NAN, ValueError, "inputs: 288 of 288 values are NaN or infinite"),
        (lambda x: x.index_fill(0, torch.tensor(3), INF), ValueError, "inputs: 16 of 288 values"),
        (lambda x: (x * 255).byte(), TypeError, r"floating-point numbers or ids, got torch.uint8; see Dataset.inputs"),
        (lambda x: x[:, :, :3], ValueError, r"inputs: the network fails on shape \(18, 1, 3, 4\)"),
        (lambda x: x[:0], ValueError, r"inputs must be a batch .* got shape \(0, 1, 4, 4\)"),
        (lambda x: x[0, 0, 0], ValueError, r"inputs must be a batch .* got shape \(4,\)"),
        (lambda x: x.numpy(), TypeError, "inputs must be a tensor, got ndarray"),
    ],
    ids=range(7),
)
def test_inputs_of_a_recomposed_network(change, error, match, modules, inputs):
    net = modules.recompose([0, 2])
    for call in (net, net.predict, net.log_odds):
        with pytest.raises(error, match=match):
            call(change(inputs))


def test_log_odds_of_an_array(modules, inputs):
    with pytest.raises(TypeError, match="inputs must be a tensor, got ndarray"):
        modules.log_odds(inputs.numpy())


@pytest.mark.parametrize(
    ("argument", "value", "error", "match"),
    [
        ("share_init", "no", TypeError, "share_init must be True or False, got 'no'"),
        ("balanced", 1, TypeError, "balanced must be True, False or 'auto', got 1"),
        ("balanced", "yes", ValueError, r"balanced must be one of \['auto'\], got 'yes'"),
        ("device", "nope", ValueError, "device must be 'auto' or a torch device .*, got 'nope'"),
        ("policy", "weights", TypeError, "policy must be a function"),
    ],
)
def test_more_arguments_of_cotrain(argument, value, error, match, parent, decompose):
    with pytest.raises(error, match=match):
        decompose(parent, **{argument: value})


@pytest.mark.parametrize(("argument", "value"), [("lr", -1.0), ("batch_size", 0), ("epochs", 0), ("momentum", 1.0)])
def test_parameters_of_parent_training(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be"):
        modlib.zoo.training.Parameters(**{argument: value})


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((2, 4), np.float32), r"got ndarray; make one of it, torch.as_tensor\(inputs\)"),
        (
            pd.DataFrame(np.zeros((2, 4))),
            r"DataFrame; make one of it, torch.as_tensor\(inputs.to_numpy\(dtype='float32'",
        ),
        ([[0.0] * 4], r"inputs must be a tensor, got list$"),
    ],
)
def test_how_a_tensor_is_made_of_other_inputs_is_said(x, said):
    with pytest.raises(TypeError, match=said):
        modlib.checks.inputs(x)
