"""The book: pages' worked example runs, the runner leaves nothing half-written, the page check finds what is wrong."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from modlib.study import reproduce as runner
from modlib.study.cli import main

ROOT = runner.Layout.here().root
NUMBER = r"\d\.\d+"
NAMESPACE = "own_network_page"

SOURCE = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A page

# %% tags=["parameters"]
k: float = 0.5  # a share
results: str = ""  # folder

# %% tags=["nbval-check-output"]
assert k < 1, "k too large"
print("k is", k)

# %%
import sys

print("halfway", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> runner.Layout:
    """A checkout with one notebook."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "notebooks" / "params").mkdir(parents=True)
    (root / "notebooks" / "one.py").write_text(SOURCE)
    (root / "notebooks" / "params" / "one.yml").write_text("k: 0.25\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/executed/one\nparts: []\n")
    return runner.Layout(root)


@pytest.fixture(scope="module")
def published(checkout: runner.Layout) -> bytes:
    """The published page of that notebook, as its first run wrote it."""
    assert runner.reproduce(checkout, ["one"], {}, published=True, reference=False) == []
    return (checkout.root / "book/executed/one.ipynb").read_bytes()


def output(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.text for c in cells if c.cell_type == "code" for o in c.outputs)


@pytest.mark.examined
def test_the_worked_examples_of_the_pages_on_own_networks_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go on from each other, in the order of the pages."""
    text = "".join((ROOT / "book" / f"{page}.md").read_text() for page in ("own_network", "shipping"))
    examples = re.findall(r"<!-- tested -->\s+```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == text.count("<!-- tested -->") > 10
    monkeypatch.chdir(tmp_path)
    module = sys.modules[NAMESPACE] = ModuleType(NAMESPACE)  # where classes of the page are found when they are copied
    printed = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for example in examples:
            exec(compile(example, "own_network.md", "exec"), vars(module))
            printed.append(capsys.readouterr().out)
    del sys.modules[NAMESPACE]
    said = "".join(printed)
    shown = re.findall(r"<!-- printed -->\s+```text\n(.*?)```", text, re.DOTALL)
    assert [re.sub(NUMBER, "", one) for one in shown] == [re.sub(NUMBER, "", printed[0])]
    numbers = ([float(n) for n in re.findall(NUMBER, one)] for one in (shown[0], printed[0]))
    assert all(abs(there - here) < 0.05 for there, here in zip(*numbers, strict=True))
    of_table = next(one for one in printed if "virginica" in one)
    assert "!" not in of_table, "nothing looks wrong"
    assert re.search(r"right on 0.[89]\d of the test images\n\['(zero|one|two|three)', ", said)
    lines = sorted({str(one.message).split(", ")[0] for one in warned if issubclass(one.category, UserWarning)})
    assert lines == [
        "check: data: no training images of 9",
        "check: parent: near chance",
        "data: classes [9] have no training images",
        "parent: 1 weights are not masked and stay whole in every module (93.8% of all parameters): output.weight; "
        "pass policy= to mask them",
    ]
    files = {"pair.onnx", "pair_int8.onnx", "digits.safetensors", "pair.safetensors", "mine.safetensors"}
    assert sorted(vars(module)["edited"].classes) == list(range(10))
    assert files <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "mine.pt").exists()


def test_published_quick_and_reference_runs_go_to_their_own_places(
    checkout: runner.Layout, published: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    assert runner.reproduce(checkout, ["one"], {"k": 0.75}, published=False, reference=False) == []
    log = capfd.readouterr()
    assert re.fullmatch(r"\[1/1\] one: \d+ s\n", log.out)
    assert log.err == "halfway\n", "what a cell reports, and nothing of the kernel's own"
    assert runner.reproduce(checkout, ["one"], {}, published=False, reference=True) == []
    assert output(checkout.root / "book/executed/one.ipynb") == "k is 0.25\n"
    assert output(checkout.quick / "book/executed/one.ipynb") == "k is 0.75\n"
    assert output(checkout.root / "tests/reference/one.ipynb") == "k is 0.5\n"


def test_the_same_run_gives_the_same_file_and_a_failed_one_leaves_the_page(
    checkout: runner.Layout, published: bytes
) -> None:
    page = checkout.root / "book/executed/one.ipynb"
    assert runner.reproduce(checkout, ["one"], {}, published=True, reference=False) == []
    assert page.read_bytes() == published
    assert runner.reproduce(checkout, ["one"], {"k": 2.0}, published=True, reference=False) == ["one"]
    assert page.read_bytes() == published
    assert sorted(p.name for p in page.parent.iterdir()) == ["one.ipynb"]


def test_a_line_of_progress_estimates_what_is_left_from_what_is_done() -> None:
    assert runner.progress(1, 3, "one", 20.4, 20.4) == "[1/3] one: 20 s, about 41 s left"
    assert runner.progress(2, 29, "two", 5, 40) == "[2/29] two: 5 s, about 9 min left"
    assert runner.progress(3, 3, "three", 1, 41) == "[3/3] three: 1 s"


def test_unknown_notebooks_and_parameters_end_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table9"]) == 2
    assert "notebook: unknown 'table9'; there are [" in capsys.readouterr().err
    assert main(["reproduce", "table1", "-p", "kk", "0.1"]) == 2
    assert "parameter 'kk'" in capsys.readouterr().err
    assert main(["parameters", "table9"]) == 2
    assert "notebook: unknown 'table9'" in capsys.readouterr().err


def test_the_parameters_of_a_notebook_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parameters", "table1"]) == 0
    assert "k: float = 0.10  # share of the edges kept in every layer" in capsys.readouterr().out.splitlines()


def test_the_page_check_finds_empty_pages_dead_links_and_dead_anchors(tmp_path: Path) -> None:
    good = "<article>" + "words " * 100 + '<h1 id="top"></h1><a href="b.html#there">b</a></article>'
    (tmp_path / "a.html").write_text(good)
    (tmp_path / "b.html").write_text(
        "<article>short <a href='c.html'>c</a><a href='#nowhere'></a><a href='#here'></a><p id='here'></p></article>"
    )
    assert runner.check_pages(tmp_path) == [
        "a.html: dead anchor b.html#there",
        "b.html: an empty page, 6 characters",
        "b.html: dead link c.html",
        "b.html: dead anchor #nowhere",
    ]


def test_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    main_job = re.search(r"<!-- main -->\n```sh\n(.*?)\n```", text)
    tests = re.search(r"<!-- tests -->\n```sh\n(.*?)\n```", text)
    assert main_job
    assert main_job[1].endswith(".venv/bin/modlib reproduce")
    assert tests
    assert tests[1].endswith(".venv/bin/python -m pytest")
