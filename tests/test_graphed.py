"""The engine that records its steps: what it refuses anywhere, and on a GPU that it does what `modulewise` does."""

import pytest
import torch
from torch import nn

from modlib.cotraining import Recipe, Run, cotrain_population
from modlib.engines import make_engine
from modlib.engines.graphed import RecordedSlot

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SETTINGS = [
    {},
    {"vote": 0.9, "images_per_epoch": 40, "epochs": 3},
    {"augment": "flip_crop", "schedule": "cosine", "images_per_epoch": 41},
    {"alpha": 1.0, "reduction": "scale_free", "p": 2, "scores": "absolute"},
    {"norm": "frozen", "balanced": True, "init": "magnitude"},
    {"method": "base", "base_class": 1},
    {"shared_epochs": 1, "vote": 0.5, "allocation": "lamp"},
]


def test_it_asks_for_a_gpu(conv_parent, decompose):
    with pytest.raises(ValueError, match="engine: 'graphed' records CUDA graphs, the device is cpu; use 'modulewise'"):
        decompose(conv_parent, engine="graphed", device="cpu")


def test_what_recorded_steps_read_stays_where_it_is(conv_parent, data):
    """Averages and factors of every epoch are written to the same memory; with the first average, steps are others."""
    run = Run(conv_parent, Recipe(k=0.3, alpha=1.0, epochs=2), 0)
    engine = make_engine("modulewise", [run], (0, 1, 2), data, torch.device("cpu"))
    slot = RecordedSlot(run, engine.parents[0], engine.weights_of[0], 3)
    factors = [dict.fromkeys(slot.updates, value) for value in (1.0, 2.0, 3.0)]
    averages = [{n: torch.full_like(u.scores, value) for n, u in slot.updates.items()} for value in (4.0, 5.0)]
    slot.pull_to(None, factors[0])
    slot.recordings[torch.Size([1])] = None
    slot.pull_to(averages[0], factors[1])
    assert not slot.recordings
    slot.recordings[torch.Size([1])] = None
    held = {name: (slot.pull[name], slot.factor[name]) for name in slot.updates}
    slot.pull_to(averages[1], factors[2])
    assert slot.recordings
    for name, (pull, factor) in held.items():
        assert slot.pull[name] is pull
        assert slot.factor[name] is factor
        assert (pull == 5.0).all()
        assert (factor == 3.0).all()


@needs_gpu
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_replayed_steps_are_the_steps(settings, conv_parent, decompose, data):
    recorded, plain = (decompose(conv_parent, engine=e, device="cuda", **settings) for e in ("graphed", "modulewise"))
    assert all(torch.equal(mask, plain.masks.masks[name]) for name, mask in recorded.masks.masks.items())
    images = data.inputs(data.train_images).double()
    torch.testing.assert_close(recorded.log_odds(images), plain.log_odds(images))


@needs_gpu
def test_every_run_of_a_population_has_recordings_of_its_own(conv_parent, data):
    runs = [Run(conv_parent, Recipe(k=k, alpha=1.0, epochs=2, batch_size=16), seed) for k, seed in ((0.3, 0), (0.5, 1))]
    made = [cotrain_population(runs, data, engine=engine, device="cuda") for engine in ("graphed", "modulewise")]
    for recorded, plain in zip(*made, strict=True):
        assert all(torch.equal(mask, plain.masks.masks[name]) for name, mask in recorded.masks.masks.items())


class Asking(nn.Module):
    """A parent whose step depends on a number that it reads back from the device."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        logits = self.inner(images)
        return logits if float(logits.detach().sum()) < 1e30 else -logits


@needs_gpu
def test_a_step_that_cannot_be_recorded_is_refused(conv_parent, decompose):
    with pytest.raises(ValueError, match=r"engine: 'graphed' cannot record a step of this parent .* use 'modulewise'"):
        decompose(Asking(conv_parent), engine="graphed", device="cuda")
    decompose(conv_parent, engine="graphed", device="cuda")  # and leaves the device as it was
