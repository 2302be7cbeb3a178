"""A group member under virtual time: the shipped member and fetch cores, and a handler that takes time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from quorumlog.backoff import full_jitter
from quorumlog.chaos.sim.channel import Channel, GroupStream
from quorumlog.chaos.sim.producers import Metadata
from quorumlog.chaos.sim.world import World
from quorumlog.cursor import Chunk, Cursor
from quorumlog.errors import ConnectionFailed, QuorumlogError
from quorumlog.fetching import Fetch, FetchCore, FetchSettings, Lookup
from quorumlog.member import Assigned, Committed, Ended, Event, Lost, Member, Revoked
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import Offset, Record, TopicPartition

COMMIT_SECONDS = 0.3
COMMIT_ANSWER_SECONDS = 2.0


class Delivery(NamedTuple):
    """One record that a member was given."""

    member: int
    stint: int
    topic_id: bytes
    partition: int
    offset: int
    value: bytes | None
    epoch: int
    at: float


class SimMember:
    """Joins, fetches, handles, commits, releases. `stuck` stops its background loop; `handler_seconds` is how long a
    chunk of records takes.
    """

    def __init__(
        self,
        world: World,
        number: int,
        group: str,
        topics: list[str],
        deliveries: list[Delivery],
        *,
        session_timeout: float = 3.0,
        handler_seconds: Callable[[], float] = lambda: 0.0,
        settings: FetchSettings | None = None,
    ) -> None:
        self.world = world
        self.number = number
        self.rng = random.Random(world.rng.getrandbits(64))
        self.channel = Channel(world)
        self.metadata = Metadata(self.channel, self.rng)
        self.core = FetchCore(settings or FetchSettings(reset="earliest", max_wait=0.5), self.metadata.cache, self.rng)
        self.member = Member(group, topics, f"member{number}", session_timeout)
        self.deliveries = deliveries
        self.handler_seconds = handler_seconds
        self.stuck = False
        self.dead = False
        self.committed: dict[tuple[bytes, int], int] = {}
        self.errors: list[QuorumlogError] = []
        self._stream: GroupStream | None = None
        self._coordinator = ""
        self._failures = 0
        self._stint = 0
        self._stints: dict[Cursor, int] = {}
        self._draining: dict[TopicPartition, Cursor] = {}
        self._settling: dict[int, Callable[[], None]] = {}
        self._backlog: list[Event] = []
        self._unread: list[tuple[GroupStream, pb.GroupResponse]] = []
        self._busy = False
        self._heard_at = 0.0
        self._wake_at: float | None = None
        self._find_coordinator()
        self.world.after(COMMIT_SECONDS, self._tick)

    def die(self) -> None:
        """The process is gone."""
        self.dead = True
        if self._stream is not None:
            self._stream.break_off()

    def unstick(self) -> None:
        """Let the background loop go on with what has come in the meantime."""
        self.stuck = False
        unread, self._unread = self._unread, []
        for stream, response in unread:
            self._received(stream, response)

    def leave(self) -> None:
        """Leave the group and end."""
        self.member.leave()
        self._flush()
        self.dead = True

    # The session

    def _find_coordinator(self) -> None:
        if self.dead:
            return
        if self._coordinator:
            self._connect()
            return
        request = pb.FindCoordinatorRequest(group=self.member.group)

        def answered(response: pb.FindCoordinatorResponse) -> None:
            if not response.HasField("error"):
                replicas = list(response.replicas)
                self._coordinator = response.coordinator.address or (self.rng.choice(replicas) if replicas else "")
            if self._coordinator:
                self._connect()
            else:
                self._again()

        self.channel.ask(
            self.channel.anyone(),
            lambda broker, reply: reply(broker.groups.find_coordinator(request)),
            answered,
            self._again,
        )

    def _again(self) -> None:
        self._failures += 1
        self.world.after(full_jitter(self._failures, self.rng), self._find_coordinator)

    def _connect(self) -> None:
        if self.dead:
            return
        stream = self._stream = self.channel.stream(
            self._coordinator,
            lambda response: self._received(stream, response),
            lambda: self._ended(stream, ""),
        )
        self._heard_at = self.world.clock.now()
        self.member.connected()
        self._flush()

    def _received(self, stream: GroupStream, response: pb.GroupResponse) -> None:
        if stream is not self._stream or self.dead:
            return
        if self.stuck:
            self._unread.append((stream, response))
            return
        self._heard_at = self.world.clock.now()
        for event in self.member.received(response, self._heard_at):
            if isinstance(event, Ended):
                self._on_error(stream, event.error)
                continue
            if isinstance(event, Committed):
                self._on_committed(event)
            else:
                self._backlog.append(event)
        if self.member.joined:
            self._failures = 0
        self._work()
        self._flush()

    def _on_error(self, stream: GroupStream, error: QuorumlogError) -> None:
        if not error.retriable and error.code not in ("UNKNOWN_MEMBER", "STALE_MEMBER_EPOCH", "UNKNOWN_TOPIC"):
            self.errors.append(error)
        self._ended(stream, error.leader)

    def _ended(self, stream: GroupStream, hint: str) -> None:
        if stream is not self._stream:
            return
        stream.break_off()
        self._stream = None
        self.member.disconnected()
        settling, self._settling = self._settling, {}
        for go_on in settling.values():
            go_on()
        self._coordinator = hint if hint != self._coordinator else ""
        self._again()

    def _flush(self) -> None:
        outbox, self.member.outbox = self.member.outbox, []
        for request in outbox:
            if self._stream is not None and not self.dead:
                self._stream.write(request)

    # Assignments, one event after the other

    def _work(self) -> None:
        while self._backlog and not self._draining:
            event = self._backlog.pop(0)
            if isinstance(event, Assigned):
                self._assign(event)
            elif isinstance(event, Revoked):
                self._revoke(event.partitions)
            elif isinstance(event, Lost):
                for tp in event.partitions:
                    self.core.remove(tp)
        self.pump()

    def _assign(self, event: Assigned) -> None:
        for tp, (topic_id, position) in event.partitions.items():
            if self.member.owns(tp, topic_id) and tp not in self.core.cursors:
                cursor = self.core.add(tp, topic_id, position)
                cursor.committed = position.offset if position is not None else -1
                self._stint += 1
                self._stints[cursor] = self._stint
                self.world.note(f"assign {self.number} {tp} {position}")

    def _revoke(self, partitions: tuple[TopicPartition, ...]) -> None:
        for tp in partitions:
            cursor = self.core.remove(tp)
            if cursor is not None:
                self._draining[tp] = cursor
        self._drain(partitions)

    def _drain(self, partitions: tuple[TopicPartition, ...]) -> None:
        if any(cursor.in_hand for cursor in self._draining.values()):
            self.world.after(0.01, lambda: self._drain(partitions))
            return

        def release() -> None:
            self._draining.clear()
            self.member.release(partitions)
            self._flush()
            self._work()

        commit_id = self._commit(list(self._draining.values()))
        if commit_id is None:
            release()
            return
        once = [release]

        def go_on() -> None:
            if once:
                once.pop()()

        self._settling[commit_id] = go_on
        self.world.after(COMMIT_ANSWER_SECONDS, go_on)

    # Commits

    def _tick(self) -> None:
        if self.dead:
            return
        self.world.after(COMMIT_SECONDS, self._tick)
        if self.stuck:
            return
        now = self.world.clock.now()
        if self._stream is not None and now - self._heard_at > self.member.session_timeout:
            self._ended(self._stream, "")
        self._backlog.extend(self.member.expire(now))
        self._commit(list(self.core.cursors.values()))
        self._flush()
        self._work()

    def _commit(self, cursors: list[Cursor]) -> int | None:
        positions = {}
        for cursor in cursors:
            done = cursor.done
            if done is not None and done.offset + 1 != cursor.committed:
                positions[cursor.tp] = cursor.topic_id, Offset(done.offset + 1, done.leader_epoch)
        if not positions:
            return None
        self.world.count("operations")
        commit_id = self.member.commit(positions)
        self._flush()
        return commit_id

    def _on_committed(self, event: Committed) -> None:
        for tp, offset in event.offsets.items():
            cursor = self.core.cursors.get(tp) or self._draining.get(tp)
            if cursor is not None:
                cursor.committed = offset
                key = cursor.topic_id, tp.partition
                self.committed[key] = max(self.committed.get(key, -1), offset)
        go_on = self._settling.pop(event.commit_id, None)
        if go_on is not None:
            go_on()

    # Fetching and handling

    def pump(self) -> None:
        """Ask for what is wanted, hand out what is there."""
        if self.dead:
            return
        now = self.world.clock.now()
        for lookup in self.core.lookups(now):
            self._look_up(lookup)
        for fetch in self.core.fetches(now):
            self._fetch(fetch)
        leaderless, self.core.leaderless = self.core.leaderless, set()
        self.metadata.refresh(leaderless, self.pump)
        self._handle()
        due = self.core.next_wakeup(now)
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._wake_at = due
            self.world.at(due, lambda: self._wake(due))

    def _wake(self, at: float) -> None:
        if self._wake_at == at:
            self._wake_at = None
            self.pump()

    def _look_up(self, lookup: Lookup) -> None:
        def answered(response: pb.ListOffsetsResponse) -> None:
            self.core.looked_up(lookup, pb.ListOffsetsResponse(), response, self.world.clock.now())
            self.pump()

        def lost() -> None:
            self.core.failed(lookup, _broken(lookup.address), self.world.clock.now())
            self.pump()

        assert not lookup.stops.partitions, "members have no stop"
        self.channel.ask(
            lookup.address, lambda broker, reply: broker.offsets.list_offsets(lookup.starts, reply), answered, lost
        )

    def _fetch(self, fetch: Fetch) -> None:
        self.world.count("operations")
        request = fetch.request(self.core.settings)

        def answered(response: pb.FetchResponse) -> None:
            self.core.fetched(fetch, response, self.world.clock.now())
            self.pump()

        def lost() -> None:
            self.core.failed(fetch, _broken(fetch.address), self.world.clock.now())
            self.pump()

        self.channel.ask(
            fetch.address, lambda broker, reply: _keep(broker.fetching.fetch(request, reply)), answered, lost
        )

    def _handle(self) -> None:
        """One chunk after the other: the handler's thread may be busy while the background loop goes on."""
        if self._busy or self.dead:
            return
        try:
            chunk = self.core.take()
        except QuorumlogError as error:
            self._on_cursor_error(error)
            return
        if chunk is None:
            return
        self._busy = True
        self._next(chunk)

    def _next(self, chunk: Chunk) -> None:
        if self.dead:
            return
        records = chunk.next_list()
        cursor = chunk.cursor
        if not records:
            self._busy = False
            self.pump()
            return
        cursor.in_hand = True
        self._deliver(cursor, records)

        def handled() -> None:
            cursor.in_hand = False
            if chunk.valid or not cursor.active:
                cursor.done = records[-1]
            self._next(chunk)

        self.world.after(self.handler_seconds(), handled)

    def _deliver(self, cursor: Cursor, records: list[Record]) -> None:
        stint = self._stints[cursor]
        for record in records:
            self.deliveries.append(
                Delivery(
                    self.number,
                    stint,
                    cursor.topic_id,
                    record.partition,
                    record.offset,
                    record.value,
                    record.leader_epoch,
                    self.world.clock.now(),
                )
            )
        self.world.note(f"got {self.number} {cursor.tp} {records[0].offset} {len(records)}")

    def _on_cursor_error(self, error: QuorumlogError) -> None:
        if error.code != "UNKNOWN_TOPIC":
            self.errors.append(error)
        for cursor in list(self.core.cursors.values()):
            if cursor.error is error:
                cursor.error = None
                cursor.retry_at = self.world.clock.now() + 0.2


def _broken(address: str) -> ConnectionFailed:
    return ConnectionFailed("the stream broke", address=address, stage="tcp", hint="")


def _keep(give_up: Callable[[], None]) -> None:
    """The answer comes by itself; nobody gives a fetch up here."""
