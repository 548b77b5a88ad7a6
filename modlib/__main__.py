"""`python -m modlib`: the command line. `ship` is in `modlib.ship`, all else in `modlib.study.cli`."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status. What a command doesn't need isn't imported."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["ship"]:
        from modlib import ship

        return ship.main(given[1:])
    try:
        from modlib.study import cli
    except ImportError as error:
        if given not in ([], ["-h"], ["--help"]):
            raise
        print(f"modlib ship PARENT ...: see modlib ship --help. Other commands: {error}")
        return 0 if given else 2
    return cli.main(given)


if __name__ == "__main__":
    sys.exit(main())
