"""The producer's core against the model log under virtual time: leader changes, lost answers, lost streams, late
requests, limits of size that sink.

Nothing acknowledged is lost or doubled, nothing reported as not appended is there, and the order of sending is the
order of the log.
"""

import functools
import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from quorumlog.encoding import encode
from quorumlog.errors import DeliveryFailed, Outcome, Retriable, from_wire
from quorumlog.futures import SendFuture
from quorumlog.partition_sender import Attempt, PartitionSender
from quorumlog.producer_core import ProducerCore, ProducerSettings
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from tests.client.model_log import ModelPartition

# Sequences that five batches in flight cannot span.
FAR = 60
NODES = ("node-1:7070", "node-2:7070", "node-3:7070")


class Harness:
    """Two partitions on three nodes, one producer, one clock, and a network that loses and delays."""

    def __init__(self, seed: int, *, delivery_timeout: float, loss: float) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.ticket = itertools.count()
        self.partitions = [ModelPartition("t", b"0" * 16, n, NODES[n % 3], leader_id=n % 3 + 1) for n in range(2)]
        self.believed = [NODES[0], NODES[0]]
        settings = ProducerSettings(batch_size=200, delivery_timeout=delivery_timeout, linger=0.005)
        self.core = ProducerCore(settings, 7, 0, self.rng)
        self.sent: list[tuple[int, bytes, SendFuture]] = []
        self.healed = False
        self.timer_at = 0.0
        self.on_the_way = [0, 0]
        self.records_max = 1000

    def at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.ticket), action))

    def leader_of(self, sender: PartitionSender) -> str:
        return self.believed[sender.partition]

    def pump(self) -> None:
        self.core.expire(self.now)
        for address, attempts in self.core.poll(self.now, self.leader_of):
            self.request(address, attempts)
        at = self.core.next_wakeup(self.now)
        if at is not None:
            at = max(self.now + 0.0005, at)
            if not self.now < self.timer_at <= at:
                self.timer_at = at
                self.at(at - self.now, lambda: None)

    def request(self, address: str, attempts: list[Attempt]) -> None:
        open_attempts = {id(a): a for a in attempts}
        fate = 1.0 if self.healed else self.rng.random()
        wire = [(a, encode(a.batch, a.sender.producer_id, pb.NONE), a.number) for a in attempts]

        def settle(attempt: Attempt, report: Callable[[], None]) -> None:
            if open_attempts.pop(id(attempt), None) is not None:
                report()
                if not open_attempts:
                    self.core.request_done(address)

        lost_on_the_way = fate < self.loss / 3
        lost_on_the_way_back = fate < self.loss
        cause = Retriable("the stream broke")

        def carry(attempt: Attempt, batch: pb.RecordBatch, number: int) -> None:
            def arrive() -> None:
                self.on_the_way[attempt.sender.partition] -= 1
                error, offset, duplicate = self.serve(address, attempt.sender.partition, batch, number)
                if not lost_on_the_way_back:
                    back = self.rng.uniform(0.001, 0.02)
                    self.at(back, lambda: settle(attempt, lambda: self.answer(attempt, error, offset, duplicate)))

            delay = self.rng.uniform(0.001, 0.02)
            if self.loss * 0.8 < fate < self.loss:
                delay += self.rng.uniform(0, 3.0)  # it may also arrive long after its stream was given up
            if not lost_on_the_way:
                self.on_the_way[attempt.sender.partition] += 1
                self.at(delay, arrive)
            if lost_on_the_way_back:
                self.at(0.2, lambda: settle(attempt, lambda: self.core.lost(attempt, cause, self.now)))

        for attempt, batch, number in wire:
            carry(attempt, batch, number)

    def serve(
        self, address: str, number: int, batch: pb.RecordBatch, attempt: int
    ) -> tuple[pb.Error | None, int, bool]:
        partition = self.partitions[number]
        error = partition.leads(address, hint=self.rng.random() < 0.5)
        if error is not None:
            return error, -1, False
        if not self.healed and self.rng.random() < 0.03:
            return make_error(pb.THROTTLED, "slowly", retry_after_ms=30), -1, False
        if not self.healed and self.rng.random() < 0.02:
            # Appended to a tail that is cut off by the next leader.
            return make_error(pb.NOT_LEADER, "deposed", outcome=pb.OUTCOME_UNKNOWN), -1, False
        if batch.base_sequence > FAR and self.on_the_way[number] == 0 and self.rng.random() < 0.05 and not self.healed:
            # A log forgets a producer long after its last request has arrived, and never one whose first is unsettled.
            partition.producers.clear()
        if batch.count > self.records_max:
            return make_error(pb.RECORD_TOO_LARGE, f"{self.records_max} are allowed"), -1, False
        error, offset, duplicate = partition.produce(batch, attempt)
        if error is None and not self.healed and self.rng.random() < 0.05:
            return make_error(pb.TIMED_OUT, "committed, but nobody could tell in time"), -1, False
        return error, offset, duplicate

    def answer(self, attempt: Attempt, error: pb.Error | None, offset: int, duplicate: bool) -> None:
        if error is None:
            self.core.appended(attempt, offset, duplicate=duplicate)
            return
        number = attempt.sender.partition
        news = bool(error.leader.address)
        self.believed[number] = error.leader.address or self.rng.choice(NODES)
        self.core.refused(attempt, from_wire(error), self.now, at_once=news)

    def elect(self) -> None:
        partition = self.rng.choice(self.partitions)
        partition.leader = self.rng.choice(NODES) if self.rng.random() < 0.8 else None
        partition.leader_epoch += 1

    def heal(self) -> None:
        self.healed = True
        for partition in self.partitions:
            partition.leader = partition.leader or NODES[0]

    def send(self, number: int) -> None:
        partition = self.rng.randrange(2)
        value = b"%06d" % number
        future = self.core.append("t", b"0" * 16, partition, value, None, (), number, self.now)
        assert future is not None
        self.sent.append((partition, value, future))

    def run(self) -> None:
        times = sorted(self.rng.uniform(0, 3.0) for _ in range(300))
        for number, time in enumerate(times):
            self.at(time, functools.partial(self.send, number))
        for _ in range(self.rng.randrange(8)):
            self.at(self.rng.uniform(0, 4.0), self.elect)
        if self.rng.random() < 0.5:
            self.at(self.rng.uniform(0, 3.0), lambda: setattr(self, "records_max", self.rng.randrange(1, 5)))
        self.at(6.0, self.heal)
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
            self.pump()
            assert self.now < 1000, "it does not come to rest"


def check(harness: Harness) -> None:
    logs = [partition.values() for partition in harness.partitions]
    for log in logs:
        assert len(log) == len(set(log)), "a record is in the log twice"
        assert log == sorted(log), "records are not in the order of sending"
    for number, value, future in harness.sent:
        assert future.done()
        log = logs[number]
        error = future.exception()
        if error is None:
            offset = future.result().offset
            assert value in log, f"{value!r} was acknowledged and is not there"
            assert offset == -1 or log[offset] == value, f"{value!r} was acknowledged at another offset"
        else:
            assert isinstance(error, DeliveryFailed)
            if error.outcome is Outcome.NOT_APPENDED:
                assert value not in log, f"{value!r} was reported as not appended and is there"


@pytest.mark.parametrize("seed", range(3))
def test_limits_alone_cost_no_record(seed: int) -> None:
    print(f"seed {seed}")
    harness = Harness(seed, delivery_timeout=900.0, loss=0.0)  # one record at a time takes long here
    harness.heal()
    harness.records_max = 1
    harness.run()
    check(harness)
    assert all(future.exception() is None for _, _, future in harness.sent)


@pytest.mark.parametrize("block", range(6))
def test_nothing_acknowledged_is_lost_or_doubled(block: int) -> None:
    acknowledged = failed = 0
    for seed in range(block * 12, block * 12 + 12):
        print(f"seed {seed}")
        rng = random.Random(seed)
        harness = Harness(seed, delivery_timeout=rng.choice([0.4, 1.5, 30.0]), loss=rng.choice([0.0, 0.1, 0.3]))
        harness.run()
        check(harness)
        acknowledged += sum(future.exception() is None for _, _, future in harness.sent)
        failed += sum(future.exception() is not None for _, _, future in harness.sent)
        assert harness.core.buffered_bytes == 0
        assert not harness.core.unsettled
    assert acknowledged > 500 < failed, "the faults were too mild or too harsh to show anything"


def test_without_faults_everything_is_acknowledged_in_order() -> None:
    harness = Harness(1, delivery_timeout=30.0, loss=0.0)
    harness.heal()
    harness.run()
    check(harness)
    assert all(future.exception() is None for _, _, future in harness.sent)


def test_the_same_seed_gives_the_same_run() -> None:
    def trace(seed: int) -> list[list[bytes]]:
        harness = Harness(seed, delivery_timeout=1.5, loss=0.3)
        harness.run()
        return [partition.values() for partition in harness.partitions]

    assert trace(11) == trace(11)
