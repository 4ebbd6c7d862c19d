"""Tokens taken off a tokenizer's files."""

from __future__ import annotations

from mmconvert.tokenizers.vocabulary import Files


def without_tokens(files: Files, first: int) -> dict[str, bytes]:
    """The files without the tokens at ids from `first` on."""
    raise NotImplementedError
