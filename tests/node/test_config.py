"""The configuration: every refusal names the setting and what to write instead."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from quorumlog.node.config import ConfigError, NodeConfig, load_config

GOOD = """
node_id = 1
data = "data"
client_address = "127.0.0.1:7070"
peer_address = "127.0.0.1:7170"
"""


def load(folder: Path, text: str | bytes) -> NodeConfig:
    path = folder / "node.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as refused:
        load(folder, text)
    message = str(refused.value)
    assert message.startswith(str(folder / "node.toml")), "the file is named first"
    return message


def test_the_four_settings_that_are_needed_are_enough(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.data == tmp_path / "data", "relative to the file"
    assert config.coordination
    assert config.cluster_id_bytes is None


def test_whole_seconds_are_seconds(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "stop_timeout_seconds = 3").stop_timeout_seconds == 3.0


def test_scrubbing_has_a_rate_a_period_and_an_end(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert (config.scrub_bytes_per_second, config.scrub_period_seconds) == (8 << 20, 86_400.0)
    config = load(tmp_path, GOOD + "scrub_bytes_per_second = 1_000_000\nscrub_period_seconds = 3600")
    assert (config.scrub_bytes_per_second, config.scrub_period_seconds) == (1e6, 3600.0)
    assert load(tmp_path, GOOD + "scrub_bytes_per_second = 0").scrub_bytes_per_second == 0


def test_a_cluster_id_is_taken_with_or_without_hyphens(tmp_path: Path) -> None:
    with_hyphens = load(tmp_path, GOOD + 'cluster_id = "00112233-4455-6677-8899-aabbccddeeff"')
    assert with_hyphens.cluster_id_bytes == bytes.fromhex("00112233445566778899aabbccddeeff")


@pytest.mark.parametrize("missing", ["node_id", "data", "client_address", "peer_address"])
def test_a_setting_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(missing))
    assert f"{missing!r} is missing" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("tick_second = 1", "did you mean tick_seconds?"),
        ("zzz = 1", "settings are node_id"),
        ('tick_seconds = "fast"', "tick_seconds = 'fast' must be of type float"),
        ("election_ticks = true", "election_ticks = True must be of type int"),
        ("coordination = 1", "coordination = 1 must be of type bool"),
        ("tick_seconds = nan", "tick_seconds = nan is not between 0.001 and 10"),
        ("tick_seconds = 0", "tick_seconds = 0.0 is not between 0.001 and 10"),
        ("produce_timeout_seconds = nan", "produce_timeout_seconds = nan is not between"),
        ("produce_timeout_seconds = -1", "produce_timeout_seconds = -1.0 is not between"),
        ("retention_check_seconds = inf", "retention_check_seconds = inf is not between"),
        ("stop_timeout_seconds = -0.5", "stop_timeout_seconds = -0.5 is not between"),
        ("disk_free_bytes_min = -1", "disk_free_bytes_min = -1 is negative: use 0"),
        ("scrub_bytes_per_second = -1", "neither between 1e3 and 1e12 nor 0, which turns it off"),
        ("scrub_bytes_per_second = nan", "scrub_bytes_per_second = nan is neither"),
        ("scrub_period_seconds = 0", "scrub_period_seconds = 0.0 is not between"),
        ("moving_groups_max = 0", "moving_groups_max = 0 would let nothing heal"),
        ("heartbeat_ticks = 6", "heartbeat_ticks = 6 and election_ticks = 10 contradict each other"),
        ("heartbeat_ticks = 0", "heartbeat_ticks = 0"),
        ('log_level = "loud"', "log_level = 'loud' is not one of debug, info"),
        ('cluster_id = "mine"', "cluster_id = 'mine' is not a UUID"),
        ('client_advertised = "example.org"', "client_advertised = 'example.org' is not host:port"),
        ('peer_advertised = "example.org:0"', "names no port"),
        ("this is no TOML", "is not TOML"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_its_fix(tmp_path: Path, line: str, named: str) -> None:
    assert named in refusal(tmp_path, GOOD + line)


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ("node_id = 1", "node_id = 0", "use a number from 1 on"),
        ("node_id = 1", "node_id = 2147483648", "node_id = 2147483648 is not possible"),
        ("127.0.0.1:7170", "127.0.0.1:7070", "both 127.0.0.1:7070: clients and peers need a port each"),
        ("127.0.0.1:7170", "7170", "peer_address = '7170' is not host:port"),
        ("127.0.0.1:7170", "host:port", "peer_address = 'host:port' is not host:port"),
        ("127.0.0.1:7170", "host:70000", "is not host:port"),
    ],
)
def test_values_that_are_needed_are_checked(tmp_path: Path, good: str, bad: str, named: str) -> None:
    assert named in refusal(tmp_path, GOOD.replace(good, bad))


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml.*--config"):
        load_config(tmp_path / "none.toml")


def test_every_time_has_its_bounds(tmp_path: Path) -> None:
    times = [field.name for field in fields(NodeConfig) if field.name.endswith("_seconds")]
    for name in times:
        assert name in refusal(tmp_path, GOOD + f"{name} = nan")
