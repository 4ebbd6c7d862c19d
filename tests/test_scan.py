"""Looking at values on their way."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmconvert.casts import Overflow
from mmconvert.containers import open_file
from mmconvert.dtypes import BY_NAME
from mmconvert.scan import Float16Watch, Scan, count_nonfinite, has_nonfinite, numbers, scan_tensors
from mmconvert.sources import FileSpan, TensorRef

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


@pytest.mark.parametrize("dtype", ["float8_e5m2", "float16", "bfloat16", "float32", "float64"])
def test_nans_and_infinities_are_counted_apart(dtype: str) -> None:
    block = memoryview(raw([NAN, 1.0, INF, -INF, NAN, -0.0, INF], dtype))
    assert count_nonfinite(block, BY_NAME[dtype]) == (2, 3)


def test_a_type_without_infinity_has_nan_only() -> None:
    assert count_nonfinite(memoryview(bytes([0x7F, 0xFF, 0x7E, 0xFE])), BY_NAME["float8_e4m3fn"]) == (2, 0)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_every_value_of_eight_bits_is_read_as_torch_reads_it(dtype: str) -> None:
    kind: torch.dtype = getattr(torch, dtype)
    expected = torch.arange(256).to(torch.uint8).view(kind).double()
    found = torch.from_numpy(numbers(bytes(range(256)), BY_NAME[dtype]).astype("f8"))
    assert torch.equal(found.nan_to_num(12345.0), expected.nan_to_num(12345.0))
    assert torch.equal(found.signbit() & ~found.isnan(), expected.signbit() & ~expected.isnan())


def tensors_of(tmp_path: Path, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, TensorRef]:
    save_file(dict(tensors), tmp_path / "model.safetensors")
    return open_file(tmp_path / "model.safetensors")[0]


def test_a_scan_lists_the_tensors_that_hold_something_odd(tmp_path: Path) -> None:
    tensors = {
        "fine": torch.ones(3),
        "nan": torch.tensor([1.0, NAN]),
        "both": torch.tensor([NAN, INF, NAN, -INF, INF]).bfloat16(),
        "integers": torch.full((4,), -1),
    }
    assert scan_tensors(tensors_of(tmp_path, tensors)) == Scan(
        nan={"nan": 1, "both": 2}, infinite={"both": 3}, nbytes=12 + 8 + 10
    )


def test_a_scan_adds_up_the_blocks_of_a_long_tensor_in_constant_memory(tmp_path: Path) -> None:
    long = torch.zeros(4_000_000)
    long[[0, 1_000_000, 3_999_999]] = NAN
    tensors = tensors_of(tmp_path, {"long": long})
    tracemalloc.start()
    try:
        assert scan_tensors(tensors).nan == {"long": 3}
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_the_progress_of_a_scan_comes_to_its_total(tmp_path: Path) -> None:
    heard: list[int] = []

    class Watch:
        def start(self, total_bytes: int) -> None:
            heard.append(-total_bytes)

        def advance(self, nbytes: int) -> None:
            heard.append(nbytes)

        def finish(self) -> None:
            heard.append(0)

    scan_tensors(tensors_of(tmp_path, {"a": torch.ones(3), "b": torch.ones(600_000)}), Watch())
    assert heard[0] == -4 * 600_003
    assert (sum(heard), heard[-1]) == (0, 0)
