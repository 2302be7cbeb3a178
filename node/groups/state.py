"""The state machine of a `__groups` partition: many groups, and the commands that move them.

Why two members can never both commit a partition: a commit is accepted only from the partition's owner, at an epoch
between the one at which the owner got it and the owner's present one; a partition has one owner, which changes only by
a committed release or removal; and a partition that comes back to a former owner comes under a later epoch, so that
what is still on its way from the earlier stint is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from quorumlog.node.groups.group import Group, Member, loaded_offset
from quorumlog.node.groups.topics import TopicPartition
from quorumlog.node.state_machine import UnknownCommand, parse_whole
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error

NO_OFFSET = -1
"""In a commit: forget the partition. In an answer: nothing is committed."""


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What one applied command did.

    `changed` are the members (sorted) whose owned or releasing partitions are other than before: the coordinator tells
    them. `removed` are the members that are gone. `refused` says, for a commit, which partitions were not accepted and
    why; all others were.
    """

    group: str
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    refused: tuple[tuple[TopicPartition, pb.Error], ...] = ()


Result = GroupChange | pb.Error


class GroupsState:
    """The groups of one `__groups` partition, by name."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self._handlers: dict[str, Callable[[internal_pb2.GroupCommand], Result]] = {
            "add_member": self._add_member,
            "remove_members": self._remove_members,
            "set_target": self._set_target,
            "release_partitions": self._release_partitions,
            "commit_offsets": self._commit_offsets,
            "delete_group": self._delete_group,
        }

    def decode(self, payload: bytes) -> internal_pb2.GroupCommand:
        """Read a command; see `StateMachine.decode`."""
        command = parse_whole(internal_pb2.GroupCommand(), payload, "a command of __groups")
        if command.WhichOneof("command") is None:
            raise UnknownCommand("a command of __groups names nothing to do; a later version may have written it")
        return command

    def apply(self, index: int, command: internal_pb2.GroupCommand) -> Result:
        """Apply a command that `decode` returned; see `StateMachine.apply`."""
        kind = command.WhichOneof("command")
        assert kind is not None, "decode lets no empty command through"
        return self._handlers[kind](command)

    def snapshot(self) -> bytes:
        """Return the whole state; see `StateMachine.snapshot`."""
        state = internal_pb2.GroupsSnapshot(groups=[self.groups[name].stored() for name in sorted(self.groups)])
        return state.SerializeToString(deterministic=True)

    def restore(self, data: bytes) -> None:
        """Replace the state; see `StateMachine.restore`."""
        state = parse_whole(internal_pb2.GroupsSnapshot(), data, "a snapshot of __groups")
        self.groups = {group.group: Group.of(group) for group in state.groups}

    def digest(self) -> bytes:
        """Return a hash of the state; see `StateMachine.digest`."""
        return hashlib.sha256(self.snapshot()).digest()

    def check_invariants(self) -> None:
        """Assert what each group promises."""
        for group in self.groups.values():
            group.check_invariants()

    # -- membership ---------------------------------------------------------------------------------------------------

    def _add_member(self, command: internal_pb2.GroupCommand) -> Result:
        add = command.add_member
        if not add.member_id or not add.topics:
            return _inconsistent(f"a member of group {command.group!r} has no id or subscribes to nothing")
        group = self.groups.get(command.group)
        if group is None:
            group = self.groups[command.group] = Group(command.group)
        topics = tuple(sorted(set(add.topics)))
        member = group.members.get(add.member_id)
        if member is None:
            group.group_epoch += 1
            group.members[add.member_id] = Member(
                add.member_id, add.client_id, topics, add.session_timeout_ms, group.group_epoch
            )
            return GroupChange(command.group)
        if member.topics != topics:
            group.group_epoch += 1
            member.topics = topics
        member.client_id = add.client_id
        member.session_timeout_ms = add.session_timeout_ms
        return GroupChange(command.group)

    def _remove_members(self, command: internal_pb2.GroupCommand) -> Result:
        group = self.groups.get(command.group)
        if group is None:
            return unknown_group(command.group)
        removed = [
            member_id for member_id in sorted(set(command.remove_members.member_ids)) if member_id in group.members
        ]
        if not removed:
            return unknown_member(command.group, ", ".join(command.remove_members.member_ids))
        for member_id in removed:
            for partition in group.members.pop(member_id).owned:
                del group.owners[partition]
        group.group_epoch += 1
        return GroupChange(command.group, changed=tuple(group.give_free()), removed=tuple(removed))

    # -- reconciliation -----------------------------------------------------------------------------------------------

    def _set_target(self, command: internal_pb2.GroupCommand) -> Result:
        group = self.groups.get(command.group)
        if group is None:
            return unknown_group(command.group)
        if command.set_target.group_epoch != group.group_epoch:
            return make_error(
                pb.STALE_MEMBER_EPOCH,
                f"group {group.name!r} is at epoch {group.group_epoch}, the target was made for "
                f"{command.set_target.group_epoch}",
                hint="the coordinator makes another target",
            )
        targets: dict[str, tuple[TopicPartition, ...]] = {}
        seen: set[TopicPartition] = set()
        for target in command.set_target.targets:
            partitions = tuple(sorted(TopicPartition.of(stored) for stored in target.partitions))
            if target.member_id not in group.members or target.member_id in targets:
                return _inconsistent(f"the target of group {group.name!r} names member {target.member_id!r} wrongly")
            if len(set(partitions)) != len(partitions) or not seen.isdisjoint(partitions):
                return _inconsistent(f"the target of group {group.name!r} names a partition twice")
            targets[target.member_id] = partitions
            seen.update(partitions)
        if group.target_epoch == group.group_epoch:
            # Members and subscriptions are the same, so it is the partitions of their topics that have changed.
            group.group_epoch += 1
        group.target_epoch = group.group_epoch
        changed = []
        for member_id in sorted(group.members):
            member = group.members[member_id]
            releasing = member.releasing()
            member.target = targets.get(member_id, ())
            if member.releasing() != releasing:
                member.member_epoch = group.target_epoch
                changed.append(member_id)
        return GroupChange(command.group, changed=tuple(sorted({*changed, *group.give_free()})))

    def _release_partitions(self, command: internal_pb2.GroupCommand) -> Result:
        release = command.release_partitions
        group, member = self._find_member(command.group, release.member_id)
        if group is None or member is None:
            return unknown_member(command.group, release.member_id)
        if release.member_epoch > member.member_epoch:
            return _stale(group, member, release.member_epoch)
        released = False
        for stored in release.partitions:
            partition = TopicPartition.of(stored)
            # A release that was on its way when the partition came back speaks of the earlier stint.
            if member.owned.get(partition, release.member_epoch + 1) <= release.member_epoch:
                del member.owned[partition]
                del group.owners[partition]
                released = True
        if not released:
            return GroupChange(command.group)
        return GroupChange(command.group, changed=tuple(sorted({member.member_id, *group.give_free()})))

    # -- offsets ------------------------------------------------------------------------------------------------------

    def _commit_offsets(self, command: internal_pb2.GroupCommand) -> Result:
        commit = command.commit_offsets
        if not commit.member_id:
            return self._commit_without_membership(command.group, commit)
        group, member = self._find_member(command.group, commit.member_id)
        if group is None or member is None:
            return unknown_member(command.group, commit.member_id)
        refused = []
        for stored in commit.offsets:
            partition = TopicPartition.of(stored.partition)
            assigned_epoch = member.owned.get(partition)
            if assigned_epoch is None:
                refused.append((partition, _not_owned(group, member, partition)))
            elif not assigned_epoch <= commit.member_epoch <= member.member_epoch:
                refused.append((partition, _stale(group, member, commit.member_epoch)))
            else:
                group.offsets[partition] = loaded_offset(stored)
        return GroupChange(command.group, refused=tuple(refused))

    def _commit_without_membership(self, name: str, commit: internal_pb2.CommitOffsets) -> Result:
        group = self.groups.get(name)
        # Forgetting concerns topics that are gone, so it disturbs no member; the coordinator alone asks for it.
        forgets = all(stored.offset == NO_OFFSET for stored in commit.offsets)
        if group is not None and group.members and not forgets:
            return group_not_empty(group)
        if group is None:
            if forgets:
                return unknown_group(name)
            group = self.groups[name] = Group(name)
        for stored in commit.offsets:
            partition = TopicPartition.of(stored.partition)
            if stored.offset == NO_OFFSET:
                group.offsets.pop(partition, None)
            else:
                group.offsets[partition] = loaded_offset(stored)
        return GroupChange(name)

    def _delete_group(self, command: internal_pb2.GroupCommand) -> Result:
        group = self.groups.get(command.group)
        if group is None:
            return unknown_group(command.group)
        if group.members:
            return group_not_empty(group)
        del self.groups[command.group]
        return GroupChange(command.group)

    def _find_member(self, name: str, member_id: str) -> tuple[Group | None, Member | None]:
        group = self.groups.get(name)
        return group, group.members.get(member_id) if group is not None else None


def unknown_group(name: str) -> pb.Error:
    """Return the error for a group that is not there."""
    return make_error(pb.UNKNOWN_GROUP, f"group {name!r} does not exist")


def unknown_member(group: str, member_id: str) -> pb.Error:
    """Return the error for a member that is not, or no longer, in the group."""
    return make_error(
        pb.UNKNOWN_MEMBER,
        f"member {member_id!r} is not in group {group!r}: it was removed (session timeout) or never joined",
        hint="join again with an empty member_id",
    )


def group_not_empty(group: Group) -> pb.Error:
    """Return the error for what only an empty group allows."""
    members = len(group.members)
    return make_error(
        pb.GROUP_NOT_EMPTY,
        f"group {group.name!r} has {members} {'member' if members == 1 else 'members'}",
        hint="stop the members of the group first, or commit as one of them",
    )


def _not_owned(group: Group, member: Member, partition: TopicPartition) -> pb.Error:
    owner = group.owners.get(partition)
    return make_error(
        pb.PARTITION_NOT_OWNED,
        f"member {member.member_id!r} does not own partition {partition.partition} of topic {partition.topic_id.hex()} "
        f"in group {group.name!r}: " + (f"{owner!r} does" if owner is not None else "nobody does"),
    )


def _stale(group: Group, member: Member, member_epoch: int) -> pb.Error:
    return make_error(
        pb.STALE_MEMBER_EPOCH,
        f"member {member.member_id!r} of group {group.name!r} speaks for epoch {member_epoch}, which is not the one "
        f"under which it owns the partition (its present epoch is {member.member_epoch})",
    )


def _inconsistent(message: str) -> pb.Error:
    return make_error(pb.INVALID_REQUEST, message, hint="the command was refused and nothing changed")
