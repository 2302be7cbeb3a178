"""One consumer group: members, who owns what and where it shall go, committed offsets. Changed by state.py alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from quorumlog.node.groups.topics import TopicPartition
from quorumlog.proto import internal_pb2


@dataclass(slots=True)
class Member:
    """A member of a group.

    `owned` maps each partition it may work on to the member epoch at which it got it (`assigned_epoch`); `target` is
    where it shall get to. What it owns outside the target it is releasing. `member_epoch` is the epoch of the target
    behind the latest change of what it owns or releases; a new member begins at the group epoch of its join.
    """

    member_id: str
    client_id: str
    topics: tuple[str, ...]
    session_timeout_ms: int
    member_epoch: int
    owned: dict[TopicPartition, int] = field(default_factory=dict)
    target: tuple[TopicPartition, ...] = ()

    def assigned(self) -> list[TopicPartition]:
        """Return what it owns and shall keep, sorted."""
        return sorted(self.owned.keys() & set(self.target))

    def releasing(self) -> list[TopicPartition]:
        """Return what it owns and shall give back, sorted."""
        return sorted(self.owned.keys() - set(self.target))


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset: the next one to consume, and the leader epoch of the last record consumed, where known."""

    offset: int
    leader_epoch: int | None
    metadata: str
    committed_at_ms: int


@dataclass(slots=True)
class Group:
    """A consumer group.

    Invariants (`check_invariants`): a partition has at most one owner and is in at most one target;
    `assigned_epoch <= member_epoch <= group_epoch` and `target_epoch <= group_epoch`; a partition that is in a target
    and owned by nobody does not exist (it would have been given).
    """

    name: str
    group_epoch: int = 0
    target_epoch: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    offsets: dict[TopicPartition, Committed] = field(default_factory=dict)
    owners: dict[TopicPartition, str] = field(default_factory=dict)

    def give_free(self) -> list[str]:
        """Give partitions that nobody owns to the members whose target they are; return the ids of those members."""
        gained = []
        for member_id in sorted(self.members):
            member = self.members[member_id]
            free = [partition for partition in member.target if partition not in self.owners]
            if not free:
                continue
            member.member_epoch = max(member.member_epoch, self.target_epoch)
            for partition in free:
                member.owned[partition] = member.member_epoch
                self.owners[partition] = member_id
            gained.append(member_id)
        return gained

    def is_settled(self) -> bool:
        """Whether there is a target for the present epoch and every member has reached it."""
        return self.group_epoch == self.target_epoch and all(
            len(member.owned) == len(member.target) and not member.releasing() for member in self.members.values()
        )

    def describe_state(self) -> str:
        """Return the word that clients are shown: empty, stable or assigning."""
        if not self.members:
            return "empty"
        return "stable" if self.is_settled() else "assigning"

    def check_invariants(self) -> None:
        """Assert what is promised above."""
        assert self.target_epoch <= self.group_epoch, f"{self.name}: a target for an epoch to come"
        owners: dict[TopicPartition, str] = {}
        targets: dict[TopicPartition, str] = {}
        for member_id, member in self.members.items():
            assert member.member_epoch <= self.group_epoch, f"{self.name}: {member_id} is ahead of its group"
            for partition, assigned_epoch in member.owned.items():
                assert assigned_epoch <= member.member_epoch, f"{self.name}: {partition} was given by a later epoch"
                assert owners.setdefault(partition, member_id) == member_id, f"{self.name}: {partition} has two owners"
            for partition in member.target:
                assert targets.setdefault(partition, member_id) == member_id, (
                    f"{self.name}: {partition} is targeted twice"
                )
        assert owners == self.owners, f"{self.name}: the owners kept are not the owners there are"
        assert all(partition in owners for partition in targets), f"{self.name}: a free partition was not given"

    def stored(self) -> internal_pb2.GroupState:
        """Return the stored form; equal groups give equal messages."""
        return internal_pb2.GroupState(
            group=self.name,
            group_epoch=self.group_epoch,
            target_epoch=self.target_epoch,
            members=[_stored_member(self.members[member_id]) for member_id in sorted(self.members)],
            offsets=[stored_offset(partition, self.offsets[partition]) for partition in sorted(self.offsets)],
        )

    @classmethod
    def of(cls, state: internal_pb2.GroupState) -> Group:
        """Return the group that `stored` wrote."""
        group = cls(state.group, state.group_epoch, state.target_epoch)
        for stored in state.members:
            member = Member(
                member_id=stored.member_id,
                client_id=stored.client_id,
                topics=tuple(stored.topics),
                session_timeout_ms=stored.session_timeout_ms,
                member_epoch=stored.member_epoch,
                owned={TopicPartition.of(owned.partition): owned.assigned_epoch for owned in stored.owned},
                target=tuple(TopicPartition.of(partition) for partition in stored.target),
            )
            group.members[member.member_id] = member
            group.owners.update(dict.fromkeys(member.owned, member.member_id))
        for offset in state.offsets:
            group.offsets[TopicPartition.of(offset.partition)] = loaded_offset(offset)
        return group


def stored_offset(partition: TopicPartition, committed: Committed) -> internal_pb2.CommittedOffset:
    """Return the stored form of a committed offset."""
    return internal_pb2.CommittedOffset(
        partition=partition.stored(),
        offset=committed.offset,
        leader_epoch=committed.leader_epoch,
        metadata=committed.metadata,
        committed_at_ms=committed.committed_at_ms,
    )


def loaded_offset(stored: internal_pb2.CommittedOffset) -> Committed:
    """Return the committed offset that `stored` holds."""
    return Committed(
        offset=stored.offset,
        leader_epoch=stored.leader_epoch if stored.HasField("leader_epoch") else None,
        metadata=stored.metadata,
        committed_at_ms=stored.committed_at_ms,
    )


def stored_target(member_id: str, partitions: Iterable[TopicPartition]) -> internal_pb2.MemberTarget:
    """Return the command's form of one member's target."""
    return internal_pb2.MemberTarget(
        member_id=member_id, partitions=[partition.stored() for partition in sorted(partitions)]
    )


def _stored_member(member: Member) -> internal_pb2.MemberState:
    return internal_pb2.MemberState(
        member_id=member.member_id,
        client_id=member.client_id,
        topics=member.topics,
        session_timeout_ms=member.session_timeout_ms,
        member_epoch=member.member_epoch,
        owned=[
            internal_pb2.OwnedPartition(partition=partition.stored(), assigned_epoch=member.owned[partition])
            for partition in sorted(member.owned)
        ],
        target=[partition.stored() for partition in member.target],
    )
