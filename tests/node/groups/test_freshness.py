"""A coordinator that has not heard of a topic takes it from nobody before it knows that it was deleted."""

import pytest

from quorumlog.node.groups.topics import TopicView
from quorumlog.proto import client_pb2 as pb
from tests.node.groups.world import ROUND, FakeMember, World


def take_over_behind(world: World, hidden: str) -> TopicView:
    """Let a node lead that has not heard of a topic yet, and whose question about that is not answered."""
    world.up_to_date = None
    unknown = world.directory.topics.pop(hidden)
    world.elect()
    return unknown


def hear_of(world: World, topic: TopicView) -> None:
    world.directory.topics[topic.name] = topic
    world.coordinator.on_catalogue_changed(world.now)
    world.catch_up(True)
    world.pass_time(ROUND)


@pytest.mark.parametrize("nobody_answers", [False, True])
def test_a_topic_that_the_coordinator_has_not_heard_of_stays_with_its_members(
    world: World, nobody_answers: bool
) -> None:
    world.directory.create("clicks", 2)
    first, second = [FakeMember(world, ("orders", "clicks")).join() for _ in range(2)]
    world.pass_time(ROUND)
    held = [set(first.working), set(second.working)]
    orders = take_over_behind(world, "orders")
    for member in (first, second):
        member.join()
    if nobody_answers:
        world.catch_up(False)
    world.pass_time(2 * ROUND)
    assert [set(first.working), set(second.working)] == held
    assert {error.code for member in (first, second) for error in member.errors} == {pb.NOT_COORDINATOR}
    second.leave()
    world.pass_time(ROUND)
    if nobody_answers:
        assert set(world.partitions("clicks")) <= set(world.state.groups["billing"].members[first.member_id].target), (
            "it goes on with what it knows"
        )
    hear_of(world, orders)
    assert sorted(first.working) == sorted(world.partitions("orders", "clicks"))


def test_an_assignment_never_names_a_topic_by_nothing_because_the_coordinator_is_behind(world: World) -> None:
    member = FakeMember(world).join()
    world.pass_time(ROUND)
    orders = take_over_behind(world, "orders")
    told = len(member.assignments)
    member.join()
    world.pass_time(ROUND)
    assert len(member.joined) == 2, "it has its place"
    assert len(member.assignments) == told
    hear_of(world, orders)
    assert {each.partition.topic for each in member.assignments[-1].assigned} == {"orders"}


def test_a_topic_that_was_deleted_while_nobody_coordinated_is_taken_away(world: World) -> None:
    member = FakeMember(world).join()
    world.pass_time(ROUND)
    take_over_behind(world, "orders")
    world.pass_time(ROUND)
    assert len(world.state.groups["billing"].members[member.member_id].target) == 6
    world.catch_up(True)
    world.pass_time(ROUND)
    assert world.state.groups["billing"].members[member.member_id].target == ()


@pytest.mark.parametrize(("up_to_date", "code"), [(True, pb.UNKNOWN_TOPIC), (False, pb.NOT_YET_AVAILABLE)])
def test_a_topic_is_denied_only_by_a_coordinator_that_is_up_to_date(
    world: World, up_to_date: bool, code: pb.ErrorCode.ValueType
) -> None:
    world.pass_time(ROUND)
    world.up_to_date = up_to_date
    member = FakeMember(world, ("fresh",)).join()
    world.pass_time(2)
    (error,) = member.errors
    assert error.code == code
    assert "'fresh'" in error.message
    assert member.session is None
