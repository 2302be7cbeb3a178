"""The state machine of `__groups`: epochs, who owns what, and whose commits count."""

import pytest

from quorumlog.node.groups.group import Committed, Group, stored_offset
from quorumlog.node.groups.state import GroupChange, GroupsState, Result
from quorumlog.node.groups.topics import TopicPartition
from quorumlog.node.state_machine import UnknownCommand
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2

ORDERS = b"orders--orders--"
P0, P1, P2, P3 = (TopicPartition(ORDERS, number) for number in range(4))


class Script:
    """Applies commands to one group the way a replica does: encoded, decoded, applied, and checked."""

    def __init__(self, group: str = "billing") -> None:
        self.name = group
        self.state = GroupsState()
        self.payloads: list[bytes] = []

    @property
    def group(self) -> Group:
        return self.state.groups[self.name]

    def apply(self, **command: object) -> Result:
        payload = internal_pb2.GroupCommand(group=self.name, **command).SerializeToString()  # type: ignore[arg-type]
        self.payloads.append(payload)
        result = self.state.apply(len(self.payloads), self.state.decode(payload))
        self.state.check_invariants()
        return result

    def join(self, *member_ids: str, topics: tuple[str, ...] = ("orders",)) -> None:
        for member_id in member_ids:
            command = internal_pb2.AddMember(member_id=member_id, topics=topics, session_timeout_ms=1000)
            assert isinstance(self.apply(add_member=command), GroupChange)

    def remove(self, *member_ids: str) -> Result:
        return self.apply(remove_members=internal_pb2.RemoveMembers(member_ids=member_ids, reason="test"))

    def target(self, group_epoch: int | None = None, /, **targets: list[TopicPartition]) -> Result:
        command = internal_pb2.SetTarget(
            group_epoch=self.group.group_epoch if group_epoch is None else group_epoch,
            targets=[
                internal_pb2.MemberTarget(member_id=member_id, partitions=[each.stored() for each in partitions])
                for member_id, partitions in targets.items()
            ],
        )
        return self.apply(set_target=command)

    def release(self, member_id: str, member_epoch: int, *partitions: TopicPartition) -> Result:
        command = internal_pb2.ReleasePartitions(
            member_id=member_id, member_epoch=member_epoch, partitions=[each.stored() for each in partitions]
        )
        return self.apply(release_partitions=command)

    def commit(self, member_id: str, member_epoch: int, *partitions: TopicPartition, offset: int = 7) -> Result:
        committed = Committed(offset, 3, "note", 1000)
        command = internal_pb2.CommitOffsets(
            member_id=member_id,
            member_epoch=member_epoch,
            offsets=[stored_offset(each, committed) for each in partitions],
        )
        return self.apply(commit_offsets=command)

    def codes(self, result: Result) -> dict[TopicPartition, str]:
        assert isinstance(result, GroupChange), result
        return {partition: pb.ErrorCode.Name(error.code) for partition, error in result.refused}


def refused(result: Result) -> str:
    """The code, where the whole command is refused: with a message and a fix."""
    assert isinstance(result, pb.Error), result
    assert result.message
    assert result.hint
    return pb.ErrorCode.Name(result.code)


def changed(result: Result) -> tuple[str, ...]:
    assert isinstance(result, GroupChange), result
    return result.changed


def test_a_first_target_gives_everything_at_once() -> None:
    script = Script()
    script.join("a", "b")
    assert (script.group.group_epoch, script.group.target_epoch) == (2, 0)
    assert script.group.describe_state() == "assigning"
    assert changed(script.target(a=[P0], b=[P1])) == ("a", "b")
    assert script.group.owners == {P0: "a", P1: "b"}
    assert script.group.members["a"].owned == {P0: 2}
    assert script.group.describe_state() == "stable"


def test_a_partition_moves_only_after_its_owner_released_it_and_the_others_never_pause() -> None:
    script = Script()
    script.join("a")
    script.target(a=[P0, P1])
    script.join("b")
    assert changed(script.target(a=[P0], b=[P1])) == ("a",), "b has nothing to hear yet"
    assert script.group.members["a"].releasing() == [P1]
    assert script.group.owners[P1] == "a"
    assert script.codes(script.commit("a", 1, P0, P1)) == {}, "what is being released may still be committed"
    assert changed(script.release("a", 2, P1)) == ("a", "b")
    assert script.group.owners == {P0: "a", P1: "b"}
    assert script.group.members["a"].owned == {P0: 1}, "untouched since its first epoch"
    assert script.group.members["b"].owned == {P1: 2}
    assert script.codes(script.commit("a", 2, P0, P1)) == {P1: "PARTITION_NOT_OWNED"}


def test_the_removal_of_the_owner_frees_its_partitions_for_whoever_waits_for_them() -> None:
    script = Script()
    script.join("a")
    script.target(a=[P0, P1])
    script.join("b")
    script.target(a=[P0], b=[P1])
    result = script.remove("a")
    assert isinstance(result, GroupChange)
    assert (result.removed, result.changed) == (("a",), ("b",))
    assert script.group.owners == {P1: "b"}, "P0 is in nobody's target until there is a new one"
    assert script.group.group_epoch == 3
    assert refused(script.commit("a", 2, P0)) == "UNKNOWN_MEMBER"
    script.target(b=[P0, P1])
    assert script.group.owners == {P0: "b", P1: "b"}


def test_commits_count_between_the_epoch_of_the_gift_and_the_present_one() -> None:
    script = Script()
    script.join("a", "b")
    script.target(a=[P0], b=[P1])
    script.remove("b")
    script.target(a=[P0, P1])
    assert script.group.members["a"].owned == {P0: 2, P1: 3}
    assert script.codes(script.commit("a", 2, P0, P1)) == {P1: "STALE_MEMBER_EPOCH"}
    assert script.codes(script.commit("a", 3, P0, P1)) == {}
    assert script.codes(script.commit("a", 4, P0, P1)) == {P0: "STALE_MEMBER_EPOCH", P1: "STALE_MEMBER_EPOCH"}
    assert script.codes(script.commit("a", 1, P0, P2)) == {P0: "STALE_MEMBER_EPOCH", P2: "PARTITION_NOT_OWNED"}


def test_what_is_late_from_an_earlier_stint_is_refused_when_the_partition_has_come_back() -> None:
    script = Script()
    script.join("a")
    script.target(a=[P0])
    script.join("b")
    script.target(b=[P0])
    script.release("a", 2, P0)
    script.target(a=[P0])
    script.release("b", 3, P0)
    assert script.group.owners == {P0: "a"}
    for late_epoch in (1, 2):
        assert script.codes(script.commit("a", late_epoch, P0)) == {P0: "STALE_MEMBER_EPOCH"}
    assert changed(script.release("a", 2, P0)) == (), "a release from the earlier stint releases nothing"
    assert script.codes(script.commit("a", 3, P0)) == {}


def test_a_partition_that_is_given_back_before_it_was_released_just_stays() -> None:
    script = Script()
    script.join("a")
    script.target(a=[P0, P1])
    script.join("b")
    script.target(a=[P0], b=[P1])
    assert changed(script.target(a=[P0, P1])) == ("a",)
    assert script.group.members["a"].owned == {P0: 1, P1: 1}
    assert script.codes(script.commit("a", 1, P0, P1)) == {}


def test_a_release_that_crosses_with_the_giving_back_starts_a_new_stint() -> None:
    script = Script()
    script.join("a")
    script.target(a=[P0])
    script.join("b")
    script.target(b=[P0])
    script.target(a=[P0])
    assert changed(script.release("a", 2, P0)) == ("a",)
    assert script.group.members["a"].owned == {P0: 3}


def test_a_target_for_members_that_have_changed_is_refused() -> None:
    script = Script()
    script.join("a")
    decided_on = script.group.group_epoch
    script.join("b")
    before = script.state.digest()
    assert refused(script.target(decided_on, a=[P0, P1])) == "STALE_MEMBER_EPOCH"
    assert script.state.digest() == before


def test_a_second_target_for_the_same_members_is_an_epoch_of_its_own() -> None:
    script = Script()
    script.join("a")
    script.target(a=[P0])
    assert changed(script.target(a=[P0, P1])) == ("a",)
    assert (script.group.group_epoch, script.group.target_epoch) == (2, 2)
    assert script.group.members["a"].owned == {P0: 1, P1: 2}


@pytest.mark.parametrize(
    "targets",
    [{"a": [P0], "x": [P1]}, {"a": [P0, P0]}, {"a": [P0], "b": [P0]}],
    ids=["stranger", "twice", "two owners"],
)
def test_an_inconsistent_target_changes_nothing(targets: dict[str, list[TopicPartition]]) -> None:
    script = Script()
    script.join("a", "b")
    before = script.state.digest()
    assert refused(script.target(**targets)) == "INVALID_REQUEST"
    assert script.state.digest() == before


def test_joining_again_changes_the_epoch_only_with_the_subscription() -> None:
    script = Script()
    script.join("a")
    script.join("a")
    assert script.group.group_epoch == 1
    script.join("a", topics=("clicks", "orders", "orders"))
    assert script.group.group_epoch == 2
    assert script.group.members["a"].topics == ("clicks", "orders")


@pytest.mark.parametrize("command", [{"topics": ["orders"]}, {"member_id": "a"}], ids=["no id", "no topics"])
def test_a_member_without_id_or_topics_is_refused_and_makes_no_group(command: dict[str, object]) -> None:
    script = Script()
    assert refused(script.apply(add_member=internal_pb2.AddMember(**command))) == "INVALID_REQUEST"  # type: ignore[arg-type]
    assert script.state.groups == {}


def test_strangers_are_told_so() -> None:
    script = Script()
    assert refused(script.remove("a")) == "UNKNOWN_GROUP"
    assert refused(script.commit("a", 1, P0)) == "UNKNOWN_MEMBER"
    assert refused(script.release("a", 1, P0)) == "UNKNOWN_MEMBER"
    assert refused(script.apply(set_target=internal_pb2.SetTarget())) == "UNKNOWN_GROUP"
    assert refused(script.apply(delete_group=internal_pb2.DeleteGroup())) == "UNKNOWN_GROUP"
    script.join("b")
    assert refused(script.remove("a")) == "UNKNOWN_MEMBER"
    assert refused(script.release("b", 9, P0)) == "STALE_MEMBER_EPOCH"


def test_commits_without_membership_count_only_while_nobody_is_a_member() -> None:
    script = Script()
    assert script.codes(script.commit("", 0, P0, offset=4)) == {}
    assert script.group.offsets[P0] == Committed(4, 3, "note", 1000)
    script.join("a")
    assert refused(script.commit("", 0, P0)) == "GROUP_NOT_EMPTY"
    script.remove("a")
    assert script.codes(script.commit("", 0, P0, offset=9)) == {}
    assert script.group.offsets[P0].offset == 9


def test_a_group_with_members_is_not_deleted_and_an_empty_one_goes_with_its_offsets() -> None:
    script = Script()
    script.join("a")
    assert refused(script.apply(delete_group=internal_pb2.DeleteGroup())) == "GROUP_NOT_EMPTY"
    script.remove("a")
    script.commit("", 0, P0)
    assert script.group.describe_state() == "empty"
    script.apply(delete_group=internal_pb2.DeleteGroup())
    assert script.state.groups == {}


def test_offsets_belong_to_one_topic_and_not_to_a_later_one_of_its_name() -> None:
    script = Script()
    script.commit("", 0, P0, offset=4)
    assert TopicPartition(b"orders--again---", 0) not in script.group.offsets


def test_offsets_of_a_deleted_topic_can_be_forgotten_under_running_members() -> None:
    script = Script()
    script.commit("", 0, P0, P1)
    script.join("a")
    script.commit("", 0, P0, offset=-1)
    assert list(script.group.offsets) == [P1]
    other = Script("nobody")
    assert refused(other.commit("", 0, P0, offset=-1)) == "UNKNOWN_GROUP"


def test_an_unknown_leader_epoch_stays_unknown() -> None:
    script = Script()
    unknown = internal_pb2.CommitOffsets(offsets=[stored_offset(P0, Committed(4, None, "", 5))])
    script.apply(commit_offsets=unknown)
    restored = GroupsState()
    restored.restore(script.state.snapshot())
    assert restored.groups["billing"].offsets[P0] == Committed(4, None, "", 5)


def test_state_replay_and_snapshot_are_one() -> None:
    script = Script()
    script.commit("", 0, P3)
    script.join("a", "b")
    script.target(a=[P0, P1], b=[P2])
    script.commit("a", 2, P0)
    script.join("c")
    script.target(a=[P0], b=[P2], c=[P1])
    script.commit("b", 2, P2)
    replayed = GroupsState()
    for index, payload in enumerate(script.payloads, start=1):
        replayed.apply(index, replayed.decode(payload))
    restored = GroupsState()
    restored.restore(script.state.snapshot())
    restored.check_invariants()
    assert replayed.snapshot() == restored.snapshot() == script.state.snapshot()
    script.release("a", 3, P1)
    restored.apply(99, restored.decode(script.payloads[-1]))
    assert restored.digest() == script.state.digest()


@pytest.mark.parametrize(
    "payload", [b"", b"\xff\xff", b"\x0a\x01a", b"\x0a\x01a\xfa\x07\x00", b"\x12\x04\xfa\x07\x01x"]
)
def test_what_this_version_does_not_know_stops_the_group(payload: bytes) -> None:
    with pytest.raises(UnknownCommand):
        GroupsState().decode(payload)
