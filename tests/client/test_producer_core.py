"""What the producer's core asks its shell for."""

import random

import pytest

from quorumlog.encoding import encode
from quorumlog.errors import ConnectionFailed, DeliveryFailed, Fenced, NoLeader, TimedOut, UnknownTopic, from_wire
from quorumlog.futures import SendFuture
from quorumlog.partition_sender import Attempt
from quorumlog.producer_core import ProducerCore, ProducerSettings
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from tests.client.model_log import REMEMBERED_BATCHES, ModelPartition


def make() -> ProducerCore:
    return ProducerCore(ProducerSettings(linger=0.005, delivery_timeout=60.0), 1, 0, random.Random(1))


def test_a_batch_that_waits_for_a_leader_does_not_wake_the_loop_again_and_again() -> None:
    core = make()
    core.append("t", bytes(16), 0, b"value", None, (), 0, now=100.0)
    assert list(core.poll(100.0, lambda sender: None)) == []
    first = core.next_wakeup(100.0)
    assert first is not None
    assert first <= 100.005
    assert list(core.poll(101.0, lambda sender: None)) == []
    later = core.next_wakeup(101.0)
    assert later is not None
    assert later > 150.0, "only its deadline is left to time"


def test_a_record_that_was_never_sent_is_given_up_with_what_was_heard_of_its_leader() -> None:
    core = make()
    future = core.append("t", bytes(16), 0, b"value", None, (), 0, now=100.0)
    assert future is not None
    core.unreachable("other", TimedOut("127.0.0.1:7072 did not answer in time"), 110.0)
    core.unreachable("t", NoLeader("nobody leads t[0]"), 120.0)
    core.expire(160.0)
    with pytest.raises(DeliveryFailed, match=r"delivery_timeout: it was never sent; last heard: nobody leads t\[0\]"):
        future.result(0)


class Log:
    """A partition's leader, and the core that sends to it; only the topic of `topic_id` exists."""

    def __init__(self, core: ProducerCore, topic_id: bytes) -> None:
        self.core = core
        self.partition = ModelPartition("t", topic_id, 0, leader="a")

    def send(self, topic_id: bytes, value: bytes, now: float = 0.0) -> SendFuture:
        future = self.core.append("t", topic_id, 0, value, None, (), 0, now)
        assert future is not None
        self.deliver(now)
        return future

    def deliver(self, now: float) -> None:
        for _, attempts in self.core.poll(now, lambda sender: "a"):
            for attempt in attempts:
                self.answer(attempt, now)
            self.core.request_done("a")

    def answer(self, attempt: Attempt, now: float) -> None:
        sender = attempt.sender
        error: pb.Error | None
        if sender.topic_id != self.partition.topic_id:
            error = make_error(pb.UNKNOWN_TOPIC, "no such topic")
        else:
            sent = encode(attempt.batch, sender.producer_id, 0)
            error, base_offset, duplicate = self.partition.produce(sent, attempt.number)
        if error is None:
            self.core.appended(attempt, base_offset, duplicate=duplicate)
        else:
            self.core.refused(attempt, from_wire(error), now)


def test_a_topic_that_comes_to_light_again_goes_on_with_its_sequences() -> None:
    log = Log(make(), b"n" * 16)
    for number in range(8):
        log.send(b"n" * 16, b"%d" % number)
    stray = log.send(b"o" * 16, b"for the topic that had the name before")
    assert isinstance(stray.exception(0), DeliveryFailed)
    assert log.send(b"n" * 16, b"after it").result(0).offset == 8
    assert log.partition.values()[-1] == b"after it"


def test_the_sequences_of_another_producer_with_the_same_id_are_no_acknowledgement() -> None:
    first, copied = Log(make(), b"n" * 16), Log(make(), b"n" * 16)
    copied.partition = first.partition
    for number in range(2 * REMEMBERED_BATCHES):
        first.send(b"n" * 16, b"%d" % number)
    late = copied.send(b"n" * 16, b"lost")  # its sequence was forgotten as one of the last five, or not
    with pytest.raises(DeliveryFailed, match="somebody else sends as the same producer"):
        late.result(0)
    with pytest.raises(Fenced):
        copied.send(b"n" * 16, b"not taken any more")


def test_after_a_topic_was_given_up_its_records_are_sent_again_under_the_next_epoch() -> None:
    log = Log(make(), b"n" * 16)
    log.send(b"n" * 16, b"1").result(0)
    lost = log.core.append("t", b"n" * 16, 0, b"2", None, (), 0, 0.0)
    assert lost is not None
    assert log.core.poll(0.0, lambda sender: "a"), "sent, and lost on the way"
    log.core.request_done("a")
    log.core.fail_topic("t", UnknownTopic("a node that is behind knows no topic t", hint=""))
    assert lost.done()
    assert log.send(b"n" * 16, b"3").result(0).offset == 1


def test_a_record_behind_a_back_off_is_looked_at_when_that_is_over() -> None:
    core = make()
    first = core.append("t", bytes(16), 0, b"a", None, (), 0, now=0.0)
    ((_, (attempt,)),) = core.poll(0.0, lambda sender: "a")
    core.request_done("a")
    core.lost(attempt, ConnectionFailed("down", hint="", address="a", stage="tcp"), 59.9)
    sender = attempt.sender
    sender.retry_at = 61.0
    second = core.append("t", bytes(16), 0, b"b", None, (), 0, now=59.95)
    core.expire(60.0)
    assert first is not None
    assert second is not None
    assert (first.done(), second.done()) == (True, False)
    assert core.next_wakeup(60.0) == 61.0
