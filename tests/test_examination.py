"""`modlib.check`: each line is there where something is wrong, and no line where nothing is."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import modlib
from modlib import data as own

pytestmark = pytest.mark.examined
N = 240
LABELS = np.arange(N) % 3


def bright(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Images whose bright row is their class."""
    images = np.random.default_rng(seed).integers(0, 128, (len(labels), 4, 4), dtype=np.uint8)
    images[np.arange(len(labels)), labels] += 127
    return images


class Reader(nn.Module):
    """Reads the class off the brightest row, through a batch normalisation."""

    def __init__(self, last: nn.Module | None = None, order=(0, 1, 2)) -> None:
        super().__init__()
        self.norm, self.out, self.last = nn.BatchNorm2d(1, affine=False), nn.Linear(4, 3, bias=False), last
        self.order = list(order)
        self.out.weight.data = torch.eye(4)[:3] * 4
        self.norm.running_mean.fill_(0.37)
        self.norm.running_var.fill_(0.1)

    def forward(self, x):
        logits = self.out(self.norm(x).mean((1, 3)))[:, self.order]
        return logits if self.last is None else self.last(logits)


@pytest.fixture(scope="module")
def data():
    return own.images(bright(LABELS), LABELS, test=(bright(LABELS, 1), LABELS))


def test_nothing_is_said_where_nothing_is_wrong(data):
    found = modlib.check(Reader().eval(), data)
    assert found.lines == ()
    assert (found.accuracy, found.recalls, found.asked, found.split) == (1.0, (1.0, 1.0, 1.0), N, "test")
    assert found.counts == {"train": (80, 80, 80), "held_out": (0, 0, 0), "test": (80, 80, 80)}
    assert found.masked == 1.0
    assert "parent: 100.0% of 240 test images" in str(found)
    assert str(found).splitlines()[1].split() == ["0", "80", "0", "80", "100.0%"]


def untrained() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("parent", "changed", "said"),
    [
        (untrained(), {}, ["parent: near chance"]),
        (Reader(nn.Softmax(1)), {}, ["parent: its outputs sum to one, as after a softmax"]),
        (
            Reader(order=(1, 2, 0)),
            {},
            ["parent: near chance, 0.0% right", "labels: look shifted by -1 (0 is its output 2"],
        ),
        (Reader(order=(1, 0, 2)), {}, ["parent: near chance, 33.3%", "labels: look in another order (0 is its outp"]),
        (
            Reader(),
            {"preprocess": lambda x: x[:, None].float()},
            ["inputs: the first batch normalisation sees channels"],
        ),
    ],
    ids=["untrained", "softmax", "shifted", "two exchanged", "not scaled"],
)
def test_what_is_wrong_with_a_parent_is_said_in_a_line(parent, changed, said):
    given = own.images(bright(LABELS), LABELS, test=(bright(LABELS, 1), LABELS), **changed)
    lines = modlib.check(parent.eval(), given).lines
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


def test_pixels_that_nobody_has_scaled_are_told_without_a_normalisation(data):
    parent = nn.Sequential(nn.Conv2d(1, 3, 4, bias=False), nn.Flatten())
    parent[0].weight.data = torch.eye(4)[:3, None, :, None].expand(3, 1, 4, 4).clone()
    assert modlib.check(parent, data).lines == ()
    raw = own.images(bright(LABELS), LABELS, preprocess=lambda x: x[:, None].float())
    (line,) = modlib.check(parent, raw).lines
    assert line.startswith("inputs: reach 25")


def test_labels_in_another_order_are_told_from_a_bad_parent():
    order = np.array([1, 0, 3, 2])
    images = bright(np.arange(N) % 4)
    parent = Reader()
    parent.out = nn.Linear(4, 4, bias=False)
    parent.out.weight.data, parent.order = torch.eye(4) * 4, [0, 1, 2, 3]
    lines = modlib.check(parent.eval(), own.images(images, order[np.arange(N) % 4])).lines
    assert lines[1].startswith("labels: look in another order (0 is its output 1, 1 is its output 0")


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (
            np.zeros(30, int),
            {"num_classes": 3, "empty": True},
            ["data: all training images are of class 0", "data: no"],
        ),
        (
            np.repeat([0, 1, 2], [200, 100, 19]),
            {},
            ["data: fewer than 20 training images of 2", "data: the largest class"],
        ),
        (
            np.repeat(["a", "b", "c"], [200, 100, 19]),
            {},
            ["data: fewer than 20 training images of c", "data: the larg"],
        ),
        (np.repeat([0, 2], 30), {"num_classes": 3, "empty": True}, ["data: no training images of 1"]),
        (np.repeat([0, 1, 2], [199, 20, 20]), {}, []),
    ],
)
def test_what_is_wrong_with_classes_is_said_in_a_line(labels, options, said):
    numbers = np.unique(labels, return_inverse=True)[1] if labels.dtype.kind == "U" else labels
    lines = modlib.check(Reader().eval(), own.images(bright(numbers), labels, **options)).lines
    assert [a[: len(b)] for a, b in zip(lines, said, strict=True)] == said


def test_names_stand_in_the_table_escaped():
    names = np.array(["<cat>", "dog", "fox"])[LABELS]
    found = modlib.check(Reader().eval(), own.images(bright(LABELS), names))
    assert "0 <cat>" in str(found)
    assert "<td>0 &lt;cat&gt;</td>" in found._repr_html_()


def test_cotrain_warns_of_what_check_finds(data):
    with pytest.warns(UserWarning, match="check: parent: near chance"):
        modlib.cotrain(untrained(), data, epochs=1, k=0.5, alpha=1.0, seed=0, device="cpu")


def test_cotrain_says_where_the_vote_is_far_behind(data):
    parent = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
    torch.manual_seed(0)
    optimiser, source = torch.optim.Adam(parent.parameters(), lr=0.02), data.part("train")
    for _ in range(80):
        batch = source.batch(torch.arange(N))
        loss = nn.functional.cross_entropy(parent(batch.inputs), batch.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    settings = {"k": 0.4, "alpha": 0.0, "seed": 0, "device": "cpu", "batch_size": 16}
    said = r"the vote is right on .* of 240 train images, the parent on 100.0%; try the recommended .*, vote=0.9;"
    with pytest.warns(UserWarning, match=said):
        modlib.cotrain(parent, data, epochs=1, lr=1e-9, **settings | {"k": 0.1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        modlib.cotrain(parent, data, epochs=30, init="magnitude", **settings)


def many(counts: dict[int, int]) -> modlib.data.Dataset:
    labels = np.repeat(list(counts), list(counts.values()))
    return own.images(bright(labels), labels, num_classes=3)


@pytest.mark.parametrize(
    ("counts", "classes", "balanced"),
    [
        ({0: 200, 1: 100, 2: 20}, None, True),
        ({0: 199, 1: 100, 2: 20}, None, False),
        ({0: 200, 1: 100, 2: 20}, [0, 1], False),
    ],
    ids=["10 to 1", "below", "the rarest is not asked for"],
)
def test_an_imbalance_balances_where_asked_to_find_out(counts, classes, balanced):
    """The recipe holds what was decided, as if it had been asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if balanced:
            warnings.filterwarnings("error", "check: data: the largest class")  # what helps is on already
        made = [
            modlib.cotrain(
                Reader().eval(),
                many(counts),
                k=1.0,
                alpha=0.0,
                epochs=1,
                seed=0,
                balanced=b,
                classes=classes,
                device="cpu",
            )
            for b in ("auto", *[balanced] * balanced)
        ]
    assert made[0].metadata["recipe"]["balanced"] is balanced
    assert all(torch.equal(m.grafting_weight, made[0].grafting_weight) for m in made)
    (line,) = [ln for ln in modlib.check(Reader().eval(), many(counts | {0: 200})).lines if "largest class" in ln]
    assert 'balanced="auto" in cotrain' in line


class Words(nn.Module):
    """Reads the class off token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, ids):
        return self.out(self.table(ids).mean(1))


@pytest.mark.filterwarnings("ignore:parent")
@pytest.mark.parametrize("part", ["train", "held_out", "test", "background"])
@pytest.mark.parametrize("wrong", [11, -1])
def test_an_id_beyond_the_embedding_is_said_before_work_starts(part, wrong):
    given = {name: torch.randint(0, 11, (N, 4)) for name in ("train", "held_out", "test", "background")}
    given[part][100, 2] = wrong
    pairs = {name: (given[name], LABELS) for name in ("held_out", "test")}
    data = own.tensors(given["train"], LABELS, **pairs, background=given["background"])
    low, high = int(given[part].min()), int(given[part].max())
    said = rf"parent: does not take inputs .* from {min(low, 0)} to {max(high, 0)}: ids must .*, which here has 11 rows"
    with pytest.raises(ValueError, match=said):
        modlib.check(Words(), data)
    with pytest.raises(ValueError, match=said):
        modlib.cotrain(Words(), data, k=0.5, alpha=1.0, epochs=1, seed=0, device="cpu")
    given[part][100, 2] = 10
    fits = own.tensors(given["train"], LABELS, **pairs, background=given["background"])
    assert modlib.check(Words(), fits).asked == N


def test_ids_of_the_first_items_of_a_dataset_are_looked_at():
    ids = torch.randint(0, 11, (N, 4))
    train = torch.utils.data.TensorDataset(ids.clone(), torch.from_numpy(LABELS))
    ids[3, 0] = 30
    with pytest.raises(ValueError, match=r"from \d to 30: ids must be from 0 to below the embedding's size"):
        modlib.check(Words(), own.dataset(train, test=torch.utils.data.TensorDataset(ids, torch.from_numpy(LABELS))))
    assert modlib.check(Words(), own.dataset(train)).asked == N


def test_shuffled_training_labels_are_seen_beside_right_test_labels() -> None:
    x, y = torch.eye(4).repeat(50, 1), torch.arange(4).repeat(50)
    parent = nn.Linear(4, 4)
    with torch.no_grad():
        parent.weight.copy_(10 * torch.eye(4))
        parent.bias.zero_()
    shuffled = y[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    (line,) = modlib.check(parent, modlib.data.tensors(x, shuffled, test=(x, y))).lines
    assert re.match(
        r"labels: the parent is right on \d+.\d% of training images, 100.0% of test; are these shuffled?", line
    )
    assert modlib.check(parent, modlib.data.tensors(x, y, test=(x, y))).lines == ()
