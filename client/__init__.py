"""quorumlog: a distributed replicated log. This is its client.

    import quorumlog

    with quorumlog.connect("localhost:7070") as client:
        client.topics.create("orders", partitions=6, replicas=3, if_not_exists=True)

        with client.producer() as producer:
            future = producer.send("orders", b"payload", key=b"k1", headers={"trace": b"1"})
            metadata = future.result()
            producer.send_many("orders", values=[b"a", b"b"])
            producer.flush()

        with client.consumer("orders", group="billing") as consumer:
            for record in consumer:
                handle(record.value)

`quorumlog.aio` has the same verbs for asyncio. Names are loaded when first used, so that importing the package costs
next to nothing.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorumlog import aio
    from quorumlog.descriptions import (
        ClusterStatus,
        ConfigEntry,
        Finding,
        GroupDescription,
        GroupOffset,
        GroupSummary,
        MemberDescription,
        MovingPartition,
        NodeDescription,
        NodeStatus,
        PartitionDescription,
        PlacementChange,
        Recovery,
        ReplicaDescription,
        TopicDescription,
    )
    from quorumlog.errors import (
        BatchCorrupt,
        Closed,
        ConnectionFailed,
        DeliveryFailed,
        Diverged,
        FailedBatch,
        Fatal,
        Fenced,
        ForkedProcess,
        GroupNotEmpty,
        InvalidRequest,
        NoLeader,
        NotCoordinator,
        NotLeader,
        NotYetAvailable,
        OffsetOutOfRange,
        Outcome,
        QuorumlogError,
        RecordTooLarge,
        Retriable,
        Throttled,
        TimedOut,
        TopicExists,
        UnknownGroup,
        UnknownPartition,
        UnknownTopic,
        WrongCluster,
    )
    from quorumlog.futures import BulkFuture, SendFuture
    from quorumlog.records import AppendedRange, Offset, Record, RecordMetadata, TopicPartition
    from quorumlog.sync import Client, Consumer, Producer, connect
    from quorumlog.waiting import Wait

_HOMES = {
    "descriptions": (
        "ClusterStatus",
        "ConfigEntry",
        "Finding",
        "GroupDescription",
        "GroupOffset",
        "GroupSummary",
        "MemberDescription",
        "MovingPartition",
        "NodeDescription",
        "NodeStatus",
        "PartitionDescription",
        "PlacementChange",
        "Recovery",
        "Recovery",
        "ReplicaDescription",
        "TopicDescription",
    ),
    "errors": (
        "BatchCorrupt",
        "Closed",
        "ConnectionFailed",
        "DeliveryFailed",
        "Diverged",
        "FailedBatch",
        "Fatal",
        "Fenced",
        "ForkedProcess",
        "GroupNotEmpty",
        "InvalidRequest",
        "NoLeader",
        "NotCoordinator",
        "NotLeader",
        "NotYetAvailable",
        "OffsetOutOfRange",
        "Outcome",
        "QuorumlogError",
        "RecordTooLarge",
        "Retriable",
        "Throttled",
        "TimedOut",
        "TopicExists",
        "UnknownGroup",
        "UnknownPartition",
        "UnknownTopic",
        "WrongCluster",
    ),
    "futures": ("BulkFuture", "SendFuture"),
    "records": ("AppendedRange", "Offset", "Record", "RecordMetadata", "TopicPartition"),
    "sync": ("Client", "Consumer", "Producer", "connect"),
    "waiting": ("Wait",),
}
# gRPC reads this when it is loaded. Its own handlers of a fork now and then crash the child, and its asyncio face does
# not work there with them either; `ForkedProcess` says so instead.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

_MODULES = {name: f"quorumlog.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("quorumlog")
    if name == "aio":
        return importlib.import_module("quorumlog.aio")
    home = _MODULES.get(name)
    if home is None:
        raise AttributeError(f"module 'quorumlog' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), "aio", *_MODULES})


__all__ = [
    "AppendedRange",
    "BatchCorrupt",
    "BulkFuture",
    "Client",
    "Closed",
    "ClusterStatus",
    "ConfigEntry",
    "ConnectionFailed",
    "Consumer",
    "DeliveryFailed",
    "Diverged",
    "FailedBatch",
    "Fatal",
    "Fenced",
    "Finding",
    "ForkedProcess",
    "GroupDescription",
    "GroupNotEmpty",
    "GroupOffset",
    "GroupSummary",
    "InvalidRequest",
    "MemberDescription",
    "MovingPartition",
    "NoLeader",
    "NodeDescription",
    "NodeStatus",
    "NotCoordinator",
    "NotLeader",
    "NotYetAvailable",
    "Offset",
    "OffsetOutOfRange",
    "Outcome",
    "PartitionDescription",
    "PlacementChange",
    "Producer",
    "QuorumlogError",
    "Record",
    "RecordMetadata",
    "RecordTooLarge",
    "Recovery",
    "ReplicaDescription",
    "Retriable",
    "SendFuture",
    "Throttled",
    "TimedOut",
    "TopicDescription",
    "TopicExists",
    "TopicPartition",
    "UnknownGroup",
    "UnknownPartition",
    "UnknownTopic",
    "Wait",
    "WrongCluster",
    "aio",
    "connect",
]
