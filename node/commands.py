"""The server's verbs of the `quorumlog` program. Each function adds its arguments to a parser and sets `run`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from quorumlog.node.config import ConfigError, NodeConfig, load_config
from quorumlog.node.dev import DevCluster
from quorumlog.node.errors import NodeError
from quorumlog.node.pidfile import pid_file

GC_THRESHOLD = 50_000
"""Allocations between collections of the youngest generation: batches come and go by reference counts, and a collection
every 700 objects would only walk over them."""


def node(parser: argparse.ArgumentParser) -> None:
    """One server process."""
    parser.add_argument("--config", type=Path, required=True, metavar="node.toml", help="the node's settings")
    parser.set_defaults(run=run_node)


def dev(parser: argparse.ArgumentParser) -> None:
    """A local cluster in the foreground, each node a process of its own."""
    parser.add_argument("--nodes", type=int, default=3, help="how many (default 3)")
    parser.add_argument(
        "--port", type=int, help="client port of the first node, 0 for free ones (default 7070, or as DATA has it)"
    )
    parser.add_argument("--data", type=Path, help="folder to keep; without it a temporary one is used and removed")
    parser.set_defaults(run=run_dev)


def run_node(arguments: argparse.Namespace) -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit code, and ends the process with it where that is not 0."""
    if not __debug__:
        print("quorumlog node: python -O removes the checks that keep data safe; start it without -O", file=sys.stderr)
        return 2
    try:
        config = load_config(arguments.config)
    except ConfigError as error:
        print(f"quorumlog node: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=config.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        code = uvloop.run(_serve(config))
    except NodeError as error:
        print(f"quorumlog node: {error}", file=sys.stderr)
        code = 1
    if code:
        # The interpreter would wait for its threads, and one may hang for ever in a sync of a failing disk.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return 0


async def _serve(config: NodeConfig) -> int:
    # Imported here, because `dev` needs none of it and has processes to start.
    from quorumlog.node.server import NodeServer

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = NodeServer(config)
    try:
        await server.start()
        # Only now is the folder this process's own: another one that has it must keep its file.
        with pid_file(config.data):
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD, 20, 20)
            server.failed.add_done_callback(lambda _: stopping.set())
            await stopping.wait()
            await server.stop()
    finally:
        await server.stop()
    if not server.failed.done():
        return 0
    error = server.failed.result()
    if isinstance(error, NodeError):
        raise error
    logging.getLogger(__name__).critical("node %d ends because of a bug", config.node_id, exc_info=error)
    return 70


def run_dev(arguments: argparse.Namespace) -> int:
    """Run a local cluster until it is interrupted; returns the exit code."""
    if not 1 <= arguments.nodes <= 9:
        print(f"quorumlog dev: --nodes {arguments.nodes} is not between 1 and 9", file=sys.stderr)
        return 2
    if arguments.port is not None and not 0 <= arguments.port <= 65_000:
        print(f"quorumlog dev: --port {arguments.port} is not between 0 and 65000", file=sys.stderr)
        return 2
    try:
        return DevCluster(arguments.nodes, arguments.port, arguments.data, _say).run()
    except NodeError as error:
        print(f"quorumlog dev: {error}", file=sys.stderr)
        return 1


def _say(line: str) -> None:
    print(line, flush=True)
