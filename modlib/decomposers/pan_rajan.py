"""TI-I, TI-SNE and CM-RIE: Pan and Rajan's decomposition of fully connected ReLU networks (ESEC/FSE 2020).

Rules on activations, nothing is trained. Written in closed form after the authors' public artefact (the repository
rangeetpan/decomposeDNNintoModules); where its scripts differ from model to model, one recipe for all. Layers 1 to L
have weights W_l [in, out] and biases b_l [out]; (D_l, d_l) is the module under construction. A neuron is *active* on an
image where its value is above 0 in the *linear* chain z_l = z_(l-1) W_l + b_l, without the ReLU between the layers.

A module stays a network of N outputs with a softmax; the module of class c votes if its largest output is c.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modlib import checks
from modlib.data import Data, Dataset
from modlib.engines.vectorised import fully_connected_layers
from modlib.library import whole_or_not
from modlib.masking import MaskSet
from modlib.sources import Preprocess

Layers = list[tuple[Tensor, Tensor]]
"""The weight [in, out] and the bias [out] of every layer, the output layer last."""

METHODS = ("TI-I", "TI-SNE", "CM-RIE")
NEGATIVES = {"TI-I": 1, "TI-SNE": 110, "CM-RIE": 110}
"""How many images of every other class put back what a module needs to say "another"."""
SCANNED, POSITIVES, SURE = 10_000, 1000, 0.9
"""Positives of a class: at most 1000, among the first 10,000 images, where its probability is above 0.9."""
WEAK = 0.05
"""CM-RIE merges the last hidden neurons whose weight to the module's class is below this in magnitude."""


@dataclass(frozen=True)
class PanRajan:
    """Decomposes by one of their rules, `METHODS`. Takes fully connected ReLU networks with biases."""

    method: str

    def decompose(
        self,
        parent: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        classes: Iterable[int] | None = None,
        device: str | torch.device = "auto",
    ) -> RuleModules:
        """See `modlib.decomposers.Decomposer`. Nothing is drawn, and nothing moved: `seed` and `device` do nothing."""
        given = _of_images(data)
        made = decompose(layers_of(parent), given.train_images, given.train_labels, self.method, given.inputs)
        return RuleModules(tuple(made), tuple(range(len(made)))).select(classes)


@dataclass(frozen=True)
class WithoutIdleNeurons:
    """A control that decomposes nothing: every class gets the network without its idle neurons. Ours."""

    def decompose(
        self,
        parent: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        classes: Iterable[int] | None = None,
        device: str | torch.device = "auto",
    ) -> RuleModules:
        """See `modlib.decomposers.Decomposer`."""
        given = _of_images(data)
        made = without_idle_neurons(layers_of(parent), given.train_images, given.inputs)
        return RuleModules(tuple(made), tuple(range(len(made)))).select(classes)


@dataclass(frozen=True)
class RuleModules:
    """What the rules make: for every class a network of all N outputs, zeros where it is cut."""

    modules: tuple[Layers, ...]
    classes: tuple[int, ...]

    def select(self, subset: Iterable[int] | None) -> RuleModules:
        """Return the modules of `subset` (None: all), in its order."""
        chosen = checks.subset(self.classes if subset is None else subset, self.classes)
        return RuleModules(tuple(self.modules[self.classes.index(c)] for c in chosen), tuple(chosen))

    def recompose(self, subset: Iterable[int]) -> RuleVote:
        """Return the network in which the modules of `subset` vote by their rule."""
        return RuleVote(self.select(subset))

    @torch.no_grad()
    def log_odds(self, inputs: Tensor) -> Tensor:
        """Return the log-odds of every module's own class, log p / (1 - p) of its softmax: float64 [B, C]."""
        own = [probabilities(m, inputs)[:, c] for m, c in zip(self.modules, self.classes, strict=True)]
        return torch.stack(own, 1).double().logit(eps=1e-15)

    def remaining(self, subset: Iterable[int] | None = None) -> float:
        """Return the share of the weights that the union of `subset` (default: all) keeps, in [0, 1]."""
        return self.masks.remaining(subset)

    @property
    def masks(self) -> MaskSet:
        """The edges that each module keeps."""
        return mask_set(self.modules, self.classes)

    def save(self, path: str | Path) -> None:
        """Write `weight/<layer>` [C, in, out] and `bias/<layer>` [C, out] to one safetensors file."""
        named = {}
        for i, layer in enumerate(zip(*self.modules, strict=True)):
            named[f"weight/{i}"] = torch.stack([weight for weight, _ in layer]).contiguous()
            named[f"bias/{i}"] = torch.stack([bias for _, bias in layer]).contiguous()
        whole_or_not(Path(path), named, {"format": "modlib rules", "classes": json.dumps(self.classes)})


class RuleVote(nn.Module):
    """A network for some classes: inputs [B, ...] -> [B, K], the largest wins; see `confidences`."""

    classes: Tensor

    def __init__(self, chosen: RuleModules) -> None:
        super().__init__()
        self.register_buffer("classes", torch.tensor(chosen.classes))
        self.depth = len(chosen.modules[0])
        for i in range(self.depth):
            self.register_buffer(f"weight_{i}", torch.stack([module[i][0] for module in chosen.modules]))
            self.register_buffer(f"bias_{i}", torch.stack([module[i][1] for module in chosen.modules]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what each module votes by, see `confidences`."""
        modules = [
            [(self.get_buffer(f"weight_{i}")[m], self.get_buffer(f"bias_{i}")[m]) for i in range(self.depth)]
            for m in range(len(self.classes))
        ]
        return confidences(torch.stack([probabilities(module, inputs) for module in modules]), self.classes)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Return the class that wins the vote, one of the asked ones: int64 [B]."""
        return self.classes[self(inputs).argmax(1)]


def twice_scaled(images: Tensor) -> Tensor:
    """Return pixel / 255 / 255 as float32 [B, pixels] of uint8 `images`: what the authors' stored parents take."""
    return images.flatten(1).to(torch.float32) / 255.0 / 255.0


def decompose(
    layers: Sequence[tuple[Any, Any]], images: Any, labels: Any, method: str, preprocess: Preprocess = twice_scaled
) -> list[Layers]:
    """Return the module of every class, in order: its weights [in, out] and biases [out], zeros where cut.

    Args:
        layers: weight [in, out] and bias [out] of every layer of the trained network, two layers or more.
        images: uint8 training images [n, ...], in the order of their file, on which positives and negatives depend.
        labels: whole numbers [n], from 0 to N - 1, N the width of the last layer.
        method: "TI-I", "TI-SNE" or "CM-RIE".
        preprocess: uint8 images -> float32 inputs [n, ...]; default, that of the authors' stored parents. Own parents
            take that of their data set, `data.inputs`.

    Raises:
        TypeError, ValueError: before any work, for an argument of another kind or shape; and for a class of which
            fewer than two images are positives, because the rules need two.

    Source: Pan and Rajan 2020, as their artefact does it; one recipe for all networks.
    """
    checks.choice("method", method, METHODS)
    network = checked_layers(layers)
    given, classes = _images(images), _labels(labels, len(images), network[-1][0].shape[1])
    scanned = _inputs(preprocess, given[:SCANNED], network)
    sure = probabilities(network, scanned)
    active = activity(network, scanned)
    modules = []
    for c in range(network[-1][0].shape[1]):
        positives = ((classes[:SCANNED] == c) & (sure[:, c] > SURE)).nonzero()[:POSITIVES, 0]
        if len(positives) < 2:
            raise ValueError(
                f"images: {len(positives)} of class {c} have a probability above {SURE} among the first {SCANNED}; "
                "two are needed"
            )
        negatives = _inputs(preprocess, given[_negatives(classes, c, NEGATIVES[method])], network)
        module = identify_concern(network, [of_layer[positives] for of_layer in active])
        module = put_back(module, network, activity(network, negatives))
        modules.append(merge(module, c) if method == "CM-RIE" else module)
    return modules


def without_idle_neurons(
    layers: Sequence[tuple[Any, Any]], images: Any, preprocess: Preprocess = twice_scaled
) -> list[Layers]:
    """Return one module N times, a control that decomposes nothing: the network without its idle hidden neurons.

    A neuron is idle that none of the first 10,000 images activates; it loses its incoming weights and its bias.
    Arguments and errors as in `decompose`. Ours, not of the paper.
    """
    network = checked_layers(layers)
    active = activity(network, _inputs(preprocess, _images(images)[:SCANNED], network))
    hidden = [
        (_kept(weight, used.any(0)), _kept(bias, used.any(0)))
        for (weight, bias), used in zip(network[:-1], active, strict=True)
    ]
    return [[*hidden, _copy(network[-1])]] * network[-1][0].shape[1]


def activity(layers: Layers, inputs: Tensor) -> list[Tensor]:
    """Return on which inputs [B, in] each hidden neuron is active, by layer: bool [B, width]."""
    found, values = [], inputs
    for weight, bias in layers[:-1]:
        values = values @ weight + bias  # no ReLU: theirs is a linear chain
        found.append(values > 0)
    return found


def identify_concern(layers: Layers, active: Sequence[Tensor]) -> Layers:
    """Return what the positives, all of them, use (CI); `active`: their activity by hidden layer, bool [T, width].

    Of a hidden layer stay the positive weights into neurons active on every positive, from neurons of the layer before
    active on every positive but the first; a bias stays where the last positive activates it. The output layer stays.
    """
    module: Layers = []
    for i, (weight, bias) in enumerate(layers[:-1]):
        keep = (weight > 0) & active[i].all(0)
        if i > 0:
            keep &= active[i - 1][1:].all(0)[:, None]
        module.append((_kept(weight, keep), _kept(bias, active[i][-1])))
    return [*module, _copy(layers[-1])]


def put_back(module: Layers, layers: Layers, active: Sequence[Tensor]) -> Layers:
    """Return `module` with what any negative uses put back (TI); `active`: their activity, bool [T, width] by layer.

    A hidden neuron that one negative activates gets all its incoming weights and its bias again.
    """
    out: Layers = []
    for (cut, cut_bias), (weight, bias), of_layer in zip(module[:-1], layers[:-1], active, strict=True):
        used = of_layer.any(0)
        out.append((torch.where(used, weight, cut), torch.where(used, bias, cut_bias)))
    return [*out, _copy(module[-1])]


def merge(module: Layers, c: int) -> Layers:
    """Return `module` with two outputs in use: class `c`, and all others as their mean (CM-RIE).

    First the last hidden neurons with a weak weight to `c` are merged into the first of them. This makes new weights,
    means of the parent's: such a module is no choice of edges. The mean of the biases of the other outputs is taken
    over N instead of N - 1 for every class but 0, as in the artefact.
    """
    *below, (hidden, hidden_bias), (out, bias) = [_copy(layer) for layer in module]
    n = out.shape[1]
    other, first = (1, 0) if c == 0 else (0, 1)
    weak = (out[:, c].abs() < WEAK).nonzero()[:, 0]
    rest = torch.arange(n) != c
    out[weak[:, None], rest.nonzero()[:, 0]] = 0.0
    if len(weak) >= 2:
        into = weak[0]
        out[into, other] = out[weak, 0 if c == 0 else first].mean()
        mean = hidden[:, weak].mean(1)
        hidden[:, weak] = 0.0
        hidden[:, into] = mean
    channel, channel_bias = torch.zeros_like(out), torch.zeros_like(bias)
    channel[:, c], channel_bias[c] = out[:, c], bias[c]
    channel[:, other] = out[:, rest].sum(1) / (n - 1)
    channel_bias[other] = bias[rest].sum() / (n - 1 if c == 0 else n)
    return [*below, (hidden, hidden_bias), (channel, channel_bias)]


def probabilities(layers: Layers, inputs: Tensor) -> Tensor:
    """Return the softmax of a network or a module, ReLU between the layers: inputs [B, ...] -> [B, N]."""
    values = inputs.flatten(1)
    for weight, bias in layers[:-1]:
        values = (values @ weight + bias).relu()
    return (values @ layers[-1][0] + layers[-1][1]).softmax(1)


def confidences(each: Tensor, classes: Tensor) -> Tensor:
    """Return what the modules of `classes` [K] vote by, [B, K], of every one's probabilities: [K modules, B, N].

    A module votes where its own class is its largest output. Of several that vote, or of all where none does, the one
    with the largest probability of its own class wins; the first of equals. So: that, or -1 for one that does not vote
    where another does.
    """
    if each.ndim != 3 or len(each) != len(classes) or int(classes.max()) >= each.shape[2]:
        raise ValueError(f"each: must be [{len(classes)} modules, B, N classes], got {tuple(each.shape)}")
    own = each.gather(2, classes[:, None, None].expand(-1, each.shape[1], 1))[..., 0].T  # [B, K]
    votes = classes == each.argmax(2).T
    return torch.where(votes.any(1, keepdim=True), own.where(votes, -1.0), own)


def vote(each: Tensor) -> Tensor:
    """Return the class that wins, int64 [B], of the probabilities of all N modules: [N modules, B, N]."""
    if each.ndim != 3 or each.shape[0] != each.shape[2]:
        raise ValueError(f"each: must be [N modules, B, N classes], got {tuple(each.shape)}")
    return confidences(each, torch.arange(len(each), device=each.device)).argmax(1)


def mask_set(modules: Sequence[Layers], classes: Sequence[int] | None = None) -> MaskSet:
    """Return the edges that each module keeps, those with a weight other than 0, as masks [C, in, out] by layer.

    `classes`: of the modules; default, in order from 0.
    """
    depth = range(len(modules[0]))
    masks = {f"layer {i + 1}": torch.stack([module[i][0] != 0 for module in modules]) for i in depth}
    return MaskSet(masks, tuple(range(len(modules))) if classes is None else tuple(classes))


def flat_weights(modules: Sequence[Layers]) -> Tensor:
    """Return all weights of each module, without biases, zeros included: [C, weights]."""
    return torch.stack([torch.cat([weight.flatten() for weight, _ in module]) for module in modules])


def layers_of(parent: nn.Module) -> Layers:
    """Return weight [in, out] and bias [out] of every layer of a parent such as `modlib.zoo.parents.fc`; copies.

    Raises ValueError for a network that is not Linear (ReLU, Linear)* with biases.
    """
    found = fully_connected_layers(parent)
    if found is None or any(layer.bias is None for _, layer in found):
        raise ValueError("parent: must be linear layers with biases, with a ReLU between two, each called once")
    return [(layer.weight.detach().T.clone(), layer.bias.detach().clone()) for _, layer in found]


def _negatives(labels: Tensor, c: int, count: int) -> Tensor:
    """Return the positions of the first `count` images of every class but `c`."""
    others = [o for o in labels.unique().tolist() if o != c]
    return torch.cat([(labels == o).nonzero()[:count, 0] for o in others])


def _kept(values: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, values, torch.zeros_like(values))


def _copy(layer: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return layer[0].clone(), layer[1].clone()


def checked_layers(layers: Sequence[tuple[Any, Any]]) -> Layers:
    """Check the layers of a network and return them as float tensors."""
    if isinstance(layers, (str, Tensor)) or not isinstance(layers, Sequence) or any(len(pair) != 2 for pair in layers):
        raise TypeError("layers: must be a list of (weight [in, out], bias [out])")
    if len(layers) < 2:
        raise ValueError(f"layers: two or more are needed, a hidden one and the output, got {len(layers)}")
    network = [(torch.as_tensor(weight).detach(), torch.as_tensor(bias).detach()) for weight, bias in layers]
    before = None
    for i, (weight, bias) in enumerate(network):
        if not (weight.is_floating_point() and weight.dtype == bias.dtype == network[0][0].dtype):
            raise TypeError(f"layers[{i}]: must be floating-point, all of one type, got {weight.dtype}, {bias.dtype}")
        if weight.ndim != 2 or bias.shape != weight.shape[1:] or before not in (None, weight.shape[0]):
            wanted = "[in, out]" if before is None else f"[{before}, out]"
            shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
            raise ValueError(f"layers[{i}]: must be a weight {wanted} and a bias [out], got {shapes}")
        checks.finite(f"layers[{i}]", weight)
        checks.finite(f"layers[{i}]", bias)
        before = weight.shape[1]
    return network


def _images(images: Any) -> Tensor:
    given = torch.as_tensor(images)
    if given.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {given.dtype}; scaling belongs into preprocess=")
    if given.ndim < 2 or len(given) == 0:
        raise ValueError(f"images must be [n, ...] with n of at least 1, got {tuple(given.shape)}")
    return given


def _labels(labels: Any, count: int, classes: int) -> Tensor:
    given = torch.as_tensor(labels)
    if given.is_floating_point() or given.dtype == torch.bool:
        raise TypeError(f"labels must be whole numbers, got {given.dtype}")
    if given.shape != (count,):
        raise ValueError(f"labels must be [{count}], one for each image, got {tuple(given.shape)}")
    if int(given.min()) < 0 or int(given.max()) >= classes:
        raise ValueError(f"labels must be in 0 to {classes - 1}, got {int(given.min())} to {int(given.max())}")
    return given.to(torch.int64)


def _inputs(preprocess: Preprocess, images: Tensor, network: Layers) -> Tensor:
    inputs = preprocess(images).flatten(1).to(network[0][0].dtype)
    if inputs.shape != (len(images), network[0][0].shape[0]):
        raise ValueError(
            f"preprocess: must give [{len(images)}, {network[0][0].shape[0]}] inputs, got {tuple(inputs.shape)}"
        )
    return inputs


def _of_images(data: Data) -> Dataset:
    """Return data that are uint8 images, which this method scales its own way; TypeError for others."""
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be uint8 images (modlib.data.images), got {type(data).__name__}")
    return data
