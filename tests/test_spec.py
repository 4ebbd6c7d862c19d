"""Tables, written out for a config: which keys, in which order, of which shape."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mmconvert.rows import roll_cls
from mmconvert.spec import (
    MAX_PAIRS,
    MAX_ROWS,
    A,
    B,
    Expansion,
    Sizes,
    Table,
    TooMany,
    expand,
    key,
    made,
    mount,
    only,
    reflected,
    table,
    twin,
)

SIZES: Sizes = {"H": 4, "F": 6, "i": 2, "j": range(1, 3), "yes": True, "no": False}


def names(*rows: object, side: str = "a") -> list[str]:
    """The keys that these rows give on one side."""
    expansion = expand([table(*rows, sizes=lambda config: SIZES)], {})  # type: ignore[arg-type]
    return [pair.a if side == "a" else pair.b for pair in expansion.pairs]


def test_rows_of_a_layer_come_out_layer_by_layer() -> None:
    rows = (
        key("first.weight", "f", "H"),
        key("layers.{i}.up.weight", "u{i}", "F H"),
        key("layers.{i}.down.weight", "d{i}", "H F"),
        key("last.weight", "l", "H"),
    )
    assert names(*rows) == [
        "first.weight",
        *("layers.0.up.weight", "layers.0.down.weight"),
        *("layers.1.up.weight", "layers.1.down.weight"),
        "last.weight",
    ]


def test_a_factor_multiplies_a_capture_on_its_side() -> None:
    row = key("projector.{2j}.{p}", "ffn.{j}.{p}", "H H")
    assert names(row) == ["projector.2.weight", "projector.4.weight"]
    assert names(row, side="b") == ["ffn.1.weight", "ffn.2.weight"]


def test_a_bias_is_there_if_the_row_or_the_config_says_so() -> None:
    assert names(key("a.{p}", "b.{p}", "H F")) == ["a.weight"]
    assert names(key("a.{p}", "b.{p}", "H F", bias=True)) == ["a.weight", "a.bias"]
    assert names(key("a.{p}", "b.{p}", "H F", bias="yes")) == ["a.weight", "a.bias"]
    assert names(key("a.{p}", "b.{p}", "H F", bias="no")) == ["a.weight"]


def test_a_bias_has_the_first_size_and_its_weights_fan_in() -> None:
    row = key("a.{p}", "b.{p}", "H F F", bias=True)
    pairs = expand([table(row, sizes=lambda config: SIZES)], {}).pairs
    assert [(pair.shape, pair.fan_in) for pair in pairs] == [((4, 6, 6), 36), ((4,), 36)]


def test_a_row_is_there_only_when_the_config_says_so() -> None:
    assert names(key("a", "b", "H", when="yes"), key("c", "d", "H", when="no")) == ["a"]


def test_rows_are_ordered_by_the_rule() -> None:
    (pair,) = expand([table(key("a", "b", "H F", roll_cls), sizes=lambda config: SIZES)], {}).pairs
    assert pair.index is not None
    assert list(pair.index) == [1, 2, 3, 0]
    assert pair.rule == "class-token row moved from first to last"


def test_a_mounted_table_stands_under_its_prefixes_and_reads_its_own_config() -> None:
    inner = table(
        key("x.{p}", "y.{p}", "H"),
        only(A, "buffers.{i}", why="a buffer"),
        twin(B, "copy", of="y.weight", why="twice"),
        sizes=lambda config: {"H": config["hidden"], "i": 1},
    )
    expansion = expand([mount(inner, part="text", a="left/", b="right.", config="text")], {"text": {"hidden": 3}})
    (pair,) = expansion.pairs
    assert (pair.a, pair.b, pair.shape, pair.part) == ("left/x.weight", "right.y.weight", (3,), "text")
    (copy,) = expansion.twins
    assert (copy.key, copy.of) == ("right.copy", "right.y.weight")
    assert expansion.dropped(A, "left/buffers.17") == "a buffer"
    assert expansion.dropped(B, "left/buffers.17") is None
    assert expansion.dropped(A, "left/x.weight") is None


def test_pairs_are_found_by_their_name_on_either_side() -> None:
    expansion = expand([table(key("a", "b", "H"), sizes=lambda config: SIZES)], {})
    assert expansion.by_name[A]["a"] is expansion.by_name[B]["b"]


def test_a_table_mounted_on_a_list_stands_once_for_each_of_its_items() -> None:
    mounted = mount(
        table(key("x", "y", "H"), sizes=lambda config: {"H": config["hidden"]}),
        part="vision",
        a="left.{e}.",
        b="right.{e}.0.",
        config="items.{e}.encoder",
    )
    config = {"items": [{"encoder": {"hidden": 3}}, {"encoder": None}, {"encoder": {"hidden": 5}}]}
    assert [(pair.a, pair.b, pair.shape) for pair in expand([mounted], config).pairs] == [
        ("left.0.x", "right.0.0.y", (3,)),
        ("left.2.x", "right.2.0.y", (5,)),
    ]


def test_a_table_mounted_where_the_config_has_nothing_has_no_rows() -> None:
    mounted = mount(table(key("x", "y", "H"), sizes=lambda config: {"H": 1}), part="p", config="projector")
    assert expand([mounted], {}).pairs == expand([mounted], {"projector": None}).pairs == ()


def test_a_size_may_differ_from_one_captured_layer_to_the_next() -> None:
    rows = key("x.{j}", "y.{j}", "U[j] I[j]")
    pairs = expand([table(rows, sizes=lambda config: {"j": 2, "U": [5, 7], "I": [3, 5]})], {}).pairs
    assert [pair.shape for pair in pairs] == [(5, 3), (7, 5)]


def test_a_tensor_of_one_side_only_is_expected_there_by_nobody_and_left_behind() -> None:
    head = made("head", "H", init="head", why="there is none")
    expansion = expand([table(head, sizes=lambda config: {"H": 2})], {})
    assert expansion.by_name[A].keys() == {"head"}
    assert expansion.by_name[B] == {}
    assert expansion.dropped(B, "head") == "there is none"


def test_a_twin_goes_with_the_part_of_the_tensor_that_it_repeats() -> None:
    rows = table(key("x", "y", "H"), twin(B, "copy", of="y", why="tied"), sizes=lambda config: {"H": 2})
    parts = [mount(rows, part=part, a=f"{part}/", b=f"{part}.") for part in ("text", "vision")]
    text = expand(parts, {}).only("text")
    assert [twin.key for twin in text.twins] == ["text.copy"]
    assert text.dropped(B, "vision.copy") == text.dropped(B, "vision.y") == "belongs to another part than the text"
    assert text.dropped(B, "text.copy") is None


def test_a_reflected_table_names_side_b_twice_and_moves_nothing() -> None:
    rows = (
        key("q", "Q", "H", roll_cls),
        only(A, "buffer", why="a buffer"),
        twin(B, "copy", of="Q", why="twice"),
        twin(A, "tied", of="q", why="tied"),
    )
    mounted = reflected(mount(table(*rows, sizes=lambda config: {"H": 2}), part="p", a="left.", b="right."))
    expansion = expand([mounted], {})
    assert [(pair.a, pair.b, pair.index) for pair in expansion.pairs] == [("right.Q", "right.Q", None)]
    assert [(twin.side, twin.key) for twin in expansion.twins] == [(A, "right.copy"), (B, "right.copy")]
    assert expansion.left_behind == ()


# --- sizes that side a has larger -------------------------------------------------------------------------------------

VOCABULARY = mount(
    table(
        key("embed", "E", "V H"),
        key("head.{p}", "L.{p}", "V H", bias=True),
        key("up", "U", "H V"),
        key("norm", "N", "H"),
        twin(B, "copy", of="E", why="tied"),
        sizes=lambda config: {"V": config["tokens"], "H": 4},
    ),
    part="text",
    a="left.",
    b="right.",
    config="text",
    a_sizes={"V": "inner.vocab_size"},
)


def vocabulary(tokens: int, rows: int, mounted: Table = VOCABULARY) -> Expansion:
    return expand([mounted], {"text": {"tokens": tokens}}, {"inner": {"vocab_size": rows}})


def test_rows_of_side_a_alone_follow_those_of_both() -> None:
    expansion = vocabulary(5, 8)
    embed = expansion.by_name[A]["left.embed"]
    assert (embed.shape_on(A), embed.shape_on(B)) == ((8, 4), (5, 4))
    assert list(embed.index or ()) == [0, 1, 2, 3, 4]
    assert (embed.rule, embed.rule_back) == (
        "the first 5 of 8 rows",
        "copied, and 3 rows added, each the mean of the others",
    )
    assert expansion.by_name[B]["right.E"] is embed


def test_only_tensors_whose_rows_are_of_this_size_have_more() -> None:
    shapes = {name: (pair.shape_on(A), pair.shape_on(B)) for name, pair in vocabulary(5, 8).by_name[A].items()}
    assert shapes == {
        "left.embed": ((8, 4), (5, 4)),
        "left.head.weight": ((8, 4), (5, 4)),
        "left.head.bias": ((8,), (5,)),
        "left.up": ((4, 5), (4, 5)),
        "left.norm": ((4,), (4,)),
    }


def test_without_such_sizes_both_sides_have_one_shape_and_side_a_s_config_is_not_asked() -> None:
    plain = mount(VOCABULARY, part="text", config="text")
    (embed, *_) = expand([plain], {"text": {"tokens": 5}}).pairs
    assert (embed.shape_on(A), embed.index, embed.a_rows) == ((5, 4), None, None)
    assert (embed.rule, embed.rule_back) == ("copied", "copied")


def test_side_a_cannot_have_fewer_rows() -> None:
    with pytest.raises(ValueError, match="4 rows cannot begin with 5"):
        vocabulary(5, 4)


def test_a_size_that_side_a_s_config_does_not_have_is_no_size() -> None:
    with pytest.raises(TypeError):
        expand([VOCABULARY], {"text": {"tokens": 5}}, {"inner": {}})


def test_between_releases_of_side_b_nobody_has_more_rows() -> None:
    pairs = expand([reflected(VOCABULARY)], {"text": {"tokens": 5}}).pairs
    assert {(pair.a, pair.shape_on(A), pair.index) for pair in pairs if pair.a == "right.E"} == {
        ("right.E", (5, 4), None)
    }


def test_more_tensors_than_any_model_has_are_refused_before_they_are_made() -> None:
    layered = [mount(table(key("{i}.w", "{i}.v", "", bias=True), sizes=dict), part="text", config="c")] * 2
    sizes = {"i": MAX_PAIRS // 2}
    assert len(expand(layered, {"c": sizes}).pairs) == MAX_PAIRS
    for too_many in (MAX_PAIRS // 2 + 1, 2**62):
        with pytest.raises(TooMany, match="more than 10,000 tensors"):
            expand(layered, {"c": {"i": too_many}})


ROLLED = table(key("w", "v", "N", roll_cls), sizes=dict)


def test_more_rows_in_an_order_of_their_own_than_any_model_has_are_refused() -> None:
    def rolled(*rows: int) -> Expansion:
        return expand([mount(ROLLED, part="text", config=f"c{at}") for at in range(len(rows))], sized(rows))

    def sized(rows: Sequence[int]) -> dict[str, Sizes]:
        return {f"c{at}": {"N": count} for at, count in enumerate(rows)}

    assert len(rolled(10, 11).pairs) == 2
    with pytest.raises(TooMany, match="4,294,967,296 rows in an order of their own"):
        rolled(1 << 32)
    with pytest.raises(TooMany, match=f"{MAX_ROWS // 2 * 2 + 1:,} rows"):
        rolled(MAX_ROWS // 2, MAX_ROWS // 2 + 1)
