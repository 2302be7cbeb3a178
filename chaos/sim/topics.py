"""Topics made in a simulated cluster."""

from __future__ import annotations

from quorumlog.chaos.sim.world import World
from quorumlog.proto import client_pb2 as pb


def create_topic(
    world: World, name: str, partitions: int, configs: dict[str, str] | None = None, *, replicas: int = 3
) -> bytes:
    """Create a topic, wait until every running node knows it, and return its id."""
    request = pb.CreateTopicRequest(name=name, partitions=partitions, replicas=replicas, configs=configs or {})

    def there() -> bool:
        return all(broker.catalogue.topic(name) is not None for broker in world.brokers().values())

    answers: list[pb.CreateTopicResponse] = []

    def ask() -> None:
        if there():
            return
        for node in world.nodes.values():
            if node.broker is not None and node.broker.cluster.decides:
                node.broker.admin.create_topic(request, answers.append)
                node.pump()
        assert not answers or not answers[0].HasField("error") or answers[0].error.retriable, answers
        world.after(0.5, ask)

    ask()
    world.run_until(there, 20.0, f"topic {name} is not created")
    topic = next(iter(world.brokers().values())).catalogue.topic(name)
    assert topic is not None
    return topic.topic_id
