"""When the coordinator makes a new target for a group, and what it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quorumlog.node.groups.assignor import assign
from quorumlog.node.groups.group import Group, stored_target
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.topics import TopicDirectory, TopicPartition
from quorumlog.proto import internal_pb2


def universe(group: Group, topics: TopicDirectory) -> dict[bytes, int]:
    """Return the topics that members subscribe to and that exist: topic id to partition count."""
    names = sorted({name for member in group.members.values() for name in member.topics})
    views = [view for name in names if (view := topics.by_name(name)) is not None]
    return {view.topic_id: view.partitions for view in views}


def unheard_of(partitions: Iterable[TopicPartition], topics: TopicDirectory) -> set[TopicPartition]:
    """Return those of `partitions` that `topics` does not know: they were deleted, or it is behind."""
    return {
        partition
        for partition in partitions
        if (view := topics.by_id(partition.topic_id)) is None or partition.partition >= view.partitions
    }


def needs_target(group: Group, topics: TopicDirectory, *, up_to_date: bool) -> bool:
    """Whether members, subscriptions or the partitions of their topics are other than the target knows.

    `up_to_date`: whether what `topics` does not know was deleted; otherwise it may be behind.
    """
    if not group.members:
        return False
    if group.group_epoch != group.target_epoch:
        return True
    wanted = {
        TopicPartition(topic_id, number)
        for topic_id, count in universe(group, topics).items()
        for number in range(count)
    }
    targeted = {partition for member in group.members.values() for partition in member.target}
    if not up_to_date:
        wanted |= unheard_of(targeted, topics)
    return wanted != targeted


def make_target(group: Group, topics: TopicDirectory, *, up_to_date: bool) -> internal_pb2.SetTarget:
    """Return the target for the present members, as close to the last one as evenness allows.

    Only what is known to be deleted is taken away. While `topics` may be behind, members keep what it has not heard of;
    what of that belonged to a member that is gone waits until it has.
    """
    partitions = universe(group, topics)
    subscriptions = {
        member_id: [view.topic_id for name in member.topics if (view := topics.by_name(name)) is not None]
        for member_id, member in group.members.items()
    }
    assignment = assign(
        subscriptions, partitions, {member_id: member.target for member_id, member in group.members.items()}
    )
    targets = []
    for member_id, assigned in assignment.items():
        kept = set() if up_to_date else unheard_of(group.members[member_id].target, topics)
        targets.append(stored_target(member_id, kept.union(assigned)))
    return internal_pb2.SetTarget(group_epoch=group.group_epoch, targets=targets)


@dataclass(slots=True)
class _Schedule:
    asked_at: float | None = None
    proposed_at: float | None = None
    in_flight: bool = False


class TargetSchedule:
    """Paces targets per group: soon after the first change that asks for one, and not too soon after the last one."""

    def __init__(self, settings: GroupSettings) -> None:
        self._settings = settings
        self._schedules: dict[str, _Schedule] = {}

    def ask(self, group: str, now: float) -> None:
        """Something has changed."""
        schedule = self._schedules.setdefault(group, _Schedule())
        if schedule.asked_at is None:
            schedule.asked_at = now

    def due(self, now: float) -> list[str]:
        """Return the groups whose time has come, sorted."""
        return sorted(name for name, schedule in self._schedules.items() if self._is_due(schedule, now))

    def _is_due(self, schedule: _Schedule, now: float) -> bool:
        if schedule.asked_at is None or schedule.in_flight:
            return False
        if schedule.proposed_at is not None and now < schedule.proposed_at + self._settings.target_interval_seconds:
            return False
        return now >= schedule.asked_at + self._settings.target_delay_seconds

    def proposed(self, group: str, now: float) -> None:
        """A target is on its way through the log."""
        self._schedules[group] = _Schedule(proposed_at=now, in_flight=True)

    def settled(self, group: str) -> None:
        """The target on its way was applied or refused."""
        if (schedule := self._schedules.get(group)) is not None:
            schedule.in_flight = False

    def forget(self, group: str) -> None:
        """The group needs none."""
        self._schedules.pop(group, None)

    def clear(self) -> None:
        """Forget everything."""
        self._schedules.clear()
