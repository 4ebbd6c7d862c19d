"""The merges of a BPE vocabulary, best first, as a fast tokenizer wants them listed.

A sentencepiece model holds none: it merges whichever two neighbours give the piece of the highest score. A list of all
pairs that give a piece, in the order of the pieces' scores, says the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmconvert.tokenizers.pieces import Piece, Type

# Text is merged into these only: control pieces, the unknown one and single bytes never come from a merge.
_OF_TEXT = (Type.NORMAL, Type.USER_DEFINED, Type.UNUSED)


def merges(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Every pair of pieces that together are a piece, those of better pieces first.

    Of the pairs that give the same piece, the one with the shorter left part comes first.
    """
    parts = {piece.text for piece in pieces if piece.type in _OF_TEXT}
    best_first = sorted((piece for piece in pieces if piece.type in _OF_TEXT), key=lambda piece: -piece.score)
    found = []
    for piece in best_first:
        text = piece.text
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in parts and right in parts:
                found.append((left, right))
    return found
