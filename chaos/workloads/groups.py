"""A group whose members join, dawdle, commit, leave and vanish: `python -m quorumlog.chaos.workloads.groups`."""

from __future__ import annotations

import asyncio
import sys

from quorumlog.chaos.history.writer import Recorder
from quorumlog.chaos.workloads.batches import Read, read_batches
from quorumlog.chaos.workloads.producing import Producer, unpad
from quorumlog.chaos.workloads.program import Stage, run
from quorumlog.chaos.workloads.session import Session, find_coordinator
from quorumlog.chaos.workloads.wire import Refused, attempt, check
from quorumlog.clock import monotonic
from quorumlog.member import Assigned, Event, Lost, Member, Revoked
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import TopicPartition

GROUP = "readers"
MEMBERS = 4
SESSION_SECONDS = 6.0
LIFE_SECONDS = (5.0, 20.0)
AWAY_SECONDS = (0.5, 3.0)
SLOW = 0.1
SLOW_SECONDS = 2.0
"""One in ten batches of records takes its handler up to so long."""
VANISH = 0.3
"""How often a member that goes says nothing."""
CALL_SECONDS = 3.0
FETCH_BYTES_MAX = 4 << 10
WAIT_MS = 200
CERTAIN = (pb.UNKNOWN_MEMBER, pb.STALE_MEMBER_EPOCH, pb.PARTITION_NOT_OWNED)
"""What a coordinator says that has not committed and will not."""


class Consumer:
    """One process that is a member of the group again and again, each time as a new one."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._name = name
        self._rng = stage.rng(name)
        self._recorder = Recorder(stage.orders.directory, name)
        self._wire = stage.wire(name)
        self._member = self._new_member()
        self._session = Session(self._wire, self._member, self._hear)
        self._positions: dict[TopicPartition, tuple[bytes, int]] = {}
        self._revoked: set[TopicPartition] = set()
        self._commits = 0

    async def run(self) -> None:
        """Be a member, and another one, until it is time to end."""
        try:
            while await self._stage.pause(self._rng.uniform(*AWAY_SECONDS)):
                await self._live(monotonic() + self._rng.uniform(*LIFE_SECONDS))
        finally:
            self._recorder.close()
            await self._wire.close()

    def _new_member(self) -> Member:
        return Member(GROUP, [self._stage.orders.topic], self._name, SESSION_SECONDS)

    async def _live(self, until: float) -> None:
        self._member = self._new_member()
        self._session = Session(self._wire, self._member, self._hear)
        self._positions.clear()
        self._revoked.clear()
        keeping = asyncio.create_task(self._session.keep())
        try:
            while monotonic() < until and not self._stage.stopping.is_set():
                for event in self._member.expire(monotonic()):
                    self._hear(event)
                await self._work()
                if keeping.done():
                    keeping.result()
            if self._rng.random() >= VANISH and self._member.joined:
                self._revoke(tuple(self._positions))
                self._member.leave()
                self._session.flush()
                await asyncio.sleep(0.2)  # until it is said; who does not hear it finds out
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    # -- what the coordinator says

    def _hear(self, event: Event) -> None:
        if isinstance(event, Assigned) and event.partitions:
            for tp, (topic_id, position) in event.partitions.items():
                self._positions[tp] = topic_id, position.offset if position is not None else 0
            self._tell("assign", tuple(event.partitions))
        elif isinstance(event, Revoked):
            self._revoked.update(event.partitions)
        elif isinstance(event, Lost):
            self._revoke(event.partitions)

    def _revoke(self, partitions: tuple[TopicPartition, ...]) -> None:
        for tp in partitions:
            self._positions.pop(tp, None)
            self._revoked.discard(tp)
        if partitions:
            self._tell("revoke", partitions)

    def _tell(self, what: str, partitions: tuple[TopicPartition, ...]) -> None:
        tps = sorted(_name(tp) for tp in partitions)
        self._recorder.tell(what, group=GROUP, member=self._member.member_id, gen=self._member.member_epoch, tps=tps)

    # -- the work

    async def _work(self) -> None:
        """One partition: take what is there, work on it, commit it. What is to be given back is given back first."""
        if self._revoked:
            revoked = tuple(self._revoked)
            self._revoke(revoked)
            self._member.release(revoked)
            self._session.flush()
        if not self._positions:
            await asyncio.sleep(0.05)
            return
        tp = self._rng.choice(sorted(self._positions))
        if not await self._poll(tp):
            return
        if self._rng.random() < SLOW:
            await self._stage.pause(self._rng.uniform(0.0, SLOW_SECONDS))
        if tp in self._positions and self._rng.random() < 0.8:
            await self._commit(tp)

    async def _poll(self, tp: TopicPartition) -> bool:
        """Take the next records of a partition; False when there are none."""
        topic_id, position = self._positions[tp]
        generation, member_id = self._member.member_epoch, self._member.member_id
        operation = self._recorder.invoke("poll", group=GROUP, member=member_id)
        try:
            reads = await self._fetch(tp, topic_id, position)
        except Refused as refused:
            operation.fail(error=str(refused))
            self._wire.led_by(tp.topic, tp.partition, refused.error.leader.node_id)
            await asyncio.sleep(0.05)
            return False
        if self._positions.get(tp) != (topic_id, position) or not reads:
            operation.fail(error="it was taken away meanwhile" if reads else "there is nothing new")
            return False
        operation.ok(
            group=GROUP,
            member=member_id,
            gen=generation,
            tps=[_name(tp)],
            recs=[[_name(tp), one.offset, unpad(one.value)] for one in reads],
        )
        self._positions[tp] = topic_id, reads[-1].offset + 1
        return True

    async def _fetch(self, tp: TopicPartition, topic_id: bytes, position: int) -> list[Read]:
        node = await self._wire.leader(tp.topic, tp.partition)
        if not await self._wire.connected(node, CALL_SECONDS):
            raise Refused(pb.Error(code=pb.TIMED_OUT, message=f"node {node} is not there"))
        wanted = pb.FetchPartition(topic_id=topic_id, topic=tp.topic, partition=tp.partition, offset=position)
        request = pb.FetchRequest(partitions=[wanted], max_bytes=FETCH_BYTES_MAX, max_wait_ms=WAIT_MS)
        answer = await attempt(lambda: self._wire.log(node).Fetch(request, timeout=CALL_SECONDS))
        check(answer.error if answer.HasField("error") else None)
        told = answer.partitions[0]
        check(told.error if told.HasField("error") else None)
        return read_batches(told.batches, position)

    async def _commit(self, tp: TopicPartition) -> None:
        topic_id, position = self._positions[tp]
        if not self._member.joined:
            return
        self._commits += 1
        tag = f"{self._recorder.process}/{self._commits}"
        operation = self._recorder.invoke(
            "commit",
            group=GROUP,
            member=self._member.member_id,
            gen=self._member.member_epoch,
            offsets={_name(tp): [position, tag]},
        )
        try:
            error = await self._session.commit(tp, topic_id, position, tag)
        except Refused as refused:
            operation.info(error=str(refused))
            return
        if error is None:
            operation.ok()
        elif error.code in CERTAIN:
            operation.fail(error=error.message)
        else:
            operation.info(error=error.message)


async def read_committed(stage: Stage, name: str, rate: float) -> None:
    """Ask how far the group has come, until it is time to end."""
    recorder = Recorder(stage.orders.directory, name)
    wire = stage.wire(name)

    async def step() -> None:
        operation = recorder.invoke("committed", group=GROUP)
        try:
            node = await find_coordinator(wire, GROUP)
            request = pb.FetchOffsetsRequest(group=GROUP)
            answer = await attempt(lambda: wire.groups(node).FetchOffsets(request, timeout=CALL_SECONDS))
            check(answer.error if answer.HasField("error") else None)
        except Refused as refused:
            operation.fail(error=str(refused))
            return
        told = {
            f"{one.partition.topic}/{one.partition.partition}": [one.offset, one.metadata]
            for one in answer.offsets
            if one.offset >= 0
        }
        operation.ok(group=GROUP, offsets=told)

    try:
        await stage.at_rate(rate, step)
    finally:
        recorder.close()
        await wire.close()


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"


async def play(stage: Stage) -> None:
    """Write, and let a group read."""
    rate, topic = stage.orders.rate, stage.orders.topic
    async with asyncio.TaskGroup() as group:
        group.create_task(Producer(stage, f"{topic}-producer-1").run(rate / 2))
        group.create_task(read_committed(stage, f"{topic}-committed", rate / 10))
        for number in range(1, MEMBERS + 1):
            group.create_task(Consumer(stage, f"{topic}-member-{number}").run())


if __name__ == "__main__":
    sys.exit(run(__doc__, play))
