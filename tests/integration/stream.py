"""Producers that stream numbered records, and the comparison of what was acknowledged with what every replica holds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import TracebackType
from typing import NamedTuple, Self

from quorumlog import aio
from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, NodeProcess, eventually

DELIVERY_SECONDS = 60.0
PAUSE_SECONDS = 0.001


class Ack(NamedTuple):
    """One acknowledged record: who sent it, its number, where it is, and when the ack came."""

    producer: str
    number: int
    partition: int
    offset: int
    at: float


class Stream:
    """Two producers that send numbered records, each to every partition in turn, until the body of the `with` ends.

    Leaving it waits for every ack and raises if a record was not delivered.
    """

    def __init__(self, cluster: LocalCluster, topic: str, partitions: int, producers: tuple[str, ...] = ("a", "b")):
        self.acks: list[Ack] = []
        self._cluster = cluster
        self._topic = topic
        self._partitions = partitions
        self._producers = producers
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None

    def until(self, what: str, reached: Callable[[list[Ack]], object]) -> None:
        """Wait until the acks so far fulfil `reached`."""
        eventually(what, lambda: self._error is not None or reached(self.acks), DELIVERY_SECONDS)
        assert self._error is None, self._error

    def until_more(self, count: int) -> None:
        """Wait for `count` more acks in every partition."""
        before = Counter(ack.partition for ack in list(self.acks))

        def reached(acks: list[Ack]) -> bool:
            now = Counter(ack.partition for ack in list(acks))
            return all(now[partition] >= before[partition] + count for partition in range(self._partitions))

        self.until(f"{count} more acks in each of {self._partitions} partitions", reached)

    @property
    def longest_stall_seconds(self) -> float:
        """The longest time between two acks of one partition."""
        longest = 0.0
        for partition in range(self._partitions):
            times = [ack.at for ack in self.acks if ack.partition == partition]
            longest = max([longest, *(after - before for before, after in pairwise(times))])
        return longest

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:  # noqa: BLE001 # raised where the stream is used
            self._error = error

    async def _send_all(self) -> None:
        async with aio.connect(self._cluster.bootstrap, timeout=20.0) as client:
            await asyncio.gather(*(self._send(client, name) for name in self._producers))

    async def _send(self, client: aio.Client, name: str) -> None:
        number = 0
        async with client.producer(delivery_timeout=DELIVERY_SECONDS) as producer:
            while not self._stopping.is_set():
                for partition in range(self._partitions):
                    future = await producer.send(self._topic, f"{name}-{number}".encode(), partition=partition)
                    future.add_done_callback(self._taker(name, number, partition))
                    number += 1
                await asyncio.sleep(PAUSE_SECONDS)

    def _taker(self, name: str, number: int, partition: int) -> Callable[[object], None]:
        def take(future: object) -> None:
            metadata = future.result()  # type: ignore[attr-defined] # a SendFuture, which is done
            self.acks.append(Ack(name, number, partition, metadata.offset, time.monotonic()))

        return take


def records_of(node: NodeProcess, topic: str, partitions: int, acks: list[Ack]) -> dict[int, list[pb.Record]]:
    """What a node's own replicas hold, up to the last acknowledged record of each partition at least."""
    ends = dict.fromkeys(range(partitions), 0)
    for ack in acks:
        ends[ack.partition] = max(ends[ack.partition], ack.offset + 1)
    return {partition: node.read(topic, partition, end) for partition, end in ends.items()}


def check(acks: list[Ack], held: Mapping[int, list[pb.Record]]) -> None:
    """Every acknowledged record is there exactly once, at its offset; each producer's records are in the order sent."""
    assert acks
    for ack in acks:
        assert held[ack.partition][ack.offset].value == f"{ack.producer}-{ack.number}".encode()
    for partition, records in held.items():
        values = Counter(record.value for record in records)
        assert max(values.values(), default=1) == 1, f"twice in partition {partition}: {values.most_common(3)}"
        assert [record.offset for record in records] == list(range(len(records)))
        last: dict[bytes, int] = {}
        for record in records:
            name, _, number = record.value.partition(b"-")
            assert int(number) > last.get(name, -1), f"partition {partition}, offset {record.offset}: out of order"
            last[name] = int(number)


def check_everywhere(cluster: LocalCluster, topic: str, partitions: int, acks: list[Ack]) -> None:
    """`check` on every node, and every node holds the same."""
    alike: dict[int, list[tuple[bytes, int]]] = {}
    for node in cluster.nodes:
        held = records_of(node, topic, partitions, acks)
        check(acks, held)
        for partition, records in held.items():
            ours = [(record.value, record.leader_epoch) for record in records]
            other = alike.setdefault(partition, ours)
            common = min(len(ours), len(other))
            assert ours[:common] == other[:common], f"node {node.node_id} differs in partition {partition}"
