"""A subset's modules on disk with all that they need of the parent: a safetensors file, readable without this package.

Only weights that a module of the subset keeps are in it. Tensors (`<layer>` is a masked parameter's name in the parent,
n its number of weights in C order, u how many of them are in the union of the subset's masks, K modules)::

    union/<layer>       uint8: which weights are in the union, in one of two forms, see `places`
    weights/<layer>     float [u]: these weights, in order
    mask/<layer>        uint8 [K, ceil(u / 8)]: row m says which weights *of the union* module m keeps, packed eight to
                        a byte, the first in the highest bit (numpy.packbits); spare bits are 0
    parent/<name>       parameters that are not masked, and buffers, in the parent's shapes
    grafting/weight     float [K, 2, N]: row 0 "another class", row 1 "this class"
    grafting/bias       float [K, 2]
    statistics/<buffer> [K, *shape]: running statistics of batch normalisation, each module's own

Floating-point tensors are written in float16 where that loses nothing. Metadata (strings): `format` ("modlib subset"),
`version` ("1"), `parent` (its hash, see `modlib.parent.parent_hash`), and as JSON `classes` (list), `shapes` (layer ->
weight shape), `metadata`, `dtypes` (tensor -> its type, where it is written in float16 instead), `places` (layer ->
"bits", one a weight, packed as above; or where that is shorter "gaps", one byte g for each weight of the union, which
lies g + 1 behind the one before, the first counted from -1; 255 means 255 further, and none there) and `architecture`
(the layers of a parent that is a plain `nn.Sequential` of flatten, linear, ReLU and dropout, each [name, kind,
*arguments]; else null).
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modlib import library
from modlib.library import Parts, pack, unpack
from modlib.masking import MaskSet
from modlib.parent import copied, frozen, parent_hash, picked, with_logits
from modlib.stacking import hooked

FORMAT, VERSION = "modlib subset", "1"
FIELDS = (*library.FIELDS, "dtypes", "places", "architecture")
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
    tensors, places, union = {}, {}, modules.masks.union()
    for name, mask in modules.masks.masks.items():
        kept = union[name].flatten().cpu()
        places[name], tensors[f"union/{name}"] = _smaller(kept)
        tensors[f"weights/{name}"] = modules.parent.get_parameter(name).detach().cpu().flatten()[kept]
        tensors[f"mask/{name}"] = pack(mask.flatten(1).cpu()[:, kept])
    whole = _whole(modules.parent, modules.masks.masks, modules.statistics)
    tensors |= {f"parent/{name}": values.detach().cpu() for name, values in whole.items()}
    tensors |= {"grafting/weight": modules.grafting_weight.detach().cpu()}
    tensors |= {"grafting/bias": modules.grafting_bias.detach().cpu()}
    tensors |= {f"statistics/{name}": values.cpu() for name, values in modules.statistics.items()}
    written = {name: _halved(values) for name, values in tensors.items()}
    fields = {
        "classes": modules.masks.classes,
        "shapes": {name: list(mask.shape[1:]) for name, mask in modules.masks.masks.items()},
        "dtypes": {n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items() if t.dtype != written[n].dtype},
        "places": places,
        "architecture": _description(modules.parent),
        "metadata": dict(modules.metadata),
    }
    header = {"format": FORMAT, "version": VERSION, "parent": parent_hash(modules.parent)}
    library.whole_or_not(Path(path), written, header | {name: json.dumps(value) for name, value in fields.items()})


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
    tensors, header = library.opened(path, FORMAT, VERSION)
    classes, shapes, recorded = library.parsed(path, header, FIELDS)
    made = _network(path, header, network)
    if recorded.get("logits") == "picked" and logits is None and not picked(made):
        raise ValueError(f"logits: the modules in {path} were made with logits=, hand the same function over")
    tensors = _typed(path, header, tensors)
    unions = _unions(path, header, tensors, shapes)
    _check_tensors(path, tensors, classes, unions, made, shapes)
    device = next(made.parameters()).device
    _fill(made, tensors, unions)
    masks = {}
    for name, union in unions.items():
        masks[name] = torch.zeros(len(classes), len(union), dtype=torch.bool)
        masks[name][:, union] = unpack(tensors[f"mask/{name}"], (int(union.sum()),))
    return {
        "parent": frozen(made if logits is None else with_logits(made, logits)),
        "masks": MaskSet({name: mask.unflatten(1, shapes[name]) for name, mask in masks.items()}, classes),
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


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], unions: Mapping[str, Tensor]) -> None:
    """Write the values of a file to a network, in its own place and in the file's types."""
    for name, union in unions.items():
        weight, values = network.get_parameter(name), tensors[f"weights/{name}"]
        dense = values.new_zeros(union.shape).masked_scatter(union, values).view(weight.shape)
        weight.data = dense.to(weight.device)
    held = dict(network.named_parameters()) | dict(network.named_buffers())
    own = {name: values[0] for name, values in _named(tensors, "statistics/").items()}
    for name, values in (_named(tensors, "parent/") | own).items():
        held[name].data = values.to(held[name].device)


def _named(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): values for name, values in tensors.items() if name.startswith(start)}


def _halved(values: Tensor) -> Tensor:
    """Return a copy of `values`, in float16 where that loses nothing."""
    half = values.half() if values.is_floating_point() else values
    return (half if torch.equal(half.to(values.dtype), values) else values).clone().contiguous()


def _typed(path: Path, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in the types that they had when they were written."""
    dtypes = json.loads(header["dtypes"])
    if not isinstance(dtypes, dict) or not all(d in FLOATS and name in tensors for name, d in dtypes.items()):
        raise ValueError(f"path: {path} has dtypes {dtypes!r} in its header; they must be tensor -> one of {FLOATS}")
    return {n: t.to(getattr(torch, dtypes[n])) if n in dtypes else t for n, t in tensors.items()}


def _smaller(kept: Tensor) -> tuple[str, Tensor]:
    """Return the form that places of bool [n] are written in, "bits" or "gaps", and what is written."""
    bits, gaps = pack(kept[None])[0], to_gaps(kept)
    return ("gaps", gaps) if len(gaps) < len(bits) else ("bits", bits)


def to_gaps(kept: Tensor) -> Tensor:
    """Return where bool [n] is true as the gaps between: uint8, 255 for "255 further, and none there"."""
    gaps = np.diff(np.flatnonzero(kept.numpy()), prepend=-1) - 1
    written = np.full(len(gaps) + int((gaps // 255).sum()), 255, dtype=np.uint8)
    written[np.cumsum(gaps // 255 + 1) - 1] = gaps % 255
    return torch.from_numpy(written)


def from_gaps(gaps: Tensor, n: int) -> Tensor:
    """Return the bool [n] of `to_gaps`. Raises IndexError where a place lies behind the end."""
    there = gaps < 255
    kept = torch.zeros(n, dtype=torch.bool)
    kept[((gaps.long() + there.long()).cumsum(0) - 1)[there]] = True
    return kept


def _unions(
    path: Path, header: Mapping[str, str], tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return the union of the masks of every layer, bool [n]."""
    places, unions = json.loads(header["places"]), {}
    for name, shape in shapes.items():
        n, form = math.prod(shape), places.get(name) if isinstance(places, dict) else None
        written = tensors.get(f"union/{name}", torch.empty(0))
        try:
            if written.dtype != torch.uint8 or written.ndim != 1 or form not in ("bits", "gaps"):
                raise ValueError(f"{form!r} {list(written.shape)} {written.dtype}")
            if form == "bits" and len(written) != -(-n // 8):
                raise ValueError(f"{len(written)} bytes of bits")
            unions[name] = from_gaps(written, n) if form == "gaps" else unpack(written[None], (n,))[0]
        except (ValueError, IndexError) as error:
            raise ValueError(f"path: {path} has no places of the {n} weights of {name!r} in it: {error}") from error
    return unions


def _check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    classes: tuple[int, ...],
    unions: Mapping[str, Tensor],
    network: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise ValueError unless the file has just what its header and the network ask for, in their shapes."""
    weights = dict(network.named_parameters(remove_duplicate=False))
    for name, shape in shapes.items():
        if name not in weights or weights[name].shape != shape:
            raise ValueError(f"network: {path} has masks of {name!r} {list(shape)}, the network has no such weight")
    buffers, statistics = dict(network.named_buffers()), _named(tensors, "statistics/")
    count, kept = len(classes), {name: int(union.sum()) for name, union in unions.items()}
    wanted: dict[str, tuple[int, ...]] = {f"weights/{name}": (u,) for name, u in kept.items()}
    wanted |= {f"mask/{name}": (count, -(-u // 8)) for name, u in kept.items()}
    wanted |= {f"union/{name}": tuple(tensors[f"union/{name}"].shape) for name in kept}
    graftings = tensors.get("grafting/weight", torch.empty(0, 0, 0))
    wanted |= {"grafting/weight": (count, 2, *graftings.shape[2:3]), "grafting/bias": (count, 2)}
    wanted |= {f"statistics/{name}": (count, *buffers[name].shape) for name in statistics if name in buffers}
    wanted |= {f"parent/{n}": tuple(v.shape) for n, v in _whole(network, shapes, statistics).items()}
    library.check_shapes(path, tensors, wanted, "network")
    if any(tensors[f"mask/{name}"].dtype != torch.uint8 for name in shapes):
        raise ValueError(f"path: {path} has masks that are not uint8")


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
