"""Lists, names and copies under `trainer:`, taken apart and put together."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mmconvert.params.trainer import put_together, taken_apart
from mmconvert.remark import Remark

PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"init": {"callbacks": {"KeepNCheckpoints": {"n": 1}, "CheckLoss": None}}},
        {"init": {"callbacks": [{"KeepNCheckpoints": {"n": 1}}, {"CheckLoss": None}]}},
    ),
    ({"init": {"loggers": {"WandbLogger": {"tags": []}}}}, {"init": {"loggers": [{"WandbLogger": {"tags": []}}]}}),
    ({"init": {"optimizer": {"optimizer_type": "AdamW", "eps": 1}}}, {"init": {"optimizer": {"AdamW": {"eps": 1}}}}),
    ({"init": {"optimizer": {"optimizer_type": "SGD"}}}, {"init": {"optimizer": {"SGD": {}}}}),
    ({"init": {"schedulers": 0.1}}, {"init": {"schedulers": [{"ConstantLR": {"learning_rate": 0.1}}]}}),
    (
        {"init": {"optimizer": {"optimizer_type": "SGD", "adjust_learning_rate": {"a": 2}}, "schedulers": 0.1}},
        {
            "init": {
                "optimizer": {"SGD": {"adjust_learning_rate": {"a": 2}}},
                "schedulers": [{"ScalePerParamLR": {"scheduler": {"ConstantLR": {"learning_rate": 0.1}}}}],
            }
        },
    ),
    (
        {"fit": {"train_dataloader": {"a": 1}, "ckpt_path": "x"}, "validate": {"val_dataloader": {"b": 1}}},
        {
            "fit": {"train_dataloader": {"a": 1}, "val_dataloader": {"b": 1}, "ckpt_path": "x"},
            "validate": {"val_dataloader": {"b": 1}, "ckpt_path": "x"},
            "validate_all": {"val_dataloaders": {"b": 1}, "ckpt_paths": "x"},
        },
    ),
    *(
        (
            {"fit": {"train_dataloader": {"a": 1}, "ckpt_path": path}},
            {"fit": {"train_dataloader": {"a": 1}, "ckpt_path": path}},
        )
        for path in (None, ["x"])
    ),
    (
        {"validate": {"val_dataloader": {"b": 1}}},
        {"validate": {"val_dataloader": {"b": 1}}, "validate_all": {"val_dataloaders": {"b": 1}}},
    ),
]


@pytest.mark.parametrize(("plain", "trainer"), PAIRS)
def test_taking_apart_undoes_putting_together(plain: dict[str, Any], trainer: dict[str, Any]) -> None:
    before = copy.deepcopy((plain, trainer))
    assert put_together(plain) == (trainer, ())
    assert taken_apart(trainer) == (plain, ())
    assert (plain, trainer) == before


# --- up -------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_path_without_any_data_is_named() -> None:
    tree, (remark,) = put_together({"init": {}, "fit": {"ckpt_path": "x"}})
    assert tree == {"init": {}}
    assert remark.subject == "runconfig.checkpoint_path"


def test_arguments_of_an_optimizer_without_a_name_are_named() -> None:
    tree, remarks = put_together({"init": {"optimizer": {"eps": 1, "betas": [0, 1]}}})
    assert tree == {"init": {}}
    assert [remark.subject for remark in remarks] == ["optimizer.eps", "optimizer.betas"]


def test_a_learning_rate_that_cannot_be_said_is_named() -> None:
    tree, (remark,) = put_together({"init": {"schedulers": "fast"}})
    assert tree == {"init": {}}
    assert remark == Remark(
        "optimizer.learning_rate", "'fast' is neither a number nor a mapping nor a list of mappings"
    )


# --- down -----------------------------------------------------------------------------------------------------------


def test_a_second_callback_of_one_name_is_named() -> None:
    plain, (remark,) = taken_apart({"init": {"callbacks": [{"Lora": {"a": 1}}, {"Lora": {"a": 2}}]}})
    assert plain == {"init": {"callbacks": {"Lora": {"a": 1}}}}
    assert remark.subject == "trainer.init.callbacks.1.Lora"


def test_data_that_differs_is_named_and_that_of_validate_counts() -> None:
    plain, (remark,) = taken_apart({"validate": {"val_dataloader": {"b": 1}}, "fit": {"val_dataloader": {"b": 2}}})
    assert plain == {"validate": {"val_dataloader": {"b": 1}}}
    assert remark.subject == "trainer.fit.val_dataloader"
    assert "differs from trainer.validate.val_dataloader" in remark.why


def test_a_list_of_one_stands_for_the_one() -> None:
    one = {"validate_all": {"val_dataloaders": [{"b": 1}], "ckpt_paths": ["x"]}}
    assert taken_apart(one) == ({"validate": {"val_dataloader": {"b": 1}}, "fit": {"ckpt_path": "x"}}, ())


def test_a_list_of_one_is_no_other_data_than_the_one() -> None:
    same: dict[str, Any] = {"validate": {"val_dataloader": {"b": 1}}, "validate_all": {"val_dataloaders": [{"b": 1}]}}
    assert taken_apart(same) == ({"validate": {"val_dataloader": {"b": 1}}}, ())


def test_a_list_of_several_is_named() -> None:
    plain, (remark,) = taken_apart({"validate_all": {"val_dataloaders": [{"b": 1}, {"b": 2}]}})
    assert plain == {}
    assert remark.subject == "trainer.validate_all.val_dataloaders"


def test_schedulers_side_by_side_are_named() -> None:
    plain, (remark,) = taken_apart({"init": {"schedulers": [{"LinearLR": {}}, {"StepLR": {}}]}})
    assert plain == {"init": {}}
    assert remark.subject == "trainer.init.schedulers"


def test_scaling_that_the_optimizer_does_not_ask_for_is_named() -> None:
    scaled = {"init": {"schedulers": [{"ScalePerParamLR": {"scheduler": {"ConstantLR": {"learning_rate": 1}}}}]}}
    plain, (remark,) = taken_apart(scaled)
    assert plain == {"init": {"schedulers": 1}}
    assert remark.subject == "trainer.init.schedulers.0.ScalePerParamLR"


def test_null_stands_for_nothing() -> None:
    nulls: dict[str, Any] = {"init": {"callbacks": None, "optimizer": None, "schedulers": None}, "fit": None}
    assert taken_apart(nulls) == ({"init": {}}, ())
    null = {"validate": {"val_dataloader": None}, "fit": {"val_dataloader": {"b": 1}}}
    assert taken_apart(null) == ({"validate": {"val_dataloader": {"b": 1}}}, ())


@pytest.mark.parametrize(
    ("trainer", "path"),
    [
        ({"init": [1]}, "trainer.init is"),
        ({"validate": 3, "fit": {"val_dataloader": {"b": 1}}}, "trainer.validate is"),
        ({"init": {"callbacks": {"Lora": {}}}}, "trainer.init.callbacks is"),
        ({"init": {"callbacks": ["Lora"]}}, r"trainer.init.callbacks.0 is"),
        ({"init": {"loggers": [{"A": {}, "B": {}}]}}, "trainer.init.loggers.0 is"),
        ({"init": {"optimizer": {"A": {}, "B": {}}}}, "trainer.init.optimizer is"),
        ({"init": {"schedulers": {}}}, "trainer.init.schedulers is"),
    ],
)
def test_another_shape_is_refused_by_its_path(trainer: dict[str, Any], path: str) -> None:
    with pytest.raises(ValueError, match=path):
        taken_apart(trainer)
