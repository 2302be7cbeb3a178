"""The cluster of a run: nodes that know each other by the addresses of a proxy, founded and serving."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

from quorumlog.chaos.faults.diallers import dialler
from quorumlog.chaos.faults.fault import Scene
from quorumlog.chaos.faults.proxy import Proxy
from quorumlog.chaos.nodes import Node, NodeFailed, Supervisor
from quorumlog.chaos.sight import Sight, lacking
from quorumlog.clock import monotonic
from quorumlog.dev_cluster import PEER_PORT_DISTANCE, free_ports

READY_SECONDS = 60.0
LOOK_SECONDS = 0.1
STARTS_MAX = 3
"""A node that ends as often before there is a cluster will not come up."""
SETTINGS: dict[str, object] = {
    "tick_seconds": 0.05,
    "disk_free_bytes_min": 1 << 20,
    "scrub_period_seconds": 5.0,
    "scrub_bytes_per_second": 1e9,
}
"""Of every node: elections within half a second to a second, and damage looked for all the time."""


@contextlib.asynccontextmanager
async def serving_cluster(directory: Path, count: int, rng: random.Random) -> AsyncIterator[Scene]:
    """Bring a cluster up and end it afterwards, whatever has happened.

    Raises:
        NodeFailed: it does not serve in time.
    """
    nodes: list[Node] = []

    def who(own_port: int, remote_port: int) -> int | None:
        numbers = {pid: node.number for node in nodes if (pid := node.pid) is not None}
        pid = dialler(own_port, remote_port, numbers)
        return None if pid is None else numbers[pid]

    # Not from the seed: which ports are free is not up to it.
    first = free_ports(count, random.Random())
    async with Proxy(who, random.Random(rng.getrandbits(32))) as proxy:
        for number in range(1, count + 1):
            client = first + number - 1
            peer = client + PEER_PORT_DISTANCE
            port = await proxy.listen(number, ("127.0.0.1", peer))
            nodes.append(
                Node(
                    number,
                    directory / "data" / str(number),
                    directory / "nodes" / f"{number}.log",
                    client_address=f"127.0.0.1:{client}",
                    peer_address=f"127.0.0.1:{peer}",
                    advertised=f"127.0.0.1:{port}",
                    settings=SETTINGS,
                )
            )
        sight = Sight(nodes)
        try:
            async with Supervisor(nodes) as supervisor:
                await _found(nodes, sight)
                yield Scene(supervisor, proxy, sight, random.Random(rng.getrandbits(32)))
        finally:
            await sight.close()


async def _found(nodes: list[Node], sight: Sight) -> None:
    deadline = monotonic() + READY_SECONDS
    refusal: str | None = "nobody was asked"
    while True:
        if refusal is not None:
            refusal = await sight.found()
        missing = [refusal] if refusal is not None else lacking(await sight.statuses(), len(nodes))
        if not missing:
            return
        for node in nodes:
            if len(node.exits) >= STARTS_MAX:
                raise NodeFailed(
                    f"node {node.number} ended {STARTS_MAX} times ({node.exits[-1].status}): {node.last_words()}",
                    hint=f"its log is {node.log}",
                )
        if monotonic() >= deadline:
            raise NodeFailed(
                f"the cluster is not ready after {READY_SECONDS:g} s: {missing[0]}",
                hint=f"see the logs of the nodes, such as {nodes[0].log}: {nodes[0].last_words()}",
            )
        await asyncio.sleep(LOOK_SECONDS)


async def until_whole(scene: Scene, seconds: float) -> list[str]:
    """Wait until the cluster is whole, and return what it lacks after `seconds`; nothing when it is whole."""
    deadline = monotonic() + seconds
    while True:
        missing = lacking(await scene.sight.statuses(), len(scene.numbers))
        if not missing or monotonic() >= deadline:
            return missing
        await asyncio.sleep(LOOK_SECONDS)
