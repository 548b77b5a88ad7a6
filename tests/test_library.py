"""A decomposed network on disk: what was saved comes back, anyone can read it, and nothing else gets in."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

import modlib
from modlib import library


@pytest.fixture
def conv_modules(conv_parent, decompose):
    return decompose(conv_parent, share_init=False, classes=[2, 0], k={"default": 0.3, "8.weight": 0.5})


def test_round_trip(conv_modules, conv_parent, inputs, tmp_path):
    path = tmp_path / "new" / "modules.safetensors"
    conv_modules.save(path)
    read = modlib.load(path, conv_parent.train())
    assert (read.classes, read.scores) == ((2, 0), None)
    assert read.metadata == conv_modules.metadata
    assert read.metadata["recipe"]["k"] == {"default": 0.3, "8.weight": 0.5}
    assert all(torch.equal(read.masks.masks[name], mask) for name, mask in conv_modules.masks.masks.items())
    assert read.statistics.keys() == conv_modules.statistics.keys()
    assert torch.equal(read.recompose([0, 2])(inputs), conv_modules.recompose([0, 2])(inputs))
    assert (conv_parent.training, read.parent.training) == (True, False), "the user's parent is copied"
    assert [p.name for p in path.parent.iterdir()] == ["modules.safetensors"]


def test_reading_without_this_package(conv_modules, tmp_path):
    path = tmp_path / "m.safetensors"
    conv_modules.save(path)
    tensors = load_file(path)
    with safe_open(path, framework="np") as stored:
        facts = stored.metadata()
    assert (facts["format"], facts["version"], json.loads(facts["classes"])) == ("modlib", "1", [2, 0])
    for name, shape in json.loads(facts["shapes"]).items():
        packed, n = tensors[f"mask/{name}"], int(np.prod(shape))
        assert (packed.dtype, packed.shape) == (np.uint8, (2, -(-n // 8)))
        edges = np.unpackbits(packed, axis=1)
        assert np.array_equal(edges[:, :n].reshape(2, *shape) == 1, conv_modules.masks.masks[name].numpy())
        assert not edges[:, n:].any()
    assert np.array_equal(tensors["grafting/weight"], conv_modules.grafting_weight.numpy())
    assert np.array_equal(tensors["grafting/bias"], conv_modules.grafting_bias.numpy())
    assert np.array_equal(tensors["statistics/1.running_mean"], conv_modules.statistics["1.running_mean"].numpy())
    assert len(tensors) == 3 + 2 + 6


def test_bits_by_hand():
    mask = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 1, 1], [0, 1, 1, 0, 0, 0, 0, 0, 0]]).bool().view(2, 3, 3)
    assert library.pack(mask).tolist() == [[0b10000001, 0b10000000], [0b01100000, 0]]
    assert torch.equal(library.unpack(library.pack(mask), (3, 3)), mask)


def test_what_the_hash_of_a_parent_covers(conv_parent):
    first = library.parent_hash(conv_parent)
    assert library.parent_hash(copy.deepcopy(conv_parent).train().requires_grad_(False)) == first
    seen = {first, library.parent_hash(copy.deepcopy(conv_parent).float())}
    for name in conv_parent.state_dict():
        other = copy.deepcopy(conv_parent)
        other.state_dict()[name].view(-1)[-1:].add_(1)
        seen.add(library.parent_hash(other))
    assert len(seen) == 2 + len(conv_parent.state_dict())


def test_files_that_are_refused(modules, parent, tmp_path):
    path = tmp_path / "m.safetensors"
    modules.save(path)
    with safe_open(path, framework="pt") as stored:
        facts = stored.metadata()
    for changes in ({"version": "2"}, {"format": "other"}):
        save_file({"weight": torch.ones(2)}, tmp_path / "other", facts | changes)
        with pytest.raises(ValueError, match=r"path: .* has format .* version .*reads 'modlib' version '1'"):
            modlib.load(tmp_path / "other", parent)
    torch.save({"weight": torch.ones(2)}, tmp_path / "torch.pt")
    with pytest.raises(ValueError, match=r"path: .*torch\.pt is damaged or not a safetensors file"):
        modlib.load(tmp_path / "torch.pt", parent)
    with pytest.raises(FileNotFoundError, match=r"path: no file .*missing"):
        modlib.load(tmp_path / "missing", parent)
    whole = path.read_bytes()
    for kept in (0.0, 0.01, 0.5, 0.99):
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(ValueError, match=r"path: .* is damaged"):
            modlib.load(path, parent)
    path.write_bytes(whole)
    assert modlib.load(path, parent).classes == (0, 1, 2)
    with torch.no_grad():
        parent[3].bias[0] += 1e-9
    with pytest.raises(ValueError, match=r"parent: .* belongs to a parent with hash"):
        modlib.load(path, parent)


def test_a_save_that_fails_leaves_the_old_file(modules, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    modules.save(path)
    before = path.read_bytes()

    def fail(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(library, "save_file", fail)
    for target in (path, tmp_path / "other.safetensors"):
        with pytest.raises(OSError, match="no space left"):
            modules.save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert path.read_bytes() == before
