"""All modules of a chain of linear layers as one network: dead units out, equal ones once, sparse where that is faster.

A parent that is (flatten), linear, ReLU, linear, ..., linear becomes, for K modules, one chain of wider layers with K
outputs, the log-odds. Nothing is approximated; sums are taken in another order, so results differ by rounding:

- the difference of a module's two grafted logits is linear in its last hidden layer: the output layer and the grafting
  layer become one row;
- a hidden unit that no edge leaves is left out; one that no edge enters is a constant, which goes into the next bias;
- units of the first layer with equal edges and biases, in whatever modules, are computed once;
- a layer is one product: first layers share the inputs, later ones lie in blocks on the diagonal, stored as
  compressed sparse rows where `pays_sparse` says so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from modlib.parent import frozen
from modlib.precision import unrounded

Chain = list[tuple[Tensor, Tensor]]
"""Weight [out, in] and bias [out] of linear layers with ReLU between them."""

PER_EDGE = 3
SAVED = 2**16
"""A sparse product takes as long for an edge as a dense one for `PER_EDGE` weights, and as long to start as a dense one
for some tens of thousands (one thread, AVX-512, 1 and 64 inputs)."""
STACKABLE = (torch.float32, torch.float64)
NOTHING_IN_EVAL = (nn.Dropout, nn.Identity)


def unrolled(network: nn.Module) -> list[nn.Module]:
    """Return the layers that a network calls one after another: those of `nn.Sequential`, else the network itself."""
    if type(network) is not nn.Sequential or hooked(network):
        return [network]
    return [layer for part in network for layer in unrolled(part)]


def hooked(layer: nn.Module) -> bool:
    """Say whether more runs at a call of a layer than its forward pass."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def linear_layers(parent: nn.Module) -> list[nn.Linear] | None:
    """Return the linear layers of a parent that can be stacked (float32 or float64), or None for another one."""
    layers = [layer for layer in unrolled(parent) if type(layer) not in NOTHING_IN_EVAL or hooked(layer)]
    if layers and flattens(layers[0]):
        layers = layers[1:]
    found = [layer for layer in layers[::2] if type(layer) is nn.Linear]
    between = [type(layer) for layer in layers[1::2]]
    fits = len(found) == len(between) + 1 and set(between) <= {nn.ReLU} and not any(map(hooked, layers))
    kinds = {layer.weight.dtype for layer in found}
    return found if fits and len(kinds) == 1 and kinds <= set(STACKABLE) else None


def flattens(layer: nn.Module) -> bool:
    """Say whether a layer makes a vector of each input."""
    return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1) and not hooked(layer)


def masked_chain(layers: Sequence[nn.Linear], masks: Mapping[int, Tensor], weight: Tensor, bias: Tensor) -> Chain:
    """Return the chain of the modules that share a mask, without dead units; its outputs [B, m] are their log-odds.

    `masks`: by the id of a weight or a bias. `weight` [m, 2, N] and `bias` [m, 2]: the grafting layers of the modules.
    """
    chain = []
    for layer in layers:
        edges = _masked(layer.weight, masks)
        chain.append((edges, edges.new_zeros(len(edges)) if layer.bias is None else _masked(layer.bias, masks)))
    last, shift = chain[-1]
    difference = weight[:, 1] - weight[:, 0]
    chain[-1] = (difference @ last, difference @ shift + bias[:, 1] - bias[:, 0])
    return without_dead_units(chain)


def _masked(values: Tensor, masks: Mapping[int, Tensor]) -> Tensor:
    return values.detach() * masks[id(values)] if id(values) in masks else values.detach()


def without_dead_units(chain: Chain) -> Chain:
    """Return the same function without the hidden units that are constant or have no part in the output."""
    chain = list(chain)
    for i in range(len(chain) - 1):
        (weight, bias), (after, shift) = chain[i : i + 2]
        varies = (weight != 0).any(1)
        chain[i] = (weight[varies], bias[varies])
        chain[i + 1] = (after[:, varies], shift + after[:, ~varies] @ relu(bias[~varies]))
    for i in range(len(chain) - 2, -1, -1):
        (weight, bias), (after, shift) = chain[i : i + 2]
        used = (after != 0).any(0)
        chain[i], chain[i + 1] = (weight[used], bias[used]), (after[:, used], shift)
    return chain


def pays_sparse(weights: int, edges: int) -> bool:
    """Say whether a layer with so many weights, of which `edges` are not zero, is faster as a sparse product."""
    return weights - PER_EDGE * edges >= SAVED


class Stacked(nn.Module):
    """Chains as one: inputs [B, ...] -> log-odds [B, K].

    `chains`: those of `masked_chain`; `columns`: the columns of the result that each one's outputs are.
    """

    def __init__(self, chains: Sequence[Chain], columns: Sequence[Sequence[int]], flatten: bool) -> None:
        super().__init__()
        self.flatten = flatten
        self.layers = nn.ModuleList()
        places: list[list[Tensor]] = []  # of every chain's units in each layer
        if len(chains[0]) > 1:
            layer, own = _first_layer([chain[0] for chain in chains])
            self.layers.append(layer)
            places.append(own)
        for i in range(1, len(chains[0]) - 1):
            places.append(list(_numbers(sum(len(c[i][1]) for c in chains)).split([len(c[i][1]) for c in chains])))
            self.layers.append(_later_layer([chain[i] for chain in chains], places[-1], places[-2]))
        before = places[-1] if places else [_numbers(chain[-1][0].shape[1]) for chain in chains]
        outputs = [torch.tensor(own, device="cpu") for own in columns]
        self.layers.append(_later_layer([chain[-1] for chain in chains], outputs, before))
        self._places = [[own.unique() for own in layer] for layer in places]
        self.columns = [list(own) for own in columns]
        frozen(self)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the inputs."""
        return self.layers[-1].bias  # type: ignore[return-value]

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.flatten(1) if self.flatten else inputs
        if hidden.ndim != 2:
            raise RuntimeError("a network of linear layers alone takes [B, features]")
        *layers, last = self.layers
        for layer in layers:
            hidden = relu(layer(hidden))
        with unrounded(hidden.device):  # rounded, log-odds would tie
            found: Tensor = last(hidden.to(self.like.dtype))
        return found

    def chains(self) -> list[Chain]:
        """Return the chains that it was made of, dense; units of a first layer that are equal are one."""
        found = []
        for p, columns in enumerate(self.columns):
            units = [*(layer[p] for layer in self._places), torch.tensor(columns, device="cpu")]
            before = [_numbers(_shape(self.layers[0])[1]), *units[:-1]]
            found.append([_block(*block) for block in zip(self.layers, units, before, strict=True)])
        return found

    def one_chain(self) -> Chain:
        """Return it as one chain, dense, with blocks on the diagonal."""
        return [_block(layer, *map(_numbers, _shape(layer))) for layer in self.layers]

    def weights(self) -> int:
        """Return how many weights its layers would have if they were dense, zeros and all."""
        return sum(math.prod(_shape(layer)) for layer in self.layers)


class SparseLinear(nn.Module):
    """A linear layer in compressed sparse rows: [B, in] -> [B, out]. An export sees it as dense."""

    starts: Tensor
    rows: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, bias: Tensor, width: int) -> None:
        """`values` [n] lie at `rows` (in order) and `columns` of a weight [len(bias), width] that is else zero."""
        super().__init__()
        self.shape = (len(bias), width)
        starts = torch.searchsorted(rows.contiguous(), torch.arange(len(bias) + 1, device=rows.device))
        for name, places in (("starts", starts), ("rows", rows), ("columns", columns)):
            self.register_buffer(name, places.int())  # the product is up to twice as fast as with int64
        self.register_buffer("values", values)
        self.register_buffer("bias", bias)

    def places(self) -> int:
        """Return how many numbers of four bytes say where the weights are."""
        return len(self.starts) + len(self.rows) + len(self.columns)

    def to_dense(self) -> Tensor:
        """Return the weight [out, in] as a dense matrix."""
        return self.values.new_zeros(self.shape).index_put((self.rows.long(), self.columns.long()), self.values)

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or inputs.device.type not in ("cpu", "cuda"):
            return linear(inputs, self.to_dense(), self.bias)
        _warn_no_more()
        values, bias = self.values, self.bias
        with unrounded(inputs.device):  # there is no sparse product in bfloat16
            inputs = inputs.to(values.dtype)
            weight = torch.sparse_csr_tensor(self.starts, self.columns, values, self.shape, check_invariants=False)
            if len(inputs) == 1:
                return (torch.mv(weight, inputs[0]) + bias)[None]
            return torch.addmm(bias[:, None], weight, inputs.T).T


def dense_layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer with copies of these weights."""
    layer = nn.utils.skip_init(nn.Linear, *weight.shape[::-1], device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _shape(layer: nn.Module) -> tuple[int, int]:
    return layer.shape if isinstance(layer, SparseLinear) else tuple(layer.get_parameter("weight").shape)  # type: ignore[return-value]


def _block(layer: nn.Module, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of some units of a layer, and of some of its inputs, dense."""
    if not isinstance(layer, SparseLinear):
        weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
        return weight[rows.to(weight.device)][:, columns.to(weight.device)], bias[rows.to(weight.device)]
    values, bias = layer.values, layer.bias
    found, inside = [], torch.ones(len(values), dtype=torch.bool, device=values.device)
    for name, chosen, size in zip(("rows", "columns"), (rows, columns), layer.shape, strict=True):
        place = torch.full((size,), -1, device=values.device)
        place[chosen.to(values.device)] = torch.arange(len(chosen), device=values.device)
        found.append(place[layer.get_buffer(name).long()])
        inside &= found[-1] >= 0
    weight = values.new_zeros(len(rows), len(columns))
    return weight.index_put((found[0][inside], found[1][inside]), values[inside]), bias[rows.to(values.device)]


def _first_layer(parts: Chain) -> tuple[nn.Module, list[Tensor]]:
    """Return the layer that computes equal units once, and the places of every part's units in it."""
    units = torch.cat([torch.cat([weight, bias[:, None]], 1) for weight, bias in parts])
    sizes = [len(bias) for _, bias in parts]
    if len(units) == 0:  # a layer without units gets one, of zeros
        return dense_layer(units.new_zeros(1, units.shape[1] - 1), units.new_zeros(1)), [_numbers(0) for _ in parts]
    units, places = units.unique(dim=0, return_inverse=True)
    weight, bias = units[:, :-1], units[:, -1].contiguous()
    at = weight.nonzero(as_tuple=True)
    return _layer(at, weight[at], bias, weight.shape[1]), list(places.cpu().split(sizes))


def _later_layer(parts: Chain, places: Sequence[Tensor], before: Sequence[Tensor]) -> nn.Module:
    """Return the layer whose part p has its units at `places[p]` and its inputs at `before[p]`.

    Inputs of a part that share a place are added up. A layer without units gets one, of zeros.
    """
    device, height, width = parts[0][1].device, *(_past(of) for of in (places, before))
    bias, at, values = parts[0][1].new_zeros(height), [], []
    for (weight, shift), rows, columns in zip(parts, places, before, strict=True):
        out, of = weight.nonzero(as_tuple=True)
        at.append(rows.to(device)[out] * width + columns.to(device)[of])
        values.append(weight[out, of])
        bias[rows.to(device)] = shift
    where, same = torch.cat(at).unique(return_inverse=True)
    summed = bias.new_zeros(len(where)).index_add(0, same, torch.cat(values))
    return _layer((where // width, where % width), summed, bias, width)


def _numbers(count: int) -> Tensor:
    """Return 0, 1, ... on the CPU, whatever device new tensors are made on."""
    return torch.arange(count, device="cpu")


def _past(places: Sequence[Tensor]) -> int:
    """Return how many places there are: one more than the last, and at least one."""
    return 1 + max((int(own.max()) for own in places if len(own)), default=0)


def _layer(at: tuple[Tensor, ...], values: Tensor, bias: Tensor, width: int) -> nn.Module:
    """Return a layer with `values` at `at` (rows in order, columns) of its weight, in the form that is faster."""
    if pays_sparse(len(bias) * width, len(values)):
        return SparseLinear(at[0], at[1], values, bias, width)
    return dense_layer(values.new_zeros(len(bias), width).index_put(at, values), bias)


@cache
def _warn_no_more() -> None:
    """Spend torch's one warning of a process that its sparse rows are in beta state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nothing = torch.zeros(2, dtype=torch.int64, device="cpu")
        torch.sparse_csr_tensor(nothing, nothing[:0], nothing[:0].float(), (1, 1), check_invariants=False)
