"""A node that waits, and how it becomes a member: it founds a cluster, or is handed the record of one."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from dataclasses import replace

from quorumlog.node.clock import Clock
from quorumlog.node.metadata import decisions
from quorumlog.node.rpc.founding import identify_all, init_at
from quorumlog.node.storage.identity import Founder, Founding, FoundingRefused, save_identity
from quorumlog.node.storage.opened import Opened
from quorumlog.proto import client_pb2, internal_pb2, peer_pb2
from quorumlog.proto.errors import make_error
from quorumlog.raft import NodeId

log = logging.getLogger(__name__)


def wiped_fix(node_id: int) -> str:
    """What to do about a node whose folder is not the one that its cluster knows."""
    return (
        f"keep node {node_id} and a majority of the others up: they admit it as a new incarnation by themselves, and "
        f"give it what its partitions lack; if its own data folder is still there, stop node {node_id} before that and "
        "start it with that folder (the one it last ran with: an older copy has forgotten what it promised since)"
    )


class FoundingDesk:
    """Takes one founding record in the life of a data folder; every other one is refused.

    Args:
        opened: the data folder.
        descriptor: this node as it wants to be known.
        begin: called once, with the folder and the record, when this process knows that the node is a member.
        stopping: whether the node stops; then it takes no record any more.
    """

    def __init__(
        self,
        opened: Opened,
        descriptor: internal_pb2.NodeDescriptor,
        clock: Clock,
        begin: Callable[[Opened, internal_pb2.Founding], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._opened = opened
        self._descriptor = descriptor
        self._clock = clock
        self._begin = begin
        self._stopping = stopping
        self._node_id = descriptor.node_id
        # A peer may hand the founding record over on both of its lanes at once.
        self._taking = asyncio.Lock()
        self._takers: set[asyncio.Task[peer_pb2.FoundResponse]] = set()
        self.record: internal_pb2.Founding | None = None
        """The founding record, once the node is a member."""
        self.wiped: str | None = None
        """Set while the node waits although a cluster knows it: that it does so under another incarnation."""
        self.greeted_by: peer_pb2.Hello | None = None
        """The last hello of a member of a cluster that came while the node waited."""

    @property
    def cluster_id(self) -> bytes:
        """Empty while the node waits."""
        return self.record.cluster_id if self.record is not None else b""

    def recall(self) -> bool:
        """Begin as the member that the data folder says this node is. False when it waits."""
        founding = self._opened.identity.founding
        if founding is None:
            return False
        self._begin_as(internal_pb2.Founding.FromString(founding.record))
        return True

    def _begin_as(self, record: internal_pb2.Founding) -> None:
        assert self.record is None
        self.record = record
        self._begin(self._opened, record)

    async def init_cluster(self, request: client_pb2.InitClusterRequest) -> client_pb2.InitClusterResponse:
        """Found a cluster from the nodes at the peer addresses named, this one among them."""
        if self._stopping() or self._is_member():
            return self._refuse_init()
        named = [node.node_id for node in request.nodes]
        if self._node_id not in named or len(set(named)) < len(named):
            message = f"node {self._node_id} is asked to found a cluster of the nodes {named}"
            hint = "name every node once, the one that is asked among them"
            return client_pb2.InitClusterResponse(error=make_error(client_pb2.INVALID_REQUEST, message, hint=hint))
        peers = {node.node_id: node.address for node in request.nodes if node.node_id != self._node_id}
        answers = await identify_all(peers)
        if isinstance(answers, client_pb2.Error):
            return client_pb2.InitClusterResponse(error=answers)
        first = min(answers, key=lambda node: node.node_id, default=self._descriptor)
        if first.node_id < self._node_id:
            # One of them alone may begin, or calls at different nodes at the same time would found different clusters.
            return await init_at(first.client_address, request)
        record = decisions.founding(
            [self._descriptor, *answers],
            cluster_id=request.cluster_id,
            rng=random.Random(secrets.randbits(64)),
            now_ms=self._clock.wall_ms(),
        )
        if isinstance(record, client_pb2.Error):
            return client_pb2.InitClusterResponse(error=record)
        if self._is_member():  # another call was faster
            return self._refuse_init()
        accepted = await self.take(record)
        if not accepted.accepted:
            if self._is_member():
                return self._refuse_init()
            error = make_error(client_pb2.INVALID_REQUEST, accepted.message)
            return client_pb2.InitClusterResponse(error=error)
        # The others are told by the links, again and again until they know.
        return client_pb2.InitClusterResponse(cluster_id=record.cluster_id, voters=record.voters)

    def _is_member(self) -> bool:
        return self.record is not None

    def _refuse_init(self) -> client_pb2.InitClusterResponse:
        if not self._is_member():
            error = make_error(client_pb2.SHUTTING_DOWN, f"node {self._node_id} is stopping")
        else:
            message = f"node {self._node_id} belongs to cluster {self.cluster_id.hex()}: it was founded before"
            error = make_error(client_pb2.ALREADY_FOUNDED, message)
        return client_pb2.InitClusterResponse(error=error)

    async def take(
        self, record: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None = None
    ) -> peer_pb2.FoundResponse:
        """Take the founding record, if it names this node under its present incarnation, or if that is the one which
        the cluster has `admitted` later.

        A caller that goes away meanwhile stops nothing: the thread that writes the identity cannot be stopped, and
        another record taken beside it might be overwritten on disk by this one.
        """
        taker = asyncio.create_task(self._take_in_turn(record, admitted))
        self._takers.add(taker)
        taker.add_done_callback(self._takers.discard)
        # Other than `shield`, this leaves an error that nobody waits for any more to the loop, which logs it.
        await asyncio.wait((taker,))
        return taker.result()

    async def _take_in_turn(
        self, record: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None
    ) -> peer_pb2.FoundResponse:
        async with self._taking:
            return await self._take(record, admitted)

    async def _take(
        self, record: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None
    ) -> peer_pb2.FoundResponse:
        stopping = peer_pb2.FoundResponse(message=f"node {self._node_id} is stopping")
        if self._stopping():
            return stopping
        founders = sorted(record.nodes, key=lambda node: node.node_id)
        founding = Founding(
            record.cluster_id,
            tuple(Founder(NodeId(node.node_id), node.incarnation) for node in founders),
            record.SerializeToString(deterministic=True),
        )
        try:
            if admitted is None:
                identity = self._opened.identity.founded(founding)
            else:
                member = Founder(NodeId(admitted.node_id), admitted.incarnation)
                identity = self._opened.identity.admitted(founding, member, admitted.admitted_at_index)
        except FoundingRefused as error:
            return peer_pb2.FoundResponse(message=self._note_refusal(founding, admitted) or str(error))
        if self.record is None:
            await asyncio.to_thread(save_identity, self._opened.files, identity)
            if self._stopping():
                return stopping
            # From now on another founding record is refused.
            self._opened = replace(self._opened, identity=identity)
            self._begin_as(record)
        return peer_pb2.FoundResponse(accepted=True)

    def _note_refusal(self, founding: Founding, admitted: internal_pb2.NodeDescriptor | None) -> str | None:
        """Say once per cause that this node is not who a cluster takes it for; None when it is nothing of the kind."""
        mine = self._opened.identity.incarnation
        named = next((one.incarnation for one in founding.founders if one.node_id == self._node_id), None)
        if admitted is not None:
            named = admitted.incarnation if admitted.node_id == self._node_id else None
        if self._is_member() or named is None or named == mine:
            return None
        wiped = (
            f"cluster {founding.cluster_id.hex()} knows node {self._node_id} under incarnation {named.hex()}, but its "
            f"data folder {self._opened.files.describe()} has incarnation {mine.hex()}: the folder was wiped or "
            "exchanged, so the node waits, and neither votes nor serves"
        )
        if wiped != self.wiped:
            self.wiped = wiped
            log.warning("%s; %s", wiped, wiped_fix(self._node_id))
        return wiped
