"""What several checkers need of a history, made in one pass: who wrote what, and where it was found."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from quorumlog.chaos.history.events import (
    NEVER,
    Fetch,
    FinalRead,
    History,
    ListOffsets,
    Operation,
    Poll,
    Produce,
    Record,
)


class Sighting(NamedTuple):
    """A value at an offset, and the operation that saw it."""

    offset: int
    value: str
    term: int | None
    operation: Operation


class Log:
    """What is known of one partition.

    `found` has for each value where it was seen first; `again` has sightings of it elsewhere. `reads` has for each
    offset its first sighting by a client. Final reads count for `found` alone, and stand in `dumps`.
    """

    def __init__(self, tp: str) -> None:
        self.tp = tp
        self.produces: list[Produce] = []
        self.fetches: list[Fetch] = []
        self.polls: list[Poll] = []
        self.listings: list[ListOffsets] = []
        self.found: dict[str, Sighting] = {}
        self.again: list[Sighting] = []
        self.reads: dict[int, Sighting] = {}
        self.contradictions: list[tuple[Sighting, Sighting]] = []
        self.first_read: dict[str, Operation] = {}
        self.foreign: list[Sighting] = []
        self.seen: set[int] = set()
        self.dumps: list[FinalRead] = []
        self.unread: list[FinalRead] = []
        self.kept: set[str] = set()
        self.trimmed = 0
        """Below it something was trimmed: the highest beginning that anybody was told."""

    @cached_property
    def visible(self) -> list[int]:
        """Every offset at which a reader found a committed record, in order."""
        return sorted(self.seen)

    @cached_property
    def values(self) -> dict[int, str]:
        """A value that was found at each offset."""
        return {sighting.offset: value for value, sighting in self.found.items()}

    @cached_property
    def strewn(self) -> frozenset[str]:
        """Values that stand at several offsets, so that their place says nothing about order."""
        return frozenset(sighting.value for sighting in self.again)

    def unseen_between(self, begin: int, end: int, offsets: Sequence[int]) -> int | None:
        """Return the first visible offset from `begin` on and before `end` that is not among `offsets`, which are in
        order and visible.
        """
        low, high = bisect_left(self.visible, begin), bisect_left(self.visible, end)
        inside = bisect_left(offsets, end) - bisect_left(offsets, begin)
        if high - low <= inside:
            return None
        given = set(offsets)
        return next((offset for offset in self.visible[low:high] if offset not in given), None)

    def expected(self) -> Iterator[tuple[Produce, str, int]]:
        """Every acknowledged record with the offset of its acknowledgement."""
        for produce in self.produces:
            if produce.ok and produce.base_offset is not None:
                for value, offset in zip(produce.values, offsets_of(produce), strict=False):
                    yield produce, value, offset

    def ought_to_be_kept(self, offset: int) -> bool:
        """Whether a committed record at this offset must be in some final read.

        Not where it may have been trimmed; nor where it stands beyond all that was read while some replica, which may
        have it, could not be read.
        """
        covering = [dump for dump in self.dumps if dump.start <= offset]
        return bool(covering) and (not self.unread or any(dump.committed > offset for dump in covering))

    def absence(self, offset: int) -> str:
        """Say where in the log something is missing."""
        inside = [dump for dump in self.dumps if dump.start <= offset < dump.committed]
        if not inside:
            return "all replicas end before it"
        after = any(record.offset > offset for dump in inside for record in dump.records[-1:])
        before = any(record.offset < offset for dump in inside for record in dump.records[:1])
        return "records before and after it are there" if before and after else "what is beside it is there"


def offsets_of(produce: Produce) -> range:
    """Offsets that an acknowledgement gives to the values of an operation; to the first alone if they are no batch."""
    assert produce.base_offset is not None
    count = len(produce.values) if produce.batch else 1
    return range(produce.base_offset, produce.base_offset + count)


class Evidence:
    """A history and what was derived of it.

    Args:
        history: of a run.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.writers: dict[str, Produce] = {}
        self.written_twice: list[str] = []
        self.logs: dict[str, Log] = {}
        self.lost_topics = frozenset(
            life_of(one.arguments) for one in history.metas if one.command == "delete_topic" and not one.failed
        )
        for produce in history.produces:
            self.log(produce.tp).produces.append(produce)
            for value in produce.values:
                if self.writers.setdefault(value, produce) is not produce:
                    self.written_twice.append(value)
        for fetch in history.fetches:
            self._take_fetch(fetch)
        for poll in history.polls:
            self._take_poll(poll)
        for listing in history.listings:
            log = self.log(listing.tp)
            log.listings.append(listing)
            log.trimmed = max(log.trimmed, listing.start)
        for dump in history.final_reads:
            self._take_dump(dump)

    def log(self, tp: str) -> Log:
        """What is known of a partition."""
        known = self.logs.get(tp)
        if known is None:
            known = self.logs[tp] = Log(tp)
        return known

    def all_logs(self) -> list[Log]:
        """Every partition."""
        return [log for _, log in sorted(self.logs.items())]

    def living_logs(self) -> list[Log]:
        """Partitions of topics that nobody asked to delete."""
        return [log for log in self.all_logs() if self.lives(log.tp)]

    def lives(self, tp: str) -> bool:
        """Whether nobody asked to delete the topic of a partition."""
        return topic_of(tp) not in self.lost_topics

    @cached_property
    def began(self) -> int:
        """When the run began, as clients counted."""
        told = self.history.run.get("began_ns")
        if isinstance(told, int):
            return told
        return min((one.invoked for one in self.history.produces), default=0)

    def name(self, operation: Operation) -> str:
        """Say which operation it is."""
        what = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(operation).__name__).lower()
        ended = "never told" if operation.completed == NEVER else f"{self.seconds(operation.completed)} s"
        return f"{operation.process} #{operation.number} {what}, {self.seconds(operation.invoked)} s to {ended}"

    def seconds(self, time: int) -> str:
        """A time of the history, in seconds after the beginning."""
        return f"{(time - self.began) / 1e9:.6f}"

    def _take_fetch(self, fetch: Fetch) -> None:
        log = self.log(fetch.tp)
        log.fetches.append(fetch)
        log.trimmed = max(log.trimmed, fetch.start)
        for record in fetch.records:
            self._read(log, Sighting(record.offset, record.value, record.term, fetch))

    def _take_poll(self, poll: Poll) -> None:
        for tp in {record.tp for record in poll.records}:
            self.log(tp).polls.append(poll)
        for tp, offset, value in poll.records:
            self._read(self.log(tp), Sighting(offset, value, None, poll))

    def _read(self, log: Log, sighting: Sighting) -> None:
        offset, value, _, operation = sighting
        log.seen.add(offset)
        if not self._place(log, sighting):
            return
        earlier = log.reads.setdefault(offset, sighting)
        if earlier.value != value:
            log.contradictions.append((earlier, sighting))
        elif earlier.term is None and sighting.term is not None:
            log.reads[offset] = sighting
        elif earlier.term != sighting.term and sighting.term is not None:
            log.contradictions.append((earlier, sighting))
        first = log.first_read.setdefault(value, operation)
        if operation.completed < first.completed:
            log.first_read[value] = operation

    def _take_dump(self, dump: FinalRead) -> None:
        log = self.log(dump.tp)
        if not dump.ok:
            log.unread.append(dump)
            return
        log.dumps.append(dump)
        log.trimmed = max(log.trimmed, dump.start)
        for record in dump.records:
            if record.offset < dump.committed:
                log.seen.add(record.offset)
            if self._place(log, Sighting(record.offset, record.value, record.term, dump)):
                log.kept.add(record.value)

    def _place(self, log: Log, sighting: Sighting) -> bool:
        """Note where a value is; False for one that nobody has written to this partition."""
        writer = self.writers.get(sighting.value)
        if writer is None or writer.tp != log.tp:
            log.foreign.append(sighting)
            return False
        earlier = log.found.setdefault(sighting.value, sighting)
        if earlier.offset != sighting.offset:
            log.again.append(sighting)
        elif earlier.term is None and sighting.term is not None:
            log.found[sighting.value] = sighting
        return True


def topic_of(tp: str) -> str:
    """The topic of a partition, with its life."""
    return tp.rpartition("/")[0]


def life_of(arguments: dict[str, Any]) -> str:
    """The topic that a change of metadata is about, as partitions are named by it."""
    life = arguments.get("life", 1)
    return f"{arguments['topic']}@{life}" if life != 1 else str(arguments["topic"])


def records_by_offset(dump: FinalRead) -> dict[int, Record]:
    """The committed records of a replica."""
    return {record.offset: record for record in dump.records if record.offset < dump.committed}
