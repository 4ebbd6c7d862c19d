"""Tensors that no source holds: made from a seed, the same on every machine, readable from any position."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mmconvert.casts import CHUNK, rounded
from mmconvert.dtypes import DType
from mmconvert.sources import blocks


@dataclass(frozen=True)
class Uniform:
    """`count` independent values, uniform in [-bound, bound) before they are rounded to `dtype` (one of `CASTABLE`).

    They depend on `seed` and `key` alone: not on the other tensors, the order in which they are made, the block size
    or numpy's version. (PCG64's raw stream, its `advance` and its seeding are what numpy promises to keep: see "Policy
    on stability" in NEP 19; its distributions are not promised and not used.) All dtypes round the same float32 values,
    so a tensor invented as bfloat16 is the cast of the same one as float32. Reads begin and end on whole elements.
    """

    seed: int
    key: str
    bound: float
    dtype: DType
    count: int

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        from numpy.random import PCG64

        itemsize = self.dtype.itemsize
        assert start + sum(map(len, buffers)) <= self.count * itemsize
        # One 64-bit output of the generator for each element, so that element n is n steps from the start.
        stream = PCG64(int.from_bytes(hashlib.sha256(f"{self.seed}:{self.key}".encode()).digest(), "little"))
        stream.advance(start // itemsize)
        for buffer in buffers:
            for begin, size in blocks(len(buffer), CHUNK * itemsize):
                unit = (stream.random_raw(size // itemsize) >> 11) * 2.0**-53  # 53 bits, in [0, 1)
                values = ((2 * unit - 1) * self.bound).astype("<f4")
                buffer[begin : begin + size] = rounded(values, self.dtype)[0].data.cast("B")
