"""How logs are read through: slice by slice, and past everything that happens to them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from quorumlog.node.broker.scrubbing import GROUP_COST_BYTES, Scrubbing
from quorumlog.node.errors import UnknownEntryKind
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage import group_read
from quorumlog.node.storage.entry import check_entry
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import log_key
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.proto import client_pb2 as pb
from quorumlog.raft import LogIndex
from tests.node.broker.lone_broker import LoneBroker, batch

ENTRIES = 20


class Reads:
    """A cold reader whose reads come to their turn one by one."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.under_way: tuple[partial[Any], Callable[[Any], None]] | None = None
        self.count = 0

    def submit(self, read: Callable[[Storage], Any], done: Callable[[Any], None]) -> None:
        assert self.under_way is None, "one slice at a time"
        assert isinstance(read, partial)
        self.under_way = read, done
        self.count += 1

    @property
    def group_id(self) -> int:
        """Whose log is being read, 0 for none."""
        return int(self.under_way[0].keywords["plan"].group_id) if self.under_way is not None else 0

    def finish(self) -> None:
        assert self.under_way is not None
        (read, done), self.under_way = self.under_way, None
        done(read(self._storage))


class Scrubbed:
    """A node with a topic, and a scrubber of its own at it, whose next read is one of the topic's log."""

    def __init__(self, rate: float = 1e12) -> None:
        self.node = LoneBroker(scrub_bytes_per_second=0)
        self.topic_id = self.node.create("t")
        for number in range(ENTRIES):
            self.node.produce("t", batch([b"%03d" % number * 20_000]))
        self.group_id = self.node.broker.catalogue.topics["t"].partitions[0].group_id
        self.reads = Reads(self.node.storage)
        self.scrubbing = Scrubbing(
            multi=self.node.broker.multi,
            cold=self.reads,
            clock=self.node.clock,
            bytes_per_second=rate,
            period_seconds=100.0,
        )
        self.scrubbing.tick(self.node.clock.now())

    def come_to_topic(self) -> None:
        while self.reads.group_id != self.group_id:
            self.reads.finish()

    def end(self) -> None:
        while self.reads.under_way is not None:
            self.reads.finish()
        assert self.scrubbing.last_pass is not None

    @property
    def replica(self) -> Replica:
        return self.node.broker.multi.replicas[self.group_id]

    def damage(self, family: Family, key: bytes, value: bytes | None) -> None:
        assert isinstance(self.node.storage, MemoryStorage)
        self.node.storage.damage(family, key, value)

    def flip(self, index: int) -> None:
        key = log_key(self.group_id, index)
        stored = self.node.storage.get(Family.LOG, key)
        assert stored is not None
        self.damage(Family.LOG, key, stored[:-1] + bytes([stored[-1] ^ 1]))

    def lose(self, index: int) -> None:
        self.damage(Family.LOG, log_key(self.group_id, index), None)


def test_every_entry_is_looked_at_in_more_than_one_slice() -> None:
    one = Scrubbed()
    one.flip(2)
    one.lose(ENTRIES // 2)
    one.flip(ENTRIES)
    one.come_to_topic()
    before = one.reads.count
    one.end()
    assert sorted(one.replica.log.damaged) == [2, ENTRIES // 2, ENTRIES]
    assert one.scrubbing.found == 3
    assert one.reads.count > before + 2


def test_what_is_known_is_not_found_again() -> None:
    one = Scrubbed()
    one.flip(3)
    one.replica.note_damage(3)
    one.end()
    assert one.scrubbing.found == 0


def test_a_pass_a_period_and_one_at_once() -> None:
    one = Scrubbed()
    one.end()
    began_at = one.node.clock.now()
    count = one.reads.count
    one.node.clock.advance(99.0)
    one.scrubbing.tick(one.node.clock.now())
    assert one.reads.under_way is None
    one.node.clock.advance(1.0)
    one.flip(4)
    one.scrubbing.tick(one.node.clock.now())
    one.end()
    assert one.reads.count == 2 * count
    assert one.scrubbing.found == 1
    assert one.scrubbing.last_pass is not None
    assert one.scrubbing.last_pass.began_at == began_at + 100.0


def test_what_is_dropped_during_a_read_is_not_damaged() -> None:
    one = Scrubbed()
    one.flip(ENTRIES)
    one.come_to_topic()
    one.replica.log.compact(one.node.broker.multi.next_batch, LogIndex(15))
    one.node.settle()
    one.reads.finish()
    assert not one.replica.log.has_damage
    assert one.reads.group_id == one.group_id, "the rest is read again"
    one.end()
    assert sorted(one.replica.log.damaged) == [ENTRIES]


def test_a_group_that_goes_during_a_read_is_passed_over() -> None:
    one = Scrubbed()
    one.come_to_topic()
    replica = one.replica
    answers: list[pb.DeleteTopicResponse] = []
    one.node.broker.admin.delete_topic(pb.DeleteTopicRequest(name="t"), answers.append)
    one.node.until(lambda: one.group_id not in one.node.broker.multi.replicas)
    one.end()
    assert not replica.log.has_damage
    assert one.scrubbing.found == 0


def test_nothing_is_read_while_the_database_pushes_back() -> None:
    one = Scrubbed()
    one.come_to_topic()
    multi = one.node.broker.multi
    multi._refused = (multi.next_batch, [])
    one.reads.finish()
    assert one.reads.under_way is None
    multi._refused = None
    one.scrubbing.tick(one.node.clock.now())
    assert one.reads.group_id == one.group_id
    one.end()


def test_a_tick_looks_at_no_more_groups_than_the_rate_allows() -> None:
    one = Scrubbed(rate=GROUP_COST_BYTES * 20)  # two groups in a tenth of a second
    seen = []
    for _ in range(4):
        seen.append(one.reads.group_id)
        one.reads.finish()
        while one.reads.under_way is not None:
            seen.append(one.reads.group_id)
            one.reads.finish()
        one.node.clock.advance(0.1)
        one.scrubbing.tick(one.node.clock.now())
    assert len(seen) <= 2 * 4 + 2


def test_a_rate_of_nothing_reads_nothing() -> None:
    node = LoneBroker(scrub_bytes_per_second=0)
    node.pass_time(10.0)
    assert node.broker.scrubbing.last_pass is None
    assert not node.broker.reporting.status().storage.HasField("scrubbed_seconds_ago")


def test_entries_of_a_later_release_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Scrubbed()
    one.flip(2)
    one.come_to_topic()
    check = check_entry

    def unknown(data: bytes, group_id: int, index: int) -> Any:
        if index == 5:
            raise UnknownEntryKind("entry 5 is of kind 200")
        return check(data, group_id, index)

    monkeypatch.setattr(group_read, "check_entry", unknown)
    one.end()
    assert sorted(one.replica.log.damaged) == [2]
