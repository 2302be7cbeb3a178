"""What a replica applies its committed entries to."""

from __future__ import annotations

from typing import Protocol

from quorumlog.node.state_machine import AnyStateMachine
from quorumlog.node.storage.entry import EntryHeader, payload_of
from quorumlog.raft.types import EntryKind


class Machine(Protocol):
    """A fold over the entries of one log: its state after index i depends on the entries up to i and on nothing else.

    `apply` reads its own state and the entry; it asks no clock, no other group and no configuration, and it does not
    raise for anything that a leader can have written. The one exception is UnknownCommand: an entry that this release
    cannot read stops the group.
    """

    def apply(self, header: EntryHeader, data: bytes) -> object:
        """Fold the stored entry `data` in; the result goes to whoever proposed it."""

    def snapshot(self) -> bytes:
        """The state as bytes, for `restore` on this or a later release."""

    def restore(self, snapshot: bytes) -> None:
        """Replace the state by that of `snapshot`."""


class CommandMachine:
    """An internal topic's state machine under a log: commands are its entries of kind COMMAND, other kinds pass by."""

    def __init__(self, state_machine: AnyStateMachine) -> None:
        self.state_machine = state_machine

    def apply(self, header: EntryHeader, data: bytes) -> object:
        """Apply a command. Raises UnknownCommand for one that this release does not know."""
        if header.kind is not EntryKind.COMMAND:
            return None
        return self.state_machine.apply(header.index, self.state_machine.decode(payload_of(data)))

    def snapshot(self) -> bytes:
        """State of the wrapped machine."""
        return self.state_machine.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Replace the state of the wrapped machine."""
        self.state_machine.restore(snapshot)
