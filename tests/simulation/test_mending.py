"""A disk that damages entries, or the rows that say where a log ends, costs nobody a record."""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.replica import folds
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage import group_log
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import MetaRow, log_key, meta_key
from quorumlog.node.storage.repair import replicas_by_wholeness
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from tests.simulation.scenes import (
    acked,
    batch,
    fetch,
    fetched,
    founded,
    leader,
    others,
    produce,
    replica_of,
    values_on,
    with_topic,
)
from tests.simulation.test_moving import reassign

RECORDS = [b"%d" % number for number in range(12)]


def filled() -> tuple[World, SimNode]:
    """A topic with a batch for each of RECORDS, and its leader; all replicas have everything in their databases."""
    world, _ = with_topic()
    node = leader(world)
    for value in RECORDS:
        acked(world, produce(node, batch([value])))
    world.run(1.0)
    return world, node


def flip(node: SimNode, group_id: int, index: int) -> None:
    """Flip a bit in the payload of a stored entry."""
    storage = node.database.storage
    assert storage is not None
    key = log_key(group_id, index)
    stored = storage.get(Family.LOG, key)
    assert stored is not None
    storage.damage(Family.LOG, key, stored[:-1] + bytes([stored[-1] ^ 1]))


def damaged(replica: Replica) -> list[int]:
    return sorted(replica.log.damaged)


def test_a_follower_has_its_damaged_entries_back_without_losing_its_vote() -> None:
    world, node = filled()
    group_id = replica_of(node).group_id
    one = others(world, node)[0]
    one.crash()
    for index in (3, 4, 9):
        flip(one, group_id, index)
    one.start()
    assert damaged(replica_of(one)) == [3, 4, 9]
    assert replica_of(one).counting
    world.run(2.0)
    assert damaged(replica_of(one)) == []
    assert values_on(world, one) == RECORDS
    one.crash()
    one.start()
    assert damaged(replica_of(one)) == [], "what was mended is on the disk"


def test_a_leader_with_a_damaged_entry_hands_over_and_is_mended() -> None:
    world, node = filled()
    replica = replica_of(node)
    node.crash()
    node.start()
    world.run(7.0)
    assert leader(world) is node, "it leads again, being preferred"
    flip(node, replica.group_id, 5)
    replica = replica_of(node)
    replica.note_damage(5)
    node.pump()
    world.run_until(lambda: not replica.leads, 1.0, "it goes on leading")
    world.run(2.0)
    assert damaged(replica) == []
    assert acked(world, produce(leader(world), batch([b"more"]))).base_offset == len(RECORDS)
    assert values_on(world, node)[: len(RECORDS)] == RECORDS


def test_who_reads_a_damaged_entry_is_told_to_come_again() -> None:
    world, node = filled()
    one = others(world, node)[0]
    one.crash()
    one.start()
    replica = replica_of(one)
    world.run(1.0)
    replica.log._tail.trim(0)  # so that the read goes to the disk
    flip(one, replica.group_id, 3)
    part = fetched(world, fetch(one, 1, any_replica=True))
    assert part.error.code == pb.NOT_YET_AVAILABLE
    assert part.error.retriable
    assert "entry 3 " in part.error.message
    world.run(2.0)
    assert values_on(world, one) == RECORDS


def test_the_only_voter_goes_on_leading_while_a_learner_waits_for_what_is_damaged() -> None:
    world = founded()
    create_topic(world, "t", 1, replicas=1)
    node = leader(world)
    for value in RECORDS:
        acked(world, produce(node, batch([value])))
    node.stop()
    node.start()
    world.run(1.0)
    node.crash()
    (group_id,) = [group for group in groups_of(node) if group > 17]
    flip(node, group_id, 5)
    node.start()
    assert damaged(replica_of(node)) == [5]
    world.run(2.0)
    reassign(world, [others(world, node)[0].node_id])
    world.run(3.0)
    assert replica_of(node).raft.configuration.learners
    assert leader(world) is node, "a learner cannot take over, and nobody can mend the entry"
    acked(world, produce(node, batch([b"more"])))


def groups_of(node: SimNode) -> list[int]:
    """The groups that a node has replicas of, by its disk."""
    assert node.database.storage is not None
    return replicas_by_wholeness(node.database.storage, bytes(16))[0]


@pytest.mark.parametrize("group", ["partition", "__cluster"])
def test_a_replica_whose_log_lost_its_ends_begins_anew_and_is_whole_again(group: str) -> None:
    world, node = filled()
    one = others(world, node)[0]
    group_id = replica_of(one).group_id if group == "partition" else 1
    world.run(1.0)
    one.crash()
    storage = one.database.storage
    assert storage is not None
    storage.damage(Family.META, meta_key(group_id, MetaRow.PREFIX), b"garbage")
    storage.damage(Family.META, meta_key(group_id, MetaRow.LAST), b"garbage")
    one.start()
    world.run(0.05)
    assert one.broker is not None
    world.run(3.0)
    replica = one.broker.multi.replicas[group_id]
    assert replica.counting
    assert values_on(world, one) == RECORDS
    others(world, one)[0].crash()
    acked(world, produce(leader(world), batch([b"more"])))


def test_a_replica_whose_folds_cannot_be_read_begins_anew_while_its_node_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folds, "FOLD_SIZE_BYTES_MIN", 500)
    monkeypatch.setattr(folds, "FOLD_AMPLIFICATION_MIN", 0)
    monkeypatch.setattr(group_log, "ENTRIES_PER_ROW", 4)
    world, _ = with_topic(configs={"retention.bytes": "1000", "max.message.bytes": "900"})
    node = leader(world)
    for number in range(40):
        acked(world, produce(node, batch([b"%03d" % number * 20])))
    world.run(2.0)
    one = others(world, node)[0]
    assert replica_of(one).raft.first_index > 20, "what came before is in the folds alone"
    group_id = replica_of(one).group_id
    one.stop()
    damage_folds(monkeypatch, group_id)
    one.start()
    assert one.broker is not None
    assert group_id not in one.broker.multi.replicas
    assert len(one.broker.multi.replicas) == 17
    world.run(3.0)
    assert replica_of(one).counting
    assert replica_of(one).machine.snapshot() == replica_of(node).machine.snapshot()


def test_folds_that_cannot_be_read_cost_nothing_where_the_log_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    world = founded()
    create_topic(world, "t", 1, replicas=1)
    node = leader(world)
    for value in RECORDS:
        acked(world, produce(node, batch([value])))
    group_id = replica_of(node).group_id
    node.stop()
    damage_folds(monkeypatch, group_id)
    node.start()
    assert replica_of(node).counting, "nobody else has its records: it must not begin anew"
    world.run(2.0)
    assert leader(world) is node
    assert values_on(world, node) == RECORDS


def cut_everywhere_else() -> tuple[World, SimNode, SimNode]:
    """The leader of a partition, and a node that is down: its log alone still holds the first entries of it."""
    world, _ = with_topic(configs={"retention.bytes": "1000", "max.message.bytes": "900"})
    node = leader(world)
    one = others(world, node)[0]
    replica_of(one).folds.put = lambda batch, snapshot: None  # type: ignore[method-assign]  # it cuts only at folds
    for number in range(40):
        acked(world, produce(node, batch([b"%03d" % number * 20])))
    world.run(2.0)
    assert replica_of(node).raft.first_index > 20
    assert replica_of(one).raft.first_index == 1
    one.crash()
    return world, node, one


def fold_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "FOLD_SIZE_BYTES_MIN", 500)
    monkeypatch.setattr(folds, "FOLD_AMPLIFICATION_MIN", 0)
    monkeypatch.setattr(group_log, "ENTRIES_PER_ROW", 4)


def test_damage_of_what_nobody_has_any_more_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    fold_often(monkeypatch)
    world, node, one = cut_everywhere_else()
    flip(one, replica_of(node).group_id, 7)
    one.start()
    world.run(3.0)
    replica = replica_of(one)
    assert damaged(replica) == []
    assert replica.raft.first_index == min(replica_of(other).raft.first_index for other in others(world, one))
    assert replica.machine.snapshot() == replica_of(node).machine.snapshot()
    assert not replica.withheld
    first = replica.raft.first_index
    one.crash()
    one.start()
    assert replica_of(one).raft.first_index == first, "that is on the disk"


def test_no_record_goes_that_may_still_be_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    fold_often(monkeypatch)
    world, node, one = cut_everywhere_else()
    one.start()
    world.run(1.0)
    replica, own = replica_of(one), replica_of(node)
    assert replica.partition is not None
    replica.note_damage(7)
    replica.partition.log_start_offset = 0
    found = own.snapshot()
    assert found is not None
    snapshot = internal_pb2.GroupSnapshot.FromString(found[1])
    assert one.broker is not None
    assert replica.begin_behind(one.broker.multi.next_batch, snapshot) == 0
    assert replica.raft.first_index == 1


def test_a_replica_that_cannot_go_on_from_damage_is_given_the_state_that_the_others_kept() -> None:
    world = founded()
    node = world.nodes[1]
    one = world.nodes[2]
    for number in range(5):
        create_topic(world, f"t{number}", 1)
    world.run(2.0)
    assert one.broker is not None
    applied = one.broker.multi.replicas[CLUSTER_GROUP_ID].raft.applied
    one.crash()
    flip(one, CLUSTER_GROUP_ID, applied - 1)
    for other in others(world, one):
        assert other.broker is not None
        other.enter(other.broker.fold_all)
    world.run(2.0)
    one.start()
    replica = one.broker.multi.replicas[CLUSTER_GROUP_ID]
    assert node.broker is not None
    world.run_until(
        lambda: node.broker.multi.replicas[CLUSTER_GROUP_ID].raft.first_index >= applied,  # type: ignore[union-attr]
        10.0,
        "the others keep the entry",
    )
    world.run(3.0)
    assert damaged(replica) == []
    assert replica.raft.applied == replica.raft.commit_index
    assert replica.machine.snapshot() == node.broker.multi.replicas[CLUSTER_GROUP_ID].machine.snapshot()
    assert leader(world, topic="t4") is not None
    assert one.broker.catalogue.topic("t4") is not None


def damage_folds(monkeypatch: pytest.MonkeyPatch, group_id: int) -> None:
    """Let the next start find a group's folds unreadable."""
    make = folds.Folds.__init__
    unreadable = [group_id]

    def fail(self: folds.Folds, storage: Storage, group: int, last_index: int) -> None:
        damaged = group in unreadable
        if damaged:
            unreadable.remove(group)
        make(self, Unreadable() if damaged else storage, group, last_index)  # type: ignore[arg-type]
        self._storage = storage

    monkeypatch.setattr(folds.Folds, "__init__", fail)


def test_a_replica_that_begins_anew_while_its_node_runs_is_whole_again() -> None:
    world, node = filled()
    one = others(world, node)[0]
    assert one.broker is not None
    replica = replica_of(one)
    replica.log_lost = True  # as where its tail has to be cut and the entries around are damaged
    replica.stop("its tail cannot be cut")
    one.pump()
    acked(world, produce(node, batch([b"more"])))
    world.run(3.0)
    assert replica_of(one) is not replica
    assert replica_of(one).counting, "though its leader had heard in this session that it held everything"
    assert leader(world) is node
    assert values_on(world, one) == [*RECORDS, b"more"]


class Unreadable:
    """A storage with a bad block where the folds are."""

    def scan(self, *_: object) -> None:
        raise StorageCorrupt("a block does not fit its checksum")
