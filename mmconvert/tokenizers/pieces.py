"""What a sentencepiece model (tokenizer.model) says: its pieces in the order of their ids, and how it takes text.

Field numbers and defaults are those of sentencepiece_model.proto in https://github.com/google/sentencepiece.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from mmconvert.errors import InputRefused
from mmconvert.tokenizers.wire import fields


class Type(IntEnum):
    """What a piece is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """A token of the vocabulary; of two pieces that text can be merged into, the one of the higher score is."""

    text: str
    score: float
    type: Type


@dataclass(frozen=True)
class Model:
    """A sentencepiece model: a piece's id is its place among `pieces`."""

    pieces: tuple[Piece, ...]
    algorithm: str
    byte_fallback: bool
    normalizes: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    whitespace_as_suffix: bool


_ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_Message = dict[int, int | bytes]


def parse(data: bytes) -> Model:
    """The model in a tokenizer.model; raises InputRefused for what is none, or damaged."""
    try:
        return _model(data)
    except (ValueError, struct.error, TypeError) as error:
        # A field whose value is of another kind than the schema says is a TypeError.
        raise InputRefused(f"tokenizer.model: is no sentencepiece model, or damaged: {error}") from error


def _model(data: bytes) -> Model:
    pieces = []
    parts: dict[int, _Message] = {2: {}, 3: {}}
    for number, value in fields(data):
        if number == 1:
            pieces.append(_piece(value))
        elif number in parts:
            # A message that comes in several parts is all of them together.
            parts[number] |= _message(value)
    if not pieces:
        raise ValueError("it has no pieces")
    if len({piece.text for piece in pieces}) < len(pieces):
        raise ValueError("a piece stands there twice")
    trainer, normalizer = parts[2], parts[3]
    algorithm = trainer.get(3, 1)
    return Model(
        pieces=tuple(pieces),
        algorithm=_ALGORITHMS.get(algorithm, str(algorithm)) if isinstance(algorithm, int) else "unknown",
        byte_fallback=bool(trainer.get(35, 0)),
        normalizes=bool(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        whitespace_as_suffix=bool(trainer.get(24, 0)),
    )


def _piece(value: int | bytes) -> Piece:
    text, score, kind = b"", 0.0, int(Type.NORMAL)
    for number, content in _message(value).items():
        if number == 1:
            text = _bytes(content)
        elif number == 2:
            score = struct.unpack("<f", _bytes(content))[0]
        elif number == 3:
            kind = content if isinstance(content, int) else -1
    return Piece(text.decode(), score, Type(kind))


def _message(value: int | bytes) -> _Message:
    return dict(fields(_bytes(value)))


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number stands where bytes are expected")
    return value
