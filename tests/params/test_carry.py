"""Rows that name both places of a field, read from either side."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mmconvert.params.carry import FLAT, NESTED, Move, Place, Rest, Side, Table, place
from mmconvert.params.values import SWITCH
from mmconvert.remark import Remark

TABLE = Table(
    (
        Move(place("run.steps"), place("init.loop.max_steps")),
        Move(place("run.flag"), Place("init.calls.Flags", "a.b")),
        Move(place("run.check"), Place("init.calls", "Check"), SWITCH),
        Move(place("model.half"), place("init.half")),
        Move(place("model.half"), place("init.copy")),
        Rest("model", "init.model"),
        Rest("sparse", "init.sparse"),
    ),
    why={FLAT: "no place above", NESTED: "no place below"},
    reasons={"run.mode": "said elsewhere"},
    loose=frozenset({"sparse", "init.sparse"}),
    lists=("init.calls",),
)
PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"run": {"steps": 3}}, {"init": {"loop": {"max_steps": 3}}}),
    ({"run": {"steps": None}}, {"init": {"loop": {"max_steps": None}}}),
    ({"run": {"flag": 1}}, {"init": {"calls": {"Flags": {"a.b": 1}}}}),
    ({"run": {"check": True}}, {"init": {"calls": {"Check": {}}}}),
    ({"model": {"half": "x", "size": 1}}, {"init": {"half": "x", "copy": "x", "model": {"size": 1}}}),
    ({"model": {"a.b": {"c": []}}}, {"init": {"model": {"a.b": {"c": []}}}}),
    ({"sparse": [1, 2]}, {"init": {"sparse": [1, 2]}}),
    ({"sparse": {"a": 1}}, {"init": {"sparse": {"a": 1}}}),
]


@pytest.mark.parametrize(("flat", "nested"), PAIRS)
def test_the_same_rows_lead_there_and_back(flat: dict[str, Any], nested: dict[str, Any]) -> None:
    before = copy.deepcopy((flat, nested))
    assert TABLE.carry(flat, FLAT) == (nested, ())
    assert TABLE.carry(nested, NESTED) == (flat, ())
    assert (flat, nested) == before


@pytest.mark.parametrize(
    ("side", "document", "dropped"),
    [
        (FLAT, {"run": {"other": 1}}, Remark("run.other", "no place above")),
        (FLAT, {"run": {"mode": "train"}}, Remark("run.mode", "said elsewhere")),
        (FLAT, {"mine": {"a": 1}}, Remark("mine", "no place above")),
        (FLAT, {"run": {"check": "often"}}, Remark("run.check", "'often' cannot be said there")),
        (NESTED, {"init": {"other": {}}}, Remark("trainer.init.other", "no place below")),
        (NESTED, {"init": {"calls": {"Flags": {"a.c": 1}}}}, Remark("trainer.init.calls.Flags.a.c", "no place below")),
        (NESTED, {"init": {"calls": {"Flags": {}}}}, Remark("trainer.init.calls.Flags", "no place below")),
        (NESTED, {"init": {"calls": {"Flags": None}}}, Remark("trainer.init.calls.Flags", "no place below")),
    ],
)
def test_what_no_row_takes_is_named(side: Side, document: dict[str, Any], dropped: Remark) -> None:
    assert TABLE.carry(document, side) == ({}, (dropped,))


def test_where_two_rows_disagree_the_first_counts() -> None:
    carried, dropped = TABLE.carry({"init": {"half": "x", "copy": "y"}}, NESTED)
    assert carried == {"model": {"half": "x"}}
    assert dropped == (Remark("trainer.init.copy", "model.half has another value already"),)


def test_a_row_counts_more_than_the_rest_of_a_section() -> None:
    carried, dropped = TABLE.carry({"init": {"half": "x", "model": {"half": "y", "size": 1}}}, NESTED)
    assert carried == {"model": {"half": "x", "size": 1}}
    assert [remark.subject for remark in dropped] == ["trainer.init.model.half"]


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_section_that_holds_nothing_says_nothing(nothing: object) -> None:
    assert TABLE.carry({"run": nothing}, FLAT) == ({}, ())
    TABLE.check({"run": nothing}, FLAT)


@pytest.mark.parametrize(
    ("side", "document", "path"),
    [
        (FLAT, {"run": [1]}, "run is"),
        (FLAT, {"model": "x"}, "model is"),
        (NESTED, {"init": 3}, "trainer.init is"),
        (NESTED, {"init": {"loop": []}}, "trainer.init.loop is"),
    ],
)
def test_a_section_that_is_no_mapping_is_refused_by_its_path(side: Side, document: dict[str, Any], path: str) -> None:
    with pytest.raises(ValueError, match=path):
        TABLE.check(document, side)


def test_arguments_and_loose_sections_may_be_anything() -> None:
    TABLE.check({"sparse": [1]}, FLAT)
    TABLE.check({"init": {"calls": {"Flags": 3}}}, NESTED)


def test_a_field_of_a_loose_section_that_is_a_list_has_no_room() -> None:
    table = Table(
        (Rest("sparse", "init.sparse"), Move(place("sparse.loud"), place("init.loud"))), TABLE.why, loose=TABLE.loose
    )
    carried, dropped = table.carry({"init": {"sparse": [1], "loud": True}}, NESTED)
    assert carried == {"sparse": [1]}
    assert dropped == (Remark("trainer.init.loud", "sparse is no mapping"),)
