"""Controls of module stemming on toys: exact counts, equal masks, a parent left alone, costs and readings by hand."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import modlib
from modlib import masking, metrics, recipes
from modlib.decomposers import FixedMasks, SharedMask
from modlib.decomposers import fixed_masks as fixed
from modlib.engines.selection import TopK
from modlib.modules import Modules
from modlib.study import comparison, controls, single_class
from modlib.study.records import Store

RECIPE = recipes.ours(k=0.3, alpha=0.0, vote=0.9, epochs=3, batch_size=16)
CLASSES = (0, 1, 2)
COUNTS = {"1.weight": 29, "3.weight": 5}  # 0.3 of 96 and of 18


def counts(masks):
    return {name: mask.flatten(1).sum(1).tolist() for name, mask in masks.masks.items()}


def grafted(parent, data, kind, **changes):
    return FixedMasks(kind, 0.3, replace(RECIPE, **changes)).decompose(parent, data, seed=0, classes=CLASSES)


@pytest.mark.parametrize("subset", [(0, 1, 2), (2, 0)])
def test_the_restricted_parent_is_the_largest_logit_of_the_subset(subset):
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    odds = controls.restricted_parent(logits)
    assert torch.equal(odds[:, subset].argmax(1), logits[:, subset].argmax(1))
    assert len(odds[:, subset].argmax(1).unique()) > 1, "logits that say one thing test nothing"
    torch.testing.assert_close(odds.sigmoid(), logits.softmax(1))


def test_the_restricted_parent_by_hand():
    odds = controls.restricted_parent(torch.tensor([[0.0, math.log(2), math.log(5)]]))
    torch.testing.assert_close(odds.exp(), torch.tensor([[1 / 7, 2 / 6, 5 / 3]]))


@pytest.mark.parametrize("kind", ["random", "magnitude", "dense"])
def test_fixed_masks_have_their_counts_and_are_the_same_for_all(parent, kind):
    masks = fixed.fixed_masks(parent, kind, 0.3, 0, CLASSES)
    expected = {"1.weight": 96, "3.weight": 18} if kind == "dense" else COUNTS
    assert counts(masks) == {name: [count] * 3 for name, count in expected.items()}
    assert masks.mean_jaccard() == 1.0
    assert masks.classes == CLASSES


def test_which_edges_fixed_masks_keep(parent, decompose):
    weight = parent.get_parameter("1.weight").detach().abs()
    kept = fixed.fixed_masks(parent, "magnitude", 0.3, 0, CLASSES).masks["1.weight"][0]
    assert weight[kept].min() > weight[~kept].max()
    random = [fixed.fixed_masks(parent, "random", 0.3, seed, CLASSES).masks["1.weight"] for seed in (0, 0, 1)]
    assert torch.equal(random[0], random[1])
    assert not torch.equal(random[0], random[2])
    start = decompose(parent, lr=1e-30, alpha=0.0, seed=0)  # module stemming starts from these edges
    assert torch.equal(random[0], start.masks.masks["1.weight"])


@pytest.mark.parametrize("vote", [0.0, 0.9])
def test_training_grafting_layers_lowers_the_objective(parent, data, vote):
    recipe = replace(RECIPE, vote=vote, epochs=20)
    masks = fixed.fixed_masks(parent, "dense", 1.0, 0, CLASSES)
    losses = []
    for train in (False, True):
        modules = fixed.grafted(parent, masks, data, recipe, 0, train=train)
        odds = modules.log_odds(data.inputs(data.train_images).double())
        losses.append(modlib.objective.objective(odds.T, data.train_labels, torch.arange(3), vote).item())
        assert modules.grafting_weight.dtype == torch.float64
    assert losses[1] < losses[0]


def test_a_shared_mask_is_one_mask_of_the_asked_size(parent, data):
    modules = SharedMask(replace(RECIPE, lr=1.0)).decompose(parent, data, seed=0, classes=CLASSES)
    assert counts(modules.masks) == {name: [count] * 3 for name, count in COUNTS.items()}
    assert modules.masks.mean_jaccard() == 1.0
    start = fixed.fixed_masks(parent, "random", 0.3, 0, CLASSES)
    assert not torch.equal(modules.masks.masks["1.weight"], start.masks["1.weight"]), "the mask must be learnt"
    assert not torch.equal(modules.grafting_weight[0], modules.grafting_weight[1])


def test_equal_scores_at_the_threshold_keep_the_exact_count():
    for scores, keep in ((torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]), 3), (torch.tensor([2.0, 1.0, 3.0, 0.5]), 2)):
        assert torch.equal(TopK(torch.tensor([keep]))(scores[None])[0].bool(), masking.top_k_mask(scores, keep))


def test_one_module_with_a_shared_mask_is_a_module_without_others(parent, data, decompose):
    """With one class, and all images, a shared mask is what co-training makes: the same steps to the last bit or so."""
    own = {"k": 0.3, "alpha": 0.0, "epochs": 3, "batch_size": 16, "schedule": "cosine", "grafting_init": "own_logit"}
    other = decompose(parent, classes=[1], engine="sequential", **own)
    relabelled = replace(data, train_labels=data.train_labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(data), "only", lambda given, classes: relabelled)
        mine = SharedMask(replace(RECIPE, vote=0.0)).decompose(parent, data, seed=0, classes=[1])
    assert all(torch.equal(m, other.masks.masks[name]) for name, m in mine.masks.masks.items())
    torch.testing.assert_close(mine.grafting_weight, other.grafting_weight)


def test_a_mask_for_a_subset_sees_its_images_only(parent, data):
    changed = data.train_images.clone()
    changed[data.train_labels == 1] = 255
    seen = (data, replace(data, train_images=changed))
    pair = [SharedMask(RECIPE).decompose(parent, d, seed=0, classes=(2, 0)) for d in seen]
    assert pair[0].classes == (2, 0)
    assert torch.equal(pair[0].grafting_weight, pair[1].grafting_weight)
    both = [SharedMask(RECIPE).decompose(parent, d, seed=0, classes=(1, 0)) for d in seen]
    assert not torch.equal(both[0].grafting_weight, both[1].grafting_weight)


def test_one_pass_equals_a_pass_for_each_module(parent, data, inputs):
    modules = grafted(parent, data, "magnitude")
    assert (modules.passes, modules.recompose(CLASSES).passes) == (1, 1)
    alone = torch.cat([modules.recompose([c]).log_odds(inputs) for c in CLASSES], 1)
    torch.testing.assert_close(modules.log_odds(inputs), alone)


def test_controls_leave_the_parent_as_it_was(parent, data):
    before = copy.deepcopy(parent.state_dict())
    wants = [p.requires_grad for p in parent.parameters()]
    grafted(parent, data, "magnitude")
    SharedMask(RECIPE).decompose(parent, data, seed=0, classes=CLASSES)
    controls.new_head(parent, data, RECIPE, 0, CLASSES)
    assert all(torch.equal(value, before[name]) for name, value in parent.state_dict().items())
    assert [p.requires_grad for p in parent.parameters()] == wants
    assert all(p.grad is None for p in parent.parameters())


def test_a_new_head_keeps_the_features(parent, data, inputs):
    network = controls.new_head(parent, data, RECIPE, 0, (2, 0))
    assert torch.equal(network[:-1](inputs), parent[:-1](inputs))
    assert network(inputs).shape == (18, 2)
    labels = data.test_labels
    odds = controls.new_head(parent, data, replace(RECIPE, epochs=60, lr=0.3), 0, CLASSES)(inputs)
    assert metrics.recomposed_accuracy(odds, labels, CLASSES) > 0.6  # of random features, where chance is a third


@pytest.mark.parametrize(
    ("weights", "hidden", "width"),
    [(1, 1, 1), (19 * 4, 1, 4), (19 * 4 + 9, 1, 4), (19 * 4 + 10, 1, 5), (16 * 3 + 2 * 9 + 3 * 3, 3, 3)],
)
def test_width_of_a_small_network(weights, hidden, width):
    assert controls.width_for(weights, hidden, 16, 3) == width


def test_a_small_network_has_the_asked_size_and_learns(data):
    network = controls.small_network(data, 1, 19 * 4, replace(RECIPE, epochs=40, lr=0.03), 0, CLASSES)
    assert sum(masking.sizes(masking.maskable_parameters(network)).values()) == 76
    odds = network(data.inputs(data.test_images))
    assert metrics.recomposed_accuracy(odds, data.test_labels, CLASSES) > 0.8


def test_the_same_seed_gives_the_same_control(parent, data):
    def parts(seed):
        modules = SharedMask(RECIPE).decompose(parent, data, seed=seed, classes=CLASSES)
        head = controls.new_head(parent, data, RECIPE, seed, CLASSES)[-1].weight
        small = controls.small_network(data, 1, 76, RECIPE, seed, CLASSES)[-1].weight
        return [modules.masks.masks["1.weight"], modules.grafting_weight, head, small]

    first = parts(0)
    assert all(torch.equal(a, b) for a, b in zip(first, parts(0), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, parts(1), strict=True))


def test_bad_input_is_refused_by_name(parent, data, modules, conv_parent):
    with pytest.raises(ValueError, match=r"kind must be one of \['dense', 'magnitude', 'random'\], got 'largest'"):
        fixed.fixed_masks(parent, "largest", 0.3, 0, CLASSES)
    with pytest.raises(ValueError, match="k must be in"):
        fixed.fixed_masks(parent, "magnitude", 30, 0, CLASSES)
    with pytest.raises(ValueError, match="masks: must be the same for all classes"):
        fixed.grafted(parent, modules.masks, data, RECIPE, 0)
    with pytest.raises(ValueError, match="no module for class 7"):
        SharedMask(RECIPE).decompose(parent, data, seed=0, classes=(0, 7))
    with pytest.raises(ValueError, match="parent: must return logits"):
        SharedMask(RECIPE).decompose(parent[:-1], data, seed=0, classes=CLASSES)
    with pytest.raises(TypeError, match="parent must be a Sequential that ends in a linear layer"):
        controls.new_head(nn.Sequential(*parent, nn.ReLU()), data, RECIPE, 0, CLASSES)
    with pytest.raises(ValueError, match="weights must be at least 1"):
        controls.small_network(data, 1, 0, RECIPE, 0, CLASSES)


def by_hand(parent, same):
    """Three modules that keep the first two edges of the first layer, or two each of their own; one of the second."""
    first, second = torch.zeros(3, 6, 16, dtype=torch.bool), torch.zeros(3, 3, 6, dtype=torch.bool)
    for c in range(3):
        at = 0 if same else c
        first[c, 0, at : at + 2] = True
    second[:, 0, 0] = True
    masks = modlib.MaskSet({"1.weight": first, "3.weight": second}, CLASSES)
    return Modules(parent, masks, torch.zeros(3, 2, 3).double(), torch.zeros(3, 2).double())


def test_costs_by_hand(parent):
    # 114 weights, 9 biases; grafting layers: 18 weights and 6 biases; unions of 2 + 1 and of 4 + 1 edges
    one, many = comparison.cost(by_hand(parent, True)), comparison.cost(by_hand(parent, False))
    assert (one["passes"], many["passes"]) == (1, 3)
    assert (one["multiply_adds"], many["multiply_adds"]) == (3 + 18, 3 * 3 + 18)
    assert one["bytes"] == 4 * (3 + 9 + 24) + 114 // 8
    assert many["bytes"] == 4 * (5 + 9 + 24) + 114 // 8 + 3 * 5 // 8
    assert comparison.cost(parent) == {"bytes": 4 * 123, "multiply_adds": 114, "passes": 1}


def test_settings_are_chosen_on_held_out_images():
    def rows(held_out, test, name="accuracy"):
        return [{"split": "test", name: test}, {"split": "held_out", name: held_out}]

    assert comparison.best_of([rows(0.8, 0.9), rows(0.9, 0.7), rows(0.9, 0.8)]) == 1
    assert comparison.best_of([rows(0.8, 0.9, "chosen_pairs_accuracy"), rows(0.7, 1.0, "chosen_pairs_accuracy")]) == 0
    untuned = ("parent, restricted", "module stemming, without vote loss")
    assert {len(method.settings) for name, method in comparison.METHODS.items() if name not in untuned} == {3}


def test_fitted_thresholds_by_hand():
    odds = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    truth = torch.tensor([[[False], [True], [False], [True]], [[True]] * 4, [[False]] * 4])
    cuts = [float(single_class.thresholds(odds, t)[0]) for t in truth]
    assert cuts == [0.5, -0.5, 3.5]


def test_masked_logits_are_those_of_the_masked_network(modules, inputs, masked_copy):
    for row, logits in enumerate(single_class.masked_logits(modules, inputs)):
        torch.testing.assert_close(logits, masked_copy(modules, row)(inputs))


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """Seven methods need a data set with a name in the store, and float32 parents: a part of the digits."""
    data = modlib.zoo.datasets.load("digits")
    small = replace(data, train_images=data.train_images[:200], train_labels=data.train_labels[:200])
    recipe = recipes.ours(k=0.1, alpha=4.0, vote=0.9, epochs=1)
    store = Store(tmp_path_factory.mktemp("results"))
    return comparison.Setup(small, store, "fc1", 1, recipe, ((0, 1), (3, 8)))


@pytest.mark.parametrize("name", comparison.METHODS)
def test_every_method_has_its_records(setup, name):
    records = comparison.compare([name], setup, [0, 1])
    settings = comparison.METHODS[name].settings
    assert len(records) == len(settings) + 1
    for record in records:
        assert [row["split"] for row in record.rows] == ["held_out", "test"]
        for row in record.rows:
            assert ("accuracy" in row) != comparison.METHODS[name].for_pairs
            assert row["method"] == name
            assert 0 <= row["chosen_pairs_accuracy"] <= 1
            assert row["bytes"] > 0
    again = comparison.compare([name], setup, [0, 1])
    assert [r.provenance for r in again] == [r.provenance for r in records], "what is there is read"


def test_a_mask_as_large_as_the_union_has_its_size_in_every_layer(setup):
    recipe = replace(setup.recipe, k={"default": 0.05, "3.weight": 0.4}, alpha=0.0)
    ours = replace(setup, recipe=recipe, pairs=(), modules={})
    record = comparison.run("shared mask, as large as the union", ours, {"lr": 0.1}, 0)
    union = comparison.stemming(ours, recipe, 0).masks.remaining_by_layer()
    assert union["3.weight"] > 0.4 > 0.1 > union["1.weight"] > 0.05, "without stemming every union is larger than k"
    made = comparison.METHODS["shared mask, as large as the union"].make(ours, recipe, 0, ours.classes)
    assert made.masks.remaining_by_layer([0]) == union
    assert made.masks.mean_jaccard() == 1.0
    row = record.rows[1]
    assert row["remaining_parameters_all"] == pytest.approx(made.remaining(), abs=1e-6)
    assert (row["k"], row["k_by_layer"]) == (0.05, '{"3.weight": 0.4}')
    assert "chosen_pairs_accuracy" not in row


def test_a_mask_that_keeps_half_of_the_output_layer_holds_a_share_of_all_edges(setup):
    recipe = replace(setup.recipe, k=0.15, alpha=0.0)
    made = comparison.METHODS[comparison.STRONG].make(setup, recipe, 0, setup.classes)
    hidden, output = made.masks.remaining_by_layer([0]).values()
    assert output == 0.5
    assert hidden < made.remaining() == pytest.approx(0.15, abs=1e-3)
    with pytest.raises(ValueError, match=r"k: 0\.01 of the edges is less than half of the last layer"):
        comparison.METHODS[comparison.STRONG].make(setup, replace(recipe, k=0.01), 0, setup.classes)


def test_time_and_single_class_have_their_records(setup):
    kinds = [row["kind"] for row in comparison.time_in_use(setup, 0, 50, 2).rows]
    assert {"parent", "one mask", "a mask for every class", "small network", "recomposing a pair"} <= set(kinds)
    rows = single_class.single_class(setup, 0, recipes.ours(k=0.1, alpha=1.0, epochs=1)).rows
    assert len(rows) == 16
    fitted = {r["reading"]: r["accuracies"] for r in rows if r["split"] == "held_out"}
    pairs = zip(fitted["parent, threshold fitted"], fitted["parent, p > 1/2"], strict=True)
    assert all(a >= b for a, b in pairs), "a threshold fitted on these images is at least as good on them"


def test_controls_weigh_both_answers_alike_where_the_recipe_does(parent, data):
    few = replace(data, train_labels=(data.train_labels > 1) * 2).only([0, 2])
    plain, balanced = (grafted(parent, few, "magnitude", balanced=b).grafting_bias for b in (False, True))
    assert not torch.equal(plain, balanced)
    with pytest.raises(ValueError, match="recipe: this control takes images as they are, and float32"):
        grafted(parent, data, "magnitude", precision="bfloat16")


def test_what_a_control_cannot_be_trained_for_is_said(data):
    with pytest.raises(ValueError, match=r"classes: \[2\]; a network that is trained from scratch"):
        controls.small_network(data, 1, 100, RECIPE, 0, [2])
    without = replace(data, train_labels=data.train_labels.clamp(max=1))
    with pytest.raises(ValueError, match=r"classes: there are no training images of \[2\]"):
        without.only([2])


def test_a_setting_that_diverges_is_not_chosen():
    rows = [{"split": "held_out", "failed": "the scores diverged"}], [{"split": "held_out", "accuracy": 0.1}]
    assert comparison.best_of(rows) == 1
    assert comparison.best_of(rows[::-1]) == 0
