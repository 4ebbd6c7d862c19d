"""Tokens taken off a tokenizer's files: the way back leaves what there was before the way there."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmconvert.tokenizers import Files, ids, with_tokens, without_tokens
from tests.tokenizers.samples import (
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


def there_and_back(files: Files) -> dict[str, bytes]:
    found = ids(files)
    assert found is not None
    rows = len(found)
    new = with_tokens(files, {"<image>": rows, "<pad>": rows + 1}, "<pad>", PROCESSOR)
    return without_tokens(new, rows)


def config_of(files: Files) -> Any:
    return json.loads(files["tokenizer_config.json"])


@pytest.mark.parametrize(
    "files",
    [
        vicuna(),
        fast(vicuna()),
        fast(vicuna(legacy=True)),
        old_vicuna(pad_token="<unk>"),
        {name: data.rstrip(b"\n") for name, data in vicuna().items()},
        {**vicuna(), "special_tokens_map.json": b'{"pad_token":"<unk>","unk_token":"<unk>"}'},
        {
            **vicuna(added_tokens_decoder={"380": token("<im_start>", special=True)}),
            "added_tokens.json": as_json({"<im_start>": ROWS}),
            "chat_template.jinja": b"{{ messages }}",
        },
        {
            **llama_3(),
            "tokenizer_config.json": as_json({"eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"}),
        },
    ],
)
def test_there_and_back_gives_the_same_bytes(files: Files) -> None:
    assert there_and_back(files) == files


def test_a_config_without_a_pad_token_comes_back_with_the_unknown_one() -> None:
    files = fast(old_vicuna())
    back = there_and_back(files)
    assert {name for name in files if back[name] != files[name]} == {"tokenizer_config.json"}
    assert config_of(back) == {**config_of(files), "pad_token": "<unk>"}


def test_a_config_that_was_made_stays() -> None:
    back = there_and_back(bare())
    assert back.keys() == {"tokenizer.model", "tokenizer_config.json"}
    assert load(back).convert_tokens_to_ids("<image>") == 0


@pytest.mark.parametrize("source", [vicuna, old_vicuna, bare, llama_3])
def test_taking_off_again_changes_nothing(source: Callable[[], Files]) -> None:
    back = there_and_back(source())
    found = ids(back)
    assert found is not None
    assert without_tokens(back, len(found)) == back


def test_fields_that_name_them_go_and_others_stay() -> None:
    fields = {
        "additional_special_tokens": ["<image>"],
        "extra_special_tokens": {"image_token": "<image>", "other_token": "</s>"},
        "image_token": "<image>",
        "model_specific_special_tokens": {},
        "processor_class": "LlavaProcessor",
        "chat_template": "<image>",
    }
    before = with_tokens(fast(vicuna()), IMAGE, "<pad>", fields)
    config = config_of(without_tokens(before, ROWS))
    assert config.keys() & fields.keys() == {"extra_special_tokens", "model_specific_special_tokens", "chat_template"}
    assert config["extra_special_tokens"] == {"other_token": "</s>"}


def test_what_transformers_5_saved_comes_off_too() -> None:
    config = {"extra_special_tokens": ["<s>", token("<image>")], "pad_token": "<pad>", "unk_token": "<unk>"}
    files = with_tokens(fast(bare()), IMAGE, "<pad>")
    saved = {"tokenizer.json": files["tokenizer.json"], "tokenizer_config.json": as_json(config)}
    back = without_tokens(saved, ROWS)
    assert back["tokenizer.json"] == fast(bare())["tokenizer.json"]
    assert config_of(back) == {"extra_special_tokens": ["<s>"], "pad_token": "<unk>", "unk_token": "<unk>"}


@pytest.mark.parametrize(
    ("config", "pad"),
    [
        ({"unk_token": token("<unk>"), "eos_token": "</s>"}, "<unk>"),
        ({"unk_token": None, "eos_token": "b"}, "b"),
        ({"unk_token": "<pad>", "eos_token": "b"}, "b"),
        ({}, None),
    ],
)
def test_the_pad_token_becomes_the_unknown_one_or_else_eos(config: dict[str, Any], pad: str | None) -> None:
    entries = [{"id": number, "content": name} for number, name in enumerate(("<unk>", "b", "<pad>"))]
    model = {"vocab": {"<unk>" if pad == "<unk>" else "a": 0, "b": 1}}
    listed = entries if pad == "<unk>" else entries[1:]
    padding = {"pad_token": "<pad>", "pad_id": 2, "direction": "Left"}
    files = {
        "tokenizer.json": as_json({"padding": padding, "added_tokens": listed, "model": model}),
        "tokenizer_config.json": as_json({"pad_token": "<pad>", **config}),
    }
    back = without_tokens(files, 2)
    assert config_of(back).get("pad_token") == pad
    expected = {"pad_token": pad, "pad_id": {"<unk>": 0, "b": 1}.get(pad or ""), "direction": "Left"} if pad else None
    assert json.loads(back["tokenizer.json"])["padding"] == expected


@pytest.mark.parametrize(
    ("config", "special", "unknown", "pad"),
    [
        ({"unk_token": "a"}, {"unk_token": "b"}, "c", "a"),
        ({"eos_token": "a"}, {"unk_token": "b"}, "c", "b"),
        ({"eos_token": "a"}, {"eos_token": "b"}, "c", "c"),
        ({"eos_token": "a"}, {"eos_token": "b"}, None, "<unk>"),
    ],
)
def test_the_unknown_token_is_looked_for_in_every_file_before_eos(
    config: dict[str, str], special: dict[str, str], unknown: str | None, pad: str
) -> None:
    assert padded_with(["a", "b", "c", "<unk>", "</s>"], config, special, unknown) == pad


@pytest.mark.parametrize(
    ("config", "special", "pad"),
    [
        ({"eos_token": "a"}, {"eos_token": "b"}, "a"),
        ({"unk_token": "<unk>"}, {"eos_token": "b"}, "b"),
        ({}, {}, "</s>"),
    ],
)
def test_eos_is_looked_for_in_every_file_where_nothing_is_unknown(
    config: dict[str, str], special: dict[str, str], pad: str
) -> None:
    assert padded_with(["a", "b", "</s>"], config, special, None) == pad


def padded_with(tokens: list[str], config: dict[str, str], special: dict[str, str], unknown: str | None) -> object:
    """The pad token that a tokenizer of these tokens has when `<pad>` is off."""
    vocabulary = {name: number for number, name in enumerate(tokens)}
    added = [{"id": len(tokens), "content": "<pad>"}]
    files = {
        "tokenizer.json": as_json({"added_tokens": added, "model": {"vocab": vocabulary, "unk_token": unknown}}),
        "tokenizer_config.json": as_json({"pad_token": "<pad>", **config}),
        "special_tokens_map.json": as_json(special),
    }
    return config_of(without_tokens(files, len(tokens)))["pad_token"]


@pytest.mark.parametrize("files", [bare(), {"tokenizer.json": fast(bare())["tokenizer.json"]}])
def test_nothing_is_taken_off_the_vocabulary_itself(files: Files) -> None:
    with pytest.raises(InputRefused, match=r"of id 379, is no added token"):
        without_tokens(files, ROWS - 1)


def test_a_folder_without_a_vocabulary_loses_its_processor_only() -> None:
    files = {"tokenizer_config.json": as_json({"processor_class": "LlavaProcessor", "model_max_length": 9})}
    assert without_tokens(files, 3) == {"tokenizer_config.json": as_json({"model_max_length": 9})}


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("data", [b"", b"[]", b'{"padding": {"pad_token": []}}', b'{"pad_token": [[]]}', b"\xff"])
def test_a_damaged_file_is_refused_or_does_no_harm(name: str, data: bytes) -> None:
    with suppress(InputRefused):
        without_tokens({**vicuna(), name: data}, ROWS)
