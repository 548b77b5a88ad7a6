"""Networks read back from programs of `torch.export`, with layers that can be cut.

A program is one flat graph of operators: nothing in it is an `nn.Conv2d`, so nothing that looks for layers finds any.
Here each operator with weights of its own becomes a layer again, under its old name; the others stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from modlib.deploy.exporting import quiet

aten = torch.ops.aten


def read_program(path: str | Path, name: str = "path") -> nn.Module:
    """Return the network in a `.pt2` file of `torch.export.save`, in eval mode.

    Convolutions (2d), linear layers, batch and layer normalisations are layers of `torch.nn` with the names that they
    had, and everything else is called as the program has it. Raises FileNotFoundError where there is no file,
    ValueError where it is no such file or was exported in training mode; `name`: what the caller calls the path.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{name}: there is no file {str(path)!r}")
    try:
        with quiet():
            program = torch.export.load(path)
    except Exception as error:  # zip, JSON and torch's own kinds
        raise ValueError(f"{name}: {str(path)!r} is no program of torch.export: {error}") from error
    return with_layers(program)


def with_layers(program: torch.export.ExportedProgram) -> nn.Module:
    """Return the network of a program, in eval mode, with layers; see `read_program`."""
    flat = program.module(check_guards=False)
    assert isinstance(flat, fx.GraphModule)
    for node in list(flat.graph.nodes):
        if node.op == "call_function" and node.target in LAYERS:
            _to_layer(flat, node)
        elif node.op == "call_function" and node.target in _DROPOUTS and node.args[2]:
            raise ValueError("program: it was exported in training mode; export it again after .eval()")
    flat.graph.eliminate_dead_code()
    network = fx.GraphModule(flat, flat.graph, type(flat).__name__).eval()  # one whose eval() works
    _put_in_order(network, list(program.state_dict))
    return network


def _put_in_order(network: nn.Module, names: list[str]) -> None:
    """Put layers in the order of their weights' names, on which `modlib.parent.parent_hash` depends."""
    for path, part in network.named_modules():
        whole = f"{path}." if path else ""
        first = {
            child: next((i for i, name in enumerate(names) if name.startswith(f"{whole}{child}.")), len(names))
            for child in part._modules
        }
        part._modules = dict(sorted(part._modules.items(), key=lambda item: first[item[0]]))


_DROPOUTS = (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default)


def _to_layer(flat: fx.GraphModule, node: fx.Node) -> None:
    """Replace a call of an operator by one of a layer, where its weights are those of one layer."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if given.get("training"):
        raise ValueError("program: it was exported in training mode; export it again after .eval()")
    sources = {name: given[name] for name in WEIGHTS if given.get(name) is not None}
    owners = {str(one.target).rpartition(".")[0] for one in sources.values() if one.op == "get_attr"}
    fits = all(one.op == "get_attr" and str(one.target).endswith(f".{name}") for name, one in sources.items())
    if not fits or len(owners) != 1:
        return  # weights that are computed, or several layers' own: they stay an operator
    owner = owners.pop()
    there = flat.get_submodule(owner)
    values = {name: getattr(there, name) for name in sources}
    if type(there) is nn.Module:  # a bare holder of weights; a layer where it was called before
        flat.set_submodule(owner, _filled(LAYERS[node.target](given, values), there, values))
    with flat.graph.inserting_before(node):
        called = flat.graph.call_module(owner, (given["input"],))
    called.meta = dict(node.meta)
    node.replace_all_uses_with(called)
    flat.graph.erase_node(node)


WEIGHTS = ("weight", "bias", "running_mean", "running_var")


def _filled(layer: nn.Module, there: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    """Return a layer with the values of the bare module `there` in place of its own."""
    for name, value in {**values, **dict(there.named_buffers(recurse=False))}.items():
        setattr(layer, name, value)
    return layer


def _conv(given: dict[str, Any], values: dict[str, Tensor]) -> nn.Module:
    out, into, *kernel = values["weight"].shape
    groups = given.get("groups", 1)
    return nn.Conv2d(
        into * groups,
        out,
        tuple(kernel),  # type: ignore[arg-type]
        stride=_pair(given.get("stride", 1)),
        padding=given["padding"] if isinstance(given.get("padding"), str) else _pair(given.get("padding", 0)),
        dilation=_pair(given.get("dilation", 1)),
        groups=groups,
        bias="bias" in values,
        device="meta",
    )


def _pair(value: int | list[int]) -> tuple[int, int]:
    first, *rest = [value] if isinstance(value, int) else value
    return first, rest[0] if rest else first


def _linear(given: dict[str, Any], values: dict[str, Tensor]) -> nn.Module:
    out, into = values["weight"].shape
    return nn.Linear(into, out, bias="bias" in values, device="meta")


def _batch_norm(given: dict[str, Any], values: dict[str, Tensor]) -> nn.Module:
    affine = "weight" in values
    width = len(values["weight" if affine else "running_mean"])
    shape = given["input"].meta["val"].ndim
    kind: Any = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(shape, nn.BatchNorm1d)
    return kind(width, given["eps"], given["momentum"], affine=affine, device="meta")


def _layer_norm(given: dict[str, Any], values: dict[str, Tensor]) -> nn.Module:
    return nn.LayerNorm(given["normalized_shape"], given.get("eps", 1e-5), bias="bias" in values, device="meta")


LAYERS: dict[Any, Callable[[dict[str, Any], dict[str, Tensor]], nn.Module]] = {
    aten.conv2d.default: _conv,
    aten.conv2d.padding: _conv,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.layer_norm.default: _layer_norm,
}
"""What an operator becomes."""
