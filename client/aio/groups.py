"""Consumer groups, seen from outside: who is in them, how far they have come, and setting that."""

import asyncio
import builtins
from collections.abc import Mapping
from typing import Literal, TypeVar

from quorumlog.aio.admin import DEFAULT_TIMEOUT
from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import ATTEMPT_SECONDS, Call, Cluster, Deadline
from quorumlog.aio.membership import find_coordinator
from quorumlog.aio.offsets import list_offsets
from quorumlog.backoff import full_jitter
from quorumlog.descriptions import GroupDescription, GroupOffset, GroupSummary, MemberDescription
from quorumlog.durations import Timeout, When, limit, timestamp_ms
from quorumlog.errors import QuorumlogError, from_wire
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import TopicPartition
from quorumlog.waiting import Causes

_A = TypeVar("_A")


class Groups:
    """Consumer groups of the cluster; `client.groups`.

    Every method raises `QuorumlogError` as the cluster says, `ConnectionFailed` or `TimedOut` where it says nothing.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def list(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> "builtins.list[GroupSummary]":
        """Return every group, by name. Each node knows those it coordinates, so all are asked."""
        deadline = Deadline(limit("timeout", timeout))

        async def metadata(connection: Connection, seconds: float) -> pb.MetadataResponse:
            return await connection.log.Metadata(pb.MetadataRequest(no_topics=True), timeout=seconds)

        async def groups(connection: Connection, seconds: float) -> pb.ListGroupsResponse:
            return await connection.groups.ListGroups(pb.ListGroupsRequest(), timeout=seconds)

        nodes = (await self._cluster.ask_anyone(metadata, deadline.left())).nodes

        async def one(address: str) -> pb.ListGroupsResponse | QuorumlogError:
            try:
                return await self._cluster.ask(address, groups, deadline.remaining(5.0))
            except QuorumlogError as error:
                return error

        answers = await asyncio.gather(*(one(node.address) for node in nodes))
        failures = [answer for answer in answers if isinstance(answer, QuorumlogError)]
        if failures and len(failures) == len(answers):
            raise failures[0]
        found = {
            group.group: GroupSummary(group.group, group.state, group.members)
            for answer in answers
            if not isinstance(answer, QuorumlogError)
            for group in answer.groups
        }
        return [found[name] for name in sorted(found)]

    async def describe(self, group: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> GroupDescription:
        """Return a group's members, committed offsets and lag.

        Raises:
            UnknownGroup: there is none.
        """
        deadline = Deadline(limit("timeout", timeout))
        request = pb.DescribeGroupRequest(group=group)

        async def call(connection: Connection, seconds: float) -> pb.DescribeGroupResponse:
            return await connection.groups.DescribeGroup(request, timeout=seconds)

        answer = await self._ask(group, call, deadline)
        committed = {
            TopicPartition(entry.partition.topic, entry.partition.partition): entry.offset
            for entry in answer.offsets
            if entry.offset >= 0
        }
        topics = {tp.topic for tp in committed} | {topic for member in answer.members for topic in member.topics}
        parts = await asyncio.gather(*(self._progress(topic, committed, deadline) for topic in sorted(topics)))
        return GroupDescription(
            group=group,
            state=answer.state,
            group_epoch=answer.group_epoch,
            members=tuple(_member(member) for member in answer.members),
            offsets=tuple(offset for part in parts for offset in part),
        )

    async def _progress(
        self, topic: str, committed: Mapping[TopicPartition, int], deadline: Deadline
    ) -> builtins.list[GroupOffset]:
        try:
            latest = await list_offsets(self._cluster, topic, None, "latest", deadline)
            fresh = [partition for partition in latest if TopicPartition(topic, partition) not in committed]
            earliest = await list_offsets(self._cluster, topic, fresh, "earliest", deadline) if fresh else {}
        except QuorumlogError as error:
            if error.code == "UNKNOWN_TOPIC":
                return []  # deleted; its committed offsets mean nothing any more
            raise
        progress = []
        for partition, high_watermark in latest.items():
            offset = committed.get(TopicPartition(topic, partition))
            behind = high_watermark - (offset if offset is not None else earliest[partition])
            progress.append(GroupOffset(topic, partition, offset, high_watermark, max(0, behind)))
        return progress

    async def reset(
        self,
        group: str,
        topic: str,
        *,
        to: Literal["earliest", "latest"] | When | Mapping[int, int],
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> dict[int, int]:
        """Set a group's offsets in a topic, and return them per partition. Only while the group has no members.

        Args:
            group: which one; it is created if there is none.
            topic: which one.
            to: earliest, latest, the first record at or after a time, or an offset per partition.
            timeout: for all of it.

        Raises:
            GroupNotEmpty: it has members.
        """
        deadline = Deadline(limit("timeout", timeout))
        if isinstance(to, Mapping):
            offsets = dict(to)
        else:
            position = to if to in ("earliest", "latest") else timestamp_ms("to", to)  # type: ignore[arg-type] # no word
            offsets = dict(await list_offsets(self._cluster, topic, None, position, deadline))  # type: ignore[arg-type]
        known = await self._cluster.topic(topic, deadline.left())
        request = pb.CommitOffsetsRequest(
            group=group,
            offsets=[
                pb.OffsetAndEpoch(
                    partition=pb.TopicPartition(topic_id=known.topic_id, topic=topic, partition=partition),
                    offset=offset,
                )
                for partition, offset in offsets.items()
            ],
        )

        async def call(connection: Connection, seconds: float) -> pb.CommitOffsetsResponse:
            answer = await connection.groups.CommitOffsets(request, timeout=seconds)
            for result in answer.results:
                if result.HasField("error") and result.error.code != pb.OK:
                    raise from_wire(result.error)
            return answer

        await self._ask(group, call, deadline)
        return offsets

    async def delete(self, group: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Delete a group and its committed offsets. Only while it has no members.

        Raises:
            UnknownGroup, GroupNotEmpty: as their names say.
        """
        request = pb.DeleteGroupRequest(group=group)

        async def call(connection: Connection, seconds: float) -> pb.DeleteGroupResponse:
            return await connection.groups.DeleteGroup(request, timeout=seconds)

        await self._ask(group, call, Deadline(limit("timeout", timeout)))

    async def _ask(self, group: str, call: Call[_A], deadline: Deadline) -> _A:
        """Ask the coordinator of a group, wherever it moves to meanwhile."""
        coordinator = await find_coordinator(self._cluster, group, deadline.left())

        causes = Causes()
        failures = 0
        while True:
            try:
                return await self._cluster.ask(coordinator, call, deadline.remaining(ATTEMPT_SECONDS))
            except QuorumlogError as error:
                if not error.retriable:
                    raise
                causes.add(coordinator, error)
                if deadline.passed:
                    raise causes.summary() from error
                self._cluster.waiting(causes.summary(), deadline.began)
                hint = error.leader
                failures += 1
            if not hint or failures > 1:
                await asyncio.sleep(deadline.remaining(full_jitter(failures, self._cluster.rng)))
            coordinator = hint or await find_coordinator(self._cluster, group, deadline.left())


def _member(member: pb.GroupMember) -> MemberDescription:
    return MemberDescription(
        member_id=member.member_id,
        client_id=member.client_id,
        member_epoch=member.member_epoch,
        topics=tuple(member.topics),
        owned=tuple(TopicPartition(tp.topic, tp.partition) for tp in member.owned),
        releasing=tuple(TopicPartition(tp.topic, tp.partition) for tp in member.releasing),
    )
