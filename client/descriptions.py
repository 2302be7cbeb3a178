"""What the cluster says about itself: topics, groups, nodes. Immutable snapshots."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quorumlog.records import TopicPartition


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """One partition: its leader (None: not known just now) and the nodes that hold a replica."""

    partition: int
    leader: int | None
    leader_address: str
    leader_epoch: int
    replicas: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One configuration of a topic."""

    name: str
    value: str
    is_default: bool
    help: str


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """One topic. `configs` has what was set; `config_entries` every configuration there is (only from `describe`)."""

    name: str
    topic_id: bytes
    partitions: tuple[PartitionDescription, ...]
    configs: Mapping[str, str] = field(default_factory=dict)
    config_entries: tuple[ConfigEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """One consumer group in a list. `state`: empty, stable or assigning."""

    group: str
    state: str
    members: int


@dataclass(frozen=True, slots=True)
class MemberDescription:
    """One member of a group: what it works on, and what it still has to give back."""

    member_id: str
    client_id: str
    member_epoch: int
    topics: tuple[str, ...]
    owned: tuple[TopicPartition, ...]
    releasing: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupOffset:
    """How far a group has come in one partition.

    `offset` is the next record to consume, None where nothing was committed; `lag` counts the records from there
    (from the beginning of the log, where nothing was committed) to the high watermark.
    """

    topic: str
    partition: int
    offset: int | None
    high_watermark: int
    lag: int


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """One consumer group, its members and its progress."""

    group: str
    state: str
    group_epoch: int
    members: tuple[MemberDescription, ...]
    offsets: tuple[GroupOffset, ...]

    @property
    def lag(self) -> int:
        """Records not yet consumed, over all partitions."""
        return sum(entry.lag for entry in self.offsets)


@dataclass(frozen=True, slots=True)
class PeerDescription:
    """A leader's view of one other replica."""

    node_id: int
    match_index: int
    state: str
    alive: bool


@dataclass(frozen=True, slots=True)
class ReplicaDescription:
    """One replica on one node. `leader` None: none known there. `counting` False: in repair.

    `voters`, `learners` and, while the voters are being changed, `outgoing` are who is in the group by its own log, and
    `wanted` who shall be, the preferred leader first. All are node ids.
    """

    group_id: int
    topic: str
    partition: int
    role: str
    leader_epoch: int
    leader: int | None
    commit_index: int
    last_index: int
    first_index: int
    log_start_offset: int
    high_watermark: int
    log_end_offset: int
    size_bytes: int
    peers: tuple[PeerDescription, ...]
    counting: bool
    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    wanted: tuple[int, ...] = ()
    damaged_entries: int = 0


@dataclass(frozen=True, slots=True)
class StorageDescription:
    """What a node's disk holds, how often it has synced and what it has damaged since the node started.

    `scrubbed_seconds_ago`: since all logs had been read through to find damage, None before the first time.
    """

    size_bytes: int
    disk_free_bytes: int
    syncs: int
    synced_bytes: int
    uptime_seconds: float
    scrubbed_seconds_ago: float | None = None
    damage_found: int = 0
    entries_mended: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a node has noticed. `severity`: INFO, WARNING or PROBLEM."""

    severity: str
    subject: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as it sees itself, or the reason why it could not be asked.

    `state`: waiting, joining, member, repair or stopping; "unreachable" where `error` says why.
    """

    node_id: int
    address: str
    host: str
    rack: str
    state: str
    version: str = ""
    incarnation: bytes = b""
    replicas: tuple[ReplicaDescription, ...] = ()
    findings: tuple[Finding, ...] = ()
    storage: StorageDescription | None = None
    error: str = ""
    draining: bool = False

    @property
    def reachable(self) -> bool:
        """Whether the node answered."""
        return not self.error


@dataclass(frozen=True, slots=True)
class Recovery:
    """A group that goes on, or would go on, from what one replica has.

    Records from `first_offset_in_doubt` on may be gone, or may stand there although they were never acknowledged.
    """

    topic: str
    partition: int
    from_node: int
    last_index: int
    first_offset_in_doubt: int


@dataclass(frozen=True, slots=True)
class PlacementChange:
    """A partition that moves, or would: the nodes of its replicas, the preferred leader first."""

    topic: str
    partition: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MovingPartition:
    """A partition that is not yet as it shall be. The metadata group is among them under its name, `__cluster`.

    `replicas` are the nodes where it shall be, the preferred leader first; `leaving` those that keep a replica until it
    has moved, which `settled` says; `replicas_wanted` is more than there are `replicas` while nodes are missing.
    """

    topic: str
    partition: int
    replicas: tuple[int, ...]
    leaving: tuple[int, ...]
    replicas_wanted: int
    settled: bool


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """A node as the cluster knows it."""

    node_id: int
    address: str
    host: str
    rack: str


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster as its nodes describe it. `leader` is the node that leads the cluster's own metadata, where known.

    `moving` is told by that leader, or by another node where it does not answer.
    """

    cluster_id: bytes
    leader: int | None
    nodes: tuple[NodeStatus, ...]
    moving: tuple[MovingPartition, ...] = ()
