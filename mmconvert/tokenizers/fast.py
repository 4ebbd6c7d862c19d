"""A tokenizer.json made of a sentencepiece model."""

from __future__ import annotations

from mmconvert.tokenizers.vocabulary import Files


def tokenizer_json(files: Files) -> bytes:
    """The tokenizer.json that says what tokenizer.model and tokenizer_config.json say."""
    raise NotImplementedError
