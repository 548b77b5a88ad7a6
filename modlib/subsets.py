"""A subset's modules on disk with all that they need of the parent: a safetensors file, readable without this package.

Only weights that a module of the subset keeps are in it. Tensors (`<layer>` is a masked parameter's name in the parent,
n its number of weights in C order, u how many of them are in the union of the subset's masks, K modules)::

    union/<layer>       zlib of ceil(n / 8) bytes: the weights in the union, packed eight to a byte, the first in the
                        highest bit (numpy.packbits); spare bits are 0
    weights/<layer>     zlib of these u weights in order, little-endian, the first bytes of all, the second of all, ...
    mask/<layer>        zlib of K times ceil(u / 8) bytes: which weights *of the union* each module keeps, packed so too
    parent/<name>       parameters that are not masked, and buffers, in the parent's shapes
    grafting/weight     float [K, 2, N]: row 0 "another class", row 1 "this class"
    grafting/bias       float [K, 2]
    statistics/<buffer> [K, *shape]: running statistics of batch normalisation, each module's own

A zlib stream is a tensor uint8 of its bytes. Floating-point values are written in float16 where that loses nothing (2
bytes a weight). Metadata (strings): `format` ("modlib subset"), `version` ("2"), `parent` (its hash, see
`modlib.parent.parent_hash`), `sha256` (of all of this, see `modlib.checksums`; version "1" has none), and as JSON
`classes` (list), `shapes` (layer -> weight shape), `metadata`, `dtypes` (tensor -> its type, of weights and of all that
is written in float16 instead) and `architecture` (the layers of a parent that is a plain `nn.Sequential` of flatten,
linear, ReLU and dropout: name, kind, arguments; else null).
"""

from __future__ import annotations

import json
import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modlib import library
from modlib.library import Parts, pack, unpack
from modlib.masking import MaskSet
from modlib.parent import copied, frozen, parent_hash, picked, with_logits
from modlib.stacking import hooked

FORMAT = "modlib subset"
FIELDS = (*library.FIELDS, "dtypes", "architecture")
"""What the header of a file holds."""

FLOATS = ("float32", "float64", "bfloat16")
"""Types that a tensor may be written shorter than."""

DESCRIBED: dict[str, tuple[type[nn.Module], Callable[[Any], list[Any]]]] = {
    "Flatten": (nn.Flatten, lambda layer: [layer.start_dim, layer.end_dim]),
    "Linear": (nn.Linear, lambda layer: [layer.in_features, layer.out_features, layer.bias is not None]),
    "ReLU": (nn.ReLU, lambda layer: []),
    "Dropout": (nn.Dropout, lambda layer: [layer.p]),
    "Identity": (nn.Identity, lambda layer: []),
}
"""Layers that a file describes itself: the class, and the arguments that make one like it."""


def save(modules: Parts, path: str | Path) -> None:
    """Write all of `modules` to `path`, whole or not at all."""
    streams, types = {}, {}
    for name, union in modules.masks.union().items():
        kept, mask = union.flatten().cpu(), modules.masks.masks[name].flatten(1).cpu()
        values = modules.parent.get_parameter(name).detach().cpu().flatten()[kept]
        types[f"weights/{name}"] = values.dtype
        streams[f"union/{name}"] = deflated(pack(kept[None]))
        streams[f"weights/{name}"] = deflated(shuffled(_halved(values)))
        streams[f"mask/{name}"] = deflated(pack(mask[:, kept]))
    whole = _whole(modules.parent, modules.masks.masks, modules.statistics)
    tensors = {f"parent/{name}": values.detach().cpu() for name, values in whole.items()}
    tensors |= {"grafting/weight": modules.grafting_weight.detach().cpu()}
    tensors |= {"grafting/bias": modules.grafting_bias.detach().cpu()}
    tensors |= {f"statistics/{name}": values.cpu() for name, values in modules.statistics.items()}
    written = {name: _halved(values) for name, values in tensors.items()}
    types |= {name: values.dtype for name, values in tensors.items() if values.dtype != written[name].dtype}
    fields = {
        "classes": modules.masks.classes,
        "shapes": {name: list(mask.shape[1:]) for name, mask in modules.masks.masks.items()},
        "dtypes": {name: str(dtype).removeprefix("torch.") for name, dtype in types.items()},
        "architecture": _description(modules.parent),
        "metadata": dict(modules.metadata),
    }
    header = {"format": FORMAT, "parent": parent_hash(modules.parent)}
    library.whole_or_not(
        Path(path), streams | written, header | {name: json.dumps(value) for name, value in fields.items()}
    )


@torch.no_grad()
def read(
    path: str | Path, network: nn.Module | None = None, logits: Callable[[Any], Tensor] | None = None
) -> dict[str, Any]:
    """Return the parts of the modules written to `path`, by the names that `modlib.Modules` has for them.

    The parent among them holds zeros where no module of the subset keeps a weight. Arguments and errors as in
    `modlib.load_subset`.
    """
    path = Path(path)
    if network is not None and not isinstance(network, nn.Module):
        raise TypeError(f"network must be an nn.Module, got {type(network).__name__}")
    tensors, header = library.opened(path, FORMAT)
    classes, shapes, recorded = library.parsed(path, header, FIELDS)
    made = _network(path, header, network)
    if recorded.get("logits") == "picked" and logits is None and not picked(made):
        raise ValueError(f"logits: the modules in {path} were made with logits=, hand the same function over")
    tensors, dtypes = _typed(path, header, tensors)
    layers = {name: _layer(path, name, tensors, shape, len(classes), dtypes) for name, shape in shapes.items()}
    _check_tensors(path, tensors, len(classes), shapes, made)
    device = next(made.parameters()).device
    _fill(made, tensors, {name: weight for name, (weight, _) in layers.items()})
    return {
        "parent": frozen(made if logits is None else with_logits(made, logits)),
        "masks": MaskSet({name: mask for name, (_, mask) in layers.items()}, classes),
        "grafting_weight": tensors["grafting/weight"].to(device),
        "grafting_bias": tensors["grafting/bias"].to(device),
        "statistics": {name: values.to(device) for name, values in _named(tensors, "statistics/").items()},
        "metadata": recorded,
    }


def _whole(network: nn.Module, masked: Iterable[str], statistics: Iterable[str]) -> dict[str, Tensor]:
    """Return what is written whole: parameters that are not masked, and buffers that no module has of its own."""
    edges = {id(network.get_parameter(name)) for name in masked}
    whole: dict[str, Tensor] = {name: p for name, p in network.named_parameters() if id(p) not in edges}
    kept = network.state_dict().keys() - set(statistics)
    return whole | {name: values for name, values in network.named_buffers() if name in kept}


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Write the values of a file to a network, in the file's types; the network stays on its device."""
    own = {name: values[0] for name, values in _named(tensors, "statistics/").items()}
    held = dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers())
    for name, values in (_named(tensors, "parent/") | own | dict(weights)).items():
        held[name].data = values.to(held[name].device)


def _named(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): values for name, values in tensors.items() if name.startswith(start)}


def _halved(values: Tensor) -> Tensor:
    """Return a copy of `values`, in float16 where that loses nothing and is shorter."""
    half = values.half() if values.is_floating_point() and values.itemsize > 2 else values
    return (half if torch.equal(half.to(values.dtype), values) else values).clone().contiguous()


def shuffled(values: Tensor) -> Tensor:
    """Return the bytes of `values` [u], the first of all, then the second of all, ...: equal ones lie together."""
    return values.view(torch.uint8).view(len(values), -1).T.contiguous() if len(values) else torch.empty(0)


def deflated(values: Tensor) -> Tensor:
    """Return the bytes of uint8 values as a zlib stream, uint8 [n]."""
    return torch.frombuffer(bytearray(zlib.compress(values.numpy().tobytes(), 9)), dtype=torch.uint8)


def inflated(stream: Tensor, most: int) -> Tensor:
    """Return the bytes of a zlib stream. Raises ValueError where it is none, is cut off, or holds more than `most`."""
    if stream.dtype != torch.uint8 or stream.ndim != 1:
        raise ValueError(f"uint8 [n] expected, there is {stream.dtype} {list(stream.shape)}")
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(stream.numpy().tobytes(), most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(found) > most or not inflater.eof:
        raise ValueError(f"it holds more than {most} bytes, or is cut off")
    return torch.frombuffer(bytearray(found), dtype=torch.uint8) if found else torch.empty(0, dtype=torch.uint8)


def _typed(
    path: Path, header: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, but for streams, in the types that they had when they were written, and these types."""
    dtypes = json.loads(header["dtypes"])
    if not isinstance(dtypes, dict) or not all(d in FLOATS and name in tensors for name, d in dtypes.items()):
        raise ValueError(f"path: {path} has dtypes {dtypes!r} in its header; they must be tensor -> one of {FLOATS}")
    types = {name: getattr(torch, d) for name, d in dtypes.items()}
    return {n: t.to(types.get(n, t.dtype)) if t.dtype == torch.half else t for n, t in tensors.items()}, types


def _layer(
    path: Path,
    name: str,
    tensors: Mapping[str, Tensor],
    shape: tuple[int, ...],
    count: int,
    types: Mapping[str, torch.dtype],
) -> tuple[Tensor, Tensor]:
    """Return a layer's weight, zero outside the union, and its masks [count, *shape]."""
    n, part = math.prod(shape), "union"
    try:
        packed = inflated(tensors[f"union/{name}"], -(-n // 8))
        union = unpack(packed.view(1, -(-n // 8)), (n,))[0]
        part, u = "weights", int(union.sum())
        own = types[f"weights/{name}"]
        written = inflated(tensors[f"weights/{name}"], u * own.itemsize)
        halved = len(written) == 2 * u and own.itemsize > 2
        kind = torch.half if halved else own
        values = written.view(kind.itemsize, u).T.contiguous().view(-1).view(kind).to(own)
        part, row = "mask", -(-u // 8)
        masks = torch.zeros(count, n, dtype=torch.bool)
        masks[:, union] = unpack(inflated(tensors[f"mask/{name}"], count * row).view(count, row), (u,))
    except (ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"path: {path} has no {part}/{name} that fits a layer of {list(shape)}: {error!r}") from error
    weight = values.new_zeros(n).masked_scatter(union, values).view(shape)
    return weight, masks.unflatten(1, shape)


def _check_tensors(
    path: Path, tensors: Mapping[str, Tensor], count: int, shapes: Mapping[str, tuple[int, ...]], network: nn.Module
) -> None:
    """Raise ValueError unless the file has just what its header and the network ask for, in their shapes."""
    weights = dict(network.named_parameters(remove_duplicate=False))
    for name, shape in shapes.items():
        if name not in weights or weights[name].shape != shape:
            raise ValueError(f"network: {path} has masks of {name!r} {list(shape)}, the network has no such weight")
    buffers, statistics = dict(network.named_buffers()), _named(tensors, "statistics/")
    streams = [f"{kind}/{name}" for kind in ("union", "weights", "mask") for name in shapes]
    wanted: dict[str, tuple[int, ...]] = {name: tuple(tensors[name].shape) for name in streams}
    graftings = tensors.get("grafting/weight", torch.empty(0, 0, 0))
    wanted |= {"grafting/weight": (count, 2, *graftings.shape[2:3]), "grafting/bias": (count, 2)}
    wanted |= {f"statistics/{name}": (count, *buffers[name].shape) for name in statistics if name in buffers}
    wanted |= {f"parent/{n}": tuple(v.shape) for n, v in _whole(network, shapes, statistics).items()}
    library.check_shapes(path, tensors, wanted, "network")


def _description(parent: nn.Module) -> list[list[Any]] | None:
    """Return the layers of a parent that a file describes itself, each [name, kind, *arguments], or None."""
    kinds = {kind: name for name, (kind, _) in DESCRIBED.items()}
    layers = list(parent.named_children())
    if type(parent) is not nn.Sequential or any(type(layer) not in kinds for _, layer in layers):
        return None
    if any(map(hooked, parent.modules())) or len(list(parent.parameters())) < len(parent.state_dict()):
        return None  # it does more than its layers, or a layer or weight has two names
    return [[name, kinds[type(layer)], *DESCRIBED[kinds[type(layer)]][1](layer)] for name, layer in layers]


def _network(path: Path, header: Mapping[str, str], network: nn.Module | None) -> nn.Module:
    """Return a copy of `network`, or where there is none one of the file's own description."""
    if network is not None:
        return copied(network)
    described = json.loads(header["architecture"])
    if described is None:
        raise ValueError(f"network: {path} does not describe its network; hand over one of the parent's architecture")
    try:
        with torch.random.fork_rng(devices=[]):  # layers are made with random weights
            return nn.Sequential(OrderedDict((name, DESCRIBED[kind][0](*rest)) for name, kind, *rest in described))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"path: {path} has an architecture of no use in its header: {error!r}") from error
