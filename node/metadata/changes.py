"""What applying a command of `__cluster` results in: a change, or why nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass

from quorumlog.node.metadata.topics import HostedGroup, Node, Topic
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """What one applied command did.

    `born` are the groups whose wish now places a replica where none was; the nodes for which `placed_on` has one create
    it, the others have what they had. `removed` are groups that are gone for good: every node deletes what it has.
    `moved` are those that are still there and whose wish has changed, or whose leader has reported that it is reached,
    as they are now: a node deletes its replica when `may_hold` says no, and a leader of one looks at the wish again.
    `topic` is the topic as it is now, or as it was before it was deleted. `node` is a node that came, left or became
    different; `voters_changed` that others shall vote in `__cluster`. `first_producer_id` and `producer_id_count` are
    the block handed out. Fields that the command did not concern keep their defaults.
    """

    born: tuple[HostedGroup, ...] = ()
    removed: tuple[HostedGroup, ...] = ()
    moved: tuple[HostedGroup, ...] = ()
    topic: Topic | None = None
    voters_changed: bool = False
    node: Node | None = None
    first_producer_id: int = 0
    producer_id_count: int = 0


Result = CatalogueChange | pb.Error


def inconsistent(message: str) -> pb.Error:
    """Return the error for a command that does not fit the state, however often it is tried."""
    return make_error(pb.INVALID_REQUEST, message, hint="the command was refused and nothing changed")


def moved_on(message: str) -> pb.Error:
    """Return the error for a decision that was made on an older state."""
    return make_error(pb.NOT_YET_AVAILABLE, message, hint="try again: the decision is made anew")
