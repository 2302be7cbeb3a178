"""A whole broker, alone in its cluster, over memory storage: requests go in, answers are kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from quorumlog.node.broker.broker import Broker
from quorumlog.node.clock import ManualClock
from quorumlog.node.config import NodeConfig
from quorumlog.node.coordination.view import CoordinationView, NoCoordination
from quorumlog.node.metadata import decisions
from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.identity import Founder, Founding, save_identity
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.opening import open_node
from quorumlog.node.timers import Timers
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import encode_columns, header_for, seal
from quorumlog.proto.compression import deflate
from quorumlog.raft import NodeId

NODE = NodeId(1)

T = TypeVar("T")


class LoneBroker:
    """Node 1 of one. `settle` runs it until nothing is left to do now; `pass_time` lets its timers come due. `settings`
    are those of its configuration.
    """

    def __init__(self, coordination: CoordinationView | None = None, **settings: Any) -> None:
        rng = random.Random(5)
        files = MemoryFileSystem()
        database = MemoryDatabase(files, rng.randbytes)
        opened = open_node(files, database, NODE, rng.randbytes)
        descriptor = internal_pb2.NodeDescriptor(
            node_id=NODE,
            incarnation=opened.identity.incarnation,
            client_address="node1:7070",
            peer_address="node1:7170",
            host="host1",
        )
        self.clock = ManualClock(1000.0)
        founding = decisions.founding([descriptor], cluster_id=b"", rng=rng, now_ms=self.clock.wall_ms())
        assert isinstance(founding, internal_pb2.Founding)
        record = Founding(founding.cluster_id, (Founder(NODE, descriptor.incarnation),), founding.SerializeToString())
        save_identity(files, opened.identity.founded(record))
        self.storage = opened.storage
        self.timers = Timers()
        self.reclaimed: list[tuple[Family, bytes, bytes]] = []
        self._dones: list[Callable[[], None]] = []
        self.cold_reads = ColdReads(self)
        self.broker = Broker(
            config=NodeConfig(NODE, Path("/none"), "node1:7070", "node1:7170", **settings),
            opened=opened,
            founding=founding,
            descriptor=descriptor,
            clock=self.clock,
            timers=self.timers,
            rng=rng,
            coordination=coordination or NoCoordination(),
            syncer=self,
            cold_reader=self.cold_reads,
            send=lambda peer, lane, packet: None,
            reclaim=lambda family, start, end: self.reclaimed.append((family, start, end)),
            on_synced=lambda sequence: None,
            on_nodes_changed=lambda: None,
            on_coordination=lambda sender, session, payload: None,
        )
        self.broker.start()
        self.until(lambda: self.broker.cluster.takes_requests)

    def submit(self, *, votes: bool, done: Callable[[], None]) -> None:
        def synced() -> None:
            self.storage.sync()
            done()

        self._dones.append(synced)

    def later(self, done: Callable[[], None]) -> None:
        self._dones.append(done)

    def settle(self) -> None:
        self.broker.pump()
        while self._dones or not self.broker.multi.idle:
            dones, self._dones = self._dones, []
            for done in dones:
                done()
            self.broker.pump()

    def pass_time(self, seconds: float) -> None:
        until = self.clock.now() + seconds
        while True:
            self.settle()
            due = self.timers.next_due()
            if due is None or due > until:
                break
            self.clock.advance(max(0.0, due - self.clock.now()))
            self.timers.run(self.clock.now())
        self.clock.advance(until - self.clock.now())

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        deadline = self.clock.now() + seconds
        while not condition():
            assert self.clock.now() < deadline, "it does not come to that"
            self.pass_time(0.05)

    def create(self, name: str, partitions: int = 1, **configs: str) -> bytes:
        """Create a topic, wait until its partitions are led here, and return its id."""
        answers: list[pb.CreateTopicResponse] = []
        wanted = {key.replace("_", "."): value for key, value in configs.items()}
        request = pb.CreateTopicRequest(name=name, partitions=partitions, configs=wanted)
        self.broker.admin.create_topic(request, answers.append)
        self.until(lambda: bool(answers))
        assert not answers[0].HasField("error"), answers[0].error
        groups = [one.group_id for one in self.broker.catalogue.topics[name].partitions]
        self.until(lambda: all(self.broker.multi.replicas[group].ready_to_decide for group in groups))
        return answers[0].topic.topic_id

    def produce(self, topic: str, *batches: pb.RecordBatch, partition: int = 0) -> list[pb.ProduceResult]:
        request = pb.ProduceRequest(
            batches=[pb.PartitionBatch(topic=topic, partition=partition, batch=batch) for batch in batches]
        )
        results: list[pb.ProduceResult] = []
        self.broker.producing.produce(request, results.append)
        self.settle()
        return results


class ColdReads:
    """Reads off the loop; while `held` is set none of them comes to its turn."""

    def __init__(self, owner: LoneBroker) -> None:
        self._owner = owner
        self._waiting: list[Callable[[], None]] = []
        self.held = False

    def submit(self, read: Callable[[Storage], T], done: Callable[[T], None]) -> None:
        def work() -> None:
            done(read(self._owner.storage))

        if self.held:
            self._waiting.append(work)
        else:
            self._owner.later(work)

    def release(self) -> None:
        """Let those that were held come to their turn."""
        self.held = False
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            self._owner.later(work)


def batch(
    values: Sequence[bytes],
    *,
    compression: int = pb.NONE,
    producer: tuple[int, int, int] = (0, 0, 0),
    timestamp_ms: int = 1_700_000_000_000,
) -> pb.RecordBatch:
    """A sealed batch; `producer` is (id, epoch, sequence)."""
    producer_id, epoch, sequence = producer
    header = header_for(
        len(values),
        first_timestamp_ms=timestamp_ms,
        compression=compression,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
    )
    return seal(header, deflate(compression, encode_columns(list(values))))
