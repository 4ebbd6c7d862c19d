"""Tokens taken off a tokenizer's files: what `with_tokens` and transformers put there is gone, all else stays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mmconvert.documents import parse_json
from mmconvert.errors import InputRefused
from mmconvert.tokenizers import pieces
from mmconvert.tokenizers.members import Members
from mmconvert.tokenizers.tokens import content, is_of_tokens, renamed
from mmconvert.tokenizers.vocabulary import (
    ADDED,
    CONFIG,
    DECODER,
    FAST,
    SENTENCEPIECE,
    SLOW,
    SPECIAL,
    Files,
    ids,
    numbers,
    vocabulary,
)


def without_tokens(files: Files, first: int) -> dict[str, bytes]:
    """The files without the added tokens at ids from `first` on, and without the processor that a config names.

    A pad token that goes becomes the unknown token, or else eos; any other field that names a token that goes, goes
    with it, and so does an added_tokens.json that is left empty. Raises InputRefused where a file is damaged, or the
    vocabulary itself, of which nothing can be taken off, has an id from `first` on.
    """
    known = ids(files) or {}
    gone = {token for token, number in known.items() if number >= first}
    opened = {name: Members(files[name], name) for name in (FAST, CONFIG, SPECIAL, ADDED) if name in files}
    _check_vocabulary(files, opened.get(FAST), first)
    pad = _pad(opened, known.keys() - gone)
    if FAST in opened:
        _clean_fast(opened[FAST], gone, pad, known)
    if CONFIG in opened:
        opened[CONFIG].drop("processor_class")
        _set_or_drop(opened[CONFIG], DECODER, _kept(opened[CONFIG].get(DECODER), gone))
        _clean_fields(opened[CONFIG], gone, pad)
    if SPECIAL in opened:
        _clean_fields(opened[SPECIAL], gone, pad)
    if ADDED in opened:
        for token in gone:
            opened[ADDED].drop(token)
    new = {**files, **{name: document.to_bytes() for name, document in opened.items()}}
    if ADDED in opened and not opened[ADDED].values:
        del new[ADDED]
    return new


def _check_vocabulary(files: Files, fast: Members | None, first: int) -> None:
    vocabularies: dict[str, Mapping[str, int]] = {}
    if fast is not None:
        vocabularies[FAST] = vocabulary(fast.values)
    if SENTENCEPIECE in files:
        model = pieces.parse(files[SENTENCEPIECE])
        vocabularies[SENTENCEPIECE] = {piece.text: number for number, piece in enumerate(model.pieces)}
    if SLOW in files:
        vocabularies[SLOW] = numbers(parse_json(files[SLOW], SLOW), SLOW)
    for name, tokens in vocabularies.items():
        for token, number in tokens.items():
            if number >= first:
                raise InputRefused(
                    f"{name}: {token!r:.60}, of id {number}, is no added token, so it cannot be taken off to leave "
                    f"{first} ids; give a tokenizer of {first} ids"
                )


def _pad(opened: Mapping[str, Members], left: Collection[str]) -> str | None:
    """The token to pad with where the pad token is gone: the unknown one, or else eos."""

    def said(key: str) -> Iterator[str | None]:
        return (content(opened[name].get(key)) for name in (CONFIG, SPECIAL) if name in opened)

    model = opened[FAST].get("model") if FAST in opened else None
    unknown = content(model.get("unk_token")) if isinstance(model, dict) else None
    candidates = (*said("unk_token"), unknown, "<unk>", *said("eos_token"), "</s>")
    return next((token for token in candidates if token in left), None)


def _clean_fast(document: Members, gone: Collection[str], pad: str | None, known: Mapping[str, int]) -> None:
    listed = document.get("added_tokens", [])
    document.set("added_tokens", [token for token in listed if token["content"] not in gone])
    padding = document.get("padding")
    if isinstance(padding, dict) and content(padding.get("pad_token")) in gone:
        document.set("padding", {**padding, "pad_token": pad, "pad_id": known[pad]} if pad is not None else None)


def _clean_fields(document: Members, gone: Collection[str], pad: str | None) -> None:
    for key, value in list(document.values.items()):
        if not is_of_tokens(key):
            continue
        if content(value) not in gone:
            _set_or_drop(document, key, _kept(value, gone))
        elif key == "pad_token" and pad is not None:
            document.set(key, renamed(value, pad))
        else:
            document.drop(key)


def _kept(value: Any, gone: Collection[str]) -> Any:
    """Of a list or mapping of tokens, those that stay."""
    if isinstance(value, list):
        return [token for token in value if content(token) not in gone]
    if isinstance(value, dict):
        return {key: token for key, token in value.items() if content(token) not in gone}
    return value


def _set_or_drop(document: Members, key: str, value: Any) -> None:
    """Set what has become less, and drop what has become nothing."""
    if value != document.get(key) and not value:
        document.drop(key)
    elif value != document.get(key):
        document.set(key, value)
