"""CLIP configs: of the tower alone or of the whole model, and what CS fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Configs

CLIP = {"model_type": "clip_vision_model"}
LARGE = {
    **CLIP,
    "hidden_act": "quick_gelu",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}


def test_a_config_of_nothing_but_its_type_has_the_class_defaults(clip: Configs) -> None:
    section = clip.to_cs(CLIP)
    assert (section["hidden_size"], section["num_heads"], section["num_hidden_layers"]) == (768, 12, 12)
    assert (section["image_size"], section["patch_size"]) == ([224, 224], [32, 32])
    assert (section["nonlinearity"], section["num_classes"]) == ("quick_gelu", 512)


@pytest.mark.parametrize("config", [CLIP, LARGE, {**LARGE, "hidden_act": "gelu"}])
def test_configs_survive_the_way_there_and_back(clip: Configs, config: dict[str, Any]) -> None:
    assert clip.canonical(clip.around(config)) == clip.canonical(config)


def test_a_whole_clip_config_gives_its_vision_half(clip: Configs) -> None:
    vision = {name: value for name, value in LARGE.items() if name not in ("model_type", "projection_dim")}
    whole = {"model_type": "clip", "projection_dim": 768, "vision_config": vision, "text_config": {"hidden_size": 8}}
    assert clip.to_cs(whole) == clip.to_cs(LARGE)


def test_the_text_half_left_behind_is_told(clip: Configs) -> None:
    source = clip.translate(LARGE).source
    (advice,) = clip.converter.advice(source, {"text_config": {"hidden_size": 8}})
    assert "text half" in advice
    assert not clip.converter.advice(source, {})


def test_another_layer_norm_eps_is_refused(clip: Configs) -> None:
    with pytest.raises(InputRefused, match="layer_norm_eps is 1e-06"):
        clip.to_cs({**CLIP, "layer_norm_eps": 1e-6})


@pytest.mark.parametrize(("name", "sides"), [("image_size", [224, 196]), ("patch_size", [16, 14])])
def test_what_is_no_square_is_refused_on_the_way_back(clip: Configs, name: str, sides: list[int]) -> None:
    with pytest.raises(InputRefused, match=f"{name} is {sides[0]} x {sides[1]}"):
        clip.to_hf({**clip.to_cs(CLIP), name: sides})


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_act": "relu"},
        {"quantization_config": {"quant_method": "awq"}},
    ],
)
def test_what_cs_has_no_words_for_is_refused_by_name(clip: Configs, fields: dict[str, Any]) -> None:
    with pytest.raises(InputRefused, match=next(iter(fields))):
        clip.to_cs({**CLIP, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"norm_first": False},
        {"position_embedding_type": "rotary"},
        {"prepend_cls_token": False},
        {"use_bias_in_output": True},
        {"use_embed_proj_bias": True},
        {"use_encoder_pooler_layer": True},
        {"use_ffn_bias": False},
        {"use_post_embed_layer_norm": False},
    ],
)
def test_what_clip_has_no_words_for_is_refused_by_name(clip: Configs, fields: dict[str, Any]) -> None:
    with pytest.raises(InputRefused, match=next(iter(fields))):
        clip.to_hf({**clip.to_cs(CLIP), **fields})


def test_dropout_does_not_matter_on_the_way_back(clip: Configs) -> None:
    section = clip.to_cs(CLIP)
    assert clip.to_hf({**section, "dropout_rate": 0.3}) == clip.to_hf(section)
