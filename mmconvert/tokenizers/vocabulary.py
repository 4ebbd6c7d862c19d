"""Which ids a tokenizer has, read from its files without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmconvert.documents import MAX_JSON_BYTES, file_size, parse_json
from mmconvert.errors import InputRefused
from mmconvert.tokenizers import pieces

Files = Mapping[str, bytes]

_SAYS = ("tokenizer.json", "tokenizer.model", "vocab.json", "added_tokens.json", "tokenizer_config.json")


def read(paths: Mapping[str, Path]) -> dict[str, bytes]:
    """The files at `paths`; refuses one that is missing, no file, or too large for a tokenizer's."""
    for path in paths.values():
        if (size := file_size(path)) > MAX_JSON_BYTES:
            raise InputRefused(f"{path}: has {size:,} bytes; a tokenizer's file has at most {MAX_JSON_BYTES:,}")
    try:
        return {name: path.read_bytes() for name, path in paths.items()}
    except OSError as error:
        raise InputRefused(f"{error.filename}: cannot be read: {error.strerror}") from error


def length(paths: Mapping[str, Path]) -> int | None:
    """The number of ids, added tokens included, of a tokenizer given by its files' paths; None if they do not say.

    A loader resizes the embedding to this number without a word, so it should be the number of the embedding's rows.
    """
    try:
        found = ids(read({name: path for name, path in paths.items() if name in _SAYS}))
    except InputRefused:
        # What is wrong with it is for whoever loads it to say.
        return None
    return None if found is None else len(set(found.values()))


def ids(files: Files) -> dict[str, int] | None:
    """Every token and its id, added tokens included; None where no file lists the vocabulary.

    The vocabulary is that of tokenizer.json, or else of tokenizer.model, or else of vocab.json; added_tokens.json and
    the `added_tokens_decoder` of tokenizer_config.json add to it. Raises InputRefused, naming the file, for one that is
    damaged.
    """
    if "tokenizer.json" in files:
        found = _fast(parse_json(files["tokenizer.json"], "tokenizer.json"))
    elif "tokenizer.model" in files:
        found = {piece.text: number for number, piece in enumerate(pieces.parse(files["tokenizer.model"]).pieces)}
    elif "vocab.json" in files:
        found = _numbers(parse_json(files["vocab.json"], "vocab.json"), "vocab.json")
    else:
        return None
    return found | added(files)


def added(files: Files) -> dict[str, int]:
    """The added tokens, and their ids, that stand beside the vocabulary: added_tokens.json, tokenizer_config.json."""
    found: dict[str, int] = {}
    if "tokenizer_config.json" in files:
        config = parse_json(files["tokenizer_config.json"], "tokenizer_config.json")
        found |= decoder(config, "tokenizer_config.json")
    if "added_tokens.json" in files:
        found |= _numbers(parse_json(files["added_tokens.json"], "added_tokens.json"), "added_tokens.json")
    return found


def decoder(config: Any, name: str) -> dict[str, int]:
    """The tokens of a tokenizer_config.json's `added_tokens_decoder`, which maps an id, in digits, to a token."""
    listed = config.get("added_tokens_decoder", {}) if isinstance(config, dict) else None
    if not isinstance(listed, dict):
        raise InputRefused(f"{name}: added_tokens_decoder must be a mapping of ids to tokens")
    found = {}
    for number, token in listed.items():
        content = token.get("content") if isinstance(token, dict) else None
        if not (number.isascii() and number.isdecimal() and len(number) < 10) or not isinstance(content, str):
            raise InputRefused(f"{name}: added_tokens_decoder.{number} must be a token with an id and a content")
        found[content] = int(number)
    return found


def _fast(document: Any) -> dict[str, int]:
    name = "tokenizer.json"
    model = document.get("model") if isinstance(document, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):
        # A unigram model lists its pieces, each with its score; the others map them to ids.
        if not all(isinstance(entry, list) and entry and isinstance(entry[0], str) for entry in vocabulary):
            raise InputRefused(f"{name}: model.vocab must list pieces with their scores")
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    found = _numbers(vocabulary, name)
    listed = document.get("added_tokens", [])
    if not isinstance(listed, list) or not all(isinstance(token, dict) for token in listed):
        raise InputRefused(f"{name}: added_tokens must be a list of tokens")
    return found | _numbers({token.get("content"): token.get("id") for token in listed}, name)


def _numbers(tokens: Any, name: str) -> dict[str, int]:
    if not isinstance(tokens, dict):
        raise InputRefused(f"{name}: must map tokens to their ids")
    for token, number in tokens.items():
        if not isinstance(token, str) or type(number) is not int or number < 0:
            raise InputRefused(f"{name}: the token {token!r:.60} must have an id, but has {number!r:.60}")
    return tokens
