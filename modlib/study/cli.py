"""The command line: `modlib reproduce`, `parameters`, `panel` and `book`; `modlib ship` is in `modlib.ship`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from modlib.cotraining import resolve_device
from modlib.engines import ENGINES
from modlib.engines.sharding import WorkerLost
from modlib.study import panels
from modlib.study.records import Store
from modlib.zoo import datasets, training


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="modlib", description="Re-run the notebooks and build the book.")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "reproduce", help="run notebooks (default: all, on the embedded digits) and build the quick book"
    )
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="e.g. table1")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter; values are YAML"
    )
    which = run.add_mutually_exclusive_group()
    which.add_argument(
        "--published", action="store_true", help="the run that the book shows (notebooks/params/); resumes"
    )
    which.add_argument("--reference", action="store_true", help="renew the references that the tests replay")
    run.add_argument("--no-book", action="store_true", help="run the notebooks only")
    of = commands.add_parser("parameters", help="list what can be set with -p for a notebook")
    of.add_argument("notebook", metavar="NOTEBOOK", help="e.g. table1")
    panel = commands.add_parser(
        "panel", help="run what is open of a panel of Figure 4, for as long as it is given; also under torchrun"
    )
    panel.add_argument("dataset", help="e.g. cifar10")
    panel.add_argument("model", help="e.g. vgg16")
    panel.add_argument("--full", action="store_true", help="the paper's size, where the book shows a reduced panel")
    panel.add_argument("--results", default="book/results", help="folder of records and parents (book/results)")
    panel.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    panel.add_argument("--engine", default="auto", choices=ENGINES, help="graphed saves time on a GPU (default: auto)")
    commands.add_parser("ship", help="a small network for some classes of a trained one: modlib ship --help")
    commands.add_parser("book", help="build the published book at _build/html")
    return top


def run_panel(dataset: str, model: str, full: bool, results: str, device: str, engine: str) -> int:
    """Run what is open of a panel; return the exit status."""
    try:
        panel = panels.named(dataset, model, full=full)
        store, data = Store.at(results), datasets.load(dataset)
        print(panels.describe(panel, store), flush=True)
        if panel.precision == "bfloat16" and training.fast_precision(resolve_device(device)) == "float32":
            print("modlib: bfloat16 is emulated on this device: a step takes many times longer", file=sys.stderr)
        panels.run(panel, data, store, device, engine)
        print(panels.describe(panel, store), flush=True)
    except WorkerLost as error:
        print(f"modlib: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"modlib: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    asked = parser().parse_args(arguments)
    if asked.command == "panel":
        return run_panel(asked.dataset, asked.model, asked.full, asked.results, asked.device, asked.engine)
    from modlib.study import reproduce as runner  # notebooks and the book need more packages than a panel does

    try:
        layout = runner.Layout.here()
        if asked.command == "book":
            runner.build_book(layout.root, layout.root / "_build" / "html")
            return 0
        if asked.command == "parameters":
            print(runner.described(layout.source(asked.notebook)))
            return 0
        stems = asked.notebooks or layout.stems()
        failed = runner.reproduce(layout, stems, runner.parse_values(asked.p), asked.published, asked.reference)
        if failed:
            print(f"failed: {', '.join(failed)}", file=sys.stderr)
            return 1
        if not (asked.published or asked.reference or asked.no_book):
            runner.stage_quick_book(layout)
            runner.build_book(layout.quick, layout.root / "_build" / "quick" / "html")
    except subprocess.CalledProcessError:
        print("modlib: the book was not built; what is wrong stands above", file=sys.stderr)
        return 1
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"modlib: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
