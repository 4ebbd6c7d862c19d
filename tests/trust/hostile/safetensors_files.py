"""Safetensors files whose header is not what their bytes are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.trust.hostile.case import Case, Cases, Place

WHAT = "safetensors"
FILE = "model.safetensors"
# 48 numbers in bfloat16.
NORM = "model.norm.weight"
Header = dict[str, Any]


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def raw(make: Callable[[], bytes]) -> Callable[[Place], None]:
    """The whole file is these bytes."""

    def build(place: Place) -> None:
        (place.copy("llama") / FILE).write_bytes(make())

    return build


def edited(change: Callable[[Header], object], more: bytes = b"", drop: int = 0) -> Callable[[Place], None]:
    """A sound file with another header, `more` bytes behind it, or the last `drop` bytes gone."""

    def build(place: Place) -> None:
        file = place.copy("llama") / FILE
        whole = file.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + length])
        change(header)
        data = whole[8 + length :] + more
        file.write_bytes(framed(json.dumps(header).encode(), data[: len(data) - drop]))

    return build


def spelled(old: bytes, new: bytes) -> Callable[[Place], None]:
    """A sound file whose header has been edited as text, as no writer of JSON would."""

    def build(place: Place) -> None:
        file = place.copy("llama") / FILE
        whole = file.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = whole[8 : 8 + length].rstrip()
        assert old in header
        file.write_bytes(framed(header.replace(old, new, 1), whole[8 + length :]))

    return build


def entry(**changes: Any) -> Callable[[Header], None]:
    return lambda header: header[NORM].update(changes)


def moved(by: int) -> Callable[[Header], None]:
    """The final norm is said to lie `by` bytes away from where it is."""

    def change(header: Header) -> None:
        header[NORM]["data_offsets"] = [offset + by for offset in header[NORM]["data_offsets"]]

    return change


def renamed(key: str) -> Callable[[Header], None]:
    return lambda header: header.update({key: header.pop(NORM)})


def many(count: int, entry: bytes) -> bytes:
    return framed(b"{" + b",".join(b'"t%d":%s' % (at, entry) for at in range(count)) + b"}")


EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'

CASES: Cases = {
    "an empty file": Case(raw(lambda: b""), [FILE, "has 0 bytes"]),
    "a header of 2^63 bytes": Case(
        raw(lambda: framed(b"{}", length=1 << 63)), [FILE, "claims a header of", "truncated"]
    ),
    "a header past the file": Case(raw(lambda: framed(b"{}", length=3)), [FILE, "claims a header of 3 bytes"]),
    "a header over 100 MB": Case(
        raw(lambda: framed(b"{" + b" " * 100_000_000 + b"}")), [FILE, "a header of 100,000,002 bytes; at most"]
    ),
    "a header of white space": Case(raw(lambda: framed(b"{" + b" " * 50_000_000 + b"}")), ["is missing"]),
    "a header that is a list": Case(raw(lambda: framed(b"[]")), [FILE, "not a JSON object"]),
    "a header that is not UTF-8": Case(spelled(b'"BF16"', b'"B\xff16"'), [FILE, "header", "utf-8"]),
    "a header that is deep": Case(raw(lambda: framed(b'{"a":' * 100_000)), [FILE, "header", "deep"]),
    "a header of brackets": Case(raw(lambda: framed(b'{"a":[' + b"[]," * 10_000_000 + b"[]]}")), [FILE, "values"]),
    "a shape of ten million sizes": Case(
        raw(
            lambda: framed(
                b'{"a":{"dtype":"F32","shape":[' + b"1," * 10_000_000 + b'1],"data_offsets":[0,4]}}', b"0000"
            )
        ),
        [FILE],
    ),
    "a million empty tensors": Case(raw(lambda: many(1_000_000, EMPTY)), [FILE, "at most"]),
    "800,000 empty tensors": Case(raw(lambda: many(800_000, EMPTY)), [FILE, "lists more than 100,000 tensors"]),
    "as many empty tensors as are read": Case(raw(lambda: many(100_000, EMPTY)), [FILE, "t0: no tensor of this name"]),
    "metadata of a million entries": Case(
        raw(lambda: framed(b'{"__metadata__":{' + b",".join(b'"%d":""' % at for at in range(1_000_000)) + b"}}")),
        [FILE, "keys, the most that are read"],
    ),
    "metadata of as many entries as are read": Case(
        raw(lambda: framed(b'{"__metadata__":{' + b",".join(b'"%d":""' % at for at in range(399_000)) + b"}}")),
        ["is missing"],
    ),
    "a tensor that overlaps": Case(edited(moved(-2)), [FILE, "overlaps"]),
    "a hole between tensors": Case(edited(moved(2), more=b"00"), [FILE, "follows a hole of"]),
    "trailing bytes": Case(edited(lambda header: None, more=b"PK\3\4"), [FILE, "bytes that belong to no tensor"]),
    "a short buffer": Case(edited(lambda header: None, drop=1), [FILE, "truncated"]),
    "a shape that is not the span": Case(edited(entry(shape=[47])), [FILE, NORM, "[47]"]),
    "a shape whose product overflows": Case(
        edited(entry(shape=[1 << 40, 1 << 40])), [FILE, NORM, "larger than any tensor"]
    ),
    "a shape that overflows to the span": Case(
        edited(entry(shape=[(1 << 63) + 24, 2])), [FILE, NORM, "larger than any tensor"]
    ),
    "a shape of 2^80 that is empty": Case(edited(entry(shape=[0, 1 << 80])), [FILE, NORM, "larger than any tensor"]),
    "a shape of 1,000 axes": Case(edited(entry(shape=[1] * 1000)), [FILE, NORM, "at most 64"]),
    "negative offsets": Case(edited(moved(-(1 << 40))), [FILE, NORM, "data_offsets"]),
    "falling offsets": Case(edited(entry(data_offsets=[96, 0])), [FILE, NORM, "data_offsets"]),
    "offsets with a fraction": Case(edited(entry(data_offsets=[0.0, 96.0])), [FILE, NORM, "data_offsets"]),
    "a dtype that nobody knows": Case(edited(entry(dtype="F128")), [FILE, NORM, "'F128'", "BF16"]),
    "a dtype of a megabyte": Case(edited(entry(dtype="F" * 1_000_000)), [FILE, NORM, "BF16"]),
    "an entry with more in it": Case(edited(entry(path="/etc/passwd")), [FILE, NORM, "nothing else"]),
    "a tensor given twice": Case(
        spelled(b'{"', b'{"%s":%s,"' % (NORM.encode(), EMPTY)), [FILE, NORM, "is given twice"]
    ),
    "metadata given twice": Case(
        spelled(b'{"format":"pt"}', b'{"format":"pt","format":"pt"}'), [FILE, "'format' is given twice"]
    ),
    "metadata that is no text": Case(spelled(b'"pt"', b'{"code":"x"}'), [FILE, "__metadata__"]),
    "a name that leads up": Case(edited(renamed("../../etc/passwd")), [FILE, "../../etc/passwd"]),
    "a name with a slash": Case(edited(renamed("model/norm")), [FILE, "model/norm"]),
    "a name with a NUL": Case(edited(renamed("model.norm\0.weight")), [FILE, "\\x00"]),
    "a name that clears the terminal": Case(edited(renamed("\x1b[2Jmodel")), [FILE, "\\x1b"]),
    "an empty name": Case(edited(renamed("")), [FILE, "''"]),
    "a name of a megabyte": Case(edited(renamed("n" * 1_000_000)), [FILE, "cannot be the name of a tensor"]),
    "a tensor called as metadata": Case(edited(renamed("__metadata__")), [FILE, "__metadata__"]),
    "a NaN in the header": Case(spelled(b'"pt"', b"NaN"), [FILE, "NaN"]),
}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "a header of 2^63 bytes",
    "a header that is deep",
    "a header of brackets",
    "a header that is not UTF-8",
    "800,000 empty tensors",
    "a tensor that overlaps",
    "a hole between tensors",
    "trailing bytes",
    "a short buffer",
    "a shape that is not the span",
    "a shape whose product overflows",
    "negative offsets",
    "a tensor given twice",
    "metadata given twice",
    "a name that leads up",
    "a name with a NUL",
    "a tensor called as metadata",
)
