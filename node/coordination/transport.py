"""Carries PySyncObj's messages over the node's own peer channel, and keeps out what PySyncObj would wrongly believe.

PySyncObj relies on what its own TCP connections happen to give: it counts a vote as often as it arrives, its answers
carry no term, and it takes an answer of a former term, process or connection for a present one. So a message gets
in only if

- it comes from a member, in the session that the channel named last, and is addressed to this process's session;
- its connection epoch is not an older one and its sequence number in it is higher than any before (in order, at most
  once; gaps are allowed, for PySyncObj repeats what is missing);
- an answer (vote, next index) carries our present term, and a vote is the first of that voter in that term;
- it is of a kind that this peer may send: followers are not asked for votes or entries.

Everything else is counted and dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from quorumlog.node.coordination.commands import Malformed
from quorumlog.node.coordination.wire import MAX_PAYLOAD_BYTES, Envelope, Message, decode, encode
from quorumlog.raft.types import NodeId

Send = Callable[[NodeId, bytes], None]
"""Hands a payload to the peer channel: returns at once, may lose it, must not raise and must not call back."""

GENERATION_BITS = 20
"""Connections to one peer that a plane may see before what a later one says counts as earlier: days of one a second."""

_ANSWERS = frozenset({"response_vote", "next_node_idx"})
_FROM_FOLLOWERS = frozenset({"next_node_idx", "apply_command"})


class PeerNode(Node):  # type: ignore[misc] # PySyncObj has no types
    """A node as PySyncObj knows it. Its id is a number: sets of text are walked in another order in each process."""

    def __str__(self) -> str:
        return str(self.id)


@dataclass(slots=True)
class TransportCounters:
    """Messages since the plane was made."""

    sent: int = 0
    received: int = 0  # handed to the engine
    malformed: int = 0  # not of this version, or a value out of range
    refused: int = 0  # well formed, but late, repeated, misdirected or not the peer's to send


@dataclass(slots=True)
class _Link:
    """What is known of one peer; it outlives connections, sessions and engines."""

    node: PeerNode
    is_voter: bool
    session_id: int | None = None  # None: down
    sending_epoch: int = 0
    sent: int = 0  # in `sending_epoch`
    receiving_session_id: int | None = None  # to which the next two belong
    receiving_epoch: int = 0
    received: int = 0  # highest sequence number in `receiving_epoch`
    voted_in_term: int = 0  # the last term in which its vote was let in


def _no_term() -> int:
    return 0


def _no_progress(node: Node) -> None:
    pass


class PeerTransport(Transport):  # type: ignore[misc] # PySyncObj has no types
    """The transport of one plane. It belongs to the plane, not to the engine: a new engine is plugged into it.

    Args:
        node_id: this node.
        session_id: of this process.
        voter_ids: the nodes that elect and replicate.
        follower_ids: the other nodes; they get what the voters agree on.
        send: the way out.
        generation: of planes in this process; connection epochs of a later one are higher.
    """

    def __init__(
        self,
        node_id: NodeId,
        session_id: int,
        voter_ids: Collection[NodeId],
        follower_ids: Collection[NodeId],
        send: Send,
        generation: int = 0,
    ) -> None:
        super().__init__(None, None, ())
        self._session_id = session_id
        self._is_voter = node_id in voter_ids
        self._send = send
        peers = [(peer, True) for peer in voter_ids] + [(peer, False) for peer in follower_ids]
        # Two followers have nothing to say to each other.
        self._links = {
            peer: _Link(PeerNode(peer), is_voter, sending_epoch=generation << GENERATION_BITS)
            for peer, is_voter in peers
            if peer != node_id and (is_voter or self._is_voter)
        }
        self._peer_ids = {link.node: peer for peer, link in self._links.items()}
        self.counters = TransportCounters()
        self.current_term: Callable[[], int] = _no_term
        self.forget_progress: Callable[[Node], None] = _no_progress

    @property
    def voters(self) -> list[Node]:
        """The voters other than this node."""
        return [link.node for link in self._links.values() if link.is_voter]

    def peer_up(self, peer: NodeId, session_id: int) -> None:
        """A connection to `peer` stands, and its process is `session_id`. A new session ends what the old one was."""
        link = self._links.get(peer)
        if link is None:
            self.counters.refused += 1
            return
        self.peer_down(peer)
        if link.receiving_session_id != session_id:
            link.receiving_session_id, link.receiving_epoch, link.received, link.voted_in_term = session_id, 0, 0, 0
            self.forget_progress(link.node)  # it may have restarted empty
        link.session_id = session_id
        link.sending_epoch += 1
        link.sent = 0
        self._tell_connected(link)

    def peer_down(self, peer: NodeId) -> None:
        """The connection to `peer` is lost."""
        link = self._links.get(peer)
        if link is None or link.session_id is None:
            return
        link.session_id = None
        if link.is_voter:
            self._onNodeDisconnected(link.node)
        else:
            self._onReadonlyNodeDisconnected(link.node)

    def detach(self) -> None:
        """Forget the engine; until another is plugged in, messages go nowhere and connections are only noted."""
        self.setOnMessageReceivedCallback(None)
        self.setOnNodeConnectedCallback(None)
        self.setOnNodeDisconnectedCallback(None)
        self.setOnReadonlyNodeConnectedCallback(None)
        self.setOnReadonlyNodeDisconnectedCallback(None)
        self.current_term = _no_term
        self.forget_progress = _no_progress

    def tell_connections(self) -> None:
        """Tell a new engine which peers are connected."""
        for link in self._links.values():
            if link.session_id is not None:
                self._tell_connected(link)

    def send(self, node: Node, message: Message) -> bool:
        """Send `message` to `node`; False if it certainly did not leave. Called by PySyncObj."""
        peer = self._peer_ids[node]
        link = self._links[peer]
        if link.session_id is None:
            return False
        envelope = Envelope(link.session_id, link.sending_epoch, link.sent + 1, self.current_term())
        try:
            payload = encode(envelope, message)
        except struct.error:  # a number that only nonsense from a peer can have brought in
            return False
        if len(payload) > MAX_PAYLOAD_BYTES:
            return False
        link.sent += 1
        self.counters.sent += 1
        self._send(peer, payload)
        return True

    def deliver(self, peer: NodeId, session_id: int, payload: bytes) -> bool:
        """Hand a payload from `peer` to the engine; True if it was let in."""
        link = self._links.get(peer)
        if link is None or link.session_id is None or link.session_id != session_id:
            self.counters.refused += 1
            return False
        try:
            envelope, message = decode(payload)
        except Malformed:
            self.counters.malformed += 1
            return False
        if not self._is_present(link, envelope) or not self._is_allowed(link, envelope, message):
            self.counters.refused += 1
            return False
        self.counters.received += 1
        self._onMessageReceived(link.node, message)
        return True

    def _is_present(self, link: _Link, envelope: Envelope) -> bool:
        """Whether the message is addressed to this process, and newer than all before; if so it is the newest now."""
        if envelope.to_session_id != self._session_id:
            return False
        if (envelope.epoch, envelope.sequence) <= (link.receiving_epoch, link.received):
            return False
        link.receiving_epoch, link.received = envelope.epoch, envelope.sequence
        return True

    def _is_allowed(self, link: _Link, envelope: Envelope, message: Message) -> bool:
        kind = message["type"]
        if not link.is_voter and kind not in _FROM_FOLLOWERS:
            return False
        if not self._is_voter and kind != "append_entries":
            return False
        if kind in _ANSWERS and envelope.term != self.current_term():
            return False
        if kind == "response_vote":
            if link.voted_in_term >= envelope.term:
                return False
            link.voted_in_term = envelope.term
        return True

    def _tell_connected(self, link: _Link) -> None:
        if link.is_voter:
            self._onNodeConnected(link.node)
        else:
            self._onReadonlyNodeConnected(link.node)
