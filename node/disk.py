"""How much room the disk of the data folder has."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Final

from quorumlog.node.broker.produce import ProduceGate
from quorumlog.node.errors import StorageFailed

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 1.0


class DiskWatch:
    """Refuses records before the disk is full: then reading, electing and trimming still work.

    Args:
        node_id: whose disk it is.
        data: the data folder.
        free_bytes_min: below it records are refused.
    """

    def __init__(self, node_id: int, data: Path, free_bytes_min: int) -> None:
        self._node_id = node_id
        self._data = data
        self._free_bytes_min = free_bytes_min
        self.free_bytes = 0
        """As of the last look."""

    def look(self) -> int:
        """Free bytes now. Raises StorageFailed when the disk is gone."""
        try:
            self.free_bytes = shutil.disk_usage(self._data).free
        except OSError as error:
            raise StorageFailed(f"the disk of {self._data} is gone: {error}; bring it back") from error
        return self.free_bytes

    async def watch(self, gate: ProduceGate) -> None:
        """Open and close the gate until cancelled. Raises StorageFailed when the disk is gone."""
        while True:
            free = self.look()
            full = free < self._free_bytes_min
            if full and gate.disk_full is None:
                log.error("the disk of %s has only %d bytes free: records are refused", self._data, free)
            gate.disk_full = (
                f"node {self._node_id}: the disk of {self._data} has {free} bytes free, less than "
                f"disk_free_bytes_min = {self._free_bytes_min}"
                if full
                else None
            )
            await asyncio.sleep(CHECK_SECONDS)
