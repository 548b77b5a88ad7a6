"""How readers see data sets, parents and networks; files, records and parameters keep the names of `modlib.zoo`."""

from __future__ import annotations

DATASETS = {
    "digits": "digits",
    "mnist": "MNIST",
    "fashion_mnist": "F-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "svhn_10k": "SVHN-10k",
}
"""Data sets; SVHN-10k is 10,000 of SVHN's images."""
MODELS = {
    "fc1": "FC1",
    "fc2": "FC2",
    "fc3": "FC3",
    "fc4": "FC4",
    "vgg16": "VGG16",
    "vgg16_quarter": "VGG16 ¼",
    "resnet50": "ResNet50",
    "resnet50_quarter": "ResNet50 ¼",
    "wrn28_10": "WRN-28-10",
    "wrn16_2": "WRN-16-2",
}
"""Parents; ¼: of the width."""


def of_data(dataset: str) -> str:
    """Return what readers see in place of a data set's name; what is none of the book's is shown as it is."""
    return DATASETS.get(dataset, dataset)


def of_model(model: str) -> str:
    """Return what readers see in place of a parent's name; what is none of the book's is shown as it is."""
    return MODELS.get(model, model)


def of_network(dataset: str, model: str) -> str:
    """Return what readers see in place of a data set and a parent, such as "MNIST FC1"."""
    return f"{of_data(dataset)} {of_model(model)}"
