"""Snapshots on their way to replicas that entries cannot help any more, in chunks, and those that come in.

The core says who needs one (`Ready.snapshots_wanted`) and, once the receiver's core has taken it over, hears of that by
an ordinary answer; what lies between is carried here. A chunk is sent when the one before it is acknowledged, at the
pace of the throttle. The receiver knows a transfer by index, size and checksum, so one that was cut off goes on where
it stopped, under another leader as well; what it has of it does not outlive its process.
"""

from __future__ import annotations

import logging
from typing import Final

from google.protobuf.message import DecodeError

from quorumlog.node.broker.outbox import Outbox
from quorumlog.node.clock import Clock
from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.configurations import to_configuration
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft import NodeId, ProgressState, StepError, Term

log = logging.getLogger(__name__)

CHUNK_SIZE_BYTES: Final = 512 << 10
SNAPSHOT_SIZE_BYTES_MAX: Final = 1 << 30
"""A larger one is not taken in: it is assembled in memory."""

SENT_AT_ONCE_MAX: Final = 4
"""Snapshots under way from this node; others wait for their turn."""

RESEND_SECONDS: Final = 1.0
"""After as long without an answer the receiver is asked again how far it has come."""


class _Sending:
    """A snapshot for one peer. `data` is None until its turn comes."""

    __slots__ = ("answered", "crc", "data", "due_at", "index", "peer", "position", "replica")

    def __init__(self, replica: Replica, peer: NodeId) -> None:
        self.replica = replica
        self.peer = peer
        self.index = 0
        self.data: bytes | None = None
        self.crc = 0
        self.position = 0  # this much the peer has
        self.answered = True  # the peer has spoken since it was sent something
        self.due_at: float | None = None  # when the next chunk may leave, or the peer is asked again

    @property
    def needed(self) -> bool:
        replica = self.replica
        if not replica.raft.is_leader or replica.stopped is not None:
            return False
        progress = replica.raft.progress(self.peer)
        return progress is not None and progress.needs_snapshot


class _Receiving:
    """What has come of a snapshot of one group."""

    __slots__ = ("crc", "data", "index", "size_bytes")

    def __init__(self, chunk: peer_pb2.SnapshotChunk) -> None:
        self.index, self.size_bytes, self.crc = chunk.index, chunk.size_bytes, chunk.crc
        self.data = bytearray()

    def fits(self, chunk: peer_pb2.SnapshotChunk) -> bool:
        return (self.index, self.size_bytes, self.crc) == (chunk.index, chunk.size_bytes, chunk.crc)


class Snapshots:
    """The snapshots of one node.

    Args:
        bytes_per_second: what all transfers from this node together may take.
    """

    def __init__(self, *, multi: MultiRaft, outbox: Outbox, clock: Clock, bytes_per_second: float) -> None:
        self._multi = multi
        self._outbox = outbox
        self._clock = clock
        self._bytes_per_second = bytes_per_second
        self._sending: dict[tuple[int, int], _Sending] = {}
        self._receiving: dict[int, _Receiving] = {}
        self._unreadable: set[int] = set()  # groups that were handed over, because their first fold cannot be read
        self._free_at = 0.0  # when the throttle lets the next chunk leave
        self.installed = 0
        """Snapshots that replicas of this node have been given to install."""

    def want(self, replica: Replica, peer: NodeId) -> None:
        """A peer of a group led here needs a snapshot."""
        self._sending.setdefault((replica.group_id, peer), _Sending(replica, peer))

    def progress(self, group_id: int, peer: int) -> tuple[int, int] | None:
        """(bytes that the peer has, bytes in all) of the snapshot it is being sent; None without one."""
        sending = self._sending.get((group_id, peer))
        if sending is None or sending.data is None:
            return None
        return sending.position, len(sending.data)

    def tick(self, now: float) -> None:
        """Begin, go on, ask again, and let go of what is not needed any more."""
        for key in [key for key, sending in self._sending.items() if not sending.needed]:
            del self._sending[key]
        for group_id in [group_id for group_id in self._receiving if group_id not in self._multi.replicas]:
            del self._receiving[group_id]
        for key, sending in list(self._sending.items())[:SENT_AT_ONCE_MAX]:
            if self._is_due(sending, now) and not sending.answered and len(self._sending) > SENT_AT_ONCE_MAX:
                # Nobody may be there any more: it takes its turn again behind those who wait.
                self._sending[key] = self._sending.pop(key)
                sending.data, sending.due_at, sending.answered = None, None, True
            elif sending.data is None or (sending.position == len(sending.data) and self._is_due(sending, now)):
                # Not begun, or here for a while and yet of no help: the log was cut beyond it meanwhile.
                self._begin(sending, now)
            elif self._is_due(sending, now):
                self._send(sending, now)

    def _is_due(self, sending: _Sending, now: float) -> bool:
        return sending.due_at is not None and now >= sending.due_at

    def _begin(self, sending: _Sending, now: float) -> None:
        try:
            found = sending.replica.snapshot()
        except StorageCorrupt as error:
            self._hand_over(sending.replica, error)
            return
        if found is None:
            return
        sending.index, sending.data = found
        sending.crc = crc32c(sending.data)
        sending.position = 0
        self._ask(sending, now)

    def _hand_over(self, replica: Replica, error: StorageCorrupt) -> None:
        """What its log begins with cannot be read here. Another replica may lead and send its own; once is enough, for
        where nobody can read it this one does as well as any.
        """
        if replica.group_id in self._unreadable:
            return
        self._unreadable.add(replica.group_id)
        log.error("group %d cannot send a snapshot, another replica is to lead it: %s", replica.group_id, error)
        for voter in replica.voters:
            progress = replica.raft.progress(voter)
            if progress is not None and progress.counting and progress.state is ProgressState.REPLICATE:
                replica.raft.transfer_leadership(voter)
                self._multi.touch(replica)
                return

    def _ask(self, sending: _Sending, now: float) -> None:
        """Ask the peer how far it has come."""
        sending.due_at = now + RESEND_SECONDS
        sending.answered = False
        self._outbox.snapshot_chunk(sending.peer, self._chunk(sending))

    def _send(self, sending: _Sending, now: float) -> None:
        """Send the next chunk; without an answer to it the peer is asked."""
        assert sending.data is not None
        data = sending.data[sending.position : sending.position + CHUNK_SIZE_BYTES]
        self._free_at = max(self._free_at, now) + len(data) / self._bytes_per_second
        sending.due_at = max(self._free_at, now + RESEND_SECONDS)
        sending.answered = False
        self._outbox.snapshot_chunk(sending.peer, self._chunk(sending, data))

    def _chunk(self, sending: _Sending, data: bytes = b"") -> peer_pb2.SnapshotChunk:
        assert sending.data is not None
        return peer_pb2.SnapshotChunk(
            group_id=sending.replica.group_id,
            term=sending.replica.raft.term,
            index=sending.index,
            size_bytes=len(sending.data),
            crc=sending.crc,
            position=sending.position,
            data=data,
        )

    def on_answer(self, sender: int, answer: peer_pb2.SnapshotAnswer) -> None:
        """A receiver says how far it has come."""
        sending = self._sending.get((answer.group_id, sender))
        if sending is None or sending.data is None or not sending.needed:
            return
        if (answer.index, answer.crc) != (sending.index, sending.crc) or answer.term != sending.replica.raft.term:
            return
        now = self._clock.now()
        sending.answered = True
        if answer.refused:
            sending.data = None
            sending.due_at = now + RESEND_SECONDS
        elif answer.position < len(sending.data):
            sending.position = answer.position
            if now >= self._free_at:
                self._send(sending, now)
            else:
                sending.due_at = self._free_at
        else:
            sending.position = len(sending.data)
            sending.due_at = now + RESEND_SECONDS

    # ------------------------------------------------------------------------------------------------------- receiving

    def on_chunk(self, sender: int, chunk: peer_pb2.SnapshotChunk) -> None:
        """A piece of a snapshot came, or the question how far it is here."""
        replica = self._multi.replicas.get(chunk.group_id)
        if replica is None or replica.stopped is not None or chunk.term < replica.raft.term:
            return
        if not 0 < chunk.size_bytes <= SNAPSHOT_SIZE_BYTES_MAX:
            return
        if chunk.index <= replica.raft.commit_index:
            self._answer(sender, chunk, chunk.size_bytes)  # it comes late
            return
        receiving = self._receiving.get(chunk.group_id)
        if receiving is None or not receiving.fits(chunk):
            receiving = self._receiving[chunk.group_id] = _Receiving(chunk)
        if chunk.position == len(receiving.data):
            receiving.data += chunk.data[: receiving.size_bytes - len(receiving.data)]
        if len(receiving.data) == receiving.size_bytes:
            del self._receiving[chunk.group_id]
            if not self._install(replica, sender, chunk, bytes(receiving.data)):
                self._answer(sender, chunk, 0, refused=True)
                return
        self._answer(sender, chunk, len(receiving.data))

    def _install(self, replica: Replica, sender: int, chunk: peer_pb2.SnapshotChunk, data: bytes) -> bool:
        if crc32c(data) != chunk.crc:
            return False
        try:
            snapshot = internal_pb2.GroupSnapshot.FromString(data)
            to_configuration(snapshot.configuration)
        except (DecodeError, ValueError):
            return False
        if snapshot.group_id != replica.group_id or snapshot.index != chunk.index:
            return False
        try:
            replica.install(snapshot, NodeId(sender), Term(chunk.term))
        except StepError:
            self._multi.step_errors += 1
            return False
        self.installed += 1
        self._multi.touch(replica)
        return True

    def _answer(self, receiver: int, chunk: peer_pb2.SnapshotChunk, position: int, *, refused: bool = False) -> None:
        self._outbox.control(receiver).snapshot_answers.append(
            peer_pb2.SnapshotAnswer(
                group_id=chunk.group_id,
                term=chunk.term,
                index=chunk.index,
                crc=chunk.crc,
                position=position,
                refused=refused,
            )
        )
