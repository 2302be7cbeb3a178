"""Runs one workload on a topic of its own."""

import os
import platform
import secrets
from collections.abc import Awaitable, Callable
from importlib.metadata import version

from quorumlog import aio
from quorumlog.bench.measure import Figures, Result, Settings, syncs_per_second
from quorumlog.cli.arguments import CLIENT_ID
from quorumlog.cli.output import Progress

Workload = Callable[[aio.Client, str, Settings, Progress], Awaitable[Figures]]


async def run(bootstrap: str, settings: Settings, workload: Workload, progress: Progress) -> Result:
    """Create a topic, measure, delete it.

    Raises:
        QuorumlogError: the cluster cannot be reached, or has too few nodes for `replicas`.
    """
    async with aio.connect(bootstrap, client_id=f"{CLIENT_ID}-bench") as client:
        topic = f"bench-{secrets.token_hex(4)}"
        created = await client.topics.create(topic, partitions=settings.partitions, replicas=settings.replicas)
        try:
            before = await client.cluster.status()
            figures = await workload(client, topic, settings, progress)
            after = await client.cluster.status()
            configs = (await client.topics.describe(topic)).config_entries
        finally:
            await client.topics.delete(topic, if_exists=True)
    durability = next(
        (entry.value for entry in configs if entry.name == "durability"), created.configs.get("durability")
    )
    environment = {
        "durability": durability,
        "nodes": len(after.nodes),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "cores": len(os.sched_getaffinity(0)),
    }
    return Result(settings, figures, syncs_per_second(before.nodes, after.nodes), environment)
