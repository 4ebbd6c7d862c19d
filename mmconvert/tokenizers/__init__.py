"""Tokenizers as files: which ids they have, tokens added and taken off, words of older releases; none is loaded.

A tokenizer is `Files`: the bytes of tokenizer.model, tokenizer.json, tokenizer_config.json, special_tokens_map.json,
added_tokens.json, vocab.json and merges.txt, as far as they are there, by name. Others pass through.
"""

from __future__ import annotations

from mmconvert.tokenizers.adding import with_tokens
from mmconvert.tokenizers.fast import tokenizer_json, unsaid
from mmconvert.tokenizers.older import for_older_releases, unread_config, unread_fast
from mmconvert.tokenizers.removing import without_tokens
from mmconvert.tokenizers.spaces import begins_first_alone
from mmconvert.tokenizers.vocabulary import Files, at_or_above, ids, length, read

__all__ = [
    "Files",
    "at_or_above",
    "begins_first_alone",
    "for_older_releases",
    "ids",
    "length",
    "read",
    "tokenizer_json",
    "unread_config",
    "unread_fast",
    "unsaid",
    "with_tokens",
    "without_tokens",
]
