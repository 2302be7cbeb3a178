"""What a disk has to hold, whatever happens to its node: looked at by the invariants of a run."""

from __future__ import annotations

from typing import NoReturn

from quorumlog.chaos.sim.failures import Violation
from quorumlog.chaos.sim.node import SimNode
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.identity import Identity
from quorumlog.node.storage.opened import Opened


class Folders:
    """Who each node is in its cluster, and what it has forgotten so far: nothing of it goes with the power."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Identity, bytes]] = {}

    def remember(self, node: SimNode, opened: Opened) -> None:
        """The node is this now."""
        self._known[node.node_id] = opened.identity, opened.repair_id

    def check(self, node: SimNode, opened: Opened) -> None:
        """A disk from which nothing was taken gives back who the node is, and that it has forgotten nothing."""
        identity, repair_id = self._known.get(node.node_id, (opened.identity, opened.repair_id))
        self.remember(node, opened)
        if node.robbed:
            return
        if opened.identity != identity:
            _fail(node, 0, f"was {identity}, and comes back as {opened.identity}")
        if opened.repair_id != repair_id:
            _fail(node, 0, f"has forgotten something, and its disk lost nothing: {opened.findings}")


def check_log(node: SimNode, group_id: int) -> None:
    """A log consists of the entries from its first to its last, and of no others."""
    shadow = node.storage.shadow.visible.get(group_id)
    if shadow is None or shadow.gapless:
        return
    span = f"with a log from {shadow.first} to {shadow.last}"
    stray = sorted(index for index in shadow.terms if not shadow.first <= index <= shadow.last)
    if stray:
        _fail(node, group_id, f"{span} has entries {stray[:5]} on its disk")
    if not node.past_shadows:  # what was saved of a database that was lost may have gaps, which are mended
        missing = [index for index in range(shadow.first, shadow.last + 1) if index not in shadow.terms]
        _fail(node, group_id, f"{span} lacks entries {missing[:5]} on its disk")


def check_match(leader: SimNode, replica: Replica, other: SimNode, match: int) -> None:
    """What a peer has acknowledged in the session that it is in now stands on its disk."""
    if other.broker is None or leader.heard.get(other.node_id) != other.session_id:
        return
    group_id = replica.group_id
    there = other.broker.multi.replicas.get(group_id)
    if there is None or not there.counting or there.raft.term > replica.raft.term:
        return
    own, durable = leader.storage.shadow.visible.get(group_id), other.storage.shadow.durable.get(group_id)
    term = own.terms.get(match) if own is not None else None
    if term is not None and (durable is None or not durable.holds(match, term)):
        what = f"takes entry {match} of term {term} for matched on node {other.node_id}, whose disk does not hold it"
        _fail(leader, group_id, what)


def _fail(node: SimNode, group_id: int, what: str) -> NoReturn:
    where = f"group {group_id}: " if group_id else ""
    raise Violation(f"seed {node.world.seed}: {where}node {node.node_id} {what}", group_id)
