"""Which ids a tokenizer has, read from its files without loading it."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

from mmconvert.documents import LISTING_LIMITS, parse_json, read_bytes
from mmconvert.errors import InputRefused
from mmconvert.tokenizers import pieces

FAST, SENTENCEPIECE, SLOW = "tokenizer.json", "tokenizer.model", "vocab.json"
VOCABULARIES = {FAST, SENTENCEPIECE, SLOW}
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
DECODER = "added_tokens_decoder"
# The largest vocabularies have some 260,000.
MAX_TOKENS = 300_000

Files = Mapping[str, bytes]


def read(paths: Mapping[str, Path]) -> dict[str, bytes]:
    """The files at `paths`; refuses one that is missing, no file, or too large for a tokenizer's."""
    return {name: read_bytes(path, LISTING_LIMITS.nbytes) for name, path in paths.items()}


def length(paths: Mapping[str, Path]) -> int | None:
    """The number of ids, added tokens included, of a tokenizer given by its files' paths; None if they do not say.

    A loader resizes the embedding to this number without a word, so it should be the number of the embedding's rows.
    """
    saying = {*VOCABULARIES, ADDED, CONFIG}
    try:
        found = ids(read({name: path for name, path in paths.items() if name in saying}))
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
    found = by_file(files)
    if not found.keys() & VOCABULARIES:
        return None
    return {token: number for tokens in found.values() for token, number in tokens.items()}


def at_or_above(files: Files, first: int) -> dict[str, int]:
    """The tokens at ids from `first` on, in the order of their ids; none where no file lists the vocabulary.

    Raises InputRefused, naming the file, for one that is damaged.
    """
    found = sorted((ids(files) or {}).items(), key=lambda entry: entry[1])
    return {token: number for token, number in found if number >= first}


def by_file(files: Files) -> dict[str, dict[str, int]]:
    """The tokens and ids of each file that `ids` goes by."""
    found = {}
    if FAST in files:
        document = parse_json(files[FAST], FAST)
        found[FAST] = vocabulary(document) | added_tokens(document)
    elif SENTENCEPIECE in files:
        found[SENTENCEPIECE] = {piece.text: at for at, piece in enumerate(pieces.parse(files[SENTENCEPIECE]).pieces)}
    elif SLOW in files:
        found[SLOW] = numbers(parse_json(files[SLOW], SLOW), SLOW)
    if CONFIG in files:
        found[CONFIG] = decoder(parse_json(files[CONFIG], CONFIG))
    if ADDED in files:
        found[ADDED] = numbers(parse_json(files[ADDED], ADDED), ADDED)
    return found


def vocabulary(document: Any) -> dict[str, int]:
    """The vocabulary that the model of a tokenizer.json has, without the added tokens."""
    model = document.get("model") if isinstance(document, dict) else None
    listed = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(listed, list):
        # A unigram model lists its pieces, each with its score; the others map them to ids.
        if not all(isinstance(entry, list) and entry and isinstance(entry[0], str) for entry in listed):
            raise InputRefused(f"{FAST}: model.vocab must list pieces with their scores")
        _check_count(listed, FAST)
        return {entry[0]: number for number, entry in enumerate(listed)}
    return numbers(listed, FAST)


def added_tokens(document: Any) -> dict[str, int]:
    """The added tokens of a tokenizer.json."""
    listed = document.get("added_tokens", [])
    if not isinstance(listed, list) or not all(isinstance(token, dict) for token in listed):
        raise InputRefused(f"{FAST}: added_tokens must be a list of tokens")
    for token in listed:
        if not isinstance(token.get("content"), str):
            raise InputRefused(f"{FAST}: an added token must have a content, but has {token.get('content')!r:.60}")
    return numbers({token["content"]: token.get("id") for token in listed}, FAST)


def decoder(config: Any) -> dict[str, int]:
    """The tokens of a tokenizer_config.json's `added_tokens_decoder`, which maps an id, in digits, to a token."""
    listed = config.get(DECODER, {}) if isinstance(config, dict) else None
    if not isinstance(listed, dict):
        raise InputRefused(f"{CONFIG}: {DECODER} must be a mapping of ids to tokens")
    found = {}
    for number, token in listed.items():
        content = token.get("content") if isinstance(token, dict) else None
        if not (number.isascii() and number.isdecimal() and len(number) < 10) or not isinstance(content, str):
            raise InputRefused(f"{CONFIG}: {DECODER}.{number:.60} must be a token with an id and a content")
        found[content] = int(number)
    return found


def numbers(tokens: Any, name: str) -> dict[str, int]:
    """Tokens mapped to their ids, as the file `name` has them; raises InputRefused where it has something else."""
    if not isinstance(tokens, dict):
        raise InputRefused(f"{name}: must map tokens to their ids")
    _check_count(tokens, name)
    for token, number in tokens.items():
        if type(number) is not int or number < 0:
            raise InputRefused(f"{name}: the token {token!r:.60} must have an id, but has {number!r:.60}")
    return tokens


def _check_count(tokens: Sized, name: str) -> None:
    if len(tokens) > MAX_TOKENS:
        raise InputRefused(f"{name}: has {len(tokens):,} tokens; at most {MAX_TOKENS:,} are read")
