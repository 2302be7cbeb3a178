"""Bounds within which a broker opens a batch: at the door to check it, and later to unpack rows or look for a time."""

from __future__ import annotations

from typing import Final

from quorumlog.node.metadata.configs import MESSAGE_BYTES_MAX
from quorumlog.proto.batch import BatchLimits

INFLATED_SIZE_BYTES_MAX: Final = 64 << 20
INFLATED_RATIO_MAX: Final = 1000.0

OPEN_LIMITS: Final = BatchLimits(MESSAGE_BYTES_MAX, INFLATED_SIZE_BYTES_MAX, INFLATED_RATIO_MAX)
"""For batches that have passed the door."""
