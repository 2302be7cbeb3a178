"""Entries that this node's disk has damaged are fetched, one by one, from replicas that have them.

Index and term name an entry, so what another replica holds under the same two is the same entry, whoever it is; the
log takes nothing else in its place. Meanwhile the replica does not lead, applies nothing beyond the damage, and tells
readers of those entries to come again.

Where the others' logs begin behind the damage nobody has the entry any more, nor needs it: they send the snapshot that
their logs begin with, and the damaged log begins there as well.
"""

from __future__ import annotations

from itertools import groupby
from typing import Final

from google.protobuf.message import DecodeError

from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.broker.outbox import Outbox
from quorumlog.node.errors import EntryCorrupt, EntryDamaged, StorageCorrupt, UnknownEntryKind
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.configurations import to_configuration
from quorumlog.node.storage.entry import check_entry
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.raft import Entry, LogIndex, Term

ASK_SECONDS: Final = 0.5
"""Between two questions for the same group, to one replica after the other."""

RANGES_AT_ONCE_MAX: Final = 16
"""Ranges of consecutive entries that one question names."""

ANSWER_SIZE_BYTES_MAX: Final = 4 << 20


class Mending:
    """Asks for the damaged entries of this node, and answers those who ask."""

    def __init__(self, *, multi: MultiRaft, outbox: Outbox, liveness: Liveness) -> None:
        self._multi = multi
        self._outbox = outbox
        self._liveness = liveness
        self._next_round = 0.0
        self._turns: dict[int, int] = {}
        self.mended = 0
        """Entries mended since the start."""

    def tick(self, now: float) -> None:
        """Ask, now and then, for what is damaged."""
        if now < self._next_round:
            return
        self._next_round = now + ASK_SECONDS
        for replica in self._multi.replicas.values():
            if replica.stopped is None and replica.log.damaged:
                self._ask(replica)

    def _ask(self, replica: Replica) -> None:
        others = [one for one in replica.members if one != replica.node_id and self._liveness.is_alive(one)]
        if not others:
            return
        turn = self._turns[replica.group_id] = self._turns.get(replica.group_id, -1) + 1
        requests = self._outbox.control(others[turn % len(others)]).entries_requests
        runs = groupby(enumerate(sorted(replica.log.damaged)), key=lambda place: place[1] - place[0])
        for _, (_, run) in zip(range(RANGES_AT_ONCE_MAX), runs, strict=False):
            indexes = [index for _, index in run]
            requests.append(
                peer_pb2.EntriesRequest(group_id=replica.group_id, first_index=indexes[0], last_index=indexes[-1])
            )

    def on_request(self, sender: int, request: peer_pb2.EntriesRequest) -> None:
        """A peer has lost entries: send what is here and sound."""
        replica = self._multi.replicas.get(request.group_id)
        if replica is None or replica.stopped is not None:
            return
        answer = peer_pb2.EntriesAnswer(group_id=request.group_id)
        if request.first_index < replica.log.first_index():
            answer.snapshot = self._beginning(replica)
        first = max(request.first_index, replica.log.first_index())
        last = min(request.last_index, replica.log.last_index())
        if first <= last:
            try:
                entries = replica.log.entries(LogIndex(first), LogIndex(last), ANSWER_SIZE_BYTES_MAX)
                answer.entries.extend(entry.data for entry in entries)
            except EntryDamaged as damage:
                replica.note_damage(damage.index)
        if answer.entries or answer.snapshot:
            self._outbox.entries_answer(sender, answer)

    def _beginning(self, replica: Replica) -> bytes:
        """The stored snapshot that a log begins with; empty when it is not to be had, or too large for one answer."""
        try:
            found = replica.snapshot()
        except StorageCorrupt:
            return b""
        return found[1] if found is not None and len(found[1]) <= ANSWER_SIZE_BYTES_MAX else b""

    def on_answer(self, answer: peer_pb2.EntriesAnswer) -> None:
        """A peer has sent entries; what fits takes the place of what is damaged."""
        replica = self._multi.replicas.get(answer.group_id)
        if replica is None or replica.stopped is not None or not replica.log.damaged:
            return
        entries = []
        for data in answer.entries:
            index = int.from_bytes(data[12:20], "big")
            try:
                header = check_entry(data, answer.group_id, index)
            except (EntryCorrupt, UnknownEntryKind):
                continue
            entries.append(Entry(LogIndex(index), Term(header.term), header.kind, data))
        mended = replica.mend(self._multi.next_batch, entries)
        if answer.snapshot and replica.log.damaged:
            mended += self._begin_behind(replica, answer.snapshot)
        if mended:
            self.mended += mended
            self._multi.touch(replica)
            self._next_round = 0.0  # there may be more

    def _begin_behind(self, replica: Replica, stored: bytes) -> int:
        try:
            snapshot = internal_pb2.GroupSnapshot.FromString(stored)
            to_configuration(snapshot.configuration)
        except (DecodeError, ValueError):
            return 0
        if snapshot.group_id != replica.group_id:
            return 0
        return replica.begin_behind(self._multi.next_batch, snapshot)
