"""Tensors that lie nowhere but in a test: whole, gone, and in a file that somebody writes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmconvert.errors import InputRefused


@dataclass(frozen=True)
class Held:
    """Bytes in memory."""

    data: bytes

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            buffer[:] = self.data[start : start + len(buffer)]
            start += len(buffer)


@dataclass(frozen=True)
class Broken:
    """A tensor that cannot be read."""

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        raise InputRefused("the tensor is gone")


@dataclass(frozen=True)
class Growing:
    """A tensor whose file somebody writes to meanwhile."""

    path: Path

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        with self.path.open("ab") as file:
            file.write(b"more")
