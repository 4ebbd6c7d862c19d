"""A sentencepiece model is read as its own library reads it, and a damaged one is refused."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import sentencepiece

from mmconvert.errors import InputRefused
from mmconvert.tokenizers.pieces import Type, parse
from tests.mmsimple.data.small_tokenizers import sentencepiece_model


def test_pieces_have_their_scores_and_types() -> None:
    theirs = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    model = parse(sentencepiece_model())
    assert len(model.pieces) == theirs.get_piece_size()
    for number, piece in enumerate(model.pieces):
        assert (piece.text, piece.score) == (theirs.id_to_piece(number), theirs.get_score(number))
        assert (piece.type == Type.UNKNOWN) == theirs.is_unknown(number)
        assert (piece.type == Type.CONTROL) == theirs.is_control(number)
        assert (piece.type == Type.BYTE) == theirs.is_byte(number)


def test_how_it_takes_text_is_read(tokenizer: bytes) -> None:
    like_llama, normalizing = parse(sentencepiece_model()), parse(tokenizer)
    assert (like_llama.algorithm, like_llama.byte_fallback, like_llama.add_dummy_prefix) == ("bpe", True, True)
    assert not like_llama.normalizes
    assert not like_llama.remove_extra_whitespaces
    assert normalizing.normalizes
    assert normalizing.remove_extra_whitespaces
    assert not normalizing.byte_fallback


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\xff\xff",
        b"\x0a" + b"\xff" * 20,
        b"\x08\x01",
        b"\x0a\x02\x08\x01",
        b"\x0a\x03\x0a\x01\xff",
        b"\x0a\x05\x0a\x01a\x18\x09",
        b"\x0a\x03\x0a\x01a" * 2,
        b"\x0a\x03\x0a\x01a\x10\x01",
        b"\x0b",
    ],
)
def test_a_damaged_model_is_refused(data: bytes) -> None:
    with pytest.raises(InputRefused, match=r"tokenizer\.model"):
        parse(data)


def test_no_byte_that_is_changed_or_missing_does_more_than_refuse() -> None:
    model, draw = sentencepiece_model(), random.Random(0)
    for _ in range(500):
        data = bytearray(model[: draw.randrange(len(model))] if draw.random() < 0.5 else model)
        for _ in range(draw.randint(1, 4)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        with suppress(InputRefused):
            parse(bytes(data))
