"""Offsets and partitions as users write them, checked before they travel."""

import operator
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from quorumlog.errors import InvalidRequest
from quorumlog.records import Offset

OFFSET_MAX = (1 << 63) - 1
PARTITION_MAX = (1 << 31) - 1

Partitions: TypeAlias = Mapping[str, Sequence[int] | Mapping[int, int | Offset]]
"""Topic to partitions, or to partitions with the offset each begins at."""


def whole_number(name: str, given: object, most: int = OFFSET_MAX) -> int:
    """Return `given` as an int from 0 to `most`; `name` is what it was given for.

    Raises:
        InvalidRequest: it is no whole number, or out of range.
    """
    try:
        number = operator.index(given)  # type: ignore[arg-type] # whether it can be one is found out here
    except TypeError:
        raise InvalidRequest(
            f"{name}={given!r} is of type {type(given).__name__}", hint="give a whole number, an int"
        ) from None
    if not 0 <= number <= most:
        raise InvalidRequest(f"{name}={number} is not possible", hint=f"give at least 0 and at most {most}")
    return int(number)


def to_offset(name: str, given: int | Offset) -> Offset:
    """Return an offset with or without its leader epoch, checked as by `whole_number`."""
    offset, epoch = given if isinstance(given, Offset) else (given, None)
    return Offset(whole_number(name, offset), None if epoch is None else whole_number(f"leader_epoch of {name}", epoch))


def check_partitions(given: Partitions) -> dict[str, list[int] | dict[int, Offset]]:
    """Return `partitions=` of a consumer with every number in it checked.

    Raises:
        InvalidRequest: it is no mapping, or holds something that is no partition or no offset.
    """
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"partitions={given!r} is no mapping", hint='write it like {"orders": [0, 1]}')
    checked: dict[str, list[int] | dict[int, Offset]] = {}
    for topic, chosen in given.items():
        numbers = [whole_number(f"partition of {topic}", number, PARTITION_MAX) for number in chosen]
        if isinstance(chosen, Mapping):
            places = zip(numbers, chosen.values(), strict=True)
            checked[topic] = {number: to_offset(f"offset of {topic}[{number}]", place) for number, place in places}
        else:
            checked[topic] = numbers
    return checked
