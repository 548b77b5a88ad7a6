"""Data of one's own: images, tensors, data frames and datasets of torch, with labels of any kind; bad ones refused."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import modlib
from modlib import data as own
from modlib.labels import Numbering, numbered
from modlib.parent import flat

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 255, (9, 5, 6, 3), dtype=np.uint8)
LABELS = [0, 1, 2] * 3
FLOATS = torch.from_numpy(RNG.random((9, 2), dtype=np.float32))
FAST = {"epochs": 1, "k": 0.5, "alpha": 1.0, "batch_size": 4, "device": "cpu", "seed": 0}


class Items(Dataset):
    """Images by number, as a user's own dataset gives them."""

    def __init__(self, change=lambda x: x, length: int = 9, label: str = "pair") -> None:
        self.change, self.length, self.label = change, length, label

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int):
        if i >= 9:
            raise IndexError(i)
        x = self.change(torch.from_numpy(COLOURS[i]).permute(2, 0, 1).float() / 255)
        return {"pair": (x, LABELS[i]), "dict": {"image": x, "class": LABELS[i]}, "alone": x}[self.label]


def test_images_in_every_layout_are_the_same_inputs():
    first, last = torch.from_numpy(COLOURS), torch.from_numpy(COLOURS).permute(0, 3, 1, 2)
    pictures = [Image.fromarray(c) for c in COLOURS]
    inputs = [own.images(x, LABELS).part("train").batch(torch.arange(9)).inputs for x in (first, last, pictures)]
    assert inputs[0].shape == (9, 3, 5, 6)
    assert all(torch.equal(x, inputs[0]) for x in inputs)
    assert torch.equal(own.images(COLOURS[..., ::-1], LABELS).train_images, first.flip(3))
    grey = [own.images(x, LABELS) for x in (COLOURS[..., 0], COLOURS[..., :1], COLOURS[:, None, :, :, 0])]
    assert {g.train_images.shape for g in grey} == {(9, 5, 6)}
    palette = [Image.fromarray(c).convert("P") for c in COLOURS]
    assert own.images(palette, LABELS).train_images.shape == (9, 5, 6, 3)


def layouts(colours: np.ndarray) -> list:
    """The same images in every layout; grey ones where they have two dimensions."""
    if colours.ndim == 3:
        return [colours, colours[..., None], colours[:, None], list(colours), [Image.fromarray(c) for c in colours]]
    return [colours, colours.transpose(0, 3, 1, 2), list(colours), [Image.fromarray(c) for c in colours]]


@pytest.mark.parametrize("colours", [COLOURS, COLOURS[..., 0].copy()], ids=["colours", "grey"])
def test_new_images_may_have_any_layout_that_the_training_images_may(colours):
    wanted = own.images(colours, LABELS).part("train").batch(torch.arange(9)).inputs
    for given in layouts(colours):
        data = own.images(given, LABELS)
        for x in layouts(colours):
            assert torch.equal(data.inputs(x), wanted)
            if isinstance(x, np.ndarray):
                assert torch.equal(data.inputs(torch.from_numpy(x)), wanted)
    seen = []
    data = own.images(colours, LABELS, preprocess=lambda x: seen.append(x) or x.float())
    data.inputs(data.train_images)
    assert seen[0] is data.train_images, "what is stored reaches the preprocessing as it is"


@pytest.mark.parametrize(
    ("train", "x", "error", "said"),
    [
        (COLOURS[..., 0], COLOURS, ValueError, r"\(9, 5, 6, 3\) of 3 channels; .* \(9, 5, 6\) grey"),
        (COLOURS, COLOURS[0], ValueError, r"\(5, 6, 3\) grey; .* of 3 channels"),
        (COLOURS, COLOURS / 255, TypeError, r"images must be uint8 images, got torch.float64"),
        (COLOURS, FLOATS, TypeError, r"images must be uint8, got torch.float32: inputs are made of raw images, once"),
        (COLOURS, COLOURS[0, 0], ValueError, r"images must be \[n, H, W\]"),
    ],
)
def test_new_images_of_another_layout_are_refused(train, x, error, said):
    data = own.images(train, LABELS, preprocess=lambda x: x.float())
    with pytest.raises(error, match=said):
        data.inputs(x)


def test_parts_are_given_or_cut():
    cut = own.images(COLOURS, LABELS, held_out=3, test=(COLOURS[:2], [2, 1]))
    assert [len(cut.part(s).labels) for s in own.SPLITS] == [6, 3, 2]
    assert torch.equal(cut.held_out_images, torch.from_numpy(COLOURS)[[0, 4, 8]])
    given = own.images(COLOURS, LABELS, held_out=(COLOURS[:1], [1]))
    assert given.held_out_labels.tolist() == [1]
    with pytest.raises(ValueError, match="no test images"):
        given.part("test")


def test_every_class_is_held_out_where_rows_are_sorted_by_class():
    sorted_ = np.repeat([0, 1, 2], 30)
    pixels = np.arange(90, dtype=np.uint8)[:, None, None].repeat(4, 1)
    for data in (own.images(pixels, sorted_, held_out=9), own.tensors(pixels / 1.0, sorted_, held_out=9)):
        assert data.held_out_labels.bincount().tolist() == [3, 3, 3]
        assert data.train_labels.bincount().tolist() == [27, 27, 27]
        read = [
            (data.part(s).batch(torch.arange(n)).inputs.flatten(1)[:, 0]) for s, n in (("train", 81), ("held_out", 9))
        ]
        scale = 255 if isinstance(data, own.Dataset) else 1
        assert (torch.cat(read) * scale).round().sort().values.tolist() == list(range(90)), "each row once"
        assert torch.equal((read[1] * scale).round().long() // 30, data.held_out_labels)


def test_what_is_held_out_must_leave_training_images():
    for wrong, error, said in (
        (9, ValueError, "held_out must be below the number of training images, 9, got 9"),
        (-1, ValueError, "held_out must be at least 0, got -1"),
        (True, TypeError, "held_out must be a whole number, got True"),
        (0.2, TypeError, "held_out must be a pair, inputs and labels, or a whole number, got float"),
    ):
        with pytest.raises(error, match=said):
            own.images(COLOURS, LABELS, held_out=wrong)


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([0, 1, 1], None, [0, 1, 1]),
        (np.array(["dog", "cat", "dog"]), ("cat", "dog"), [1, 0, 1]),
        (pd.Series(["dog", "cat", "dog"]), ("cat", "dog"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (torch.tensor([1.0, 0.0, 1.0]), None, [1, 0, 1]),
    ],
    ids=["from 0", "texts", "series", "truth values", "whole floats"],
)
def test_labels_of_any_kind_are_numbered(labels, names, numbers):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbering = Numbering.of(labels)
    assert numbering.names == names
    assert numbering.numbers("y", labels).tolist() == numbers


def test_numbers_that_are_not_from_0_are_numbered_with_a_warning_or_as_asked():
    with pytest.warns(UserWarning, match=r"labels: \[1, 2, 5\] are taken as the parent's outputs 0 to 2"):
        gaps = Numbering.of([5, 1, 2])
    assert gaps.names == ("1", "2", "5")
    assert Numbering.of([5, 1, 2], num_classes=6).values == (0, 1, 2, 3, 4, 5)
    assert Numbering.of(["b", "a"], classes=["b", "a", "c"]).numbers("y", ["a", "b"]).tolist() == [1, 0]
    assert numbered(["cat", 0], ("dog", "cat")) == [1, 0]
    named = Numbering.of([1, 0, 2], classes=["cat", "dog", "fox"])
    assert (named.names, named.numbers("y", [2, 0]).tolist()) == (("cat", "dog", "fox"), [2, 0])
    assert Numbering.of(["10", "2", "0"]).values == ("0", "2", "10")
    order = pd.Categorical(["low", "high", "mid"], categories=["low", "mid", "high", "none"])
    assert Numbering.of(pd.Series(order)).values == ("low", "mid", "high")


@pytest.mark.parametrize(
    ("labels", "options", "error", "said"),
    [
        (None, {}, TypeError, "y: missing|labels: missing"),
        ([0, 1, None], {}, ValueError, r"labels: 1 of 3 are missing \(None, NaN or NA\), the first at row 2"),
        (pd.Series([pd.NA, "a"], dtype="string"), {}, ValueError, "labels: 1 of 2 are missing .* the first at row 0"),
        (pd.Series([1, None, None], dtype="Int64"), {}, ValueError, "labels: 2 of 3 are missing .* first at row 1"),
        (pd.Series(["a", None, "b"], dtype="category"), {}, ValueError, "labels: 1 of 3 are missing"),
        (np.array([1.0, 0.0, np.nan]), {}, ValueError, "labels: 1 of 3 are missing .* first at row 2"),
        (torch.tensor([0.0, 1.0, 0.5]), {}, ValueError, "got numbers such as 0.5"),
        ([0.0, np.inf], {}, ValueError, "got numbers such as inf"),
        (pd.DataFrame({"y": [0, 1]}), {}, ValueError, r"got shape \(2, 1\); ravel it: .*to_numpy\(\).ravel\(\)"),
        (torch.zeros(4, 1), {}, ValueError, r"got shape \(4, 1\); ravel it: labels.ravel\(\)"),
        ([0.5, 1.0], {}, ValueError, "labels must be whole numbers, texts or truth values"),
        ([0, "a"], {}, TypeError, r"labels must be of one type, got \['int', 'str'\]"),
        ([0, 7], {"num_classes": 5}, ValueError, r"from 0 to 4 \(num_classes\), got \[7\]"),
        (list(range(11)), {"num_classes": 10}, ValueError, r"from 0 to 9 \(num_classes\), got \[10\]"),
        ([True, False], {"num_classes": 2}, ValueError, r"\(num_classes\), got \[False, True\]"),
        (["a", "b"], {"num_classes": 2}, ValueError, r"got \['a', 'b'\]"),
        ([0, 1], {"num_classes": 2, "classes": [0, 1]}, ValueError, "give one of both"),
        ([3, 3], {}, ValueError, "all are 3"),
        ([0, -1], {}, ValueError, "labels must be at least 0, got -1"),
        ([[0], [1]], {}, ValueError, r"got shape \(2, 1\)"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, options, error, said):
    with pytest.raises(error, match=said):
        Numbering.of(labels, **options)


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match=r"test labels: \['fox'\] are none of the classes \['cat', 'dog'\]"):
        own.images(COLOURS[:4], ["cat", "dog"] * 2, test=(COLOURS[:1], ["fox"]))


def test_an_empty_class_is_an_error_or_gets_no_module():
    with pytest.raises(ValueError, match=r"classes: 1 have no training images, \['fox'\]; pass empty=True"):
        own.images(COLOURS, ["cat", "dog", "cat"] * 3, classes=["cat", "dog", "fox"])
    data = own.images(COLOURS, ["cat", "dog", "cat"] * 3, classes=["cat", "dog", "fox"], empty=True)
    parent = nn.Sequential(nn.Flatten(), nn.Linear(90, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.warns(UserWarning, match=r"classes \[2\] have no training images, and get no modules"):
        modules = modlib.cotrain(parent, data, **FAST)
    assert modules.classes == (0, 1)
    assert modules.metadata["class_names"] == ["cat", "dog", "fox"]
    with pytest.raises(ValueError, match=r"classes: \[2\] have no training images"):
        modlib.cotrain(parent, data, classes=[0, 2], **FAST)


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (
            [np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8)],
            ValueError,
            r"\(2, 2\) at 0 and \(2, 3\) at 1; resize",
        ),
        (np.zeros((2, 4, 4)), TypeError, "x must be uint8 images, got torch.float64; what is ready"),
        (np.zeros((2, 4), np.uint8), ValueError, r"\[n, H, W\], \[n, H, W, C\] or"),
        (np.zeros((0, 4, 4), np.uint8), ValueError, "n of at least 1"),
        ([], ValueError, "x: empty"),
        (["a.png", "b.png"], TypeError, "x must be an array or a tensor of numbers"),
        (np.zeros((3, 4, 4), np.uint8), ValueError, "y: 2 for 3 images"),
    ],
)
def test_images_that_cannot_be_are_refused(x, error, said):
    with pytest.raises(error, match=said):
        own.images(x, [0, 1])


class TwoInputs(nn.Module):
    """Token ids and floats, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 6), nn.Linear(8, 3)

    def forward(self, ids: Tensor, floats: Tensor) -> Tensor:
        assert ids.dtype == torch.int64
        return self.out(torch.cat([self.table(ids).mean(1), floats], 1))


def test_ids_and_floats_in_a_dict_reach_the_parent_uncast():
    x = {"ids": torch.randint(0, 11, (9, 4)), "floats": np.random.default_rng(1).normal(size=(9, 2))}
    data = own.tensors(x, LABELS, held_out=3)
    assert data.part("held_out").batch(torch.arange(2)).inputs["floats"].dtype == torch.float32
    parent, found = TwoInputs(), []
    for given in (data, own.tensors(tuple(x.values()), LABELS, held_out=3)):
        with pytest.warns(UserWarning, match=r"1 weights are not masked .* table.weight"):
            modules = modlib.cotrain(parent, given, **FAST, precision="bfloat16")
        inputs = given.part("train").batch(torch.arange(6)).inputs
        pair = modules.recompose([2, 0])
        assert set(pair.predict(inputs).tolist()) <= {0, 2}
        torch.testing.assert_close(pair.log_odds(inputs), modules.log_odds(inputs, batch_size=4)[:, [2, 0]])
        assert len(modules.report(given, "train").rows) == 3
        baked = pair.baked()
        in_one_call = baked(**inputs) if isinstance(inputs, dict) else baked(*inputs)
        torch.testing.assert_close(in_one_call, pair(inputs), rtol=1e-5, atol=1e-7)
        found.append(TwoInputs.forward(parent, **inputs) if isinstance(inputs, dict) else parent(*inputs))
    torch.testing.assert_close(*found)
    with pytest.raises(ValueError, match=r"inputs must have as many rows each, got \[6, 5\]"):
        pair.predict((inputs[0], inputs[1][:5]))


def test_a_data_frame_is_a_table_of_numbers():
    frame = pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9), "c": [True, False, True] * 3})
    data = own.tensors(frame.astype(float), pd.Series(["x", "y", "z"] * 3))
    assert data.part("train").batch(torch.tensor([1])).inputs.tolist() == [[1.0, 1.0, 0.0]]
    mixed = pd.get_dummies(frame.assign(kind=list("abc") * 3)).astype({"b": "Int64"})
    assert own.tensors(mixed, LABELS).part("train").batch(torch.tensor([1])).inputs.tolist() == [[1, 1, 0, 0, 1, 0]]
    with pytest.raises(ValueError, match=r"test: its columns \['c', 'b', 'a'\] are not those of x, \['a', 'b', 'c'\]"):
        own.tensors(frame, LABELS, test=(frame[["c", "b", "a"]], LABELS))
    with pytest.raises(TypeError, match=r"x: columns must be numbers, these are not: \['name'\]"):
        own.tensors(frame.assign(name="a"), LABELS)
    with pytest.raises(ValueError, match="x: 1 of 27 values are NaN"):
        own.tensors(frame.astype(float).replace({"a": {3.0: np.nan}}), LABELS)
    with pytest.raises(ValueError, match=r"as many rows each, one at least; they have \[8, 9\]"):
        own.tensors((np.zeros((9, 1)), np.zeros((8, 1))), LABELS)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_is_read_as_it_is_needed(workers):
    data = own.dataset(Items(), held_out=3, workers=workers)
    assert (data.train_labels.tolist(), data.held_out_labels.tolist()) == ([1, 2, 0, 2, 0, 1], [0, 1, 2])
    batch = data.part("train").batch(torch.tensor([5, 0]))
    wanted = torch.from_numpy(COLOURS[[7, 1]]).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(batch.inputs, wanted)
    assert batch.labels.tolist() == [1, 1]
    same = own.dataset(Items(label="dict"), unpack=lambda item: (item["image"], item["class"]), held_out=3)
    assert same.sha256() == data.sha256() != own.dataset(Items()).sha256()
    parent = nn.Sequential(nn.Flatten(), nn.Linear(90, 8), nn.ReLU(), nn.Linear(8, 3))
    assert modlib.cotrain(parent, data, **FAST).classes == (0, 1, 2)
    assert data.only([1]).train_labels.tolist() == [1, 1]


def test_names_are_taken_and_given_wherever_classes_are(tmp_path):
    names = np.array(["cat", "dog", "fox"])[LABELS]
    data = own.images(COLOURS, names)
    parent = nn.Sequential(nn.Flatten(), nn.Linear(90, 8), nn.ReLU(), nn.Linear(8, 3))
    modules = modlib.cotrain(parent, data, **FAST)
    modules.save(tmp_path / "pets.safetensors")
    for known in (modules, modlib.load(tmp_path / "pets.safetensors", parent), modules.select([0, 2])):
        pair = known.recompose(["fox", "cat"])
        assert pair.classes.tolist() == [2, 0]
        inputs = data.part("train").batch(torch.arange(9)).inputs
        assert pair.predict(inputs, names=True) == [data.class_names[c] for c in pair.predict(inputs).tolist()]
        assert set(pair.predict(inputs, reject=0.999999, names=True)) <= {None, "cat", "fox"}
    assert modules.without(["cat"]).classes == modlib.cotrain(parent, data, classes=["dog", "fox"], **FAST).classes
    assert modules.replace("cat", modules).remaining(["cat"]) == modules.remaining([0])
    assert repr(data) == "Dataset 'images': 3 classes; 9 train, 0 held_out, 0 test"
    with pytest.raises(ValueError, match=r"classes: there is no 'cow'; they are \['cat', 'dog', 'fox'\]"):
        modules.recompose(["cow"])
    nameless = modlib.cotrain(parent, own.images(COLOURS, LABELS), **FAST)
    with pytest.raises(ValueError, match="classes: there is no 'cat'; they have no names"):
        nameless.recompose(["cat"])
    with pytest.raises(ValueError, match="names: the data had no names"):
        nameless.recompose([0]).predict(inputs, names=True)


def test_a_folder_of_images_has_its_names(tmp_path):
    for i, image in enumerate(COLOURS):
        folder = tmp_path / ("cat", "dog", "fox")[i % 3]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    resized = v2.Compose([v2.ToImage(), v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)])
    data = own.dataset(ImageFolder(tmp_path, transform=resized))
    assert data.class_names == ("cat", "dog", "fox")
    assert data.part("train").batch(torch.arange(3)).inputs.shape == (3, 3, 8, 8)
    with pytest.raises(ValueError, match="train: items cannot be put into one batch; make them tensors"):
        own.dataset(ImageFolder(tmp_path))
    turned = ImageFolder(tmp_path, resized, target_transform=lambda c: 2 - c)
    assert own.dataset(turned).train_labels.tolist() == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    part = own.dataset(Subset(ImageFolder(tmp_path, resized), [0, 4, 8]))
    assert (part.class_names, part.train_labels.tolist()) == (("cat", "dog", "fox"), [0, 1, 2])
    assert own.dataset(ImageFolder(tmp_path, resized), unpack=lambda i: (i[0], 2 - i[1])).class_names is None
    lying = ImageFolder(tmp_path, resized)
    lying.targets = lying.targets[::-1]
    with pytest.raises(ValueError, match="train: item 0 has the label 0, the dataset lists 2"):
        own.dataset(lying)
    shutil.copytree(tmp_path / "dog", tmp_path / "other" / "dog")
    with pytest.raises(ValueError, match=r"test: its classes \['dog'\] are not those of training, \['cat', 'dog',"):
        own.dataset(turned, test=ImageFolder(tmp_path / "other", resized))


def test_classes_of_a_folder_are_put_in_order_by_name(tmp_path):
    for i, image in enumerate(COLOURS):
        folder = tmp_path / ("cat", "dog", "fox")[i % 3]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    resized = v2.Compose([v2.ToImage(), v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)])
    folders, order = ImageFolder(tmp_path, resized), ["fox", "cat", "dog"]
    data = own.dataset(folders, classes=order, test=Subset(folders, [0, 4, 8]))
    assert data.class_names == ("fox", "cat", "dog")
    assert data.train_labels.tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]
    assert data.test_labels.tolist() == [1, 2, 0]
    turned = ImageFolder(tmp_path, resized, target_transform=lambda c: 2 - c)
    assert own.dataset(turned, classes=["a", "b", "c"]).train_labels.tolist()[::4] == [2, 1, 0]
    shutil.copytree(tmp_path / "dog", tmp_path / "other" / "dog")
    assert own.dataset(folders, classes=order, test=ImageFolder(tmp_path / "other", resized)).test_labels[0] == 2
    with pytest.raises(ValueError, match=r"classes: \['Fox', .*\] are not the names of train.*: there is no \['fox'\]"):
        own.dataset(folders, classes=["Fox", "cat", "dog"])
    with pytest.raises(ValueError, match=r"1 have no training images, \['cow'\]"):
        own.dataset(folders, classes=[*order, "cow"])
    assert own.dataset(folders, folders.targets, classes=["a", "b", "c"]).train_labels.tolist() == folders.targets


def test_augmentation_acts_in_training_alone_and_follows_the_seed():
    data = own.dataset(Items(), augment=v2.RandomHorizontalFlip(0.5))
    source, rows = data.part("train"), torch.arange(9)
    plain = source.batch(rows).inputs
    assert torch.equal(plain, own.dataset(Items()).part("train").batch(rows).inputs)
    drawn = [source.batch(rows, draw=torch.Generator().manual_seed(s)).inputs for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    flipped = [torch.equal(a, b.flip(2)) for a, b in zip(drawn[0], plain, strict=True)]
    assert 0 < sum(flipped) < 9, "every image has a draw of its own"
    assert not torch.equal(drawn[0], drawn[2])
    parent = nn.Sequential(nn.Flatten(), nn.Linear(90, 8), nn.ReLU(), nn.Linear(8, 3))
    changed = [
        modlib.cotrain(parent, own.images(COLOURS, LABELS, augment=a), **FAST).grafting_weight
        for a in (None, torch.zeros_like)
    ]
    assert not torch.equal(*changed)
    with pytest.raises(ValueError, match=r"engine: 'vectorised' needs .* no augmentation"):
        modlib.cotrain(parent, own.images(COLOURS, LABELS, augment=torch.zeros_like), engine="vectorised", **FAST)


def cropped(x: Tensor) -> Tensor:
    """To another size every time."""
    cropped.calls = getattr(cropped, "calls", 0) + 1
    return x[:, : cropped.calls % 4 + 1]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("items", "options", "error", "said"),
    [
        (DataLoader(Items()), {}, TypeError, "train: a DataLoader gives batches in an order of its own; hand over its"),
        (Stream(), {}, TypeError, "train must be a map-style dataset"),
        (Items(length=0), {}, ValueError, "train: the dataset is empty"),
        (Items(length=12), {}, ValueError, "train: its length is 12, but item 0 or the last fails"),
        (Items(label="alone"), {}, ValueError, "train: its items must be pairs of an input and a label, got Tensor"),
        (Items(label="dict"), {}, ValueError, "got dict; pass unpack="),
        (
            Items(lambda x: cropped(x)),
            {},
            ValueError,
            "one batch|changes its shape",
        ),
        (Items(), {"labels": [0, 1]}, ValueError, "train: 2 labels for 9 items"),
        (Items(), {"held_out": 9}, ValueError, "held_out must be below the number of training images, 9, got 9"),
    ],
)
def test_datasets_that_cannot_be_are_refused(items, options, error, said):
    with pytest.raises(error, match=said):
        own.dataset(items, **options)


class Failing(Items):
    """It shows what is wrong with it at its fifth item alone, which nobody asks for before work starts."""

    def __init__(self, wrong) -> None:
        super().__init__()
        self.wrong = wrong

    def __getitem__(self, i: int):
        x, y = super().__getitem__(i)
        return (self.wrong(x) if i == 4 else x), y


def lost(x: Tensor) -> Tensor:
    raise FileNotFoundError("4.png")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda x: x * torch.nan, r"data: item 4 has NaN or infinity in it; inputs must be finite"),
        (lambda x: x + torch.tensor([0.0, torch.inf])[(torch.arange(6) == 3).long()], "data: item 4 has NaN or inf"),
        (lost, r"data: item 4 of 9 cannot be read: FileNotFoundError\('4.png'\)"),
        (lambda x: x[:2], r"data: items \[3, 4\] cannot be put into one batch, do their shapes change"),
    ],
    ids=["NaN", "infinity", "file", "shape"],
)
def test_what_is_wrong_with_an_item_is_said_with_its_number(wrong, said, workers):
    data = own.dataset(Failing(wrong), labels=LABELS, workers=workers)
    source = data.part("train")
    source.batch(torch.tensor([3, 5]))
    with pytest.raises(ValueError, match=said):
        source.batch(torch.tensor([3, 4]))
    parent = nn.Sequential(nn.Flatten(), nn.Linear(90, 3))
    with pytest.raises(ValueError, match=said.split("items")[0]):
        modlib.cotrain(parent, data, **FAST)


def test_finite_numbers_whose_sum_is_not_are_taken():
    data = own.dataset(Items(lambda x: torch.full_like(x, 3e38)))
    assert data.part("train").batch(torch.arange(9)).inputs.amin() > 1e38


def test_a_collate_that_loses_rows_is_said():
    data = own.dataset(Items(), collate=lambda read: torch.stack(read[:1]))
    with pytest.raises(ValueError, match=r"data: 3 items were read, collate= has made \[1\] rows of them"):
        data.part("train").batch(torch.arange(3))


@pytest.mark.parametrize(
    ("labels", "error", "said"),
    [
        ([0, 1, None] * 3, ValueError, r"labels: 3 of 9 are missing \(None, NaN or NA\), the first at row 2"),
        ([], ValueError, "train: 0 labels for 9 items"),
        (LABELS[:8], ValueError, "train: 8 labels for 9 items"),
    ],
)
def test_labels_that_are_missing_are_said(labels, error, said):
    with pytest.raises(error, match=said):
        own.dataset(Items(), labels=labels)


def test_a_random_transform_that_would_act_at_test_time_is_warned_of():
    with pytest.warns(UserWarning, match="item 0 changes from one reading to the next: a random transform"):
        own.dataset(Items(lambda x: x + torch.rand(())))


class Unlabelled(Items):
    """The same images without labels."""

    def __getitem__(self, i: int):
        return super().__getitem__(i)[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda **b: own.images(COLOURS, LABELS, **b),
        lambda **b: own.tensors(
            {"a": FLOATS, "b": torch.arange(9)},
            LABELS,
            **{n: {"a": v, "b": v[:, 0].long()} for n, v in b.items()},
        ),
        lambda **b: own.dataset(Items(), workers=2, **b),
    ],
    ids=["images", "tensors", "dataset"],
)
@pytest.mark.parametrize("labelled", [False, True])
def test_images_of_no_class_are_trained_on_and_are_no_part_of_anything_else(make, labelled):
    given = {"images": COLOURS[:4] // 2, "tensors": torch.rand(4, 2), "dataset": (Items if labelled else Unlabelled)()}
    kind = make().name
    plain, data = make(), make(background=given[kind])
    count = len(given[kind])
    source = data.training()
    assert source.labels.tolist() == LABELS + [-1] * count
    assert data.train_labels.tolist() == LABELS
    rows = torch.tensor([8, 9, 0, 9 + count - 1])
    batch = source.batch(rows)
    assert batch.labels.tolist() == [2, -1, 0, -1]
    assert torch.equal(batch.rows, rows)
    one, other = plain.part("train").batch(rows[[0, 2]]), data.background.batch(torch.tensor([0, count - 1]))
    for mixed, a, b in zip(*map(flat, (batch.inputs, one.inputs, other.inputs)), strict=True):
        assert torch.equal(mixed[[0, 2]], a)
        assert torch.equal(mixed[[1, 3]], b)
    taken = source.take(torch.tensor([10, 3]))
    assert taken.labels.tolist() == [0, -1]
    assert torch.equal(flat(taken.batch(torch.tensor([1])).inputs)[0], flat(source.batch(torch.tensor([10])).inputs)[0])
    assert plain.training().labels.tolist() == LABELS
    assert plain.sha256() != data.sha256()
    assert data.to("cpu").background.labels.tolist() == [-1] * count


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: own.images(COLOURS, LABELS, background=COLOURS[:, :4]), r"background: images of \(4, 6, 3\)"),
        (lambda: own.tensors(torch.rand(9, 4), LABELS, background=torch.rand(3, 5)), r"background: its inputs are .*5"),
        (
            lambda: own.tensors(torch.rand(9, 4), LABELS, background=torch.full((3, 4), torch.nan)),
            "background: 12 of 12",
        ),
        (lambda: own.dataset(Items(), background=Items(lambda x: x[:2])), r"background: its inputs are .*2, 5, 6"),
        (lambda: own.dataset(Items(), background=Items(length=0)), "background: the dataset is empty"),
    ],
)
def test_images_of_no_class_that_do_not_fit_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_one_class_and_images_of_no_class_are_enough():
    """The module tells them apart; no check says that there are only positives."""
    torch.manual_seed(0)
    x = torch.cat([torch.rand(40, 4), torch.rand(40, 4) - 1])
    data = own.tensors(x[:40], [0] * 40, num_classes=2, empty=True, background=x[40:])
    parent = nn.Linear(4, 2)
    assert not any("all training images" in line for line in modlib.check(parent, data).lines)
    with pytest.warns(UserWarning, match="no training images"):
        modules = modlib.cotrain(parent, data, **FAST | {"k": 1.0, "epochs": 30})
    odds = modules.log_odds(x)[:, 0]
    assert odds[:40].mean() > 0 > odds[40:].mean()


def test_tensor_datasets_are_taken():
    data = own.dataset(TensorDataset(torch.rand(6, 4), torch.tensor([0, 1, 2] * 2)))
    assert data.num_classes == 3


@pytest.mark.parametrize("part", ["test", "held_out"])
@pytest.mark.parametrize(
    ("x", "other", "said"),
    [
        (FLOATS, torch.rand(9, 3), r"\[n, 3\] of floats, those of training \[n, 2\] of floats"),
        (FLOATS, torch.ones(9, 2).long(), r"\[n, 2\] of whole numbers, those of training \[n, 2\] of floats"),
        ({"a": FLOATS}, {"b": FLOATS}, r"\{'b': \[n, 2\] of floats\}, those of training \{'a': \[n, 2\] of floats\}"),
        ({"a": FLOATS}, FLOATS, r"\[n, 2\] of floats, those of training \{'a'"),
        ((FLOATS, FLOATS), (FLOATS,), r"\(\[n, 2\] of floats\), those of training \(\[n, 2\] of floats, \[n"),
    ],
)
def test_a_part_of_another_form_than_training_is_refused(part, x, other, said):
    with pytest.raises(ValueError, match=f"{part}: its inputs are {said}"):
        own.tensors(x, LABELS, **{part: (other, LABELS)})


def test_parts_may_differ_in_precision_and_in_the_order_of_names():
    x = {"a": FLOATS, "b": torch.arange(9)}
    test = {"b": torch.arange(9, dtype=torch.int32), "a": FLOATS.half()}
    assert len(own.tensors(x, LABELS, test=(test, LABELS)).test_labels) == 9


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (own.images, "augment"),
        (own.images, "preprocess"),
        (own.tensors, "augment"),
        (lambda x, y, **o: own.dataset(Items(), **o), "augment"),
        (lambda x, y, **o: own.dataset(Items(), **o), "unpack"),
    ],
)
def test_what_must_be_a_function_is_one(make, argument):
    with pytest.raises(TypeError, match=rf"{argument} must be a function, got str 'flip'"):
        make(COLOURS, LABELS, **{argument: "flip"})


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (cropped, r"augment: must return one shape for all inputs, got \[\(3, 1, 6\)\], \[\(3, 2, 6\)\], \[\(3, 3, 6"),
        (lambda x: None, "augment: what it returns, NoneType, makes no batch"),
    ],
)
def test_augmentation_to_no_batch_is_refused(augment, said):
    source = own.images(COLOURS, LABELS, augment=augment).part("train")
    with pytest.raises(ValueError, match=said):
        source.batch(torch.arange(8), draw=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_images_of_more_than_8_bits_are_refused(mode):
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    deep = [Image.fromarray(c[..., 0].astype(kind) * 100) for c in COLOURS]
    assert deep[0].mode == mode
    with pytest.raises(TypeError, match=f"x: the image at 1 has mode '{mode}', not 8 bits"):
        own.images([Image.fromarray(COLOURS[0, ..., 0]), *deep[1:]], LABELS)


def test_images_of_several_modes_are_told_to_be_converted():
    mixed = [Image.fromarray(c).convert("L" if i == 4 else "RGB") for i, c in enumerate(COLOURS)]
    with pytest.raises(ValueError, match=r"x: images differ in mode, RGB at 0 and L at 4; convert them to one"):
        own.images(mixed, LABELS)
    with pytest.raises(ValueError, match="images differ in mode, 3 channels at 0 and 1 channels at 1"):
        own.images([COLOURS[0], COLOURS[1, ..., 0]], LABELS[:2])


@pytest.mark.parametrize(("labels", "names"), [([1, 2, 3] * 3, "abc"), ([False, True, True], "ab"), ([5, 9, 9], "ab")])
def test_labels_of_any_kind_are_named_in_their_order(labels, names):
    data = own.tensors(torch.zeros(len(labels), 2), labels, classes=list(names))
    assert data.class_names == tuple(names)
    assert data.train_labels.tolist() == [sorted(set(labels)).index(v) for v in labels]
