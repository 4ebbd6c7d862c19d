"""Whoever opens or reads a file of a folder is noticed, through whatever library: the kernel tells (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CAN_WATCH = sys.platform == "linux"

_READ, _OPENED, _IS_FOLDER = 0x1, 0x20, 0x40000000
_EVENT = struct.Struct("iIII")


@contextmanager
def watched(folder: Path) -> Iterator[Callable[[], set[str]]]:
    """Gives a function that tells the names of the files in `folder` that were opened or read since."""
    library = ctypes.CDLL(None, use_errno=True)
    fd = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0 or library.inotify_add_watch(fd, os.fsencode(folder), _READ | _OPENED) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    try:
        yield lambda: set(_names(fd))
    finally:
        os.close(fd)


def _names(fd: int) -> Iterator[str]:
    while True:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
            # A folder's own listing is no file of it.
            if name and not mask & _IS_FOLDER:
                yield os.fsdecode(name)
            at += _EVENT.size + length
