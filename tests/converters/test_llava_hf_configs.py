"""llava-hf configs as they are found: diffs that leave class defaults out, fields of every release, and refusals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert import registry
from mmconvert.errors import InputRefused
from mmconvert.paths import get, put, without

if TYPE_CHECKING:
    from tests.converters.conftest import Configs, Draft, Workshop

# As transformers 4.36 and 4.37 wrote them, with nothing that is its class's own: llava-hf/llava-1.5-7b-hf's is like it.
LLAVA_7B: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.36.0.dev0",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
SMALL: dict[str, Any] = {
    "model_type": "llava",
    "image_token_index": 320,
    "text_config": {
        "model_type": "llama",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 384,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    },
}


def encoder(section: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = section["image_model_list"]["image_models"][0]["image_encoder"]
    return found


def forms(config: dict[str, Any]) -> set[str]:
    """The formats of side a that a config alone is recognised as."""
    return {
        each.a.name
        for each in registry.converters()
        if each.model == "mmsimple-llava" and "" in each.a.parts and each.a.parts[""](config)
    }


# --- what is left out -------------------------------------------------------------------------------------------------


def test_a_diff_of_4_36_means_vicuna_7b_and_clip_l_14_at_336(llava_hf: Configs) -> None:
    section = llava_hf.to_cs(LLAVA_7B)
    text, tower = section["text_model"], encoder(section)
    assert {name: text[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_heads")} == {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_heads": 32,
    }
    assert {name: text[name] for name in ("filter_size", "layer_norm_epsilon", "rope_theta", "rotary_dim")} == {
        "filter_size": 11008,
        "layer_norm_epsilon": 1e-5,
        "rope_theta": 10000.0,
        "rotary_dim": 128,
    }
    assert (text["max_position_embeddings"], text["attention_module"]) == (4096, "aiayn_attention")
    assert (tower["hidden_size"], tower["num_hidden_layers"], tower["num_heads"]) == (1024, 24, 16)
    assert (tower["image_size"], tower["patch_size"], tower["nonlinearity"]) == ([336, 336], [14, 14], "quick_gelu")
    assert (tower["image_layer_idx"], section["image_model_list"]["image_feature_select_mode"]) == (-2, "patch")
    assert section["image_model_list"]["global_image_projection"] == {
        "name": "FeedForwardNetwork",
        "input_unit": 1024,
        "layers_units": [4096, 4096],
        "layers_activation": ["gelu", None],
        "use_bias": True,
    }


@pytest.mark.parametrize(
    "config",
    [
        without(LLAVA_7B, "vision_config"),
        {**LLAVA_7B, "vision_config": None},
        without(LLAVA_7B, "image_token_index"),
        without(LLAVA_7B, "vision_feature_layer"),
        without(LLAVA_7B, "vision_feature_select_strategy"),
        without(LLAVA_7B, "projector_hidden_act"),
    ],
)
def test_what_is_left_out_means_what_llava_1_5_has(llava_hf: Configs, config: dict[str, Any]) -> None:
    assert llava_hf.to_cs(config) == llava_hf.to_cs(LLAVA_7B)


def test_a_tower_of_which_nothing_is_said_but_its_type_is_its_class_s_own(llava_hf: Configs) -> None:
    for said in ({}, {"model_type": "clip_vision_model"}):
        tower = encoder(llava_hf.to_cs({**LLAVA_7B, "vision_config": said}))
        assert (tower["hidden_size"], tower["num_hidden_layers"], tower["image_size"]) == (768, 12, [224, 224])


@pytest.mark.parametrize("text", [None, {}])
def test_a_decoder_of_which_nothing_is_said_is_a_llama_of_32000_rows(llava_hf: Configs, text: Any) -> None:
    section = llava_hf.to_cs({**LLAVA_7B, "text_config": text, "image_token_index": 31990})
    assert (section["text_model"]["vocab_size"], section["text_model"]["num_hidden_layers"]) == (31990, 32)
    with pytest.raises(InputRefused, match=r"image_token_index is 32000, but text_config\.vocab_size is 32000"):
        llava_hf.to_cs({**LLAVA_7B, "text_config": text})


@pytest.mark.parametrize(
    "config",
    [
        LLAVA_7B,
        without(LLAVA_7B, "vision_config"),
        without(LLAVA_7B, "text_config"),
        {"model_type": "llava", "image_token_index": 32000},
        {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]},
    ],
)
def test_a_config_is_known_by_either_part_or_by_its_architecture(config: dict[str, Any]) -> None:
    assert forms(config) == {"llava-hf"}


def test_a_mistral_that_says_no_more_has_its_class_s_window_and_heads(llava_hf: Configs) -> None:
    text = {"model_type": "mistral", "vocab_size": 32064}
    section = llava_hf.to_cs({**LLAVA_7B, "text_config": text})["text_model"]
    assert (section["filter_size"], section["attention_sliding_window_length"]) == (14336, 4096)
    assert section["extra_attention_params"] == {"num_kv_groups": 8}
    assert llava_hf.around({**LLAVA_7B, "text_config": text})["text_config"]["model_type"] == "mistral"


# --- what other releases write ----------------------------------------------------------------------------------------


def test_5_says_the_same_under_other_names(llava_hf: Configs) -> None:
    four = {**SMALL["text_config"], "rope_theta": 5000.0, "torch_dtype": "float16"}
    rope = {"rope_theta": 5000.0, "rope_type": "default"}
    five = {**SMALL["text_config"], "rope_parameters": rope, "dtype": "float16", "head_dim": 12}
    newer = {**without(SMALL, "image_token_index"), "image_token_id": 320, "dtype": "float16", "text_config": five}
    assert llava_hf.to_cs(newer) == llava_hf.to_cs({**SMALL, "text_config": four})


@pytest.mark.parametrize("length", [575, 576, 3, None])
def test_a_wrong_sequence_length_is_read_and_put_right(llava_hf: Configs, length: int | None) -> None:
    assert llava_hf.around({**LLAVA_7B, "image_seq_length": length})["image_seq_length"] == 576
    full = {**LLAVA_7B, "image_seq_length": length, "vision_feature_select_strategy": "full"}
    assert llava_hf.around(full)["image_seq_length"] == 577


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("above", [None, "unsaid"])
def test_whether_the_head_is_tied_is_the_decoder_s_to_say(llava_hf: Configs, tied: bool, above: str | None) -> None:
    config = put(SMALL, "text_config.tie_word_embeddings", tied)
    config = config if above else {**config, "tie_word_embeddings": None}
    assert llava_hf.to_cs(config)["text_model"]["share_embedding_weights"] is tied
    with pytest.raises(InputRefused, match="tie_word_embeddings"):
        llava_hf.to_cs({**config, "tie_word_embeddings": not tied})


@pytest.mark.parametrize("rows", [321, 322, 384, 400, 1000])
def test_any_number_of_rows_from_the_image_token_on_is_read(llava_hf: Configs, rows: int) -> None:
    config = put(SMALL, "text_config.vocab_size", rows)
    assert llava_hf.to_cs(config) == llava_hf.to_cs(SMALL)
    assert llava_hf.around(config)["text_config"]["vocab_size"] == 384


def test_a_projector_without_biases_is_said_both_ways(llava_hf: Configs) -> None:
    config = {**SMALL, "multimodal_projector_bias": False}
    assert llava_hf.to_cs(config)["image_model_list"]["global_image_projection"]["use_bias"] is False
    assert llava_hf.around(config)["multimodal_projector_bias"] is False


@pytest.mark.parametrize(("theirs", "ours"), [(-1, -1), (-2, -2), (-3, -3), (1, 0), (2, 1), (3, 2)])
def test_a_selected_layer_is_counted_without_the_embeddings(llava_hf: Configs, theirs: int, ours: int) -> None:
    config = {**SMALL, "vision_feature_layer": theirs}
    assert encoder(llava_hf.to_cs(config))["image_layer_idx"] == ours
    assert llava_hf.around(config)["vision_feature_layer"] == theirs


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("vision_feature_layer", [-2, -5], r"vision_feature_layer is \[-2, -5\]: .* one layer of the tower"),
        ("vision_feature_layer", 0, r"vision_feature_layer is 0: valid are -3 to -1 and 1 to 3"),
        ("vision_feature_layer", -4, r"vision_feature_layer is -4: valid are -3 to -1 and 1 to 3"),
        ("vision_feature_select_strategy", "cls", r"vision_feature_select_strategy"),
        ("projector_hidden_act", "relu", r"projector_hidden_act is 'relu'; known: gelu"),
        ("text_config.model_type", "qwen2", r"text_config\.model_type is 'qwen2'.*known: llama, mistral"),
        ("vision_config.model_type", "siglip_vision_model", r"vision_config\.model_type is 'siglip_vision_m.*': CLIP"),
        ("vision_config.model_type", "clip", r"vision_config\.model_type is 'clip': CLIP"),
        ("image_token_index", 384, r"image_token_index is 384, but .* is 384: .*resize_token_embeddings"),
        ("image_token_index", 0, r"image_token_index"),
        ("text_config.vocab_size", 320, r"image_token_index is 320, but text_config\.vocab_size is 320"),
        ("text_config.head_dim", 16, r"text_config\.head_dim is 16"),
        ("vision_config.layer_norm_eps", 1e-6, r"vision_config\.layer_norm_eps is 1e-06"),
        ("quantization_config", {"quant_method": "gptq"}, r"quantization_config.*quantised"),
        ("text_config", "llama", r"text_config is no mapping"),
    ],
)
def test_what_cs_has_no_words_for_is_refused_by_name(llava_hf: Configs, path: str, value: Any, why: str) -> None:
    assert llava_hf.to_cs(SMALL)
    with pytest.raises(InputRefused, match=why):
        llava_hf.to_cs(put(SMALL, path, value))


@pytest.mark.parametrize("units", [[48], [48, 48, 48]])
def test_a_projector_of_another_depth_has_no_place(llava_hf: Configs, units: list[int]) -> None:
    section = llava_hf.to_cs(SMALL)
    path = "image_model_list.global_image_projection"
    changed = put(section, f"{path}.layers_units", units)
    changed = put(changed, f"{path}.layers_activation", ["gelu"] * (len(units) - 1) + [None])
    with pytest.raises(InputRefused, match=rf"{path}\.layers_units has {len(units)} linear layers.*`mmconvert convert"):
        llava_hf.to_hf(changed)
    with pytest.raises(InputRefused, match=f"{path} is absent"):
        llava_hf.to_hf(put(section, path, None))


@pytest.mark.parametrize("kind", ["llava_next", "vipllava", "llava_onevision", "video_llava"])
def test_other_llavas_of_transformers_are_refused_by_their_type(kind: str, joined: Draft, workshop: Workshop) -> None:
    joined.set(model_type=kind)
    said = workshop.refusal(joined.path)
    assert f"config.json: model_type '{kind}': " in said
    assert "is not converted: " in said


# --- the tokenizer, against the config --------------------------------------------------------------------------------


def add_token(draft: Draft, workshop: Workshop, token: str, number: int) -> None:
    """Have every file of the tokenizer know one more token."""
    special = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    for name, place, entry in (
        ("added_tokens.json", None, {token: number}),
        ("tokenizer_config.json", "added_tokens_decoder", {str(number): {"content": token, **special}}),
    ):
        document = workshop.read_json(draft.path / name)
        (document if place is None else document[place]).update(entry)
        write_json(draft, name, document)
    document = workshop.read_json(draft.path / "tokenizer.json")
    document["added_tokens"].append({"id": number, "content": token, **special})
    write_json(draft, "tokenizer.json", document)


def write_json(draft: Draft, name: str, document: Any) -> None:
    (draft.path / name).write_text(json.dumps(document), "utf-8")


def test_a_token_behind_the_image_token_would_lose_its_row(joined: Draft, workshop: Workshop) -> None:
    add_token(joined, workshop, "<box>", 322)
    for target in ("cs-2.10", "llava", "llava-hf"):
        with pytest.raises(InputRefused, match=r"'<box>' is 322, behind <image> \(320\): its row cannot be cut off"):
            workshop.convert(joined.path, target)


@pytest.mark.parametrize("own", [319, 321, 383])
def test_an_image_token_that_is_not_the_tokenizer_s_is_refused(own: int, joined: Draft, workshop: Workshop) -> None:
    joined.set(image_token_index=own)
    why = f"image_token_index is {own}, but <image> is 320 in the tokenizer: set it to 320"
    assert why in workshop.refusal(joined.path)


def test_an_image_token_that_the_tokenizer_lacks_is_the_config_s_to_say(joined: Draft, workshop: Workshop) -> None:
    for file in joined.path.glob("*token*"):
        file.unlink()
    joined.set(image_token_index=319)
    out = workshop.convert(joined.path, "llava")
    assert get(workshop.read_json(out / "text_model_llava/config.json"), "vocab_size") == 319
    # What two more tokens and the multiple do not take may be tokens of the language model.
    joined.set(image_token_index=300)
    assert "no tokenizer is here to say that the rows from 300 on" in workshop.refusal(joined.path)
