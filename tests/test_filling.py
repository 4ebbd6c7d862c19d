"""Rows that a source has not: the mean of the others, however and from wherever they are read."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from mmconvert import filling
from mmconvert.dtypes import BY_NAME, DType
from mmconvert.errors import InputRefused
from mmconvert.filling import Filled, arranged
from mmconvert.holes import Zeros
from mmconvert.rows import FILLED
from mmconvert.sources import Source, TensorRef
from tests.tensor_sources import Broken, Held

NAMES = ("float16", "bfloat16", "float32", "float64")
ROWS, WIDTH = 37, 5
MORE = 64


def random_rows(name: str, rows: int = ROWS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64).to(getattr(torch, name))


def to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def filled(tensor: torch.Tensor) -> Filled:
    dtype = BY_NAME[str(tensor.dtype).removeprefix("torch.")]
    return Filled(Held(to_bytes(tensor)), len(tensor), tensor.shape[1] * dtype.itemsize, dtype)


def read(source: Source, start: int, *sizes: int) -> bytes:
    buffers = [memoryview(bytearray(size)) for size in sizes]
    source.read_into(start, buffers)
    return b"".join(buffers)


def mean_of(tensor: torch.Tensor) -> torch.Tensor:
    """The rows added one after the other, in float32."""
    total = torch.zeros(tensor.shape[1])
    for row in tensor.to(torch.float32):
        total = total + row
    return (total / len(tensor)).to(tensor.dtype)


def expected(tensor: torch.Tensor, rows: int = MORE) -> bytes:
    return to_bytes(torch.cat([tensor, mean_of(tensor).expand(rows - len(tensor), -1)]))


# --- the mean ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_rows_past_the_source_s_are_the_mean_of_them_all(name: str) -> None:
    tensor = random_rows(name)
    assert read(filled(tensor), 0, len(expected(tensor))) == expected(tensor)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [1, 7, 60, 333, 1 << 20])
def test_the_mean_does_not_depend_on_how_much_is_read_at_once(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = random_rows(name)
    monkeypatch.setattr(filling, "BLOCK", block)
    assert read(filled(tensor), 0, len(expected(tensor))) == expected(tensor)


def test_rows_are_added_one_after_the_other_as_no_pairwise_sum_would() -> None:
    # In float32 2**24 + 1 is 2**24, so that the order shows.
    tensor = torch.tensor([[2.0**24]] + [[1.0]] * 8)
    found = np.frombuffer(read(filled(tensor), 36, 4), np.float32)
    assert found == np.float32(2**24) / np.float32(9) != np.float32((2**24 + 8) / 9)


@pytest.mark.parametrize("name", NAMES)
def test_a_sum_may_be_larger_than_the_element_type_s_greatest_number(name: str) -> None:
    tensor = torch.full((40, 2), 60000.0, dtype=getattr(torch, name))
    assert read(filled(tensor), len(to_bytes(tensor)), 4 * tensor.element_size()) == to_bytes(tensor[:2])


@pytest.mark.parametrize("name", NAMES)
def test_one_row_is_its_own_mean(name: str) -> None:
    tensor = random_rows(name, rows=1).to(torch.float32).to(getattr(torch, name))
    assert read(filled(tensor), 0, 3 * len(to_bytes(tensor))) == 3 * to_bytes(tensor)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("odd", [float("inf"), -float("inf"), float("nan"), -float("nan")])
def test_what_is_not_finite_stays_so_in_its_column(name: str, odd: float) -> None:
    tensor = random_rows(name)
    tensor[3, 1], tensor[4, 2], tensor[9, 2] = odd, float("inf"), -float("inf")
    row = len(to_bytes(tensor)) // ROWS
    mean = torch.frombuffer(bytearray(read(filled(tensor), ROWS * row, row)), dtype=tensor.dtype)
    quiet = to_bytes(torch.tensor([float("nan")], dtype=tensor.dtype))
    # The quiet NaN without a sign, on every processor.
    assert to_bytes(mean[2:3]) == quiet
    assert to_bytes(mean[1:2]) == (quiet if odd != odd else to_bytes(torch.tensor([odd], dtype=tensor.dtype)))
    assert torch.equal(mean[[0, 3, 4]], mean_of(tensor)[[0, 3, 4]])


def test_numbers_too_large_for_float32_become_infinite_without_a_word() -> None:
    tensor = torch.tensor([[1e300, 1.0], [1e300, 2.0]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = torch.frombuffer(bytearray(read(filled(tensor), 32, 16)), dtype=torch.float64)
    assert mean.tolist() == [float("inf"), 1.5]


# --- reads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_reads_may_begin_and_end_anywhere(name: str) -> None:
    tensor = random_rows(name, rows=3)
    whole = expected(tensor, rows=6)
    for start in range(len(whole) + 1):
        for size in range(len(whole) + 1 - start):
            # A new one each time, so that the first read is this one.
            assert read(filled(tensor), start, size) == whole[start : start + size], (start, size)


def test_one_read_may_fill_several_buffers() -> None:
    tensor = random_rows("float32", rows=3)
    whole = expected(tensor, rows=9)
    for sizes in ([7, 0, 60, 1, 20], [60, 20, 20], [0, 61, 39], [100, 0]):
        assert read(filled(tensor), 5, *sizes) == whole[5 : 5 + sum(sizes)]


def test_the_source_s_own_rows_are_read_without_a_mean() -> None:
    @dataclass(frozen=True)
    class Watched:
        data: bytes
        reads: list[int] = field(default_factory=list)

        def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
            self.reads.append(start)
            Held(self.data).read_into(start, buffers)

    tensor = random_rows("float32")
    inner = Watched(to_bytes(tensor))
    source = Filled(inner, ROWS, 4 * WIDTH, BY_NAME["float32"])
    read(source, 20, 100)
    assert inner.reads == [20]
    end = len(to_bytes(tensor))
    read(source, end, 20)
    assert inner.reads == [20, 0]
    # And then it is known.
    read(source, end + 20, 200)
    assert inner.reads == [20, 0]


def test_threads_that_ask_at_once_get_the_same() -> None:
    tensor = random_rows("bfloat16", rows=2000)
    whole = expected(tensor, rows=2064)
    source, start = filled(tensor), threading.Barrier(8)

    def ask(number: int) -> bytes:
        start.wait()
        return read(source, number * 1000, len(whole) - number * 1000)

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(ask, range(8))):
            assert found == whole[number * 1000 :]


# --- what stands in front of a tensor ---------------------------------------------------------------------------------


def ref(source: Source, dtype: DType = BY_NAME["float32"], rows: int = 3) -> TensorRef:
    return TensorRef("key", dtype, (rows, WIDTH), source, "file")


def test_a_tensor_in_its_own_order_is_its_source() -> None:
    tensor = random_rows("float32", rows=3)
    held = Held(to_bytes(tensor))
    assert arranged(ref(held), None) is held
    # Cut, it is read no further.
    assert arranged(ref(held), range(2)) is held
    assert read(arranged(ref(held), [2, 0]), 0, 40) == to_bytes(tensor[[2, 0]])


def test_rows_may_be_moved_and_others_filled_in() -> None:
    tensor = random_rows("float32", rows=3)
    held = Held(to_bytes(tensor))
    assert read(arranged(ref(held), [0, 1, 2, FILLED]), 0, 80) == expected(tensor, rows=4)
    kept = tensor[[2, 0]]
    assert read(arranged(ref(held), [2, 0, FILLED, FILLED]), 0, 80) == expected(kept, rows=4)


def test_rows_that_are_cut_off_are_not_in_the_mean() -> None:
    tensor = random_rows("float32", rows=3)
    assert read(arranged(ref(Held(to_bytes(tensor))), [0, 1, FILLED]), 0, 60) == expected(tensor[:2], rows=3)


def test_nothing_is_read_until_it_is_asked_for() -> None:
    assert arranged(ref(Broken()), [0, 1, 2, FILLED])


@pytest.mark.parametrize("index", [None, range(2), [0, 1, 2, FILLED]])
def test_holes_stay_holes(index: Sequence[int] | None) -> None:
    zeros = Zeros()
    assert arranged(ref(zeros), index) is zeros


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int64"])
def test_numbers_that_have_no_mean_are_refused_by_name(name: str) -> None:
    narrow = ref(Held(bytes(3 * WIDTH * BY_NAME[name].itemsize)), BY_NAME[name])
    assert arranged(narrow, range(2))
    with pytest.raises(InputRefused, match=rf"file: key is {name}, of which no rows can be made for more tokens"):
        arranged(narrow, [0, 1, 2, FILLED])


def test_the_mean_of_a_real_vocabulary_is_that_of_its_columns() -> None:
    tensor = random_rows("float32", rows=5000)
    mean = np.frombuffer(read(filled(tensor), 5000 * 4 * WIDTH, 4 * WIDTH), np.float32)
    np.testing.assert_allclose(mean, tensor.double().mean(0).numpy(), atol=1e-6)
