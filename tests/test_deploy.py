"""Networks written to files that are run at once, and measured beside their parent."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import modlib
from modlib import deploy, extras
from modlib.deploy import cost, measure, measuring, slicing
from modlib.deploy import programs as reading
from modlib.deploy.measuring import Measured
from modlib.deploy.quantising import quantised
from modlib.parent import parent_hash
from modlib.stacking import SparseLinear

ENDINGS = ("onnx", "pt2")


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make()


def conv_net():
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(64, 3))


class Two(nn.Module):
    """Inputs of two kinds, outputs of two kinds."""

    def __init__(self):
        super().__init__()
        self.of_image, self.of_words = nn.Linear(4, 3), nn.Embedding(7, 2)

    def forward(self, image, words, scale=2.0):
        return {"logits": self.of_image(image) * scale, "other": (self.of_words(words).mean(1), image[:, 0])}


class Fixed(nn.Module):
    """One that takes batches of two alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs):
        return self.layer(inputs.reshape(2, 4))


class Asking(Fixed):
    """One whose graph depends on its numbers."""

    def forward(self, inputs):
        return self.layer(inputs if float(inputs.detach().sum()) > 0 else -inputs)


class Twofold(Fixed):
    """Exported, it gives twice what it gives itself."""

    def forward(self, inputs):
        return self.layer(inputs) * (2.0 if torch.compiler.is_compiling() else 1.0)


def run(path, inputs):
    """What a file gives for one tensor, read as somebody without modlib reads it."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])
    return torch.export.load(path).module()(inputs)


def metadata(path):
    if path.suffix == ".onnx":
        found = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta()
        strings = found.custom_metadata_map
        return {key: json.loads(v) if key in ("modlib.classes", "modlib.names") else v for key, v in strings.items()}
    files = {"modlib.json": ""}
    torch.export.load(path, extra_files=files)
    return json.loads(files["modlib.json"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_gives_what_the_network_gives_and_says_what_it_is(ending, tmp_path, capfd):
    net, parent = seeded(conv_net).train(), seeded(conv_net)
    before = copy.deepcopy(net.state_dict())
    path, inputs = tmp_path / f"net.{ending}", torch.rand(5, 1, 4, 4)
    written = deploy.export(
        net, path, inputs[:1], classes=[4, 2, 7], names=["cat", "Füchse", "a"], note="pixel / 255", parent=parent
    )
    assert net.training, "the network stays in its mode"
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    torch.testing.assert_close(run(path, inputs), net.eval()(inputs))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert written == deploy.Exported(path, path.stat().st_size, written.difference)
    assert 0 <= written.difference < 1e-5
    assert metadata(path) == {
        "modlib.version": "0.2.0",
        "modlib.classes": [4, 2, 7],
        "modlib.names": ["cat", "Füchse", "a"],
        "modlib.note": "pixel / 255",
        "modlib.parent": parent_hash(parent),
    }
    assert capfd.readouterr() == ("", ""), "exporters are kept quiet"
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes(), "no paths of this machine"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_merged_network_is_written_with_its_scales(ending, decompose, parent, conv_parent, data, tmp_path):
    a, b = (decompose(net.float(), share_init=False) for net in (parent, conv_parent))
    both = modlib.merge(a.select([0, 2]), b.select([1]), classes=[[0, 2], [1]]).calibrated(data)
    path, inputs = tmp_path / f"both.{ending}", data.inputs(data.test_images)
    deploy.export(both, path, inputs)
    torch.testing.assert_close(run(path, inputs[:7]), both(inputs[:7]), rtol=1e-3, atol=1e-4)
    assert metadata(path)["modlib.classes"] == [0, 2, 1]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_recomposed_network_brings_its_classes(ending, decompose, conv_parent, data, tmp_path):
    pair = decompose(conv_parent.float()).recompose([2, 0])
    path, inputs = tmp_path / f"pair.{ending}", data.inputs(data.test_images)
    deploy.export(pair, path, inputs)
    torch.testing.assert_close(run(path, inputs[:7]), pair(inputs[:7]))
    assert metadata(path) == {"modlib.version": "0.2.0", "modlib.classes": [2, 0]}
    assert str(Path(deploy.__file__).parents[1]).encode() not in path.read_bytes(), "no paths of this machine"
    deploy.export(pair.baked(), path, inputs)
    assert metadata(path)["modlib.classes"] == [2, 0]
    pair.class_names = ("zero", "one", "two")
    deploy.export(pair, path, inputs)
    assert metadata(path)["modlib.names"] == ["two", "zero"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", [dict, tuple])
def test_inputs_and_outputs_of_several_tensors(kind, ending, tmp_path):
    inputs = {"words": torch.tensor([[1, 2], [3, 4]]), "image": torch.rand(2, 4)}
    example = inputs if kind is dict else (inputs["image"], inputs["words"])
    assert deploy.export(seeded(Two), tmp_path / f"two.{ending}", example).difference < 1e-5


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_disagrees_is_not_left(ending, tmp_path):
    path = tmp_path / f"net.{ending}"
    path.write_text("what was there")
    with pytest.raises(ValueError, match=r"by 1 of the output's scale where tolerance is 0\.5"):
        deploy.export(seeded(Twofold), path, torch.rand(3, 4), tolerance=0.5)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]
    assert deploy.export(seeded(Twofold), path, torch.rand(3, 4), tolerance=1.01).difference == pytest.approx(1)


def test_weights_that_one_file_cannot_hold_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("modlib.deploy.exporting.LARGEST", 0)
    net, inputs = seeded(lambda: nn.Linear(40, 30)), torch.rand(2, 40)
    written = deploy.export(net, tmp_path / "net.onnx", inputs)
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert sizes.keys() == {"net.onnx", "net.onnx.data"}
    assert sum(sizes.values()) == written.bytes
    assert sizes["net.onnx.data"] >= 4 * 30 * 40
    torch.testing.assert_close(run(tmp_path / "net.onnx", inputs), net(inputs))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"path": "net.pb"}, ValueError, r"path: must end in \.onnx \(ONNX\) or \.pt2"),
        ({"path": "none/net.onnx"}, FileNotFoundError, "path: there is no folder"),
        ({"network": 3}, TypeError, "network must be an nn.Module, got int"),
        ({"parent": 3}, TypeError, "parent must be an nn.Module, got int"),
        ({"classes": [1]}, ValueError, "classes: 1 for a network that gives 3 numbers"),
        ({"names": ["a", "b"]}, ValueError, "names: 2 for a network that gives 3 numbers"),
        ({"names": "abc"}, TypeError, "names: must be a list"),
        ({"tolerance": 0}, ValueError, "tolerance must be above 0"),
        ({"example": torch.rand(0, 4)}, ValueError, "example: must hold tensors"),
        ({"example": (torch.rand(2, 4), torch.rand(3, 4))}, ValueError, "example: must hold tensors"),
        ({"example": {}}, ValueError, "example: must hold tensors"),
    ],
)
def test_what_cannot_be_is_refused(changes, error, said, tmp_path):
    given = {"network": nn.Linear(4, 3), "path": "net.onnx", "example": torch.rand(2, 4)} | changes
    given["path"] = tmp_path / given["path"]
    with pytest.raises(error, match=said):
        deploy.export(**given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_network_for_one_batch_size_is_refused(ending, tmp_path):
    with pytest.raises(ValueError, match="network: "):
        deploy.export(Fixed(), tmp_path / f"net.{ending}", torch.rand(2, 4))
    assert not list(tmp_path.iterdir())


def test_measure_by_hand(tmp_path):
    parent, small = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).train(), nn.Linear(4, 2)
    threads = torch.get_num_threads()
    found = deploy.measure({"<small>": small}, parent, torch.rand(1, 4), batches=(2, 1), repeats=3, threads=2)
    assert torch.get_num_threads() == threads
    assert parent.training
    assert [(row["network"], row["runtime"], row["batch"]) for row in found.rows] == [
        (name, runtime, batch)
        for name in ("<small>", "parent")
        for runtime in ("eager", "onnxruntime")
        for batch in (2, 1)
    ]
    first, last = found.rows[0], found.rows[-1]
    assert (first["parameters"], first["multiply_adds"], first["bytes_float32"]) == (10, 8, 40)
    assert (last["parameters"], last["multiply_adds"], last["bytes_float32"]) == (67, 56, 268)
    size = deploy.export(small, tmp_path / "0.onnx", torch.rand(1, 4)).bytes
    assert first["bytes_onnx"] == size
    assert all(0 < row["ms_25"] <= row["ms"] <= row["ms_75"] for row in found.rows)
    assert all(row["speedup"] == 1 for row in found.rows if row["network"] == "parent")
    assert found.notes == ()
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[2:10]] == ["<small>"] * 4 + ["parent"] * 4
    assert lines[-1].startswith("ms of a call on a CPU, 2 threads")
    assert "&lt;small&gt;" in found._repr_html_()
    assert found._repr_html_().count("<tr>") == 9


def test_the_ratio_is_the_median_of_the_rounds_own():
    """Medians of 3 and 6 ms would give 2; round by round it is 1, 4, 3."""
    times = {
        ("parent", "eager"): [1.0, 8.0, 6.0],
        ("a", "eager"): [1.0, 2.0, 2.0],
        ("a", "onnxruntime"): [5.0, 1.0, 2.0],
    }
    row = measuring._row(("a", "eager"), 1, {"parameters": 7}, times)
    assert (row["speedup"], row["ms"], row["ms_25"], row["ms_75"]) == (3.0, 2.0, 1.5, 2.0)
    assert row["parameters"] == 7
    assert measuring._row(("a", "onnxruntime"), 1, {}, times)["speedup"] is None


def test_a_program_that_is_quick_is_called_until_its_turn_is_long_enough():
    calls = []
    found = measuring.milliseconds({("a", "eager"): lambda: calls.append(1)}, repeats=2)
    assert len(calls) > 1000, "a turn of 5 ms holds many calls of some nanoseconds"
    assert len(found["a", "eager"]) == 2


def test_what_cannot_be_exported_has_eager_rows_and_a_reason():
    found = deploy.measure(Asking(), nn.Linear(4, 3), torch.rand(2, 4), batches=(2,), repeats=2)
    rows = [(row["network"], row["runtime"], row["bytes_onnx"] is None) for row in found.rows]
    assert rows == [("network", "eager", True), ("parent", "eager", False), ("parent", "onnxruntime", False)]
    (note,) = found.notes
    assert note.startswith("network: no ONNX file: ")
    assert note in str(found)


def test_without_onnxruntime_eager_rows_come_alone(monkeypatch):
    monkeypatch.setattr(extras, "there", lambda package: package != "onnxruntime")
    found = deploy.measure(nn.Linear(4, 2), nn.Linear(4, 3), torch.rand(2, 4), batches=(1,), repeats=2)
    assert [row["runtime"] for row in found.rows] == ["eager", "eager"]
    assert found.notes == ("onnxruntime: left out, needs onnxruntime: pip install 'modlib[deploy]'",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"networks": {"parent": nn.Linear(4, 3)}}, "is the parent's own name"),
        ({"networks": {"a": 3}}, "'a' must be an nn.Module or a Path, got int"),
        ({"networks": {"a": Path("none.onnx")}}, "there is no file 'none.onnx' for 'a'"),
        ({"parent": 3}, "parent must be an nn.Module, got int"),
        ({"batches": ()}, "must be lists of at least one"),
        ({"batches": (0,)}, "batches must be at least 1"),
        ({"runtimes": "eager"}, "must be lists of at least one"),
        ({"runtimes": ("tvm",)}, "runtimes must be one of"),
        ({"repeats": 1}, "repeats must be at least 2"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"example": torch.rand(0, 4)}, "example: must hold tensors"),
    ],
)
def test_measure_refuses_what_cannot_be(changes, said):
    given = {"networks": nn.Linear(4, 2), "parent": nn.Linear(4, 3), "example": torch.rand(2, 4)} | changes
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=said):
        deploy.measure(**given)


def test_a_table_of_what_is_missing():
    row = {
        "network": "a",
        "runtime": "eager",
        "batch": 1,
        "parameters": 1234,
        "multiply_adds": 5,
        "bytes_float32": 4936,
    }
    found = Measured([{**row, "bytes_onnx": None, "ms": 2, "ms_25": 1, "ms_75": 3, "speedup": None}], ("why",), 9, 1)
    cells = str(found).splitlines()[2].split("  ")
    assert [cell.strip() for cell in cells if cell.strip()] == [
        "a",
        "eager",
        "1",
        "1,234",
        "5",
        "4.9",
        "-",
        "2 (1 to 3)",
        "-",
    ]
    assert str(found).endswith("\nwhy")


def test_int8_agrees_as_it_says(tmp_path):
    net, inputs = seeded(conv_net).eval(), torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    source, path = tmp_path / "net.onnx", tmp_path / "int8.onnx"
    deploy.export(net, source, inputs[:2], classes=[5, 6, 7])
    found = quantised(source, path, inputs, batch=16)
    exact, rounded = run(source, inputs), run(path, inputs)
    assert found.agreement == pytest.approx(float((exact.argmax(1) == rounded.argmax(1)).double().mean()))
    assert found.difference == pytest.approx(float((exact - rounded).abs().max() / exact.abs().max()))
    assert 0 < found.difference < 0.1
    assert found.bytes == path.stat().st_size
    assert metadata(path)["modlib.classes"] == [5, 6, 7]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["int8.onnx", "net.onnx"]
    row, *of_parent = deploy.measure({"int8": path}, net, inputs[:2], batches=(1,), repeats=2).rows
    assert [of["runtime"] for of in (row, *of_parent)] == ["onnxruntime", "eager", "onnxruntime"]
    assert (row["bytes_onnx"], row["parameters"], row["multiply_adds"]) == (found.bytes, None, None)
    assert row["speedup"] > 0
    with pytest.raises(FileNotFoundError, match="source: there is no file"):
        quantised(tmp_path / "none.onnx", path, inputs)
    path.write_text("no model")
    with pytest.raises(ValueError, match="cannot be quantised"):
        quantised(path, source, inputs)


class Residual(nn.Module):
    """A stream that is added to, one layer that is called twice, weights that are computed."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding="same", bias=False)
        self.first, self.second = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, stride=2, padding=(1, 1), groups=16)
        self.norm, self.hidden, self.last = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.own, self.third = nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)

    def forward(self, images):
        stream = self.first(self.stem(images)).relu()
        stream = stream + self.second(self.block(stream)).relu()
        flat = self.norm(self.deep(stream).mean((2, 3)))
        logits = self.last(self.hidden(self.hidden(flat).relu()).relu())
        return self.third(nn.functional.linear(logits, self.own.weight * 2, self.own.bias))


def test_a_program_is_read_with_its_layers(tmp_path):
    net, inputs = seeded(Residual), torch.rand(4, 1, 6, 6)
    net(inputs)  # statistics that are not those of the start
    path = tmp_path / "net.pt2"
    deploy.export(net, path, inputs)
    read = reading.read_program(path)
    assert torch.equal(read(inputs), net.eval()(inputs))
    assert parent_hash(read) == parent_hash(net)
    kinds = {name: type(part) for name, part in net.named_modules() if name}
    found = {name: type(part) for name, part in read.named_modules() if name}
    assert {name: kind for name, kind in kinds.items() if name != "own"} == {
        n: k for n, k in found.items() if n != "own"
    }
    assert found["own"] is not nn.Linear, "its weight is computed: it stays an operator"


def test_a_program_can_be_cut_like_its_network(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    inputs, path = torch.rand(2, 1, 4, 4), tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net.eval(), (inputs,)), path)  # a batch of two alone
    read = reading.read_program(path)
    assert slicing.anatomy(read, inputs) == slicing.anatomy(net, inputs)
    kept = {"0": torch.tensor([1, 6])}
    small = slicing.cut(read, inputs, kept)
    torch.testing.assert_close(small(inputs), slicing.silenced(net, inputs, kept)(inputs))
    assert small.get_submodule("0").weight.shape == (2, 1, 3, 3)


def test_what_is_no_program_or_in_training_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        reading.read_program(tmp_path / "none.pt2")
    (tmp_path / "bad.pt2").write_text("nothing")
    with pytest.raises(ValueError, match=r"bad\.pt2' is no program of torch\.export"):
        reading.read_program(tmp_path / "bad.pt2")
    for net in (nn.Sequential(nn.Linear(4, 3), nn.Dropout()), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))):
        program = torch.export.export(net.train(), (torch.rand(2, 4),))
        with pytest.raises(ValueError, match="exported in training mode"):
            reading.with_layers(program)


class Choosy(Fixed):
    """Exported, it is right for batches of two alone."""

    def forward(self, inputs):
        return self.layer(inputs) * (1.0 if torch.compiler.is_compiling() or len(inputs) == 2 else 2.0)


def test_a_file_that_is_right_for_one_batch_size_alone_is_not_left(tmp_path):
    with pytest.raises(ValueError, match=r"by 0\.5 of the output's scale"):
        deploy.export(seeded(Choosy), tmp_path / "net.pt2", torch.ones(2, 4))
    assert not list(tmp_path.iterdir())


class Tight(nn.Module):
    """Two outputs; exported, the first is off by 0.01 in every row."""

    def forward(self, inputs):
        return inputs + (0.01 if torch.compiler.is_compiling() else 0.0), inputs * 0


def test_the_scale_of_an_output_is_that_of_all_rows(tmp_path):
    """Rows of 1e-6 and 4: a difference of 0.01 is 1/400 of the scale, whatever row it is in."""
    example = torch.tensor([[1e-6], [4.0]])
    found = deploy.export(Tight(), tmp_path / "net.pt2", example, tolerance=0.01)
    assert found.difference == pytest.approx(1 / 400, rel=1e-3)


def test_numbers_that_are_none_are_told(tmp_path):
    net = nn.Linear(4, 3)
    nn.init.constant_(net.weight, math.nan)
    with pytest.raises(ValueError, match="by nan of the output's scale"):
        deploy.export(net, tmp_path / "net.pt2", torch.rand(2, 4))


def test_cost_of_sparse_layers_by_hand_and_the_mode_that_a_network_was_in():
    weight = torch.tensor([[1.0, 0, 2], [0, 0, 3]])
    rows, columns = weight.nonzero(as_tuple=True)
    sparse = SparseLinear(rows, columns, weight[rows, columns], torch.zeros(2), 3)
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(), sparse).train()
    net[1].eval()
    assert cost(net, torch.zeros(2, 4)) == {"parameters": 15 + 3 + 2, "multiply_adds": 12 + 3}
    assert [part.training for part in net] == [True, False, True]
    (row, _) = measure(net, nn.Linear(4, 2), torch.zeros(1, 4), batches=[1], runtimes=["eager"], repeats=2).rows
    assert row["bytes_float32"] == 4 * (20 + 3 + 3 + 3)  # and 3 starts, 3 rows and 3 columns
