"""The calls about groups that need no session: committed offsets, lists, descriptions, deletion."""

from __future__ import annotations

from collections.abc import Callable

from quorumlog.node.groups.commits import prepare_commit
from quorumlog.node.groups.queries import describe_group, fetch_offsets, list_groups
from quorumlog.node.groups.requests import refuse_commit_size, refuse_group_name
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.state import GroupsState, Result
from quorumlog.node.groups.topics import TopicDirectory
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error

Propose = Callable[[internal_pb2.GroupCommand, Callable[[Result], None]], None]
"""Puts a command into the group's log. The callback gets what `apply` returned, or an Error when leadership was lost on
the way (then the command may still be applied). Callbacks come in log order and may come before the call returns."""


class UnaryCalls:
    """The part of a coordinator that answers single requests. Every `reply` is called exactly once.

    `fetch_offsets`, `list_groups` and `describe_group` read the applied state at once: whoever carries them to a client
    confirms the leadership with a read-index first.
    """

    def __init__(
        self,
        *,
        state: GroupsState,
        propose: Propose,
        topics: TopicDirectory,
        settings: GroupSettings,
        wall_ms: Callable[[], int],
    ) -> None:
        self.state = state
        self._propose_raw = propose
        self._topics = topics
        self._settings = settings
        self._wall_ms = wall_ms
        self._leading = False

    @property
    def is_leading(self) -> bool:
        """Whether this coordinator answers for its groups."""
        return self._leading

    def commit_offsets(
        self, request: pb.CommitOffsetsRequest, reply: Callable[[pb.CommitOffsetsResponse], None]
    ) -> None:
        """Commit without membership: only while the group has no members (GROUP_NOT_EMPTY). Creates the group."""
        refusal = self._refuse(request.group) or refuse_commit_size(len(request.offsets), self._settings)
        if refusal is not None:
            reply(pb.CommitOffsetsResponse(error=refusal))
            return
        prepared = prepare_commit(request.offsets, self._topics, self._settings)
        command = prepared.command("", 0, self._wall_ms())

        def answer(result: Result | None) -> None:
            error = result if isinstance(result, pb.Error) else None
            reply(pb.CommitOffsetsResponse(error=error, results=prepared.answer(result)))

        if command is None:
            answer(None)
        else:
            self._propose_raw(internal_pb2.GroupCommand(group=request.group, commit_offsets=command), answer)

    def fetch_offsets(self, request: pb.FetchOffsetsRequest, reply: Callable[[pb.FetchOffsetsResponse], None]) -> None:
        """Answer the committed offsets of a group."""
        refusal = self._refuse(request.group)
        if refusal is not None:
            reply(pb.FetchOffsetsResponse(error=refusal))
        else:
            reply(fetch_offsets(self.state, request, self._topics))

    def list_groups(self, request: pb.ListGroupsRequest, reply: Callable[[pb.ListGroupsResponse], None]) -> None:
        """Answer the groups that are coordinated here."""
        if self._leading:
            reply(list_groups(self.state))
        else:
            reply(pb.ListGroupsResponse(error=not_coordinator("")))

    def describe_group(
        self, request: pb.DescribeGroupRequest, reply: Callable[[pb.DescribeGroupResponse], None]
    ) -> None:
        """Answer all there is to know of a group, or UNKNOWN_GROUP."""
        refusal = self._refuse(request.group)
        if refusal is not None:
            reply(pb.DescribeGroupResponse(error=refusal))
        else:
            reply(describe_group(self.state, request, self._topics))

    def delete_group(self, request: pb.DeleteGroupRequest, reply: Callable[[pb.DeleteGroupResponse], None]) -> None:
        """Delete a group with its committed offsets: GROUP_NOT_EMPTY while it has members."""
        refusal = self._refuse(request.group)
        if refusal is not None:
            reply(pb.DeleteGroupResponse(error=refusal))
            return
        command = internal_pb2.GroupCommand(group=request.group, delete_group=internal_pb2.DeleteGroup())
        self._propose_raw(
            command,
            lambda result: reply(pb.DeleteGroupResponse(error=result if isinstance(result, pb.Error) else None)),
        )

    def _refuse(self, group: str) -> pb.Error | None:
        return refuse_group_name(group) or (None if self._leading else not_coordinator(group))


def not_coordinator(group: str) -> pb.Error:
    """Return the error for asking a node that does not lead the group's partition of `__groups`."""
    what = f"group {group!r}" if group else "these groups"
    return make_error(pb.NOT_COORDINATOR, f"this node does not coordinate {what}")
