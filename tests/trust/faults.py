"""Disks that fail, and processes that are killed, at the Nth call that writes, whoever makes it.

Files are opened by Python's own implementation of `open`, whose files write through the functions of `os`. So what
programs write through file objects is seen here too.
"""

from __future__ import annotations

import builtins
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest

# The functions that write, or change what a folder lists.
WRITING = ("write", "pwrite", "writev", "pwritev", "copy_file_range", "ftruncate", "truncate", "fsync")
LISTING = ("mkdir", "rename", "replace", "link", "symlink")
MADE = os.O_CREAT | os.O_TRUNC
# Not among the modules that type checkers know.
PYTHONS_OWN_OPEN = import_module("_pyio").open


@dataclass
class Disk:
    """The calls that wrote, by name, and what their bytes come to."""

    calls: list[str] = field(default_factory=list)
    nbytes: int = 0


def failing(errno: int, at: int | None, *, lasts: bool = False) -> AbstractContextManager[Disk]:
    """A disk whose call number `at` that writes, from 0, raises `errno`; with None none does.

    One that `lasts` stays so for all that needs room, as a full disk does; else the next call finds it mended.
    """

    def fail(number: int, name: str) -> None:
        if at is not None and (number == at or (lasts and number > at and name not in LISTING)):
            raise OSError(errno, os.strerror(errno))

    return watched(fail)


def killing(at: int) -> AbstractContextManager[Disk]:
    """This process is killed when it is about to make call number `at` that writes."""

    def kill(number: int, name: str) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return watched(kill)


@contextmanager
def watched(before: Callable[[int, str], None]) -> Iterator[Disk]:
    """Tell `before` of every call that writes, by its number and name, before it is made."""
    disk = Disk()

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if _writes(name, *arguments, **options):
                disk.calls.append(name)
                before(len(disk.calls) - 1, name)
            result = function(*arguments, **options)
            if name in ("write", "pwrite", "copy_file_range"):
                disk.nbytes += result
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in (*WRITING, *LISTING, "open"):
            if hasattr(os, name):
                patch.setattr(os, name, wrapped(name, getattr(os, name)))
        patch.setattr(builtins, "open", PYTHONS_OWN_OPEN)
        patch.setattr(io, "open", PYTHONS_OWN_OPEN)
        yield disk


def _writes(name: str, path: Any, flags: int = 0, *_: Any, **__: Any) -> bool:
    """Whether a call changes anything: a folder that is there already is not made, and not every file is written to."""
    if name == "open":
        return bool(flags & MADE)
    return name != "mkdir" or not os.path.isdir(path)
