"""HDF5 files whose checksums are set right after their metadata was damaged.

The newer structures of HDF5 end in a checksum of themselves, which a file of ours has and the reference's have not.
Nearly every damage would end at it, and whoever means harm sets it right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Structures whose last four bytes are their checksum: object headers, heaps, trees.
SIGNATURES = (b"OHDR", b"OCHK", b"FRHP", b"FHIB", b"BTHD", b"BTIN", b"BTLF", b"FSHD", b"FSSE")
# As many bytes as the longest structure in a small file has, but for the blocks of heaps.
LONGEST = 1024


def with_checksums(mutant: bytes, intact: bytes) -> bytes:
    """The mutant, with the checksums of the structures that the intact file has where it has them."""
    mended = bytearray(mutant)
    for begin, end, at in checksums(intact):
        if end <= len(mended) and mended[begin:end] != intact[begin:end]:
            mended[at : at + 4] = bytes(4)
            covered = bytes(mended[begin : end if at + 4 < end else at])
            mended[at : at + 4] = struct.pack("<I", checksum(covered))
    return bytes(mended)


@cache
def checksums(data: bytes) -> tuple[tuple[int, int, int], ...]:
    """Where structures of an intact file begin and end, and where their checksums stand."""
    found = [(0, 48, 44)] if data.startswith(SIGNATURE) and data[8] in (2, 3) else []
    for signature in SIGNATURES:
        for begin in _places(data, signature):
            found += [(begin, end, end - 4) for end in _ends(data, begin)][:1]
    for begin in _places(data, b"FHDB"):
        found += list(_direct_block(data, begin))[:1]
    return tuple(found)


def checksum(data: bytes) -> int:
    """Bob Jenkins' lookup3, as HDF5 has it."""
    return int(_lookup3(np.frombuffer(data, "u1"), np.array([len(data)]))[0])


def _places(data: bytes, signature: bytes) -> Iterator[int]:
    at = data.find(signature)
    while at >= 0:
        yield at
        at = data.find(signature, at + 1)


def _ends(data: bytes, begin: int) -> Iterator[int]:
    """The ends that a structure may have, since what stands in front of them is the checksum of the rest."""
    lengths = np.arange(8, min(LONGEST, len(data) - begin - 4))
    if len(lengths):
        taken = np.frombuffer(data, "u1", lengths[-1] + 4, begin)
        said = sum(taken[lengths + n].astype("u4") << np.uint32(8 * n) for n in range(4))
        yield from (begin + int(length) + 4 for length in lengths[_lookup3(taken, lengths) == said])


def _direct_block(data: bytes, begin: int) -> Iterator[tuple[int, int, int]]:
    """A heap's direct block has its checksum in front, as if that were zero when it is computed."""
    for length in (1 << power for power in range(8, 17)):
        for at in range(begin + 14, begin + 22):
            block = data[begin:at] + bytes(4) + data[at + 4 : begin + length]
            if len(block) == length and data[at : at + 4] == struct.pack("<I", checksum(block)):
                yield begin, begin + length, at


def _lookup3(data: Any, lengths: Any) -> Any:
    """The checksums of the first so many bytes of `data`, for each of the `lengths`, which are not zero."""
    padded = np.zeros((int(lengths.max()) // 12 + 1) * 12, "u1")
    padded[: lengths.max()] = data[: lengths.max()]
    a, b, c = ((0xDEADBEEF + lengths).astype("u4") for _ in range(3))
    last = (lengths - 1) // 12  # the number of the block that is mixed in another way
    result = np.zeros(len(lengths), "u4")
    places = np.arange(len(lengths))
    for number in range(int(last.max()) + 1):
        words = _words(padded[number * 12 : number * 12 + 12], np.clip(lengths - number * 12, 0, 12))
        a, b, c = a + words[0], b + words[1], c + words[2]
        ends = last == number
        result[places[ends]] = _final(a[ends], b[ends], c[ends])
        lengths, last, places, a, b, c = (each[~ends] for each in (lengths, last, places, a, b, c))
        a, b, c = _mix(a, b, c)
    return result


def _words(block: Any, lengths: Any) -> list[Any]:
    """Three little-endian words of a block of 12 bytes, of which the first `lengths` count."""
    counted = np.where(np.arange(12) < lengths[:, None], block, 0).astype("u1")
    words = counted.view("<u4")
    return [words[:, 0], words[:, 1], words[:, 2]]


def _turn(value: Any, bits: int) -> Any:
    return value << np.uint32(bits) | value >> np.uint32(32 - bits)


def _mix(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    for bits_a, bits_b, bits_c in ((4, 6, 8), (16, 19, 4)):
        a, c = (a - c) ^ _turn(c, bits_a), c + b
        b, a = (b - a) ^ _turn(a, bits_b), a + c
        c, b = (c - b) ^ _turn(b, bits_c), b + a
    return a, b, c


def _final(a: Any, b: Any, c: Any) -> Any:
    c = (c ^ b) - _turn(b, 14)
    a = (a ^ c) - _turn(c, 11)
    b = (b ^ a) - _turn(a, 25)
    c = (c ^ b) - _turn(b, 16)
    a = (a ^ c) - _turn(c, 4)
    b = (b ^ a) - _turn(a, 14)
    return (c ^ b) - _turn(b, 24)
