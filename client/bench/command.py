"""The command line of the benchmark."""

import argparse
import asyncio
import contextlib
import random
import secrets
from collections.abc import Iterator

from quorumlog.bench.consume import consume
from quorumlog.bench.latency import latency
from quorumlog.bench.measure import Result, Settings
from quorumlog.bench.produce import produce
from quorumlog.bench.run import run
from quorumlog.cli.arguments import add_bootstrap, add_output, duration, positive, positive_32, whole
from quorumlog.cli.output import Cell, Progress, print_json, print_table
from quorumlog.dev_cluster import DevCluster, end_in_order

WORKLOADS = {workload.__name__: workload for workload in (produce, latency, consume)}
NODES = 3


def bench(parser: argparse.ArgumentParser) -> None:
    """Measure throughput and latency, of a cluster or of three nodes of its own."""
    parser.add_argument("workload", choices=list(WORKLOADS), help="what to measure")
    add_bootstrap(parser)
    parser.add_argument("--seconds", type=duration, default=10.0, help="how long (default 10)")
    parser.add_argument("-p", "--partitions", type=positive_32, default=12, help="of the topic (default 12)")
    parser.add_argument("-r", "--replicas", type=positive_32, default=3, help="of each partition (default 3)")
    parser.add_argument("--size", type=whole, default=100, help="bytes of a record's value (default 100)")
    parser.add_argument(
        "--api", choices=("send_many", "send"), default="send_many", help="of produce (default send_many)"
    )
    parser.add_argument(
        "--buffer-memory",
        type=positive,
        default=8 << 20,
        metavar="BYTES",
        help="that produce keeps unacknowledged at most; more of it is latency, not throughput (default 8 MiB)",
    )
    parser.add_argument("--seed", type=whole, help="of the payloads (default: drawn, and printed)")
    add_output(parser)
    parser.set_defaults(run=run_bench)


def run_bench(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    settings = Settings(
        workload=arguments.workload,
        seconds=arguments.seconds,
        partitions=arguments.partitions,
        replicas=arguments.replicas,
        size_bytes=arguments.size,
        api=arguments.api if arguments.workload == "produce" else None,
        buffer_memory_bytes=arguments.buffer_memory,
        seed=seed,
        own_nodes=0 if arguments.bootstrap else NODES,
    )
    progress = Progress()
    with _cluster(arguments.bootstrap, seed, progress) as bootstrap:
        result = asyncio.run(run(bootstrap, settings, WORKLOADS[settings.workload], progress))
    progress.clear()
    if arguments.output == "json":
        print_json(result.as_json())
    else:
        print_table(("figure", "value"), _rows(result))
    return 0


@contextlib.contextmanager
def _cluster(bootstrap: str | None, seed: int, progress: Progress) -> Iterator[str]:
    if bootstrap:
        yield bootstrap
        return
    progress.show(f"starting {NODES} nodes")
    end_in_order()
    with DevCluster(NODES, random.Random(seed), "quorumlog-bench-") as cluster:
        yield cluster.bootstrap


def _rows(result: Result) -> list[tuple[Cell, Cell]]:
    rows: list[tuple[Cell, Cell]] = []
    for name, value in result.as_json().items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{name} {key}".strip(), str(entry)) for key, entry in entries]
    return rows
