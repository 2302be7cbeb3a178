"""Offset commits between the wire and the log: what may be proposed, and the answer in the order of the request."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from quorumlog.node.groups.group import Committed, stored_offset
from quorumlog.node.groups.requests import check_offset
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.state import NO_OFFSET, Result
from quorumlog.node.groups.topics import TopicDirectory, TopicPartition
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2


@dataclass(frozen=True, slots=True)
class PreparedCommit:
    """A commit that was checked: the partitions that may be proposed, and why the others may not, in request order."""

    wanted: tuple[pb.OffsetAndEpoch, ...]
    checked: tuple[TopicPartition | pb.Error, ...]

    def command(self, member_id: str, member_epoch: int, now_ms: int) -> internal_pb2.CommitOffsets | None:
        """Return what to propose, or None when nothing of it may be. `now_ms`: milliseconds since the Unix epoch."""
        offsets = [
            stored_offset(
                partition,
                Committed(
                    offset=wanted.offset,
                    leader_epoch=wanted.leader_epoch if wanted.HasField("leader_epoch") else None,
                    metadata=wanted.metadata,
                    committed_at_ms=now_ms,
                ),
            )
            for wanted, partition in zip(self.wanted, self.checked, strict=True)
            if isinstance(partition, TopicPartition)
        ]
        if not offsets:
            return None
        return internal_pb2.CommitOffsets(member_id=member_id, member_epoch=member_epoch, offsets=offsets)

    def answer(self, result: Result | None) -> list[pb.OffsetAndEpoch]:
        """Return one row per partition asked, with an error where it was not committed. None: nothing was proposed."""
        refused = dict(result.refused) if result is not None and not isinstance(result, pb.Error) else {}
        rows = []
        for wanted, partition in zip(self.wanted, self.checked, strict=True):
            row = pb.OffsetAndEpoch(partition=wanted.partition, offset=wanted.offset)
            if wanted.HasField("leader_epoch"):
                row.leader_epoch = wanted.leader_epoch
            error = partition if isinstance(partition, pb.Error) else None
            if error is None and isinstance(result, pb.Error):
                error = result
            if error is None and isinstance(partition, TopicPartition):
                error = refused.get(partition)
            if error is not None:
                row.error.CopyFrom(error)
            rows.append(row)
        return rows


def prepare_commit(
    offsets: Sequence[pb.OffsetAndEpoch],
    topics: TopicDirectory,
    settings: GroupSettings,
    *,
    owned: Container[TopicPartition] = (),
) -> PreparedCommit:
    """Check a commit, partition by partition; those in `owned` need not be known to the directory."""
    return PreparedCommit(
        wanted=tuple(offsets),
        checked=tuple(check_offset(wanted, topics, settings, owned=owned) for wanted in offsets),
    )


def forget_command(partitions: Sequence[TopicPartition]) -> internal_pb2.CommitOffsets:
    """Return the command that forgets what was committed for these partitions."""
    nothing = Committed(offset=NO_OFFSET, leader_epoch=None, metadata="", committed_at_ms=0)
    return internal_pb2.CommitOffsets(offsets=[stored_offset(partition, nothing) for partition in partitions])
