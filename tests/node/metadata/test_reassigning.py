"""What the leader of `__cluster` decides about replicas that exist, and what it refuses with the reason and the fix."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.metadata import reassigning
from quorumlog.node.metadata.reassigning import Plan
from quorumlog.node.metadata.topics import GROUPS_TOPIC
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from tests.node.metadata.founded import Cluster, bad, descriptor, good, incarnation

ANEW = b"\xee" * 16


def cluster_of(nodes: int, *topics: tuple[str, int, int]) -> Cluster:
    """A cluster with topics (name, partitions, replicas) that have all settled."""
    cluster = Cluster(nodes=nodes)
    for name, partitions, replicas in topics:
        cluster.create(name, partitions=partitions, replicas=replicas)
    settle(cluster)
    return cluster


def settle(cluster: Cluster) -> None:
    for topic in list(cluster.catalogue.topics.values()):
        for partition in topic.partitions:
            if not partition.settled:
                cluster.report(partition)


def join(cluster: Cluster, node_id: int) -> None:
    good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(node_id))))


def carry_out(cluster: Cluster, plan: Plan) -> None:
    """Have the groups of a plan moved."""
    good(cluster.apply(change_placement=plan.command.change_placement))
    settle(cluster)


def draining(cluster: Cluster, node_id: int) -> None:
    """Have nothing placed on a node any more, whether there is room elsewhere or not."""
    command = internal_pb2.DrainNode(node_id=node_id, incarnation=incarnation(node_id), draining=True)
    good(cluster.apply(drain_node=command))


def heal(cluster: Cluster, *unfit: int) -> None:
    """Let the leader work until it has nothing to do any more."""
    for _ in range(4):
        plan = reassigning.heal(cluster.catalogue, unfit)
        if not plan.groups:
            return
        carry_out(cluster, plan)
    raise AssertionError("it does not come to an end")


def loads(cluster: Cluster) -> Counter[int]:
    return Counter(
        node_id
        for topic in cluster.catalogue.topics.values()
        for partition in topic.partitions
        for node_id in partition.replicas
    )


def named(topic: str, partition: int, *replicas: int) -> pb.PartitionPlacement:
    return pb.PartitionPlacement(topic=topic, partition=partition, replicas=replicas)


class TestReassigning:
    def test_replicas_go_where_they_are_named(self) -> None:
        cluster = cluster_of(4, ("orders", 2, 2))
        before = cluster.catalogue.topics["orders"].partitions[1].replicas
        wanted = [node_id for node_id in (1, 2, 3, 4) if node_id not in before]
        plan = good(reassigning.reassign(cluster.catalogue, [named("orders", 1, *wanted)]))
        assert plan.changes == [pb.PlacementChange(topic="orders", partition=1, before=before, after=wanted)]
        carry_out(cluster, plan)
        assert cluster.catalogue.topics["orders"].partitions[1].replicas == tuple(wanted)

    def test_the_number_named_is_wanted_from_then_on(self) -> None:
        cluster = cluster_of(4, ("orders", 1, 3))
        carry_out(cluster, good(reassigning.reassign(cluster.catalogue, [named("orders", 0, 4)])))
        assert cluster.catalogue.topics["orders"].partitions[0].replicas_wanted == 1
        assert reassigning.heal(cluster.catalogue).groups == []

    def test_fewer_are_wanted_where_the_rest_is_named(self) -> None:
        cluster = cluster_of(3, ("orders", 1, 3))
        good(cluster.wipe(3, ANEW))
        settle(cluster)
        left = cluster.catalogue.topics["orders"].partitions[0].replicas
        carry_out(cluster, good(reassigning.reassign(cluster.catalogue, [named("orders", 0, *left)])))
        assert cluster.catalogue.topics["orders"].partitions[0].replicas_wanted == 2

    def test_what_is_so_already_changes_nothing(self) -> None:
        cluster = cluster_of(3, ("orders", 1, 3))
        replicas = cluster.catalogue.topics["orders"].partitions[0].replicas
        assert good(reassigning.reassign(cluster.catalogue, [named("orders", 0, *replicas)])) == Plan()

    @pytest.mark.parametrize(
        ("placement", "code", "said", "hint"),
        [
            (named("ordres", 0, 1), pb.UNKNOWN_TOPIC, "'ordres'", ""),
            (named("orders", 7, 1), pb.UNKNOWN_PARTITION, "0 to 0", ""),
            (named("orders", 0, 9), pb.INVALID_REQUEST, "node 9", "1, 2, 3"),
            (named("orders", 0, 1, 1), pb.INVALID_REQUEST, "[1, 1]", "once"),
            (named("orders", 0), pb.INVALID_REQUEST, "[]", "one node"),
            (named("__cluster", 0, 1), pb.INVALID_REQUEST, "every node", "drain"),
        ],
    )
    def test_what_cannot_be_is_named(self, placement: pb.PartitionPlacement, code: int, said: str, hint: str) -> None:
        cluster = cluster_of(3, ("orders", 1, 1))
        error = bad(reassigning.reassign(cluster.catalogue, [placement]))
        assert error.code == code
        assert said in error.message
        assert hint in error.hint

    def test_a_partition_is_named_once(self) -> None:
        cluster = cluster_of(3, ("orders", 1, 1))
        twice = [named("orders", 0, 1), named("orders", 0, 2)]
        assert "twice" in bad(reassigning.reassign(cluster.catalogue, twice)).message

    def test_too_many_replicas_name_the_limit(self) -> None:
        cluster = cluster_of(9, ("orders", 1, 1))
        error = bad(reassigning.reassign(cluster.catalogue, [named("orders", 0, *range(1, 9))]))
        assert error.code == pb.INVALID_REPLICATION

    def test_nodes_that_are_drained_or_down_take_nothing_new_and_keep_what_they_have(self) -> None:
        cluster = cluster_of(4, ("orders", 1, 2))
        first, second = cluster.catalogue.topics["orders"].partitions[0].replicas
        other, third = sorted({1, 2, 3, 4} - {first, second})
        draining(cluster, third)
        drained = bad(reassigning.reassign(cluster.catalogue, [named("orders", 0, first, third)]))
        assert f"drain {third} --end" in drained.hint
        down = bad(reassigning.reassign(cluster.catalogue, [named("orders", 0, first, other)], unfit=[other]))
        assert "down" in down.message
        good(reassigning.reassign(cluster.catalogue, [named("orders", 0, second, first)], unfit=[first, second]))

    def test_a_partition_that_cannot_move_yet_says_why_and_may_be_tried_again(self) -> None:
        cluster = Cluster(nodes=3)
        cluster.create("orders", replicas=1)
        here = cluster.catalogue.topics["orders"].partitions[0].replicas[0]
        error = bad(reassigning.reassign(cluster.catalogue, [named("orders", 0, here % 3 + 1)]))
        assert error.code == pb.NOT_YET_AVAILABLE
        assert "not yet committed" in error.message


class TestBalance:
    @given(st.integers(2, 5), st.integers(1, 12), st.integers(1, 3), st.integers(1, 2))
    def test_new_nodes_take_their_share_with_as_few_moves_as_there_can_be(
        self, nodes: int, partitions: int, replicas: int, joining: int
    ) -> None:
        cluster = cluster_of(nodes, ("orders", partitions, min(replicas, nodes)))
        for node_id in range(nodes + 1, nodes + 1 + joining):
            join(cluster, node_id)
        total, before = sum(loads(cluster).values()), loads(cluster)
        plan = reassigning.balance(cluster.catalogue)
        carry_out(cluster, plan)
        after = [loads(cluster)[node_id] for node_id in cluster.catalogue.nodes]
        assert sum(after) == total
        assert max(after) - min(after) <= 1
        moved = sum(len(set(change.after) - set(change.before)) for change in plan.changes)
        floor, rest = divmod(total, nodes + joining)
        assert moved == max(
            sum(max(0, before[node_id] - floor - (rest > 0)) for node_id in cluster.catalogue.nodes),
            sum(max(0, floor - before[node_id]) for node_id in cluster.catalogue.nodes),
        )
        assert reassigning.balance(cluster.catalogue) == Plan()

    def test_what_moves_already_is_left_alone(self) -> None:
        cluster = cluster_of(3, ("orders", 6, 1))
        join(cluster, 4)
        first = reassigning.balance(cluster.catalogue)
        good(cluster.apply(change_placement=first.command.change_placement))
        again = reassigning.balance(cluster.catalogue)
        moving = {(change.topic, change.partition) for change in first.changes}
        assert not moving & {(change.topic, change.partition) for change in again.changes}

    def test_nodes_that_are_drained_or_down_neither_give_nor_take(self) -> None:
        cluster = cluster_of(3, ("orders", 6, 1))
        join(cluster, 4)
        join(cluster, 5)
        before = loads(cluster)
        carry_out(cluster, reassigning.balance(cluster.catalogue, unfit=[1, 5]))
        assert loads(cluster)[5] == 0
        assert loads(cluster)[1] == before[1]


class TestDraining:
    @given(st.integers(3, 6), st.integers(1, 10), st.integers(1, 3), st.data())
    def test_a_drained_node_ends_with_nothing_and_only_what_was_on_it_has_moved(
        self, nodes: int, partitions: int, replicas: int, data: st.DataObject
    ) -> None:
        cluster = cluster_of(nodes, ("orders", partitions, min(replicas, nodes - 1)))
        node_id = data.draw(st.integers(1, nodes))
        before = {one.group_id: one.replicas for one in cluster.catalogue.topics["orders"].partitions}
        command, plan = good(reassigning.drain(cluster.catalogue, node_id))
        good(cluster.apply(drain_node=command))
        moving = [(topic.name, one.partition) for topic, one, _ in reassigning.moving(cluster.catalogue)]
        assert moving == [(change.topic, change.partition) for change in plan.changes]
        assert reassigning.heal(cluster.catalogue) == plan, "what was announced is what is done"
        heal(cluster)
        assert loads(cluster)[node_id] == 0
        assert cluster.catalogue.held_by(node_id) == []
        for one in cluster.catalogue.topics["orders"].partitions:
            old = before[one.group_id]
            assert len(one.replicas) == len(old)
            assert len(set(one.replicas) - set(old)) == (node_id in old)

    def test_internal_topics_shrink_with_the_cluster_and_grow_with_it(self) -> None:
        cluster = cluster_of(3)
        command, _ = good(reassigning.drain(cluster.catalogue, 3))
        good(cluster.apply(drain_node=command))
        heal(cluster)
        partitions = cluster.catalogue.topics[GROUPS_TOPIC].partitions
        assert all(sorted(one.replicas) == [1, 2] for one in partitions)
        end, nothing = good(reassigning.drain(cluster.catalogue, 3, end=True))
        assert nothing == Plan()
        good(cluster.apply(drain_node=end))
        heal(cluster)
        partitions = cluster.catalogue.topics[GROUPS_TOPIC].partitions
        assert all(sorted(one.replicas) == [1, 2, 3] for one in partitions)

    def test_it_is_refused_where_a_partition_has_no_room_elsewhere(self) -> None:
        cluster = cluster_of(3, ("orders", 1, 3))
        error = bad(reassigning.drain(cluster.catalogue, 2))
        assert "partition 0 of topic 'orders'" in error.message
        assert "cluster add" in error.hint
        assert "reassign orders 0 --to" in error.hint
        assert "2" not in error.hint.split("--to ")[1]

    def test_nodes_that_are_down_have_no_room(self) -> None:
        cluster = cluster_of(4, ("orders", 1, 3))
        [spare] = {1, 2, 3, 4} - set(cluster.catalogue.topics["orders"].partitions[0].replicas)
        full = next(one for one in cluster.catalogue.topics["orders"].partitions[0].replicas)
        error = bad(reassigning.drain(cluster.catalogue, full, unfit=[spare]))
        assert f"nodes {spare} are down" in error.message

    def test_the_last_node_is_not_drained(self) -> None:
        assert "no node would be left" in bad(reassigning.drain(cluster_of(1).catalogue, 1)).message

    def test_a_stranger_is_not_drained(self) -> None:
        assert "1, 2, 3" in bad(reassigning.drain(cluster_of(3).catalogue, 7)).hint

    def test_a_move_to_a_node_that_is_drained_meanwhile_goes_elsewhere(self) -> None:
        cluster = cluster_of(5, ("orders", 1, 3))
        partition = cluster.catalogue.topics["orders"].partitions[0]
        first, second, third = partition.replicas
        spare, other = sorted({1, 2, 3, 4, 5} - {first, second, third})
        good(cluster.move(partition, [first, second, spare]))
        command, _ = good(reassigning.drain(cluster.catalogue, spare))
        good(cluster.apply(drain_node=command))
        plan = reassigning.heal(cluster.catalogue)
        [change] = [change for change in plan.changes if change.topic == "orders"]
        assert {first, second} < set(change.after) <= {first, second, third, other}
        assert len(change.after) == 3


class TestHealing:
    def test_what_a_wiped_node_held_comes_back_to_it_in_two_steps(self) -> None:
        cluster = cluster_of(3, ("orders", 4, 3))
        good(cluster.wipe(3, ANEW))
        assert reassigning.heal(cluster.catalogue) == Plan(), "the groups have to settle without it first"
        settle(cluster)
        heal(cluster)
        for topic in cluster.catalogue.topics.values():
            for partition in topic.partitions:
                assert sorted(partition.replicas) == [1, 2, 3]
                assert {one.incarnation for one in partition.placed} == {incarnation(1), incarnation(2), ANEW}
        assert list(reassigning.moving(cluster.catalogue)) == []

    def test_a_wiped_node_that_is_not_fit_yet_gets_nothing(self) -> None:
        cluster = cluster_of(3, ("orders", 1, 3))
        good(cluster.wipe(3, ANEW))
        settle(cluster)
        assert reassigning.heal(cluster.catalogue, unfit=[3]) == Plan()
        assert ("orders", 0) in [(topic.name, one.partition) for topic, one, _ in reassigning.moving(cluster.catalogue)]

    def test_a_group_that_had_not_committed_when_its_node_was_wiped_heals_as_well(self) -> None:
        cluster = Cluster(nodes=3)
        cluster.create("orders", replicas=3)
        good(cluster.wipe(3, ANEW))
        settle(cluster)
        heal(cluster)
        partition = cluster.catalogue.topics["orders"].partitions[0]
        assert {one.node_id: one.incarnation for one in partition.placed}[3] == ANEW

    def test_the_only_replica_of_a_wiped_node_waits_for_somebody_to_recover_it(self) -> None:
        cluster = cluster_of(3, ("orders", 3, 1))
        lost = next(one for one in cluster.catalogue.topics["orders"].partitions if one.replicas == (3,))
        good(cluster.wipe(3, ANEW))
        settle(cluster)
        heal(cluster)
        assert [one for _, one, _ in reassigning.moving(cluster.catalogue)] == [lost]

    def test_replicas_on_a_node_that_is_merely_down_stay(self) -> None:
        cluster = cluster_of(4, ("orders", 6, 3))
        assert reassigning.heal(cluster.catalogue, unfit=[2]) == Plan()

    def test_no_more_groups_than_asked_for_begin_at_once(self) -> None:
        cluster = cluster_of(4, ("orders", 9, 2))
        command, whole = good(reassigning.drain(cluster.catalogue, 1))
        good(cluster.apply(drain_node=command))
        part = reassigning.heal(cluster.catalogue, groups_max=3)
        assert part.changes == whole.changes[:3]


class TestAdmission:
    def test_a_new_node_is_admitted_and_one_that_is_in_already_needs_nothing(self) -> None:
        cluster = cluster_of(3)
        assert good(reassigning.admit(cluster.catalogue, descriptor(4), alive=False)) == internal_pb2.AdmitNode(
            node=descriptor(4)
        )
        assert reassigning.admit(cluster.catalogue, descriptor(3), alive=True) is None

    def test_a_wiped_node_takes_the_place_of_the_incarnation_that_is_known(self) -> None:
        wiped = descriptor(3)
        wiped.incarnation = ANEW
        command = good(reassigning.admit(cluster_of(3).catalogue, wiped, alive=False))
        assert command is not None
        assert command.replaced_incarnation == incarnation(3)

    def test_of_two_nodes_with_the_same_id_the_one_that_is_alive_stays(self) -> None:
        other = descriptor(3)
        other.incarnation = ANEW
        error = bad(reassigning.admit(cluster_of(3).catalogue, other, alive=True))
        assert "a member of that id is up" in error.message
        assert "of its own" in error.hint


class TestRemoval:
    def test_a_node_that_is_in_use_is_not_removed(self) -> None:
        cluster = cluster_of(4, ("orders", 4, 3))
        error = bad(reassigning.remove(cluster.catalogue, 1))
        assert "partition" in error.message
        assert "drain 1" in error.hint
        assert "not a member" in bad(reassigning.remove(cluster.catalogue, 9)).message

    def test_a_node_that_was_drained_is_removed(self) -> None:
        cluster = cluster_of(4, ("orders", 4, 3))
        command, _ = good(reassigning.drain(cluster.catalogue, 4))
        good(cluster.apply(drain_node=command))
        heal(cluster)
        change = reassigning.voters(cluster.catalogue, me=1)
        if change is not None:
            good(cluster.apply(change_voters=change))
        good(cluster.apply(remove_node=good(reassigning.remove(cluster.catalogue, 4))))
        assert sorted(cluster.catalogue.nodes) == [1, 2, 3]


class TestVoters:
    def voters(self, cluster: Cluster, me: int = 1, *unfit: int) -> list[int] | None:
        change = reassigning.voters(cluster.catalogue, me, unfit)
        return None if change is None else list(change.voters)

    @pytest.mark.parametrize(
        ("nodes", "joining", "size"), [(1, 1, None), (1, 2, 3), (3, 1, None), (3, 2, 5), (5, 4, None)]
    )
    def test_they_grow_with_the_cluster_to_1_3_or_5(self, nodes: int, joining: int, size: int | None) -> None:
        cluster = Cluster(nodes=nodes)
        before = set(cluster.catalogue.voters)
        for node_id in range(nodes + 1, nodes + 1 + joining):
            join(cluster, node_id)
        chosen = self.voters(cluster)
        assert (None if chosen is None else len(chosen)) == size
        assert chosen is None or before < set(chosen)

    def test_those_that_are_down_stay_and_are_not_added(self) -> None:
        cluster = Cluster(nodes=3)
        assert self.voters(cluster, 1, 2, 3) is None
        join(cluster, 4)
        join(cluster, 5)
        assert self.voters(cluster, 1, 5) is None, "4 would be no better than 3"
        assert self.voters(cluster, 1) == [1, 2, 3, 4, 5]

    def test_a_drained_voter_is_replaced_as_soon_as_another_can(self) -> None:
        cluster = Cluster(nodes=3)
        join(cluster, 4)
        draining(cluster, 2)
        assert self.voters(cluster, 1, 4) is None
        assert self.voters(cluster, 1) == [1, 3, 4]

    def test_who_decides_is_the_one_left_of_two(self) -> None:
        cluster = Cluster(nodes=3)
        draining(cluster, 2)
        assert self.voters(cluster, me=3) == [3]

    def test_a_wiped_voter_votes_again_when_it_is_fit(self) -> None:
        cluster = Cluster(nodes=3)
        good(cluster.wipe(3, ANEW))
        assert self.voters(cluster, 1, 3) is None, "two votes are better than one"
        assert self.voters(cluster, 1) == [1, 2, 3]

    def test_they_stand_on_different_hosts_where_they_can(self) -> None:
        cluster = Cluster(nodes=1)
        for node_id, host in ((2, "host-1"), (3, "b"), (4, "c")):
            node = descriptor(node_id, host)
            good(cluster.apply(admit_node=internal_pb2.AdmitNode(node=node)))
        assert self.voters(cluster) == [1, 3, 4]
