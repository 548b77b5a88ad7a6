"""Algorithm 1: its objective by hand, and what must hold of every decomposition."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import modlib
from modlib import cotraining, masking
from modlib.cotraining import Recipe, Run, cotrain_population
from modlib.engines import checkpoints
from modlib.objective import balancing_weights, class_frequency, objective
from modlib.seeds import generator

ENGINES = ("vectorised", "sequential", "modulewise")
# two modules, two images: log-odds whose sigmoids are 3/4, 1/2 (class 0) and 1/4, 9/10 (class 1); labels 0, 1
ODDS = torch.tensor([[math.log(3), 0.0], [-math.log(3), math.log(9)]], dtype=torch.float64)
LABELS, CLASSES = torch.tensor([0, 1]), torch.tensor([0, 1])
ENTROPY = (-math.log(3 / 4) - math.log(1 / 2)) / 2 + (-math.log(3 / 4) - math.log(9 / 10)) / 2
VOTE = (-math.log(9 / 10) - math.log(9 / 10)) / 2  # exp(d): 3 against 1/3, and 9 against 1


@pytest.mark.parametrize("vote", [0.0, 0.25, 1.0])
def test_objective_by_hand(vote):
    found = objective(ODDS, LABELS, CLASSES, vote).item()
    assert found == pytest.approx((1 - vote) * ENTROPY + vote * 2 * VOTE)


def test_vote_loss_takes_images_of_its_classes_only():
    odds = torch.tensor([[0.0, 5.0], [math.log(3), 7.0]])  # softmax of the first image 1/4, 3/4
    found = objective(odds, torch.tensor([6, 9]), torch.tensor([2, 6]), 1.0)  # class 9 has no module
    assert found.item() == pytest.approx(2 * -math.log(3 / 4) / 2)


def test_balancing_weights_by_hand():
    frequency = class_frequency(torch.tensor([0, 0, 0, 1]), 3)
    assert frequency.tolist() == [0.75, 0.25, 0.0]
    weights = balancing_weights(torch.tensor([0, 1]), torch.tensor([1, 0]), frequency)
    assert weights.tolist() == [pytest.approx([2 / 3, 2.0]), pytest.approx([2 / 3, 2.0])]
    loss = objective(ODDS, LABELS, CLASSES, 0.0, torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64))
    assert loss.item() == pytest.approx(4 * -math.log(3 / 4) / 2)


def test_order_and_rates():
    orders = [cotraining.epoch_order(50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(order.sort().values.tolist() == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    constant, half = Recipe(k=0.1, alpha=1.0, epochs=1, lr=0.4), math.sqrt(0.5)
    cosine = replace(constant, schedule="cosine", grafting_lr=0.3)
    assert [constant.rate_factor(step, 4) for step in range(4)] == [1.0] * 4
    assert [cosine.rate_factor(step, 4) for step in range(4)] == pytest.approx([1, (1 + half) / 2, 0.5, (1 - half) / 2])
    assert (constant.grafting_rate, cosine.grafting_rate) == (pytest.approx(0.04), 0.3)


def test_the_published_recipe():
    paper = cotraining.published(alpha=0.1)
    assert (paper.k, paper.alpha, paper.epochs, paper.batch_size, paper.vote) == (0.10, 0.1, 50, 32, 0.0)
    assert (paper.lr, paper.momentum, paper.weight_decay, paper.schedule) == (0.1, 0.9, 5e-4, "constant")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("changes", [{}, {"share_init": False, "scores": "absolute"}, {"init": "magnitude"}], ids=str)
def test_without_a_rate_everything_stays_as_initial(engine, changes, parent, decompose):
    done = decompose(parent, engine=engine, lr=1e-30, grafting_lr=0.0, seed=3, alpha=9.0, vote=0.5, **changes)
    recipe = Recipe(k=0.3, alpha=0.0, epochs=1, **changes)
    for row in range(3):
        for name, keep in (("1.weight", 29), ("3.weight", 5)):  # 0.3 of 96 and of 18
            purpose = ("scores", name) if recipe.share_init else ("scores", row, name)
            weight = parent.get_parameter(name)
            drawn = masking.initial_scores(weight, recipe.init, recipe.scores, generator(3, *purpose))
            assert torch.equal(done.scores[name][row], drawn)
            expected = masking.top_k_mask(masking.ranked(drawn, recipe.scores).flatten(), keep)
            assert torch.equal(done.masks.masks[name][row].flatten(), expected)
        bound = 1 / math.sqrt(3)
        drawn = torch.empty(2, 3).double().uniform_(-bound, bound, generator=generator(3, "grafting", row))
        assert torch.equal(done.grafting_weight[row], drawn)
    assert (done.masks.mean_jaccard() == 1.0) == recipe.share_init


@pytest.mark.parametrize("engine", ENGINES)
def test_no_stemming_in_the_first_epoch(engine, parent, decompose, same):
    settings = {"engine": engine, "share_init": False}
    assert same(*(decompose(parent, alpha=alpha, epochs=1, **settings) for alpha in (0.0, 1e6)))
    assert not same(*(decompose(parent, alpha=alpha, epochs=2, **settings) for alpha in (0.0, 100.0)))


def test_stemming_pulls_modules_together(parent, decompose):
    def spread(alpha, p):
        done = decompose(parent, alpha=alpha, p=p, share_init=False, momentum=0.0)
        return (done.scores["1.weight"] - done.scores["1.weight"].mean(0)).abs().mean().item()

    # the second epoch has four steps of lr * 2 * alpha / 114 * (S - S_avg): 0.1 * 2 * 114 / 114 = a fifth each
    assert spread(114.0, 2) < 0.6 * spread(0.0, 2)
    assert spread(20.0, 1) < spread(0.0, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_seed_gives_the_same_result(engine, parent, decompose, same):
    state = torch.random.get_rng_state()
    first = decompose(parent, engine=engine, seed=5, vote=0.5)
    assert torch.equal(state, torch.random.get_rng_state()), "draws must come from generators of their own"
    torch.rand(7)
    assert same(first, decompose(parent, engine=engine, seed=5, vote=0.5))
    assert not same(first, decompose(parent, engine=engine, seed=6, vote=0.5))
    assert not torch.equal(torch.rand(3, generator=generator(0, "a")), torch.rand(3, generator=generator(0, "b")))


@pytest.mark.parametrize(
    ("kind", "engine"), [("parent", e) for e in ENGINES] + [("conv_parent", e) for e in ENGINES[1:]]
)
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_the_parent_is_left_as_it_was(kind, engine, norm, request, decompose):
    parent = request.getfixturevalue(kind).train()
    list(parent.children())[1].eval()  # a mixture of modes, as fine-tuning leaves it
    next(parent.parameters()).requires_grad_(False)
    modes, wants = [p.training for p in parent.modules()], [p.requires_grad for p in parent.parameters()]
    before = copy.deepcopy(parent.state_dict())
    done = decompose(parent, engine=engine, norm=norm, vote=0.5)
    assert [p.training for p in parent.modules()] == modes
    assert [p.requires_grad for p in parent.parameters()] == wants
    assert all(p.grad is None for p in parent.parameters())
    for state in (parent.state_dict(), done.parent.state_dict()):
        assert state.keys() == before.keys()
        assert all(torch.equal(state[name], before[name]) for name in before)
    assert not any(p.training for p in done.parent.modules())
    assert not any(p.requires_grad for p in done.parent.parameters())


class Stopped(Exception):
    pass


def stop_in(runs, data, stop_at, **options):
    def stop(run, epoch, modules):
        if epoch == stop_at:
            raise Stopped

    with pytest.raises(Stopped):
        cotrain_population(runs, data, device="cpu", callback=stop, **options)


@pytest.mark.parametrize("stop_at", [1, 3])
@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        *(("parent", engine) for engine in ENGINES),
        ("wide", "vectorised"),
        *(("conv_parent", engine) for engine in ENGINES[1:]),
    ],
)
def test_stopping_and_going_on_changes_nothing(kind, engine, stop_at, request, data, tmp_path, same, monkeypatch):
    monkeypatch.setattr(checkpoints.Pace, "is_due", lambda self: True)
    # wide: 4,800 weights in float32, so that the fast selection starts anew in the middle
    net = modlib.zoo.parents.fc(1, 16, 300, 3) if kind == "wide" else request.getfixturevalue(kind)
    recipe = Recipe(k=0.3, alpha=5.0, epochs=3, batch_size=16, vote=0.5, schedule="cosine", share_init=False)
    runs = [Run(net, recipe, seed=1), Run(copy.deepcopy(net), replace(recipe, k=0.1), seed=2)]
    checkpoint, seen = tmp_path / "run.pt", []
    stop_in(runs, data, stop_at, engine=engine, checkpoint=checkpoint)
    assert checkpoint.exists() == (stop_at > 1)
    options = {"engine": engine, "device": "cpu", "callback": lambda run, epoch, modules: seen.append(epoch)}
    resumed = cotrain_population(runs, data, checkpoint=checkpoint, **options)
    assert sorted(set(seen)) == list(range(stop_at, 4)), "epochs that were done must not be done again"
    assert checkpoint.exists(), "the caller removes it"
    monkeypatch.setattr(cotraining, "epoch_order", None)  # what is done is not done again
    again = cotrain_population(runs, data, checkpoint=checkpoint, engine=engine, device="cpu")
    monkeypatch.undo()
    checkpoints.remove(checkpoint)
    assert not list(tmp_path.iterdir())
    whole = cotrain_population(runs, data, **options)
    assert all(same(a, b) and same(c, b) for a, b, c in zip(resumed, whole, again, strict=True))


def refused(other, parent, data, path):
    recipe = Recipe(k=0.3, alpha=1.0, epochs=3)
    stop_in([Run(parent, recipe, 0)], data, 2, checkpoint=path)
    with pytest.raises(ValueError, match=r"checkpoint: .*run\.pt is of another run"):
        cotrain_population([other(recipe)], data, device="cpu", checkpoint=path)


def test_a_checkpoint_of_another_run_is_refused(parent, data, tmp_path):
    refused(lambda recipe: Run(parent, replace(recipe, alpha=2.0), 0), parent, data, tmp_path / "run.pt")
    refused(lambda recipe: Run(parent, recipe, 1), parent, data, tmp_path / "run.pt")


def test_a_checkpoint_of_another_parent_is_refused(parent, data, tmp_path):
    other = modlib.zoo.parents.fc(1, 16, 6, 3, seed=9).double()
    refused(lambda recipe: Run(other, recipe, 0), parent, data, tmp_path / "run.pt")


@pytest.mark.parametrize("engine", ENGINES)
def test_method_a(engine, parent, decompose):
    """The others are pulled to the base module's final scores from their first epoch on; alpha 0 pulls nobody."""
    settings = {"engine": engine, "epochs": 1, "share_init": False}
    loose = decompose(parent, alpha=0.0, **settings).scores
    free = decompose(parent, alpha=0.0, method="base", base_class=1, **settings)
    assert free.classes == (0, 1, 2)
    torch.testing.assert_close(free.scores, loose, rtol=0, atol=1e-12)
    seen = []
    options = {"method": "base", "base_class": 1, "callback": lambda epoch, modules: seen.append(modules.classes)}
    for name, scores in decompose(parent, alpha=50.0, **options, **settings).scores.items():
        torch.testing.assert_close(scores[1], loose[name][1], rtol=0, atol=1e-12)
        assert (scores - scores[1]).abs().mean() < 0.8 * (loose[name] - scores[1]).abs().mean()
    assert seen == [(0, 1, 2)]
    assert decompose(parent, method="base", base_class=2, classes=[2]).classes == (2,)


@pytest.mark.parametrize("engine", ENGINES)
def test_method_a_trains_its_base_without_stemming(engine, parent, decompose):
    alone = decompose(parent, engine=engine, classes=[1], alpha=0.0)
    done = decompose(parent, engine=engine, method="base", base_class=1, alpha=50.0)
    torch.testing.assert_close(done.scores["1.weight"][1], alone.scores["1.weight"][0], rtol=0, atol=1e-12)


def test_callback_sees_every_epoch(parent, decompose, same):
    seen = []
    last = decompose(parent, epochs=3, callback=lambda epoch, modules: seen.append((epoch, modules)))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert same(seen[-1][1], last)
    assert not same(seen[0][1], last), "what was seen must stay as it was"


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_subset_of_the_classes_in_any_order(norm, conv_parent, decompose, same):
    """Without stemming and vote a module does not know of the others."""
    every = decompose(conv_parent, alpha=0.0, norm=norm)
    assert same(every.select([2, 0]), decompose(conv_parent, alpha=0.0, norm=norm, classes=[2, 0]))


def test_every_layer_keeps_its_count(tied_parent, decompose):
    done = decompose(tied_parent, k={"default": 0.1, "last.weight": 0.5}, share_init=False)
    counts = {name: mask.flatten(1).sum(1).tolist() for name, mask in done.masks.masks.items()}
    assert counts == {"first.weight": [8] * 3, "middle.weight": [3] * 3, "last.weight": [8] * 3}  # of 80, 25, 15


def test_diverging_scores_are_reported(parent, decompose):
    with pytest.raises(FloatingPointError, match=r"the scores of .*\.weight diverged in epoch 1: lower lr or alpha"):
        decompose(parent, lr=1e300, weight_decay=1e10)


def test_writing_checkpoints_takes_a_twentieth_of_the_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: now[0])
    pace = checkpoints.Pace()
    assert pace.is_due()
    with pace.writing():
        now[0] += 2.0
    now[0] += 37.0
    assert not pace.is_due()
    now[0] += 1.5
    assert pace.is_due()


def test_only_the_checkpoints_of_a_population_are_removed(tmp_path):
    mine = ["run[1].pt", "run[1]-shared0.pt", "run[1]-epoch3-0of1.pt"]
    others = ["run[1]-shared30x.pt", "run[1]-shared.pt", "run1-shared0.pt", "run.pt", "run-shared0.pt"]
    for name in (*mine, *others):
        (tmp_path / name).write_bytes(b"")
    checkpoints.remove(tmp_path / "run[1].pt")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(others)


def test_a_checkpoint_of_another_run_is_refused_before_the_shared_epochs(parent, data, tmp_path):
    path, recipe = tmp_path / "run.pt", Recipe(k=0.3, alpha=1.0, epochs=3)
    stop_in([Run(parent, recipe, 0)], data, 2, checkpoint=path)
    with pytest.raises(ValueError, match=r"checkpoint: .*run\.pt is of another run"):
        cotrain_population([Run(parent, replace(recipe, shared_epochs=2), 0)], data, device="cpu", checkpoint=path)
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]


def test_a_random_preprocessing_goes_on_from_its_checkpoint(parent, data, tmp_path):
    noisy = replace(data, preprocess=lambda images: (images / 255.0 + torch.randn(images.shape)).double())
    runs, path = [Run(parent, Recipe(k=0.3, alpha=1.0, epochs=3), 0)], tmp_path / "run.pt"
    stop_in(runs, noisy, 2, checkpoint=path)
    cotrain_population(runs, noisy, device="cpu", checkpoint=path)


def test_the_last_epoch_is_saved(parent, data, tmp_path):
    runs, path = [Run(parent, Recipe(k=0.3, alpha=1.0, epochs=9), 0)], tmp_path / "run.pt"
    cotrain_population(runs, data, device="cpu", checkpoint=path)
    assert torch.load(path, weights_only=True)["epoch"] == 9


def test_classes_are_the_same_as_list_tuple_or_array(parent, data):
    recipe = Recipe(k=0.3, alpha=1.0, epochs=1)
    runs = [Run(parent, recipe, 0, classes) for classes in ([0, 2], (0, 2), np.array([0, 2]))]
    assert {modules.classes for modules in cotrain_population(runs, data, device="cpu")} == {(0, 2)}


def test_parents_of_two_types_are_no_population(parent, data):
    recipe = Recipe(k=0.3, alpha=1.0, epochs=1)
    with pytest.raises(ValueError, match="of one architecture and type"):
        cotrain_population([Run(parent, recipe, 0), Run(copy.deepcopy(parent).float(), recipe, 0)], data)
