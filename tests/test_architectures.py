"""Any `nn.Module`: torchvision's families and networks as users write them are decomposed, recomposed, saved, loaded.

Weights are random: what is tested is that masks act where they should, and that the parent stays what it was.
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
import torch.utils.checkpoint
from families import FAMILIES
from torch import nn
from torchvision import models

import modlib
from modlib import masking
from modlib.parent import functional_call, with_logits
from modlib.parent_checks import check_parent

SAID = {
    "googlenet": "6 masked weights have no part in the logits: aux1.conv.conv.weight",
    "maxvit": "2 weights are not masked .*relative_position_bias_table",
    "swin": "2 weights are not masked .*relative_position_bias_table",
    "vit": "1 weights are not masked .*: encoder.pos_embedding;",
}


class Written(nn.Module):
    """A network as users write them: named parts, and a forward pass that is any function of them and the inputs."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, inputs):
        return self.call(self, inputs)


class Buffers(nn.Module):
    """A layer with a persistent and another buffer, which every pass writes to."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.register_buffer("shift", torch.ones(3))
        self.register_buffer("passes", torch.zeros(1), persistent=False)

    def forward(self, inputs):
        self.passes += 1
        return self.layer(inputs.flatten(1)) + self.shift


class BatchNormOfOnesOwn(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.register_buffer("running_mean", torch.full((features,), 0.1))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, inputs):
        return nn.functional.batch_norm(inputs, self.running_mean, self.running_var)


class BatchNormWithDropout(nn.BatchNorm1d):
    """As some libraries have it, normalisation, dropout and activation in one layer."""

    def __init__(self, features):
        super().__init__(features)
        self.drop = nn.Dropout(0.5)

    def forward(self, inputs):
        assert not self.drop.training
        return self.drop(super().forward(inputs)).relu()


class Projected(nn.Module):
    """A layer whose weights are a buffer: they are fixed."""

    def __init__(self, features):
        super().__init__()
        self.register_buffer("directions", torch.randn(features, features))
        self.register_buffer("unused", torch.randn(features, features))

    def forward(self, inputs):
        return inputs @ self.directions


@dataclass
class Output:
    """What some libraries' models return."""

    logits: torch.Tensor
    hidden: torch.Tensor


def after(*layers, features=16):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 3))


def flat(layer, features=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), layer, nn.ReLU(), nn.Linear(features, 3))


def conv_twice():
    def call(net, x):
        return net.out(net.conv(net.conv(x)).flatten(1))

    return Written(call, conv=nn.Conv2d(1, 1, 3, padding=1), out=nn.Linear(16, 3))


def tied():
    net = Written(
        lambda net, x: net.out(net.embedding((x.flatten(1) * 2.9).long()).mean(1)),
        embedding=nn.Embedding(3, 5),
        out=nn.Linear(5, 3),
    )
    net.out.weight = net.embedding.weight
    return net


def shared_layer():
    layer = nn.Linear(8, 8)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(8, 3))


def attention(keys=4, values=4):
    def call(net, x):
        tokens = x[:, 0]
        return net.out(net.attend(tokens, tokens[..., :keys], tokens[..., :values])[0].flatten(1))

    attend = nn.MultiheadAttention(4, 2, batch_first=True, kdim=keys, vdim=values)
    return Written(call, attend=attend, out=nn.Linear(16, 3))


def encoder():
    block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return Written(lambda net, x: net.out(net.blocks(x[:, 0]).flatten(1)), blocks=block, out=nn.Linear(16, 3))


def containers():
    def call(net, x):
        hidden = x.flatten(1)
        for branch in net.branches:
            hidden = branch["act"](branch["layer"](hidden))
        return net.heads["class"](hidden)

    parts = [nn.ModuleDict({"layer": nn.Linear(n, 6), "act": nn.ReLU()}) for n in (16, 6)]
    return Written(call, branches=nn.ModuleList(parts), heads=nn.ModuleDict({"class": nn.Linear(6, 3)}))


def recurrent():
    return Written(
        lambda net, x: net.out(net.lstm(x[:, 0])[0][:, -1]), lstm=nn.LSTM(4, 5, batch_first=True), out=nn.Linear(5, 3)
    )


def embedded():
    return Written(
        lambda net, x: net.out(net.embedding((x.flatten(1) * 9).long()).mean(1)),
        embedding=nn.Embedding(10, 5),
        out=nn.Linear(5, 3),
    )


def plain_parameter():
    return Written(
        lambda net, x: net.out(x.flatten(1) @ net.matrix), matrix=nn.Parameter(torch.randn(16, 5)), out=nn.Linear(5, 3)
    )


def unflattened(*shape):
    return nn.Sequential(nn.Flatten(), nn.Unflatten(1, shape))


WRITTEN = {
    "grouped": lambda: after(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2)),
    "depthwise and 1x1": lambda: after(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 4, 1)),
    "transposed": lambda: after(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ConvTranspose2d(2, 2, 3), features=32),
    "transposed in groups": lambda: after(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 2, 2, groups=2), features=64),
    "1-d": lambda: after(unflattened(1, 16), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.ConvTranspose1d(2, 1, 3)),
    "3-d": lambda: after(unflattened(1, 4, 2, 2), nn.Conv3d(1, 2, (3, 1, 1)), nn.ReLU()),
    "tied weights": tied,
    "a layer under two names": shared_layer,
    "a layer called twice": conv_twice,
    "attention": attention,
    "attention with keys and values of other sizes": lambda: attention(3, 2),
    "transformer": encoder,
    "layer norm": lambda: flat(nn.LayerNorm(8)),
    "layer norm of maps": lambda: after(nn.Conv2d(1, 4, 1), nn.LayerNorm((4, 4)), features=64),
    "RMS norm": lambda: flat(nn.RMSNorm(8)),
    "group norm": lambda: after(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)),
    "instance norm": lambda: after(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True)),
    "instance norm with statistics": lambda: after(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True)),
    "batch norm": lambda: flat(nn.BatchNorm1d(8)),
    "batch norm with a cumulative average": lambda: flat(nn.BatchNorm1d(8, momentum=None)),
    "batch norm without statistics": lambda: flat(nn.BatchNorm1d(8, track_running_stats=False)),
    "local response norm": lambda: after(nn.Conv2d(1, 4, 3), nn.LocalResponseNorm(2)),
    "containers": containers,
    "buffers": Buffers,
    "in place": lambda: after(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True)),
    "embedding": embedded,
    "LSTM": recurrent,
    "weight norm": lambda: nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 8)), nn.Linear(8, 3)
    ),
    "spectral norm": lambda: nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(16, 8)), nn.Linear(8, 3)
    ),
    "a plain parameter": plain_parameter,
    "batch norm of one's own": lambda: flat(BatchNormOfOnesOwn(8)),
    "batch norm with dropout in it": lambda: flat(BatchNormWithDropout(8)),
    "weights in a buffer": lambda: flat(Projected(8)),
}
SAID |= {
    "embedding": "1 weights are not masked .*: embedding.weight;",
    "LSTM": r"2 weights are not masked .*: lstm\.weight_ih_l0, lstm\.weight_hh_l0;",
    "weight norm": r"1 weights are not masked .*: 1\.parametrizations\.weight\.original1;",
    "spectral norm": r"1 weights are not masked .*: 1\.parametrizations\.weight\.original;",
    "a plain parameter": r"1 weights are not masked .*\(81\.6% of all parameters\): matrix;",  # 80 of 80 + 15 + 3
    "batch norm of one's own": r"1 layers that are no batch normalisation of torch's keep the parent's .*: 2$",
    "weights in a buffer": r"1 buffers with a part in the logits are not masked: 2\.directions$",
}
OUTPUTS = {
    "tuple": (lambda logits: (logits, "more"), lambda output: output[0]),
    "dict": (lambda logits: {"out": {"logits": logits}}, lambda output: output["out"]["logits"]),
    "dataclass": (lambda logits: Output(logits, logits.relu()), lambda output: output.logits),
}


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return make()


def state_of(parent):
    """Everything of a parent that a decomposition must leave as it was."""
    values = [v.clone() for v in (*parent.parameters(), *parent.buffers())]
    return values, [part.training for part in parent.modules()], [p.requires_grad for p in parent.parameters()]


def all_the_way(parent, data, path, said=None, logits=None, **settings):
    """Decompose, save and load a parent of mixed modes; return its modules. They are the same after loading."""
    parent.train()
    next(parent.children()).eval()
    next(parent.parameters()).requires_grad_(False)
    before = state_of(parent)
    chosen = {"k": 0.3, "alpha": 1.0, "epochs": 1, "seed": 0, "classes": [2, 0], "device": "cpu"} | settings
    with pytest.warns(UserWarning, match=said) if said else nullcontext([]) as caught:
        modules = modlib.cotrain(parent, data, logits=logits, **chosen)
    assert len(caught) == bool(said), "one line, and none where all is masked"
    modules.save(path)
    loaded = modlib.load(path, parent, logits)
    inputs = data.inputs(data.train_images[:9]).to(modules.grafting_weight.dtype)
    assert torch.equal(loaded.log_odds(inputs), modules.log_odds(inputs))
    assert torch.equal(loaded.recompose([0, 2]).predict(inputs), modules.recompose([0, 2]).predict(inputs))
    after = state_of(parent)
    assert after[1:] == before[1:]
    assert all(torch.equal(a, b) for a, b in zip(after[0], before[0], strict=True))
    return modules


def check_by_hand(modules, masked_copy, inputs):
    """A module says what a parent says whose weights were multiplied by its mask in place; masks have an effect."""
    found = modules.log_odds(inputs)
    network = modules.recompose([0, 2])
    with torch.no_grad():
        whole = modules.parent(inputs)
        for row, c in enumerate(modules.classes):
            weight, bias = modules.grafting_weight[row], modules.grafting_bias[row]
            expected = masked_copy(modules, row)(inputs) @ weight.T + bias
            torch.testing.assert_close(found[:, row], expected[:, 1] - expected[:, 0])
            column = network(inputs)[:, [0, 2].index(c)]
            torch.testing.assert_close(column, expected.softmax(1)[:, 1])
            other = whole @ weight.T + bias
            assert not torch.allclose(found[:, row], other[:, 1] - other[:, 0])
    assert torch.equal(network.predict(inputs), torch.tensor([0, 2])[found.flip(1).argmax(1)])


@pytest.fixture(scope="module")
def photographs():
    """Nine random RGB images of 32 × 32, three classes."""
    images = torch.randint(0, 256, (9, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return modlib.data.from_arrays(images, torch.arange(9) % 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_torchvision(family, photographs, masked_copy, tmp_path):
    parent = seeded(FAMILIES[family])
    modules = all_the_way(parent, photographs, tmp_path / "m", SAID.get(family), batch_size=4)
    for name, mask in modules.masks.masks.items():
        assert mask.flatten(1).sum(1).tolist() == [max(1, int(0.3 * mask[0].numel() + 0.5))] * 2, name


@pytest.mark.parametrize("name", WRITTEN)
def test_networks_as_users_write_them(name, data, inputs, masked_copy, tmp_path):
    parent = seeded(WRITTEN[name]).double()
    modules = all_the_way(parent, data, tmp_path / "m", SAID.get(name), batch_size=20)
    check_by_hand(modules, masked_copy, inputs)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_logits_are_picked_out_of_what_a_network_returns(kind, data, inputs, masked_copy, tmp_path):
    wrap, pick = OUTPUTS[kind]
    parent = seeded(lambda: Written(lambda net, x: wrap(net.out(x.flatten(1))), out=nn.Linear(16, 3))).double()
    with pytest.raises(ValueError, match=r"parent: must return logits .* got \w+ for a batch of 2; pass logits="):
        modlib.cotrain(parent, data, k=0.3, alpha=1.0, epochs=1, seed=0)
    modules = all_the_way(parent, data, tmp_path / "m", logits=pick)
    with pytest.raises(ValueError, match=r"logits: the modules in .* were made with logits=, hand the same"):
        modlib.load(tmp_path / "m", parent)
    check_by_hand(modules, masked_copy, inputs)
    assert not isinstance(parent(inputs), torch.Tensor), "the user's own still returns what it did"


def test_auxiliary_logits_of_googlenet_in_training(photographs):
    """In eval mode its output is a tensor; a parent that returns its named tuple always needs `logits=`."""
    net = seeded(FAMILIES["googlenet"])
    parent = Written(lambda net, x: models.GoogLeNetOutputs(net.body(x), None, None), body=net)
    with pytest.raises(ValueError, match="got GoogLeNetOutputs for a batch of 2; pass logits="):
        modlib.cotrain(parent, photographs, k=0.3, alpha=1.0, epochs=1, seed=0)
    check_parent(with_logits(parent, lambda output: output.logits), photographs, masking.default_policy)


def test_which_parameters_are_masked():
    def names(kind):
        return list(masking.maskable_parameters(seeded(WRITTEN[kind])))

    assert names("attention") == ["attend.in_proj_weight", "attend.out_proj.weight", "out.weight"]
    separate = "attention with keys and values of other sizes"
    assert names(separate)[:3] == ["attend.q_proj_weight", "attend.k_proj_weight", "attend.v_proj_weight"]
    assert names("tied weights") == ["out.weight"]
    assert names("a layer under two names") == ["1.weight", "2.weight", "6.weight"]
    assert names("transposed in groups") == ["0.weight", "1.weight", "3.weight"]
    assert names("containers") == ["branches.0.layer.weight", "branches.1.layer.weight", "heads.class.weight"]
    assert masking.unmasked_parameters(seeded(WRITTEN["tied weights"])) == {}


def test_a_policy_masks_what_the_default_leaves_whole(data, inputs, masked_copy, tmp_path):
    def matrices(owner, name):
        return owner.get_parameter(name).ndim == 2

    for kind in ("a plain parameter", "LSTM", "embedding"):
        parent = seeded(WRITTEN[kind]).double()
        modules = all_the_way(parent, data, tmp_path / "m", policy=matrices)
        assert len(modules.masks.masks) == (3 if kind == "LSTM" else 2)
        check_by_hand(modules, masked_copy, inputs)


def test_statistics_are_those_of_the_layers_that_keep_some(data, tmp_path):
    for kind, kept in (
        ("batch norm", 3),
        ("instance norm with statistics", 3),
        ("group norm", 0),
        ("instance norm", 0),
    ):
        modules = all_the_way(seeded(WRITTEN[kind]).double(), data, tmp_path / "m")
        assert len(modules.statistics) == kept
    without = all_the_way(seeded(WRITTEN["batch norm without statistics"]).double(), data, tmp_path / "m")
    assert not without.statistics


def test_a_cumulative_average_of_a_module_starts_anew(data, inputs):
    """One step over all images: their mean is the average, however many batches the parent has seen."""
    parent = seeded(WRITTEN["batch norm with a cumulative average"]).double().train()
    for _ in range(50):
        parent(torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    settings = {"k": 1.0, "alpha": 0.0, "epochs": 1, "seed": 0, "batch_size": 60, "device": "cpu"}
    modules = modlib.cotrain(parent, data, **settings)
    hidden = parent[1](data.inputs(data.train_images).double().flatten(1))
    torch.testing.assert_close(modules.statistics["2.running_mean"][0], hidden.mean(0))
    assert modules.statistics["2.num_batches_tracked"].tolist() == [1, 1, 1]


def test_a_network_that_views_its_feature_maps(photographs, masked_copy, tmp_path):
    """`view` needs maps that lie channel by channel, which those of channels-last images do not."""

    def call(net, x):
        return net.out(net.conv(x).relu().view(x.size(0), -1))

    parent = seeded(lambda: Written(call, conv=nn.Conv2d(3, 4, 3, 4), out=nn.Linear(256, 3)))
    own = replace(photographs, preprocess=lambda images: images.permute(0, 3, 1, 2) / 255)
    assert not own.inputs(own.train_images).is_contiguous(), "a user's own preprocessing may leave the channels last"
    first = all_the_way(parent, photographs, tmp_path / "m", batch_size=4)
    again = all_the_way(parent, own, tmp_path / "m", batch_size=4)
    assert all(torch.equal(mask, again.masks.masks[name]) for name, mask in first.masks.masks.items())


def test_a_call_with_other_weights_leaves_the_model_as_it_is():
    net = seeded(shared_layer)
    before = copy.deepcopy(net.state_dict())
    other = torch.zeros(8, 8)
    x = torch.ones(2, 16)
    found = functional_call(net, {"2.weight": other}, (x,))
    assert net[2] is net[4]
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    net[2].weight.data.copy_(other)
    assert torch.equal(found, net(x))


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("it holds a lock")


def checkpointed():
    def call(net, x):
        return torch.utils.checkpoint.checkpoint(net.out, x.flatten(1), use_reentrant=False)

    return Written(call, out=nn.Linear(16, 3))


def failing(error):
    def call(net, x):
        raise error

    return lambda: Written(call, out=nn.Linear(16, 3))


REFUSED = {
    "lazy layer": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "parent: the lazy layer '1' has no weights"),
    "lazy buffers": (lambda: after(nn.LazyBatchNorm2d(affine=False)), "parent: the lazy layer '0' has no weights"),
    "no copy": (lambda: Uncopied(16, 3), "parent: Uncopied cannot be copied: it holds a lock"),
    "no gradient": (
        lambda: Written(lambda net, x: net.out(x.flatten(1)).detach(), out=nn.Linear(16, 3)),
        "parent: no masked weight has a gradient from the logits; masked are out.weight",
    ),
    "no layer in use": (
        lambda: Written(lambda net, x: net.bi(x.flatten(1), x.flatten(1)), bi=nn.Bilinear(16, 16, 3), idle=after()),
        "parent: no masked weight has a gradient from the logits; masked are idle.1.weight",
    ),
    "activation checkpointing": (checkpointed, "parent: has no gradient .switch activation checkpointing off.: "),
    "an assertion": (failing(AssertionError("wrong height")), "parent: does not take inputs of shape .*wrong height"),
    "an error of its own": (failing(KeyError("size")), r"parent: does not take inputs of shape .*KeyError\('size'\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_decomposed_is_refused_by_name(what, data):
    make, match = REFUSED[what]
    with pytest.raises(ValueError, match=match):
        modlib.cotrain(make(), data, k=0.3, alpha=1.0, epochs=1, seed=0, device="cpu")


def test_a_function_that_cannot_pick_the_logits(data):
    parent = Written(lambda net, x: {"a": net.out(x.flatten(1))}, out=nn.Linear(16, 3))
    with pytest.raises(ValueError, match=r"logits: fails on the parent's output, a dict: KeyError\('b'\)"):
        modlib.cotrain(parent, data, k=0.3, alpha=1.0, epochs=1, seed=0, logits=lambda output: output["b"])


def test_a_single_number_has_no_mask():
    net = after()
    net.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match="policy: masks 'scale', a single number"):
        masking.maskable_parameters(net, lambda owner, name: True)


def test_a_recomposed_network_can_be_exported(conv_parent, decompose, inputs):
    network = decompose(conv_parent, epochs=1).recompose([2, 0])
    exported = torch.export.export(network, (inputs,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    torch.testing.assert_close(exported(inputs[:5]), network(inputs[:5]))
