"""Every fault by the name that `--faults` and schedules call it."""

from __future__ import annotations

from quorumlog.chaos.faults.disks import Delete, Flip, Truncate, Wipe
from quorumlog.chaos.faults.fault import Fault
from quorumlog.chaos.faults.leadership import Transfer
from quorumlog.chaos.faults.links import Bridge, Delay, Flapping, Halves, Isolate, OneWay, Rate, Reset, Ring, Stall
from quorumlog.chaos.faults.processes import Kill, KillAll, Pause, RestartStorm, Rolling

FAULTS: dict[str, type[Fault]] = {
    fault.kind: fault
    for fault in (
        Kill,
        KillAll,
        Pause,
        RestartStorm,
        Rolling,
        Transfer,
        Halves,
        Isolate,
        OneWay,
        Ring,
        Bridge,
        Flapping,
        Delay,
        Rate,
        Stall,
        Reset,
        Flip,
        Truncate,
        Delete,
        Wipe,
    )
}
