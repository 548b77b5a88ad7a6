"""Recomposed networks: equal to running the modules one by one, for any classes in any order."""

import copy
import importlib
import io
import operator
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import fx, nn
from torch.nn.functional import linear

import modlib
from modlib import baking, stacking
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.parent import parent_hash
from modlib.passes import Passes, masked_parents
from modlib.recomposing import Recomposed
from modlib.stacking import Stacked
from modlib.zoo import parents


@pytest.mark.parametrize("subset", [[0, 1, 2], [2, 0], [1], [2, 1, 0]], ids=str)
@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("kind", ["parent", "conv_parent", "tied_parent"])
def test_equals_the_modules_one_by_one(kind, norm, subset, request, decompose, inputs, masked_copy):
    done = decompose(request.getfixturevalue(kind), norm=norm, share_init=False)
    columns = []
    for c in subset:
        out = linear(masked_copy(done, c)(inputs), done.grafting_weight[c], done.grafting_bias[c])
        columns.append(torch.softmax(out, 1)[:, 1])
    expected = torch.stack(columns, 1)
    net = done.recompose(subset)
    torch.testing.assert_close(net(inputs), expected)
    torch.testing.assert_close(net.log_odds(inputs), expected.logit())
    torch.testing.assert_close(done.log_odds(inputs, batch_size=7)[:, subset], net.log_odds(inputs))
    assert net.predict(inputs).tolist() == [subset[i] for i in expected.argmax(1)]


def test_masked_biases_of_a_chain_are_masked_there_too(decompose, inputs, masked_copy):
    parent = parents.fc(1, 16, 6, 3, seed=1).double()
    for values in parent.parameters():
        values.data += 0.1  # biases that matter
    done = decompose(parent, policy=lambda owner, name: name in ("weight", "bias"), share_init=False)
    assert any(name.endswith("bias") for name in done.masks.masks)
    net = done.recompose([2, 0])
    assert isinstance(net.voters, Stacked)
    for column, c in enumerate([2, 0]):
        out = linear(masked_copy(done, c)(inputs), done.grafting_weight[c], done.grafting_bias[c])
        torch.testing.assert_close(net(inputs)[:, column], torch.softmax(out, 1)[:, 1])


def test_predict_by_hand():
    """Module 4 keeps the first weight of each row, module 9 the second; 4 reads logit 0, 9 reads logit 1."""
    parent = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
    parent.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    masks = MaskSet({"weight": torch.tensor([[[1, 0], [1, 0]], [[0, 1], [0, 1]]]).bool()}, (4, 9))
    graft = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    done = Modules(parent, masks, graft, torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [400.0, 100.0]])
    net = done.recompose([9, 4])  # d: 4 * x_1; 1 * x_0 + 0.5
    assert net.log_odds(x).tolist() == [[0.0, 1.5], [4.0, 0.5], [400.0, 400.5]]
    assert net(x)[2].tolist() == [1.0, 1.0]
    assert net.predict(x).tolist() == [4, 9, 4], "the vote must not saturate as confidences do"


def test_a_subset_counts_its_union_and_gives_the_columns_of_the_whole(modules, inputs):
    net, union = modules.recompose([2, 0]), modules.masks.union([0, 2])
    assert net.remaining == sum(int(u.sum()) for u in union.values()) / 114 == modules.remaining([0, 2])
    torch.testing.assert_close(net(inputs), modules.recompose([0, 1, 2])(inputs)[:, [2, 0]])


def test_a_network_for_each_mask_holds_it_and_nothing_else(modules):
    for row, network in enumerate(masked_parents(modules)):
        for name, weight in network.named_parameters():
            mask = modules.masks.masks.get(name)
            kept = torch.ones_like(weight).bool() if mask is None else mask[row]
            assert torch.equal(weight != 0, kept)
            assert torch.equal(weight[kept], modules.parent.get_parameter(name)[kept])


def test_state_dict_round_trip_and_deep_copy(conv_parent, decompose, inputs):
    done, another = decompose(conv_parent, share_init=False), decompose(conv_parent, seed=8, share_init=False)
    net, other = done.recompose([2, 0]), another.recompose([0, 1])
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    assert not torch.equal(net(inputs), other(inputs))
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(net)
    for loaded in (other, twin):
        assert torch.equal(net(inputs), loaded(inputs))
        assert torch.equal(net.predict(inputs), loaded.predict(inputs))
    twin.voters.networks[0][0].weight.zero_()
    assert not torch.equal(net(inputs), twin(inputs))
    assert torch.equal(net(inputs), done.recompose([2, 0])(inputs))


def test_the_network_within_stays_in_eval_mode(conv_parent, decompose, inputs):
    net = decompose(conv_parent).recompose([0, 1])
    before = net(inputs)
    assert net.train() is net
    assert net.training
    assert not any(part.training for part in net.voters.modules())
    assert not any(p.requires_grad for p in net.parameters())
    assert torch.equal(net(inputs), before)
    torch.testing.assert_close(net.float()(inputs.float()).double(), before, rtol=0, atol=1e-5)


def test_select_and_join_are_each_others_inverse(conv_parent, decompose, same):
    done = decompose(conv_parent, share_init=False)
    assert same(done.select([2, 0]).join(done.select([1]), [0, 1, 2]), done)


def test_a_weight_that_another_part_names_first(decompose, inputs):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.prototypes = torch.nn.Parameter(torch.linspace(-1, 1, 48).view(3, 16).double())
            self.last = torch.nn.Linear(16, 3).double()
            self.last.weight = self.prototypes

        def forward(self, x):
            return self.last(x.flatten(1))

    assert decompose(Net()).recompose([0, 1])(inputs).shape == (18, 2)


def test_log_odds_take_one_module_to_the_device_at_a_time(parent, decompose, inputs, monkeypatch):
    modules = decompose(parent, share_init=False)
    expected, seen = modules.recompose(modules.classes).log_odds(inputs), []
    made = Recomposed.__init__

    def watched(self, some, subset):
        made(self, some, subset)
        seen.append(self.classes.tolist())

    monkeypatch.setattr(Recomposed, "__init__", watched)
    torch.testing.assert_close(modules.log_odds(inputs, batch_size=7), expected)
    assert seen == [[c] for c in modules.classes]


@pytest.mark.parametrize("kind", ["parent", "tied_parent"])
def test_modules_with_one_mask_share_a_pass(kind, request, decompose, inputs):
    """Two of three masks are made equal: two passes give what three would, alone and in a subset."""
    apart = decompose(request.getfixturevalue(kind), share_init=False)
    masks = {name: mask[[0, 1, 0]] for name, mask in apart.masks.masks.items()}
    modules = replace(apart, masks=MaskSet(masks, apart.classes))
    for subset, passes in (([0, 1, 2], 2), ([2, 0], 1), ([2, 1], 2), ([1], 1)):
        net, alone = modules.recompose(subset), [modules.recompose([c]) for c in subset]
        assert net.passes == passes == len(getattr(net.voters, "networks", range(passes)))
        torch.testing.assert_close(net.log_odds(inputs), torch.cat([one.log_odds(inputs) for one in alone], 1))
    torch.testing.assert_close(modules.log_odds(inputs), modules.recompose([0, 1, 2]).log_odds(inputs))


def test_modules_with_one_mask_and_statistics_of_their_own_do_not(conv_parent, decompose, inputs):
    modules = decompose(conv_parent, k=1.0, classes=[0, 1])
    assert modules.masks.mean_jaccard() == 1.0
    assert modules.recompose([0, 1]).passes == 1  # at k = 1 they have seen the same batches through the same network
    moved = {name: values.clone() for name, values in modules.statistics.items()}
    next(iter(moved.values()))[1] += 1
    assert replace(modules, statistics=moved).recompose([0, 1]).passes == 2


def test_under_autocast_only_the_network_is_rounded(parent, tied_parent, decompose, inputs):
    net = decompose(tied_parent, share_init=False).recompose([0, 1, 2]).float()
    with torch.autocast("cpu", torch.bfloat16):
        odds = net.log_odds(inputs.float())
        logits = net.voters.networks[1](inputs.float())
    assert (odds.dtype, logits.dtype) == (torch.float32, torch.bfloat16)
    expected = linear(logits.float(), net.voters.grafting_weight[1], net.voters.grafting_bias[1])
    torch.testing.assert_close(odds[:, 1], expected[:, 1] - expected[:, 0])
    net = decompose(parent, share_init=False).recompose([0, 1, 2]).float()
    with torch.autocast("cpu", torch.bfloat16):
        odds = net.log_odds(inputs.float())
        hidden = net.voters.layers[0](inputs.float().flatten(1))
    assert (odds.dtype, hidden.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(odds, net.voters.layers[1](hidden.float().relu()))


def test_inputs_are_brought_to_the_type_of_the_network(modules, inputs):
    pair = modules.recompose([0, 2])
    torch.testing.assert_close(pair(inputs.float()), pair(inputs.float().double()))
    assert pair(inputs.float()).dtype == torch.float64


def test_modules_with_and_without_statistics_are_not_joined(conv_parent, decompose):
    frozen, own = (decompose(conv_parent, norm=n, classes=[c]) for n, c in (("frozen", 0), ("batch", 1)))
    for one, other in ((frozen, own), (own, frozen)):
        with pytest.raises(ValueError, match="other: only one of both has statistics of its own"):
            one.join(other, [0, 1])


def test_an_unknown_precision_is_refused(modules, inputs):
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'bf16'"):
        modules.log_odds(inputs, precision="bf16")


def test_dead_units_by_hand():
    """Unit 0 has no edge in: relu(3) = 3 goes into the next bias, times 5. Unit 1 has no edge out. Unit 2 stays.

    Of the second layer's units, the second then has no edge left but a constant, relu(-1 + 4) = 3, times 2.
    """
    first = (torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]), torch.tensor([3.0, 1.0, -1.0]))
    second = (torch.tensor([[5.0, 0.0, 7.0], [0.0, 0.0, 0.0]]), torch.tensor([1.0, 3.0]))
    third = (torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]))
    found = stacking.without_dead_units([first, second, third])
    assert [(weight.tolist(), bias.tolist()) for weight, bias in found] == [
        ([[2.0, 0.0]], [-1.0]),
        ([[7.0]], [16.0]),
        ([[1.0]], [6.5]),
    ]
    nothing = stacking.without_dead_units([first, (torch.zeros(1, 3), torch.tensor([2.0]))])
    assert [tuple(weight.shape) for weight, _ in nothing] == [(0, 2), (1, 0)]
    assert Stacked([nothing], [[0]], False)(torch.ones(2, 2)).tolist() == [[2.0], [2.0]]


def test_units_with_equal_edges_are_computed_once():
    """Modules 0 and 1 share their first unit; both units of module 2 are equal to it, and their edges add up."""
    one, other = [1.0, 2.0], [0.0, 3.0]
    firsts = ([one, other], [one, [4.0, 0.0]], [one, one])
    bias = torch.zeros(2)
    chains = [[(torch.tensor(w), bias), (torch.tensor([[1.0, 10.0]]), torch.ones(1))] for w in firsts]
    net = Stacked(chains, [[2], [0], [1]], False)
    assert net.layers[0].weight.tolist() == [other, one, [4.0, 0.0]]
    assert net(torch.ones(1, 2)).tolist() == [[44.0, 34.0, 34.0]]
    assert [chain[0][0].tolist() for chain in net.chains()] == [[other, one], [one, [4.0, 0.0]], [one]]


def test_what_pays_as_a_sparse_product():
    assert stacking.pays_sparse(2**16 + 30, 10)
    assert not stacking.pays_sparse(2**16 + 29, 10)


@pytest.mark.parametrize("hidden", [1, 2, 3])
def test_sparse_products_give_what_dense_ones_do(hidden, decompose, inputs, monkeypatch):
    modules = decompose(parents.fc(hidden, 16, 6, 3).double(), share_init=False)
    dense = modules.recompose([2, 0, 1])
    monkeypatch.setattr(stacking, "SAVED", -(2**20))
    sparse = modules.recompose([2, 0, 1])
    assert all(isinstance(layer, stacking.SparseLinear) for layer in sparse.voters.layers)
    for some in (inputs, inputs[:1]):
        torch.testing.assert_close(sparse.log_odds(some), dense.log_odds(some))
        gradients = [
            torch.autograd.grad(net(x).sum(), x)[0] for net in (dense, sparse) for x in [some.clone().requires_grad_()]
        ]
        torch.testing.assert_close(*gradients)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(sparse.log_odds(inputs), dense.log_odds(inputs), rtol=0.05, atol=0.05)
    exported = torch.export.export(sparse, (inputs,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    torch.testing.assert_close(exported(inputs[:5]), dense(inputs[:5]))
    loaded = copy.deepcopy(sparse)
    loaded.load_state_dict(sparse.state_dict())
    assert torch.equal(pickle.loads(pickle.dumps(loaded)).float()(inputs), sparse.float()(inputs))


def hooked(net):
    net[1].register_forward_hook(lambda layer, inputs, output: output * 2)
    return net


LAST = nn.Linear(6, 3)
CHAINS = {
    "nested, dropout": lambda: nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Dropout()), LAST
    ),
    "no bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 6, bias=False), nn.ReLU(inplace=True), LAST),
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
    "a layer twice": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), *(2 * [nn.Linear(6, 6), nn.ReLU()]), LAST
    ),
}
NO_CHAINS = {
    "no activation": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 6), LAST),
    "another activation": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), LAST),
    "activated logits": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU()),
    "a hook": lambda: hooked(nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), LAST)),
    "normalised weights": lambda: nn.Sequential(
        nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 6)), nn.ReLU(), LAST
    ),
}


@pytest.mark.parametrize("kind", CHAINS | NO_CHAINS)
def test_which_parents_are_chains(kind, decompose, inputs, masked_copy, recwarn):
    parent = copy.deepcopy((CHAINS | NO_CHAINS)[kind]()).double()
    modules = decompose(parent, share_init=False, epochs=1)
    net = modules.recompose([2, 0])
    assert isinstance(net.voters, Stacked if kind in CHAINS else Passes)
    for column, c in enumerate((2, 0)):
        out = linear(masked_copy(modules, c)(inputs), modules.grafting_weight[c], modules.grafting_bias[c])
        torch.testing.assert_close(net.log_odds(inputs)[:, column], out[:, 1] - out[:, 0])
    with pytest.raises(ValueError, match="inputs: the network fails on shape"):
        net(inputs[:, :, :3])


def test_a_chain_in_half_precision_is_none():
    assert stacking.linear_layers(nn.Linear(2, 2).bfloat16()) is None
    assert stacking.linear_layers(nn.Linear(2, 2)) is not None
    assert stacking.linear_layers(nn.Sequential()) is None


def test_leading_layers_that_are_the_same_are_called_once(conv_parent, decompose, inputs):
    apart = decompose(conv_parent, norm="frozen", share_init=False)
    masks = {name: mask if name == "8.weight" else mask[[0, 0, 0]] for name, mask in apart.masks.masks.items()}
    modules = replace(apart, masks=MaskSet(masks, apart.classes))
    net, called = modules.recompose([0, 1, 2]), []
    for network in net.voters.networks:
        for i in (0, 3, 8):
            network[i].register_forward_hook(lambda *_, i=i: called.append(i))
    expected = torch.cat([modules.recompose([c])(inputs) for c in (0, 1, 2)], 1)
    torch.testing.assert_close(net(inputs), expected)
    assert (called, net.voters.shared) == ([0, 3, 8, 8, 8], 8)
    other = apart.recompose([0, 1, 2])
    assert other.voters.shared == 0
    net.load_state_dict(other.state_dict())
    assert torch.equal(net(inputs), other(inputs))


class Counting(nn.Module):
    """It writes to a buffer in every pass, and adds it to its logits."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, inputs):
        self.calls += 1
        return self.layer(inputs.flatten(1)) + self.calls


def test_a_network_that_writes_to_its_buffers_gives_the_same_again(decompose, inputs):
    modules = decompose(Counting().double(), share_init=False, epochs=1)
    net = modules.recompose([0, 2])
    first = net(inputs)
    assert torch.equal(net(inputs), first)
    assert torch.equal(modules.recompose([0, 2])(inputs), first)


def test_memory_that_is_not_masked_is_held_once(conv_parent, decompose):
    one, other = decompose(conv_parent, share_init=False).recompose([0, 1]).voters.networks
    assert one[8].bias is other[8].bias
    assert one[8].weight is not other[8].weight


USERS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, inputs):
        return self.out(inputs.flatten(1)), "more"

def logits(output):
    return output[0]
"""
LOAD = """
import sys
sys.modules["modlib"] = None
sys.path.insert(0, sys.argv[1])
import torch
for name in sys.argv[2:]:
    network, inputs, expected = torch.load(f"{sys.argv[1]}/{name}", weights_only=False)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    torch.testing.assert_close(network(inputs), expected, rtol=1e-6, atol=1e-12)
    print(name, network.classes.tolist())
assert not [name for name in sys.modules if name.startswith("modlib.")]
"""


def test_a_baked_network_is_loaded_where_this_package_is_not(decompose, conv_parent, inputs, tmp_path, monkeypatch):
    (tmp_path / "a_users_own.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = importlib.import_module("a_users_own")
    made = {
        "chain": decompose(parents.fc(2, 16, 6, 3).double(), epochs=1, share_init=False),
        "convolutions": decompose(conv_parent, epochs=1, share_init=False),
        "blocks": decompose(parents.wide_resnet(10, 1, 3, in_channels=1).double(), epochs=1, share_init=False),
        "picked": decompose(own.Net().double(), epochs=1, share_init=False, logits=own.logits),
    }
    for name, modules in made.items():
        net = modules.recompose([2, 0])
        torch.save((net.baked(), inputs, net(inputs)), tmp_path / name)
    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path, *made], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} [2, 0]" for name in made], done.stderr


@pytest.mark.parametrize("filled", [0, 2])
@pytest.mark.parametrize("kind", ["parent", "conv_parent", "tied_parent"])
def test_a_baked_network_gives_the_same(kind, filled, request, decompose, inputs, monkeypatch):
    monkeypatch.setattr(baking, "FILLED", filled)
    parent = request.getfixturevalue(kind)
    before, modules = parent_hash(parent), decompose(parent, share_init=False, epochs=1)
    for subset in ([0, 1, 2], [2, 0], [1]):
        net = modules.recompose(subset)
        baked = net.baked()
        assert type(baked) is nn.Sequential if (kind, filled) == ("parent", 2) else isinstance(baked, fx.GraphModule)
        torch.testing.assert_close(baked(inputs), net(inputs), rtol=1e-6, atol=0)
        torch.testing.assert_close(baked.float()(inputs.float()), net(inputs).float(), rtol=1e-4, atol=0)
        shapes = ({0: torch.export.Dim.AUTO},)
        exported = torch.export.export(baked, (inputs.float(),), dynamic_shapes=shapes).module()
        torch.testing.assert_close(exported(inputs[:5].float()), baked(inputs[:5].float()))
        next(baked.parameters()).zero_()
        torch.testing.assert_close(net(inputs), modules.recompose(subset)(inputs), rtol=0, atol=0)
    assert parent_hash(parent) == parent_hash(modules.parent) == before


def test_a_sparse_network_is_baked_dense(decompose, inputs, monkeypatch):
    monkeypatch.setattr(stacking, "SAVED", -(2**20))
    net = decompose(parents.fc(2, 16, 6, 3).double(), share_init=False, epochs=1).recompose([1, 2, 0])
    for filled, kind in ((0, fx.GraphModule), (2, nn.Sequential)):
        monkeypatch.setattr(baking, "FILLED", filled)
        baked = net.baked()
        assert isinstance(baked, kind)
        torch.testing.assert_close(baked(inputs), net(inputs), rtol=1e-6, atol=0)


def test_a_function_without_a_name_is_not_baked(decompose):
    class Net(nn.Linear):
        def forward(self, inputs):
            return {"out": super().forward(inputs.flatten(1))}

    modules = decompose(Net(16, 3).double(), epochs=1, logits=lambda output: output["out"])
    with pytest.raises(ValueError, match=r"logits: <function .*lambda.* must be a function with a name in a module"):
        modules.recompose([0]).baked()


class Output(dict):
    """What a network of Hugging Face returns: its parts by key and by attribute."""

    __getattr__ = dict.__getitem__


class Tokens(nn.Module):
    """A network that takes its inputs by name, and returns more than logits."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(8, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask=None):
        hidden = self.embedding(input_ids) * attention_mask[..., None]
        return Output(loss=None, logits=self.out(hidden.mean(1)), hidden_states=(hidden,))


@pytest.mark.parametrize("pick", [operator.attrgetter("logits"), operator.itemgetter("logits")], ids=["name", "key"])
def test_output_objects_of_other_libraries(pick):
    """The error says what picks the logits, and what it says goes all the way."""
    ids = torch.randint(8, (12, 5), generator=torch.Generator().manual_seed(0))
    x, y = {"input_ids": ids, "attention_mask": torch.ones(12, 5)}, [0, 1, 2] * 4
    data = modlib.data.tensors(x, y, test=(x, y))
    settings = {"k": 0.5, "alpha": 1.0, "epochs": 1, "seed": 0, "device": "cpu"}
    with pytest.raises(ValueError, match=r'Output for a batch of 2; pass logits=, .*: operator.attrgetter\("logits"\)'):
        modlib.cotrain(Tokens(), data, **settings)
    with pytest.warns(UserWarning, match="embedding.weight; pass policy="):
        modules = modlib.cotrain(Tokens(), data, logits=pick, **settings)
    assert modules.report(data).images == 12
    assert set(modules.recompose([0, 2]).predict(x).tolist()) <= {0, 2}


@pytest.mark.parametrize("pick", [operator.attrgetter("logits"), operator.itemgetter("logits")], ids=["name", "key"])
def test_what_picks_by_name_is_baked(pick, decompose, inputs):
    class Net(nn.Linear):
        def forward(self, inputs):
            return Output(logits=super().forward(inputs.flatten(1)))

    net = decompose(Net(16, 3).double(), epochs=1, logits=pick).recompose([2, 0])
    torch.testing.assert_close(net.baked()(inputs), net(inputs), rtol=1e-6, atol=0)
    twice = decompose(Net(16, 3).double(), epochs=1, logits=operator.attrgetter("logits.real")).recompose([0])
    with pytest.raises(ValueError, match="must be a function with a name in a module"):
        twice.baked()


def test_predict_takes_its_rows_in_batches(modules, inputs):
    """However many rows there are, the network sees `batch_size` of them at once."""
    net, seen = modules.recompose([0, 2]), []
    expected = net.predict(inputs)
    net.voters.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    assert torch.equal(net.predict(inputs, batch_size=4), expected)
    assert max(seen) == 4
    assert sum(seen) == len(inputs)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        net.predict(inputs, batch_size=0)
