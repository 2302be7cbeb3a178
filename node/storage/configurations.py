"""The configurations that a group's log holds: one small row, written in the batch of the entries they stand in.

    META row CONFIGURATIONS -> internal.ConfigurationHistory

A replica that starts has to know who votes before it has read its log, and one that truncates a configuration has to
know the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from quorumlog.node.errors import LogLost
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import MetaRow, meta_key
from quorumlog.proto import internal_pb2
from quorumlog.raft.types import Configuration, NodeId


def read(storage: Storage, group_id: int) -> list[tuple[int, internal_pb2.GroupConfiguration]]:
    """(index, configuration), oldest first; empty for a replica that has none yet.

    Raises StorageCorrupt (LogLost for a row that is not one), StorageFailed.
    """
    stored = storage.get(Family.META, meta_key(group_id, MetaRow.CONFIGURATIONS))
    if stored is None:
        return []
    try:
        rows = internal_pb2.ConfigurationHistory.FromString(stored).rows
    except DecodeError as error:
        raise LogLost(group_id, f"its configurations cannot be read: {error}") from error
    return [(row.index, row.configuration) for row in rows]


def to_stored(configuration: Configuration) -> internal_pb2.GroupConfiguration:
    """The stored form, also the payload of a CONFIGURATION entry."""
    return internal_pb2.GroupConfiguration(
        voters=configuration.voters,
        learners=configuration.learners,
        outgoing=configuration.outgoing,
        placement_version=configuration.version,
    )


def to_configuration(stored: internal_pb2.GroupConfiguration) -> Configuration:
    """The value that `to_stored` has made. Raises ValueError for anything else."""
    voters, learners, outgoing = map(list, (stored.voters, stored.learners, stored.outgoing))
    if (
        any(nodes != sorted(set(nodes)) for nodes in (voters, learners, outgoing))
        or set(voters) & set(learners)
        or (outgoing and not voters)
        or 0 in (*voters, *learners, *outgoing)
    ):
        raise ValueError(f"no configuration has voters {voters}, learners {learners}, outgoing {outgoing}")
    return Configuration(
        _node_ids(stored.voters), _node_ids(stored.learners), _node_ids(stored.outgoing), stored.placement_version
    )


def _node_ids(numbers: Iterable[int]) -> tuple[NodeId, ...]:
    return tuple(NodeId(number) for number in numbers)


def write(
    batch: WriteBatch, group_id: int, configurations: Iterable[tuple[int, internal_pb2.GroupConfiguration]]
) -> None:
    """Put the whole history, (index, configuration) with rising indexes, in place of the stored one."""
    history = internal_pb2.ConfigurationHistory()
    for index, configuration in configurations:
        assert not history.rows or index > history.rows[-1].index, (
            f"configuration {index} after {history.rows[-1].index}"
        )
        history.rows.add(index=index, configuration=configuration)
    batch.put(Family.META, meta_key(group_id, MetaRow.CONFIGURATIONS), history.SerializeToString(deterministic=True))
