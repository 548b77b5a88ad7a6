"""Files that a disk or a copy has damaged: each is refused, or what is read from it is what was written."""

import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import modlib
from modlib import checksums, library
from modlib.engines import checkpoints
from modlib.zoo import parent_files

DAMAGES = 60


def damaged(whole, seed):
    """Yield a file with its tail cut off, with a byte changed, or with a bit flipped; half of these near its ends."""
    draw = random.Random(seed)
    for i in range(DAMAGES):
        ends = (range(min(800, len(whole))), range(max(0, len(whole) - 200), len(whole)), range(len(whole)))
        at = draw.choice(draw.choice(ends))
        if i % 3 == 0:
            yield whole[:at]
        else:
            change = draw.randrange(1, 256) if i % 3 == 1 else 1 << draw.randrange(8)
            yield whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :]


def parts_of(modules):
    held = [*modules.masks.masks.values(), modules.grafting_weight, modules.grafting_bias, *modules.statistics.values()]
    return [modules.classes, dict(modules.metadata), [t.tolist() for t in held]]


def net_of(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


STATE = {"epoch": 3, "engine": {"scores": torch.arange(50.0), "members": [torch.ones(2, 2), None, "a"]}}


def module_file(path, modules):
    modules.save(path)
    return lambda: parts_of(modlib.load(path, modules.parent))


def subset_file(path, modules):
    modules.save_subset([2, 0], path)
    inputs = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    return lambda: [(net := modlib.load_subset(path)).classes.tolist(), net.log_odds(inputs).tolist()]


def parent_file(path, modules):
    parent_files.save(net_of(), path)

    def read():
        net = net_of(1)
        return parent_files.load(net, path) and {name: values.tolist() for name, values in net.state_dict().items()}

    return read


def checkpoint_file(path, modules):
    checkpoints.write(path, "what it is of", STATE)
    return lambda: repr(checkpoints.read(path, "what it is of"))


KINDS = {"path": (module_file, subset_file, parent_file), "checkpoint": (checkpoint_file,)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("argument", "kind"), [(name, kind) for name, kinds in KINDS.items() for kind in kinds])
def test_damage_is_refused_or_changes_nothing(argument, kind, seed, modules, tmp_path):
    path, refused = tmp_path / "file", []
    read = kind(path, modules)
    whole, expected = path.read_bytes(), read()
    for content in damaged(whole, seed):
        path.write_bytes(content)
        try:
            found = read()
        except ValueError as error:
            refused.append(str(error))
        else:
            assert found == expected
    assert all(said.startswith(f"{argument}: {path} ") for said in refused)
    assert len(refused) > DAMAGES / 2


@pytest.mark.parametrize("kind", [module_file, subset_file, parent_file])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":"2"', b'"version":"1"'),
        (b'"version"', b'"Version"'),
        (b'"sha256"', b'"sha255"'),
        (b'"format"', b'"gormat"'),
        (b'"__metadata__"', b'"_^metadata__"'),
        (b'{"__metadata__":{', b'{"__metadata__":['),
    ],
    ids=lambda text: text.decode(),
)
def test_the_checksum_cannot_be_lost(kind, old, new, modules, tmp_path):
    path = tmp_path / "file"
    read = kind(path, modules)
    whole = path.read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(ValueError, match=r"path: .* is damaged"):
        read()


def test_what_the_errors_say(modules, tmp_path):
    for argument, kind in ((name, kind) for name, kinds in KINDS.items() for kind in kinds):
        path = tmp_path / "file"
        read = kind(path, modules)
        content = bytearray(path.read_bytes())
        content[-100 if argument == "checkpoint" else -1] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{argument}: .*file is damaged: its content does not match its checksum"):
            read()


@pytest.mark.parametrize("kind", [module_file, subset_file, parent_file])
def test_files_without_a_checksum_are_read(kind, modules, tmp_path):
    path = tmp_path / "file"
    read = kind(path, modules)
    expected = read()
    with safe_open(path, framework="pt") as stored:
        facts = stored.metadata()
    del facts["sha256"]
    save_file(load_file(path), path, None if kind is parent_file else facts | {"version": "1"})
    assert read() == expected


def test_a_checkpoint_without_a_checksum_is_read(tmp_path):
    torch.save({"identity": "a", **STATE}, tmp_path / "c.pt")
    assert repr(checkpoints.read(tmp_path / "c.pt", "a")) == repr({"identity": "a", **STATE})
    checkpoints.write(tmp_path / "d.pt", "a", STATE)
    assert torch.load(tmp_path / "d.pt", weights_only=True)["epoch"] == 3, "torch reads one with a checksum too"


def test_a_parent_file_of_another_format(modules, tmp_path):
    modules.save(tmp_path / "m")
    with pytest.raises(ValueError, match="has format 'modlib' version '2'; this package reads 'modlib parent'"):
        parent_files.load(net_of(), tmp_path / "m")


def test_the_checksum_by_hand(tmp_path):
    library.whole_or_not(tmp_path / "a", {"b": torch.tensor([1, 2]).byte(), "a": torch.tensor(True)}, {"format": "x"})
    with safe_open(tmp_path / "a", framework="pt") as stored:
        facts = stored.metadata()
    content = json.dumps({"format": "x", "version": "2"}).encode()
    content += b'["a", "torch.bool", []]\x01["b", "torch.uint8", [2]]\x01\x02'
    assert facts["sha256"] == checksums.hashlib.sha256(content).hexdigest()
    assert checksums.in_bytes(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half().T).tolist() == [0, 60, 0, 66, 0, 64, 0, 68]
    assert checksums.in_bytes(torch.empty(0, 3)).size == 0
