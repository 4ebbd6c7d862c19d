"""Tables, written out for a config: which keys, in which order, of which shape."""

from __future__ import annotations

from mmconvert.rows import roll_cls
from mmconvert.spec import A, B, Sizes, expand, key, mount, only, table, twin

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
    expansion = expand([mount(inner, part="text", a="left/", b="right.", a_config="text")], {"text": {"hidden": 3}})
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
