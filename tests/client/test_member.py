"""A group member, as a transcript of what the coordinator says and what follows from it."""

import pytest

from quorumlog.member import Assigned, Committed, Ended, Event, Lost, Member, Positions, Revoked
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from quorumlog.records import Offset, TopicPartition

TOPIC_ID = b"t" * 16


def tp(number: int) -> TopicPartition:
    return TopicPartition("orders", number)


def wire(number: int, topic_id: bytes = TOPIC_ID) -> pb.TopicPartition:
    return pb.TopicPartition(topic_id=topic_id, topic="orders", partition=number)


def assign(
    member: Member, epoch: int, assigned: dict[int, int], revoked: tuple[int, ...] = (), topic_id: bytes = TOPIC_ID
) -> list[Event]:
    message = pb.GroupAssignment(
        group_epoch=epoch,
        member_epoch=epoch,
        assigned=[pb.OffsetAndEpoch(partition=wire(n, topic_id), offset=offset) for n, offset in assigned.items()],
        revoked=[wire(n) for n in revoked],
    )
    return member.received(pb.GroupResponse(assignment=message), 1.0)


def positions(offsets: dict[int, Offset], topic_id: bytes = TOPIC_ID) -> Positions:
    return {tp(number): (topic_id, offset) for number, offset in offsets.items()}


@pytest.fixture
def member() -> Member:
    member = Member("billing", ["orders"], "test", None)
    member.connected()
    joined = pb.GroupJoined(member_id="m1", member_epoch=1, session_timeout_ms=10_000)
    member.received(pb.GroupResponse(joined=joined), 0.0)
    member.outbox.clear()
    return member


def test_joining_names_group_topics_and_mode() -> None:
    member = Member("billing", ["b", "a"], "test", 7.5)
    member.connected()
    (request,) = member.outbox
    assert (request.join.group, list(request.join.topics), request.join.mode) == ("billing", ["a", "b"], pb.STREAM)
    assert request.join.session_timeout_ms == 7500


def test_a_ping_is_answered_with_its_nonce(member: Member) -> None:
    member.received(pb.GroupResponse(ping=99), 1.0)
    assert [request.pong for request in member.outbox] == [99]


def test_an_assignment_begins_at_what_was_committed(member: Member) -> None:
    (event,) = assign(member, 2, {0: 17, 1: -1})
    assert event == Assigned({tp(0): (TOPIC_ID, Offset(17)), tp(1): (TOPIC_ID, None)})
    assert member.owned == {tp(0), tp(1)}


def test_partitions_that_stay_are_not_touched(member: Member) -> None:
    assign(member, 2, {0: -1, 1: -1})
    assert assign(member, 3, {0: -1, 2: -1}, revoked=(1,)) == [
        Revoked((tp(1),)),
        Assigned({tp(2): (TOPIC_ID, None)}),
    ]


def test_a_release_comes_only_when_told_and_under_the_present_epoch(member: Member) -> None:
    assign(member, 2, {0: -1, 1: -1})
    assign(member, 3, {0: -1}, revoked=(1,))
    assert member.outbox == []
    member.release([tp(1)])
    (request,) = member.outbox
    assert request.release == pb.GroupRelease(member_epoch=3, partitions=[wire(1)])
    member.release([tp(1)])
    assert len(member.outbox) == 1


def test_a_revoked_partition_can_be_committed_until_it_is_released(member: Member) -> None:
    assign(member, 2, {0: -1})
    assign(member, 3, {}, revoked=(0,))
    assert member.commit(positions({0: Offset(5, 2)})) == 1
    member.release([tp(0)])
    assert member.commit(positions({0: Offset(6, 2)})) is None


def test_what_is_revoked_but_unknown_is_given_back_at_once(member: Member) -> None:
    assign(member, 2, {}, revoked=(4,))
    (request,) = member.outbox
    assert list(request.release.partitions) == [wire(4)]


def test_a_partition_that_is_not_mentioned_any_more_is_lost(member: Member) -> None:
    assign(member, 2, {0: -1, 1: -1})
    assert assign(member, 3, {0: -1}) == [Lost((tp(1),))]


def test_a_topic_created_again_is_another_one(member: Member) -> None:
    assign(member, 2, {0: 50})
    again = b"u" * 16
    assert assign(member, 3, {0: -1}, topic_id=again) == [Lost((tp(0),)), Assigned({tp(0): (again, None)})]


def test_what_was_consumed_of_a_deleted_topic_is_no_position_in_the_one_that_has_its_name(member: Member) -> None:
    assign(member, 2, {0: 50})
    again = b"u" * 16
    assign(member, 3, {0: -1}, topic_id=again)
    assert not member.owns(tp(0), TOPIC_ID)
    assert member.commit(positions({0: Offset(160)})) is None
    assert member.commit(positions({0: Offset(1)}, again)) == 1


def test_an_assignment_of_an_older_epoch_is_ignored(member: Member) -> None:
    assign(member, 5, {0: -1})
    assert assign(member, 4, {}) == []
    assert member.owned == {tp(0)}


def test_a_commit_carries_epochs_and_its_answer_names_what_was_refused(member: Member) -> None:
    assign(member, 2, {0: -1, 1: -1})
    assert member.commit(positions({0: Offset(5, 3), 1: Offset(8), 7: Offset(1)})) == 1
    (request,) = member.outbox
    assert request.commit.member_epoch == 2
    assert [(e.partition.partition, e.offset) for e in request.commit.offsets] == [(0, 5), (1, 8)]
    assert [e.HasField("leader_epoch") for e in request.commit.offsets] == [True, False]
    refusal = make_error(pb.STALE_MEMBER_EPOCH, "too late")
    results = [
        pb.OffsetAndEpoch(partition=wire(0), offset=5),
        pb.OffsetAndEpoch(partition=wire(1), offset=8, error=refusal),
    ]
    answer = pb.GroupResponse(committed=pb.GroupCommitted(commit_id=1, results=results))
    (event,) = member.received(answer, 2.0)
    assert isinstance(event, Committed)
    assert (event.offsets, list(event.refused)) == ({tp(0): 5}, [tp(1)])


def test_a_lost_stream_is_no_lost_membership(member: Member) -> None:
    assign(member, 2, {0: -1, 1: -1})
    assign(member, 3, {0: -1}, revoked=(1,))
    member.disconnected()
    assert member.commit(positions({0: Offset(5)})) is None
    member.connected()
    (request,) = member.outbox
    assert (request.join.member_id, request.join.member_epoch) == ("m1", 3)
    assert list(request.join.owned) == [wire(0), wire(1)]


def test_silence_for_a_session_timeout_loses_everything(member: Member) -> None:
    assign(member, 2, {0: -1})
    assert member.expire(11.0) == []
    assert member.expire(11.1) == [Lost((tp(0),))]
    assert member.expire(20.0) == []


def test_refusals_and_new_streams_are_no_sign_of_life_of_the_coordinator(member: Member) -> None:
    assign(member, 2, {0: -1})
    for _ in range(20):
        member.disconnected()
        member.connected()
        member.received(pb.GroupResponse(error=make_error(pb.NOT_COORDINATOR, "not me")), 11.0)
    assert member.expire(11.1) == [Lost((tp(0),))]


def test_a_removed_member_joins_as_a_new_one(member: Member) -> None:
    assign(member, 2, {0: -1})
    removed = pb.GroupResponse(error=make_error(pb.UNKNOWN_MEMBER, "removed"))
    lost, ended = member.received(removed, 2.0)
    assert lost == Lost((tp(0),))
    assert isinstance(ended, Ended)
    member.connected()
    assert (member.outbox[0].join.member_id, list(member.outbox[0].join.owned)) == ("", [])


def test_a_moved_coordinator_is_named(member: Member) -> None:
    assign(member, 2, {0: -1})
    leader = pb.Leader(node_id=3, address="node-3:7070", leader_epoch=2)
    moved = pb.GroupResponse(error=make_error(pb.NOT_COORDINATOR, "moved", leader=leader))
    (ended,) = member.received(moved, 2.0)
    assert isinstance(ended, Ended)
    assert ended.error.leader == "node-3:7070"
    assert member.owned == {tp(0)}
