"""The watermark: how far the database had certainly come, written outside of it.

RocksDB opens without a word after its write-ahead log was cut or deleted, so a node that lost part of its promises
cannot learn it from the database. The watermark is one number per node (one write-ahead log serves all groups): a
database below it has forgotten something, and the node enters REPAIR.

    slot 0 at byte 0, slot 1 at byte 4096 (never in one sector or page), each 87 bytes, big-endian:

     0        1           9             25         33          49        65         81    82..86
    +---------+-----------+-------------+----------+-----------+---------+----------+-----+------+
    | version | counter   | database id | sequence | repair id | boot id | power id | 0 0 | crc  |
    | u8      | u64       | 16          | u64      | 16        | 16      | 16       | u16 | u32  |
    +---------+-----------+-------------+----------+-----------+---------+----------+-----+------+

The slots are written in turn, so the write that a power cut tears is never the only one; the valid slot with the
higher counter counts. The CRC-32C covers everything before it.

What may be published: a number read *before* a sync was submitted, *after* that sync returned. A number beyond what is
synced would put a node, and after an ordinary power cut the whole cluster, below its own mark. What stays open is the
last 0.2 seconds of writing before a crash that damages the disk as well.

boot id and power id belong to a durability level that is not offered yet; they are zeros.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.files import DurableFile, FileSystem
from quorumlog.proto.crc32c import crc32c

WATERMARK_NAME = "watermark"
VERSION = 1
SLOT_STRIDE_BYTES = 4096
NEVER_REPAIRED = bytes(16)
"""The repair id of a node that has never been in REPAIR."""
NO_DATABASE = bytes(16)
"""The database id while a new database is being made in place of a lost one."""

_SLOT = struct.Struct(">BQ16sQ16s16s16sH")
_CRC = struct.Struct(">I")
_SLOT_BYTES = _SLOT.size + _CRC.size


@dataclass(frozen=True, slots=True)
class Mark:
    """What one slot says. Ids are 16 bytes; `sequence` is RocksDB's number, covered by a finished sync."""

    database_id: bytes
    sequence: int
    repair_id: bytes = NEVER_REPAIRED
    boot_id: bytes = bytes(16)
    power_id: bytes = bytes(16)


def encode_slot(counter: int, mark: Mark) -> bytes:
    """Return the bytes of a slot."""
    body = _SLOT.pack(VERSION, counter, mark.database_id, mark.sequence, mark.repair_id, mark.boot_id, mark.power_id, 0)
    return body + _CRC.pack(crc32c(body))


def decode_slot(data: bytes) -> tuple[int, Mark] | None:
    """Return (counter, mark) of a slot; None when it is torn, damaged, unwritten or of an unknown version."""
    if len(data) != _SLOT_BYTES or _CRC.unpack_from(data, _SLOT.size)[0] != crc32c(data[: _SLOT.size]):
        return None
    version, counter, database_id, sequence, repair_id, boot_id, power_id, _ = _SLOT.unpack_from(data)
    return (counter, Mark(database_id, sequence, repair_id, boot_id, power_id)) if version == VERSION else None


class Watermark:
    """The watermark file of an open data folder. Its methods block; one thread at a time calls them."""

    def __init__(self, file: DurableFile, counter: int, mark: Mark, slots_valid: int) -> None:
        self._file = file
        self._counter = counter
        self._mark = mark
        self.slots_valid = slots_valid
        """How many of the two slots were sound when the file was opened."""

    @classmethod
    def create(cls, files: FileSystem, mark: Mark) -> Watermark:
        """Make the file, both slots holding `mark`, durable with its name. Raises StorageFailed."""
        gap = bytes(SLOT_STRIDE_BYTES - _SLOT_BYTES)
        files.replace(WATERMARK_NAME, encode_slot(0, mark) + gap + encode_slot(1, mark))
        return cls(files.open(WATERMARK_NAME), 1, mark, slots_valid=2)

    @classmethod
    def open(cls, files: FileSystem) -> Watermark:
        """Open the file. Raises StorageCorrupt when it is missing or neither slot is sound, StorageFailed."""
        data = files.read(WATERMARK_NAME)
        where = files.describe(WATERMARK_NAME)
        if data is None:
            raise StorageCorrupt(f"watermark {where} is missing")
        slots = [decode_slot(data[at : at + _SLOT_BYTES]) for at in (0, SLOT_STRIDE_BYTES)]
        sound = [slot for slot in slots if slot is not None]
        if not sound:
            raise StorageCorrupt(f"watermark {where} is damaged: neither of its two slots fits its CRC-32C")
        counter, mark = max(sound, key=lambda slot: slot[0])
        return cls(files.open(WATERMARK_NAME), counter, mark, slots_valid=len(sound))

    @property
    def mark(self) -> Mark:
        """What the last write said."""
        return self._mark

    def publish(self, sequence: int) -> None:
        """Raise the mark to `sequence`: read before a sync was submitted, and published after that sync returned.

        Durable on return. Raises StorageFailed.
        """
        assert sequence >= self._mark.sequence, f"the mark {self._mark.sequence} cannot fall to {sequence}"
        self._write(replace(self._mark, sequence=sequence))

    def adopt(self, database_id: bytes, sequence: int, repair_id: bytes) -> None:
        """Bind the mark to a database as it now is, under `repair_id`; sequence may be lower than before.

        Both slots are written: were the other one left as it was, damage to this one would bring the older repair id
        back, and with it replicas that count themselves whole. Durable on return. Raises StorageFailed.
        """
        mark = replace(self._mark, database_id=database_id, sequence=sequence, repair_id=repair_id)
        self._write(mark)
        self._write(mark)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, mark: Mark) -> None:
        counter = self._counter + 1
        self._file.write_at(counter % 2 * SLOT_STRIDE_BYTES, encode_slot(counter, mark))
        self._file.sync()
        self._counter, self._mark = counter, mark


class WatermarkPacer:
    """Says when to publish which number: at most every interval while writing, and once more when writing ends.

    A plain class; the loop or a simulator reports what happened and asks. `now` is in seconds of one Clock.

        sequence = storage.sequence_number()      # before the sync is submitted
        ... storage.sync() in a thread ...
        pacer.on_synced(sequence)
        ... whenever the loop turns, and at pacer.due_at() ...
        if (sequence := pacer.take(now)) is not None:
            ... watermark.publish(sequence) in a thread ...
            pacer.on_published()
    """

    def __init__(self, published: int, interval_seconds: float = 0.2) -> None:
        self._interval_seconds = interval_seconds
        self._synced = published
        self._published = published
        self._publishing: int | None = None
        self._taken_at: float | None = None

    def on_synced(self, sequence: int) -> None:
        """Report a finished sync that was submitted after `sequence` had been read."""
        self._synced = max(self._synced, sequence)

    def due_at(self) -> float | None:
        """When `take` has a number next, in seconds; None while there is nothing new or one is being published.

        0.0 when nothing was ever published here: at once.
        """
        if self._publishing is not None or self._synced == self._published:
            return None
        return 0.0 if self._taken_at is None else self._taken_at + self._interval_seconds

    def take(self, now: float) -> int | None:
        """Return the number to publish now, to be followed by `on_published`; None when none is due."""
        due_at = self.due_at()
        if due_at is None or now < due_at:
            return None
        self._publishing, self._taken_at = self._synced, now
        return self._publishing

    def on_published(self) -> None:
        """Report that the number which `take` returned is durable."""
        assert self._publishing is not None, "nothing is being published"
        self._published, self._publishing = self._publishing, None
