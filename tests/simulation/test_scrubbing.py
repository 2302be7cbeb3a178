"""What a disk has damaged is found and mended although nobody reads it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.watching import Watcher
from quorumlog.chaos.sim.world import Pace, World
from quorumlog.node.broker.scrubbing import BURST_SECONDS, ENTRY_COST_BYTES, GROUP_COST_BYTES
from quorumlog.node.storage import group_log, group_read, salvage
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import log_key
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import FAST, acked, batch, leader, others, produce, replica_of, with_topic
from tests.simulation.test_mending import RECORDS, flip
from tests.simulation.test_repair import lose_database

OFTEN = replace(FAST, scrub_period_seconds=2.0)


def filled(pace: Pace = OFTEN, size_bytes: int = 1) -> tuple[World, SimNode]:
    """A topic with a batch for each of RECORDS, and its leader; nobody reads it."""
    world, _ = with_topic(pace=pace)
    node = leader(world)
    for value in RECORDS:
        acked(world, produce(node, batch([value * size_bytes])))
    world.run(1.0)
    return world, node


def stored(node: SimNode, group_id: int, index: int) -> bytes | None:
    """An entry as it stands on a node's disk."""
    return node.storage.peek(Family.LOG, log_key(group_id, index))


class Sleep(Watcher):
    """Sees that a group does not wake."""

    def __init__(self, world: World, group_id: int) -> None:
        self._group_id = group_id
        self.steps = 0
        world.watchers.append(self)

    def on_step(self, node: SimNode) -> None:
        assert node.broker is not None
        assert node.broker.multi.replicas[self._group_id].raft.quiesced
        self.steps += 1


def test_a_flipped_bit_that_nobody_reads_is_mended_while_its_group_sleeps() -> None:
    world, node = filled()
    one = others(world, node)[0]
    group_id = replica_of(one).group_id
    world.run_until(lambda: all(replica_of(each).raft.quiesced for each in world.nodes.values()), 20.0, "it is awake")
    sound = stored(one, group_id, 4)
    sleep = Sleep(world, group_id)
    flip(one, group_id, 4)
    world.run_until(lambda: stored(one, group_id, 4) == sound, 5.0, "nobody mends it")
    world.run(1.0)
    assert sleep.steps
    assert not replica_of(one).log.has_damage
    assert one.broker is not None
    status = one.broker.reporting.status()
    assert (status.storage.damage_found, status.storage.entries_mended) == (1, 1)
    assert 0.0 <= status.storage.scrubbed_seconds_ago < 5.0
    assert [finding.message for finding in status.findings if finding.severity == pb.INFO] == [
        "1 damaged entry was met since its start and replaced by what other replicas have"
    ]


def test_while_an_entry_is_damaged_the_node_says_so() -> None:
    world, node = filled()
    one, third = others(world, node)
    group_id = replica_of(one).group_id
    flip(third, group_id, 4)
    flip(node, group_id, 4)
    world.run(5.0)
    assert third.broker is not None
    assert not replica_of(third).log.has_damage, "one that is sound is enough"
    for each in (node, third):
        each.crash()
    flip(one, group_id, 4)
    world.run(5.0)
    assert one.broker is not None
    status = one.broker.reporting.status()
    assert [replica.damaged_entries for replica in status.replicas if replica.group_id == group_id] == [1]
    assert [finding.message for finding in status.findings if "damaged" in finding.message] == [
        "1 entry is damaged and being fetched from other replicas: t partition 0"
    ]


def test_the_holes_that_salvage_leaves_are_filled_without_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_log, "ENTRIES_PER_ROW", 4)  # so that the opening does not read the whole log
    monkeypatch.setattr(salvage, "ENTRIES_PER_ROW", 4)
    world, node = filled(FAST)
    one = others(world, node)[0]
    group_id = replica_of(one).group_id
    one.stop()  # which folds, so that later starts replay nothing
    one.start()
    one.crash()
    indexes = (3, 5, 6)
    sound = [stored(one, group_id, index) for index in indexes]
    for index in indexes:
        flip(one, group_id, index)
    lose_database(one)
    assert any("3 damaged ones were not" in finding.message for finding in one.opened.findings)  # type: ignore[union-attr]
    assert not replica_of(one).log.has_damage, "nobody has met them yet"
    world.run(3.0)
    assert replica_of(one).counting
    assert [stored(one, group_id, index) for index in indexes] == sound
    assert one.broker is not None
    assert one.broker.scrubbing.found == 3


def test_the_rate_is_honoured() -> None:
    rate = 200_000.0
    world, node = filled(replace(FAST, scrub_bytes_per_second=rate), size_bytes=40_000)
    one = others(world, node)[0]
    one.crash()
    one.start()
    broker = one.broker
    assert broker is not None
    logs = [replica.log for replica in broker.multi.replicas.values()]
    cost_bytes = len(logs) * GROUP_COST_BYTES + sum(
        log.size_bytes + (log.last_index() - log.first_index() + 1) * ENTRY_COST_BYTES for log in logs
    )
    world.run_until(lambda: broker.scrubbing.last_pass is not None, 60.0, "it comes to no end")
    done = broker.scrubbing.last_pass
    assert done is not None
    wanted = cost_bytes / rate
    largest = (group_read._FIRST_SLICE_ENTRIES * 80_000) / rate
    assert wanted - BURST_SECONDS - largest <= done.ended_at - done.began_at <= 1.2 * wanted + 1.0
    assert wanted > 3.0, "else this says nothing"
