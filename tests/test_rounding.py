"""What A's weights are rounded to, so that a cast is no difference."""

from __future__ import annotations

import pytest

from mmconvert import Options
from mmconvert.dtypes import BY_FLAG, BY_NAME, DType
from mmconvert.rounding import rounding_of

FP32, FP16, BF16 = (BY_FLAG[name] for name in ("fp32", "fp16", "bf16"))
FP64, INT64, FP8 = (BY_NAME[name] for name in ("float64", "int64", "float8_e5m2"))


def test_equal_element_types_are_left_alone() -> None:
    assert rounding_of([FP32, BF16, FP32], [BF16, FP32], Options(dtype={"": BF16})) == ({}, ())
    assert rounding_of([BF16, INT64], [BF16], None) == ({}, ())


def test_what_b_recorded_is_taken_part_by_part() -> None:
    found, notes = rounding_of([FP32], [BF16, FP32], Options(dtype={"text": BF16}))
    assert found == {"text": BF16}
    assert notes == ("A's weights of the text part are rounded to bfloat16 first, as B's were",)
    assert rounding_of([FP32], [BF16], Options(dtype={"": BF16}))[0] == {"": BF16}


def test_a_part_that_kept_its_type_is_not_rounded_with_the_others() -> None:
    found, _ = rounding_of([FP32], [BF16, FP32], Options(dtype={"": BF16, "vision": None}))
    assert found == {"projector": BF16, "text": BF16}


@pytest.mark.parametrize("recorded", [None, Options()])
def test_without_a_record_the_only_type_of_b_is_taken(recorded: Options | None) -> None:
    found, notes = rounding_of([FP32], [FP16, INT64], recorded)
    assert found == {"": FP16}
    assert notes == ("A's weights are rounded to float16 first, as B's were",)


def test_without_a_record_several_types_say_nothing() -> None:
    found, (note,) = rounding_of([FP32], [BF16, FP16], None)
    assert found == {}
    assert note.startswith("B holds bfloat16 and float16 and does not say of which part")


@pytest.mark.parametrize(("a", "b"), [(BF16, FP32), (FP16, FP32), (FP32, FP64), (FP8, BF16)])
def test_a_wider_type_rounds_nothing(a: DType, b: DType) -> None:
    found, (note,) = rounding_of([a], [b], None)
    assert found == {}
    assert "wider" in note


@pytest.mark.parametrize(("a", "b"), [(BF16, FP16), (FP16, BF16)])
def test_neither_16_bit_type_holds_the_other(a: DType, b: DType) -> None:
    assert rounding_of([a], [b], None)[0] == {"": b}


def test_a_part_for_which_the_recorded_type_is_wide_enough_is_left_out() -> None:
    found, _ = rounding_of([FP32], [BF16, FP32], Options(dtype={"text": BF16, "vision": FP32}))
    assert found == {"text": BF16}
