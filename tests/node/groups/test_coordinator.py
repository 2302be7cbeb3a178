"""The coordinator: joins, pings, hand-overs, coordinator loss, and what it refuses."""

import pytest

from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.topics import TopicPartition
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error
from tests.node.groups.world import ROUND, FakeMember, World


def members(world: World, count: int) -> list[FakeMember]:
    joined = [FakeMember(world).join() for _ in range(count)]
    world.pass_time(ROUND)
    return joined


def shares(*joined: FakeMember) -> list[int]:
    return [len(member.working) for member in joined]


def last_error(member: FakeMember) -> pb.Error:
    assert member.errors, "an error ends the session"
    assert member.session is None
    assert member.errors[-1].message
    assert member.errors[-1].hint
    return member.errors[-1]


# -- sharing ----------------------------------------------------------------------------------------------------------


def test_a_member_that_is_alone_gets_everything_from_the_start(world: World) -> None:
    (alone,) = members(world, 1)
    assert sorted(alone.working) == world.partitions("orders")
    assert [each.offset for each in alone.assignments[-1].assigned] == [-1] * 6
    assert {each.partition.topic for each in alone.assignments[-1].assigned} == {"orders"}
    assert alone.joined[0].session_timeout_ms == 30_000


def test_three_members_share_six_partitions_and_nobody_hears_anything_without_need(world: World) -> None:
    joined = members(world, 3)
    assert shares(*joined) == [2, 2, 2]
    heard = [len(member.assignments) for member in joined]
    world.pass_time(60)
    assert [len(member.assignments) for member in joined] == heard
    assert world.state.groups["billing"].describe_state() == "stable"


def test_untouched_partitions_never_pause_when_a_member_joins(world: World) -> None:
    first, second = members(world, 2)
    before = dict(first.working)
    third = FakeMember(world).join()
    world.pass_time(ROUND)
    assert shares(first, second, third) == [2, 2, 2]
    assert first.working.keys() < before.keys()
    owned = world.state.groups["billing"].members[first.member_id].owned
    assert all(owned[partition] < first.member_epoch for partition in first.working), "still the first stint"


def test_a_partition_waits_for_a_slow_release(world: World) -> None:
    (slow,) = members(world, 1)
    slow.releases = False
    fast = FakeMember(world).join()
    world.pass_time(120)
    assert len(slow.revoked) == 3
    assert len(slow.working) == 6
    assert fast.working == {}
    slow.commit((slow.revoked[0], 41))
    assert not slow.committed[-1].results[0].HasField("error"), "what is being released may still be committed"
    slow.release(*slow.revoked)
    assert shares(slow, fast) == [3, 3]
    assert 41 in fast.working.values(), "the new owner starts where the old one committed"


def test_members_may_subscribe_to_different_topics(world: World) -> None:
    world.directory.create("clicks", 4)
    both = FakeMember(world, ("orders", "clicks")).join()
    clicks = FakeMember(world, ("clicks",)).join()
    world.pass_time(ROUND)
    assert sorted(clicks.working) == world.partitions("clicks")
    assert sorted(both.working) == world.partitions("orders")


def test_a_member_that_comes_back_with_other_topics_changes_its_subscription(world: World) -> None:
    world.directory.create("clicks", 2)
    (member,) = members(world, 1)
    member.break_stream()
    member.topics = ("clicks",)
    member.join()
    world.pass_time(ROUND)
    assert sorted(member.working) == world.partitions("clicks")


def test_fifty_joins_in_ten_seconds_cost_few_epochs_once_it_is_calm(world: World) -> None:
    joined = []
    for _ in range(50):
        joined.append(FakeMember(world).join())
        world.pass_time(0.2)
    group = world.state.groups["billing"]
    epoch = group.group_epoch
    pushes = sum(len(member.assignments) for member in joined)
    world.pass_time(60)
    assert group.group_epoch <= epoch + 2
    assert group.describe_state() == "stable"
    assert sorted(shares(*joined)) == [0] * 44 + [1] * 6
    assert sum(len(member.assignments) for member in joined) <= pushes + 12
    targets = [payload for payload in world.log if world.state.decode(payload).HasField("set_target")]
    assert len(targets) <= 10 / world.settings.target_interval_seconds + 2


# -- life and death ---------------------------------------------------------------------------------------------------


def test_a_member_whose_handler_sleeps_for_ten_minutes_keeps_its_partitions(world: World) -> None:
    sleeper, other = members(world, 2)
    before = dict(sleeper.working)
    world.pass_time(600, tick_seconds=0.5)  # no commit, no poll: only its background loop answers
    assert sleeper.working == before
    assert sleeper.session is not None
    assert sleeper.pings >= 90
    assert shares(sleeper, other) == [3, 3]


def test_a_member_whose_background_loop_is_stuck_loses_its_partitions_and_its_late_commit(world: World) -> None:
    stuck, other = members(world, 2)
    stuck.loop_runs = False
    partition = min(stuck.working)
    world.pass_time(25, tick_seconds=0.5)
    stuck.commit((partition, 5))
    assert not stuck.committed[-1].results[0].HasField("error"), "until its time is over"
    world.pass_time(10, tick_seconds=0.5)
    assert shares(other) == [6]
    assert other.working[partition] == 5
    assert last_error(stuck).code == pb.UNKNOWN_MEMBER
    # What it still has in flight when it wakes up is refused by the log itself.
    late = internal_pb2.CommitOffsets(member_id=stuck.member_id, member_epoch=stuck.member_epoch)
    result = world.state.apply(0, internal_pb2.GroupCommand(group="billing", commit_offsets=late))
    assert isinstance(result, pb.Error)
    assert result.code == pb.UNKNOWN_MEMBER


def test_an_answer_to_no_ping_proves_nothing(world: World) -> None:
    (liar,) = members(world, 1)
    liar.loop_runs = False
    for nonce in range(80):
        liar.say(pong=nonce)
        world.pass_time(0.5)
    assert last_error(liar).code == pb.UNKNOWN_MEMBER


def test_leaving_gives_everything_to_the_others_at_once(world: World) -> None:
    leaver, other = members(world, 2)
    leaver.commit((min(leaver.working), 9))
    leaver.leave()
    assert leaver.session is None
    assert leaver.errors == []
    assert list(world.state.groups["billing"].members) == [other.member_id]
    world.pass_time(ROUND)
    assert shares(other) == [6]
    assert 9 in other.working.values()


def test_a_member_whose_stream_broke_comes_back_to_its_place(world: World) -> None:
    broken, other = members(world, 2)
    before, epoch = dict(broken.working), world.state.groups["billing"].group_epoch
    broken.break_stream()
    world.pass_time(20)
    broken.join()
    world.pass_time(60)
    assert broken.working == before
    assert world.state.groups["billing"].group_epoch == epoch
    assert shares(broken, other) == [3, 3]


def test_a_member_that_does_not_come_back_in_time_has_lost_its_place(world: World) -> None:
    broken, other = members(world, 2)
    broken.break_stream()
    world.pass_time(31, tick_seconds=0.5)
    assert shares(other) == [6]
    broken.join()
    assert last_error(broken).code == pb.UNKNOWN_MEMBER
    broken.member_id, broken.member_epoch = "", 0
    broken.join()
    world.pass_time(ROUND)
    assert shares(broken, other) == [3, 3]


def test_a_release_that_was_lost_with_the_stream_is_made_up_for_when_the_member_comes_back(world: World) -> None:
    (member,) = members(world, 1)
    member.releases = False
    other = FakeMember(world).join()
    world.pass_time(ROUND)
    for partition in member.revoked:
        del member.working[partition]
    member.break_stream()
    member.join()
    assert shares(member, other) == [3, 3]


def test_a_second_stream_of_a_member_replaces_the_first(world: World) -> None:
    (member,) = members(world, 1)
    twin = FakeMember(world)
    twin.member_id, twin.member_epoch = member.member_id, member.member_epoch
    twin.join()
    assert "taken over" in last_error(member).message
    assert sorted(twin.working) == world.partitions("orders")
    world.pass_time(60)
    assert twin.pings > 5
    assert twin.session is not None


def test_a_member_that_was_never_told_its_id_leaves_no_ghost() -> None:
    world = World(apply_at_once=False)
    world.directory.create("orders", 6)
    unlucky = FakeMember(world).join()
    unlucky.break_stream()
    world.apply()
    assert world.state.groups["billing"].members == {}


def test_a_session_timeout_of_its_own_is_kept(world: World) -> None:
    brisk = FakeMember(world).join(timeout_seconds=2)
    world.pass_time(ROUND)
    brisk.loop_runs = False
    world.pass_time(2.5)
    assert last_error(brisk).code == pb.UNKNOWN_MEMBER


def test_a_session_without_a_join_is_closed(world: World) -> None:
    silent = FakeMember(world)
    silent.open()
    world.pass_time(31, tick_seconds=0.5)
    assert last_error(silent).code == pb.TIMED_OUT


# -- coordinators come and go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_snapshot", [False, True])
def test_a_new_coordinator_grants_a_full_timeout_and_goes_on_where_the_old_one_stopped(from_snapshot: bool) -> None:
    world = World()
    world.directory.create("orders", 6)
    joined = members(world, 3)
    before = [dict(member.working) for member in joined]
    joined[0].commit((min(joined[0].working), 17))
    world.pass_time(5)
    world.elect(from_snapshot=from_snapshot)
    assert [last_error(member).code for member in joined] == [pb.NOT_COORDINATOR] * 3
    world.pass_time(29, tick_seconds=0.5)
    for member in joined:
        member.join()
    world.pass_time(60, tick_seconds=0.5)
    assert [member.working for member in joined] == before
    offsets = [each.offset for each in joined[0].assignments[-1].assigned]
    assert sorted(offsets) == [-1, 17]


def test_who_does_not_come_back_to_the_new_coordinator_is_removed_by_it(world: World) -> None:
    back, gone = members(world, 2)
    world.elect()
    back.join()
    world.pass_time(31, tick_seconds=0.5)
    assert shares(back) == [6]
    assert gone.member_id not in world.state.groups["billing"].members


def test_results_from_an_earlier_leadership_are_nobody_s() -> None:
    world = World(apply_at_once=False)
    world.directory.create("orders", 6)
    member = FakeMember(world).join()
    world.coordinator.on_leadership(False, world.now)
    world.coordinator.on_leadership(True, world.now)
    world.apply()
    assert member.joined == []
    assert last_error(member).code == pb.NOT_COORDINATOR


def test_who_does_not_lead_says_so(world: World) -> None:
    world.coordinator.on_leadership(False, world.now)
    member = FakeMember(world).join()
    error = last_error(member)
    assert (error.code, error.retriable) == (pb.NOT_COORDINATOR, True)
    assert "billing" in error.message
    answers: list[pb.Error] = []
    coordinator = world.coordinator
    coordinator.commit_offsets(pb.CommitOffsetsRequest(group="g"), lambda answer: answers.append(answer.error))
    coordinator.fetch_offsets(pb.FetchOffsetsRequest(group="g"), lambda answer: answers.append(answer.error))
    coordinator.list_groups(pb.ListGroupsRequest(), lambda answer: answers.append(answer.error))
    coordinator.describe_group(pb.DescribeGroupRequest(group="g"), lambda answer: answers.append(answer.error))
    coordinator.delete_group(pb.DeleteGroupRequest(group="g"), lambda answer: answers.append(answer.error))
    assert [answer.code for answer in answers] == [pb.NOT_COORDINATOR] * 5


def test_a_node_that_leads_again_begins_anew() -> None:
    world = World()
    world.directory.create("orders", 6)
    stuck, other = members(world, 2)
    stuck.loop_runs = False
    world.apply_at_once = False
    world.pass_time(31, tick_seconds=0.5)
    assert world.pending, "its removal is on its way, and gets lost with the leadership"
    world.pending.clear()
    world.coordinator.on_leadership(False, world.now)
    world.apply_at_once = True
    world.coordinator.on_leadership(True, world.now)
    other.join()
    world.pass_time(29, tick_seconds=0.5)
    assert stuck.member_id in world.state.groups["billing"].members, "a full timeout is granted again"
    world.pass_time(3, tick_seconds=0.5)
    assert shares(other) == [6]


# -- a log that takes nothing for a while ------------------------------------------------------------------------------

BUSY = make_error(pb.THROTTLED, "too much is on its way to this log", retry_after_ms=100)


def test_a_commit_that_is_pushed_back_is_answered_and_ends_nothing(world: World) -> None:
    (member,) = members(world, 1)
    world.refusal = BUSY
    member.commit((min(member.working), 1))
    assert member.committed[-1].results[0].error.code == pb.THROTTLED
    assert member.session is not None


def test_a_release_that_is_pushed_back_is_made_up_for(world: World) -> None:
    (member,) = members(world, 1)
    other = FakeMember(world).join()
    member.releases = False
    world.pass_time(ROUND)
    world.refusal = BUSY
    member.release(*member.revoked)
    assert last_error(member).code == pb.THROTTLED
    member.join()
    assert last_error(member).code == pb.THROTTLED
    world.refusal = None
    member.join()
    assert shares(member, other) == [3, 3]


def test_a_target_and_a_removal_that_are_pushed_back_are_tried_again(world: World) -> None:
    stuck, other = members(world, 2)
    stuck.loop_runs = False
    world.refusal = BUSY
    world.pass_time(60, tick_seconds=0.5)
    world.refusal = None
    world.pass_time(ROUND)
    assert shares(other) == [6]


def test_a_leave_that_is_pushed_back_says_so_and_ends_with_the_timeout(world: World) -> None:
    leaver, other = members(world, 2)
    world.refusal = BUSY
    leaver.leave()
    assert last_error(leaver).code == pb.THROTTLED
    world.refusal = None
    world.pass_time(31, tick_seconds=0.5)
    assert shares(other) == [6]


# -- topics change ----------------------------------------------------------------------------------------------------


def test_a_topic_that_grows_is_shared_anew(world: World) -> None:
    first, second = members(world, 2)
    old = world.directory.topics["orders"]
    world.directory.topics["orders"] = type(old)(old.name, old.topic_id, 8)
    world.coordinator.on_catalogue_changed(world.now)
    world.pass_time(ROUND)
    assert shares(first, second) == [4, 4]


def test_a_deleted_topic_s_offsets_are_forgotten_and_a_new_one_of_its_name_starts_afresh(world: World) -> None:
    (member,) = members(world, 1)
    member.commit(*((partition, 7) for partition in member.working))
    deleted = world.directory.delete("orders")
    world.coordinator.on_catalogue_changed(world.now, deleted=[deleted])
    world.pass_time(ROUND)
    assert member.working == {}
    assert world.state.groups["billing"].offsets == {}
    world.directory.create("orders", 2)
    world.coordinator.on_catalogue_changed(world.now)
    world.pass_time(ROUND)
    assert sorted(member.working) == world.partitions("orders")
    assert [each.offset for each in member.assignments[-1].assigned] == [-1, -1]


def test_a_join_waits_a_moment_for_a_topic_that_was_just_created(world: World) -> None:
    early = FakeMember(world, ("fresh",)).join()
    world.pass_time(0.5)
    assert early.errors == []
    world.directory.create("fresh", 2)
    world.coordinator.on_catalogue_changed(world.now)
    world.pass_time(ROUND)
    assert shares(early) == [2]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_an_unknown_topic_is_named(world: World) -> None:
    member = FakeMember(world, ("orders", "ordres")).join()
    world.pass_time(2)
    error = last_error(member)
    assert error.code == pb.UNKNOWN_TOPIC
    assert "ordres" in error.message


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"group": "a/b"}, pb.INVALID_NAME, "'a/b'"),
        ({"mode": pb.QUEUE}, pb.UNSUPPORTED_VERSION, "QUEUE"),
        ({"mode": 17}, pb.UNSUPPORTED_VERSION, "17"),
        ({"session_timeout_ms": 999}, pb.INVALID_REQUEST, "0.999 s"),
        ({"session_timeout_ms": 1_800_001}, pb.INVALID_REQUEST, "session timeout"),
        ({"client_id": "c" * 250}, pb.INVALID_REQUEST, "250 characters"),
        ({"topics": ["t"] * 1000}, pb.INVALID_REQUEST, "1001 topics"),
        ({"member_id": "nobody"}, pb.UNKNOWN_MEMBER, "'nobody'"),
    ],
)
def test_a_join_that_cannot_be_is_refused_by_name(
    world: World, fields: dict[str, object], code: pb.ErrorCode.ValueType, named: str
) -> None:
    error = last_error(FakeMember(world).join(**fields))  # type: ignore[arg-type]
    assert error.code == code
    assert named in error.message
    assert world.log == []


def test_a_join_without_topics_is_refused(world: World) -> None:
    assert "without topics" in last_error(FakeMember(world, ()).join()).message


def test_a_group_has_a_limit_of_members() -> None:
    world = World(settings=GroupSettings(members_max=2))
    world.directory.create("orders", 6)
    members(world, 2)
    assert "has 2 members" in last_error(FakeMember(world).join()).message


def test_an_epoch_that_the_group_never_had_is_refused(world: World) -> None:
    (member,) = members(world, 1)
    member.break_stream()
    member.member_epoch += 5
    member.join()
    assert last_error(member).code == pb.STALE_MEMBER_EPOCH


def test_a_message_before_the_join_or_a_second_join_ends_the_session(world: World) -> None:
    hasty = FakeMember(world)
    hasty.open()
    hasty.commit((TopicPartition(b"x" * 16, 0), 1))
    assert "commit before its join" in last_error(hasty).message
    twice = FakeMember(world).join()
    twice.say(join=pb.GroupJoin(group="billing", topics=["orders"]))
    assert "twice" in last_error(twice).message


def test_a_message_of_a_later_version_ends_the_session(world: World) -> None:
    (member,) = members(world, 1)
    member.say()
    assert last_error(member).code == pb.UNSUPPORTED_VERSION


# -- commits ----------------------------------------------------------------------------------------------------------


def test_a_commit_is_answered_partition_by_partition_in_its_order(world: World) -> None:
    first, second = members(world, 2)
    mine, yours = min(first.working), min(second.working)
    unknown = TopicPartition(b"?" * 16, 0)
    beyond = TopicPartition(mine.topic_id, 99)
    first.commit((yours, 1), (mine, 2), (unknown, 3), (beyond, 4), (mine, -1))
    (answer,) = first.committed
    assert answer.commit_id == 5
    assert [row.error.code for row in answer.results] == [
        pb.PARTITION_NOT_OWNED,
        pb.OK,
        pb.UNKNOWN_TOPIC,
        pb.UNKNOWN_PARTITION,
        pb.INVALID_REQUEST,
    ]
    assert [row.offset for row in answer.results] == [1, 2, 3, 4, -1]
    stored = world.state.groups["billing"].offsets[mine]
    assert (stored.offset, stored.leader_epoch, stored.metadata, stored.committed_at_ms) == (
        2,
        2,
        "here",
        1_700_000_000_000,
    )


def test_a_commit_under_an_epoch_to_come_is_refused(world: World) -> None:
    (member,) = members(world, 1)
    member.commit((min(member.working), 1), epoch=member.member_epoch + 1)
    assert member.committed[-1].results[0].error.code == pb.STALE_MEMBER_EPOCH
    assert world.state.groups["billing"].offsets == {}


def test_a_commit_of_nothing_is_answered(world: World) -> None:
    (member,) = members(world, 1)
    member.commit()
    assert [len(answer.results) for answer in member.committed] == [0]


def test_limits_of_a_commit_are_named() -> None:
    world = World(settings=GroupSettings(commit_partitions_max=2, metadata_size_bytes_max=3))
    world.directory.create("orders", 6)
    (member,) = members(world, 1)
    partitions = sorted(member.working)
    member.commit((partitions[0], 1))
    assert "4 bytes" in member.committed[-1].results[0].error.message
    member.commit(*((partition, 1) for partition in partitions[:3]))
    assert "3 partitions" in last_error(member).message


def test_a_commit_that_the_log_loses_is_not_acknowledged() -> None:
    world = World()
    world.directory.create("orders", 6)
    (member,) = members(world, 1)
    world.apply_at_once = False
    member.commit((min(member.working), 8))
    world.elect(committed=0)
    assert member.committed == []
    assert last_error(member).code == pb.NOT_COORDINATOR
    assert world.state.groups["billing"].offsets == {}


# -- without a session ------------------------------------------------------------------------------------------------


def commit_request(world: World, offset: int, partition: int = 0) -> pb.CommitOffsetsRequest:
    request = pb.CommitOffsetsRequest(group="billing")
    request.offsets.add(partition=pb.TopicPartition(topic="orders", partition=partition), offset=offset)
    return request


def commit_without_membership(world: World, request: pb.CommitOffsetsRequest) -> pb.CommitOffsetsResponse:
    answers: list[pb.CommitOffsetsResponse] = []
    world.coordinator.commit_offsets(request, answers.append)
    (answer,) = answers
    return answer


def fetch(world: World, **request: object) -> pb.FetchOffsetsResponse:
    answers: list[pb.FetchOffsetsResponse] = []
    world.coordinator.fetch_offsets(pb.FetchOffsetsRequest(**request), answers.append)  # type: ignore[arg-type]
    (answer,) = answers
    return answer


def describe(world: World, group: str) -> pb.DescribeGroupResponse:
    answers: list[pb.DescribeGroupResponse] = []
    world.coordinator.describe_group(pb.DescribeGroupRequest(group=group), answers.append)
    (answer,) = answers
    return answer


def delete(world: World, group: str) -> pb.Error:
    answers: list[pb.DeleteGroupResponse] = []
    world.coordinator.delete_group(pb.DeleteGroupRequest(group=group), answers.append)
    (answer,) = answers
    return answer.error


def test_resetting_an_empty_group_decides_where_it_starts(world: World) -> None:
    assert not commit_without_membership(world, commit_request(world, 30)).HasField("error")
    (member,) = members(world, 1)
    assert member.working[world.partitions("orders")[0]] == 30
    refused = commit_without_membership(world, commit_request(world, 40))
    assert refused.error.code == pb.GROUP_NOT_EMPTY
    assert "1 member" in refused.error.message
    assert refused.results[0].error.code == pb.GROUP_NOT_EMPTY


def test_a_commit_without_membership_checks_what_it_names(world: World) -> None:
    answer = commit_without_membership(world, commit_request(world, 30, partition=6))
    assert answer.results[0].error.code == pb.UNKNOWN_PARTITION
    assert "no partition 6: it has 6" in answer.results[0].error.message
    invalid = commit_without_membership(world, pb.CommitOffsetsRequest(group="a b"))
    assert invalid.error.code == pb.INVALID_NAME
    assert world.state.groups == {}


def test_offsets_are_fetched_by_partition_or_all(world: World) -> None:
    commit_without_membership(world, commit_request(world, 30, partition=4))
    everything = fetch(world, group="billing").offsets
    assert [(row.partition.topic, row.partition.partition, row.offset) for row in everything] == [("orders", 4, 30)]
    wanted = [pb.TopicPartition(topic="orders", partition=number) for number in (3, 4)]
    some = fetch(world, group="billing", partitions=[*wanted, pb.TopicPartition(topic="ordres")]).offsets
    assert [(row.offset, row.error.code) for row in some] == [(-1, pb.OK), (30, pb.OK), (-1, pb.UNKNOWN_TOPIC)]
    assert [row.offset for row in fetch(world, group="nobody", partitions=wanted).offsets] == [-1, -1]


def test_groups_are_listed_and_described(world: World) -> None:
    (member,) = members(world, 1)
    member.commit((min(member.working), 3))
    commit = commit_request(world, 1)
    commit.group = "archive"
    commit_without_membership(world, commit)
    listed: list[pb.ListGroupsResponse] = []
    world.coordinator.list_groups(pb.ListGroupsRequest(), listed.append)
    assert [(row.group, row.state, row.members) for row in listed[0].groups] == [
        ("archive", "empty", 0),
        ("billing", "stable", 1),
    ]
    description = describe(world, "billing")
    assert description.state == "stable"
    assert [(row.member_id, len(row.owned), list(row.topics)) for row in description.members] == [
        (member.member_id, 6, ["orders"])
    ]
    assert [row.offset for row in description.offsets] == [3]
    unknown = describe(world, "nobody").error
    assert unknown.code == pb.UNKNOWN_GROUP
    assert "'nobody'" in unknown.message


def test_a_group_is_deleted_once_it_is_empty(world: World) -> None:
    (member,) = members(world, 1)
    assert delete(world, "billing").code == pb.GROUP_NOT_EMPTY
    member.leave()
    assert delete(world, "billing").code == pb.OK
    assert delete(world, "billing").code == pb.UNKNOWN_GROUP
    (again,) = members(world, 1)
    assert shares(again) == [6]
