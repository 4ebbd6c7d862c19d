"""A tower and a language model as they come from a hub: transformers' own classes, with random weights.

transformers takes seconds to import: only what runs needs it.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from mmsimple.data.templates import VICUNA_SYSTEM
from tests.journeys.pictures import COLOURS, NUMBERS, QUESTIONS, SIDE

VOCABULARY = 640
VISION: dict[str, Any] = {
    "hidden_size": 36,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": SIDE,
    "patch_size": 7,
}
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 72,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    # With weights as small as they usually are at first, one that is frozen says the same whatever it sees.
    "initializer_range": 0.1,
}


def save_models(folder: Path, seed: int) -> None:
    """`clip/` and `llama/`, with preprocessor and tokenizer."""
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        CLIPVisionModel,
        LlamaConfig,
        LlamaForCausalLM,
        LlamaTokenizer,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(folder / "clip")
        LlamaForCausalLM(LlamaConfig(**TEXT)).save_pretrained(folder / "llama")
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder / "clip")
    (folder / "llama" / "tokenizer.model").write_bytes(tokenizer())
    LlamaTokenizer.from_pretrained(folder / "llama").save_pretrained(folder / "llama")


def tokenizer() -> bytes:
    """A sentencepiece model to which the words of the conversations are one token each."""
    said = [f"USER: {question} ASSISTANT: {word}" for question in QUESTIONS for word in (*COLOURS, *NUMBERS)]
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([VICUNA_SYSTEM, *said] * 10),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        pad_id=-1,
        minloglevel=2,
    )
    return model.getvalue()
