"""Nodes that come and go, and wishes that change: what the log refuses whatever the leader believed."""

import pytest

from quorumlog.node.metadata import decisions
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.topics import GROUPS_TOPIC, HostedGroup, Partition, PlacedReplica
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from tests.node.metadata.founded import Cluster, bad, descriptor, good, incarnation, settled

ANEW = b"\xee" * 16
"""The incarnation of a node that has lost its folder."""


def partition(cluster: Cluster, topic: str = "orders", number: int = 0) -> Partition:
    return cluster.catalogue.topics[topic].partitions[number]


def settle(cluster: Cluster, *topics: str) -> None:
    """Have the leaders of all groups of these topics report."""
    for name in topics:
        for one in cluster.catalogue.topics[name].partitions:
            cluster.report(one)


def placed(cluster: Cluster, replicas: list[int], *, settled: bool = True) -> Partition:
    """A topic `orders` of one partition on these nodes."""
    command = internal_pb2.CreateTopic(
        name="orders",
        topic_id=bytes(range(16)),
        placements=[internal_pb2.Placement(replicas=replicas)],
        catalogue_version=cluster.catalogue.catalogue_version,
    )
    good(cluster.apply(create_topic=command))
    if settled:
        settle(cluster, "orders")
    return partition(cluster)


def refused(cluster: Cluster, **command: object) -> pb.Error:
    """The error of a command that must leave no trace."""
    before = cluster.catalogue.digest()
    error = bad(cluster.apply(**command))
    assert cluster.catalogue.digest() == before
    return error


def removal(node_id: int) -> internal_pb2.RemoveNode:
    return internal_pb2.RemoveNode(node_id=node_id, incarnation=incarnation(node_id))


class TestAdmission:
    def test_a_new_node_becomes_a_member_that_holds_nothing(self) -> None:
        cluster = Cluster(nodes=3)
        version = cluster.catalogue.catalogue_version
        change = good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(4))))
        assert change.node == cluster.catalogue.nodes[4]
        assert change.node.admitted_at_index == len(cluster.payloads)
        assert cluster.catalogue.assignments_for(4, incarnation(4)) == []
        assert cluster.catalogue.voters == (1, 2, 3)
        assert cluster.catalogue.catalogue_version == version + 1

    def test_admitting_the_same_incarnation_again_changes_nothing(self) -> None:
        cluster = Cluster(nodes=3)
        good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(4))))
        before = cluster.catalogue.digest()
        change = good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(4))))
        assert change.node == cluster.catalogue.nodes[4]
        assert cluster.catalogue.digest() == before

    def test_the_entry_that_admitted_a_node_is_remembered_when_it_registers_elsewhere(self) -> None:
        cluster = Cluster(nodes=3)
        good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(4))))
        admitted_at = len(cluster.payloads)
        moved = descriptor(4)
        moved.peer_address = "10.9.9.9:7071"
        good(cluster.apply(register_node=internal_pb2.RegisterNode(node=moved)))
        assert cluster.catalogue.nodes[4].peer_address == "10.9.9.9:7071"
        assert cluster.catalogue.nodes[4].admitted_at_index == admitted_at
        assert decisions.register_node(cluster.catalogue, moved) is None

    def test_a_new_incarnation_takes_the_replicas_of_the_earlier_one_off_the_wish(self) -> None:
        cluster = Cluster(nodes=4)
        before = placed(cluster, [3, 1, 2])
        change = good(cluster.wipe(3, ANEW))
        after = partition(cluster)
        assert after.replicas == (1, 2)
        assert after.leaving == before.placed[:1]
        assert (after.placement_version, after.settled, after.replicas_wanted) == (1, False, 3)
        assert after.placed == before.placed[1:], "who stays keeps the entry that placed it"
        group = cluster.catalogue.group(after.group_id)
        assert group in change.moved
        assert not change.born

    def test_neither_incarnation_is_asked_to_hold_what_the_earlier_one_held(self) -> None:
        cluster = Cluster(nodes=3)
        placed(cluster, [3, 1, 2])
        settle(cluster, GROUPS_TOPIC)
        good(cluster.wipe(3, ANEW))
        assert cluster.catalogue.assignments_for(3, ANEW) == []
        assert cluster.catalogue.assignments_for(3, incarnation(3)) == []

    def test_the_only_replica_of_a_partition_stays_where_it_was(self) -> None:
        cluster = Cluster(nodes=3)
        before = placed(cluster, [3])
        good(cluster.wipe(3, ANEW))
        assert partition(cluster) == before
        assert cluster.catalogue.assignments_for(3, ANEW) == [], "the new incarnation has nothing of it"

    def test_a_group_that_has_not_committed_yet_keeps_the_replicas_it_was_created_with(self) -> None:
        cluster = Cluster(nodes=3)
        before = placed(cluster, [1, 2, 3], settled=False)
        good(cluster.wipe(3, ANEW))
        assert partition(cluster) == before

    def test_the_earlier_incarnation_votes_in_the_metadata_group_no_more(self) -> None:
        cluster = Cluster(nodes=3)
        change = good(cluster.wipe(3, ANEW))
        assert change.voters_changed
        assert cluster.catalogue.voters == (1, 2)
        assert cluster.catalogue.voters_version == 1

    def test_the_only_voter_of_the_metadata_group_stays(self) -> None:
        cluster = Cluster(nodes=1)
        change = good(cluster.wipe(1, ANEW))
        assert not change.voters_changed
        assert cluster.catalogue.voters == (1,)

    @pytest.mark.parametrize("replaced", [b"", b"\xcc" * 16], ids=["none", "another"])
    def test_who_replaces_an_incarnation_must_name_the_present_one(self, replaced: bytes) -> None:
        cluster = Cluster(nodes=3)
        wiped = descriptor(3)
        wiped.incarnation = ANEW
        command = internal_pb2.AdmitNode(node=wiped, replaced_incarnation=replaced)
        error = refused(cluster, admit_node=command)
        assert incarnation(3).hex() in error.message
        assert ANEW.hex() in error.message

    def test_of_two_that_would_replace_the_same_incarnation_one_is_refused(self) -> None:
        cluster = Cluster(nodes=3)
        good(cluster.wipe(3, ANEW))
        other = descriptor(3)
        other.incarnation = b"\xdd" * 16
        error = refused(cluster, admit_node=internal_pb2.AdmitNode(node=other, replaced_incarnation=incarnation(3)))
        assert ANEW.hex() in error.message

    def test_a_node_without_id_or_incarnation_is_refused(self) -> None:
        nameless = descriptor(4)
        nameless.incarnation = b"short"
        refused(Cluster(nodes=3), admit_node=internal_pb2.AdmitNode(node=nameless))
        refused(Cluster(nodes=3), admit_node=internal_pb2.AdmitNode(node=descriptor(0)))


class TestWishes:
    def test_a_new_wish_bears_replicas_where_none_were_and_keeps_the_others(self) -> None:
        cluster = Cluster(nodes=4)
        before = placed(cluster, [1, 2, 3])
        change = good(cluster.move(before, [4, 2, 1]))
        after = partition(cluster)
        index = len(cluster.payloads)
        assert after.placed == (PlacedReplica(4, incarnation(4), index), before.placed[1], before.placed[0])
        assert after.leaving == (before.placed[2],)
        assert (after.placement_version, after.settled, after.replicas_wanted) == (1, False, 3)
        [group] = change.born
        assert group == cluster.catalogue.group(after.group_id)
        assert change.moved == change.born
        assert not group.votes_from_birth

    def test_a_wish_for_another_preferred_leader_bears_nothing(self) -> None:
        cluster = Cluster(nodes=3)
        before = placed(cluster, [1, 2, 3])
        change = good(cluster.move(before, [3, 2, 1]))
        assert partition(cluster).replicas == (3, 2, 1)
        assert partition(cluster).leaving == ()
        assert not change.born

    def test_who_leaves_keeps_its_replica_until_the_group_has_settled(self) -> None:
        cluster = Cluster(nodes=4)
        placed(cluster, [1, 2, 3])
        good(cluster.move(partition(cluster), [1, 2, 4]))
        assert held(cluster, 3)
        change = cluster.report(partition(cluster))
        assert partition(cluster).settled
        assert partition(cluster).leaving == ()
        [group] = change.moved
        assert not group.may_hold(3, incarnation(3))
        assert all(group.may_hold(node_id, incarnation(node_id)) for node_id in (1, 2, 4))

    def test_who_comes_back_before_it_has_left_keeps_the_entry_that_placed_it(self) -> None:
        cluster = Cluster(nodes=4)
        before = placed(cluster, [1, 2, 3])
        good(cluster.move(before, [1, 2, 4]))
        change = good(cluster.move(partition(cluster), [1, 2, 3]))
        assert partition(cluster).placed == before.placed
        assert [one.node_id for one in partition(cluster).leaving] == [4]
        assert not change.born

    def test_who_comes_back_after_it_has_left_is_born_anew(self) -> None:
        cluster = Cluster(nodes=4)
        before = placed(cluster, [1, 2, 3])
        good(cluster.move(before, [1, 2, 4]))
        cluster.report(partition(cluster))
        change = good(cluster.move(partition(cluster), [1, 2, 3]))
        assert partition(cluster).placed[2] == PlacedReplica(3, incarnation(3), len(cluster.payloads))
        assert len(change.born) == 1

    def test_a_report_of_an_earlier_wish_settles_nothing(self) -> None:
        cluster = Cluster(nodes=4)
        before = placed(cluster, [1, 2, 3])
        good(cluster.move(before, [1, 2, 4]))
        assert good(cluster.apply(report_placement=settled(before.group_id, 0))).moved == ()
        assert not partition(cluster).settled

    def test_a_group_stays_where_it_was_created_until_it_has_committed(self) -> None:
        cluster = Cluster(nodes=4)
        before = placed(cluster, [1, 2, 3], settled=False)
        error = refused(cluster, change_placement=wish(before, [1, 2, 4]))
        assert "committed" in error.message

    def test_a_decision_on_an_earlier_wish_may_be_made_again(self) -> None:
        cluster = Cluster(nodes=5)
        before = placed(cluster, [1, 2, 3])
        good(cluster.move(before, [1, 2, 4]))
        error = refused(cluster, change_placement=wish(before, [1, 2, 5]))
        assert (error.code, error.retriable) == (pb.NOT_YET_AVAILABLE, True)

    def test_of_several_wishes_all_are_taken_or_none(self) -> None:
        cluster = Cluster(nodes=4)
        cluster.create("orders", partitions=2, replicas=1)
        settle(cluster, "orders")
        first, second = cluster.catalogue.topics["orders"].partitions
        both = internal_pb2.ChangePlacement(groups=[wish(first, [4]).groups[0], wish(second, [9]).groups[0]])
        assert "[9]" in refused(cluster, change_placement=both).message
        both.groups[1].replicas[:] = [3]
        change = good(cluster.apply(change_placement=both))
        assert [group.replicas for group in change.moved] == [(4,), (3,)]

    @pytest.mark.parametrize("replicas", [[], [1, 1], [1, 9]], ids=["nowhere", "twice", "unknown node"])
    def test_a_wish_that_cannot_be_is_refused(self, replicas: list[int]) -> None:
        cluster = Cluster(nodes=3)
        refused(cluster, change_placement=wish(placed(cluster, [1, 2, 3]), replicas))

    def test_a_group_that_is_gone_or_named_twice_or_none_at_all_is_refused(self) -> None:
        cluster = Cluster(nodes=3)
        before = placed(cluster, [1, 2, 3])
        twice = internal_pb2.ChangePlacement(groups=[*wish(before, [1, 2]).groups, *wish(before, [1, 3]).groups])
        assert "twice" in refused(cluster, change_placement=twice).message
        refused(cluster, change_placement=internal_pb2.ChangePlacement())
        cluster.delete("orders")
        assert refused(cluster, change_placement=wish(before, [1, 2])).retriable

    def test_how_many_replicas_are_wanted_is_kept_or_set(self) -> None:
        cluster = Cluster(nodes=4)
        good(cluster.move(placed(cluster, [1, 2, 3]), [1, 2]))
        assert partition(cluster).replicas_wanted == 3
        command = wish(partition(cluster), [1, 2])
        command.groups[0].replicas_wanted = 2
        good(cluster.apply(change_placement=command))
        assert partition(cluster).replicas_wanted == 2

    def test_a_wiped_node_is_placed_again_only_once_the_group_has_settled_without_it(
        self,
    ) -> None:
        cluster = Cluster(nodes=3)
        placed(cluster, [1, 2, 3])
        good(cluster.wipe(3, ANEW))
        error = refused(cluster, change_placement=wish(partition(cluster), [1, 2, 3]))
        assert incarnation(3).hex() in error.message
        cluster.report(partition(cluster))
        good(cluster.move(partition(cluster), [1, 2, 3]))
        assert partition(cluster).placed[2] == PlacedReplica(3, ANEW, len(cluster.payloads))

    def test_the_replica_of_an_earlier_incarnation_cannot_become_one_of_the_present(self) -> None:
        cluster = Cluster(nodes=3)
        before = placed(cluster, [1, 2, 3], settled=False)
        good(cluster.wipe(3, ANEW))
        cluster.report(before)
        refused(cluster, change_placement=wish(partition(cluster), [2, 1, 3]))
        good(cluster.move(partition(cluster), [1, 2]))
        assert partition(cluster).leaving == before.placed[2:]


class TestRemoval:
    def test_a_node_that_holds_nothing_and_does_not_vote_may_go(self) -> None:
        cluster = Cluster(nodes=4)
        good(cluster.apply(drain_node=drain(4)))
        empty(cluster, 4)
        change = good(cluster.apply(remove_node=removal(4)))
        assert change.node is not None
        assert change.node.node_id == 4
        assert sorted(cluster.catalogue.nodes) == [1, 2, 3]
        assert cluster.catalogue.draining == set()
        assert "not a member" in refused(cluster, remove_node=removal(4)).message

    def test_a_node_with_replicas_stays_until_their_groups_have_settled_without_it(self) -> None:
        cluster = Cluster(nodes=4)
        empty(cluster, 4)
        placed(cluster, [1, 4])
        assert "replicas on it: 1" in refused(cluster, remove_node=removal(4)).message
        good(cluster.move(partition(cluster), [1, 2]))
        refused(cluster, remove_node=removal(4))
        cluster.report(partition(cluster))
        good(cluster.apply(remove_node=removal(4)))

    def test_a_voter_of_the_metadata_group_stays_until_others_vote(self) -> None:
        cluster = Cluster(nodes=3)
        for node_id in (3, 2):
            empty(cluster, node_id)
        assert "votes" in refused(cluster, remove_node=removal(3)).message
        good(cluster.apply(change_voters=internal_pb2.ChangeVoters(voters=[1])))
        good(cluster.apply(remove_node=removal(3)))

    def test_an_incarnation_that_is_no_more_cannot_be_removed(self) -> None:
        cluster = Cluster(nodes=3)
        refused(cluster, remove_node=internal_pb2.RemoveNode(node_id=3, incarnation=ANEW))


class TestDraining:
    def test_a_drain_begins_and_ends(self) -> None:
        cluster = Cluster(nodes=3)
        version = cluster.catalogue.catalogue_version
        good(cluster.apply(drain_node=drain(2)))
        good(cluster.apply(drain_node=drain(2)))
        assert cluster.catalogue.draining == {2}
        assert cluster.catalogue.catalogue_version == version + 1, "a decision that has not heard of it is refused"
        good(cluster.apply(drain_node=drain(2, draining=False)))
        assert cluster.catalogue.draining == set()

    def test_it_goes_on_when_the_node_comes_back_as_another_incarnation(self) -> None:
        cluster = Cluster(nodes=3)
        good(cluster.apply(drain_node=drain(2)))
        good(cluster.wipe(2, ANEW))
        assert cluster.catalogue.draining == {2}

    def test_a_stranger_cannot_be_drained(self) -> None:
        refused(Cluster(nodes=3), drain_node=drain(4))


class TestVoters:
    def test_they_begin_as_the_founding_names_them(self) -> None:
        cluster = Cluster(nodes=4)
        assert cluster.catalogue.founding is not None
        assert list(cluster.catalogue.voters) == list(cluster.catalogue.founding.voters)
        assert len(cluster.catalogue.voters) == 3

    def test_others_may_vote(self) -> None:
        cluster = Cluster(nodes=5)
        change = good(cluster.apply(change_voters=internal_pb2.ChangeVoters(voters=[5, 1, 3])))
        assert change.voters_changed
        assert cluster.catalogue.voters == (1, 3, 5)
        error = refused(cluster, change_voters=internal_pb2.ChangeVoters(voters=[1]))
        assert error.retriable, "decided on version 0, which is gone"

    @pytest.mark.parametrize("voters", [[], [1, 1], [9]], ids=["nobody", "twice", "unknown"])
    def test_voters_that_cannot_be_are_refused(self, voters: list[int]) -> None:
        refused(Cluster(nodes=3), change_voters=internal_pb2.ChangeVoters(voters=voters))

    def test_a_snapshot_from_before_they_could_change_means_those_of_the_founding(self) -> None:
        cluster = Cluster(nodes=3)
        old = internal_pb2.ClusterSnapshot.FromString(cluster.catalogue.snapshot())
        del old.voters[:]
        restored = Catalogue()
        restored.restore(old.SerializeToString())
        assert restored.voters == (1, 2, 3)


def test_replay_and_snapshot_are_one_with_members_and_wishes_in_them() -> None:
    cluster = Cluster(nodes=4)
    placed(cluster, [1, 2, 3])
    settle(cluster, GROUPS_TOPIC)
    good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(5))))
    good(cluster.apply(drain_node=drain(2)))
    good(cluster.wipe(3, ANEW))
    good(cluster.move(partition(cluster), [1, 5]))
    replayed, restored = Catalogue(), Catalogue()
    for index, payload in enumerate(cluster.payloads, start=1):
        replayed.apply(index, replayed.decode(payload))
    restored.restore(cluster.catalogue.snapshot())
    assert replayed.snapshot() == restored.snapshot() == cluster.catalogue.snapshot()
    assert restored.draining == {2}
    assert restored.voters == cluster.catalogue.voters
    assert restored.voters_version == cluster.catalogue.voters_version
    register = decisions.register_node(restored, descriptor(5))
    assert register is None


def held(cluster: Cluster, node_id: int) -> list[HostedGroup]:
    """Groups of `orders` that may have a replica on the node."""
    return [
        group
        for one in cluster.catalogue.topics["orders"].partitions
        if (group := cluster.catalogue.group(one.group_id)) is not None
        and group.may_hold(node_id, cluster.catalogue.nodes[node_id].incarnation)
    ]


def wish(partition: Partition, replicas: list[int]) -> internal_pb2.ChangePlacement:
    return internal_pb2.ChangePlacement(
        groups=[
            internal_pb2.GroupPlacement(
                group_id=partition.group_id, replicas=replicas, placement_version=partition.placement_version
            )
        ]
    )


def drain(node_id: int, *, draining: bool = True) -> internal_pb2.DrainNode:
    return internal_pb2.DrainNode(node_id=node_id, incarnation=incarnation(node_id), draining=draining)


def empty(cluster: Cluster, node_id: int) -> None:
    """Take everything off a node, its vote where others have one as well."""
    settle(cluster, GROUPS_TOPIC)
    for one in cluster.catalogue.topics[GROUPS_TOPIC].partitions:
        if node_id in one.replicas:
            good(cluster.move(one, [other for other in one.replicas if other != node_id]))
    settle(cluster, GROUPS_TOPIC)
    voters = [voter for voter in cluster.catalogue.voters if voter != node_id]
    if len(cluster.catalogue.nodes) > 3 and len(voters) < len(cluster.catalogue.voters):
        spare = next(one for one in cluster.catalogue.nodes if one not in (*voters, node_id))
        change = internal_pb2.ChangeVoters(voters=[*voters, spare], voters_version=cluster.catalogue.voters_version)
        good(cluster.apply(change_voters=change))
