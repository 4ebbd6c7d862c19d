"""Learning rates: their curves, what follows what, and sections that are refused."""

from __future__ import annotations

from importlib import resources
from math import cos, pi
from typing import Any

import pytest
import yaml

from mmconvert.errors import InputRefused
from mmsimple.train.schedules import Constant, Cosine, Linear, Schedule, Sequential, read_schedules

WARMUP = {"LinearLR": {"initial_learning_rate": 0.0, "end_learning_rate": 1.0, "total_iters": 10}}
DECAY = {"CosineDecayLR": {"initial_learning_rate": 1.0, "end_learning_rate": 0.5, "total_iters": 20}}
FLAT = {"ConstantLR": {"learning_rate": 0.25}}
ONLY = "mmsimple computes ConstantLR, LinearLR, CosineDecayLR, SequentialLR only"
RISING = "it must be whole numbers of updates, each larger than the one before it"


def read(section: Any) -> Schedule:
    return read_schedules(section, "params.yaml", "trainer.init.schedulers")


def refusal(section: Any) -> str:
    with pytest.raises(InputRefused) as refused:
        read(section)
    message = str(refused.value)
    assert message.startswith("params.yaml: trainer.init.schedulers")
    assert "\n" not in message
    return message.removeprefix("params.yaml: trainer.init.schedulers")


def sequential(*schedulers: Any, **fields: Any) -> dict[str, Any]:
    return {"SequentialLR": {"schedulers": list(schedulers), **fields}}


@pytest.mark.parametrize("phase", [1, 2])
def test_the_shipped_files_have_the_rates_of_the_reference(phase: int) -> None:
    text = resources.files("mmsimple").joinpath(f"configs/params_mm_llava_llama2_7b_phase{phase}.yaml").read_text()
    rate = read(yaml.safe_load(text)["trainer"]["init"]["schedulers"])
    assert rate == Sequential(((0, Linear(0.0, 1e-3, 100)), (100, Cosine(1e-3, 5e-5, 2400))))
    assert rate(0) == 0
    assert rate(1) == pytest.approx(1e-5, rel=1e-12)
    assert rate(50) == pytest.approx(5e-4, rel=1e-12)
    assert rate(100) == pytest.approx(1e-3, rel=1e-12)
    assert rate(101) == pytest.approx(9.999996e-4, rel=1e-7)
    assert rate(1300) == pytest.approx(5.25e-4, rel=1e-12)
    assert [rate(step) for step in (2500, 2501, 10**6)] == [5e-5] * 3


def test_a_line_is_straight_and_then_level() -> None:
    rate = Linear(2.0, 1.0, 4)
    assert [rate(step) for step in (0, 1, 2, 3, 4, 5, 100)] == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0, 1.0]


def test_a_cosine_is_half_a_period_and_then_level() -> None:
    rate = Cosine(3.0, 1.0, 8)
    assert [rate(step) for step in range(9)] == pytest.approx([2 + cos(pi * step / 8) for step in range(9)])
    assert rate(0) == 3.0
    assert rate(8) == rate(9) == rate(1000) == 1.0


def test_a_cosine_may_rise() -> None:
    assert Cosine(0.0, 1.0, 2)(1) == pytest.approx(0.5)


def test_parts_count_from_their_own_beginning() -> None:
    rate = Sequential(((0, Constant(7.0)), (3, Linear(0.0, 1.0, 4)), (20, Constant(9.0))))
    assert [rate(step) for step in (0, 2, 3, 5, 7, 19, 20, 99)] == [7.0, 7.0, 0.0, 0.5, 1.0, 1.0, 9.0, 9.0]


def test_milestones_follow_from_total_iters() -> None:
    hold = {"ConstantLR": {"learning_rate": 0.75, "total_iters": 5}}
    expected = Sequential(((0, Linear(0.0, 1.0, 10)), (10, Constant(0.75)), (15, Cosine(1.0, 0.5, 20))))
    assert read([sequential(WARMUP, hold, DECAY)]) == expected
    assert read([sequential(WARMUP, hold, DECAY, milestones=None)]) == expected


def test_milestones_that_are_given_are_used() -> None:
    rate = read([sequential(WARMUP, FLAT, DECAY, milestones=[4, 30])])
    assert rate == Sequential(((0, Linear(0.0, 1.0, 10)), (4, Constant(0.25)), (30, Cosine(1.0, 0.5, 20))))


def test_a_sequence_may_stand_in_another() -> None:
    inner = Sequential(((0, Linear(0.0, 1.0, 10)), (10, Cosine(1.0, 0.5, 20))))
    rate = read([sequential(sequential(WARMUP, DECAY), FLAT)])
    assert rate == Sequential(((0, inner), (30, Constant(0.25))))
    assert "schedulers.0: nothing says when the next one begins" in refusal(
        [sequential(sequential(WARMUP, FLAT), DECAY)]
    )


@pytest.mark.parametrize("section", [0.25, [0.25], FLAT, [FLAT]])
def test_a_number_a_mapping_and_a_list_of_one_are_as_good(section: Any) -> None:
    assert read(section) == Constant(0.25)


def test_rates_may_be_whole_numbers_and_come_as_floats() -> None:
    rate = read({"LinearLR": {"initial_learning_rate": 0, "end_learning_rate": 1, "total_iters": 10}})
    assert isinstance(rate, Linear)
    assert isinstance(rate.initial, float)
    assert isinstance(read(0)(5), float)


def test_fields_of_cs_that_change_nothing_are_passed_over() -> None:
    fields = {**WARMUP["LinearLR"], "cycle": False, "param_group_tags": None}
    assert read([{"LinearLR": fields}]) == Linear(0.0, 1.0, 10)
    assert refusal([{"LinearLR": {**fields, "cycle": True}}]) == (
        ".0.LinearLR.cycle is true: it must be false, all that mmsimple computes"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CosineDecay", "CosineDecay: no such scheduler; did you mean CosineDecayLR?"),
        ("PolynomialLR", f"PolynomialLR: {ONLY}"),
        ("ScalePerParamLR", f"ScalePerParamLR: {ONLY}"),
        ("two\nlines", "two\\nlines: no such scheduler"),
        (7, "7: no such scheduler"),
    ],
)
def test_schedulers_that_are_not_computed_are_refused_by_name(name: Any, message: str) -> None:
    assert refusal([{name: {"total_iters": 5}}]) == f".0.{message}"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, " is null: it must be the name of one scheduler, with its fields below it"),
        ("1e-3", " is 1e-3: it must be the name of one scheduler, with its fields below it"),
        ({}, " has 0 names: it must be the name of one scheduler, with its fields below it"),
        ({**WARMUP, **DECAY}, " has 2 names: it must be the name of one scheduler, with its fields below it"),
        ([], " has 0 schedulers, and mmsimple takes one; SequentialLR runs several, one after the other"),
        ([WARMUP, DECAY], " has 2 schedulers, and mmsimple takes one; SequentialLR runs several, one after the other"),
        (True, " is true: it must be a number, 0 or more"),
        (-1e-3, " is -0.001: it must be a number, 0 or more"),
        ([float("nan")], ".0 is nan: it must be a number, 0 or more"),
        (10**400, f" is 1{'0' * 59}: it must be a number, 0 or more"),
        ([{"LinearLR": 5}], ".0.LinearLR is 5: it must be a mapping"),
        ([{"LinearLR": None}], ".0.LinearLR.initial_learning_rate is missing"),
        ([{"ConstantLR": {}}], ".0.ConstantLR.learning_rate is missing"),
        ([{"ConstantLR": {"value": 1}}], ".0.ConstantLR.value: no such field"),
        (
            [{"LinearLR": {**WARMUP["LinearLR"], "total_iter": 5}}],
            ".0.LinearLR.total_iter: no such field; did you mean total_iters?",
        ),
        (
            [{"LinearLR": {**WARMUP["LinearLR"], "total_iters": 0}}],
            ".0.LinearLR.total_iters is 0: it must be a whole number of updates, at least 1",
        ),
        (
            [{"LinearLR": {**WARMUP["LinearLR"], "total_iters": True}}],
            ".0.LinearLR.total_iters is true: it must be a whole number of updates, at least 1",
        ),
        (
            [{"CosineDecayLR": {**DECAY["CosineDecayLR"], "total_iters": 5.0}}],
            ".0.CosineDecayLR.total_iters is 5.0: it must be a whole number of updates, at least 1",
        ),
        (
            [{"CosineDecayLR": {**DECAY["CosineDecayLR"], "end_learning_rate": float("inf")}}],
            ".0.CosineDecayLR.end_learning_rate is inf: it must be a number, 0 or more",
        ),
        ([sequential()], ".0.SequentialLR.schedulers is []: it must be a list of schedulers"),
        (
            [sequential(WARMUP, {"ConstLR": {}})],
            ".0.SequentialLR.schedulers.1.ConstLR: no such scheduler; did you mean ConstantLR?",
        ),
        (
            [sequential(WARMUP, FLAT, DECAY)],
            ".0.SequentialLR.schedulers.1: nothing says when the next one begins; give its total_iters, or milestones",
        ),
        (
            [sequential(WARMUP, DECAY, milestones=[5, 6])],
            ".0.SequentialLR.milestones has 2 entries for 2 schedulers: it must have 1",
        ),
        (
            [sequential(WARMUP, FLAT, DECAY, milestones=[5, 5])],
            f".0.SequentialLR.milestones is [5, 5]: {RISING}",
        ),
        (
            [sequential(WARMUP, DECAY, milestones=[0])],
            f".0.SequentialLR.milestones is [0]: {RISING}",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(section: Any, message: str) -> None:
    assert refusal(section) == message
