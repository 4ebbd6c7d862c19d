"""The files beside llava-hf's weights against those of LLaVA's two folders: what is added, what goes, what travels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from mmconvert.errors import InputRefused
from tests.tokenizers.samples import ROWS, as_json, bare, fast, vicuna

if TYPE_CHECKING:
    from mmconvert.converter import Binding

Config = dict[str, Any]
Files = Mapping[str, bytes]
IMAGE, PAD, SIDE = ROWS, ROWS + 1, 28
CONFIG: Config = {
    "image_token_index": IMAGE,
    "pad_token_id": PAD,
    "text_config": {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2},
    "vision_config": {"image_size": SIDE, "patch_size": 14},
    "vision_feature_select_strategy": "default",
}


def together(binding: Binding, text: Files, image: Files | None = None) -> Files:
    """The files of both parts in one folder."""
    parts = {"text_model": text, "image_model": image or {}}
    return binding.together(
        CONFIG, {f"{part}/{name}": data for part, of in parts.items() for name, data in of.items()}
    )[0]


def apart(binding: Binding, files: Files, **config: Any) -> Files:
    return binding.apart({**CONFIG, **config}, files)


def read(files: Files, name: str) -> Any:
    return json.loads(files[name])


# --- special ids ------------------------------------------------------------------------------------------------------


def test_ids_of_tokens_that_are_taken_off_go_from_the_language_model_s_config(binding: Binding) -> None:
    text = {"bos_token_id": 1, "eos_token_id": [2, IMAGE], "pad_token_id": PAD, "max_position_embeddings": 4096}
    home = binding.home_config({**CONFIG, "text_config": text})["text_model"]
    assert home == {"bos_token_id": 1, "max_position_embeddings": 4096, "model_type": "llama", "vocab_size": ROWS}


@pytest.mark.parametrize(("number", "stays"), [(IMAGE - 1, True), (IMAGE, False), ([2, IMAGE - 1], True)])
def test_the_image_token_is_the_first_that_is_no_language_model_s(
    binding: Binding, number: object, stays: bool
) -> None:
    said = {"eos_token_id": number, "pad_token_id": number}
    home = binding.home_config({**CONFIG, "text_config": said})["text_model"]
    assert {name: home[name] for name in said if name in home} == (said if stays else {})
    generation = apart(binding, {**together(binding, vicuna()), "generation_config.json": as_json(said)})
    # LLaVA pads with the unknown token, and knows no other end than its config's.
    assert read(generation, "text_model/generation_config.json") == (said if stays else {"pad_token_id": 0})


def test_generation_pads_with_the_token_that_is_added_and_keeps_all_else(binding: Binding) -> None:
    said = {"temperature": 0.2, "pad_token_id": 0}
    files = together(binding, {**vicuna(), "generation_config.json": as_json(said)})
    assert read(files, "generation_config.json") == {"temperature": 0.2, "pad_token_id": PAD}
    made = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PAD}
    assert read(together(binding, vicuna()), "generation_config.json") == made


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [PAD, 0, None])
def test_the_token_for_padding_goes_whatever_the_config_pads_with(binding: Binding, number: int | None) -> None:
    home = apart(binding, together(binding, vicuna()), pad_token_id=number)
    assert home["text_model/tokenizer_config.json"] == vicuna()["tokenizer_config.json"]


def test_a_token_at_the_id_for_padding_goes_whatever_it_is_called(binding: Binding) -> None:
    files = {**vicuna(), "added_tokens.json": as_json({"<image>": IMAGE, "[PAD]": PAD})}
    assert "text_model/added_tokens.json" not in apart(binding, files)


@pytest.mark.parametrize(
    "added", [{"<image>": IMAGE, "<box>": PAD + 1}, {"<box>": IMAGE}, {"<pad>": PAD, "<x>": IMAGE}]
)
def test_any_other_token_behind_the_language_model_s_is_refused(binding: Binding, added: dict[str, int]) -> None:
    with pytest.raises(InputRefused, match=r"tokenizer: '<(box|x)>' is \d+, behind <image> \(380\)"):
        apart(binding, {**vicuna(), "added_tokens.json": as_json(added)})


def test_an_image_token_with_another_id_than_the_config_s_is_refused_with_what_to_set(binding: Binding) -> None:
    files = {**vicuna(), "added_tokens.json": as_json({"<box>": IMAGE, "<image>": PAD})}
    with pytest.raises(InputRefused, match="image_token_index is 380, but <image> is 381 in the tokenizer: set it to"):
        apart(binding, files)


def test_where_the_padding_token_is_taken_another_one_is_added(binding: Binding) -> None:
    """The language model's own `<pad>` keeps its id and its row."""
    text = {**vicuna(), "added_tokens.json": as_json({"<pad>": ROWS})}
    config = {**CONFIG, "image_token_index": ROWS + 1, "pad_token_id": ROWS + 2}
    files, _ = binding.together(config, {f"text_model/{name}": data for name, data in text.items()})
    assert read(files, "added_tokens.json") == {"<pad>": ROWS, "<image>": ROWS + 1, "[PAD]": ROWS + 2}
    assert read(files, "tokenizer_config.json")["pad_token"] == "[PAD]"
    home = binding.apart(config, files)
    assert read(home, "text_model/added_tokens.json") == {"<pad>": ROWS}


@pytest.mark.parametrize(("rows", "refused"), [(384, False), (385, True)])
def test_without_a_tokenizer_no_more_rows_are_cut_than_would_be_added(
    binding: Binding, rows: int, refused: bool
) -> None:
    config = {**CONFIG, "text_config": {"vocab_size": rows}}
    if refused:
        with pytest.raises(InputRefused, match="no tokenizer is here to say that the rows from 380 on are no tokens"):
            binding.apart(config, {})
    else:
        assert read(binding.apart(config, {}), "text_model/config.json")["vocab_size"] == ROWS


@pytest.mark.parametrize(("said", "legacy"), [({}, True), ({"legacy": False}, False), ({"legacy": True}, True)])
def test_a_tokenizer_that_does_not_say_whether_it_is_legacy_is(
    binding: Binding, said: dict[str, bool], legacy: bool
) -> None:
    config = as_json({"tokenizer_class": "LlamaTokenizer", **said})
    files = together(binding, {**bare(), "tokenizer_config.json": config})
    assert read(files, "tokenizer_config.json")["legacy"] is legacy


def test_a_tokenizer_of_another_kind_is_not_called_legacy(binding: Binding) -> None:
    text = {name: data for name, data in fast(vicuna()).items() if name != "tokenizer.model"}
    config = as_json({"tokenizer_class": "PreTrainedTokenizerFast"})
    assert "legacy" not in read(together(binding, {**text, "tokenizer_config.json": config}), "tokenizer_config.json")


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_what_the_tower_s_preprocessor_leaves_out_is_said_and_what_it_says_stays(binding: Binding) -> None:
    image = {"preprocessor_config.json": as_json({"resample": 2, "image_processor_type": "CLIPImageProcessor"})}
    found = read(together(binding, vicuna(), image), "preprocessor_config.json")
    assert found["resample"] == 2
    assert (found["size"], found["crop_size"]) == ({"shortest_edge": SIDE}, {"height": SIDE, "width": SIDE})
    assert found["processor_class"] == "LlavaProcessor"


def test_a_preprocessor_inside_the_processor_is_the_tower_s_where_there_is_no_other(binding: Binding) -> None:
    inside, beside = {"resample": 2}, {"resample": 3}
    processor = {"processor_config.json": as_json({"image_processor": inside})}
    name = "image_model/preprocessor_config.json"
    assert read(apart(binding, processor), name) == inside
    assert read(apart(binding, {**processor, "preprocessor_config.json": as_json(beside)}), name) == beside


# --- templates and what is this format's own --------------------------------------------------------------------------


def test_a_template_in_the_old_file_comes_out_where_there_is_no_new_one(binding: Binding) -> None:
    old = {"chat_template.json": as_json({"chat_template": "old <image>"})}
    name = "text_model/chat_template.jinja"
    assert apart(binding, {**vicuna(), **old})[name] == b"old <image>"
    assert apart(binding, {**vicuna(), **old, "chat_template.jinja": b"new <image>"})[name] == b"new <image>"


def test_the_template_that_is_made_does_not_travel_back(binding: Binding) -> None:
    assert "text_model/chat_template.jinja" not in apart(binding, together(binding, vicuna()))


def test_licences_of_both_parts_and_of_the_whole_keep_apart(binding: Binding) -> None:
    licences = {"text_model/LICENSE": b"text", "image_model/LICENSE": b"tower", "LICENSE": b"whole"}
    files, _ = binding.together(CONFIG, licences)
    found = apart(binding, files)
    assert {name: found[name] for name in licences} == licences
    alone, _ = binding.together(CONFIG, {"image_model/LICENSE": b"tower"})
    assert alone["LICENSE"] == b"tower"


def test_files_of_this_format_alone_are_made_anew_or_gone(binding: Binding) -> None:
    stale = {"processor_config.json": as_json({"patch_size": 1}), "chat_template.json": as_json({"chat_template": "x"})}
    files = together(binding, {**vicuna(), **stale})
    assert "chat_template.json" not in files
    assert read(files, "processor_config.json")["patch_size"] == 14
    home = apart(binding, {**files, **stale})
    assert not {f"{part}/{name}" for part in ("text_model", "image_model") for name in stale} & home.keys()
