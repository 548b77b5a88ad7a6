"""The method pages teach: each opens with its answer, ends with take-aways, and has an exercise whose solution runs."""

from __future__ import annotations

import contextlib
import io
import re

import nbformat
import pytest
import yaml

from modlib.study.reproduce import Layout, read_source

LAYOUT = Layout.here()
CONTENTS = yaml.safe_load((LAYOUT.root / "_toc.yml").read_text())
CHAPTERS = {part["caption"]: part["chapters"] for part in CONTENTS["parts"]}
METHOD = [chapter["file"].split("/")[-1] for chapter in CHAPTERS["How it works"]]
BOX = re.compile(r"^:::\{admonition\} Solution\n:class: dropdown\n(.*?)^:::$", re.M | re.S)
BLOCK = r"^```%s\n(.*?)^```$"


def prose(stem: str) -> list[str]:
    """The markdown cells of a notebook's source."""
    return [cell.source for cell in read_source(LAYOUT.source(stem)).cells if cell.cell_type == "markdown"]


def solution(text: str) -> tuple[str, str]:
    """The code of the one solution in a text, and what it is said to print."""
    (box,) = BOX.findall(text)
    (code,), (printed,) = (re.findall(BLOCK % kind, box, re.M | re.S) for kind in ("python", "text"))
    return code, printed


def run(code: str) -> str:
    """What some code prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "solution", "exec"), {"__name__": "solution"})
    return out.getvalue()


@pytest.mark.parametrize("stem", METHOD)
def test_the_solution_of_every_exercise_prints_what_its_box_shows(stem: str) -> None:
    code, printed = solution("\n\n".join(prose(stem)))
    assert run(code) == printed


def test_a_solution_with_another_result_is_found() -> None:
    text = ":::{admonition} Solution\n:class: dropdown\n\n```python\nprint(1 + 1)\n```\n\n```text\n%s\n```\n:::"
    code, printed = solution(text % "2")
    assert run(code) == printed
    code, printed = solution(text % "3")
    assert run(code) != printed
    with pytest.raises(ValueError, match="not enough values"):
        solution("a page without a solution")


@pytest.mark.parametrize("stem", [*METHOD, "experimental_setup"])
def test_a_page_of_the_method_opens_with_its_answer_and_ends_with_take_aways(stem: str) -> None:
    cells = nbformat.read(LAYOUT.root / f"book/executed/{stem}.ipynb", as_version=4).cells
    hidden = {"remove-cell", "parameters", "injected-parameters"}
    question, answer, caveat = [c for c in cells if not hidden & set(c.metadata.get("tags", ()))][:3]
    assert re.match(r"# .*\n\n\*\*Question\.\*\* ", question.source)
    assert answer.outputs[0].data["text/markdown"].startswith("**Answer")
    assert caveat.source.startswith("**Caveat.** ")
    written = prose(stem)
    assert [cell.source for cell in cells if cell.cell_type == "markdown"] == written, f"run modlib reproduce {stem}"
    (box,) = re.findall(r"^```\{admonition\} Take-aways\n(.*?)^```\n\n\*\*Re-run it:\*\*", written[-1], re.M | re.S)
    assert 2 <= len(re.findall(r"^- ", box, re.M)) <= 4
