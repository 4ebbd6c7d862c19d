"""The renames of flat params files, release by release."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mmconvert.params.renames import RENAMES, between
from mmconvert.releases import Release

V19, V20, V21, V22, V23 = (Release.parse(text) for text in ("1.9", "2.0", "2.1", "2.2", "2.3"))
LLAVA = "LlavaHDF5MapDataProcessor"

# Older, newer, and the release that renamed.
BOTH_WAYS: list[tuple[dict[str, Any], dict[str, Any], Release]] = [
    ({"runconfig": {"keep_checkpoint_max": 3}}, {"runconfig": {"max_checkpoints": 3}}, V21),
    (
        {"runconfig": {"is_pretrained_checkpoint": True}},
        {"runconfig": {"load_checkpoint_states": ["model", "dataloader"]}},
        V21,
    ),
    (
        {"model": {"precision_opt_level": 1}, "runconfig": {}},
        {"model": {}, "runconfig": {"precision_opt_level": 1}},
        V21,
    ),
    ({"model": {"use_bfloat16": True}}, {"model": {"fp16_type": "bfloat16"}}, V21),
    ({"model": {"use_bfloat16": False}}, {"model": {"fp16_type": "float16"}}, V21),
    (
        {"runconfig": {"use_cs_grad_accum": True}, "train_input": {"a": 1}, "eval_input": {"micro_batch_size": 64}},
        {"runconfig": {}, "train_input": {"a": 1, "micro_batch_size": "auto"}, "eval_input": {"micro_batch_size": 64}},
        V22,
    ),
    (
        {"runconfig": {"use_cs_grad_accum": False}, "train_input": {"a": 1}},
        {"runconfig": {}, "train_input": {"a": 1, "micro_batch_size": None}},
        V22,
    ),
    (
        {"sparsity": {"type": "rigl", "schedule": 3, "param_name_patterns": ["a.*b", "c"]}},
        {"sparsity": {"algorithm": "rigl", "update": 3, "param_filter": ["a*b", "c"]}},
        V22,
    ),
    ({"sparsity": [{"type": "set"}, {"type": "gmp"}]}, {"sparsity": [{"algorithm": "set"}, {"algorithm": "gmp"}]}, V22),
    (
        {"train_input": {"data_processor": LLAVA, "image_size": [224, 336]}},
        {"train_input": {"data_processor": LLAVA, "image_data_size": [3, 224, 336]}},
        V23,
    ),
]

RATE_21: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"scheduler": "Linear", "steps": 9}, {"scheduler": "Linear", "total_iters": 9}),
    (
        {"scheduler": "CosineDecay", "decay_steps": 9, "learning_rate": 1},
        {"scheduler": "CosineDecay", "total_iters": 9, "initial_learning_rate": 1},
    ),
    ({"scheduler": "PolynomialLR", "base_lr": 1}, {"scheduler": "PolynomialLR", "initial_learning_rate": 1}),
    ({"scheduler": "Constant", "learning_rate": 1}, {"scheduler": "Constant", "learning_rate": 1}),
    (
        {"scheduler": "CyclicLR", "learning_rate": 1, "max_lr": 2},
        {"scheduler": "CyclicLR", "base_lr": 1, "max_lr": 2},
    ),
    (
        {"scheduler": "PiecewiseConstant", "values": [1, 2], "boundaries": [5]},
        {"scheduler": "PiecewiseConstant", "learning_rates": [1, 2], "milestones": [5]},
    ),
    (
        {"scheduler": "CosineAnnealingWarmRestarts", "t_0": 1, "t_mult": 2},
        {"scheduler": "CosineAnnealingWarmRestarts", "T_0": 1, "T_mult": 2},
    ),
    ({"scheduler": "CosineAnnealing", "t_max": 1}, {"scheduler": "CosineAnnealing", "T_max": 1}),
]
OPTIMIZER_21: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"weight_decay_rate": 0.1}, {"weight_decay": 0.1}),
    ({"beta1": 0.9, "beta2": 0.95}, {"betas": [0.9, 0.95]}),
    ({"eps1": 1, "eps2": 2}, {"eps": [1, 2]}),
    ({"eta1": 1, "eta2": 2}, {"etas": [1, 2]}),
    ({"step_size_min": 1, "step_size_max": 2}, {"step_sizes": [1, 2]}),
    *(({"learning_rate": [older]}, {"learning_rate": [newer]}) for older, newer in RATE_21),
    *(({"learning_rate": older}, {"learning_rate": newer}) for older, newer in RATE_21),
]


def before(release: Release) -> Release:
    return Release(release.major, release.minor - 1)


@pytest.mark.parametrize(("older", "newer", "release"), BOTH_WAYS)
def test_a_rename_goes_up_and_comes_down(older: dict[str, Any], newer: dict[str, Any], release: Release) -> None:
    untouched = copy.deepcopy((older, newer))
    assert between(older, before(release), release) == (newer, ())
    assert between(newer, release, before(release)) == (older, ())
    assert (older, newer) == untouched


@pytest.mark.parametrize(("older", "newer", "release"), BOTH_WAYS)
def test_a_rename_belongs_to_its_release_alone(older: dict[str, Any], newer: dict[str, Any], release: Release) -> None:
    assert between(older, V19, before(release))[0] == older
    assert between(older, release, Release(2, 10)) == (older, ())
    assert between(newer, release, Release(2, 10)) == (newer, ())
    assert between(newer, Release(2, 10), release) == (newer, ())
    assert between(newer, release, release) == (newer, ())


@pytest.mark.parametrize(("older", "newer"), OPTIMIZER_21)
def test_optimizers_of_2_0_go_up_and_stay_there(older: dict[str, Any], newer: dict[str, Any]) -> None:
    assert between({"optimizer": older}, V20, V21) == ({"optimizer": newer}, ())
    assert between({"optimizer": newer}, V21, V20) == ({"optimizer": newer}, ())


def test_several_releases_are_crossed_one_after_the_other() -> None:
    older = {"model": {"use_bfloat16": True}, "sparsity": {"type": "set"}}
    newer = {"model": {"fp16_type": "bfloat16"}, "sparsity": {"algorithm": "set"}}
    assert between(older, V19, V22) == (newer, ())
    assert between(newer, V22, V19) == (older, ())


@pytest.mark.parametrize("field", ["experimental_api", "multireplica", "num_wgt_servers", "service_dir"])
def test_fields_that_2_1_no_longer_reads_are_named(field: str) -> None:
    changed, (remark,) = between({"runconfig": {field: 1, "seed": 2}}, V20, V21)
    assert changed == {"runconfig": {"seed": 2}}
    assert remark.subject == f"runconfig.{field}"


def test_sections_that_2_1_no_longer_reads_are_named() -> None:
    changed, remarks = between({"csconfig": {"a": 1}, "cerebras": {}, "model": {}}, V19, V21)
    assert changed == {"model": {}}
    assert [remark.subject for remark in remarks] == ["csconfig", "cerebras"]


def test_states_to_load_that_2_0_cannot_say_are_named() -> None:
    changed, (remark,) = between({"runconfig": {"load_checkpoint_states": "model"}}, V21, V20)
    assert changed == {"runconfig": {}}
    assert remark.subject == "runconfig.load_checkpoint_states"


# --- micro batches --------------------------------------------------------------------------------------------------


def test_the_switch_for_accumulation_without_data_is_named() -> None:
    changed, (remark,) = between({"runconfig": {"use_cs_grad_accum": True}}, V21, V22)
    assert changed == {"runconfig": {}}
    assert remark.subject == "runconfig.use_cs_grad_accum"


def test_a_size_that_the_switch_made_void_is_named() -> None:
    off = {"runconfig": {"use_cs_grad_accum": False}, "train_input": {"micro_batch_size": 8}}
    changed, (remark,) = between(off, V21, V22)
    assert changed == {"runconfig": {}, "train_input": {"micro_batch_size": None}}
    assert remark.subject == "train_input.micro_batch_size"


def test_one_section_without_accumulation_cannot_be_said_before_2_2() -> None:
    mixed = {"train_input": {"micro_batch_size": 8}, "eval_input": {"micro_batch_size": None}}
    changed, (remark,) = between(mixed, V22, V21)
    assert changed == {
        "train_input": {"micro_batch_size": 8},
        "eval_input": {},
        "runconfig": {"use_cs_grad_accum": True},
    }
    assert remark.subject == "eval_input.micro_batch_size"


def test_the_switch_can_go_into_a_section_that_is_null() -> None:
    flat = {"runconfig": None, "train_input": {"micro_batch_size": "auto"}}
    assert between(flat, V22, V21) == ({"runconfig": {"use_cs_grad_accum": True}, "train_input": {}}, ())


# --- images ---------------------------------------------------------------------------------------------------------


def test_one_number_is_a_square() -> None:
    older = {"eval_input": {"data_processor": "MultimodalSimpleHDF5MapDataProcessor", "image_size": 336}}
    assert between(older, V22, V23)[0]["eval_input"]["image_data_size"] == [3, 336, 336]


@pytest.mark.parametrize(
    "section",
    [
        {"image_size": [224, 224]},
        {"data_processor": "ImageNet1KProcessor", "image_size": [224, 224]},
        {"data_processor": LLAVA, "image_size": [3, 224, 224]},
        {"data_processor": LLAVA, "image_size": [1, 2], "image_data_size": [3, 4, 5]},
    ],
)
def test_other_sizes_are_left_alone(section: dict[str, Any]) -> None:
    assert between({"train_input": section}, V22, V23) == ({"train_input": section}, ())


@pytest.mark.parametrize(
    "size", [{"image_data_size": [1, 28, 28]}, {"image_data_size": [3, 4, 5], "image_size": [1, 2]}]
)
def test_sizes_that_2_2_cannot_say_are_left_alone(size: dict[str, Any]) -> None:
    section = {"data_processor": LLAVA, **size}
    assert between({"train_input": section}, V23, V22) == ({"train_input": section}, ())


def test_the_releases_of_the_table_stand_in_order() -> None:
    releases = [release for release, _ in RENAMES]
    assert releases == sorted(set(releases))
