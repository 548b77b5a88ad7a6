"""One mask for all classes, and co-training that goes on from it; as a control it is tested in test_controls.py."""

import copy
import itertools
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch

from modlib import cotraining, shared_mask
from modlib.cotraining import Recipe, Run, cotrain_population
from modlib.decomposers import FixedMasks, SharedMask
from modlib.engines import checkpoints, start
from modlib.objective import objective

CLASSES = (0, 1, 2)
RECIPE = Recipe(k=0.3, alpha=1.0, epochs=3, batch_size=16, vote=0.5, shared_epochs=2)
CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["parent", "conv_parent"])
def test_for_one_class_both_phases_are_one_training(kind, request, decompose, monkeypatch):
    """Without momentum and stemming, two shared epochs and three more are five, with the images in the same orders."""
    net = request.getfixturevalue(kind)
    plain = {
        "classes": [1],
        "alpha": 0.0,
        "momentum": 0.0,
        "scores": "absolute",
        "balanced": True,
        "schedule": "cosine",
    }
    plain |= {"engine": "sequential", "images_per_epoch": 40, "augment": "flip_crop"} if kind == "conv_parent" else {}
    phases = decompose(net, epochs=3, shared_epochs=2, **plain)
    order, draw = start.epoch_order, start.generator
    later = {0: -2, 1: -1, 2: 0, 3: 1, 4: 2}

    def drawn(seed, *purpose):
        return draw(seed, "augmentation", later[purpose[1]]) if purpose[0] == "augmentation" else draw(seed, *purpose)

    monkeypatch.setattr(cotraining, "epoch_order", lambda count, seed, epoch: order(count, seed, later[epoch]))
    monkeypatch.setattr(start, "generator", drawn)
    together = decompose(net, epochs=5, **plain)
    for name, mask in together.masks.masks.items():
        assert torch.equal(mask, phases.masks.masks[name])
        torch.testing.assert_close(phases.scores[name], together.scores[name])
    torch.testing.assert_close(phases.grafting_weight, together.grafting_weight)
    for name, values in together.statistics.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(phases.statistics[name], values)


def test_modules_start_from_the_shared_mask(conv_parent, data):
    """They start alike, with the grafting layer of their class, and with scores that the first phase has moved."""
    run = Run(conv_parent, replace(RECIPE, shared_epochs=0), 0)
    first = shared_mask.train(run, CLASSES, data, CPU, range(3))
    weights = cotraining.masking.maskable_parameters(conv_parent)
    drawn = start.starting_scores(run, weights, 0)
    run = replace(run, start=first)
    for c in CLASSES:
        for name, scores in start.starting_scores(run, weights, c).items():
            assert torch.equal(scores, first.scores[name])
            assert not torch.equal(scores, drawn[name])
        assert torch.equal(start.starting_grafting(run, c, 3, torch.float64)[0], first.grafting[c][0])
    assert not torch.equal(first.grafting[0][0], first.grafting[1][0])
    statistics = start.starting_statistics(run, conv_parent)
    assert not torch.equal(statistics["1.running_mean"], conv_parent[1].running_mean)
    statistics["1.running_mean"].add_(1.0)
    assert not torch.equal(statistics["1.running_mean"], first.statistics["1.running_mean"]), "a module needs its own"
    assert start.starting_statistics(replace(run, recipe=replace(RECIPE, norm="frozen")), conv_parent) == {}


def test_a_cumulative_average_starts_anew(conv_parent, data):
    conv_parent[1].momentum = None
    run = Run(conv_parent, replace(RECIPE, shared_epochs=0), 0)
    run = replace(run, start=shared_mask.train(run, CLASSES, data, CPU, range(3)))
    assert run.start.statistics["1.num_batches_tracked"] == 12
    assert start.starting_statistics(run, conv_parent)["1.num_batches_tracked"] == 0


class Stopped(KeyboardInterrupt):
    """Raised in the middle of a training."""


@pytest.fixture
def stopping(monkeypatch):
    """Stop a training of one mask, four steps an epoch, in the third step of an epoch (from 1, over all runs)."""

    @contextmanager
    def stop_in(epoch):
        steps = itertools.count(1)

        def counted(*arguments):
            if next(steps) == 4 * epoch - 1:
                raise Stopped
            return objective(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(shared_mask, "objective", counted)
            yield

    return stop_in


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(("epoch", "left"), [
    (2, ["run-shared0.pt"]),
    (5, ["run-shared0.pt", "run-shared1.pt"]),
])  # fmt: skip
def test_shared_epochs_that_were_stopped_go_on(epoch, left, conv_parent, data, tmp_path, same, stopping):
    recipe = replace(RECIPE, shared_epochs=3)
    runs, path = [Run(conv_parent, recipe, 0), Run(conv_parent, recipe, 1)], tmp_path / "run.pt"
    with stopping(epoch), pytest.raises(Stopped):
        cotrain_population(runs, data, device="cpu", checkpoint=path)
    assert names(tmp_path) == left
    resumed = cotrain_population(runs, data, device="cpu", checkpoint=path)
    checkpoints.remove(path)
    assert names(tmp_path) == []
    assert all(same(a, b) for a, b in zip(resumed, cotrain_population(runs, data, device="cpu"), strict=True))


def test_a_control_that_was_stopped_goes_on(conv_parent, data, tmp_path, stopping):
    recipe, path = replace(RECIPE, shared_epochs=0, epochs=3), tmp_path / "control.pt"
    decompose = partial(SharedMask(recipe, path).decompose, conv_parent, data, device="cpu")
    whole = SharedMask(recipe).decompose(conv_parent, data, seed=0, device="cpu")
    with stopping(3), pytest.raises(Stopped):
        decompose(seed=0)
    with pytest.raises(ValueError, match=r"checkpoint: .* is of another run"):
        decompose(seed=1)
    resumed = decompose(seed=0)
    assert names(tmp_path) == ["control.pt"], "the caller removes it"
    x = data.inputs(data.train_images).double()
    assert torch.equal(resumed.log_odds(x), whole.log_odds(x))


def test_stopping_after_shared_epochs_and_going_on_changes_nothing(conv_parent, data, tmp_path, same, monkeypatch):
    runs, path = [Run(conv_parent, RECIPE, 0), Run(conv_parent, RECIPE, 1)], tmp_path / "run.pt"

    def stop(run, epoch, modules):
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        cotrain_population(runs, data, device="cpu", callback=stop, checkpoint=path)
    assert names(tmp_path) == ["run-shared0.pt", "run-shared1.pt", "run.pt"]
    with monkeypatch.context() as patch:
        patch.setattr(shared_mask, "objective", None)  # its epochs are done
        resumed = cotrain_population(runs, data, device="cpu", checkpoint=path)
    checkpoints.remove(path)
    assert names(tmp_path) == []
    assert all(same(a, b) for a, b in zip(resumed, cotrain_population(runs, data, device="cpu"), strict=True))


def test_the_parent_stays_as_it_was(conv_parent, decompose):
    before = copy.deepcopy(conv_parent)
    decompose(conv_parent.train(), shared_epochs=1)
    assert conv_parent.training
    assert all(torch.equal(values, before.get_buffer(name)) for name, values in conv_parent.named_buffers())
    assert all(torch.equal(values, before.get_parameter(name)) for name, values in conv_parent.named_parameters())
    assert all(p.requires_grad and p.grad is None for p in conv_parent.parameters())


def test_what_is_refused_is_refused_before_any_epoch(conv_parent, decompose, monkeypatch):
    monkeypatch.setattr(shared_mask, "train", None)
    with pytest.raises(ValueError, match="engine: 'vectorised' needs a fully connected parent"):
        decompose(conv_parent, shared_epochs=2, engine="vectorised")


def test_other_controls_have_no_shared_epochs(parent, data):
    recipes = [replace(RECIPE, schedule="cosine", shared_epochs=epochs) for epochs in (0, 6)]
    made = [FixedMasks("magnitude", 0.3, recipe).decompose(parent, data, seed=0) for recipe in recipes]
    assert torch.equal(made[0].grafting_weight, made[1].grafting_weight)


def test_scores_that_diverge_say_so(parent, decompose):
    with pytest.raises(FloatingPointError, match=r"scores of 1\.weight diverged in the epochs of one mask"):
        decompose(parent, shared_epochs=2, lr=1e300)


@pytest.mark.parametrize("changes", [{"share_init": False}, {"method": "base", "base_class": 1}], ids=str)
def test_what_contradicts_one_mask_is_refused(changes):
    with pytest.raises(ValueError, match="shared_epochs: modules that go on from one mask need method='average' and"):
        replace(RECIPE, vote=0.0, **changes)


def test_the_number_of_shared_epochs_is_whole(parent, decompose):
    with pytest.raises(ValueError, match="shared_epochs must be at least 0"):
        decompose(parent, shared_epochs=-1)
