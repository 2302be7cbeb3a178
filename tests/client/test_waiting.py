"""What a call that waits says meanwhile, and what it says in the end."""

import socket
from collections.abc import Iterator

import pytest

import quorumlog
from quorumlog.cli import main as program
from quorumlog.cli.waiting import Waiting
from quorumlog.errors import ConnectionFailed, NoLeader, NotLeader, QuorumlogError, TimedOut
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from quorumlog.waiting import Causes, Wait
from tests.client.fake_cluster import FakeCluster


@pytest.fixture
def closed_address() -> Iterator[str]:
    """An address that is taken, and refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def refused(address: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"cannot connect to {address}: Connection refused", hint="start it", address=address, stage="tcp", refused=True
    )


def summary(**errors: QuorumlogError) -> QuorumlogError:
    causes = Causes()
    for address, error in errors.items():
        causes.add(address, error)
    return causes.summary()


def test_what_a_live_node_says_comes_before_those_that_are_silent() -> None:
    found = summary(a=refused("a"), b=NoLeader("nobody leads", hint="wait", code="NO_LEADER"), c=refused("c"))
    assert isinstance(found, NoLeader)
    assert found.code == "NO_LEADER"
    assert found.message == (
        "nobody leads; cannot connect to a: Connection refused; cannot connect to c: Connection refused"
    )
    assert found.hint == "start the nodes that do not answer: a majority must run"


def test_where_every_node_speaks_its_own_hint_stands() -> None:
    found = summary(a=NotLeader("b leads", leader="b"), b=NoLeader("nobody leads", hint="wait"))
    assert (type(found), found.message, found.hint) == (NoLeader, "nobody leads", "wait")


def test_a_leader_that_is_silent_is_the_cause_not_the_node_that_named_it() -> None:
    found = summary(a=NotLeader("b leads", leader="b"), b=TimedOut("b did not answer in time", hint="doctor"))
    assert (type(found), found.message, found.hint) == (TimedOut, "b did not answer in time", "doctor")


def test_a_late_last_attempt_does_not_hide_what_came_before() -> None:
    causes = Causes()
    causes.add("a", refused("a"))
    causes.add("a", TimedOut("a did not answer in time"))
    assert isinstance(causes.summary(), ConnectionFailed)


def test_addresses_count_as_refused_only_together() -> None:
    both = summary(a=refused("a"), b=refused("b"))
    assert isinstance(both, ConnectionFailed)
    assert (both.refused, both.address) == (True, "a,b")
    one = summary(a=refused("a"), b=TimedOut("b did not answer in time"))
    assert isinstance(one, ConnectionFailed)
    assert not one.refused


def test_a_command_tells_each_cause_once_and_not_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting()
    for seconds in (0.2, 0.9, 1.1, 1.5):
        waiting(Wait(NoLeader("nobody leads", hint="start the others"), seconds, hopeless=False))
        waiting(Wait(refused("a"), seconds, hopeless=False))
    assert capsys.readouterr().err.splitlines() == [
        "quorumlog: waiting: nobody leads (start the others)",
        "quorumlog: waiting: cannot connect to a: Connection refused (start it)",
    ]


def test_a_command_does_not_wait_for_what_is_hopeless() -> None:
    waiting = Waiting()
    waiting(Wait(refused("a"), 0.5, hopeless=True))
    with pytest.raises(ConnectionFailed, match="cannot connect to a"):
        waiting(Wait(refused("a"), 1.2, hopeless=True))


def test_a_wrong_port_ends_a_command_long_before_its_timeout(
    closed_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["topic", "list", "-b", closed_address, "--timeout", "3600"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"quorumlog: cannot connect to {closed_address}: Connection refused",
        "hint: start the node (quorumlog dev, or quorumlog node), or check the port",
    ]


def test_a_program_waits_for_its_cluster_as_long_as_it_likes_and_is_told_why(closed_address: str) -> None:
    class Enough(QuorumlogError):
        pass

    told: list[Wait] = []

    def listen(wait: Wait) -> None:
        told.append(wait)
        if wait.seconds > 1.5:
            raise Enough("that will do")

    with pytest.raises(Enough):
        quorumlog.connect(closed_address, timeout=None, on_waiting=listen)
    assert len(told) > 2
    assert all(wait.hopeless and "Connection refused" in wait.cause.message for wait in told)


def test_a_change_without_a_leader_of_the_metadata_says_so_and_who_is_missing(
    cluster: FakeCluster, closed_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.refuse_changes = make_error(pb.NO_LEADER, "__cluster has no leader")
    bootstrap = f"{closed_address},{cluster.addresses[0]}"
    assert program.main(["topic", "create", "orders", "-b", bootstrap, "--timeout", "3"]) == 1
    *waiting, error, hint = capsys.readouterr().err.splitlines()
    words = f"__cluster has no leader; cannot connect to {closed_address}: Connection refused"
    fix = "start the nodes that do not answer: a majority must run"
    assert waiting[-1] == f"quorumlog: waiting: {words} ({fix})"
    assert (error, hint) == (f"quorumlog: {words}", f"hint: {fix}")


def test_a_node_that_keeps_silent_is_named_while_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and says nothing
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert program.main(["topic", "list", "-b", address, "--timeout", "2"]) == 1
    assert f"quorumlog: waiting: {address} has not answered for 1 s" in capsys.readouterr().err.splitlines()


def test_a_partition_that_nobody_leads_is_named_by_whoever_waits_for_it(cluster: FakeCluster) -> None:
    (partition,) = cluster.create("orders", 1)
    partition.leader = ""
    told: list[str] = []

    def listen(wait: Wait) -> None:
        told.append(wait.cause.message)
        partition.leader = cluster.addresses[0]

    with quorumlog.connect(cluster.bootstrap, on_waiting=listen) as client:
        with client.producer() as producer:
            assert producer.send("orders", b"v").result(20).offset == 0
        assert "nobody leads orders[0]" in told
        told.clear()
        partition.leader = ""
        with client.consumer("orders", stop=1) as consumer:
            assert [record.value for record in consumer] == [b"v"]
        assert "nobody leads orders[0]" in told
