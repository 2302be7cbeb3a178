"""Durations and points in time as users write them."""

import math
from datetime import UTC, datetime, timedelta

from quorumlog.errors import InvalidRequest

Duration = float | int | timedelta
"""Seconds, or a timedelta."""

Timeout = Duration | None
"""A duration; None means no limit."""

When = datetime | float | int
"""A point in time: a datetime (naive ones are local time, as everywhere in Python), or seconds since 1970-01-01 UTC."""


def seconds(name: str, value: Duration) -> float:
    """Return `value` in seconds; `name` is the option it was given for.

    Raises:
        InvalidRequest: it is negative or not a number.
    """
    result = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if math.isnan(result) or result < 0:
        raise InvalidRequest(f"{name}={value!r} is not a duration", hint="give seconds of at least 0, or a timedelta")
    return result


def milliseconds_32(name: str, value: Duration) -> float:
    """Return `value` in seconds, for what travels as milliseconds in 32 bits.

    Raises:
        InvalidRequest: it is no duration, or longer than that.
    """
    result = seconds(name, value)
    if result * 1000 >= 1 << 32:
        raise InvalidRequest(f"{name}={value!r} is too long", hint="give at most 49 days")
    return result


def limit(name: str, value: Timeout) -> float | None:
    """Return a timeout in seconds, or None where there is no limit."""
    if value is None:
        return None
    result = seconds(name, value)
    return None if math.isinf(result) else result


def timestamp_ms(name: str, value: When) -> int:
    """Return a point in time as milliseconds since 1970-01-01 UTC.

    Raises:
        InvalidRequest: it lies before 1970 or is not a time.
    """
    stamp = value.astimezone(UTC).timestamp() if isinstance(value, datetime) else float(value)
    if not 0 <= stamp < 1e11:
        raise InvalidRequest(
            f"{name}={value!r} is not a time",
            hint="give a datetime, or seconds (not milliseconds) since 1970-01-01 UTC",
        )
    return round(stamp * 1000)
