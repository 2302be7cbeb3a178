"""What the rest of a node may ask the coordination plane, and the plane that answers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from quorumlog.raft.types import NodeId, Term


@dataclass(frozen=True, slots=True)
class Announcement:
    """The whole state that one node tells the others.

    `leaders` holds the groups that this node leads now, with the term in which it leads each. The announcement counts
    for `ttl_seconds` on each node, from the moment that node receives it, so that no two clocks are ever compared.
    """

    node_id: NodeId
    incarnation: bytes
    session_id: int  # drawn at each process start
    leaders: Mapping[int, Term]  # by group id
    disk_free_bytes: int
    load: float  # any one figure that is comparable between nodes, such as the share of a core in use
    ttl_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class LeaderHint:
    """Who is said to lead a group. The term is the log plane's: of two hints the one with the higher term is right."""

    node_id: NodeId
    term: Term


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """What a node last said about itself; `heard_at` is when it arrived here, in seconds of the local clock."""

    node_id: NodeId
    incarnation: bytes
    session_id: int
    disk_free_bytes: int
    load: float
    heard_at: float


class CoordinationView(Protocol):
    """Answers from local memory. Each of them may be missing, late or wrong: they order choices, they never forbid one.

    A caller that finds nothing here goes on without it: it asks a node directly, or treats all nodes alike.
    """

    def node_is_up(self, node_id: NodeId, now: float) -> bool:
        """Whether the node was heard of lately. False means "not heard of", which is less than "dead"."""
        ...

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Who is said to lead the group, or None where nobody says so."""
        ...

    def figures(self) -> Mapping[NodeId, NodeFigures]:
        """What each node that is up last said about itself; read only."""
        ...

    def try_lock(self, name: str, ttl_seconds: float, now: float) -> bool:
        """Ask for the lock `name`, or keep it; True while this node holds it.

        It does not wait: a first call starts the claim and answers False, and a later one finds it granted. Ask again
        at least twice per `ttl_seconds`, or the lock runs out. Advisory: a duty behind it must be harmless when two
        nodes do it at once.
        """
        ...

    def lock_owner(self, name: str, now: float) -> NodeId | None:
        """Who holds the lock `name`, or None when it is free, has run out or is unknown here."""
        ...


_NO_FIGURES: Mapping[NodeId, NodeFigures] = MappingProxyType({})


class NoCoordination:
    """The coordination plane of a node that runs without one: knows nobody, hints nothing, grants no lock."""

    __slots__ = ()

    def node_is_up(self, node_id: NodeId, now: float) -> bool:
        """Return False: nobody was heard of."""
        return False

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Return None: no leader is known."""
        return None

    def figures(self) -> Mapping[NodeId, NodeFigures]:
        """Return nothing."""
        return _NO_FIGURES

    def try_lock(self, name: str, ttl_seconds: float, now: float) -> bool:
        """Return False: what is not agreed on is not held."""
        return False

    def lock_owner(self, name: str, now: float) -> NodeId | None:
        """Return None: no owner is known."""
        return None
