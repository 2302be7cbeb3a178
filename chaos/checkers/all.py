"""Every checker, by the code of what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quorumlog.chaos.checkers import groups, leadership, losses, metadata, order, reads, register, replicas, values
from quorumlog.chaos.checkers.anomaly import Checker

CHECKERS: Final[Mapping[str, Checker]] = {
    "K1": losses.lost_writes,
    "K2": values.duplicates,
    "K3": values.inconsistent_offsets,
    "K4": values.aborted_reads,
    "K5": values.phantoms,
    "K6": order.realtime_order,
    "K7": order.program_order,
    "K8": order.torn_batches,
    "K9": reads.skips,
    "K10": reads.stale_reads,
    "K11": reads.past_bounds,
    "K12": losses.lost_reads,
    "K13": leadership.two_leaders,
    "K14": leadership.early_trims,
    "K15": losses.not_drained,
    "K16": replicas.divergences,
    "K17": replicas.sequence_gaps,
    "K18": replicas.zombies,
    "K19": values.wrong_acknowledgements,
    "K23": values.circles,
    "K28": register.group_registers,
    "K29": groups.fenced_commits,
    "K30": groups.double_owners,
    "K31": groups.commit_skips,
    "K32": groups.redeliveries,
    "K33": metadata.decisions,
}
"""K20 to K22 and K25 to K27 are about transactions, which there are none; K24 is counted where there are."""
