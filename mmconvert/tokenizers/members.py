"""A JSON object edited member by member: what is not touched keeps its bytes, and what is new is written alike.

Tokenizers' files come from many writers, and go back where they came from: a member that is set and then set back
should leave the file as it was, with its own indent, order of keys and last newline. It is also quick: the vocabulary
of a tokenizer.json, most of it, is not written anew.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mmconvert.documents import parse_json
from mmconvert.errors import InputRefused

_SPACE = re.compile(r"[ \t\r\n]*")


class Members:
    """The members of the JSON object in a file; raises InputRefused, by the name given, for what is none."""

    def __init__(self, data: bytes, name: str) -> None:
        self.values = parse_json(data, name)
        if not isinstance(self.values, dict):
            raise InputRefused(f"{name}: must be a mapping")
        self._data = data
        self._texts: dict[str, str] = {}
        self._changed = False
        self._split(data.decode())

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Set a member: where it stands, or among sorted keys in its place, or else last."""
        if key in self.values and self.values[key] == value:
            return
        self._changed = True
        keys = list(self.values)
        self.values[key] = value
        if key not in keys and keys == sorted(keys):
            self.values = dict(sorted(self.values.items()))
        self._texts[key] = self._write(value)

    def drop(self, key: str) -> None:
        """Take a member out, if it is there."""
        if key in self.values:
            del self.values[key], self._texts[key]
            self._changed = True

    def to_bytes(self) -> bytes:
        """The file, byte for byte as it was where nothing has changed."""
        if not self._changed:
            return self._data
        members = [f"{json.dumps(key, ensure_ascii=self._ascii)}{self._colon}{self._texts[key]}" for key in self.values]
        inside = self._open + self._comma.join(members) + self._close if members else ""
        return f"{{{inside}}}{self._end}".encode()

    def _split(self, text: str) -> None:
        """Take the text apart: the members' own, and what stands between them, of which the first is the pattern."""
        read = json.JSONDecoder().raw_decode
        start = _skip(text, 0) + 1
        at = _skip(text, start)
        self._open, self._close, self._colon, self._comma = "\n  ", "\n", ": ", ",\n  "
        if text[at] != "}":
            self._open = text[start:at]
            self._comma = "," + (self._open or " ")
        while text[at] != "}":
            key, after = read(text, at)
            at = _skip(text, _skip(text, after) + 1)
            _, value_end = read(text, at)
            if not self._texts:
                self._colon = text[after:at]
            self._texts[key] = text[at:value_end]
            at = _skip(text, value_end)
            if text[at] == ",":
                after, at = at, _skip(text, at + 1)
                if len(self._texts) == 1:
                    self._comma = text[after:at]
            else:
                self._close = text[value_end:at]
        self._end = text[at + 1 :]
        self._ascii = text.isascii() and "\\u" in text

    def _write(self, value: Any) -> str:
        if "\n" not in self._open:
            return json.dumps(value, ensure_ascii=self._ascii, separators=(self._comma, self._colon))
        indent = self._open[self._open.rindex("\n") + 1 :]
        written = json.dumps(value, ensure_ascii=self._ascii, indent=indent)
        return written.replace("\n", "\n" + indent)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()
