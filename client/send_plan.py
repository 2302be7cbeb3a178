"""What users hand to a producer, checked and cut to size."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from quorumlog.errors import InvalidRequest, Outcome, RecordTooLarge
from quorumlog.partitioner import StickyPartitioner
from quorumlog.pending import RECORD_OVERHEAD_BYTES, Headers
from quorumlog.proto.columns import RESERVED_HEADER_PREFIX

HeadersLike: TypeAlias = Mapping[str, bytes | None] | Iterable[tuple[str, bytes | None]]
Column: TypeAlias = Sequence[bytes | None]


class Chunk(NamedTuple):
    """Records for one partition that fit into one batch."""

    partition: int
    values: Column
    keys: Column | None
    size_bytes: int


def check_record(value: object, key: object) -> tuple[bytes | None, bytes | None]:
    """Return value and key as bytes.

    Raises:
        InvalidRequest: they are something else; nothing is encoded for the user here.
    """
    return _as_bytes("value", value), _as_bytes("key", key)


def _as_bytes(name: str, given: object) -> bytes | None:
    if given is None or type(given) is bytes:
        return given
    if isinstance(given, (bytes, bytearray, memoryview)):
        return bytes(given)
    hint = "encode it first, for example with .encode()" if isinstance(given, str) else "turn it into bytes first"
    raise InvalidRequest(f"{name} is of type {type(given).__name__}, not bytes", hint=hint)


def headers_of(headers: HeadersLike) -> Headers:
    """Return headers as pairs, in their order.

    Raises:
        InvalidRequest: a name is no string, cannot be encoded or is reserved, or a value is not bytes.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    checked = []
    for name, value in pairs:
        if not isinstance(name, str):
            raise InvalidRequest(f"header name {name!r} is not a string", hint="use str names and bytes values")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(
                f"header name {name!r} is not valid Unicode: it holds half a surrogate pair",
                hint="names of files come so, for example; put it into the header's value, as bytes",
            ) from None
        if name.startswith(RESERVED_HEADER_PREFIX):
            raise InvalidRequest(
                f"header name {name!r} is reserved", hint=f"use a name without {RESERVED_HEADER_PREFIX!r} in front"
            )
        checked.append((name, _as_bytes(f"header {name!r}", value)))
    return tuple(checked)


def too_large(topic: str, size_bytes: int, size_bytes_max: int) -> RecordTooLarge:
    """Return the error for one record over the limit."""
    return RecordTooLarge(
        f"a record of {size_bytes} bytes for topic {topic} is over the limit of {size_bytes_max} bytes",
        hint="send a smaller one, or keep the payload elsewhere and send a reference",
        code="RECORD_TOO_LARGE",
        outcome=Outcome.NOT_APPENDED,
    )


def plan_chunks(
    topic: str,
    values: Column,
    keys: Column | None,
    partition: int | None,
    partitioner: StickyPartitioner,
    *,
    chunk_bytes: int,
    record_bytes_max: int,
) -> Iterator[Chunk]:
    """Cut columns into chunks of at most `chunk_bytes` (one record, where a single one is larger), in order per
    partition.

    Raises:
        InvalidRequest: the columns have different lengths, or hold something else than bytes.
        RecordTooLarge: a record is over `record_bytes_max`.
    """
    if keys is not None and len(keys) != len(values):
        raise InvalidRequest(f"{len(keys)} keys for {len(values)} values", hint="give one key per value")
    sizes = _sizes(values, keys)
    if sizes and max(sizes) > record_bytes_max:
        raise too_large(topic, max(sizes), record_bytes_max)
    return _chunks(values, keys, partition, partitioner, sizes, chunk_bytes)


def _chunks(
    values: Column,
    keys: Column | None,
    partition: int | None,
    partitioner: StickyPartitioner,
    sizes: list[int],
    chunk_bytes: int,
) -> Iterator[Chunk]:
    if partition is not None or keys is None:
        for start, stop, size in _cut(sizes, chunk_bytes):
            number = partition if partition is not None else partitioner.turn()
            yield Chunk(number, values[start:stop], None if keys is None else keys[start:stop], size)
        return
    by_partition: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        number = partitioner.sticky if key is None else partitioner.for_key(key)
        by_partition.setdefault(number, []).append(index)
    for number, indexes in by_partition.items():
        own_values = [values[i] for i in indexes]
        own_keys = [keys[i] for i in indexes]
        for start, stop, size in _cut([sizes[i] for i in indexes], chunk_bytes):
            yield Chunk(number, own_values[start:stop], own_keys[start:stop], size)


def _sizes(values: Column, keys: Column | None) -> list[int]:
    """Return the size of every record in bytes; also the place where everything is found to be bytes."""
    for name, column in (("values", values), ("keys", keys or ())):
        types = set(map(type, column)) - {bytes, type(None)}
        if types:
            names = ", ".join(sorted(t.__name__ for t in types))
            raise InvalidRequest(f"{name} contain {names}, not only bytes", hint="encode them first")
    if keys is None and None not in values:
        lengths = map(len, values)  # type: ignore[arg-type] # no None among them
        return [RECORD_OVERHEAD_BYTES + length for length in lengths]
    keys = keys if keys is not None else [None] * len(values)
    return [
        RECORD_OVERHEAD_BYTES + len(value or b"") + len(key or b"") for value, key in zip(values, keys, strict=True)
    ]


def _cut(sizes: list[int], chunk_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, stop, bytes) of consecutive runs that stay within `chunk_bytes`."""
    count = len(sizes)
    start = 0
    while start < count:
        # Records of one call tend to be alike: guess by the first, and correct.
        stop = min(count, start + max(1, chunk_bytes // sizes[start]))
        size = sum(sizes[start:stop])
        while size > chunk_bytes and stop - start > 1:
            stop = start + (stop - start + 1) // 2
            size = sum(sizes[start:stop])
        yield start, stop, size
        start = stop
