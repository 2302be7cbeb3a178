"""Reading from replicas that do not lead."""

import quorumlog
from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, eventually

RECORDS = 200


def test_the_last_replica_of_three_still_serves_what_it_has(cluster: LocalCluster) -> None:
    """Without a majority nobody leads, so only a replica can have answered."""
    cluster.create_topic("orders")
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        producer.send_many("orders", [b"%d" % number for number in range(RECORDS)])
    leader = cluster.leader("orders")
    last = next(node for node in cluster.nodes if node is not leader)

    def knows_everything() -> pb.ReplicaStatus | None:
        replica = last.replica("orders", 0)
        return replica if replica is not None and replica.high_watermark == RECORDS else None

    eventually("the follower knows that everything is committed", knows_everything)
    for node in cluster.nodes:
        if node is not last:
            node.kill()
    with (
        quorumlog.connect(cluster.bootstrap) as client,
        client.consumer(partitions={"orders": {0: 0}}, stop=RECORDS, any_replica=True) as consumer,
    ):
        assert [record.value for record in consumer] == [b"%d" % number for number in range(RECORDS)]
