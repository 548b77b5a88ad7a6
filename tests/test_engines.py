"""The engines: one step worked out by plain autograd, and the two against each other."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

import modlib
from modlib import masking, objective
from modlib.cotraining import Recipe, Run, cotrain_population
from modlib.engines import make_engine
from modlib.engines.update import CompiledUpdate, PlainUpdate
from modlib.engines.vectorised import fully_connected_layers
from modlib.parent import with_logits

CPU = torch.device("cpu")
ENGINES = ("vectorised", "sequential", "modulewise")
STEP = Recipe(
    k=0.3, alpha=2.0, epochs=4, batch_size=80, lr=0.5, grafting_lr=0.25, momentum=0.0, weight_decay=0.0,
    reduction="layer", share_init=False, norm="frozen",
)  # fmt: skip


def with_background(data):
    """The toy data set with 20 images of no class."""
    return replace(data, background_images=255 - data.train_images[:20])


def one_step_by_hand(before, data, recipe, average, factor):
    """Scores, grafting weights and biases of three modules after one step of SGD, from plain masked networks."""
    batch = data.training().batch(torch.arange(len(data.training().labels)))
    inputs, labels = batch.inputs.double(), batch.labels
    ranked = {n: s.abs() if recipe.scores == "absolute" else s for n, s in before.scores.items()}
    nets, grafts, odds, loss = [], [], [], 0.0
    for c in range(3):
        net = copy.deepcopy(before.parent)
        for name, s in ranked.items():
            weight = net.get_parameter(name)
            keep = max(1, int(recipe.k * weight.numel() + 0.5))
            weight.mul_(masking.top_k_mask(s[c].flatten(), keep).view_as(weight)).requires_grad_()
        graft = [before.grafting_weight[c].clone().requires_grad_(), before.grafting_bias[c].clone().requires_grad_()]
        out, mine = linear(net(inputs), *graft), (labels == c).long()
        share = float(mine.float().mean())  # frequencies are float32
        balance = torch.tensor([0.5 / (1 - share), 0.5 / share], dtype=torch.float64) if recipe.balanced else None
        loss = loss + (1 - recipe.vote) * cross_entropy(out, mine, balance, reduction="none").mean()
        nets, grafts, odds = [*nets, net], [*grafts, graft], [*odds, out[:, 1] - out[:, 0]]
    votes = cross_entropy(torch.stack(odds, 1), labels, ignore_index=-1, reduction="sum") / len(labels)
    (loss + recipe.vote * 3 * votes).backward()
    scores = {}
    for name, s in before.scores.items():
        straight = torch.stack([net.get_parameter(name).grad for net in nets]) * before.parent.get_parameter(name)
        difference = ranked[name] - average[name][0]
        gradient = straight + factor[name] * (difference.sign() if recipe.p == 1 else 2 * difference)
        scores[name] = s - recipe.lr * (gradient * s.sign() if recipe.scores == "absolute" else gradient)
    return scores, [torch.stack([g[j] - 0.25 * g[j].grad for g in grafts]) for j in (0, 1)]


@pytest.mark.parametrize(
    "changes",
    [{}, {"scores": "absolute", "p": 2}, {"vote": 0.25, "scores": "absolute"}, {"balanced": True, "vote": 0.5, "p": 2}],
    ids=str,
)
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("vectorised", "parent"),
        *((engine, kind) for engine in ENGINES[1:] for kind in ("parent", "tied_parent", "conv_parent")),
    ],
)
def test_one_step_by_hand(engine, kind, background, changes, data, request):
    """S - lr (dL/dW_eff * W + stemming), dL/dW_eff from a network whose weights are masked in place."""
    recipe, data = replace(STEP, **changes), with_background(data) if background else data
    worker = make_engine(engine, [Run(request.getfixturevalue(kind), recipe, seed=0)], (0, 1, 2), data, CPU)
    (before,) = worker.modules()
    average = {n: r.mean(1, keepdim=True) + 0.01 for n, r in worker.ranked().items()}  # a pull everywhere
    factor = {n: 2.0 / (len(average) * s[0].numel()) for n, s in before.scores.items()}  # alpha / (L n_l)
    scores, grafts = one_step_by_hand(before, data, recipe, average, factor)
    worker.train_epoch(torch.arange(80 if background else 60)[None], 0, average)
    (after,) = worker.modules()
    for name in scores:
        torch.testing.assert_close(after.scores[name], scores[name], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close([after.grafting_weight, after.grafting_bias], grafts, rtol=1e-10, atol=1e-13)


def assert_equal_masks(a, b):
    assert a.classes == b.classes
    torch.testing.assert_close(dict(a.masks.masks), dict(b.masks.masks))
    torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-12)
    torch.testing.assert_close(a.grafting_weight, b.grafting_weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(a.grafting_bias, b.grafting_bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vote": 0.9, "alpha": 4.0},
        {"vote": 1.0, "scores": "absolute"},
        {"p": 2, "reduction": "layer"},
        {"balanced": True, "reduction": "scale_free", "alpha": 0.1, "schedule": "cosine"},
        {"method": "base", "base_class": 2},
        {"init": "magnitude", "grafting_init": "own_logit", "classes": [2, 0], "vote": 0.5},
        {"allocation": "lamp", "k": 0.2},
        {"shared_epochs": 2, "share_init": True, "lr": 1.0, "alpha": 0.1},
        {"k": {"default": 0.1, "3.weight": 0.6}, "weight_decay": 0.1, "momentum": 0.0, "grafting_lr": 0.3},
    ],
    ids=str,
)
def test_all_engines_give_the_same_masks(changes, parent, decompose):
    """With a vote loss, the modulewise engine looks at the others as they were: it has tests of its own."""
    settings = {"epochs": 4, "share_init": False, "batch_size": 7} | changes
    alike = ENGINES if settings.get("vote", 0) == 0 else ENGINES[:2]
    a, *others = (decompose(parent, engine=engine, **settings) for engine in alike)
    for b in others:
        assert_equal_masks(a, b)
    first = decompose(parent, **settings | {"lr": 1e-30, "alpha": 0.0})
    assert any(not torch.equal(first.masks.masks[n], m) for n, m in a.masks.masks.items()), "nothing was learned"


@pytest.mark.parametrize(
    "changes", [{}, {"vote": 0.5, "balanced": True}, {"shared_epochs": 1, "share_init": True}], ids=str
)
@pytest.mark.parametrize("engine", ENGINES)
def test_images_of_no_class_are_those_of_a_class_that_gets_no_module(engine, changes, parent, data, decompose, same):
    """To the last bit: negatives for every module, without a part in the vote; drawn, counted and looked up alike."""
    order = data.train_labels.sort(stable=True)
    labelled = replace(data, train_images=data.train_images[order.indices], train_labels=order.values)
    images, labels = labelled.train_images, labelled.train_labels
    unlabelled = replace(
        data, train_images=images[labels < 2], train_labels=labels[labels < 2], background_images=images[labels == 2]
    )
    settings = {"engine": engine, "batch_size": 7, "epochs": 3, "images_per_epoch": 50, "share_init": False} | changes
    with pytest.warns(UserWarning, match=r"classes \[2\] have no training images"):
        a = decompose(parent, data=unlabelled, **settings)
    b = decompose(parent, data=labelled, classes=[0, 1], **settings)
    assert same(a, b)
    assert unlabelled.sha256() != replace(unlabelled, background_images=None).sha256()
    assert "40 train, 12 held_out, 18 test, 20 of no class" in repr(unlabelled)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_module_keeps_what_the_allocation_says(engine, parent, decompose):
    made = decompose(parent, engine=engine, allocation="lamp", k=0.2, epochs=2)
    kept = masking.kept_edges(0.2, masking.maskable_parameters(parent), "lamp")
    assert {name: mask.flatten(1).sum(1).tolist() for name, mask in made.masks.masks.items()} == {
        name: [count] * 3 for name, count in kept.items()
    }
    assert kept != masking.keep_counts(0.2, masking.sizes(masking.maskable_parameters(parent)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "frozen", "scores": "absolute", "p": 2, "balanced": True},
        {"shared_epochs": 2, "share_init": True, "alpha": 5.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["tied_parent", "conv_parent"])
def test_engines_for_any_network_give_the_same_masks(kind, changes, request, decompose):
    net = request.getfixturevalue(kind)
    settings = {"epochs": 3, "share_init": False, "batch_size": 7, "images_per_epoch": 36} | changes
    a, b = (decompose(net, engine=engine, **settings) for engine in ENGINES[1:])
    assert_equal_masks(a, b)
    torch.testing.assert_close(dict(a.statistics), dict(b.statistics))


def test_all_engines_on_layers_of_many_kinds(decompose):
    """Nested parts, no bias, dropout; a hidden layer of 4,800 weights, too many for direct selection."""
    hidden = nn.Sequential(nn.Linear(16, 300, bias=False), nn.ReLU(), nn.Dropout(0.9))
    parent = nn.Sequential(nn.Flatten(), hidden, nn.Identity(), nn.Linear(300, 3)).double()
    a, *others = (decompose(parent, engine=engine, epochs=3, share_init=False) for engine in ENGINES)
    for b in others:
        assert_equal_masks(a, b)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_population_equals_its_runs_alone(engine, data):
    recipe = Recipe(k=0.3, alpha=1.0, epochs=3, batch_size=16, vote=0.5)
    nets = [modlib.zoo.parents.fc(1, 16, 6, 3, seed=seed).double() for seed in (1, 2)]
    runs = [Run(nets[0], recipe, 4), Run(nets[1], replace(recipe, k=0.1, alpha=9.0, share_init=False), 5)]
    seen = []
    options = {"engine": engine, "device": "cpu"}
    together = cotrain_population(runs, data, callback=lambda run, epoch, _: seen.append((run, epoch)), **options)
    assert seen == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]
    for run, modules in zip(runs, together, strict=True):
        assert_equal_masks(modules, cotrain_population([run], data, **options)[0])
        assert (modules.metadata["seed"], modules.metadata["recipe"]["k"]) == (run.seed, run.recipe.k)


def test_which_engine_is_taken(parent, conv_parent, data):
    def made(name, net, **options):
        return type(make_engine(name, [Run(net, STEP, 0, **options)], (0,), data, CPU)).__name__

    assert made("auto", parent) == "VectorisedEngine"
    assert made("sequential", parent) == "SequentialEngine"
    assert made("auto", conv_parent) == made("modulewise", parent) == "ModulewiseEngine"
    assert made("auto", parent, policy=lambda owner, name: name == "weight") == "ModulewiseEngine"
    assert made("auto", with_logits(parent, lambda output: -output)) == "ModulewiseEngine"
    with pytest.raises(ValueError, match="engine: 'vectorised' needs a fully connected parent"):
        made("vectorised", conv_parent)


def test_which_parents_are_fully_connected(parent):
    assert [name for name, _ in fully_connected_layers(parent)] == ["1", "3"]
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    others = [[a, b], [a, nn.Tanh(), b], [a, nn.ReLU()], [nn.ReLU(), a], [a, nn.ReLU(), a], [nn.Flatten()]]
    assert [fully_connected_layers(nn.Sequential(*layers)) for layers in others] == [None] * len(others)


def test_a_sequence_that_calls_a_layer_and_a_relu_twice_is_not_vectorised():
    relu, twice = nn.ReLU(), nn.Linear(3, 3)
    assert fully_connected_layers(nn.Sequential(nn.Linear(16, 3), relu, twice, relu, twice)) is None


def test_a_sequence_with_a_forward_of_its_own_is_not_vectorised():
    class Negated(nn.Sequential):
        def forward(self, inputs):
            return -super().forward(inputs)

    assert fully_connected_layers(Negated(nn.Flatten(), nn.Linear(16, 3))) is None


@pytest.mark.parametrize("engine", ENGINES[1:])
@pytest.mark.parametrize("vote", [0.0, 0.5])
def test_batch_normalisation_has_statistics_of_its_own(engine, vote, conv_parent, data, decompose, masked_copy):
    """Running mean = 0.9 of the parent's + 0.1 of the batch's, under each module's mask; once, with a vote too."""
    settings = {"epochs": 1, "batch_size": 60, "lr": 1e-30, "share_init": False, "vote": vote, "engine": engine}
    done, frozen = (decompose(conv_parent, norm=norm, **settings) for norm in ("batch", "frozen"))
    for row in range(3):
        net = masked_copy(frozen, row).train()
        net[:7](data.inputs(data.train_images).double())
        for name, values in done.statistics.items():
            torch.testing.assert_close(values[row], net.state_dict()[name])
            assert torch.equal(done.parent.state_dict()[name], conv_parent.state_dict()[name])
    assert not torch.equal(done.statistics["4.running_mean"][0], done.statistics["4.running_mean"][1])
    assert done.extra_parameters() == {"grafting": 8, "statistics": 18}  # 2 * 3 + 2; 2 layers of 4 + 4 + a count
    assert frozen.statistics == {}


@pytest.mark.parametrize("vote", [0.0, 0.3, 1.0])
def test_gradient_of_the_objective(vote):
    """The closed form is what autograd finds, for images of classes that have no module too."""
    draw = torch.Generator().manual_seed(0)
    odds = torch.randn(2, 3, 7, generator=draw, dtype=torch.float64, requires_grad=True)
    labels, classes = torch.randint(0, 5, (2, 7), generator=draw), torch.tensor([4, 0, 2])
    weights = torch.rand(2, 3, 7, generator=draw, dtype=torch.float64)
    for w in (None, weights):
        each = [objective.objective(odds[r], labels[r], classes, vote, None if w is None else w[r]) for r in (0, 1)]
        (expected,) = torch.autograd.grad(sum(each), odds)
        torch.testing.assert_close(objective.gradient(odds.detach(), labels, classes, vote, w), expected)


@pytest.mark.parametrize("scores", ["positive", "absolute"])
@pytest.mark.parametrize("p", [1, 2])
def test_compiled_updates_are_the_plain_ones(p, scores):
    """Twenty steps of two runs with three modules, on one thread and on two."""
    recipe = Recipe(k=0.2, alpha=1.0, epochs=1, p=p, scores=scores, weight_decay=0.01)
    draw = torch.Generator().manual_seed(0)
    start, weight, average = (torch.randn(2, c, 13, 17, generator=draw, dtype=torch.float64).abs() for c in (3, 1, 1))
    factor, keep = torch.tensor([0.1, 0.0], dtype=torch.float64)[:, None, None, None], torch.full((6,), 44)
    made = [kind(start.clone(), weight, keep, recipe) for kind in (PlainUpdate, CompiledUpdate, CompiledUpdate)]
    before = torch.get_num_threads()
    for step in range(20):
        gradient = torch.randn(start.shape, generator=draw, dtype=torch.float64)
        for update, threads in zip(made, (1, 1, 2), strict=True):
            torch.set_num_threads(threads)
            update.step(gradient.clone(), average if step else None, factor, 0.03)
    torch.set_num_threads(before)
    for update in made:
        assert int(update.mask().sum()) == 6 * 44
        torch.testing.assert_close(update.scores, made[0].scores, rtol=0, atol=1e-12)
        torch.testing.assert_close(update.masked, weight * update.mask(), rtol=0, atol=0)
    assert not torch.equal(made[0].mask(), PlainUpdate(start, weight, keep, recipe).mask())


@pytest.mark.filterwarnings("ignore:parent. 2 masked weights are in half precision")
def test_parents_in_half_precision_are_decomposed(data):
    """The compiled loops take float32 and float64; torch does the rest."""
    net = modlib.zoo.parents.fc(1, 16, 6, 3, seed=1).bfloat16()
    recipe = Recipe(k=0.3, alpha=1.0, epochs=2, batch_size=20, share_init=False)
    for engine in ENGINES:
        (done,) = cotrain_population([Run(net, recipe, 0)], data, engine=engine, device="cpu")
        assert done.scores["1.weight"].dtype == torch.bfloat16
        assert done.masks.masks["1.weight"].flatten(1).sum(1).tolist() == [29, 29, 29]  # of 96
