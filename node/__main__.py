"""`python -m quorumlog.node --config node.toml`: one server process."""

from __future__ import annotations

import argparse
import sys

from quorumlog.node.commands import node


def main() -> int:
    """Run a node; returns the exit code."""
    parser = argparse.ArgumentParser(prog="quorumlog node", description=node.__doc__)
    node(parser)
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
