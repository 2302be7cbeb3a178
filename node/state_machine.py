"""What the replica driver asks of a deterministic state machine, whichever group it stands on."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from quorumlog.node.errors import NodeError
from quorumlog.proto import client_pb2

CommandT = TypeVar("CommandT")
ResultT_co = TypeVar("ResultT_co", covariant=True)
MessageT = TypeVar("MessageT", bound=Message)


class UnknownCommand(NodeError):
    """A committed command that this version cannot read. The group stops: skipping it would let replicas differ."""


class StateMachine(Protocol[CommandT, ResultT_co]):
    """State that is a function of the commands applied to it, and of nothing else.

    No clock, no randomness, no configuration, no other group: the leader decides (ids, time, placement, assignment) and
    writes the decision down; `apply` accepts it or refuses it, and every replica comes to the same state.
    """

    def decode(self, payload: bytes) -> CommandT:
        """Read a command.

        Raises:
            UnknownCommand: garbage, a command of a later version, or one that carries a field of a later version.
        """
        ...

    def apply(self, index: int, command: CommandT) -> ResultT_co | client_pb2.Error:
        """Apply the command at Raft index `index` and return what came of it. Never raises.

        A command that does not fit the state answers an Error and leaves the state as it was.
        """
        ...

    def snapshot(self) -> bytes:
        """Return the whole state. Equal states give equal bytes."""
        ...

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned.

        Raises:
            UnknownCommand: garbage, or the snapshot of a later version.
        """
        ...

    def digest(self) -> bytes:
        """Return a hash of the state, 32 bytes, to compare replicas at equal index."""
        ...


AnyStateMachine = StateMachine[Any, Any]


def parse_whole(message: MessageT, payload: bytes, what: str) -> MessageT:
    """Parse `payload` into `message` and return it; a field that this version does not know is refused, at any depth.

    A later version may give an old command another meaning through a new field, so ignoring it would be a silent fork.

    Raises:
        UnknownCommand: the payload is garbage or knows more than this version.
    """
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise UnknownCommand(f"{what} of {len(payload)} bytes cannot be read: {error}") from error
    size_bytes = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size_bytes:
        raise UnknownCommand(f"{what} carries fields of a later version; start this node with that version")
    return message
