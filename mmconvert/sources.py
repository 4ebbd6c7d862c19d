"""Where the bytes of a tensor come from.

A `Source` yields the bytes of one tensor, row-major and little-endian, from any position and in any amount. Some lie in
a file (`FileSpan`), some are made (`Uniform` in `mmconvert.invent`), and some stand in front of another source and
change what comes out (`Gather` here, `Cast` in `mmconvert.casts`). They compose, so that whatever a conversion does to
a tensor, the engine does the same thing with it: stream a source to its place, one block at a time.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol

from mmconvert.dtypes import DType
from mmconvert.errors import DiskError, InputRefused

# The kernel takes at most this many buffers in one vectored read (IOV_MAX on Linux and macOS).
MAX_BUFFERS = 1024
# What the kernel answers where it will not copy between two files by itself.
_CANNOT_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY}
# Reading this many bytes for nothing takes less time than another call.
MAX_GAP = 1 << 15


class Source(Protocol):
    """The bytes of one tensor."""

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        """Fill `buffers`, one after the other, with the tensor's bytes from byte `start` on.

        Raises `InputRefused` where the file behind it ends early or does not hold what its header promised, and
        `DiskError` where the disk fails.
        """
        ...


@dataclass(frozen=True)
class TensorRef:
    """One tensor of a checkpoint, known from headers alone: nothing is read until its source is asked."""

    key: str
    dtype: DType
    shape: tuple[int, ...]
    source: Source
    file: str = ""

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def path(self) -> Path | None:
        """The file that its bytes lie in; None where they are made."""
        path: Path | None = getattr(self.source, "path", None)
        return path

    @property
    def where(self) -> str:
        """The file to name to a user."""
        return str(self.path or self.file)

    def read(self) -> bytes:
        """The whole tensor as bytes; for small tensors and for people at a prompt."""
        data = bytearray(self.nbytes)
        self.source.read_into(0, [memoryview(data)])
        return bytes(data)


class Stamp(NamedTuple):
    """What tells that a file has been written to or replaced: its size, times of change (ns), and which file it is."""

    size: int
    modified: int
    changed: int
    inode: int


def stamp(path: Path) -> Stamp:
    """The stamp of a file as it is now. Raises `InputRefused` where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputRefused(f"{path}: cannot be read: {error.strerror}") from error
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class OpenFiles:
    """Read-only descriptors, opened when first asked for and at most `limit` of them kept.

    A checkpoint may have hundreds of shards; a process may have 256 descriptors. Positioned reads share one descriptor
    between threads, so one that is in use is never closed.
    """

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._users: dict[Path, int] = {}

    @contextmanager
    def descriptor(self, path: Path) -> Iterator[int]:
        with self._lock:
            fd = self._open.get(path)
            if fd is None:
                try:
                    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                except OSError as error:
                    raise InputRefused(f"{path}: cannot be read: {error.strerror}") from error
                self._open[path] = fd
            self._open.move_to_end(path)
            self._users[path] = self._users.get(path, 0) + 1
        try:
            yield fd
        finally:
            with self._lock:
                self._users[path] -= 1
                self._close_idle(keep=self._limit)

    def close(self) -> None:
        """Close every descriptor that nobody is reading from."""
        with self._lock:
            self._close_idle(keep=0)

    def _close_idle(self, keep: int) -> None:
        for path in list(self._open):
            if len(self._open) <= keep:
                return
            if not self._users.get(path):
                os.close(self._open.pop(path))
                self._users.pop(path, None)


FILES = OpenFiles()


@dataclass(frozen=True)
class FileSpan:
    """A tensor whose bytes lie in one piece, `length` bytes from `offset` of a file."""

    path: Path
    offset: int
    length: int

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        with FILES.descriptor(self.path) as fd:
            position = self.offset + start
            for at in range(0, len(buffers), MAX_BUFFERS):
                position = _read_exactly(fd, position, buffers[at : at + MAX_BUFFERS], self.path)

    def copy_to(self, target: int, position: int, start: int, size: int) -> bool:
        """Have the kernel copy `size` bytes from `start` to `position` of the open file `target`.

        It does what `cp` does, without a way through this process. False where it cannot: another system, another kind
        of file. Raises OSError if the disk fails.
        """
        if not hasattr(os, "copy_file_range"):
            return False
        with FILES.descriptor(self.path) as fd:
            done = 0
            while done < size:
                try:
                    copied = os.copy_file_range(fd, target, size - done, self.offset + start + done, position + done)
                except OSError as error:
                    if error.errno in _CANNOT_COPY:
                        return False
                    raise
                if copied == 0:
                    return False
                done += copied
        return True


def _read_exactly(fd: int, position: int, buffers: Sequence[memoryview], path: Path) -> int:
    """Fill all of `buffers` from `position` and return the position after them; short reads are taken up again."""
    pending = list(buffers)
    while pending:
        try:
            got = os.preadv(fd, pending, position)
        except OSError as error:
            raise DiskError(f"{path}: cannot be read at byte {position}: {error.strerror}") from error
        if got == 0 and any(len(view) for view in pending):
            raise InputRefused(f"{path}: ends at byte {position}, before the tensor that its header promises")
        position += got
        while pending and got >= len(pending[0]):
            got -= len(pending.pop(0))
        if got:
            pending[0] = pending[0][got:]
    return position


@dataclass(frozen=True)
class Gather:
    """Rows of another source in another order: row `t` is row `index[t]` of `inner`, each `row_bytes` long."""

    inner: Source
    index: Sequence[int]
    row_bytes: int

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        for buffer in filter(len, buffers):
            self._fill(start, buffer)
            start += len(buffer)

    def _fill(self, start: int, buffer: memoryview) -> None:
        # Each wanted row is a piece (where it lies in the inner source, where it belongs in the buffer). Read in the
        # order of the inner source, neighbouring pieces are one vectored read: the rows land where they belong at once,
        # and what lies in a short gap between them, such as every other row of a rotary head, lands in the bin.
        pieces = []
        end = start + len(buffer)
        for row in range(start // self.row_bytes, -(-end // self.row_bytes)):
            skipped = max(start - row * self.row_bytes, 0)
            first = row * self.row_bytes + skipped
            last = min((row + 1) * self.row_bytes, end)
            pieces.append((self.index[row] * self.row_bytes + skipped, buffer[first - start : last - start]))
        pieces.sort(key=lambda piece: piece[0])
        unwanted = memoryview(bytearray(MAX_GAP))
        at = 0
        while at < len(pieces):
            run_start = position = pieces[at][0]
            views = []
            while at < len(pieces) and 0 <= (gap := pieces[at][0] - position) <= MAX_GAP:
                views += [unwanted[:gap], pieces[at][1]] if gap else [pieces[at][1]]
                position += gap + len(pieces[at][1])
                at += 1
            self.inner.read_into(run_start, views)


def side_by_side(
    left: Source, right: Source, length: int, size: int = 1 << 20
) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The bytes of two tensors of one length, block by block, with where each block begins.

    Compare them as bytes: memoryviews are compared one element at a time, a hundred times slower.
    """
    buffers = memoryview(bytearray(size)), memoryview(bytearray(size))
    for start, count in blocks(length, size):
        views = buffers[0][:count], buffers[1][:count]
        left.read_into(start, [views[0]])
        right.read_into(start, [views[1]])
        yield start, *views


def blocks(length: int, size: int, first: int | None = None) -> Iterator[tuple[int, int]]:
    """Cut `length` bytes into (start, size) blocks of at most `size` bytes, the first of at most `first`."""
    start, room = 0, size if first is None else first
    while start < length:
        yield start, min(room, length - start)
        start, room = start + room, size
