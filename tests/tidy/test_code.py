"""What the code may import and call. Each rule says what to do instead."""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("chaos", "client", "node", "proto", "raft")

# importer -> what it may import of this package
DIRECTIONS = {
    "proto": {"proto"},
    "raft": {"raft"},
    "node": {"node", "proto", "raft"},
    "client": {"client", "proto"},
    "chaos": {"chaos", "client", "proto"},
    "chaos/sim": {"chaos", "client", "node", "proto", "raft"},
}

# What the simulator does not drive, because it waits for sockets, threads or an event loop.
NOT_FOR_CHAOS = (
    "quorumlog.aio",
    "quorumlog.cli",
    "quorumlog.sync",
    "quorumlog.node.rpc",
    "quorumlog.node.server",
    "quorumlog.node.driver",
    "quorumlog.node.dev",
    "quorumlog.node.commands",
)

# Inside node an import goes down or stays on its level. The simulator drives everything below `rpc`.
NODE_LEVELS = [
    {"clock", "config", "errors", "pidfile", "timers", "state_machine"},
    {"storage"},
    {"metadata", "groups"},
    {"replica"},
    {"coordination"},
    {"broker"},
    {"rpc"},
    {"telemetry"},
    {"driver", "disk", "greeting", "founding", "admission", "coordinating"},
    {"report"},
    {"server"},
    {"dev", "commands", "__main__", "__init__"},
]

# Every package from outside, and the only places that may know it.
THIRD_PARTY = {
    "rocksdict": ("node/storage/",),
    "uvloop": ("node/commands.py",),
    "pysyncobj": ("node/coordination/",),
    "opentelemetry": ("node/telemetry/", "client/telemetry/"),
    "grpc": ("node/rpc/", "client/", "proto/", "chaos/workloads/", "chaos/sight.py"),
    "grpc_health": ("node/rpc/",),
    "grpc_reflection": ("node/rpc/",),
    "grpc_status": ("node/rpc/",),
    "google": ("node/", "client/", "proto/"),
    "google_crc32c": ("proto/crc32c.py",),
    "cramjam": ("proto/compression.py",),
}

RAFT_STANDARD_LIBRARY = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "random",
    "struct",
    "typing",
}

CLOCKS = ("node/clock.py", "client/clock.py", "chaos/sim/wall.py")
SPEAKERS = (
    "chaos/cli.py",
    "chaos/judge.py",
    "chaos/sim/__main__.py",
    "chaos/sim/search.py",
    "client/cli/",
    "client/bench/",
    "client/demo/",
    "node/commands.py",
)


class Source(NamedTuple):
    """One hand-written module."""

    name: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        return self.name.split("/")[0]


SOURCES = [
    Source(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), str(path)))
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.stem.endswith(("_pb2", "_pb2_grpc"))
]

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported; `from a import b` gives a.b."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.name}:{node.lineno}: relative import: write it from quorumlog on"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def directions(source: Source) -> set[str]:
    """What a module may import of this package: by its folder, or by a more exact one."""
    return DIRECTIONS.get("/".join(source.name.split("/")[:2]), DIRECTIONS[source.folder])


def part_of(module: str) -> str:
    """The top-level folder of a module of this package."""
    second = [*module.split("."), ""][1]
    return second if second in FOLDERS else "client"


def calls(source: Source) -> Iterator[tuple[int, str, ast.Call]]:
    """Line, dotted text and node of every call."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


@each_source
def test_imports_go_in_the_allowed_direction(source: Source) -> None:
    for line, module in imports(source):
        if module.split(".")[0] == "quorumlog":
            allowed = directions(source)
            assert part_of(module) in allowed, f"{source.name}:{line}: {source.folder} may not import {module}"


@pytest.mark.parametrize(
    "source", [source for source in SOURCES if source.name.startswith("chaos/sim/")], ids=lambda source: source.name
)
def test_the_simulator_drives_what_does_not_wait(source: Source) -> None:
    for line, module in imports(source):
        assert not f"{module}.".startswith(tuple(f"{name}." for name in NOT_FOR_CHAOS)), (
            f"{source.name}:{line}: {module} waits for the world outside"
        )


def node_level(unit: str) -> int:
    for level, units in enumerate(NODE_LEVELS):
        if unit in units:
            return level
    raise AssertionError(f"node/{unit} has no level: add it to NODE_LEVELS")


@pytest.mark.parametrize(
    "source", [source for source in SOURCES if source.folder == "node"], ids=lambda source: source.name
)
def test_imports_inside_node_go_down(source: Source) -> None:
    own = node_level(source.name.removesuffix(".py").split("/")[1])
    for line, module in imports(source):
        parts = module.split(".")
        if parts[:2] == ["quorumlog", "node"] and len(parts) > 2:
            assert node_level(parts[2]) <= own, f"{source.name}:{line}: {module} stands above it"


@each_source
def test_packages_from_outside_have_one_place(source: Source) -> None:
    for line, module in imports(source):
        package = module.split(".")[0]
        if package == "quorumlog" or package in sys.stdlib_module_names:
            continue
        assert package in THIRD_PARTY, f"{source.name}:{line}: {package} is not a dependency: add it to THIRD_PARTY"
        places = THIRD_PARTY[package]
        assert source.name.startswith(places), f"{source.name}:{line}: {package} belongs to {' '.join(places)} alone"


@pytest.mark.parametrize(
    "source", [source for source in SOURCES if source.folder == "raft"], ids=lambda source: source.name
)
def test_raft_does_no_input_or_output(source: Source) -> None:
    for line, module in imports(source):
        package = module.split(".")[0]
        assert package in {"quorumlog", *RAFT_STANDARD_LIBRARY}, f"{source.name}:{line}: {package} is not for raft/"
    for node in ast.walk(source.tree):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{source.name}:{node.lineno}: raft/ never waits"


@each_source
def test_time_comes_from_the_clock(source: Source) -> None:
    if source.name in CLOCKS:
        return
    for line, module in imports(source):
        assert module.split(".")[0] != "time", f"{source.name}:{line}: take a clock or `now`, as {CLOCKS[0]} gives it"
    for line, called, _ in calls(source):
        reads_a_clock = called.endswith(("loop.time", "loop().time", "datetime.now", "datetime.utcnow", "date.today"))
        assert not reads_a_clock, f"{source.name}:{line}: {called}: take a clock or `now`, as {CLOCKS[0]} gives it"


@each_source
def test_randomness_is_passed_in(source: Source) -> None:
    found = list(imports(source))
    for line, module in found:
        shared = module.startswith("random.") and module not in ("random.Random", "random.SystemRandom")
        assert not shared, f"{source.name}:{line}: {module}: take a random.Random"
    if not any(module == "random" for _, module in found):
        return  # a parameter of that name is what is asked for
    for line, called, _ in calls(source):
        shared = called.startswith("random.") and called not in ("random.Random", "random.SystemRandom")
        assert not shared, f"{source.name}:{line}: {called}: take a random.Random"


@each_source
def test_queues_are_bounded(source: Source) -> None:
    for line, called, call in calls(source):
        if called.split("[")[0] in ("asyncio.Queue", "asyncio.PriorityQueue", "asyncio.LifoQueue", "queue.Queue"):
            bounded = call.args or any(keyword.arg == "maxsize" for keyword in call.keywords)
            assert bounded, f"{source.name}:{line}: {called} without maxsize: name its limit"


@each_source
def test_only_the_command_line_prints(source: Source) -> None:
    if source.name.startswith(SPEAKERS):
        return
    for line, called, _ in calls(source):
        assert called != "print", f"{source.name}:{line}: use logging"


@pytest.mark.parametrize(
    ("rule", "name", "code"),
    [
        (test_imports_go_in_the_allowed_direction, "proto/x.py", "from quorumlog.raft import types"),
        (test_imports_go_in_the_allowed_direction, "client/x.py", "import quorumlog.node.clock"),
        (test_imports_go_in_the_allowed_direction, "node/x.py", "from quorumlog import connect"),
        (test_imports_go_in_the_allowed_direction, "raft/x.py", "from . import types"),
        (test_imports_go_in_the_allowed_direction, "chaos/faults/x.py", "from quorumlog.node.clock import SystemClock"),
        (test_the_simulator_drives_what_does_not_wait, "chaos/sim/x.py", "from quorumlog.aio.client import Client"),
        (test_imports_inside_node_go_down, "node/storage/x.py", "from quorumlog.node.replica import replica"),
        (test_packages_from_outside_have_one_place, "node/server.py", "import grpc.aio"),
        (test_packages_from_outside_have_one_place, "node/replica/x.py", "from rocksdict import Rdict"),
        (test_packages_from_outside_have_one_place, "client/x.py", "import requests"),
        (test_raft_does_no_input_or_output, "raft/x.py", "import asyncio"),
        (test_raft_does_no_input_or_output, "raft/x.py", "async def step(): pass"),
        (test_time_comes_from_the_clock, "node/server.py", "from time import monotonic"),
        (test_time_comes_from_the_clock, "client/x.py", "asyncio.get_running_loop().time()"),
        (test_time_comes_from_the_clock, "client/x.py", "datetime.datetime.now()"),
        (test_randomness_is_passed_in, "client/x.py", "from random import shuffle"),
        (test_randomness_is_passed_in, "client/x.py", "import random\nrandom.shuffle([])"),
        (test_queues_are_bounded, "client/x.py", "q = asyncio.Queue()"),
        (test_queues_are_bounded, "client/x.py", "q = asyncio.Queue[int]()"),
        (test_only_the_command_line_prints, "node/server.py", "print(1)"),
    ],
)
def test_the_rules_bite(rule: Callable[[Source], None], name: str, code: str) -> None:
    with pytest.raises(AssertionError, match=name):
        rule(Source(name, ast.parse(code)))
