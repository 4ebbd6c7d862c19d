"""The table of 2.3: what goes where, and what goes nowhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mmconvert.params.carry import FLAT, NESTED, Move
from mmconvert.params.moves import ROWS, check_flat, to_flat, to_trainer

# One pair for every kind of row, flat and under `trainer`.
PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"runconfig": {"max_steps": 9}}, {"init": {"loop": {"max_steps": 9}}}),
    ({"runconfig": {"target_device": "CSX"}}, {"init": {"backend": {"backend_type": "CSX"}}}),
    ({"runconfig": {"num_wgt_servers": 1}}, {"init": {"backend": {"cluster_config": {"max_wgt_servers": 1}}}}),
    ({"runconfig": {"num_act_servers": 1}}, {"init": {"backend": {"cluster_config": {"max_act_per_csx": 1}}}}),
    ({"runconfig": {"logging": "INFO"}}, {"init": {"logging": {"log_level": "INFO"}}}),
    ({"runconfig": {"checkpoint_steps": 9}}, {"init": {"checkpoint": {"steps": 9}}}),
    ({"runconfig": {"max_checkpoints": 1}}, {"init": {"callbacks": [{"KeepNCheckpoints": {"n": 1}}]}}),
    (
        {"runconfig": {"drop_data": True, "ini": {"a": 1}}},
        {"init": {"callbacks": [{"GlobalFlags": {"csx.debug.ini": {"a": 1}, "csx.debug.drop_data": True}}]}},
    ),
    ({"runconfig": {"check_loss_values": True}}, {"init": {"callbacks": [{"CheckLoss": {}}]}}),
    ({"runconfig": {"check_loss_values": False}}, {"init": {"callbacks": [{"CheckLoss": None}]}}),
    ({"runconfig": {"op_profiler_config": {"a": 1}}}, {"init": {"callbacks": [{"OpProfiler": {"a": 1}}]}}),
    ({"runconfig": {"summary_dir": "x"}}, {"init": {"loggers": [{"TensorBoardLogger": {"summary_dir": "x"}}]}}),
    ({"wandb": {"run_name": "x"}}, {"init": {"loggers": [{"WandbLogger": {"run_name": "x"}}]}}),
    (
        {"model": {"name": "llama", "mixed_precision": True, "fp16_type": "cbfloat16", "lora_params": {"r": 1}}},
        {
            "init": {
                "model": {"name": "llama"},
                "precision": {"enabled": True, "fp16_type": "cbfloat16"},
                "callbacks": [{"Lora": {"lora_params": {"r": 1}}}],
            }
        },
    ),
    (
        {"optimizer": {"optimizer_type": "AdamW", "betas": [0, 1], "max_gradient_norm": 1, "grad_accum_steps": 2}},
        {
            "init": {
                "optimizer": {"AdamW": {"betas": [0, 1]}},
                "precision": {"max_gradient_norm": 1},
                "loop": {"grad_accum_steps": 2},
            }
        },
    ),
    (
        {"optimizer": {"learning_rate": [{"scheduler": "Linear", "total_iters": 3}]}},
        {"init": {"schedulers": [{"LinearLR": {"total_iters": 3}}]}},
    ),
    (
        {"optimizer": {"log_summaries": True}},
        {"init": {"precision": {"log_loss_scale": True}, "callbacks": [{"ComputeNorm": {}}]}},
    ),
    ({"optimizer": {"log_summaries": False}}, {"init": {"precision": {"log_loss_scale": False}}}),
    (
        {"sparsity": {"algorithm": "set", "add_summaries": True}},
        {"init": {"sparsity": {"algorithm": "set"}, "callbacks": [{"LogSparsity": {}}]}},
    ),
    ({"sparsity": [{"algorithm": "set"}]}, {"init": {"sparsity": [{"algorithm": "set"}]}}),
    (
        {"train_input": {"batch_size": 3, "micro_batch_size": "auto"}, "runconfig": {"checkpoint_path": "x"}},
        {
            "init": {"callbacks": [{"ScopedTrainFlags": {"csx.performance.micro_batch_size": "auto"}}]},
            "fit": {"train_dataloader": {"batch_size": 3}, "ckpt_path": "x"},
        },
    ),
    (
        {"eval_input": {"batch_size": 3, "micro_batch_size": None}},
        {
            "init": {"callbacks": [{"ScopedValidateFlags": {"csx.performance.micro_batch_size": None}}]},
            "validate": {"val_dataloader": {"batch_size": 3}},
            "validate_all": {"val_dataloaders": {"batch_size": 3}},
        },
    ),
]


@pytest.mark.parametrize(("flat", "trainer"), PAIRS)
def test_a_field_moves_up_and_comes_down(flat: dict[str, Any], trainer: dict[str, Any]) -> None:
    assert to_trainer(flat) == ({"trainer": trainer}, ())
    assert to_flat({"trainer": trainer}) == (flat, ())


def test_training_and_validation_share_the_path_of_their_checkpoint() -> None:
    flat = {"train_input": {"a": 1}, "eval_input": {"b": 2}, "runconfig": {"checkpoint_path": "x"}}
    trainer = to_trainer(flat)[0]["trainer"]
    assert trainer == {
        "fit": {"train_dataloader": {"a": 1}, "val_dataloader": {"b": 2}, "ckpt_path": "x"},
        "validate": {"val_dataloader": {"b": 2}, "ckpt_path": "x"},
        "validate_all": {"val_dataloaders": {"b": 2}, "ckpt_paths": "x"},
    }


@pytest.mark.parametrize(
    ("flat", "dropped"),
    [
        ({"runconfig": {"mode": "train"}}, {"runconfig.mode": "is said on the command line"}),
        ({"runconfig": {"unheard_of": 1}}, {"runconfig.unheard_of": "has no place under `trainer`"}),
        ({"wandb": {"unheard_of": 1}}, {"wandb.unheard_of": "has no place under `trainer`"}),
        ({"mine": {"a": 1}}, {"mine": "has no place under `trainer`"}),
    ],
)
def test_what_has_no_place_under_trainer_is_named(flat: dict[str, Any], dropped: dict[str, str]) -> None:
    document, remarks = to_trainer(flat)
    assert document == {"trainer": {}}
    assert {remark.subject: remark.why for remark in remarks} == dropped


@pytest.mark.parametrize(
    ("document", "dropped"),
    [
        ({"trainer": {"init": {"autorestart": {}}}}, "trainer.init.autorestart"),
        ({"trainer": {"init": {"callbacks": [{"CheckLoss": {"patience": 3}}]}}}, "trainer.init.callbacks.CheckLoss"),
        ({"trainer": {"init": {"callbacks": [{"RateProfiler": {}}]}}}, "trainer.init.callbacks.RateProfiler"),
        ({"trainer": {"init": {"loggers": [{"CSVLogger": None}]}}}, "trainer.init.loggers.CSVLogger"),
        ({"trainer": {"mine": 1}}, "trainer.mine"),
        ({"trainer": {}, "mine": 1}, "mine"),
    ],
)
def test_what_has_no_place_in_a_flat_file_is_named(document: dict[str, Any], dropped: str) -> None:
    flat, (remark,) = to_flat(document)
    assert flat == {}
    assert remark.subject == dropped


def test_precision_counts_more_than_what_the_model_says_of_it() -> None:
    trainer = {"init": {"precision": {"fp16_type": "bfloat16"}, "model": {"fp16_type": "float16"}}}
    flat, (remark,) = to_flat({"trainer": trainer})
    assert flat == {"model": {"fp16_type": "bfloat16"}}
    assert remark.subject == "trainer.init.model.fp16_type"


def test_schedulers_count_more_than_a_learning_rate_of_the_optimizer() -> None:
    trainer = {"init": {"optimizer": {"SGD": {"learning_rate": 1}}, "schedulers": [{"StepLR": {}}]}}
    flat, (remark,) = to_flat({"trainer": trainer})
    assert flat == {"optimizer": {"optimizer_type": "SGD", "learning_rate": [{"scheduler": "Step"}]}}
    assert remark.subject == "trainer.init.optimizer.learning_rate"


def test_sections_that_are_no_mappings_are_refused() -> None:
    with pytest.raises(ValueError, match="eval_input is"):
        check_flat({"eval_input": [1]})
    with pytest.raises(ValueError, match=r"trainer\.init\.backend\.cluster_config is"):
        to_flat({"trainer": {"init": {"backend": {"cluster_config": 3}}}})
    with pytest.raises(ValueError, match=r"trainer\.fit\.train_dataloader is"):
        to_flat({"trainer": {"fit": {"train_dataloader": [{}]}}})


def test_no_two_rows_share_a_place_but_those_that_say_one_field_twice() -> None:
    moves = [row for row in ROWS if isinstance(row, Move)]
    assert max(Counter(row.on(NESTED) for row in moves).values()) == 1
    shared = [str(place) for place, count in Counter(row.on(FLAT) for row in moves).items() if count > 1]
    assert shared == ["optimizer.log_summaries"]
