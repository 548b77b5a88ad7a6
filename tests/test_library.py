"""A decomposed network on disk: what was saved comes back, anyone can read it, and nothing else gets in."""

import copy
import json
import zlib

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

import modlib
from modlib import library, subsets
from modlib.parent import former_hash, parent_hash


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
    assert (facts["format"], facts["version"], json.loads(facts["classes"])) == ("modlib", "2", [2, 0])
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
    first = parent_hash(conv_parent)
    assert parent_hash(copy.deepcopy(conv_parent).train().requires_grad_(False)) == first
    seen = {first, parent_hash(copy.deepcopy(conv_parent).float())}
    for name in conv_parent.state_dict():
        other = copy.deepcopy(conv_parent)
        other.state_dict()[name].view(-1)[-1:].add_(1)
        seen.add(parent_hash(other))
        assert (parent_hash(other) == first) == name.endswith("num_batches_tracked")
    assert len(seen) == 2 + len(conv_parent.state_dict()) - 2


def test_files_with_the_former_hash_of_a_parent_are_read(conv_modules, conv_parent, tmp_path):
    tensors, facts = saved(conv_modules, tmp_path / "m")
    library.whole_or_not(tmp_path / "m", tensors, facts | {"parent": former_hash(conv_parent)})
    assert former_hash(conv_parent) != parent_hash(conv_parent)
    assert modlib.load(tmp_path / "m", conv_parent).classes == (2, 0)
    conv_parent[1].num_batches_tracked += 1
    with pytest.raises(ValueError, match=r"parent: .* belongs to a parent with hash"):
        modlib.load(tmp_path / "m", conv_parent)
    conv_modules.save(tmp_path / "m")
    assert modlib.load(tmp_path / "m", conv_parent).classes == (2, 0)


def test_files_that_are_refused(modules, parent, tmp_path):
    path = tmp_path / "m.safetensors"
    modules.save(path)
    with safe_open(path, framework="pt") as stored:
        facts = stored.metadata()
    del facts["sha256"]
    for changes in ({"version": "3"}, {"format": "other", "version": "1"}):
        save_file({"weight": torch.ones(2)}, tmp_path / "other", facts | changes)
        with pytest.raises(ValueError, match=r"path: .* has format .* version .*reads 'modlib' versions '1' and '2'"):
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


def saved(modules, path):
    modules.save(path)
    with safe_open(path, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118


@pytest.mark.parametrize("field", library.FIELDS[2:])
def test_a_header_without_a_field(field, modules, parent, tmp_path):
    tensors, facts = saved(modules, tmp_path / "m")
    del facts[field]
    library.whole_or_not(tmp_path / "m", tensors, facts)
    with pytest.raises(ValueError, match=f"path: .* has no {field} in its header"):
        modlib.load(tmp_path / "m", parent)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("classes", "[0, 1", "classes in its header that are not JSON"),
        ("classes", "[0, 1, 1]", r"classes \[0, 1, 1\] in its header; they must be distinct whole numbers"),
        ("classes", "[]", r"classes \[\]"),
        ("classes", "[0, true, 2]", r"classes \[0, True, 2\]"),
        ("classes", "[0, 1]", r"grafting/bias \[3, 2\] where its header and the parent ask for \[2, 2\]"),
        ("shapes", "[6, 16]", r"shapes \[6, 16\] in its header; they must be layer -> weight shape"),
        ("shapes", '{"1.weight": [6, 16.0]}', "shapes .* in its header"),
        ("shapes", '{"1.weight": [6, 16]}', r"mask/3.weight \[3, 3\] where its header and the parent ask for none"),
        ("shapes", '{"1.weight": [16, 6]}', r"masks of '1.weight' \[16, 6\], the parent has no such weight"),
        ("shapes", '{"9.weight": [6, 16]}', "masks of '9.weight'"),
        ("metadata", "3", "metadata 3 in its header; they must be an object"),
    ],
    ids=range(11),
)
def test_a_header_that_does_not_fit(field, value, match, modules, parent, tmp_path):
    tensors, facts = saved(modules, tmp_path / "m")
    library.whole_or_not(tmp_path / "m", tensors, facts | {field: value})
    with pytest.raises(ValueError, match=f"path: .* has {match}"):
        modlib.load(tmp_path / "m", parent)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("mask/3.weight", None, r"mask/3.weight none where .* ask for \[3, 3\]"),
        ("mask/3.weight", torch.ones(3, 2, dtype=torch.uint8), r"mask/3.weight \[3, 2\] where .* ask for \[3, 3\]"),
        ("mask/3.weight", torch.ones(3, 3), "masks that are not uint8"),
        ("grafting/weight", torch.ones(3, 3), r"grafting/weight \[3, 3\] where"),
        ("grafting/weight", None, r"grafting/weight none where"),
        ("statistics/1.running_mean", torch.ones(3, 6), r"statistics/1.running_mean \[3, 6\] where .* ask for none"),
        ("more", torch.ones(1), r"more \[1\] where .* ask for none"),
    ],
    ids=range(7),
)
def test_tensors_that_do_not_fit(name, value, match, modules, parent, tmp_path):
    tensors, facts = saved(modules, tmp_path / "m")
    others = {other: values for other, values in tensors.items() if other != name}
    library.whole_or_not(tmp_path / "m", others if value is None else others | {name: value}, facts)
    with pytest.raises(ValueError, match=f"path: .* has {match}"):
        modlib.load(tmp_path / "m", parent)


def test_statistics_of_another_shape(conv_modules, conv_parent, tmp_path):
    tensors, facts = saved(conv_modules, tmp_path / "m")
    library.whole_or_not(tmp_path / "m", tensors | {"statistics/1.running_mean": torch.ones(2, 5)}, facts)
    with pytest.raises(ValueError, match=r"statistics/1.running_mean \[2, 5\] where .* ask for \[2, 4\]"):
        modlib.load(tmp_path / "m", conv_parent)


class WithExtraState(torch.nn.Linear):
    """A layer whose state is more than tensors."""

    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        pass


def test_extra_state_of_a_parent_is_no_part_of_its_hash(decompose, tmp_path):
    parent = torch.nn.Sequential(torch.nn.Flatten(), WithExtraState(16, 3))
    decompose(parent, epochs=1).save(tmp_path / "m")
    assert modlib.load(tmp_path / "m", parent).classes == (0, 1, 2)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    plain[1].load_state_dict(parent[1].state_dict(), strict=False)
    assert parent_hash(plain) == parent_hash(parent)


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


KINDS = {"parent": False, "conv_parent": True, "tied_parent": True}
"""Which of them need a network to be handed over."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_subset_is_loaded_without_the_parent(kind, dtype, request, decompose, data, tmp_path):
    parent = request.getfixturevalue(kind).to(dtype)
    before, modules = parent_hash(parent), decompose(parent, share_init=False, epochs=1)
    untrained = copy.deepcopy(parent).float()
    for values in untrained.state_dict().values():
        values.fill_(3)
    drawn, untouched, inputs = torch.get_rng_state(), parent_hash(untrained), data.inputs(data.test_images).to(dtype)
    for subset in ([2, 0], [1], [0, 1, 2]):
        modules.save_subset(subset, tmp_path / "s")
        expected = modules.recompose(subset)
        for network in (untrained, *([] if KINDS[kind] else [None])):
            found = modlib.load_subset(tmp_path / "s", network)
            assert torch.equal(found.log_odds(inputs), expected.log_odds(inputs))
            assert torch.equal(found.baked()(inputs), expected.baked()(inputs))
            assert torch.equal(found.classes, expected.classes)
    assert (parent_hash(parent), parent_hash(untrained)) == (before, untouched)
    assert torch.equal(torch.get_rng_state(), drawn)
    if KINDS[kind]:
        with pytest.raises(ValueError, match=r"network: .* does not describe its network; hand over one"):
            modlib.load_subset(tmp_path / "s")


def test_reading_a_subset_without_this_package(conv_modules, tmp_path):
    path = tmp_path / "s.safetensors"
    conv_modules.save_subset([0], path)
    tensors = load_file(path)
    with safe_open(path, framework="np") as stored:
        facts = stored.metadata()
    assert (facts["format"], facts["version"], json.loads(facts["classes"])) == ("modlib subset", "2", [0])
    assert json.loads(facts["architecture"]) is None
    state, written, shapes = conv_modules.parent.state_dict(), set(), json.loads(facts["shapes"])
    for name, shape in shapes.items():
        n, raw = int(np.prod(shape)), {}
        for kind in ("union", "weights", "mask"):
            raw[kind] = np.frombuffer(zlib.decompress(tensors[f"{kind}/{name}"].tobytes()), np.uint8)
            written.add(f"{kind}/{name}")
        union, weight = np.unpackbits(raw["union"]), np.zeros(n)
        values = raw["weights"].reshape(8, -1).T.copy().view(json.loads(facts["dtypes"])[f"weights/{name}"])
        weight[union[:n] == 1] = values[:, 0]
        mask = conv_modules.masks.select([0]).masks[name][0]
        assert np.array_equal(weight.reshape(shape), (state[name] * mask).numpy())
        assert np.unpackbits(raw["mask"]).sum() == mask.sum() == union.sum()
    whole = [name for name in state if name not in shapes and name not in conv_modules.statistics]
    assert all(np.array_equal(tensors[f"parent/{name}"], state[name].numpy()) for name in whole)
    own = {f"statistics/{name}" for name in conv_modules.statistics} | {f"parent/{name}" for name in whole}
    assert tensors.keys() == written | own | {"grafting/weight", "grafting/bias"}


def test_values_that_half_precision_holds_are_written_in_it(parent, decompose, tmp_path):
    with torch.no_grad():
        parent[1].weight.copy_(parent[1].weight.half())
    decompose(parent, epochs=1).save_subset([0, 1], tmp_path / "s")
    tensors = load_file(tmp_path / "s")
    kept = decompose(parent, epochs=1).masks.union([0, 1])
    for name, size in (("1.weight", 2), ("3.weight", 8)):
        assert len(zlib.decompress(tensors[f"weights/{name}"].tobytes())) == size * int(kept[name].sum())
    assert modlib.load_subset(tmp_path / "s").voters.like.dtype == torch.float64


def test_bytes_by_hand():
    assert subsets.shuffled(torch.tensor([1, 515], dtype=torch.int16)).tolist() == [[1, 3], [0, 2]]
    stream = subsets.deflated(torch.arange(200).byte())
    assert subsets.inflated(stream, 200).tolist() == list(range(200))
    for wrong, most in ((stream, 199), (stream[:-1], 200), (stream + 1, 200), (stream.int(), 200), (stream[None], 200)):
        with pytest.raises(ValueError, match=r"more than|expected|Error|incorrect"):
            subsets.inflated(wrong, most)


def test_a_subset_of_picked_logits(decompose, inputs, tmp_path):
    class Net(torch.nn.Linear):
        def forward(self, inputs):
            return {"out": super().forward(inputs.flatten(1))}

    def pick(output):
        return output["out"]

    modules = decompose(Net(16, 3).double(), epochs=1, logits=pick)
    modules.save_subset([1, 2], tmp_path / "s")
    with pytest.raises(ValueError, match=r"logits: the modules in .* were made with logits="):
        modlib.load_subset(tmp_path / "s", Net(16, 3))
    found = modlib.load_subset(tmp_path / "s", Net(16, 3), pick)
    assert torch.equal(found(inputs), modules.recompose([1, 2])(inputs))


def test_subset_files_that_are_refused(modules, parent, conv_parent, tmp_path):
    path = tmp_path / "s"
    for subset, match in (([], "classes: empty"), ([0, 0], "repeated class"), ([7], "no module for class 7")):
        with pytest.raises(ValueError, match=match):
            modules.save_subset(subset, path)
    assert not path.exists()
    modules.save(path)
    with pytest.raises(ValueError, match=r"has format 'modlib' version '2'; this package reads 'modlib subset'"):
        modlib.load_subset(path)
    modules.save_subset([0, 2], path)
    with pytest.raises(
        ValueError, match=r"has format 'modlib subset' version '2'; this package reads 'modlib' version"
    ):
        modlib.load(path, parent)
    with pytest.raises(FileNotFoundError, match=r"path: no file .*missing"):
        modlib.load_subset(tmp_path / "missing")
    with pytest.raises(TypeError, match=r"network must be an nn\.Module, got dict"):
        modlib.load_subset(path, {})
    with pytest.raises(
        ValueError, match=r"network: .* has masks of '1.weight' \[6, 16\], the network has no such weight"
    ):
        modlib.load_subset(path, conv_parent)
    more = torch.nn.Sequential(*parent, torch.nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"parent/4.bias none where its header and the network ask for \[3\]"):
        modlib.load_subset(path, more)
    whole = path.read_bytes()
    for kept in (0.0, 0.01, 0.5, 0.99):
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(ValueError, match=r"path: .* is damaged"):
            modlib.load_subset(path)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("classes", "[0, 1, 2]", "no mask/1.weight that fits"),
        ("dtypes", None, "no dtypes in its header"),
        ("dtypes", "{}", r"no weights/1.weight that fits a layer of \[6, 16\]"),
        ("dtypes", '{"1.weight": "int8"}', "dtypes .* in its header"),
        ("dtypes", "[[1]]", "dtypes .* in its header"),
        ("architecture", "[", "architecture in its header that are not JSON"),
        ("architecture", '[["0", "Conv9d", 3]]', "an architecture of no use in its header: KeyError"),
        ("architecture", '[["0", "Linear", 3]]', "an architecture of no use in its header: TypeError"),
        ("architecture", "[3]", "an architecture of no use in its header: TypeError"),
    ],
    ids=range(9),
)
def test_a_header_of_a_subset_that_does_not_fit(field, value, match, modules, tmp_path):
    modules.save_subset([0, 2], tmp_path / "s")
    with safe_open(tmp_path / "s", framework="pt") as stored:
        tensors, facts = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    facts = {name: text for name, text in (facts | {field: value}).items() if text is not None}
    library.whole_or_not(tmp_path / "s", tensors, facts)
    with pytest.raises(ValueError, match=f"path: .* has {match}"):
        modlib.load_subset(tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("union/1.weight", lambda t: t + 1, "no union/1.weight that fits"),
        ("union/1.weight", lambda t: t[:-1], "no union/1.weight that fits"),
        ("union/1.weight", lambda t: None, "no union/1.weight that fits"),
        ("union/1.weight", lambda t: subsets.deflated(torch.ones(12).byte()), "no weights/1.weight that fits"),
        ("mask/1.weight", lambda t: subsets.deflated(torch.ones(1).byte()), "no mask/1.weight that fits"),
        ("mask/1.weight", lambda t: t.float(), "no mask/1.weight that fits"),
        ("weights/3.weight", lambda t: t[:0], "no weights/3.weight that fits"),
        ("parent/1.bias", lambda t: t[:-1], r"parent/1.bias \[5\] where its header and the network ask for \[6\]"),
        ("grafting/bias", lambda t: None, "grafting/bias none"),
        ("statistics/x", lambda t: torch.ones(2), "statistics/x .* ask for none"),
    ],
    ids=range(10),
)
def test_tensors_of_a_subset_that_do_not_fit(name, change, match, modules, tmp_path):
    modules.save_subset([0, 2], tmp_path / "s")
    with safe_open(tmp_path / "s", framework="pt") as stored:
        tensors, facts = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    tensors[name] = change(tensors.get(name))
    library.whole_or_not(tmp_path / "s", {n: t.contiguous() for n, t in tensors.items() if t is not None}, facts)
    with pytest.raises(ValueError, match=f"path: .* has {match}"):
        modlib.load_subset(tmp_path / "s")
