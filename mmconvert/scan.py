"""Looking at values on their way: NaN, infinity, and what a reader of the target could not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmconvert.casts import Overflow, widened
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.sources import Source

# The exponent bits of each type; a value is finite unless all of them are set.
_EXPONENTS = {
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
