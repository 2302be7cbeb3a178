"""Connections that fail, waits that are interrupted, processes that fork, and what importing costs."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import quorumlog
from tests.client.fake_cluster import FakeCluster


@pytest.fixture
def garbage_port() -> Iterator[int]:
    """A port that answers everything with something that is no gRPC."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.sendall(b"220 mail.example ESMTP\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_refused_connection_names_the_address_and_the_fix() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(quorumlog.ConnectionFailed, match=f"cannot connect to {address}") as caught:
        quorumlog.connect(address, timeout=0.5)
    assert (caught.value.stage, caught.value.address) == ("tcp", address)
    assert "quorumlog dev" in caught.value.hint


def test_an_unknown_host_is_a_dns_failure() -> None:
    with pytest.raises(quorumlog.ConnectionFailed, match=r"no-such-host\.invalid:7070") as caught:
        quorumlog.connect("no-such-host.invalid", timeout=0.5)
    assert caught.value.stage == "dns"


def test_garbage_on_the_port_is_a_protocol_failure(garbage_port: int) -> None:
    with pytest.raises(quorumlog.ConnectionFailed, match="does not answer as a quorumlog node") as caught:
        quorumlog.connect(f"127.0.0.1:{garbage_port}", timeout=0.5)
    assert caught.value.stage == "protocol"
    assert "client port" in caught.value.hint


def test_several_addresses_are_all_named() -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(quorumlog.ConnectionFailed) as caught:
        quorumlog.connect(addresses, timeout=0.3)
    assert all(address in str(caught.value) for address in addresses)


def test_a_node_that_is_merely_late_is_not_called_broken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and says nothing
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(quorumlog.TimedOut, match=f"{address} did not answer in time") as caught:
            quorumlog.connect(address, timeout=0.3)
    assert "more time" in caught.value.hint


def test_a_port_of_another_grpc_service_is_named_with_the_fix() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with pytest.raises(quorumlog.Fatal, match=f"{address} does not know this call") as caught:
            quorumlog.connect(address, timeout=10)
        assert "client port of a quorumlog node (7070 by default)" in caught.value.hint
    finally:
        server.stop(None).wait()


def test_one_good_address_is_enough(cluster: FakeCluster) -> None:
    with quorumlog.connect(f"127.0.0.1:{free_port()},{cluster.addresses[0]}", timeout=10) as client:
        assert client.topics.list() == []


def test_a_node_that_lags_behind_is_passed_over(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.behind = cluster.addresses[0]
    with quorumlog.connect(cluster.bootstrap, timeout=10) as client:
        assert client.producer().send("orders", b"a").result(10).offset == 0


def test_the_environment_names_the_cluster(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORUMLOG_BOOTSTRAP", cluster.bootstrap)
    with quorumlog.connect() as client:
        assert client.topics.list() == []


def test_topics_are_created_described_and_deleted(cluster: FakeCluster) -> None:
    with quorumlog.connect(cluster.bootstrap) as client:
        assert len(client.topics.create("orders", partitions=3).partitions) == 3
        with pytest.raises(quorumlog.TopicExists, match="'orders'") as caught:
            client.topics.create("orders")
        assert "if_not_exists=True" in caught.value.hint
        assert len(client.topics.create("orders", partitions=9, if_not_exists=True).partitions) == 3
        assert [topic.name for topic in client.topics.list()] == ["orders"]
        assert len(client.topics.describe("orders").partitions) == 3
        client.topics.delete("orders")
        client.topics.delete("orders", if_exists=True)
        with pytest.raises(quorumlog.UnknownTopic, match="no topic 'orders'"):
            client.topics.delete("orders")
        with pytest.raises(quorumlog.InvalidRequest, match="contains ' '"):
            client.topics.create("two words")
        with pytest.raises(quorumlog.InvalidRequest, match="partitions=0"):
            client.topics.create("orders", partitions=0)


def test_a_closed_client_says_so(cluster: FakeCluster) -> None:
    client = quorumlog.connect(cluster.bootstrap)
    client.close()
    client.close()
    with pytest.raises(quorumlog.Closed, match="connect again"):
        client.topics.list()


WAITS = {
    "connect": "quorumlog.connect(nobody, timeout=None)",
    "send": "producer.send('full', b'x' * 90_000); producer.send('full', b'x' * 90_000)",
    "send_many": "producer.send_many('full', [b'x' * 90_000] * 9)",
    "result": "producer.send('full', b'x').result()",
    "flush": "producer.send('full', b'x'); producer.flush()",
    "next": "next(client.consumer('empty'))",
    "next in a group": "next(client.consumer('empty', group='g'))",
    "values": "next(client.consumer('empty').values())",
    "poll": "client.consumer('empty').poll(timeout=None)",
    "commit": "c = client.consumer('empty', group='stuck'); c.poll(timeout=0.1); c.commit(timeout=None); next(c)",
}


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_ends_every_wait(cluster: FakeCluster, wait: str) -> None:
    cluster.create("empty", 1)
    cluster.create("full", 1)
    cluster.hold_acks = asyncio.Event()
    program = textwrap.dedent(f"""
        import os, quorumlog
        nobody = "127.0.0.1:{free_port()}"
        client = quorumlog.connect({cluster.bootstrap!r})
        producer = client.producer(buffer_memory=100_000)
        print("waiting", flush=True)
        try:
            {WAITS[wait]}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        os._exit(0)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "waiting\n"
            # The wait begins some time after this line: interrupt until it has.
            answer: list[str] = []
            reader = threading.Thread(target=lambda: answer.append(child.stdout.readline()))  # type: ignore[union-attr] # above
            reader.start()
            reader.join(0.5)
            child.send_signal(signal.SIGINT)
            reader.join(10)
            assert answer == ["interrupted\n"]
        finally:
            child.kill()


def test_leaving_the_contexts_by_ctrl_c_takes_no_minute(cluster: FakeCluster) -> None:
    cluster.create("full", 1)
    cluster.hold_acks = asyncio.Event()
    program = textwrap.dedent(f"""
        import quorumlog
        with quorumlog.connect({cluster.bootstrap!r}) as client, client.producer() as producer:
            producer.send("full", b"v")
            print("waiting", flush=True)
            producer.flush()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "waiting\n"
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=15)
        finally:
            child.kill()
    assert "KeyboardInterrupt" in errors
    assert "while leaving the producer: 1 record(s) for full[0] were not delivered" in errors


def test_a_fork_is_detected(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    program = textwrap.dedent(f"""
        import os, quorumlog, signal
        client = quorumlog.connect({cluster.bootstrap!r})
        producer = client.producer()
        producer.send("orders", b"v").result(10)
        consumer = client.consumer("orders")
        (chunk,) = producer._producer.try_plan("orders", [b"v"], None, None)
        if os.fork() == 0:
            signal.alarm(20)
            again = lambda: quorumlog.connect({cluster.bootstrap!r})
            uses = [again, lambda: producer.send("orders", b"v"), producer.flush, lambda: next(consumer),
                    client.topics.list, client.producer, lambda: producer.send_many("orders", [b"v"]),
                    lambda: producer._producer.try_extend("orders", chunk, None)]
            for use in uses:
                try:
                    use()
                except quorumlog.ForkedProcess as error:
                    assert "connect after the fork only" in error.hint
                else:
                    os._exit(1)
            os._exit(0)
        _, status = os.wait()
        client.close()
        raise SystemExit(os.waitstatus_to_exitcode(status))
    """)
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=30, check=False)
    assert done.returncode == 0


def test_importing_the_package_does_not_import_grpc() -> None:
    program = "import sys, quorumlog; quorumlog.__version__; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    assert [name for name in quorumlog.__all__ if not hasattr(quorumlog, name)] == []
    with pytest.raises(AttributeError, match="nonsense"):
        quorumlog.nonsense  # noqa: B018 - looking it up is what is tested
