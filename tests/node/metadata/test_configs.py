"""The configs of a topic: what they mean, and that a wrong one is told with its name and its fix."""

import pytest

from quorumlog.node.metadata.configs import CONFIGS, altered, describe_configs, effective, validate_configs
from quorumlog.proto import client_pb2 as pb
from tests.node.metadata.founded import bad, good


def test_without_configs_the_defaults_are_in_force() -> None:
    config = effective(good(validate_configs({})))
    assert config.durability == "durable"
    assert config.retention_ms == 7 * 24 * 3600 * 1000
    assert config.retention_bytes is None
    assert config.max_message_bytes == 1024 * 1024
    assert not config.append_time


def test_set_configs_are_in_force() -> None:
    valid = good(
        validate_configs(
            {
                "retention.ms": "-1",
                "retention.bytes": "2000000",
                "max.message.bytes": "1000",
                "message.timestamp.type": "LogAppendTime",
                "durability": "durable",
            }
        )
    )
    config = effective(valid)
    assert config.retention_ms is None
    assert config.retention_bytes == 2_000_000
    assert config.max_message_bytes == 1000
    assert config.append_time


def test_values_are_stored_in_one_form() -> None:
    assert good(validate_configs({"retention.ms": "0060"})) == {"retention.ms": "60"}


@pytest.mark.parametrize(
    ("configs", "named", "fix"),
    [
        ({"retention.msec": "5"}, "'retention.msec'", "did you mean retention.ms?"),
        ({"zzz": "5"}, "'zzz'", "retention.bytes"),
        ({"durability": "replicated"}, "durability=replicated", "later version"),
        ({"durability": "none"}, "durability=none", "durable"),
        ({"retention.ms": "0"}, "retention.ms=0", "-1 for no limit"),
        ({"retention.ms": "-5"}, "retention.ms=-5", "-1 for no limit"),
        ({"retention.ms": "7 days"}, "retention.ms=7 days", "whole number"),
        ({"retention.ms": "9" * 5000}, "retention.ms=999", "whole number"),
        ({"max.message.bytes": "-1"}, "max.message.bytes=-1", "whole number from 1"),
        ({"max.message.bytes": "99999999999"}, "max.message.bytes=99999999999", "16777216"),
        ({"message.timestamp.type": "createtime"}, "message.timestamp.type=createtime", "CreateTime"),
        ({"retention.bytes": "500"}, "retention.bytes=500", "lower max.message.bytes"),
        ({"retention.bytes": "5000", "max.message.bytes": "6000"}, "max.message.bytes=6000", "raise retention.bytes"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_name_and_with_the_fix(
    configs: dict[str, str], named: str, fix: str
) -> None:
    error = bad(validate_configs(configs))
    assert error.code == pb.INVALID_CONFIG
    assert named in error.message
    assert fix in error.hint


def test_altering_checks_the_configs_as_a_whole() -> None:
    error = bad(altered({"max.message.bytes": "1000", "retention.bytes": "2000"}, {}, ["max.message.bytes"]))
    assert error.code == pb.INVALID_CONFIG
    assert "max.message.bytes=1048576" in error.message
    assert "retention.bytes=2000" in error.message


@pytest.mark.parametrize(
    ("set_", "reset", "named"),
    [({}, ["retention.mss"], "retention.mss"), ({"retention.ms": "5"}, ["retention.ms"], "both set and reset")],
)
def test_altering_what_cannot_be_altered(set_: dict[str, str], reset: list[str], named: str) -> None:
    assert named in bad(altered({}, set_, reset)).message


def test_describing_shows_every_config_with_its_help() -> None:
    entries = {entry.name: entry for entry in describe_configs({"retention.ms": "5"})}
    assert entries.keys() == CONFIGS.keys()
    assert (entries["retention.ms"].value, entries["retention.ms"].is_default) == ("5", False)
    assert (entries["durability"].value, entries["durability"].is_default) == ("durable", True)
    assert all(entry.help for entry in entries.values())
