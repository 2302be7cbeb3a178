"""The metadata group seen from a node: commands reach its leader wherever that is, and a node can ask how far it has
come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from quorumlog.node.clock import Clock
from quorumlog.node.errors import ReplicaStopped
from quorumlog.node.metadata.catalogue import Catalogue, CatalogueChange
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Committed, Replica
from quorumlog.node.state_machine import UnknownCommand
from quorumlog.node.timers import Timer, Timers
from quorumlog.proto import client_pb2, internal_pb2, peer_pb2
from quorumlog.proto.errors import make_error
from quorumlog.raft import EntryKind, NotLeader, ProposalRefused

RETRY_SECONDS: Final = 0.25
FORWARDS_MAX: Final = 1000
"""Forwarded commands waiting for an answer or for what it speaks of; beyond it callers are told so at once."""

Outcome = CatalogueChange | client_pb2.Error
Reply = Callable[[Outcome], None]


class _Forward:
    """A command on its way to the leader, sent again until it is answered or its time is up."""

    __slots__ = ("command", "deadline", "on_result", "timer")

    def __init__(
        self, command: bytes, deadline: float, on_result: Callable[[peer_pb2.ForwardedResult | None], None]
    ) -> None:
        self.command = command
        self.deadline = deadline
        self.on_result = on_result
        self.timer: Timer | None = None


class _Barrier(NamedTuple):
    """A caller that waits until this node has applied `__cluster` through `index` (inclusive)."""

    index: int  # type: ignore[assignment]  # nobody looks for an element of a barrier
    deadline: float
    done: Callable[[bool], None]


class ClusterGroup:
    """Proposes to `__cluster`, here or through its leader, and waits for this node's catalogue to catch up.

    Args:
        first_correlation_id: drawn at each start, so that a late answer to a question of the process before is not
            taken for an answer to one of this process.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        multi: MultiRaft,
        clock: Clock,
        timers: Timers,
        leader_of: Callable[[int], client_pb2.Leader | None],
        send_forward: Callable[[int, peer_pb2.Forwarded], None],
        send_result: Callable[[int, peer_pb2.ForwardedResult], None],
        first_correlation_id: int,
    ) -> None:
        self._catalogue = catalogue
        self._multi = multi
        self._clock = clock
        self._timers = timers
        self._leader_of = leader_of
        self._send_forward = send_forward
        self._send_result = send_result
        self._forwards: dict[int, _Forward] = {}
        self._next_correlation_id = first_correlation_id
        self._barriers: list[_Barrier] = []

    @property
    def replica(self) -> Replica | None:
        """This node's replica of `__cluster`."""
        return self._multi.replicas.get(CLUSTER_GROUP_ID)

    @property
    def applied(self) -> int:
        """The index through which `__cluster` has been applied here (inclusive)."""
        replica = self.replica
        return replica.raft.applied if replica is not None else 0

    @property
    def decides(self) -> bool:
        """Whether this node leads `__cluster` and its catalogue is up to date."""
        replica = self.replica
        return replica is not None and replica.ready_to_decide

    @property
    def takes_requests(self) -> bool:
        """Whether this node decides, and its catalogue has the founding in it: before that it knows of no nodes."""
        return self.decides and bool(self._catalogue.cluster_id)

    def has_parted_from(self, node_id: int) -> bool:
        """Whether `__cluster` goes on without the vote of this node, as far as is committed here.

        Before that a node that has lost its folder must not have a replica again: it would vote in the place of what
        it was.
        """
        replica = self.replica
        if replica is None:
            return False
        now = replica.configuration
        committed = replica.raft.configuration_index <= replica.raft.commit_index
        return committed and bool(now.voters) and node_id not in (*now.voters, *now.outgoing)

    def not_leader(self) -> client_pb2.Error:
        """NOT_LEADER for a request that the leader of `__cluster` must decide."""
        leader = self._leader_of(CLUSTER_GROUP_ID)
        if leader is None:
            return make_error(
                client_pb2.NO_LEADER, "the metadata group __cluster has no leader that this node knows of"
            )
        replica = self.replica
        if replica is not None and leader.node_id == replica.node_id:
            return make_error(
                client_pb2.NOT_YET_AVAILABLE,
                f"node {leader.node_id} has just begun to lead the metadata group __cluster, and catches up first",
                outcome=client_pb2.OUTCOME_UNSPECIFIED,
            )
        return make_error(
            client_pb2.NOT_LEADER,
            f"node {leader.node_id} at {leader.address} leads the metadata group __cluster",
            leader=leader,
            outcome=client_pb2.OUTCOME_UNSPECIFIED,
        )

    # ---------------------------------------------------------------------------------------------------- as leader

    def propose(self, command: internal_pb2.ClusterCommand, reply: Reply) -> None:
        """Propose here; `reply` gets what applying it gave, or why it did not come to that."""
        replica = self.replica
        if replica is None or not replica.ready_to_decide:
            reply(self.not_leader())
            return

        def on_result(result: object) -> None:
            if isinstance(result, Committed):
                assert isinstance(result.value, CatalogueChange | client_pb2.Error)
                reply(result.value)
            else:
                lost = "leadership of __cluster was lost before the change was committed: it may yet be made"
                reply(make_error(client_pb2.NOT_LEADER, lost, outcome=client_pb2.OUTCOME_UNKNOWN))

        try:
            replica.propose(
                EntryKind.COMMAND, command.SerializeToString(), wall_ms=self._clock.wall_ms(), reply=on_result
            )
        except (NotLeader, ReplicaStopped):
            # Not `not_leader`: it would say that this node leads, and whoever decides anew then would do so at once.
            handed_over = "leadership of the metadata group __cluster is being handed over"
            reply(make_error(client_pb2.NO_LEADER, handed_over))
            return
        except ProposalRefused as error:
            reply(make_error(client_pb2.THROTTLED, str(error), retry_after_ms=100))
            return
        self._multi.touch(replica)

    def on_forwarded(self, sender: int, forwarded: peer_pb2.Forwarded) -> None:
        """Another node asks this one, in the belief that it leads. Silence sends it elsewhere."""
        replica = self.replica
        if replica is None or not replica.ready_to_decide:
            return
        if not forwarded.command:
            self._answer_index(sender, forwarded.correlation_id, replica)
            return
        try:
            command = self._catalogue.decode(forwarded.command)
        except UnknownCommand as error:
            refusal = make_error(client_pb2.UNSUPPORTED_VERSION, str(error))
            self._send_result(
                sender,
                peer_pb2.ForwardedResult(correlation_id=forwarded.correlation_id, error=refusal.SerializeToString()),
            )
            return

        def on_outcome(outcome: Outcome) -> None:
            result = peer_pb2.ForwardedResult(correlation_id=forwarded.correlation_id)
            if isinstance(outcome, CatalogueChange):
                result.first_producer_id = outcome.first_producer_id
                result.producer_ids = outcome.producer_id_count
            elif outcome.retriable:
                return
            else:
                result.error = outcome.SerializeToString()
            self._send_result(sender, result)

        self.propose(command, on_outcome)

    def _answer_index(self, sender: int, correlation_id: int, replica: Replica) -> None:
        def on_confirmed(leads: bool) -> None:
            if leads:
                result = peer_pb2.ForwardedResult(correlation_id=correlation_id, index=replica.raft.applied)
                self._send_result(sender, result)

        try:
            replica.read_index(on_confirmed)
        except NotLeader:
            return
        self._multi.touch(replica)

    # ------------------------------------------------------------------------------------------------- from anywhere

    def submit(self, command: internal_pb2.ClusterCommand, timeout_seconds: float, reply: Reply) -> None:
        """Have a command that bears repeating applied, wherever the leader is."""

        def on_result(result: peer_pb2.ForwardedResult | None) -> None:
            if result is None:
                reply(make_error(client_pb2.NO_LEADER, "the metadata group __cluster did not answer in time"))
            elif result.error:
                reply(_error_of(result.error))
            else:
                reply(
                    CatalogueChange(first_producer_id=result.first_producer_id, producer_id_count=result.producer_ids)
                )

        self._forward(command.SerializeToString(), timeout_seconds, on_result)

    def catch_up(self, timeout_seconds: float, done: Callable[[bool], None]) -> None:
        """Call `done(True)` once this node's catalogue holds all that was committed before this call; `done(False)`
        when
        the leader does not say how far that is in time.
        """

        def on_result(result: peer_pb2.ForwardedResult | None) -> None:
            replica = self.replica
            if result is None or replica is None:
                done(False)
            elif replica.raft.applied >= result.index:
                done(True)
            else:
                self._barriers.append(_Barrier(result.index, deadline, done))

        deadline = self._clock.now() + timeout_seconds
        self._forward(b"", timeout_seconds, on_result)

    def _forward(
        self,
        command: bytes,
        timeout_seconds: float,
        on_result: Callable[[peer_pb2.ForwardedResult | None], None],
    ) -> None:
        if len(self._forwards) + len(self._barriers) >= FORWARDS_MAX:
            on_result(None)
            return
        correlation_id = self._next_correlation_id
        self._next_correlation_id += 1
        self._forwards[correlation_id] = _Forward(command, self._clock.now() + timeout_seconds, on_result)
        self._try(correlation_id)

    def _try(self, correlation_id: int) -> None:
        forward = self._forwards.get(correlation_id)
        if forward is None:
            return
        now = self._clock.now()
        if now >= forward.deadline:
            del self._forwards[correlation_id]
            forward.on_result(None)
            return
        forward.timer = self._timers.at(min(now + RETRY_SECONDS, forward.deadline), lambda: self._try(correlation_id))
        leader = self._leader_of(CLUSTER_GROUP_ID)
        if leader is not None:
            self._send_forward(
                leader.node_id, peer_pb2.Forwarded(correlation_id=correlation_id, command=forward.command)
            )

    def on_forwarded_result(self, result: peer_pb2.ForwardedResult) -> None:
        """The leader has answered."""
        forward = self._forwards.pop(result.correlation_id, None)
        if forward is None:
            return
        if forward.timer is not None:
            forward.timer.cancel()
        forward.on_result(result)

    def on_applied(self, index: int) -> None:
        """An entry of `__cluster` was applied here."""
        if self._barriers:
            ready = [barrier for barrier in self._barriers if barrier.index <= index]
            self._barriers = [barrier for barrier in self._barriers if barrier.index > index]
            for barrier in ready:
                barrier.done(True)

    def tick(self, now: float) -> None:
        """Give up waiting for entries that do not come: this node may be cut off from those that have them."""
        late = [barrier for barrier in self._barriers if barrier.deadline <= now]
        if late:
            self._barriers = [barrier for barrier in self._barriers if barrier.deadline > now]
            for barrier in late:
                barrier.done(False)


def _error_of(payload: bytes) -> client_pb2.Error:
    try:
        return client_pb2.Error.FromString(payload)
    except DecodeError:
        return make_error(client_pb2.UNKNOWN, "the leader of __cluster answered with an error that cannot be read")
