"""`python -m quorumlog` is the `quorumlog` program."""

import sys

from quorumlog.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
