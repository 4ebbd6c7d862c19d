"""Image encoders in a section: where each field goes, what null and absence mean, and which sizes do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmsimple import sections
from mmsimple.config import ClassifierConfig, ModelConfig, ViTConfig
from mmsimple.sections.encoder import read_encoder
from tests.mmsimple.sections.examples import CLASSIFIER, ENCODER, FILE, assert_refused
from tests.mmsimple.small import VIT

# No two numbers are the same.
SECTION: dict[str, Any] = {
    "name": "ViTModel",
    "hidden_size": 40,
    "num_hidden_layers": 5,
    "num_heads": 8,
    "filter_size": 72,
    "image_size": [30, 48],
    "patch_size": [15, 16],
    "num_channels": 1,
    "nonlinearity": "quick_gelu",
    "layer_norm_epsilon": 1e-6,
    "image_layer_idx": 3,
    "use_conv_patchified_embedding": True,
    "embedding_dropout_rate": 0.25,
    "dropout_rate": 0.5,
    "attention_dropout_rate": 0.75,
    "initializer_range": 0.01,
}
READ = ViTConfig(
    hidden_size=40,
    num_hidden_layers=5,
    num_heads=8,
    filter_size=72,
    image_size=(30, 48),
    patch_size=(15, 16),
    num_channels=1,
    nonlinearity="quick_gelu",
    layer_norm_epsilon=1e-6,
    image_layer_idx=3,
    embedding_dropout_rate=0.25,
    dropout_rate=0.5,
    attention_dropout_rate=0.75,
    initializer_range=0.01,
)
DEFAULT = ViTConfig(
    hidden_size=768,
    num_hidden_layers=12,
    num_heads=12,
    filter_size=3072,
    image_size=(224, 224),
    patch_size=(16, 16),
)
SWITCHES = (
    "use_post_embed_layer_norm",
    "use_projection_bias_in_attention",
    "use_ffn_bias_in_attention",
    "use_ffn_bias",
)
RATES = ("embedding_dropout_rate", "dropout_rate", "attention_dropout_rate")


def read(**fields: Any) -> ModelConfig:
    """The small encoder with other values in its section."""
    return sections.read("clip-encoder", {**ENCODER, **fields}, FILE)


def vit(**fields: Any) -> ViTConfig:
    return replace(VIT, **fields)


def test_each_field_is_read_to_its_own_place() -> None:
    assert sections.read("clip-encoder", SECTION, FILE) == READ


@pytest.mark.parametrize("switch", [*SWITCHES, "use_embed_proj_bias"])
@pytest.mark.parametrize("is_on", [True, False])
def test_a_switch_changes_its_own_field_alone(switch: str, is_on: bool) -> None:
    assert read(**{switch: is_on}) == vit(**{switch: is_on})


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_that_is_null_is_off(switch: str) -> None:
    config = read(**{switch: None})
    assert config == vit(**{switch: False})
    assert getattr(config, switch) is False


def test_the_bias_of_the_embedding_cannot_be_null() -> None:
    assert_refused("clip-encoder", {**ENCODER, "use_embed_proj_bias": None}, "use_embed_proj_bias: None is not of type")


def test_what_is_left_out_is_the_class_default() -> None:
    bare = {"name": "ViTModel", "use_conv_patchified_embedding": True}
    assert sections.read("clip-encoder", bare, FILE) == DEFAULT


def test_a_classifier_has_defaults_of_its_own() -> None:
    bare = {"name": "vision_transformer", "use_conv_patchified_embedding": True}
    encoder = replace(DEFAULT, attention_dropout_rate=0.1)
    assert sections.read("clip-vit", bare, FILE) == ClassifierConfig(encoder, num_classes=2, use_bias_in_output=True)


@pytest.mark.parametrize(("classes", "bias"), [(24, True), (10, False)])
def test_a_classifier_is_an_encoder_with_classes(classes: int, bias: bool) -> None:
    section = {**SECTION, "name": "vision_transformer", "num_classes": classes, "use_bias_in_output": bias}
    assert sections.read("clip-vit", section, FILE) == ClassifierConfig(READ, classes, bias)


def test_an_encoder_has_two_names() -> None:
    assert read(name="vit") == VIT


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_that_is_an_integer_is_read_as_a_float(rate: str) -> None:
    config = read(**{rate: 1})
    assert config == vit(**{rate: 1.0})
    assert isinstance(getattr(config, rate), float)


@pytest.mark.parametrize("size", ["hidden_size", "filter_size", "num_channels", "patch_size"])
@pytest.mark.parametrize(("model", "section"), [("clip-encoder", ENCODER), ("clip-vit", CLASSIFIER)])
def test_a_size_that_is_null_is_refused(model: str, section: dict[str, Any], size: str) -> None:
    assert_refused(model, {**section, size: None}, f": {size} is null: how large is it?")


@pytest.mark.parametrize("index", [None, -3, -1, 0, 2])
def test_a_layer_that_is_there_is_read(index: int | None) -> None:
    assert read(image_layer_idx=index) == vit(image_layer_idx=index)


@pytest.mark.parametrize("index", [-4, 3])
@pytest.mark.parametrize(("model", "section"), [("clip-encoder", ENCODER), ("clip-vit", CLASSIFIER)])
def test_a_layer_that_is_not_there_is_refused(model: str, section: dict[str, Any], index: int) -> None:
    said = f"image_layer_idx is {index}; num_hidden_layers 3 has -3 to 2, or null for all layers and the final norm"
    assert_refused(model, {**section, "image_layer_idx": index}, said)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    said = "hidden_size is 32, which is not a multiple of num_heads 3"
    assert_refused("clip-encoder", {**ENCODER, "num_heads": 3}, said)


@pytest.mark.parametrize("image", [[28, 29], [29, 28], [7, 7]])
def test_an_image_that_patches_do_not_fill_is_refused(image: list[int]) -> None:
    said = f"image_size is {image}, which patch_size [14, 14] does not divide"
    assert_refused("clip-encoder", {**ENCODER, "image_size": image}, said)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_heads": 3}, "hidden_size"),
        ({"filter_size": None}, "filter_size"),
        ({"image_layer_idx": 3}, "image_layer_idx"),
        ({"patch_size": [14, 5]}, "image_size"),
        ({"hidden_sise": 32}, "hidden_sise"),
    ],
)
def test_a_refusal_names_the_place_of_the_encoder(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputRefused) as caught:
        read_encoder({**ENCODER, **changes}, FILE, "image_model")
    assert str(caught.value).startswith(f"{FILE}: image_model.{field}")


@pytest.mark.parametrize(("model", "section"), [("clip-encoder", ENCODER), ("clip-vit", CLASSIFIER)])
def test_a_range_of_fresh_weights_that_makes_them_infinite_is_refused(model: str, section: dict[str, Any]) -> None:
    said = "initializer_range is 1e+38: weights so far from 0 come to be infinite"
    assert_refused(model, {**section, "initializer_range": 1e38}, said)


def test_a_field_that_is_near_none_is_refused_without_a_hint() -> None:
    with pytest.raises(InputRefused) as caught:
        read(zzz=1)
    assert str(caught.value) == f"{FILE}: zzz: no such field"
