"""Tokens added to a tokenizer's files: transformers finds them, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmconvert.tokenizers import Files, ids, with_tokens
from tests.tokenizers.samples import (
    FLAGS,
    IMAGE,
    PROCESSOR,
    ROWS,
    as_json,
    bare,
    fast,
    llama_3,
    load,
    old_vicuna,
    token,
    vicuna,
)

PROMPT = "USER: <image>\nWhere is the dog? ASSISTANT:"


def read(files: Files, name: str) -> Any:
    return json.loads(files[name])


def extended(files: Files) -> dict[str, bytes]:
    found = ids(files)
    assert found is not None
    rows = len(found)
    return with_tokens(files, {"<image>": rows, "<pad>": rows + 1}, "<pad>", PROCESSOR)


@pytest.mark.parametrize("source", [bare, vicuna, old_vicuna])
def test_transformers_finds_them_at_their_ids(source: Callable[[], Files]) -> None:
    for files in (source(), fast(source())):
        before, after = load(files), load(extended(files))
        assert len(after) == len(before) + 2
        assert after.convert_tokens_to_ids(["<image>", "<pad>"]) == [ROWS, ROWS + 1]
        assert (after.pad_token, after.bos_token, after.eos_token, after.unk_token) == ("<pad>", "<s>", "</s>", "<unk>")
        added = after.added_tokens_decoder
        assert all(added[number].special and not added[number].normalized for number in IMAGE.values())


@pytest.mark.parametrize("source", [vicuna, old_vicuna])
def test_a_text_has_the_tokens_it_had_and_the_new_one_is_one(source: Callable[[], Files]) -> None:
    before, after = load(source()), load(extended(fast(source())))
    text = "Where is the dog?\nThe dog sees a boat.</s>USER: a"
    assert after(text).input_ids == before(text).input_ids
    assert after(PROMPT).input_ids.count(ROWS) == 1


def test_a_tokenizer_of_tokenizer_json_alone_has_them_too() -> None:
    files = llama_3()
    before, after = load(files), load(extended(files))
    assert after.convert_tokens_to_ids(["<image>", "<pad>"]) == [len(before), len(before) + 1]
    assert after.pad_token == "<pad>"
    assert "added_tokens.json" not in extended(files)


def test_every_file_says_them() -> None:
    files = extended(fast(vicuna()))
    assert read(files, "tokenizer.json")["added_tokens"][-2:] == [
        {**token(name), "id": number, "special": True} for name, number in IMAGE.items()
    ]
    config = read(files, "tokenizer_config.json")
    assert config["added_tokens_decoder"]["380"] == token("<image>", special=True)
    assert config["pad_token"] == "<pad>"
    assert config["processor_class"] == "LlavaProcessor"
    assert read(files, "special_tokens_map.json")["pad_token"] == {"content": "<pad>", **FLAGS}
    assert read(files, "added_tokens.json") == IMAGE


def test_other_files_pass_through_and_the_sentencepiece_model_byte_for_byte() -> None:
    files = {**vicuna(), "chat_template.jinja": b"{{ messages }}"}
    new = extended(files)
    assert new["tokenizer.model"] == files["tokenizer.model"]
    assert new["chat_template.jinja"] == b"{{ messages }}"


def test_a_config_that_is_missing_is_made_so_that_every_release_reads_the_same() -> None:
    config = read(extended(bare()), "tokenizer_config.json")
    assert config["tokenizer_class"] == "LlamaTokenizer"
    assert config["legacy"] is config["add_bos_token"] is True


def test_a_new_decoder_takes_over_what_it_makes_loaders_pass_over() -> None:
    special = {"eos_token": "</s>", "unk_token": "<unk>", "bos_token": token("<s>"), "sep_token": "</s>"}
    files = {
        **bare(),
        "tokenizer_config.json": as_json({"tokenizer_class": "LlamaTokenizer"}),
        "special_tokens_map.json": as_json(special),
        "added_tokens.json": as_json({"<im_start>": ROWS}),
    }
    config = read(extended(files), "tokenizer_config.json")
    assert {number: each["content"] for number, each in config["added_tokens_decoder"].items()} == {
        "380": "<im_start>",
        "381": "<image>",
        "382": "<pad>",
    }
    assert config["sep_token"] == "</s>"
    assert config["bos_token"] == token("<s>")


def test_what_only_tokenizer_json_matches_whole_stays_whole_beside_a_decoder() -> None:
    files = fast(vicuna())
    document = json.loads(files["tokenizer.json"])
    document["added_tokens"].append({"id": ROWS, **token("<sep>"), "special": False})
    files = {**files, "tokenizer.json": as_json(document)}
    assert load(extended(files))("a<sep>").input_ids[-1] == ROWS


@pytest.mark.parametrize(
    ("unknown", "pad"), [(token("<unk>", lstrip=True), token("<pad>", lstrip=True)), ("<unk>", "<pad>")]
)
def test_a_pad_token_where_there_was_none_is_said_as_the_unknown_one_is(unknown: object, pad: object) -> None:
    files = {**vicuna(), "special_tokens_map.json": as_json({"unk_token": unknown})}
    assert read(extended(files), "special_tokens_map.json")["pad_token"] == pad


def test_a_former_pad_token_stays_a_token() -> None:
    files = {**old_vicuna(pad_token="[PAD]"), "added_tokens.json": as_json({"[PAD]": ROWS})}
    after = load(extended(files))
    assert after.convert_tokens_to_ids(["[PAD]", "<image>", "<pad>"]) == [ROWS, ROWS + 1, ROWS + 2]


@pytest.mark.parametrize("source", [vicuna, old_vicuna, bare])
def test_adding_them_again_changes_nothing(source: Callable[[], Files]) -> None:
    new = extended(fast(source()))
    assert with_tokens(new, IMAGE, "<pad>", PROCESSOR) == new


def test_without_a_pad_token_the_one_there_is_stays() -> None:
    config = read(with_tokens(vicuna(), {"<image>": ROWS}), "tokenizer_config.json")
    assert config["pad_token"] == "<unk>"


@pytest.mark.parametrize(
    ("more", "added", "message"),
    [
        ({"<image>": ROWS}, {"<image>": ROWS + 1}, "added_tokens.json: '<image>' has the id 380, but must have 381"),
        ({"<im_start>": ROWS}, IMAGE, "added_tokens.json: the id 380 is that of '<im_start>', but '<image>' must have"),
        ({}, {"<image>": 7}, "tokenizer.model: the id 7 is that of '<0x04>', but '<image>' must have it"),
        ({}, {"<s>": ROWS}, "tokenizer.model: '<s>' has the id 1, but must have 380; give a tokenizer without it"),
        ({}, {"<image>": 400}, "no token has the id 380, where loaders would put '<image>', which must have 400"),
        ({}, {"<image>": ROWS, "<pad>": 382}, "no token has the id 381, where loaders would put '<pad>'"),
    ],
)
def test_ids_that_do_not_fit_are_refused(more: dict[str, int], added: dict[str, int], message: str) -> None:
    with pytest.raises(InputRefused) as refused:
        with_tokens({**bare(), "added_tokens.json": as_json(more)}, added)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(InputRefused, match="has none of"):
        with_tokens({"tokenizer_config.json": b"{}"}, IMAGE)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("data", [b"", b"[]", b"3", b'{"added_tokens": {}}', b'{"added_tokens_decoder": [1]}', b"\xff"])
def test_a_damaged_file_is_refused_or_does_no_harm(name: str, data: bytes) -> None:
    with suppress(InputRefused):
        with_tokens({**vicuna(), name: data}, IMAGE, "<pad>")
