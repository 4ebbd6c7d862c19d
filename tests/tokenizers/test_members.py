"""JSON objects are edited member by member, and what is not touched keeps its bytes."""

from __future__ import annotations

import json

import pytest

from mmconvert.errors import InputRefused
from mmconvert.tokenizers.members import Members

LAYOUTS = [
    '{\n  "a": 1,\n  "c": {\n    "d": 2\n  }\n}\n',
    '{\n    "a": 1,\n    "c": {\n        "d": 2\n    }\n}',
    '{\n\t"a": 1,\n\t"c": {\n\t\t"d": 2\n\t}\n}',
    '{"a": 1, "c": {"d": 2}}',
    '{"a":1,"c":{"d":2}}\n',
]


@pytest.mark.parametrize("text", [*LAYOUTS, "{}", ' { "a" : 1e-5 } ', '{"a": 1 ,\n"b":2}'])
def test_what_is_not_changed_keeps_its_bytes(text: str) -> None:
    document = Members(text.encode(), "x.json")
    document.set("a", document.get("a")) if "a" in document.values else document.drop("a")
    assert document.to_bytes() == text.encode()


@pytest.mark.parametrize("text", LAYOUTS)
def test_a_member_that_is_set_and_dropped_again_leaves_no_trace(text: str) -> None:
    document = Members(text.encode(), "x.json")
    document.set("b", ["▁", {"e": None}])
    set_once = Members(document.to_bytes(), "x.json")
    assert set_once.values == {"a": 1, "b": ["▁", {"e": None}], "c": {"d": 2}}
    set_once.drop("b")
    assert set_once.to_bytes() == text.encode()


@pytest.mark.parametrize("text", LAYOUTS)
def test_a_member_is_written_as_its_neighbours_are(text: str) -> None:
    document = Members(text.encode(), "x.json")
    document.set("c", {"d": 3})
    document.set("c", {"d": 2})
    assert document.to_bytes() == text.encode()


def test_a_new_member_comes_in_its_place_among_sorted_ones_and_else_last() -> None:
    for text, keys in (('{"a": 1, "c": 2}', "abc"), ('{"c": 1, "a": 2}', "cab")):
        document = Members(text.encode(), "x.json")
        document.set("b", 3)
        assert list(json.loads(document.to_bytes())) == list(keys)


def test_an_empty_object_takes_members_and_loses_them() -> None:
    document = Members(b"{}\n", "x.json")
    document.set("a", 1)
    assert document.to_bytes() == b'{\n  "a": 1\n}\n'
    document.drop("a")
    assert document.to_bytes() == b"{}\n"


def test_escapes_are_kept_where_the_file_has_them() -> None:
    document = Members(b'{"a": "\\u2581"}', "x.json")
    document.set("b", "▁")
    assert document.to_bytes() == b'{"a": "\\u2581", "b": "\\u2581"}'


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"a": 1', b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}"])
def test_what_is_no_json_object_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InputRefused, match=r"x\.json"):
        Members(data, "x.json")
