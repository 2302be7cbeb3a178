"""How records are written to standard output."""

import base64
import json
from collections.abc import Callable

from quorumlog.cli.errors import UsageError
from quorumlog.cli.output import as_text
from quorumlog.records import Record

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}


def _timestamp_ms(record: Record) -> int:
    return round(record.timestamp * 1000)


_FIELDS: dict[str, Callable[[Record], bytes]] = {
    "k": lambda record: record.key or b"",
    "v": lambda record: record.value or b"",
    "t": lambda record: record.topic.encode(),
    "p": lambda record: b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "T": lambda record: b"%d" % _timestamp_ms(record),
    "e": lambda record: b"%d" % record.leader_epoch,
    "h": lambda record: b",".join(name.encode() + b"=" + (value or b"") for name, value in record.headers),
}

FORMAT_HELP = (
    "%%k key, %%v value, %%t topic, %%p partition, %%o offset, %%T timestamp in ms, %%e leader epoch, %%h headers, "
    "%%%% a percent sign, \\n \\t \\0 as in C; a line end follows each record (default '%%v')"
)
"""For argparse, which wants percent signs doubled."""


def unescape(text: str) -> str:
    r"""Return `text` with \n, \t, \r, \0 and \\ read as in C; other backslashes stay."""
    result = []
    characters = iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            result.append(_ESCAPES.get(following, "\\" + following))
        else:
            result.append(character)
    return "".join(result)


def formatter(text: str) -> Callable[[Record], bytes]:
    """Return the function that writes a record as `text` says.

    Raises:
        UsageError: it has a field that is not known.
    """
    parts: list[Callable[[Record], bytes]] = []
    pieces = iter(unescape(text).split("%"))
    parts.append(_constant(next(pieces)))
    for piece in pieces:
        if not piece:  # two percent signs in a row
            parts.append(_constant("%" + next(pieces, "")))
            continue
        field = _FIELDS.get(piece[0])
        if field is None:
            known = " ".join(f"%{name}" for name in _FIELDS)
            raise UsageError(f"--format has %{piece[0]}, which is not known", f"use {known} or %%")
        parts += [field, _constant(piece[1:])]

    def write(record: Record) -> bytes:
        return b"".join(part(record) for part in parts) + b"\n"

    return write


def _constant(text: str) -> Callable[[Record], bytes]:
    data = text.encode()
    return lambda _: data


def record_json(record: Record) -> bytes:
    """Return a record as one line of JSON with stable keys.

    `timestamp_ms` counts from 1970-01-01 UTC, like %T. What is not UTF-8 stands under `key_base64` or `value_base64`
    instead of `key` or `value`.
    """
    fields: dict[str, object] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": _timestamp_ms(record),
        "leader_epoch": record.leader_epoch,
        **_field("key", record.key),
        **_field("value", record.value),
        "headers": [{"name": name, **_field("value", value)} for name, value in record.headers],
    }
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def _field(name: str, data: bytes | None) -> dict[str, str | None]:
    text = as_text(data) if data is not None else None
    if data is None or text is not None:
        return {name: text}
    return {f"{name}_base64": base64.b64encode(data).decode()}
