"""A member of a consumer group, without network, threads or clock: what the coordinator says goes in, what to do
comes out.

The coordinator decides; the member reports. It answers pings, takes over assignments, gives partitions back once
nobody works on them any more, and commits under the epoch it was last given, so that a coordinator which has moved on
refuses what comes too late. A lost stream is no lost membership: the member comes back with its id and what it works
on. Only when it has not heard of the coordinator for a whole session timeout must it assume that its partitions work
elsewhere, and drop them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from quorumlog.errors import QuorumlogError, from_wire
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import Offset, TopicPartition

DEFAULT_SESSION_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions to work on from now on: topic id and committed position (None: nothing was committed)."""

    partitions: Mapping[TopicPartition, tuple[bytes, Offset | None]]


@dataclass(frozen=True, slots=True)
class Revoked:
    """Partitions to give back with `Member.release` once nobody works on them."""

    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """Partitions that belong to others already: nothing of them can be committed any more."""

    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The answer to a commit: offsets that are committed now, and those that were refused."""

    commit_id: int
    offsets: Mapping[TopicPartition, int]
    refused: Mapping[TopicPartition, QuorumlogError]


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; join again, at `error.leader` if it names one, unless the error is not retriable."""

    error: QuorumlogError


Positions: TypeAlias = Mapping[TopicPartition, tuple[bytes, Offset]]
"""Per partition the id of the topic that was consumed, and the next offset of it."""

Event: TypeAlias = Assigned | Revoked | Lost | Committed | Ended


class Member:
    """One member of one group.

    Args:
        group: name of the group.
        topics: what it wants to consume.
        client_id: how this client calls itself.
        session_timeout: seconds after which the coordinator gives up on a member that does not answer; None: the
            node's default.
    """

    def __init__(self, group: str, topics: Iterable[str], client_id: str, session_timeout: float | None) -> None:
        self.group = group
        self.topics = sorted(topics)
        self.client_id = client_id
        self.member_id = ""
        self.member_epoch = 0
        self.joined = False
        self.assigned_once = False
        self.session_timeout = DEFAULT_SESSION_SECONDS if session_timeout is None else session_timeout
        self.outbox: list[pb.GroupRequest] = []
        self._asked_timeout = session_timeout
        self._owned: dict[TopicPartition, bytes] = {}
        self._releasing: dict[TopicPartition, bytes] = {}
        self._commit_id = 0
        self._heard_at = 0.0

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """What it works on; without what it is giving back."""
        return frozenset(self._owned)

    def owns(self, tp: TopicPartition, topic_id: bytes) -> bool:
        """Whether it works on a partition of this very topic, not of one that had its name before."""
        return self._owned.get(tp) == topic_id

    # -- the session

    def connected(self) -> None:
        """A stream to the coordinator is open: join, or come back."""
        self.joined = False
        timeout_ms = 0 if self._asked_timeout is None else max(1, round(self._asked_timeout * 1000))
        join = pb.GroupJoin(
            group=self.group,
            member_id=self.member_id,
            member_epoch=self.member_epoch,
            client_id=self.client_id,
            topics=self.topics,
            mode=pb.STREAM,
            session_timeout_ms=timeout_ms,
            owned=[_wire(tp, topic_id) for tp, topic_id in (self._owned | self._releasing).items()],
        )
        # What was meant for the lost stream was meant for an epoch that may be over.
        self.outbox = [pb.GroupRequest(join=join)]

    def disconnected(self) -> None:
        """The stream is gone; the membership is not, yet."""
        self.joined = False
        self.outbox.clear()

    def received(self, response: pb.GroupResponse, now: float) -> list[Event]:
        """Take over what the coordinator says and return what follows from it."""
        kind = response.WhichOneof("message")
        if (
            kind != "error"
        ):  # anybody may answer with that; only the rest shows that the coordinator counts on this member
            self._heard_at = now
        if kind == "ping":
            self.outbox.append(pb.GroupRequest(pong=response.ping))
        elif kind == "joined":
            self.joined = True
            self.member_id = response.joined.member_id
            self.member_epoch = response.joined.member_epoch
            if response.joined.session_timeout_ms:
                self.session_timeout = response.joined.session_timeout_ms / 1000
        elif kind == "assignment":
            return self._assignment(response.assignment)
        elif kind == "committed":
            return [self._committed(response.committed)]
        elif kind == "error":
            return self._ended(response.error)
        return []

    def expire(self, now: float) -> list[Event]:
        """Drop everything if the coordinator was not heard of for a whole session timeout."""
        if now - self._heard_at <= self.session_timeout or not (self._owned or self._releasing):
            return []
        return self._lose_all()

    def _lose_all(self) -> list[Event]:
        lost = tuple(self._owned | self._releasing)
        self._owned.clear()
        self._releasing.clear()
        return [Lost(lost)] if lost else []

    def _ended(self, wire: pb.Error) -> list[Event]:
        error = from_wire(wire)
        events: list[Event] = []
        if wire.code in (pb.UNKNOWN_MEMBER, pb.STALE_MEMBER_EPOCH):
            # Removed, or overtaken by an epoch it never heard of: what it had is somebody else's. It may join as a
            # new one.
            self.member_id = ""
            self.member_epoch = 0
            events = self._lose_all()
            error = type(error)(error.message, hint=error.hint, code=error.code)
        self.joined = False
        return [*events, Ended(error)]

    def _assignment(self, message: pb.GroupAssignment) -> list[Event]:
        if message.member_epoch < self.member_epoch:
            return []
        self.member_epoch = message.member_epoch
        self.assigned_once = True
        assigned: dict[TopicPartition, tuple[bytes, Offset | None]] = {}
        for entry in message.assigned:
            tp = TopicPartition(entry.partition.topic, entry.partition.partition)
            epoch = entry.leader_epoch if entry.HasField("leader_epoch") else None
            assigned[tp] = (entry.partition.topic_id, Offset(entry.offset, epoch) if entry.offset >= 0 else None)
        named = {TopicPartition(p.topic, p.partition): p.topic_id for p in message.revoked}
        # The topic of an owned partition may have been created again: same name, other records.
        replaced = {tp for tp, (topic_id, _) in assigned.items() if self._owned.get(tp, topic_id) != topic_id}
        revoked = {tp: topic_id for tp, topic_id in named.items() if tp in self._owned}
        lost = [tp for tp in self._owned if (tp not in assigned and tp not in named) or tp in replaced]
        lost += [tp for tp in self._releasing if tp not in named and tp not in assigned]
        back = [tp for tp in self._releasing if tp in assigned]
        lost += back
        gained = {tp: entry for tp, entry in assigned.items() if tp not in self._owned or tp in replaced}
        for tp in lost:
            self._owned.pop(tp, None)
            self._releasing.pop(tp, None)
        for tp, topic_id in revoked.items():
            del self._owned[tp]
            self._releasing[tp] = topic_id
        for tp, (topic_id, _) in gained.items():
            self._owned[tp] = topic_id
        # What it is told to give back and does not have (any more) is given back at once: the coordinator waits for it.
        unknown = {tp: topic_id for tp, topic_id in named.items() if tp not in self._releasing}
        if unknown:
            self._send_release(unknown)
        events: list[Event] = []
        if lost:
            events.append(Lost(tuple(lost)))
        if revoked:
            events.append(Revoked(tuple(revoked)))
        if gained or not (lost or revoked):
            events.append(Assigned(gained))
        return events

    # -- commits and releases

    def commit(self, positions: Positions) -> int | None:
        """Commit positions of partitions it still holds; returns the commit's id, None if there is nothing to
        commit. What was consumed of a topic that was deleted meanwhile is no position in its successor."""
        entries = []
        for tp, (topic_id, position) in positions.items():
            if topic_id == (self._owned.get(tp) or self._releasing.get(tp)):
                entries.append(
                    pb.OffsetAndEpoch(
                        partition=_wire(tp, topic_id), offset=position.offset, leader_epoch=position.leader_epoch
                    )
                )
        if not entries or not self.joined:
            return None
        self._commit_id += 1
        commit = pb.GroupCommit(commit_id=self._commit_id, member_epoch=self.member_epoch, offsets=entries)
        self.outbox.append(pb.GroupRequest(commit=commit))
        return self._commit_id

    def _committed(self, message: pb.GroupCommitted) -> Committed:
        offsets: dict[TopicPartition, int] = {}
        refused: dict[TopicPartition, QuorumlogError] = {}
        for result in message.results:
            tp = TopicPartition(result.partition.topic, result.partition.partition)
            if result.HasField("error") and result.error.code != pb.OK:
                refused[tp] = from_wire(result.error)
            else:
                offsets[tp] = result.offset
        return Committed(message.commit_id, offsets, refused)

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Give partitions back: nobody works on them any more."""
        released = {tp: self._releasing.pop(tp) for tp in partitions if tp in self._releasing}
        if released and self.joined:
            self._send_release(released)

    def _send_release(self, partitions: Mapping[TopicPartition, bytes]) -> None:
        wire = [_wire(tp, topic_id) for tp, topic_id in partitions.items()]
        release = pb.GroupRelease(member_epoch=self.member_epoch, partitions=wire)
        self.outbox.append(pb.GroupRequest(release=release))

    def leave(self) -> None:
        """Leave the group: its partitions may go to others at once."""
        if self.joined:
            self.outbox.append(pb.GroupRequest(leave=pb.GroupLeave()))
        self._owned.clear()
        self._releasing.clear()


def _wire(tp: TopicPartition, topic_id: bytes) -> pb.TopicPartition:
    return pb.TopicPartition(topic_id=topic_id, topic=tp.topic, partition=tp.partition)
