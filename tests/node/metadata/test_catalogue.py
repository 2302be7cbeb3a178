"""The state machine of `__cluster`: what each command does, and what it refuses without a trace."""

import pytest

from quorumlog.node.metadata import catalogue, decisions
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.topics import GROUPS_PARTITIONS, GROUPS_TOPIC, Topic
from quorumlog.node.state_machine import UnknownCommand
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from tests.node.metadata.founded import NOW_MS, Cluster, bad, descriptor, good, incarnation, settled


def test_founding_creates_the_groups_topic_on_groups_2_to_17() -> None:
    cluster = Cluster(nodes=3)
    topic = cluster.catalogue.topic(GROUPS_TOPIC)
    assert topic is not None
    assert topic.internal
    assert [partition.group_id for partition in topic.partitions] == list(range(2, 2 + GROUPS_PARTITIONS))
    assert all(sorted(partition.replicas) == [1, 2, 3] for partition in topic.partitions)
    assert cluster.catalogue.founding is not None
    assert cluster.catalogue.founding.groups_partitions == GROUPS_PARTITIONS
    assert len(cluster.catalogue.cluster_id) == 16


def test_a_cluster_is_founded_once() -> None:
    cluster = Cluster(nodes=3)
    before = cluster.catalogue.digest()
    again = good(decisions.founding([descriptor(1)], cluster_id=b"", rng=cluster.rng, now_ms=NOW_MS))
    error = bad(cluster.apply(found_cluster=decisions.found_cluster(again, rng=cluster.rng)))
    assert error.code == pb.ALREADY_FOUNDED
    assert cluster.catalogue.cluster_id.hex() in error.message
    assert cluster.catalogue.digest() == before


def test_nothing_is_applied_before_the_founding() -> None:
    cluster = Cluster(nodes=0)
    error = bad(cluster.apply(delete_topic=internal_pb2.DeleteTopic(name="orders")))
    assert error.code == pb.NOT_FOUNDED


def test_a_created_topic_names_its_replicas_with_their_incarnations_and_bears_its_groups() -> None:
    cluster = Cluster(nodes=3)
    change = cluster.create("orders", partitions=4, replicas=2, configs={"retention.ms": "5000"})
    topic = cluster.catalogue.topic("orders")
    assert topic is not None
    assert topic == change.topic == cluster.catalogue.topic_by_id(topic.topic_id)
    assert topic.configs == {"retention.ms": "5000"}
    assert [group.group_id for group in change.born] == [18, 19, 20, 21]
    for group in change.born:
        assert [one.incarnation for one in group.placed] == [incarnation(node_id) for node_id in group.replicas]
        assert group.placed_on(group.replicas[0], incarnation(group.replicas[0])) == group.placed[0]
        assert group.placed_on(group.replicas[0], b"other incarnation") is None
        assert group.votes_from_birth
        assert cluster.catalogue.group(group.group_id) == group


def test_one_group_is_found_without_making_those_of_the_whole_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(nodes=3)
    born = cluster.create("orders", partitions=1024, replicas=3).born

    def all_of_them(_: Topic) -> None:
        raise AssertionError("every tick asks for every group: that would be quadratic in the partitions")

    monkeypatch.setattr(catalogue, "hosted_groups", all_of_them)
    assert [cluster.catalogue.group(group.group_id) for group in born] == list(born)


def test_a_name_that_is_taken_is_refused_by_the_leader_and_by_the_log() -> None:
    cluster = Cluster(nodes=3)
    decided = good(cluster.decide(name="orders"))
    cluster.create("orders")
    assert bad(cluster.decide(name="orders")).code == pb.TOPIC_EXISTS
    before = cluster.catalogue.digest()
    error = bad(cluster.apply(create_topic=decided))
    assert error.code == pb.TOPIC_EXISTS
    assert "orders" in error.message
    assert cluster.catalogue.digest() == before


def test_a_decision_on_an_older_catalogue_is_refused_and_may_be_made_again() -> None:
    cluster = Cluster(nodes=3)
    late = good(cluster.decide(name="late"))
    cluster.create("orders")
    error = bad(cluster.apply(create_topic=late))
    assert (error.code, error.retriable) == (pb.NOT_YET_AVAILABLE, True)
    assert cluster.catalogue.topic("late") is None
    cluster.create("late")


def test_a_name_created_again_is_a_new_topic_and_group_ids_are_never_reused() -> None:
    cluster = Cluster(nodes=3)
    first = cluster.create("orders", partitions=2)
    removed = cluster.delete("orders")
    second = cluster.create("orders", partitions=2)
    assert first.topic is not None
    assert second.topic is not None
    assert removed.removed == first.born
    assert first.topic.topic_id != second.topic.topic_id
    assert {group.group_id for group in first.born}.isdisjoint(group.group_id for group in second.born)
    assert cluster.catalogue.topic_by_id(first.topic.topic_id) is None
    gone = first.born[0].group_id
    assert cluster.catalogue.group(gone) is None
    assert cluster.catalogue.allotted(gone), "allotted and not placed: it was removed"
    assert not cluster.catalogue.allotted(second.born[-1].group_id + 1), "not allotted: perhaps not heard of yet"


def test_deleting_by_id_spares_a_later_topic_of_the_same_name() -> None:
    cluster = Cluster(nodes=3)
    first = cluster.create("orders").topic
    assert first is not None
    cluster.delete("orders")
    cluster.create("orders")
    request = pb.DeleteTopicRequest(name="orders", topic_id=first.topic_id)
    error = bad(decisions.delete_topic(cluster.catalogue, request))
    assert error.code == pb.UNKNOWN_TOPIC
    assert first.topic_id.hex() in error.message
    delete = internal_pb2.DeleteTopic(name="orders", topic_id=first.topic_id)
    assert bad(cluster.apply(delete_topic=delete)).code == pb.UNKNOWN_TOPIC


def test_configs_are_set_and_reset() -> None:
    cluster = Cluster(nodes=3)
    cluster.create("orders", configs={"retention.ms": "5000", "max.message.bytes": "1000"})
    change = cluster.alter("orders", set={"retention.bytes": "9000"}, reset=["retention.ms"])
    assert change.topic is not None
    assert change.topic.configs == {"max.message.bytes": "1000", "retention.bytes": "9000"}
    assert not change.born
    assert not change.removed


def test_internal_topics_are_neither_altered_nor_deleted() -> None:
    cluster = Cluster(nodes=3)
    for refused in (
        decisions.alter_topic(cluster.catalogue, pb.AlterTopicRequest(name=GROUPS_TOPIC)),
        decisions.delete_topic(cluster.catalogue, pb.DeleteTopicRequest(name=GROUPS_TOPIC)),
    ):
        assert GROUPS_TOPIC in bad(refused).message


def test_unknown_topics_are_named() -> None:
    cluster = Cluster(nodes=3)
    error = bad(decisions.alter_topic(cluster.catalogue, pb.AlterTopicRequest(name="ordres")))
    assert error.code == pb.UNKNOWN_TOPIC
    assert "ordres" in error.message


def test_a_node_that_comes_back_elsewhere_is_known_by_its_new_address() -> None:
    cluster = Cluster(nodes=3)
    moved = descriptor(2)
    moved.client_address = "10.9.9.9:7070"
    command = decisions.register_node(cluster.catalogue, moved)
    assert isinstance(command, internal_pb2.RegisterNode)
    change = good(cluster.apply(register_node=command))
    assert change.node is not None
    assert change.node.client_address == "10.9.9.9:7070"
    assert decisions.register_node(cluster.catalogue, moved) is None, "nothing new is not written"


def test_the_wiped_folder_of_a_known_node_is_refused_with_both_incarnations_and_the_fix() -> None:
    cluster = Cluster(nodes=3)
    wiped = descriptor(2)
    wiped.incarnation = b"\xee" * 16
    before = cluster.catalogue.digest()
    for refused in (
        decisions.register_node(cluster.catalogue, wiped),
        cluster.apply(register_node=internal_pb2.RegisterNode(node=wiped)),
        decisions.allocate_producer_ids(cluster.catalogue, 2, wiped.incarnation),
    ):
        error = bad(refused)
        assert "node 2" in error.message
        assert "wiped" in error.message
        assert incarnation(2).hex() in error.message
        assert wiped.incarnation.hex() in error.message
        assert "former data folder" in error.hint
    assert cluster.catalogue.digest() == before


def test_an_unknown_node_is_refused_with_the_nodes_there_are() -> None:
    cluster = Cluster(nodes=3)
    error = bad(decisions.register_node(cluster.catalogue, descriptor(9)))
    assert "node 9" in error.message
    assert "1, 2, 3" in error.message


def test_a_node_hosts_its_groups_under_its_own_incarnation_only() -> None:
    cluster = Cluster(nodes=4)
    cluster.create("orders", partitions=8, replicas=2)
    topics = cluster.catalogue.topics.values()
    for node_id in range(1, 5):
        expected = [
            partition.group_id for topic in topics for partition in topic.partitions if node_id in partition.replicas
        ]
        hosted = cluster.catalogue.assignments_for(node_id, incarnation(node_id))
        assert [group.group_id for group in hosted] == sorted(expected)
        assert cluster.catalogue.assignments_for(node_id, b"\xee" * 16) == []
    assert cluster.catalogue.assignments_for(9, incarnation(9)) == []


def test_producer_id_blocks_never_overlap() -> None:
    cluster = Cluster(nodes=3)
    next_id = 1
    for node_id in (1, 2, 1, 3):
        command = good(decisions.allocate_producer_ids(cluster.catalogue, node_id, incarnation(node_id)))
        change = good(cluster.apply(allocate_producer_ids=command))
        assert change.first_producer_id == next_id
        assert change.producer_id_count == decisions.PRODUCER_ID_BLOCK_SIZE
        next_id += change.producer_id_count
    nothing = internal_pb2.AllocateProducerIds(node_id=1, incarnation=incarnation(1), count=0)
    assert bad(cluster.apply(allocate_producer_ids=nothing)).code == pb.INVALID_REQUEST


def test_a_first_commit_is_remembered_and_does_not_disturb_a_decision_under_way() -> None:
    cluster = Cluster(nodes=3)
    group_id = cluster.create("orders", partitions=2).born[1].group_id
    decided = good(cluster.decide(name="later"))
    for _ in range(2):
        good(cluster.apply(report_placement=settled(group_id)))
        assert [partition.settled for partition in cluster.catalogue.topics["orders"].partitions] == [False, True]
    good(cluster.apply(create_topic=decided))
    assert good(cluster.apply(report_placement=settled(999))).moved == ()


@pytest.mark.parametrize(
    "placements", [[], [[]], [[1, 1]], [[1, 9]]], ids=["no partition", "no replica", "twice", "unknown node"]
)
def test_a_command_that_does_not_fit_the_state_changes_nothing(placements: list[list[int]]) -> None:
    cluster = Cluster(nodes=3)
    before = cluster.catalogue.digest()
    command = internal_pb2.CreateTopic(
        name="orders",
        topic_id=bytes(range(16)),
        placements=[internal_pb2.Placement(replicas=replicas) for replicas in placements],
        catalogue_version=cluster.catalogue.catalogue_version,
    )
    assert bad(cluster.apply(create_topic=command)).code == pb.INVALID_REQUEST
    assert cluster.catalogue.digest() == before


def test_state_replay_and_snapshot_are_one() -> None:
    cluster = Cluster(nodes=5)
    cluster.create("orders", partitions=7, replicas=3, configs={"retention.ms": "5000", "max.message.bytes": "10"})
    cluster.create("clicks", partitions=3)
    cluster.alter("orders", reset=["retention.ms"])
    cluster.delete("clicks")
    cluster.create("clicks", partitions=1)
    good(cluster.apply(report_placement=settled(18)))
    replayed = Catalogue()
    for index, payload in enumerate(cluster.payloads, start=1):
        replayed.apply(index, replayed.decode(payload))
    restored = Catalogue()
    restored.restore(cluster.catalogue.snapshot())
    assert replayed.snapshot() == restored.snapshot() == cluster.catalogue.snapshot()
    assert restored.digest() == cluster.catalogue.digest()
    assert restored.assignments_for(1, incarnation(1)) == cluster.catalogue.assignments_for(1, incarnation(1))
    assert restored.group(18) == cluster.catalogue.group(18)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff\xff",
        b"\xfa\x07\x00",
        internal_pb2.ClusterCommand().SerializeToString() + b"\x22\x04\xfa\x07\x01x",
    ],
    ids=["empty", "garbage", "a later command", "a later field inside a known command"],
)
def test_what_this_version_does_not_know_stops_the_group(payload: bytes) -> None:
    with pytest.raises(UnknownCommand):
        Catalogue().decode(payload)


def test_a_snapshot_of_a_later_version_is_refused() -> None:
    with pytest.raises(UnknownCommand, match="later version"):
        Catalogue().restore(b"\xfa\x07\x00")
