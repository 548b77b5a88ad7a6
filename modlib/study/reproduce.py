"""The runner: a notebook's source -> papermill -> a page, and pages -> the book. Thin, over the tools that do the work.

A notebook's parameters are checked by name and type before it starts; its page is written whole or not at all, with
cell ids, timings and paths normalised, so that the same run gives the same file.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import jupytext
import nbformat
import papermill
import yaml
from bs4 import BeautifulSoup
from traitlets.config import Config

from modlib import checks

RUNS = ("quick", "published")
"""The runs of a page: with the defaults of its parameters cell, and with those of notebooks/params on top."""
SUMS = ("scoreboard", "index")
"""Pages that sum up what the others found."""
TYPES = {"dict": dict, "int": int, "float": (int, float), "str": str, "bool": bool}


@dataclass(frozen=True)
class Layout:
    """Where things lie in a checkout."""

    root: Path

    @classmethod
    def here(cls) -> Layout:
        """Return the checkout that this package is installed from; raise where there are no notebooks."""
        root = Path(__file__).resolve().parents[2]
        if not (root / "notebooks").is_dir():
            raise FileNotFoundError(
                f"no notebooks beside {root / 'modlib'}: install from a checkout, with pip install -e ."
            )
        return cls(root)

    @property
    def quick(self) -> Path:
        """The sources of the quick book."""
        return self.root / "_build" / "quick" / "source"

    def stems(self) -> list[str]:
        """Return the notebooks in the order of the table of contents, those of `SUMS` last."""
        contents = yaml.safe_load((self.root / "_toc.yml").read_text())
        files = [contents["root"], *(c["file"] for part in contents["parts"] for c in part["chapters"])]
        stems = [Path(f).name for f in files if Path(f).parent.name == "executed"]
        return [*(s for s in stems if s not in SUMS), *(s for s in SUMS if s in stems)]

    def source(self, stem: str) -> Path:
        """Return the source of a notebook; raise ValueError for an unknown one."""
        path = self.root / "notebooks" / f"{stem}.py"
        if not path.exists():
            raise ValueError(f"notebook: unknown {stem!r}; there are {self.stems()}")
        return path

    def default_parameters(self, stem: str) -> dict[str, Any]:
        """Return the parameters of a quick run: the defaults in the notebook's parameters cell."""
        cells = read_source(self.source(stem)).cells
        cell = next(c for c in cells if "parameters" in c.metadata.get("tags", []))
        return {
            statement.target.id: ast.literal_eval(statement.value)
            for statement in ast.parse(cell.source).body
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value
        }

    def published_parameters(self, stem: str) -> dict[str, Any]:
        """Return the parameters of the published run, from notebooks/params/<stem>.yml."""
        path = self.root / "notebooks" / "params" / f"{stem}.yml"
        return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}

    def parameters_of(self, stem: str, run: str) -> dict[str, Any]:
        """Return all parameters of a page's run, one of `RUNS`."""
        checks.choice("run", run, RUNS)
        return self.default_parameters(stem) | (self.published_parameters(stem) if run == "published" else {})


def read_source(path: Path) -> nbformat.NotebookNode:
    """Return a py:percent notebook as a notebook with a kernel and stable cell ids."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return with_stable_ids(notebook)


def with_stable_ids(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Set every cell's id from its position and source: they would differ at each conversion."""
    for i, cell in enumerate(notebook.cells):
        cell["id"] = hashlib.sha256(f"{i} {cell.source}".encode()).hexdigest()[:12]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def declared(path: Path) -> dict[str, dict[str, Any]]:
    """Return the parameters that a notebook declares: by name its type, default and help, as papermill reads them."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "source.ipynb"
        nbformat.write(read_source(path), temporary)
        found: dict[str, dict[str, Any]] = papermill.inspect_notebook(str(temporary))
    return found


def described(path: Path) -> str:
    """Return the parameters of a notebook, a line each: name, type, default, and what it is."""
    return "\n".join(
        f"{name}: {about['inferred_type_name']} = {about['default']}  # {about['help']}"
        for name, about in declared(path).items()
    )


def check_parameters(path: Path, given: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError for a parameter that a notebook does not have, or of another type."""
    known = declared(path)
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"parameter {name!r}: {path.stem} has none of that name; it has {sorted(known)}")
        kind = str(known[name]["inferred_type_name"])
        if not fits(value, kind):
            help_text = known[name]["help"]
            raise TypeError(f"parameter {name!r} must be {kind}, got {value!r} ({help_text})")


def fits(value: Any, declared: str) -> bool:
    """Return whether `value` is of a declared type: int, float, str, bool, dict, or list[one of them]."""
    if declared.startswith("list["):
        return isinstance(value, list) and all(fits(item, declared[5:-1]) for item in value)
    if isinstance(value, bool) and declared != "bool":
        return False
    return isinstance(value, TYPES[declared.partition("[")[0]])  # type: ignore[arg-type]


def execute(layout: Layout, stem: str, parameters: Mapping[str, Any], page: Path) -> None:
    """Run a notebook with `parameters` and write its page. Its process ends with it, and frees the device."""
    source = layout.source(stem)
    check_parameters(source, parameters)
    page.parent.mkdir(parents=True, exist_ok=True)
    # two busy processes with a thread for every core each can be tens of times slower than one, and networks of this
    # size gain nothing from a second thread: one is the default, OMP_NUM_THREADS asks for more
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / f"{stem}.ipynb", Path(folder) / "out.ipynb"
        nbformat.write(read_source(source), before)
        papermill.execute_notebook(
            str(before),
            str(after),
            dict(parameters),
            kernel_name="python3",
            cwd=str(layout.root),
            progress_bar={"disable": None, "desc": stem},
            stderr_file=sys.stderr,  # long cells report their progress there
            config=_private_kernel(Path(folder)),
        )
        executed = normalised(nbformat.read(after, as_version=4))
    part = page.with_suffix(".part")
    nbformat.write(executed, part)
    os.replace(part, page)


def _private_kernel(folder: Path) -> Config:
    """Return the settings of a kernel that talks through files in `folder`: over TCP it warns of who may listen."""
    if os.name == "nt":
        return Config()
    # a socket's path may have 104 characters: in a temporary folder it is short, whatever the user's home is called
    return Config(KernelManager={"transport": "ipc", "connection_file": str(folder / "kernel.json")})


def normalised(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an executed notebook without what differs between two equal runs: timings, ids, tool metadata."""
    clean = with_stable_ids(copy.deepcopy(notebook))
    clean.metadata = nbformat.from_dict({key: clean.metadata[key] for key in ("kernelspec", "language_info")})
    clean.metadata["language_info"] = nbformat.from_dict({"name": "python"})
    display: list[str] = []
    for cell in clean.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            display = [tag for tag in tags if tag.startswith(("hide-", "remove-"))]
        elif "injected-parameters" in tags:
            cell.metadata["tags"] = tags + display  # shown or not, as the defaults are
        for key in ("papermill", "execution", "lines_to_next_cell"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    return clean


def as_reference(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an executed notebook with the outputs of checked cells only: what nbval compares."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and "nbval-check-output" not in cell.metadata.get("tags", []):
            cell.outputs = []
    return notebook


def reproduce(
    layout: Layout, stems: Sequence[str], parameters: Mapping[str, Any], published: bool, reference: bool
) -> list[str]:
    """Run notebooks one after another and return those that failed; the others' pages are there."""
    for stem in stems:  # all of them, before the first one starts
        check_parameters(layout.source(stem), parameters)
    failed, start = [], time.perf_counter()
    for i, stem in enumerate(stems, 1):
        before = time.perf_counter()
        try:
            _run_one(layout, stem, parameters, published, reference)
        except papermill.exceptions.PapermillExecutionError as error:
            print(f"{stem} failed: {error.ename}: {error.evalue}", file=sys.stderr)
            failed.append(stem)
        now = time.perf_counter()
        print(progress(i, len(stems), stem, now - before, now - start), flush=True)
    return failed


def progress(done: int, count: int, stem: str, seconds: float, so_far: float) -> str:
    """Return the line of a notebook that has ended; the others are taken to last as long as those done, on average."""
    left = so_far / done * (count - done)
    estimate = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return f"[{done}/{count}] {stem}: {seconds:.0f} s" + (f", about {estimate} left" if done < count else "")


def _run_one(layout: Layout, stem: str, parameters: Mapping[str, Any], published: bool, reference: bool) -> None:
    if reference:
        page = layout.root / "tests" / "reference" / f"{stem}.ipynb"
        execute(layout, stem, parameters, page)
        nbformat.write(as_reference(nbformat.read(page, as_version=4)), page)
    elif published:
        chosen = layout.published_parameters(stem) | {"results": "book/results"} | dict(parameters)
        execute(layout, stem, chosen, layout.root / "book" / "executed" / f"{stem}.ipynb")
    else:
        chosen = {"results": "_build/quick/results"} | dict(parameters)
        execute(layout, stem, chosen, layout.quick / "book" / "executed" / f"{stem}.ipynb")


def stage_quick_book(layout: Layout) -> None:
    """Lay out the sources of the quick book: the prose, the pages run here, the published ones for the rest."""
    pages = layout.quick / "book" / "executed"
    run_here = sorted(p.stem for p in pages.glob("*.ipynb"))
    for path in (layout.root / "book").iterdir():
        if path.suffix in {".md", ".bib"}:
            shutil.copy(path, layout.quick / "book")
    shutil.copytree(layout.root / "book" / "_static", layout.quick / "book" / "_static", dirs_exist_ok=True)
    for stem in set(layout.stems()) - set(run_here):
        shutil.copy(layout.root / "book" / "executed" / f"{stem}.ipynb", pages)
    shutil.copy(layout.root / "_toc.yml", layout.quick)
    config = yaml.safe_load((layout.root / "_config.yml").read_text())
    every = len(run_here) == len(layout.stems())
    which = "every notebook" if every else "these notebooks: " + ", ".join(run_here) + "; the others are as published"
    config.setdefault("html", {})["announcement"] = f"Quick build. Run here, at a small size: {which}."
    (layout.quick / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def build_book(source: Path, html: Path) -> None:
    """Build a book strictly, warnings are errors, into the folder `html`, and check its pages."""
    with tempfile.TemporaryDirectory() as folder:
        run = "from jupyter_book.cli.main import main; main()"
        arguments = ["build", str(source), "-W", "--keep-going", "--all", "--path-output", folder]
        subprocess.run([sys.executable, "-c", run, *arguments], check=True)
        shutil.rmtree(html, ignore_errors=True)
        html.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(folder) / "_build" / "html", html)
    problems = check_pages(html)
    if problems:
        raise ValueError("the book is built, but:\n" + "\n".join(problems))
    print(f"the book is at {html / 'index.html'}")


GENERATED = ("genindex.html", "search.html", "py-modindex.html", "index.html")


def check_pages(html: Path, least: int = 300) -> list[str]:
    """Return what is wrong with the pages of a built book: too little text, dead internal links or anchors.

    Sphinx checks the links that it resolves itself; into the HTML of a cell's output neither it nor its linkcheck
    builder looks.
    """
    paths = (path.resolve() for path in sorted(html.rglob("*.html")) if "_static" not in path.parts)
    pages = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in paths}
    anchors = {path: {tag.get(k) for tag in page.find_all() for k in ("id", "name")} for path, page in pages.items()}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(html.resolve())
        text = page.article.get_text(strip=True) if page.article else ""
        if len(text) < least and path.name not in GENERATED:
            problems.append(f"{name}: an empty page, {len(text)} characters")
        for link in [str(tag[key]) for key in ("href", "src") for tag in page.select(f"[{key}]")]:
            where = urlparse(link)
            target = (path.parent / unquote(where.path)).resolve() if where.path else path
            if where.scheme or where.netloc:
                continue
            if not target.exists():
                problems.append(f"{name}: dead link {link}")
            elif where.fragment and target in pages and unquote(where.fragment) not in anchors[target]:
                problems.append(f"{name}: dead anchor {link}")
    return problems


def parse_values(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the parameters of a command line; values are YAML."""
    values = {}
    for name, text in pairs:
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"parameter {name!r}: {text!r} is not YAML: {error}") from error
    return values
