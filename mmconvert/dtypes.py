"""Element types: one name, one width, and how each container spells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DType:
    """One element type.

    `name` is torch's (`bfloat16`); `code` is the one in a safetensors header (`BF16`); `itemsize` is in bytes.
    """

    name: str
    code: str
    itemsize: int
    is_float: bool = False

    def __str__(self) -> str:
        return self.name


_ALL = (
    DType("bool", "BOOL", 1),
    DType("uint8", "U8", 1),
    DType("int8", "I8", 1),
    DType("uint16", "U16", 2),
    DType("int16", "I16", 2),
    DType("uint32", "U32", 4),
    DType("int32", "I32", 4),
    DType("uint64", "U64", 8),
    DType("int64", "I64", 8),
    DType("float8_e4m3fn", "F8_E4M3", 1, True),
    DType("float8_e5m2", "F8_E5M2", 1, True),
    DType("float16", "F16", 2, True),
    DType("bfloat16", "BF16", 2, True),
    DType("float32", "F32", 4, True),
    DType("float64", "F64", 8, True),
)

BY_NAME = {dtype.name: dtype for dtype in _ALL}
BY_CODE = {dtype.code: dtype for dtype in _ALL}
# The names that `--dtype` takes.
BY_FLAG = {"fp32": BY_NAME["float32"], "fp16": BY_NAME["float16"], "bf16": BY_NAME["bfloat16"]}
