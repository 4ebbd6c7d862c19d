"""Damage, the same for the same seed: bytes that are changed, moved, lost and added, and text changed word by word.

A mutant is data after one to eight of these mutations, each at a place that is drawn: for bytes, mostly from the spans
that the caller aims at, since damage in the middle of a tensor is none that a parser would meet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Literal

# Where bytes lie: from the first to behind the last.
Span = tuple[int, int]

ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
# How many of ten mutations go where they are aimed.
AIMED = 9
LONGEST_BLOCK = 64
# What sizes, counts and offsets break on.
INTEGERS = (
    *(0, 1, 2, 3, 4, 7, 8, 9, 12, 16, 31, 32, 63, 64, 0x7F, 0x80, 0xFE, 0xFF, 0x100),
    *(0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF, 1 << 24, 1 << 30),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
)
NUMBERS = (
    *(*map(str, INTEGERS), "-1", "-0", "0.0", "-0.5", "1.5", "1e5", "1e-5", "1e-320", "1e308", "1e999", "-1e999"),
    *("NaN", "Infinity", "-Infinity", ".inf", ".nan", "01", "0x10", "0b_", "1_000", "1:30", "9" * 400, "9" * 5000),
)
STRINGS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/b",
        "a\\\\b",
        "\\u0000",
        "\\n",
        "\\u001b[31m",
        "\\ud800",
        "\\udc00",
    ),
    *("\u202e", "é", "\U0001f600", "__metadata__", "__class__", "None", "true", "0", "-1", "1e5", "x" * 2000),
    *("float32", "BF16", "F64", "I8", "BOOL", "llama", "clip", "mistral", "model", "{}", "[]", "<image>"),
)
WORDS = (
    *(
        "true",
        "false",
        "null",
        "~",
        "yes",
        "NaN",
        "{}",
        "[]",
        '""',
        "0",
        "!!python/object:os.system",
        "!!str",
        "!!float",
    ),
    *(
        "&a [1]",
        "*a",
        "<<: *a",
        "- - - -",
        "? x",
        "|",
        ">",
        "%YAML 1.1",
        "---",
        "...",
        "2024-01-01",
        "\t",
        "\x00",
        "\ufeff",
    ),
    *("[" * 70, "{" * 70, "[" * 70 + "]" * 70),
)
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[^\W\d]\w*|[ ]+|\n[ ]*|[^\w\s]|.', re.DOTALL
)


def mutate_bytes(data: bytes, draw: Random, aims: Sequence[Span] = ()) -> bytes:
    """A mutant of `data`; without `aims`, all of it is as good a place as any."""
    mutant = bytearray(data)
    for _ in range(_how_many(draw)):
        draw.choice(BYTE_MUTATIONS)(mutant, _place(len(mutant), draw, aims), draw)
    return bytes(mutant)


def mutate_text(data: bytes, draw: Random) -> bytes:
    """A mutant of the JSON or YAML document `data`, mostly one that still is a document."""
    tokens = _TOKEN.findall(data.decode())
    for _ in range(_how_many(draw)):
        if tokens:
            draw.choice(TEXT_MUTATIONS)(tokens, draw)
    # A half of a surrogate pair may be among the tokens' texts only as an escape, so this cannot fail.
    mutant = "".join(tokens).encode()
    return mutate_bytes(mutant, draw) if draw.random() < 0.15 else mutant


def outside(spans: Iterable[Span], size: int) -> list[Span]:
    """What `spans` leave of `size` bytes."""
    left, at = [], 0
    for begin, end in sorted(spans):
        if begin > at:
            left.append((at, begin))
        at = max(at, end)
    return [*left, (at, size)] if size > at else left


def hdf5_metadata(path: Path) -> list[Span]:
    """All of an intact HDF5 file but the data of its datasets."""
    import h5py

    spans: list[Span] = []

    def visit(_: str, held: object) -> None:
        if isinstance(held, h5py.Dataset) and held.chunks is None:
            offset = held.id.get_offset()
            spans.extend([] if offset is None else [(offset, offset + held.id.get_storage_size())])
        elif isinstance(held, h5py.Dataset):
            held.id.chunk_iter(lambda chunk: spans.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return outside(spans, path.stat().st_size)


def _how_many(draw: Random) -> int:
    return draw.choice((1, 1, 1, 1, 2, 2, 3, 5, 8))


def _place(size: int, draw: Random, aims: Sequence[Span]) -> int:
    """Where to do damage; a long span is a likelier aim, but no more than twenty times likelier than a short one."""
    if aims and draw.randrange(10) < AIMED:
        weights = [min(max(end - begin, 50), 1000) for begin, end in aims]
        ((begin, end),) = draw.choices(aims, weights)
        # Earlier mutations may have cut the data short.
        return min(draw.randrange(begin, max(end, begin + 1)), max(size - 1, 0))
    return draw.randrange(max(size, 1))


# Each changes `data` at or near the byte `at`; where there are none, nothing happens but by those that add some.


def _flip_bit(data: bytearray, at: int, draw: Random) -> None:
    if data:
        data[at] ^= 1 << draw.randrange(8)


def _substitute(data: bytearray, at: int, draw: Random) -> None:
    if data:
        data[at] = draw.randrange(256)


def _truncate(data: bytearray, at: int, draw: Random) -> None:
    del data[at if draw.random() < 0.5 else max(len(data) - draw.randrange(1, 100), 0) :]


def _extend(data: bytearray, at: int, draw: Random) -> None:
    data += draw.choice((draw.randbytes, bytes))(draw.randrange(1, 100))


def _insert(data: bytearray, at: int, draw: Random) -> None:
    data[at:at] = draw.randbytes(draw.randrange(1, 9))


def _delete(data: bytearray, at: int, draw: Random) -> None:
    del data[at : at + draw.randrange(1, LONGEST_BLOCK)]


def _duplicate(data: bytearray, at: int, draw: Random) -> None:
    block = data[at : at + draw.randrange(1, LONGEST_BLOCK)]
    data[at:at] = block * draw.choice((1, 1, 1, 50))


def _copy(data: bytearray, at: int, draw: Random) -> None:
    """Write a block over another one that lies anywhere."""
    if data:
        block = data[at : at + draw.randrange(1, LONGEST_BLOCK)]
        other = draw.randrange(len(data))
        data[other : other + len(block)] = block


def _swap(data: bytearray, at: int, draw: Random) -> None:
    """Have two blocks change places, which lie beside each other or not."""
    length = draw.randrange(1, LONGEST_BLOCK)
    other = at + length * draw.randrange(1, 8)
    if other + length <= len(data):
        first, second = data[at : at + length], data[other : other + length]
        data[at : at + length], data[other : other + length] = second, first


def _zero(data: bytearray, at: int, draw: Random) -> None:
    length = min(draw.randrange(1, LONGEST_BLOCK), len(data) - at)
    data[at : at + length] = bytes(length)


def _write_integer(data: bytearray, at: int, draw: Random) -> None:
    """Write an integer that is of interest over a field of 1, 2, 4 or 8 bytes, aligned or not."""
    width = draw.choice((1, 2, 4, 4, 8, 8))
    begin = at - at % width if draw.random() < 0.7 else at
    if begin + width <= len(data):
        value = draw.choice((*INTEGERS, len(data), len(data) - 1, len(data) + 1, at, -at))
        data[begin : begin + width] = (value % (1 << 8 * width)).to_bytes(width, draw.choice(ORDERS))


def _add(data: bytearray, at: int, draw: Random) -> None:
    """Count a field of 1, 2, 4 or 8 bytes up or down a little."""
    width, order = draw.choice((1, 2, 4, 8)), draw.choice(ORDERS)
    begin = at - at % width
    if begin + width <= len(data):
        value = int.from_bytes(data[begin : begin + width], order) + draw.choice((-16, -8, -2, -1, 1, 2, 8, 16))
        data[begin : begin + width] = (value % (1 << 8 * width)).to_bytes(width, order)


BYTE_MUTATIONS: tuple[Callable[[bytearray, int, Random], None], ...] = (
    *(_flip_bit, _substitute, _truncate, _extend, _insert, _delete, _duplicate, _copy, _swap, _zero),
    *(_write_integer, _write_integer, _write_integer, _add),
)


def _pick(tokens: list[str], draw: Random, wanted: Callable[[str], object]) -> int:
    """The place of one of the tokens that are `wanted`, or of any if there are none."""
    return draw.choice([at for at, token in enumerate(tokens) if wanted(token)] or range(len(tokens)))


def _is_number(token: str) -> bool:
    return token[-1].isdecimal() and not token[0].isalpha()


def _is_string(token: str) -> bool:
    return token[0] in "\"'" or token[0].isalpha()


def _change_number(tokens: list[str], draw: Random) -> None:
    tokens[_pick(tokens, draw, _is_number)] = draw.choice(NUMBERS)


def _nudge_number(tokens: list[str], draw: Random) -> None:
    at = _pick(tokens, draw, lambda token: token.isdecimal() and len(token) < 20)
    if tokens[at].isdecimal() and len(tokens[at]) < 20:
        tokens[at] = str(int(tokens[at]) * draw.choice((1, 1, 2, -1)) + draw.choice((-8, -1, 1, 8)))


def _change_string(tokens: list[str], draw: Random) -> None:
    at = _pick(tokens, draw, _is_string)
    others = [token for token in tokens if _is_string(token)]
    text = f'"{draw.choice(STRINGS)}"'
    tokens[at] = draw.choice(others) if others and draw.random() < 0.5 else text


def _change_word(tokens: list[str], draw: Random) -> None:
    tokens[_pick(tokens, draw, lambda token: _is_string(token) or _is_number(token))] = draw.choice(WORDS)


def _drop_token(tokens: list[str], draw: Random) -> None:
    del tokens[_pick(tokens, draw, str.strip)]


def _drop_mark(tokens: list[str], draw: Random) -> None:
    del tokens[_pick(tokens, draw, lambda token: token in "[]{},:-")]


def _double_mark(tokens: list[str], draw: Random) -> None:
    at = _pick(tokens, draw, lambda token: token in "[]{},:-")
    tokens.insert(at, tokens[at])


def _swap_tokens(tokens: list[str], draw: Random) -> None:
    first, second = _pick(tokens, draw, str.strip), _pick(tokens, draw, str.strip)
    tokens[first], tokens[second] = tokens[second], tokens[first]


def _repeat_key(tokens: list[str], draw: Random) -> None:
    """Give a key of JSON a second time, in front of the first."""
    keys = [at for at, token in enumerate(tokens[:-1]) if _is_string(token) and tokens[at + 1] == ":"]
    if keys:
        at = draw.choice(keys)
        tokens[at:at] = [tokens[at], ":", draw.choice(("0", "null", '""', "[]", "{}")), ","]


def _repeat_line(tokens: list[str], draw: Random) -> None:
    """Give a line a second time, which for YAML is a key given twice or an entry that comes twice."""
    starts = [at for at, token in enumerate(tokens) if token[0] == "\n"]
    if len(starts) > 1:
        number = draw.randrange(len(starts) - 1)
        begin, end = starts[number : number + 2]
        tokens[end:end] = tokens[begin:end]


def _indent(tokens: list[str], draw: Random) -> None:
    """Have a line of YAML stand deeper, or less deep."""
    at = _pick(tokens, draw, lambda token: token[0] == "\n")
    tokens[at] = "\n" + " " * draw.randrange(12)


def _splice(tokens: list[str], draw: Random) -> None:
    """Put a piece from elsewhere in the document in front of, or in place of, another one."""
    begin, place = draw.randrange(len(tokens)), draw.randrange(len(tokens))
    piece = tokens[begin : begin + draw.choice((1, 3, 10, 30))]
    tokens[place : place + draw.choice((0, len(piece)))] = piece


TEXT_MUTATIONS: tuple[Callable[[list[str], Random], None], ...] = (
    *(_change_number, _change_number, _change_number, _nudge_number, _nudge_number, _change_string, _change_string),
    *(_change_word, _change_word, _drop_token, _drop_mark, _double_mark, _swap_tokens, _repeat_key, _repeat_line),
    *(_indent, _splice),
)
