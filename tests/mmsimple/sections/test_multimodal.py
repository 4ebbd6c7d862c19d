"""Multimodal sections: where each part goes, what absence and null mean, and which parts do not fit together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmconvert.paths import put, without
from mmsimple import sections
from mmsimple.config import AveragePoolingConfig, FeedForwardConfig, IdentityConfig, ImageModelConfig, MultimodalConfig
from tests.mmsimple.sections.examples import ENCODER, FILE, LLAVA, MLP, MMSIMPLE, assert_refused, changed
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT

MODELS, SHARED = "image_model_list.image_models", "image_model_list.global_image_projection"
MODE = "image_model_list.image_feature_select_mode"
LAYER = "image_feature_select_layer_idx"
FIRST = f"{MODELS}.0"
POOLING = {"name": "AveragePooling", "input_unit": 32, "output_unit": 48, "grid": [2, 2]}
NARROW = {"name": "AveragePooling", "input_unit": 32, "output_unit": 32, "grid": [1, 2]}
ANY_MODEL = pytest.mark.parametrize(("model", "section"), [("mmsimple-llava", MMSIMPLE), ("llava", LLAVA)])
NEEDS_GRID = "AveragePooling needs the grid of one encoder's patches, without class token"


def read(section: dict[str, Any], model: str = "mmsimple-llava") -> MultimodalConfig:
    config = sections.read(model, section, FILE)
    assert isinstance(config, MultimodalConfig)
    return config


def seen_by(*models: dict[str, Any]) -> dict[str, Any]:
    """The section with these image models; one of nothing is the small encoder alone."""
    section: dict[str, Any] = put(MMSIMPLE, MODELS, [{"image_encoder": ENCODER, **each} for each in models])
    return section


def test_each_part_is_read_to_its_own_place() -> None:
    second = {"image_encoder": {**ENCODER, "hidden_size": 40}, "projection_layer": {**MLP, "input_unit": 40}}
    section = changed(
        seen_by({"projection_layer": POOLING}, second),
        image_model_list__global_image_projection={"name": "Identity"},
        freeze=["^text_model", "b$"],
        loss_scaling="batch_size",
        loss_weight=0.5,
    )
    assert read(section) == MultimodalConfig(
        image_models=(
            ImageModelConfig(VIT, AveragePoolingConfig(32, 48, (2, 2))),
            ImageModelConfig(replace(VIT, hidden_size=40), FeedForwardConfig(40, (48, 48), ("gelu", None), (0.0, 0.0))),
        ),
        text_model=DECODER,
        projection=IdentityConfig(),
        select="patch",
        freeze=("^text_model", "b$"),
        loss_scaling="batch_size",
        loss_weight=0.5,
    )


@pytest.mark.parametrize("nulls", [{}, {"freeze": None}, {"freeze": []}])
@ANY_MODEL
def test_left_out_or_null_are_patches_no_freezing_and_a_mean_over_tokens(
    model: str, section: dict[str, Any], nulls: dict[str, Any]
) -> None:
    for path in (MODE, "loss_scaling", "loss_weight"):
        section = without(section, path)
    config = read({**section, **nulls}, model)
    assert (config.select, config.freeze) == ("patch", ())
    assert (config.loss_scaling, config.loss_weight) == ("num_tokens", 1.0)


@pytest.mark.parametrize("nulls", [{}, {SHARED: None, f"{FIRST}.projection_layer": None}])
def test_no_projection_and_null_are_the_same(nulls: dict[str, None]) -> None:
    section = changed(without(MMSIMPLE, SHARED), text_model__hidden_size=32, text_model__rotary_dim=8, **nulls)
    text = replace(DECODER, hidden_size=32, rotary_dim=8)
    assert read(section) == MultimodalConfig((ImageModelConfig(VIT),), text, projection=None)


@pytest.mark.parametrize("projector", [None, {}, {"image_model": None}, {"image_model": None, "text_model": None}])
def test_a_llava_without_projector_says_so_in_several_ways(projector: dict[str, None] | None) -> None:
    section = changed(LLAVA, projector=projector, text_model__hidden_size=32, text_model__rotary_dim=8)
    assert read(section, "llava").projection is None


@pytest.mark.parametrize(
    ("model", "section", "select"),
    [
        ("mmsimple-llava", put(MMSIMPLE, MODE, "patch"), "patch"),
        ("mmsimple-llava", put(MMSIMPLE, MODE, "cls_patch"), "full"),
        ("mmsimple-llava", put(MMSIMPLE, MODE, "full"), "full"),
        ("llava", {**LLAVA, "image_feature_select_mode": "patch"}, "patch"),
        ("llava", {**LLAVA, "image_feature_select_mode": "cls_patch"}, "full"),
    ],
)
def test_a_select_mode_says_whether_the_class_token_is_there(model: str, section: dict[str, Any], select: str) -> None:
    assert read(section, model).select == select


def test_an_unknown_select_mode_is_refused_with_those_there_are() -> None:
    said = f"{MODE} is cls; mmsimple computes patch or cls_patch or full"
    assert_refused("mmsimple-llava", put(MMSIMPLE, MODE, "cls"), said)
    assert_refused("mmsimple-llava", put(MMSIMPLE, MODE, "cls\n" * 99), f"{MODE} is cls\\ncls")
    assert_refused("llava", {**LLAVA, "image_feature_select_mode": "cls"}, "image_feature_select_mode: 'cls'", "patch")


@pytest.mark.parametrize("images", [{}, {"image_models": []}])
def test_no_encoder_at_all_is_refused(images: dict[str, Any]) -> None:
    said = f"{MODELS} is empty: there is no image encoder"
    assert_refused("mmsimple-llava", {**MMSIMPLE, "image_model_list": images}, said)


# --- what goes together ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"image_size": [28, 42]}, {"image_size": [42, 28]}, {"num_channels": 1}])
def test_encoders_that_see_different_images_are_refused(other: dict[str, Any]) -> None:
    said = f"{MODELS}: the encoders see the same image, but differ in image_size or num_channels"
    assert_refused("mmsimple-llava", seen_by({}, {"image_encoder": {**ENCODER, **other}}), said)


def test_encoders_may_differ_in_all_else() -> None:
    other = {"patch_size": [7, 14], "num_hidden_layers": 2, "nonlinearity": "relu"}
    config = read(seen_by({}, {"image_encoder": {**ENCODER, **other}}))
    assert [each.encoder.num_patches for each in config.image_models] == [4, 8]


def test_widths_that_do_not_join_are_refused() -> None:
    said = f"{MODELS} give features of widths 32 and 48, which cannot be joined"
    assert_refused("mmsimple-llava", seen_by({}, {"projection_layer": MLP}), said)


@pytest.mark.parametrize(
    ("section", "path", "taken", "width"),
    [
        (put(MMSIMPLE, f"{SHARED}.input_unit", 48), SHARED, 48, 32),
        (seen_by({"projection_layer": MLP}), SHARED, 32, 48),
        (seen_by({"projection_layer": {**MLP, "input_unit": 31}}), f"{FIRST}.projection_layer", 31, 32),
        (seen_by({}, {"projection_layer": {**NARROW, "input_unit": 8}}), f"{MODELS}.1.projection_layer", 8, 32),
    ],
)
def test_a_projector_that_takes_another_width_is_refused(
    section: dict[str, Any], path: str, taken: int, width: int
) -> None:
    said = f"{path}.input_unit is {taken}, but it gets features of width {width}"
    assert_refused("mmsimple-llava", section, said)


@pytest.mark.parametrize(
    ("model", "section", "path", "width"),
    [
        ("mmsimple-llava", without(MMSIMPLE, SHARED), SHARED, 32),
        ("mmsimple-llava", put(MMSIMPLE, SHARED, {"name": "Identity"}), SHARED, 32),
        ("mmsimple-llava", put(MMSIMPLE, f"{SHARED}.layers_units", [48, 47]), SHARED, 47),
        ("llava", {**LLAVA, "projector": None}, "projector.image_model", 32),
        ("llava", put(LLAVA, "projector.image_model.layers_units", [48, 49]), "projector.image_model", 49),
    ],
)
def test_features_that_are_not_as_wide_as_the_text_are_refused(
    model: str, section: dict[str, Any], path: str, width: int
) -> None:
    assert_refused(model, section, f"{path}: image features come to width {width}, text_model.hidden_size 48")


def test_a_pooling_may_stand_after_a_projection_or_in_each_encoder() -> None:
    shared = AveragePoolingConfig(32, 48, (2, 2))
    projected = seen_by({"projection_layer": {**MLP, "layers_units": [32, 32]}})
    assert read(put(projected, SHARED, POOLING)).projection == shared
    own = read(seen_by({"projection_layer": NARROW}, {"projection_layer": NARROW}))
    assert [each.projection for each in own.image_models] == 2 * [AveragePoolingConfig(32, 32, (1, 2))]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (put(MMSIMPLE, SHARED, {**POOLING, "grid": [3, 2]}), f"{SHARED}.grid is [3, 2], but the encoder's is [2, 2]"),
        (put(MMSIMPLE, SHARED, {**POOLING, "grid": [2, 3]}), f"{SHARED}.grid is [2, 3], but the encoder's is [2, 2]"),
        (seen_by({"projection_layer": {**NARROW, "grid": [1, 3]}}), f"{FIRST}.projection_layer.grid is [1, 3], but"),
        (put(seen_by({"projection_layer": NARROW}), SHARED, POOLING), f"{SHARED}: {NEEDS_GRID}"),
        (put(seen_by({}, {}), SHARED, POOLING), f"{SHARED}: {NEEDS_GRID}"),
        (put(put(MMSIMPLE, MODE, "cls_patch"), SHARED, POOLING), f"{SHARED}: {NEEDS_GRID}"),
        (put(seen_by({"projection_layer": NARROW}), MODE, "full"), f"{FIRST}.projection_layer: {NEEDS_GRID}"),
    ],
    ids=["rows", "columns", "own", "after a pooling", "several encoders", "cls_patch", "own and full"],
)
def test_a_pooling_without_a_grid_as_large_is_refused(section: dict[str, Any], said: str) -> None:
    assert_refused("mmsimple-llava", section, said)


def test_a_llava_pools_under_the_same_rules() -> None:
    section = put(LLAVA, "projector.image_model", POOLING)
    assert read(section, "llava").projection == AveragePoolingConfig(32, 48, (2, 2))
    refused = {**section, "image_feature_select_mode": "cls_patch"}
    assert_refused("llava", refused, f"projector.image_model: {NEEDS_GRID}")


# --- llava ----------------------------------------------------------------------------------------------------------


def test_a_llava_is_a_model_of_one_encoder_under_other_names() -> None:
    section = changed(LLAVA, image_feature_select_layer_idx=-2, freeze=["^image_model"])
    section = put(section, "projector.image_model", MMSIMPLE["image_model_list"]["global_image_projection"])
    assert read(section, "llava") == replace(MULTIMODAL, freeze=(r"^image_model\.image_model_list\.0\.0",))


@pytest.mark.parametrize(("given", "layer"), [({}, -1), ({LAYER: None}, None), ({LAYER: -3}, -3), ({LAYER: 2}, 2)])
def test_a_llava_stops_at_the_layer_that_it_selects_or_the_last(given: dict[str, Any], layer: int | None) -> None:
    assert read({**LLAVA, **given}, "llava").image_models == (ImageModelConfig(replace(VIT, image_layer_idx=layer)),)


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_is_not_there_is_refused_where_it_is_said(layer: int) -> None:
    said = f"is {layer}; num_hidden_layers 3 has -3 to 2, or null for all layers and the final norm"
    assert_refused("llava", {**LLAVA, LAYER: layer}, f": {LAYER} {said}")
    assert_refused("llava", put(LLAVA, "image_model.image_layer_idx", layer), f"image_model.image_layer_idx {said}")
    inside = f"{FIRST}.image_encoder.image_layer_idx"
    assert_refused("mmsimple-llava", put(MMSIMPLE, inside, layer), f"{inside} {said}")


def test_the_encoders_own_layer_must_be_the_one_that_is_selected() -> None:
    section = put(LLAVA, "image_model.image_layer_idx", -2)
    assert read({**section, LAYER: -2}, "llava").image_models == (ImageModelConfig(VIT),)
    assert_refused("llava", section, f"image_model.image_layer_idx is -2, but {LAYER} is -1")
    assert_refused("llava", {**section, LAYER: None}, f"image_model.image_layer_idx is -2, but {LAYER} is ")


def test_patterns_of_a_llava_are_refused_with_file_and_field() -> None:
    section = {**LLAVA, "freeze": ["^text_model", "image_model"]}
    assert_refused("llava", section, "freeze: 'image_model' finds something else", "begin it with ^image_model, ")


def test_a_projector_of_text_is_refused() -> None:
    section = put(LLAVA, "projector.text_model", MLP)
    assert_refused("llava", section, "projector.text_model: mmsimple projects images only, so it must be null")


# --- loss and freezing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scaling", "weight"), [("num_tokens", 1), ("batch_size", 0.5), ("batch_size", 2)])
@ANY_MODEL
def test_a_loss_reads_with_its_scaling_and_weight(
    model: str, section: dict[str, Any], scaling: str, weight: float
) -> None:
    config = read({**section, "loss_scaling": scaling, "loss_weight": weight}, model)
    assert (config.loss_scaling, config.loss_weight) == (scaling, weight)
    assert isinstance(config.loss_weight, float)


@pytest.mark.parametrize(
    ("scaling", "weight", "why"),
    [
        *(("num_tokens", weight, ": loss_scaling num_tokens takes no other than 1.0") for weight in (0, 0.5, 2.0)),
        ("batch_size", 0, ", which trains nothing: it must be above 0"),
    ],
)
@ANY_MODEL
def test_a_weight_that_its_scaling_does_not_take_is_refused(
    model: str, section: dict[str, Any], scaling: str, weight: float, why: str
) -> None:
    section = {**section, "loss_scaling": scaling, "loss_weight": weight}
    assert_refused(model, section, f"loss_weight is {weight}{why}")


def test_a_mean_over_samples_must_say_its_weight_but_for_a_llava() -> None:
    section = {**without(MMSIMPLE, "loss_weight"), "loss_scaling": "batch_size"}
    assert_refused("mmsimple-llava", section, "loss_weight is 0.0 by default, which trains nothing")
    assert read({**LLAVA, "loss_scaling": "batch_size"}, "llava").loss_weight == 1.0
