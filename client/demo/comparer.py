"""The demo's judge, a process of its own: `python -m quorumlog.demo.comparer`. It trusts files and replicas alone."""

import argparse
import asyncio
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

from quorumlog import aio
from quorumlog.aio.client import bootstrap_addresses
from quorumlog.aio.cluster import Cluster
from quorumlog.clock import monotonic
from quorumlog.demo.files import read_acks, read_consumed
from quorumlog.demo.replicas import Log, read_replica
from quorumlog.demo.verdict import Verdict, compare
from quorumlog.errors import QuorumlogError

CATCH_UP_SECONDS = 30.0


async def judge(bootstrap: str, topic: str, folder: Path) -> Verdict:
    """Read every partition from every node that should hold it, and compare.

    Raises:
        QuorumlogError: a replica cannot be read.
    """
    async with aio.connect(bootstrap) as client:
        described = await client.topics.describe(topic)
        ends = await client.offsets(topic, at="latest")
        addresses = {node.node_id: node.address for node in (await client.cluster.status()).nodes}
    deadline = monotonic() + CATCH_UP_SECONDS
    cluster = Cluster(bootstrap_addresses(bootstrap), "quorumlog-demo", random.Random())
    replicas: dict[tuple[int, int], Log] = {}
    try:
        for part in described.partitions:
            for node in part.replicas:
                replicas[part.partition, node] = await read_replica(
                    cluster,
                    addresses[node],
                    topic,
                    part.partition,
                    ends[part.partition],
                    lambda: monotonic() >= deadline,
                )
    finally:
        await cluster.close()
    return compare(list(read_acks(folder)), replicas, read_consumed(folder))


def main() -> int:
    """Parse the command line, judge, and print the verdict as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        verdict = asyncio.run(judge(arguments.bootstrap, arguments.topic, arguments.folder))
    except QuorumlogError as error:
        sys.stderr.write(f"comparer: {error}\n")
        return 1
    print(json.dumps(asdict(verdict)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
