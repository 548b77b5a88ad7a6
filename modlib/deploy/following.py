"""What follows a layer, read off what autograd records while a network is called: modules and functions alike."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from modlib.parent import called, evaluating

NORMALISATIONS = nn.modules.batchnorm._BatchNorm


def relu_follows(network: nn.Module, example: Any) -> dict[str, str | None]:
    """Return the layers with weights whose outputs a ReLU takes and nothing else does.

    By name: the batch normalisation in between, or None where there is none. Layers that are called more than once are
    left out. The network is called once, in eval mode, on `example`.
    """
    given: dict[str, Any] = {}  # layer -> the function that autograd has recorded for its output
    calls: Counter[str] = Counter()
    kinds = (nn.Conv2d, nn.Linear, NORMALISATIONS)
    parts = {name: part for name, part in network.named_modules() if isinstance(part, kinds)}

    def listen(name: str, output: Tensor) -> None:
        calls[name] += 1
        given[name] = output.grad_fn

    asked = {parameter: parameter.requires_grad for parameter in network.parameters()}
    network.requires_grad_(True)
    try:
        with ExitStack() as hooks, evaluating(network), torch.enable_grad():
            for name, part in parts.items():
                hooks.enter_context(part.register_forward_hook(lambda _m, _i, out, name=name: listen(name, out)))
            takers = _takers(called(network, example).grad_fn)
    finally:
        for parameter, before in asked.items():
            parameter.requires_grad_(before)
    norms = {given[n]: n for n, p in parts.items() if isinstance(p, NORMALISATIONS) and n in given}
    found: dict[str, str | None] = {}
    for name, part in parts.items():
        if isinstance(part, NORMALISATIONS) or calls[name] != 1:
            continue
        after, norm = _only(takers, given[name]), None
        if after in norms and parts[norms[after]].running_mean is not None:
            norm = norms[after]
            after = _only(takers, after) if calls[norm] == 1 else None
        if after is not None and after.name() == "ReluBackward0":
            found[name] = norm
    return found


def _takers(last: Any) -> dict[Any, list[Any]]:
    """Return who takes each function's output, from the last function back."""
    takers: dict[Any, list[Any]] = {last: []}
    waiting = [last]
    while waiting:
        taker = waiting.pop()
        for function, _ in taker.next_functions:
            if function is None:
                continue
            if function not in takers:
                takers[function] = []
                waiting.append(function)
            takers[function].append(taker)
    return takers


def _only(takers: dict[Any, list[Any]], function: Any) -> Any:
    """Return who alone takes a function's output, else None."""
    found = takers.get(function, [])
    return found[0] if len(found) == 1 else None
