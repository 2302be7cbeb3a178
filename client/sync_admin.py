"""Topics, groups and the cluster without asyncio: the same verbs, run in the client's background thread."""

from collections.abc import Mapping, Sequence
from typing import Literal

from quorumlog.aio.admin import DEFAULT_TIMEOUT, Topics
from quorumlog.aio.cluster_admin import ClusterAdmin
from quorumlog.aio.groups import Groups
from quorumlog.descriptions import (
    ClusterStatus,
    GroupDescription,
    GroupSummary,
    MovingPartition,
    NodeDescription,
    PlacementChange,
    Recovery,
    TopicDescription,
)
from quorumlog.durations import Timeout, When
from quorumlog.portal import Portal
from quorumlog.records import TopicPartition


class TopicsFace:
    """Topics of the cluster; `client.topics`; see `quorumlog.aio`."""

    def __init__(self, portal: Portal, topics: Topics) -> None:
        self._portal = portal
        self._topics = topics

    def create(
        self,
        name: str,
        *,
        partitions: int | None = None,
        replicas: int | None = None,
        configs: Mapping[str, str] | None = None,
        if_not_exists: bool = False,
        validate_only: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> TopicDescription:
        """Create a topic and return it, once its partitions have leaders."""
        return self._portal.call(
            self._topics.create(
                name,
                partitions=partitions,
                replicas=replicas,
                configs=configs,
                if_not_exists=if_not_exists,
                validate_only=validate_only,
                timeout=timeout,
            )
        )

    def list(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> "list[TopicDescription]":
        """Return every topic but the internal ones, by name."""
        return self._portal.call(self._topics.list(timeout=timeout))

    def describe(self, name: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> TopicDescription:
        """Return one topic with every configuration there is."""
        return self._portal.call(self._topics.describe(name, timeout=timeout))

    def alter(
        self,
        name: str,
        *,
        set: Mapping[str, str] | None = None,  # noqa: A002 - the command line's word
        reset: Sequence[str] = (),
        validate_only: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> TopicDescription:
        """Change configurations: `set` some, `reset` others to their defaults."""
        return self._portal.call(
            self._topics.alter(name, set=set, reset=reset, validate_only=validate_only, timeout=timeout)
        )

    def delete(self, name: str, *, if_exists: bool = False, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Delete a topic and its records, for good."""
        self._portal.call(self._topics.delete(name, if_exists=if_exists, timeout=timeout))


class GroupsFace:
    """Consumer groups; `client.groups`; see `quorumlog.aio`."""

    def __init__(self, portal: Portal, groups: Groups) -> None:
        self._portal = portal
        self._groups = groups

    def list(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> "list[GroupSummary]":
        """Return every group, by name."""
        return self._portal.call(self._groups.list(timeout=timeout))

    def describe(self, group: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> GroupDescription:
        """Return a group's members, committed offsets and lag."""
        return self._portal.call(self._groups.describe(group, timeout=timeout))

    def reset(
        self,
        group: str,
        topic: str,
        *,
        to: Literal["earliest", "latest"] | When | Mapping[int, int],
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> dict[int, int]:
        """Set a group's offsets in a topic, and return them per partition. Only while the group has no members."""
        return self._portal.call(self._groups.reset(group, topic, to=to, timeout=timeout))

    def delete(self, group: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Delete a group and its committed offsets. Only while it has no members."""
        self._portal.call(self._groups.delete(group, timeout=timeout))


class ClusterFace:
    """The cluster as a whole; `client.cluster`; see `quorumlog.aio`."""

    def __init__(self, portal: Portal, cluster: ClusterAdmin) -> None:
        self._portal = portal
        self._cluster = cluster

    def status(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> ClusterStatus:
        """Ask every node how it is."""
        return self._portal.call(self._cluster.status(timeout=timeout))

    def init(self, nodes: Mapping[int, str], *, cluster_id: bytes = b"", timeout: Timeout = DEFAULT_TIMEOUT) -> bytes:
        """Found a cluster, once, from nodes that wait, and return its id."""
        return self._portal.call(self._cluster.init(nodes, cluster_id=cluster_id, timeout=timeout))

    def transfer(self, topic: str, partition: int, to_node_id: int, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Let another replica lead a partition; returns once it does."""
        self._portal.call(self._cluster.transfer(topic, partition, to_node_id, timeout=timeout))

    def moving(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> tuple[MovingPartition, ...]:
        """Return what is not yet where it shall be."""
        return self._portal.call(self._cluster.moving(timeout=timeout))

    def add(self, address: str, *, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT) -> NodeDescription:
        """Take a node in that waits at this peer address."""
        return self._portal.call(self._cluster.add(address, validate_only=validate_only, timeout=timeout))

    def remove(self, node_id: int, *, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Take a node out for good. It must be drained before."""
        self._portal.call(self._cluster.remove(node_id, validate_only=validate_only, timeout=timeout))

    def drain(
        self, node_id: int, *, end: bool = False, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> tuple[PlacementChange, ...]:
        """Move everything off a node, and place nothing on it until the drain is ended."""
        return self._portal.call(self._cluster.drain(node_id, end=end, validate_only=validate_only, timeout=timeout))

    def reassign(
        self,
        placements: Mapping[TopicPartition, Sequence[int]],
        *,
        validate_only: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> tuple[PlacementChange, ...]:
        """Move partitions to these nodes, all or none."""
        return self._portal.call(self._cluster.reassign(placements, validate_only=validate_only, timeout=timeout))

    def balance(
        self, *, partitions_max: int | None = None, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> tuple[PlacementChange, ...]:
        """Even replicas and preferred leaders out over the nodes, with as few moves as possible."""
        return self._portal.call(
            self._cluster.balance(partitions_max=partitions_max, validate_only=validate_only, timeout=timeout)
        )

    def recover(
        self,
        topic: str,
        partition: int,
        *,
        from_node: int | None = None,
        accept_loss: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Recovery:
        """Let a partition go on from what one replica has; without `accept_loss` only say what may be gone."""
        return self._portal.call(
            self._cluster.recover(topic, partition, from_node=from_node, accept_loss=accept_loss, timeout=timeout)
        )
