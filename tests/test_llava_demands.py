"""Every demand of the LLaVA source repository's loader, on folders that mmconvert wrote.

LLaVA 1.2.2 with transformers 4.37.2 loads whatever it is given: what is missing it draws at random, what is too much it
drops, shapes it does not look at, and all of that with a warning at most. So each thing that it relies on is a test
here. Folders are read with json and safetensors alone, so that neither mmconvert nor its doctor is asked of its own
work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors import safe_open

from mmconvert import Options, api
from tests.conftest import LLAMA, Make, clip_shapes, llama_shapes
from tests.llava_exports import CASES, Config, Export, export, load, projector_shapes, tensors

WORDS = ("model.embed_tokens.weight", "lm_head.weight")
TOWER_IN_TEXT = Path(__file__).parent / "golden" / "llava" / "tiny_src_tower_tuned"


@pytest.fixture(scope="module", params=CASES)
def exported(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_llava: Make,
    make_clip: Make,
    make_llama: Make,
) -> Export:
    return export(CASES[request.param], tmp_path_factory.mktemp("llava"), make_llava, make_clip, make_llama)


@pytest.fixture
def config(exported: Export) -> Config:
    """What stands beside the language model."""
    return exported.config


# Which tensors lie where


def test_the_text_folder_holds_language_model_head_and_projector_and_nothing_else(exported: Export) -> None:
    # Of a head that is tied LLaVA takes the embedding in any case.
    expected = {**llama_shapes(exported.config), **projector_shapes(exported.case.projector)}
    assert {key: tuple(tensor.shape) for key, tensor in exported.texts.items()} == expected


def test_the_image_folder_holds_the_whole_tower_under_the_old_prefix(exported: Export) -> None:
    expected = {k: s for k, s in clip_shapes(exported.vision).items() if k != "visual_projection.weight"}
    assert {key: tuple(tensor.shape) for key, tensor in exported.images.items()} == expected
    assert all(key.startswith("vision_model.") for key in exported.images)


def test_no_value_is_lost_in_float16(exported: Export) -> None:
    for key, tensor in {**exported.texts, **exported.images}.items():
        assert torch.isfinite(tensor.half()).all(), key


# Names of folders


def test_the_folder_is_named_for_the_class_that_llava_then_builds(exported: Export) -> None:
    name = exported.text.name.lower()
    assert "llava" in name
    assert ("mistral" in name) is exported.mistral
    assert not any(word in name for word in ("mpt", "lora"))


# config.json


def test_the_types_are_llavas_own(config: Config, exported: Export) -> None:
    kind, architecture = ("llava_mistral", "Mistral") if exported.mistral else ("llava_llama", "Llama")
    assert config["model_type"] == kind
    assert config["architectures"] == [f"Llava{architecture}ForCausalLM"]


def test_the_tower_is_an_absolute_path_that_exists(config: Config, exported: Export) -> None:
    tower = Path(config["mm_vision_tower"])
    assert tower.is_absolute()
    assert tower.samefile(exported.image)


def test_the_width_of_the_tower_is_said(config: Config, exported: Export) -> None:
    assert config["mm_hidden_size"] == exported.vision["hidden_size"]


def test_the_type_of_the_projector_is_said(config: Config, exported: Export) -> None:
    assert config["mm_projector_type"] == exported.case.projector


def test_the_layer_is_an_index_into_hidden_states(config: Config, exported: Export) -> None:
    layer, layers = config["mm_vision_select_layer"], exported.vision["num_hidden_layers"]
    assert layer in range(-layers - 1, layers + 1)
    assert layer == exported.case.config.get("mm_vision_select_layer", -2)


def test_the_feature_is_one_that_llava_knows(config: Config, exported: Export) -> None:
    assert config["mm_vision_select_feature"] == exported.case.config.get("mm_vision_select_feature", "patch")


@pytest.mark.parametrize("key", ["unfreeze_mm_vision_tower", "tune_mm_mlp_adapter", "s2"])
def test_what_is_off_unless_said_is_not_on(config: Config, key: str) -> None:
    assert not config.get(key)


@pytest.mark.parametrize("key", ["mm_use_im_patch_token", "mm_use_im_start_end"])
def test_tokens_of_older_llavas_are_said_to_be_off(config: Config, key: str) -> None:
    assert config[key] is False


def test_patches_are_flat_so_that_no_newline_is_wanted(config: Config, exported: Export) -> None:
    assert config.get("mm_patch_merge_type", "flat") == "flat"
    assert "model.image_newline" not in exported.texts


def test_pictures_are_padded_as_llava_1_5_was_trained(config: Config) -> None:
    assert config.get("image_aspect_ratio") == "pad"


def test_no_input_is_cut_before_the_model_would_end(config: Config) -> None:
    assert config.get("tokenizer_model_max_length") in (None, config["max_position_embeddings"])


def test_padding_is_on_the_right(config: Config) -> None:
    assert config.get("tokenizer_padding_side", "right") == "right"


def test_the_context_is_said_rightly_if_at_all(config: Config) -> None:
    assert config.get("max_sequence_length") in (None, config["max_position_embeddings"])


def test_rows_ids_and_tokens_are_as_many(config: Config, exported: Export) -> None:
    rows = {exported.texts[key].shape[0] for key in WORDS if key in exported.texts}
    assert rows == {config["vocab_size"]} == {tokens(exported.text)}


def tokens(folder: Path) -> int:
    """`len(tokenizer)`: the pieces, and what was added behind them."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size()
    added: set[int] = set()
    if (folder / "tokenizer_config.json").is_file():
        added |= set(map(int, load(folder / "tokenizer_config.json").get("added_tokens_decoder", {})))
    if (folder / "added_tokens.json").is_file():
        added |= set(load(folder / "added_tokens.json").values())
    return int(pieces) + sum(number >= pieces for number in added)


@pytest.mark.parametrize(
    "key", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps"]
)
def test_sizes_and_epsilon_are_said_where_a_default_would_be_another_model(config: Config, key: str) -> None:
    assert config[key] == LLAMA[key]


def test_key_value_heads_are_said(config: Config, exported: Export) -> None:
    heads = exported.case.config.get("num_key_value_heads", LLAMA["num_key_value_heads"])
    assert config["num_key_value_heads"] == heads


def test_rope_is_said_in_the_old_words(config: Config, exported: Export) -> None:
    said = exported.case.config.get("rope_parameters", {})
    assert config["rope_theta"] == said.get("rope_theta", 10000.0)
    assert config.get("rope_scaling") is None
    assert "rope_parameters" not in config


def test_the_element_type_is_said_in_the_old_word(exported: Export) -> None:
    embedding, patches = exported.texts[WORDS[0]], exported.images["vision_model.embeddings.patch_embedding.weight"]
    for said, tensor in ((exported.config, embedding), (exported.vision, patches)):
        assert f"torch.{said['torch_dtype']}" == str(tensor.dtype)
        assert "dtype" not in said


def test_a_sliding_window_is_a_mistrals(config: Config, exported: Export) -> None:
    assert config.get("sliding_window") == exported.case.config.get("sliding_window")


def test_whether_the_head_is_tied_is_said_and_true_only_where_it_is(config: Config, exported: Export) -> None:
    tied = exported.case.config.get("tie_word_embeddings", False)
    assert config["tie_word_embeddings"] is tied
    assert ("lm_head.weight" in exported.texts) is not tied


# The tower's folder


def test_the_towers_config_is_a_clip_vision_models(exported: Export) -> None:
    assert exported.vision["model_type"] == "clip_vision_model"
    assert exported.vision["architectures"] == ["CLIPVisionModel"]


def test_the_preprocessor_makes_pictures_of_the_towers_size(exported: Export) -> None:
    preprocessor = load(exported.image / "preprocessor_config.json")
    side = exported.vision["image_size"]
    assert preprocessor["image_processor_type"] == "CLIPImageProcessor"
    assert size(preprocessor.get("crop_size", 224)) == side
    assert size(preprocessor.get("size", 224)) == side


def size(said: Any) -> int:
    return int(said if isinstance(said, int) else said.get("height") or said["shortest_edge"])


# Tower weights inside the text checkpoint


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_tower_inside_the_text_file_moves_to_its_own_folder(tmp_path: Path, name: str) -> None:
    source = tensors(TOWER_IN_TEXT / "text_model_llava" if name == "text" else TOWER_IN_TEXT / "image_model")
    options = Options(take=name)
    api.convert(TOWER_IN_TEXT, tmp_path / "cs", "cs-2.10", options=options, fsync=False)
    api.convert(tmp_path / "cs", tmp_path / "llava", "llava", fsync=False)
    assert not any("vision_tower" in key for key in tensors(tmp_path / "llava" / "text_model_llava"))
    assert not load(tmp_path / "llava" / "text_model_llava" / "config.json").get("unfreeze_mm_vision_tower")
    found = tensors(tmp_path / "llava" / "image_model")
    inside = "model.vision_tower.vision_tower." if name == "text" else ""
    assert found
    assert all(torch.equal(tensor, source[inside + key]) for key, tensor in found.items())


# Files


def test_every_weight_file_says_that_it_is_of_torch(exported: Export) -> None:
    files = [file for folder in (exported.text, exported.image) for file in folder.glob("*.safetensors")]
    assert files
    for file in files:
        with safe_open(file, "pt") as opened:
            assert opened.metadata()["format"] == "pt"


def test_an_index_has_both_members_and_names_every_tensor_in_its_file(exported: Export) -> None:
    for folder in (exported.text, exported.image):
        files = {file.name for file in folder.glob("*.safetensors")}
        index = folder / "model.safetensors.index.json"
        assert index.is_file() is (files != {"model.safetensors"})
        if index.is_file():
            said = load(index)
            assert isinstance(said["metadata"], dict)
            assert said["weight_map"] == {key: file for file in files for key in keys(folder / file)}


def keys(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def test_there_are_several_files_where_they_were_asked_for(exported: Export) -> None:
    files = len(list(exported.text.glob("*.safetensors")))
    assert files > 1 if exported.case.llava.max_shard_size else files == 1


def test_no_other_weights_lie_beside(exported: Export) -> None:
    for folder in (exported.text, exported.image):
        assert not [file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth")]


def test_the_slow_tokenizers_file_is_there_and_the_sources(exported: Export, tokenizer: bytes) -> None:
    assert (exported.text / "tokenizer.model").read_bytes() == tokenizer


# What the load does not notice


def test_every_value_is_finite_and_no_tensor_empty_of_them(exported: Export) -> None:
    for key, tensor in {**exported.texts, **exported.images}.items():
        assert torch.isfinite(tensor).all(), key
        assert tensor.any(), key


# Whole models alone


def test_it_is_neither_an_adapter_nor_a_projector_alone(exported: Export) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.bin", "mm_projector.bin"):
        assert not (exported.text / name).exists()
