"""Parents on disk: in half precision, in parts, whole or not at all."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from modlib.zoo import parent_files


def small(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 3)).eval()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_what_was_rounded_comes_back_exactly(tmp_path):
    net, path = parent_files.round_to_half(small()), tmp_path / "new" / "parent.safetensors"
    assert not equal(net, small())
    parent_files.save(net, path)
    assert [file.name for file in path.parent.iterdir()] == ["parent.safetensors"]
    assert {v.dtype for v in load_file(path).values()} == {torch.float16, torch.int64}
    other = small(1)
    assert parent_files.load(other, path)
    assert equal(other, net)
    assert {p.dtype for p in other.parameters()} == {torch.float32}


def test_a_full_parent_is_kept_as_it_is(tmp_path):
    net, path = small(), tmp_path / "parent.safetensors"
    parent_files.save(net, path)
    other = small(1)
    assert parent_files.load(other, path)
    assert equal(other, net)


def test_parts(tmp_path):
    """Tensors of 288, 32, 32, 32, 32, 32, 8, 384 and 12 bytes in files of at most 400."""
    net, path = small(), tmp_path / "parent.safetensors"
    for values in (net[1].weight.data, net[1].bias.data, net[1].running_mean, net[1].running_var):
        values.fill_(0.1)  # not a number of half precision
    parent_files.save(net, path, limit=400)
    names = [f"parent-{i}of3.safetensors" for i in (1, 2, 3)]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert sorted(load_file(tmp_path / names[0])) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    other = small(1)
    assert parent_files.load(other, path)
    assert equal(other, net)
    (tmp_path / names[1]).unlink()
    untouched = small(1)
    assert not parent_files.load(untouched, path), "a parent without one of its parts is not there"
    assert equal(untouched, small(1))


def test_nothing_is_there(tmp_path):
    assert not parent_files.load(small(), tmp_path / "parent.safetensors")


def test_what_half_precision_does_not_hold_stays_in_full_precision(tmp_path):
    net, path = small(), tmp_path / "parent.safetensors"
    net[1].running_var.fill_(7.1e4)
    parent_files.round_to_half(net)
    parent_files.save(net, path)
    kinds = {name: values.dtype for name, values in load_file(path).items() if values.is_floating_point()}
    assert [name for name, kind in kinds.items() if kind == torch.float32] == ["1.running_var"]
    other = small(1)
    assert parent_files.load(other, path)
    assert equal(other, net)
    assert other[1].running_var.tolist() == [pytest.approx(7.1e4)] * 8
