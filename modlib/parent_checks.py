"""Whether a parent can be decomposed, and what of it can't be masked: asked before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks, masking
from modlib.data import SPLITS, Data
from modlib.engines.start import NORMALISATIONS
from modlib.parent import NotPicked, brought, called, copied, each_tensor, flat, functional_call
from modlib.precision import undisturbed
from modlib.sources import Tensors

SPARE = (
    "a class can come later where the parent was trained with a spare output for it (num_classes=, empty=True), or as "
    "a module of another parent (modlib.merge)"
)
"""What is possible for a class without an output."""
ROWS = 8
"""Rows of whole numbers of each part of a data set that a parent is asked about before work starts."""


def check_parent(parent: nn.Module, data: Data, policy: masking.Policy) -> None:
    """Raise unless `parent` can be copied and maps the inputs of `data` to one finite logit for every class."""
    original, parent = parent, copied(parent)
    inputs = _some_inputs(parent, data, policy)
    written = {name: weight._version for name, weight in parent.named_parameters()}
    with torch.no_grad(), _not_called(original):
        logits = _call(parent, {}, inputs)
    changed = [name for name, weight in parent.named_parameters() if weight._version != written[name]]
    if changed:
        raise ValueError(
            f"parent: a forward pass writes to its weights, as an Embedding with max_norm does: {_shortened(changed)}; "
            "they must stay what they are (max_norm=None)"
        )
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    count = min(2, len(data.train_labels))
    if shape != (count, data.num_classes):
        hint = "" if isinstance(logits, Tensor) else f"; pass logits=, a function that picks them{_picks(logits)}"
        if isinstance(shape, tuple) and len(shape) == 2 and shape[0] == count and shape[1] < data.num_classes:
            hint = f"; {SPARE}"
        if data.num_classes == 2 and shape in ((count,), (count, 1)):
            hint = "; of a single logit make two: logits=lambda z: torch.stack([-z.flatten(), z.flatten()], 1) / 2"
        raise ValueError(
            f"parent: must return logits of shape [batch, {data.num_classes} classes], got {shape} for a batch of "
            f"{count}{hint}"
        )
    checks.finite("parent: logits", logits)


def _picks(output: Any) -> str:
    """Return the function that picks the logits of an output that has them by this name."""
    if isinstance(getattr(output, "logits", None), Tensor):
        return ': operator.attrgetter("logits")'
    return ': operator.itemgetter("logits")' if isinstance(output, Mapping) and "logits" in output else ""


class _StillCalledError(ValueError):
    """Raised where the copy of a parent calls layers of the parent itself."""


@contextmanager
def _not_called(original: nn.Module) -> Iterator[None]:
    """Within it, raise where a layer of `original` is called: then its copy is none, and training would change it."""
    layers = {id(part) for part in original.modules()}

    def refuse(part: nn.Module, inputs: Any) -> None:
        if id(part) in layers:
            raise _StillCalledError(
                f"parent: a copy of it still calls its own {type(part).__name__}; a function that is stored in it "
                "(a lambda, for one) refers to the original: make it a method of the class"
            )

    hook = nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def unmasked_lines(parent: nn.Module, data: Data, policy: masking.Policy = masking.default_policy) -> list[str]:
    """Return what a decomposition of `parent` leaves out, a line for each kind: none where every weight is masked.

    Weights that no module can leave edges out of, because the policy does not mask them, or because they are in a
    quantised layer or in a buffer; masked weights without any part in the logits (an auxiliary head, or a layer that
    holds its weights elsewhere), whose masks mean nothing; and masked weights that the logits have no gradient for,
    whose masks stay as they were drawn. And whether the weights, and so the scores, are in half precision, and whether
    there are normalisations that are none of torch's, of which a module has no statistics of its own.
    """
    parent = copied(parent).requires_grad_(False)  # as the engines have it
    lines = []
    whole = masking.unmasked_parameters(parent, policy)
    if whole:
        share = sum(w.numel() for w in whole.values()) / sum(p.numel() for p in parent.parameters())
        lines.append(
            f"parent: {len(whole)} weights are not masked and stay whole in every module ({share:.1%} of all "
            f"parameters): {_shortened(whole)}; pass policy= to mask them"
        )
    weights = masking.maskable_parameters(parent, policy)
    copies = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    with undisturbed():
        logits = _call(parent, copies, _some_inputs(parent, data, policy))
    still = [name for name, gradient in zip(copies, _gradients(logits, copies), strict=True) if gradient is None]
    if len(still) == len(copies):
        raise ValueError(f"parent: no masked weight has a gradient from the logits; masked are {_shortened(copies)}")
    detached = _that_count(parent, still, _some_inputs(parent, data, policy)) if still else []
    idle = [name for name in still if name not in detached]
    if idle:
        lines.append(f"parent: {len(idle)} masked weights have no part in the logits: {_shortened(idle)}")
    if detached:
        lines.append(
            f"parent: {len(detached)} masked weights get no gradient (something is detached, or under no_grad): their "
            f"masks stay as they are drawn: {_shortened(detached)}; pass policy= to leave them whole"
        )
    quantised = [
        n for n, part in parent.named_modules() if ".quantized." in type(part).__module__ and "weight" in dir(part)
    ]
    if quantised:
        lines.append(f"parent: {len(quantised)} quantised layers are not masked: {_shortened(quantised)}")
    buffers = [  # matrices: more dimensions are rather a table of positions, and a mask is one of torch's pruning
        name
        for name, values in parent.named_buffers()
        if values.is_floating_point()
        and values.ndim == 2
        and masking.is_no_vector(values)
        and not name.endswith("_mask")
    ]
    counting = _that_count(parent, buffers, _some_inputs(parent, data, policy)) if buffers else []
    if counting:
        lines.append(
            f"parent: {len(counting)} buffers with a part in the logits are not masked: {_shortened(counting)}"
        )
    foreign = [
        name
        for name, part in parent.named_modules()
        if not isinstance(part, NORMALISATIONS) and {"running_mean", "running_var"} <= part._buffers.keys()
    ]
    if foreign:
        lines.append(
            f"parent: {len(foreign)} layers that are no batch normalisation of torch's keep the parent's running "
            f"statistics in every module, as with norm='frozen': {_shortened(foreign)}"
        )
    half = [name for name, weight in weights.items() if weight.dtype in (torch.float16, torch.bfloat16)]
    if half:
        lines.append(
            f"parent: {len(half)} masked weights are in half precision, and so are their scores, which rounds small "
            f"steps off: {_shortened(half)}; hand over parent.float(), and precision='bfloat16' for speed"
        )
    return lines


@torch.no_grad()
def _that_count(parent: nn.Module, names: Iterable[str], inputs: Any) -> list[str]:
    """Return the names of those weights and buffers without which, all 0, the logits of `inputs` would be others."""
    whole, state = _call(parent, {}, inputs), dict([*parent.named_parameters(), *parent.named_buffers()])
    zeros = {name: torch.zeros_like(state[name]) for name in names}
    return [name for name, zero in zeros.items() if not torch.equal(_call(parent, {name: zero}, inputs), whole)]


def _gradients(logits: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of the sum of `logits` for `weights`; None where a weight has no part in it."""
    if not logits.requires_grad:
        return (None,) * len(weights)
    try:
        return torch.autograd.grad(logits.sum(), list(weights.values()), allow_unused=True)
    except RuntimeError as error:  # checkpointed layers run again in the backward pass, then without the masks
        raise ValueError(f"parent: has no gradient (switch activation checkpointing off): {error}") from error


def _shortened(names: Iterable[str], shown: int = 4) -> str:
    first, rest = list(names)[:shown], len(list(names)) - shown
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


def _some_inputs(parent: nn.Module, data: Data, policy: masking.Policy) -> Any:
    """Return the first rows, two where there are two, as the parent takes them."""
    some = next(iter(masking.maskable_parameters(parent, policy).values()))
    source = data.part("train")

    inputs = source.batch(torch.arange(min(2, len(source.labels)))).inputs
    return each_tensor(brought(inputs, some), Tensor.contiguous)


def _call(parent: nn.Module, parameters: dict[str, Tensor], inputs: Any) -> Any:
    """Call `parent`, a copy of the user's, in eval mode with some parameters replaced; its buffers stay as they are."""
    try:
        parent.eval()
        return functional_call(parent, parameters, inputs)
    except (NotPicked, _StillCalledError):
        raise
    except Exception as error:  # it is the user's code: it may raise anything
        raise ValueError(_not_taken(parent, inputs, error)) from error


def taken(parent: nn.Module, inputs: Any) -> Any:
    """Return what `parent` gives for `inputs`; ValueError where it looks up what it does not have, such as an id."""
    try:
        return called(parent, inputs)
    except IndexError as error:
        raise ValueError(_not_taken(parent, inputs, error)) from error


@torch.no_grad()
def check_ids(network: nn.Module, data: Data) -> None:
    """Raise ValueError where `network` does not take some rows of whole numbers, in any part of `data`.

    Of data in memory those with the largest and the smallest number are among them, else they are the first ones.
    """
    parts = [data.part(split) for split in SPLITS if len(getattr(data, f"{split}_labels"))]
    like = next(network.parameters())
    for source in parts if data.background is None else [*parts, data.background]:
        rows = torch.arange(min(ROWS, len(source.labels)))
        if isinstance(source, Tensors):
            ends = [(ids.flatten(1).amin(1).argmin(), ids.flatten(1).amax(1).argmax()) for ids in _ids(source.inputs)]
            rows = torch.cat([rows, torch.tensor(ends, dtype=torch.int64).flatten()])
        inputs = brought(source.batch(rows.to(source.labels.device)).inputs, like)
        if _ids(inputs):
            taken(network, inputs)


def _ids(inputs: Any) -> list[Tensor]:
    """Return the whole numbers among inputs."""
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return [values[:, None] if values.ndim == 1 else values for values in flat(inputs) if values.dtype in kinds]


def _not_taken(parent: nn.Module, inputs: Any, error: Exception) -> str:
    """Return that a parent does not take inputs, in words; of whole numbers with their range."""
    shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
    said, ids = f"parent: does not take inputs of shape {shape}: {error!r}", _ids(inputs)
    if not ids or not isinstance(error, IndexError):
        return said
    ranges = ", ".join(f"from {int(values.min())} to {int(values.max())}" for values in ids)
    sizes = sorted({part.num_embeddings for part in parent.modules() if isinstance(part, nn.Embedding)})
    sizes_in_words = f", which here has {' or '.join(map(str, sizes))} rows" if sizes else ""
    return f"{said}; its whole numbers are {ranges}: ids must be from 0 to below the embedding's size{sizes_in_words}"
