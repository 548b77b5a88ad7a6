"""Augmentation of training images (paper, appendix, "Augmentation"), on the device where a batch lives.

uint8 in, uint8 out; every image has draws of its own, from an explicit CPU generator, so that they are the same on
every device. RandAugment's operations are torchvision's own: images with the same draw are handed to it together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modlib import checks, extras

POLICIES = ("none", "crop", "flip_crop", "randaugment")
"""What `augment` knows; "randaugment" is flip, crop, then RandAugment."""

PADDING = 4
OPERATIONS_PER_IMAGE = 2  # RandAugment's N
MAGNITUDE, BINS = 14, 31  # RandAugment's M, on torchvision's scale of 31

# The paper does not say whether RandAugment comes on top of flip and crop; in Cubuk et al. 2020 it does.
PUBLISHED = {"cifar10": "flip_crop", "cifar100": "randaugment", "svhn": "flip_crop", "svhn_10k": "flip_crop"}
"""The paper's augmentation of a data set for its convolutional parent; others have none."""

OURS = {"cifar10": "flip_crop", "cifar100": "flip_crop", "svhn": "crop", "svhn_10k": "crop"}
"""The augmentation of the recipe `ours`: a mirrored digit is no digit, and a short training needs no strong one."""


def augment(images: Tensor, policy: str, generator: torch.Generator) -> Tensor:
    """Return augmented `images`, uint8 [B, H, W] or [B, H, W, 3], a new tensor unless `policy` is "none".

    `policy`: one of `POLICIES`. `generator`: a CPU generator; what is drawn depends on it, the policy and B, H and W.
    Raises ValueError or TypeError for another policy, shape or dtype.
    """
    checks.choice("policy", policy, POLICIES)
    if policy == "none":
        return images
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise ValueError(f"images must be [B, H, W] or [B, H, W, 3], got {tuple(images.shape)}")
    if policy != "crop":
        images = flip(images, generator)
    images = crop(images, generator)
    return randaugment(images, generator) if policy == "randaugment" else images


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image with probability 1/2, left to right: [B, H, W, ...] -> the same."""
    chosen = torch.randint(2, (len(images),), generator=generator).bool().to(images.device)
    return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), images.flip(2), images)


def crop(images: Tensor, generator: torch.Generator, padding: int = PADDING) -> Tensor:
    """Cut every image out of itself with a border of `padding` zeros, anywhere: [B, H, W, ...] -> the same."""
    count, height, width = images.shape[:3]
    padded = images.new_zeros(count, height + 2 * padding, width + 2 * padding, *images.shape[3:])
    padded[:, padding : padding + height, padding : padding + width] = images
    top, left = torch.randint(2 * padding + 1, (2, count, 1), generator=generator).to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    return padded[torch.arange(count, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def randaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply two operations of RandAugment (Cubuk et al. 2020), M = 14, to every image: [B, H, W, ...] -> the same.

    Each is drawn uniformly from torchvision's fourteen, with a sign for those that have one.
    """
    shape = (OPERATIONS_PER_IMAGE, len(images))
    drawn = torch.randint(len(OPERATIONS), shape, generator=generator)
    negative = torch.randint(2, shape, generator=generator)
    for which, signs in zip(drawn, negative, strict=True):
        images = _apply_drawn(images, which, signs)
    return images


def _apply_drawn(images: Tensor, drawn: Tensor, negative: Tensor) -> Tensor:
    """Apply to image i the operation number `drawn[i]`; images of the same operation and sign go together."""
    result = images.clone()
    for number, name in enumerate(OPERATIONS):
        signs = (1, -1) if name in SIGNED else (1,)
        for sign in signs:
            chosen = (drawn == number) & ((negative == (sign < 0)) | (name not in SIGNED))
            rows = chosen.nonzero()[:, 0].to(images.device)
            if len(rows):
                result[rows] = apply(images[rows], name, sign)
    return result


def apply(images: Tensor, operation: str, sign: int = 1) -> Tensor:
    """Apply one of `OPERATIONS` with sign 1 or -1 to all images, uint8 [B, H, W] or [B, H, W, 3]; M = 14."""
    checks.choice("operation", operation, OPERATIONS)
    channels_first = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    changed = OPERATIONS[operation](channels_first, sign)
    return changed[:, 0] if images.ndim == 3 else changed.permute(0, 2, 3, 1)


def _level(largest: float, smallest: float = 0.0) -> float:
    """The magnitude on a scale from `smallest` to `largest`; in float32, as torchvision has it."""
    return float(torch.linspace(smallest, largest, BINS)[MAGNITUDE])


def _shear(images: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    degrees = [math.degrees(math.atan(value)) for value in (x, y)]
    return _tv().affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0])


def _translate(images: Tensor, x: float = 0.0, y: float = 0.0) -> Tensor:
    return _tv().affine(images, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])


def _shift(side: int) -> float:
    return _level(150.0 / 331.0 * side)


def _tv() -> Any:
    """torchvision's operations on images, for RandAugment alone."""
    return extras.require("torchvision.transforms.v2.functional", "RandAugment")


Operation = Callable[[Tensor, int], Tensor]

OPERATIONS: dict[str, Operation] = {
    "Identity": lambda x, sign: x,
    "ShearX": lambda x, sign: _shear(x, x=sign * _level(0.3)),
    "ShearY": lambda x, sign: _shear(x, y=sign * _level(0.3)),
    "TranslateX": lambda x, sign: _translate(x, x=sign * _shift(x.shape[-1])),
    "TranslateY": lambda x, sign: _translate(x, y=sign * _shift(x.shape[-2])),
    "Rotate": lambda x, sign: _tv().rotate(x, angle=sign * _level(30.0)),
    "Brightness": lambda x, sign: _tv().adjust_brightness(x, 1.0 + sign * _level(0.9)),
    "Color": lambda x, sign: _tv().adjust_saturation(x, 1.0 + sign * _level(0.9)),
    "Contrast": lambda x, sign: _tv().adjust_contrast(x, 1.0 + sign * _level(0.9)),
    "Sharpness": lambda x, sign: _tv().adjust_sharpness(x, 1.0 + sign * _level(0.9)),
    "Posterize": lambda x, sign: _tv().posterize(x, bits=8 - round(MAGNITUDE / ((BINS - 1) / 4))),
    "Solarize": lambda x, sign: _tv().solarize(x, threshold=255 * _level(0.0, 1.0)),
    "AutoContrast": lambda x, sign: _tv().autocontrast(x),
    "Equalize": lambda x, sign: _tv().equalize(x),
}
"""RandAugment's operations by torchvision's names: uint8 [B, C, H, W] and a sign -> the same shape."""

SIGNED = frozenset(list(OPERATIONS)[1:10])
"""The operations that go both ways."""
