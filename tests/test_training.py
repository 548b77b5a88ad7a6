"""Training of parents."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from modlib import precision
from modlib.study import trials
from modlib.zoo import parents, training
from modlib.zoo.training import Parameters


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


def test_gradients_may_be_off_where_training_is_called(data):
    with torch.no_grad():
        inside = training.train(parents.fc(1, 16, 6, 3), data, seed=0, epochs=1)
    assert torch.equal(inside[1].weight, training.train(parents.fc(1, 16, 6, 3), data, seed=0, epochs=1)[1].weight)


def test_accuracy_by_hand(data):
    """A network that says class 0 always: a third of the images are of class 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
    net[1].weight.zero_()
    net[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    assert training.accuracy(net, data, "held_out") == 1 / 3
    assert training.logits(net, data, "test", batch_size=7)[0].tolist() == [[1.0, 0.0, 0.0]] * 18


def small_net():
    """Convolutions, normalisation and dropout, for the toy's 4x4 images of three classes."""
    return parents.wide_resnet(10, 1, num_classes=3, dropout=0.3, in_channels=1)


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


EVERYTHING = Parameters(0.05, batch_size=20, epochs=4, schedule="one_cycle", augment="flip_crop", label_smoothing=0.1)


def test_one_cycle_by_hand(data, monkeypatch):
    """Ten steps: the rate peaks at the third (0.3 * 10), half the way before is halfway up."""
    rates, step = [], torch.optim.SGD.step
    watched = lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]  # noqa: E731
    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    settings = Parameters(lr=1.0, epochs=2, batch_size=12, schedule="one_cycle")
    training.train(parents.fc(1, 16, 6, 3), data, seed=0, parameters=settings)
    assert rates[:3] == pytest.approx([1 / 25, (1 / 25 + 1) / 2, 1.0])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 25 / 10_000)
    assert len(rates) == 10


def test_smoothed_labels_by_hand(data):
    """A tenth of the target is spread over the three classes; all images are one batch."""
    net, settings = parents.fc(1, 16, 6, 3), Parameters(1.0, 0.0, 0.0, 60, 1, label_smoothing=0.1)
    target = 0.9 * nn.functional.one_hot(data.train_labels, 3) + 0.1 / 3
    (-(target * net(data.inputs(data.train_images)).log_softmax(1)).sum(1).mean()).backward()
    expected = [(p - p.grad).detach() for p in net.parameters()]
    training.train(net, data, seed=0, parameters=settings)
    torch.testing.assert_close([p.detach() for p in net.parameters()], expected)


def test_what_the_network_sees_is_augmented(data, monkeypatch):
    seen = []

    def spied(images, policy, generator):
        seen.append((len(images), policy, int(torch.randint(2**31, (), generator=generator))))
        return images.flip(2)

    monkeypatch.setattr(training.augmentation, "augment", spied)
    mirrored = replace(data, train_images=data.train_images.flip(2))
    settings = Parameters(batch_size=25, epochs=2, augment="crop")
    net = training.train(parents.fc(1, 16, 6, 3), data, seed=0, parameters=settings)
    assert [entry[:2] for entry in seen] == [(25, "crop"), (25, "crop"), (10, "crop")] * 2
    assert len({draws for *_, draws in seen}) == 6
    monkeypatch.undo()
    plain = replace(settings, augment="none")
    assert same(net, training.train(parents.fc(1, 16, 6, 3), mirrored, seed=0, parameters=plain))


def test_dropout_draws_by_the_seed_alone(data):
    nets = []
    for state, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        nets.append(training.train(small_net(), data, seed=seed, parameters=replace(EVERYTHING, epochs=1)))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])
    without = training.train(
        parents.wide_resnet(10, 1, 3, in_channels=1), data, seed=0, parameters=replace(EVERYTHING, epochs=1)
    )
    assert not same(nets[0], without)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("precision", training.PRECISIONS)
@pytest.mark.parametrize("schedule", training.SCHEDULES)
def test_a_stopped_training_goes_on_to_the_same_parent(schedule, precision, data, tmp_path):
    settings = replace(EVERYTHING, schedule=schedule, precision=precision)
    if schedule == "steps":
        settings = replace(settings, milestones=(1, 3))
    whole = training.train(small_net(), data, seed=0, parameters=settings)
    path, epochs = tmp_path / "folder" / "parent.pt", []

    def stop_in_the_third(epoch, net):
        epochs.append(epoch)
        if epochs == [1, 2, 3]:
            raise StoppedError

    arguments = {"seed": 0, "parameters": settings, "callback": stop_in_the_third, "checkpoint": path}
    with pytest.raises(StoppedError):
        training.train(small_net(), data, **arguments)
    assert [file.name for file in path.parent.iterdir()] == ["parent.pt"]
    with pytest.raises(ValueError, match=r"checkpoint: .* is of another run: another parent, recipe, seed"):
        training.train(small_net(), data, **arguments | {"seed": 1})
    resumed = training.train(small_net(), data, **arguments)
    assert epochs == [1, 2, 3, 3, 4]
    assert same(whole, resumed)
    assert path.exists(), "the caller removes it"


def test_bfloat16_in_channels_last(data):
    """Convolutions see bfloat16 with the channels innermost; weights and their updates stay float32."""
    net, seen = small_net(), set()

    def look(layer, inputs, output):
        last = all(x.is_contiguous(memory_format=torch.channels_last) for x in (layer.weight, output))
        seen.add((output.dtype, layer.weight.dtype, last))

    hook = net.group1[0].conv2.register_forward_hook(look)
    training.train(net, data, seed=0, parameters=replace(EVERYTHING, epochs=2, precision="bfloat16"))
    assert seen == {(torch.bfloat16, torch.float32, True)}
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in net.parameters())
    hook.remove()
    exact, rounded = (training.logits(net, data, "test", precision=p)[0] for p in training.PRECISIONS)
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < float((exact - rounded).abs().max()) < 0.1
    assert training.accuracy(net, data, precision="bfloat16") == float(
        (rounded.argmax(1) == data.test_labels).double().mean()
    )


def test_measuring_leaves_a_network_as_it_is(data):
    net = small_net().train()
    net.bn.eval()
    before = {n: v.clone() for n, v in net.state_dict().items()}
    once, again = (training.logits(net, data, "test")[0] for _ in range(2))
    assert torch.equal(once, again)  # no dropout
    assert net.training
    assert net.group1[0].dropout.training
    assert not net.bn.training
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())


def test_convolutional_networks_classify_a_few_images_at_once(data, monkeypatch):
    monkeypatch.setattr(precision, "PIXELS_AT_ONCE", 7 * 16 + 15)
    sizes = []
    for net in (small_net(), parents.fc(1, 16, 6, 3)):
        net.register_forward_hook(lambda layer, inputs, output: sizes.append(len(output)))
        training.logits(net, data, "test")
    assert sizes == [7, 7, 4, 18]


def test_fast_precision(monkeypatch):
    native = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    assert not native or training.fast_precision() == "bfloat16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    assert training.fast_precision("cpu") == "float32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert training.fast_precision("cpu") == "float32"
    assert training.fast_precision("meta") == "float32"
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, s=supported: s)
        assert training.fast_precision("cuda:0") == ("bfloat16" if supported else "float32")


def test_recipes_by_name():
    published, ours = (partial(training.recipe, name) for name in ("published", "ours"))
    assert published("mnist", "fc1", epochs=3) == training.table_3("mnist", epochs=3)
    assert published("cifar10", "fc2", precision="bfloat16") == training.table_3("cifar10")
    assert published("cifar10", "vgg16") == training.table_3("cifar10", augment="flip_crop")
    assert published("svhn_10k", "resnet50").augment == published("svhn", "resnet50").augment == "flip_crop"
    assert published("cifar100", "wrn28_10") == training.table_3("cifar100", augment="randaugment")
    modern = Parameters(0.1, batch_size=128, epochs=15, schedule="one_cycle", label_smoothing=0.1)
    assert ours("mnist", "fc1") == ours("mnist", "wrn16_2") == modern
    bfloat16 = replace(modern, augment="flip_crop", precision="bfloat16", epochs=2, lr=0.05)
    assert ours("cifar100", "wrn16_2", epochs=2, precision="bfloat16", lr=0.05) == bfloat16
    assert ours("svhn", "resnet50").augment == "crop"


def test_keys_of_old_parents_stay():
    """What a record's key is made of: a setting that was added later is in it only where it is not the default."""
    assert trials.chosen(training.table_3("mnist", epochs=5)) == {"epochs": 5}
    assert trials.chosen(Parameters(precision="bfloat16")) == {"precision": "bfloat16"}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Parameters(schedule="cosine"), "schedule must be one of .*, got 'cosine'"),
        (
            lambda: Parameters(schedule="one_cycle", milestones=(1,)),
            r"milestones must be \(\) with schedule 'one_cycle'",
        ),
        (lambda: Parameters(augment="flip"), "augment must be one of .*, got 'flip'"),
        (lambda: Parameters(precision="half"), "precision must be one of .*, got 'half'"),
        (lambda: Parameters(label_smoothing=1.5), r"label_smoothing must be in \[0, 1\], got 1.5"),
        (lambda: training.recipe("theirs", "mnist", "fc1"), "name must be one of .*, got 'theirs'"),
        (lambda: training.recipe("ours", "mnist", "vgg"), "model must be one of .*, got 'vgg'"),
    ],
)
def test_what_training_refuses(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_last_batch_of_a_single_image_is_left_out_where_it_would_need_statistics(data):
    settings = replace(EVERYTHING, batch_size=59, epochs=2, augment="none")  # 60 images
    assert len(data.train_labels) == 60
    training.train(small_net(), data, seed=0, parameters=settings)
