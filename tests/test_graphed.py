"""The engine that records its steps: what it refuses anywhere, and on a GPU that it does what `modulewise` does."""

import pytest
import torch
from torch import nn

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SETTINGS = [
    {},
    {"vote": 0.9},
    {"augment": "flip_crop", "schedule": "cosine", "images_per_epoch": 41},
    {"alpha": 1.0, "reduction": "scale_free", "p": 2, "scores": "absolute"},
    {"norm": "frozen", "balanced": True, "init": "magnitude"},
    {"method": "base", "base_class": 1},
    {"shared_epochs": 1, "vote": 0.5, "allocation": "lamp"},
]


def test_it_asks_for_a_gpu(conv_parent, decompose):
    with pytest.raises(ValueError, match="engine: 'graphed' records CUDA graphs, the device is cpu; use 'modulewise'"):
        decompose(conv_parent, engine="graphed", device="cpu")


@needs_gpu
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_replayed_steps_are_the_steps(settings, conv_parent, decompose, data):
    recorded, plain = (decompose(conv_parent, engine=e, device="cuda", **settings) for e in ("graphed", "modulewise"))
    assert all(torch.equal(mask, plain.masks.masks[name]) for name, mask in recorded.masks.masks.items())
    images = data.inputs(data.train_images).double()
    torch.testing.assert_close(recorded.log_odds(images), plain.log_odds(images))


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
