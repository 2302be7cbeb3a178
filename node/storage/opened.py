"""What opening a data folder results in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quorumlog.node.storage.files import FileSystem
from quorumlog.node.storage.identity import Identity
from quorumlog.node.storage.interface import Storage
from quorumlog.node.storage.votes import VotesFile
from quorumlog.node.storage.watermark import Watermark


class NodeState(Enum):
    """What opening has found."""

    WAITING = "waiting"
    """The node belongs to no cluster yet."""
    WHOLE = "whole"
    """The node remembers everything it ever promised."""
    REPAIR = "repair"
    """The node has forgotten something, now or before an earlier start; ask `is_whole` for each replica."""
    WIPED = "wiped"
    """The node was another incarnation until now; under the new one it waits."""


class Severity(Enum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something an operator should know: what happened, and what to do."""

    severity: Severity
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Opened:
    """An open data folder, until `close`."""

    files: FileSystem
    storage: Storage
    identity: Identity
    votes: VotesFile
    watermark: Watermark
    state: NodeState
    findings: tuple[Finding, ...]

    @property
    def repair_id(self) -> bytes:
        """The present repair id, 16 bytes; NEVER_REPAIRED on a node that has never been in REPAIR.

        Under any other repair id a replica that this database does not know was lost, not "never there".
        """
        return self.watermark.mark.repair_id

    def close(self) -> None:
        """Stop cleanly: sync, publish the watermark, close everything. Blocks. Raises StorageFailed.

        Nothing may be written, synced or published beside it any more.
        """
        sequence = self.storage.sequence_number()
        self.storage.sync()
        self.watermark.publish(sequence)
        self.votes.sync()
        self.storage.close()
        self.votes.close()
        self.watermark.close()
        self.files.close()
