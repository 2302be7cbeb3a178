"""What the announcements of all nodes add up to: who is up, how loaded, and who leads which group."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from quorumlog.node.coordination.commands import AnnouncementPart
from quorumlog.node.coordination.view import Announcement, LeaderHint, NodeFigures
from quorumlog.raft.types import NodeId, Term


@dataclass(slots=True)
class _Gathering:
    """The parts of an announcement of which others are still to come."""

    session_id: int
    sequence: int
    parts: int
    leaders: dict[int, Mapping[int, Term]] = field(default_factory=dict)  # part -> its groups


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a node said last, whole."""

    session_id: int
    sequence: int
    leaders: Mapping[int, Term]
    expires_at: float


class Directory:
    """The state of every member, each replaced as a whole by its next announcement and dropped when it expires.

    Applying never raises and never depends on time: `now` only starts the local expiry. Announcements of nodes that are
    no members are ignored, so the size is bounded by members times `MAX_GROUPS_PER_NODE`.

    Args:
        member_ids: the nodes of the cluster.
    """

    def __init__(self, member_ids: Collection[NodeId]) -> None:
        self._member_ids = frozenset(member_ids)
        self._heard: dict[NodeId, _Heard] = {}
        self._figures: dict[NodeId, NodeFigures] = {}
        self._gathering: dict[NodeId, _Gathering] = {}
        self._hints: dict[int, LeaderHint] = {}

    def node_is_up(self, node_id: NodeId, now: float) -> bool:
        """Whether the last announcement of the node has not expired at `now`."""
        heard = self._heard.get(node_id)
        return heard is not None and now < heard.expires_at

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Return who is said to lead the group: of several claims the one with the highest term."""
        return self._hints.get(group_id)

    def figures(self) -> Mapping[NodeId, NodeFigures]:
        """Return what each node that is up last said about itself; read only, and it changes as announcements come."""
        return MappingProxyType(self._figures)

    def apply(self, part: AnnouncementPart, now: float) -> bool:
        """Take one part of an announcement. True if it completed the announcement and replaced the node's state.

        A repeated or overtaken part changes nothing: within a session the sequence only grows. A new session always
        replaces the old one, as session ids have no order and the log has.
        """
        said = part.announcement
        if said.node_id not in self._member_ids:
            return False
        heard = self._heard.get(said.node_id)
        if heard is not None and heard.session_id == said.session_id and part.sequence <= heard.sequence:
            return False
        gathering = self._gathering.get(said.node_id)
        stale = gathering is None or (gathering.session_id, gathering.sequence, gathering.parts) != (
            said.session_id,
            part.sequence,
            part.parts,
        )
        if gathering is None or stale:
            if gathering is not None and gathering.session_id == said.session_id and part.sequence < gathering.sequence:
                return False
            gathering = _Gathering(said.session_id, part.sequence, part.parts)
            self._gathering[said.node_id] = gathering
        gathering.leaders[part.part] = said.leaders
        if len(gathering.leaders) < gathering.parts:
            return False
        del self._gathering[said.node_id]
        leaders = {group_id: term for rows in gathering.leaders.values() for group_id, term in rows.items()}
        self._replace(said, part.sequence, leaders, now)
        return True

    def expire(self, now: float) -> None:
        """Drop every node whose announcement has expired at `now`, with its hints and figures."""
        for node_id in [node_id for node_id, heard in self._heard.items() if now >= heard.expires_at]:
            gone = self._heard.pop(node_id)
            del self._figures[node_id]
            for group_id in gone.leaders:
                self._withdraw(group_id, node_id)

    def _replace(self, said: Announcement, sequence: int, leaders: Mapping[int, Term], now: float) -> None:
        before = self._heard.get(said.node_id)
        self._heard[said.node_id] = _Heard(said.session_id, sequence, leaders, expires_at=now + said.ttl_seconds)
        self._figures[said.node_id] = NodeFigures(
            said.node_id, said.incarnation, said.session_id, said.disk_free_bytes, said.load, heard_at=now
        )
        if before is not None:
            for group_id in before.leaders.keys() - leaders.keys():
                self._withdraw(group_id, said.node_id)
        for group_id, term in leaders.items():
            hint = self._hints.get(group_id)
            if hint is None or term > hint.term:
                self._hints[group_id] = LeaderHint(said.node_id, term)
            elif hint.node_id == said.node_id and term < hint.term:
                self._elect(group_id)

    def _withdraw(self, group_id: int, node_id: NodeId) -> None:
        hint = self._hints.get(group_id)
        if hint is not None and hint.node_id == node_id:
            self._elect(group_id)

    def _elect(self, group_id: int) -> None:
        """Choose the hint of a group anew from what all nodes say; of equal terms the lowest node id."""
        claims = [
            (-heard.leaders[group_id], node_id) for node_id, heard in self._heard.items() if group_id in heard.leaders
        ]
        if not claims:
            self._hints.pop(group_id, None)
            return
        negative_term, node_id = min(claims)
        self._hints[group_id] = LeaderHint(node_id, Term(-negative_term))
