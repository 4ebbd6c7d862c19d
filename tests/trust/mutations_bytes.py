"""Bytes that are damaged: changed, moved, lost and added, the same for the same seed.

A mutant is data after one to eight of these mutations, each at a place that is drawn: mostly in the spans that the
caller aims at, since damage in the middle of a tensor is none that a parser would meet.
"""

from __future__ import annotations

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


def mutate_bytes(data: bytes, draw: Random, aims: Sequence[Span] = ()) -> bytes:
    """A mutant of `data`; without `aims`, all of it is as good a place as any."""
    mutant = bytearray(data)
    for _ in range(how_many(draw)):
        draw.choice(BYTE_MUTATIONS)(mutant, _place(len(mutant), draw, aims), draw)
    return bytes(mutant)


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


def how_many(draw: Random) -> int:
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
