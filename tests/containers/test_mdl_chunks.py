"""Chunked tensors are read as HDF5 would read them, from any byte on, and damaged chunks are refused by name."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import lz4.block
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmconvert.containers.mdl_chunks import GZIP, LZ4, NO_FILTER, Chunk, Chunked, unpack_lz4
from mmconvert.errors import InputRefused


def lz4_frame(data: bytes, block_size: int) -> bytes:
    """What the HDF5 filter 32004 stores for a chunk."""
    frame = struct.pack(">QI", len(data), block_size)
    for start in range(0, len(data), block_size):
        block = data[start : start + block_size]
        packed = lz4.block.compress(block, store_size=False)
        stored = packed if len(packed) < len(block) else block
        frame += struct.pack(">I", len(stored)) + stored
    return frame


def tensor_of(tmp_path: Path, array: np.ndarray, chunk_shape: tuple[int, ...], block_size: int = 64) -> Chunked:
    """`array` in LZ4 chunks, every third stored with the filter skipped, in a file that begins with other bytes."""
    path = tmp_path / "chunks"
    data, chunks = b"other bytes", []
    grid = [-(-size // step) for size, step in zip(array.shape, chunk_shape, strict=True)]
    for number, cell in enumerate(np.ndindex(*grid)):
        chunk = np.full(chunk_shape, 99, array.dtype)
        corner = tuple(slice(c * step, (c + 1) * step) for c, step in zip(cell, chunk_shape, strict=True))
        part = array[corner]
        chunk[tuple(map(slice, part.shape))] = part
        skipped = number % 3 == 2
        stored = chunk.tobytes() if skipped else lz4_frame(chunk.tobytes(), block_size)
        chunks.append(Chunk(len(data), len(stored), int(skipped)))
        data += stored
    path.write_bytes(data)
    return Chunked(path, "w", array.shape, array.itemsize, chunk_shape, LZ4, tuple(chunks))


def read(source: Chunked, start: int, *lengths: int) -> bytes:
    buffers = [bytearray(length) for length in lengths]
    source.read_into(start, [memoryview(buffer) for buffer in buffers])
    return b"".join(buffers)


@pytest.mark.parametrize(
    ("shape", "chunk_shape"),
    [((7,), (3,)), ((6, 4), (6, 4)), ((7, 5), (3, 2)), ((5, 4, 6, 3), (2, 3, 6, 2)), ((3, 2), (8, 8))],
)
@pytest.mark.parametrize("dtype", ["u1", "<f2", "<f4", "<i8"])
def test_tensor_is_put_together_from_its_chunks(
    tmp_path: Path, shape: tuple[int, ...], chunk_shape: tuple[int, ...], dtype: str
) -> None:
    array = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    source = tensor_of(tmp_path, array, chunk_shape)
    assert read(source, 0, array.nbytes) == array.tobytes()


def test_any_range_can_be_read_in_any_order(tmp_path: Path) -> None:
    array = np.arange(7 * 5, dtype="<i4").reshape(7, 5)
    whole, source = array.tobytes(), tensor_of(tmp_path, array, (3, 2))
    for start in (139, 0, 61, 59, 60, 100):
        for length in (1, 40, 139):
            end = min(start + length, len(whole))
            assert read(source, start, end - start) == whole[start:end]
    assert read(source, 3, 50, 0, 7) == whole[3:60]


def test_reading_on_decodes_each_chunk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(12 * 4, dtype="<i4").reshape(12, 4)
    source = tensor_of(tmp_path, array, (3, 2))
    reads: list[int] = []
    preadv = os.preadv

    def noted(fd: int, views: Sequence[memoryview], at: int) -> int:
        reads.append(at)
        return preadv(fd, views, at)

    monkeypatch.setattr(os, "preadv", noted)
    for start in range(0, array.nbytes, 16):
        read(source, start, 16)
    assert sorted(reads) == [chunk.offset for chunk in source.chunks]


@given(data=st.binary(min_size=1, max_size=300), repeat=st.integers(1, 5), block_size=st.integers(1, 400))
def test_lz4_frame_of_any_block_size_is_undone(data: bytes, repeat: int, block_size: int) -> None:
    data *= repeat
    assert unpack_lz4(bytearray(lz4_frame(data, block_size)), len(data)) == data


GOOD = lz4_frame(bytes(16), 16)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (struct.pack(">QI", 1 << 60, 16) + GOOD[12:], "promises 1152921504606846976 bytes"),
        (struct.pack(">QI", 15, 16) + GOOD[12:], "promises 15 bytes"),
        (struct.pack(">QI", 16, 0) + GOOD[12:], "blocks of 0"),
        (GOOD[:12] + struct.pack(">I", 1 << 31) + GOOD[16:], "reaches over its end"),
        (GOOD[:-1], "reaches over its end"),
        (GOOD[:12], "unpack"),
        (b"", "unpack"),
        (struct.pack(">QI", 16, 16) + lz4_frame(bytes(15), 15)[12:], "15 bytes"),
        (struct.pack(">QI", 16, 16) + lz4_frame(bytes(1000), 1000)[12:], "[Dd]ecompress"),
        (struct.pack(">QII", 16, 16, 3) + b"\xff\xff\xff", "[Dd]ecompress"),
    ],
)
def test_lz4_header_that_lies_is_refused_naming_file_and_key(tmp_path: Path, stored: bytes, said: str) -> None:
    path = tmp_path / "lying.mdl"
    path.write_bytes(stored)
    source = Chunked(path, "layers.0.w", (4,), 4, (4,), LZ4, (Chunk(0, len(stored), 0),))
    with pytest.raises(InputRefused, match=rf"lying\.mdl: layers\.0\.w: the chunk at byte 0 .*{said}"):
        read(source, 0, 16)


@pytest.mark.parametrize("length", [15, 17])
def test_raw_chunk_of_the_wrong_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "raw.mdl"
    path.write_bytes(bytes(length))
    with pytest.raises(InputRefused, match=f"holds {length} bytes, not 16"):
        read(Chunked(path, "w", (4,), 4, (4,), NO_FILTER, (Chunk(0, length, 0),)), 0, 16)


def test_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mdl"
    path.write_bytes(zlib.compress(bytes(50 << 20)))
    with pytest.raises(InputRefused, match="holds 17 bytes, not 16"):
        read(Chunked(path, "w", (4,), 4, (4,), GZIP, (Chunk(0, path.stat().st_size, 0),)), 0, 16)
