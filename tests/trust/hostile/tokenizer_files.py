"""Tokenizers that are hostile on their way to llava-hf, where they are read and rewritten."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.trust.hostile.case import Case, Cases, Place

WHAT = "tokenizer"
TO_LLAVA_HF = "llava-to-hf --src {source} --out {out}"
FAST, SLOW, SETTINGS = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"


def holding(name: str, make: Callable[[], bytes]) -> Callable[[Place], None]:
    """A LLaVA whose tokenizer has a file `name` of these bytes."""

    def build(place: Place) -> None:
        (place.copy("llava") / "text_model_llava" / name).write_bytes(make())

    return build


def a_pipe(place: Place) -> None:
    os.mkfifo(place.copy("llava") / "text_model_llava" / FAST)


def a_link(place: Place) -> None:
    (place.copy("llava") / "text_model_llava" / FAST).symlink_to("../../foreign/secret")


def field(number: int, data: bytes) -> bytes:
    """A field of a protobuf message, up to 2^28 bytes long."""
    length = len(data)
    varint = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
    return bytes([number << 3 | 2]) + varint + data


def vocabulary(count: int) -> bytes:
    tokens = ",".join(f'"t{at}":{at}' for at in range(count))
    return b'{"model":{"type":"BPE","vocab":{' + tokens.encode() + b'},"merges":[]},"added_tokens":[]}'


def pieces(count: int) -> bytes:
    """A vocabulary of the kind that lists pieces with their scores."""
    return b'{"model":{"vocab":[' + b",".join(b'["t%d",0]' % at for at in range(count)) + b'],"merges":[]}}'


CASES: Cases = {
    name: Case(build, words, TO_LLAVA_HF)
    for name, (build, words) in {
        "deep JSON": (holding(FAST, lambda: b'{"model":' * 100_000), [FAST, "deeper than"]),
        "60 MB of brackets": (holding(FAST, lambda: b'{"model":[' + b"[]," * 20_000_000 + b"[]]}"), [FAST, "at most"]),
        "40 MB of a text": (holding(FAST, lambda: b'{"model":"' + b"x" * 40_000_000 + b'"}'), [FAST]),
        "a vocabulary of 900,000": (holding(FAST, lambda: vocabulary(900_000)), [FAST, "keys, the most that are read"]),
        "a vocabulary of as many tokens as are read": (holding(FAST, lambda: vocabulary(299_000)), [FAST]),
        "eight megabytes of brackets": (
            holding(FAST, lambda: b'{"model":[' + b"[]," * 2_700_000 + b"[]]}"),
            [FAST, "values"],
        ),
        "as many values as are read": (holding(FAST, lambda: b'{"model":[' + b"1," * 1_990_000 + b"1]}"), [FAST]),
        "a vocabulary of 600,000 pieces": (holding(FAST, lambda: pieces(600_000)), [FAST, "600,000 tokens", "at most"]),
        "a vocabulary that is a text": (holding(FAST, lambda: b'{"model":{"vocab":"all"}}'), [FAST, "tokens"]),
        "ids that are texts": (holding(FAST, lambda: b'{"model":{"vocab":{"a":"1"}}}'), [FAST, "must have an id"]),
        "ids below zero": (holding(FAST, lambda: b'{"model":{"vocab":{"a":-1}}}'), [FAST, "must have an id"]),
        "ids of 2^63": (holding(FAST, lambda: b'{"model":{"vocab":{"a":9223372036854775808}}}'), [FAST]),
        "an added token that is none": (
            holding(FAST, lambda: b'{"model":{"vocab":{"a":1}},"added_tokens":[1]}'),
            [FAST, "added_tokens"],
        ),
        "a tokenizer.json that is a list": (holding(FAST, lambda: b"[]"), [FAST]),
        "a tokenizer.json that links out": (a_link, [FAST, "links out of its folder"]),
        "a sentencepiece model of garbage": (holding(SLOW, lambda: b"\xff" * 1000), [SLOW]),
        "a sentencepiece model of nothing": (holding(SLOW, lambda: b""), [SLOW]),
        "a sentencepiece model of a number without end": (holding(SLOW, lambda: b"\x80" * 10_000_000), [SLOW]),
        "a sentencepiece model of empty pieces": (holding(SLOW, lambda: b"\x0a\x00" * 2_000_000), [SLOW]),
        "a sentencepiece model of fields that nobody knows": (holding(SLOW, lambda: b"\x78\x00" * 4_000_000), [SLOW]),
        "a sentencepiece model that claims more": (holding(SLOW, lambda: b"\x0a\xff\xff\xff\x7f"), [SLOW]),
        "a sentencepiece model of one piece of 20 MB": (
            holding(SLOW, lambda: field(1, field(1, b"a" * 20_000_000))),
            [SLOW],
        ),
        "settings that are deep": (holding(SETTINGS, lambda: b"[" * 1_000_000), [SETTINGS, "deeper than"]),
        "settings that are a list": (holding(SETTINGS, lambda: b"[]"), [SETTINGS]),
        "settings whose ids are texts": (
            holding(SETTINGS, lambda: b'{"added_tokens_decoder":{"x":{"content":"a"}}}'),
            [SETTINGS],
        ),
        "added tokens that are a list": (holding("added_tokens.json", lambda: b"[1]"), ["added_tokens.json"]),
    }.items()
} | {"a tokenizer.json that is a pipe": Case(a_pipe, ["tensors"], TO_LLAVA_HF, code=0)}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "deep JSON",
    "eight megabytes of brackets",
    "a sentencepiece model of garbage",
    "a sentencepiece model of empty pieces",
    "a tokenizer.json that links out",
    "a tokenizer.json that is a pipe",
)
