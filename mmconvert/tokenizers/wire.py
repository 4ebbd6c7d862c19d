"""The fields of a protobuf message, read without its schema.

https://protobuf.dev/programming-guides/encoding: a field is a tag, which holds its number and how its value lies
there, and the value: a varint, four or eight bytes, or a length and as many bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
_FIXED = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
# A varint of 64 bits takes ten bytes, of seven bits each.
_MAX_SHIFT = 63
# A message of a vocabulary has a field for each token; the largest have some 260,000.
MAX_FIELDS = 300_000


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Every field's number and value: an int for a varint, bytes for all others.

    Raises ValueError if the message is damaged, or has more than `MAX_FIELDS`.
    """
    at = count = 0
    while at < len(data):
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS:,} fields, the most that are read")
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size, at = _varint(data, at) if kind == BYTES else (_FIXED.get(kind, -1), at)
        if size < 0:
            raise ValueError(f"field {number} is of the unknown kind {kind}")
        if at + size > len(data):
            raise ValueError(f"field {number} ends after the file")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > _MAX_SHIFT:
            raise ValueError("a number does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
