"""Invented tensors depend on their seed and key, and on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from mmconvert.casts import CHUNK
from mmconvert.dtypes import BY_NAME
from mmconvert.invent import Uniform

COUNT = CHUNK + 1000


def made(seed: int = 7, key: str = "lm_head.weight", bound: float = 0.5, dtype: str = "float32") -> bytes:
    source = Uniform(seed, key, bound, BY_NAME[dtype], COUNT)
    data = bytearray(COUNT * BY_NAME[dtype].itemsize)
    source.read_into(0, [memoryview(data)])
    return bytes(data)


def test_the_values_are_the_same_on_every_machine() -> None:
    assert hashlib.sha256(made()).hexdigest() == "a611e35f645d4387f959f662dfdf26223cf10862811e305174f6a60e120f7fe9"


def test_another_seed_or_key_gives_other_values() -> None:
    assert len({made(), made(seed=8), made(key="classifier.weight")}) == 3


def test_values_fill_the_range_evenly() -> None:
    values = np.frombuffer(made(bound=0.25), np.float32)
    assert -0.25 <= values.min() < -0.249
    assert 0.249 < values.max() <= 0.25
    # A uniform distribution of this width has standard deviation 0.5 / sqrt(12); 4 sigma of the mean of COUNT values.
    assert abs(values.mean()) < 4 * 0.5 / np.sqrt(12 * COUNT)
    assert values.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.01)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_another_dtype_is_the_cast_of_the_same_values(dtype: str) -> None:
    single = torch.frombuffer(bytearray(made()), dtype=torch.float32)
    other = torch.frombuffer(bytearray(made(dtype=dtype)), dtype=getattr(torch, dtype))
    assert torch.equal(other, single.to(other.dtype))


@pytest.mark.parametrize("element", [1, 999, CHUNK - 1, CHUNK + 1])
def test_it_can_be_read_from_any_element(element: int) -> None:
    source = Uniform(7, "lm_head.weight", 0.5, BY_NAME["bfloat16"], COUNT)
    whole = made(dtype="bfloat16")
    first, rest = bytearray(2), bytearray(len(whole) - 2 * element - 2)
    source.read_into(2 * element, [memoryview(first), memoryview(rest)])
    assert bytes(first + rest) == whole[2 * element :]
