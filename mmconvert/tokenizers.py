"""How many ids a tokenizer has, read from its files without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmconvert.documents import read_json
from mmconvert.errors import MMConvertError

# In a sentencepiece model (a protobuf) every piece is one field of number 1 and wire type 2 (length-delimited).
_PIECE = (1 << 3) | 2


def length(files: Mapping[str, Path]) -> int | None:
    """The number of ids, added tokens included, of a tokenizer given by its files' names; None if they do not say.

    A loader resizes the embedding to this number without a word, so it should be the number of the embedding's rows.
    """
    try:
        ids: set[int] = set()
        if "tokenizer.json" in files:
            document = read_json(files["tokenizer.json"])
            vocabulary = document["model"]["vocab"]
            # A unigram model lists its pieces; the others map them to ids.
            ids.update(vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary)))
            ids.update(token["id"] for token in document.get("added_tokens", ()))
        elif "tokenizer.model" in files:
            ids.update(range(_pieces(files["tokenizer.model"].read_bytes())))
        else:
            return None
        if "added_tokens.json" in files:
            ids.update(read_json(files["added_tokens.json"]).values())
        return len(ids)
    except (MMConvertError, OSError, KeyError, TypeError, AttributeError, IndexError, ValueError):
        # What is wrong with it is for whoever loads it to say.
        return None


def _pieces(data: bytes) -> int:
    """Count the pieces of a sentencepiece model; its first field, repeated, is the piece."""
    count = at = 0
    while at < len(data) and data[at] == _PIECE:
        size, at = _varint(data, at + 1)
        at += size
        count += 1
    if count == 0:
        raise ValueError("no sentencepiece model")
    return count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | data[at] << shift, at + 1
