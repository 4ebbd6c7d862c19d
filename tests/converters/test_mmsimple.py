"""LLaVA configs: which layer, which projector, what trains, and a tower and a decoder inside one section."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Configs

Make = Callable[..., dict[str, Any]]


def encoder(section: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = section["image_model_list"]["image_models"][0]["image_encoder"]
    return found


def text_around(mmsimple: Configs, config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = mmsimple.around(config)["text_model"]
    return found


@pytest.mark.parametrize(("theirs", "ours"), [(-1, -1), (-2, -2), (-3, -3), (1, 0), (2, 1), (3, 2)])
def test_a_selected_layer_is_counted_without_the_embeddings(
    mmsimple: Configs, llava_config: Make, theirs: int, ours: int
) -> None:
    config = llava_config(mm_vision_select_layer=theirs)
    assert encoder(mmsimple.to_cs(config))["image_layer_idx"] == ours
    assert text_around(mmsimple, config)["mm_vision_select_layer"] == theirs


@pytest.mark.parametrize("layer", [0, -4, 4, -5])
def test_the_embeddings_and_what_is_out_of_range_are_refused_with_the_valid_range(
    mmsimple: Configs, llava_config: Make, layer: int
) -> None:
    with pytest.raises(InputRefused, match=rf"mm_vision_select_layer is {layer}: valid are -3 to -1 and 1 to 3"):
        mmsimple.to_cs(llava_config(mm_vision_select_layer=layer))


@pytest.mark.parametrize(("index", "message"), [(None, "absent"), (3, "valid are -3 to 2"), (-4, "valid are -3 to 2")])
def test_a_layer_index_that_llava_cannot_say_is_refused(
    mmsimple: Configs, llava_config: Make, index: int | None, message: str
) -> None:
    section = mmsimple.to_cs(llava_config())
    encoder(section)["image_layer_idx"] = index
    with pytest.raises(InputRefused, match=f"image_layer_idx is .*{message}"):
        mmsimple.to_hf(section)


@pytest.mark.parametrize(("kind", "depth"), [("linear", 1), ("mlp2x_gelu", 2), ("mlp3x_gelu", 3)])
def test_a_projector_is_said_by_its_layers(mmsimple: Configs, llava_config: Make, kind: str, depth: int) -> None:
    config = llava_config(mm_projector_type=kind)
    assert mmsimple.to_cs(config)["image_model_list"]["global_image_projection"] == {
        "name": "FeedForwardNetwork",
        "input_unit": 32,
        "layers_units": [48] * depth,
        "layers_activation": ["gelu"] * (depth - 1) + [None],
        "use_bias": True,
    }
    assert text_around(mmsimple, config)["mm_projector_type"] == kind


@pytest.mark.parametrize("kind", ["identity", "mlp0x_gelu", "resampler"])
def test_other_projectors_are_refused_by_name(mmsimple: Configs, llava_config: Make, kind: str) -> None:
    with pytest.raises(InputRefused, match=f"mm_projector_type.*'{kind}'"):
        mmsimple.to_cs(llava_config(mm_projector_type=kind))


@pytest.mark.parametrize(
    "change",
    [{"layers_units": [48, 40]}, {"layers_activation": ["relu", None]}, {"use_bias": False}, {"input_unit": 16}],
)
def test_a_projector_that_llava_cannot_say_is_refused(
    mmsimple: Configs, llava_config: Make, change: dict[str, Any]
) -> None:
    section = mmsimple.to_cs(llava_config())
    section["image_model_list"]["global_image_projection"] |= change
    with pytest.raises(InputRefused, match="global_image_projection"):
        mmsimple.to_hf(section)


@pytest.mark.parametrize(
    ("flag", "patterns"),
    [(True, ["^image_model.image_model_list", "^text_model"]), (False, ["^image_model.image_model_list"])],
)
def test_what_trains_is_said_both_ways(mmsimple: Configs, llava_config: Make, flag: bool, patterns: list[str]) -> None:
    config = llava_config(tune_mm_mlp_adapter=flag)
    assert mmsimple.to_cs(config)["freeze"] == patterns
    assert text_around(mmsimple, config)["tune_mm_mlp_adapter"] is flag


@pytest.mark.parametrize(
    ("patterns", "flag"),
    [
        (["^image_model", "^text_model"], True),
        (["^text_model"], True),
        ([".*text_model.*"], True),
        (["^image_model"], False),
        (["text_model_of_another_name"], False),
        ([], False),
        (None, False),
    ],
)
def test_freeze_is_read_as_patterns(
    mmsimple: Configs, llava_config: Make, patterns: list[str] | None, flag: bool
) -> None:
    section = {**mmsimple.to_cs(llava_config()), "freeze": patterns}
    assert mmsimple.to_hf(section)["text_model"]["tune_mm_mlp_adapter"] is flag


@pytest.mark.parametrize("mode", ["patch", "cls_patch"])
def test_the_selected_features_are_said_both_ways(mmsimple: Configs, llava_config: Make, mode: str) -> None:
    config = llava_config(mm_vision_select_feature=mode)
    assert mmsimple.to_cs(config)["image_model_list"]["image_feature_select_mode"] == mode
    assert text_around(mmsimple, config)["mm_vision_select_feature"] == mode


@pytest.mark.parametrize(
    "fields",
    [
        {"mm_hidden_size": 48},
        {"mm_use_im_patch_token": True},
        {"mm_use_im_start_end": True},
        {"mm_vision_select_feature": "cls"},
        {"partial_rotary_factor": 0.5},
    ],
)
def test_what_cs_has_no_words_for_is_refused_by_name(
    mmsimple: Configs, llava_config: Make, fields: dict[str, Any]
) -> None:
    with pytest.raises(InputRefused, match=rf"text_model\.{next(iter(fields))}"):
        mmsimple.to_cs(llava_config(**fields))


def test_a_tower_inside_is_held_to_the_rules_of_a_tower_alone(mmsimple: Configs, llava_config: Make) -> None:
    with pytest.raises(InputRefused, match=r"image_model\.layer_norm_eps is 1e-06"):
        mmsimple.to_cs(llava_config(image={"layer_norm_eps": 1e-6}))


@pytest.mark.parametrize("kind", ["llava_llama", "llava", "llava_mistral"])
def test_every_text_part_says_the_type_that_its_loader_wants(mmsimple: Configs, llava_config: Make, kind: str) -> None:
    text = text_around(mmsimple, llava_config(model_type=kind, num_key_value_heads=4))
    mistral = kind == "llava_mistral"
    assert text["model_type"] == ("llava_mistral" if mistral else "llava_llama")
    assert text["architectures"] == ["LlavaMistralForCausalLM" if mistral else "LlavaLlamaForCausalLM"]
    assert text.get("sliding_window") == (4096 if mistral else None)


@pytest.mark.parametrize("fields", [{}, {"num_key_value_heads": 2}, {"mm_vision_select_layer": 1, "rope_theta": 1e6}])
def test_configs_survive_the_way_there_and_back(mmsimple: Configs, llava_config: Make, fields: dict[str, Any]) -> None:
    config = llava_config(**fields)
    assert mmsimple.canonical(mmsimple.around(config)) == mmsimple.canonical(config)


def test_an_export_never_asks_for_a_tower_inside_the_text_file(mmsimple: Configs, llava_config: Make) -> None:
    assert text_around(mmsimple, llava_config(unfreeze_mm_vision_tower=True))["unfreeze_mm_vision_tower"] is False
