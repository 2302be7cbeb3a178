"""The configs of a topic: one table, read for validation, for defaults and for the help that `topic describe` shows.

Names and meanings are Kafka's where Kafka has the same thing, so that users know them. Values travel and are stored
as text, only those that were set: a default that a later version changes then changes for everyone who never chose.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error

NO_LIMIT: Final = -1
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest `max.message.bytes`: a batch must fit into one message between nodes with room to spare."""


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """The configs of a topic as values. None means no limit; sizes are bytes per partition or per batch."""

    retention_ms: int | None
    retention_bytes: int | None
    max_message_bytes: int
    durability: str
    append_time: bool


@dataclass(frozen=True, slots=True)
class _Config:
    """One row: `choices` for a word, else a whole number in `minimum..maximum`, or NO_LIMIT where `limitless`."""

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    minimum: int = 1
    maximum: int = 2**63 - 1
    limitless: bool = False

    def problem(self, value: str) -> tuple[str, str] | None:
        """Return what is wrong with `value` and the fix, or None."""
        if self.choices:
            if value in self.choices:
                return None
            return f"{self.name}={value} is not a value of {self.name}", f"use one of: {', '.join(self.choices)}"
        if re.fullmatch(r"-?[0-9]{1,19}", value) is None:
            return f"{self.name}={value[:40]} is not a whole number", self._range()
        number = int(value)
        if self.minimum <= number <= self.maximum or (self.limitless and number == NO_LIMIT):
            return None
        return f"{self.name}={value} is out of range", self._range()

    def canonical(self, value: str) -> str:
        """Return a valid value in its one written form."""
        return value if self.choices else str(int(value))

    def _range(self) -> str:
        limitless = f", or {NO_LIMIT} for no limit" if self.limitless else ""
        return f"use a whole number from {self.minimum} to {self.maximum}{limitless}"


DURABLE: Final = "durable"
REPLICATED: Final = "replicated"
CREATE_TIME: Final = "CreateTime"
APPEND_TIME: Final = "LogAppendTime"

_ROWS: Final = (
    _Config(
        "durability",
        DURABLE,
        "When a record is acknowledged. durable: a majority of replicas has synced it to disk.",
        choices=(DURABLE,),
    ),
    _Config(
        "max.message.bytes",
        str(1024 * 1024),
        "The largest batch that is accepted, in bytes as sent (compressed).",
        maximum=MESSAGE_BYTES_MAX,
    ),
    _Config(
        "message.timestamp.type",
        CREATE_TIME,
        "Whose clock a record's timestamp is: the producer's (CreateTime) or the leader's (LogAppendTime).",
        choices=(CREATE_TIME, APPEND_TIME),
    ),
    _Config(
        "retention.bytes",
        str(NO_LIMIT),
        "How large a partition may grow before its oldest records are deleted; -1: no limit.",
        limitless=True,
    ),
    _Config(
        "retention.ms",
        str(7 * 24 * 3600 * 1000),
        "How long records are kept at least before they may be deleted, in milliseconds; -1: for ever.",
        limitless=True,
    ),
)
CONFIGS: Final = {row.name: row for row in _ROWS}


def validate_configs(configs: Mapping[str, str]) -> dict[str, str] | pb.Error:
    """Return `configs` in canonical form, or INVALID_CONFIG that names the first thing wrong and its fix."""
    valid = {}
    for name, value in sorted(configs.items()):
        row = CONFIGS.get(name)
        if row is None:
            return unknown_config(name)
        if (name, value) == ("durability", REPLICATED):
            return make_error(
                pb.INVALID_CONFIG,
                f"durability={REPLICATED} is not there yet",
                hint=f"leave durability at {DURABLE}; {REPLICATED} comes with a later version",
            )
        if (problem := row.problem(value)) is not None:
            message, hint = problem
            return make_error(pb.INVALID_CONFIG, message, hint=hint)
        valid[name] = row.canonical(value)
    return _contradiction(valid) or valid


def unknown_config(name: str) -> pb.Error:
    """Return the error for a config that is not in the table, with the name that was probably meant."""
    near = difflib.get_close_matches(name, list(CONFIGS), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"the configs are: {', '.join(CONFIGS)}"
    return make_error(pb.INVALID_CONFIG, f"config {name!r} does not exist", hint=hint)


def _contradiction(configs: Mapping[str, str]) -> pb.Error | None:
    values = effective(configs)
    if values.retention_bytes is not None and values.max_message_bytes > values.retention_bytes:
        return make_error(
            pb.INVALID_CONFIG,
            f"max.message.bytes={values.max_message_bytes} is larger than retention.bytes={values.retention_bytes}: "
            "one batch would exceed all that the partition may keep",
            hint="raise retention.bytes or lower max.message.bytes",
        )
    return None


def effective(configs: Mapping[str, str]) -> TopicConfig:
    """Return the values in force for a topic with these valid configs set. Names of a later version are passed over."""

    def number(name: str) -> int:
        return int(configs.get(name, CONFIGS[name].default))

    def limit(name: str) -> int | None:
        value = number(name)
        return None if value == NO_LIMIT else value

    return TopicConfig(
        retention_ms=limit("retention.ms"),
        retention_bytes=limit("retention.bytes"),
        max_message_bytes=number("max.message.bytes"),
        durability=configs.get("durability", DURABLE),
        append_time=configs.get("message.timestamp.type", CREATE_TIME) == APPEND_TIME,
    )


def describe_configs(configs: Mapping[str, str]) -> list[pb.ConfigEntry]:
    """Return every config there is, with the value in force for a topic with these configs set."""
    return [
        pb.ConfigEntry(
            name=row.name,
            value=configs.get(row.name, row.default),
            is_default=row.name not in configs,
            help=row.help,
        )
        for row in _ROWS
    ]


def altered(configs: Mapping[str, str], set_: Mapping[str, str], reset: Iterable[str]) -> dict[str, str] | pb.Error:
    """Return `configs` with some set and some back at their default, validated as a whole, or INVALID_CONFIG."""
    after = dict(configs)
    for name in reset:
        if name not in CONFIGS:
            return unknown_config(name)
        if name in set_:
            return make_error(
                pb.INVALID_CONFIG, f"config {name!r} is both set and reset", hint="ask for one of the two"
            )
        after.pop(name, None)
    after.update(set_)
    return validate_configs(after)
