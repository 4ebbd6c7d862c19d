"""Disks that fail: the Nth call that writes raises, whoever makes it.

Files are opened by Python's own implementation of `open`, whose files write through the functions of `os`. So what
programs write through file objects is seen here too.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest

# The functions that write, or change what a folder lists.
WRITING = (
    "write",
    "pwrite",
    "writev",
    "pwritev",
    "copy_file_range",
    "ftruncate",
    "truncate",
    "fsync",
    "posix_fallocate",
)
LISTING = ("mkdir", "rename", "replace", "link", "symlink")
MADE = os.O_CREAT | os.O_TRUNC
# Not among the modules that type checkers know.
PYTHONS_OWN_OPEN = import_module("_pyio").open


@dataclass
class Disk:
    """Counts the calls that write, by name, and what their bytes come to; `at` is the one that fails."""

    at: int | None = None
    calls: list[str] = field(default_factory=list)
    nbytes: int = 0

    @property
    def has_failed(self) -> bool:
        return self.at is not None and len(self.calls) > self.at


@contextmanager
def failing(errno: int, at: int | None, *, lasts: bool = False) -> Iterator[Disk]:
    """A disk whose call number `at` that writes, from 0, raises `errno`; with None none does.

    One that `lasts` stays so, as a full disk does; else the next call finds it mended.
    """
    disk = Disk(at)

    def count(name: str) -> None:
        disk.calls.append(name)
        done = len(disk.calls) - 1
        if at is not None and (done == at or (lasts and done > at)):
            raise OSError(errno, os.strerror(errno))

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name != "open" or (arguments[1] if len(arguments) > 1 else options.get("flags", 0)) & MADE:
                count(name)
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
