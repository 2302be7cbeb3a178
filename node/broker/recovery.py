"""A group that cannot heal goes on from what one replica has, because an operator says so.

That is for the day when a majority of a group's replicas is gone for good, or has forgotten what it promised: no rule
can tell then what was acknowledged. The operator is told from which offset on records may be gone, or may come back
that were never acknowledged, and takes that upon himself. The replica then makes up the group alone; from there the
group moves to its wish like any other, and whoever held something else takes over what it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from quorumlog.node.broker.directory import Directory
from quorumlog.node.broker.hosting import Hosting
from quorumlog.node.clock import Clock
from quorumlog.node.errors import ReplicaStopped
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Committed, Replica
from quorumlog.proto import client_pb2, internal_pb2
from quorumlog.proto.errors import make_error
from quorumlog.raft import EntryKind, NotLeader, ProposalRefused

Reply = Callable[[client_pb2.RecoverResponse], None]

IDS_SKIPPED = 1 << 32
"""Ids of groups and producers that a recovered `__cluster` leaves out: it may have forgotten as many."""


class _Recovering(NamedTuple):
    response: client_pb2.RecoverResponse
    reply: Reply


class Recovery:
    """Recovers groups from the replicas of this node."""

    def __init__(self, *, directory: Directory, multi: MultiRaft, hosting: Hosting, clock: Clock) -> None:
        self._directory = directory
        self._multi = multi
        self._hosting = hosting
        self._clock = clock
        self._recovering: dict[int, _Recovering] = {}
        self._written: set[int] = set()

    def recover(self, request: client_pb2.RecoverRequest, reply: Reply) -> None:
        """Say what may be gone or, with `accept_loss`, go on from this node's replica; answered once it leads."""
        replica = self._find(request)
        if isinstance(replica, client_pb2.Error):
            reply(client_pb2.RecoverResponse(error=replica))
            return
        raft = replica.raft
        response = client_pb2.RecoverResponse(
            from_node_id=replica.node_id,
            last_index=raft.last_index,
            first_offset_in_doubt=replica.high_watermark if replica.partition is not None else 0,
        )
        if not request.accept_loss:
            reply(response)
            return
        self._hosting.recover(replica)
        self._recovering[replica.group_id] = _Recovering(response, reply)

    def _find(self, request: client_pb2.RecoverRequest) -> Replica | client_pb2.Error:
        here = self._directory.node_id
        name = f"topic {request.topic!r} partition {request.partition}"
        for replica in self._multi.replicas.values():
            descriptor = replica.descriptor
            if (descriptor.topic, descriptor.partition) != (request.topic, request.partition):
                continue
            leader = self._directory.leader_of(replica.group_id)
            if leader is not None or replica.raft.leader_id:
                led_by = leader.node_id if leader is not None else replica.raft.leader_id
                return make_error(
                    client_pb2.INVALID_REQUEST,
                    f"{name} is led by node {led_by}: there is nothing to recover",
                    hint="quorumlog doctor says what heals by itself",
                )
            return replica
        return make_error(
            client_pb2.INVALID_REQUEST,
            f"node {here} has no replica of {name}",
            hint="name a node that has one with --from; quorumlog cluster status says which have",
        )

    def tick(self) -> None:
        """Write down, in the group itself, what has happened to it, and answer."""
        for group_id, recovering in list(self._recovering.items()):
            replica = self._multi.replicas.get(group_id)
            if replica is not None and replica.leads and group_id not in self._written:
                self._write(replica, recovering)

    def _write(self, replica: Replica, recovering: _Recovering) -> None:
        group_id = replica.group_id

        def on_result(result: object) -> None:
            if isinstance(result, Committed):
                del self._recovering[group_id]
                recovering.reply(recovering.response)
            self._written.discard(group_id)

        if group_id == CLUSTER_GROUP_ID:
            kind = EntryKind.COMMAND
            skip = internal_pb2.SkipIds(count=IDS_SKIPPED)
            payload = internal_pb2.ClusterCommand(skip_ids=skip).SerializeToString()
        else:
            kind = EntryKind.CONTROL
            recovered = internal_pb2.Recovered(first_offset_in_doubt=recovering.response.first_offset_in_doubt)
            payload = internal_pb2.ControlRecord(recovered=recovered).SerializeToString()
        try:
            replica.propose(kind, payload, wall_ms=self._clock.wall_ms(), reply=on_result)
        except (NotLeader, ProposalRefused, ReplicaStopped):
            return
        self._written.add(group_id)
        self._multi.touch(replica)
