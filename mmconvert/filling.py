"""Tensors that get rows which their source has not, and tensors whose rows stand in another order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmconvert.casts import CASTABLE, rounded, widened
from mmconvert.dtypes import DType
from mmconvert.errors import InputRefused
from mmconvert.holes import Zeros
from mmconvert.rows import Index, is_identity, own_rows
from mmconvert.sources import Gather, Source, TensorRef, blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Bytes that are read at a time for a mean.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Filled:
    """The `rows` rows of `inner`, and from there on the mean of them all as often as it is asked for.

    The mean is taken in float32, row after row, whatever the element type; then it is rounded to that. So it depends on
    nothing but the rows; a NaN is the positive quiet one. It is taken when the first row past the source's is read.
    """

    inner: Source
    rows: int
    row_bytes: int
    dtype: DType
    _mean: list[bytes] = field(default_factory=list, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        length = self.rows * self.row_bytes
        for buffer in filter(len, buffers):
            own = min(max(length - start, 0), len(buffer))
            if own:
                self.inner.read_into(start, [buffer[:own]])
            if own < len(buffer):
                self._repeat(start + own, buffer[own:])
            start += len(buffer)

    def _repeat(self, start: int, buffer: memoryview) -> None:
        mean, skipped = self._mean_row(), start % self.row_bytes
        copies = -(-(skipped + len(buffer)) // self.row_bytes)
        buffer[:] = (mean * copies)[skipped : skipped + len(buffer)]

    def _mean_row(self) -> bytes:
        import numpy as np

        with self._lock:
            if not self._mean:
                mean = self._sum() / self.rows
                # Which sign a sum gives a NaN is up to the processor.
                mean[np.isnan(mean)] = np.nan
                self._mean.append(rounded(mean, self.dtype)[0].tobytes())
            return self._mean[0]

    def _sum(self) -> NDArray[np.float32]:
        import numpy as np

        width = self.row_bytes // self.dtype.itemsize
        total = np.zeros((1, width), np.float32)
        at_once = max(1, BLOCK // self.row_bytes)
        for start, count in blocks(self.rows, at_once):
            raw = memoryview(bytearray(count * self.row_bytes))
            self.inner.read_into(start * self.row_bytes, [raw])
            with np.errstate(all="ignore"):
                values = widened(raw, self.dtype).astype(np.float32).reshape(count, width)
                # Row after row, so that it does not matter how many are read at once.
                total = np.add.accumulate(np.concatenate([total, values]), axis=0)[-1:]
        summed: NDArray[np.float32] = total[0]
        return summed


def arranged(ref: TensorRef, index: Index | None) -> Source:
    """The rows of a tensor in the order of `index`, in which `FILLED` ones stand at the end.

    Raises InputRefused for an element type that no mean can be taken of.
    """
    if index is None or isinstance(ref.source, Zeros):
        return ref.source
    own = own_rows(index)
    kept = index[:own]
    row_bytes = ref.nbytes // ref.shape[0]
    # What follows the rows that stay is not asked for.
    source = ref.source if is_identity(kept) else Gather(ref.source, kept, row_bytes)
    if own == len(index):
        return source
    if ref.dtype not in CASTABLE:
        raise InputRefused(f"{ref.where}: {ref.key} is {ref.dtype}, of which no rows can be made for more tokens")
    return Filled(source, own, row_bytes, ref.dtype)
