"""One tokenisation with every character accounted for, the placeholder of an image among them, and what is refused."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmsimple.data.tokenizer import load_tokenizer, tokenizer_of
from tests.mmsimple.data.small_tokenizers import (
    CHATML,
    FAMILIES,
    Files,
    as_json,
    byte_level,
    hugging_face,
    llama_3_files,
    llama_files,
    load,
    small,
    write,
)

TEXT = "USER: <image>\nWhat  is\tthis? <image><image> é 😀🫠 ASSISTANT: a red cat  "
GOLDEN = Path(__file__).parents[2] / "golden" / "llava" / "tiny_src"


def with_added(files: Files, **changes: Any) -> Files:
    """A `tokenizer.json` with one more added token, and other changes to the document."""
    document = json.loads(files["tokenizer.json"])
    token = {"content": "<image>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    document["added_tokens"].append({"id": document["added_tokens"][-1]["id"] + 1, "special": False, **token})
    return {**files, "tokenizer.json": as_json({**document, **changes})}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_text_has_the_tokens_that_transformers_gives_it(family: str) -> None:
    expected = hugging_face(FAMILIES[family])(TEXT, add_special_tokens=False)["input_ids"]
    assert small(family).encode(TEXT).ids == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_every_character_is_in_the_place_of_a_token(family: str) -> None:
    encoded = small(family).encode(TEXT)
    covered = {at for start, end in zip(encoded.starts, encoded.ends, strict=True) for at in range(start, end)}
    assert covered == set(range(len(TEXT)))
    assert encoded.starts == sorted(encoded.starts)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bytes_of_a_character_are_all_in_its_place(family: str) -> None:
    encoded = small(family).encode("a🫠b")
    places = list(zip(encoded.starts, encoded.ends, strict=True))
    assert places.count((1, 2)) >= 3
    assert {(0, 1), (1, 2), (2, 3)} == set(places)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_one_token_with_the_spaces_beside_it_left_alone(family: str) -> None:
    tokenizer = small(family)
    ids, starts, ends = tokenizer.encode("a <image> b<image>")
    images = [at for at, number in enumerate(ids) if number == tokenizer.image_id]
    assert [(starts[at], ends[at]) for at in images] == [(2, 9), (11, 18)]
    assert {1, 9} <= set(starts)
    # This one puts a space in front of whatever follows a special token.
    more = " " if family == "converted" else ""
    assert tokenizer.decode(ids, False).lstrip() == f"a <image>{more} b<image>"


def test_a_placeholder_that_the_tokenizer_lacks_is_beyond_its_vocabulary() -> None:
    vocabulary = len(json.loads(byte_level())["model"]["vocab"])
    assert small("llama_3").image_id == vocabulary + 7
    assert small("llama").image_id == 380


def test_a_placeholder_that_the_tokenizer_has_keeps_its_id_and_becomes_special() -> None:
    tokenizer = load(with_added(llama_3_files()))
    assert tokenizer.image_id == small("llama_3").image_id
    assert "<image>" in tokenizer.special_tokens
    assert tokenizer.decode(tokenizer.encode("a<image>b").ids, True) == "ab"


@pytest.mark.parametrize("family", FAMILIES)
def test_no_special_token_is_added(family: str) -> None:
    tokenizer = small(family)
    text = f"{tokenizer.bos}a{tokenizer.eos}"
    (bos,), (eos,) = tokenizer.encode(tokenizer.bos).ids, tokenizer.encode(tokenizer.eos).ids
    ids = tokenizer.encode(text).ids
    assert (ids.count(bos), ids.count(eos)) == (1, 1)
    assert not {bos, eos} & set(tokenizer.encode("a").ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bos_apart_gives_the_tokens_of_a_tokenizer_that_adds_it(family: str) -> None:
    tokenizer = small(family)
    text = f"{tokenizer.bos}A chat"
    encoded = tokenizer.encode(text, bos_apart=True)
    expected = hugging_face(FAMILIES[family])("A chat")["input_ids"]
    assert encoded.ids == expected
    assert encoded.starts[:2] == [0, len(tokenizer.bos)]
    assert encoded.ends[0] == len(tokenizer.bos)
    assert encoded.ends[-1] == len(text)


def test_a_bos_in_the_text_takes_the_space_from_the_word_after_it_where_a_tokenizer_is_not_legacy() -> None:
    def is_same(family: str) -> bool:
        return small(family).encode("<s>A chat") == small(family).encode("<s>A chat", bos_apart=True)

    assert {family: is_same(family) for family in ("llama", "legacy", "converted")} == {
        "llama": False,
        "legacy": True,
        "converted": True,
    }


def test_what_a_file_asks_for_does_not_shorten_pad_or_split() -> None:
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 99},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    files = with_added(llama_3_files(split_special_tokens=True), truncation=truncation, padding=padding)
    assert load(files).encode(TEXT) == load(with_added(llama_3_files())).encode(TEXT)


@pytest.mark.parametrize(
    ("files", "pad"),
    [
        (llama_files(pad_token="</s>"), "</s>"),
        (llama_files(), "<unk>"),
        (llama_3_files(), "<|end_of_text|>"),
        (llama_3_files(eos_token=None), "!"),
    ],
    ids=["pad", "unk", "eos", "none"],
)
def test_padding_is_the_first_of_pad_unk_eos_and_id_0(files: Files, pad: str) -> None:
    tokenizer = load(files)
    assert [tokenizer.pad_id] == tokenizer.encode(pad).ids[-1:]


def test_an_answer_is_over_at_eos_and_at_an_end_of_turn() -> None:
    def ends(files: Files) -> set[str]:
        tokenizer = load(files)
        return {tokenizer.decode([number], False) for number in tokenizer.eos_ids}

    assert ends(llama_files()) == {"</s>"}
    assert ends(llama_3_files()) == {"<|end_of_text|>", "<|eot_id|>", "<|im_end|>"}


def test_a_tokenizer_without_bos_and_eos_says_so() -> None:
    tokenizer = load(llama_3_files(bos_token=None, eos_token=None))
    assert (tokenizer.bos, tokenizer.eos) == ("", "")


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_gives_the_text_back_with_or_without_special_tokens(family: str) -> None:
    tokenizer = small(family)
    text = f"a red cat . é 😀{tokenizer.eos}"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, False).strip() == text
    assert tokenizer.decode(ids, True).strip() == text.removesuffix(tokenizer.eos)


def test_decoding_leaves_a_space_before_a_full_stop_whatever_the_files_ask_for() -> None:
    asked = {"": True, "_for_bpe_even_though_it_will_corrupt_output": True}
    files = llama_3_files(**{f"clean_up_tokenization_spaces{more}": value for more, value in asked.items()})
    ids = load(files).encode("a cat .").ids
    assert hugging_face(files).decode(ids) == "a cat."
    assert load(files).decode(ids, False) == "a cat ."


def test_a_chat_template_renders_messages() -> None:
    tokenizer = load(llama_3_files(chat_template=CHATML))
    assert tokenizer.has_chat_template
    messages = [{"role": "user", "content": "<image>\nHi"}]
    assert tokenizer.render(messages, True) == "<|im_start|>user\n<image>\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert not small("llama_3").has_chat_template


def test_what_a_chat_template_does_not_take_is_refused_in_a_line() -> None:
    tokenizer = load(llama_3_files(chat_template="{{ raise_exception('no\nimages') }}"))
    with pytest.raises(InputRefused, match=r"^/.*: its chat template fails: no: images$"):
        tokenizer.render([{"role": "user", "content": "a"}], True)


def test_a_tokenizer_travels_to_another_process() -> None:
    tokenizer = pickle.loads(pickle.dumps(small("llama_3")))
    assert tokenizer.encode(TEXT) == small("llama_3").encode(TEXT)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"tokenizer_config.json": b"{}"})
    with pytest.raises(
        InputRefused, match=r"holds no tokenizer, neither tokenizer\.json nor tokenizer\.model$"
    ) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer.json": b"{"},
        {"tokenizer.json": b'{"model": {}}', "tokenizer_config.json": b'{"tokenizer_class": "LlamaTokenizer"}'},
        {"tokenizer.model": b"garbage"},
        {"tokenizer.model": b"", "tokenizer_config.json": b"["},
    ],
    ids=["json", "empty json", "model", "config"],
)
def test_a_damaged_tokenizer_is_refused_in_the_words_of_transformers(tmp_path: Path, files: Files) -> None:
    with pytest.raises(InputRefused, match=r": transformers does not load its tokenizer: \S") as caught:
        load_tokenizer(write(tmp_path / "src", files))
    assert str(caught.value).startswith(f"{tmp_path / 'src'}: ")
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_tokenizer_is_not_run(tmp_path: Path) -> None:
    config = as_json({"auto_map": {"AutoTokenizer": ["own.Slow", "own.Fast"]}, "tokenizer_class": "Own"})
    code = b"raise SystemExit('run')"
    files = {**llama_files(), "tokenizer_config.json": config, "own.py": code}
    with pytest.raises(InputRefused, match="contains custom code"):
        load_tokenizer(write(tmp_path, files))


def test_a_tokenizer_that_does_not_tell_the_places_of_tokens_is_refused(tmp_path: Path) -> None:
    files = {**llama_files(), "tokenizer_config.json": b'{"tokenizer_class": "ByT5Tokenizer"}'}
    with pytest.raises(InputRefused, match=": its tokenizer, a ByT5Tokenizer, does not tell the places of tokens"):
        load_tokenizer(write(tmp_path, files))


def test_the_tokenizer_of_a_llava_loads_without_a_word(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", logged.append)
    logging.getLogger("transformers").addHandler(handler)
    try:
        assert load_tokenizer(GOLDEN / "text_model_llava").image_id == 320
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert not logged
    assert tuple(capfd.readouterr()) == ("", "")
    assert not recwarn.list


def test_a_sentencepiece_model_alone_is_a_tokenizer(tokenizer: bytes) -> None:
    loaded = tokenizer_of({"tokenizer.model": tokenizer}, "here")
    assert (loaded.bos, loaded.eos, loaded.pad_id, loaded.image_id) == ("<s>", "</s>", 0, 101)
    assert loaded.encode("<s>abc<image>").starts[0] == 0


def assets(files: Files, prefix: str) -> dict[str, bytes]:
    return {prefix + name: data for name, data in files.items()}


def test_the_assets_of_a_checkpoint_hold_its_tokenizer() -> None:
    for prefix in ("", "text_model/"):
        files = {**assets(llama_files(), prefix), "image_model/preprocessor_config.json": b"{}"}
        assert tokenizer_of(files, "here").encode(TEXT) == small("llama").encode(TEXT)


def test_of_two_tokenizers_the_text_models_is_taken() -> None:
    both = {**assets(llama_3_files(), ""), **assets(llama_files(), "text_model/")}
    assert tokenizer_of(both, "here").bos == "<s>"


def test_the_image_models_tokenizer_is_not_taken() -> None:
    with pytest.raises(InputRefused, match=r"^here: no tokenizer came with it"):
        tokenizer_of(assets(llama_3_files(), "image_model/"), "here")


def test_damaged_assets_are_refused_by_the_checkpoints_name() -> None:
    with pytest.raises(InputRefused, match=r"^here: transformers does not load its tokenizer: "):
        tokenizer_of({"text_model/tokenizer.json": b"{"}, "here")
