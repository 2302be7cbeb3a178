"""A deliberately simple model of the partitions of a cluster: one log each, one leader each, and the rules of
deduplication."""

from dataclasses import dataclass, field

from quorumlog.cursor import LIMITS
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import RecordColumns, open_batch
from quorumlog.proto.errors import make_error

REMEMBERED_BATCHES = 5


@dataclass
class ModelProducer:
    epoch: int
    next_sequence: int
    batches: list[tuple[int, int, int]] = field(default_factory=list)  # base sequence, count, base offset


@dataclass
class ModelPartition:
    """One partition. `leader` is the address of the node that leads it, None during an election."""

    topic: str
    topic_id: bytes
    number: int
    leader: str | None = None
    leader_id: int = 0
    leader_epoch: int = 1
    batches: list[pb.RecordBatch] = field(default_factory=list)
    next_offset: int = 0
    log_start_offset: int = 0
    producers: dict[int, ModelProducer] = field(default_factory=dict)

    def leads(self, address: str, *, hint: bool = True) -> pb.Error | None:
        """The error a node at `address` gives because it does not lead, None if it does."""
        if self.leader is None:
            return make_error(pb.NO_LEADER, f"{self.topic}[{self.number}] has no leader")
        if self.leader != address:
            leader = pb.Leader(node_id=self.leader_id, address=self.leader, leader_epoch=self.leader_epoch)
            message = f"{address} does not lead {self.topic}[{self.number}]"
            return make_error(pb.NOT_LEADER, message, leader=leader if hint else None)
        return None

    def produce(self, batch: pb.RecordBatch, attempt: int) -> tuple[pb.Error | None, int, bool]:
        """Append a batch as its leader: (error, base offset, whether it was there already)."""
        if batch.producer_id == 0:
            return None, self.append(batch), False
        known = self.producers.get(batch.producer_id)
        sequence, epoch = batch.base_sequence, batch.producer_epoch
        if known is None or epoch > known.epoch:
            if sequence != 0 and known is None:
                outcome = pb.NOT_APPENDED if attempt == 0 else pb.OUTCOME_UNKNOWN
                return make_error(pb.UNKNOWN_PRODUCER, "never heard of it", outcome=outcome), -1, False
            if sequence != 0:
                return make_error(pb.OUT_OF_ORDER_SEQUENCE, f"a new epoch begins at {sequence}"), -1, False
            known = self.producers[batch.producer_id] = ModelProducer(epoch, 0)
        elif epoch < known.epoch:
            return make_error(pb.PRODUCER_FENCED, f"epoch {epoch} after {known.epoch}"), -1, False
        for base_sequence, count, base_offset in known.batches:
            if (base_sequence, count) == (sequence, batch.count):
                return None, base_offset, True
        if sequence < known.next_sequence:
            return make_error(pb.DUPLICATE_SEQUENCE, f"{sequence} is long past"), -1, False
        if sequence > known.next_sequence:
            message = f"sequence {sequence} where {known.next_sequence} is next"
            return make_error(pb.OUT_OF_ORDER_SEQUENCE, message), -1, False
        known.next_sequence += batch.count
        base_offset = self.append(batch)
        known.batches = [*known.batches, (sequence, batch.count, base_offset)][-REMEMBERED_BATCHES:]
        return None, base_offset, False

    def append(self, batch: pb.RecordBatch) -> int:
        stamped = pb.RecordBatch()
        stamped.CopyFrom(batch)
        stamped.base_offset = self.next_offset
        stamped.leader_epoch = self.leader_epoch
        self.batches.append(stamped)
        self.next_offset += batch.count
        return stamped.base_offset

    def values(self) -> list[bytes]:
        """Every value in the log, in order; a null one is empty."""
        return [value or b"" for batch in self.batches for value in columns_of(batch).values]


def columns_of(batch: pb.RecordBatch) -> RecordColumns:
    return open_batch(batch, LIMITS)
