"""`python -m modlib`: the command line, see `modlib.study.cli`."""

import sys

from modlib.study.cli import main

if __name__ == "__main__":
    sys.exit(main())
