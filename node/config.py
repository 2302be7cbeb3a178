"""The configuration of one node: a TOML file, checked as a whole before anything is opened."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from quorumlog.node.errors import NodeError


class ConfigError(NodeError):
    """The configuration cannot be used; the message names the file, the setting and the fix."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Settings of one node.

    Addresses are `host:port`. `client_address` and `peer_address` are where the node listens and, unless the advertised
    ones are given, what it tells others. Times are seconds. `moving_groups_max` is how many partitions the cluster
    heals or empties off a drained node at once, while this node leads its metadata. All logs are read through, so that
    what the disk has damaged is found and mended: no faster than `scrub_bytes_per_second` (0: never), and no more often
    than every `scrub_period_seconds`.
    """

    node_id: int
    data: Path
    client_address: str
    peer_address: str
    client_advertised: str = ""
    peer_advertised: str = ""
    host: str = ""
    rack: str = ""
    cluster_id: str = ""
    coordination: bool = True
    tick_seconds: float = 0.1
    election_ticks: int = 10
    heartbeat_ticks: int = 2
    produce_timeout_seconds: float = 30.0
    retention_check_seconds: float = 5.0
    moving_groups_max: int = 8
    snapshot_bytes_per_second: float = 50e6
    scrub_bytes_per_second: float = 8 << 20
    scrub_period_seconds: float = 86_400.0
    disk_free_bytes_min: int = 64 << 20
    stop_timeout_seconds: float = 10.0
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not 1 <= self.node_id < 1 << 31:
            raise ConfigError(
                f"node_id = {self.node_id} is not possible: use a number from 1 on, different on each node"
            )
        for name in ("client_address", "peer_address"):
            split_address(getattr(self, name), name)
        for name in ("client_advertised", "peer_advertised"):
            if getattr(self, name) and split_address(getattr(self, name), name)[1] == 0:
                raise ConfigError(f"{name} = {getattr(self, name)!r} names no port that others could connect to")
        if self.client_address == self.peer_address and not self.client_address.endswith(":0"):
            raise ConfigError(
                f"client_address and peer_address are both {self.client_address}: clients and peers need a port each"
            )
        for name, least, most in SECONDS_BETWEEN:
            if not least <= getattr(self, name) <= most:  # so that a NaN is refused as well
                raise ConfigError(f"{name} = {getattr(self, name)} is not between {least:g} and {most:g} seconds")
        if not 1e3 <= self.snapshot_bytes_per_second <= 1e12:
            raise ConfigError(
                f"snapshot_bytes_per_second = {self.snapshot_bytes_per_second} is not between 1e3 and 1e12"
            )
        if self.scrub_bytes_per_second != 0 and not 1e3 <= self.scrub_bytes_per_second <= 1e12:
            raise ConfigError(
                f"scrub_bytes_per_second = {self.scrub_bytes_per_second} is neither between 1e3 and 1e12 nor 0, which "
                "turns it off"
            )
        if self.moving_groups_max < 1:
            raise ConfigError(f"moving_groups_max = {self.moving_groups_max} would let nothing heal: use 1 or more")
        if self.disk_free_bytes_min < 0:
            raise ConfigError(f"disk_free_bytes_min = {self.disk_free_bytes_min} is negative: use 0 to check nothing")
        if not 0 < self.heartbeat_ticks * 2 <= self.election_ticks:
            raise ConfigError(
                f"heartbeat_ticks = {self.heartbeat_ticks} and election_ticks = {self.election_ticks} contradict each "
                "other: an election must wait for at least two heartbeats"
            )
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(f"log_level = {self.log_level!r} is not one of {', '.join(LOG_LEVELS)}")
        if self.cluster_id and not _is_uuid(self.cluster_id):
            raise ConfigError(
                f"cluster_id = {self.cluster_id!r} is not a UUID: copy it from `quorumlog cluster status`"
            )

    @property
    def cluster_id_bytes(self) -> bytes | None:
        """The cluster this node must belong to, None when any will do."""
        return bytes.fromhex(self.cluster_id.replace("-", "")) if self.cluster_id else None


SECONDS_BETWEEN: Final = (
    ("tick_seconds", 0.001, 10.0),
    ("produce_timeout_seconds", 0.001, 86_400.0),
    ("retention_check_seconds", 0.001, 86_400.0),
    ("scrub_period_seconds", 0.001, 1e9),
    ("stop_timeout_seconds", 0.0, 86_400.0),
)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


def split_address(address: str, name: str) -> tuple[str, int]:
    """(host, port) of `host:port`; `name` is for the message. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{name} = {address!r} is not host:port, such as 127.0.0.1:7070")
    return host.strip("[]"), int(port)


def load_config(path: Path) -> NodeConfig:
    """Read a TOML file with the settings of NodeConfig at its top level. Raises ConfigError.

    `data` may be relative to the file's folder.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; give the path of a node.toml with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not TOML: it is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return config_from(table, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def config_from(table: Mapping[str, object], folder: Path) -> NodeConfig:
    """Build the configuration from parsed TOML. Raises ConfigError, which names an unknown or mistyped setting."""
    types = {field.name: str(field.type) for field in fields(NodeConfig)}
    values: dict[str, object] = {}
    for name, value in table.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            hint = f"did you mean {near[0]}?" if near else f"settings are {', '.join(types)}"
            raise ConfigError(f"unknown setting {name!r}: {hint}")
        values[name] = _convert(name, types[name], value, folder)
    missing = [name for name in ("node_id", "data", "client_address", "peer_address") if name not in values]
    if missing:
        raise ConfigError(f"setting {missing[0]!r} is missing")
    return NodeConfig(**values)  # type: ignore[arg-type]  # checked field by field above


def _convert(name: str, kind: str, value: object, folder: Path) -> object:
    if kind == "Path" and isinstance(value, str):
        return (folder / value).resolve()
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    expected = {"int": int, "str": str, "bool": bool}.get(kind)
    if expected is None or not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"{name} = {value!r} must be of type {kind if kind != 'Path' else 'str'}")
    return value


def _is_uuid(text: str) -> bool:
    digits = text.replace("-", "")
    return len(digits) == 32 and all(digit in "0123456789abcdefABCDEF" for digit in digits)
