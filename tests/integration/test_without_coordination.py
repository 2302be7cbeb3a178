"""The coordination plane is a convenience: without it everything that is durable goes on as before."""

import asyncio

from quorumlog import aio
from tests.integration.cluster import LocalCluster
from tests.integration.conftest import MakeCluster
from tests.integration.stream import Stream, check_everywhere

PARTITIONS = 3
SOME = 50


def test_producing_consuming_and_failover_without_coordination(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(settings={"coordination": False}).up()
    cluster.create_topic("alone", PARTITIONS)
    with Stream(cluster, "alone", PARTITIONS) as stream:
        stream.until_more(SOME)
        victim = cluster.leader("alone")
        victim.kill()
        stream.until_more(SOME)
        victim.start()
        stream.until_more(SOME)
    check_everywhere(cluster, "alone", PARTITIONS, stream.acks)
    seen = asyncio.run(consume(cluster, "alone", len(stream.acks)))
    assert seen >= {(ack.partition, ack.offset) for ack in stream.acks}


async def consume(cluster: LocalCluster, topic: str, count: int) -> set[tuple[int, int]]:
    """Positions of at least `count` records, read as a member of a group."""
    async with aio.connect(cluster.bootstrap) as client, client.consumer(topic, group=topic) as consumer:
        seen: set[tuple[int, int]] = set()
        while len(seen) < count:
            records = await consumer.poll(timeout=20.0)
            assert records, f"{len(seen)} of {count} records"
            seen |= {(record.partition, record.offset) for record in records}
        return seen
