"""SIGTERM: a node hands its leaderships over first, so that clients see no error and hardly a pause."""

import signal

import pytest

from tests.integration.cluster import LocalCluster
from tests.integration.stream import Stream, check_everywhere

PARTITIONS = 6
SOME = 50


def test_stopping_node_hands_over_and_producing_goes_on(cluster: LocalCluster) -> None:
    cluster.create_topic("rolling", PARTITIONS)
    with Stream(cluster, "rolling", PARTITIONS) as stream:
        for node in cluster.nodes:  # a rolling restart
            stream.until_more(SOME)
            assert node.stop() == 0
            stream.until_more(SOME)
            node.start()
            cluster.until_ready()
        stream.until_more(SOME)
    print(f"longest stall of a partition {stream.longest_stall_seconds:.2f} s")
    check_everywhere(cluster, "rolling", PARTITIONS, stream.acks)
    for node in cluster.nodes:
        assert "ERROR" not in node.output()
        assert "Traceback" not in node.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_nodes_stopped_at_once_end_in_order(cluster: LocalCluster, number: signal.Signals) -> None:
    cluster.create_topic("together", PARTITIONS)
    with Stream(cluster, "together", PARTITIONS) as stream:
        stream.until_more(SOME)
        for node in cluster.nodes:
            node.signal(number)
        assert [node.wait() for node in cluster.nodes] == [0, 0, 0]
        cluster.start()
        cluster.until_ready()
        stream.until_more(SOME)
    check_everywhere(cluster, "together", PARTITIONS, stream.acks)
    for node in cluster.nodes:
        assert "Traceback" not in node.output()
