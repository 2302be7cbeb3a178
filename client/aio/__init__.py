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

The verbs, where every `timeout` is in seconds (or a timedelta) and None means no limit:

    connect(bootstrap, *, client_id, timeout) -> Client
    client.topics     create, list, describe, alter, delete
    client.groups     list, describe (members and lag), reset, delete
    client.cluster    status, init, transfer
    client.offsets(topic, *, at, timeout) -> {partition: offset}
    client.producer(*, linger, batch_size, compression, delivery_timeout, buffer_memory)
        send -> SendFuture, send_many -> BulkFuture, flush, close
    client.consumer(*topics, group | partitions, start, stop, commit, reset, ...)
        iteration -> Record, batches() -> list[Record], values() -> list[bytes | None], poll -> list[Record],
        commit, seek, assignment, positions, lag, close
"""

from quorumlog.aio.client import Client, Connecting, connect
from quorumlog.aio.consumer import Consumer
from quorumlog.aio.producer import Producer

__all__ = ["Client", "Connecting", "Consumer", "Producer", "connect"]
