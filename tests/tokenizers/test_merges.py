"""Merges are listed best first, of the pieces that text can become."""

from __future__ import annotations

from mmconvert.tokenizers.merges import merges
from mmconvert.tokenizers.pieces import Piece, Type


def pieces(**scores: float) -> list[Piece]:
    return [Piece(text, score, Type.NORMAL) for text, score in scores.items()]


def test_better_pieces_come_first_and_of_equal_ones_that_of_the_lower_id() -> None:
    found = merges(pieces(bc=-2.0, ab=-1.0, cd=-1.0, a=-9.0, b=-9.0, c=-9.0, d=-9.0))
    assert found == [("a", "b"), ("c", "d"), ("b", "c")]


def test_every_pair_that_gives_a_piece_is_listed_the_shorter_left_part_first() -> None:
    found = merges(pieces(abc=-2.0, bc=-1.0, ab=-0.0, a=-9.0, b=-9.0, c=-9.0))
    assert found == [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]


def test_control_pieces_and_bytes_are_not_made_of_others() -> None:
    parts = pieces(**dict.fromkeys(("<", "s>", "<0x0", "A>"), 0.0))
    whole = [Piece("<s>", 0.0, Type.CONTROL), Piece("<0x0A>", 0.0, Type.BYTE)]
    assert merges([*parts, *whole]) == []
