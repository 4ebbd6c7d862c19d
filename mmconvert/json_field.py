"""One field of a JSON object, set in its file as it stands: all other bytes stay, their order and white space too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True)
class _Member:
    """A field of an object: the white space in front of it, and where its value starts and ends."""

    name: str
    space: str
    start: int
    end: int


def set_field(data: bytes, name: str, value: Any) -> bytes:
    """`data`, which must be a JSON object, with `value` for its field `name`; a new field comes last."""
    text, said = data.decode(), json.dumps(value, ensure_ascii=False)
    members = list(_members(text))
    for member in members:
        if member.name == name:
            return f"{text[: member.start]}{said}{text[member.end :]}".encode()
    new = f"{json.dumps(name, ensure_ascii=False)}: {said}"
    if members:
        new, at = f",{members[-1].space}{new}", members[-1].end
    else:
        at = text.index("{") + 1
    return f"{text[:at]}{new}{text[at:]}".encode()


def _members(text: str) -> Iterator[_Member]:
    """The fields of the object in `text`, in their order."""
    decode = json.JSONDecoder().raw_decode
    at = text.index("{")
    while text[at] != "}":
        at += 1
        quote = _behind_space(text, at)
        if text[quote] == "}":
            return
        name, colon = decode(text, quote)
        start = _behind_space(text, _behind_space(text, colon) + 1)
        _, end = decode(text, start)
        yield _Member(name, text[at:quote], start, end)
        at = _behind_space(text, end)


def _behind_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()
