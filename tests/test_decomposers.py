"""One interface for every way to take a classifier apart: what all of them promise, asked of each."""

import copy

import pytest
import torch
from safetensors import safe_open

import modlib
from modlib import recipes
from modlib.decomposers import (
    Decomposer,
    FixedMasks,
    ModuleStemming,
    PanRajan,
    SharedMask,
    WithoutIdleNeurons,
    pan_rajan,
)
from modlib.zoo import training

RECIPE = recipes.ours(k=0.5, alpha=1.0, epochs=1, batch_size=16)
WAYS: dict[str, Decomposer] = {
    "module stemming": ModuleStemming(RECIPE),
    "shared mask": SharedMask(RECIPE),
    "largest weights": FixedMasks("magnitude", 0.5, RECIPE),
    "random edges": FixedMasks("random", 0.5, RECIPE),
    "TI-I": PanRajan("TI-I"),
    "no idle neurons": WithoutIdleNeurons(),
}


@pytest.fixture(scope="module")
def trained(data):
    """A parent that is sure of enough images for the rules: they need two of each class."""
    settings = training.Parameters(lr=0.1, epochs=60, batch_size=16)
    return training.train(modlib.zoo.parents.fc(1, 16, 12, 3, seed=0), data, seed=0, parameters=settings)


@pytest.fixture(scope="module", params=WAYS)
def made(request, trained, data):
    before = copy.deepcopy(trained.state_dict())
    decomposition = WAYS[request.param].decompose(trained, data, seed=0, device="cpu")
    assert all(torch.equal(values, before[name]) for name, values in trained.state_dict().items())
    return request.param, decomposition


@pytest.mark.parametrize("subset", [[0, 1, 2], [2, 0], [1]], ids=str)
def test_any_subset_is_recomposed_and_votes_among_itself(made, data, subset):
    _, decomposition = made
    inputs = data.inputs(data.test_images)
    net = decomposition.recompose(subset)
    assert isinstance(net, torch.nn.Module)
    confidence, predicted = net(inputs), net.predict(inputs)
    assert confidence.shape == (len(inputs), len(subset))
    assert set(predicted.tolist()) <= set(subset)
    assert torch.equal(predicted, torch.tensor(subset)[confidence.argmax(1)])
    assert torch.equal(net.classes, torch.tensor(subset))


def test_what_is_counted_grows_with_the_subset(made, data, tmp_path):
    _, decomposition = made
    assert decomposition.classes == (0, 1, 2)
    shares = [decomposition.remaining([0]), decomposition.remaining([0, 1]), decomposition.remaining()]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[2] <= 1
    odds = decomposition.log_odds(data.inputs(data.test_images))
    assert odds.shape == (18, 3)
    assert bool(torch.isfinite(odds).all())
    decomposition.save(tmp_path / "some.safetensors")
    with safe_open(tmp_path / "some.safetensors", framework="pt") as stored:
        assert len(list(stored.keys())) > 0


@pytest.mark.parametrize("name", WAYS)
def test_some_classes_alone_and_classes_that_there_are_not(name, trained, data):
    decomposition = WAYS[name].decompose(trained, data, seed=0, classes=[2, 0], device="cpu")
    assert decomposition.classes == (2, 0)
    with pytest.raises(ValueError, match=r"no module for class 1|classes: no module for class 1"):
        decomposition.recompose([1])
    with pytest.raises(ValueError, match="class 7"):
        WAYS[name].decompose(trained, data, seed=0, classes=[7], device="cpu")


def test_the_rules_vote_as_their_rule_says(trained, data):
    """A recomposed network of all classes is the vote of `pan_rajan.vote`, for which it was written."""
    made = PanRajan("TI-SNE").decompose(trained, data, seed=0)
    inputs = data.inputs(data.test_images)
    each = torch.stack([pan_rajan.probabilities(module, inputs) for module in made.modules])
    assert torch.equal(made.recompose([0, 1, 2]).predict(inputs), pan_rajan.vote(each))
    assert made.remaining() == pan_rajan.mask_set(made.modules).remaining()


def test_one_shared_mask_needs_one_pass_and_keeps_the_same_for_any_subset(trained, data):
    modules = SharedMask(RECIPE).decompose(trained, data, seed=0)
    assert modules.recompose([0, 1, 2]).passes == 1
    assert modules.remaining([0]) == modules.remaining() == pytest.approx(0.5, abs=0.01)
