"""`modlib ship`: from a trained network to a file, on the command line."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import modlib
from modlib import ship
from modlib.__main__ import main
from modlib.decomposers.channels import Channels, ChannelSaliency
from modlib.parent import parent_hash

MINE = """
import numpy as np, torch, modlib
from torch import nn

def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 3)).eval()

def plain():
    with np.load("pets.npz") as file:
        return modlib.data.from_arrays(file["x"], file["y"])

def with_names():
    return plain(), ["cat", "dog", "eel"]

def broken():
    return 1 / 0

def three():
    return 3

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
"""


@pytest.fixture
def there(tmp_path, monkeypatch, data):
    """A folder with a network in `mine_to_ship.py`, images in `pets.npz`, and the same network in `net.pt2`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine_to_ship", raising=False)
    Path("mine_to_ship.py").write_text(MINE)
    np.savez("pets.npz", x=data.train_images.numpy(), y=data.train_labels.numpy(), names=["cat", "dog", "eel"])
    return tmp_path


def mine(name):
    """What a function of that module returns, which is there in a test's own folder alone."""
    return getattr(importlib.import_module("mine_to_ship"), name)()


def run(*arguments, parent="mine_to_ship:net", file="pets.npz", out="pair.onnx", budget=("--keep", "0.6")):
    return main(["ship", parent, "--data", file, "--out", out, *budget, *arguments])


def test_a_pair_by_name(there, data, capsys):
    assert run("--classes", "eel,cat", "--images", "30") == 0
    opened = onnxruntime.InferenceSession("pair.onnx", providers=["CPUExecutionProvider"])
    known = opened.get_modelmeta().custom_metadata_map
    assert (json.loads(known["modlib.classes"]), json.loads(known["modlib.names"])) == ([2, 0], ["eel", "cat"])
    assert known["modlib.parent"] == parent_hash(mine("net"))
    assert known["modlib.note"].startswith("float32 [B, C, H, W]: pixel / 255")
    inputs = data.inputs(data.test_images).numpy()
    assert opened.run(None, {opened.get_inputs()[0].name: inputs})[0].shape == (18, 2)
    said = capsys.readouterr()
    assert said.err == ""
    first, *_, last = said.out.splitlines()
    assert first.startswith("accuracy on ")
    assert " held-out images of the classes: parent restricted to them " in first
    assert last.startswith(f"{there / 'pair.onnx'}: ")
    assert last.endswith('outputs are ["eel", "cat"]')
    rows = [line.split()[:3] for line in said.out.splitlines() if line.startswith(("small", "parent"))]
    assert rows == [[n, r, b] for n in ("small", "parent") for r in ("eager", "onnxruntime") for b in ("1", "64")]


def test_what_is_written_is_what_recompose_gives(there, monkeypatch):
    """By number, from floats, out of a program and into one."""
    monkeypatch.setattr(ship, "measure", lambda *_: "")
    with np.load("pets.npz") as file:
        np.savez("floats.npz", x=file["x"][:, None] / 255.0, y=file["y"])
    torch.export.save(torch.export.export(mine("net"), (torch.rand(2, 1, 4, 4),)), "net.pt2")
    asked = run("--classes", "1,0", "--seed", "3", parent="net.pt2", file="floats.npz", out="pair.pt2")
    assert asked == 0
    images, names = ship._data("floats.npz", mine("net"), 3)
    assert names is None
    channels = ChannelSaliency().decompose(mine("net"), images, seed=3, classes=[1, 0], device="cpu")
    small = channels.recompose([1, 0], data=images, keep=0.6)
    inputs = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(torch.export.load("pair.pt2").module()(inputs), small(inputs))


def test_what_is_asked_for_reaches_recompose(there, monkeypatch):
    asked = {}

    def recompose(self, subset, **settings):
        asked.update(settings, subset=subset)
        raise ValueError("within: enough")

    monkeypatch.setattr(Channels, "recompose", recompose)
    assert run("--classes", "1", "--of", "parameters", budget=("--within", "0.5")) == 2
    assert asked.pop("data").name == "pets"
    assert asked == {"subset": (1,), "within": 0.5, "of": "parameters"}
    run("--classes", "0,1", "--images", "9")
    assert (asked["keep"], asked["images"], asked["of"]) == (0.6, 9, "multiply_adds")


def test_data_of_a_function_with_and_without_names(there, capsys, monkeypatch):
    monkeypatch.setattr(ship, "measure", lambda *_: "")
    assert run("--classes", "dog,eel", file="mine_to_ship:with_names") == 0
    assert "training (there are no others) images" in capsys.readouterr().out
    assert ship._data("mine_to_ship:plain", mine("net"), 0)[1] is None


def refused(capsys, monkeypatch, *arguments, **changes):
    """The line that refuses; nothing was done and nothing written."""
    monkeypatch.setattr(ChannelSaliency, "decompose", lambda *_, **__: pytest.fail("work has started"))
    before = sorted(Path.cwd().rglob("*.onnx"))
    try:
        status = run(*arguments, **changes)
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr()
    assert (status, said.out, said.err.count("\n")) == (2, "", 1)
    assert sorted(Path.cwd().rglob("*.onnx")) == before
    return said.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arguments": ("--classes", "cat,fox")}, "--classes: there is no 'fox'; there are cat, dog, eel"),
        ({"arguments": ("--classes", "3")}, "--classes: there is no '3'"),
        ({"arguments": ("--classes", "1,dog")}, "--classes: repeated class"),
        ({"arguments": ("--classes", "")}, "--classes: there is no ''"),
        ({"arguments": ()}, "the following arguments are required: --classes"),
        ({"budget": ()}, "one of the arguments --keep --within is required"),
        ({"budget": ("--keep", "0.1", "--within", "1")}, "not allowed with argument"),
        ({"budget": ("--keep", "0")}, "--keep must be in (0, 1], got 0.0"),
        ({"budget": ("--keep", "ten")}, "invalid float value: 'ten'"),
        ({"budget": ("--within", "-1")}, "--within must be in [0, 100], got -1.0"),
        ({"budget": ("--within", "1"), "file": "mine_to_ship:plain"}, "--within: chooses on held-out images"),
        ({"arguments": ("--classes", "cat", "--images", "0")}, "--images must be at least 4"),
        ({"arguments": ("--classes", "cat", "--seed", "-1")}, "--seed must be at least 0"),
        ({"out": "pair.pb"}, "--out: must end in .onnx (ONNX) or .pt2"),
        ({"out": "none/pair.onnx"}, "--out: there is no folder"),
        ({"parent": "none.pt2"}, "PARENT: there is no file 'none.pt2'"),
        ({"parent": "pets.pt2"}, "PARENT: 'pets.pt2' is no program of torch.export"),
        ({"parent": "mine_to_ship"}, "PARENT: must be module:function or a file, got 'mine_to_ship'"),
        ({"parent": "mine_to_ship:none"}, "PARENT: mine_to_ship:none fails: AttributeError"),
        ({"parent": "not_there:net"}, "PARENT: not_there:net fails: ModuleNotFoundError"),
        ({"parent": "mine_to_ship:broken"}, "PARENT: mine_to_ship:broken fails: ZeroDivisionError"),
        ({"parent": "mine_to_ship:three"}, "PARENT: mine_to_ship:three must give an nn.Module, got int"),
        ({"file": "none.npz"}, "--data: there is no file 'none.npz'"),
        ({"file": "bad.npz"}, "--data: 'bad.npz' cannot be read"),
        ({"file": "x.npz"}, "--data: 'x.npz' must hold x and y, got ['x']"),
        ({"file": "mine_to_ship:three"}, "must return data of modlib.data, got int"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(changes, said, there, capsys, monkeypatch):
    Path("pets.pt2").write_text("no program")
    Path("bad.npz").write_text("no arrays")
    np.savez("x.npz", x=np.zeros(3))
    arguments = changes.get("arguments", ("--classes", "cat") if "file" not in changes else ("--classes", "1"))
    rest = {key: value for key, value in changes.items() if key != "arguments"}
    assert said in refused(capsys, monkeypatch, *arguments, **rest)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((6, 4), np.uint8)}, "x must be [n, H, W], [n, H, W, C] or [n, C, H, W]"),
        ({"x": np.zeros((6, 5, 6, 5), np.uint8)}, "'pets.npz': x"),
        ({"x": np.full((6, 4), np.nan)}, "'pets.npz': x"),
        ({"y": np.zeros(5, int)}, "x must be [n, ...] and y n labels, got (6, 4, 4) and (5,)"),
        ({"y": np.full(6, -1)}, "labels must be "),
        (
            {"y": np.array(["cat", "dog", "eel"] * 2), "names": ["cat", "dog"]},
            "['eel'] are none of the classes ['cat', 'dog']",
        ),
        ({"names": ["a", "b"]}, "are none of the classes"),
        ({"names": ["a", "b", "b"]}, "classes must be two or more different labels"),
    ],
)
def test_arrays_that_cannot_be_are_refused(arrays, said, there, capsys, monkeypatch):
    np.savez("pets.npz", **{"x": np.zeros((6, 4, 4), np.uint8), "y": np.arange(6) % 3} | arrays)
    assert said in refused(capsys, monkeypatch, "--classes", "0")


def test_labels_may_be_texts_that_are_the_outputs_in_order(there):
    with np.load("pets.npz") as file:
        named, numbers = file["names"], file["y"]
        np.savez("texts.npz", x=file["x"], y=file["names"][file["y"]])
        np.savez("ordered.npz", x=file["x"], y=file["names"][file["y"]], names=file["names"][::-1])
    data, names = ship._data("texts.npz", mine("net"), 0)
    assert names == tuple(sorted(named))
    assert torch.bincount(data.train_labels).sum() + len(data.held_out_labels) == len(numbers)
    assert ship._data("ordered.npz", mine("net"), 0)[1] == tuple(named[::-1])


def test_rows_are_parted_by_the_seed(there, data):
    """A fifth is held out, every row is somewhere once; classes that the file lacks count where the parent has them."""
    labels = np.arange(60) % 2
    np.savez("two.npz", x=np.arange(960, dtype=np.float32).reshape(60, 1, 4, 4), y=labels)
    first, _ = ship._data("two.npz", mine("net"), 0)
    assert (len(first.train_labels), len(first.held_out_labels), first.num_classes) == (48, 12, 3)
    own, held_out = (first.part(s).batch(torch.arange(n)).inputs for s, n in (("train", 48), ("held_out", 12)))
    rows = torch.cat([own, held_out])[:, 0, 0, 0] / 16
    assert sorted(rows.tolist()) == list(range(60))
    assert torch.equal(torch.cat([first.train_labels, first.held_out_labels]), (rows % 2).long())
    again, other = ship._data("two.npz", mine("net"), 0)[0], ship._data("two.npz", mine("net"), 1)[0]
    taken = [d.part("held_out").batch(torch.arange(12)).inputs for d in (first, again, other)]
    assert torch.equal(taken[0], taken[1])
    assert not torch.equal(taken[0], taken[2])


def test_accuracy_by_hand():
    """Of four images of 2 and 0 the parent knows three, as it may say 2 or 0 alone, and the small network one."""
    images = torch.eye(4)[[0, 1, 2, 3, 0]].reshape(5, 1, 4)
    labels = torch.tensor([2, 0, 2, 0, 1])
    data = modlib.data.tensors(images, labels, num_classes=3)
    parent, small = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, n, bias=False)) for n in (3, 2))
    parent[1].weight.data = torch.tensor([[0.0, 2, 0, 0], [9.0, 9, 9, 9], [1.0, 1, 1, 2]])
    small[1].weight.data = torch.tensor([[0.0, 1, 1, 1], [1.0, 0, 0, 0]])
    said = ship.accuracies(parent, small, data, [2, 0])
    assert said.startswith("accuracy on 4 training (there are no others) images")
    assert said.endswith("parent restricted to them 75.00%, small network 25.00% (-50.00 points)")
    held_out = modlib.data.tensors(images, labels, num_classes=3, held_out=(images, labels))
    said = ship.accuracies(parent, small, held_out, [2, 0], chosen=True)
    assert said.startswith("accuracy on 4 held-out (they chose its size) images")
    tested = modlib.data.tensors(images, labels, num_classes=3, held_out=(images, labels), test=(images, labels))
    assert ship.accuracies(parent, small, tested, [2, 0], chosen=True).startswith("accuracy on 4 test images")
    single = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
    assert ship.accuracies(parent, single, data, [2]).endswith("; one class alone: always right, this says nothing")


def test_a_program_whose_channels_cannot_be_cut_says_what_to_hand_over(there, capsys):
    torch.export.save(torch.export.export(mine("flat").eval(), (torch.rand(2, 1, 4, 4),)), "flat.pt2")
    assert run("--classes", "cat", parent="flat.pt2") == 2
    said = capsys.readouterr().err
    assert "no channels can be cut" in said
    assert said.endswith("hand over the network itself: module:function\n")


ALONE = """
import sys
for name in ("torchvision", "pandas", "sklearn", "matplotlib", "seaborn", "numba", "papermill", "yaml", "h5py",
             "modlib.study", "modlib.zoo"):
    sys.modules[name] = None  # an import of it raises
from modlib.__main__ import main
what = ["mine_to_ship:net", "--data", "pets.npz", "--classes", "cat", "--keep", "0.6", "--out", "o.onnx"]
sys.exit(main(["ship", *what]))
"""


def test_the_extra_deploy_is_enough(there):
    paths = {"PYTHONPATH": str(Path(modlib.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", ALONE], capture_output=True, text=True, env=paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("o.onnx").is_file()
