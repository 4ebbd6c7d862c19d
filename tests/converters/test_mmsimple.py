"""LLaVA configs: which layer, which projector, what trains, and a tower and a decoder inside one section."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert.errors import InputRefused

if TYPE_CHECKING:
    from tests.converters.conftest import Configs, Draft, Workshop

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
        {"image_aspect_ratio": "anyres"},
        {"mm_patch_merge_type": "spatial_unpad"},
        {"s2": True},
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


@pytest.mark.parametrize(
    "fields",
    [
        {"image_aspect_ratio": "pad"},
        {"image_aspect_ratio": "square"},
        {"image_aspect_ratio": None},
        {"mm_patch_merge_type": "flat"},
        {"s2": False},
    ],
)
def test_one_picture_in_one_piece_travels_as_it_is(
    mmsimple: Configs, llava_config: Make, fields: dict[str, Any]
) -> None:
    (name,) = fields
    assert f"text_model.{name}" in mmsimple.translate(llava_config(**fields)).carried


def test_a_mistral_without_a_window_comes_back_as_one(workshop: Workshop, llava: Draft) -> None:
    names = {"model_type": "llava_mistral", "architectures": ["LlavaMistralForCausalLM"]}
    llava.part("text_model_llava").set(**names, sliding_window=None)
    back = workshop.convert(workshop.convert(llava.path, "cs-2.10"), "llava")
    config = workshop.read_json(back / "text_model_llava_mistral" / "config.json")
    assert {name: config[name] for name in names} == names
    # Left out, it would mean 4096.
    assert config["sliding_window"] is None


# --- as a trainer's params file spells it ---------------------------------------------------------------------------


@pytest.fixture
def trainers() -> dict[str, Any]:
    """A section with every key that a trainer's params file has, most of them at their defaults."""
    return {
        "name": "multimodal_simple",
        "freeze": ["^image_model.image_model_list"],
        "image_model_list": {
            "image_feature_select_mode": "patch",
            "image_models": [
                {
                    "image_encoder": {
                        "name": "ViTModel",
                        "position_embedding_type": "learned",
                        "embedding_dropout_rate": 0.0,
                        "hidden_size": 32,
                        "use_post_embed_layer_norm": True,
                        "use_embed_proj_bias": False,
                        "num_hidden_layers": 3,
                        "layer_norm_epsilon": 1e-5,
                        "num_heads": 4,
                        "attention_type": "scaled_dot_product",
                        "attention_softmax_fp32": True,
                        "dropout_rate": 0.0,
                        "nonlinearity": "quick_gelu",
                        "attention_dropout_rate": 0.0,
                        "use_projection_bias_in_attention": True,
                        "use_ffn_bias_in_attention": True,
                        "filter_size": 64,
                        "use_ffn_bias": True,
                        "initializer_range": 0.02,
                        "norm_first": True,
                        "image_size": [28, 28],
                        "num_channels": 3,
                        "patch_size": [14, 14],
                        "use_conv_patchified_embedding": True,
                        "use_encoder_pooler_layer": False,
                        "prepend_cls_token": True,
                        "image_layer_idx": -2,
                    },
                    "projection_layer": None,
                }
            ],
            "global_image_projection": {
                "name": "FeedForwardNetwork",
                "input_unit": 32,
                "layers_units": [48, 48],
                "layers_activation": ["gelu", None],
                "use_bias": True,
            },
        },
        "text_model": {
            "name": "LlamaModel",
            "vocab_size": 320,
            "hidden_size": 48,
            "position_embedding_type": "rotary",
            "rotary_dim": 12,
            "share_embedding_weights": False,
            "embedding_layer_norm": False,
            "max_position_embeddings": 2048,
            "pos_scaling_factor": 1.0,
            "embd_pdrop": 0.0,
            "num_hidden_layers": 2,
            "dropout_rate": 0.0,
            "layer_norm_epsilon": 1e-6,
            "norm_type": "rmsnorm",
            "num_heads": 4,
            "attention_type": "scaled_dot_product",
            "attention_dropout_rate": 0.0,
            "use_projection_bias_in_attention": False,
            "use_ffn_bias_in_attention": False,
            "filter_size": 80,
            "nonlinearity": "swiglu",
            "use_ffn_bias": False,
            "use_bias_in_output": False,
            "extra_ffn_params": {"static_dual_expert": False},
        },
        "loss_scaling": "num_tokens",
        "loss_weight": 1.0,
    }


def test_a_trainers_spelling_means_what_ours_does(
    mmsimple: Configs, llava_config: Make, trainers: dict[str, Any]
) -> None:
    assert mmsimple.to_hf(trainers) == mmsimple.around(llava_config())


@pytest.mark.parametrize(
    "fields", [{"layers_dropout_rates": [0.0, 0.0]}, {"kernel_initializer": "zeros"}, {"name": "MLP"}]
)
def test_how_a_projector_starts_and_trains_does_not_matter(
    mmsimple: Configs, trainers: dict[str, Any], fields: dict[str, Any]
) -> None:
    expected = mmsimple.to_hf(trainers)
    trainers["image_model_list"]["global_image_projection"] |= fields
    assert mmsimple.to_hf(trainers) == expected


def test_two_experts_are_refused_by_name(mmsimple: Configs, trainers: dict[str, Any]) -> None:
    trainers["text_model"]["extra_ffn_params"] = {"static_dual_expert": True}
    with pytest.raises(InputRefused, match=r"text_model\.extra_ffn_params is \{'static_dual_expert': True\}"):
        mmsimple.to_hf(trainers)
