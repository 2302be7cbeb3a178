"""Leadership that an operator moves: begun here, answered when the new leader is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quorumlog.node.broker.directory import Directory, Found
from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.clock import Clock
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.node.timers import Timer, Timers
from quorumlog.proto import client_pb2
from quorumlog.proto.errors import make_error
from quorumlog.raft import NodeId

Reply = Callable[[client_pb2.TransferLeadershipResponse], None]


@dataclass(slots=True)
class _Transfer:
    found: Found
    replica: Replica
    target: int
    reply: Reply
    timer: Timer | None = None
    late: bool = False


class Transfers:
    """Hands partitions to other replicas.

    Args:
        election_timeout_seconds: after as long the core gives a transfer up and leads on.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        multi: MultiRaft,
        liveness: Liveness,
        clock: Clock,
        timers: Timers,
        election_timeout_seconds: float,
    ) -> None:
        self._directory = directory
        self._multi = multi
        self._liveness = liveness
        self._clock = clock
        self._timers = timers
        # The target may need an election of its own once the core here has let go.
        self._timeout_seconds = 2 * election_timeout_seconds
        self._under_way: list[_Transfer] = []

    def transfer(self, request: client_pb2.TransferLeadershipRequest, reply: Reply) -> None:
        """Let another replica lead a partition.

        `reply` gets no error once it is known to lead, and a retriable one that says who leads when it did not come to
        that in time.
        """
        found = self._directory.find(b"", request.topic, request.partition)
        error = found if isinstance(found, client_pb2.Error) else self._refuse(found, request.to_node_id)
        if error is not None:
            reply(client_pb2.TransferLeadershipResponse(error=error))
            return
        assert isinstance(found, Found)
        replica = found.replica
        assert replica is not None
        if request.to_node_id == replica.node_id:
            reply(client_pb2.TransferLeadershipResponse())
            return
        replica.raft.transfer_leadership(NodeId(request.to_node_id))
        self._multi.touch(replica)
        transfer = _Transfer(found, replica, request.to_node_id, reply)
        transfer.timer = self._timers.at(self._clock.now() + self._timeout_seconds, lambda: self._on_late(transfer))
        self._under_way.append(transfer)

    def _refuse(self, found: Found, target: int) -> client_pb2.Error | None:
        replica = found.replica
        if replica is None or not replica.leads:
            return self._directory.not_leader(found)
        if target not in replica.voters:
            return make_error(
                client_pb2.INVALID_REQUEST,
                f"node {target} has no replica of {_name(found)}",
                hint=f"choose one of the nodes {', '.join(map(str, replica.voters))}",
            )
        # To one that cannot take over: the partition would take no records until the transfer is given up.
        progress = replica.raft.progress(NodeId(target))
        if progress is not None and not self._liveness.is_alive(target):
            return self._leads_on(found, target, f"node {replica.node_id} does not hear of it")
        if progress is not None and not progress.counting:
            return self._leads_on(found, target, "its replica is in repair")
        return None

    def _on_late(self, transfer: _Transfer) -> None:
        transfer.late = True
        self.check()

    def check(self) -> None:
        """Answer what has been decided; called whenever anything may have changed."""
        if not self._under_way:
            return
        under_way, self._under_way = self._under_way, []
        for transfer in under_way:
            outcome = self._outcome(transfer)
            if outcome is None:
                self._under_way.append(transfer)
                continue
            if transfer.timer is not None:
                transfer.timer.cancel()
            transfer.reply(outcome)

    def _outcome(self, transfer: _Transfer) -> client_pb2.TransferLeadershipResponse | None:
        """None while it is not known."""
        found, raft = transfer.found, transfer.replica.raft
        error: client_pb2.Error | None = None
        if transfer.replica.stopped is not None:
            # Perhaps because the topic was deleted.
            again = self._directory.find(found.topic.topic_id, "", found.partition.partition)
            error = again if isinstance(again, client_pb2.Error) else self._directory.not_leader(found)
        elif raft.leader_id != transfer.target:
            if raft.is_leader and raft.transferring_to == transfer.target and not transfer.late:
                return None
            if raft.is_leader:
                error = self._leads_on(found, transfer.target, "it did not take over within an election timeout")
            elif not raft.leader_id and not transfer.late:
                return None
            else:
                error = self._directory.not_leader(found)
        return client_pb2.TransferLeadershipResponse(error=error)

    def _leads_on(self, found: Found, target: int, reason: str) -> client_pb2.Error:
        here = self._directory.node_id
        return make_error(
            client_pb2.NOT_YET_AVAILABLE,
            f"node {target} does not lead {_name(found)}: {reason}; node {here} leads it still",
            hint=f"try again; quorumlog doctor says whether node {target} is up",
            leader=self._directory.leader_of(found.partition.group_id),
        )


def _name(found: Found) -> str:
    return f"topic {found.topic.name!r} partition {found.partition.partition}"
