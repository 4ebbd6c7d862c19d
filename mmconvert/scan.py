"""Looking at values on their way: NaN, infinity, and what a reader of the target could not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmconvert.casts import CASTABLE, Overflow, widened
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.progress import Progress, Silent
from mmconvert.sources import Source, TensorRef, blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1 << 20
# The exponent bits of each type; a value is finite unless all of them are set. float8_e4m3fn has no infinity: its NaN
# is all bits but the sign.
_EXPONENTS = {
    "float8_e4m3fn": ("<u1", 0x7F),
    "float8_e5m2": ("<u1", 0x7C),
    "float16": ("<u2", 0x7C00),
    "bfloat16": ("<u2", 0x7F80),
    "float32": ("<u4", 0x7F80_0000),
    "float64": ("<u8", 0x7FF0_0000_0000_0000),
}
# Beyond this, rounding to float16 gives infinity.
FLOAT16_LIMIT = 65520.0
WIDER_THAN_FLOAT16 = frozenset(BY_NAME[name] for name in ("bfloat16", "float32", "float64"))


def has_nonfinite(block: memoryview, dtype: DType) -> bool:
    """Whether a block of whole elements holds a NaN or an infinity; False for types that have none."""
    if dtype.name not in _EXPONENTS:
        return False
    import numpy as np

    unsigned, mask = _EXPONENTS[dtype.name]
    bits = np.frombuffer(block, unsigned)
    return bool(((bits & bits.dtype.type(mask)) == mask).any())


def count_nonfinite(block: memoryview, dtype: DType) -> tuple[int, int]:
    """How many NaNs and how many infinities a block of whole elements holds."""
    if not has_nonfinite(block, dtype):
        return 0, 0
    import numpy as np

    found = numbers(block, dtype)
    return int(np.isnan(found).sum()), int(np.isinf(found).sum())


def numbers(raw: bytes | memoryview, dtype: DType) -> NDArray[Any]:
    """The values of `raw`, an array of any `dtype`, exactly; a bool comes as 0 or 1."""
    import numpy as np

    if dtype in CASTABLE:
        return widened(raw, dtype)
    if not dtype.is_float:
        return np.frombuffer(raw, "u1" if dtype.name == "bool" else np.dtype(dtype.name).newbyteorder("<"))
    bits = np.frombuffer(raw, "u1").astype("<u2")
    if dtype.name == "float8_e5m2":
        return (bits << 8).view("<f2")
    # As a float16 it has the right fraction, and an exponent whose bias is 15 where it should be 7.
    found = ((bits & 0x80) << 8 | (bits & 0x7F) << 7).view("<f2").astype("<f4") * 2**8
    found[(bits & 0x7F) == 0x7F] = np.nan
    return found


@dataclass(frozen=True)
class Scan:
    """How many NaNs and infinities each tensor holds, by its name where it holds any; `nbytes` were looked at."""

    nan: Mapping[str, int]
    infinite: Mapping[str, int]
    nbytes: int


def scan_tensors(tensors: Mapping[str, TensorRef], progress: Progress | None = None) -> Scan:
    """Read every floating-point tensor, a block at a time, and count what is not finite.

    Raises InputRefused where a file ends early or is damaged.
    """
    watcher = progress or Silent()
    floats = {key: ref for key, ref in tensors.items() if ref.dtype.is_float}
    nbytes = sum(ref.nbytes for ref in floats.values())
    nan, infinite = dict.fromkeys(floats, 0), dict.fromkeys(floats, 0)
    buffer = memoryview(bytearray(BLOCK))
    watcher.start(nbytes)
    try:
        for key, ref in floats.items():
            for start, size in blocks(ref.nbytes, BLOCK):
                ref.source.read_into(start, [buffer[:size]])
                nans, infinities = count_nonfinite(buffer[:size], ref.dtype)
                nan[key] += nans
                infinite[key] += infinities
                watcher.advance(size)
    finally:
        watcher.finish()
    return Scan(_some(nan), _some(infinite), nbytes)


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: count for key, count in counts.items() if count}


@dataclass(frozen=True)
class Float16Watch:
    """The bytes of `inner`, unchanged; finite values that float16 cannot hold are added to `tally` under `key`.

    For targets whose only reader casts everything to float16. Reads begin and end on whole elements.
    """

    inner: Source
    dtype: DType
    key: str
    tally: Overflow

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        import numpy as np

        self.inner.read_into(start, buffers)
        for buffer in buffers:
            values = np.abs(widened(buffer, self.dtype))
            self.tally.add(self.key, int(((values >= FLOAT16_LIMIT) & (values < np.inf)).sum()))
