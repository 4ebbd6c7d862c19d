"""Looking at values on their way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmconvert.casts import Overflow
from mmconvert.dtypes import BY_NAME
from mmconvert.scan import Float16Watch, has_nonfinite
from mmconvert.sources import FileSpan

INF, NAN = float("inf"), float("nan")


def raw(values: list[float], dtype: str) -> bytes:
    kind: torch.dtype = getattr(torch, dtype)
    return torch.tensor(values, dtype=torch.float64).to(kind).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    ("values", "odd"),
    [([0.0, -0.0, 65504.0, 6e-8], False), ([1.0, INF], True), ([-INF, 1.0], True), ([1.0, NAN], True)],
)
def test_infinities_and_nans_are_seen(dtype: str, values: list[float], odd: bool) -> None:
    assert has_nonfinite(memoryview(raw(values, dtype)), BY_NAME[dtype]) is odd


def test_integers_are_finite() -> None:
    assert not has_nonfinite(memoryview(b"\xff" * 8), BY_NAME["int64"])


def test_what_float16_cannot_hold_is_counted_and_passed_on(tmp_path: Path) -> None:
    data = raw([65519.0, 65520.0, -1e5, INF, NAN, 0.0], "float32")
    (tmp_path / "data").write_bytes(data)
    tally = Overflow()
    watch = Float16Watch(FileSpan(tmp_path / "data", 0, len(data)), BY_NAME["float32"], "key", tally)
    first, second = bytearray(8), bytearray(16)
    watch.read_into(0, [memoryview(first), memoryview(second)])
    assert bytes(first + second) == data
    assert tally.counts == {"key": 2}
