"""Faults of disks: what a stopped node has stored is flipped, cut, deleted, or gone altogether.

They are aimed at the victims of a run, a minority of its nodes drawn once, so that of every acknowledged record a
sound copy is left.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quorumlog.chaos.faults.fault import Fault, Layout
from quorumlog.chaos.nodes import Node

FILE_CLASSES: dict[str, Callable[[Path], bool]] = {
    "table": lambda path: path.suffix == ".sst",
    "journal": lambda path: path.suffix == ".log",
    "blob": lambda path: path.suffix == ".blob",
    "manifest": lambda path: path.name.startswith("MANIFEST"),
    "current": lambda path: path.name == "CURRENT",
    "options": lambda path: path.name.startswith("OPTIONS"),
    "votes": lambda path: "votes" in path.name,
    "watermark": lambda path: "watermark" in path.name,
}
"""What a node keeps, by what its files are for."""

FLIPS = 2
QUARANTINE = "quarantine"
"""What a node has put aside is read by nobody."""


class _Disk(Fault):
    """A victim is killed, its files are troubled, and it stays down as long as the fault lasts."""

    spares_disks = False
    _node: Node | None = None

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw the victim, a seed for the places, and what else the fault needs."""
        return {"node": rng.choice(layout.victims), "seed": rng.getrandbits(32), **cls.draw_more(rng)}

    @classmethod
    def draw_more(cls, rng: random.Random) -> dict[str, Any]:
        """Draw what the fault needs besides."""
        return {"files": rng.choice(sorted(FILE_CLASSES))}

    async def start(self) -> None:
        """Kill the victim and trouble its files."""
        node = self.scene.supervisor.node(self.parameters["node"])
        self.targets = [f"node {node.number}"]
        node.hold()
        self._node = node
        if node.signal(signal.SIGKILL):
            await node.until_ended()
        rng = random.Random(self.parameters["seed"])
        harm = await asyncio.to_thread(self.harm, node.data, rng)
        if harm:
            self.bit = {"harm": harm}

    def harm(self, data: Path, rng: random.Random) -> list[dict[str, Any]]:
        """Do it, and return exactly what was done."""
        raise NotImplementedError

    def files(self, data: Path) -> list[Path]:
        """The files of the class that this is aimed at, by name; of the next class that has any where it has none."""
        found = sorted(path for path in data.rglob("*") if path.is_file() and QUARANTINE not in path.parts)
        full = [path for path in found if path.stat().st_size]
        names = sorted(FILE_CLASSES)
        first = names.index(self.parameters["files"])
        for name in names[first:] + names[:first]:
            files = [path for path in full if FILE_CLASSES[name](path)]
            if files:
                return files
        return []

    async def stop(self) -> None:
        """Let it come back and find out."""
        node, self._node = self._node, None
        if node is not None:
            node.release()


class Flip(_Disk):
    """A few bits of one file are flipped."""

    kind = "flip"

    def harm(self, data: Path, rng: random.Random) -> list[dict[str, Any]]:
        """Flip them."""
        files = self.files(data)
        if not files:
            return []
        path = rng.choice(files)
        content = bytearray(path.read_bytes())
        done = []
        for _ in range(FLIPS):
            at, bit = rng.randrange(len(content)), rng.randrange(8)
            content[at] ^= 1 << bit
            done.append({"file": str(path.relative_to(data)), "at": at, "bit": bit, "size_bytes": len(content)})
        path.write_bytes(content)
        return done


class Truncate(_Disk):
    """One file ends somewhere in its middle."""

    kind = "truncate"

    def harm(self, data: Path, rng: random.Random) -> list[dict[str, Any]]:
        """Cut it."""
        files = self.files(data)
        if not files:
            return []
        path = rng.choice(files)
        before = path.stat().st_size
        after = rng.randrange(before)
        os.truncate(path, after)
        return [{"file": str(path.relative_to(data)), "size_bytes": before, "left_bytes": after}]


class Delete(_Disk):
    """All files of a class are gone."""

    kind = "delete"

    def harm(self, data: Path, rng: random.Random) -> list[dict[str, Any]]:
        """Delete them."""
        files = self.files(data)
        for path in files:
            path.unlink()
        return [{"file": str(path.relative_to(data)), "deleted": True} for path in files]


class Wipe(_Disk):
    """Everything is gone; the node comes back as a new one."""

    kind = "wipe"

    @classmethod
    def draw_more(cls, rng: random.Random) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def harm(self, data: Path, rng: random.Random) -> list[dict[str, Any]]:
        """Delete the folder."""
        if not data.exists():
            return []
        size_bytes = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
        shutil.rmtree(data)
        return [{"folder": data.name, "size_bytes": size_bytes}]
