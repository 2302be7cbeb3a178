"""Consumer groups on real processes: a member that dies, a coordinator that dies, lag, reset and delete."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quorumlog import aio
from quorumlog.errors import GroupNotEmpty, UnknownGroup
from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, eventually

PARTITIONS = 6
SOME = 40


class MemberProcess:
    """A consumer in a process of its own, and the file of what it has handled."""

    def __init__(self, cluster: LocalCluster, topic: str, group: str, handled: Path) -> None:
        self._handled = handled
        handled.touch()
        program = Path(__file__).with_name("group_member.py")
        self.process = subprocess.Popen([sys.executable, program, cluster.bootstrap, topic, group, handled])

    def lines(self) -> list[tuple[int, int, str]]:
        """(partition, offset, value) of each record handled; a line cut off by a kill does not count."""
        rows = [line.split() for line in self._handled.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [(int(partition), int(offset), value) for partition, offset, value in rows]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


MakeMember = Callable[[LocalCluster, str, str], MemberProcess]


@pytest.fixture
def make_member(tmp_path: Path) -> Iterator[MakeMember]:
    made: list[MemberProcess] = []

    def make(cluster: LocalCluster, topic: str, group: str) -> MemberProcess:
        made.append(MemberProcess(cluster, topic, group, tmp_path / f"handled-{len(made)}"))
        return made[-1]

    yield make
    for member in made:
        member.process.kill()
        member.process.wait()


def produce(cluster: LocalCluster, topic: str, values: range) -> None:
    """These numbers into every partition."""
    for partition in range(PARTITIONS):
        rows = pb.Rows(records=[pb.Record(value=str(value).encode()) for value in values])
        batch = pb.PartitionBatch(topic=topic, partition=partition, rows=rows)
        answer = cluster.leader(topic, partition).log.ProduceOnce(pb.ProduceRequest(batches=[batch]), timeout=20.0)
        assert not answer.results[0].HasField("error"), answer.results[0].error


def handled_offsets(members: list[MemberProcess]) -> dict[int, set[int]]:
    offsets: dict[int, set[int]] = {partition: set() for partition in range(PARTITIONS)}
    for member in members:
        for partition, offset, _ in member.lines():
            offsets[partition].add(offset)
    return offsets


def test_group_of_three_whose_member_dies_skips_nothing(shared: LocalCluster, make_member: MakeMember) -> None:
    topic = group = "member-dies"
    shared.create_topic(topic, PARTITIONS)
    members = [make_member(shared, topic, group) for _ in range(3)]

    def shares() -> bool:
        request = pb.DescribeGroupRequest(group=group)
        described = shared.coordinator(group).groups.DescribeGroup(request, timeout=5.0)
        return sorted(len(member.owned) for member in described.members) == [2, 2, 2]

    eventually("a member has joined", lambda: group in _group_names(shared))
    eventually("each of three members has two partitions", shares)
    produce(shared, topic, range(SOME))
    eventually("every member has handled something", lambda: all(member.lines() for member in members))
    produce(shared, topic, range(SOME, 2 * SOME))
    assert members[0].end(signal.SIGKILL) == -signal.SIGKILL
    produce(shared, topic, range(2 * SOME, 3 * SOME))

    whole = set(range(3 * SOME))
    eventually(
        "the others have handled what it left",
        lambda: all(found == whole for found in handled_offsets(members).values()),
    )
    for member in members:
        last: dict[int, int] = {}
        for partition, offset, value in member.lines():
            assert value == str(offset)
            # A partition that comes back may repeat what was not committed; it never goes forward by more than one.
            assert offset <= last.get(partition, offset - 1) + 1, f"skipped before offset {offset} of {partition}"
            last[partition] = offset
    for member in members[1:]:
        assert member.end(signal.SIGTERM) == 0
    request = pb.FetchOffsetsRequest(group=group)
    committed = shared.coordinator(group).groups.FetchOffsets(request, timeout=5.0).offsets
    assert {row.partition.partition: row.offset for row in committed} == dict.fromkeys(range(PARTITIONS), 3 * SOME)


def _group_names(cluster: LocalCluster) -> set[str]:
    names = set()
    for node in cluster.nodes:
        names |= {row.group for row in node.groups.ListGroups(pb.ListGroupsRequest(), timeout=5.0).groups}
    return names


def test_committed_offsets_survive_the_coordinator(cluster: LocalCluster) -> None:
    topic = group = "coordinator-dies"
    cluster.create_topic(topic, PARTITIONS)
    produce(cluster, topic, range(SOME))

    async def consume(count: int) -> list[tuple[int, int]]:
        async with aio.connect(cluster.bootstrap) as client, client.consumer(topic, group=group) as consumer:
            seen = []
            async for record in consumer:
                seen.append((record.partition, record.offset))
                if len(seen) == count:
                    await consumer.commit()
                    break
            return seen

    first = asyncio.run(consume(100))
    coordinator = cluster.coordinator(group)
    coordinator.kill()
    second = asyncio.run(consume(PARTITIONS * SOME - 100))
    whole = {(partition, offset) for partition in range(PARTITIONS) for offset in range(SOME)}
    assert len(first) + len(second) == len(whole)
    assert set(first) | set(second) == whole, "nothing twice, nothing skipped, though another node coordinates now"
    assert cluster.coordinator(group) is not coordinator


def test_lag_reset_and_delete(shared: LocalCluster) -> None:
    topic = group = "lag"
    shared.create_topic(topic, PARTITIONS)
    produce(shared, topic, range(SOME))

    async def scenario() -> None:
        async with aio.connect(shared.bootstrap) as client:
            async with client.consumer(topic, group=group, commit="manual") as consumer:
                records = await consumer.poll(max_records=10, timeout=20.0)
                await consumer.commit()
                assert (await client.groups.describe(group)).lag == PARTITIONS * SOME - len(records)
                with pytest.raises(GroupNotEmpty) as refused:
                    await client.groups.reset(group, topic, to="earliest")
                assert group in str(refused.value)
                assert "stop the members" in refused.value.hint
            assert await client.groups.reset(group, topic, to="latest") == dict.fromkeys(range(PARTITIONS), SOME)
            assert (await client.groups.describe(group)).lag == 0
            assert await client.groups.reset(group, topic, to={0: 5}) == {0: 5}
            assert (await client.groups.describe(group)).lag == SOME - 5
            await client.groups.delete(group)
            with pytest.raises(UnknownGroup):
                await client.groups.describe(group)

    asyncio.run(scenario())


def test_a_group_starts_at_a_time(shared: LocalCluster) -> None:
    topic = group = "at-a-time"
    shared.create_topic(topic, PARTITIONS)

    async def scenario() -> None:
        async with aio.connect(shared.bootstrap) as client:
            async with client.producer() as producer:
                for hour in range(5):
                    for partition in range(PARTITIONS):
                        await producer.send(topic, b"%d" % hour, partition=partition, timestamp=hour * 3600.0)
            start = datetime.fromtimestamp(3 * 3600, UTC)
            async with client.consumer(topic, group=group, start=start) as consumer:
                seen = [await anext(consumer) for _ in range(2 * PARTITIONS)]
            assert sorted((record.partition, record.offset) for record in seen) == [
                (partition, offset) for partition in range(PARTITIONS) for offset in (3, 4)
            ]

    asyncio.run(scenario())
