"""A report of modules beside their parent, and what is printed of modules, masks and networks."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import modlib
from modlib import reporting
from modlib.data import Samples
from modlib.masking import MaskSet
from modlib.metrics import module_accuracies, recomposed_accuracy
from modlib.modules import Modules
from modlib.sources import Tensors


def numbers(inputs, labels, class_names=None):
    """A data set of rows of numbers, the same for testing and for choosing; it knows nothing of images."""
    part = Tensors(inputs, labels)
    return Samples("numbers", part, part, part, 3, class_names)


LABELS = torch.tensor([0, 0, 2, 2, 2, 1])
INPUTS = torch.tensor(
    [[1.0, 0.0, 0.0], [0.4, 0.9, 0.1], [0.6, 0.0, 0.9], [0.7, 0.0, 0.6], [0.65, 0.0, 0.8], [0.0, 0.3, 0.8]]
)
NAMES = ("cat", "dog", "<b>fish & co</b>")


@pytest.fixture
def two():
    """Modules of classes 0 and 2 over the identity: log-odds x_0 - 0.5, and x_2 - 0.7."""
    parent = nn.Linear(3, 3, bias=False).requires_grad_(False)
    parent.weight.copy_(torch.eye(3))
    mask = torch.zeros(2, 3, 3).bool()
    mask[0, 0] = mask[1, 1] = mask[1, 2] = True
    graft = torch.zeros(2, 2, 3)
    graft[0, 1, 0] = graft[1, 1, 2] = 1
    return Modules(parent, MaskSet({"weight": mask}, (0, 2)), graft, torch.tensor([[0.0, -0.5], [0.0, -0.7]]))


@pytest.mark.parametrize("most", [32_000_000, 6, 1])
def test_a_report_by_hand(two, most, monkeypatch):
    monkeypatch.setattr(reporting, "NUMBERS", most)
    report = two.report(numbers(INPUTS, LABELS))
    first = {"class": 0, "name": None, "images": 2, "parent_recall": 1.0, "module_recall": 0.5, "false_alarms": 0.75}
    second = {"class": 2, "name": None, "images": 3, "parent_recall": 2 / 3, "module_recall": 2 / 3}
    assert report.rows == (
        first | {"vote_recall": 1.0, "kept": 3 / 9, "mask_bytes": 2},
        second | {"false_alarms": 1 / 3, "vote_recall": 1 / 3, "kept": 6 / 9, "mask_bytes": 2},
    )
    assert (report.images, report.split, report.passes, report.remaining) == (5, "test", 2, 1.0)
    assert (report.accuracy, report.parent_accuracy, report.unrestricted_accuracy) == (0.6, 0.8, 0.6)
    assert report.warning == (
        "Warning: the vote (60.0%) is 20.0 points behind the parent (80.0%); try more epochs, a larger k, vote=0.9, "
        "as changes of modlib.recommended(parent, data, ...), for cotrain(..., recipe=)."
    )


def test_the_table_of_a_terminal(two):
    lines = str(two.report(numbers(INPUTS, LABELS, NAMES), "held_out")).splitlines()
    assert lines[0].split("  ")[0] == "class"
    assert lines[2].split() == ["0", "cat", "2", "100.0%", "100.0%", "50.0%", "75.0%", "33.3%", "0.0"]
    assert lines[3].startswith("2 <b>fish & co</b>       3   66.7%")
    assert len({len(line) for line in lines[:4]}) == 1
    assert (
        "All 2 classes, 5 held_out images: vote 60.0%, parent 80.0% (choosing among all of its classes: 60.0%)."
        in lines
    )
    assert any("100.0% of the parent's maskable weights" in line and "2 passes" in line for line in lines)
    assert lines[-1].startswith("Warning: the vote (60.0%)")
    assert sum("Warning" in line for line in lines) == 1


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.cells = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.cells.append(data)


def test_the_table_of_a_notebook_is_escaped(two):
    read = Cells()
    read.feed(two.report(numbers(INPUTS, LABELS, NAMES))._repr_html_())
    assert set(read.tags) == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert read.tags.count("tr") == 3
    assert "2 <b>fish & co</b>" in read.cells
    assert read.cells[-1].startswith("Warning: the vote (60.0%)")


def test_a_report_says_what_the_metrics_do(modules, data, inputs):
    report, odds = modules.report(data), modules.log_odds(inputs)
    labels = data.test_labels
    with torch.no_grad():
        logits = modules.parent(inputs)
    assert report.accuracy == recomposed_accuracy(odds, labels, modules.classes)
    assert report.parent_accuracy == report.unrestricted_accuracy == float((logits.argmax(1) == labels).double().mean())
    yes = [row["module_recall"] / 3 + (1 - row["false_alarms"]) * 2 / 3 for row in report.rows]
    assert yes == pytest.approx(module_accuracies(odds, labels, modules.classes).tolist())
    assert [row["images"] for row in report.rows] == [6, 6, 6]
    assert [row["kept"] for row in report.rows] == [modules.remaining([c]) for c in (0, 1, 2)]
    assert (report.remaining, report.passes) == (modules.remaining(), modules.passes)
    assert report.settings["k"] == 0.3
    pair = modules.select([2, 0]).report(data, "held_out")
    assert (pair.split, pair.images, [row["class"] for row in pair.rows]) == ("held_out", 8, [2, 0])
    assert pair.remaining == modules.remaining([2, 0])


def test_of_a_class_without_images_nothing_is_said(two):
    report = two.report(numbers(INPUTS[:2], LABELS[:2], NAMES[:1]))
    assert report.rows[1]["images"] == 0
    assert report.rows[1]["parent_recall"] is report.rows[1]["module_recall"] is report.rows[1]["vote_recall"] is None
    assert report.rows[1]["false_alarms"] == 0.0
    assert report.rows[0]["false_alarms"] is None, "there are only images of its own class"
    assert [row["name"] for row in report.rows] == ["cat", None]
    assert str(report).splitlines()[3].split() == ["2", "0", "-", "-", "-", "0.0%", "66.7%", "0.0"]


def test_when_a_report_warns(two):
    report = two.report(numbers(INPUTS, LABELS))
    assert replace(report, accuracy=0.95, parent_accuracy=0.98).warning is None
    assert replace(report, accuracy=0.98, parent_accuracy=0.9).warning is None
    assert "95.0%" in str(replace(report, accuracy=0.95, parent_accuracy=0.98))
    assert "Warning" not in str(replace(report, accuracy=0.95, parent_accuracy=0.98))
    behind = replace(report, accuracy=0.9499, parent_accuracy=0.98)
    for settings, tried in (
        ({"epochs": 5, "k": 0.1, "vote": 0.0}, "more epochs (now 5), a larger k (now 0.1), vote=0.9 (now 0.0)"),
        ({"epochs": 5, "k": {"default": 0.1}, "vote": 0.95}, "more epochs (now 5), a larger k"),
        ({"epochs": 5, "k": 1.0, "vote": 0.9}, "more epochs (now 5)"),
    ):
        assert replace(behind, settings=settings).warning.split(", as changes")[0].endswith(f"(98.0%); try {tried}")


def test_what_is_refused(two, data):
    with pytest.raises(TypeError, match="data must be one of modlib's, got Tensor"):
        two.report(INPUTS)
    with pytest.raises(ValueError, match=r"data: no image of the classes \[0, 2\] in its part 'test'"):
        two.report(numbers(INPUTS[5:], LABELS[5:]))
    with pytest.raises(ValueError, match="split must be one of"):
        two.report(data, "validation")
    bare = modlib.data.from_arrays(data.train_images, data.train_labels, name="bare")
    with pytest.raises(ValueError, match="split: data set 'bare' has no test images"):
        two.report(bare, "test")


def test_a_report_takes_the_part_that_is_there(two):
    part = Tensors(INPUTS, LABELS)
    assert two.report(Samples("numbers", part, part, None, 3, None)).split == "held_out"
    assert two.report(Samples("numbers", part, None, None, 3, None)).split == "train"


def test_a_parent_that_writes_to_its_buffers_stays_as_it_is(data, decompose):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 3)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, inputs):
            self.calls += 1
            return self.layer(inputs.flatten(1)) + self.calls

    modules = decompose(Counting(), epochs=1)
    before = modules.parent.calls.clone()
    modules.report(data)
    assert torch.equal(modules.parent.calls, before)


def test_modules_are_printed_in_a_few_lines(modules, two, decompose):
    assert repr(modules).splitlines() == [
        "Modules of Sequential for 3 classes: 0, 1, 2",
        "  k=0.3, alpha=1.0, epochs=2, vote=0.0, seed=0",
        f"  together {modules.remaining():.1%} of 114 maskable weights, 3 passes",
    ]
    assert repr(two).splitlines()[1:] == ["  no recipe", "  together 100.0% of 9 maskable weights, 2 passes"]
    assert repr(two.select([0])).endswith("33.3% of 9 maskable weights, 1 pass")
    newer = decompose(modlib.zoo.parents.fc(1, 16, 6, 3, seed=1).double(), classes=[1], seed=5, k=0.5)
    edited = modules.replace(1, newer)
    assert repr(edited).splitlines()[1] == (
        "  0, 2: k=0.3, alpha=1.0, epochs=2, vote=0.0, seed=0; 1: k=0.5, alpha=1.0, epochs=2, vote=0.0, seed=5"
    )
    by_class = {str(c): {"seed": c} for c in range(100)}
    many = MaskSet({"weight": torch.ones(100, 3, 3).bool()}, tuple(range(100)))
    assert repr(replace(two, masks=many, metadata={"by_class": by_class})).splitlines()[:2] == [
        "Modules of Linear for 100 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …, 99",
        "  0: seed=0; 1: seed=1; 2: seed=2; and 97 more",
    ]


def test_masks_and_networks_are_printed_without_their_numbers(modules):
    assert repr(modules.masks) == "MaskSet of 3 classes (0, 1, 2) over 1.weight [6, 16], 3.weight [3, 6]"
    many = MaskSet({f"{i}": torch.ones(100, 2).bool() for i in range(12)}, tuple(range(100)))
    assert repr(many).startswith("MaskSet of 100 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …, 99) over 0 [2], 1 [2]")
    assert repr(many).endswith("9 [2] and 2 more")
    net = modules.recompose([2, 0])
    assert repr(net).splitlines()[1] == (
        f"  classes 2, 0; {net.remaining:.1%} of the maskable weights; passes: 2; threshold: None"
    )
    assert "tensor" not in repr(net)
