"""Looking at values: NaN and infinity are converted as they are, and reported."""

from __future__ import annotations

from mmconvert.dtypes import DType

# The exponent bits of each type; a value is finite unless all of them are set.
_EXPONENTS = {
    "float16": ("<u2", 0x7C00),
    "bfloat16": ("<u2", 0x7F80),
    "float32": ("<u4", 0x7F80_0000),
    "float64": ("<u8", 0x7FF0_0000_0000_0000),
}


def has_nonfinite(block: memoryview, dtype: DType) -> bool:
    """Whether a block of whole elements holds a NaN or an infinity; False for types that have none."""
    if dtype.name not in _EXPONENTS:
        return False
    import numpy as np

    unsigned, mask = _EXPONENTS[dtype.name]
    bits = np.frombuffer(block, unsigned)
    return bool(((bits & bits.dtype.type(mask)) == mask).any())
