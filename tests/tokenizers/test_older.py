"""Tokenizers that transformers 5 saved are said in words that 4.37 and 4.57 know; in 5 they stay the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from mmconvert.errors import InputRefused
from mmconvert.tokenizers import Files, for_older_releases, unread_config, unread_fast
from tests.tokenizers.samples import as_json, bare, fast, llama_3, load, old_vicuna, vicuna

GOLDEN = Path(__file__).parents[1] / "golden" / "llava"
FAST, CONFIG = "tokenizer.json", "tokenizer_config.json"
TEXTS = (
    "What is it? ab cd ÄÖ 12",
    "USER: <image>\nWhere is the dog? ASSISTANT:",
    " a  b</s>hello <s> dog",
    "<|im_start|>user\nWhat's 12345 cats?<|im_end|>\n\n",
)


def saved(tokenizer: Any) -> Files:
    """As the transformers of this environment saves it."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir() if file.suffix == ".json"}


def recorded(name: str) -> Files:
    return {file.name: file.read_bytes() for file in (GOLDEN / name).iterdir() if file.name.startswith("tokenizer")}


def generic() -> Files:
    files = fast(vicuna())
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        return saved(PreTrainedTokenizerFast.from_pretrained(folder))


SAVED: dict[str, Callable[[], Files]] = {
    "llava-hf of 5": lambda: recorded("tiny_llava_hf"),
    "llava-hf of 4.57": lambda: recorded("tiny_llava_hf_457"),
    "llava-hf of 4.57, saved again": lambda: saved(load(recorded("tiny_llava_hf_457"))),
    "LLaMA 3": lambda: saved(load(llama_3())),
    "Mistral": lambda: saved(load(fast(vicuna(legacy=True)))),
    "a generic one": generic,
}


def config_of(said: Mapping[str, Any], *others: str) -> Any:
    files = {CONFIG: as_json(said), **dict.fromkeys(others, b"")}
    return json.loads(for_older_releases(files)[CONFIG])


def fast_of(said: Mapping[str, Any]) -> Any:
    return json.loads(for_older_releases({FAST: as_json(said)})[FAST])


@pytest.mark.parametrize("name", SAVED)
def test_they_stay_the_same_tokenizer(name: str) -> None:
    files = SAVED[name]()
    before, after = load(files), load(for_older_releases(files))
    assert [after(text).input_ids for text in TEXTS] == [before(text).input_ids for text in TEXTS]
    assert after.special_tokens_map.items() >= before.special_tokens_map.items()
    assert set(after.all_special_tokens) == set(before.all_special_tokens)
    assert after.padding_side == before.padding_side


@pytest.mark.parametrize("name", SAVED)
def test_nothing_is_left_that_an_older_release_does_not_read_and_once_is_enough(name: str) -> None:
    files = SAVED[name]()
    assert [*unread_config(json.loads(files[CONFIG])), *unread_fast(json.loads(files[FAST]))]
    new = for_older_releases(files)
    assert not [*unread_config(json.loads(new[CONFIG])), *unread_fast(json.loads(new[FAST]))]
    assert for_older_releases(new) == new


@pytest.mark.parametrize("files", [bare(), vicuna(), old_vicuna(), fast(vicuna()), fast(vicuna(legacy=True))])
def test_what_they_read_already_stays_byte_for_byte(files: Files) -> None:
    files = {**files, "chat_template.jinja": b"{{ messages }}", "added_tokens.json": b"{}"}
    assert for_older_releases(files) == files


def test_the_class_that_only_5_has_becomes_one_that_all_have() -> None:
    said = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "is_local": True, "local_files_only": True}
    assert config_of(said, "tokenizer.model") == {"tokenizer_class": "LlamaTokenizer"}
    names = ["input_ids", "attention_mask"]
    assert config_of(said) == {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}


def test_names_of_inputs_that_are_there_stay() -> None:
    said = {"model_input_names": ["input_ids"], "tokenizer_class": "PreTrainedTokenizerFast"}
    assert config_of(said) == said


def test_extra_special_tokens_go_where_they_have_always_been() -> None:
    more = {"__type": "AddedToken", "content": "<c>"}
    said = {"bos_token": {"content": "<s>"}, "pad_token": "<p>", "extra_special_tokens": ["<s>", "<p>", "<b>", more]}
    assert config_of(said)["additional_special_tokens"] == ["<b>", more]
    assert config_of({**said, "additional_special_tokens": ["<a>", "<b>"]})["additional_special_tokens"] == [
        *("<a>", "<b>"),
        more,
    ]
    assert config_of({"extra_special_tokens": []}) == {}
    assert config_of({"extra_special_tokens": {"image_token": "<image>"}}) == {
        "extra_special_tokens": {"image_token": "<image>"}
    }


def test_merges_become_strings_but_for_tokens_with_spaces() -> None:
    pairs = [["a", "b"], ["ab", "c"]]
    assert fast_of({"model": {"merges": pairs}})["model"]["merges"] == ["a b", "ab c"]
    assert fast_of({"model": {"merges": [*pairs, [" ", "d"]]}})["model"]["merges"] == [*pairs, [" ", "d"]]
    assert fast_of({"model": {"merges": []}})["model"]["merges"] == []


def test_every_metaspace_says_whether_a_space_is_put_in_front() -> None:
    step = {"type": "Metaspace", "replacement": "▁"}
    always, never = {**step, "prepend_scheme": "first"}, {**step, "prepend_scheme": "never"}
    said = {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, always]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Sequence", "decoders": [never]}, step]},
    }
    assert fast_of(said) == {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits"}, always | {"add_prefix_space": True}],
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Sequence", "decoders": [never | {"add_prefix_space": False}]},
                step | {"add_prefix_space": True},
            ],
        },
    }
    assert fast_of({"pre_tokenizer": always, "decoder": None})["pre_tokenizer"]["add_prefix_space"] is True


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (CONFIG, b"{"),
        (CONFIG, b"[]"),
        (CONFIG, b'{"extra_special_tokens": [1]}'),
        (CONFIG, b'{"extra_special_tokens": ["<a>"], "additional_special_tokens": "<b>"}'),
        (FAST, b"{"),
        (FAST, b"[]"),
        (FAST, b'{"model": {"merges": [["a"]]}}'),
        (FAST, b'{"model": {"merges": [["a", 1]]}}'),
        (FAST, b'{"model": {"merges": ["a b", {"a": "b"}]}}'),
    ],
)
def test_what_is_damaged_is_refused_by_name(name: str, data: bytes) -> None:
    with pytest.raises(InputRefused, match=name):
        for_older_releases({name: data})


@pytest.mark.parametrize("document", [None, [], {}, {"model": 1}, {"model": {"merges": 1}}, {"decoder": 3}])
def test_what_says_nothing_has_nothing_unread(document: Any) -> None:
    assert not [*unread_config(document), *unread_fast(document)]
