"""A `__groups` partition with its log, its coordinator and members, in one thread under virtual time.

Commands go through a log of bytes and are applied when the test says so, so that it can look between proposing and
applying, lose what was proposed, and let another coordinator take over.
"""

import random
from collections import deque
from collections.abc import Callable

from quorumlog.node.groups.coordinator import GroupCoordinator
from quorumlog.node.groups.session import Session
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.state import GroupsState, Result
from quorumlog.node.groups.topics import TopicPartition, TopicView
from quorumlog.node.groups.unary import not_coordinator
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2

WALL_MS = 1_700_000_000_000

ROUND = 1.0
"""Seconds in which a target is made and, with members that release at once, reached."""


class Directory:
    """The catalogue as far as groups see it."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicView] = {}
        self._created = 0

    def create(self, name: str, partitions: int) -> TopicView:
        self._created += 1
        self.topics[name] = TopicView(name, f"{name:.<12}{self._created:04}".encode(), partitions)
        return self.topics[name]

    def delete(self, name: str) -> bytes:
        return self.topics.pop(name).topic_id

    def by_name(self, name: str) -> TopicView | None:
        return self.topics.get(name)

    def by_id(self, topic_id: bytes) -> TopicView | None:
        return next((topic for topic in self.topics.values() if topic.topic_id == topic_id), None)


class World:
    """`log` is what was committed, `pending` what is on its way; a log with a `refusal` takes nothing but says so.

    `up_to_date` is what coordinators hear when they ask whether their directory is; None: they hear nothing until
    `catch_up`.
    """

    def __init__(self, seed: int = 1, settings: GroupSettings | None = None, apply_at_once: bool = True) -> None:
        self.rng = random.Random(seed)
        self.settings = settings or GroupSettings()
        self.apply_at_once = apply_at_once
        self.directory = Directory()
        self.now = 1000.0
        self.log: list[bytes] = []
        self.pending: deque[tuple[bytes, Callable[[Result], None]]] = deque()
        self.refusal: pb.Error | None = None
        self.up_to_date: bool | None = True
        self._catching_up: list[Callable[[bool], None]] = []
        self.on_applied: Callable[[internal_pb2.GroupCommand, Result], None] = lambda command, result: None
        self.state = GroupsState()
        self.coordinator = self._coordinate(self.state)
        self.coordinator.on_leadership(True, self.now)

    def _coordinate(self, state: GroupsState) -> GroupCoordinator:
        return GroupCoordinator(
            state=state,
            propose=self._propose,
            topics=self.directory,
            rng=self.rng,
            settings=self.settings,
            wall_ms=lambda: WALL_MS,
            catch_up=self._on_catch_up,
        )

    def _on_catch_up(self, done: Callable[[bool], None]) -> None:
        if self.up_to_date is None:
            self._catching_up.append(done)
        else:
            done(self.up_to_date)

    def catch_up(self, up_to_date: bool) -> None:
        """Answer coordinators that have asked, and those that will ask, whether their directory is up to date."""
        self.up_to_date = up_to_date
        waiting, self._catching_up = self._catching_up, []
        for done in waiting:
            done(up_to_date)

    def _propose(self, command: internal_pb2.GroupCommand, on_result: Callable[[Result], None]) -> None:
        if self.refusal is not None:
            on_result(self.refusal)
            return
        self.pending.append((command.SerializeToString(), on_result))
        if self.apply_at_once:
            self.apply()

    def apply(self, count: int | None = None) -> None:
        """Commit and apply what was proposed: all, or the first `count`."""
        while self.pending and count != 0:
            payload, on_result = self.pending.popleft()
            on_result(self._apply(payload))
            count = None if count is None else count - 1

    def _apply(self, payload: bytes) -> Result:
        self.log.append(payload)
        command = self.state.decode(payload)
        result = self.state.apply(len(self.log), command)
        self.state.check_invariants()
        self.on_applied(command, result)
        return result

    def elect(self, committed: int = 0, from_snapshot: bool = False) -> None:
        """Another node takes over: of what is on its way, the first `committed` are in its log, the rest is lost."""
        deposed, on_its_way = self.coordinator, self.pending
        self.pending = deque()
        deposed.on_leadership(False, self.now)
        for position, (payload, on_result) in enumerate(on_its_way):
            if position < committed:
                self._apply(payload)
            on_result(not_coordinator("somewhere"))
        successor = GroupsState()
        if from_snapshot:
            successor.restore(self.state.snapshot())
        else:
            for index, payload in enumerate(self.log, start=1):
                successor.apply(index, successor.decode(payload))
        assert successor.digest() == self.state.digest(), "live state and replay differ"
        self.state = successor
        self.coordinator = self._coordinate(successor)
        self.coordinator.on_leadership(True, self.now)

    def pass_time(self, seconds: float, tick_seconds: float = 0.05) -> None:
        """Let time pass, tick by tick."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + tick_seconds)
            self.coordinator.on_tick(self.now)

    def partitions(self, *topics: str) -> list[TopicPartition]:
        views = [self.directory.topics[name] for name in topics]
        return [TopicPartition(view.topic_id, number) for view in views for number in range(view.partitions)]


class FakeMember:
    """A member with a background loop that answers pings and gives back what it is asked for.

    `loop_runs`: whether that loop is alive. `releases`: whether it gives revoked partitions back by itself.
    """

    def __init__(self, world: World, topics: tuple[str, ...] = ("orders",), group: str = "billing") -> None:
        self.world = world
        self.topics = topics
        self.group = group
        self.session: Session | None = None
        self.coordinator: GroupCoordinator | None = None
        self.member_id = ""
        self.member_epoch = 0
        self.working: dict[TopicPartition, int] = {}
        self.revoked: list[TopicPartition] = []
        self.assignments: list[pb.GroupAssignment] = []
        self.joined: list[pb.GroupJoined] = []
        self.committed: list[pb.GroupCommitted] = []
        self.errors: list[pb.Error] = []
        self.pings = 0
        self.loop_runs = True
        self.releases = True

    def join(self, timeout_seconds: float = 0, **fields: object) -> "FakeMember":
        """Open a session and join, or come back where it was a member before."""
        self.open()
        join = pb.GroupJoin(
            group=self.group,
            member_id=self.member_id,
            member_epoch=self.member_epoch,
            topics=self.topics,
            session_timeout_ms=round(timeout_seconds * 1000),
            owned=[self.wire(partition) for partition in sorted(self.working)],
        )
        join.MergeFrom(pb.GroupJoin(**fields))  # type: ignore[arg-type]
        self.say(join=join)
        return self

    def open(self) -> None:
        self.coordinator = self.world.coordinator
        session: list[Session] = []
        closes = 0

        def closed() -> None:
            nonlocal closes
            closes += 1
            assert closes == 1, "a session is closed once"
            if session and self.session is session[0]:
                self.session = None

        def heard(response: pb.GroupResponse) -> None:
            assert not closes, f"nothing is sent on a closed session: {response}"
            if not session or self.session is session[0]:
                self.hear(response)

        session.append(self.coordinator.open_session(heard, closed))
        self.session = session[0]

    def break_stream(self) -> None:
        """The connection is gone, and both sides notice."""
        assert self.coordinator is not None
        session, self.session = self.session, None
        if session is not None:
            self.coordinator.on_session_closed(session, self.world.now)

    def say(self, **message: object) -> None:
        if self.session is not None and self.coordinator is not None:
            self.coordinator.on_request(self.session, pb.GroupRequest(**message), self.world.now)  # type: ignore[arg-type]

    def leave(self) -> None:
        self.say(leave=pb.GroupLeave())

    def commit(self, *offsets: tuple[TopicPartition, int], epoch: int | None = None) -> None:
        commit = pb.GroupCommit(commit_id=5, member_epoch=self.member_epoch if epoch is None else epoch)
        for partition, offset in offsets:
            commit.offsets.add(partition=self.wire(partition), offset=offset, leader_epoch=2, metadata="here")
        self.say(commit=commit)

    def release(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self.working.pop(partition, None)
        self.say(
            release=pb.GroupRelease(
                member_epoch=self.member_epoch, partitions=[self.wire(partition) for partition in partitions]
            )
        )

    def hear(self, response: pb.GroupResponse) -> None:
        kind = response.WhichOneof("message")
        if kind == "ping":
            self.pings += 1
            if self.loop_runs:
                self.say(pong=response.ping)
        elif kind == "joined":
            self.joined.append(response.joined)
            self.member_id = response.joined.member_id
            self.member_epoch = response.joined.member_epoch
        elif kind == "assignment":
            self.take_over(response.assignment)
        elif kind == "committed":
            self.committed.append(response.committed)
        else:
            self.errors.append(response.error)

    def take_over(self, assignment: pb.GroupAssignment) -> None:
        """Work on what is assigned, from the committed offset where it is new; give back what is revoked."""
        self.assignments.append(assignment)
        self.member_epoch = assignment.member_epoch
        start = {self.partition(each.partition): max(0, each.offset) for each in assignment.assigned}
        self.revoked = [self.partition(wire) for wire in assignment.revoked]
        self.working = {
            partition: offset
            for partition, offset in {**start, **self.working}.items()
            if partition in start or partition in self.revoked
        }
        if self.revoked and self.releases:
            self.release(*self.revoked)

    @staticmethod
    def wire(partition: TopicPartition) -> pb.TopicPartition:
        return pb.TopicPartition(topic_id=partition.topic_id, partition=partition.partition)

    @staticmethod
    def partition(wire: pb.TopicPartition) -> TopicPartition:
        return TopicPartition(wire.topic_id, wire.partition)
