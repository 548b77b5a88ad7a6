"""Derive the numbers of Tables 1 and 2 again, with NumPy alone: python tests/rederive.py RESULTS DATA.

From what a stored trial left (masks and grafting layers in `modules/`, its parent in `parents/`) and the real MNIST the
accuracy of the vote, the remaining parameters and the Jaccard index are computed and put beside the trial's record.
Nothing of modlib, and no torch, is imported: formats are read as `modlib.library` documents them.
"""

import hashlib
import json
import struct
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

TYPES = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}
MEAN, DEVIATION = np.float32(0.1307), np.float32(0.3081)
"""Of MNIST's training pixels in [0, 1]."""
FIELDS = ("accuracy", "remaining_parameters", "remaining_parameters_all", "jaccard_index")
SETTINGS = {"k": 0.1, "epochs": 25, "p": 1, "method": "average", "reduction": "total", "scores": "positive"}
"""Of the trials that the tables are made of, where a record names them; alpha is 0 or 1."""


def read(path):
    """Return the arrays of a safetensors file by name, and its metadata."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.pop("__metadata__", {})
    arrays = {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }
    return arrays, metadata


def layers_of(parent):
    """Return weight and bias of every linear layer, in order."""
    numbers = sorted({int(name.split(".")[0]) for name in parent})
    return [tuple(np.float32(parent[f"{n}.{kind}"]) for kind in ("weight", "bias")) for n in numbers], numbers


def hash_of(parent):
    """Return the SHA-256 of a parent, as module files name theirs."""
    digest, (layers, numbers) = hashlib.sha256(), layers_of(parent)
    for number, (weight, bias) in zip(numbers, layers, strict=True):
        for kind, values in (("weight", weight), ("bias", bias)):
            digest.update(f"{number}.{kind} torch.float32 {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def masks_of(modules, layers, numbers):
    """Return the masks of every layer, bool [C, out, in]."""
    masks = []
    for number, (weight, _) in zip(numbers, layers, strict=True):
        packed = modules[f"mask/{number}.weight"]
        bits = np.unpackbits(packed, axis=1, count=weight.size)
        masks.append(bits.astype(bool).reshape(len(packed), *weight.shape))
    return masks


def derived(modules, parent, images, labels):
    """Return the numbers of `FIELDS`, from masks, weights and test images."""
    layers, numbers = layers_of(parent)
    masks = masks_of(modules, layers, numbers)
    edges = np.concatenate([mask.reshape(len(mask), -1) for mask in masks], axis=1)
    pairs = list(combinations(range(len(edges)), 2))
    shared = [np.count_nonzero(edges[a] & edges[b]) for a, b in pairs]
    union = [np.count_nonzero(edges[a] | edges[b]) for a, b in pairs]
    inputs = ((images.reshape(len(images), -1) / np.float32(255)) - MEAN) / DEVIATION
    odds = []
    for c in range(len(edges)):
        values = inputs
        for i, (weight, bias) in enumerate(layers):
            values = values @ (weight * masks[i][c]).T + bias
            values = np.maximum(values, 0) if i + 1 < len(layers) else values
        two = values @ modules["grafting/weight"][c].T + modules["grafting/bias"][c]
        odds.append(two[:, 1] - two[:, 0])
    return {
        "accuracy": float(np.mean(np.argmax(odds, axis=0) == labels)),
        "remaining_parameters": float(np.mean(union) / edges.shape[1]),
        "remaining_parameters_all": float(edges.any(0).mean()),
        "jaccard_index": float(np.mean(np.divide(shared, union))),
    }


def trials(results):
    """Yield name, record and file of modules of the trials of MNIST FC1 that Tables 1 and 2 are made of."""
    for path in sorted((results / "trials").glob("mnist-fc1-published-alpha[01]-vote0-seed[0-4]-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        recipe, file = record["parameters"]["recipe"], results / "modules" / f"{path.stem}.safetensors"
        if file.exists() and all(recipe.get(name, value) == value for name, value in SETTINGS.items()):
            yield path.stem, record, file


def compared(results, data):
    """Yield the name of every trial, its number by field as derived here, and as its record has it."""
    with np.load(data / "mnist.npz") as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    parents = [read(path)[0] for path in sorted((results / "parents").glob("mnist-fc1-seed*.safetensors"))]
    by_hash = {hash_of(parent): parent for parent in parents}
    for name, record, file in trials(results):
        modules, metadata = read(file)
        tested = [row for row in record["rows"] if row["split"] == "test"]
        last = max(tested, key=lambda row: row["epoch"])
        found = derived(modules, by_hash[metadata["parent"]], images, labels)
        yield name, found, {field: last[field] for field in FIELDS}


def agree(found, recorded):
    """Return whether both are the same but for rounding: two of 10,000 images may tip."""
    return abs(found["accuracy"] - recorded["accuracy"]) <= 2e-4 and all(
        abs(found[field] - recorded[field]) <= 2e-6 for field in FIELDS[1:]
    )


if __name__ == "__main__":
    differ = 0
    for name, found, recorded in compared(Path(sys.argv[1]), Path(sys.argv[2])):
        differ += not agree(found, recorded)
        print(name, *(f"{field} {found[field]:.6f} {recorded[field]:.6f}" for field in FIELDS), sep="\n  ")
    sys.exit(f"{differ} trials differ" if differ else 0)
