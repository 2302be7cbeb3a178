"""The leader of `__cluster` at work, alone with members that never answer: what it wishes, and how much of it."""

from quorumlog.node.broker.liveness import GONE_SECONDS
from quorumlog.node.metadata.topics import GROUPS_TOPIC, Partition
from quorumlog.proto import internal_pb2
from tests.node.broker.lone_broker import LoneBroker
from tests.node.metadata.founded import descriptor, good

GROUPS_MAX = 8


class Lonely(LoneBroker):
    """A broker whose other members are mute. `heard` are those that say at least that they are there."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: set[int] = set()

    @property
    def groups(self) -> list[Partition]:
        return list(self.broker.catalogue.topics[GROUPS_TOPIC].partitions)

    @property
    def voters(self) -> list[int]:
        return list(self.broker.catalogue.voters)

    def apply(self, **command: object) -> None:
        outcomes: list[object] = []
        self.broker.cluster.propose(internal_pb2.ClusterCommand(**command), outcomes.append)  # type: ignore[arg-type]
        self.until(lambda: bool(outcomes))
        good(outcomes[0])

    def admit(self, *node_ids: int) -> None:
        """Take nodes in that are heard of from now on."""
        for node_id in node_ids:
            self.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(node_id)))
            self.broker.on_connected(node_id, node_id)
            self.heard.add(node_id)

    def live(self, seconds: float) -> None:
        """Let time pass in which those that are heard of go on saying so."""
        for _ in range(round(seconds * 2)):
            for node_id in self.heard:
                self.broker.liveness.on_heard(node_id, node_id, self.clock.now())
            self.pass_time(0.5)

    def settled(self) -> None:
        self.until(lambda: all(one.settled for one in self.groups))


def on(partitions: list[Partition], node_id: int) -> int:
    return sum(node_id in one.replicas for one in partitions)


def test_a_new_node_gets_replicas_of_internal_topics_a_few_groups_at_a_time() -> None:
    lonely = Lonely()
    lonely.settled()
    lonely.admit(2)
    lonely.live(5.0)
    assert on(lonely.groups, 2) == GROUPS_MAX, "the others wait until these have settled"
    assert all(one.replicas_wanted == 2 for one in lonely.groups if 2 in one.replicas)


def test_a_node_that_is_not_heard_of_gets_nothing() -> None:
    lonely = Lonely()
    lonely.settled()
    lonely.pass_time(GONE_SECONDS + 1)
    lonely.apply(admit_node=internal_pb2.AdmitNode(node=descriptor(2)))
    lonely.live(5.0)
    assert on(lonely.groups, 2) == 0


def test_groups_that_cannot_get_on_do_not_hold_up_the_others() -> None:
    lonely = Lonely()
    lonely.settled()
    lonely.admit(2)
    lonely.live(5.0)
    lonely.heard.clear()
    lonely.live(GONE_SECONDS + 5)
    lonely.admit(3)
    lonely.live(5.0)
    assert (on(lonely.groups, 2), on(lonely.groups, 3)) == (GROUPS_MAX, GROUPS_MAX)


def test_other_voters_are_wished_once_there_are_enough_and_not_again_before_they_vote() -> None:
    lonely = Lonely()
    lonely.settled()
    lonely.admit(2)
    lonely.live(3.0)
    assert lonely.voters == [1]
    lonely.admit(3)
    lonely.live(3.0)
    assert lonely.voters == [1, 2, 3]
    lonely.admit(4, 5)
    lonely.live(5.0)
    assert lonely.voters == [1, 2, 3], "the first three do not vote yet"


def test_what_is_as_it_should_be_is_left_alone() -> None:
    lonely = Lonely()
    lonely.create("orders", partitions=3)
    lonely.settled()
    lonely.live(2.0)
    assert lonely.broker.cluster.replica is not None
    before = lonely.broker.cluster.replica.raft.last_index
    lonely.live(10.0)
    assert lonely.broker.cluster.replica.raft.last_index == before


def test_a_drained_node_is_emptied_a_few_groups_at_a_time() -> None:
    lonely = Lonely()
    lonely.settled()
    lonely.admit(2)
    incarnation = lonely.broker.catalogue.nodes[1].incarnation
    lonely.apply(drain_node=internal_pb2.DrainNode(node_id=1, incarnation=incarnation, draining=True))
    lonely.live(5.0)
    assert [one.replicas for one in lonely.groups].count((2,)) == GROUPS_MAX
    assert on(lonely.groups, 1) == len(lonely.groups) - GROUPS_MAX
