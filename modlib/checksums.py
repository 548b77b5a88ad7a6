"""Checksums of files: what was written to a disk is what is read from it, or reading says that it is damaged.

Of a safetensors file, the SHA-256 of its content, in the header as `sha256`: of the JSON object of the rest of its
metadata, names sorted; then of every tensor, by name: the JSON list of name, type (as torch writes it) and shape, and
the bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FIELD = "sha256"
"""Where a header has the checksum."""

MARK = b"\nmodlib sha256 "
"""What stands behind a file that is checked as a whole, before the 64 digits of its checksum."""

TAIL = len(MARK) + 64


def in_bytes(values: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a dense tensor, in C order: uint8 [n]."""
    flat = values.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if len(flat) else np.empty(0, np.uint8)


def of_content(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the checksum of the content of a safetensors file; one that is in the metadata already does not count."""
    digest = hashlib.sha256(json.dumps({n: v for n, v in metadata.items() if n != FIELD}, sort_keys=True).encode())
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
        digest.update(in_bytes(values).data)
    return digest.hexdigest()


def append(path: Path) -> None:
    """Write the checksum of a whole file behind it."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with path.open("ab") as file:
        file.write(MARK + found.encode())


def fits(path: Path) -> bool:
    """Say whether a file is as it was when `append` wrote its checksum behind it; also where it has none.

    One without may have lost it: then nothing before it has changed, or the end of the file is missing.
    """
    if path.stat().st_size < TAIL:
        return True
    whole = np.memmap(path, mode="r")  # gigabytes, of which no copy is made
    tail = whole[-TAIL:].tobytes()
    return not tail.startswith(MARK) or hashlib.sha256(whole[:-TAIL].data).hexdigest().encode() == tail[len(MARK) :]
