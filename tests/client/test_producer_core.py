"""What the producer's core asks its shell for."""

import random

import pytest

from quorumlog.errors import DeliveryFailed, NoLeader, TimedOut
from quorumlog.producer_core import ProducerCore, ProducerSettings


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
