"""A node whose syncs of the database wait while a file named `hold` stands beside its configuration."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

from quorumlog.node.config import load_config
from quorumlog.node.server import NodeServer
from quorumlog.node.storage.interface import RecoveryMode
from quorumlog.node.storage.rocks import RocksStorage

LOOK_SECONDS = 0.005


class HeldStorage(RocksStorage):
    """RocksDB with a sync that can be held back; it waits in the thread in which the node syncs.

    Args:
        path: the database's folder.
        mode: how to recover.
        hold: the file that holds it.
    """

    def __init__(self, path: Path, mode: RecoveryMode, hold: Path) -> None:
        self._hold = hold
        super().__init__(path, mode)

    def sync(self) -> None:
        while self._hold.exists():
            time.sleep(LOOK_SECONDS)
        super().sync()


async def serve(path: Path) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = NodeServer(load_config(path), lambda folder, mode: HeldStorage(folder, mode, path.parent / "hold"))
    await server.start()
    server.failed.add_done_callback(lambda _: stopping.set())
    await stopping.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[sys.argv.index("--config") + 1])))
