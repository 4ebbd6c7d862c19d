"""The chat template of llava-hf: its turns are LLaVA's, and their ids are those that LLaVA's own tools give.

LLaVA cuts a prompt at its pictures and tokenizes each piece by itself, with the token of the beginning once in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sentencepiece
from transformers import AutoTokenizer

from tests.mmsimple.data.small_tokenizers import SENTENCES, converted_files, sentencepiece_model, write
from tests.tokenizers.samples import ROWS, as_json, vicuna

if TYPE_CHECKING:
    from mmconvert.converter import Binding

Message = dict[str, Any]
PIECES = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
BOS, EOS = PIECES.bos_id(), PIECES.eos_id()
# What sentencepiece makes of a text has no space in front where the text comes after this one.
BEFORE = "<unk>"
IMAGE, WHAT, WHERE = {"type": "image"}, {"type": "text", "text": "What is this?"}, {"type": "text", "text": "Where?"}
ANSWER: Message = {"role": "assistant", "content": "It is a red cat."}


def user(*parts: Message) -> Message:
    return {"role": "user", "content": list(parts)}


def together(binding: Binding, text: Mapping[str, bytes], kind: str = "llama") -> Mapping[str, bytes]:
    """The files of an export, with a tokenizer's for those of its language model."""
    config = {
        "image_token_index": ROWS,
        "pad_token_id": ROWS + 1,
        "text_config": {"model_type": kind},
        "vision_config": {"image_size": 28, "patch_size": 14},
        "vision_feature_select_strategy": "default",
    }
    return binding.together(config, {f"text_model/{name}": data for name, data in text.items()})[0]


def prompt(files: Mapping[str, bytes], folder: Path, *messages: Message) -> tuple[str, list[int]]:
    """What transformers makes of a conversation, as text and as ids."""
    tokenizer: Any = AutoTokenizer.from_pretrained(write(folder / "export", files), local_files_only=True)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text, tokenizer(text).input_ids


def as_llava(text: str, legacy: bool) -> list[int]:
    """LLaVA's way, by sentencepiece itself; a tokenizer that is not `legacy` puts no space after an answer's end."""
    found = [BOS]
    for number, piece in enumerate(text.split("<image>")):
        first, *others = piece.split("</s>")
        found += [ROWS] * (number > 0) + PIECES.encode(first)
        for other in others:
            found += [EOS] + (
                PIECES.encode(other) if legacy else PIECES.encode(BEFORE + other)[len(PIECES.encode(BEFORE)) :]
            )
    return found


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    ("kind", "messages", "said"),
    [
        ("llama", [user(IMAGE, WHAT)], "USER: <image>\nWhat is this? ASSISTANT:"),
        ("llama", [user(WHAT, IMAGE)], "USER: What is this?<image>\n ASSISTANT:"),
        ("llama", [user(IMAGE, IMAGE, WHAT)], "USER: <image>\n<image>\nWhat is this? ASSISTANT:"),
        (
            "llama",
            [{"role": "system", "content": "A chat."}, user(IMAGE, WHAT), ANSWER, user(WHERE)],
            "A chat. USER: <image>\nWhat is this? ASSISTANT: It is a red cat.</s>USER: Where? ASSISTANT:",
        ),
        ("mistral", [user(IMAGE, WHAT)], "[INST] <image>\nWhat is this? [/INST]"),
        (
            "mistral",
            [user(IMAGE, WHAT), ANSWER, user(IMAGE, WHERE)],
            "[INST] <image>\nWhat is this? [/INST] It is a red cat.</s>[INST] <image>\nWhere? [/INST]",
        ),
    ],
)
def test_a_conversation_has_the_ids_that_llava_gives_it(
    binding: Binding, tmp_path: Path, legacy: bool, kind: str, messages: list[Message], said: str
) -> None:
    text, ids = prompt(together(binding, vicuna(legacy=legacy), kind), tmp_path, *messages)
    assert text.replace("<image> ", "<image>") == said
    assert ids == as_llava(said, legacy)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_space_is_said_after_a_picture_only_where_the_tokenizer_puts_none(
    binding: Binding, tmp_path: Path, legacy: bool
) -> None:
    text, _ = prompt(together(binding, vicuna(legacy=legacy)), tmp_path, user(IMAGE, WHAT))
    assert text.startswith("USER: <image>\n" if legacy else "USER: <image> \n")


def test_what_a_tokenizer_json_does_counts_and_not_what_the_config_says(binding: Binding) -> None:
    assert b"<image> " not in together(binding, converted_files(legacy=False))["chat_template.jinja"]


@pytest.mark.parametrize(("said", "space"), [({"legacy": False}, True), ({"legacy": True}, False), ({}, False)])
def test_without_a_tokenizer_json_what_the_config_says_counts(
    binding: Binding, said: Mapping[str, bool], space: bool
) -> None:
    """None is made of a model that is not BPE."""
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=ROWS,
        model_type="unigram",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    own = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    added = as_json({f"<{number}>": number for number in range(own, ROWS)})
    config = as_json({"tokenizer_class": "LlamaTokenizer", **said})
    text = {"tokenizer.model": model.getvalue(), "tokenizer_config.json": config, "added_tokens.json": added}
    files = together(binding, text)
    assert "tokenizer.json" not in files
    assert (b"<image> " in files["chat_template.jinja"]) is space


def test_without_a_tokenizer_no_space_is_said(binding: Binding) -> None:
    assert b"<image> " not in together(binding, {})["chat_template.jinja"]


@pytest.mark.parametrize("eos", ["<end>", {"content": "<end>", "special": True}])
def test_an_answer_ends_with_the_tokenizer_s_own_token(binding: Binding, eos: object) -> None:
    template = together(binding, vicuna(eos_token=eos))["chat_template.jinja"]
    assert b"<end>" in template
    assert b"</s>" not in template


def test_a_template_of_its_own_that_knows_pictures_stays(binding: Binding) -> None:
    own = b"{% for each in messages %}<image>{% endfor %}"
    for said, stays in ((own, True), (own.replace(b"<image>", b""), False)):
        files = together(binding, {**vicuna(), "chat_template.jinja": said})
        assert (files["chat_template.jinja"] == said) is stays
