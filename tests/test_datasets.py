"""Data sets: arrays of one's own, packed copies, torchvision, and what is said where none of it works."""

import hashlib

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat

from modlib.zoo import datasets

IMAGES, LABELS = np.arange(48, dtype=np.uint8).reshape(12, 2, 2), np.arange(12) % 3
TEST = {"test_images": np.full((5, 2, 2), 7, dtype=np.uint8), "test_labels": np.array([0, 1, 2, 0, 1])}
ARRAYS = {"train_images": IMAGES, "train_labels": LABELS, **TEST}


def test_splits():
    data = datasets.from_arrays(**ARRAYS, held_out=4)
    assert data.num_classes == 3
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert data.held_out_labels.tolist() == [2, 0, 1, 2]
    assert data.split("held_out")[0][0].tolist() == [[32, 33], [34, 35]]
    with pytest.raises(ValueError, match="split must be one of"):
        data.split("validation")
    bare = datasets.from_arrays(IMAGES, LABELS, num_classes=5)
    assert bare.num_classes == 5
    with pytest.raises(ValueError, match="split: data set 'arrays' has no test images"):
        bare.split("test")


def test_preprocessing_by_hand():
    grey = datasets.from_arrays(**ARRAYS).inputs(torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8))
    assert (grey.shape, grey.dtype) == ((1, 1, 2, 2), torch.float32)
    assert grey.flatten().tolist() == pytest.approx([0.0, 1.0, 0.2, 0.4])
    image = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)  # one pixel, three channels
    scaled = datasets.Scaling((0.1, 0.2, 0.5), (1.0, 0.5, 0.25))(image)
    assert scaled.shape == (1, 3, 1, 1)
    assert scaled.flatten().tolist() == pytest.approx([-0.1, 0.0, 2.0])
    own = datasets.from_arrays(**ARRAYS, preprocess=lambda images: images.float().flatten(1) - 1)
    assert own.inputs(own.test_images[:1]).tolist() == [[6.0] * 4]


def test_the_hash_covers_every_image_and_label():
    seen = {datasets.from_arrays(**ARRAYS).sha256(), datasets.from_arrays(**ARRAYS).sha256()}
    for part, values in ARRAYS.items():
        changed = values.copy()
        changed.flat[-1] = 1 - changed.flat[-1] % 2
        seen.add(datasets.from_arrays(**ARRAYS | {part: changed}).sha256())
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"train_images": IMAGES / 255}, TypeError, "train_images must be uint8, got torch.float64"),
        ({"test_images": TEST["test_images"].astype(int)}, TypeError, "test_images must be uint8"),
        ({"train_images": IMAGES.reshape(12, 4)}, ValueError, r"train_images must be \[n, H, W\]"),
        ({"train_images": np.zeros((12, 2, 2, 4), np.uint8)}, ValueError, r"got \(12, 2, 2, 4\)"),
        ({"train_images": IMAGES[:0]}, ValueError, r"train_images must be .* n of at least 1"),
        ({"test_images": np.zeros((5, 3, 2), np.uint8)}, ValueError, r"test_images: \(3, 2\) differs"),
        ({"train_labels": LABELS[:11]}, ValueError, "train_labels: 11 for 12 images"),
        ({"train_labels": np.zeros(12)}, TypeError, "train_labels must be whole numbers, got torch.float64"),
        ({"train_labels": np.zeros(12, bool)}, TypeError, "train_labels must be whole numbers, got torch.bool"),
        ({"train_labels": np.eye(12, dtype=int)}, ValueError, r"train_labels must be \[n\], got \(12, 12\)"),
        ({"test_labels": np.arange(5) - 1}, ValueError, "test_labels must be at least 0, got -1"),
        ({"test_labels": None}, ValueError, "test_images, test_labels: give both or none"),
        ({"num_classes": 2}, ValueError, "num_classes: 2, but there is a label 2"),
        ({"held_out": 12}, ValueError, "held_out must be below the number of training images, 12, got 12"),
        ({"held_out": True}, TypeError, "held_out must be a whole number"),
        ({"num_classes": 3.5}, TypeError, "num_classes must be a whole number"),
        ({"train_labels": ["a"] * 12}, (TypeError, ValueError), "train_labels"),
    ],
    ids=range(17),
)
def test_arrays_that_are_refused(changes, error, match):
    with pytest.raises(error, match=match):
        datasets.from_arrays(**ARRAYS | changes)


def test_a_packed_copy_is_read(tmp_path, monkeypatch):
    datasets.write_packed(tmp_path / "mnist.npz", ARRAYS)
    data = datasets.load("mnist", tmp_path)
    assert (data.name, len(data.train_labels), len(data.held_out_labels)) == ("mnist", 10, 2)  # a sixth of 12
    assert len(datasets.load("mnist", tmp_path, held_out=5).train_labels) == 7
    assert torch.equal(data.test_images, torch.as_tensor(TEST["test_images"]))
    assert data.inputs(data.test_images)[0, 0, 0, 0].item() == pytest.approx((7 / 255 - 0.1307) / 0.3081)
    monkeypatch.setenv("MODLIB_DATA", str(tmp_path))
    assert datasets.load("mnist").sha256() == data.sha256()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_packed_copies_are_whole_or_refused(tmp_path):
    path = tmp_path / "mnist.npz"
    with pytest.raises(KeyError):
        datasets.write_packed(path, TEST)
    assert list(tmp_path.iterdir()) == []
    datasets.write_packed(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"data file .*mnist\.npz is damaged .*remove it"):
        datasets.load("mnist", tmp_path)
    np.savez(path, train_images=IMAGES)
    with pytest.raises(ValueError, match=r"is damaged .*train_labels"):
        datasets.load("mnist", tmp_path)


def test_a_damaged_packed_copy_is_closed(tmp_path, monkeypatch):
    path, files, original = tmp_path / "mnist.npz", [], open
    path.write_bytes(b"PK\x03\x04 no archive")
    monkeypatch.setattr("builtins.open", lambda *args, **options: files.append(original(*args, **options)) or files[-1])
    with pytest.raises(ValueError, match="is damaged"):
        datasets.read_packed(path)
    closed = [(file.closed, file.close())[0] for file in files]
    assert closed == [True]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"])
def test_without_a_network(name, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("no route to host")

    for loader in ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN"):
        monkeypatch.setattr(torchvision.datasets, loader, refuse)
    says = rf"data: .*{name}\.npz is missing, and torchvision could not get {name} into .*no route to host.*MODLIB_DATA"
    with pytest.raises(ValueError, match=says):
        datasets.load(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_torchvision_gets_is_packed(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, root, train, download):
            assert (root, download) == (str(tmp_path / "torchvision"), True)
            self.data = torch.as_tensor(IMAGES if train else TEST["test_images"])
            self.targets = (LABELS if train else TEST["test_labels"]).tolist()

    monkeypatch.setattr(torchvision.datasets, "MNIST", Fake)
    first = datasets.load("mnist", tmp_path, held_out=0)
    monkeypatch.delattr(torchvision.datasets, "MNIST")
    assert datasets.load("mnist", tmp_path, held_out=0).sha256() == first.sha256()
    assert first.sha256() == datasets.from_arrays(**ARRAYS).sha256()


def test_svhn_from_its_matlab_files(tmp_path, monkeypatch):
    """Images lie [32, 32, 3, n] there, and the digit 0 has the label 10."""
    raw, listed, images = tmp_path / "torchvision", {}, {}
    raw.mkdir()
    for split, labels in (("train", [10, 1, 9, 2, 5, 10, 3]), ("test", [4, 10])):
        images[split] = np.random.default_rng(0).integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        file = raw / f"{split}_32x32.mat"
        savemat(file, {"X": images[split], "y": np.array(labels, np.uint8)[:, None]})
        listed[split] = ["http://nowhere.invalid", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    data = datasets.load("svhn", tmp_path, held_out=2)
    labels = [split.tolist() for split in (data.train_labels, data.held_out_labels, data.test_labels)]
    assert labels == [[0, 1, 9, 2, 5], [0, 3], [4, 0]]
    assert data.train_images.shape == (5, 32, 32, 3)
    assert np.array_equal(data.train_images[3].numpy(), images["train"][:, :, :, 3])
    assert np.array_equal(data.test_images[1].numpy(), images["test"][:, :, :, 1])
    assert data.inputs(data.test_images).shape == (2, 3, 32, 32)
    assert (tmp_path / "svhn.npz").exists()


def test_names_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"data: .*svhn_10k\.npz is missing and cannot be downloaded.*use 'svhn'"):
        datasets.load("svhn_10k", tmp_path)
    with pytest.raises(ValueError, match=r"name must be one of .*'mnist'.* got 'minst'"):
        datasets.load("minst")


def test_digits_come_with_scikit_learn():
    data = datasets.load("digits")
    assert data.train_images.shape == (1437 - 239, 8, 8)  # a sixth of 1,437 is held out
    assert (len(data.held_out_labels), len(data.test_labels)) == (239, 360)
    assert (int(data.train_images.min()), int(data.train_images.max())) == (0, 255)
    inputs = data.inputs(data.train_images)
    assert (inputs.mean().item(), inputs.std().item()) == pytest.approx((0.0, 1.0), abs=2e-4)


@pytest.mark.skipif(
    not (datasets.default_root() / "mnist.npz").exists(), reason="real MNIST is not in MODLIB_DATA or ~/.cache/modlib"
)
def test_the_real_mnist():
    """The counts of the official files: the classes are not equally frequent."""
    data = datasets.load("mnist", held_out=10_000)
    assert (data.train_images.shape, data.test_images.shape) == ((50_000, 28, 28), (10_000, 28, 28))
    train = torch.cat([data.train_labels, data.held_out_labels]).bincount().tolist()
    assert train == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_inputs_are_made_of_raw_images_once():
    data = datasets.from_arrays(np.zeros((4, 2, 2), np.uint8), [0, 1, 0, 1])
    with pytest.raises(TypeError, match=r"images must be uint8, got torch\.float32"):
        data.inputs(data.inputs(data.train_images))


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="train_labels: all are 0; a classifier has two classes"):
        datasets.from_arrays(np.zeros((4, 2, 2), np.uint8), [0, 0, 0, 0])
