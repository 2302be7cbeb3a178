"""What operators do with topics."""

import asyncio
from collections.abc import Mapping, Sequence

from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import Cluster, Deadline
from quorumlog.descriptions import TopicDescription
from quorumlog.durations import Timeout, limit
from quorumlog.errors import InvalidRequest, QuorumlogError, TopicExists, UnknownTopic
from quorumlog.metadata import describe
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.names import NameInvalid, check_topic_name

DEFAULT_TIMEOUT = 30.0


class Topics:
    """Topics of the cluster; `client.topics`.

    Every method raises `QuorumlogError` as the cluster says, `ConnectionFailed` or `TimedOut` where it says nothing.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def create(
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
        """Create a topic and return it, once its partitions have leaders.

        Args:
            name: 1 to 249 of the characters a-z A-Z 0-9 . _ -
            partitions: how many; None: the cluster's default.
            replicas: copies of each; None: the cluster's default.
            configs: see `describe` for every name there is.
            if_not_exists: a topic of this name is fine, whatever it looks like.
            validate_only: check everything, create nothing.
            timeout: for all of it.

        Raises:
            TopicExists: there is one, and `if_not_exists` was not given.
            InvalidRequest: a bad name, number or configuration.
        """
        _check_name(name)
        for option, number in (("partitions", partitions), ("replicas", replicas)):
            if number is not None and number < 1:
                raise InvalidRequest(f"{option}={number} is not possible", hint="give a number of at least 1")
        deadline = Deadline(limit("timeout", timeout))
        request = pb.CreateTopicRequest(
            name=name,
            partitions=partitions or 0,
            replicas=replicas or 0,
            configs=dict(configs or {}),
            validate_only=validate_only,
        )

        attempts = 0

        async def call(connection: Connection, seconds: float) -> pb.CreateTopicResponse:
            nonlocal attempts
            attempts += 1
            return await connection.admin.CreateTopic(request, timeout=seconds)

        try:
            answer = await self._cluster.ask_cluster_leader(call, deadline.left())
        except TopicExists:
            found = await self.describe(name, timeout=deadline.left()) if if_not_exists or attempts > 1 else None
            # An earlier attempt whose answer was lost may have created it; one with other partitions is not ours.
            if found is None or not (if_not_exists or partitions in (None, len(found.partitions))):
                raise
            return found
        if validate_only:
            return describe(answer.topic)
        await self._wait_for_leaders(name, answer.topic.topic_id, deadline)
        known = self._cluster.cache.topics.get(name)
        return known.description if known is not None else describe(answer.topic)

    async def _wait_for_leaders(self, name: str, topic_id: bytes, deadline: Deadline) -> None:
        """Wait until the topic and its leaders are known: what follows would otherwise wait for that."""
        pause = 0.01
        while not deadline.passed:
            try:
                await self._cluster.refresh([name], deadline.left())
            except QuorumlogError as error:
                if not error.retriable:
                    raise
            known = self._cluster.cache.topics.get(name)
            if known is not None and known.topic_id == topic_id and known.leaders and all(known.leaders):
                return
            self._cluster.waiting_for_leaders([name], deadline.began)
            await asyncio.sleep(deadline.remaining(pause))
            pause = min(0.2, pause * 2)

    async def list(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> "list[TopicDescription]":
        """Return every topic but the internal ones, by name."""

        async def call(connection: Connection, seconds: float) -> pb.MetadataResponse:
            return await connection.log.Metadata(pb.MetadataRequest(), timeout=seconds)

        answer = await self._cluster.ask_anyone(call, limit("timeout", timeout))
        return sorted((describe(topic) for topic in answer.topics), key=lambda topic: topic.name)

    async def describe(self, name: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> TopicDescription:
        """Return one topic with every configuration there is.

        Raises:
            UnknownTopic: there is none.
        """

        async def call(connection: Connection, seconds: float) -> pb.DescribeTopicResponse:
            return await connection.admin.DescribeTopic(pb.DescribeTopicRequest(name=name), timeout=seconds)

        answer = await self._cluster.ask_cluster_leader(call, limit("timeout", timeout))
        return describe(answer.topic, tuple(answer.configs))

    async def alter(
        self,
        name: str,
        *,
        set: Mapping[str, str] | None = None,  # noqa: A002 - the command line's word
        reset: Sequence[str] = (),
        validate_only: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> TopicDescription:
        """Change configurations: `set` some, `reset` others to their defaults; returns the topic as it is then."""
        request = pb.AlterTopicRequest(name=name, set=dict(set or {}), reset=reset, validate_only=validate_only)

        async def call(connection: Connection, seconds: float) -> pb.AlterTopicResponse:
            return await connection.admin.AlterTopic(request, timeout=seconds)

        answer = await self._cluster.ask_cluster_leader(call, limit("timeout", timeout))
        return describe(answer.topic)

    async def delete(self, name: str, *, if_exists: bool = False, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Delete a topic and its records, for good.

        Raises:
            UnknownTopic: there is none, and `if_exists` was not given.
        """

        async def call(connection: Connection, seconds: float) -> pb.DeleteTopicResponse:
            return await connection.admin.DeleteTopic(pb.DeleteTopicRequest(name=name), timeout=seconds)

        try:
            await self._cluster.ask_cluster_leader(call, limit("timeout", timeout))
        except UnknownTopic:
            if not if_exists:
                raise
        finally:
            self._cluster.cache.topics.pop(name, None)


def _check_name(name: str) -> None:
    try:
        check_topic_name(name)
    except NameInvalid as error:
        raise InvalidRequest(error.message, hint=error.hint, code="INVALID_NAME") from error
