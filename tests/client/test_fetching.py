"""What a consumer fetches, and what answers mean."""

import random

import pytest

from quorumlog.cursor import Cursor
from quorumlog.errors import Diverged, OffsetOutOfRange, TimedOut
from quorumlog.fetching import Fetch, FetchCore, FetchSettings
from quorumlog.metadata import MetadataCache
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import encode_columns, header_for, seal
from quorumlog.proto.errors import make_error
from quorumlog.records import Offset, TopicPartition

TP = TopicPartition("orders", 0)
ID = b"i" * 16


def batch(base_offset: int, count: int, epoch: int = 1) -> pb.RecordBatch:
    payload = encode_columns([b"%d" % n for n in range(base_offset, base_offset + count)], None, None, [5] * count)
    sealed = seal(header_for(count, first_timestamp_ms=5), payload)
    sealed.base_offset = base_offset
    sealed.leader_epoch = epoch
    return sealed


def core(
    partitions: int = 1, *, cache: MetadataCache | None = None, settings: FetchSettings | None = None
) -> FetchCore:
    beliefs = MetadataCache() if cache is None else cache
    topic = pb.TopicMetadata(name="orders", topic_id=ID)
    for number in range(partitions):
        leader = pb.Leader(node_id=1, address="node-1:7070", leader_epoch=1)
        topic.partitions.add(partition=number, leader=leader)
    beliefs.update(pb.MetadataResponse(topics=[topic]))
    return FetchCore(settings or FetchSettings(), beliefs, random.Random(1))


def answer(core: FetchCore, fetch: Fetch, *batches: pb.RecordBatch, error: pb.Error | None = None) -> None:
    part = pb.FetchedPartition(
        topic="orders", topic_id=ID, partition=0, batches=batches, error=error, high_watermark=99
    )
    core.fetched(fetch, pb.FetchResponse(partitions=[part]), 0.0)


def only(fetches: list[Fetch]) -> Fetch:
    (fetch,) = fetches
    return fetch


def start(core: FetchCore, offset: int, epoch: int | None = None) -> Cursor:
    return core.add(TP, ID, Offset(offset, epoch))


def listed(offset: int, error: pb.Error | None = None) -> pb.ListOffsetsResponse:
    found = pb.ListedOffset(topic_id=ID, topic="orders", partition=0, offset=offset, error=error)
    return pb.ListOffsetsResponse(offsets=[found])


def look_up(core: FetchCore, *, start: int | None = None, stop: int | None = None) -> None:
    """Let the leader answer what is asked, and nothing else be asked."""
    (lookup,) = core.lookups(0.0)
    assert (bool(lookup.starts.partitions), bool(lookup.stops.partitions)) == (start is not None, stop is not None)
    stops = pb.ListOffsetsResponse() if stop is None else listed(stop)
    core.looked_up(lookup, stops, pb.ListOffsetsResponse() if start is None else listed(start), 0.0)


def test_a_fetch_carries_topic_id_offset_and_the_epoch_before_it() -> None:
    consumer = core()
    start(consumer, 7, 3)
    request = only(consumer.fetches(0.0)).request(consumer.settings)
    (part,) = request.partitions
    assert (part.topic_id, part.partition, part.offset, part.last_leader_epoch) == (ID, 0, 7, 3)


def test_the_next_fetch_goes_on_behind_what_came() -> None:
    consumer = core()
    start(consumer, 0)
    answer(consumer, only(consumer.fetches(0.0)), batch(0, 5), batch(5, 5, epoch=2))
    (part,) = only(consumer.fetches(0.0)).request(consumer.settings).partitions
    assert (part.offset, part.last_leader_epoch) == (10, 2)


def test_a_fetch_that_failed_while_its_answer_was_taken_over_gives_its_bytes_back_once() -> None:
    cache = MetadataCache()
    consumer = core(cache=cache, settings=FetchSettings(prefetch_bytes=1 << 20, partition_bytes=4 << 20))
    start(consumer, 0)
    fetch = only(consumer.fetches(0.0))
    answer(consumer, fetch)
    consumer.failed(fetch, TimedOut("in the middle"), 0.0)
    cache.learn_leader("orders", 0, pb.Leader(node_id=1, address="node-1:7070", leader_epoch=2))
    assert only(consumer.fetches(99.0)).max_bytes == 1 << 20


def test_a_partition_is_in_one_fetch_at_a_time() -> None:
    consumer = core()
    start(consumer, 0)
    assert len(consumer.fetches(0.0)) == 1
    assert consumer.fetches(0.0) == []


def test_a_batch_that_begins_earlier_is_cut() -> None:
    consumer = core()
    start(consumer, 3)
    answer(consumer, only(consumer.fetches(0.0)), batch(0, 5))
    chunk = consumer.take()
    assert chunk is not None
    assert [(record.offset, record.value) for record in chunk.records()] == [(3, b"3"), (4, b"4")]


def test_asking_for_the_next_record_makes_the_one_before_done() -> None:
    consumer = core()
    cursor = start(consumer, 0)
    answer(consumer, only(consumer.fetches(0.0)), batch(0, 3))
    chunk = consumer.take()
    assert chunk is not None
    records = chunk.records()
    first = next(records)
    assert (cursor.handed, cursor.done) == (first, None)
    next(records)
    assert cursor.done == first


def test_nothing_more_is_handed_out_of_a_partition_given_away() -> None:
    consumer = core()
    cursor = start(consumer, 0)
    answer(consumer, only(consumer.fetches(0.0)), batch(0, 3))
    chunk = consumer.take()
    assert chunk is not None
    records = chunk.records()
    first = next(records)
    consumer.remove(TP)
    assert next(records, None) is None
    assert cursor.done == first, "the one in hand is done all the same"


def test_an_answer_from_before_a_seek_is_void() -> None:
    consumer = core()
    cursor = start(consumer, 0)
    fetch = only(consumer.fetches(0.0))
    cursor.move(Offset(50))
    answer(consumer, fetch, batch(0, 5))
    assert consumer.take() is None
    assert only(consumer.fetches(0.0)).request(consumer.settings).partitions[0].offset == 50


def test_prefetching_is_bounded_in_bytes() -> None:
    consumer = core(settings=FetchSettings(prefetch_bytes=1000, partition_bytes=400))
    start(consumer, 0)
    fetch = only(consumer.fetches(0.0))
    assert fetch.max_bytes == 400
    answer(consumer, fetch, batch(0, 150))
    assert consumer.buffered_bytes > 200
    assert consumer.fetches(0.0) == [], "half of what a partition may have is waiting"
    assert consumer.take() is not None
    assert len(consumer.fetches(0.0)) == 1


def test_partitions_take_turns() -> None:
    consumer = core(partitions=2)
    for number in range(2):
        consumer.add(TopicPartition("orders", number), ID, Offset(0))
    fetch = only(consumer.fetches(0.0))
    response = pb.FetchResponse()
    for number in range(2):
        response.partitions.add(topic="orders", topic_id=ID, partition=number, batches=[batch(0, 2)])
    consumer.fetched(fetch, response, 0.0)
    chunks = [consumer.take(), consumer.take()]
    assert [chunk.cursor.tp.partition for chunk in chunks if chunk is not None] == [0, 1]
    assert consumer.take() is None


def test_a_new_leader_that_was_named_is_asked_at_once() -> None:
    consumer = core()
    start(consumer, 0)
    leader = pb.Leader(node_id=2, address="node-2:7070", leader_epoch=2)
    answer(consumer, only(consumer.fetches(0.0)), error=make_error(pb.NOT_LEADER, "moved", leader=leader))
    assert only(consumer.fetches(0.0)).address == "node-2:7070"


def test_a_leader_that_is_not_known_is_asked_for() -> None:
    consumer = core()
    start(consumer, 0)
    answer(consumer, only(consumer.fetches(0.0)), error=make_error(pb.NOT_LEADER, "moved"))
    assert consumer.fetches(10.0) == []
    assert consumer.leaderless == {"orders"}


def test_a_node_that_does_not_answer_is_not_asked_again_before_the_news() -> None:
    consumer = core()
    start(consumer, 0)
    consumer.failed(only(consumer.fetches(0.0)), TimedOut("no answer"), 0.0)
    assert consumer.fetches(10.0) == []
    assert consumer.leaderless == {"orders"}


@pytest.mark.parametrize(("reset", "offset"), [("earliest", 20), ("latest", 99)])
def test_out_of_range_resets_where_asked(reset: str, offset: int) -> None:
    consumer = core(settings=FetchSettings(reset=reset))  # type: ignore[arg-type] # one of the words
    start(consumer, 0)
    gone = make_error(pb.OUT_OF_RANGE, "gone", log_start_offset=20, log_end_offset=99)
    answer(consumer, only(consumer.fetches(0.0)), error=gone)
    assert only(consumer.fetches(0.0)).request(consumer.settings).partitions[0].offset == offset


def test_out_of_range_raises_by_default_and_keeps_raising() -> None:
    consumer = core()
    start(consumer, 0)
    gone = make_error(pb.OUT_OF_RANGE, "gone", log_start_offset=20, log_end_offset=99)
    answer(consumer, only(consumer.fetches(0.0)), error=gone)
    for _ in range(2):
        with pytest.raises(OffsetOutOfRange, match=r"orders\[0\]: gone"):
            consumer.take()
    assert consumer.fetches(10.0) == []


def test_a_start_that_retention_has_overtaken_is_looked_up_again() -> None:
    consumer = core()
    consumer.add(TP, ID, None)
    look_up(consumer, start=0)
    gone = make_error(pb.OUT_OF_RANGE, "gone", log_start_offset=20, log_end_offset=99)
    answer(consumer, only(consumer.fetches(0.0)), error=gone)
    look_up(consumer, start=20)
    (part,) = only(consumer.fetches(0.0)).request(consumer.settings).partitions
    assert part.offset == 20


def test_the_stop_is_looked_up_once_and_before_the_start() -> None:
    consumer = core(settings=FetchSettings(stop="latest"))
    cursor = consumer.add(TP, ID, None)
    (lookup,) = consumer.lookups(0.0)
    assert lookup.stops.partitions[0].latest
    assert lookup.starts.partitions[0].earliest
    assert consumer.lookups(0.0) == [], "one question at a time"
    refused = make_error(pb.STORAGE_CORRUPT, "the start cannot be read")
    consumer.looked_up(lookup, listed(3), listed(-1, refused), 0.0)
    assert not cursor.resolved
    assert consumer.fetches(10.0) == []


def test_a_leader_that_moved_is_asked_where_a_partition_begins() -> None:
    consumer = core()
    consumer.add(TP, ID, None)
    (lookup,) = consumer.lookups(0.0)
    leader = pb.Leader(node_id=2, address="node-2:7070", leader_epoch=2)
    moved = make_error(pb.NOT_LEADER, "moved", leader=leader)
    consumer.looked_up(lookup, pb.ListOffsetsResponse(), listed(-1, moved), 0.0)
    assert [lookup.address for lookup in consumer.lookups(0.0)] == ["node-2:7070"]


def test_a_node_that_does_not_tell_where_a_partition_begins_is_not_asked_again_before_the_news() -> None:
    consumer = core()
    consumer.add(TP, ID, None)
    (lookup,) = consumer.lookups(0.0)
    consumer.failed(lookup, TimedOut("no answer"), 0.0)
    assert consumer.lookups(10.0) == []
    assert consumer.leaderless == {"orders"}


def test_a_question_that_was_left_out_of_the_answer_is_asked_again_later() -> None:
    consumer = core()
    consumer.add(TP, ID, None)
    (lookup,) = consumer.lookups(0.0)
    consumer.looked_up(lookup, pb.ListOffsetsResponse(), pb.ListOffsetsResponse(), 0.0)
    assert consumer.lookups(0.0) == []
    assert len(consumer.lookups(10.0)) == 1


def test_records_before_an_error_are_handed_out_first() -> None:
    consumer = core()
    start(consumer, 0)
    answer(consumer, only(consumer.fetches(0.0)), batch(0, 3))
    answer(consumer, only(consumer.fetches(0.0)), error=make_error(pb.DIVERGED, "parted", end_offset=2, leader_epoch=1))
    chunk = consumer.take()
    assert chunk is not None
    assert len(list(chunk.records())) == 3
    with pytest.raises(Diverged) as caught:
        consumer.take()
    assert (caught.value.end_offset, caught.value.leader_epoch) == (2, 1)


def test_a_stop_ends_in_the_middle_of_a_batch() -> None:
    consumer = core(settings=FetchSettings(stop_offset=4))
    start(consumer, 0)
    answer(consumer, only(consumer.fetches(0.0)), batch(0, 10))
    chunk = consumer.take()
    assert chunk is not None
    assert len(chunk.next_values()) == 4
    assert consumer.at_stop
    assert consumer.fetches(10.0) == []


def test_a_position_beyond_the_end_that_was_to_be_the_stop_is_out_of_range() -> None:
    consumer = core(settings=FetchSettings(stop="latest"))
    cursor = start(consumer, 9999)
    look_up(consumer, stop=3)
    assert isinstance(cursor.error, OffsetOutOfRange)
    assert "offset 9999 is beyond the end, 3" in cursor.error.message
    assert cursor.error.hint
