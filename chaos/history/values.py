"""Values of records that prove themselves: each says where it belongs, who wrote it, and has its own checksum."""

from __future__ import annotations

from quorumlog.proto.crc32c import crc32c

PARTS = 5


def value_of(tp: str, process: str, counter: int, place: int, count: int) -> str:
    """Return the value of record `place` (from 1) of the `count` records of operation `counter` of a process."""
    told = f"{tp}|{process}|{counter}|{place}/{count}"
    return f"{told}|{crc32c(told.encode()):08x}"


def fault_of(value: str, tp: str) -> str | None:
    """Return what is wrong with a value that was found in partition `tp`, None if it is whole and belongs there.

    After the checksum there may be padding, whose content is not looked at.
    """
    parts = value.split("|", PARTS)
    if len(parts) < PARTS:
        return "it is no value of this run"
    told = "|".join(parts[: PARTS - 1])
    if f"{crc32c(told.encode()):08x}" != parts[PARTS - 1]:
        return "its checksum is wrong"
    if parts[0] != tp:
        return f"it belongs to {parts[0]}"
    return None
