"""What a release may do to a field, and how it is undone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mmconvert.params.renaming import Row, apply, each, gone, join, rename, respell
from mmconvert.params.values import choices
from mmconvert.remark import Remark


def test_a_rename_goes_both_ways() -> None:
    row = rename("run.old", "run.new", choices((True, "yes")))
    older, newer = {"run": {"old": True, "x": 1}}, {"run": {"new": "yes", "x": 1}}
    before = copy.deepcopy((older, newer))
    assert row.up(older) == (newer, ())
    assert row.down(newer) == (older, ())
    assert (older, newer) == before


def test_a_value_that_cannot_be_said_is_named() -> None:
    row = rename("run.old", "run.new", choices((True, "yes")))
    assert row.up({"run": {"old": 7}}) == ({"run": {}}, (Remark("run.old", "7 cannot be said as run.new"),))
    assert row.down({"run": {"new": 7}}) == ({"run": {}}, (Remark("run.new", "7 cannot be said as run.old"),))


def test_what_stands_there_already_counts() -> None:
    row = rename("old", "new")
    assert row.up({"old": 1, "new": 2}) == ({"new": 2}, (Remark("old", "new is there too, and counts"),))
    assert row.up({"old": 2, "new": 2}) == ({"new": 2}, ())


def test_a_section_that_is_null_can_be_moved_into() -> None:
    assert rename("a.x", "b.x").up({"a": {"x": 1}, "b": None}) == ({"a": {}, "b": {"x": 1}}, ())
    assert rename("a.x", "b.x").up({"a": {"x": 1}}) == ({"a": {}, "b": {"x": 1}}, ())


def test_a_respelling_only_goes_up() -> None:
    assert respell("old", "new").up({"old": 1}) == ({"new": 1}, ())
    assert respell("old", "new").down({"new": 1}) == ({"new": 1}, ())


def test_fields_join_together_or_stay() -> None:
    row = join("a.x", "a.y", into="a.both")
    assert row.up({"a": {"x": 1, "y": 2}}) == ({"a": {"both": [1, 2]}}, ())
    assert row.up({"a": {"x": 1}}) == ({"a": {"x": 1}}, ())
    assert row.down({"a": {"both": [1, 2]}}) == ({"a": {"both": [1, 2]}}, ())


def test_fields_that_cannot_join_are_named() -> None:
    changed, remarks = join("x", "y", into="both").up({"x": 1, "y": 2, "both": [3, 4]})
    assert changed == {"both": [3, 4]}
    assert [remark.subject for remark in remarks] == ["x", "y"]


def test_what_is_gone_is_named_and_does_not_come_back() -> None:
    row = gone("a.x", "b", "c", why="unread")
    assert row.up({"a": {"x": 1}, "b": {}}) == ({"a": {}}, (Remark("a.x", "unread"), Remark("b", "unread")))
    assert row.down({"a": {}}) == ({"a": {}}, ())


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"all": {"old": 1}}, {"all": {"new": 1}}),
        ({"all": [{"old": 1}, {"old": 2}]}, {"all": [{"new": 1}, {"new": 2}]}),
        ({"all": [{"old": 1, "not": True}, 3]}, {"all": [{"old": 1, "not": True}, 3]}),
        ({"all": 3}, {"all": 3}),
        ({}, {}),
    ],
)
def test_rows_apply_to_each_entry_that_meets_the_condition(older: Any, newer: Any) -> None:
    row = each("all", rename("old", "new"), when=lambda entry: "not" not in entry)
    assert row.up(older) == (newer, ())
    assert row.down(newer) == (older, ())


def test_the_rows_of_an_entry_are_undone_from_the_last_to_the_first() -> None:
    row = each("all", rename("a", "b"), rename("c", "a"))
    assert row.up({"all": {"a": 1, "c": 2}}) == ({"all": {"b": 1, "a": 2}}, ())
    assert row.down({"all": {"b": 1, "a": 2}}) == ({"all": {"a": 1, "c": 2}}, ())


def test_a_remark_of_an_entry_names_the_whole_path() -> None:
    row = each("all", gone("x", why="unread"))
    assert row.up({"all": [{}, {"x": 1}]})[1] == (Remark("all.1.x", "unread"),)
    assert row.up({"all": {"x": 1}})[1] == (Remark("all.x", "unread"),)


def test_steps_follow_each_other_and_their_remarks_add_up() -> None:
    rows: list[Row] = [rename("a", "b"), gone("b", why="unread"), gone("c", why="unread")]
    assert apply([row.up for row in rows], {"a": 1, "c": 2}) == ({}, (Remark("b", "unread"), Remark("c", "unread")))
