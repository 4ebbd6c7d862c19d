"""What of a tensor is known to be zeros without being read, because it lies in a hole of its file.

A file that was stretched to its length and never written, such as a checkpoint for a trial run, has the size of a model
and takes no room on the disk. What is known here to be a hole is not read, and is left a hole in the target.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmconvert.casts import Cast
from mmconvert.scan import Float16Watch
from mmconvert.sources import FILES, FileSpan, Gather, Source

# Bytes at the start of a hole that are looked at all the same.
SAMPLE = 512


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros that lie nowhere: one hole, whatever its size."""

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            buffer[:] = bytes(len(buffer))


def is_hole(source: Source, start: int, size: int) -> bool:
    """Whether the `size` bytes of `source` from `start` on, at least one, come from a hole and are zeros therefore.

    False for zeros that would have to be read to be known. Where `source` is read in whole elements, so it is here.
    Raises `InputRefused` if the file behind it cannot be opened.
    """
    match source:
        case Zeros():
            return True
        case FileSpan():
            return _lies_in_hole(source.path, source.offset + start, size)
        case Gather():
            # All between the first and the last of the rows, wanted or not: they mostly lie close to each other.
            rows = source.index[start // source.row_bytes : -(-(start + size) // source.row_bytes)]
            first, end = min(rows), max(rows) + 1
            return is_hole(source.inner, first * source.row_bytes, (end - first) * source.row_bytes)
        case Cast():
            before, after = source.from_dtype.itemsize, source.to_dtype.itemsize
            return is_hole(source.inner, start // after * before, size // after * before)
        case Float16Watch():
            return is_hole(source.inner, start, size)
    return False


def _lies_in_hole(path: Path, start: int, size: int) -> bool:
    if not hasattr(os, "SEEK_DATA"):
        return False
    with FILES.descriptor(path) as fd:
        try:
            if _next_data(fd, start) < start + size:
                return False
            # Asked both ways, since from the midst of data some systems answer with the data after the next hole. And
            # looked at, since some have called fresh data a hole (OpenZFS before 2.2.2): that seldom begins with zeros.
            return os.lseek(fd, start, os.SEEK_HOLE) == start and not any(os.pread(fd, min(size, SAMPLE), start))
        except OSError:
            # The file system cannot say, or the disk fails; if so, a read will tell.
            return False


def _next_data(fd: int, start: int) -> int:
    """Where the next data lie at or after `start`; the end of the file if there are none."""
    try:
        # The position of a shared descriptor moves, and nobody minds: all reads say where they read.
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(fd).st_size
