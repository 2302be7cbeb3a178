"""Samples of this machine's processes, from /proc."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_FIXED = struct.Struct("<BQQdQ")
"""producer, sequence, CPU seconds, resident bytes; then the name in UTF-8. The first byte is the version."""
_VERSION = 1


class Sample(NamedTuple):
    """What one process used: CPU seconds since it began, and resident memory."""

    pid: int
    name: str
    cpu_seconds: float
    resident_bytes: int

    @property
    def key(self) -> bytes:
        """The key of its record: samples of one process stay in their order."""
        return b"%d" % self.pid


class Identity(NamedTuple):
    """Which record it is, whatever offset it gets: the producer's number and a count."""

    producer: int
    sequence: int


def sample_processes(proc: Path = PROC) -> Iterator[Sample]:
    """Yield a sample of every process that is there; those that end meanwhile are left out."""
    for entry in os.listdir(proc):
        if entry.isdecimal():
            try:
                stat = (proc / entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            yield parse_stat(stat)


def parse_stat(stat: str) -> Sample:
    """Return the sample in a line of /proc/PID/stat; see proc(5). The name may hold spaces and brackets."""
    pid, _, rest = stat.partition(" (")
    name, _, rest = rest.rpartition(") ")
    fields = rest.split()
    # Fields 14 and 15 of the line are user and system time, field 24 the resident pages; these begin at field 3.
    ticks = int(fields[11]) + int(fields[12])
    return Sample(int(pid), name, ticks / TICKS_PER_SECOND, int(fields[21]) * PAGE_BYTES)


def encode(identity: Identity, sample: Sample) -> bytes:
    """Return the value of a record."""
    return (
        _FIXED.pack(_VERSION, identity.producer, identity.sequence, sample.cpu_seconds, sample.resident_bytes)
        + sample.name.encode()
    )


def decode(key: bytes, value: bytes) -> tuple[Identity, Sample]:
    """Return what `encode` put into a record.

    Raises:
        ValueError: it is of another version.
    """
    version, producer, sequence, cpu_seconds, resident_bytes = _FIXED.unpack_from(value)
    if version != _VERSION:
        raise ValueError(f"a sample of version {version}, expected {_VERSION}")
    name = value[_FIXED.size :].decode()
    return Identity(producer, sequence), Sample(int(key), name, cpu_seconds, resident_bytes)
