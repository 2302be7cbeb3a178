"""Consumer groups on a node: one coordinator for each partition of `__groups` that has a replica here."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from quorumlog.node.broker.directory import Directory
from quorumlog.node.clock import Clock
from quorumlog.node.errors import ReplicaStopped
from quorumlog.node.groups.coordinator import GroupCoordinator
from quorumlog.node.groups.freshness import CatchUp
from quorumlog.node.groups.session import Session
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.groups.state import Result as GroupResult
from quorumlog.node.groups.topics import TopicView
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.topics import GROUPS_TOPIC, Partition, Topic
from quorumlog.node.replica.machine import CommandMachine
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Committed, Replica
from quorumlog.proto import client_pb2, internal_pb2
from quorumlog.proto.errors import make_error
from quorumlog.proto.murmur2 import partition_for_key
from quorumlog.raft import EntryKind, NotLeader, ProposalRefused


class CatalogueTopics:
    """The catalogue as groups see it: user topics only."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def by_name(self, name: str) -> TopicView | None:
        """The topic of this name, if consumers may read it."""
        return _view(self._catalogue.topic(name))

    def by_id(self, topic_id: bytes) -> TopicView | None:
        """The topic of this id, if consumers may read it."""
        return _view(self._catalogue.topic_by_id(topic_id))


def _view(topic: Topic | None) -> TopicView | None:
    if topic is None or topic.internal:
        return None
    return TopicView(topic.name, topic.topic_id, len(topic.partitions))


class MemberStream:
    """A member's stream, on its way to the coordinator of the group that its first message names."""

    def __init__(self, send: Callable[[client_pb2.GroupResponse], None], close: Callable[[], None]) -> None:
        self.send = send
        self.close = close
        self.coordinator: GroupCoordinator | None = None
        self.session: Session | None = None


class GroupsPath:
    """Finds the coordinator of a group, and hosts those of this node."""

    def __init__(
        self,
        *,
        directory: Directory,
        multi: MultiRaft,
        clock: Clock,
        rng: random.Random,
        settings: GroupSettings,
        catch_up: CatchUp,
    ) -> None:
        self._directory = directory
        self._multi = multi
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._catch_up = catch_up
        self._topics = CatalogueTopics(directory.catalogue)
        self._coordinators: dict[int, GroupCoordinator] = {}
        self._hosts: dict[int, Replica] = {}
        """The replica that each of them works on: one that was removed and comes back is another one."""

    # ------------------------------------------------------------------------------------------------------ hosting

    def on_role(self, replica: Replica) -> None:
        """A replica of `__groups` has begun or ceased to lead; a beginner decides nothing before its first entry is
        applied.
        """
        if replica.descriptor.topic == GROUPS_TOPIC and not replica.leads:
            coordinator = self._coordinators.get(replica.group_id)
            if coordinator is not None:
                coordinator.on_leadership(False, self._clock.now())

    def on_applied(self, replica: Replica) -> None:
        """An entry of a `__groups` partition was applied."""
        if not replica.ready_to_decide:
            return
        coordinator = self._coordinators.get(replica.group_id)
        if coordinator is None or self._hosts[replica.group_id] is not replica:
            coordinator = self._coordinators[replica.group_id] = self._make(replica)
            self._hosts[replica.group_id] = replica
        if not coordinator.is_leading:
            coordinator.on_leadership(True, self._clock.now())

    def _make(self, replica: Replica) -> GroupCoordinator:
        assert isinstance(replica.machine, CommandMachine)
        state = replica.machine.state_machine
        assert isinstance(state, GroupsState)
        return GroupCoordinator(
            state=state,
            propose=lambda command, on_result: self._propose(replica, command, on_result),
            topics=self._topics,
            rng=random.Random(self._rng.getrandbits(64)),
            settings=self._settings,
            wall_ms=self._clock.wall_ms,
            catch_up=self._catch_up,
        )

    def _propose(
        self, replica: Replica, command: internal_pb2.GroupCommand, on_result: Callable[[GroupResult], None]
    ) -> None:
        def done(result: object) -> None:
            if isinstance(result, Committed):
                on_result(result.value)  # type: ignore[arg-type]  # what GroupsState.apply returns
            else:
                lost = f"the coordinator of group {command.group!r} was deposed before the change was committed"
                on_result(make_error(client_pb2.NOT_COORDINATOR, lost, outcome=client_pb2.OUTCOME_UNKNOWN))

        try:
            replica.propose(EntryKind.COMMAND, command.SerializeToString(), wall_ms=self._clock.wall_ms(), reply=done)
        except (NotLeader, ReplicaStopped):
            on_result(self._not_coordinator(command.group))
            return
        except ProposalRefused as error:
            on_result(make_error(client_pb2.THROTTLED, str(error), retry_after_ms=100))
            return
        self._multi.touch(replica)

    def tick(self) -> None:
        """Pings, timeouts, targets that are due."""
        now = self._clock.now()
        for coordinator in self._coordinators.values():
            coordinator.on_tick(now)

    def on_catalogue_changed(self, deleted: tuple[bytes, ...] = ()) -> None:
        """Topics came or went; `deleted` are the ids of those known to have gone for good."""
        now = self._clock.now()
        for coordinator in self._coordinators.values():
            coordinator.on_catalogue_changed(now, deleted)

    # ------------------------------------------------------------------------------------------------------ sessions

    def on_request(self, session: MemberStream, request: client_pb2.GroupRequest) -> None:
        """Take a member's message."""
        if session.coordinator is None:
            if request.WhichOneof("message") != "join":
                error = make_error(client_pb2.INVALID_REQUEST, "the first message of a group session must be `join`")
                session.send(client_pb2.GroupResponse(error=error))
                session.close()
                return
            coordinator = self._coordinator(request.join.group)
            if isinstance(coordinator, client_pb2.Error):
                session.send(client_pb2.GroupResponse(error=coordinator))
                session.close()
                return
            session.coordinator = coordinator
            session.session = coordinator.open_session(session.send, session.close)
        assert session.session is not None
        session.coordinator.on_request(session.session, request, self._clock.now())

    def on_session_closed(self, session: MemberStream) -> None:
        """The stream is gone."""
        if session.coordinator is not None and session.session is not None:
            session.coordinator.on_session_closed(session.session, self._clock.now())

    # --------------------------------------------------------------------------------------------------- unary twins

    def find_coordinator(self, request: client_pb2.FindCoordinatorRequest) -> client_pb2.FindCoordinatorResponse:
        """Who coordinates a group, as far as is known here, and whom to ask otherwise."""
        topic = self._directory.catalogue.topic(GROUPS_TOPIC)
        if topic is None:
            error = make_error(client_pb2.NOT_YET_AVAILABLE, "the cluster is not founded yet, or this node is behind")
            return client_pb2.FindCoordinatorResponse(error=error)
        partition = _partition_of(topic, request.group)
        nodes = [self._directory.catalogue.nodes.get(node_id) for node_id in partition.replicas]
        return client_pb2.FindCoordinatorResponse(
            coordinator=self._directory.leader_of(partition.group_id),
            replicas=[node.client_address for node in nodes if node is not None],
        )

    def commit_offsets(
        self,
        request: client_pb2.CommitOffsetsRequest,
        reply: Callable[[client_pb2.CommitOffsetsResponse], None],
    ) -> None:
        """Commit without membership."""
        coordinator = self._coordinator(request.group)
        if isinstance(coordinator, client_pb2.Error):
            reply(client_pb2.CommitOffsetsResponse(error=coordinator))
        else:
            coordinator.commit_offsets(request, reply)

    def fetch_offsets(
        self, request: client_pb2.FetchOffsetsRequest, reply: Callable[[client_pb2.FetchOffsetsResponse], None]
    ) -> None:
        """Committed offsets, after a read-index."""

        def answer(coordinator: GroupCoordinator | client_pb2.Error) -> None:
            if isinstance(coordinator, client_pb2.Error):
                reply(client_pb2.FetchOffsetsResponse(error=coordinator))
            else:
                coordinator.fetch_offsets(request, reply)

        self._confirmed(request.group, answer)

    def describe_group(
        self, request: client_pb2.DescribeGroupRequest, reply: Callable[[client_pb2.DescribeGroupResponse], None]
    ) -> None:
        """One group, after a read-index."""

        def answer(coordinator: GroupCoordinator | client_pb2.Error) -> None:
            if isinstance(coordinator, client_pb2.Error):
                reply(client_pb2.DescribeGroupResponse(error=coordinator))
            else:
                coordinator.describe_group(request, reply)

        self._confirmed(request.group, answer)

    def delete_group(
        self, request: client_pb2.DeleteGroupRequest, reply: Callable[[client_pb2.DeleteGroupResponse], None]
    ) -> None:
        """Delete a group without members."""
        coordinator = self._coordinator(request.group)
        if isinstance(coordinator, client_pb2.Error):
            reply(client_pb2.DeleteGroupResponse(error=coordinator))
        else:
            coordinator.delete_group(request, reply)

    def list_groups(self, reply: Callable[[client_pb2.ListGroupsResponse], None]) -> None:
        """The groups that this node coordinates, after a read-index for each partition of `__groups` that it leads.

        Those of a partition that turns out to be led elsewhere are left out: another node lists them.
        """
        response = client_pb2.ListGroupsResponse()
        leading = [group_id for group_id, coordinator in self._coordinators.items() if coordinator.is_leading]
        missing = len(leading)
        if not missing:
            reply(response)

        def collect(coordinator: GroupCoordinator, leads: bool) -> None:
            nonlocal missing
            if leads:
                coordinator.list_groups(
                    client_pb2.ListGroupsRequest(), lambda part: response.groups.extend(part.groups)
                )
            missing -= 1
            if missing == 0:
                reply(response)

        for group_id in leading:
            coordinator = self._coordinators[group_id]
            self._read(self._multi.replicas[group_id], partial(collect, coordinator))

    # --------------------------------------------------------------------------------------------------------- inside

    def _replica_of(self, group: str) -> Replica | None:
        topic = self._directory.catalogue.topic(GROUPS_TOPIC)
        if topic is None:
            return None
        return self._multi.replicas.get(_partition_of(topic, group).group_id)

    def _coordinator(self, group: str) -> GroupCoordinator | client_pb2.Error:
        replica = self._replica_of(group)
        coordinator = self._coordinators.get(replica.group_id) if replica is not None else None
        if coordinator is None or not coordinator.is_leading:
            return self._not_coordinator(group)
        return coordinator

    def _not_coordinator(self, group: str) -> client_pb2.Error:
        found = self.find_coordinator(client_pb2.FindCoordinatorRequest(group=group))
        if found.HasField("error"):
            return found.error
        leader = found.coordinator if found.HasField("coordinator") else None
        where = f"node {leader.node_id} at {leader.address} does" if leader else "no coordinator is known here"
        return make_error(
            client_pb2.NOT_COORDINATOR,
            f"node {self._directory.node_id} does not coordinate group {group!r}; {where}",
            leader=leader,
        )

    def _confirmed(self, group: str, answer: Callable[[GroupCoordinator | client_pb2.Error], None]) -> None:
        coordinator = self._coordinator(group)
        replica = self._replica_of(group)
        if isinstance(coordinator, client_pb2.Error) or replica is None:
            answer(coordinator)
            return

        self._read(replica, lambda leads: answer(coordinator if leads else self._not_coordinator(group)))

    def _read(self, replica: Replica, confirmed: Callable[[bool], None]) -> None:
        """Ask whether the replica leads still, with all applied that was committed before."""
        try:
            replica.read_index(confirmed)
        except NotLeader:
            confirmed(False)
            return
        self._multi.touch(replica)


def _partition_of(topic: Topic, group: str) -> Partition:
    """The partition of `__groups` that has a group: the number of them was recorded when the cluster was founded."""
    return topic.partitions[partition_for_key(group.encode(), len(topic.partitions))]
