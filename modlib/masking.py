"""Supermasks over frozen weights (paper, section "Training Mask"; edge-popup, Ramanujan et al. 2020).

A supermask keeps the top k share of the edges of every layer, ranked by a real-valued score per edge. The weights W
never change; the scores S are trained. With h the choice of the top k and ⊙ the product by element::

    forward    ŷ = (W ⊙ h(S))ᵀ x
    backward   dL/dS = dL/dM, M = h(S): the gradient goes straight through h
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from modlib import checks

Policy = Callable[[nn.Module, str], bool]
"""Says whether a parameter is masked: called with the submodule that owns it and its name there."""

SCORES = ("positive", "absolute")
INITS = ("kaiming", "magnitude")
ALLOCATIONS = ("uniform", "lamp")
COUNTED = 1 << 20
"""Edges of a layer that are counted at once: what that takes in memory does not grow with the layer."""
COUNTED_TOGETHER = 16
"""Up to so many modules, edges are counted once by which modules keep them: 2**16 counts for any subset."""

LISTED = 10
"""Classes, and layers, that are printed at most, where there are more."""

PACKED = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""The projections of `nn.MultiheadAttention`, which it holds itself instead of in linear layers."""


def default_policy(owner: nn.Module, name: str) -> bool:
    """The weights of linear and (transposed) convolutional layers and the projections of attention, nothing else."""
    if isinstance(owner, nn.MultiheadAttention):
        return name in PACKED
    return name == "weight" and isinstance(owner, (nn.Linear, nn.modules.conv._ConvNd))


def maskable_parameters(model: nn.Module, policy: Policy = default_policy) -> dict[str, nn.Parameter]:
    """Return the parameters of `model` that `policy` masks, by qualified name, in the model's own order.

    A parameter that two layers share appears once, under its first name: its edges exist once.
    Raises ValueError where the policy finds nothing to mask or masks a single number, and for lazy layers that have no
    weights yet.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, parameter, masked in _parameters(model, policy):
        if masked and parameter.ndim == 0:
            raise ValueError(f"policy: masks {name!r}, a single number; masks choose among the numbers of a tensor")
        if masked and id(parameter) not in seen:
            seen.add(id(parameter))
            found[name] = parameter
    if not found:
        raise ValueError(
            f"parent: {type(model).__name__} has no maskable layer; the default policy masks the weights of "
            "linear, convolutional and attention layers, pass policy= to mask others"
        )
    return found


def unmasked_parameters(model: nn.Module, policy: Policy = default_policy) -> dict[str, nn.Parameter]:
    """Return the weights of `model` that `policy` leaves whole: matrices and tensors, by qualified name.

    Vectors (biases, a class token), whatever shape they are written in, and scales and shifts of normalisation are left
    out: they are not edges. A weight that is masked under another name is masked.
    """
    known = {id(parameter) for parameter in maskable_parameters(model, policy).values()}
    layers = (layer for layer in model.modules() if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)))
    known |= {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    return {
        name: parameter
        for name, parameter, _ in _parameters(model, policy)
        if id(parameter) not in known and is_no_vector(parameter)
    }


def is_no_vector(values: Tensor) -> bool:
    """Say whether two dimensions of a tensor at least are longer than one."""
    return values.numel() > max(values.shape, default=1)


def _parameters(model: nn.Module, policy: Policy) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Yield every parameter under each of its names, and whether the policy masks it there."""
    check_not_lazy(model)
    for path, owner in model.named_modules():
        for name, parameter in owner.named_parameters(recurse=False, remove_duplicate=False):
            yield f"{path}.{name}" if path else name, parameter, policy(owner, name)


def check_not_lazy(model: nn.Module) -> None:
    """Raise ValueError where a layer of `model` takes its sizes from its first inputs and has not seen any."""
    for path, owner in model.named_modules():
        if any(is_lazy(values) for values in (*owner.parameters(recurse=False), *owner.buffers(recurse=False))):
            raise ValueError(f"parent: the lazy layer {path!r} has no weights yet; call the parent once before")


def keep_counts(k: float | Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return how many edges of every layer are kept: max(1, floor(k·n + 0.5)) of n.

    `k`: one share in (0, 1] for all layers, or a share for a layer by name; the key "default" stands for the rest.
    Raises ValueError for a share outside (0, 1], an unknown layer, or a layer left without a share.
    """
    shares: Mapping[str, float] = k if isinstance(k, Mapping) else {"default": k}
    for name, share in shares.items():
        if name != "default" and name not in sizes:
            raise ValueError(f"k: unknown layer {name!r}; this parent's maskable layers are {list(sizes)}")
        checks.share("k" if name == "default" else f"k[{name!r}]", share)
    missing = [name for name in sizes if name not in shares and "default" not in shares]
    if missing:
        raise ValueError(f"k: no share for {missing}; name them or add a 'default'")
    return {
        name: max(1, math.floor(shares.get(name, shares.get("default", 0.0)) * n + 0.5)) for name, n in sizes.items()
    }


def kept_edges(k: float | Mapping[str, float], weights: Mapping[str, Tensor], allocation: str) -> dict[str, int]:
    """Return how many edges of every layer a module keeps.

    `allocation`: "uniform" (the paper), the share `k` of every layer, or as `keep_counts` takes it. "lamp" (ours): the
    share `k` of all edges, shared out among the layers by the parent's weights: as many of each as are among the
    highest scores of layer-adaptive magnitude pruning, `W_u² / Σ W_v²` over the edges v of the layer that are no
    smaller than u, among equals the lower index counting as larger (Lee et al. 2021, eq. 1). Every layer keeps its
    largest weight at least. Raises ValueError as `keep_counts`, and for shares by layer with "lamp".
    """
    checks.choice("allocation", allocation, ALLOCATIONS)
    if allocation == "uniform":
        return keep_counts(k, sizes(weights))
    if isinstance(k, Mapping):
        raise ValueError("k: shares by layer go with allocation='uniform'; 'lamp' finds them itself, give one share")
    checks.share("k", k)
    scores = [_lamp_scores(weight.detach().cpu().flatten().double()) for weight in weights.values()]
    total = sum(map(len, scores))
    kept = top_k_mask(torch.cat(scores), max(len(scores), math.floor(k * total + 0.5)))
    return {name: int(part.sum()) for name, part in zip(weights, kept.split([len(s) for s in scores]), strict=True)}


def _lamp_scores(weights: Tensor) -> Tensor:
    """Return the scores of layer-adaptive magnitude pruning of one layer [n], the largest first: that one has 1."""
    squares = weights.square().sort(descending=True).values
    return (squares / squares.cumsum(0).clamp(min=1e-300)).index_fill_(0, torch.tensor([0]), 1.0)


def initial_scores(weight: Tensor, init: str, scores: str, generator: torch.Generator) -> Tensor:
    """Return initial scores of the shape and dtype of `weight`.

    `kaiming` (the paper): Kaiming normal for ReLU, standard deviation sqrt(2 / fan_in) (He et al. 2015).
    `magnitude` (ours): in the order of `|weight|`, scaled to that same root mean square.
    `scores` = "positive" starts from absolute values, "absolute" keeps the sign (see `ranked`).
    """
    shape = weight.shape if weight.ndim > 1 else (1, weight.numel())
    drawn = torch.empty(shape, dtype=weight.dtype)
    nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
    if init == "magnitude":
        fan_in = nn.init._calculate_correct_fan(drawn, "fan_in")
        values = weight.detach().cpu().to(torch.promote_types(weight.dtype, torch.float32))  # half would underflow
        drawn = values * (math.sqrt(2.0 / fan_in) / values.square().mean().sqrt().clamp(min=1e-30))
    drawn = drawn.reshape(weight.shape).contiguous().to(weight.dtype)
    return drawn.abs() if scores == "positive" else drawn


def ranked(scores: Tensor, reading: str) -> Tensor:
    """Return what is ranked: S itself ("positive"), or `|S|` ("absolute", edge-popup as usually written)."""
    return scores if reading == "positive" else scores.abs()


def top_k_mask(values: Tensor, keep: int) -> Tensor:
    """Return the mask h of the `keep` largest of `values` [..., n]: bool, exact; among equals the lower index wins.

    This is the definition, by a stable sort. The engines use `modlib.engines.selection.TopK`: the same masks, faster.
    """
    order = values.sort(dim=-1, descending=True, stable=True).indices[..., :keep]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, order, True)


def straight_through(mask: Tensor, values: Tensor) -> Tensor:
    """Return `mask` (0 or 1, exactly) with the gradient of `values`: dL/dvalues = dL/dmask."""
    return mask + (values - values.detach())


@dataclass(frozen=True)
class MaskSet:
    """The supermasks of all modules of one parent.

    `masks`: layer name -> bool `[N modules, *weight shape]`. `classes`: the class of each module, in that order.
    Everything counted here is counted over maskable weights.
    """

    masks: Mapping[str, Tensor]
    classes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError("masks: empty; at least one layer is needed")
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ValueError(f"classes: must be distinct and not empty, got {list(self.classes)}")
        for name, mask in self.masks.items():
            if mask.dtype != torch.bool:
                raise TypeError(f"masks[{name!r}]: must be bool, got {mask.dtype}")
            if mask.ndim < 2 or mask.shape[0] != len(self.classes):
                raise ValueError(
                    f"masks[{name!r}]: must be [{len(self.classes)} modules, *weight shape], got {tuple(mask.shape)}"
                )

    def __repr__(self) -> str:
        """A line, without the masks themselves."""
        layers = ", ".join(f"{name} {list(mask.shape[1:])}" for name, mask in list(self.masks.items())[:LISTED])
        more = f" and {len(self.masks) - LISTED} more" if len(self.masks) > LISTED else ""
        return f"MaskSet of {len(self.classes)} classes ({shortened(self.classes)}) over {layers}{more}"

    def rows(self, subset: Iterable[int]) -> list[int]:
        """Return the positions of the modules of `subset`, in its order. Raises ValueError for what is not there."""
        return [self.classes.index(c) for c in checks.subset(subset, self.classes)]

    def select(self, subset: Iterable[int]) -> MaskSet:
        """Return the masks of the modules of `subset` alone, in its order."""
        rows = self.rows(subset)
        return MaskSet({n: m[rows] for n, m in self.masks.items()}, tuple(self.classes[r] for r in rows))

    def union(self, subset: Iterable[int] | None = None) -> dict[str, Tensor]:
        """Return, by layer, the edges that any module of `subset` (default: all) keeps: bool, the weight's shape."""
        rows = self.rows(self.classes if subset is None else subset)
        return {name: mask[rows].any(0) for name, mask in self.masks.items()}

    def intersection(self, subset: Iterable[int] | None = None) -> dict[str, Tensor]:
        """Return, by layer, the edges that every module of `subset` (default: all) keeps."""
        rows = self.rows(self.classes if subset is None else subset)
        return {name: mask[rows].all(0) for name, mask in self.masks.items()}

    @cached_property
    def _kept_by(self) -> Tensor:
        """How many edges are kept by which modules: int64 [2**N], bit i of an index is module i."""
        counts = torch.zeros(2 ** len(self.classes), dtype=torch.int64, device="cpu")
        for mask in self.masks.values():
            for part in mask.flatten(1).split(COUNTED, dim=1):
                which = torch.zeros(part.shape[1], dtype=torch.int32, device=mask.device)
                for i, own in enumerate(part):
                    which.add_(own, alpha=2**i)
                counts += torch.bincount(which, minlength=len(counts)).cpu()
        return counts

    def _keepers(self) -> Tensor:
        """Return which modules each index of `_kept_by` stands for: bool [2**N, N]."""
        subsets, modules = (torch.arange(n, device="cpu") for n in (len(self._kept_by), len(self.classes)))
        return (subsets[:, None] >> modules & 1).bool()

    def common(self) -> Tensor:
        """Return the number of edges that modules i and j both keep: float64 [N, N]; the diagonal is each one's own."""
        if len(self.classes) <= COUNTED_TOGETHER:
            keepers = self._keepers().double()
            return keepers.T @ (keepers * self._kept_by[:, None])
        total = torch.zeros(len(self.classes), len(self.classes), dtype=torch.float64, device="cpu")
        for mask in self.masks.values():
            for part in mask.flatten(1).split(COUNTED, dim=1):
                flat = part.float()  # counts below 2**24 are exact in float32
                total += (flat @ flat.T).double().cpu()
        return total

    def jaccard(self) -> Tensor:
        """Return the Jaccard index `|A ∩ B| / |A ∪ B|` of every two modules' masks: float64 [N, N]."""
        common = self.common()
        own = common.diagonal()
        return common / (own[:, None] + own[None, :] - common)

    def mean_jaccard(self) -> float:
        """Return the Jaccard index averaged over all pairs of different modules (1.0 for a single module)."""
        return mean_over_pairs(self.jaccard()) if len(self.classes) > 1 else 1.0

    def remaining(self, subset: Iterable[int] | None = None) -> float:
        """Return the share of the maskable weights that the union of `subset` (default: all) keeps, in [0, 1]."""
        edges = sum(mask[0].numel() for mask in self.masks.values())
        if len(self.classes) <= COUNTED_TOGETHER:
            rows = self.rows(self.classes if subset is None else subset)
            return int(self._kept_by[self._keepers()[:, rows].any(1)].sum()) / edges
        return sum(int(m.sum()) for m in self.union(subset).values()) / edges

    def remaining_by_layer(self, subset: Iterable[int] | None = None) -> dict[str, float]:
        """Return the same share for every layer by itself."""
        return {name: float(mask.float().mean()) for name, mask in self.union(subset).items()}

    def remaining_of_pairs(self) -> Tensor:
        """Return the share kept by the union of every two modules: float64 [N, N]; the diagonal is one module's."""
        common = self.common()
        own = common.diagonal()
        return (own[:, None] + own[None, :] - common) / sum(mask[0].numel() for mask in self.masks.values())


def shortened(classes: Iterable[int | str]) -> str:
    """Return classes, by number or name, as they are printed: where there are many, the first ones and the last."""
    asked = list(classes)
    shown = [*asked[:LISTED], "…", asked[-1]] if len(asked) > LISTED + 2 else asked
    return ", ".join(map(str, shown))


def mean_over_pairs(matrix: Tensor) -> float:
    """Return the mean of a symmetric matrix [N, N] over the N(N-1)/2 pairs off its diagonal."""
    n = matrix.shape[0]
    above = torch.triu(torch.ones(n, n, dtype=torch.bool, device=matrix.device), diagonal=1)
    return float(matrix[above].mean())


def same_for_all(mask: Mapping[str, Tensor], classes: Iterable[int]) -> MaskSet:
    """Return one mask (layer -> bool, the weight's shape) as that of every class, without copies."""
    chosen = tuple(classes)
    return MaskSet({name: m.expand(len(chosen), *m.shape) for name, m in mask.items()}, chosen)


def sizes(parameters: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of edges of every layer."""
    return {name: parameter.numel() for name, parameter in parameters.items()}
