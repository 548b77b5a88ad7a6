"""Recomposed networks: equal to running the modules one by one, for any classes in any order."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear

from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.passes import masked_parents
from modlib.recomposing import Recomposed


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
