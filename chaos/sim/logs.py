"""What stands in the logs of a simulated cluster, read from the replicas themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from quorumlog.chaos.sim.failures import Violation
from quorumlog.chaos.sim.world import World
from quorumlog.node.broker.limits import OPEN_LIMITS
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.replica.machine import CommandMachine
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import HEADER_BYTES, decode_header
from quorumlog.proto.batch import open_batch, read_stored_header, to_wire
from quorumlog.raft import Entry, EntryKind, LogIndex


class Stored(NamedTuple):
    """One record as it stands in a log."""

    offset: int
    epoch: int
    value: bytes


def applied_entries(replica: Replica) -> Iterator[Entry]:
    """The applied entries that a replica's log still holds."""
    index = replica.raft.first_index
    while index <= replica.raft.applied:
        for entry in replica.log.entries(index, replica.raft.applied, 1 << 30):
            yield entry
            index = LogIndex(entry.index + 1)


def records(replica: Replica) -> Iterator[Stored]:
    """The applied records that a replica's log holds."""
    for entry in applied_entries(replica):
        yield from records_of(entry)


def records_of(entry: Entry) -> Iterator[Stored]:
    """The records of one entry."""
    if entry.kind is not EntryKind.RECORDS:
        return
    header = decode_header(entry.data)
    batch = to_wire(
        memoryview(entry.data)[HEADER_BYTES:],
        base_offset=header.base_offset,
        leader_epoch=header.term,
        append_time_ms=header.append_time_ms,
        crc=header.batch_crc,
    )
    for place, value in enumerate(open_batch(batch, OPEN_LIMITS).values):
        yield Stored(header.base_offset + place, header.term, value or b"")


def committed_offsets(world: World, group: str) -> dict[tuple[bytes, int], int]:
    """What stands as committed by (topic id, partition), on the replica of `__groups` that has applied most."""
    best: tuple[int, dict[tuple[bytes, int], int]] = 0, {}
    for broker in world.brokers().values():
        for replica in broker.multi.replicas.values():
            machine = replica.machine
            if not isinstance(machine, CommandMachine) or not isinstance(machine.state_machine, GroupsState):
                continue
            state = machine.state_machine.groups.get(group)
            if state is not None and replica.raft.applied > best[0]:
                offsets = {(key.topic_id, key.partition): committed.offset for key, committed in state.offsets.items()}
                best = replica.raft.applied, offsets
    return best[1]


def check_fold(replica: Replica) -> None:
    """The state of a partition is what a dumb replay of its whole log gives."""
    assert replica.partition is not None
    producers: dict[int, tuple[int, list[tuple[int, int, int]]]] = {}
    next_offset = 0

    def require(holds: bool, what: str) -> None:  # reads as a sentence
        if not holds:
            raise Violation(f"node {replica.node_id}, group {replica.group_id}: {what}", replica.group_id)

    for entry in applied_entries(replica):
        header = decode_header(entry.data)
        require(header.base_offset == next_offset, f"a gap before offset {header.base_offset}")
        if header.kind is not EntryKind.RECORDS:
            continue
        batch = read_stored_header(entry.data, HEADER_BYTES)
        epoch, batches = producers.get(batch.producer_id, (batch.producer_epoch, []))
        if epoch != batch.producer_epoch:
            require(batch.producer_epoch > epoch, "an epoch falls")
            require(batch.base_sequence == 0, "an epoch does not begin with sequence 0")
            batches = []
        elif batches:
            expected = batches[-1][0] + batches[-1][1]
            require(batch.base_sequence == expected, "a sequence is repeated or left out")
        batches = [*batches, (batch.base_sequence, batch.count, header.base_offset)]
        producers[batch.producer_id] = batch.producer_epoch, batches
        next_offset += header.count
    machine = type(replica.partition)()
    machine.restore(replica.partition.snapshot())
    require(machine.next_offset == next_offset, f"the log leads to offset {next_offset}, not {machine.next_offset}")
    folded = {
        producer_id: (
            producer.epoch,
            [(batch.base_sequence, batch.count, batch.base_offset) for batch in producer.batches],
        )
        for producer_id, producer in machine._producers.items()
    }
    replayed = {key: (epoch, batches[-5:]) for key, (epoch, batches) in producers.items()}
    require(folded == replayed, "what is kept of its producers is not what a replay of the log gives")
