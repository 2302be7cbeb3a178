"""The group coordinator: what the leader of a `__groups` partition does for its groups.

It holds streams, pings and timeouts, and decides; everything that matters is proposed to the log and acted on only when
it has been applied. What it keeps besides the state (who is alive, which sessions are open, when a target is due) is
rebuilt by a new leader from nothing: it grants every member a full session timeout.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from quorumlog.node.groups.commits import forget_command, prepare_commit
from quorumlog.node.groups.freshness import CatchUp, Freshness
from quorumlog.node.groups.group import Member
from quorumlog.node.groups.queries import assignment
from quorumlog.node.groups.requests import is_subscribed, refuse_commit_size, refuse_join, session_timeout_ms
from quorumlog.node.groups.session import Liveness, Session, SessionState
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.state import GroupsState, Result, unknown_member
from quorumlog.node.groups.targets import TargetSchedule, make_target, needs_target, unheard_of
from quorumlog.node.groups.topics import TopicDirectory, resolve
from quorumlog.node.groups.unary import Propose, UnaryCalls, not_coordinator
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error

_ENDED = (SessionState.LEAVING, SessionState.CLOSED)
_NO_MEMBER_HERE = (pb.UNKNOWN_MEMBER, pb.NOT_COORDINATOR)
"""Errors after which a session has nothing left to do here; others concern one request."""


class GroupCoordinator(UnaryCalls):
    """The coordinator of one `__groups` partition, on one node. It works while it leads, and says NOT_COORDINATOR else.

    Args:
        state: the applied state of the partition; changed by the replica driver alone.
        propose: see `Propose`.
        topics: the topics of the local catalogue.
        rng: draws member ids and ping nonces.
        settings: limits and paces.
        wall_ms: milliseconds since the Unix epoch, for the time of a commit.
        catch_up: brings `topics` up to date; see `CatchUp`.

    `now` is monotonic seconds, in every method.
    """

    def __init__(
        self,
        *,
        state: GroupsState,
        propose: Propose,
        topics: TopicDirectory,
        rng: random.Random,
        settings: GroupSettings,
        wall_ms: Callable[[], int],
        catch_up: CatchUp,
    ) -> None:
        super().__init__(state=state, propose=propose, topics=topics, settings=settings, wall_ms=wall_ms)
        self._rng = rng
        self._now = 0.0
        self._reign = 0
        self._sessions: dict[int, Session] = {}
        self._liveness = Liveness(rng, settings.pings_per_timeout)
        self._targets = TargetSchedule(settings)
        self._freshness = Freshness(catch_up, self._on_proved)
        self._untold: set[tuple[str, str]] = set()

    # -- leadership, time, topics -------------------------------------------------------------------------------------

    def on_leadership(self, is_leader: bool, now: float) -> None:
        """Begin to lead, after the new leader's no-op has been applied, or cease to."""
        self._now = now
        if is_leader == self._leading:
            return
        self._leading = is_leader
        self._reign += 1
        self._liveness.clear()
        self._targets.clear()
        self._untold.clear()
        self._freshness.end()
        if is_leader:
            self._freshness.begin(now)
            for name, group in self.state.groups.items():
                for member in group.members.values():
                    self._vouch(name, member)
                self._targets.ask(name, now)
        else:
            for session in list(self._sessions.values()):
                self._end(session, not_coordinator(session.group))

    def on_tick(self, now: float) -> None:
        """Remove members whose time is over, send pings, write targets that are due. Call it every 50 ms or so."""
        self._now = now
        for session in list(self._sessions.values()):
            self._tick_session(session)
        if not self._leading:
            return
        self._freshness.tick(now)
        for group, member_ids in self._liveness.expired(now).items():
            self._remove(group, member_ids, "session timeout")
        self._liveness.ping(now)
        for name in self._targets.due(now):
            self._write_target(name)

    def on_catalogue_changed(self, now: float, deleted: Collection[bytes] = ()) -> None:
        """Topics were created, grown or deleted; `deleted` are the ids of topics whose deletion has been applied."""
        self._now = now
        if not self._leading:
            return
        for session in list(self._sessions.values()):
            if session.state is SessionState.WAITING:
                self._try_join(session)
        self._tell_untold()
        for name, group in list(self.state.groups.items()):
            self._targets.ask(name, now)
            if gone := [partition for partition in sorted(group.offsets) if partition.topic_id in deleted]:
                self._propose(
                    internal_pb2.GroupCommand(group=name, commit_offsets=forget_command(gone)), lambda result: None
                )

    def _on_proved(self) -> None:
        """What `topics` does not know was deleted, from now on."""
        self._tell_untold()
        for name in self.state.groups:
            self._targets.ask(name, self._now)

    def _tell_untold(self) -> None:
        untold, self._untold = self._untold, set()
        for group, member_id in sorted(untold):
            self._push(group, member_id)

    # -- sessions -----------------------------------------------------------------------------------------------------

    def open_session(self, send: Callable[[pb.GroupResponse], None], close: Callable[[], None]) -> Session:
        """Take up a stream. `send` and `close` must not block; `close` is called at most once."""
        session = Session(send, close)
        self._sessions[id(session)] = session
        return session

    def on_session_closed(self, session: Session, now: float) -> None:
        """The stream is gone. The member keeps its place until its session timeout, and may come back on another."""
        self._now = now
        session.state = SessionState.CLOSED
        self._sessions.pop(id(session), None)
        self._liveness.detach(session)

    def on_request(self, session: Session, request: pb.GroupRequest, now: float) -> None:
        """Take what a member says. What cannot be done ends the session with an error that says why."""
        self._now = now
        if session.state in _ENDED:
            return
        if not self._leading:
            self._end(session, not_coordinator(request.join.group or session.group))
            return
        kind = request.WhichOneof("message")
        if kind == "join":
            self._on_join(session, request.join)
        elif kind == "pong":
            self._liveness.on_pong(session, request.pong, now)
        elif kind is None:
            message = "a group session got a message that this node does not know"
            self._end(session, make_error(pb.UNSUPPORTED_VERSION, message))
        elif session.state is not SessionState.JOINED:
            message = f"a group session got a {kind} before its join was answered"
            self._end(session, make_error(pb.INVALID_REQUEST, message, hint="send a join and wait for `joined`"))
        elif kind == "commit":
            self._on_commit(session, request.commit)
        elif kind == "release":
            self._on_release(session, request.release)
        else:
            self._on_leave(session)

    def _tick_session(self, session: Session) -> None:
        if session.state not in (SessionState.OPEN, SessionState.WAITING):
            return
        if session.deadline is None:
            session.deadline = self._now + self._settings.join_timeout_seconds
        if self._now < session.deadline:
            return
        if session.join is not None:
            refusal = refuse_join(session.join, self._topics, self._settings)
            if refusal is not None and not self._freshness.covers(session.asked_at):
                # A consumer that hears of an unknown topic ends, so it must be certain.
                behind = f"{refusal.message}, as far as this node knows, but nobody tells whether it is up to date"
                refusal = make_error(pb.NOT_YET_AVAILABLE, behind)
            self._end(session, refusal)
        else:
            seconds = self._settings.join_timeout_seconds
            message = f"a group session was open for {seconds:g} s without a join"
            self._end(session, make_error(pb.TIMED_OUT, message, hint="send a join as the first message"))

    def _end(self, session: Session, error: pb.Error | None) -> None:
        self._sessions.pop(id(session), None)
        self._liveness.detach(session)
        session.end(error)

    # -- join ---------------------------------------------------------------------------------------------------------

    def _on_join(self, session: Session, join: pb.GroupJoin) -> None:
        if session.join is not None:
            message = f"group {join.group!r} is joined twice on one session"
            self._end(session, make_error(pb.INVALID_REQUEST, message, hint="open another session"))
            return
        session.join = join
        session.group = join.group
        session.asked_at = self._now
        session.deadline = self._now + self._settings.topic_wait_seconds
        self._try_join(session)

    def _try_join(self, session: Session) -> None:
        join = session.join
        assert join is not None, "only a session that has said its join is tried"
        refusal = refuse_join(join, self._topics, self._settings)
        if refusal is not None and refusal.code != pb.UNKNOWN_TOPIC:
            self._end(session, refusal)
            return
        if refusal is not None and (self._freshness.proved or not is_subscribed(join, self.state)):
            session.state = SessionState.WAITING
            self._freshness.want(session.asked_at)
            return
        if join.member_id:
            self._come_back(session, join)
            return
        group = self.state.groups.get(join.group)
        if group is not None and len(group.members) >= self._settings.members_max:
            message = f"group {join.group!r} has {len(group.members)} members"
            self._end(session, make_error(pb.INVALID_REQUEST, message, hint="stop members, or use another group"))
            return
        session.member_id = f"{self._rng.getrandbits(128):032x}"
        self._add_member(session, join)

    def _come_back(self, session: Session, join: pb.GroupJoin) -> None:
        group = self.state.groups.get(join.group)
        member = group.members.get(join.member_id) if group is not None else None
        if member is None or self._liveness.is_removing(join.group, join.member_id):
            self._end(session, unknown_member(join.group, join.member_id))
            return
        if join.member_epoch > member.member_epoch:
            message = (
                f"member {join.member_id!r} comes back to group {join.group!r} with epoch {join.member_epoch}, "
                f"but its epoch is {member.member_epoch}"
            )
            self._end(session, make_error(pb.STALE_MEMBER_EPOCH, message, hint="join again with an empty member_id"))
            return
        session.member_id = join.member_id
        self._vouch(join.group, member)
        # Its release may have been lost with the former stream. What it does not work on it has released.
        owned = {resolve(self._topics, wire) for wire in join.owned}
        if lost := [partition for partition in member.releasing() if partition not in owned]:
            release = internal_pb2.ReleasePartitions(
                member_id=member.member_id,
                member_epoch=member.member_epoch,
                partitions=[partition.stored() for partition in lost],
            )
            self._release(session, release)
        if session.state in _ENDED:
            return
        if (member.topics, member.client_id, member.session_timeout_ms) == (
            tuple(sorted(set(join.topics))),
            join.client_id,
            session_timeout_ms(join, self._settings),
        ):
            self._welcome(session, member)
        else:
            self._add_member(session, join)

    def _add_member(self, session: Session, join: pb.GroupJoin) -> None:
        session.state = SessionState.JOINING
        command = internal_pb2.AddMember(
            member_id=session.member_id,
            client_id=join.client_id,
            topics=sorted(set(join.topics)),
            session_timeout_ms=session_timeout_ms(join, self._settings),
        )

        def added(result: Result) -> None:
            if isinstance(result, pb.Error):
                self._end(session, result)
                return
            member = self._member(session)
            if member is not None:
                self._vouch(session.group, member)
            self._follow_up(session.group, result)
            if member is None:
                self._end(session, unknown_member(session.group, session.member_id))
            elif session.state is SessionState.JOINING:
                self._welcome(session, member)
            elif not join.member_id:
                # The stream broke before the member learned its id: nobody can ever come back under it.
                self._remove(session.group, [session.member_id], "the session ended before it had joined")

        self._propose(internal_pb2.GroupCommand(group=join.group, add_member=command), added)

    def _welcome(self, session: Session, member: Member) -> None:
        replaced = self._liveness.attach(session)
        if replaced is not None:
            message = f"another session of member {member.member_id!r} of group {session.group!r} has taken over"
            self._end(replaced, make_error(pb.INVALID_REQUEST, message, hint="run one session per member"))
        session.state = SessionState.JOINED
        joined = pb.GroupJoined(
            member_id=member.member_id, member_epoch=member.member_epoch, session_timeout_ms=member.session_timeout_ms
        )
        session.send(pb.GroupResponse(joined=joined))
        self._push(session.group, member.member_id)

    # -- what joined members say --------------------------------------------------------------------------------------

    def _on_commit(self, session: Session, commit: pb.GroupCommit) -> None:
        if (refusal := refuse_commit_size(len(commit.offsets), self._settings)) is not None:
            self._end(session, refusal)
            return
        member = self._member(session)
        owned = member.owned if member is not None else ()
        prepared = prepare_commit(commit.offsets, self._topics, self._settings, owned=owned)

        def answer(result: Result | None) -> None:
            if isinstance(result, pb.Error) and result.code in _NO_MEMBER_HERE:
                self._end(session, result)
            elif session.state is not SessionState.CLOSED:
                results = prepared.answer(result)
                session.send(pb.GroupResponse(committed=pb.GroupCommitted(commit_id=commit.commit_id, results=results)))

        command = prepared.command(session.member_id, commit.member_epoch, self._wall_ms())
        if command is None:
            answer(None)
        else:
            self._propose(internal_pb2.GroupCommand(group=session.group, commit_offsets=command), answer)

    def _on_release(self, session: Session, release: pb.GroupRelease) -> None:
        named = [resolve(self._topics, wire) for wire in release.partitions]
        partitions = [partition.stored() for partition in named if partition is not None]
        if not partitions:
            return
        command = internal_pb2.ReleasePartitions(
            member_id=session.member_id, member_epoch=release.member_epoch, partitions=partitions
        )
        self._release(session, command)

    def _release(self, session: Session, command: internal_pb2.ReleasePartitions) -> None:
        def released(result: Result) -> None:
            if isinstance(result, pb.Error):
                # Whatever kept it out of the log: the member comes back without the partitions, and it is made up for.
                self._end(session, result)
            else:
                self._follow_up(session.group, result)

        self._propose(internal_pb2.GroupCommand(group=session.group, release_partitions=command), released)

    def _on_leave(self, session: Session) -> None:
        session.state = SessionState.LEAVING
        self._remove(session.group, [session.member_id], "left")

    # -- acting on the log --------------------------------------------------------------------------------------------

    def _propose(self, command: internal_pb2.GroupCommand, on_result: Callable[[Result], None]) -> None:
        """Propose; a result that comes after the leadership has changed hands concerns nobody here any more."""
        reign = self._reign

        def done(result: Result) -> None:
            if reign == self._reign:
                on_result(result)

        self._propose_raw(command, done)

    def _follow_up(self, group: str, result: Result) -> None:
        """Tell the members that an applied command concerns, and see whether it asks for another target."""
        if isinstance(result, pb.Error):
            return
        for member_id in result.removed:
            session = self._liveness.forget(group, member_id)
            if session is not None:
                leaving = session.state is SessionState.LEAVING
                self._end(session, None if leaving else unknown_member(group, member_id))
        for member_id in result.changed:
            self._push(group, member_id)
        self._targets.ask(group, self._now)

    def _remove(self, group: str, member_ids: list[str], reason: str) -> None:
        for member_id in member_ids:
            self._liveness.set_removing(group, member_id, True)

        def removed(result: Result) -> None:
            for member_id in member_ids:
                self._liveness.set_removing(group, member_id, False)
                session = self._liveness.session(group, member_id)
                if isinstance(result, pb.Error) and session is not None and session.state is SessionState.LEAVING:
                    self._end(session, result)  # its place ends with its session timeout
            self._follow_up(group, result)

        command = internal_pb2.RemoveMembers(member_ids=member_ids, reason=reason)
        self._propose(internal_pb2.GroupCommand(group=group, remove_members=command), removed)

    def _write_target(self, name: str) -> None:
        group = self.state.groups.get(name)
        if not self._freshness.answered:
            return
        up_to_date = self._freshness.proved
        if group is None or not needs_target(group, self._topics, up_to_date=up_to_date):
            self._targets.forget(name)
            return

        def written(result: Result) -> None:
            self._targets.settled(name)
            # Refused means that the group has moved on, so there is a newer change to make a target for.
            self._targets.ask(name, self._now)
            self._follow_up(name, result)

        self._targets.proposed(name, self._now)
        target = make_target(group, self._topics, up_to_date=up_to_date)
        self._propose(internal_pb2.GroupCommand(group=name, set_target=target), written)

    def _push(self, name: str, member_id: str) -> None:
        session = self._liveness.session(name, member_id)
        group = self.state.groups.get(name)
        if (
            session is None
            or session.state is not SessionState.JOINED
            or group is None
            or member_id not in group.members
        ):
            return
        member = group.members[member_id]
        if not self._freshness.proved and unheard_of(member.owned, self._topics):
            # Of a topic that was deleted only the id is left; of one that is unknown here that would be no answer.
            self._untold.add((name, member_id))
            return
        session.send(pb.GroupResponse(assignment=assignment(group, member, self._topics)))

    def _member(self, session: Session) -> Member | None:
        group = self.state.groups.get(session.group)
        return group.members.get(session.member_id) if group is not None else None

    def _vouch(self, group: str, member: Member) -> None:
        self._liveness.vouch(group, member.member_id, member.session_timeout_ms / 1000, self._now)
