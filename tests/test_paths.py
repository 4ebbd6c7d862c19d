"""Dotted paths: to a value or nowhere, without touching what they lead through."""

from __future__ import annotations

import copy

import pytest

from mmconvert.paths import ABSENT, differing, fields, get, leaves, put, without

CONFIG = {"text": {"size": 1}, "images": [{"name": "x"}, {}], "null": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", CONFIG),
        ("text.size", 1),
        ("images.0.name", "x"),
        ("null", None),
        ("absent", ABSENT),
        ("text.size.deeper", ABSENT),
        ("images.2", ABSENT),
        ("images.name", ABSENT),
    ],
)
def test_a_path_leads_to_a_value_or_nowhere(path: str, value: object) -> None:
    assert get(CONFIG, path) == value


def test_put_copies_and_makes_what_is_missing_on_the_way() -> None:
    before = copy.deepcopy(CONFIG)
    assert put(CONFIG, "text.size", 2)["text"] == {"size": 2}
    assert put(CONFIG, "images.1.name", "y")["images"] == [{"name": "x"}, {"name": "y"}]
    assert put({}, "images.0.encoder.size", 3) == {"images": [{"encoder": {"size": 3}}]}
    assert before == CONFIG


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("text.size", {**CONFIG, "text": {}}),
        ("null", {"text": CONFIG["text"], "images": CONFIG["images"]}),
        ("images.0", {**CONFIG, "images": [{}]}),
        ("images.0.name", {**CONFIG, "images": [{}, {}]}),
        ("absent", CONFIG),
        ("text.size.deeper", CONFIG),
    ],
)
def test_without_copies_all_but_one_value(path: str, left: object) -> None:
    before = copy.deepcopy(CONFIG)
    assert without(CONFIG, path) == left
    assert before == CONFIG


def test_fields_are_taken_whole_unless_a_known_one_lies_inside() -> None:
    assert dict(fields(CONFIG, ())) == CONFIG
    assert dict(fields(CONFIG, {"images.0.name"})) == {
        "text": CONFIG["text"],
        "images.0.name": "x",
        "images.1": {},
        "null": None,
    }


@pytest.mark.parametrize("config", [{"": 1}, {"text.size": 1}, {"text": {"": 1, "size": 2}}, {"text": {"a.b": 1}}])
def test_a_field_whose_path_would_lead_elsewhere_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="has a field"):
        dict(fields(config, {"text.size"}))


def test_what_stands_in_a_value_that_is_taken_whole_may_have_any_name() -> None:
    assert dict(fields({"text": {"": 1, "a.b": 1}}, {"images.0.name"})) == {"text": {"": 1, "a.b": 1}}


def test_leaves_are_what_holds_no_others() -> None:
    assert list(leaves(CONFIG)) == [("text.size", 1), ("images.0.name", "x"), ("images.1", {}), ("null", None)]
    assert list(leaves({})) == [("", {})]


def test_leaves_that_differ_are_named_with_both_values() -> None:
    other = {"text": {"size": 1.0, "more": 2}, "images": [{"name": "y"}, {}], "null": None}
    assert dict(differing(CONFIG, other)) == {"text.more": (ABSENT, 2), "images.0.name": ("x", "y")}
    assert dict(differing({"flag": True}, {"flag": 1})) == {"flag": (True, 1)}
