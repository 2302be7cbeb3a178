"""Compares what was acknowledged, what every replica holds and what was consumed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from quorumlog.demo.files import Ack, Consumed
from quorumlog.demo.replicas import Log
from quorumlog.demo.samples import Identity

EXAMPLES_MAX = 10

Replicas = Mapping[tuple[int, int], Log]
"""(partition, node id) -> what that node holds of that partition."""


@dataclass(slots=True)
class Verdict:
    """Numbers of records, and examples of what is wrong.

    A record is lost if it was acknowledged and a replica does not hold it at its offset, or no member was given it; if
    replicas hold different records where it is; or if a member was given it where no replica holds it. It is doubled if
    a replica holds it at two offsets, or members were given it twice. `longest_stall` is the longest time in seconds
    that a record waited for its acknowledgement.
    """

    records: int
    lost: int = 0
    duplicated: int = 0
    longest_stall: float = 0.0
    examples: list[str] = field(default_factory=list)


def compare(acks: Sequence[Ack], replicas: Replicas, consumed: Iterable[Consumed]) -> Verdict:
    """Return the verdict. Every record is counted once, however many replicas lack it."""
    given = Counter(consumed)
    places = {place: _places(log) for place, log in replicas.items()}
    lost = {
        **_differing(replicas),
        **_invented(given, replicas),
        **_not_given(acks, given),
        **_not_held(acks, replicas, places),
    }
    doubled = {
        identity: f"{_name(identity)} is there twice: offsets {offsets} of partition {partition} on node {node}"
        for (partition, node), where in places.items()
        for identity, offsets in where.items()
        if len(offsets) > 1
    }
    doubled.update(
        (record.identity, f"{_name(record.identity)} was given to members {times} times")
        for record, times in given.items()
        if times > 1
    )
    return Verdict(
        records=len(acks),
        lost=len(lost),
        duplicated=len(doubled),
        longest_stall=max((ack.acked_at - ack.sent_at for ack in acks), default=0.0),
        examples=[*lost.values(), *doubled.values()][:EXAMPLES_MAX],
    )


def _places(log: Log) -> dict[Identity, list[int]]:
    where: dict[Identity, list[int]] = {}
    for offset, identity in log.items():
        where.setdefault(identity, []).append(offset)
    return where


def _not_held(
    acks: Iterable[Ack], replicas: Replicas, places: Mapping[tuple[int, int], Mapping[Identity, list[int]]]
) -> dict[Identity, str]:
    nodes: dict[int, list[int]] = {}
    for partition, node in sorted(replicas):
        nodes.setdefault(partition, []).append(node)
    lost = {}
    for ack in acks:
        lacking = []
        for node in nodes.get(ack.partition, [0]):
            place = (ack.partition, node)
            if ack.offset < 0:  # appended, at an offset that the leader no longer knew
                held = ack.identity in places.get(place, {})
            else:
                held = replicas.get(place, {}).get(ack.offset) == ack.identity
            if not held:
                lacking.append(node)
        if lacking:
            where = "no replica was read" if lacking == [0] else f"not there on node {', '.join(map(str, lacking))}"
            lost[ack.identity] = (
                f"{_name(ack.identity)} was acknowledged at offset {ack.offset} of partition {ack.partition}: {where}"
            )
    return lost


def _not_given(acks: Iterable[Ack], given: Mapping[Consumed, int]) -> dict[Identity, str]:
    known = {record.identity for record in given}
    return {
        ack.identity: f"{_name(ack.identity)} was acknowledged, but no member was given it"
        for ack in acks
        if ack.identity not in known
    }


def _invented(given: Iterable[Consumed], replicas: Replicas) -> dict[Identity, str]:
    logs: dict[int, list[Log]] = {}
    for (partition, _), log in replicas.items():
        logs.setdefault(partition, []).append(log)
    return {
        record.identity: f"{_name(record.identity)} was given to a member at offset {record.offset} of partition "
        f"{record.partition}, where a replica holds something else"
        for record in given
        if any(log.get(record.offset) != record.identity for log in logs.get(record.partition, [{}]))
    }


def _differing(replicas: Replicas) -> dict[Identity, str]:
    first: dict[int, Log] = {}
    differing = {}
    for (partition, node), log in sorted(replicas.items(), key=lambda entry: entry[0]):
        reference = first.setdefault(partition, log)
        for offset, identity in reference.items():
            if log.get(offset, identity) != identity:
                differing[identity] = f"node {node} holds something else at offset {offset} of partition {partition}"
    return differing


def _name(identity: Identity) -> str:
    return f"record {identity.sequence} of producer {identity.producer}"
