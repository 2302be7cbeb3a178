"""How long the judge takes, and how much memory: `python -m tests.chaos.big_history FOLDER [RECORDS]`.

Writes a legal history of the model with so many record events (a record that was sent, or read by anybody) into a new
folder, judges it in a process of its own, and prints what that took.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.model import LONG, World
from tests.chaos.model_groups import lawful


def records_in(world: World) -> int:
    """Count record events."""
    return sum(len(line.get("vals", ())) + len(line.get("recs", ())) for line in world.lines)


def main(folder: Path, records: int) -> int:
    """Write, judge, print; returns the exit code of the judge."""
    seed = next(seed for seed in range(100) if World(seed).retention is None)
    per_length = records_in(lawful(seed, 4 * LONG)) / (4 * LONG)
    world = lawful(seed, int(records / per_length))
    world.save(folder)
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", "quorumlog.chaos.judge", str(folder)], check=False)
    told = {
        "record_events": records_in(world),
        "lines": len(world.lines),
        "bytes": sum(path.stat().st_size for path in (folder / "history").iterdir()),
        "seconds": round(time.monotonic() - began, 1),
        "rss_max_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }
    print(json.dumps(told))
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000))
