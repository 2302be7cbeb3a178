"""What a user installs: the wheel, in empty environments, used from outside the repository."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

pytestmark = pytest.mark.timeout(400)  # environments are made from nothing


def run(*command: object, folder: Path, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which nothing of the repository can be imported."""
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the files that are tracked and nothing else."""
    folder = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", folder=ROOT).stdout.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", folder=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def environment(folder: Path, *requirements: object) -> Path:
    """An empty environment with these requirements; returns its folder of programs."""
    run(sys.executable, "-m", "venv", folder, folder=folder.parent)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", *requirements, folder=folder.parent)
    return programs


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain client with the oldest grpcio and protobuf it allows."""
    lowest = [dependency.replace(">=", "==") for dependency in PROJECT["dependencies"]]
    return environment(tmp_path_factory.mktemp("plain") / "env", wheel, *lowest)


@pytest.fixture(scope="module")
def node(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one server process needs."""
    return environment(tmp_path_factory.mktemp("node") / "env", f"{wheel}[node]")


@pytest.fixture
def bootstrap(node: Path, outside: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a running cluster of one node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "stderr").open("w") as stderr:
        dev = subprocess.Popen(
            [node / "quorumlog", "dev", "--nodes", "1", "--port", str(port), "--data", tmp_path / "data"],
            cwd=outside,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert dev.stdout is not None
        ready = next((line for line in dev.stdout if line.startswith("ready ")), None)
        assert ready is not None, (tmp_path / "stderr").read_text()
        yield ready.split()[1]
    finally:
        dev.send_signal(signal.SIGINT)
        try:
            dev.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            dev.kill()
            dev.communicate()
            raise


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"quorumlog", f"quorumlog-{PROJECT['version']}.dist-info"}
    assert {
        "quorumlog/py.typed",
        "quorumlog/proto/client.proto",
        "quorumlog/proto/client_pb2.pyi",
        "quorumlog/raft/__init__.py",
        "quorumlog/node/storage/__init__.py",
    } <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)
    assert not [name for name in names if "test" in name]


def test_the_plain_client_imports_with_the_wire_alone(plain: Path, outside: Path) -> None:
    program = """
        import sys
        import quorumlog
        from quorumlog.proto.crc32c import IN_HARDWARE, crc32c

        assert not IN_HARDWARE and crc32c(b"123456789") == 0xE3069283
        absent = {"rocksdict", "pysyncobj", "cramjam", "google_crc32c", "opentelemetry"}
        assert not absent & set(sys.modules), absent & set(sys.modules)
        print(quorumlog.__file__)
    """
    place = run(plain / "python", "-c", dedent(program), folder=outside).stdout.strip()
    assert Path(place).is_relative_to(plain.parent)


def test_a_verb_whose_extra_is_missing_says_what_to_install(plain: Path, outside: Path) -> None:
    for verb in ("node", "dev"):
        done = run(plain / "quorumlog", verb, folder=outside, check=False)
        assert done.returncode == 2
        assert "needs: pip install 'quorumlog[node]'" in done.stderr
    done = run(plain / "quorumlog", "chaos", "run", folder=outside, check=False)
    assert done.returncode == 2
    assert done.stderr == "quorumlog: chaos run needs: pip install 'quorumlog[chaos]'\n"


def test_type_checkers_see_the_types(plain: Path, outside: Path) -> None:
    program = outside / "typed.py"
    program.write_text(
        dedent("""
            import quorumlog

            with quorumlog.connect("localhost:7070") as client:
                with client.producer() as producer:
                    offset: str = producer.send("orders", b"payload").result().offset
        """)
    )
    done = run(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", plain / "python", program),
        folder=outside,
        check=False,
    )
    errors = re.findall(r"error: .*", done.stdout)
    assert errors == [
        'error: Incompatible types in assignment (expression has type "int", variable has type "str")  [assignment]'
    ]


def test_one_produce_and_one_consume(plain: Path, bootstrap: str, outside: Path) -> None:
    program = f"""
        import quorumlog

        with quorumlog.connect({bootstrap!r}) as client:
            client.topics.create("orders", partitions=2, replicas=1)
            with client.producer() as producer:
                metadata = producer.send("orders", b"payload", key=b"k1", headers={{"trace": b"1"}}).result(timeout=30)
                assert metadata.offset == 0
                producer.flush()
            with client.consumer("orders", group="billing") as consumer:
                record = next(iter(consumer))
        print(record.topic, record.offset, record.key, record.value, record.headers)
    """
    done = run(plain / "python", "-c", dedent(program), folder=outside)
    assert done.stdout == "orders 0 b'k1' b'payload' (('trace', b'1'),)\n"


def test_the_command_line_produces_and_consumes(plain: Path, bootstrap: str, outside: Path) -> None:
    quorumlog = plain / "quorumlog"
    run(quorumlog, "topic", "create", "lines", "-p", 1, "-r", 1, "-b", bootstrap, folder=outside)
    run(quorumlog, "produce", "lines", "-K", ":", "-b", bootstrap, folder=outside, stdin="a:1\nb:2\n")
    done = run(
        *(quorumlog, "consume", "lines", "-o", "start", "--until", "end", "--format", "%k %v %p %o", "-b", bootstrap),
        folder=outside,
    )
    assert done.stdout.splitlines() == ["a 1 0 0", "b 2 0 1"]
