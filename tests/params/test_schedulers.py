"""Learning rates as flat files spell them and as trainers do."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.params.schedulers import NAMES, Unsaid, full_name, to_flat, to_trainer

WARM_UP = {"scheduler": "Linear", "initial_learning_rate": 0.0, "end_learning_rate": 1e-3, "total_iters": 100}
DECAY = {"scheduler": "CosineDecay", "initial_learning_rate": 1e-3, "end_learning_rate": 5e-5, "total_iters": 2400}
LINEAR = {"LinearLR": {"initial_learning_rate": 0.0, "end_learning_rate": 1e-3, "total_iters": 100}}
COSINE = {"CosineDecayLR": {"initial_learning_rate": 1e-3, "end_learning_rate": 5e-5, "total_iters": 2400}}

PAIRS: list[tuple[Any, list[dict[str, Any]]]] = [
    (0.1, [{"ConstantLR": {"learning_rate": 0.1}}]),
    ([], []),
    ([WARM_UP], [LINEAR]),
    ([WARM_UP, DECAY], [{"SequentialLR": {"schedulers": [LINEAR, COSINE]}}]),
    ([{**WARM_UP, "main_scheduler": "chained"}, DECAY], [{"ChainedScheduler": {"schedulers": [LINEAR, COSINE]}}]),
    ([{**WARM_UP, "main_scheduler": "chained"}], [{"ChainedScheduler": {"schedulers": [LINEAR]}}]),
    (
        [{"scheduler": "Sequential", "schedulers": [WARM_UP, DECAY], "milestones": [7]}],
        [{"SequentialLR": {"schedulers": [LINEAR, COSINE], "milestones": [7]}}],
    ),
    (
        [{"scheduler": "Constant", "learning_rate": 0.1, "total_iters": 5}],
        [{"ConstantLR": {"learning_rate": 0.1, "total_iters": 5}}],
    ),
    ([{"scheduler": "CyclicLR", "base_lr": 1}], [{"CyclicLR": {"base_lr": 1}}]),
]


@pytest.mark.parametrize(("rate", "schedulers"), PAIRS)
def test_a_learning_rate_goes_up_and_comes_down(rate: Any, schedulers: list[dict[str, Any]]) -> None:
    assert to_trainer(rate, False, "rate") == schedulers
    assert to_flat(schedulers, "init.schedulers") == (rate, False)


@pytest.mark.parametrize(("rate", "schedulers"), [pair for pair in PAIRS if pair[1]])
def test_a_scaled_one_is_wrapped_and_unwrapped(rate: Any, schedulers: list[dict[str, Any]]) -> None:
    wrapped = [{"ScalePerParamLR": {"scheduler": schedulers[0]}}]
    assert to_trainer(rate, True, "rate") == wrapped
    assert to_flat(wrapped, "init.schedulers") == (rate, True)


def test_one_mapping_is_a_list_of_one() -> None:
    assert to_trainer(WARM_UP, False, "rate") == [LINEAR]


def test_a_sequence_of_one_is_the_one() -> None:
    assert to_flat([{"SequentialLR": {"schedulers": [LINEAR]}}], "init.schedulers") == ([WARM_UP], False)


@pytest.mark.parametrize("main", ["chained", "ChainedLR", "CHAINED"])
def test_any_entry_may_say_that_they_are_chained(main: str) -> None:
    chained = [{"ChainedScheduler": {"schedulers": [LINEAR, COSINE]}}]
    assert to_trainer([WARM_UP, {**DECAY, "main_scheduler": main}], False, "rate") == chained


@pytest.mark.parametrize("main", ["sequential", "SequentialLR", None])
def test_to_say_that_they_are_sequential_changes_nothing(main: str | None) -> None:
    assert to_trainer([{**WARM_UP, "main_scheduler": main}], False, "rate") == [LINEAR]


@pytest.mark.parametrize(("flat", "full"), NAMES)
def test_a_name_may_end_in_lr_or_not_in_any_case(flat: str, full: str) -> None:
    for name in (flat, flat.lower(), flat.upper(), f"{flat}LR", flat.removesuffix("LR"), full):
        assert full_name(name) == full


def test_the_table_of_names_is_one_to_one() -> None:
    assert len({flat for flat, _ in NAMES}) == len({full for _, full in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("rate", "why"),
    [
        ("fast", "'fast' is neither a number"),
        (None, "None is neither a number"),
        (True, "True is neither a number"),
        ([{"scheduler": "Wavy"}], "'Wavy' is known"),
        ([{"total_iters": 3}], "None is known"),
        ([{**WARM_UP, "main_scheduler": "wavy"}], "main_scheduler is wavy"),
        (
            [{**WARM_UP, "main_scheduler": "chained"}, {**DECAY, "main_scheduler": "sequential"}],
            "chained and sequential",
        ),
    ],
)
def test_what_trainers_have_no_words_for_is_said(rate: Any, why: str) -> None:
    with pytest.raises(Unsaid, match=why):
        to_trainer(rate, False, "rate")


@pytest.mark.parametrize(
    ("schedulers", "why"),
    [
        ([LINEAR, COSINE], "2 schedulers run side by side"),
        ([{"CosineDecayWD": {}}], "CosineDecayWD"),
        ([{"SequentialLR": {"schedulers": [{"ScalePerParamLR": {"scheduler": LINEAR}}]}}], "ScalePerParamLR"),
        ([{"ScalePerParamLR": {"scheduler": LINEAR, "more": 1}}], "ScalePerParamLR"),
    ],
)
def test_what_flat_files_have_no_words_for_is_said(schedulers: Any, why: str) -> None:
    with pytest.raises(Unsaid, match=why):
        to_flat(schedulers, "init.schedulers")


def test_an_entry_that_is_no_mapping_is_refused_by_its_path() -> None:
    with pytest.raises(ValueError, match=r"rate\.1 is 3"):
        to_trainer([WARM_UP, 3], False, "rate")
    with pytest.raises(ValueError, match=r"rate\.0\.schedulers\.1 is 3"):
        to_trainer([{"scheduler": "Sequential", "schedulers": [WARM_UP, 3]}], False, "rate")


@pytest.mark.parametrize(
    ("schedulers", "path"),
    [
        ({"LinearLR": {}}, "init.schedulers is"),
        ([3], "init.schedulers.0 is"),
        ([{"LinearLR": {}, "CosineDecayLR": {}}], "init.schedulers.0 is"),
        ([{"LinearLR": 3}], "init.schedulers.0 is"),
        ([{"SequentialLR": {"schedulers": [3]}}], "init.schedulers.0.SequentialLR.schedulers.0 is"),
        ([{"ScalePerParamLR": {"scheduler": 3}}], "init.schedulers.0.ScalePerParamLR.scheduler is"),
    ],
)
def test_what_are_no_schedulers_is_refused_by_its_path(schedulers: Any, path: str) -> None:
    with pytest.raises(ValueError, match=path) as caught:
        to_flat(schedulers, "init.schedulers")
    assert not isinstance(caught.value, Unsaid)
