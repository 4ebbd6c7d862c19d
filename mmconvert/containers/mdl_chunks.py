"""The bytes of a tensor that HDF5 keeps in chunks, compressed or not, decoded without HDF5 and its plugins.

The frame around an LZ4 chunk is the HDF5 filter's own (32004), not LZ4's: 8 bytes total length and 4 bytes block
length, then each block as 4 bytes stored length and a raw LZ4 block; all big-endian. A block that did not get smaller
is stored as it is. Source: the filter in the HDF5 plugins, and 1,409 chunks of reference files decoded so.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

from mmconvert.errors import InputRefused
from mmconvert.sources import FileSpan

NO_FILTER = 0
GZIP = 1
LZ4 = 32004


@dataclass(frozen=True)
class Chunk:
    """`length` bytes from `offset` of the file; if `mask` has bit 0, the filter was skipped for this chunk."""

    offset: int
    length: int
    mask: int


@dataclass(frozen=True)
class Chunked:
    """A tensor of `shape`, cut by a grid into chunks of `chunk_shape`, which all are full, also at the upper edges.

    `chunks` are in row-major order of the grid and complete. One band of chunks, those that share their first rows, is
    decoded at a time and kept for the thread's next read, so that reading on costs each chunk once, and memory is one
    band for each thread.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    itemsize: int
    chunk_shape: tuple[int, ...]
    filter: int
    chunks: tuple[Chunk, ...]

    @property
    def chunk_bytes(self) -> int:
        return prod(self.chunk_shape) * self.itemsize

    @property
    def band_bytes(self) -> int:
        """The bytes of the tensor in one band; the last band may hold fewer."""
        return self.chunk_shape[0] * prod(self.shape[1:]) * self.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(-(-size // step) for size, step in zip(self.shape, self.chunk_shape, strict=True))

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            rest = buffer
            while rest:
                index, at = divmod(start, self.band_bytes)
                piece = self._band(index)[at : at + len(rest)]
                rest[: len(piece)] = piece
                rest = rest[len(piece) :]
                start += len(piece)

    def _band(self, index: int) -> memoryview:
        """The tensor's bytes in band `index`, decoded unless it is what this thread decoded last."""
        if getattr(_LAST, "source", None) is not self or _LAST.index != index:
            _LAST.source = None
            _LAST.band = self._decode(index)
            _LAST.source, _LAST.index = self, index
        band: memoryview = _LAST.band
        return band

    def _decode(self, index: int) -> memoryview:
        import numpy

        rows = min(self.chunk_shape[0], self.shape[0] - index * self.chunk_shape[0])
        band = numpy.empty((rows, *self.shape[1:]), f"u{self.itemsize}")
        grid = self.grid[1:]
        first = index * prod(grid)
        for number, place in enumerate(product(*map(range, grid)), start=first):
            corner = zip(place, self.chunk_shape[1:], strict=True)
            target = band[(slice(None), *(slice(cell * step, (cell + 1) * step) for cell, step in corner))]
            chunk = numpy.frombuffer(self._unpacked(self.chunks[number]), band.dtype).reshape(self.chunk_shape)
            # A chunk at the tensor's edge reaches over it; the target ends there already.
            target[...] = chunk[tuple(map(slice, target.shape))]
        return band.reshape(-1).view("u1").data

    def _unpacked(self, chunk: Chunk) -> bytearray | bytes:
        where = f"{self.path}: {self.key}: the chunk at byte {chunk.offset}"
        data = bytearray(chunk.length)
        FileSpan(self.path, chunk.offset, chunk.length).read_into(0, [memoryview(data)])
        try:
            unpacked = data if chunk.mask & 1 else _UNPACK[self.filter](data, self.chunk_bytes)
        except (ValueError, struct.error, zlib.error) as error:
            raise InputRefused(f"{where} is damaged: {error}") from error
        if len(unpacked) != self.chunk_bytes:
            raise InputRefused(f"{where} is damaged: it holds {len(unpacked)} bytes, not {self.chunk_bytes}")
        return unpacked


def unpack_lz4(data: bytearray, size: int) -> bytearray:
    """Undo the HDF5 filter 32004 for a chunk of `size` bytes; never makes more, whatever the headers say.

    Raises ValueError or struct.error where the headers and the blocks do not fit each other.
    """
    import lz4.block

    total, block_size = struct.unpack_from(">QI", data)
    if total != size or block_size == 0:
        raise ValueError(f"an LZ4 header promises {total} bytes in blocks of {block_size}, but the chunk has {size}")
    unpacked = bytearray()
    at = 12
    while len(unpacked) < size:
        wanted = min(block_size, size - len(unpacked))
        (stored,) = struct.unpack_from(">I", data, at)
        block = data[at + 4 : at + 4 + stored]
        if len(block) != stored:
            raise ValueError(f"an LZ4 block of {stored} bytes reaches over its end")
        try:
            piece = block if stored == wanted else lz4.block.decompress(block, uncompressed_size=wanted)
        except lz4.block.LZ4BlockError as error:
            raise ValueError(str(error)) from error
        if len(piece) != wanted:
            raise ValueError(f"an LZ4 block holds {len(piece)} bytes, not {wanted}")
        unpacked += piece
        at += 4 + stored
    return unpacked


def _unpack_gzip(data: bytearray, size: int) -> bytes:
    # One byte more than allowed is enough to see that there is too much.
    return zlib.decompressobj().decompress(data, size + 1)


def _unpack_nothing(data: bytearray, size: int) -> bytearray:
    return data


_UNPACK: dict[int, Callable[[bytearray, int], bytes | bytearray]] = {
    NO_FILTER: _unpack_nothing,
    GZIP: _unpack_gzip,
    LZ4: unpack_lz4,
}
# The band that each thread decoded last.
_LAST = threading.local()
