"""Sources: any part of a tensor, in any blocks, is the same part of the whole; descriptors are few."""

from __future__ import annotations

import errno
import os
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused
from mmconvert.sources import MAX_BUFFERS, FileSpan, Gather, OpenFiles, Source, TensorRef, blocks

ROWS, ROW_BYTES = 37, 12
DATA = bytes(random.Random(0).randbytes(ROWS * ROW_BYTES))


@pytest.fixture
def span(tmp_path: Path) -> FileSpan:
    """`DATA`, seven bytes into a file with something after it."""
    path = tmp_path / "data"
    path.write_bytes(b"before!" + DATA + b"after")
    return FileSpan(path, 7, len(DATA))


@pytest.mark.parametrize("kernel", ["copies", "copies a little at a time", "refuses", "stops"])
def test_the_kernel_copies_a_span_or_says_that_it_cannot(
    span: FileSpan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    copy = os.copy_file_range

    def refuse(*arguments: int) -> int:
        raise OSError(errno.EXDEV, "another file system")

    kinds = {
        "copies a little at a time": lambda a, b, size, *rest: copy(a, b, min(size, 7), *rest),
        "refuses": refuse,
        "stops": lambda *arguments: 0,
    }
    monkeypatch.setattr(os, "copy_file_range", kinds.get(kernel, copy))
    with (tmp_path / "out").open("w+b") as out:
        done = span.copy_to(out.fileno(), 3, 5, 40)
        out.seek(0)
        assert done == ("copies" in kernel)
        assert out.read() == (bytes(3) + DATA[5:45] if done else b"")


def test_a_disk_that_fails_under_the_kernel_is_heard_of(
    span: FileSpan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", full)
    with (tmp_path / "out").open("wb") as out, pytest.raises(OSError, match="full"):
        span.copy_to(out.fileno(), 0, 0, 10)


def read(source: Source, start: int, length: int, block: int) -> bytes:
    out = bytearray(length)
    for at, size in blocks(length, block):
        source.read_into(start + at, [memoryview(out)[at : at + size]])
    return bytes(out)


def gathered(index: list[int]) -> bytes:
    return b"".join(DATA[row * ROW_BYTES : (row + 1) * ROW_BYTES] for row in index)


def test_blocks_cover_the_length_once() -> None:
    assert list(blocks(10, 4)) == [(0, 4), (4, 4), (8, 2)]
    assert list(blocks(8, 4)) == [(0, 4), (4, 4)]
    assert list(blocks(0, 4)) == []


def test_a_span_reads_its_bytes_and_no_others(span: FileSpan) -> None:
    assert TensorRef("t", BY_NAME["float32"], (ROWS, 3), span).read() == DATA
    assert read(span, 5, 20, block=3) == DATA[5:25]


def test_a_span_fills_more_buffers_than_one_system_call_takes(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(2 * MAX_BUFFERS + 100)
    (tmp_path / "long").write_bytes(data)
    out = bytearray(len(data))
    FileSpan(tmp_path / "long", 0, len(data)).read_into(0, [memoryview(out)[i : i + 1] for i in range(len(out))])
    assert out == data


def test_a_short_file_is_refused_where_it_ends(span: FileSpan) -> None:
    os.truncate(span.path, 7 + 100)
    assert read(span, 0, 100, block=64) == DATA[:100]
    with pytest.raises(InputRefused, match=f"{span.path}: ends at byte 107"):
        read(span, 90, 20, block=64)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="absent: cannot be read: No such file"):
        FileSpan(tmp_path / "absent", 0, 1).read_into(0, [memoryview(bytearray(1))])


@pytest.mark.parametrize(
    "index",
    [
        list(range(ROWS)),
        list(reversed(range(ROWS))),
        random.Random(1).sample(range(ROWS), ROWS),
        [5, 5, 0, 36],
        [ROWS - 1, *range(ROWS - 1)],
    ],
    ids=["identity", "reversed", "shuffled", "repeated", "rolled"],
)
def test_a_gather_is_its_rows_from_any_start_in_any_blocks(span: FileSpan, index: list[int]) -> None:
    gather, whole = Gather(span, index, ROW_BYTES), gathered(index)
    for start in (0, 1, ROW_BYTES - 1, ROW_BYTES, 2 * ROW_BYTES + 5):
        for block in (1, ROW_BYTES - 1, ROW_BYTES, ROW_BYTES + 1, 1000):
            assert read(gather, start, len(whole) - start, block) == whole[start:]


def test_a_gather_of_a_gather_undoes_it(span: FileSpan) -> None:
    index = random.Random(2).sample(range(ROWS), ROWS)
    inverse = sorted(range(ROWS), key=index.__getitem__)
    assert read(Gather(Gather(span, index, ROW_BYTES), inverse, ROW_BYTES), 0, len(DATA), 50) == DATA


def test_a_gather_fills_several_buffers_one_after_the_other(span: FileSpan) -> None:
    index = list(reversed(range(ROWS)))
    first, second = bytearray(17), bytearray(30)
    Gather(span, index, ROW_BYTES).read_into(3, [memoryview(first), memoryview(second)])
    assert bytes(first + second) == gathered(index)[3:50]


def test_neighbouring_rows_are_read_at_once() -> None:
    class Counting:
        calls = 0

        def read_into(self, start: int, buffers: object) -> None:
            self.calls += 1

    source = Counting()
    interleaved = [row for pair in zip(range(4), range(4, 8), strict=True) for row in pair]
    Gather(source, interleaved, 2).read_into(0, [memoryview(bytearray(16))])
    assert source.calls == 1


def test_open_files_keeps_no_more_descriptors_than_its_limit(tmp_path: Path) -> None:
    files, seen = OpenFiles(limit=2), []
    for i in range(5):
        path = tmp_path / str(i)
        path.write_bytes(b"x")
        with files.descriptor(path) as fd:
            seen.append(fd)
    assert len(set(seen)) <= 3
    files.close()
    for fd in set(seen):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_open_files_shares_a_descriptor_and_never_closes_one_in_use(tmp_path: Path) -> None:
    files = OpenFiles(limit=1)
    paths = [tmp_path / str(i) for i in range(4)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with ExitStack() as stack:
        held = [stack.enter_context(files.descriptor(path)) for path in paths]
        assert stack.enter_context(files.descriptor(paths[0])) == held[0]
        files.close()
        assert [os.pread(fd, 1, 0) for fd in held] == [b"0", b"1", b"2", b"3"]
    files.close()
