"""A client in a language that has nothing but gRPC: generated code and reflection, and no module of quorumlog.

    foreign_client.py ADDRESS FOLDER

FOLDER holds the code generated from client.proto as the package `foreign`. Prints what it found out as JSON.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import queue
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

TOPIC, GROUP = "foreign", "foreigners"
VALUES = [b"one", b"two", b"three"]
CALL_SECONDS = 10.0


class Guard(importlib.abc.MetaPathFinder):
    """Refuses every import of quorumlog."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        assert fullname.split(".")[0] != "quorumlog", f"a foreign client must not import {fullname}"


sys.meta_path.insert(0, Guard())
sys.path.insert(0, sys.argv[2])
pb: Any = importlib.import_module("foreign.client_pb2")
stubs: Any = importlib.import_module("foreign.client_pb2_grpc")


def rich_error(error: grpc.RpcError) -> tuple[Any, ErrorInfo]:
    """(Error of the contract, ErrorInfo) out of `grpc-status-details-bin`."""
    status = rpc_status.from_call(error)
    assert status is not None, "the call ended without details"
    ours, info = pb.Error(), ErrorInfo()
    for detail in status.details:
        for message in (ours, info):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    return ours, info


def at_leader(address: str, call: Callable[[grpc.Channel], Any]) -> tuple[Any, list[str]]:
    """Call at `address`, and where a NOT_LEADER answer points; returns the answer and the codes on the way."""
    codes: list[str] = []
    while len(codes) < 20:
        with grpc.insecure_channel(address) as channel:
            try:
                return call(channel), codes
            except grpc.RpcError as error:
                ours, _ = rich_error(error)
                assert ours.retriable, ours
                codes.append(pb.ErrorCode.Name(ours.code))
                address = ours.leader.address or address
    raise AssertionError(codes)


def discover(address: str) -> dict[str, list[str]]:
    """Services and their methods, by reflection."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        found = {}
        for name in database.get_services():
            if name.startswith("quorumlog."):
                file = database.FindFileContainingSymbol(name)
                service = next(one for one in file.service if f"{file.package}.{one.name}" == name)
                found[name] = [method.name for method in service.method]
        return found


def produce(address: str) -> tuple[list[int], list[str]]:
    """Plain rows, one batch each; returns the offsets, and the codes met on the way."""
    codes: list[str] = []
    offsets: list[int] = []
    for value in VALUES:
        rows = pb.Rows(records=[pb.Record(key=b"k", value=value)])
        request = pb.ProduceRequest(batches=[pb.PartitionBatch(topic=TOPIC, partition=0, rows=rows)])
        while True:
            with grpc.insecure_channel(address) as channel:
                (result,) = stubs.LogStub(channel).ProduceOnce(request, timeout=CALL_SECONDS).results
            if not result.HasField("error"):
                break
            assert result.error.retriable, result.error
            codes.append(pb.ErrorCode.Name(result.error.code))
            address = result.error.leader.address or address
        offsets.append(result.base_offset)
    return offsets, codes


def consume_as_member(address: str) -> dict[str, Any]:
    """Join the group, fetch rows, commit, leave."""
    outgoing: queue.Queue[Any] = queue.Queue()
    outgoing.put(pb.GroupRequest(join=pb.GroupJoin(group=GROUP, topics=[TOPIC], client_id="foreign")))
    with grpc.insecure_channel(address) as channel:
        answers: Iterator[Any] = stubs.GroupsStub(channel).GroupSession(iter(outgoing.get, None), timeout=60.0)

        def until(kind: str) -> Any:
            for answer in answers:
                if answer.WhichOneof("message") == "ping":
                    outgoing.put(pb.GroupRequest(pong=answer.ping))
                assert not answer.HasField("error"), answer.error
                if answer.WhichOneof("message") == kind:
                    return getattr(answer, kind)
            raise AssertionError(f"the session ended before {kind}")

        joined = until("joined")
        assignment = until("assignment")
        while not assignment.assigned:
            assignment = until("assignment")
        (mine,) = assignment.assigned
        records = fetch(leader_of(address), mine.partition.partition)
        commit = pb.GroupCommit(
            commit_id=7,
            member_epoch=assignment.member_epoch,
            offsets=[
                pb.OffsetAndEpoch(
                    partition=mine.partition, offset=records[-1].offset + 1, leader_epoch=records[-1].leader_epoch
                )
            ],
        )
        outgoing.put(pb.GroupRequest(commit=commit))
        committed = until("committed")
        outgoing.put(pb.GroupRequest(leave=pb.GroupLeave()))
        outgoing.put(None)
        for answer in answers:
            assert not answer.HasField("error"), answer.error
    return {
        "member_id": joined.member_id,
        "values": [record.value.decode() for record in records],
        "commit_id": committed.commit_id,
        "committed": [row.offset for row in committed.results if not row.HasField("error")],
    }


def leader_of(address: str) -> str:
    with grpc.insecure_channel(address) as channel:
        metadata = stubs.LogStub(channel).Metadata(pb.MetadataRequest(topics=[TOPIC]), timeout=CALL_SECONDS)
    return str(metadata.topics[0].partitions[0].leader.address)


def fetch(address: str, partition: int) -> list[Any]:
    wanted = pb.FetchPartition(topic=TOPIC, partition=partition, offset=0)
    request = pb.FetchRequest(partitions=[wanted], max_wait_ms=1000, format=pb.ROWS)
    with grpc.insecure_channel(address) as channel:
        (found,) = stubs.LogStub(channel).Fetch(request, timeout=CALL_SECONDS).partitions
    assert not found.HasField("error"), found.error
    return list(found.rows.records)


def wrong_topic(address: str) -> dict[str, str]:
    """The rich error for a topic that is not there."""
    with grpc.insecure_channel(address) as channel:
        try:
            stubs.AdminStub(channel).DescribeTopic(pb.DescribeTopicRequest(name="orders"), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            ours, info = rich_error(error)
            return {
                "status": error.code().name,
                "reason": info.reason,
                "message": ours.message,
                "hint": ours.hint,
                "code": pb.ErrorCode.Name(ours.code),
            }
    raise AssertionError("no error for a topic that does not exist")


def main() -> None:
    address = sys.argv[1]
    found: dict[str, Any] = {"services": discover(address)}
    with grpc.insecure_channel(address) as channel:
        nodes = [
            node.address for node in stubs.LogStub(channel).Metadata(pb.MetadataRequest(), timeout=CALL_SECONDS).nodes
        ]
    # Created and produced to from every node in turn, so that some of them are not the leader.
    create = pb.CreateTopicRequest(name=TOPIC, partitions=1, replicas=3)
    _, found["create_codes"] = at_leader(
        next_node_without_the_cluster(address, nodes),
        lambda channel: stubs.AdminStub(channel).CreateTopic(create, timeout=CALL_SECONDS),
    )
    found["produced"] = [produce(node) for node in nodes]
    coordinator, _ = at_leader(
        address,
        lambda channel: stubs.GroupsStub(channel).FindCoordinator(
            pb.FindCoordinatorRequest(group=GROUP), timeout=CALL_SECONDS
        ),
    )
    found["member"] = consume_as_member(coordinator.coordinator.address)
    found["wrong_topic"] = wrong_topic(address)
    print(json.dumps(found))


def next_node_without_the_cluster(address: str, nodes: list[str]) -> str:
    """A node that does not lead the metadata group."""
    with grpc.insecure_channel(address) as channel:
        leader = stubs.LogStub(channel).Metadata(pb.MetadataRequest(), timeout=CALL_SECONDS).cluster_leader
    return next(node for node in nodes if node != leader.address)


if __name__ == "__main__":
    main()
