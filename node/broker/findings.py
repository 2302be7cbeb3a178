"""What a node finds wrong, one finding for each cause: a dead majority is one, however many groups stand still for it.

A finding that is about other nodes has them as its subject, `node 3` or `nodes 2, 3`, and a finding about this node has
`node 1`: whoever asks several nodes can lay together what is about the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from quorumlog.node.broker.hosting import Hosting
from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.broker.mending import Mending
from quorumlog.node.broker.placement_findings import placement_findings
from quorumlog.node.broker.produce import ProduceGate
from quorumlog.node.broker.retention import Held, Retention
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.opened import NodeState, Opened, Severity
from quorumlog.node.storage.opening import REPAIR_FIX
from quorumlog.proto import client_pb2

EXAMPLES_MAX: Final = 3
CHECK_DISK: Final = "check the disk (dmesg, smartctl)"

_SEVERITIES: Final = {
    Severity.INFO: client_pb2.INFO,
    Severity.WARNING: client_pb2.WARNING,
    Severity.ERROR: client_pb2.PROBLEM,
}


def findings_of_opening(opened: Opened, subject: str) -> Iterator[client_pb2.Finding]:
    """What opening the data folder has found, as it is told to operators."""
    for finding in opened.findings:
        yield client_pb2.Finding(
            severity=_SEVERITIES[finding.severity], subject=subject, message=finding.message, fix=finding.fix
        )


def has_forgotten(replica: Replica, opened: Opened) -> bool:
    """Whether a replica is in REPAIR for what it has forgotten, and not only because it is new here and fills up."""
    born_later = not replica.descriptor.voters
    return not replica.counting and not (born_later and opened.state is not NodeState.REPAIR)


class Findings:
    """Looks at everything, changes nothing."""

    def __init__(
        self,
        *,
        opened: Opened,
        catalogue: Catalogue,
        multi: MultiRaft,
        hosting: Hosting,
        liveness: Liveness,
        retention: Retention,
        gate: ProduceGate,
        mending: Mending,
    ) -> None:
        self._opened = opened
        self._catalogue = catalogue
        self._multi = multi
        self._hosting = hosting
        self._liveness = liveness
        self._retention = retention
        self._gate = gate
        self._mending = mending
        self._node_id = hosting.node_id
        self._me = f"node {hosting.node_id}"

    def look(self, speaking: Collection[int] = ()) -> Iterator[client_pb2.Finding]:
        """What is wrong, as far as this node can see, and what to do.

        Args:
            speaking: nodes that are not silent, although no member is heard from them.
        """
        in_repair = any(has_forgotten(one, self._opened) for one in self._multi.replicas.values())
        for finding in findings_of_opening(self._opened, self._me):
            if finding.fix == REPAIR_FIX and not in_repair:
                finding.severity = client_pb2.INFO
                finding.message += "; it has everything again since"
                finding.fix = CHECK_DISK
            yield finding
        if self._gate.disk_full is not None:
            yield _problem(self._me, self._gate.disk_full, "free disk space, or shorten the retention of topics")
        yield from self._forgotten()
        yield from self._stopped()
        yield from self._damaged()
        silent = {
            node_id
            for node_id in self._catalogue.nodes
            if node_id != self._node_id and not self._liveness.is_alive(node_id)
        }
        guilty: set[int] = set()
        yield from self._leaderless(guilty)
        for node_id in sorted(silent - guilty - set(speaking)):
            address = self._catalogue.nodes[node_id].peer_address
            yield client_pb2.Finding(
                severity=client_pb2.WARNING,
                subject=f"node {node_id}",
                message=f"not heard of by {self._me}; its peer address is {address}",
                fix="start it again, or check the network between the two",
            )
        yield from self._held()
        yield from placement_findings(
            self._catalogue, lambda node_id: node_id == self._node_id or self._liveness.is_alive(node_id)
        )

    def _forgotten(self) -> Iterator[client_pb2.Finding]:
        replicas = self._multi.replicas.values()
        if lost := sorted(self._hosting.lost.values()):
            yield _problem(
                self._me,
                f"{_count(len(lost), 'replica was', 'replicas were')} here and gone from the database: {some(lost)}; "
                "made again in repair, without voting or leading",
                REPAIR_FIX,
            )
        # One that was placed after its group began is merely not full yet.
        forgetful = [one for one in replicas if has_forgotten(one, self._opened)]
        repaired = [one for one in forgetful if one.group_id not in self._hosting.lost]
        if repaired:
            yield _problem(
                self._me,
                f"{len(repaired)} of its {len(replicas)} replicas are in repair (they have forgotten something, so "
                f"they follow without voting or leading): {some(_names(repaired))}",
                REPAIR_FIX,
            )

    def _stopped(self) -> Iterator[client_pb2.Finding]:
        stopped = {_name(one): one.stopped for one in self._multi.replicas.values() if one.stopped is not None}
        if stopped:
            reasons = [f"{name} ({reason})" for name, reason in sorted(stopped.items())]
            yield _problem(
                self._me,
                f"{_count(len(stopped), 'replica has', 'replicas have')} stopped: {some(reasons)}",
                "start the release that wrote the entry, or a newer one",
            )

    def _damaged(self) -> Iterator[client_pb2.Finding]:
        damaged = [one for one in self._multi.replicas.values() if one.stopped is None and one.log.has_damage]
        alone = [one for one in damaged if len(one.members) == 1]
        if alone:
            entries = _count(sum(len(one.log.damaged) for one in alone), "entry is", "entries are")
            yield _problem(
                self._me,
                f"{entries} damaged of which no other node has a replica: {some(_names(alone))}",
                f"{CHECK_DISK}; quorumlog cluster reassign gives a topic more replicas",
            )
        elsewhere = [one for one in damaged if len(one.members) > 1]
        if elsewhere:
            entries = _count(sum(len(one.log.damaged) for one in elsewhere), "entry is", "entries are")
            yield client_pb2.Finding(
                severity=client_pb2.WARNING,
                subject=self._me,
                message=f"{entries} damaged and being fetched from other replicas: {some(_names(elsewhere))}",
                fix=CHECK_DISK,
            )
        elif self._mending.mended:
            mended = _count(self._mending.mended, "damaged entry was", "damaged entries were")
            yield client_pb2.Finding(
                severity=client_pb2.INFO,
                subject=self._me,
                message=f"{mended} met since its start and replaced by what other replicas have",
                fix=CHECK_DISK,
            )

    def _leaderless(self, guilty: set[int]) -> Iterator[client_pb2.Finding]:
        """Groups without a leader: all those together for which silent nodes, added to `guilty`, leave no majority, and
        all others.
        """
        dead: list[Replica] = []
        electing: list[Replica] = []
        for replica in self._multi.replicas.values():
            if replica.raft.leader_id or replica.stopped is not None or not replica.voters:
                continue  # one that has no voters is new here, and has not heard of its group yet
            others = [voter for voter in replica.voters if voter != self._node_id]
            silent = [voter for voter in others if not self._liveness.is_alive(voter)]
            votes = len(others) - len(silent) + (self._node_id in replica.voters and replica.counting)
            if silent and 2 * votes <= len(replica.voters):
                guilty.update(silent)
                dead.append(replica)
            else:
                electing.append(replica)
        total = f"of the {len(self._multi.replicas)} groups on {self._me} have no leader"
        if dead:
            nodes = nodes_named(sorted(guilty))
            yield _problem(
                nodes,
                f"not heard of by {self._me}, and without a majority {len(dead)} {total}: {some(_names(dead))}",
                f"start {nodes} again, or check the network between them and {self._me}; only if they are gone for "
                "good: quorumlog cluster recover says what can be saved",
            )
        if electing:
            yield _problem(
                self._me,
                f"{len(electing)} {total}, although a majority of the voters is heard of: {some(_names(electing))}",
                "look again in a moment, for an election may be under way; if it stays so, see the logs of the nodes: "
                "where a majority of replicas is in repair nothing heals by itself, and quorumlog cluster recover says "
                "what can be saved",
            )

    def _held(self) -> Iterator[client_pb2.Finding]:
        by_node: dict[int, list[Held]] = defaultdict(list)
        for held in self._retention.held.values():
            by_node[held.node_id].append(held)
        for node_id, logs in sorted(by_node.items()):
            logs.sort(key=lambda held: -held.size_bytes)
            places = []
            for held in logs:
                group = self._catalogue.group(held.group_id)
                name = f"{group.topic} partition {group.partition}" if group else f"group {held.group_id}"
                places.append(f"{name} ({held.size_bytes} bytes, held up to index {held.match_index})")
            yield client_pb2.Finding(
                severity=client_pb2.WARNING,
                subject=f"node {node_id}",
                message=f"for its sake {self._me} keeps {sum(held.size_bytes for held in logs)} bytes of "
                f"{_count(len(logs), 'log', 'logs')} that retention would drop in part: {some(places)}",
                fix=f"bring node {node_id} back, so that it catches up",
            )


def some(names: Sequence[str]) -> str:
    """The first few, and how many there are besides."""
    more = len(names) - EXAMPLES_MAX
    shown = ", ".join(names[:EXAMPLES_MAX])
    return f"{shown} and {more} more" if more > 0 else shown


def nodes_named(node_ids: Sequence[int]) -> str:
    """`node 3`, or `nodes 2, 3`."""
    return f"node{'s' if len(node_ids) > 1 else ''} {', '.join(map(str, node_ids))}"


def _names(replicas: Iterable[Replica]) -> list[str]:
    """Users' own topics first: they say more than the sixteenth partition of an internal one."""
    ordered = sorted(
        replicas,
        key=lambda one: (one.descriptor.topic.startswith("__"), one.descriptor.topic, one.descriptor.partition),
    )
    return [_name(replica) for replica in ordered]


def _name(replica: Replica) -> str:
    return f"{replica.descriptor.topic} partition {replica.descriptor.partition}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _problem(subject: str, message: str, fix: str) -> client_pb2.Finding:
    return client_pb2.Finding(severity=client_pb2.PROBLEM, subject=subject, message=message, fix=fix)
