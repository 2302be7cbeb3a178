"""Writes down what one client process asked and was told: one JSON object on a line, flushed with each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quorumlog.clock import monotonic


class Recorder:
    """The history of one process. One operation is open at a time; one whose outcome stays unknown retires the
    process, which goes on under another name.

    Args:
        folder: of the run.
        name: of the process and its file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / "history" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = path.open("a")
        self._name = name
        self._life = 1
        self._number = 0

    @property
    def process(self) -> str:
        """What it is called just now."""
        return self._name if self._life == 1 else f"{self._name}#{self._life}"

    def invoke(self, function: str, **fields: Any) -> Recording:
        """Begin an operation."""
        self._number += 1
        recording = Recording(self, self.process, self._number, function)
        recording.write("invoke", fields)
        return recording

    def tell(self, function: str, **fields: Any) -> None:
        """Write down what happened without being asked for."""
        self._number += 1
        Recording(self, self.process, self._number, function).ok(**fields)

    def retire(self) -> None:
        """Go on under another name."""
        self._life += 1
        self._number = 0

    def line(self, fields: dict[str, Any]) -> None:
        """Write one line."""
        self._out.write(json.dumps(fields, separators=(",", ":")) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing more happens."""
        self._out.close()


class Recording:
    """One operation of a process while it is written down."""

    def __init__(self, recorder: Recorder, process: str, number: int, function: str) -> None:
        self._recorder = recorder
        self._head = (process, number, function)

    def ok(self, **fields: Any) -> None:
        """It was done."""
        self.write("ok", fields)

    def fail(self, **fields: Any) -> None:
        """It was certainly not done."""
        self.write("fail", fields)

    def info(self, **fields: Any) -> None:
        """Nobody knows; the process is retired."""
        self.write("info", fields)
        self._recorder.retire()

    def write(self, event: str, fields: dict[str, Any]) -> None:
        """Write one line of it."""
        process, number, function = self._head
        now = int(monotonic() * 1e9)
        self._recorder.line({"t": now, "p": process, "s": number, "e": event, "f": function, **fields})
