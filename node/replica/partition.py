"""The state of a user partition: a small fold over its log. The records themselves are the log."""

from __future__ import annotations

from typing import NamedTuple

from quorumlog.node.replica.producers import (
    PRODUCER_TTL_MS,
    PURGE_PERIOD_MS,
    TIME_STEP_MS_MAX,
    Judgement,
    ProducedBatch,
    Producer,
    fold,
    judge,
)
from quorumlog.node.storage.entry import HEADER_BYTES, EntryHeader, payload_of
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import BatchHeader, read_stored_header
from quorumlog.raft.types import EntryKind


class Trimmed(NamedTuple):
    """Result of a committed trim: readers begin at `log_start_offset`; entries through `upto_index` may be dropped."""

    log_start_offset: int
    upto_index: int


class PartitionMachine:
    """Next offset, log start and producers of one partition.

    Invariant: 0 <= log_start_offset <= next_offset, and next_offset never falls. `overlay` stands for entries after the
    applied ones and is filled on the leader only; an entry of it wins over the applied state, because it is newer.

    Producers expire by a time of the partition's own, `producer_time_ms`. It is made from the append times in the
    entries, so that every replica forgets the same producers at the same index. But these are the word of one leader's
    clock, and a clock that is days ahead must not make the partition forget at a stroke those whose retries it has to
    recognise. So one entry moves this time by TIME_STEP_MS_MAX at most.

    The price: where entries are further apart than that, producers are remembered longer. And append times never fall:
    after a jump ahead this time stands still, and nobody is forgotten, until the clocks have caught up with the log.
    """

    def __init__(self) -> None:
        self.next_offset = 0
        self.log_start_offset = 0
        self.last_append_time_ms = 0
        self.producer_time_ms = 0
        self._producers: dict[int, Producer] = {}
        self._overlay: dict[int, Producer] = {}

    def apply(self, header: EntryHeader, data: bytes) -> object:
        """Fold a committed entry in. Returns Trimmed for a trim, None otherwise."""
        assert header.base_offset == self.next_offset, (
            f"group {header.group_id}: entry {header.index} begins at offset {header.base_offset}, "
            f"the log so far ends at {self.next_offset}"
        )
        result: object = None
        before_ms = self.producer_time_ms
        self._pass_time(header.append_time_ms)
        if header.kind is EntryKind.RECORDS:
            batch = read_stored_header(data, HEADER_BYTES)
            if batch.producer_id:
                known = self._producers.get(batch.producer_id)
                self._producers[batch.producer_id] = fold(
                    known, batch.producer_epoch, _produced(header, batch, 0), self.producer_time_ms
                )
            self.next_offset = header.next_offset
        elif header.kind is EntryKind.CONTROL:
            result = self._apply_control(internal_pb2.ControlRecord.FromString(payload_of(data)))
        if self.producer_time_ms // PURGE_PERIOD_MS != before_ms // PURGE_PERIOD_MS:
            self._forget_idle_producers()
        return result

    def _apply_control(self, control: internal_pb2.ControlRecord) -> Trimmed | None:
        if control.WhichOneof("control") != "log_start":
            return None
        trim = control.log_start
        self.log_start_offset = max(self.log_start_offset, min(trim.log_start_offset, self.next_offset))
        return Trimmed(self.log_start_offset, trim.upto_index)

    def _pass_time(self, append_time_ms: int) -> None:
        if append_time_ms > self.last_append_time_ms:
            self.producer_time_ms += min(append_time_ms - self.last_append_time_ms, TIME_STEP_MS_MAX)
            self.last_append_time_ms = append_time_ms

    def _forget_idle_producers(self) -> None:
        oldest = self.producer_time_ms - PRODUCER_TTL_MS
        self._producers = {
            producer_id: producer
            for producer_id, producer in self._producers.items()
            if producer.last_active_ms >= oldest
        }

    def judge(self, batch: BatchHeader) -> Judgement:
        """What the leader does with a batch of an idempotent producer, by the log up to its very end."""
        producer = self._overlay.get(batch.producer_id) or self._producers.get(batch.producer_id)
        return judge(producer, batch.producer_epoch, batch.base_sequence, batch.count)

    def fold_tail(self, header: EntryHeader, batch: BatchHeader) -> None:
        """Remember a batch that stands in the leader's log but is not applied yet."""
        if batch.producer_id:
            known = self._overlay.get(batch.producer_id) or self._producers.get(batch.producer_id)
            self._overlay[batch.producer_id] = fold(
                known, batch.producer_epoch, _produced(header, batch, header.index), self.producer_time_ms
            )

    def drop_tail(self) -> None:
        """Forget everything after the applied entries: leadership is lost, or nothing is left after them."""
        if self._overlay:
            self._overlay = {}

    def snapshot(self) -> bytes:
        """The fold as a PartitionSnapshot."""
        snapshot = internal_pb2.PartitionSnapshot(
            next_offset=self.next_offset,
            log_start_offset=self.log_start_offset,
            last_append_time_ms=self.last_append_time_ms,
            producer_time_ms=self.producer_time_ms,
        )
        for producer_id in sorted(self._producers):
            producer = self._producers[producer_id]
            state = snapshot.producers.add(
                producer_id=producer_id,
                producer_epoch=producer.epoch,
                last_active_ms=producer.last_active_ms,
            )
            for batch in producer.batches:
                state.batches.add(
                    base_sequence=batch.base_sequence,
                    count=batch.count,
                    base_offset=batch.base_offset,
                    append_time_ms=batch.append_time_ms,
                    leader_epoch=batch.leader_epoch,
                )
        return snapshot.SerializeToString(deterministic=True)

    def restore(self, snapshot: bytes) -> None:
        """Replace the fold by the one in `snapshot`."""
        state = internal_pb2.PartitionSnapshot.FromString(snapshot)
        self.next_offset = state.next_offset
        self.log_start_offset = state.log_start_offset
        self.last_append_time_ms = state.last_append_time_ms
        # Folds of before it was kept apart measured producers by the append time itself.
        self.producer_time_ms = state.producer_time_ms or state.last_append_time_ms
        self._overlay = {}
        self._producers = {
            producer.producer_id: Producer(
                producer.producer_epoch,
                tuple(
                    ProducedBatch(
                        batch.base_sequence,
                        batch.count,
                        batch.base_offset,
                        batch.append_time_ms,
                        batch.leader_epoch,
                        0,
                    )
                    for batch in producer.batches
                ),
                producer.last_active_ms,
            )
            for producer in state.producers
        }


def _produced(header: EntryHeader, batch: BatchHeader, index: int) -> ProducedBatch:
    return ProducedBatch(
        batch.base_sequence, batch.count, header.base_offset, header.append_time_ms, header.term, index
    )
