"""Floating-point tensors in another precision, rounded once and to the nearest (ties to even), as IEEE 754 says.

A value too large for the target becomes infinite and is counted; a NaN becomes the quiet NaN of its sign, whatever its
payload, so that the bytes do not depend on which instruction the processor has for the job.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mmconvert.dtypes import BY_NAME, DType
from mmconvert.sources import Source, blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Elements cast at a time: few enough for all the intermediate arrays to stay in the processor's cache.
CHUNK = 1 << 16


class _Format(NamedTuple):
    """The bits of one floating-point type: `storage` and `arithmetic` are numpy's codes for its bits and its values."""

    storage: str
    arithmetic: str
    infinity: int
    quiet_nan: int
    sign: int


# numpy has no bfloat16: it is computed with as float32, of which it is the upper half.
_FORMATS = {
    BY_NAME["float16"]: _Format("<u2", "<f2", 0x7C00, 0x7E00, 1 << 15),
    BY_NAME["bfloat16"]: _Format("<u2", "<f4", 0x7F80, 0x7FC0, 1 << 15),
    BY_NAME["float32"]: _Format("<u4", "<f4", 0x7F80_0000, 0x7FC0_0000, 1 << 31),
    BY_NAME["float64"]: _Format("<u8", "<f8", 0x7FF0 << 48, 0x7FF8 << 48, 1 << 63),
}
CASTABLE = frozenset(_FORMATS)


@dataclass
class Overflow:
    """How many finite values of each tensor became infinite, counted from any number of threads."""

    counts: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, key: str, count: int) -> None:
        """Count `count` more values of tensor `key`; a tensor without any is not listed."""
        if count:
            with self._lock:
                self.counts[key] = self.counts.get(key, 0) + count


@dataclass(frozen=True)
class Cast:
    """The elements of `inner`, which are `from_dtype`, as `to_dtype`; both must be in `CASTABLE`.

    Values that overflow are added to `tally` under `key`, once for every time that they are read. Reads begin and end
    on whole elements. A `Gather` belongs behind a cast, not in front of it: the longer a read, the faster a cast.
    """

    inner: Source
    from_dtype: DType
    to_dtype: DType
    key: str
    tally: Overflow

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        at = start // self.to_dtype.itemsize
        scratch = memoryview(bytearray(CHUNK * self.from_dtype.itemsize))
        for buffer in buffers:
            for begin, size in blocks(len(buffer), CHUNK * self.to_dtype.itemsize):
                count = size // self.to_dtype.itemsize
                raw = scratch[: count * self.from_dtype.itemsize]
                self.inner.read_into(at * self.from_dtype.itemsize, [raw])
                bits, overflowed = rounded(widened(raw, self.from_dtype), self.to_dtype)
                buffer[begin : begin + size] = bits.data.cast("B")
                self.tally.add(self.key, overflowed)
                at += count


def tallied(source: Source) -> Iterator[tuple[Overflow, str]]:
    """What counts the values of a source on their way, and under which key."""
    each: Any = source
    while each is not None:
        tally = getattr(each, "tally", None)
        if tally is not None:
            yield tally, each.key
        each = getattr(each, "inner", None)


def widened(raw: bytes | memoryview, dtype: DType) -> NDArray[np.floating[Any]]:
    """The values of `raw`, an array of `dtype`; bfloat16 comes as float32, exactly."""
    import numpy as np

    form = _FORMATS[dtype]
    if dtype.name == "bfloat16":
        return (np.frombuffer(raw, form.storage).astype("<u4") << 16).view(form.arithmetic)
    return np.frombuffer(raw, form.arithmetic)


def rounded(values: NDArray[np.floating[Any]], dtype: DType) -> tuple[NDArray[np.unsignedinteger[Any]], int]:
    """`values` as the bits of `dtype`, rounded once, to nearest even, and how many finite ones became infinite."""
    import numpy as np

    form = _FORMATS[dtype]
    with np.errstate(all="ignore"):  # an overflow is counted below, and is nothing to warn of on stderr
        if dtype.name == "bfloat16":
            single = _float32_to_odd(values) if values.dtype.itemsize == 8 else values.astype("<f4", copy=False)
            bits = _upper_halves(single)
        else:
            bits = values.astype(form.arithmetic).view(form.storage)
    not_finite = ~np.isfinite(values)
    if not_finite.any():
        nan = np.isnan(values)
        negative = np.signbit(values[nan]).astype(form.storage)
        bits[nan] = negative * form.sign + form.quiet_nan
        not_finite &= ~nan
    infinite = (bits & (form.sign - 1)) == form.infinity
    return bits, int(np.count_nonzero(infinite)) - int(np.count_nonzero(not_finite))


def _upper_halves(values: NDArray[np.floating[Any]]) -> NDArray[np.unsignedinteger[Any]]:
    """float32 `values` as bfloat16, rounded to nearest even; a NaN comes out as anything."""
    import numpy as np

    bits = values.view(np.uint32)
    bits = bits + ((bits >> 16) & 1)
    bits += 0x7FFF
    bits >>= 16
    return bits.astype(np.uint16)


def _float32_to_odd(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """float64 `values` cut to float32, with the last bit set wherever something was cut off.

    Rounding such a value again gives what rounding the float64 once would have given, because the last bit remembers
    on which side of a tie it lay (Boldo and Melquiond, "Emulation of FMA and Correctly Rounded Sums", 2008).
    """
    import numpy as np

    nearest = values.astype("<f4")
    inexact = nearest != values
    bits = nearest.view("<u4")
    bits -= np.abs(nearest) > np.abs(values)  # one step back towards zero, also from infinity
    bits |= inexact
    return nearest
