"""Parents as users bring them: copied, told apart, called with other weights, their logits picked out of the output."""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib.checksums import in_bytes
from modlib.masking import check_not_lazy

COUNTS = "num_batches_tracked"
"""The buffer of a batch normalisation that counts the batches it has seen."""


class NotPicked(ValueError):
    """Raised where the function `logits` fails on what the parent returns."""


@dataclass(frozen=True)
class _Picked:
    """A forward hook that replaces a network's output by the logits in it."""

    pick: Callable[[Any], Tensor]

    def __call__(self, network: nn.Module, inputs: Any, output: Any) -> Tensor:
        try:
            return self.pick(output)
        except Exception as error:  # it is the user's function: it may raise anything
            raise NotPicked(f"logits: fails on the parent's output, a {type(output).__name__}: {error!r}") from error


def with_logits(parent: nn.Module, pick: Callable[[Any], Tensor]) -> nn.Module:
    """Return a copy of `parent` whose output is `pick(output)`, the logits [B, N]; its parameters keep their names."""
    if not callable(pick):
        raise TypeError(f"logits must be a function of what the parent returns, got {pick!r}")
    network = copied(parent)
    network.register_forward_hook(_Picked(pick))
    return network


def picked(network: nn.Module) -> bool:
    """Say whether a network is one of `with_logits`."""
    return picking(network) is not None


def picking(network: nn.Module) -> Callable[[Any], Tensor] | None:
    """Return the function that picks the logits of a network of `with_logits`, or None for another."""
    return next((hook.pick for hook in network._forward_hooks.values() if isinstance(hook, _Picked)), None)


def without_picking(network: nn.Module) -> nn.Module:
    """Return `network` itself, made to return again what it did before `with_logits`."""
    for key in [key for key, hook in network._forward_hooks.items() if isinstance(hook, _Picked)]:
        del network._forward_hooks[key]
    return network


def unwrapped(parent: nn.Module) -> nn.Module:
    """Return the network that `torch.compile`, DataParallel or DistributedDataParallel wraps; others as they are.

    Each of them puts a prefix in front of the names of its parameters, and would run the network's own forward pass.
    Raises ValueError where hooks of the wrapper's own would be lost.
    """
    while (inner := _in_wrapper(parent)) is not None:
        if parent._forward_hooks or parent._forward_pre_hooks:
            raise ValueError(
                f"parent: the {type(parent).__name__} around the network has hooks; register them on the network in it"
            )
        parent = inner
    return parent


def _in_wrapper(network: nn.Module) -> nn.Module | None:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # loaded by torch.compile; to import it takes a second
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return network.module
    if dynamo is not None and isinstance(network, dynamo.OptimizedModule):
        return network._orig_mod
    return None


def copied(parent: nn.Module) -> nn.Module:
    """Return a deep copy of `parent`, of what is in it where it is a wrapper, see `unwrapped`.

    Raises TypeError where it is no `nn.Module`, or has a compiled program in it; ValueError where it has no copy.
    """
    if not isinstance(parent, nn.Module):
        raise TypeError(f"parent must be an nn.Module, got {type(parent).__name__}")
    parent = unwrapped(parent)
    check_not_lazy(parent)
    scripted = [name for name, part in parent.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        raise TypeError(
            "parent: a compiled program of torch.jit, in which weights cannot be replaced: "
            f"{'the whole of it' if '' in scripted else scripted[0]}; hand over the network as it was before"
        )
    try:
        return copy.deepcopy(parent, _kept_activations(parent))
    except Exception as error:  # torch and users' own __deepcopy__ raise many kinds
        raise ValueError(f"parent: {type(parent).__name__} cannot be copied: {error}") from error


def _kept_activations(parent: nn.Module) -> dict[int, Any]:
    """Return copies, by id, of what earlier passes left in the layers with its graph, which torch does not copy."""
    kept = (v for part in parent.modules() for value in vars(part).values() for v in _tensors_in(value))
    return {id(v): v.detach().clone() for v in kept if not v.is_leaf}


def _tensors_in(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """Yield the tensors in a value, or in lists, tuples and dicts of such."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, list | tuple | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(part, depth - 1)


def frozen_copy(parent: nn.Module) -> nn.Module:
    """Return a copy of `parent`, in eval mode, whose parameters take no gradient."""
    return frozen(copied(parent))


def frozen(network: nn.Module) -> nn.Module:
    """Return `network` itself, put in eval mode, its parameters without gradient."""
    network.eval()  # a user's own train() may return nothing: no chain of calls
    network.requires_grad_(False)
    return network


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within it a network is in eval mode; afterwards each part is in the mode that it was in."""
    before = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


class Reweighted:
    """A network that is called with some of its parameters and buffers replaced; it stays as it is itself.

    torch's own `functional_call` ties names too, but where one layer has two names it leaves the replacement in the
    network. What shares what is looked up once, here: it must not change between calls.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._names: dict[int, list[str]] = {}
        self._held: dict[str, Tensor] = {}
        self._buffers: dict[int, Tensor] = {}
        for path, owner in network.named_modules():  # each layer once
            self._buffers |= {id(values): values for values in owner._buffers.values() if values is not None}
            for name, values in (*owner._parameters.items(), *owner._buffers.items()):
                if values is not None:
                    full = f"{path}.{name}" if path else name
                    self._held[full] = values
                    self._names.setdefault(id(values), []).append(full)

    def __call__(self, replaced: Mapping[str, Tensor], inputs: Any) -> Any:
        """Return what the network gives for `inputs` with `replaced` in place of its own, by the first name of each.

        `inputs`: a tensor; or a tuple or a dict, which are handed over as arguments, by position or by name. Other
        buffers are handed over as copies: a forward pass may write to them.
        """
        every = {same: v for name, v in replaced.items() for same in self._names[id(self._held[name])]}
        for key, values in self._buffers.items():
            if self._names[key][0] not in every:
                every |= dict.fromkeys(self._names[key], values.clone())
        by_position, by_name = arguments(inputs)
        return torch.func.functional_call(self.network, every, by_position, by_name, tie_weights=False)


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return how a network takes `inputs`: by position (a tensor, or a tuple of several), and by name (a dict)."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, tuple) else (inputs,)), {}


def called(network: nn.Module, inputs: Any) -> Any:
    """Return what a network gives for `inputs`, handed over as `arguments` says."""
    by_position, by_name = arguments(inputs)
    return network(*by_position, **by_name)


def each_tensor(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return `inputs` with every tensor in it, alone or in tuples, lists and dicts, changed by a function."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {name: each_tensor(part, change) for name, part in inputs.items()}
    if isinstance(inputs, tuple | list):
        return type(inputs)(each_tensor(part, change) for part in inputs)
    return inputs


def flat(inputs: Any) -> list[Tensor]:
    """Return the tensors in inputs, alone or in tuples, lists and dicts."""
    return list(_tensors_in(inputs))


def brought(inputs: Any, like: Tensor) -> Any:
    """Return inputs where `like` is, floating-point ones in its type; others, such as ids, stay of theirs."""
    return each_tensor(inputs, lambda v: v.to(like.device, like.dtype if v.is_floating_point() else None))


def number_of_rows(inputs: Any) -> int:
    """Return how many images there are in `inputs`: the first dimension of the first tensor in them."""
    return len(next(_tensors_in(inputs)))


def rows_of(inputs: Any, rows: slice | Tensor) -> Any:
    """Return some rows of `inputs`, by their numbers."""
    return each_tensor(inputs, lambda values: values[rows])


def in_parts(inputs: Any, rows: int) -> Iterator[Any]:
    """Yield `inputs` some rows at a time."""
    for start in range(0, number_of_rows(inputs), rows):
        yield rows_of(inputs, slice(start, start + rows))


def functional_call(network: nn.Module, replaced: Mapping[str, Tensor], inputs: Any) -> Any:
    """Return what `network` gives with some parameters and buffers replaced; see `Reweighted`, for many calls."""
    return Reweighted(network)(replaced, inputs)


def parent_hash(parent: nn.Module) -> str:
    """Return the SHA-256 of a parent: of every entry of its state_dict in order, its name, dtype, shape and bytes.

    Entries that are no tensors, a user's extra state, are left out: masks choose among numbers. So are the numbers of
    batches that batch normalisations have seen, on which nothing in eval mode depends, and what wraps the network.
    """
    return _hash_of({n: v for n, v in unwrapped(parent).state_dict().items() if n.split(".")[-1] != COUNTS})


def former_hash(parent: nn.Module) -> str:
    """Return the hash of a parent as it was in files until 0.2.0: the numbers of batches were a part of it."""
    return _hash_of(unwrapped(parent).state_dict())


def _hash_of(state: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        values = value if value.layout == torch.strided else value.to_dense()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(in_bytes(values).data)
    return digest.hexdigest()
