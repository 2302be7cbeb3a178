"""A producer under virtual time: the shipped core, carried by a channel instead of streams and an event loop."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from quorumlog.backoff import full_jitter
from quorumlog.chaos.sim.channel import Channel
from quorumlog.chaos.sim.world import World
from quorumlog.encoding import encode
from quorumlog.errors import ConnectionFailed, QuorumlogError, from_wire
from quorumlog.metadata import MetadataCache
from quorumlog.partition_sender import Attempt, PartitionSender
from quorumlog.pending import PendingBatch
from quorumlog.producer_core import ProducerCore, ProducerSettings
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import kind_of


@dataclass(slots=True)
class Sent:
    """One record: its value, its batch and its place in it, so its offset once the batch is done."""

    topic: str
    topic_id: bytes
    partition: int
    value: bytes
    batch: PendingBatch
    position: int

    @property
    def acked(self) -> bool:
        """Whether the cluster has promised to keep it."""
        return self.batch.done and self.batch.error is None

    @property
    def offset(self) -> int | None:
        """Its offset; None where the cluster knows only that it has the record."""
        assert self.acked
        return self.batch.base_offset + self.position if self.batch.base_offset >= 0 else None


class Metadata:
    """Who leads what, asked again and again until it is known."""

    def __init__(self, channel: Channel, rng: random.Random) -> None:
        self.channel = channel
        self.cache = MetadataCache()
        self.asking = False
        self.failed: dict[str, QuorumlogError] = {}
        self._rng = rng
        self._failures = 0

    def refresh(self, topics: set[str], done: Callable[[], None]) -> None:
        """Ask some node; `done` is called with nothing when it has answered or not."""
        if self.asking or not topics:
            return
        self.asking = True
        world = self.channel.world
        request = pb.MetadataRequest(topics=sorted(topics))

        def over() -> None:
            self.asking = False
            done()

        def answered(response: pb.MetadataResponse) -> None:
            self.failed = self.cache.update(response)
            known = [self.cache.topics.get(topic) for topic in topics]
            complete = all(topic is not None and None not in topic.leaders for topic in known)
            self._failures = 0 if complete else self._failures + 1
            world.after(0.0 if complete else full_jitter(self._failures, self._rng), over)

        def lost() -> None:
            self._failures += 1
            world.after(full_jitter(self._failures, self._rng), over)

        self.channel.ask(
            self.channel.anyone(), lambda broker, reply: broker.admin.metadata(request, reply), answered, lost
        )


class SimProducer:
    """Sends records and keeps what became of each, in the order in which they were sent."""

    def __init__(self, world: World, settings: ProducerSettings | None = None) -> None:
        self.world = world
        self.rng = random.Random(world.rng.getrandbits(64))
        self.channel = Channel(world)
        self.metadata = Metadata(self.channel, self.rng)
        self.core: ProducerCore | None = None
        self.sent: list[Sent] = []
        self.producer_id = 0
        self._settings = settings or ProducerSettings(batch_size=400)
        self._outcomes = 0
        self._waiting: list[tuple[str, int, bytes]] = []
        self._wake_at: float | None = None
        self._init()

    def _init(self) -> None:
        def answered(response: pb.InitProducerResponse) -> None:
            if response.HasField("error"):
                self.world.after(full_jitter(3, self.rng), self._init)
                return
            self.producer_id = response.producer_id
            self.core = ProducerCore(self._settings, response.producer_id, response.producer_epoch, self.rng)
            self.core.on_topic_gone = self._forget
            self.pump()

        self.channel.ask(
            self.channel.anyone(),
            lambda broker, reply: broker.admin.init_producer(reply),
            answered,
            lambda: self.world.after(full_jitter(3, self.rng), self._init),
        )

    def _forget(self, topic: str) -> None:
        self.metadata.cache.topics.pop(topic, None)

    def send(self, topic: str, partition: int, value: bytes) -> None:
        """Send one record, as soon as the topic is known."""
        self._waiting.append((topic, partition, value))
        self.pump()

    @property
    def backlog(self) -> int:
        """Records without an outcome, those that wait for their topic among them."""
        while self._outcomes < len(self.sent) and self.sent[self._outcomes].batch.done:
            self._outcomes += 1
        return len(self._waiting) + len(self.sent) - self._outcomes

    @property
    def settled(self) -> bool:
        """Whether every record has its outcome."""
        return not self._waiting and (self.core is None or not self.core.unsettled)

    def pump(self) -> None:
        """Send what may be sent."""
        core = self.core
        if core is None:
            return
        now = self.world.clock.now()
        self._take_waiting(core, now)
        core.expire(now)
        leaderless: set[str] = {topic for topic, _, _ in self._waiting}

        def leader_of(sender: PartitionSender) -> str | None:
            address = self.metadata.cache.leader(sender.topic, sender.partition)
            if address is None:
                leaderless.add(sender.topic)
            return address

        for address, attempts in core.poll(now, leader_of):
            self._request(core, address, attempts)
        self.metadata.refresh(leaderless, self._refreshed)
        self._arm(core, now)

    def _take_waiting(self, core: ProducerCore, now: float) -> None:
        waiting, self._waiting = self._waiting, []
        for topic, partition, value in waiting:
            known = self.metadata.cache.topics.get(topic)
            if known is None:
                self._waiting.append((topic, partition, value))
                continue
            wall_ms = self.world.clock.wall_ms()
            future = core.append(topic, known.topic_id, partition, value, None, (), wall_ms, now)
            assert future is not None, "the buffer is far larger than what a test sends"
            batch, position = future._batch, future._index
            assert isinstance(batch, PendingBatch)
            self.sent.append(Sent(topic, known.topic_id, partition, value, batch, position))

    def _refreshed(self) -> None:
        core = self.core
        assert core is not None
        for topic, error in self.metadata.failed.items():
            if not error.retriable:
                core.fail_topic(topic, error)
                self._waiting = [waiting for waiting in self._waiting if waiting[0] != topic]
        self.metadata.failed = {}
        self.pump()

    def _request(self, core: ProducerCore, address: str, attempts: list[Attempt]) -> None:
        request = pb.ProduceRequest(correlation_id=1)
        for attempt in attempts:
            request.batches.add(
                topic_id=attempt.sender.topic_id,
                topic=attempt.sender.topic,
                partition=attempt.sender.partition,
                attempt=attempt.number,
                batch=encode(attempt.batch, self.producer_id, 0),
            )
        open_attempts = dict(enumerate(attempts))

        def answered(result: pb.ProduceResult) -> None:
            attempt = open_attempts.pop(result.batch)
            self._on_result(core, attempt, result, address)
            if not open_attempts:
                core.request_done(address)
            self.pump()

        def lost() -> None:
            self.metadata.cache.forget_node(address)
            cause = ConnectionFailed("the stream broke", address=address, stage="tcp", hint="")
            core.request_done(address)
            for attempt in open_attempts.values():
                core.lost(attempt, cause, self.world.clock.now())
            self.pump()

        self.channel.ask(
            address, lambda broker, reply: broker.producing.produce(request, reply), answered, lost, len(attempts)
        )

    def _on_result(self, core: ProducerCore, attempt: Attempt, result: pb.ProduceResult, address: str) -> None:
        sender = attempt.sender
        if not result.HasField("error"):
            self.world.note(f"ack {self.producer_id} {sender.partition} {result.base_offset}")
            core.appended(attempt, result.base_offset, duplicate=result.duplicate)
            return
        error, cache = result.error, self.metadata.cache
        self.world.note(f"refused {self.producer_id} {sender.partition} {error.code}")
        news = error.HasField("leader") and cache.learn_leader(sender.topic, sender.partition, error.leader)
        if not news and kind_of(error.code).refresh_metadata:
            cache.forget_leader(sender.topic, sender.partition, address)
        core.refused(attempt, from_wire(error), self.world.clock.now(), at_once=bool(news))

    def _arm(self, core: ProducerCore, now: float) -> None:
        due = core.next_wakeup(now)
        if due is None or due == float("inf"):
            return
        at = max(due, now + 0.02)
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            self.world.at(at, lambda: self._wake(at))

    def _wake(self, at: float) -> None:
        if self._wake_at == at:
            self._wake_at = None
            self.pump()
