"""What a node that waits says of itself, and proposes, as it learns more."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from quorumlog.node.clock import ManualClock
from quorumlog.node.founding import FoundingDesk
from quorumlog.node.metadata import decisions
from quorumlog.node.report import waiting_status
from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.identity import IDENTITY_NAME, load_identity
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.raft import NodeId

CLUSTER = b"c" * 16


def descriptor(node_id: int, incarnation: bytes) -> internal_pb2.NodeDescriptor:
    return internal_pb2.NodeDescriptor(
        node_id=node_id, incarnation=incarnation, client_address="n:1", peer_address="n:2", host=f"h{node_id}"
    )


def record_of(*nodes: internal_pb2.NodeDescriptor, cluster_id: bytes = CLUSTER) -> internal_pb2.Founding:
    record = decisions.founding(list(nodes), cluster_id=cluster_id, rng=random.Random(1), now_ms=0)
    assert isinstance(record, internal_pb2.Founding)
    return record


class SlowFiles(MemoryFileSystem):
    """Once told to be slow, the next write of a whole file waits to be let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.writing = threading.Event()
        self.go_on = threading.Event()

    def replace(self, name: str, data: bytes) -> None:
        if self.slow:
            self.slow = False
            self.writing.set()
            self.go_on.wait()
        super().replace(name, data)


class Waiting:
    """Node 1, which waits on memory storage."""

    def __init__(self, files: MemoryFileSystem | None = None) -> None:
        files = files or MemoryFileSystem()
        rng = random.Random(7)
        self.opened = open_node(files, MemoryDatabase(files, rng.randbytes), NodeId(1), rng.randbytes)
        self.began: list[internal_pb2.Founding] = []
        self.descriptor = descriptor(1, self.opened.identity.incarnation)
        self.desk = FoundingDesk(self.opened, self.descriptor, ManualClock(0.0), self._begin, lambda: False)

    def _begin(self, opened: Opened, founding: internal_pb2.Founding) -> None:
        self.began.append(founding)

    def take(self, record: internal_pb2.Founding) -> peer_pb2.FoundResponse:
        return asyncio.run(self.desk.take(record))

    def finding(self) -> pb.Finding:
        """The last finding, which is about its waiting."""
        status = waiting_status(self.opened, self.desk)
        assert status.state == "waiting"
        return status.findings[-1]


def test_a_node_that_nobody_knows_proposes_to_found_a_cluster() -> None:
    finding = Waiting().finding()
    assert (finding.severity, finding.message) == (pb.INFO, "it belongs to no cluster and waits")
    assert finding.fix.startswith("found a cluster with `quorumlog cluster init`, if there is none")


def test_a_node_that_members_greet_is_told_to_be_patient_instead() -> None:
    node = Waiting()
    node.desk.greeted_by = peer_pb2.Hello(node_id=2, cluster_id=CLUSTER)
    finding = node.finding()
    assert finding.severity == pb.INFO
    assert f"node 2 of cluster {CLUSTER.hex()} takes it for one of its own" in finding.message
    assert "cluster init" not in finding.fix
    assert "about to be handed the founding record" in finding.fix


def test_a_node_known_under_another_incarnation_warns_once_and_has_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    node = Waiting()
    record = record_of(descriptor(1, b"o" * 16), descriptor(2, b"p" * 16))
    answers = [node.take(record) for _ in range(3)]
    assert not any(answer.accepted for answer in answers)
    assert node.began == []
    finding = node.finding()
    assert finding.severity == pb.PROBLEM
    assert {answer.message for answer in answers} == {finding.message}
    assert f"knows node 1 under incarnation {(b'o' * 16).hex()}" in finding.message
    assert "they admit it as a new incarnation by themselves" in finding.fix
    assert [entry.message for entry in caplog.records] == [f"{finding.message}; {finding.fix}"]


def test_a_record_that_does_not_name_the_node_is_refused_without_such_a_suspicion() -> None:
    node = Waiting()
    answer = node.take(record_of(descriptor(2, b"p" * 16)))
    assert not answer.accepted
    assert "names node 1 not at all" in answer.message
    assert node.finding().severity == pb.INFO


def test_a_node_whose_identity_is_damaged_has_a_problem_before_anyone_tells_it() -> None:
    files = MemoryFileSystem()
    first = Waiting(files)
    assert first.take(record_of(first.descriptor)).accepted
    assert len(first.began) == 1
    first.opened.close()
    files.replace(IDENTITY_NAME, b"torn")
    finding = Waiting(files).finding()
    assert finding.severity == pb.PROBLEM
    assert "it was another incarnation before this start" in finding.message
    assert "they admit it as a new incarnation by themselves" in finding.fix


def test_a_founding_whose_caller_hangs_up_is_carried_to_its_end_before_the_next_is_looked_at() -> None:
    files = SlowFiles()
    node = Waiting(files)
    one = record_of(node.descriptor)
    other = record_of(node.descriptor, cluster_id=b"d" * 16)

    async def run() -> peer_pb2.FoundResponse:
        files.slow = True
        caller = asyncio.create_task(node.desk.take(one))
        await asyncio.to_thread(files.writing.wait)
        caller.cancel()
        await asyncio.wait((caller,))
        assert caller.cancelled()
        asyncio.get_running_loop().call_soon(files.go_on.set)
        return await node.desk.take(other)

    try:
        answer = asyncio.run(run())
    finally:
        files.go_on.set()
    assert not answer.accepted
    assert node.began == [one]
    on_disk = load_identity(files)
    assert on_disk is not None
    assert on_disk.cluster_id == node.desk.cluster_id == one.cluster_id
