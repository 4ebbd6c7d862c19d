"""Casts are torch's for every 16-bit pattern and every edge, and better than torch's where torch rounds twice."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mmconvert.casts import CASTABLE, CHUNK, Cast, Overflow
from mmconvert.dtypes import BY_NAME

NAMES = sorted(dtype.name for dtype in CASTABLE)
WIDE = {"float32": (np.uint32, 23), "float64": (np.uint64, 52)}


@dataclass(frozen=True)
class Memory:
    """A source whose bytes are at hand."""

    data: bytes

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            buffer[:] = self.data[start : start + len(buffer)]
            start += len(buffer)


def tensor_of(data: bytes, name: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, name))


def patterns(name: str) -> bytes:
    """Every pattern of a 16-bit type; of a wider one random patterns, every exponent, and the middles between two
    values of each narrower type with their neighbours."""
    if name in ("float16", "bfloat16"):
        return np.arange(1 << 16, dtype=np.uint16).tobytes()
    unsigned, mantissa = WIDE[name]
    exponents = np.arange(1 << (np.dtype(unsigned).itemsize * 8 - mantissa), dtype=unsigned) << unsigned(mantissa)
    halves = [1 << (mantissa - kept - 1) for kept in (7, 10, 23) if kept < mantissa]
    offsets = [0, 1, 2, (1 << mantissa) - 1, *(n * half + d for half in halves for n in (1, 3) for d in (-1, 0, 1))]
    edges = [exponents + unsigned(offset) for offset in offsets]
    random = np.frombuffer(np.random.default_rng(0).bytes(np.dtype(unsigned).itemsize << 16), unsigned)
    moderate = np.random.default_rng(1).normal(0, 1, 1 << 16).astype(name).view(unsigned)
    return np.concatenate([*edges, random, moderate]).tobytes()


def cast(data: bytes, source: str, target: str, tally: Overflow | None = None) -> bytes:
    start, stop = BY_NAME[source], BY_NAME[target]
    result = bytearray(len(data) // start.itemsize * stop.itemsize)
    Cast(Memory(data), start, stop, "w", tally or Overflow()).read_into(0, [memoryview(result)])
    return bytes(result)


def once(values: torch.Tensor, target: str) -> torch.Tensor:
    """torch's cast; from float64 to a 16-bit type, where torch rounds twice, multiples of the target's last bit."""
    dtype: torch.dtype = getattr(torch, target)
    if values.dtype != torch.float64 or target not in ("float16", "bfloat16"):
        return values.to(dtype)
    limits = torch.finfo(dtype)
    exponent = torch.maximum(torch.frexp(values)[1], torch.frexp(torch.tensor(limits.tiny))[1]).double()
    last_bit = torch.exp2(exponent - 1) * limits.eps
    return (torch.round(values / last_bit) * last_bit).to(dtype)


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_a_cast_rounds_to_nearest_even_and_keeps_the_sign_of_nans(source: str, target: str) -> None:
    data = patterns(source)
    wanted = once(tensor_of(data, source), target)
    got = tensor_of(cast(data, source, target), target)
    nan = wanted.isnan()
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[got.itemsize]
    assert torch.equal(got.isnan(), nan)
    assert torch.equal(got[~nan].view(width), wanted[~nan].view(width))
    assert torch.equal(got[nan].signbit(), tensor_of(data, source)[nan].signbit())


@pytest.mark.parametrize("source", NAMES)
def test_every_nan_becomes_the_quiet_nan_of_its_sign(source: str) -> None:
    data = patterns(source)
    nan = tensor_of(data, source).isnan().numpy()
    got = np.frombuffer(cast(data, source, "float32"), np.uint32)[nan]
    assert set(got.tolist()) == {0x7FC00000, 0xFFC00000}


def test_float64_is_rounded_once() -> None:
    # Just above the middle of two bfloat16 values: by way of float32 it would become the middle, and tie to even.
    value = 1 + 2**-8 + 2**-40
    assert tensor_of(cast(np.float64(value).tobytes(), "float64", "bfloat16"), "bfloat16").item() == 1 + 2**-7
    assert tensor_of(cast(np.float64(-value).tobytes(), "float64", "bfloat16"), "bfloat16").item() == -1 - 2**-7


@pytest.mark.parametrize(
    ("source", "target", "values", "overflows"),
    [
        ("float32", "float16", [65519.0, 65520.0, -1e9, np.inf, -np.inf, np.nan], 2),
        ("float32", "bfloat16", [3.39e38, 3.4e38, -3.4e38, np.inf, np.nan], 2),
        ("float64", "float32", [1e38, 1e39, -1e300, np.inf, np.nan], 2),
        ("float64", "bfloat16", [1e38, 1e39, -1e300, np.inf, np.nan], 2),
        ("float32", "float64", [3.4e38, np.inf], 0),
    ],
)
def test_finite_values_that_become_infinite_are_counted(
    source: str, target: str, values: list[float], overflows: int
) -> None:
    tally = Overflow()
    cast(np.array(values, source).tobytes(), source, target, tally)
    assert tally.counts == ({"w": overflows} if overflows else {})


def test_a_cast_can_be_read_from_any_element_into_any_buffers() -> None:
    count = 2 * CHUNK + 5
    data = np.random.default_rng(2).normal(0, 1, count).astype(np.float32).tobytes()
    whole = cast(data, "float32", "bfloat16")
    source = Cast(Memory(data), BY_NAME["float32"], BY_NAME["bfloat16"], "w", Overflow())
    first, rest = bytearray(6), bytearray(len(whole) - 6 - 14)
    source.read_into(14, [memoryview(first), memoryview(b"").toreadonly(), memoryview(rest)])
    assert bytes(first + rest) == whole[14:]


def test_overflows_are_counted_from_many_threads() -> None:
    tally = Overflow()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: tally.add(f"k{n % 2}", 1), range(2000)))
    assert tally.counts == {"k0": 1000, "k1": 1000}
