"""The file in memory that HDF5 writes a layout into, and what it wrote there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from mmconvert.containers.layout import Slot


class Pages:
    """A file in memory, as h5py's file-object driver wants it, that keeps only the pages that were written.

    The rest reads as zeros and takes no room, so a checkpoint of any size is laid out in a few megabytes.
    """

    PAGE = 4096

    def __init__(self) -> None:
        self.size = 0
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def truncate(self, size: int) -> int:
        self.size = size
        return size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        view[:] = self.read(self._position, len(view))
        return self._advance(len(view))

    def write(self, data: Any) -> int:
        view = memoryview(data)
        for page, inside, outside in self._cut(self._position, len(view)):
            self._pages.setdefault(page, bytearray(self.PAGE))[inside] = view[outside]
        return self._advance(len(view))

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start` on; zeros where nothing was written."""
        data = bytearray(length)
        for page, inside, outside in self._cut(start, length):
            if page in self._pages:
                data[outside] = self._pages[page][inside]
        return bytes(data)

    def _advance(self, length: int) -> int:
        self._position += length
        self.size = max(self.size, self._position)
        return length

    def _cut(self, start: int, length: int) -> Iterator[tuple[int, slice, slice]]:
        """Cut a range at page borders: (page, where in the page, where in the range)."""
        done = 0
        while done < length:
            page, at = divmod(start + done, self.PAGE)
            step = min(self.PAGE - at, length - done)
            yield page, slice(at, at + step), slice(done, done + step)
            done += step


def frame(pages: Pages, slots: Iterable[Slot]) -> Iterator[tuple[int, bytes]]:
    """What HDF5 wrote between, before and after the tensors, in rising order."""
    position = 0
    taken = sorted((slot.offset, slot.nbytes) for slot in slots if slot.nbytes)
    for offset, nbytes in [*taken, (pages.size, 0)]:
        between = pages.read(position, offset - position)
        # Most gaps are the few bytes that align a tensor; a file is zero where nothing is said of it.
        if any(between):
            yield position, between
        position = offset + nbytes
