"""Subscriptions: what is pushed, for how much credit, and what a strange subscriber cannot do to a node."""

from __future__ import annotations

import pytest

from quorumlog.node.broker import subscribe
from quorumlog.proto import client_pb2 as pb
from tests.node.broker.lone_broker import LoneBroker, batch


@pytest.fixture
def node() -> LoneBroker:
    return LoneBroker()


def opening(
    credit_bytes: int, *partitions: pb.FetchPartition, fetch_format: pb.FetchFormat.ValueType = pb.BATCHES
) -> pb.SubscribeRequest:
    return pb.SubscribeRequest(
        open=pb.SubscribeOpen(partitions=partitions, credit_bytes=credit_bytes, format=fetch_format)
    )


def test_many_small_pushes_do_not_nest(node: LoneBroker) -> None:
    node.create("t")
    sent: list[pb.FetchResponse] = []
    node.broker.subscribing.open(opening(1 << 30, pb.FetchPartition(topic="t", max_bytes=1)), sent.append)
    node.settle()
    node.produce("t", *(batch([b"x"]) for _ in range(2000)))
    assert sum(len(response.partitions[0].batches) for response in sent) == 2000


def test_a_subscriber_that_does_not_read_is_sent_a_bounded_amount(node: LoneBroker) -> None:
    node.create("t")
    sent: list[pb.FetchResponse] = []
    subscription = node.broker.subscribing.open(opening(1 << 31, pb.FetchPartition(topic="t")), sent.append)
    assert subscription is not None
    for _ in range(40):
        node.produce("t", batch([b"x" * 900_000]))
    unread_bytes = sum(response.ByteSize() for response in sent)
    assert 16 << 20 <= unread_bytes <= 18 << 20
    for response in sent:
        subscription.on_written(response)
        node.settle()
    assert sum(len(response.partitions[0].batches) for response in sent) == 40


def test_what_fails_counts_as_unread_too(node: LoneBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribe, "UNWRITTEN_SIZE_BYTES_MAX", 2000)
    node.create("t")
    sent: list[pb.FetchResponse] = []
    failing = [pb.FetchPartition(topic="t", partition=number) for number in range(1000, 1100)]
    subscription = node.broker.subscribing.open(opening(1, *failing), sent.append)
    assert subscription is not None
    node.settle()
    unread_bytes = sum(response.ByteSize() for response in sent)
    assert 2000 <= unread_bytes < 2000 + sent[-1].ByteSize()
    for response in sent:
        subscription.on_written(response)
        node.settle()
    assert [response.partitions[0].partition for response in sent] == list(range(1000, 1100))


def test_credit_is_spent_and_granted(node: LoneBroker) -> None:
    node.create("t")
    sent: list[pb.FetchResponse] = []
    subscription = node.broker.subscribing.open(opening(1, pb.FetchPartition(topic="t", max_bytes=1)), sent.append)
    assert subscription is not None
    node.produce("t", batch([b"a"]), batch([b"b"]))
    assert [response.partitions[0].batches[0].base_offset for response in sent] == [0], "one batch may overdraw it"
    assert node.broker.subscribing.on_request(subscription, pb.SubscribeRequest(credit_bytes=1000), sent.append)
    node.settle()
    assert [response.partitions[0].batches[0].base_offset for response in sent] == [0, 1]


def test_rows_go_on_behind_the_last_one(node: LoneBroker) -> None:
    node.create("t")
    sent: list[pb.FetchResponse] = []
    request = opening(10_000, pb.FetchPartition(topic="t"), fetch_format=pb.ROWS)
    node.broker.subscribing.open(request, sent.append)
    node.produce("t", batch([b"a", b"b"]))
    node.produce("t", batch([b"c"]))
    offsets = [row.offset for response in sent for row in response.partitions[0].rows.records]
    assert offsets == [0, 1, 2]


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (pb.SubscribeRequest(credit_bytes=5), "must be `open`"),
        (pb.SubscribeRequest(), "must be `open`"),
        (opening(1, pb.FetchPartition(topic="t", offset=-1)), "offset -1"),
        (opening(1, *(pb.FetchPartition(topic="t", partition=number) for number in range(4097))), "4096 partitions"),
    ],
)
def test_an_open_that_is_none_ends_the_stream(node: LoneBroker, request_: pb.SubscribeRequest, named: str) -> None:
    sent: list[pb.FetchResponse] = []
    assert node.broker.subscribing.open(request_, sent.append) is None
    assert named in sent[0].error.message
    node.broker.subscribing.on_progress([(b"", 0)])
    assert len(sent) == 1


def test_an_unknown_format_is_refused_by_number(node: LoneBroker) -> None:
    sent: list[pb.FetchResponse] = []
    request = pb.SubscribeRequest()
    request.open.ParseFromString(b"\x20\x63")  # format 99, as a later client may say
    assert node.broker.subscribing.open(request, sent.append) is None
    assert "99" in sent[0].error.message


@pytest.mark.parametrize("strange", [opening(5), pb.SubscribeRequest()])
def test_a_second_open_ends_the_stream(node: LoneBroker, strange: pb.SubscribeRequest) -> None:
    sent: list[pb.FetchResponse] = []
    subscription = node.broker.subscribing.open(opening(5), sent.append)
    assert subscription is not None
    assert not node.broker.subscribing.on_request(subscription, strange, sent.append)
    assert subscription.closed
    assert "opened once" in sent[0].error.message


def test_changes_cannot_add_positions_without_end(node: LoneBroker) -> None:
    sent: list[pb.FetchResponse] = []
    subscription = node.broker.subscribing.open(opening(5), sent.append)
    assert subscription is not None
    taken = True
    for number in range(5):
        names = [pb.FetchPartition(topic=f"t{number}", partition=one) for one in range(1000)]
        change = pb.SubscribeRequest(change=pb.SubscribeChange(add=names))
        taken = node.broker.subscribing.on_request(subscription, change, sent.append)
    assert not taken
    assert "4096 partitions" in sent[-1].error.message
