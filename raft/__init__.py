"""The sans-IO core of one Raft group: values in, values out."""

from quorumlog.raft.config import Config
from quorumlog.raft.errors import InvariantViolation, NotLeader, ProposalRefused, RaftError, StepError
from quorumlog.raft.progress import ProgressState, ProgressView
from quorumlog.raft.rawnode import RawNode
from quorumlog.raft.ready import Persisted, ReadState, Ready
from quorumlog.raft.tracer import Tracer
from quorumlog.raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    LogIndex,
    LogReader,
    Message,
    MessageType,
    NodeId,
    Role,
    Term,
)

__all__ = [
    "NO_NODE",
    "Config",
    "Configuration",
    "Entry",
    "EntryKind",
    "HardState",
    "InvariantViolation",
    "LogIndex",
    "LogReader",
    "Message",
    "MessageType",
    "NodeId",
    "NotLeader",
    "Persisted",
    "ProgressState",
    "ProgressView",
    "ProposalRefused",
    "RaftError",
    "RawNode",
    "ReadState",
    "Ready",
    "Role",
    "StepError",
    "Term",
    "Tracer",
]
