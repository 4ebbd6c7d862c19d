"""Folders of tokenizer files as their writers leave them, and how clients read what was made of them."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer

from mmconvert.tokenizers import Files, tokenizer_json
from tests.mmsimple.data.small_tokenizers import llama_3_files, sentencepiece_model, write

ROWS = 380  # of sentencepiece_model()
IMAGE = {"<image>": ROWS, "<pad>": ROWS + 1}
PROCESSOR = {"processor_class": "LlavaProcessor"}
FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def as_json(document: object) -> bytes:
    """As transformers writes it."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def token(content: str, **more: Any) -> dict[str, Any]:
    return {"content": content, **FLAGS, **more}


def bare() -> Files:
    return {"tokenizer.model": sentencepiece_model()}


def vicuna(**fields: Any) -> Files:
    """As transformers 4.34 and newer save a slow one: LLaVA's own pad token is the unknown one."""
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(number): token(name, special=True) for number, name in enumerate(("<unk>", "<s>", "</s>"))
        },
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "legacy": False,
        "model_max_length": 2048,
        "pad_token": "<unk>",
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"}
    return {
        **bare(),
        "tokenizer_config.json": as_json(dict(sorted({**config, **fields}.items()))),
        "special_tokens_map.json": as_json({key: token(name) for key, name in special.items()}),
    }


def old_vicuna(**fields: Any) -> Files:
    """As transformers 4.31 saved it: no decoder, and the pad token in special_tokens_map.json alone."""
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {
        "add_bos_token": True,
        **{key: {"__type": "AddedToken", **token(name)} for key, name in ends.items()},
        "legacy": False,
        "tokenizer_class": "LlamaTokenizer",
        **fields,
    }
    special = {**{key: token(name) for key, name in ends.items()}, "pad_token": "<unk>"}
    return {
        **bare(),
        "tokenizer_config.json": as_json(dict(sorted(config.items()))),
        "special_tokens_map.json": as_json(dict(sorted(special.items()))),
    }


def fast(files: Files) -> Files:
    """With the tokenizer.json that a client without sentencepiece needs."""
    return {**files, "tokenizer.json": tokenizer_json(files)}


def llama_3() -> Files:
    return llama_3_files()


def load(files: Files) -> Any:
    with TemporaryDirectory() as folder:
        return AutoTokenizer.from_pretrained(write(Path(folder), files), local_files_only=True)
