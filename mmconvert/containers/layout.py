"""A container file before it is written: how long it is, what stands around the tensors, and where each tensor goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from mmconvert.dtypes import DType

# Bytes of a file that are no tensor's, as (offset, bytes) in rising order.
Frame = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Outline:
    """What a container needs to know of a tensor to make room for it."""

    key: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Slot:
    """A place for one tensor: `nbytes` bytes from `offset`."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class FileLayout:
    """Everything about an output file but the tensors' bytes.

    `frame` holds the bytes that are not tensor data (headers, HDF5 metadata) as (offset, bytes), in rising order and
    never overlapping a slot; whatever neither covers is zero. So a file is written by writing its frame and streaming
    each tensor to its slot, in any order, and it is checked in the same way without knowing the format.

    A format that says something about the tensors' bytes in its frame, such as a checksum, has a `seal`: given the open
    file with all tensors in it, it gives the frame as it is to be, which takes the same places.
    """

    name: str
    size: int
    frame: Frame
    slots: Mapping[str, Slot]
    seal: Callable[[int], Frame] | None = None
