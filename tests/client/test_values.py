"""Small parts: errors, durations, chunks, partitions, beliefs, futures."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from quorumlog import errors
from quorumlog.backoff import full_jitter
from quorumlog.durations import limit, seconds, timestamp_ms
from quorumlog.futures import BatchCompletion, BulkFuture, SendFuture
from quorumlog.metadata import MetadataCache
from quorumlog.partitioner import StickyPartitioner
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import ERRORS, make_error
from quorumlog.proto.murmur2 import partition_for_key
from quorumlog.records import Record
from quorumlog.send_plan import plan_chunks


@pytest.mark.parametrize("code", sorted(set(ERRORS) - {pb.OK}))
def test_every_code_becomes_an_error_that_agrees_with_the_table(code: int) -> None:
    row = ERRORS[code]
    error = errors.from_wire(make_error(row.code, "it happened"))
    assert (error.code, error.retriable, error.hint) == (row.name, row.retriable, row.hint)
    assert isinstance(error, errors.Retriable if row.retriable else errors.Fatal)
    named = errors._CLASSES.get(row.name)
    assert named is None or type(error) is named, "the class must stand on the side of the tree that the flag says"


def test_a_code_of_a_newer_node_goes_by_its_flags() -> None:
    error = errors.from_wire(pb.Error(code=999, message="new", retriable=True, outcome=pb.NOT_APPENDED))  # type: ignore[arg-type] # a newer one
    assert (type(error), error.code, error.outcome) == (errors.Retriable, "CODE_999", errors.Outcome.NOT_APPENDED)


def test_the_outcome_of_many_is_certain_only_if_each_is() -> None:
    cause = errors.TimedOut("late", hint="wait")

    def failed(outcome: errors.Outcome) -> errors.FailedBatch:
        return errors.FailedBatch("t", 0, 2, outcome, cause, (b"secret",))

    certain = errors.DeliveryFailed([failed(errors.Outcome.NOT_APPENDED)] * 2)
    mixed = errors.DeliveryFailed([failed(errors.Outcome.NOT_APPENDED), failed(errors.Outcome.UNKNOWN)])
    assert (certain.outcome, mixed.outcome, mixed.count) == (errors.Outcome.NOT_APPENDED, errors.Outcome.UNKNOWN, 4)
    assert "secret" not in repr(mixed.batches[0])


def test_a_record_does_not_show_its_payload() -> None:
    record = Record("t", 1, 5, 0.0, b"key", b"secret", (("h", b"hidden"),), 2)
    assert repr(record) == "Record(t[1]@5, key 3 B, value 6 B, 1 headers)"


def test_durations_are_seconds_or_timedeltas_and_none_is_no_limit() -> None:
    assert (seconds("linger", 2), seconds("linger", timedelta(minutes=1))) == (2.0, 60.0)
    assert limit("timeout", None) is None
    for wrong in (-1, float("nan")):
        with pytest.raises(errors.InvalidRequest, match="linger="):
            seconds("linger", wrong)


def test_times_are_datetimes_or_seconds() -> None:
    assert timestamp_ms("start", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)) == 1_700_000_000_000
    assert timestamp_ms("start", 1.5) == 1500
    with pytest.raises(errors.InvalidRequest, match="seconds \\(not milliseconds\\)"):
        timestamp_ms("start", 1_700_000_000_000)


def test_backoff_grows_to_a_cap_and_is_spread() -> None:
    rng = random.Random(1)
    assert all(0 <= full_jitter(n, rng) <= min(1.0, 0.02 * 2 ** (n - 1)) for n in range(1, 50))
    assert len({full_jitter(9, rng) for _ in range(100)}) == 100


def test_keys_go_where_kafka_puts_them_and_the_rest_goes_everywhere() -> None:
    partitioner = StickyPartitioner(6, random.Random(1))
    assert all(partitioner.for_key(b"%d" % n) == partition_for_key(b"%d" % n, 6) for n in range(100))
    counts = [0] * 6
    for _ in range(6000):
        before = partitioner.sticky
        counts[partitioner.turn()] += 1
        assert partitioner.sticky != before
    assert min(counts) > 800


@pytest.mark.parametrize("seed", range(50))
def test_chunks_hold_every_record_once_in_order_and_within_bounds(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.choice([None, rng.randbytes(rng.randrange(200))]) for _ in range(rng.randrange(300))]
    keys = [rng.choice([None, b"%d" % rng.randrange(9)]) for _ in values] if rng.random() < 0.5 else None
    partitioner = StickyPartitioner(4, rng)
    chunks = list(
        plan_chunks("t", values, keys, None, partitioner, chunk_bytes=rng.randrange(1, 2000), record_bytes_max=10_000)
    )
    if keys is None:
        assert [value for chunk in chunks for value in chunk.values] == values
    else:
        for number in range(4):
            own = [pair for c in chunks if c.partition == number for pair in zip(c.values, c.keys or (), strict=True)]
            remaining = iter(zip(values, keys, strict=True))
            assert all(pair in remaining for pair in own), "the order is kept within a partition"
        assert sum(len(chunk.values) for chunk in chunks) == len(values)
    for chunk in chunks:
        assert chunk.size_bytes == sum(
            16 + len(v or b"") + len(k or b"")
            for v, k in zip(chunk.values, chunk.keys or [None] * len(chunk.values), strict=True)
        )


def test_columns_that_disagree_or_hold_text_are_refused() -> None:
    partitioner = StickyPartitioner(1, random.Random(1))

    def plan(values: list[object], keys: list[object] | None) -> None:
        list(plan_chunks("t", values, keys, None, partitioner, chunk_bytes=99, record_bytes_max=99))  # type: ignore[arg-type] # what is tested

    with pytest.raises(errors.InvalidRequest, match="1 keys for 2 values"):
        plan([b"a", b"b"], [b"k"])
    with pytest.raises(errors.InvalidRequest, match="values contain int, str"):
        plan([b"a", "b", 3], None)


def metadata(leader: str, epoch: int, topic_id: bytes = b"1", catalogue_version: int = 0) -> pb.MetadataResponse:
    topic = pb.TopicMetadata(name="t", topic_id=topic_id)
    topic.partitions.add(partition=0, leader=pb.Leader(address=leader, leader_epoch=epoch))
    return pb.MetadataResponse(topics=[topic], catalogue_version=catalogue_version)


def test_an_older_leader_does_not_replace_a_newer_one() -> None:
    cache = MetadataCache()
    cache.update(metadata("a:1", 5))
    cache.update(metadata("b:1", 4))
    assert cache.leader("t", 0) == "a:1"
    assert not cache.learn_leader("t", 0, pb.Leader(address="b:1", leader_epoch=4))
    assert cache.learn_leader("t", 0, pb.Leader(address="b:1", leader_epoch=6))
    assert not cache.learn_leader("t", 0, pb.Leader(address="b:1", leader_epoch=6)), "no news the second time"
    cache.forget_leader("t", 0, "a:1")
    assert cache.leader("t", 0) == "b:1"
    cache.forget_node("b:1")
    assert cache.leader("t", 0) is None


def test_a_topic_created_again_begins_with_new_leaders() -> None:
    cache = MetadataCache()
    cache.update(metadata("a:1", 5))
    cache.update(metadata("b:1", 1, topic_id=b"2"))
    assert cache.leader("t", 0) == "b:1"


def test_a_node_that_lags_behind_does_not_bring_a_deleted_topic_back() -> None:
    cache = MetadataCache()
    cache.update(metadata("a:1", 5, topic_id=b"1", catalogue_version=7))
    cache.update(metadata("a:1", 1, topic_id=b"2", catalogue_version=9))
    cache.update(metadata("b:1", 6, topic_id=b"1", catalogue_version=8))
    assert (cache.topics["t"].topic_id, cache.leader("t", 0)) == (b"2", "a:1")
    cache.update(metadata("b:1", 2, topic_id=b"2", catalogue_version=8))
    assert cache.leader("t", 0) == "b:1", "but it may know the newest leader"
    cache.update(metadata("b:1", 6, topic_id=b"1", catalogue_version=8))
    assert cache.topics["t"].topic_id == b"2"


def test_a_node_that_cannot_tell_yet_takes_no_topic_away() -> None:
    cache = MetadataCache()
    cache.update(metadata("a:1", 5))
    behind = pb.TopicMetadata(name="t", error=make_error(pb.NOT_YET_AVAILABLE, "behind"))
    assert cache.update(pb.MetadataResponse(topics=[behind]))["t"].retriable
    assert cache.leader("t", 0) == "a:1"
    gone = pb.TopicMetadata(name="t", error=make_error(pb.UNKNOWN_TOPIC, "gone"))
    assert not cache.update(pb.MetadataResponse(topics=[gone]))["t"].retriable
    assert "t" not in cache.topics


def test_a_future_that_is_not_done_in_time_says_so() -> None:
    batch = BatchCompletion("t", 0)
    future = SendFuture(batch, 0)
    assert not future.done()
    with pytest.raises(errors.TimedOut, match=r"not done within 0\.01 s"):
        future.result(0.01)
    batch.timestamps_ms = [1500]
    batch.base_offset = 7
    batch.finish()
    assert (future.result().offset, future.result().timestamp, future.exception()) == (7, 1.5, None)
    assert BulkFuture([(batch, 0, 1)]).result()[0].base_offset == 7


def test_cancelling_a_wait_leaves_the_delivery_alone() -> None:
    async def run() -> int:
        batch = BatchCompletion("t", 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batch.wait_async(), 0.01)
        batch.timestamps_ms = [0]
        batch.base_offset = 3
        batch.finish()
        return (await SendFuture(batch, 0)).offset

    assert asyncio.run(run()) == 3
