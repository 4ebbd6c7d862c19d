"""Row rules: one list of rows, its inverse, and one after the other."""

from __future__ import annotations

import random

import pytest

from mmconvert.rows import (
    FILLED,
    Index,
    compose,
    inverse,
    is_identity,
    is_permutation,
    roll_cls,
    roll_index,
    rotary,
    rotary_index,
)


def test_a_head_goes_from_halves_to_pairs() -> None:
    assert list(rotary_index(12, 2, 6)) == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_rows_past_the_rotary_ones_stay() -> None:
    assert list(rotary_index(10, 1, 4)) == [0, 2, 1, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("rotary_dim", [12, 20, 96, 8])
@pytest.mark.parametrize("head_dim", [12, 20, 96])
def test_an_interleave_is_a_permutation_within_each_head(head_dim: int, rotary_dim: int) -> None:
    rotary_dim = min(rotary_dim, head_dim)
    index = rotary_index(3 * head_dim, 3, rotary_dim)
    assert is_permutation(index)
    assert all(source // head_dim == target // head_dim for target, source in enumerate(index))
    assert is_identity(index) == (rotary_dim <= 2)


def test_a_rule_says_in_words_what_it_was_given() -> None:
    index, words = rotary("heads", "size").for_rows(8, {"heads": 2, "size": 4, "other": 7})
    assert list(index) == [0, 2, 1, 3, 4, 6, 5, 7]
    assert "2" in words
    assert "heads" in words


def test_the_class_token_moves_from_first_to_last() -> None:
    assert list(roll_cls.for_rows(4, {})[0]) == [1, 2, 3, 0]


def test_the_inverse_undoes() -> None:
    shuffled = random.Random(0).sample(range(50), 50)
    for index in (rotary_index(60, 3, 20), roll_index(7), shuffled):
        assert compose(index, inverse(index), len(index)) is None
        assert compose(inverse(index), index, len(index)) is None


def test_composition_takes_rows_through_both() -> None:
    first, second = [2, 0, 1], [1, 0, 2]
    rows = ["a", "b", "c"]
    between = [rows[at] for at in first]
    composed = compose(first, second, 3)
    assert composed is not None
    assert [rows[at] for at in composed] == [between[at] for at in second]


def test_nothing_composed_with_something_is_that_thing() -> None:
    assert compose(None, None, 2) is None
    assert compose([1, 0], None, 2) == [1, 0]
    assert compose(None, [1, 0], 2) == [1, 0]
    assert compose(None, [0, 1], 2) is None


@pytest.mark.parametrize(
    ("index", "expected"), [([0, 1, 2], True), ([2, 0, 1], True), ([0, 0, 1], False), ([1, 2], False)]
)
def test_a_permutation_has_every_row_once(index: list[int], expected: bool) -> None:
    assert is_permutation(index) is expected


# --- rows of one side alone ------------------------------------------------------------------------------------------


def as_list(index: Index | None) -> list[int] | None:
    return None if index is None else list(index)


@pytest.mark.parametrize(
    ("index", "rows", "expected"),
    [
        (range(3), 5, [0, 1, 2, FILLED, FILLED]),
        (range(3), 3, [0, 1, 2]),
        (range(3), None, [0, 1, 2]),
        ([2, 0, 1], 4, [1, 2, 0, FILLED]),
        # A row in the middle that is left out.
        ([3, 0, 2], 4, [1, FILLED, 2, 0]),
    ],
)
def test_the_inverse_of_a_cut_fills_what_was_left_out(index: Index, rows: int | None, expected: list[int]) -> None:
    assert as_list(inverse(index, rows)) == expected


def test_what_is_filled_stays_so_through_another_order() -> None:
    assert as_list(compose([2, 0, FILLED], [2, 1, 0], 3)) == [FILLED, 0, 2]
    # Never the last row, which -1 would be to a list.
    assert as_list(compose([0, 1], [1, FILLED, 0, FILLED], 2)) == [1, FILLED, 0, FILLED]
    assert as_list(compose([0, 1, FILLED], None, 2)) == [0, 1, FILLED]
    assert as_list(compose(None, [0, 1, FILLED], 2)) == [0, 1, FILLED]


def test_a_cut_is_no_identity_though_each_row_that_is_left_stays() -> None:
    assert as_list(compose(range(3), None, 5)) == [0, 1, 2]
    assert as_list(compose(None, range(3), 5)) == [0, 1, 2]
    assert as_list(compose([0, 1, 2, 3], range(3), 5)) == [0, 1, 2]
    assert compose(range(5), None, 5) is None


def test_filled_up_and_cut_again_is_as_it_was() -> None:
    up = inverse(range(3), 5)
    assert compose(up, range(3), 3) is None
    assert as_list(compose(up, range(4), 3)) == [0, 1, 2, FILLED]


def test_cut_and_filled_up_again_is_not_as_it_was() -> None:
    assert as_list(compose(range(3), inverse(range(3), 5), 5)) == [0, 1, 2, FILLED, FILLED]
    assert as_list(compose(range(3), inverse(range(3), 4), 5)) == [0, 1, 2, FILLED]


def test_what_is_filled_is_no_identity_and_no_permutation() -> None:
    assert not is_identity([0, FILLED])
    assert not is_permutation([0, FILLED])
