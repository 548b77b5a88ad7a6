"""Augmentation, against torchvision's transforms applied image by image."""

import pytest
import torch
from torchvision.transforms import v2

from modlib import augmentation
from modlib.augmentation import OPERATIONS, SIGNED, augment


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["colour", "grey"])
def images(request):
    """Twelve noisy images of 32x32, each over another range of values."""
    shape = (12, 32, 32, 3) if request.param == "colour" else (12, 32, 32)
    noise = torch.randint(256, shape, generator=draw(1))
    darkest = torch.arange(12).view(-1, *[1] * (len(shape) - 1)) * 10
    return (darkest + noise * (255 - 2 * darkest) // 255).to(torch.uint8)


def channels_first(image):
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1).contiguous()


def channels_last(image):
    return image[0] if len(image) == 1 else image.permute(1, 2, 0)


def test_the_operations_are_torchvisions():
    space = v2.RandAugment._AUGMENTATION_SPACE
    assert list(OPERATIONS) == list(space)
    assert {name for name, (_, signed) in space.items() if signed} == SIGNED
    assert (augmentation.OPERATIONS_PER_IMAGE, augmentation.MAGNITUDE, augmentation.BINS) == (2, 14, 31)


@pytest.mark.parametrize(
    ("name", "sign"), [(name, s) for name in OPERATIONS for s in ((1, -1) if name in SIGNED else (1,))]
)
def test_an_operation_is_torchvisions(name, sign, images, monkeypatch):
    theirs = v2.RandAugment(num_ops=1, magnitude=14, num_magnitude_bins=31)
    theirs._AUGMENTATION_SPACE = {name: v2.RandAugment._AUGMENTATION_SPACE[name]}
    monkeypatch.setattr(torch, "rand", lambda shape: torch.tensor(1.0 if sign > 0 else 0.0))  # what it draws signs from
    expected = torch.stack([channels_last(theirs(channels_first(image))) for image in images])
    before = images.clone()
    assert torch.equal(augmentation.apply(images, name, sign), expected)
    assert torch.equal(images, before)
    same = name == "Identity" or (name == "Color" and images.ndim == 3)
    assert torch.equal(expected, images) == same


def test_every_image_of_a_batch_has_its_own_operations(images):
    """The batch at once equals, image by image, the two operations that were drawn for it."""
    names, generator = list(OPERATIONS), draw(3)
    drawn, negative = (torch.randint(n, (2, 12), generator=generator).tolist() for n in (14, 2))
    expected = []
    for i in range(12):
        image = images[i : i + 1]
        for numbers, signs in zip(drawn, negative, strict=True):
            image = augmentation.apply(image, names[numbers[i]], -1 if signs[i] else 1)
        expected.append(image)
    before = images.clone()
    assert torch.equal(augmentation.randaugment(images, draw(3)), torch.cat(expected))
    assert torch.equal(images, before)


def test_operations_and_signs_are_drawn_evenly(monkeypatch):
    """28,000 images, two operations each: 4,000 of every operation, half of each sign, within five deviations."""
    drawn = {}

    def watched(images, name, sign):
        drawn[name, sign] = drawn.get((name, sign), 0) + len(images)
        return images

    monkeypatch.setattr(augmentation, "apply", watched)
    augmentation.randaugment(torch.zeros(28_000, 1, 1, dtype=torch.uint8), draw())
    assert set(drawn) == {(name, s) for name in OPERATIONS for s in ((1, -1) if name in SIGNED else (1,))}
    assert sum(drawn.values()) == 56_000
    for (name, _), count in drawn.items():
        expected = 2000 if name in SIGNED else 4000
        assert abs(count - expected) < 5 * expected**0.5, name


def test_flip_by_hand():
    images = torch.tensor([[[1, 2, 3], [4, 5, 6]]], dtype=torch.uint8).repeat(400, 1, 1)
    flipped = augmentation.flip(images, draw())
    mirrored = (flipped == torch.tensor([[3, 2, 1], [6, 5, 4]])).all((1, 2))
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 150 < int(mirrored.sum()) < 250
    colours = torch.arange(12, dtype=torch.uint8).view(1, 2, 2, 3).repeat(20, 1, 1, 1)
    assert {tuple(image[0, 0].tolist()) for image in augmentation.flip(colours, draw())} == {(0, 1, 2), (3, 4, 5)}


def test_crop_by_hand():
    """One bright pixel in the middle of 3x3, a border of 1: it goes to any of nine places, equally often."""
    images = torch.zeros(900, 3, 3, dtype=torch.uint8)
    images[:, 1, 1] = 9
    cropped = augmentation.crop(images, draw(), padding=1)
    assert cropped.sum(0).sum() == 9 * 900  # it never leaves
    assert 60 < int((cropped.sum(0) // 9).min()) <= int((cropped.sum(0) // 9).max()) < 140
    ones = torch.ones(200, 2, 5, 3, dtype=torch.uint8)
    corners = augmentation.crop(ones, draw())[:, :, :, 0].flatten(1).sum(1)
    assert int(corners.min()) == 0  # four pixels up leave nothing of two rows
    assert int(corners.max()) == 10


def test_a_crop_is_torchvisions(images):
    top, left = torch.randint(9, (2, 12), generator=draw(4)).tolist()
    padded = [v2.functional.pad(channels_first(image), [4]) for image in images]
    expected = [channels_last(p[:, t : t + 32, s : s + 32]) for p, t, s in zip(padded, top, left, strict=True)]
    assert torch.equal(augmentation.crop(images, draw(4)), torch.stack(expected))


@pytest.mark.parametrize("policy", augmentation.POLICIES)
def test_a_policy(policy, images):
    before, state = images.clone(), torch.random.get_rng_state()
    once, again, other = (augment(images, policy, draw(seed)) for seed in (5, 5, 6))
    assert once.shape == images.shape
    assert once.dtype == torch.uint8
    assert torch.equal(once, again)
    assert torch.equal(once, other) == torch.equal(once, images) == (policy == "none")
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_a_policy_is_made_of(images):
    generator = draw(5)
    flipped = augmentation.flip(images, generator)
    cropped = augmentation.crop(flipped, generator)
    assert torch.equal(augment(images, "flip_crop", draw(5)), cropped)
    assert torch.equal(augment(images, "randaugment", draw(5)), augmentation.randaugment(cropped, generator))
    assert torch.equal(augment(images, "crop", draw(5)), augmentation.crop(images, draw(5)))


def test_digits_are_mirrored_in_the_paper_only():
    for table, digits in ((augmentation.PUBLISHED, "flip_crop"), (augmentation.OURS, "crop")):
        assert {table[name] for name in ("svhn", "svhn_10k")} == {digits}
        assert set(table.values()) <= set(augmentation.POLICIES)


@pytest.mark.parametrize(
    ("images", "policy", "error", "match"),
    [
        (torch.zeros(2, 4, 4), "crop", TypeError, "images must be uint8, got torch.float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "crop", ValueError, r"images must be .*, got \(2, 3, 4, 4\)"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), "flip", ValueError, "policy must be one of .*, got 'flip'"),
    ],
)
def test_what_is_refused(images, policy, error, match):
    with pytest.raises(error, match=match):
        augment(images, policy, draw())
