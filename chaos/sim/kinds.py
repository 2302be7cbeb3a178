"""The kinds of faults, and how often each strikes compared with the others. A weight of 0 switches a kind off."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from quorumlog.chaos.sim import disks, networks, operators, processes
from quorumlog.chaos.sim.field import Field

Strike = Callable[[Field, random.Random], bool]
"""Does it, and tells whether it bit."""


class Kind(NamedTuple):
    """One kind of fault."""

    weight: float
    strike: Strike


KINDS: Final[dict[str, Kind]] = {
    "alone": Kind(3, networks.alone),
    "halves": Kind(3, networks.halves),
    "ring": Kind(2, networks.ring),
    "bridge": Kind(2, networks.bridge),
    "one_way": Kind(3, networks.one_way),
    "flapping": Kind(2, networks.flapping),
    "clients_cut": Kind(2, networks.clients_cut),
    "kill": Kind(4, processes.kill),
    "kill_leader": Kind(4, processes.kill_leader),
    "power_cut": Kind(1.5, processes.power_cut),
    "restart_in_repair": Kind(3, processes.restart_in_repair),
    "stop": Kind(2, processes.stop),
    "pause": Kind(3, processes.pause),
    "pause_leader": Kind(3, processes.pause_leader),
    "clock_rate": Kind(2, processes.clock_rate),
    "clock_leap": Kind(2, processes.clock_leap),
    "wall_jump": Kind(2, processes.wall_jump),
    "slow_syncs": Kind(3, disks.slow_syncs),
    "hung_syncs": Kind(3, disks.hung_syncs),
    "write_stall": Kind(2, disks.write_stall),
    "full_disk": Kind(2, disks.full_disk),
    "sync_error": Kind(2, disks.sync_error),
    "torn_log": Kind(2, disks.torn_log),
    "lost_database": Kind(3, disks.lost_database),
    "lost_watermark": Kind(2, disks.lost_watermark),
    "lost_votes": Kind(2, disks.lost_votes),
    "flipped_bit": Kind(4, disks.flipped_bit),
    "wiped": Kind(3, disks.wiped),
    "transfer": Kind(4, operators.transfer),
    "recreate": Kind(4, operators.recreate),
    "reassign": Kind(4, operators.reassign),
    "drain": Kind(2, operators.drain),
    "add_node": Kind(2, operators.add_node),
    "remove_node": Kind(2, operators.remove_node),
    "replace_member": Kind(3, operators.replace_member),
}
