"""`checkpoint=` of `cotrain`: what was stopped or interrupted goes on to the same modules, and says how."""

import itertools
import math

import pytest
import torch

import modlib
from modlib import shared_mask
from modlib.engines import checkpoints
from modlib.engines.modulewise import ModulewiseEngine
from modlib.engines.vectorised import VectorisedEngine

SAVED = r"cotrain: interrupted; what is done is in .*run\.pt, from which the same call goes on"
OF = {"vectorised": VectorisedEngine, "modulewise": ModulewiseEngine}


def interrupting(at, seen=None):
    """Make a callback that is interrupted after an epoch."""

    def callback(epoch, modules):
        if epoch == at:
            raise KeyboardInterrupt
        if seen is not None:
            seen.append(epoch)

    return callback


def done_in(path):
    return torch.load(path, weights_only=True)["epoch"]


@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_is_interrupted_in_its_callback_goes_on(at, as_path, parent, decompose, same, tmp_path):
    path, seen, options = tmp_path / "new" / "run.pt", [], {"epochs": 3, "share_init": False}
    with pytest.warns(UserWarning, match=SAVED), pytest.raises(KeyboardInterrupt):
        decompose(parent, callback=interrupting(at, seen), checkpoint=as_path(path), **options)
    assert done_in(path) == at
    # another interruption before the callback has seen the epoch changes nothing
    with pytest.warns(UserWarning, match=SAVED), pytest.raises(KeyboardInterrupt):
        decompose(parent, callback=interrupting(at, seen), checkpoint=as_path(path), **options)
    resumed = decompose(parent, callback=lambda epoch, _: seen.append(epoch), checkpoint=as_path(path), **options)
    assert seen == [1, 2, 3], "every epoch is seen, none twice"
    assert same(resumed, decompose(parent, **options))
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("engine", OF)
def test_what_is_interrupted_within_an_epoch_goes_on(engine, parent, decompose, same, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.Pace, "is_due", first_only())
    path, options, original = tmp_path / "run.pt", {"epochs": 5, "engine": engine}, OF[engine].train_epoch

    def train_epoch(self, orders, epoch, average):
        original(self, orders, epoch, average)
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OF[engine], "train_epoch", train_epoch)
        with pytest.warns(UserWarning, match=SAVED), pytest.raises(KeyboardInterrupt):
            decompose(parent, checkpoint=path, **options)
    assert done_in(path) == 3, "the last whole one; the file had the first"
    assert same(decompose(parent, checkpoint=path, **options), decompose(parent, **options))


def first_only():
    """Files are due after the first epoch, copies in memory always."""
    files = []

    def is_due(pace):
        if not files:
            files.append(pace)
            return True
        return pace is not files[0]

    return is_due


def test_of_large_checkpoints_no_copies_are_kept(parent, decompose, same, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.Pace, "is_due", first_only())
    monkeypatch.setattr(checkpoints, "COPIED", 0)
    kept = []
    monkeypatch.setattr(checkpoints.Keeper, "interrupted", lambda keeper: kept.append(keeper.copy))
    with pytest.warns(UserWarning, match=SAVED), pytest.raises(KeyboardInterrupt):
        decompose(parent, epochs=3, callback=interrupting(3), checkpoint=tmp_path / "run.pt")
    assert (kept, done_in(tmp_path / "run.pt")) == ([None], 1)


def test_interrupted_before_anything_is_done(parent, decompose, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(VectorisedEngine, "train_epoch", stop)
    said = r"cotrain: interrupted before its first epoch was done; nothing is in .*run\.pt yet"
    with pytest.warns(UserWarning, match=said), pytest.raises(KeyboardInterrupt):
        decompose(parent, checkpoint=tmp_path / "run.pt")
    assert not list(tmp_path.iterdir())


def test_interrupted_without_a_checkpoint(parent, decompose):
    match = "nothing of it is kept; with checkpoint=, a file, the same call"
    with pytest.warns(UserWarning, match=match) as said, pytest.raises(KeyboardInterrupt):
        decompose(parent, callback=interrupting(1))
    assert len(said) == 1
    assert "\n" not in str(said[0].message)


def test_shared_epochs_that_are_interrupted_go_on(parent, decompose, same, tmp_path, monkeypatch):
    options, original, calls = {"shared_epochs": 2, "epochs": 1}, shared_mask.objective, itertools.count(1)

    def stop(*arguments):
        if next(calls) == 6:  # of four steps an epoch
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shared_mask, "objective", stop)
        with pytest.warns(UserWarning, match=SAVED), pytest.raises(KeyboardInterrupt):
            decompose(parent, checkpoint=tmp_path / "run.pt", **options)
    assert [file.name for file in tmp_path.iterdir()] == ["run-shared0.pt"]
    assert same(decompose(parent, checkpoint=tmp_path / "run.pt", **options), decompose(parent, **options))


@pytest.mark.parametrize("changes", [{}, {"shared_epochs": 1}, {"engine": "sequential", "vote": 0.5}], ids=str)
def test_more_epochs_go_on_from_the_last(changes, parent, decompose, same, tmp_path):
    path, seen = tmp_path / "run.pt", []
    assert same(decompose(parent, epochs=2, checkpoint=path, **changes), decompose(parent, epochs=2, **changes))
    longer = decompose(parent, epochs=4, checkpoint=path, callback=lambda epoch, _: seen.append(epoch), **changes)
    assert seen == [3, 4]
    assert longer.metadata["recipe"]["epochs"] == 4
    assert same(longer, decompose(parent, epochs=4, **changes))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"epochs: 3 asked for, 4 are done in .*run\.pt; ask for as many or more"):
        decompose(parent, epochs=3, checkpoint=path, **changes)
    assert path.read_bytes() == before
    assert same(decompose(parent, epochs=4, checkpoint=path, **changes), longer)


def test_annealed_rates_do_not_go_on_for_more_epochs(parent, decompose, tmp_path):
    decompose(parent, epochs=1, schedule="cosine", checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"checkpoint: .*run\.pt is of another run"):
        decompose(parent, epochs=2, schedule="cosine", checkpoint=tmp_path / "run.pt")


def test_checkpoints_that_are_refused(parent, decompose, tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint must be a path, a str or a pathlib\.Path, got 3"):
        decompose(parent, checkpoint=3)
    with pytest.raises(ValueError, match=r"checkpoint: .* is a folder, name a file"):
        decompose(parent, checkpoint=str(tmp_path))
    with pytest.raises(ValueError, match="checkpoint: method='base' writes none"):
        decompose(parent, checkpoint=tmp_path / "a.pt", method="base", base_class=1)
    decompose(parent, checkpoint=tmp_path / "run.pt")
    for changes in ({"k": 0.2}, {"seed": 1}, {"engine": "sequential"}, {"lr": math.pi}):
        with pytest.raises(ValueError, match=r"checkpoint: .*run\.pt is of another run"):
            decompose(parent, checkpoint=tmp_path / "run.pt", **changes)


def test_a_mask_for_all_classes_that_is_done_is_not_cut_short(parent, data, tmp_path):
    recipe, path = modlib.cotraining.Recipe(k=0.3, alpha=0.0, epochs=2), tmp_path / "mask.pt"
    modlib.decomposers.SharedMask(recipe, path).decompose(parent, data, seed=0, device="cpu")
    shorter = modlib.cotraining.Recipe(k=0.3, alpha=0.0, epochs=1)
    with pytest.raises(ValueError, match=r"epochs: 1 asked for, 2 are done in .*mask\.pt"):
        modlib.decomposers.SharedMask(shorter, path).decompose(parent, data, seed=0, device="cpu")
