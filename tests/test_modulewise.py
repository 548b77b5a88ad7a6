"""The engine for large networks: its table of log-odds, its part of the images, augmentation and precision."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import modlib
from modlib import objective
from modlib.cotraining import Recipe, Run, epoch_order
from modlib.engines import make_engine

CPU = torch.device("cpu")
VOTING = Recipe(k=0.3, alpha=0.0, epochs=2, batch_size=16, vote=0.5, share_init=False)


def made(parent, data, recipe=VOTING, engine="modulewise"):
    return make_engine(engine, [Run(parent, recipe, seed=0)], (0, 1, 2), data, CPU)


def order_of(data, epoch, count=60):
    return epoch_order(60, 0, epoch)[None, :count]


def log_odds(modules, data):
    return modules.log_odds(data.inputs(data.train_images).double())


@pytest.mark.parametrize("share_init", [True, False])
def test_the_table_starts_from_the_first_modules(share_init, parent, data):
    """Before the first step all columns are what the modules that nobody has trained say."""
    engine = made(parent, data, replace(VOTING, share_init=share_init))
    expected = log_odds(engine.modules()[0], data)
    engine._look_up(0, order_of(data, 0)[0], 0)
    torch.testing.assert_close(engine.tables[0].log_odds, expected)


def test_a_module_sees_the_others_as_they_were(parent, data):
    """One step by hand in the second epoch: the other columns are of the passes of the first epoch."""
    recipe = replace(VOTING, batch_size=60, momentum=0.0, weight_decay=0.0)
    engine = made(parent, data, recipe)
    first = log_odds(engine.modules()[0], data)  # one batch an epoch: what a pass writes is of before its only step
    engine.train_epoch(order_of(data, 0), 0, None)
    torch.testing.assert_close(engine.tables[0].log_odds, first)
    (before,) = engine.modules()
    engine.train_epoch(order_of(data, 1), 1, None)
    (after,) = engine.modules()
    mine = log_odds(before, data)
    for m in range(3):
        seen = first.T.clone()
        seen[m] = mine[:, m]
        of_odds = objective.gradient(seen[None], data.train_labels[None], torch.arange(3), 0.5)[0, m]
        net = copy.deepcopy(parent)
        for name, mask in before.masks.masks.items():
            net.get_parameter(name).data.mul_(mask[m])
        difference = before.grafting_weight[m, 1] - before.grafting_weight[m, 0]
        (net(data.inputs(data.train_images).double()) @ difference).backward(of_odds)
        for name, scores in before.scores.items():
            step = 0.1 * net.get_parameter(name).grad * parent.get_parameter(name)
            torch.testing.assert_close(after.scores[name][m], scores[m] - step)


def test_images_that_an_epoch_left_out_are_looked_up(parent, data):
    engine = made(parent, data)
    for epoch in range(2):
        engine.train_epoch(order_of(data, epoch, 20), epoch, None)
    new = order_of(data, 2)[0]
    passed = engine.tables[0].epoch == 1
    kept = engine.tables[0].log_odds[passed]
    engine._look_up(0, new, 2)
    torch.testing.assert_close(engine.tables[0].log_odds[~passed], log_odds(engine.modules()[0], data)[~passed])
    assert torch.equal(engine.tables[0].log_odds[passed], kept)
    assert int(passed.sum()) == 20


@pytest.mark.parametrize(("images", "batch"), [(17, 8), (33, 16), (18, 17)])
def test_a_single_image_is_looked_up_with_another(images, batch):
    """Every epoch leaves out a last batch of one image, and statistics of one image are none."""
    parent = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (images, 4, 4), generator=draw, dtype=torch.uint8)
    data = modlib.data.from_arrays(pixels, torch.arange(images) % 3)
    recipe = replace(VOTING, batch_size=batch, epochs=3)
    engine = made(parent, data, recipe)
    for epoch in range(3):
        engine.train_epoch(epoch_order(images, 0, epoch)[None], epoch, None)
    assert bool((engine.tables[0].log_odds != 0).all())


def test_without_a_rate_the_vote_is_that_of_the_reference(conv_parent, data):
    """Where nothing moves, nothing can be stale: both engines see the same gradient in one step."""
    recipe = replace(VOTING, batch_size=60)
    a, b = (made(conv_parent, data, recipe, engine) for engine in ("modulewise", "sequential"))
    for engine in (a, b):
        engine.train_epoch(order_of(data, 0), 0, None)
    for name, scores in a.modules()[0].scores.items():
        torch.testing.assert_close(scores, b.modules()[0].scores[name])


def test_a_part_of_the_images(parent, data, decompose, same):
    seen = []

    def watched(images):
        seen.append(len(images))
        return modlib.zoo.datasets.Scaling()(images)

    part = decompose(parent, data=replace(data, preprocess=watched), engine="modulewise", images_per_epoch=20)
    assert sum(seen[-3 * 2 * 2 :]) == 3 * 2 * 20  # three modules, two epochs, batches of 16 and 4
    assert not same(part, decompose(parent, engine="modulewise"))
    with pytest.raises(ValueError, match="images_per_epoch must be at least 1, got 0"):
        decompose(parent, images_per_epoch=0)


@pytest.mark.parametrize("engine", ["modulewise", "sequential"])
def test_augmented_images(engine, conv_parent, decompose, same):
    """The same draws for the same seed; others than none, and others in every epoch."""
    settings = {"engine": engine, "share_init": False}
    first = decompose(conv_parent, augment="crop", **settings)
    assert same(first, decompose(conv_parent, augment="crop", **settings))
    assert not same(first, decompose(conv_parent, **settings))


def test_all_modules_see_the_same_augmented_images(parent, data):
    engine = made(parent, data, replace(VOTING, augment="crop"))
    rows = torch.arange(10)
    first, again, next_epoch = (engine.batch(rows, engine.augmentation(0, e)).inputs for e in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_epoch)
    assert not torch.equal(first, engine.batch(rows).inputs)
    assert engine.batch(rows).rows is rows


@pytest.mark.parametrize("engine", ["modulewise", "sequential"])
def test_bfloat16_leaves_scores_and_masks_exact(engine, conv_parent, data, decompose):
    net = copy.deepcopy(conv_parent).float()
    done = decompose(net, engine=engine, precision="bfloat16", share_init=False)
    exact = decompose(net, engine=engine, share_init=False)
    for name, mask in done.masks.masks.items():
        assert done.scores[name].dtype == torch.float32
        assert mask.flatten(1).sum(1).tolist() == exact.masks.masks[name].flatten(1).sum(1).tolist()
        torch.testing.assert_close(done.scores[name], exact.scores[name], rtol=0.1, atol=0.05)
        assert not torch.equal(done.scores[name], exact.scores[name])
    half = done.log_odds(data.inputs(data.test_images), precision="bfloat16")
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, done.log_odds(data.inputs(data.test_images)), rtol=0.1, atol=0.1)


def test_settings_that_no_engine_knows_are_refused(parent, decompose):
    with pytest.raises(ValueError, match="precision must be one of"):
        decompose(parent, precision="float16")
    with pytest.raises(ValueError, match="augment must be one of"):
        decompose(parent, augment="mixup")
    with pytest.raises(ValueError, match="engine: 'vectorised' needs"):
        decompose(parent, engine="vectorised", augment="crop")


class Counting(nn.Module):
    """A network that writes to a buffer in every pass and has a layer that no image reaches."""

    def __init__(self):
        super().__init__()
        self.layer, self.idle = nn.Linear(16, 3), nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return self.layer(inputs.flatten(1))


@pytest.mark.parametrize("engine", ["modulewise", "sequential"])
def test_what_a_pass_writes_does_not_reach_the_parent(engine, decompose, tmp_path):
    net = Counting()
    with pytest.warns(UserWarning, match=r"1 masked weights have no part in the logits: idle\.weight"):
        done = decompose(net, engine=engine, alpha=0.0, weight_decay=0.0)
    assert net.calls == done.parent.calls == 0
    scores = done.scores["idle.weight"]
    assert torch.equal(scores[0], scores[1]), "no gradient, no step"
    done.save(tmp_path / "m.safetensors")
    assert modlib.load(tmp_path / "m.safetensors", net).classes == (0, 1, 2)


def test_a_parent_without_anything_left_out_is_not_warned_of(conv_parent, decompose):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decompose(conv_parent, epochs=1)


def test_the_device_holds_one_module_whatever_their_number(conv_parent, data):
    """The parent's weights and one module in the slot; all other modules wait in host memory."""

    def held(classes):
        engine = make_engine("modulewise", [Run(conv_parent, VOTING, seed=0)], classes, data, CPU)
        (slot,), (members,) = engine.slots, engine.members
        assert len(members) == len(classes)
        own = {id(values.untyped_storage()) for member in members for values in member.values()}
        assert not own & {id(values.untyped_storage()) for values in slot.tensors().values()}
        return sum(values.nbytes for values in slot.tensors().values())

    assert held((0,)) == held((0, 1, 2))


class TwoNames(nn.Module):
    """One layer under two names, as a container and its shortcut hold it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 3)
        self.again = self.first

    def forward(self, inputs):
        return self.last(self.again(self.first(inputs.flatten(1)).relu()).relu())


@pytest.mark.parametrize("engine", ["modulewise", "sequential"])
def test_a_layer_under_two_names_keeps_its_weights_in_the_parent(engine, decompose):
    net = TwoNames()
    done = decompose(net, engine=engine)
    assert modlib.parent.parent_hash(done.parent) == modlib.parent.parent_hash(net)
    assert list(done.masks.masks) == ["first.weight", "last.weight"]


class Aliased(nn.Module):
    """Autograd hands out one gradient for two weights, and a broadcast one for the third."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.out = (nn.Linear(16, 6), nn.Linear(16, 6), nn.Linear(4, 5), nn.Linear(6, 3))

    def forward(self, inputs):
        return self.out(nn.functional.linear(inputs.flatten(1), self.a.weight + self.b.weight)) + self.c.weight.sum()


def test_gradients_that_share_memory_are_those_of_autograd(data, decompose):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Aliased().double()
    settings = {"alpha": 0.0, "epochs": 3}
    mine, reference = (decompose(net, engine=engine, **settings) for engine in ("modulewise", "sequential"))
    for name, scores in reference.scores.items():
        torch.testing.assert_close(mine.scores[name], scores, msg=name)


def test_autocast_around_a_decomposition_changes_nothing(conv_parent, decompose, same):
    net = copy.deepcopy(conv_parent).float()
    plain = decompose(net)
    with torch.autocast("cpu", torch.bfloat16):
        around = decompose(net)
    assert same(plain, around)
