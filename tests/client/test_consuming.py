"""The consumer over a real gRPC connection: positions, stops, errors and groups."""

import asyncio
import threading
import time
from datetime import UTC, datetime

import pytest

import quorumlog
from quorumlog.aio.cluster import Deadline
from quorumlog.errors import Fatal, QuorumlogError
from quorumlog.member import Member
from quorumlog.records import Offset, Record, TopicPartition
from tests.client.fake_cluster import FakeCluster


def fill(cluster: FakeCluster, topic: str, partitions: int, count: int) -> None:
    cluster.create(topic, partitions)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        for number in range(count):
            producer.send(topic, b"%d" % number, partition=number % partitions, timestamp=1000.0 + number)


def test_every_record_comes_once_and_in_order(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 3, 900)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders", stop="latest") as consumer:
        seen: dict[int, list[Record]] = {0: [], 1: [], 2: []}
        for record in consumer:
            seen[record.partition].append(record)
    for partition, records in seen.items():
        assert [record.offset for record in records] == list(range(300))
        assert [record.value for record in records] == [b"%d" % n for n in range(partition, 900, 3)]
        assert records[5].timestamp == 1000.0 + partition + 15


def test_batches_values_and_poll_read_the_same(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 2, 500)
    expected = sorted(b"%d" % n for n in range(500))
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer("orders", stop="latest") as consumer:
            assert sorted(r.value or b"" for records in consumer.batches() for r in records) == expected
        with client.consumer("orders", stop="latest") as consumer:
            assert sorted(value or b"" for values in consumer.values() for value in values) == expected
        with client.consumer("orders", stop="latest") as consumer:
            polled = []
            while records := consumer.poll(max_records=7, timeout=10):
                assert len(records) <= 7
                polled += records
            assert sorted(r.value or b"" for r in polled) == expected


def test_ways_of_reading_can_be_mixed(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 100)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders", stop="latest") as consumer:
        offsets = [next(consumer).offset, next(consumer).offset]
        offsets += [record.offset for record in consumer.poll(max_records=10, timeout=10)]
        offsets.append(next(consumer).offset)
        offsets += [record.offset for records in consumer.batches() for record in records]
    assert offsets == list(range(100))


def test_explicit_partitions_offsets_and_stops(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 2, 100)
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer(partitions={"orders": {1: 10}}, stop=20) as consumer:
            assert [(r.partition, r.offset) for r in consumer] == [(1, offset) for offset in range(10, 20)]
        with client.consumer(partitions={"orders": [0]}, start=1050.0, stop="latest") as consumer:
            assert [r.offset for r in consumer] == list(range(25, 50))
        later = datetime.fromtimestamp(1090, UTC)
        with client.consumer("orders", start=later, stop="latest") as consumer:
            assert sorted(r.timestamp for r in consumer) == [1000.0 + n for n in range(90, 100)]
        assert client.offsets("orders") == {0: 50, 1: 50}
        assert client.offsets("orders", at="earliest") == {0: 0, 1: 0}
        assert client.offsets("orders", at=1010.0) == {0: 5, 1: 5}


def test_nothing_yet_is_an_empty_list(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders", start="latest") as consumer:
        assert consumer.poll(timeout=0.2) == []


def test_a_record_sent_later_is_delivered(cluster: FakeCluster) -> None:
    cluster.create("orders", 2)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders", start="latest") as consumer:
        assert consumer.poll(timeout=0.2) == []
        with client.producer() as producer:
            producer.send("orders", b"late")
        assert [record.value for record in consumer.poll(timeout=10)] == [b"late"]


def test_seek_goes_back(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 10)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders") as consumer:
        assert [next(consumer).offset for _ in range(5)] == [0, 1, 2, 3, 4]
        consumer.seek("orders", 0, 1)
        assert next(consumer).offset == 1
        with pytest.raises(quorumlog.UnknownPartition, match="not assigned"):
            consumer.seek("orders", 9, 0)


def test_an_offset_out_of_range_raises_unless_told_otherwise(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 10)
    with quorumlog.connect(cluster.bootstrap) as client:
        with (
            client.consumer(partitions={"orders": {0: 99}}) as consumer,
            pytest.raises(quorumlog.OffsetOutOfRange, match=r"orders\[0\].*99") as caught,
        ):
            next(consumer)
        assert (caught.value.log_start_offset, caught.value.log_end_offset) == (0, 10)
        with client.consumer(partitions={"orders": {0: 99}}, reset="earliest") as consumer:
            assert next(consumer).offset == 0


def test_a_log_that_has_diverged_raises_unless_told_otherwise(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 10)
    of_another_log = {"orders": {0: Offset(5, leader_epoch=9)}}
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer(partitions=of_another_log) as consumer, pytest.raises(quorumlog.Diverged) as caught:
            next(consumer)
        assert caught.value.end_offset == 1
        with client.consumer(partitions=of_another_log, on_diverged="reset") as consumer:
            assert next(consumer).offset == 1


def test_a_wrong_checksum_is_found_and_named(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 10)
    batch = cluster.topics["orders"][0].batches[0]
    batch.payload = batch.payload[:-1] + bytes([batch.payload[-1] ^ 1])
    with (
        quorumlog.connect(cluster.bootstrap) as client,
        client.consumer("orders") as consumer,
        pytest.raises(quorumlog.BatchCorrupt, match=r"orders\[0\]: the batch at offset 0"),
    ):
        next(consumer)


def test_a_new_leader_is_followed(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 10)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders") as consumer:
        assert next(consumer).offset == 0
        partition = cluster.topics["orders"][0]
        partition.leader, partition.leader_id, partition.leader_epoch = cluster.addresses[1], 2, 2
        cluster.wake()
        with client.producer() as producer:
            producer.send("orders", b"new")
        assert [next(consumer).offset for _ in range(10)] == list(range(1, 11))


# -- groups


def test_a_leader_that_died_before_the_first_question_is_found_again(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 1)
    (partition,) = cluster.topics["orders"]
    alive, partition.leader = partition.leader, "127.0.0.1:1"
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders") as consumer:
        assert consumer.poll(timeout=0.3) == [], "nobody answers where it is thought to be"
        partition.leader, partition.leader_epoch = alive, partition.leader_epoch + 1
        assert [record.value for record in consumer.poll(timeout=10.0)] == [b"0"]


def test_offsets_are_asked_of_the_leader_that_took_over(cluster: FakeCluster) -> None:
    (partition,) = cluster.create("orders", 1)
    alive, partition.leader = partition.leader, "127.0.0.1:1"
    with quorumlog.connect(cluster.bootstrap) as client:
        with pytest.raises(QuorumlogError):
            client.offsets("orders", timeout=0.2)
        partition.leader, partition.leader_epoch = alive, partition.leader_epoch + 1
        assert client.offsets("orders", timeout=10.0) == {0: 0}


def test_a_group_goes_on_where_it_stopped(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 2, 100)
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer("orders", group="billing") as consumer:
            first = {(r.partition, r.offset) for r in (next(consumer) for _ in range(40))}
        with client.consumer("orders", group="billing", stop="latest") as consumer:
            second = {(r.partition, r.offset) for r in consumer}
        # The last record handed out was never done, so it comes again; nothing else does, and nothing is skipped.
        assert len(first & second) == 1
        assert len(first | second) == 100
        assert client.groups.describe("billing").lag <= 1


def test_only_what_is_done_is_committed(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 100)
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer("orders", group="billing") as consumer:
            for _ in range(10):
                next(consumer)
        assert cluster.groups["billing"].committed == {("orders", 0): (9, 1)}


def test_the_end_that_a_group_begins_at_is_committed_before_any_record(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 5)
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer("orders", group="g", start="latest") as consumer:
            assert consumer.poll(timeout=0.5) == []
        with client.producer() as producer:
            producer.send("orders", b"in between")
        with client.consumer("orders", group="g", start="latest") as consumer:
            assert [record.value for record in consumer.poll(timeout=10.0)] == [b"in between"]


def test_a_lost_partition_is_dropped_though_its_callback_waits_for_its_turn(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 5)
    fill(cluster, "other", 1, 0)

    async def scenario() -> None:
        go_on = asyncio.Event()

        async def on_lost(partitions: set[TopicPartition]) -> None:
            await go_on.wait()

        async with (
            quorumlog.aio.connect(cluster.bootstrap) as client,
            client.consumer("orders", "other", group="g", on_lost=on_lost) as consumer,
        ):
            assert await consumer.poll(timeout=10.0)
            cluster.recreate("other", "g")
            cluster.recreate("orders", "g")
            async with asyncio.timeout(10):
                while consumer.assignment():  # noqa: ASYNC110 - nothing else tells that it is gone
                    await asyncio.sleep(0.001)
            await consumer.commit()
            assert cluster.groups["g"].commits == []
            go_on.set()

    asyncio.run(scenario())


def test_manual_commits_only_what_it_is_told(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 100)
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer("orders", group="billing", commit="manual") as consumer:
            for _ in range(10):
                next(consumer)
            consumer.commit(timeout=10)
            for _ in range(10):
                next(consumer)
        assert cluster.groups["billing"].committed == {("orders", 0): (10, 1)}


def test_partitions_move_when_a_member_joins_and_leaves(cluster: FakeCluster) -> None:
    cluster.create("orders", 4)
    told: list[tuple[str, int]] = []
    with quorumlog.connect(cluster.bootstrap) as client:
        first = client.consumer(
            "orders",
            group="billing",
            on_assign=lambda tps: told.append(("assign", len(tps))),
            on_revoke=lambda tps: told.append(("revoke", len(tps))),
        )
        until(lambda: first.poll(timeout=0.05) == [] and len(first.assignment()) == 4)
        second = client.consumer("orders", group="billing")
        until(
            lambda: (
                first.poll(timeout=0.05) + second.poll(timeout=0.05) == []
                and (len(first.assignment()), len(second.assignment())) == (2, 2)
            )
        )
        assert first.assignment() | second.assignment() == {TopicPartition("orders", n) for n in range(4)}
        second.close()
        until(lambda: first.poll(timeout=0.05) == [] and len(first.assignment()) == 4)
        assert told == [("assign", 4), ("revoke", 2), ("assign", 2)]
        first.close()


def test_a_partition_is_given_back_only_when_the_handler_is_done(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 2, 20)
    with quorumlog.connect(cluster.bootstrap) as client:
        first = client.consumer("orders", group="billing")
        in_hand = next(first)  # the handler works on this one
        second = client.consumer("orders", group="billing")
        second.open()
        revoked = threading.Event()

        def watch() -> None:
            until(lambda: len(first.assignment()) == 1)
            revoked.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert revoked.wait(20)
        watcher.join()
        kept = {tp.partition for tp in first.assignment()}
        group = cluster.groups["billing"]
        if in_hand.partition not in kept:
            assert ("orders", in_hand.partition) in group.releasing
        rest = [next(first) for _ in range(9)]
        handed = [in_hand, *rest]
        second_seen = [next(second) for _ in range(9)]
        positions = {(r.partition, r.offset) for r in second_seen}
        assert not positions & {(r.partition, r.offset) for r in handed}, "nothing is handed out to both"
        first.close()
        second.close()


def test_pings_are_answered_while_the_handler_works(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 5)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders", group="billing") as consumer:
        next(consumer)  # and never asks again
        cluster.ping("billing")
        until(lambda: cluster.pongs == 1)


def test_a_lost_session_is_resumed_with_the_same_member(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 10)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders", group="billing") as consumer:
        assert next(consumer).offset == 0
        group = cluster.groups["billing"]
        members = set(group.members)

        def drop() -> None:
            for queue in group.members.values():
                queue.put_nowait(quorumlog.proto.client_pb2.GroupResponse())

        cluster.loop.call_soon_threadsafe(drop)
        until(lambda: group.joins == 2)
        assert [next(consumer).offset for _ in range(9)] == list(range(1, 10)), "what was fetched is still good"
        until(lambda: set(group.members) == members)


def test_groups_are_listed_described_and_reset(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 2, 100)
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.consumer("orders", group="billing", stop="latest") as consumer:
            assert sum(1 for _ in consumer) == 100
            with pytest.raises(quorumlog.GroupNotEmpty, match="'billing' has members"):
                client.groups.reset("billing", "orders", to="earliest")
        assert [group.group for group in client.groups.list()] == ["billing"]
        until(lambda: not cluster.groups["billing"].members)
        assert client.groups.reset("billing", "orders", to="earliest") == {0: 0, 1: 0}
        assert client.groups.describe("billing").lag == 100
        assert client.groups.reset("billing", "orders", to=1010.0) == {0: 5, 1: 5}
        assert client.groups.reset("billing", "orders", to={0: 50}) == {0: 50}
        assert client.groups.describe("billing").lag == 45
        with pytest.raises(quorumlog.UnknownGroup, match="'nobody'"):
            client.groups.describe("nobody")


def test_a_callback_that_raises_is_told_to_the_user(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 10)

    def broken(partitions: set[TopicPartition]) -> None:
        raise ZeroDivisionError("in the callback")

    with (
        quorumlog.connect(cluster.bootstrap) as client,
        client.consumer("orders", group="billing", on_assign=broken) as consumer,
        pytest.raises(quorumlog.Fatal, match="ZeroDivisionError: in the callback"),
    ):
        until(lambda: consumer.poll(timeout=0.2) is None)


def test_a_membership_that_breaks_is_told_to_the_user(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cluster, "orders", 1, 1)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders", group="g") as consumer:
        assert consumer.poll(timeout=10.0)

        def received(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Member, "received", received)
        cluster.ping("g")
        with pytest.raises(Fatal, match="the membership in group g ended with RuntimeError: a bug"):
            next(consumer)


def test_asyncio_reads_the_same(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 2, 200)

    async def read() -> None:
        async with quorumlog.aio.connect(cluster.bootstrap) as client:
            async with client.consumer("orders", stop="latest") as consumer:
                assert len({(r.partition, r.offset) async for r in consumer}) == 200
            async with client.consumer("orders", stop="latest", group="g") as consumer:
                assert sum([len(values) async for values in consumer.values()]) == 200
            async with client.consumer("orders", stop="latest") as consumer:
                assert sum([len(records) async for records in consumer.batches()]) == 200
                assert await consumer.poll(timeout=0) == []

    asyncio.run(read())


def test_a_wait_cancelled_in_the_turn_of_the_news_leaves_the_records_to_the_next(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 0)

    async def scenario() -> None:
        async with (
            quorumlog.aio.connect(cluster.bootstrap) as client,
            client.consumer("orders", max_wait=0.2) as consumer,
            client.producer() as producer,
        ):
            assert await consumer.poll(timeout=0.5) == []
            assert consumer._fetcher is not None
            waiting = asyncio.create_task(consumer.poll(timeout=30.0))
            news, buffered = consumer._fetcher.news.set, consumer._core.cursors.values()

            def set_and_cancel() -> None:
                news()
                if any(cursor.buffered for cursor in buffered):
                    waiting.cancel()

            consumer._fetcher.news.set = set_and_cancel  # type: ignore[method-assign]
            await (await producer.send("orders", b"first"))
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert [record.value for record in await consumer.poll(timeout=10.0)] == [b"first"]

    asyncio.run(scenario())


def test_records_whose_wait_was_interrupted_are_handed_out_by_the_next(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 100)

    async def read() -> None:
        async with (
            quorumlog.aio.connect(cluster.bootstrap) as client,
            client.consumer("orders", stop="latest") as consumer,
        ):
            for _ in range(3):
                # What a Ctrl-C leaves behind that strikes between the arrival and the iteration.
                assert await consumer.next_records(Deadline(10.0))
            assert [record.offset async for record in consumer] == list(range(100))

    asyncio.run(read())


def test_contradictions_are_refused_with_the_fix(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client:
        with pytest.raises(quorumlog.InvalidRequest, match="nothing to consume"):
            client.consumer()
        with pytest.raises(quorumlog.InvalidRequest, match="start='begin'"):
            client.consumer("orders", start="begin")  # type: ignore[arg-type] # what is tested
        with pytest.raises(quorumlog.InvalidRequest, match="without a group"):
            client.consumer("orders", group="g", partitions={"orders": [0]})
        with pytest.raises(quorumlog.InvalidRequest, match="group name"):
            client.consumer("orders", group="no spaces")
        with client.consumer("orders") as consumer, pytest.raises(quorumlog.InvalidRequest, match="nothing to commit"):
            consumer.commit()


def until(condition: object) -> None:
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + 20
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


@pytest.mark.parametrize("group", [None, "billing"])
def test_polls_too_short_to_look_up_the_topic_return_nothing_and_lose_nothing(
    cluster: FakeCluster, group: str | None
) -> None:
    cluster.create("orders", 1)
    cluster.hold_topics = asyncio.Event()
    with (
        quorumlog.connect(cluster.bootstrap) as client,
        client.producer() as producer,
        client.consumer("orders", group=group) as consumer,
    ):
        assert [consumer.poll(timeout=0.01) for _ in range(5)] == [[]] * 5
        with pytest.raises(quorumlog.TimedOut, match=r"not looked up within 0\.01 s"):
            consumer.open(timeout=0.01)
        cluster.loop.call_soon_threadsafe(cluster.hold_topics.set)
        producer.send("orders", b"v")
        assert next(consumer).value == b"v"


def test_a_send_too_short_to_look_up_the_topic_does_not_blame_the_buffer(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.hold_topics = asyncio.Event()
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        with pytest.raises(quorumlog.TimedOut, match="did not tell about orders"):
            producer.send("orders", b"v", timeout=0.2)
        cluster.loop.call_soon_threadsafe(cluster.hold_topics.set)
        assert producer.send("orders", b"v", timeout=10).result(10).offset == 0


def test_an_unknown_topic_is_raised_by_a_poll(cluster: FakeCluster) -> None:
    with (
        quorumlog.connect(cluster.bootstrap) as client,
        client.consumer("nowhere") as consumer,
        pytest.raises(quorumlog.UnknownTopic, match="nowhere"),
    ):
        consumer.poll(timeout=10)
