"""What TorchScript makes of recomposed networks: traces answer alike; to compile one with `script`, bake it first."""

import pytest
import torch

import modlib

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated"),
    pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support"),
]
KINDS = ("parent", "tied_parent", "conv_parent")


@pytest.fixture(params=KINDS)
def recomposed(request, decompose):
    return decompose(request.getfixturevalue(request.param), epochs=1, share_init=False).recompose([2, 0]).eval()


def alike(network, traced, inputs):
    """Also for other numbers of images than it was traced with."""
    return all(torch.equal(traced(inputs[:count]), network(inputs[:count])) for count in (1, 2, len(inputs)))


@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
def test_a_trace_answers_alike(recomposed, inputs, tmp_path):
    """Its checks of the inputs are left out of it, of which torch warns."""
    torch.jit.trace(recomposed, inputs[:2]).save(tmp_path / "traced.pt")
    assert alike(recomposed, torch.jit.load(tmp_path / "traced.pt"), inputs)


@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean")
def test_a_trace_of_a_merged_network_answers_alike(decompose, parent, conv_parent, inputs):
    parts = [decompose(net, epochs=1, share_init=False) for net in (parent, conv_parent)]
    merged = modlib.merge(parts[0].select([0, 1]), parts[1].select([2]), classes=[[0, 1], [2]])
    assert alike(merged, torch.jit.trace(merged, inputs[:2]), inputs)


class Named(torch.nn.Linear):
    """It takes its inputs by name."""

    def forward(self, pixels, scale):
        return super().forward(scale * pixels.flatten(1))


@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean", "ignore:Trace had nondeterministic")
def test_a_trace_takes_inputs_by_name(inputs):
    x, y = {"pixels": inputs, "scale": torch.ones(18, 1)}, [0, 1, 2] * 6
    settings = {"k": 0.3, "alpha": 1.0, "epochs": 1, "seed": 0, "device": "cpu"}
    network = modlib.cotrain(Named(16, 3), modlib.data.tensors(x, y), **settings).recompose([2, 0])
    traced = torch.jit.trace(network, (x,))
    fewer = {name: values[:3] for name, values in x.items()}
    assert torch.equal(traced(fewer), network(fewer))


@pytest.mark.parametrize(
    "compile_", [torch.jit.script, lambda network: torch.jit.trace(network, torch.ones(2, 1, 4, 4))]
)
def test_a_baked_network_is_traced_and_compiled_without_a_warning_of_its_own(compile_, recomposed, inputs):
    baked = recomposed.baked().float().eval()
    assert alike(baked, compile_(baked), inputs.float())
