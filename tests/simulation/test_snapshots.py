"""A snapshot travels in pieces, at a bounded pace, goes on where it stopped, and is taken over whole or not at all."""

from __future__ import annotations

from functools import partial

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.broker import snapshots
from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.replica import folds
from quorumlog.node.storage import group_log
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import peer_pb2
from tests.simulation.scenes import acked, answer, batch, founded, leader, others, produce, replica_of, with_topic
from tests.simulation.test_moving import decider

CONFIGS = {"retention.bytes": "1000", "max.message.bytes": "900"}
PIECE = 16


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds after a few records, and snapshots in many pieces."""
    monkeypatch.setattr(folds, "FOLD_SIZE_BYTES_MIN", 500)
    monkeypatch.setattr(folds, "FOLD_AMPLIFICATION_MIN", 0)
    monkeypatch.setattr(group_log, "ENTRIES_PER_ROW", 4)
    monkeypatch.setattr(snapshots, "CHUNK_SIZE_BYTES", PIECE)


def behind() -> tuple[World, SimNode, SimNode]:
    """A leader, and a node that is down and lacks what the leader's log has no more."""
    world, _ = with_topic(configs=CONFIGS)
    node = leader(world)
    dead = others(world, node)[0]
    world.run(0.5)
    dead.crash()
    for number in range(40):
        acked(world, produce(node, batch([b"%03d" % number * 20], producer_id=number % 3 + 1, sequence=number // 3)))
    world.run(2.0)
    assert replica_of(node).raft.first_index > 20
    return world, node, dead


def two_behind() -> tuple[World, SimNode, SimNode, SimNode]:
    """The leader of a group of five, and two nodes that are down and lack what its log has no more."""
    world = founded(make=partial(World, nodes=5))
    create_topic(world, "t", 1, CONFIGS, replicas=5)
    node = leader(world)
    first, second = others(world, node)[:2]
    world.run(0.5)
    for one in (first, second):
        one.crash()
    node = leader(world)
    for number in range(40):
        acked(world, produce(node, batch([b"%03d" % number * 20], producer_id=number % 3 + 1, sequence=number // 3)))
    world.run(2.0)
    assert replica_of(node).raft.first_index > 20
    return world, node, first, second


def pieces_sent(node: SimNode) -> list[peer_pb2.SnapshotChunk]:
    """The pieces that a node sends from now on, questions left out."""
    assert node.broker is not None
    sent: list[peer_pb2.SnapshotChunk] = []
    outbox = node.broker.outbox
    send = outbox.snapshot_chunk

    def note(peer: int, chunk: peer_pb2.SnapshotChunk) -> None:
        if chunk.data:
            sent.append(chunk)
        send(peer, chunk)

    outbox.snapshot_chunk = note  # type: ignore[method-assign]
    return sent


def same_state(world: World, *nodes: SimNode) -> bool:
    return len({(replica_of(one).raft.applied, replica_of(one).machine.snapshot()) for one in nodes}) == 1


def test_it_comes_in_pieces_none_of_them_twice(small: None) -> None:
    world, node, dead = behind()
    sent = pieces_sent(node)
    dead.start()
    world.run(3.0)
    assert same_state(world, node, dead)
    assert len(sent) > 10
    assert [chunk.position for chunk in sent] == [PIECE * number for number in range(len(sent))]
    assert len(sent) == -(-sent[0].size_bytes // PIECE)


def test_after_a_break_it_goes_on_where_it_stopped(small: None) -> None:
    world, node, dead = behind()
    sent = pieces_sent(node)
    dead.start()
    world.run_until(lambda: len(sent) == 6, 3.0, "no pieces are sent")
    world.cut |= {(node.node_id, dead.node_id), (dead.node_id, node.node_id)}
    world.run(1.0)
    before = len(sent)
    world.cut.clear()
    world.run(4.0)
    assert same_state(world, node, dead)
    assert sent[before].position >= PIECE * 5, "what had arrived is not sent again"


def test_a_receiver_that_was_restarted_is_sent_it_anew(small: None) -> None:
    world, node, dead = behind()
    sent = pieces_sent(node)
    dead.start()
    world.run_until(lambda: len(sent) == 6, 3.0, "no pieces are sent")
    dead.crash()
    dead.start()
    world.run(4.0)
    assert same_state(world, node, dead)
    assert [chunk.position for chunk in sent].count(0) == 2


def test_another_leader_goes_on_with_it(small: None) -> None:
    world, node, dead = behind()
    sent = pieces_sent(node)
    dead.start()
    world.run_until(lambda: len(sent) == 6, 3.0, "no pieces are sent")
    third = next(one for one in world.nodes.values() if one not in (node, dead))
    more = pieces_sent(third)
    node.crash()
    world.run(6.0)
    assert leader(world) is third
    assert same_state(world, third, dead)
    assert more
    assert more[0].position > 0, "replicas cut at the same folds, so the snapshot is the same"


def test_its_pace_is_bounded(small: None) -> None:
    world, node, dead = behind()
    sent = pieces_sent(node)
    assert node.broker is not None
    node.broker.snapshots._bytes_per_second = PIECE * 10.0
    dead.start()
    world.run(2.0)
    assert 10 <= len(sent) <= 25
    status = node.broker.reporting.status()
    (peer,) = [peer for one in status.replicas for peer in one.peers if peer.snapshot_size_bytes]
    assert peer.node_id == dead.node_id
    assert 0 < peer.snapshot_position < peer.snapshot_size_bytes
    acked(world, produce(node, batch([b"meanwhile"])))


def test_a_receiver_that_is_gone_holds_up_no_other(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SENT_AT_ONCE_MAX", 1)
    world, node, gone, waiting = two_behind()
    sent = pieces_sent(node)
    gone.start()
    world.run_until(lambda: len(sent) == 6, 3.0, "no pieces are sent")
    gone.crash()
    waiting.start()
    world.run(5.0)
    assert same_state(world, node, waiting)
    gone.start()
    world.run(5.0)
    assert same_state(world, node, gone)


def test_a_piece_that_was_damaged_on_the_way_is_no_reason_to_take_it_over(small: None) -> None:
    world, node, dead = behind()
    assert node.broker is not None
    outbox = node.broker.outbox
    send = outbox.snapshot_chunk
    damaged: list[int] = []

    def damage(peer: int, chunk: peer_pb2.SnapshotChunk) -> None:
        if chunk.position == PIECE * 3 and chunk.data and not damaged:
            damaged.append(chunk.position)
            chunk.data = bytes(len(chunk.data))
        send(peer, chunk)

    outbox.snapshot_chunk = damage  # type: ignore[method-assign]
    dead.start()
    world.run(5.0)
    assert damaged
    assert same_state(world, node, dead)


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_while_it_is_installed_leaves_the_old_log_or_the_new_one(small: None, seed: int) -> None:
    world, node, dead = behind()
    sent = pieces_sent(node)
    dead.start()
    world.run_until(lambda: len(sent) > 5 and sent[-1].position + PIECE >= sent[-1].size_bytes, 3.0, "no last piece")
    for _ in range(seed * 3):
        world.step()
    dead.crash()
    dead.start()
    world.run(4.0)
    assert same_state(world, node, dead)


def test_a_crash_after_a_snapshot_of_the_catalogue_leaves_no_replica_of_a_deleted_topic(small: None) -> None:
    world, _ = with_topic()
    world.run(1.0)
    gone = others(world, decider(world))[0]
    group_id = replica_of(gone).group_id
    gone.crash()
    world.run(3.0)
    delete_topic(world, "t")
    for number in range(6):
        create_topic(world, f"later{number}", 1)
    world.run(5.0)
    gone.start()
    broker = gone.broker
    assert broker is not None
    assert group_id in broker.multi.replicas
    # The power goes between the write of the snapshot and the next one, with which the replica would go.
    broker.hosting.on_installed = lambda index: ([], [])  # type: ignore[method-assign]
    world.run_until(lambda: broker.snapshots.installed > 0, 10.0, "no snapshot comes")
    world.run(0.3)
    gone.crash()
    gone.start()
    world.run(3.0)
    assert gone.broker is not None
    assert gone.broker.catalogue.topic("t") is None
    assert group_id not in gone.broker.multi.replicas


def delete_topic(world: World, name: str) -> None:
    """Have a topic deleted."""
    answers: list[pb.DeleteTopicResponse] = []
    node = decider(world)
    assert node.broker is not None
    node.broker.admin.delete_topic(pb.DeleteTopicRequest(name=name), answers.append)
    node.pump()
    assert not answer(world, answers).HasField("error")


def test_a_leader_that_cannot_read_what_its_log_begins_with_lets_another_one_send_it(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, node, dead = behind()

    def fail(index: int) -> bytes:
        raise StorageCorrupt(f"the block with the fold at {index} does not fit its checksum")

    monkeypatch.setattr(replica_of(node).folds, "read", fail)
    dead.start()
    world.run_until(lambda: leader(world) is not node, 4.0, "it goes on leading")
    world.run_until(lambda: same_state(world, leader(world), dead), 4.0, "nobody sends the snapshot")
    assert node.running, "it goes on"
