"""Small tokenizers in the files that real ones come in, and the tokenizers that mmsimple makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from mmsimple.data.templates import Turn
from mmsimple.data.tokenizer import Tokenizer, load_tokenizer

Files = Mapping[str, bytes]

SENTENCES = (
    "A chat between a curious user and an assistant. USER: What is this? ASSISTANT: It is a red cat.",
    "[INST] <<SYS>> You are a helpful vision assistant. <</SYS>> Where is the dog? [/INST] The dog sees a boat.",
)
# LLaMA 3's way of cutting a text before its tokens are looked for.
LLAMA_3_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
LLAMA_3_SPECIAL = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|im_start|>", "<|im_end|>"),
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2_CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


@cache
def sentencepiece_model() -> bytes:
    """As LLaMA's: a byte is a token where no other is, nothing is normalized, and a space comes before the text."""
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=380,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def llama_files(*, legacy: bool = False, **config: Any) -> Files:
    """As LLaMA 2's; Vicuna's says `legacy` false."""
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True, **config}
    return {"tokenizer.model": sentencepiece_model(), "tokenizer_config.json": as_json(settings)}


def converted_files(**config: Any) -> Files:
    """LLaMA's as transformers 4 saved it, where a normalizer puts the space in front."""
    backend = hugging_face(llama_files()).backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", **config}
    return {"tokenizer.json": backend.to_str().encode(), "tokenizer_config.json": as_json(settings)}


@cache
def byte_level() -> str:
    """As LLaMA 3's `tokenizer.json`."""
    backend = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA_3_PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([*SENTENCES, *("\n" * count for count in range(2, 6))] * 20, trainer)
    backend.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in LLAMA_3_SPECIAL])
    bos = LLAMA_3_SPECIAL[0]
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return backend.to_str()


def llama_3_files(**config: Any) -> Files:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": LLAMA_3_SPECIAL[0], **config}
    settings = {"eos_token": LLAMA_3_SPECIAL[1], **settings}
    return {"tokenizer.json": byte_level().encode(), "tokenizer_config.json": as_json(settings)}


def write(folder: Path, files: Files) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def load(files: Files) -> Tokenizer:
    with TemporaryDirectory() as folder:
        return load_tokenizer(write(Path(folder), files))


def hugging_face(files: Files) -> Any:
    """The same in transformers' own hands, with `<image>` added as its documentation says."""
    with TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(write(Path(folder), files), local_files_only=True)
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    return tokenizer


FAMILIES = {
    "llama": llama_files(),
    "legacy": llama_files(legacy=True),
    "converted": converted_files(),
    "llama_3": llama_3_files(),
}


@cache
def small(family: str) -> Tokenizer:
    return load(FAMILIES[family])


def turns(*texts: str) -> tuple[Turn, ...]:
    """What the user and the assistant say, in turn."""
    return tuple(Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(texts))
