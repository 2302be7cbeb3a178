"""A member's stream as the coordinator sees it, and who is alive."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from quorumlog.proto import client_pb2 as pb


class SessionState(Enum):
    """What a session is doing."""

    OPEN = "open"
    """Nothing was said yet."""
    WAITING = "waiting"
    """The join names a topic that is not known here yet."""
    JOINING = "joining"
    """The join is on its way through the log."""
    JOINED = "joined"
    LEAVING = "leaving"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Session:
    """One stream. `send` and `close` belong to whoever carries it; neither is called after it is CLOSED.

    `deadline` is when it is given up unless it has joined; None until the first tick that sees it. `asked_at` is when
    its join came.
    """

    send: Callable[[pb.GroupResponse], None]
    close: Callable[[], None]
    state: SessionState = SessionState.OPEN
    group: str = ""
    member_id: str = ""
    join: pb.GroupJoin | None = None
    deadline: float | None = None
    asked_at: float = 0.0

    def end(self, error: pb.Error | None) -> None:
        """Say why, where there is a reason to say, and close."""
        if self.state is SessionState.CLOSED:
            return
        self.state = SessionState.CLOSED
        if error is not None:
            self.send(pb.GroupResponse(error=error))
        self.close()


@dataclass(slots=True)
class _Life:
    timeout_seconds: float
    heard_at: float
    next_ping_at: float
    session: Session | None = None
    nonces: list[int] = field(default_factory=list)
    removing: bool = False


class Liveness:
    """Who is alive: members are, until they have not answered a ping for a whole session timeout.

    Neither polling nor commits nor an open stream count, because a program whose background loop is stuck may still
    have all of them; and a member whose stream broke keeps its place until its time is over. Keys are (group, member).
    """

    def __init__(self, rng: random.Random, pings_per_timeout: int) -> None:
        self._rng = rng
        self._pings_per_timeout = pings_per_timeout
        self._lives: dict[tuple[str, str], _Life] = {}

    def vouch(self, group: str, member_id: str, timeout_seconds: float, now: float) -> None:
        """Grant a member a full session timeout from now on."""
        life = self._lives.get((group, member_id))
        if life is None:
            self._lives[group, member_id] = _Life(timeout_seconds, now, now + timeout_seconds / self._pings_per_timeout)
        else:
            life.timeout_seconds = timeout_seconds
            life.heard_at = now

    def attach(self, session: Session) -> Session | None:
        """Let pings go out on this session; return the one that it replaces, if any."""
        life = self._lives[session.group, session.member_id]
        replaced, life.session = life.session, session
        life.nonces.clear()
        return replaced if replaced is not session else None

    def detach(self, session: Session) -> None:
        """The session is gone; the member's time runs on."""
        life = self._lives.get((session.group, session.member_id))
        if life is not None and life.session is session:
            life.session = None

    def session(self, group: str, member_id: str) -> Session | None:
        """Return the session of a member, if it has one."""
        life = self._lives.get((group, member_id))
        return life.session if life is not None else None

    def on_pong(self, session: Session, nonce: int, now: float) -> None:
        """An answer to a ping that is still open proves that the member lives; anything else proves nothing."""
        life = self._lives.get((session.group, session.member_id))
        if life is not None and life.session is session and nonce in life.nonces:
            life.heard_at = now
            life.nonces.clear()

    def set_removing(self, group: str, member_id: str, removing: bool) -> None:
        """Remember whether the member's removal is on its way."""
        life = self._lives.get((group, member_id))
        if life is not None:
            life.removing = removing

    def is_removing(self, group: str, member_id: str) -> bool:
        """Whether the member's removal is on its way."""
        life = self._lives.get((group, member_id))
        return life is not None and life.removing

    def forget(self, group: str, member_id: str) -> Session | None:
        """The member is gone; return the session it had."""
        life = self._lives.pop((group, member_id), None)
        return life.session if life is not None else None

    def clear(self) -> None:
        """Forget everybody."""
        self._lives.clear()

    def expired(self, now: float) -> dict[str, list[str]]:
        """Return the members whose time is over and whose removal is not on its way, by group."""
        expired: dict[str, list[str]] = {}
        for (group, member_id), life in self._lives.items():
            if not life.removing and now - life.heard_at >= life.timeout_seconds:
                expired.setdefault(group, []).append(member_id)
        return expired

    def ping(self, now: float) -> None:
        """Send the pings that are due."""
        for life in list(self._lives.values()):
            if life.session is None or now < life.next_ping_at:
                continue
            life.next_ping_at = now + life.timeout_seconds / self._pings_per_timeout
            nonce = self._rng.getrandbits(63) | 1
            life.nonces.append(nonce)
            life.session.send(pb.GroupResponse(ping=nonce))
