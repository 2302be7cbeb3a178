"""What the coordinator tells about groups: assignments, committed offsets, descriptions. Reads only."""

from __future__ import annotations

from quorumlog.node.groups.group import Committed, Group, Member
from quorumlog.node.groups.requests import unknown_topic
from quorumlog.node.groups.state import NO_OFFSET, GroupsState, unknown_group
from quorumlog.node.groups.topics import TopicDirectory, TopicPartition, resolve, to_wire
from quorumlog.proto import client_pb2 as pb


def assignment(group: Group, member: Member, topics: TopicDirectory) -> pb.GroupAssignment:
    """Return the whole truth for a member: what it shall work on, from where, and what it shall give back."""
    return pb.GroupAssignment(
        group_epoch=group.group_epoch,
        member_epoch=member.member_epoch,
        assigned=[
            committed_to_wire(topics, partition, group.offsets.get(partition)) for partition in member.assigned()
        ],
        revoked=[to_wire(topics, partition) for partition in member.releasing()],
    )


def committed_to_wire(
    topics: TopicDirectory, partition: TopicPartition, committed: Committed | None
) -> pb.OffsetAndEpoch:
    """Return a committed offset for a client; offset -1 stands for none."""
    wire = to_wire(topics, partition)
    if committed is None:
        return pb.OffsetAndEpoch(partition=wire, offset=NO_OFFSET)
    return pb.OffsetAndEpoch(
        partition=wire, offset=committed.offset, leader_epoch=committed.leader_epoch, metadata=committed.metadata
    )


def fetch_offsets(
    state: GroupsState, request: pb.FetchOffsetsRequest, topics: TopicDirectory
) -> pb.FetchOffsetsResponse:
    """Return committed offsets, of the partitions asked for or of all; a group that is not there has committed none."""
    group = state.groups.get(request.group)
    committed = group.offsets if group is not None else {}
    if not request.partitions:
        return pb.FetchOffsetsResponse(offsets=all_offsets(committed, topics))
    response = pb.FetchOffsetsResponse()
    for wire in request.partitions:
        partition = resolve(topics, wire)
        if partition is None:
            response.offsets.add(partition=wire, offset=NO_OFFSET, error=unknown_topic(wire.topic))
        else:
            response.offsets.append(committed_to_wire(topics, partition, committed.get(partition)))
    return response


def all_offsets(committed: dict[TopicPartition, Committed], topics: TopicDirectory) -> list[pb.OffsetAndEpoch]:
    """Return the committed offsets of topics that exist, in order."""
    return [
        committed_to_wire(topics, partition, committed[partition])
        for partition in sorted(committed)
        if topics.by_id(partition.topic_id) is not None
    ]


def list_groups(state: GroupsState) -> pb.ListGroupsResponse:
    """Return every group of this partition of `__groups`, by name."""
    return pb.ListGroupsResponse(
        groups=[
            pb.GroupSummary(group=name, state=group.describe_state(), members=len(group.members))
            for name, group in sorted(state.groups.items())
        ]
    )


def describe_group(
    state: GroupsState, request: pb.DescribeGroupRequest, topics: TopicDirectory
) -> pb.DescribeGroupResponse:
    """Return all there is to know of a group, or UNKNOWN_GROUP."""
    group = state.groups.get(request.group)
    if group is None:
        return pb.DescribeGroupResponse(error=unknown_group(request.group))
    return pb.DescribeGroupResponse(
        group=group.name,
        state=group.describe_state(),
        group_epoch=group.group_epoch,
        members=[
            pb.GroupMember(
                member_id=member.member_id,
                client_id=member.client_id,
                member_epoch=member.member_epoch,
                topics=member.topics,
                owned=[to_wire(topics, partition) for partition in sorted(member.owned)],
                releasing=[to_wire(topics, partition) for partition in member.releasing()],
            )
            for _, member in sorted(group.members.items())
        ],
        offsets=all_offsets(group.offsets, topics),
    )
