"""Whether what a client asks of the coordinator can be done at all, before anything is proposed."""

from __future__ import annotations

from collections.abc import Container

from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.groups.topics import TopicDirectory, TopicPartition, resolve
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from quorumlog.proto.names import NameInvalid, check_group_name


def refuse_group_name(name: str) -> pb.Error | None:
    """Return INVALID_NAME for a name that no group may have, else None."""
    try:
        check_group_name(name)
    except NameInvalid as invalid:
        return make_error(pb.INVALID_NAME, invalid.message, hint=invalid.hint)
    return None


def refuse_join(join: pb.GroupJoin, topics: TopicDirectory, settings: GroupSettings) -> pb.Error | None:
    """Return why nobody may join like this, else None."""
    return (
        refuse_group_name(join.group)
        or _refuse_mode(join)
        or _refuse_timeout(join, settings)
        or _refuse_client_id(join, settings)
        or _refuse_subscription(join, topics, settings)
    )


def _refuse_mode(join: pb.GroupJoin) -> pb.Error | None:
    if join.mode == pb.STREAM:
        return None
    mode = pb.GroupMode.Name(join.mode) if join.mode in pb.GroupMode.values() else f"number {join.mode}"
    return make_error(
        pb.UNSUPPORTED_VERSION,
        f"group {join.group!r} is joined in mode {mode}, which this node does not offer",
        hint="join in mode STREAM, or upgrade the node",
    )


def _refuse_subscription(join: pb.GroupJoin, topics: TopicDirectory, settings: GroupSettings) -> pb.Error | None:
    if not join.topics:
        return make_error(
            pb.INVALID_REQUEST, f"group {join.group!r} is joined without topics", hint="name at least one topic"
        )
    if len(join.topics) > settings.topics_max:
        return make_error(
            pb.INVALID_REQUEST,
            f"group {join.group!r} is joined with {len(join.topics)} topics",
            hint=f"name at most {settings.topics_max}",
        )
    missing = [name for name in sorted(set(join.topics)) if topics.by_name(name) is None]
    return unknown_topic(missing[0]) if missing else None


def _refuse_timeout(join: pb.GroupJoin, settings: GroupSettings) -> pb.Error | None:
    seconds = session_timeout_ms(join, settings) / 1000
    shortest, longest = settings.session_timeout_min_seconds, settings.session_timeout_max_seconds
    if shortest <= seconds <= longest:
        return None
    return make_error(
        pb.INVALID_REQUEST,
        f"group {join.group!r} is joined with a session timeout of {seconds:g} s",
        hint=f"ask for {shortest:g} to {longest:g} s, or 0 for the node's default",
    )


def _refuse_client_id(join: pb.GroupJoin, settings: GroupSettings) -> pb.Error | None:
    if len(join.client_id) <= settings.client_id_characters_max:
        return None
    return make_error(
        pb.INVALID_REQUEST,
        f"client id {join.client_id[:20]!r}... has {len(join.client_id)} characters",
        hint=f"use at most {settings.client_id_characters_max}",
    )


def is_subscribed(join: pb.GroupJoin, state: GroupsState) -> bool:
    """Return whether a member comes back to topics that it was already let subscribe to."""
    group = state.groups.get(join.group)
    member = group.members.get(join.member_id) if group is not None else None
    return member is not None and set(member.topics) >= set(join.topics)


def session_timeout_ms(join: pb.GroupJoin, settings: GroupSettings) -> int:
    """Return the session timeout that the join asks for, or the node's default, in milliseconds."""
    return join.session_timeout_ms or round(settings.session_timeout_default_seconds * 1000)


def refuse_commit_size(count: int, settings: GroupSettings) -> pb.Error | None:
    """Return INVALID_REQUEST for a commit of more partitions than one command may carry, else None."""
    if count <= settings.commit_partitions_max:
        return None
    return make_error(
        pb.INVALID_REQUEST,
        f"one commit names {count} partitions",
        hint=f"commit at most {settings.commit_partitions_max} at a time",
    )


def check_offset(
    wanted: pb.OffsetAndEpoch,
    topics: TopicDirectory,
    settings: GroupSettings,
    *,
    owned: Container[TopicPartition] = (),
) -> TopicPartition | pb.Error:
    """Return the partition of an offset that may be proposed, or why this one may not.

    A partition in `owned` exists, even if this node has not heard of its topic yet or not any more.
    """
    named = wanted.partition.topic or wanted.partition.topic_id.hex()
    partition = resolve(topics, wanted.partition)
    if partition is None:
        return unknown_topic(named)
    if partition not in owned and (refusal := _refuse_partition(partition, named, topics)) is not None:
        return refusal
    if wanted.offset < 0:
        return make_error(
            pb.INVALID_REQUEST,
            f"offset {wanted.offset} is committed for partition {partition.partition} of topic {named!r}",
            hint="commit the offset of the next record to consume, 0 or more",
        )
    size_bytes = len(wanted.metadata.encode())
    if size_bytes > settings.metadata_size_bytes_max:
        return make_error(
            pb.INVALID_REQUEST,
            f"the metadata committed with partition {partition.partition} of topic {named!r} has {size_bytes} bytes",
            hint=f"keep it to {settings.metadata_size_bytes_max} bytes",
        )
    return partition


def _refuse_partition(partition: TopicPartition, named: str, topics: TopicDirectory) -> pb.Error | None:
    topic = topics.by_id(partition.topic_id)
    if topic is None:
        return unknown_topic(named)
    if partition.partition < topic.partitions:
        return None
    return make_error(
        pb.UNKNOWN_PARTITION,
        f"topic {topic.name!r} has no partition {partition.partition}: it has {topic.partitions}",
    )


def unknown_topic(name: str) -> pb.Error:
    """Return the error for a topic that is not there, by the name or id under which it was asked for."""
    return make_error(pb.UNKNOWN_TOPIC, f"topic {name!r} does not exist")
