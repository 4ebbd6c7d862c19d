"""Config rules, applied both ways: what comes out, what is carried, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from mmconvert.configs import ConfigTable, Space, Unchanged
from mmconvert.errors import InputRefused
from mmconvert.paths import ABSENT
from mmconvert.remark import Remark
from mmconvert.rules import ANYTHING, ConfigRow, Fallback, at, const, derived, group, ignored, limited, renamed, same
from mmconvert.schema import Schema
from mmconvert.spec import A, B


def table(*rows: ConfigRow, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None) -> ConfigTable:
    """A config table whose sides have these properties."""

    def space(properties: dict[str, Any] | None) -> Space:
        return Space(lambda config: {"": Schema("toy", {"type": "object", "properties": properties or {}})})

    return ConfigTable(tuple(rows), space(a), space(b))


def test_choices_that_could_not_be_told_apart_are_no_rule() -> None:
    with pytest.raises(ValueError, match="two of swish, silu become the same nonlinearity"):
        renamed("act", "nonlinearity", {"swish": "silu", "silu": "silu"})


# --- there and back -------------------------------------------------------------------------------------------------


def test_fields_change_their_names_and_choices_their_spelling() -> None:
    rules = table(*same("size"), renamed("heads", "num_heads"), renamed("act", "nonlinearity", {"silu": "swiglu"}))
    a, b = {"size": 1, "heads": 2, "act": "silu"}, {"size": 1, "num_heads": 2, "nonlinearity": "swiglu"}
    assert rules.translate(A, a).target == b
    assert rules.translate(B, b).target == a


def test_the_config_is_not_modified() -> None:
    config = {"text": {"size": 1}, "list": [1]}
    before = copy.deepcopy(config)
    table(*same("text.size", "list"), a={"new": {"default": 1}}).translate(A, config)
    assert config == before


def test_an_absent_field_means_its_class_default() -> None:
    rules = table(*same("size"), a={"size": {"default": 7}})
    assert rules.translate(A, {}).target == {"size": 7}


def test_an_unknown_choice_is_refused_with_the_known_ones() -> None:
    rules = table(renamed("act", "nonlinearity", {"silu": "swiglu", "gelu": "geglu"}))
    with pytest.raises(InputRefused, match=r"act is 'tanh'.*known: silu, gelu"):
        rules.translate(A, {"act": "tanh"})


def test_a_constant_is_written_one_way_and_demanded_the_other() -> None:
    rules = table(const(B, "norm", "rms", also=["RMS"]))
    assert rules.translate(A, {}).target == {"norm": "rms"}
    for good in ("rms", "RMS"):
        assert rules.translate(B, {"norm": good}).target == {}
    with pytest.raises(InputRefused, match="norm is 'layer', which cannot be said on the other side"):
        rules.translate(B, {"norm": "layer"})


def test_a_field_that_means_nothing_may_hold_anything() -> None:
    assert table(const(B, "dropout", 0.0, also=[ANYTHING])).translate(B, {"dropout": 0.3}).target == {}


def test_a_derived_field_follows_from_the_other_side() -> None:
    rules = table(*same("size"), derived(B, "twice", lambda config: 2 * config["size"]))
    assert rules.translate(A, {"size": 2}).target == {"size": 2, "twice": 4}
    with pytest.raises(InputRefused, match=r"twice is 5.*would become 4"):
        rules.translate(B, {"size": 2, "twice": 5})


def test_a_field_that_is_absent_is_not_written() -> None:
    rules = table(derived(B, "window", lambda config: ABSENT))
    assert rules.translate(A, {}).target == {}


def test_a_value_that_would_come_back_changed_is_refused_by_name() -> None:
    halve = group(["size"], ["half"], lambda a: {"half": a["size"] // 2}, lambda b: {"size": b["half"] * 2})
    assert table(halve).translate(A, {"size": 4}).target == {"half": 2}
    with pytest.raises(InputRefused, match=r"^source.json: size is 5.*would become 4"):
        table(halve).translate(A, {"size": 5}, where="source.json")


def test_rules_move_into_a_larger_config_and_so_do_their_messages() -> None:
    rows: Sequence[ConfigRow] = (renamed("act", "nonlinearity", {"silu": "swiglu"}), Fallback("bos", 1))
    moved = at(rows, "text", "parts.0.model")
    assert table(*moved).translate(A, {"text": {"act": "silu"}}).target == {
        "parts": [{"model": {"nonlinearity": "swiglu"}}]
    }
    with pytest.raises(InputRefused, match=r"text\.act is 'tanh'"):
        table(*moved).translate(A, {"text": {"act": "tanh"}})
    assert moved[1] == Fallback("text.bos", 1)


def test_a_field_of_b_that_is_overruled_is_dropped_with_what_it_was() -> None:
    rules = table(*same("size"), const(B, "dropout", 0.0, also=[ANYTHING]), const(B, "norm", "rms", also=["RMS"]))
    found = rules.translate(B, {"size": 1, "dropout": 0.1, "norm": "RMS"})
    assert {each.subject for each in found.dropped} == {"dropout", "norm"}
    assert any("0.1" in each.why and "0.0" in each.why for each in found.dropped)
    assert rules.translate(B, {"size": 1, "dropout": 0.0, "norm": "rms"}).dropped == ()


def test_a_field_of_a_that_may_change_is_not_dropped() -> None:
    rules = table(*same("size"), const(A, "kind", "llama", also=[None]))
    assert rules.translate(A, {"size": 1, "kind": None}).dropped == ()


# --- what no rule owns ----------------------------------------------------------------------------------------------


def test_from_side_a_what_no_rule_owns_is_carried() -> None:
    found = table(Fallback("bos", 1)).translate(A, {"torch_dtype": "bfloat16", "bos": 5})
    assert found.carried == ("torch_dtype", "bos")
    assert found.dropped == ()


def test_what_is_ignored_is_dropped_with_its_reason() -> None:
    found = table(ignored(A, "auto_map", why="names code")).translate(A, {"auto_map": {"x": "y"}})
    assert found.dropped == (Remark("auto_map", "names code"),)
    assert found.carried == ()


def test_what_is_limited_travels_with_an_allowed_value_only() -> None:
    rules = table(limited(A, "tp", None, 1, why="splits the weights"))
    assert rules.translate(A, {"tp": 1}).carried == ("tp",)
    with pytest.raises(InputRefused, match="tp is 2: splits the weights"):
        rules.translate(A, {"tp": 2})


def test_from_side_b_what_no_rule_owns_must_be_the_default() -> None:
    rules = table(b={"size": {"default": 3}, "old": {"deprecated": True}})
    assert rules.translate(B, {"size": 3}).dropped == ()
    assert rules.translate(B, {"old": 1}).dropped[0].subject == "old"
    with pytest.raises(InputRefused, match="size is 4, which has no counterpart"):
        rules.translate(B, {"size": 4})


def test_what_the_schema_forbids_is_refused_by_name() -> None:
    rules = table(*same("size"), a={"size": {"type": "integer"}})
    with pytest.raises(InputRefused, match=r"^config: size: 'x' is not of type 'integer'"):
        rules.translate(A, {"size": "x"})


def test_between_releases_every_field_stays_but_those_that_nobody_reads() -> None:
    space = Space(lambda _: {"": Schema("s", {"properties": {"size": {"default": 7}, "old": {"deprecated": True}}})})
    rules = Unchanged((), space, space)
    found = rules.translate(A, {"own": 1, "old": 2})
    assert (found.source, found.target) == ({"size": 7, "own": 1, "old": 2}, {"own": 1})
    assert [each.subject for each in found.dropped] == ["old"]
    assert list(rules.differences(B, {"own": 1, "none": None}, {"own": 2})) == ["own is 2, expected 1"]


def test_between_releases_differences_are_named_as_deep_as_they_lie() -> None:
    space = Space(lambda _: {"": Schema("s", {"properties": {}})})
    rules = Unchanged((), space, space)
    one: dict[str, Any] = {"text": {"size": 1, "same": 2, "none": None}, "units": [3]}
    two: dict[str, Any] = {"text": {"size": 4, "same": 2}, "units": [3, None]}
    assert list(rules.differences(B, one, two)) == [
        "text.size is 4, expected 1",
        "units.1 is None, expected absent",
    ]
    one, two = {"size": 1, "text": None}, {"size": 1, "text": {"size": None}}
    assert list(rules.differences(B, one, two)) == ["text is {}, expected absent"]


def test_a_difference_between_configs_is_named_unless_it_means_the_same() -> None:
    rules = table(*same("size", "norm"), const(B, "dropout", 0.0, also=[ANYTHING]))
    assert list(rules.differences(B, {"size": 1, "dropout": 0.0}, {"size": 1, "dropout": 0.5, "norm": None})) == []
    assert list(rules.differences(B, {"size": 1}, {"size": 2})) == ["size is 2, expected 1"]
