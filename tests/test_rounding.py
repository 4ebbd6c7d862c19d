"""What A's weights are rounded to, tensor by tensor, so that a cast is no difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmconvert.casts import Overflow
from mmconvert.dtypes import BY_FLAG, BY_NAME, DType
from mmconvert.rounding import rounded
from mmconvert.sources import TensorRef
from tests.test_casts import Memory

FP32, FP16, BF16 = (BY_FLAG[name] for name in ("fp32", "fp16", "bf16"))
FP64, INT64, FP8 = (BY_NAME[name] for name in ("float64", "int64", "float8_e5m2"))
VALUES = [1.0, 1 + 2**-10, -3.14159, 1e-6, 0.0]


def ref(key: str, dtype: DType = FP32, values: list[float] = VALUES) -> TensorRef:
    tensor = torch.tensor(values).to(getattr(torch, dtype.name))
    return TensorRef(key, dtype, (len(values),), Memory(tensor.view(torch.uint8).numpy().tobytes()))


@pytest.mark.parametrize("narrow", [FP16, BF16])
def test_a_weight_gets_the_value_that_bs_type_keeps_in_its_own_type(narrow: DType) -> None:
    found, notes = rounded({"a": ref("a")}, {"a": narrow}, Overflow())
    assert (found["a"].dtype, found["a"].shape, found["a"].path) == (FP32, (5,), None)
    expected = torch.tensor(VALUES).to(getattr(torch, narrow.name)).float()
    assert np.frombuffer(found["a"].read(), np.float32).tolist() == expected.tolist()
    assert notes == (f"A's weights are rounded to {narrow.name} first, where B's are",)


def test_each_weight_is_rounded_to_its_own_type() -> None:
    given = {"a": ref("a"), "b": ref("b"), "c": ref("c"), "d": ref("d", BF16)}
    found, notes = rounded(given, {"a": BF16, "b": FP16, "c": FP32, "d": BF16}, Overflow())
    assert [np.frombuffer(found[key].read(), np.float32)[1] for key in "abc"] == [1, 1 + 2**-10, 1 + 2**-10]
    assert (found["c"], found["d"]) == (given["c"], given["d"])
    assert [note.split()[5] for note in notes] == ["bfloat16", "float16"]


@pytest.mark.parametrize(
    ("a", "b"), [(FP16, FP32), (BF16, FP32), (FP32, FP64), (INT64, INT64), (FP8, FP16), (FP32, FP8), (INT64, FP16)]
)
def test_what_loses_nothing_or_is_no_cast_is_left_alone(a: DType, b: DType) -> None:
    given = {"a": TensorRef("a", a, (4,), Memory(bytes(4 * a.itemsize)))}
    assert rounded(given, {"a": b}, Overflow())[0] == given


@pytest.mark.parametrize(("a", "b"), [(FP16, BF16), (BF16, FP16)])
def test_neither_16_bit_type_holds_the_other(a: DType, b: DType) -> None:
    given = {"a": ref("a", a)}
    assert rounded(given, {"a": b}, Overflow())[0]["a"] != given["a"]


def test_a_wider_type_is_told_of() -> None:
    _, (note,) = rounded({"a": ref("a", FP16), "b": ref("b")}, {"a": FP32, "b": FP32}, Overflow())
    assert note.startswith("B's element type is wider than A's")


def test_a_weight_that_b_has_not_is_left_alone() -> None:
    given = {"a": ref("a")}
    assert rounded(given, {}, Overflow()) == (given, ())


def test_what_becomes_infinite_is_counted_when_it_is_read() -> None:
    tally = Overflow()
    found, _ = rounded({"a": ref("a", FP32, [1e5, -1e6, 2.0])}, {"a": FP16}, tally)
    assert tally.counts == {}
    assert np.frombuffer(found["a"].read(), np.float32).tolist() == [np.inf, -np.inf, 2]
    assert tally.counts == {"a": 2}
