"""How long a training will take: counted by every engine alike, said once, and only where it is long."""

import pytest
import torch

from modlib.cotraining import Recipe, Run, cotrain_population
from modlib.engines import make_engine, remaining
from modlib.engines.remaining import Remaining, in_words


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    times = iter([0.0, 9.0, *range(12, 1000, 3)])  # the first step takes nine seconds, later ones three
    monkeypatch.setattr(remaining.time, "perf_counter", lambda: next(times))


@pytest.mark.parametrize(("steps", "said"), [(24, "training: about 1 minute left"), (23, ""), (5001, "4.2 hours left")])
def test_it_is_said_once_without_the_first_step(steps, said, clock, capsys):
    """Two steps are measured, 6 s, when three are done: 21 more are 63 s, 20 more no more than 60."""
    told = Remaining("training", steps)
    for _ in range(10):
        told.step()
    found = capsys.readouterr().err
    assert said in found
    assert len(found.splitlines()) == bool(said)


def test_words():
    assert [in_words(s) for s in (61, 100, 3600, 5400, 86400)] == [
        "1 minute",
        "2 minutes",
        "60 minutes",
        "1.5 hours",
        "24.0 hours",
    ]


@pytest.mark.parametrize("engine", ["vectorised", "sequential", "modulewise"])
def test_engines_ask_for_as_many_batches_as_they_say(engine, parent, data):
    recipe = Recipe(k=0.3, alpha=1.0, epochs=2, batch_size=16, images_per_epoch=41)
    runs = [Run(parent, recipe, seed) for seed in (0, 1)]
    worker = make_engine(engine, runs, (0, 1, 2), data, torch.device("cpu"))
    worker.announce("co-training", 2)
    for epoch in (0, 1):
        worker.train_epoch(torch.arange(41).expand(2, -1), epoch, None)
    assert worker.remaining.done == worker.remaining.steps


def test_cotrain_says_it_and_populations_do_not(parent, data, decompose, monkeypatch, capsys):
    monkeypatch.setattr(remaining, "AFTER", 0.0)
    monkeypatch.setattr(remaining, "LONG", -1.0)
    decompose(parent, shared_epochs=1)
    assert capsys.readouterr().err.splitlines() == [
        "one mask: about 1 minute left",
        "co-training: about 1 minute left",
    ]
    cotrain_population([Run(parent, Recipe(k=0.3, alpha=1.0, epochs=2, batch_size=16), 0)], data, device="cpu")
    assert capsys.readouterr().err == ""
