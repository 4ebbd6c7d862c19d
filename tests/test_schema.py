"""Config schemas: what a class leaves out is its default, at every depth."""

from __future__ import annotations

import copy

import pytest

from mmconvert.schema import Schema, load

SCHEMA = Schema(
    "toy",
    {
        "type": "object",
        "properties": {
            "size": {"type": "integer", "minimum": 1, "default": 8},
            "old": {"deprecated": True, "default": 1},
            "free": {},
            "parts": {"type": "array", "default": [], "items": {"$ref": "#/$defs/part"}},
        },
        "$defs": {
            "part": {
                "type": "object",
                "properties": {"kind": {"enum": ["a", "b"], "default": "a"}, "name": {"type": "string"}},
            },
        },
    },
)


def test_defaults_are_filled_in_at_every_depth() -> None:
    assert SCHEMA.complete({}) == {"size": 8, "parts": []}
    assert SCHEMA.complete({"parts": [{}, {"kind": "b", "x": 1}]}) == {
        "size": 8,
        "parts": [{"kind": "a"}, {"kind": "b", "x": 1}],
    }


def test_null_is_not_absent() -> None:
    assert SCHEMA.complete({"free": None})["free"] is None


def test_neither_config_nor_schema_is_changed() -> None:
    config: dict[str, list[object]] = {"parts": [{}]}
    before = copy.deepcopy((config, SCHEMA.document))
    filled = SCHEMA.complete(config)
    SCHEMA.complete({})["parts"].append("mine")
    filled["parts"][0]["kind"] = "b"
    assert (config, SCHEMA.document) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"size": 0}, "^size: 0 is less than"),
        ({"size": 2.0}, "^size: 2.0 is not of type 'integer'"),
        ({"size": True}, "^size: True is not of type 'integer'"),
        ({"parts": [{}, {"kind": "c"}]}, r"^parts\.1\.kind: 'c' is not one of"),
        ([], "is not of type 'object'"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(config: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCHEMA.complete(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"x\n" * 99: 1}, r"^(x\\n){20}: no such field$"),
        ({"size": "x\n" * 99}, r"^size: '(x\\n){19}x\\ is not of type 'integer'$"),
        ({"parts": [{"kind": "x" * 999}]}, r"^parts\.0\.kind: 'x{59} is not one of \['a', 'b'\]$"),
    ],
)
def test_what_is_told_of_a_config_is_short_and_in_one_line(config: object, message: str) -> None:
    schema = Schema(SCHEMA.name, {**SCHEMA.document, "additionalProperties": False})
    with pytest.raises(ValueError, match=message):
        schema.complete(config)


def test_a_path_in_front_is_part_of_the_name() -> None:
    with pytest.raises(ValueError, match=r"^text_model\.size: "):
        SCHEMA.complete({"size": "x"}, "text_model")


def test_fields_are_looked_up_through_lists_and_references() -> None:
    assert SCHEMA.default("parts.3.kind") == "a"
    assert SCHEMA.default("free") is None
    assert SCHEMA.default("absent.deeper") is None
    assert SCHEMA.is_deprecated("old")
    assert not SCHEMA.is_deprecated("parts.0.name")


def test_of_several_schemas_the_later_one_wins() -> None:
    first, second = load("llava"), load("hf-mistral")
    both = load("llava", "hf-mistral")
    assert first.default("sliding_window") != second.default("sliding_window") == both.default("sliding_window") == 4096
    assert first.default("mm_use_im_patch_token") == both.default("mm_use_im_patch_token")


def test_deprecated_fields_are_taken_out_at_every_depth() -> None:
    part = {"properties": {"old": {"deprecated": True}, "size": {}}}
    properties = {"parts": {"items": {"$ref": "#/$defs/part"}}, "gone": {"deprecated": True}}
    schema = Schema("s", {"properties": properties, "$defs": {"part": part}})
    config = {"gone": 1, "parts": [{"old": 2, "size": 3}, {"size": 4}], "free": {"old": 5}}
    kept, paths = schema.without_deprecated(config)
    assert kept == {"parts": [{"size": 3}, {"size": 4}], "free": {"old": 5}}
    assert paths == ["gone", "parts.0.old"]
    assert config["gone"] == 1
