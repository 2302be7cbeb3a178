"""The command line as users and scripts run it: a process, its output, its exit code."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import quorumlog
from quorumlog.demo.comparer import judge
from quorumlog.demo.files import Ack, Consumed, acks_path, consumed_path
from quorumlog.demo.samples import Identity, Sample, encode
from tests.integration.cluster import LocalCluster
from tests.integration.conftest import MakeCluster

SECONDS = 60.0


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "quorumlog", *map(str, arguments)]


class Program:
    """The program with a cluster to talk to."""

    def __init__(self, addresses: str) -> None:
        self.environment = {**os.environ, "QUORUMLOG_BOOTSTRAP": addresses}

    def run(self, *arguments: object, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run it to its end, which must be `code`."""
        done = subprocess.run(
            command(*arguments),
            input=stdin,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def lines(self, *arguments: object, stdin: str = "") -> list[str]:
        return self.run(*arguments, stdin=stdin).stdout.splitlines()

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--output", "json").stdout)

    @contextlib.contextmanager
    def running(self, *arguments: object, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
        """Run it in the background; it is killed at the end of the block if it still runs."""
        process = subprocess.Popen(
            command(*arguments),
            env=self.environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def program(shared: LocalCluster) -> Program:
    return Program(shared.bootstrap)


@pytest.fixture
def name() -> str:
    """A name nothing else uses."""
    return f"cli-{secrets.token_hex(4)}"


def test_the_life_of_a_topic(program: Program, name: str) -> None:
    assert program.lines("topic", "create", name, "-p", 2, "-r", 3, "-c", "retention.ms=60000") == [
        f"topic {name} created: 2 partitions, 3 replicas, retention.ms=60000"
    ]
    program.run("topic", "create", name, "--if-not-exists")
    again = program.run("topic", "create", name, code=1)
    assert name in again.stderr
    assert "--if-not-exists" in again.stderr.splitlines()[1]
    assert name in {topic["topic"] for topic in program.json("topic", "list")}
    program.run("topic", "alter", name, "-c", "max.message.bytes=2048", "--reset", "retention.ms")
    described = program.json("topic", "describe", name)
    assert described["configs"] == {"max.message.bytes": "2048"}
    assert [len(part["replicas"]) for part in described["partitions"]] == [3, 3]
    assert {entry["name"]: entry["value"] for entry in described["config_entries"]}["durability"] == "durable"
    program.run("topic", "delete", name)
    assert f"topic '{name}' does not exist" in program.run("topic", "describe", name, code=1).stderr
    program.run("topic", "delete", name, "--if-exists")


def test_a_dry_run_changes_nothing(program: Program, name: str) -> None:
    assert "would be created" in program.lines("topic", "create", name, "-p", 2, "--dry-run")[0]
    program.run("topic", "describe", name, code=1)
    refused = program.run("topic", "create", name, "-r", 9, "--dry-run", code=1)
    assert refused.stderr.splitlines() == [
        f"quorumlog: topic '{name}' asks for 9 replicas, but the cluster has 3 nodes",
        "hint: ask for at most 3 replicas",
    ]


def test_lines_become_records_and_records_lines(program: Program, name: str) -> None:
    program.run("topic", "create", name, "-p", 1)
    done = program.run("produce", name, "-K", ":", "-H", "from=test", stdin="a:1\nb:2:3\nplain\n\nlast without end")
    assert (done.stdout, done.stderr) == ("", "")
    assert program.lines("consume", name, "--until", "end", "--format", "%k|%v|%p|%o|%h") == [
        "a|1|0|0|from=test",
        "b|2:3|0|1|from=test",
        "|plain|0|2|from=test",
        "||0|3|from=test",
        "|last without end|0|4|from=test",
    ]
    assert program.lines("consume", name, "-o", 3, "-n", 2) == ["", "last without end"]
    assert program.lines("consume", name, "-p", 0, "--until", 2) == ["1", "2:3"]
    record = json.loads(program.lines("consume", name, "-n", 1, "--output", "json")[0])
    assert (record["key"], record["value"], record["offset"]) == ("a", "1", 0)
    sent = record["timestamp_ms"] / 1000
    assert program.lines("consume", name, "-o", f"@{sent + 3600}", "--until", "end") == []
    assert len(program.lines("consume", name, "-o", f"@{sent - 1}", "--until", "end")) == 5


def test_what_cannot_be_delivered_fails_and_is_named(program: Program, name: str) -> None:
    missing = program.run("produce", name, stdin="x\n", code=1)
    assert f"topic '{name}' does not exist" in missing.stderr
    program.run("topic", "create", name, "-p", 1, "-c", "max.message.bytes=2048")
    large = program.run("produce", name, stdin="fine\n" + "x" * 4000 + "\n", code=1)
    assert large.stderr.startswith("quorumlog: ")
    assert "2048" in large.stderr
    unknown = program.run("produce", name, "-p", 7, stdin="fine\nfine\n", code=1)
    assert f"line 1: topic {name} has no partition 7" in unknown.stderr
    assert "has no partition 7" in program.run("consume", name, "-p", 7, code=1).stderr
    beyond = program.run("consume", name, "-o", 1_000_000, "-n", 1, code=1)
    assert f"{name}[0]" in beyond.stderr


def test_an_input_that_cannot_be_read_is_named(program: Program, name: str) -> None:
    program.run("topic", "create", name, "-p", 1)
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *command("produce", name)]
    done = subprocess.run(shell, env=program.environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (
        1,
        "",
        ["quorumlog: cannot read standard input: it is closed", "hint: give it lines, for example with < FILE"],
    )


def test_a_group_goes_on_where_it_was(program: Program, name: str) -> None:
    program.run("topic", "create", name, "-p", 1)
    program.run("produce", name, stdin="".join(f"{number}\n" for number in range(5)))
    assert program.lines("consume", name, "-g", name, "-n", 2) == ["0", "1"]
    described = program.json("group", "describe", name)
    assert (described["lag"], described["offsets"][0]["offset"]) == (3, 2)
    assert {"group": name, "state": "empty", "members": 0} in program.json("group", "list")
    assert program.lines("consume", name, "-g", name, "-n", 1) == ["2"]
    assert program.json("group", "reset", name, "-t", name, "--to", "start", "--dry-run")["offsets"] == [
        {"partition": 0, "offset": 0}
    ]
    assert program.json("group", "describe", name)["offsets"][0]["offset"] == 3
    program.run("group", "reset", name, "-t", name, "--to", 4)
    assert program.lines("consume", name, "-g", name, "-n", 1) == ["4"]
    assert (
        "has no partition 5" in program.run("group", "reset", name, "-t", name, "--to", "end", "-p", 5, code=1).stderr
    )
    program.run("group", "delete", name)
    assert name in program.run("group", "describe", name, code=1).stderr


def test_ctrl_c_ends_a_consumer_and_its_group_keeps_what_was_written(program: Program, name: str) -> None:
    program.run("topic", "create", name, "-p", 1)
    program.run("produce", name, stdin="one\ntwo\n")
    with program.running("consume", name, "-g", name) as consumer:
        assert consumer.stdout is not None
        assert [consumer.stdout.readline(), consumer.stdout.readline()] == ["one\n", "two\n"]
        members = program.json("group", "describe", name)["members"]
        assert [member["owned"] for member in members] == [[{"topic": name, "partition": 0}]]
        busy = program.run("group", "delete", name, code=1)
        assert name in busy.stderr
        consumer.send_signal(signal.SIGINT)
        out, err = consumer.communicate(timeout=SECONDS)
    assert (consumer.returncode, out, err) == (130, "", "")
    program.run("produce", name, stdin="three\n")
    assert program.lines("consume", name, "-g", name, "-n", 1)[-1] == "three"


def test_a_reader_that_has_gone_ends_the_consumer_quietly(program: Program, name: str) -> None:
    program.run("topic", "create", name, "-p", 1)
    program.run("produce", name, stdin="".join(f"{number:0100}\n" for number in range(20_000)))
    with program.running("consume", name) as consumer:
        assert consumer.stdout is not None
        assert consumer.stdout.readline() == "0" * 100 + "\n"
        consumer.stdout.close()
        assert consumer.wait(SECONDS) == 141
        assert consumer.stderr is not None
        assert consumer.stderr.read() == ""


def test_an_interrupted_producer_does_not_hang(program: Program, name: str) -> None:
    program.run("topic", "create", name, "-p", 1)
    with program.running("produce", name, stdin=subprocess.PIPE) as producer:
        assert producer.stdin is not None
        producer.stdin.write("one\n")
        producer.stdin.flush()
        assert program.lines("consume", name, "-n", 1) == ["one"]
        producer.send_signal(signal.SIGINT)
        assert producer.wait(SECONDS) == 130


def test_the_cluster_tells_its_nodes_and_hands_leaderships_over(program: Program, name: str) -> None:
    program.run("topic", "create", name, "-p", 1, "-r", 3)
    status = program.json("cluster", "status")
    assert [node["node_id"] for node in status["nodes"]] == [1, 2, 3]
    assert {node["state"] for node in status["nodes"]} == {"member"}
    assert all(node["storage"]["syncs"] > 0 for node in status["nodes"])
    leader = program.json("topic", "describe", name)["partitions"][0]["leader"]
    other = leader % 3 + 1
    assert program.lines("cluster", "transfer", name, 0, "--to", other) == [f"node {other} leads {name}[0]"]
    no_replica = program.run("cluster", "transfer", name, 0, "--to", 9, code=1)
    assert f"node 9 has no replica of topic '{name}' partition 0" in no_replica.stderr
    assert "choose one of the nodes" in no_replica.stderr
    assert "has partitions 0 to 0, not 5" in program.run("cluster", "transfer", name, 5, "--to", 1, code=1).stderr
    assert program.lines("cluster", "status")[0].startswith(f"cluster {status['cluster_id']}, led by node ")


def test_a_peer_port_is_recognised_and_the_right_one_named(program: Program, shared: LocalCluster) -> None:
    node = shared.node(2)
    done = program.run("topic", "list", "-b", node.peer_address, code=1)
    assert done.stderr.splitlines() == [
        f"quorumlog: {node.peer_address} is the port at which node 2 talks to the other nodes, not one for clients",
        f"hint: use its client_address: {node.client_address}",
    ]


def test_doctor_is_content_with_a_healthy_cluster(program: Program) -> None:
    report = program.json("doctor")
    assert report["healthy"] is True
    assert [node["node_id"] for node in report["nodes"]] == [1, 2, 3]
    assert report["unreachable"] == []


def test_the_bench_measures_a_cluster_that_is_there(program: Program, shared: LocalCluster) -> None:
    for workload, api in (("produce", "send_many"), ("produce", "send"), ("latency", "send_many"), ("consume", "send")):
        arguments = ("bench", workload, "-b", shared.bootstrap, "--seconds", 0.3, "-p", 3, "--api", api)
        result = program.json(*arguments)
        assert result["records"] > 0
        assert result["records_per_second"] > 0
        assert (result["latency_p50_ms"] is None) == (workload == "consume")
        assert set(result["syncs_per_second"]) == {"1", "2", "3"}
        assert result["settings"]["durability"] == "durable"
        assert (result["settings"]["partitions"], result["settings"]["own_nodes"]) == (3, 0)
    assert not [topic for topic in program.json("topic", "list") if topic["topic"].startswith("bench-")]


def test_a_bench_that_asks_too_much_says_so(program: Program, shared: LocalCluster) -> None:
    done = program.run("bench", "produce", "-b", shared.bootstrap, "-r", 5, code=1)
    assert "asks for 5 replicas, but the cluster has 3 nodes" in done.stderr


def test_a_cluster_is_founded_once_and_examined_when_a_node_is_dead(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.start()
    for node in cluster.nodes:
        node.until_waiting()
    program = Program(cluster.nodes[0].client_address)
    nodes = [part for node in cluster.nodes for part in ("--node", f"{node.node_id}={node.peer_address}")]
    init = ["cluster", "init", *nodes]
    assert program.json("doctor")["findings"][0]["message"] == "it belongs to no cluster and waits"
    assert len(program.json(*init)["cluster_id"]) == 32
    cluster.until_ready()
    again = program.run(*init, code=1)
    assert "it was founded before" in again.stderr

    dead = cluster.nodes[2]
    dead.kill()
    done = program.run("doctor", "--output", "json", code=1)
    report = json.loads(done.stdout)
    worst = report["findings"][0]
    assert (worst["severity"], worst["subject"], worst["stage"]) == ("PROBLEM", "node 3", "tcp")
    assert worst["address"] == dead.client_address
    assert "start the node" in worst["fix"]
    text = program.run("doctor", code=1).stdout
    assert f"cannot connect to {dead.client_address}" in text
    status = program.json("cluster", "status")
    assert [node["state"] for node in status["nodes"]] == ["member", "member", "unreachable"]


def test_founding_with_a_wrong_peer_address_says_which_and_what_is_wrong(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=2)
    first, second = cluster.nodes
    second.start()
    second.until_waiting()
    program = Program(second.client_address)
    own = f"2={second.peer_address}"
    for wrong, reason in (
        (first.peer_address, "connection refused, so nothing listens there"),
        (second.client_address, "what listens there is not the peer port of a node"),
    ):
        done = program.run("cluster", "init", "--node", f"1={wrong}", "--node", own, code=1)
        said = [line for line in done.stderr.splitlines() if not line.startswith("quorumlog: waiting: ")]
        assert said == [
            f"quorumlog: node 1 does not answer at its peer address {wrong}: {reason}",
            "hint: start it, and give peer addresses, not client addresses",
        ]


def test_commands_that_wait_say_for_what(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.start()
    for node in cluster.nodes:
        node.until_waiting()
    program = Program(cluster.bootstrap)
    unfounded = program.run("topic", "create", "orders", "--timeout", 3, code=1).stderr.splitlines()
    assert "belongs to no cluster yet" in unfounded[0]
    assert unfounded[0].startswith("quorumlog: waiting: node ")
    assert unfounded[-1] == "hint: found a cluster (quorumlog cluster init) or add the node to one"

    cluster.found()
    cluster.until_ready()
    program.run("topic", "create", "orders", "-p", 1, "-r", 3)
    for node in cluster.nodes[1:]:
        node.kill()
    dead = [f"cannot connect to {node.client_address}: Connection refused" for node in cluster.nodes[1:]]
    fix = "start the nodes that do not answer: a majority must run"
    *waiting, error, hint = program.run("topic", "create", "more", "--timeout", 6, code=1).stderr.splitlines()
    assert waiting
    assert all(line.startswith("quorumlog: waiting: ") for line in waiting)
    assert error.startswith("quorumlog: the metadata group __cluster has no leader that this node knows of; ")
    assert all(words in error for words in dead)
    assert hint == f"hint: {fix}"
    late = program.run("produce", "orders", "--delivery-timeout", 8, stdin="x\n", code=1).stderr.splitlines()
    assert late[0].startswith("quorumlog: waiting: ")
    assert all(words in late[-2] for words in dead)
    with program.running("consume", "orders") as consumer:
        assert consumer.stderr is not None
        assert consumer.stderr.readline().startswith("quorumlog: waiting: nobody leads orders[0] (start the nodes ")
    cluster.nodes[0].kill()
    *_, error, hint = program.run("topic", "list", code=1).stderr.splitlines()
    assert error.startswith("quorumlog: no answer: cannot connect to ")
    assert hint == "hint: start the node (quorumlog dev, or quorumlog node), or check the port"


def test_the_comparer_reads_every_replica(shared: LocalCluster, name: str, tmp_path: Path) -> None:
    """What the demo's verdict stands on: it is content with what is there, and finds what is not."""
    samples = [(Identity(1, number), Sample(100 + number % 7, "process", 1.0, 4096)) for number in range(300)]
    with quorumlog.connect(shared.bootstrap) as client:
        client.topics.create(name, partitions=3, replicas=3)
        with client.producer() as producer:
            futures = [
                (identity, producer.send(name, encode(identity, sample), key=sample.key))
                for identity, sample in samples
            ]
            appended = [(identity, future.result(SECONDS)) for identity, future in futures]
    acks = [Ack(at.partition, at.offset, identity, 1.0, 1.25) for identity, at in appended]
    given = [Consumed(ack.partition, ack.offset, ack.identity) for ack in acks]
    _write(acks_path(tmp_path, 1), [ack.line() for ack in acks])
    _write(consumed_path(tmp_path, 1), [record.line() for record in given])

    verdict = asyncio.run(judge(shared.bootstrap, name, tmp_path))
    assert (verdict.records, verdict.lost, verdict.duplicated) == (300, 0, 0)
    assert verdict.longest_stall == 0.25

    forged = Ack(0, 1_000_000, Identity(2, 0), 1.0, 1.25)
    _write(acks_path(tmp_path, 2), [forged.line()])
    _write(consumed_path(tmp_path, 2), [given[0].line()])
    verdict = asyncio.run(judge(shared.bootstrap, name, tmp_path))
    assert (verdict.records, verdict.lost, verdict.duplicated) == (301, 1, 1)
    assert "not there on node 1, 2, 3" in " ".join(verdict.examples)


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(lines))
