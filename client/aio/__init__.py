"""The asyncio face; `quorumlog` itself has the same verbs without `await`.

    async with quorumlog.aio.connect("localhost:7070") as client:
        await client.topics.create("orders", partitions=6, replicas=3, if_not_exists=True)
        async with client.producer() as producer:
            future = await producer.send("orders", b"payload", key=b"k1", headers={"trace": b"1"})
            metadata = await future
            await producer.flush()
        async with client.consumer("orders", group="billing") as consumer:
            async for record in consumer:
                handle(record.value)

The whole face; every `timeout` is in seconds (or a timedelta), None means no limit:

    connect(bootstrap=None, *, client_id, timeout=10.0) -> Client        bootstrap: "host:port,host:port", a list, or $QUORUMLOG_BOOTSTRAP
    client.topics     .create(name, *, partitions, replicas, configs, if_not_exists, validate_only, timeout) -> TopicDescription
                      .list(*, timeout) -> list[TopicDescription]        .describe(name, *, timeout) -> TopicDescription
                      .alter(name, *, set, reset, validate_only, timeout) -> TopicDescription
                      .delete(name, *, if_exists, timeout)
    client.offsets(topic, *, at="latest" | "earliest" | datetime | seconds, timeout) -> dict[partition, offset]
    client.groups     .list(*, timeout) -> list[GroupSummary]            .describe(group, *, timeout) -> GroupDescription (with lag)
                      .reset(group, topic, *, to="earliest" | "latest" | datetime | {partition: offset}, timeout) -> dict[partition, offset]
                      .delete(group, *, timeout)
    client.cluster    .status(*, timeout) -> ClusterStatus               .init({node_id: address}, *, timeout) -> bytes (the cluster's id)
                      .transfer(topic, partition, to_node_id, *, timeout)
    client.producer(*, linger, batch_size, compression, delivery_timeout, buffer_memory) -> Producer
    producer          .send(topic, value, *, key, headers, partition, timestamp, timeout) -> SendFuture
                      .send_many(topic, values, *, keys, partition, timestamp, timeout) -> BulkFuture
                      .flush(*, timeout)     .close(*, timeout)
    client.consumer(*topics, group | partitions={topic: [..] | {partition: offset}}, start, stop, commit, reset, ...) -> Consumer
    consumer          iteration -> Record    .batches() -> list[Record]    .values() -> list[bytes | None]
                      .poll(*, max_records, timeout) -> list[Record]
                      .commit(*, timeout)    .seek(topic, partition, offset)    .assignment() -> set[TopicPartition]    .close(*, timeout)
"""

from quorumlog.aio.client import Client, Connecting, connect
from quorumlog.aio.consumer import Consumer
from quorumlog.aio.producer import Producer

__all__ = ["Client", "Connecting", "Consumer", "Producer", "connect"]
