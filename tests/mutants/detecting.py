"""Copies of the tree and the detectors that run in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("chaos", "client", "node", "proto", "raft", "tests")
FILES: Final = ("pyproject.toml",)
SHIPPED: Final = ("chaos", "node", "proto", "raft")

LIMIT_SECONDS: Final = 600.0
"""One detector may take so long."""

SEARCH_SECONDS: Final = 540.0
"""Detectors with seeds of their own draw no further one after this."""

KILLED_BY_TESTS: Final = frozenset((1,))
KILLED_BY_SIMULATOR: Final = frozenset((3, 4, 5))
"""Its verdicts crash, liveness and correctness."""


class Finding(NamedTuple):
    """What became of one detector: `killed` is None where it could not say, as when it found no tests at all."""

    detector: str
    killed: bool | None
    seconds: float
    output: str


def tree_hash() -> str:
    """Of everything that is copied but the patches: results count as long as it stays the same."""
    digest = hashlib.sha256()
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in {".py", ".txt"}]
    for path in sorted(paths):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def copy_tree(target: Path, source: Path = ROOT) -> None:
    """Everything that detectors need, as files, with the one import package that the folders make up."""
    target.mkdir(parents=True)
    for name in FILES:
        shutil.copy2(source / name, target / name)
    for name in FOLDERS:
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns(".hypothesis"))
    package = target / "packages" / "quorumlog"
    package.mkdir(parents=True)
    for path in [target / name for name in SHIPPED] + list((target / "client").iterdir()):
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)


def command_of(detector: str, search_seconds: float) -> list[str]:
    """How to run a detector."""
    if detector == "random":
        return ["-m", "tests.mutants.random_cores", str(search_seconds)]
    if detector == "groups":
        return ["-m", "tests.mutants.random_groups", str(search_seconds)]
    if detector == "sim":
        return [
            "-m",
            "quorumlog.chaos.sim",
            "--seeds",
            "100000",
            "--for-seconds",
            str(search_seconds),
            "--processes",
            "1",
        ]
    return ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", detector]


def detect(copy: Path, detector: str, search_seconds: float = SEARCH_SECONDS) -> Finding:
    """Run one detector in a copy."""
    environment = {**os.environ, "PYTHONPATH": f"{copy / 'packages'}{os.pathsep}{copy}"}
    began = time.monotonic()
    with (copy / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *command_of(detector, search_seconds)],
            cwd=copy,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code: int | None = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        output.seek(0)
        said = output.read()
    killed = KILLED_BY_SIMULATOR if detector == "sim" else KILLED_BY_TESTS
    alive = (None, 0, 6) if detector == "sim" else (None, 0)  # 6: too few seeds to mean anything
    verdict = True if code in killed else False if code in alive else None
    return Finding(detector, verdict, time.monotonic() - began, said)
