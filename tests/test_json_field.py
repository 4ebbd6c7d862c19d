"""One field of a JSON file is set, and no other byte of it moves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmconvert.json_field import set_field

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
# Half of a surrogate pair is in no file that is read.
NAMES = st.text(st.characters(codec="utf-8"), max_size=4)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"tower": "old"}', b'{"tower": "new"}'),
        (
            b'{\n  "b": 1.50,\n  "tower" :\tnull ,\n  "a": [1,2]\n}\n\n',
            b'{\n  "b": 1.50,\n  "tower" :\t"new" ,\n  "a": [1,2]\n}\n\n',
        ),
        (b'\r\n{"x": {"tower": 1},\r\n"tower":{"tower": [2]}}', b'\r\n{"x": {"tower": 1},\r\n"tower":"new"}'),
        (b'{"\\u0074ower": "old", "\\u00e9": "\xc3\xa9"}', b'{"\\u0074ower": "new", "\\u00e9": "\xc3\xa9"}'),
        (b'{"brace}": "\\"tower\\": 1", "tower": 1}', b'{"brace}": "\\"tower\\": 1", "tower": "new"}'),
    ],
)
def test_a_value_is_replaced_where_it_stands(before: bytes, after: bytes) -> None:
    assert set_field(before, "tower", "new") == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"{}", b'{"tower": "new"}'),
        (b"{ }\n", b'{"tower": "new" }\n'),
        (b'{"a": 1}', b'{"a": 1,"tower": "new"}'),
        (b'{\n    "a": 1,\n    "b": 2\n}', b'{\n    "a": 1,\n    "b": 2,\n    "tower": "new"\n}'),
    ],
)
def test_a_field_that_was_not_there_comes_last_and_is_indented_like_the_one_before(before: bytes, after: bytes) -> None:
    assert set_field(before, "tower", "new") == after


def test_text_is_written_as_our_configs_have_it() -> None:
    assert (
        set_field(b'{"tower": 1}', "tower", '/d\u00e9p\u00f4t/"a"') == '{"tower": "/d\u00e9p\u00f4t/\\"a\\""}'.encode()
    )


@given(
    document=st.dictionaries(NAMES, VALUES, max_size=5),
    name=NAMES,
    value=NAMES,
    indent=st.sampled_from([None, 0, 2, "\t"]),
    plain=st.booleans(),
)
def test_whatever_else_an_object_holds_is_read_as_before(
    document: dict[str, Any], name: str, value: str, indent: int | str | None, plain: bool
) -> None:
    data = json.dumps(document, indent=indent, ensure_ascii=plain).encode("utf-8", "replace")
    document = json.loads(data)
    changed = set_field(data, name, value)
    assert list(json.loads(changed).items()) == list({**document, name: value}.items())
