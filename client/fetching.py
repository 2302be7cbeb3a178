"""What a consumer fetches, from whom and how much, and what answers mean. A plain class: the shell asks and reports."""

import random
from collections import deque
from dataclasses import dataclass
from typing import Literal

from quorumlog.backoff import full_jitter
from quorumlog.cursor import Chunk, Cursor, Start
from quorumlog.errors import Diverged, OffsetOutOfRange, QuorumlogError, Retriable, from_wire
from quorumlog.metadata import MetadataCache
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import kind_of
from quorumlog.records import Offset, TopicPartition
from quorumlog.replica_choice import ReplicaChoice

Reset = Literal["earliest", "latest", "raise"]
OnDiverged = Literal["raise", "reset"]

# One answer is bounded so that the loop is never busy with one for long.
RESPONSE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """Options of a consumer that concern fetching, in bytes and seconds; see `aio.Client.consumer` for what they
    mean."""

    start: Start = "earliest"
    stop: Start | None = None
    stop_offset: int | None = None
    reset: Reset = "raise"
    on_diverged: OnDiverged = "raise"
    prefetch_bytes: int = 32 << 20
    partition_bytes: int = 1 << 20
    max_wait: float = 0.5
    any_replica: bool = False


@dataclass(slots=True)
class Fetch:
    """One request to one node: the cursors it is for, with their generations."""

    address: str
    wanted: dict[TopicPartition, tuple[Cursor, int]]
    max_bytes: int

    def request(self, settings: FetchSettings) -> pb.FetchRequest:
        """Return the message."""
        partitions = []
        for cursor, _ in self.wanted.values():
            partitions.append(
                pb.FetchPartition(
                    topic_id=cursor.topic_id,
                    topic=cursor.tp.topic,
                    partition=cursor.tp.partition,
                    offset=cursor.fetch_offset,
                    last_leader_epoch=cursor.fetch_epoch,
                    max_bytes=settings.partition_bytes,
                )
            )
        return pb.FetchRequest(
            partitions=partitions,
            max_bytes=self.max_bytes,
            max_wait_ms=round(settings.max_wait * 1000),
            min_bytes=1,
            any_replica=settings.any_replica,
        )


@dataclass(slots=True)
class Lookup:
    """One question to one node: where partitions begin, and where their stop is.

    `stops` is to be asked before `starts`: what is appended between the two is then beyond the stop. A request without
    partitions need not be made.
    """

    address: str
    wanted: dict[TopicPartition, tuple[Cursor, int]]
    stops: pb.ListOffsetsRequest
    starts: pb.ListOffsetsRequest


class FetchCore:
    """The partitions of one consumer.

    Args:
        settings: its options.
        cache: who leads what; corrected by what answers say.
        rng: jitter, and the choice of replicas.
        host: name of this machine as nodes on it give theirs; empty: not known. Only `any_replica` asks for it.

    `leaderless` names the topics about which the cluster is to be asked: nobody is known whom to ask for a partition
    of theirs, or a replica has shown that what is known is out of date.
    """

    def __init__(self, settings: FetchSettings, cache: MetadataCache, rng: random.Random, host: str = "") -> None:
        self.settings = settings
        self.cursors: dict[TopicPartition, Cursor] = {}
        self.leaderless: set[str] = set()
        self._replicas = ReplicaChoice(cache, host, rng) if settings.any_replica else None
        self._cache = cache
        self._rng = rng
        self._outstanding_bytes = 0
        self._turns: deque[Cursor] = deque()

    # -- partitions

    def add(self, tp: TopicPartition, topic_id: bytes, position: Offset | None) -> Cursor:
        """Consume a partition from `position`, or from where `start` says."""
        assert tp not in self.cursors, f"{tp} is consumed already"
        cursor = Cursor(tp, topic_id, position, self.settings.start)
        cursor.stop = self.settings.stop_offset
        self.cursors[tp] = cursor
        self._turns.append(cursor)
        return cursor

    def remove(self, tp: TopicPartition) -> Cursor | None:
        """Give a partition away; nothing more of it is handed out."""
        cursor = self.cursors.pop(tp, None)
        if cursor is not None:
            cursor.drop()
            self._turns.remove(cursor)
            if self._replicas is not None:
                self._replicas.forget(tp)
        return cursor

    # -- asking

    def lookups(self, now: float) -> list[Lookup]:
        """Return what has to be looked up now before it can be fetched."""
        lookups: dict[str, Lookup] = {}
        for cursor in self.cursors.values():
            ready = cursor.error is None and not cursor.fetching and now >= cursor.retry_at
            address = self._leader(cursor) if ready and self._unresolved(cursor) else None
            if address is None:
                continue
            cursor.fetching = True
            lookup = lookups.setdefault(
                address, Lookup(address, {}, stops=pb.ListOffsetsRequest(), starts=pb.ListOffsetsRequest())
            )
            lookup.wanted[cursor.tp] = cursor, cursor.generation
            if self.settings.stop is not None and cursor.stop is None:
                lookup.stops.partitions.append(_where(cursor, self.settings.stop))
            if not cursor.resolved:
                assert cursor.start is not None, "a cursor without a position has a start"
                lookup.starts.partitions.append(_where(cursor, cursor.start))
        return list(lookups.values())

    def looked_up(
        self, lookup: Lookup, stops: pb.ListOffsetsResponse, starts: pb.ListOffsetsResponse, now: float
    ) -> None:
        """Take over the answers to both questions."""
        self._land(lookup)
        stop_by_id = {(listed.topic_id, listed.partition): listed for listed in stops.offsets}
        start_by_id = {(listed.topic_id, listed.partition): listed for listed in starts.offsets}
        for cursor in self._current(lookup):
            key = cursor.topic_id, cursor.tp.partition
            start, stop = start_by_id.get(key), stop_by_id.get(key)
            refusal = next((found.error for found in (start, stop) if found is not None and _is_refusal(found)), None)
            if refusal is not None:
                self._redirect(cursor, refusal, lookup.address)
                self._back_off(cursor, from_wire(refusal), now)
                continue
            self._resolve(cursor, None if start is None else start.offset, None if stop is None else stop.offset)
            if self._unresolved(cursor):
                left_out = f"{lookup.address} did not answer where {cursor.tp} is to be read"
                self._back_off(cursor, Retriable(left_out, hint="look into the node's log"), now)

    def _unresolved(self, cursor: Cursor) -> bool:
        return not cursor.resolved or self._lacks_stop(cursor)

    def _lacks_stop(self, cursor: Cursor) -> bool:
        return self.settings.stop is not None and cursor.stop is None

    def _resolve(self, cursor: Cursor, start: int | None, stop: int | None) -> None:
        if start is not None and not cursor.resolved:
            first = cursor.start
            cursor.move(Offset(start))
            cursor.start = first  # nothing was consumed yet: should retention overtake it, it begins anew
        if stop is not None:
            cursor.stop = stop
            if self.settings.stop == "latest" and self.settings.reset == "raise" and cursor.fetch_offset > stop:
                # There is nothing to read up to the end, but a position beyond it is no end that was reached.
                cursor.error = OffsetOutOfRange(
                    f"{cursor.tp}: offset {cursor.fetch_offset} is beyond the end, {stop}",
                    hint="begin at earliest, latest or an offset up to the end",
                    log_start_offset=-1,
                    log_end_offset=stop,
                )

    def fetches(self, now: float) -> list[Fetch]:
        """Return the requests to make now."""
        wanted: dict[str, list[Cursor]] = {}
        for cursor in self.cursors.values():
            if self._wants(cursor, now):
                address = self._source(cursor)
                if address is not None:
                    wanted.setdefault(address, []).append(cursor)
        fetches = []
        for address, cursors in wanted.items():
            budget = self.settings.prefetch_bytes - self.buffered_bytes - self._outstanding_bytes
            if budget <= 0:
                break
            max_bytes = min(budget, RESPONSE_BYTES, len(cursors) * self.settings.partition_bytes)
            self._outstanding_bytes += max_bytes
            for cursor in cursors:
                cursor.fetching = True
            fetches.append(Fetch(address, {c.tp: (c, c.generation) for c in cursors}, max_bytes))
        return fetches

    def _wants(self, cursor: Cursor, now: float) -> bool:
        if not cursor.resolved or cursor.fetching or cursor.paused or cursor.error is not None or now < cursor.retry_at:
            return False
        if self._lacks_stop(cursor) or (cursor.stop is not None and cursor.fetch_offset >= cursor.stop):
            return False
        return cursor.buffered_bytes < self.settings.partition_bytes // 2

    def _leader(self, cursor: Cursor) -> str | None:
        address = self._cache.leader(cursor.tp.topic, cursor.tp.partition)
        if address is None:
            self.leaderless.add(cursor.tp.topic)
        return address

    def _source(self, cursor: Cursor) -> str | None:
        """Return whom to fetch from. Without a known replica the leader will do: it has one."""
        address = self._replicas.address(cursor.tp) if self._replicas is not None else None
        return address if address is not None else self._leader(cursor)

    def next_wakeup(self, now: float) -> float | None:
        """Return when time alone may let something be fetched, in monotonic seconds; None if never."""
        times = [cursor.retry_at for cursor in self.cursors.values() if cursor.retry_at > now and cursor.error is None]
        return min(times, default=None)

    # -- answers

    def fetched(self, fetch: Fetch, response: pb.FetchResponse, now: float) -> None:
        """Take over an answer."""
        self._land(fetch)
        if response.HasField("error") and response.error.code != pb.OK:
            for cursor in self._current(fetch):
                self._refused(cursor, response.error, fetch.address, now)
            return
        by_tp = {TopicPartition(part.topic, part.partition): part for part in response.partitions}
        by_id = {(part.topic_id, part.partition): part for part in response.partitions}
        for cursor in self._current(fetch):
            part = by_id.get((cursor.topic_id, cursor.tp.partition)) or by_tp.get(cursor.tp)
            if part is None:
                continue
            if part.HasField("error") and part.error.code != pb.OK:
                self._refused(cursor, part.error, fetch.address, now)
            else:
                self._take(cursor, part)

    def _take(self, cursor: Cursor, part: pb.FetchedPartition) -> None:
        if self._replicas is not None and cursor.failures:
            self._replicas.served(cursor.tp)
        cursor.failures = 0
        cursor.high_watermark = part.high_watermark
        for batch in part.batches:
            end = batch.base_offset + batch.last_offset_delta + 1
            if end <= cursor.fetch_offset:
                continue
            cursor.buffered.append(batch)
            cursor.buffered_bytes += len(batch.payload) + 64
            cursor.fetch_offset = end
            cursor.fetch_epoch = batch.leader_epoch

    def failed(self, asked: Fetch | Lookup, error: QuorumlogError, now: float) -> None:
        """No answer came."""
        self._land(asked)
        self._cache.forget_node(asked.address)
        if self._replicas is not None:
            self._replicas.turn_from_node(asked.address)
            self.leaderless.update(cursor.tp.topic for cursor in self._current(asked))
        for cursor in self._current(asked):
            self._back_off(cursor, error, now)

    def _land(self, asked: Fetch | Lookup) -> None:
        """It is in flight no longer."""
        if isinstance(asked, Fetch):
            self._outstanding_bytes -= asked.max_bytes
            asked.max_bytes = 0  # given back once, also where taking over its answer fails half-way
        for cursor in self._current(asked):
            cursor.fetching = False

    def _current(self, asked: Fetch | Lookup) -> list[Cursor]:
        return [cursor for cursor, generation in asked.wanted.values() if cursor.generation == generation]

    def _refused(self, cursor: Cursor, wire: pb.Error, address: str, now: float) -> None:
        error = from_wire(wire)
        if isinstance(error, OffsetOutOfRange):
            self._out_of_range(cursor, error)
        elif isinstance(error, Diverged) and self.settings.on_diverged == "reset":
            cursor.move(Offset(error.end_offset))
        else:
            self._redirect(cursor, wire, address)
            self._back_off(cursor, error, now)
            if self._replicas is not None and error.retriable:
                self._ask_another(self._replicas, cursor, wire, address, now)

    def _ask_another(self, replicas: ReplicaChoice, cursor: Cursor, wire: pb.Error, address: str, now: float) -> None:
        # NOT_LEADER from a node that was asked as a replica says that it has none.
        if kind_of(wire.code).refresh_metadata:
            self.leaderless.add(cursor.tp.topic)
        if replicas.turn_from(cursor.tp, address):
            cursor.retry_at = now

    def _redirect(self, cursor: Cursor, wire: pb.Error, address: str) -> None:
        """Believe what an error says about who leads."""
        tp = cursor.tp
        news = wire.HasField("leader") and self._cache.learn_leader(tp.topic, tp.partition, wire.leader)
        if not news and kind_of(wire.code).refresh_metadata:
            self._cache.forget_leader(tp.topic, tp.partition, address)

    def _out_of_range(self, cursor: Cursor, error: OffsetOutOfRange) -> None:
        reset = self.settings.reset
        if cursor.start is not None and cursor.handed is None and not cursor.buffered:
            start = cursor.start
            cursor.move(Offset(-1))
            cursor.start = start
        elif reset == "raise":
            error.args = (f"{cursor.tp}: {error.message}",)
            error.message = f"{cursor.tp}: {error.message}"
            cursor.error = error
        else:
            cursor.move(Offset(error.log_start_offset if reset == "earliest" else error.log_end_offset))

    def _back_off(self, cursor: Cursor, error: QuorumlogError, now: float) -> None:
        """Try again later, or tell the user where that is no use."""
        if not error.retriable:
            cursor.error = error
            return
        cursor.failures += 1
        # The first redirect is followed at once.
        wait = 0.0 if cursor.failures == 1 and error.leader else full_jitter(cursor.failures, self._rng)
        cursor.retry_at = now + max(wait, error.retry_after_seconds)

    # -- handing out

    @property
    def buffered_bytes(self) -> int:
        """Bytes fetched and not yet handed out."""
        return sum(cursor.buffered_bytes for cursor in self.cursors.values())

    def take(self) -> Chunk | None:
        """Return what one partition has, one partition after the other; None if none has anything.

        Raises:
            QuorumlogError: a partition cannot be read on. Moving its position clears that.
        """
        for _ in range(len(self._turns)):
            cursor = self._turns[0]
            self._turns.rotate(-1)
            if cursor.buffered and not cursor.paused:
                batches, cursor.buffered = cursor.buffered, deque()
                cursor.buffered_bytes = 0
                return Chunk(cursor, batches)
        for cursor in self._turns:
            if cursor.error is not None:
                raise cursor.error
        return None

    @property
    def at_stop(self) -> bool:
        """Whether every partition has reached its stop; False while there is no partition or no stop."""
        return bool(self.cursors) and all(cursor.at_stop for cursor in self.cursors.values())


def list_offsets_partition(topic_id: bytes, topic: str, partition: int, position: Start) -> pb.ListOffsetsPartition:
    """Return the question for one partition: earliest, latest, or the first record at or after a time in
    milliseconds."""
    message = pb.ListOffsetsPartition(topic_id=topic_id, topic=topic, partition=partition)
    if position == "earliest":
        message.earliest = True
    elif position == "latest":
        message.latest = True
    else:
        message.timestamp_ms = position
    return message


def _where(cursor: Cursor, position: Start) -> pb.ListOffsetsPartition:
    return list_offsets_partition(cursor.topic_id, cursor.tp.topic, cursor.tp.partition, position)


def _is_refusal(listed: pb.ListedOffset) -> bool:
    return listed.HasField("error") and listed.error.code != pb.OK
