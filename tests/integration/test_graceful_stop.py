"""SIGTERM: a node hands its leaderships over first, so that clients see no error and hardly a pause."""

import signal
from collections.abc import Iterator

import pytest

from tests.integration.cluster import LocalCluster
from tests.integration.stream import Stream, check_everywhere

PARTITIONS = 6
SOME = 50


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that every test here leaves up again."""
    cluster = LocalCluster(tmp_path_factory.mktemp("stop"))
    try:
        yield cluster.up()
    finally:
        cluster.clean_up()
    assert cluster.bugs() == []


def test_stopping_node_hands_over_and_producing_goes_on(trio: LocalCluster) -> None:
    trio.create_topic("rolling", PARTITIONS)
    with Stream(trio, "rolling", PARTITIONS) as stream:
        for node in trio.nodes:  # a rolling restart
            stream.until_more(SOME)
            assert node.stop() == 0
            stream.until_more(SOME)
            node.start()
            trio.until_ready()
        stream.until_more(SOME)
    print(f"longest stall of a partition {stream.longest_stall_seconds:.2f} s")
    check_everywhere(trio, "rolling", PARTITIONS, stream.acks)
    for node in trio.nodes:
        assert "ERROR" not in node.output()
        assert "Traceback" not in node.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_nodes_stopped_at_once_end_in_order(trio: LocalCluster, number: signal.Signals) -> None:
    topic = f"together-{number.name}"
    trio.create_topic(topic, PARTITIONS)
    with Stream(trio, topic, PARTITIONS) as stream:
        stream.until_more(SOME)
        for node in trio.nodes:
            node.signal(number)
        assert [node.wait() for node in trio.nodes] == [0, 0, 0]
        trio.start()
        trio.until_ready()
        stream.until_more(SOME)
    check_everywhere(trio, topic, PARTITIONS, stream.acks)
    for node in trio.nodes:
        assert "Traceback" not in node.output()
