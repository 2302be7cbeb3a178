"""A topic whose limit is below what the client sends at once."""

import re

import pytest

import quorumlog
from tests.integration.cluster import LocalCluster

LIMIT = 2048
VALUES = [b"%05d" % number + bytes(200) for number in range(300)]


def log_of(client: quorumlog.Client, topic: str) -> list[bytes | None]:
    with client.consumer(topic, stop="latest") as consumer:
        return [record.value for record in consumer]


def test_batches_are_cut_to_the_limit_and_stay_in_order(shared: LocalCluster) -> None:
    shared.create_topic("small-batches", configs={"max.message.bytes": str(LIMIT)})
    with quorumlog.connect(shared.bootstrap) as client:
        with client.producer() as producer:
            appended = producer.send_many("small-batches", VALUES).result(30)
        assert log_of(client, "small-batches") == VALUES
    assert sum(part.count for part in appended) == len(VALUES)


def test_a_limit_lowered_under_a_producer_splits_what_it_sends(shared: LocalCluster) -> None:
    shared.create_topic("lowered")
    with quorumlog.connect(shared.bootstrap) as client:
        with client.producer() as producer:
            producer.send("lowered", b"first").result(30)
            client.topics.alter("lowered", set={"max.message.bytes": str(LIMIT)})
            futures = [producer.send("lowered", value) for value in VALUES]
            producer.flush(timeout=30)
            assert [future.result().offset for future in futures] == list(range(1, len(VALUES) + 1))
        assert log_of(client, "lowered") == [b"first", *VALUES]


def test_a_limit_raised_under_a_producer_lets_larger_records_through(shared: LocalCluster) -> None:
    shared.create_topic("raised")
    large = bytes(2 << 20)
    with quorumlog.connect(shared.bootstrap) as client:
        with client.producer() as producer:
            producer.send("raised", b"first").result(30)
            client.topics.alter("raised", set={"max.message.bytes": str(3 << 20)})
            assert producer.send("raised", large).result(30).offset == 1
        assert log_of(client, "raised") == [b"first", large]


def test_one_record_over_the_limit_fails_alone_and_is_named_with_the_limit(shared: LocalCluster) -> None:
    shared.create_topic("one-too-large", configs={"max.message.bytes": str(LIMIT)})
    with quorumlog.connect(shared.bootstrap) as client:
        producer = client.producer()
        futures = [producer.send("one-too-large", value) for value in (b"before", bytes(5000), b"after")]
        with pytest.raises(quorumlog.DeliveryFailed, match=r"1 record.*none of them was appended") as caught:
            producer.flush(timeout=30)
        producer.close()
        cause = caught.value.batches[0].error
        assert isinstance(cause, quorumlog.RecordTooLarge)
        assert re.search(r"a batch of 50\d\d bytes", cause.message)
        assert f"{LIMIT} are allowed" in cause.message
        assert "max.message.bytes" in cause.hint
        assert [futures[0].exception(), futures[2].exception()] == [None, None]
        assert log_of(client, "one-too-large") == [b"before", b"after"]
