"""Parents as users write them, some of which no copy or mask can serve: they work, or a line says why not."""

import copy
import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

import modlib
from modlib import masking, metrics
from modlib.cotraining import Recipe, Run, cotrain_population
from modlib.engines.vectorised import fully_connected_layers
from modlib.parent import parent_hash
from modlib.parent_checks import unmasked_lines
from modlib.zoo import datasets, parents, training


class Small(nn.Module):
    """A network on images [B, 1, 4, 4], of the parts that its subclasses need."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 6), nn.Linear(6, 3)
        with torch.no_grad():
            for i, weight in enumerate(self.parameters()):
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))

    def forward(self, inputs):
        return self.last(self.first(inputs.flatten(1)).relu())


class KeepsActivations(Small):
    def forward(self, inputs):
        self.hidden = self.first(inputs.flatten(1)).relu()
        return self.last(self.hidden)


class KeepsThemInADict(Small):
    def forward(self, inputs):
        self.seen = {"hidden": [self.first(inputs.flatten(1)).relu()]}
        return self.last(self.seen["hidden"][0])


class Detached(Small):
    def forward(self, inputs):
        return self.last(self.first(inputs.flatten(1)).relu().detach())


class TrainReturnsNothing(Small):
    def train(self, mode=True):
        super().train(mode)


class CallsTheOriginal(Small):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.stored = lambda inputs: self.norm(inputs)  # as a copy has it, it still is the original's

    def forward(self, inputs):
        return super().forward(self.stored(inputs))


class Counts(Small):
    """A forward pass that writes to a buffer in eval mode, and depends on it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, inputs):
        hidden = self.first(inputs.flatten(1)).relu()
        self.mean.lerp_(hidden.detach().mean(0), 0.5)
        return self.last(hidden - self.mean)


def with_hooks():
    """Old hooks make these weights of others in every pass, and leave them with their graph."""
    net = nn.Sequential(nn.Flatten(), Small().first, nn.ReLU(), nn.utils.weight_norm(nn.Linear(6, 6)), Small().last)
    prune.l1_unstructured(net[1], "weight", 0.5)
    return net


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:parent. 2 weights are not masked")
@pytest.mark.parametrize("kind", [KeepsActivations, KeepsThemInADict, TrainReturnsNothing, Counts, with_hooks])
def test_networks_with_habits_work(kind, data, decompose, inputs, tmp_path):
    net = kind()
    net(data.inputs(data.train_images[:4]))  # with gradients: what it keeps has a graph
    modules = decompose(net)
    modules.save(tmp_path / "modules.safetensors")
    loaded = modlib.load(tmp_path / "modules.safetensors", net)
    assert torch.equal(loaded.log_odds(inputs.float()), modules.log_odds(inputs.float()))
    together = modules.recompose([0, 1, 2]).log_odds(inputs.float())
    torch.testing.assert_close(together, modules.log_odds(inputs.float()))


def test_buffers_that_a_pass_writes_do_not_go_from_module_to_module(decompose):
    alone = decompose(Counts(), alpha=0.0, classes=[2])
    assert torch.equal(alone.grafting_weight[0], decompose(Counts(), alpha=0.0).grafting_weight[2])


def test_a_parent_whose_copy_calls_the_original_is_refused_unchanged(decompose):
    net = CallsTheOriginal().train()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=r"parent: a copy of it still calls its own BatchNorm2d; a function"):
        decompose(net)
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    assert not nn.modules.module._global_forward_pre_hooks


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "torch.compile": torch.compile,  # nothing is compiled before its first call
    "both": lambda net: torch.compile(nn.DataParallel(net)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_parent_counts_as_the_network_in_it(wrap, decompose, data, same, tmp_path):
    net = Small()
    plain, wrapped = decompose(net), decompose(wrap(net))
    assert same(plain, wrapped)
    assert plain.masks.masks.keys() == wrapped.masks.masks.keys()
    assert type(wrapped.parent) is Small
    assert parent_hash(wrap(net)) == parent_hash(net)
    wrapped.save(tmp_path / "m")
    inputs = data.inputs(data.test_images)
    expected = plain.recompose([0, 2]).log_odds(inputs)
    for parent in (net, wrap(net)):
        assert torch.equal(modlib.load(tmp_path / "m", parent).recompose([0, 2]).log_odds(inputs), expected)
    picked = decompose(wrap(net), logits=lambda output: output)
    assert picked.masks.masks.keys() == plain.masks.masks.keys()
    one = modlib.decomposers.SharedMask(Recipe(k=0.3, alpha=0.0, epochs=1)).decompose(
        wrap(net), data, seed=0, device="cpu"
    )
    assert one.masks.masks.keys() == plain.masks.masks.keys()


def test_a_prefix_of_a_networks_own_is_a_part_of_its_names(decompose):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = Small()

        def forward(self, inputs):
            return self.module(inputs)

    net = Holder()
    assert parent_hash(net) != parent_hash(net.module)
    assert all(name.startswith("module.") for name in decompose(net).masks.masks)


def test_hooks_of_a_wrapper_are_not_lost_in_silence(decompose):
    wrapped = nn.DataParallel(Small())
    wrapped.register_forward_hook(lambda layer, inputs, output: -output)
    with pytest.raises(ValueError, match="parent: the DataParallel around the network has hooks; register them on the"):
        decompose(wrapped)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
@pytest.mark.parametrize("named", ["the whole of it", "first"])
def test_compiled_programs_are_refused(named, decompose):
    net = Small()
    net.first = torch.jit.script(net.first)
    with pytest.raises(TypeError, match=rf"parent: a compiled program of torch\.jit, .*: {named}; hand over"):
        decompose(torch.jit.script(net) if named == "the whole of it" else net)


def test_masked_weights_without_gradient_are_named(data, decompose):
    (line,) = unmasked_lines(Detached(), data)
    assert line.startswith("parent: 1 masked weights get no gradient (something is detached, or under no_grad)")
    assert "first.weight; pass policy=" in line


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_last_batch_of_one_image_is_left_out_where_it_would_need_statistics(norm, data, decompose):
    layers = [nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)]
    net = nn.Sequential(*layers)
    made = [decompose(net, norm=norm, images_per_epoch=count, engine="sequential") for count in (32, 33)]
    assert torch.equal(made[0].grafting_weight, made[1].grafting_weight)


def test_weights_without_part_are_not_called_detached(data):
    layer = nn.TransformerEncoderLayer(16, 2, 8, batch_first=True)  # whose fast pass gives other bits without gradients
    net = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 16)), layer, nn.Flatten(), nn.Linear(16, 3))
    net.idle = Small().first
    net.forward = types.MethodType(lambda s, x: nn.Sequential.forward(s[:-1], x), net)
    lines = unmasked_lines(net.eval(), data)
    assert "parent: 1 masked weights have no part in the logits: idle.weight" in lines
    assert not any("gradient" in line for line in lines)


def test_half_precision_is_named(data):
    lines = unmasked_lines(Small().bfloat16(), data)
    assert [line.split(",")[0] for line in lines] == ["parent: 2 masked weights are in half precision"]


def test_quantised_layers_are_named(data):
    net = Small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.first = torch.ao.quantization.quantize_dynamic(nn.Sequential(net.first), {nn.Linear})[0]
    assert "parent: 1 quantised layers are not masked: first" in unmasked_lines(net, data)


class Renormed(nn.Module):
    """A parent whose embedding shrinks its own rows in every forward pass."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(4, 8, max_norm=0.1)
        self.last = nn.Linear(8, 3)

    def forward(self, images):
        return self.last(self.rows((images.flatten(1) > 0.5).long() % 4).mean(1))


def test_a_forward_pass_that_writes_to_weights_is_refused(decompose):
    net = Renormed()
    with pytest.raises(ValueError, match=r"parent: a forward pass writes to its weights, .*: rows\.weight; they must"):
        decompose(net)
    net.rows.max_norm = None
    with pytest.warns(UserWarning, match="1 weights are not masked"):
        decompose(net)


@pytest.mark.parametrize("context", [torch.no_grad(), torch.inference_mode(), torch.device("meta")])
@pytest.mark.parametrize("engine", ["vectorised", "modulewise", "sequential"])
def test_what_is_switched_on_where_it_is_called_changes_nothing(engine, context, parent, decompose):
    settings = {"engine": engine, "vote": 0.5, "shared_epochs": 1, "allocation": "lamp"}
    with context:
        inside = decompose(parent, **settings)
    assert torch.equal(inside.grafting_weight, decompose(parent, **settings).grafting_weight)


def test_a_default_device_changes_neither_data_nor_parents_nor_metrics(data, decompose):
    def made():
        same = datasets.from_arrays(data.train_images.numpy(), data.train_labels.numpy())
        parent = parents.make("fc1", same, seed=0)
        training.train(parent, same, seed=0, epochs=1)
        modules = decompose(parent)
        odds = modules.log_odds(same.inputs(same.train_images))
        calibrated = metrics.calibrate(odds, same.train_labels, modules.classes)
        curve = metrics.subset_curve(odds, odds, same.train_labels, modules.masks, seed=0, count=2)
        return [*calibrated, metrics.balanced_accuracies(odds, same.train_labels, modules.classes, seed=0)], curve

    tensors, curve = made()
    with torch.device("meta"):  # every tensor that is made without a device would be empty
        others, same_curve = made()
    assert curve == same_curve
    assert all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))


def test_layers_in_different_precision(decompose):
    net = Small()
    net.first.double()
    net.forward = types.MethodType(lambda s, x: s.last(s.first(x.double().flatten(1)).relu().float()), net)
    made = [decompose(net, engine=engine, epochs=3, share_init=False) for engine in ("modulewise", "sequential")]
    assert all(torch.equal(mask, made[1].masks.masks[name]) for name, mask in made[0].masks.masks.items())
    assert [made[0].scores[name].dtype for name in ("first.weight", "last.weight")] == [torch.float64, torch.float32]


def test_magnitude_of_channels_last_and_of_half_precision():
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, 2, 2, generator=draw)
    plain = masking.initial_scores(weight, "magnitude", "positive", draw)
    other = masking.initial_scores(weight.contiguous(memory_format=torch.channels_last), "magnitude", "positive", draw)
    assert other.is_contiguous()
    assert torch.equal(plain, other)
    half = masking.initial_scores((weight * 1e-4).half(), "magnitude", "positive", draw)
    torch.testing.assert_close(half.float(), plain, rtol=0.02, atol=1e-3)


def test_what_the_vectorised_engine_would_get_wrong_goes_to_another():
    own = modlib.zoo.parents.fc(1, 16, 6, 3, seed=1)
    assert fully_connected_layers(own) is not None
    own[1].forward = types.MethodType(lambda s, x: -functional.linear(x, s.weight, s.bias), own[1])
    assert fully_connected_layers(own) is None
    assert fully_connected_layers(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))) is None


def test_numbers_of_numpy_are_numbers(parent, data, decompose, tmp_path):
    settings = {"k": 0.5, "alpha": 1.0, "epochs": 2, "seed": 3}
    same = {"k": np.float64(0.5), "alpha": np.float64(1.0), "epochs": np.int64(2), "seed": np.int64(3)}
    one, other = decompose(parent, **settings), decompose(parent, **same)
    assert torch.equal(one.grafting_weight, other.grafting_weight)
    other.save(tmp_path / "modules.safetensors")
    by_layer = types.MappingProxyType({"default": np.float32(0.5)})
    assert Recipe(k=by_layer, alpha=1.0, epochs=1).k == {"default": 0.5}
    assert type(Run(parent, Recipe(k=0.5, alpha=1.0, epochs=1), np.int64(3)).seed) is int
    seeds = [modlib.seeds.generator(*of, "a").initial_seed() for of in ((np.int64(3), np.int64(1)), (3, 1))]
    assert seeds[0] == seeds[1]
    with pytest.raises(TypeError):
        modlib.seeds.generator(1.7, "a")


def test_what_cannot_be_written_or_called_is_refused(parent, data, decompose, tmp_path):
    base, run = Recipe(k=0.3, alpha=1.0, epochs=1, method="base", base_class=1), Recipe(k=0.3, alpha=1.0, epochs=1)
    with pytest.raises(ValueError, match="checkpoint: method='base' writes none"):
        cotrain_population([Run(parent, base, 0)], data, checkpoint=tmp_path / "run.pt")
    with pytest.raises(TypeError, match=r"checkpoint must be a path, a str or a pathlib\.Path, got 3"):
        cotrain_population([Run(parent, run, 0)], data, checkpoint=3)
    with pytest.raises(TypeError, match="callback must be a function of a run's position"):
        cotrain_population([Run(parent, run, 0)], data, callback=5)
    with pytest.raises(TypeError, match="callback must be a function of an epoch and modules, got 5"):
        decompose(parent, callback=5)
    with pytest.raises(TypeError, match=r"parent must be an nn\.Module, got str"):
        modlib.load(tmp_path / "none", "x")


def test_modules_of_another_parent_do_not_join(parent, decompose):
    other = modlib.zoo.parents.fc(1, 16, 6, 3, seed=2).double()
    with pytest.raises(ValueError, match="other: its modules are of another parent"):
        decompose(parent, classes=[0]).join(decompose(other, classes=[1]), [0, 1])


def test_a_layer_without_part_in_a_batch_moves_alike_in_all_engines(data, decompose):
    class Sometimes(Small):
        def forward(self, inputs):
            hidden = self.first(inputs.flatten(1))
            return self.last(hidden.relu() if len(inputs) != 12 else hidden.new_ones(len(inputs), 6))

    made = [decompose(Sometimes(), engine=e, momentum=0.9, weight_decay=0.1) for e in ("modulewise", "sequential")]
    for name, scores in made[0].scores.items():
        torch.testing.assert_close(scores, made[1].scores[name])


@pytest.mark.filterwarnings("ignore:parent. 1 weights are not masked")
def test_checkpoints_of_another_engine_preprocessing_or_of_nothing_are_refused(conv_parent, data, tmp_path):
    path, recipe = tmp_path / "run.pt", Recipe(k=0.3, alpha=1.0, epochs=3, norm="frozen")

    def stop(run, epoch, modules):
        if epoch == 2:
            raise KeyboardInterrupt

    run = Run(conv_parent, recipe, 0)
    with pytest.raises(KeyboardInterrupt):
        cotrain_population([run], data, engine="modulewise", callback=stop, checkpoint=path)
    for runs, images, engine in (
        ([run], data, "sequential"),
        ([Run(conv_parent, recipe, 0, policy=lambda module, name: isinstance(module, nn.Conv2d))], data, "modulewise"),
        ([run], replace(data, preprocess=lambda images: data.preprocess(images) / 2), "modulewise"),
    ):
        with pytest.raises(ValueError, match=r"checkpoint: .*run\.pt is of another run"):
            cotrain_population(runs, images, engine=engine, checkpoint=path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint: .*run\.pt is damaged"):
        cotrain_population([run], data, engine="modulewise", checkpoint=path)


def test_what_is_no_module_is_refused_by_name(decompose):
    for parent in (None, "network"):
        with pytest.raises(TypeError, match=r"parent must be an nn\.Module, got"):
            decompose(parent)


def test_a_single_linear_layer_is_decomposed(data, decompose, same):
    flat = replace(data, preprocess=lambda images: images.flatten(1).double() / 255)
    one, other = (decompose(nn.Linear(16, 3).double(), data=flat, engine=e) for e in ("auto", "modulewise"))
    assert list(one.masks.masks) == list(other.masks.masks) == ["weight"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
def test_modules_over_a_compiled_program_are_not_loaded(modules, tmp_path):
    modules.save(tmp_path / "m")
    scripted = torch.jit.script(copy.deepcopy(modules.parent))
    with pytest.raises(TypeError, match=r"parent: a compiled program of torch\.jit"):
        modlib.load(tmp_path / "m", scripted)


def test_a_single_logit_for_two_classes_is_told_how_to_become_two():
    data = modlib.data.tensors(torch.randn(20, 4), torch.arange(20) % 2)
    single = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    with pytest.raises(ValueError, match="of a single logit make two: logits=lambda z") as refused:
        modlib.check(single, data)
    pick = eval(str(refused.value).partition("logits=")[2])
    logits = pick(single(torch.randn(6, 4)))
    assert logits.shape == (6, 2)
    assert torch.equal(logits[:, 1], -logits[:, 0])
