"""The way of a batch into the log: checks at the door, duplicates, append, and the answer once it is committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from quorumlog.node.broker.directory import Directory, Found
from quorumlog.node.broker.limits import INFLATED_RATIO_MAX, INFLATED_SIZE_BYTES_MAX
from quorumlog.node.clock import Clock
from quorumlog.node.errors import ReplicaStopped
from quorumlog.node.metadata.configs import effective
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.producers import Judgement, ProducedBatch, Verdict
from quorumlog.node.replica.replica import Committed, Replica
from quorumlog.node.timers import Timer, Timers
from quorumlog.proto import client_pb2
from quorumlog.proto.batch import APPEND_TIME, BatchHeader, BatchLimits, check_batch, check_crc, pack_stored
from quorumlog.proto.compression import CodecUnavailable
from quorumlog.proto.errors import make_error
from quorumlog.proto.invalid import BatchInvalid
from quorumlog.proto.rows import rows_to_batch
from quorumlog.raft import EntryKind, NotLeader, ProposalRefused

PRESSURE_MAX: Final = 0.6
"""Above this share of RocksDB's own stall trigger produce is pushed back, so that `write` itself never has to wait."""

THROTTLE_MS: Final = 100
Reply = Callable[[client_pb2.ProduceResult], None]


@dataclass(slots=True)
class ProduceGate:
    """Reasons for this node not to take records at all."""

    stopping: bool = False
    disk_full: str | None = None
    pressure: float = 0.0
    """Of the database, as of the last tick: asking it costs more than checking a small batch."""


class ProducePath:
    """Takes batches for the partitions that this node leads."""

    def __init__(
        self,
        *,
        directory: Directory,
        multi: MultiRaft,
        clock: Clock,
        timers: Timers,
        gate: ProduceGate,
        timeout_seconds: float,
    ) -> None:
        self._directory = directory
        self._multi = multi
        self._clock = clock
        self._timers = timers
        self._gate = gate
        self._timeout_seconds = timeout_seconds

    def produce(self, request: client_pb2.ProduceRequest, reply: Reply) -> None:
        """Append every batch of the request; `reply` gets one result per batch, each when it is decided, in any
        order.
        """
        timeout_seconds = request.timeout_ms / 1000 if request.timeout_ms else self._timeout_seconds
        refusal = self._refusal()
        for position, batch in enumerate(request.batches):
            answer = _Answer(request.correlation_id, position, reply)
            if refusal is not None:
                answer.fail(refusal)
                continue
            self._produce_batch(batch, answer)
            if not answer.given:
                answer.timer = self._timers.at(self._clock.now() + timeout_seconds, answer.time_out)

    def _refusal(self) -> client_pb2.Error | None:
        if self._gate.stopping:
            return make_error(
                client_pb2.SHUTTING_DOWN,
                f"node {self._directory.node_id} is stopping",
                outcome=client_pb2.NOT_APPENDED,
            )
        if self._gate.disk_full is not None:
            return make_error(client_pb2.STORAGE_FULL, self._gate.disk_full)
        if self._gate.pressure > PRESSURE_MAX:
            return make_error(
                client_pb2.THROTTLED,
                f"the database of node {self._directory.node_id} is behind with its compaction",
                retry_after_ms=THROTTLE_MS,
            )
        return None

    def _produce_batch(self, request: client_pb2.PartitionBatch, answer: _Answer) -> None:
        self._directory.look_up(
            request.topic_id, request.topic, request.partition, lambda found: self._produce_to(found, request, answer)
        )

    def _produce_to(self, found: Found | client_pb2.Error, request: client_pb2.PartitionBatch, answer: _Answer) -> None:
        if answer.given:
            return None  # its time was over before the catalogue had caught up; nobody waits for it
        if isinstance(found, client_pb2.Error):
            return answer.fail(found)
        replica = found.replica
        if found.topic.internal:
            return answer.fail(
                make_error(
                    client_pb2.INVALID_REQUEST,
                    f"topic {found.topic.name!r} is internal: only the cluster writes to it",
                )
            )
        if replica is None or not replica.leads:
            return answer.fail(self._directory.not_leader(found, client_pb2.NOT_APPENDED))
        config = effective(found.topic.configs)
        try:
            batch, header = self._check(request, config.max_message_bytes)
        except BatchInvalid as error:
            where = f"topic {found.topic.name!r}, partition {request.partition}: "
            return answer.fail(make_error(error.code, where + error.message, hint=error.hint or None))
        except CodecUnavailable as error:
            return answer.fail(make_error(client_pb2.UNSUPPORTED_VERSION, str(error)))
        if config.append_time and not header.flags & APPEND_TIME:
            # The topic says whose time counts. The flag is under the batch's CRC, so that is made anew.
            header = header._replace(flags=header.flags | APPEND_TIME)
            batch.crc = check_crc(header, batch.payload)
        if header.producer_id:
            assert replica.partition is not None
            judgement = replica.partition.judge(header)
            if judgement.verdict is not Verdict.APPEND:
                return self._answer_judgement(found, replica, header, judgement, request.attempt, answer)
        return self._append(found, replica, header, batch, answer)

    def _check(
        self, request: client_pb2.PartitionBatch, size_bytes_max: int
    ) -> tuple[client_pb2.RecordBatch, BatchHeader]:
        """The batch and its header, sound. Raises BatchInvalid or CodecUnavailable."""
        match request.WhichOneof("data"):
            case "rows":
                batch = rows_to_batch(request.rows, self._clock.wall_ms())
            case "batch":
                batch = request.batch
            case _:
                raise BatchInvalid(client_pb2.BATCH_INVALID, "it holds neither a batch nor rows", "send one of them")
        return batch, check_batch(batch, BatchLimits(size_bytes_max, INFLATED_SIZE_BYTES_MAX, INFLATED_RATIO_MAX))

    def _append(
        self, found: Found, replica: Replica, header: BatchHeader, batch: client_pb2.RecordBatch, answer: _Answer
    ) -> None:
        try:
            replica.propose(
                EntryKind.RECORDS,
                pack_stored(header, batch.payload),
                count=header.last_offset_delta + 1,
                batch_crc=batch.crc,
                wall_ms=self._clock.wall_ms(),
                reply=lambda result: self._on_result(found, result, answer),
            )
        except NotLeader:
            return answer.fail(self._directory.not_leader(found, client_pb2.NOT_APPENDED))
        except ProposalRefused as error:
            return answer.fail(make_error(client_pb2.THROTTLED, str(error), retry_after_ms=THROTTLE_MS))
        except ReplicaStopped as error:
            return answer.fail(make_error(client_pb2.STORAGE_CORRUPT, str(error), outcome=client_pb2.NOT_APPENDED))
        self._multi.touch(replica)
        return None

    def _on_result(self, found: Found, result: object, answer: _Answer) -> None:
        if not isinstance(result, Committed):
            return answer.fail(self._directory.not_leader(found, client_pb2.OUTCOME_UNKNOWN))
        header = result.header
        return answer.give(header.base_offset, header.term, header.append_time_ms, _log_start(found.replica))

    def _answer_judgement(
        self,
        found: Found,
        replica: Replica,
        header: BatchHeader,
        judgement: Judgement,
        attempt: int,
        answer: _Answer,
    ) -> None:
        earlier = judgement.batch
        if judgement.verdict is Verdict.DUPLICATE:
            assert earlier is not None
            if earlier.index > replica.raft.applied:
                # Appended but not committed: answering now would be too early, appending it again would double it.
                return replica.await_entry(
                    earlier.index, lambda result: self._on_duplicate(found, earlier, result, answer)
                )
            return self._on_duplicate(found, earlier, None, answer)
        if replica.raft.transferring_to is not None:
            # While leadership is handed over nothing is appended, so batches before this one were turned away just
            # now: to call it a gap, or its producer unknown, would blame the client for that.
            return answer.fail(self._directory.not_leader(found, client_pb2.NOT_APPENDED))
        return answer.fail(_sequence_error(header, judgement, attempt))

    def _on_duplicate(self, found: Found, earlier: ProducedBatch, result: object, answer: _Answer) -> None:
        if result is not None and not isinstance(result, Committed):
            return answer.fail(self._directory.not_leader(found, client_pb2.OUTCOME_UNKNOWN))
        return answer.give(
            earlier.base_offset,
            earlier.leader_epoch,
            earlier.append_time_ms,
            _log_start(found.replica),
            duplicate=True,
        )


def _log_start(replica: Replica | None) -> int:
    assert replica is not None
    assert replica.partition is not None
    return replica.partition.log_start_offset


def _sequence_error(header: BatchHeader, judgement: Judgement, attempt: int) -> client_pb2.Error:
    who = f"producer {header.producer_id} epoch {header.producer_epoch}"
    sequence = f"sequence {header.base_sequence}"
    match judgement.verdict:
        case Verdict.FENCED:
            return make_error(client_pb2.PRODUCER_FENCED, f"{who} is older than the epoch that has written last")
        case Verdict.OUT_OF_ORDER:
            return make_error(
                client_pb2.OUT_OF_ORDER_SEQUENCE,
                f"{who} sent {sequence}, expected is {judgement.expected_sequence}",
            )
        case Verdict.UNKNOWN_PRODUCER:
            return make_error(
                client_pb2.UNKNOWN_PRODUCER,
                f"{who} sent {sequence}, but this partition knows no earlier batch of it",
                outcome=client_pb2.OUTCOME_UNKNOWN if attempt else client_pb2.NOT_APPENDED,
            )
        case Verdict.FORGOTTEN_DUPLICATE:
            return make_error(
                client_pb2.DUPLICATE_SEQUENCE,
                f"{who} sent {sequence}, which was appended before the last five batches",
            )
        case _:
            return make_error(
                client_pb2.BATCH_INVALID,
                f"{who} sent {sequence} with {header.count} records, which overlaps a batch that was appended",
                hint="send a batch again exactly as it was",
            )


class _Answer:
    """The one answer to one batch."""

    __slots__ = ("_batch", "_correlation_id", "_reply", "given", "timer")

    def __init__(self, correlation_id: int, batch: int, reply: Reply) -> None:
        self._correlation_id = correlation_id
        self._batch = batch
        self._reply = reply
        self.given = False
        self.timer: Timer | None = None

    def give(
        self,
        base_offset: int,
        leader_epoch: int,
        append_time_ms: int,
        log_start_offset: int,
        *,
        duplicate: bool = False,
    ) -> None:
        self._send(
            client_pb2.ProduceResult(
                correlation_id=self._correlation_id,
                batch=self._batch,
                base_offset=base_offset,
                leader_epoch=leader_epoch,
                append_time_ms=append_time_ms,
                log_start_offset=log_start_offset,
                duplicate=duplicate,
            )
        )

    def fail(self, error: client_pb2.Error) -> None:
        self._send(client_pb2.ProduceResult(correlation_id=self._correlation_id, batch=self._batch, error=error))

    def time_out(self) -> None:
        self.fail(
            make_error(
                client_pb2.TIMED_OUT,
                "the batch was not committed in time: too few replicas answer",
            )
        )

    def _send(self, result: client_pb2.ProduceResult) -> None:
        if self.given:
            return
        self.given = True
        if self.timer is not None:
            self.timer.cancel()
        self._reply(result)
