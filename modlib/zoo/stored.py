"""The parents that Pan and Rajan published with their artefact (ESEC/FSE 2020): Keras models in HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from modlib import checks, extras
from modlib.decomposers.pan_rajan import checked_layers
from modlib.zoo import parents


def stored_parent(folder: str | Path, dataset: str, model: str) -> nn.Sequential:
    """Return one of the authors' stored parents, `<folder>/<dataset>_<model>.h5`, as `modlib.zoo.parents.fc` makes it.

    The files are Keras 2.2 models in HDF5, of the artefact's eight: MNIST and F-MNIST, "fc1" to "fc4". They take images
    as `modlib.decomposers.pan_rajan.twice_scaled` gives them. Raises FileNotFoundError where the file is missing,
    ValueError where it is of another kind.
    """
    checks.choice("model", model, parents.FC)
    path = Path(folder) / f"{dataset}_{model}.h5"
    if not path.is_file():
        raise FileNotFoundError(f"folder: no file {path}; the parents are in the artefact of Pan and Rajan")
    layers = checked_layers(_read_keras(path))
    if len(layers) != parents.FC[model] + 1:
        raise ValueError(f"folder: {path} has {len(layers)} layers, {model} has {parents.FC[model] + 1}")
    width, classes = layers[-1][0].shape
    parent = parents.fc(len(layers) - 1, layers[0][0].shape[0], width, classes).requires_grad_(False)
    linear = [module for module in parent if isinstance(module, nn.Linear)]
    for i, (module, (weight, bias)) in enumerate(zip(linear, layers, strict=True), 1):
        if module.weight.shape != weight.T.shape:
            raise ValueError(
                f"folder: {path} has a layer {i} of {tuple(weight.shape)}; hidden layers of one width only"
            )
        module.weight.copy_(weight.T)
        module.bias.copy_(bias)
    return parent.eval()


def _read_keras(path: Path) -> list[tuple[Any, Any]]:
    h5py = extras.require("h5py", "a stored parent")

    def text(name: Any) -> str:
        return name.decode() if isinstance(name, bytes) else str(name)

    try:
        with h5py.File(path, "r") as file:
            groups = [file["model_weights"][text(name)] for name in file["model_weights"].attrs["layer_names"]]
            named = [[(text(w), group[text(w)][()]) for w in group.attrs["weight_names"]] for group in groups]
    except (OSError, KeyError) as error:
        raise ValueError(f"folder: {path} is not a Keras model in HDF5: {error}") from error
    for weights in named:
        kinds = [name.rsplit("/", 1)[-1] for name, _ in weights]
        if kinds not in ([], ["kernel:0", "bias:0"]):
            raise ValueError(f"folder: {path} has a layer with {kinds}; dense layers only")
    return [(weights[0][1], weights[1][1]) for weights in named if weights]
